// net_server_tls_test.cc — the Server behind TLS: handshake, limits, closes, reload, idle memory.
// Holds:  real sockets on loopback; the server's clock is in the test's hand.
// Not:    TLS itself (net_tls_test.cc).
#include <malloc.h>

#include <vector>

#include "tests/unit/net_server_fixture.h"
#include "tests/unit/tls_fixture.h"

namespace cm::net {
namespace {

// A client that speaks TLS over a raw one. `step` bounds the bytes of one send().
class TlsClient {
 public:
  TlsClient(std::uint16_t port, const TlsContext& context, std::size_t step = SIZE_MAX)
      : raw_(port),
        step_(step),
        tls_(context, {&TlsClient::read, &TlsClient::write, this}, "127.0.0.1") {
    set_nodelay(raw_.fd());
  }

  // Goes on with whatever can be done now.
  void move() {
    if (!tls_.established() && tls_.handshake() != TlsStep::kOk) return;
    while (!out_.empty()) {
      std::size_t taken = 0;
      if (tls_.write(as_bytes(out_), taken) != TlsStep::kOk) break;
      out_.erase(0, taken);
    }
    std::uint8_t room[20000];
    for (;;) {
      std::size_t got = 0;
      last_ = tls_.read(room, got);
      if (last_ != TlsStep::kOk) return;
      text_.append(reinterpret_cast<const char*>(room), got);
    }
  }
  void send(std::string_view bytes) { out_ += bytes; }
  bool sent() const { return out_.empty(); }
  const std::string& text() {
    move();
    return text_;
  }
  void clear() { text_.clear(); }
  TlsStep last() {
    move();
    return last_;
  }
  // The bytes on the wire that would carry this; they are not sent.
  std::string record_of(std::string_view bytes) {
    held_.clear();
    hold_ = true;
    std::size_t taken = 0;
    EXPECT_EQ(tls_.write(as_bytes(bytes), taken), TlsStep::kOk);
    hold_ = false;
    return held_;
  }
  TlsStream& tls() { return tls_; }
  Client& raw() { return raw_; }
  bool established() {
    move();
    return tls_.established();
  }

