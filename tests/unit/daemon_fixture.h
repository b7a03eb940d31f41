// daemon_fixture.h — the daemon's core by its events and effects, over a real store.
// Owns:   DaemonTest, on which the daemon_*_test.cc files stand.
// Holds:  each iteration is: events, step, commit, effects; verify_all() after every one. The
//         broker is the test: it writes the frames itself.
// Not:    transports (ws_broker_test.cc), crashes at any instant (tests/sim).
#pragma once

#include <optional>

#include "core/daemon/daemon.h"

#include "core/crypto/sign.h"
#include "tests/unit/core_fixture.h"

namespace cm::daemon {

using store::OutboxStatus;
using store::TableId;

struct Done {
  EffectKind kind;
  std::uint32_t code;
  LinkRef link;
  ConnRef conn;
  std::string text;
  std::string next;  // kHttpReply: the target of the following page
};

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    self_ = Member::make();
    bob_ = Member::make();
    eve_ = Member::make();
  }
  void start(std::size_t meshes = 1) {
    core_.reset();
    parts_.open();
    Config config = config_;
    config.session_id = "daemon-1-x";
    core_.emplace(config, parts_.limits, parts_.env, effects_, parts_.metrics, parts_.slab);
    links_.clear();
    for (std::size_t index = 0; index < meshes; ++index) {
      MeshConfig mesh;
      mesh.mesh_id = "mesh" + std::to_string(index);
      mesh.member_id = "me";
      mesh.slug = index == 0 ? "crew" : "other";
      mesh.name = "self";
      mesh.broker_url = "ws://broker" + std::to_string(index);
      mesh.key = self_.key;
      mesh.secret = *parts_.slab.store_seed(self_.seed);
      ASSERT_TRUE(core_->add_mesh(mesh));
    }
    ASSERT_TRUE(core_->start());
    run();
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkOpen) links_.push_back(done.link);
    }
    ASSERT_EQ(links_.size(), meshes);
  }
  bool run() {
    core_->step();
    const bool committed = parts_.store->commit() <= store::CommitResult::kCommitted;
    if (committed) {
      core_->committed();
    } else {
      core_->abandon(Err::kDiskFull);
    }
    done_.clear();
    for (const Effect& effect : effects_.list()) {
      done_.push_back({effect.kind, effect.code, effect.link, effect.conn, std::string(effect.text),
                       std::string(effect.next)});
    }
    effects_.clear();
    EXPECT_STREQ(core_->verify_all(), nullptr);
    parts_.end_reading();
    return committed;
  }
  bool later(std::uint64_t ms) {
    parts_.advance(ms);
    return run();
  }

  // --- the broker's side ---
  std::string peer(const Member& who, const std::string& name, const std::string& session = {}) {
    return R"({"pubkey":")" + (session.empty() ? who.hex : session) + R"(","memberPubkey":")" +
           who.hex + R"(","displayName":")" + name + R"(","peerRole":")" +
           (session.empty() ? "control-plane" : "session") + "\"}";
  }
  void frame(const std::string& text, std::size_t mesh = 0) {
    EXPECT_TRUE(core_->on_link_frame(links_[mesh], text)) << text;
    run();
  }
  // The id of a list request among the effects, or empty.
  std::string asked() const {
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == "list_peers") {
        return field(done.text, "_reqId");
      }
    }
    return {};
  }
  void list(const std::string& request, const std::vector<std::string>& peers,
            std::size_t mesh = 0) {
    std::string text = R"({"type":"peers_list","_reqId":")" + request + R"(","peers":[)";
    for (const std::string& entry : peers) text += (text.back() == '[' ? "" : ",") + entry;
    frame(text + "]}", mesh);
  }
  void hello_ack(std::size_t mesh = 0) {
    frame(R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"self"})", mesh);
  }
  void link_up(std::size_t mesh = 0) {
    core_->on_link_event(links_[mesh], LinkEvent::kConnected, 0, {});
    run();
    hello_ack(mesh);
  }
  // A broker that keeps silent when it is asked what it takes.
  void meet_legacy() {
    link_up();
    later(2'000);
  }
  void link_down(std::size_t mesh = 0) {
    core_->on_link_event(links_[mesh], LinkEvent::kConnecting, 1006, "lost");
    run();
  }
  void connect(const std::vector<std::string>& peers, std::size_t mesh = 0) {
    link_up(mesh);
    list(asked(), peers, mesh);
  }
  void good_ack(const std::string& id, std::size_t mesh = 0) {
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":"b1","queued":true})", mesh);
  }
  void refuse(const std::string& id, const std::string& code, const std::string& text) {
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":"","queued":false,"error":")" + text +
          "\"" + (code.empty() ? "" : R"(,"code":")" + code + "\"") + "}");
  }
  // A push that bob encrypted to us.
  std::string push(const std::string& id, const std::string& text, bool damaged = false) {
    std::uint8_t own[32], theirs[32];
    CHECK(crypto_sign_ed25519_pk_to_curve25519(own, self_.key.data()) == 0);
    CHECK(crypto_sign_ed25519_sk_to_curve25519(theirs, bob_.secret.data()) == 0);
    std::uint8_t nonce[24] = {7};
    std::vector<std::uint8_t> sealed(text.size() + 16);
    CHECK(crypto_box_easy(sealed.data(), reinterpret_cast<const unsigned char*>(text.data()),
                          text.size(), nonce, own, theirs) == 0);
    if (damaged) sealed[0] ^= 1;
    TextBuf body(parts_.scratch), nonce_text(parts_.scratch);
    crypto::base64_append(sealed, body);
    crypto::base64_append(nonce, nonce_text);
    return R"({"type":"push","messageId":"broker)" + id + R"(","meshId":"mesh0","senderPubkey":")" +
           bob_.hex + R"(","senderName":"bob","priority":"next","nonce":")" +
           std::string(nonce_text.view()) + R"(","ciphertext":")" + std::string(body.view()) +
           R"(","createdAt":"2026-01-02T03:04:05.000Z","client_message_id":")" + id + "\"}";
  }

  // --- the client's side ---
  ConnRef ask(const std::string& body, const std::string& key = {}) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/v1/send";
    request.body = body;
    request.host = "localhost";
    request.peer_is_unix = true;
    request.idempotency_key = key;
    const ConnRef conn{next_conn_++, 1};
    core_->on_http(conn, request);
    run();
    return conn;
  }
  static std::string body_of(const std::string& to, const std::string& id,
                             const std::string& message = "hi", const std::string& extra = {}) {
    return R"({"to":")" + to + R"(","message":")" + message + "\"" +
           (id.empty() ? "" : R"(,"client_message_id":")" + id + "\"") + extra + "}";
  }
  std::uint32_t send(const std::string& to, const std::string& id,
                     const std::string& message = "hi", const std::string& extra = {}) {
    return status(ask(body_of(to, id, message, extra)));
  }
  ConnRef get(std::string_view path, std::string_view query = {}) {
    wire::HttpRequest request;
    request.method = "GET";
    request.path = path;
    request.query = query;
    request.host = "localhost";
    request.peer_is_unix = true;
    const ConnRef conn{next_conn_++, 1};
    core_->on_http(conn, request);
    run();
    return conn;
  }
  // Any request over the unix socket, or over TCP with an Authorization header.
  ConnRef http(std::string_view method, std::string_view path, std::string_view query = {},
               std::string_view body = {}) {
    wire::HttpRequest request = request_of(method, path, query, body);
    request.peer_is_unix = true;
    return submit(request);
  }
  ConnRef tcp(std::string_view authorization, std::string_view path = "/v1/version",
              std::string_view method = "GET") {
    wire::HttpRequest request = request_of(method, path, {}, {});
    request.authorization = authorization;
    return submit(request);
  }
  static wire::HttpRequest request_of(std::string_view method, std::string_view path,
                                      std::string_view query, std::string_view body) {
    wire::HttpRequest request;
    request.method = method;
    request.path = path;
    request.query = query;
    request.body = body;
    request.host = "localhost";
    return request;
  }
  ConnRef submit(const wire::HttpRequest& request) {
    const ConnRef conn{next_conn_++, 1};
    core_->on_http(conn, request);
    run();
    return conn;
  }
  // The frame of this type that was sent, or empty.
  std::string sent(std::string_view type) const {
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == type) return done.text;
    }
    return {};
  }
  std::string sent_to(std::string_view type, std::size_t mesh) const {
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && done.link == links_[mesh] &&
          field(done.text, "type") == type) {
        return done.text;
      }
    }
    return {};
  }
  // The broker's answer to the last frame of this type: `{"type":T,"_reqId":..,<members>}`.
  void answer(const std::string& request, const std::string& type, const std::string& members,
              std::size_t mesh = 0) {
    ASSERT_FALSE(request.empty());
    frame(R"({"type":")" + type + R"(","_reqId":")" + field(request, "_reqId") + "\"" +
              (members.empty() ? "" : "," + members) + "}",
          mesh);
  }
  std::uint32_t status(ConnRef conn) {
    reply_.clear();
    for (const Done& done : done_) {
      if (done.kind != EffectKind::kHttpReply || !(done.conn == conn)) continue;
      reply_ = done.text;
      return done.code;
    }
    return 0;
  }

  // --- what can be seen ---
  std::vector<std::string> sends() const {  // ids of the sends among the effects
    std::vector<std::string> ids;
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == "send") {
        ids.push_back(field(done.text, "client_message_id"));
      }
    }
    return ids;
  }
  std::size_t count(EffectKind kind, std::string_view part = {}) const {
    std::size_t found = 0;
    for (const Done& done : done_) found += done.kind == kind && has(done.text, part);
    return found;
  }
  struct Row {
    OutboxStatus status;
    std::uint32_t attempts;
    std::string error, target;
    std::uint64_t next_ms;
  };
  std::optional<Row> row(const std::string& id) {
    store::Batch& batch = parts_.store->batch();
    std::optional<Row> found;
    Ulid ulid;
    store::OutboxRow row;
    if (store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                              ulid) &&
        batch.get(TableId::kOutbox, store::ulid_key(ulid).bytes(), row)) {
      found =
          Row{row.fixed.status, row.fixed.attempts, std::string(row.text[store::kOutboxLastError]),
              std::string(row.text[store::kOutboxTarget]), row.fixed.next_attempt_ms};
    }
    parts_.end_reading();
    return found;
  }
  // Changes a stored row behind the core's back; start() afterwards.
  template <class Change>
  void change_row(const std::string& id, Change change) {
    store::Batch& batch = parts_.store->batch();
    Ulid ulid;
    store::OutboxRow row;
    CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                                ulid));
    CHECK(batch.get(TableId::kOutbox, store::ulid_key(ulid).bytes(), row));
    std::array<std::string, store::kOutboxTexts> kept;
    for (std::size_t index = 0; index < kept.size(); ++index) {
      kept[index] = row.text[index];
      row.text[index] = kept[index];
    }
    change(row);
    batch.put(TableId::kOutbox, store::ulid_key(ulid).bytes(), row);
    CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
    parts_.end_reading();
  }
  using Texts = std::vector<std::string>;

  CoreParts parts_{store::Role::kDaemon};
  Config config_;
  Effects effects_;
  std::optional<Daemon> core_;
  std::vector<LinkRef> links_;
  std::vector<Done> done_;
  Member self_, bob_, eve_;
  std::string reply_;
  std::uint32_t next_conn_ = 0;
};

}  // namespace cm::daemon
