// daemon_world.h — a whole daemon with two meshes, driven by lines.
// Owns:   DaemonWorld, on which daemon_fuzz.cc stands.
// Input:  lines. The first byte says what happens; + before it: the iteration goes on.
//         0 1   a frame of that mesh's broker        m n  mail from bob by it, with this text
//         G P D a request: <path?query>[ <body>]     S    POST /v1/send   K  <header> <body>
//         u d f that link (0, 1) is connected, lost with this code, closed
//         b w   it would block, takes more again     q    that request (its number) is gone
//         s     that stream is too slow               a    the broker of that link answers all
//         t M T a second, a minute, a day passes      B    the wall clock goes back an hour
//         x     this iteration's commit fails          k    the process is killed before it
//         r     the process is killed behind it        L    config.json now has these meshes
//         In texts ~s ~b ~e are keys (our own, bob's, eve's), ~r the last _reqId, ~c the last
//         client id that was sent, ~m the last message id that a client was told.
// Holds:  every invariant of the mirrors after every line; frames are JSON with a type and go to
//         links that are open; each request is answered once, in JSON, while it waits; what was
//         answered 202 is in the outbox for a day at least, whatever fails later.
// Not:    parsing alone (frame_fuzz.cc, ipc_send_fuzz.cc), streams in detail (sse_fuzz.cc).
#pragma once

#include <charconv>
#include <map>
#include <set>

#include "core/daemon/daemon.h"
#include "fuzz/core_parts.h"
#include "store/schema.h"

namespace cm::daemon {

class DaemonWorld {
 public:
  // Small, so that inputs reach them, and cheap to check.
  DaemonWorld() {
    Limits& limits = parts_.limits;
    limits.outbox_rows_max = 12;
    limits.outbox_lanes_max = 6;
    limits.ipc_requests_max = 8;
    limits.ipc_streams_max = 3;
    limits.parked_sends_max = 3;
    limits.event_ring_bytes = 4'096;
    limits.roster_rows_max = 8;
    limits.known_peers_max = 8;
    limits.broker_calls_max = 8;
    limits.broker_replies_bytes_max = 4'096;
    limits.topics_max = 4;
    limits.box_keys_max = 4;
    limits.daemon_meshes_max = 4;
  }

  void run(std::string_view input) {
    parts_.begin();
    passed_ms_ = 0;
    dropped_ = false;
    accepted_.clear();
    own_ids_ = 0;
    last_request_.clear();
    last_sent_.clear();
    last_told_.clear();
    wanted_ = 3;
    start();
    fuzz::Lines lines(input);
    for (std::string_view line; lines.next(line);) apply(line);
    iterate();
    expect_accepted();
    parts_.expect_sound(store::Role::kDaemon);
    core_.reset();
  }

 private:
  static constexpr std::size_t kMeshes = 2;
  static constexpr std::string_view kSlugs[kMeshes] = {"crew", "other"};
  static constexpr std::uint64_t kDayMs = 86'400'000;

  enum class Wire : std::uint8_t { kNone, kConnecting, kConnected };
  struct Link {
    LinkRef ref;
    Wire wire = Wire::kNone;
    std::vector<std::string> unanswered;  // frames of the daemon
  };

  std::vector<MeshConfig> meshes() {
    std::vector<MeshConfig> list;
    for (std::size_t index = 0; index < kMeshes; ++index) {
      if ((wanted_ & (1u << index)) == 0) continue;
      MeshConfig mesh;
      mesh.mesh_id = "mesh" + std::to_string(index);
      mesh.member_id = "me";
      mesh.slug = kSlugs[index];
      mesh.name = "self";
      mesh.broker_url = "ws://broker" + std::to_string(index);
      mesh.key = self_.key;
      mesh.secret = *parts_.slab->store_seed(self_.seed);
      list.push_back(mesh);
    }
    return list;
  }
  // A new process over what is committed.
  void start() {
    core_.reset();
    parts_.slab.emplace(16);
    effects_.clear();
    waiting_.clear();
    streams_.clear();
    gone_.clear();
    links_ = {};
    reload_for_.clear();
    fails_ = killed_ = false;
    Config config;
    config.session_id = "daemon-1-x";
    core_.emplace(config, parts_.limits, parts_.env, effects_, parts_.metrics, *parts_.slab);
    for (const MeshConfig& mesh : meshes()) CHECK(core_->add_mesh(mesh));
    CHECK(core_->start());
    iterate();
  }

