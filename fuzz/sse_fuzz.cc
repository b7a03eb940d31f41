// sse_fuzz.cc — event streams that come and go, resumed with any Last-Event-ID.
// Input:  lines. e an event happens, E one that fills the ring, t time passes, c the oldest stream
//         ends; h<text> a stream with that header, q<text> one with that query, i<number> one
//         with the id of so many events ago.
// Holds:  a stream sees its ids grow, each event once; what it missed is there or is a gap event
//         that says so; each chunk is whole events whose data is one line of JSON.
// Not:    sockets, slow readers (the shell's), parsing of requests (http_fuzz.cc).
#include <algorithm>
#include <charconv>
#include <map>

#include "core/daemon/daemon.h"
#include "fuzz/core_parts.h"
#include "fuzz/registry.h"

namespace cm::daemon {
namespace {

constexpr std::size_t kLinesMax = 64;
constexpr std::uint32_t kRingBytes = 2'048;

class World {
 public:
  World() { parts_.limits.event_ring_bytes = kRingBytes; }

  void run(std::string_view input) {
    parts_.begin();
    start();
    for (std::size_t line = 0; line < kLinesMax && !input.empty(); ++line) {
      const std::size_t end = std::min(input.find('\n'), input.size());
      if (end != 0) apply(input[0], input.substr(1, end - 1));
      input.remove_prefix(std::min(end + 1, input.size()));
    }
    parts_.expect_sound(store::Role::kDaemon);
    core_.reset();
  }

 private:
  struct Stream {
    std::uint64_t last = 0;  // the id that it came with, then the last that it saw
    bool resumed = false;    // it came with an id of ours
    bool is_first = true;    // nothing but a gap has been sent
  };

  void start() {
    core_.reset();
    effects_.clear();
    streams_.clear();
    emitted_.clear();
    next_conn_ = 0;
    pushed_ = 0;
    Config config;
    config.session_id = "daemon-1-x";
    core_.emplace(config, parts_.limits, parts_.env, effects_, parts_.metrics, *parts_.slab);
    MeshConfig mesh;
    mesh.mesh_id = "mesh0";
    mesh.member_id = "me";
    mesh.slug = "crew";
    mesh.name = "self";
    mesh.broker_url = "ws://broker0";
    mesh.key = self_.key;
    mesh.secret = *parts_.slab->store_seed(self_.seed);
    CHECK(core_->add_mesh(mesh));
    CHECK(core_->start());
    core_->step();
    for (const Effect& effect : effects_.list()) {
      if (effect.kind == EffectKind::kLinkOpen) link_ = effect.link;
    }
    iterate();
    core_->on_link_event(link_, LinkEvent::kConnected, 0, {});
    iterate();
    CHECK(core_->on_link_frame(
        link_, R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"self"})"));
    iterate();
  }

  void apply(char what, std::string_view rest) {
    switch (what) {
      case 'e': event(std::string(rest.size() % 7, 'x')); break;
      case 'E': event(std::string(kRingBytes / 2, 'y')); break;
      case 't': parts_.advance(16'000); break;
      case 'c':
        if (streams_.empty()) return;
        core_->on_http_closed(ConnRef{streams_.begin()->first, 1});
        streams_.erase(streams_.begin());
        break;
      case 'h': open(rest, {}); break;
      case 'q': open({}, rest); break;
      case 'i': {
        std::size_t ago = 0;
        std::from_chars(rest.data(), rest.data() + rest.size(), ago);
        if (ago >= emitted_.size()) return;
        open(std::to_string(emitted_[emitted_.size() - 1 - ago]), {});
        break;
      }
      default: return;
    }
    iterate();
  }
  void event(const std::string& text) {
    const std::string number = std::to_string(++pushed_);
    CHECK(core_->on_link_frame(
        link_, R"({"type":"push","subtype":"system","event":"tick","eventData":{"name":")" + text +
                   R"("},"messageId":"s)" + number +
                   R"(","meshId":"mesh0","senderPubkey":"system","nonce":"","ciphertext":""})"));
  }
  void open(std::string_view header, std::string_view query) {
    wire::HttpRequest request;
    request.method = "GET";
    request.path = "/v1/events";
    request.query = query;
    request.host = "localhost";
    request.peer_is_unix = true;
    request.last_event_id = header;
    const ConnRef conn{next_conn_++, 1};
    Stream stream;
    const auto parsed = std::from_chars(header.data(), header.data() + header.size(), stream.last);
    stream.resumed = parsed.ec == std::errc() && parsed.ptr == header.data() + header.size() &&
                     std::find(emitted_.begin(), emitted_.end(), stream.last) != emitted_.end();
    if (!stream.resumed) stream.last = 0;
    streams_[conn.slot] = stream;
    core_->on_http(conn, request);
  }

  void iterate() {
    core_->step();
    core_->committed();
    for (const Effect& effect : effects_.list()) {
      if (effect.kind == EffectKind::kHttpReply) {
        CHECK(effect.code == 400 || effect.code == 429);
        streams_.erase(effect.conn.slot);
      }
      if (effect.kind == EffectKind::kStreamWrite) {
        CHECK(streams_.contains(effect.conn.slot));
        read(streams_[effect.conn.slot], effect.text);
      }
    }
    effects_.clear();
    CHECK(core_->verify_all() == nullptr);
    parts_.scratch.reset();
  }

  // As a client reads it.
  void read(Stream& stream, std::string_view chunk) {
    CHECK(chunk.ends_with("\n\n"));
    std::uint64_t id = 0;
    std::string_view kind;
    while (!chunk.empty()) {
      const std::size_t end = chunk.find('\n');
      const std::string_view line = chunk.substr(0, end);
      chunk.remove_prefix(end + 1);
      if (line.starts_with("id: ")) {
        const auto parsed = std::from_chars(line.data() + 4, line.data() + line.size(), id);
        CHECK(parsed.ec == std::errc() && parsed.ptr == line.data() + line.size());
      } else if (line.starts_with("event: ")) {
        kind = line.substr(7);
      } else if (line.starts_with("data: ")) {
        take(stream, id, kind, line.substr(6));
      } else {
        CHECK(line.empty() || line.starts_with(": ") || line.starts_with("retry: "));
      }
    }
  }
  void take(Stream& stream, std::uint64_t id, std::string_view kind, std::string_view data) {
    wire::JsonTape tape;
    CHECK(parser_.parse(data, answers_, tape));
    answers_.reset();
    if (kind == "gap") {
      CHECK(stream.is_first);
      stream.resumed = false;
      stream.last = id;
      return;
    }
    CHECK(id > stream.last);
    if (stream.resumed) CHECK_EQ(id, stream.last + 1);
    stream.is_first = false;
    stream.resumed = true;  // from its first event on it misses none
    stream.last = id;
    if (emitted_.empty() || emitted_.back() < id) emitted_.push_back(id);
  }

  const fuzz::KeyPair self_{1};
  fuzz::CoreParts parts_{store::Role::kDaemon};
  Effects effects_;
  std::optional<Daemon> core_;
  LinkRef link_;
  std::map<std::uint32_t, Stream> streams_;
  std::vector<std::uint64_t> emitted_;  // that some stream saw
  std::uint32_t next_conn_ = 0;
  std::uint64_t pushed_ = 0;
  wire::JsonParser parser_;
  ScratchArena answers_;
};

}  // namespace
}  // namespace cm::daemon

CM_FUZZ_TARGET(sse) {
  static cm::daemon::World world;
  world.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
