// server_fuzz.cc — a whole server over real unix sockets: any bytes of several clients at once.
// Input:  bytes, read from the front: what a client does (comes, writes bytes, a request, an
//         upgrade or a frame, reads, half-closes, leaves), what the owner answers, and how time
//         passes. Between any two a turn of the loop may run.
// Holds:  a connection has one request at a time; an opened WebSocket is closed once, and gives
//         nothing before and after; messages are within the limit, texts UTF-8; the invariants of
//         the table hold after every turn; when all clients have left nothing is kept of them.
// Not:    TLS, TCP, the routes behind it.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/base/utf8.h"
#include "core/net/server.h"
#include "core/net/ws_handshake.h"
#include "fuzz/registry.h"

namespace cm::net {
namespace {

constexpr std::size_t kClients = 4;
constexpr std::uint32_t kFrameLimitMost = 2'048;

class World {
 public:
  World() : loop_(std::move(Loop::create(1'000'000).value())) {
    options_.connections_max = 3;
    options_.websockets = true;
    Limits& limits = options_.limits;
    limits.http_head_bytes_max = 1'024;
    limits.http_body_bytes_max = 1'024;
    limits.unauthenticated_bytes_max = 512;
    limits.frame_bytes_max = 1'024;
    limits.slow_consumer_soft_bytes = 4'096;
    limits.slow_consumer_hard_bytes = 65'536;
    limits.partial_bytes_max = 8'192;
    limits.partial_group_bytes_max = 4'096;
    limits.output_bytes_max = 131'072;
    limits.output_group_bytes_max = 65'536;
    char folder[] = "/tmp/cm-fuzz-XXXXXX";
    CHECK(::mkdtemp(folder) != nullptr);
    folder_ = folder;
    path_ = folder_ + "/s";
    server_ = std::make_unique<Server>(*loop_, options_, scratch_, pool_);
    CHECK(server_->listen_unix(path_));
  }
  ~World() {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void run(Bytes input) {
    rest_ = input;
    for (int step = 0; step < 256 && !rest_.empty(); ++step) act();
    for (Fd& client : clients_) client.reset();
    // The owner answers what it was asked; then nothing is left, at the latest by the deadlines.
    for (int turns = 0; server_->connections() != 0 && turns < 64; ++turns) {
      finish_all();
      turn(turns > 8);
    }
    CHECK_EQ(server_->connections(), 0u);
    turn(true);
    CHECK(conns_.empty());
    CHECK_EQ(server_->partial_bytes(), 0u);
    CHECK_EQ(server_->output_bytes(), 0u);
    CHECK_EQ(pool_.lent_bytes(), 0u);
  }

 private:
  enum class State : std::uint8_t { kAsked, kStream, kWs };

  std::uint8_t byte() noexcept {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_[0];
    rest_ = rest_.subspan(1);
    return value;
  }
  std::string bytes(std::size_t size) {
    const Bytes part = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(part.size());
    return std::string(as_text(part));
  }

  void act() {
    const std::uint8_t what = byte();
    Fd& client = clients_[(what >> 5) % kClients];
    switch (what & 31u) {
      case 0:
      case 1: come(client); break;
      case 2:
      case 3:
      case 4: write(client, bytes(byte())); break;
      case 5: write(client, request(byte())); break;
      case 6:
      case 7: upgrade(client); break;
      case 8:
      case 9:
      case 10: {
        const std::uint8_t head = byte();
        write(client, frame(head, bytes(byte())));
        break;
      }
      case 11: write(client, std::string(byte() * 16u, 'x')); break;
      case 12: read(client); break;
      case 13:
        if (client) ::shutdown(client.get(), SHUT_WR);
        break;
      case 14: client.reset(); break;
      case 15: now_ += byte() * 64u; break;
      case 16: now_ += byte() * 1'024u; break;
      case 17: respond(); break;
      case 18: respond(); break;
      case 19: stream(); break;
      case 20: say(bytes(byte())); break;
      case 21: say(std::string(byte() * 64u, 'y')); break;
      case 22: each_ws([&](ConnRef conn) { server_->ws_close(conn, 1'000, "bye"); }); break;
      case 23: {
        const std::uint32_t limit = kFrameLimitMost >> (byte() % 8);
        each_ws([&](ConnRef conn) { server_->ws_set_frame_limit(conn, limit); });
        break;
      }
      case 24: {
        const std::uint64_t group = byte() % 3;
        each_ws([&](ConnRef conn) { server_->ws_set_group(conn, group); });
        break;
      }
      default: turn(false); break;
    }
    if ((what & 31u) < 16 && (byte() & 1u) != 0) turn(false);
  }

  // --- clients ---
  void come(Fd& client) {
    client = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    CHECK(client);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    // A full backlog is the only thing that may refuse.
    if (::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      client.reset();
    }
  }
  static void write(const Fd& client, std::string_view text) {
    if (client) {
      [[maybe_unused]] const ssize_t sent =
          ::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
  static void read(const Fd& client) {
    char room[65'536];
    while (client && ::recv(client.get(), room, sizeof room, MSG_DONTWAIT) > 0) {
    }
  }
  static std::string request(std::uint8_t which) {
    switch (which % 4) {
      case 0: return "GET /v1/x?y HTTP/1.1\r\nHost: localhost\r\n\r\n";
      case 1: return "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody";
      case 2:
        return "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
               "chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
      default:
        return "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
               "Connection: close\r\n\r\n";
    }
  }
  void upgrade(const Fd& client) {
    TextBuf text(arena_);
    ws_write_upgrade(text, "/ws", "localhost", WsNonce{7}, {});
    write(client, text.view());
    arena_.reset();
  }
  // By hand: our own codec refuses to write what a hostile client does.
  static std::string frame(std::uint8_t head, std::string_view payload) {
    constexpr unsigned char kOpcodes[] = {1, 2, 9, 10, 8};  // text, binary, ping, pong, close
    constexpr char kMask[] = {1, 2, 3, 4};
    unsigned first = 0x80u | kOpcodes[(head & 15u) % std::size(kOpcodes)];
    if ((head & 16u) != 0) first &= 0x7fu;  // not the last fragment
    if ((head & 32u) != 0) first &= 0xf0u;  // a continuation
    std::string out(1, static_cast<char>(first));
    if (payload.size() < 126) {
      out.push_back(static_cast<char>(0x80u | payload.size()));
    } else {
      out.push_back(static_cast<char>(0x80u | 126u));
      out.push_back(static_cast<char>(payload.size() >> 8));
      out.push_back(static_cast<char>(payload.size() & 0xffu));
    }
    out.append(kMask, sizeof kMask);
    for (std::size_t at = 0; at < payload.size(); ++at) {
      out.push_back(static_cast<char>(payload[at] ^ kMask[at % sizeof kMask]));
    }
    if ((head & 64u) != 0) out.resize(out.size() / 2);
    return out;
  }

  // --- the owner ---
  struct Seen {
    State state = State::kAsked;
    ConnRef conn;
  };
  template <class Do>
  void each_ws(Do act_on) {
    for (const auto& [bits, seen] : conns_) {
      if (seen.state == State::kWs) act_on(seen.conn);
    }
  }
  void respond() {
    for (auto at = conns_.begin(); at != conns_.end(); ++at) {
      if (at->second.state != State::kAsked) continue;
      // Refused for one that is gone already: that is told by an event.
      const std::string body(byte() * 8u, 'r');
      if (server_->http_reply(at->second.conn, 200, "text/plain", body)) conns_.erase(at);
      return;
    }
  }
  void stream() {
    for (auto& [bits, seen] : conns_) {
      if (seen.state == State::kAsked) {
        if (server_->stream_begin(seen.conn, "text/event-stream")) seen.state = State::kStream;
        return;
      }
      if (seen.state == State::kStream) {
        if ((byte() & 7u) == 1) {
          if (server_->stream_end(seen.conn)) conns_.erase(bits);
          return;
        }
        server_->stream_write(seen.conn, std::string(byte() * 32u, 's'));
      }
    }
  }
  void finish_all() {
    for (const auto& [bits, seen] : std::exchange(conns_, {})) {
      const bool is_done =
          seen.state == State::kAsked    ? server_->http_reply(seen.conn, 404, "text/plain", "")
          : seen.state == State::kStream ? server_->stream_end(seen.conn)
                                         : server_->ws_close(seen.conn, 1'001, "") && false;
      if (!is_done) conns_.emplace(bits, seen);
    }
  }
  void say(const std::string& text) {
    each_ws([&](ConnRef conn) { server_->ws_send(conn, text); });
  }

  void turn(bool time_passes) {
    if (time_passes) now_ += 120'000;
    server_->collect(false);
    server_->tick(now_);
    for (const NetEvent& event : server_->events()) see(event);
    server_->flush();
    CHECK(server_->verify());
    server_->end_iteration();
    scratch_.reset();
  }
  void see(const NetEvent& event) {
    const std::uint64_t bits = event.conn.bits();
    switch (event.kind) {
      case NetEventKind::kHttpRequest:
        CHECK(event.request != nullptr && !event.request->method.empty());
        CHECK(conns_.emplace(bits, Seen{State::kAsked, event.conn}).second);
        break;
      case NetEventKind::kHttpClosed:
        CHECK(conns_.contains(bits) && conns_[bits].state != State::kWs);
        conns_.erase(bits);
        break;
      case NetEventKind::kWsOpen:
        CHECK(conns_.emplace(bits, Seen{State::kWs, event.conn}).second);
        break;
      case NetEventKind::kWsMessage:
        CHECK(conns_.contains(bits) && conns_[bits].state == State::kWs);
        CHECK(event.payload.size() <= kFrameLimitMost);
        CHECK(event.binary || utf8_valid(event.payload));
        break;
      case NetEventKind::kWsClosed:
        CHECK(conns_.contains(bits) && conns_[bits].state == State::kWs);
        CHECK(utf8_valid(event.payload));
        conns_.erase(bits);
        break;
      case NetEventKind::kWritable: break;  // also of a reply that the owner has done with
    }
  }

  std::unique_ptr<Loop> loop_;
  ServerOptions options_;
  ScratchArena scratch_, arena_;
  BufferPool pool_;
  std::string folder_, path_;
  std::unique_ptr<Server> server_;
  std::array<Fd, kClients> clients_;
  std::map<std::uint64_t, Seen> conns_;  // what the owner has to do with
  std::uint64_t now_ = 1'000'000;
  Bytes rest_;
};

}  // namespace
}  // namespace cm::net

CM_FUZZ_TARGET(server) {
  static cm::net::World world;
  world.run({data, size});
  return 0;
}