 private:
  static ssize_t read(void* self, MutableBytes to) {
    return ::recv(static_cast<TlsClient*>(self)->raw_.fd(), to.data(), to.size(), MSG_DONTWAIT);
  }
  static ssize_t write(void* self, Bytes from) {
    auto* client = static_cast<TlsClient*>(self);
    if (client->hold_) {
      client->held_.append(reinterpret_cast<const char*>(from.data()), from.size());
      return static_cast<ssize_t>(from.size());
    }
    return ::send(client->raw_.fd(), from.data(), std::min(from.size(), client->step_),
                  MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  Client raw_;
  std::size_t step_;
  TlsStream tls_;
  std::string out_;
  std::string text_;
  TlsStep last_ = TlsStep::kWantRead;
  std::string held_;
  bool hold_ = false;
};

class NetServerTls : public NetServer {
 protected:
  NetServerTls() : client_context_(ca_.client()) {}

  void start_tls() {
    server_ = std::make_unique<Server>(*loop_, options_, scratch_, pool_);
    server_->set_tls(ca_.server());
    Result<std::uint16_t> port = server_->listen_tls("127.0.0.1", 0);
    ASSERT_TRUE(port);
    port_ = *port;
  }
  void echo() {
    on_event_ = [this](const NetEvent& event) {
      if (event.kind == NetEventKind::kWsMessage) server_->ws_send(event.conn, event.payload);
      if (event.kind == NetEventKind::kHttpRequest) {
        server_->http_reply(event.conn, 200, "text/plain", event.request->body);
      }
    };
  }
  ConnRef open_ws_over(TlsClient& client) {
    ScratchArena arena;
    TextBuf text(arena);
    ws_write_upgrade(text, "/ws", "localhost", WsNonce{7}, {});
    client.send(text.view());
    until([&] { return client.text().find("\r\n\r\n") != std::string::npos; });
    EXPECT_EQ(client.text().substr(0, 12), "HTTP/1.1 101");
    client.clear();
    const SeenEvent event = next();
    EXPECT_EQ(event.kind, NetEventKind::kWsOpen);
    return event.conn;
  }

  TestCa ca_;
  TlsContext client_context_;
};

TEST_F(NetServerTls, requests_are_answered_and_known_to_be_encrypted) {
  start_tls();
  echo();
  TlsClient client(port_, client_context_);
  client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
  until([&] { return client.text().ends_with("hello"); });
  const SeenEvent event = next();
  EXPECT_TRUE(event.peer.is_tls);
  EXPECT_TRUE(event.peer.is_loopback);
  // Two more on the same connection, in one record.
  client.clear();
  client.send(kGet + kGet);
  until([&] {
    client.move();
    return seen_.size() == 2;
  });
}

TEST_F(NetServerTls, large_frames_go_both_ways_also_through_small_buffers) {
  start_tls();
  echo();
  TlsClient client(port_, client_context_);
  const ConnRef conn = open_ws_over(client);
  server_->ws_set_frame_limit(conn, 8 << 20);
  for (const std::size_t size : {0u, 1u, 16'384u, 16'385u, 300'000u, 3'000'000u}) {
    const std::string message(size, 'm');
    client.send(masked(WsOpcode::kText, message));
    const std::string expected = unmasked(WsOpcode::kText, message);
    until([&] { return client.text().size() >= expected.size(); });
    EXPECT_TRUE(client.text() == expected) << size;
    client.clear();
  }
  EXPECT_EQ(pool_.lent_bytes(), 0u);
  EXPECT_EQ(server_->partial_bytes(), 0u);
}

TEST_F(NetServerTls, a_client_may_send_its_bytes_one_by_one) {
  start_tls();
  echo();
  TlsClient client(port_, client_context_, 1);
  open_ws_over(client);
  client.send(masked(WsOpcode::kText, "drip"));
  until([&] { return client.text() == unmasked(WsOpcode::kText, "drip"); });
}

// More than one read takes lies in one record: nothing announces the rest but we ourselves.
TEST_F(NetServerTls, decrypted_bytes_that_wait_are_not_forgotten) {
  struct Row {
    std::uint32_t read_bytes;
    std::uint32_t rows;
  };
  for (const Row& row : {Row{4096, 4096}, Row{256 << 10, 3}, Row{4096, 3}}) {
    options_.limits.socket_read_bytes_max = row.read_bytes;
    options_.limits.iteration_rows_max = row.rows;
    start_tls();
    echo();
    TlsClient client(port_, client_context_);
    open_ws_over(client);
    std::string all;
    std::string expected;
    for (int index = 0; index < 100; ++index) {
      const std::string text = std::to_string(index) + std::string(140, '.');
      all += masked(WsOpcode::kText, text);
      expected += unmasked(WsOpcode::kText, text);
    }
    client.send(all);  // 15 KB: one record
    until([&] { return client.text().size() >= expected.size(); });
    EXPECT_TRUE(client.text() == expected);
    seen_.clear();
  }
}

TEST_F(NetServerTls, requests_behind_a_reply_that_is_due_wait_within_tls_too) {
  start_tls();
  std::vector<ConnRef> due;
  on_event_ = [&](const NetEvent& event) { due.push_back(event.conn); };
  TlsClient client(port_, client_context_);
  // The second request fills the pipeline in the middle of a record.
  const std::string head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ";
  client.send(head + "1000\r\n\r\n" + std::string(1000, 'a') + head + "40000\r\n\r\n" +
              std::string(40'000, 'b'));
  until([&] {
    client.move();
    return due.size() == 1 && client.sent();
  });
  for (int turns = 0; turns < 20; ++turns) turn();
  EXPECT_TRUE(server_->http_reply(due[0], 200, "text/plain", "one"));
  until([&] { return due.size() == 2; });
  EXPECT_TRUE(server_->http_reply(due[1], 200, "text/plain", "two"));
  until([&] { return client.text().ends_with("two"); });
}

TEST_F(NetServerTls, plain_http_is_told_what_to_use_and_ends_cleanly) {
  start_tls();
  Client plain(port_);
  plain.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n" + std::string(3000, 'x'));
  until([&] { return plain.ended(); });
  EXPECT_TRUE(plain.text().starts_with("HTTP/1.1 400 ")) << plain.text();
  EXPECT_TRUE(
      plain.text().ends_with("{\"error\":\"this port speaks TLS: use https:// or wss://\"}"));
  char byte = 0;
  EXPECT_EQ(::recv(plain.fd(), &byte, 1, 0), 0);  // an end, no reset
  EXPECT_EQ(server_->stats().tls_failed, 1u);
  plain.close();
  until([&] { return server_->drained(); });
  EXPECT_TRUE(seen_.empty());
}

TEST_F(NetServerTls, rubbish_ends_the_connection) {
  start_tls();
  Client noise(port_);
  noise.send(std::string(300, '\xee'));
  until([&] { return noise.ended(); });
  noise.close();
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->stats().tls_failed, 1u);
}

TEST_F(NetServerTls, a_handshake_has_ten_seconds_however_it_drips) {
  start_tls();
  Client silent(port_);
  Client slow(port_);
  until([&] { return server_->connections() == 2; });
  turn();
  for (int second = 0; second < 9; ++second) {
    slow.send(second == 0 ? "\x16" : second == 1 ? "\x03" : second == 2 ? "\x01" : "\x02");
    now_ += 1'000;
    for (int turns = 0; turns < 20; ++turns) turn();
  }
  EXPECT_EQ(server_->connections(), 2u);
  now_ += 1'000;
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->stats().tls_failed, 2u);
  EXPECT_TRUE(silent.ended());
}

TEST_F(NetServerTls, a_handshake_has_as_many_bytes_as_a_stranger) {
  options_.limits.unauthenticated_bytes_max = 2'000;
  start_tls();
  Client greedy(port_);
  // A ClientHello of 16 KB that never ends.
  std::string hello("\x16\x03\x01\x3f\x00\x01\x00\x3e\xfc\x03\x03", 11);
  hello.resize(1'500, 'r');
  greedy.send(hello);
  for (int turns = 0; turns < 20; ++turns) turn();
  EXPECT_EQ(server_->connections(), 1u);
  greedy.send(std::string(600, 'r'));
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->stats().tls_failed, 1u);
}

TEST_F(NetServerTls, an_orderly_close_says_so_to_tls) {
  start_tls();
  echo();
  TlsClient client(port_, client_context_);
  client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  until([&] { return client.last() == TlsStep::kEnd; });
  EXPECT_TRUE(client.text().starts_with("HTTP/1.1 200"));
  TlsClient ws(port_, client_context_);
  seen_.clear();
  const ConnRef conn = open_ws_over(ws);
  EXPECT_TRUE(server_->ws_close(conn, 4000, "over"));
  until([&] { return ws.text() == close_frame(4000, "over"); });
  ScratchArena arena;
  TextBuf bye(arena);
  codec_.write_close(bye, 4000, "", &kMask);
  ws.send(bye.view());
  until([&] { return ws.last() == TlsStep::kEnd; });
}

TEST_F(NetServerTls, a_cut_connection_is_reported_closed) {
  start_tls();
  TlsClient client(port_, client_context_);
  open_ws_over(client);
  client.raw().close();
  const SeenEvent closed = next();
  EXPECT_EQ(closed.kind, NetEventKind::kWsClosed);
  EXPECT_EQ(closed.code, 1006);
}

// Of an unfinished record not a byte of its frame can be read, yet it has begun and holds memory.
TEST_F(NetServerTls, the_record_of_a_frame_must_arrive_within_the_frames_deadline) {
  start_tls();
  TlsClient client(port_, client_context_);
  open_ws_over(client);
  settle();
  const auto drip = [&](const std::string& bytes) {
    client.raw().send(bytes);
    for (int turns = 0; turns < 50; ++turns) turn();
  };
  std::string record = client.record_of(masked(WsOpcode::kText, std::string(200, 'x')));
  drip(record.substr(0, 100));
  EXPECT_GT(server_->partial_bytes(), 0u);
  now_ += 29'000;
  drip(record.substr(100));
  EXPECT_EQ(next().text, std::string(200, 'x'));
  EXPECT_EQ(server_->partial_bytes(), 0u);
  record = client.record_of(masked(WsOpcode::kText, std::string(200, 'x')));
  drip(record.substr(0, 100));
  now_ += 29'000;
  drip(record.substr(100, 50));
  EXPECT_TRUE(seen_.empty());
  now_ += 1'000;
  const SeenEvent closed = next();
  EXPECT_EQ(closed.kind, NetEventKind::kWsClosed);
  EXPECT_EQ(closed.code, 1008);
}

TEST_F(NetServerTls, new_connections_use_a_new_certificate_and_old_ones_go_on) {
  start_tls();
  echo();
  TlsClient old(port_, client_context_);
  open_ws_over(old);
  const std::string first = old.tls().peer_fingerprint();
  server_->set_tls(ca_.server("renewed", {}));
  old.send(masked(WsOpcode::kText, "still"));
  until([&] { return old.text() == unmasked(WsOpcode::kText, "still"); });
  TlsClient fresh(port_, client_context_);
  until([&] { return fresh.established(); });
  EXPECT_NE(fresh.tls().peer_fingerprint(), first);
}

TEST_F(NetServerTls, a_full_server_turns_away_without_a_handshake) {
  options_.connections_max = 1;
  start_tls();
  TlsClient first(port_, client_context_);
  until([&] { return first.established(); });
  Client second(port_);
  until([&] { return second.ended(); });
  EXPECT_EQ(second.text(), "");
  EXPECT_EQ(server_->stats().refused_full, 1u);
}

TEST_F(NetServerTls, output_that_does_not_fit_waits_and_a_slow_reader_gets_all_of_it) {
  options_.limits.slow_consumer_soft_bytes = 1 << 20;
  start_tls();
  TlsClient client(port_, client_context_);
  const ConnRef conn = open_ws_over(client);
  const std::string message(100'000, 'x');
  std::size_t expected = 0;
  while (server_->pending_output(conn) < 3u << 20) {
    ASSERT_TRUE(server_->ws_send(conn, message));
    server_->flush();
    expected += message.size() + 10;
  }
  until([&] { return client.text().size() >= expected; });
  EXPECT_EQ(client.text().size(), expected);
  EXPECT_EQ(next().kind, NetEventKind::kWritable);
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

TEST_F(NetServerTls, draining_ends_every_connection_whatever_it_is_doing) {
  start_tls();
  TlsClient idle(port_, client_context_);
  until([&] { return idle.established(); });
  Client shaking(port_);
  TlsClient ws(port_, client_context_);
  open_ws_over(ws);
  until([&] { return server_->connections() == 3; });
  server_->drain(1001, "bye");
  until([&] { return ws.text() == close_frame(1001, "bye"); });
  until([&] { return idle.last() == TlsStep::kEnd; });
  idle.raw().close();
  ws.raw().close();
  until([&] { return server_->drained(); });
}

TEST_F(NetServerTls, an_idle_connection_owns_no_buffer_of_ours_and_none_of_openssls_records) {
  options_.connections_max = 400;
  start_tls();
  std::vector<std::unique_ptr<TlsClient>> clients;
  const auto open_many = [&](int count) {
    for (int index = 0; index < count; ++index) {
      clients.push_back(std::make_unique<TlsClient>(port_, client_context_));
      server_->ws_set_frame_limit(open_ws_over(*clients.back()), 1 << 20);
    }
    for (int turns = 0; turns < 20; ++turns) turn();
  };
  open_many(50);  // what only the first ones cost
  clients.clear();
  until([&] { return server_->drained(); });
  seen_.clear();
  const std::size_t before = ::mallinfo2().uordblks;
  open_many(100);
  EXPECT_EQ(pool_.lent_bytes(), 0u);
  EXPECT_EQ(server_->partial_bytes(), 0u);
  clients.clear();  // the server has not heard of it: what is left is its own
  const std::size_t each = (::mallinfo2().uordblks - before) / 100;
  RecordProperty("bytes_each", static_cast<int>(each));
  EXPECT_LT(each, Server::kTlsIdleBytes);  // sanitizers count nothing here
}

}  // namespace
}  // namespace cm::net
