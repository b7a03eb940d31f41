// broker_fixture.h — a broker's core as the unit tests drive it: members, sockets, frames.
// Owns:   BrokerTest: a core over a real store, and what it sent in the last iteration.
// Holds:  each iteration is: events, step, commit, effects; verify_all() after every one.
// Not:    the tests (broker_*_test.cc), what both cores share (core_fixture.h).
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "core/broker/broker.h"
#include "core/crypto/canonical.h"
#include "core/crypto/sign.h"
#include "core/wire/limits.h"
#include "tests/unit/core_fixture.h"

namespace cm::broker {

using store::TableId;

inline constexpr std::string_view kToken = "the-admin-token-of-the-tests";

struct Sent {
  EffectKind kind;
  ConnRef conn;
  std::uint32_t code;
  std::string text;
};

// A hello as it will be written; what a test leaves alone is valid.
struct HelloText {
  std::string mesh, member, pubkey, session, session_id = "session-1";
  std::optional<std::string> timestamp, signature;
};

class BrokerTest : public ::testing::Test {
 protected:
  void start() {
    core_.reset();
    config_.hosts = {"broker.example"};
    parts_.open();
    core_.emplace(config_, parts_.limits, parts_.env, effects_, parts_.metrics, parts_.slab);
    ASSERT_TRUE(core_->load());
    core_->set_admin_token_hash(crypto::sha256(as_bytes(kToken)));
    ASSERT_NE(parts_.store->commit(), store::CommitResult::kFailed);
    parts_.end_reading();
  }
  // A mesh with `count` members.
  void found(std::size_t count) {
    start();
    for (std::size_t index = 0; index < count; ++index) {
      members_.push_back(Member::make());
      Member& made = members_.back();
      if (index == 0) {
        const std::string mesh =
            http("POST", "/cli/mesh/create",
                 R"({"name":"crew","pubkey":")" + made.hex + R"(","display_name":"m0"})", true);
        ASSERT_EQ(status_, 200u) << mesh;
        mesh_ = field(mesh, "id");
        made.id = field(mesh, "member_id");
      } else {
        made.id = field(join(invite(), made, "m" + std::to_string(index)), "memberId");
        ASSERT_EQ(status_, 200u);
      }
    }
  }
  std::string invite(std::string_view body = "{}") {
    return field(http("POST", "/cli/mesh/crew/invite", std::string(body), true), "token");
  }
  std::string payload_of(const std::string& token) {
    const auto payload = crypto::base64url_decode(token, parts_.scratch);
    CHECK(payload);
    return std::string(as_text(*payload));
  }
  std::string join(const std::string& token, const Member& who, const std::string& name) {
    return join_with(token, payload_of(token), who, name);
  }
  std::string join_with(const std::string& token, const std::string& payload, const Member& who,
                        const std::string& name) {
    return http("POST", "/join",
                R"({"invite_token":")" + token + R"(","invite_payload":)" + payload +
                    R"(,"peer_pubkey":")" + who.hex + R"(","display_name":")" + name + "\"}");
  }

  // Ends the iteration. False when the commit failed.
  bool run() {
    core_->step();
    const bool done = parts_.store->commit() <= store::CommitResult::kCommitted;
    if (done) {
      core_->committed();
    } else {
      core_->abandon();
    }
    sent_.clear();
    for (const Effect& effect : effects_.list()) {
      sent_.push_back({effect.kind, effect.conn, effect.code, std::string(effect.text)});
    }
    effects_.clear();
    EXPECT_STREQ(core_->verify_all(), nullptr);
    parts_.end_reading();
    return done;
  }
  bool later(std::uint64_t ms) {
    parts_.advance(ms);
    return run();
  }
  std::string http(std::string_view method, std::string_view path, const std::string& body = {},
                   bool admin = false, bool loopback = true) {
    const std::string authority = "Bearer " + std::string(kToken);
    wire::HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = body;
    if (admin) request.authorization = authority;
    request.peer_is_loopback = loopback;
    return request_of(request);
  }
  std::string request_of(const wire::HttpRequest& request) {
    core_->on_http({9999, 1}, request);
    run();
    for (const Sent& sent : sent_) {
      if (sent.kind != EffectKind::kHttpReply) continue;
      status_ = sent.code;
      return sent.text;
    }
    status_ = 0;
    return {};
  }

