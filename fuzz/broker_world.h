// broker_world.h — a whole broker with a mesh of two members, driven by lines.
// Owns:   World, on which broker_fuzz.cc and hello_fuzz.cc stand.
// Input:  lines. The first byte says what happens; + before it: the iteration goes on.
//         0 1 2 a frame of that client (two members, and a session of the first)
//         3     a frame of a stranger               o    another stranger comes
//         c C   that client is gone and comes back; it said goodbye, and stays away
//         h     a request: <who><METHOD> <path>[ <body>]; who is the admin (a), a member by its
//               signature (0, 1), a key that is no member (z), or nobody
//         t M T a second, a minute, a day passes      B    the wall clock goes back an hour
//         x     this iteration's commit fails          k    the process is killed before it
//         r     the process is killed behind it
//         In texts ~a ~b are the members' keys, ~s the session's, ~z one that is no member, ~A ~B
//         their ids, ~w the mesh, ~m the last id that the broker gave, ~i ~p ~c the last invite as
//         a token, as JSON and as a code, ~n ~l now and in an hour, ~S ~T what the signatures of
//         a hello and of its attestation have to be.
// Holds:  every invariant of the mirrors after every line; what the broker sends is JSON with a
//         type, and goes to connections that are open; each request is answered once, in the
//         iteration that it came in; tables and mirrors agree at the end.
// Not:    parsing alone (frame_fuzz.cc), sockets (server_fuzz.cc).
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "core/broker/broker.h"
#include "core/crypto/canonical.h"
#include "core/crypto/sign.h"
#include "fuzz/core_parts.h"
#include "store/schema.h"

namespace cm::fuzz {

class BrokerWorld {
 public:
  BrokerWorld() {
    set_limits();
    config_.hosts = {std::string(kHost)};
    found_mesh();
  }

  void run(std::string_view input) {
    if (parts_.begin()) found_mesh();
    nonces_ = 0;
    last_id_.clear();
    token_.clear();
    payload_.clear();
    code_.clear();
    start();
    connect_all();
    Lines lines(input);
    for (std::string_view line; lines.next(line);) apply(line);
    iterate();
    parts_.expect_sound(store::Role::kBroker);
    core_.reset();
  }

 private:
  using ConnRef = cm::ConnRef;
  static constexpr std::size_t kClients = 3;
  static constexpr std::string_view kToken = "the-admin-token-of-the-fuzzer";
  static constexpr std::string_view kHost = "broker.example";

  // Small, so that inputs reach them, and cheap to check.
  void set_limits() {
    Limits& limits = parts_.limits;
    limits.broker_connections_max = 32;
    limits.mesh_connections_max = 12;
    limits.member_connections_max = 6;
    limits.rate_per_minute = 600;
    limits.rate_burst = 30;
    limits.claim_rows_max = 3;
    limits.claim_bytes_max = 2'048;
    limits.claims_max = 8;
    limits.peers_list_bytes_max = 4'096;
    limits.member_reply_bytes_max = 16'384;
    limits.queue_pair_rows_max = 6;
    limits.queue_pair_bytes_max = 4'096;
    limits.queue_sender_bytes_max = 16'384;
    limits.queue_rows_max = 8;
    limits.queue_bytes_max = 8'192;
    limits.queue_sender_mailboxes_max = 6;
    limits.meshes_max = 3;
    limits.multicast_recipients_max = 4;
    limits.mesh_topics_max = 3;
    limits.topic_members_max = 3;
    limits.state_keys_max = 3;
    limits.memories_max = 4;
    limits.skills_max = 3;
    limits.mailboxes_max = 12;
    limits.presences_max = 12;
    limits.mesh_shared_bytes_max = 8'192;
    limits.search_index_bytes_max = 65'536;
  }
  void start() {
    core_.reset();
    parts_.slab.emplace(16);
    effects_.clear();
    open_.clear();
    closing_.clear();
    asked_.reset();
    fails_ = killed_ = false;
    core_.emplace(config_, parts_.limits, parts_.env, effects_, parts_.metrics, *parts_.slab);
    CHECK(core_->load());
    core_->set_admin_token_hash(crypto::sha256(as_bytes(kToken)));
  }
  void connect_all() {
    for (std::size_t index = 0; index < kClients; ++index) connect(index);
    stranger_ = open();
  }

