// net_server_fair_test.cc — nobody is dropped, misunderstood or kept waiting for what others did.
// Holds:  the server's clock is in the test's hand; sockets are real.
// Not:    budgets of memory (net_server_memory_test.cc), deadlines as such (net_server_ws_test.cc).
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>

#include "tests/unit/net_server_fixture.h"
#include "tests/unit/tls_fixture.h"

namespace cm::net {
namespace {

class NetServerFair : public NetServer {
 protected:
  std::string masked_close(std::uint16_t code) {
    ScratchArena arena;
    TextBuf out(arena);
    codec_.write_close(out, code, "", &kMask);
    return std::string(out.view());
  }
};

TEST_F(NetServerFair, who_has_spoken_is_not_stale_because_we_were_late_to_read_it) {
  options_.limits.iteration_rows_max = 1;
  start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int index = 0; index < 5; ++index) {
    clients.push_back(std::make_unique<Client>(path_));
    open_ws(*clients.back());
  }
  // One whole message each, and the beginning of another one: neither is too late.
  const std::string two = masked(WsOpcode::kText, "two");
  for (auto& client : clients) client->send(masked(WsOpcode::kText, "one") + two.substr(0, 4));
  now_ += options_.limits.stale_ms + 5'000;
  turn();
  for (auto& client : clients) client->send(two.substr(4));
  until([&] { return seen_.size() >= 10; });
  for (const SeenEvent& event : seen_) EXPECT_EQ(event.kind, NetEventKind::kWsMessage);
  EXPECT_EQ(server_->stats().dropped_stale, 0u);
  now_ += options_.limits.stale_ms;
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->stats().dropped_stale, 5u) << "silent at last";
}

TEST_F(NetServerFair, who_was_dropped_for_its_output_counts_for_nobody_any_more) {
  options_.limits.slow_consumer_soft_bytes = 1 << 20;
  options_.limits.slow_consumer_hard_bytes = 4 << 20;
  options_.limits.output_group_bytes_max = 20 << 20;
  start();
  Client slow[4] = {Client(path_), Client(path_), Client(path_), Client(path_)};
  Client good(path_);
  ConnRef refs[4];
  for (int index = 0; index < 4; ++index) {
    refs[index] = open_ws(slow[index]);
    server_->ws_set_group(refs[index], 7);
    server_->ws_send(refs[index], std::string(3500 << 10, 'x'));
    turn();
  }
  const ConnRef healthy = open_ws(good);
  server_->ws_set_group(healthy, 7);
  EXPECT_GE(server_->output_bytes(), 16u << 20);
  // One text to all of them: it is the last for those that read nothing.
  const std::string text(3 << 20, 'y');
  for (const ConnRef ref : refs) server_->ws_send(ref, text);
  EXPECT_EQ(server_->output_bytes(), 0u);
  server_->ws_send(healthy, text);
  server_->flush();
  EXPECT_TRUE(server_->alive(healthy));
  EXPECT_EQ(server_->stats().dropped_slow, 4u);
}