  void apply(std::string_view line) {
    const bool goes_on = line[0] == '+';
    if (goes_on) line.remove_prefix(1);
    if (line.empty()) return;
    const std::string rest = expanded(line.substr(1));
    const std::size_t digit = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]) % kMeshes;
    switch (line[0]) {
      case '0':
      case '1': frame(links_[static_cast<std::size_t>(line[0] - '0')], rest); break;
      case 'm':
      case 'n': frame(links_[line[0] == 'm' ? 0 : 1], mail(rest)); break;
      case 'G':
      case 'P':
      case 'D': request(line[0] == 'G' ? "GET" : line[0] == 'P' ? "POST" : "DELETE", rest); break;
      case 'S': send({}, rest); break;
      case 'K': {
        const std::size_t space = std::min(rest.find(' '), rest.size());
        send(rest.substr(0, space), rest.substr(std::min(space + 1, rest.size())));
        break;
      }
      case 'u': link_event(links_[digit], LinkEvent::kConnected, {}); break;
      case 'd': link_event(links_[digit], LinkEvent::kConnecting, rest); break;
      case 'f': link_event(links_[digit], LinkEvent::kClosed, rest); break;
      case 'b':
      case 'w':
        if (links_[digit].wire == Wire::kConnected) {
          core_->on_link_blocked(links_[digit].ref, line[0] == 'b');
        }
        break;
      case 'q': gone(rest); break;
      case 's':
        iterate();  // the shell looks at this when it has written
        if (!streams_.empty()) {
          core_->on_stream_slow({*streams_.begin(), 1});
          waiting_.erase(*streams_.begin());
          streams_.erase(streams_.begin());
        }
        break;
      case 'a': answer_all(links_[digit]); break;
      case 't': advance(1'000); break;
      case 'M': advance(60'000); break;
      case 'T': advance(kDayMs); break;
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
        return;
      case 'L': reload(rest); break;
      default: return;
    }
    if (!goes_on) iterate();
  }
  void advance(std::uint64_t ms) {
    parts_.advance(ms);
    passed_ms_ += ms;
  }
  std::string expanded(std::string_view text) const {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char next = text[at] == '~' && at + 1 < text.size() ? text[at + 1] : '\0';
      switch (next) {
        case 's': out += self_.hex; break;
        case 'b': out += bob_.hex; break;
        case 'e': out += eve_.hex; break;
        case 'r': out += last_request_; break;
        case 'c': out += last_sent_; break;
        case 'm': out += last_told_; break;
        default: out += text[at]; continue;
      }
      ++at;
    }
    return out;
  }