  // Before the first line: a mesh of two members.
  void found_mesh() {
    start();
    const std::string mesh =
        founding("/cli/mesh/create",
                 R"({"name":"crew","pubkey":")" + alice_.hex + R"(","display_name":"alice"})");
    mesh_ = value_of(mesh, "id");
    members_[0] = value_of(mesh, "member_id");
    const std::string token = value_of(founding("/cli/mesh/crew/invite", "{}"), "token");
    const std::string joined = founding(
        "/join", R"({"invite_token":")" + token + R"(","invite_payload":)" + payload_of(token) +
                     R"(,"peer_pubkey":")" + bob_.hex + R"(","display_name":"bob"})");
    members_[1] = value_of(joined, "memberId");
    CHECK(!mesh_.empty() && !members_[0].empty() && !members_[1].empty());
    parts_.checkpoint();
    core_->committed();
    core_.reset();
    parts_.restart();
  }
  std::string founding(std::string_view path, const std::string& body) {
    const std::string authority = "Bearer " + std::string(kToken);
    wire::HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = body;
    request.authorization = authority;
    request.peer_is_loopback = true;
    core_->on_http({9'999, 1}, request);
    core_->step();
    std::string reply;
    for (const broker::Effect& effect : effects_.list()) {
      if (effect.kind == broker::EffectKind::kHttpReply) reply = effect.text;
    }
    effects_.clear();
    return reply;
  }
  static std::string value_of(std::string_view json, std::string_view key) {
    const std::string mark = "\"" + std::string(key) + "\":\"";
    const std::size_t at = json.find(mark);
    if (at == std::string_view::npos) return {};
    const std::string_view rest = json.substr(at + mark.size());
    return std::string(rest.substr(0, rest.find('"')));
  }
  std::string payload_of(std::string_view token) {
    const auto payload = crypto::base64url_decode(token, parts_.scratch);
    return payload ? std::string(as_text(*payload)) : std::string();
  }

  // --- connections ---
  ConnRef open() {
    const ConnRef conn{next_conn_++, 1};
    if (open_.size() >= parts_.limits.broker_connections_max) return conn;
    open_.insert(conn.slot);
    core_->on_open(conn);
    return conn;
  }
  void close(ConnRef conn, std::uint16_t code) {
    closing_.erase(conn.slot);
    if (open_.erase(conn.slot) != 0) core_->on_closed(conn, code);
  }
  void connect(std::size_t index) {
    parts_.advance(1);  // a hello is accepted once
    clients_[index] = open();
    const std::size_t member = index == 1 ? 1 : 0;
    std::string text = R"({"type":"hello","meshId":"~w","memberId":")" + members_[member] +
                       R"(","pubkey":")" + (member == 1 ? "~b" : "~a") + R"(","sessionId":"s)" +
                       std::to_string(index) + R"(","pid":7,"cwd":"/w",)";
    if (index == 2) text += R"("sessionPubkey":"~s",)";
    frame(clients_[index], text + R"("timestamp":~n,"signature":"~S"})");
    iterate();
  }
  void frame(ConnRef conn, std::string_view text) {
    if (!open_.contains(conn.slot) || closing_.contains(conn.slot)) return;
    core_->on_text(conn, signed_text(expanded(text)));
  }