TEST_F(NetServerFair, the_last_word_of_a_peer_is_read_although_a_write_to_it_failed) {
  start();
  for (const bool pushed : {false, true}) {
    Client client(port_, 4096);
    const ConnRef conn = open_ws(client);
    server_->ws_send(conn, std::string(pushed ? 3'000 : 8 << 20, 'x'));
    settle();
    if (!pushed) {
      EXPECT_GT(server_->pending_output(conn), 0u);
    }
    client.send(masked_close(1009));
    client.close();  // with bytes that it has not read: a reset
    if (pushed) {
      server_->ws_send(conn, "one more");
      server_->flush();
    }
    const SeenEvent closed = next();
    EXPECT_EQ(closed.kind, NetEventKind::kWsClosed);
    EXPECT_EQ(closed.code, 1009u) << pushed;
    until([&] { return server_->drained(); });
    EXPECT_TRUE(seen_.empty()) << "once";
    EXPECT_EQ(server_->output_bytes(), 0u);
  }
}

TEST_F(NetServerFair, while_events_wait_the_loop_writes_and_accepts_and_reads_nothing) {
  start();
  Client reader(path_);
  const ConnRef conn = open_ws(reader);
  server_->ws_send(conn, std::string(1 << 20, 'x'));
  server_->flush();
  ASSERT_GT(server_->pending_output(conn), 0u);
  Client other(path_);
  reader.send(masked(WsOpcode::kText, "later"));
  const auto attend = [&] {
    server_->attend();
    server_->tick(now_);
    server_->flush();
  };
  for (int turns = 0; turns < 1'000 && server_->pending_output(conn) > 0; ++turns) {
    reader.take();
    attend();
  }
  attend();
  EXPECT_EQ(server_->pending_output(conn), 0u);
  EXPECT_EQ(server_->connections(), 2u);
  EXPECT_TRUE(server_->events().empty());
  EXPECT_EQ(next().text, "later");
}

TEST_F(NetServerFair, key_updates_without_end_end_a_connection) {
  ::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes with write()
  TestCa ca;
  server_ = std::make_unique<Server>(*loop_, options_, scratch_, pool_);
  server_->set_tls(ca.server());
  const auto port = server_->listen_tls("127.0.0.1", 0);
  ASSERT_TRUE(port);
  Client raw(*port);
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             SSL_CTX_free);
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), SSL_free);
  SSL_set_fd(ssl.get(), raw.fd());
  ::fcntl(raw.fd(), F_SETFL, O_NONBLOCK);
  until([&] { return SSL_connect(ssl.get()) == 1; });
  const auto update = [&](int times) {
    for (int count = 0; count < times; ++count) {
      SSL_key_update(ssl.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
      until([&] { return SSL_do_handshake(ssl.get()) == 1 || server_->drained(); });
    }
  };
  update(500);
  SSL_write(ssl.get(), kGet.data(), static_cast<int>(kGet.size()));
  const SeenEvent request = next();
  EXPECT_EQ(request.kind, NetEventKind::kHttpRequest) << "some are nobody's offence";
  server_->http_reply(request.conn, 200, "text/plain", "x");
  settle();
  EXPECT_EQ(server_->connections(), 1u);
  update(3'000);
  until([&] { return server_->drained(); });
}

// Empty continuations of a message that has begun, faster than an iteration reads.
class NetServerFlood : public NetServerFair {
 protected:
  void begin(Client& client) {
    conn_ = open_ws(client);
    server_->ws_set_frame_limit(conn_, 1 << 20);
    client.send(fragment(0x01));
    settle();
    for (int count = 0; count < 100'000; ++count) burst_ += fragment(0x00);
  }
  // A second of it. The connection was not read to its end when the clock moves on.
  void flood(Client& client) {
    now_ += 1'000;
    for (ssize_t sent = 1; sent > 0; at_ = at_ == burst_.size() ? 0 : at_) {
      sent = ::send(client.fd(), burst_.data() + at_, burst_.size() - at_,
                    MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) at_ += static_cast<std::size_t>(sent);
    }
    server_->collect(false);
    server_->tick(now_);
    server_->flush();
    server_->end_iteration();
    scratch_.reset();
    client.take();
  }
  static std::string fragment(char opcode) {
    return std::string(1, opcode) + "\x80" + std::string(4, '\1');
  }
  ConnRef conn_;
  std::string burst_;
  std::size_t at_ = 0;
};

TEST_F(NetServerFlood, a_message_without_end_has_its_time_and_not_more) {
  start();
  Client client(port_);
  begin(client);
  int seconds = 0;
  for (; seconds < 300 && server_->alive(conn_); ++seconds) flood(client);
  EXPECT_LE(seconds, 45);
}

TEST_F(NetServerFlood, whoever_is_told_to_go_goes) {
  start();
  Client client(port_);
  begin(client);
  for (int second = 0; second < 29; ++second) flood(client);
  ASSERT_TRUE(server_->alive(conn_));
  server_->ws_close(conn_, 4002, "revoked");
  int seconds = 0;
  for (; seconds < 300 && server_->alive(conn_); ++seconds) flood(client);
  EXPECT_LE(seconds, 10);
}

}  // namespace
}  // namespace cm::net