  // A request signed by a member (design/presence.md).
  std::string signed_http(const Member& who, std::string_view method, std::string_view path,
                          const std::string& body = {}, std::string nonce = {}) {
    parts_.advance(1);
    const std::string time = std::to_string(parts_.env.wall_ms);
    if (nonce.empty()) nonce = "nonce-0123456789-" + time;
    const crypto::Hash32 hash = crypto::sha256(as_bytes(std::string_view(body)));
    const std::string authority =
        "CM-Member " + who.hex + ":" + time + ":" + nonce + ":" +
        who.sign("claudemesh-http-v1|" + std::string(method) + "|" + std::string(path) + "|" +
                 std::string(crypto::view(crypto::hex_text(hash))) + "|" + time + "|" + nonce +
                 "|" + signed_host_);
    wire::HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = body;
    request.host = signed_host_;
    request.peer_is_loopback = signed_loopback_;
    request.authorization = authority;
    last_authority_ = authority;
    return request_of(request);
  }
  ConnRef open() {
    const ConnRef conn{next_conn_++, 1};
    core_->on_open(conn);
    return conn;
  }
  HelloText hello_of(const Member& who) {
    return {mesh_, who.id, who.hex, "", "session-1", {}, {}};
  }
  // Signed freshly: one millisecond makes another signature.
  std::string write(const Member& who, HelloText hello) {
    parts_.advance(1);
    const std::string time = hello.timestamp.value_or(std::to_string(parts_.env.wall_ms));
    const std::string signature = hello.signature.value_or(
        who.sign(hello.mesh + "|" + hello.member + "|" + who.hex + "|" + time));
    std::string text = R"({"type":"hello","meshId":")" + hello.mesh + R"(","memberId":")" +
                       hello.member + R"(","pubkey":")" + hello.pubkey + R"(","sessionId":")" +
                       hello.session_id + R"(","pid":7,"cwd":"/w",)";
    if (!hello.session.empty()) text += R"("sessionPubkey":")" + hello.session + "\",";
    return text + R"("timestamp":)" + time + R"(,"signature":")" + signature + "\"}";
  }
  ConnRef connect(const Member& who, std::string session = {}, std::string session_id = {}) {
    const ConnRef conn = open();
    HelloText hello = hello_of(who);
    hello.session = std::move(session);
    hello.session_id = session_id.empty() ? "s-" + std::to_string(next_conn_) : session_id;
    core_->on_text(conn, write(who, hello));
    run();
    EXPECT_EQ(field(first(conn), "type"), "hello_ack") << first(conn);
    return conn;
  }
  // A session of `parent`; `caps` (a JSON array) makes the attestation version 2.
  struct SessionText {
    Member parent, session;
    std::string caps;
    std::string groups;
    std::int64_t ttl_ms = 12 * 3600 * 1000;
    std::string capabilities_csv;
  };
  static SessionText session_of(const Member& parent) {
    SessionText text;
    text.parent = parent;
    text.session = Member::make();
    return text;
  }
  std::string write_session(const SessionText& hello) {
    parts_.advance(1);
    const std::string time = std::to_string(parts_.env.wall_ms);
    const std::string expires =
        std::to_string(static_cast<std::int64_t>(parts_.env.wall_ms) + hello.ttl_ms);
    const bool second = !hello.caps.empty();
    const std::string attested = hello.parent.sign(
        "claudemesh-session-attest" + std::string(second ? "-v2|" : "|") + hello.parent.hex + "|" +
        hello.session.hex + "|" + expires + (second ? "|" + hello.capabilities_csv : ""));
    const std::string signature =
        hello.session.sign("claudemesh-session-hello|" + mesh_ + "|" + hello.parent.hex + "|" +
                           hello.session.hex + "|" + time);
    return R"({"type":"session_hello","meshId":")" + mesh_ + R"(","parentMemberId":")" +
           hello.parent.id + R"(","parentMemberPubkey":")" + hello.parent.hex +
           R"(","sessionPubkey":")" + hello.session.hex +
           R"(","parentAttestation":{"sessionPubkey":")" + hello.session.hex +
           R"(","parentMemberPubkey":")" + hello.parent.hex + R"(","expiresAt":)" + expires +
           R"(,"signature":")" + attested + "\"" +
           (second ? R"(,"version":2,"allowed_caps":)" + hello.caps : "") +
           R"(},"displayName":"worker","sessionId":"u-1","pid":9,"cwd":"/s",)" +
           (hello.groups.empty() ? "" : "\"groups\":" + hello.groups + ",") + R"("timestamp":)" +
           time + R"(,"signature":")" + signature + "\"}";
  }
  ConnRef connect_session(const SessionText& hello) {
    const ConnRef conn = open();
    core_->on_text(conn, write_session(hello));
    run();
    EXPECT_EQ(field(first(conn), "type"), "hello_ack") << first(conn);
    return conn;
  }
  // The last frame of this type that the frame in hand made.
  std::string ask(ConnRef conn, const std::string& frame, std::string_view type) {
    text(conn, frame);
    const auto found = frames(conn, type);
    return found.empty() ? std::string() : found.back();
  }
  void text(ConnRef conn, std::string_view frame) {
    core_->on_text(conn, frame);
    run();
  }
  std::string send_text(const std::string& target, const std::string& id,
                        const std::string& fingerprint = std::string(64, 'a'),
                        const std::string& priority = "next",
                        const std::string& ciphertext = "AAAA") {
    std::string out = R"({"type":"send","targetSpec":")" + target + R"(","priority":")" + priority +
                      R"(","nonce":"","ciphertext":")" + ciphertext + "\"";
    if (!id.empty()) {
      out += R"(,"id":")" + id + R"(","client_message_id":")" + id +
             R"(","request_fingerprint":")" + fingerprint + "\"";
    }
    return out + "}";
  }
  // The ack of a send.
  std::string send(ConnRef conn, const std::string& target, const std::string& id,
                   const std::string& fingerprint = std::string(64, 'a')) {
    text(conn, send_text(target, id, fingerprint));
    for (const std::string& frame : frames(conn)) {
      if (field(frame, "type") == "ack") return frame;
    }
    return {};
  }
  void ack(ConnRef conn, const std::string& broker_id) {
    text(conn, R"({"type":"client_ack","brokerMessageId":")" + broker_id + "\"}");
  }

  std::vector<std::string> frames(ConnRef conn, std::string_view type = {}) const {
    std::vector<std::string> found;
    for (const Sent& sent : sent_) {
      if (sent.kind != EffectKind::kWsText || !(sent.conn == conn)) continue;
      if (type.empty() || field(sent.text, "type") == type) found.push_back(sent.text);
    }
    return found;
  }
  std::string first(ConnRef conn) const {
    const auto all = frames(conn);
    return all.empty() ? std::string() : all.front();
  }
  std::vector<std::string> pushed(ConnRef conn) const {
    std::vector<std::string> ids;
    for (const std::string& frame : frames(conn, "push")) {
      if (field(frame, "subtype").empty()) ids.push_back(field(frame, "client_message_id"));
    }
    return ids;
  }
  std::size_t events(ConnRef conn, std::string_view event) const {
    std::size_t count = 0;
    for (const std::string& frame : frames(conn, "push")) count += field(frame, "event") == event;
    return count;
  }
  // Close code, or 0.
  std::uint32_t closed(ConnRef conn) const {
    for (const Sent& sent : sent_) {
      if (sent.kind == EffectKind::kWsClose && sent.conn == conn) return sent.code;
    }
    return 0;
  }
  using Texts = std::vector<std::string>;

  Config config_;
  CoreParts parts_{store::Role::kBroker};
  Effects effects_;
  std::optional<Broker> core_;
  std::vector<Member> members_;
  std::vector<Sent> sent_;
  std::string mesh_;
  std::uint32_t status_ = 0;
  std::string last_authority_;
  std::string signed_host_ = "broker.example";
  bool signed_loopback_ = false;
  std::uint32_t next_conn_ = 0;
};

}  // namespace cm::broker