  void apply(std::string_view line) {
    const bool goes_on = line[0] == '+';
    if (goes_on) line.remove_prefix(1);
    if (line.empty()) return;
    const std::string_view rest = line.substr(1);
    const std::size_t index = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]) % kClients;
    switch (line[0]) {
      case '0':
      case '1':
      case '2': frame(clients_[static_cast<std::size_t>(line[0] - '0')], rest); break;
      case '3': frame(stranger_, rest); break;
      case 'o': stranger_ = open(); break;
      case 'c':
        close(clients_[index], 0);
        iterate();
        connect(index);
        return;
      case 'C': close(clients_[index], 1'000); break;
      case 'h':
        iterate();  // one request in an iteration: its answer is told apart
        http(rest);
        iterate();
        return;
      case 't': parts_.advance(1'000); break;
      case 'M': parts_.advance(60'000); break;
      case 'T': parts_.advance(86'400'000); break;
      case 'B': parts_.env.wall_ms -= 3'600'000; break;
      case 'x':
      case 'k':
        iterate();
        parts_.checkpoint();
        (line[0] == 'x' ? fails_ : killed_) = true;
        return;  // the lines behind it are lost
      case 'r':
        iterate();
        start();
        connect_all();
        return;
      default: return;
    }
    if (!goes_on) iterate();
  }

  // --- texts ---
  std::string expanded(std::string_view text) const {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char next = text[at] == '~' && at + 1 < text.size() ? text[at + 1] : '\0';
      switch (next) {
        case 'a': out += alice_.hex; break;
        case 'b': out += bob_.hex; break;
        case 's': out += session_.hex; break;
        case 'z': out += nobody_.hex; break;
        case 'A': out += members_[0]; break;
        case 'B': out += members_[1]; break;
        case 'w': out += mesh_; break;
        case 'm': out += last_id_; break;
        case 'i': out += token_; break;
        case 'p': out += payload_.empty() ? "{}" : payload_; break;
        case 'c': out += code_; break;
        case 'n': out += std::to_string(parts_.env.wall_ms); break;
        case 'l': out += std::to_string(parts_.env.wall_ms + 3'600'000); break;
        default: out += text[at]; continue;
      }
      ++at;
    }
    return out;
  }
  // With the signatures that it asks for.
  std::string signed_text(std::string text) {
    const std::size_t hello_at = text.find("~S"), attested_at = text.find("~T");
    if (hello_at == text.npos && attested_at == text.npos) return text;
    const std::string zeros(128, '0');
    replace(text, "~S", zeros);
    const std::string plain = replaced(text, "~T", zeros);
    wire::ClientFrame parsed;
    if (!wire::parse_client_frame(parser_, plain, answers_, parsed)) return plain;
    const std::string attestation = attested_at == text.npos ? zeros : attestation_of(parsed);
    const std::string hello = hello_at == text.npos ? zeros : signature_of(parsed);
    replace(text, "~T", attestation);
    // The zeros stand where ~S stood, unless ~T before it moved them.
    const std::size_t zeros_at = text.find(zeros);
    if (hello_at != text.npos && zeros_at != text.npos) text.replace(zeros_at, 128, hello);
    answers_.reset();
    return text;
  }
  static void replace(std::string& text, std::string_view mark, std::string_view by) {
    const std::size_t at = text.find(mark);
    if (at != text.npos) text.replace(at, mark.size(), by);
  }
  static std::string replaced(std::string text, std::string_view mark, std::string_view by) {
    replace(text, mark, by);
    return text;
  }
  const KeyPair* pair_of(std::string_view hex) const {
    for (const KeyPair* pair : {&alice_, &bob_, &session_, &nobody_}) {
      if (pair->hex == hex) return pair;
    }
    return nullptr;
  }
  std::string signature_of(const wire::ClientFrame& frame) {
    wire::SessionHello session;
    wire::Hello hello;
    TextBuf text(answers_);
    const KeyPair* signer = nullptr;
    if (frame.type == "session_hello") {
      if (!wire::parse_session_hello(frame, session)) return std::string(128, '0');
      const KeyPair* parent = pair_of(session.parent_pubkey_text);
      signer = pair_of(session.common.session_pubkey_text);
      if (parent == nullptr || signer == nullptr) return std::string(128, '0');
      if (!crypto::canonical_session_hello(session.common.mesh_id, parent->key, signer->key,
                                           static_cast<std::uint64_t>(session.common.timestamp_ms),
                                           text)) {
        return std::string(128, '0');
      }
    } else {
      if (!wire::parse_hello(frame, hello)) return std::string(128, '0');
      signer = pair_of(hello.pubkey_text);
      if (signer == nullptr ||
          !crypto::canonical_hello(hello.mesh_id, hello.member_id, signer->key,
                                   static_cast<std::uint64_t>(hello.timestamp_ms), text)) {
        return std::string(128, '0');
      }
    }
    return signer->sign(text.view());
  }
  std::string attestation_of(const wire::ClientFrame& frame) {
    wire::SessionHello hello;
    if (!wire::parse_session_hello(frame, hello)) return std::string(128, '0');
    const KeyPair* parent = pair_of(hello.attested_parent_text);
    const KeyPair* session = pair_of(hello.attested_session_text);
    if (parent == nullptr || session == nullptr) return std::string(128, '0');
    const auto until = static_cast<std::uint64_t>(hello.attestation_expires_ms);
    TextBuf text(answers_);
    if (hello.attestation_version == 1) {
      crypto::canonical_attestation_v1(parent->key, session->key, until, text);
      return parent->sign(text.view());
    }
    std::vector<std::string_view> names;
    if (hello.allowed_caps != nullptr) {
      for (std::uint32_t at = frame.tape.first(*hello.allowed_caps); at < hello.allowed_caps->next;
           at = frame.tape.at(at).next) {
        names.push_back(frame.tape.at(at).text);
      }
    }
    if (!crypto::canonical_attestation_v2(parent->key, session->key, until, names, text)) {
      return std::string(128, '0');
    }
    return parent->sign(text.view());
  }

  // --- HTTP ---
  void http(std::string_view rest) {
    if (rest.empty()) return;
    const char who = rest[0];
    const std::string text = expanded(rest.substr(1));
    const std::size_t first = std::min(text.find(' '), text.size());
    const std::size_t second = std::min(text.find(' ', first + 1), text.size());
    if (first == text.size()) return;
    const std::string target = text.substr(first + 1, second - first - 1);
    const std::size_t mark = std::min(target.find('?'), target.size());
    const std::string body = text.substr(std::min(second + 1, text.size()));
    wire::HttpRequest request;
    request.method = std::string_view(text).substr(0, first);
    request.path = std::string_view(target).substr(0, mark);
    request.query = std::string_view(target).substr(std::min(mark + 1, target.size()));
    request.body = body;
    request.host = kHost;
    request.peer_is_loopback = who != 'n';
    const std::string authority = authority_of(who, request);
    request.authorization = authority;
    asked_ = ConnRef{next_conn_++, 1};
    core_->on_http(*asked_, request);
  }
  std::string authority_of(char who, const wire::HttpRequest& request) {
    if (who == 'a') return "Bearer " + std::string(kToken);
    const KeyPair* key = who == '0'   ? &alice_
                         : who == '1' ? &bob_
                         : who == 'z' ? &nobody_
                                      : nullptr;
    if (key == nullptr) return {};
    const std::string time = std::to_string(parts_.env.wall_ms);
    const std::string nonce = "nonce-of-fuzzer-" + std::to_string(++nonces_);
    TextBuf hash(answers_);
    crypto::hex_append(crypto::sha256(as_bytes(request.body)), hash);
    std::string target(request.path);
    if (!request.query.empty()) target += "?" + std::string(request.query);
    const std::string text = "claudemesh-http-v1|" + std::string(request.method) + "|" + target +
                             "|" + std::string(hash.view()) + "|" + time + "|" + nonce + "|" +
                             std::string(request.host);
    answers_.reset();
    return "CM-Member " + key->hex + ":" + time + ":" + nonce + ":" + key->sign(text);
  }

  // --- the iteration ---
  void iterate() {
    // What the core closed last time is gone for it now.
    for (const std::uint32_t slot : std::exchange(closing_, {})) {
      if (open_.erase(slot) != 0) core_->on_closed({slot, 1});
    }
    core_->step();
    if (std::exchange(killed_, false)) {
      parts_.crash();
      start();
      return connect_all();
    }
    const bool failed = std::exchange(fails_, false) && parts_.fail_commit();
    if (failed) {
      core_->abandon();
      asked_.reset();  // the shell answers it
    } else {
      core_->committed();
    }
    // Checking may add to what another iteration sends.
    for (const broker::Effect& effect : effects_.list()) check(effect);
    effects_.clear();
    CHECK(!asked_);
    const char* broken = core_->verify_all();
    if (broken != nullptr) std::fprintf(stderr, "verify_all: %s\n", broken);
    CHECK(broken == nullptr);
    parts_.scratch.reset();
  }
  void check(const broker::Effect& effect) {
    switch (effect.kind) {
      case broker::EffectKind::kWsClose:
        CHECK(effect.text.size() <= 123);
        CHECK(effect.code >= 1'000 && effect.code < 5'000);
        closing_.insert(effect.conn.slot);
        break;
      case broker::EffectKind::kHttpReply: check_reply(effect); break;
      case broker::EffectKind::kWsText: check_text(effect); break;
      case broker::EffectKind::kFrameLimit:
      case broker::EffectKind::kGroup: break;
    }
  }
  void check_reply(const broker::Effect& effect) {
    CHECK(asked_ && effect.conn == *asked_);
    asked_.reset();
    CHECK(effect.code >= 200 && effect.code < 600);
    if (!effect.content_type.starts_with("application/json")) return;
    wire::JsonTape tape;
    CHECK(parser_.parse(effect.text, answers_, tape));
    note(tape, "token", token_);
    note(tape, "code", code_);
    if (tape.find("token") != nullptr) payload_ = payload_of(token_);
    answers_.reset();
  }
  void check_text(const broker::Effect& effect) {
    wire::JsonTape tape;
    CHECK(parser_.parse(effect.text, answers_, tape));
    CHECK(tape.root().type == wire::JsonType::kObject);
    const wire::JsonNode* type = tape.find("type");
    CHECK(type != nullptr && type->type == wire::JsonType::kText && !type->text.empty());
    for (const char* key : {"messageId", "id", "memoryId"}) note(tape, key, last_id_);
    answers_.reset();
  }
  static void note(const wire::JsonTape& tape, std::string_view key, std::string& to) {
    const wire::JsonNode* node = tape.find(key);
    if (node != nullptr && node->type == wire::JsonType::kText && !node->text.empty()) {
      to = node->text;
    }
  }

  const KeyPair alice_{1}, bob_{2}, session_{3}, nobody_{4};
  CoreParts parts_{store::Role::kBroker};
  broker::Config config_;
  broker::Effects effects_;
  std::optional<broker::Broker> core_;
  std::string mesh_, last_id_, token_, payload_, code_;
  std::array<std::string, 2> members_;
  std::array<ConnRef, kClients> clients_{};
  ConnRef stranger_;
  std::set<std::uint32_t> open_, closing_;  // connections; those that the core closed
  std::optional<ConnRef> asked_;            // the request of this iteration
  std::uint32_t next_conn_ = 0;
  std::uint64_t nonces_ = 0;
  bool fails_ = false, killed_ = false;
  wire::JsonParser parser_;
  ScratchArena answers_;
};

}  // namespace cm::fuzz