  // --- the brokers' side ---
  void frame(Link& link, std::string_view text) {
    if (link.wire == Wire::kConnected) core_->on_link_frame(link.ref, text);
  }
  void link_event(Link& link, LinkEvent event, std::string_view detail) {
    if (link.wire == Wire::kNone) return;
    if (event == LinkEvent::kConnected && link.wire == Wire::kConnected) return;
    std::uint32_t code = 0;
    if (!detail.empty()) std::from_chars(detail.data() + 1, detail.data() + detail.size(), code);
    link.wire = event == LinkEvent::kConnected    ? Wire::kConnected
                : event == LinkEvent::kConnecting ? Wire::kConnecting
                                                  : Wire::kNone;
    link.unanswered.clear();
    core_->on_link_event(link.ref, event, event == LinkEvent::kConnected ? 0 : code, {});
  }
  std::string mail(std::string_view text) {
    std::uint8_t own[32], theirs[32];
    CHECK(crypto_sign_ed25519_pk_to_curve25519(own, self_.key.data()) == 0);
    CHECK(crypto_sign_ed25519_sk_to_curve25519(theirs, bob_.secret.data()) == 0);
    const std::string id = std::to_string(++own_ids_);
    const std::uint8_t nonce[24] = {7};
    std::vector<std::uint8_t> sealed(text.size() + 16);
    CHECK(crypto_box_easy(sealed.data(), reinterpret_cast<const unsigned char*>(text.data()),
                          text.size(), nonce, own, theirs) == 0);
    TextBuf body(parts_.scratch), nonce_text(parts_.scratch);
    crypto::base64_append(sealed, body);
    crypto::base64_append(nonce, nonce_text);
    return R"({"type":"push","messageId":"b)" + id + R"(","meshId":"mesh0","senderPubkey":")" +
           bob_.hex + R"(","senderName":"bob","priority":"next","nonce":")" +
           std::string(nonce_text.view()) + R"(","ciphertext":")" + std::string(body.view()) +
           R"(","createdAt":"2023-11-14T22:13:20.000Z","client_message_id":"i)" + id + "\"}";
  }
  // A broker as it should be.
  void answer_all(Link& link) {
    for (const std::string& text : std::exchange(link.unanswered, {})) {
      const std::string type = field(text, "type"), request = field(text, "_reqId");
      std::string answer;
      if (type == "hello") {
        answer = R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"self"})";
      } else if (type == "send") {
        answer = R"({"type":"ack","id":")" + field(text, "id") + R"(","messageId":"b-)" +
                 std::to_string(++own_ids_) + R"(","queued":true})";
      } else if (type == "list_peers") {
        answer = R"({"type":"peers_list","_reqId":")" + request + R"(","peers":[)" +
                 peer(bob_, "bob") + "," + peer(eve_, "eve") + "]}";
      } else if (type == "feature_negotiation_request") {
        answer = R"({"type":"feature_negotiation_response","_reqId":")" + request +
                 R"(","supported":{"client_message_id_dedupe":{"params":{"version":1,)"
                 R"("mode":"retention_scoped","dedupe_retention_days":365,)"
                 R"("request_fingerprint":true}}},"missing_required":[]})";
      } else if (!request.empty()) {
        answer = R"({"type":"error","_reqId":")" + request + R"(","code":"not_found"})";
      }
      if (!answer.empty()) frame(link, answer);
    }
  }
  static std::string peer(const fuzz::KeyPair& who, std::string_view name) {
    return R"({"pubkey":")" + who.hex + R"(","memberPubkey":")" + who.hex + R"(","displayName":")" +
           std::string(name) + R"(","peerRole":"control-plane"})";
  }

  // --- the clients' side ---
  void send(std::string_view key, std::string_view body) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/v1/send";
    request.idempotency_key = key;
    request.body = body;
    submit(request, true);
  }
  void request(std::string_view method, std::string_view text) {
    const std::size_t space = std::min(text.find(' '), text.size());
    const std::string_view target = text.substr(0, space);
    const std::size_t mark = std::min(target.find('?'), target.size());
    wire::HttpRequest request;
    request.method = method;
    request.path = target.substr(0, mark);
    request.query = target.substr(std::min(mark + 1, target.size()));
    request.body = text.substr(std::min(space + 1, text.size()));
    // Rows may leave by these, and then a 202 was not for ever.
    if (request.path.starts_with("/v1/outbox/")) dropped_ = true;
    submit(request, false);
  }
  void submit(wire::HttpRequest request, bool is_send) {
    request.host = "localhost";
    request.peer_is_unix = true;
    const ConnRef conn{next_conn_++, 1};
    waiting_[conn.slot] = is_send;
    core_->on_http(conn, request);
  }
  void gone(std::string_view text) {
    if (waiting_.empty()) return;
    std::size_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    const auto at =
        std::next(waiting_.begin(), static_cast<std::ptrdiff_t>(number % waiting_.size()));
    core_->on_http_closed({at->first, 1});
    gone_.insert(at->first);
    streams_.erase(at->first);
    waiting_.erase(at);
  }
  void reload(std::string_view which) {
    wanted_ = which.empty() ? 3u : static_cast<unsigned char>(which[0]) % 4u;
    const Result<Reloaded> outcome = core_->reload(meshes());
    CHECK(outcome);
    core_->on_reloaded({}, outcome);
  }

  // --- the iteration ---
  void iterate() {
    core_->step();
    if (std::exchange(killed_, false)) {
      parts_.crash();
      return start();
    }
    if (std::exchange(fails_, false)) {
      fail();
    } else {
      core_->committed();
    }
    execute();
    const char* broken = core_->verify_all();
    if (broken != nullptr) std::fprintf(stderr, "verify_all: %s\n", broken);
    CHECK(broken == nullptr);
    parts_.scratch.reset();
  }
  void fail() {
    if (parts_.fail_commit()) {
      core_->abandon(Err::kDiskFull);
    } else {
      core_->committed();
    }
  }
  // Executing may add effects: the answer to a request that the shell serves.
  void execute() {
    for (std::size_t index = 0; index < effects_.list().size(); ++index) {
      const Effect effect = effects_.list()[index];
      execute(effect);
    }
    effects_.clear();
    gone_.clear();
    // The shell does this in its next iteration.
    for (const ConnRef conn : std::exchange(reload_for_, {})) {
      const Result<Reloaded> outcome = core_->reload(meshes());
      core_->on_reloaded(conn, outcome);
    }
    if (!effects_.list().empty()) iterate();
  }
  Link* link_of(LinkRef ref) {
    for (Link& link : links_) {
      if (link.ref == ref) return &link;
    }
    return nullptr;
  }
  void execute(const Effect& effect) {
    Link* link = link_of(effect.link);
    switch (effect.kind) {
      case EffectKind::kLinkOpen: {
        const std::size_t index = effect.text.ends_with('1') ? 1 : 0;
        CHECK(link == nullptr || link->wire == Wire::kNone);
        links_[index] = {effect.link, Wire::kConnecting, {}};
        break;
      }
      case EffectKind::kLinkSend:
        check_frame(effect.text);
        if (link == nullptr || link->wire != Wire::kConnected) break;
        if (link->unanswered.size() < 256) link->unanswered.emplace_back(effect.text);
        break;
      case EffectKind::kLinkNote: CHECK(effect.code == 1 || effect.code == 2); break;
      case EffectKind::kLinkClose:
        CHECK(effect.text.size() <= 123 && effect.code >= 1'000 && effect.code < 5'000);
        if (link != nullptr) *link = {link->ref, Wire::kNone, {}};
        break;
      case EffectKind::kHttpReply: check_reply(effect); break;
      case EffectKind::kStreamBegin:
        if (gone_.contains(effect.conn.slot)) break;
        CHECK(waiting_.contains(effect.conn.slot));
        CHECK(streams_.insert(effect.conn.slot).second);
        break;
      case EffectKind::kStreamWrite:
        CHECK(streams_.contains(effect.conn.slot) || gone_.contains(effect.conn.slot));
        break;
      case EffectKind::kRotateToken: core_->on_token_rotated(effect.conn, {}, "/token"); break;
      case EffectKind::kReload: reload_for_.push_back(effect.conn); break;
    }
  }
  void check_frame(std::string_view text) {
    wire::JsonTape tape;
    CHECK(parser_.parse(text, answers_, tape));
    const wire::JsonNode* type = tape.find("type");
    CHECK(type != nullptr && type->type == wire::JsonType::kText && !type->text.empty());
    note(tape, "_reqId", last_request_);
    note(tape, "client_message_id", last_sent_);
    answers_.reset();
  }
  void check_reply(const Effect& effect) {
    // The answer to a request that left in the iteration in which it came goes nowhere.
    if (gone_.contains(effect.conn.slot)) return;
    const auto found = waiting_.find(effect.conn.slot);
    CHECK(found != waiting_.end());
    const bool is_send = found->second;
    waiting_.erase(found);
    CHECK(streams_.count(effect.conn.slot) == 0);
    CHECK(effect.code >= 200 && effect.code < 600);
    if (effect.content_type != "application/json") return;
    wire::JsonTape tape;
    CHECK(parser_.parse(effect.text, answers_, tape));
    std::string id;
    note(tape, "client_message_id", id);
    if (is_send && effect.code == 202) {
      CHECK(!id.empty());
      accepted_[id] = passed_ms_;
    }
    for (const char* key : {"id", "messageId", "broker_message_id"}) note(tape, key, last_told_);
    answers_.reset();
  }
  static void note(const wire::JsonTape& tape, std::string_view key, std::string& to) {
    const wire::JsonNode* node = tape.find(key);
    if (node != nullptr && node->type == wire::JsonType::kText && !node->text.empty()) {
      to = node->text;
    }
  }
  void expect_accepted() {
    if (dropped_) return;
    for (const auto& [id, when] : accepted_) {
      if (passed_ms_ - when > kDayMs) continue;
      CHECK(!parts_.store->batch()
                 .get_index(store::TableId::kOutboxId, store::text_key(id).bytes())
                 .empty());
    }
  }
  static std::string field(std::string_view json, std::string_view key) {
    const std::string mark = "\"" + std::string(key) + "\":\"";
    const std::size_t at = json.find(mark);
    if (at == std::string_view::npos) return {};
    const std::string_view rest = json.substr(at + mark.size());
    return std::string(rest.substr(0, rest.find('"')));
  }

  const fuzz::KeyPair self_{1}, bob_{2}, eve_{3};
  fuzz::CoreParts parts_{store::Role::kDaemon};
  Effects effects_;
  std::optional<Daemon> core_;
  std::array<Link, kMeshes> links_;
  std::map<std::uint32_t, bool> waiting_;   // requests by connection: is it a send?
  std::set<std::uint32_t> streams_, gone_;  // gone_: in this iteration
  std::vector<ConnRef> reload_for_;
  std::map<std::string, std::uint64_t> accepted_;  // client ids, and passed_ms_ at their 202
  std::string last_request_, last_sent_, last_told_;
  std::uint64_t passed_ms_ = 0;
  std::uint32_t next_conn_ = 0, own_ids_ = 0, wanted_ = 3;
  bool fails_ = false, killed_ = false, dropped_ = false;
  wire::JsonParser parser_;
  ScratchArena answers_;
};

}  // namespace cm::daemon
