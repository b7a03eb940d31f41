// net_server_fixture.h — a Server driven turn by turn, and a raw client at the other end.
// Owns:   Client, NetServer (the gtest fixture), shared by the tests of core/net's server.
// Holds:  no sleep and no timed assertion: the server's clock is what the test gives to tick().
// Not:    the tests.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/un.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "core/net/server.h"
#include "core/net/ws_handshake.h"

namespace cm::net {

inline constexpr WsMask kMask = {1, 2, 3, 4};
inline constexpr std::uint64_t kStart = 1'000'000;

class Client {
 public:
  explicit Client(std::uint16_t port, int receive_buffer = 0) {
    fd_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (receive_buffer != 0) {
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  explicit Client(const std::string& path) {
    fd_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }

  void send(std::string_view bytes) {
    EXPECT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Everything that has arrived since the last call; sets ended() at the end.
  std::string take() {
    std::string text;
    char room[16384];
    for (;;) {
      const ssize_t got = ::recv(fd_.get(), room, sizeof room, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN)) ended_ = true;
      if (got <= 0) return text;
      text.append(room, static_cast<std::size_t>(got));
    }
  }
  bool ended() {
    take_more();
    return ended_;
  }
  const std::string& text() {
    take_more();
    return text_;
  }
  void clear() { text_.clear(); }
  void close() { fd_.reset(); }
  void finish() { ::shutdown(fd_.get(), SHUT_WR); }
  int fd() const { return fd_.get(); }

 private:
  void take_more() { text_ += take(); }

  Fd fd_;
  std::string text_;
  bool ended_ = false;
};

struct SeenEvent {
  NetEventKind kind;
  ConnRef conn;
  PeerInfo peer;
  std::uint16_t code;
  std::string text;  // message, reason, or "METHOD target body"
};

// One server with its loop, driven turn by turn. `on_event` plays the owner after the commit.
class NetServer : public ::testing::Test {
 protected:
  NetServer() : loop_(std::move(Loop::create(1'000'000).value())) {
    options_.connections_max = 64;
    options_.websockets = true;
    char folder[] = "/tmp/net_server_test.XXXXXX";
    folder_ = ::mkdtemp(folder);
    path_ = folder_ + "/s.sock";
  }
  ~NetServer() override {
    server_.reset();
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }

  void start() {
    server_ = std::make_unique<Server>(*loop_, options_, scratch_, pool_);
    Result<std::uint16_t> port = server_->listen_tcp("127.0.0.1", 0);
    ASSERT_TRUE(port);
    port_ = *port;
    Status listening = server_->listen_unix(path_);
    ASSERT_TRUE(listening) << listening.error().detail;
  }

  void turn() {
    server_->collect(false);
    server_->tick(now_);
    for (const NetEvent& event : server_->events()) {
      std::string text(event.payload);
      if (event.request != nullptr) {
        text = std::string(event.request->method) + " " + std::string(event.request->target) + " " +
               std::string(event.request->body);
      }
      if (keep_) seen_.push_back({event.kind, event.conn, event.peer, event.code, text});
      if (on_event_) on_event_(event);
    }
    server_->flush();
    EXPECT_TRUE(server_->verify());
    server_->end_iteration();
    scratch_.reset();
  }
  // Turns until the condition holds. The kernel may deliver over TCP whenever it likes, so the
  // bound is generous: it only ends a test that has failed.
  void until(const std::function<bool()>& condition) {
    const std::uint64_t give_up = Loop::mono_ms() + 30'000;
    while (Loop::mono_ms() < give_up) {
      turn();
      if (condition()) return;
      ::sched_yield();
    }
    FAIL() << "the condition did not come true";
  }
  SeenEvent next() {
    until([&] { return !seen_.empty(); });
    if (seen_.empty()) return {};
    SeenEvent event = seen_.front();
    seen_.pop_front();
    return event;
  }
  // Takes in everything that was sent over unix sockets, which deliver within send().
  void settle() {
    for (int turns = 0; turns < 20; ++turns) turn();
  }

  ConnRef open_ws(Client& client) {
    ScratchArena arena;
    TextBuf text(arena);
    ws_write_upgrade(text, "/ws", "localhost", WsNonce{7}, {});
    client.send(text.view());
    const SeenEvent event = next();
    EXPECT_EQ(event.kind, NetEventKind::kWsOpen);
    until([&] { return client.text().find("\r\n\r\n") != std::string::npos; });
    EXPECT_EQ(client.text().substr(0, 12), "HTTP/1.1 101");
    client.clear();
    return event.conn;
  }
  std::string masked(WsOpcode opcode, std::string_view payload) {
    ScratchArena arena;
    TextBuf out(arena);
    codec_.write_frame(out, opcode, payload, &kMask);
    return std::string(out.view());
  }
  std::string unmasked(WsOpcode opcode, std::string_view payload) {
    ScratchArena arena;
    TextBuf out(arena);
    codec_.write_frame(out, opcode, payload, nullptr);
    return std::string(out.view());
  }
  std::string close_frame(std::uint16_t code, std::string_view reason) {
    ScratchArena arena;
    TextBuf out(arena);
    codec_.write_close(out, code, reason, nullptr);
    return std::string(out.view());
  }

  std::unique_ptr<Loop> loop_;
  ServerOptions options_;
  ScratchArena scratch_;
  BufferPool pool_;
  WsCodec codec_;
  std::unique_ptr<Server> server_;
  std::uint16_t port_ = 0;
  std::string folder_;
  std::string path_;
  std::uint64_t now_ = kStart;
  bool keep_ = true;
  std::deque<SeenEvent> seen_;
  std::function<void(const NetEvent&)> on_event_;
};

inline const std::string kGet = "GET /v1/x?y HTTP/1.1\r\nHost: localhost\r\n\r\n";

}  // namespace cm::net
