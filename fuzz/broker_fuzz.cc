// broker_fuzz.cc — a whole broker under frames of clients that have said hello.
// Input:  lines. The first byte says what happens: 0, 1, 2 a frame of that client (two members, and
//         a session of the first), 3 a frame of a stranger, t a second passes, T a day, c and a
//         digit: that client is gone and comes back. ~a and ~b in a frame stand for the keys of
//         the members, ~s for that of the session, ~m for the last id that the broker gave.
// Holds:  every invariant of the mirrors after every line; what the broker sends is JSON with a
//         type; tables and mirrors agree at the end.
// Not:    parsing alone (frame_fuzz.cc), sockets.
#include <array>

#include "core/broker/broker.h"
#include "core/crypto/sign.h"
#include "fuzz/core_parts.h"
#include "fuzz/registry.h"
#include "store/schema.h"

namespace cm::broker {
namespace {

constexpr std::size_t kClients = 3;
constexpr std::size_t kLinesMax = 64;
constexpr std::string_view kToken = "the-admin-token-of-the-fuzzer";

std::string value_of(std::string_view json, std::string_view key) {
  const std::string mark = "\"" + std::string(key) + "\":\"";
  const std::size_t at = json.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = json.substr(at + mark.size());
  return std::string(rest.substr(0, rest.find('"')));
}

class World {
 public:
  World() { found_mesh(); }

  void run(std::string_view input) {
    parts_.begin();
    start();
    for (std::size_t index = 0; index < kClients; ++index) connect(index);
    stranger_ = open();
    for (std::size_t line = 0; line < kLinesMax && !input.empty(); ++line) {
      const std::size_t end = std::min(input.find('\n'), input.size());
      if (end != 0) apply(input[0], input.substr(1, end - 1));
      input.remove_prefix(std::min(end + 1, input.size()));
    }
    parts_.expect_sound(store::Role::kBroker);
    core_.reset();
  }

 private:
  void start() {
    core_.reset();
    effects_.clear();
    next_conn_ = 0;
    last_id_.clear();
    core_.emplace(config_, parts_.limits, parts_.env, effects_, parts_.metrics, *parts_.slab);
    CHECK(core_->load());
    core_->set_admin_token_hash(crypto::sha256(as_bytes(kToken)));
  }

  // Committed once: a mesh of two members, with a topic.
  void found_mesh() {
    start();
    const std::string mesh = http("/cli/mesh/create", R"({"name":"crew","pubkey":")" + alice_.hex +
                                                          R"(","display_name":"alice"})");
    mesh_ = value_of(mesh, "id");
    members_[0] = value_of(mesh, "member_id");
    const std::string token = value_of(http("/cli/mesh/crew/invite", "{}"), "token");
    const auto payload = crypto::base64url_decode(token, parts_.scratch);
    CHECK(payload);
    members_[1] =
        value_of(http("/join", R"({"invite_token":")" + token + R"(","invite_payload":)" +
                                   std::string(as_text(*payload)) + R"(,"peer_pubkey":")" +
                                   bob_.hex + R"(","display_name":"bob"})"),
                 "memberId");
    CHECK(!mesh_.empty() && !members_[0].empty() && !members_[1].empty());
    CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
    core_->committed();
    core_.reset();
  }
  std::string http(std::string_view path, const std::string& body) {
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
    for (const Effect& effect : effects_.list()) {
      if (effect.kind == EffectKind::kHttpReply) reply = effect.text;
    }
    effects_.clear();
    return reply;
  }

  ConnRef open() {
    const ConnRef conn{next_conn_++, 1};
    core_->on_open(conn);
    return conn;
  }
  std::string hello(std::size_t index) {
    const KeyPair& member = index == 1 ? bob_ : alice_;
    const std::string& id = members_[index == 1 ? 1 : 0];
    const std::string time = std::to_string(parts_.env.wall_ms);
    std::string text = R"({"type":"hello","meshId":")" + mesh_ + R"(","memberId":")" + id +
                       R"(","pubkey":")" + member.hex + R"(","sessionId":"s)" +
                       std::to_string(index) + R"(","pid":7,"cwd":"/w",)";
    if (index == 2) text += R"("sessionPubkey":")" + session_.hex + "\",";
    return text + R"("timestamp":)" + time + R"(,"signature":")" +
           member.sign(mesh_ + "|" + id + "|" + member.hex + "|" + time) + "\"}";
  }
  void connect(std::size_t index) {
    parts_.advance(1);  // a hello is accepted once
    clients_[index] = open();
    core_->on_text(clients_[index], hello(index));
    iterate();
  }

  void apply(char what, std::string_view rest) {
    switch (what) {
      case '0':
      case '1':
      case '2': frame(clients_[static_cast<std::size_t>(what - '0')], rest); break;
      case '3': frame(stranger_, rest); break;
      case 't': parts_.advance(1'000); break;
      case 'T': parts_.advance(86'400'000); break;
      case 'c': {
        const std::size_t index = rest.empty() ? 0 : static_cast<unsigned char>(rest[0]) % kClients;
        core_->on_closed(clients_[index]);
        iterate();
        connect(index);
        break;
      }
      default: return;
    }
    iterate();
  }
  void frame(ConnRef conn, std::string_view text) {
    std::string frame;
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char next = at + 1 < text.size() ? text[at + 1] : '\0';
      if (text[at] != '~' || std::string_view("abms").find(next) == std::string_view::npos) {
        frame += text[at];
        continue;
      }
      ++at;
      frame += next == 'a'   ? alice_.hex
               : next == 'b' ? bob_.hex
               : next == 's' ? session_.hex
                             : last_id_;
    }
    core_->on_text(conn, frame);
  }

  void iterate() {
    core_->step();
    core_->committed();
    // Both may add to what another iteration sends.
    for (const Effect& effect : effects_.list()) check(effect);
    effects_.clear();
    const char* broken = core_->verify_all();
    if (broken != nullptr) std::fprintf(stderr, "verify_all: %s\n", broken);
    CHECK(broken == nullptr);
    parts_.scratch.reset();
  }
  void check(const Effect& effect) {
    if (effect.kind == EffectKind::kWsClose) {
      CHECK(effect.text.size() <= 123);
      CHECK(effect.code >= 1'000 && effect.code < 5'000);
      return;
    }
    if (effect.kind != EffectKind::kWsText) return;
    wire::JsonTape tape;
    CHECK(parser_.parse(effect.text, answers_, tape));
    CHECK(tape.root().type == wire::JsonType::kObject);
    const wire::JsonNode* type = tape.find("type");
    CHECK(type != nullptr && type->type == wire::JsonType::kText && !type->text.empty());
    for (const char* key : {"messageId", "id", "memoryId"}) {
      const wire::JsonNode* id = tape.find(key);
      if (id != nullptr && id->type == wire::JsonType::kText && !id->text.empty()) {
        last_id_ = id->text;
      }
    }
    answers_.reset();
  }

  using KeyPair = fuzz::KeyPair;
  const KeyPair alice_{1}, bob_{2}, session_{3};
  fuzz::CoreParts parts_{store::Role::kBroker};
  Config config_;
  Effects effects_;
  std::optional<Broker> core_;
  std::string mesh_, last_id_;
  std::array<std::string, 2> members_;
  std::array<ConnRef, kClients> clients_{};
  ConnRef stranger_;
  std::uint32_t next_conn_ = 0;
  wire::JsonParser parser_;
  ScratchArena answers_;
};

}  // namespace
}  // namespace cm::broker

CM_FUZZ_TARGET(broker) {
  static cm::broker::World world;
  world.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
