// net_server_test.cc — the Server as an HTTP server: requests, replies, streams, listeners.
// Holds:  over real sockets, with the clock in the test's hand.
// Not:    WebSockets (net_server_ws_test.cc), parsing rules (net_http_test.cc).
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/net_server_fixture.h"

namespace cm::net {
namespace {

TEST_F(NetServer, answers_requests_over_tcp_and_keeps_the_connection) {
  start();
  Client client(port_);
  for (int round = 0; round < 3; ++round) {
    client.send("POST /v1/x?y HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    const SeenEvent event = next();
    EXPECT_EQ(event.kind, NetEventKind::kHttpRequest);
    EXPECT_EQ(event.text, "POST /v1/x?y body");
    EXPECT_TRUE(event.peer.is_loopback);
    EXPECT_FALSE(event.peer.is_unix);
    const HttpHeader extra[] = {{"X-Round", "1"}};
    EXPECT_TRUE(server_->http_reply(event.conn, 202, "application/json", "{\"ok\":true}", extra));
    EXPECT_FALSE(server_->http_reply(event.conn, 202, "application/json", "{}"));
    until([&] { return client.text().ends_with("{\"ok\":true}"); });
    EXPECT_NE(client.text().find("X-Round: 1\r\n"), std::string::npos);
    EXPECT_NE(client.text().find("Connection: keep-alive\r\n"), std::string::npos);
    client.clear();
  }
  EXPECT_EQ(pool_.lent_bytes(), 0u);
  EXPECT_EQ(server_->connections(), 1u);
}

TEST_F(NetServer, knows_the_peer_of_a_unix_socket_whose_file_is_private) {
  start();
  struct stat found {};
  ASSERT_EQ(::stat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  Client client(path_);
  client.send(kGet);
  const SeenEvent event = next();
  EXPECT_TRUE(event.peer.is_unix);
  EXPECT_EQ(event.peer.uid, ::getuid());
  EXPECT_EQ(event.peer.pid, ::getpid());
}

TEST_F(NetServer, pipelined_requests_wait_for_the_reply_before_them) {
  start();
  Client client(path_);
  client.send(kGet + "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n" + "GET /3 HTTP/1.1\r\nHost: a\r\nConnec");
  const SeenEvent first = next();
  settle();
  EXPECT_TRUE(seen_.empty());
  server_->http_reply(first.conn, 200, "text/plain", "one");
  const SeenEvent second = next();
  EXPECT_EQ(second.text, "GET /2 ");
  client.send("tion: close\r\n\r\n");
  server_->http_reply(second.conn, 200, "text/plain", "two");
  const SeenEvent third = next();
  server_->http_reply(third.conn, 200, "text/plain", "three");
  until([&] { return client.ended(); });
  EXPECT_LT(client.text().find("one"), client.text().find("two"));
  EXPECT_TRUE(client.text().ends_with("three"));
  client.close();
  until([&] { return server_->drained(); });
}

TEST_F(NetServer, refuses_malformed_requests_and_closes_without_losing_the_reply) {
  start();
  Client client(port_);
  client.send("GET / HTTP/1.1\nHost: a\r\n\r\n" + std::string(20'000, 'x'));
  until([&] { return client.ended(); });
  EXPECT_EQ(client.text().substr(0, 12), "HTTP/1.1 400");
  EXPECT_NE(client.text().find("{\"error\":\"a line does not end with CR LF\"}"),
            std::string::npos);
  EXPECT_EQ(server_->connections(), 1u);  // lingers for the client's end
  client.close();
  until([&] { return server_->drained(); });
  EXPECT_TRUE(seen_.empty());
  EXPECT_EQ(server_->stats().refused_requests, 1u);
}

TEST_F(NetServer, sends_continue_and_skips_bodies_of_head_replies) {
  start();
  Client client(path_);
  client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  until([&] { return client.text() == "HTTP/1.1 100 Continue\r\n\r\n"; });
  client.clear();
  client.send("ok");
  server_->http_reply(next().conn, 204, {}, "ignored");
  until([&] { return client.text().ends_with("\r\n\r\n"); });
  client.clear();
  client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  server_->http_reply(next().conn, 200, "text/plain", "12345");
  until([&] { return client.text().ends_with("\r\n\r\n"); });
  EXPECT_NE(client.text().find("Content-Length: 5"), std::string::npos);
}

TEST_F(NetServer, tells_when_a_requester_goes_away_before_its_reply) {
  start();
  Client client(path_);
  client.send(kGet);
  const SeenEvent request = next();
  client.close();
  const SeenEvent closed = next();
  EXPECT_EQ(closed.kind, NetEventKind::kHttpClosed);
  EXPECT_EQ(closed.conn, request.conn);
  EXPECT_FALSE(server_->http_reply(request.conn, 200, "text/plain", "late"));
  EXPECT_TRUE(server_->drained());
}

TEST_F(NetServer, a_client_that_only_finished_sending_gets_its_reply) {
  start();
  for (const bool tcp : {true, false}) {
    Client client = tcp ? Client(port_) : Client(path_);
    client.send(kGet);
    client.finish();
    const SeenEvent request = next();
    settle();
    EXPECT_TRUE(server_->http_reply(request.conn, 200, "text/plain", "here"));
    until([&] { return client.ended(); });
    EXPECT_TRUE(client.text().ends_with("here"));
    until([&] { return server_->drained(); });
  }
  EXPECT_TRUE(seen_.empty());
}

TEST_F(NetServer, a_connection_reset_mid_reply_is_dropped) {
  start();
  Client client(port_, 4096);
  client.send(kGet);
  const SeenEvent request = next();
  const std::string big(8 << 20, 'x');
  EXPECT_TRUE(server_->http_reply(request.conn, 200, "text/plain", big));
  settle();
  EXPECT_GT(server_->pending_output(request.conn), 0u);
  client.close();  // with unread input: a reset
  until([&] { return server_->drained(); });
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

TEST_F(NetServer, half_a_request_is_answered_408_after_its_deadline) {
  start();
  Client silent(path_);
  Client half(path_);
  half.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhal");
  until([&] { return server_->connections() == 2; });
  settle();
  EXPECT_EQ(server_->next_deadline(), kStart + 30'000);
  now_ = kStart + 29'999;
  half.send("f");
  settle();
  EXPECT_FALSE(half.ended());
  now_ = kStart + 30'000;
  until([&] { return half.ended(); });
  EXPECT_EQ(half.text().substr(0, 12), "HTTP/1.1 408");
  half.close();
  until([&] { return silent.ended(); });
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->next_deadline(), kNever);
}

TEST_F(NetServer, lingering_and_idle_connections_end_by_themselves) {
  start();
  Client client(path_);
  client.send(kGet);
  server_->http_reply(next().conn, 200, "text/plain", "x");
  settle();
  now_ += 75'000;
  settle();
  EXPECT_TRUE(client.ended());
  EXPECT_TRUE(server_->drained());
  Client bad(path_);
  bad.send("nonsense\r\n\r\n");
  until([&] { return bad.ended(); });
  settle();
  EXPECT_FALSE(server_->drained());
  now_ += 5'000;
  settle();
  EXPECT_TRUE(server_->drained());
}

TEST_F(NetServer, streams_events_until_their_reader_leaves) {
  start();
  Client client(path_);
  client.send(kGet);
  const ConnRef conn = next().conn;
  const HttpHeader extra[] = {{"Cache-Control", "no-cache, no-transform"}};
  EXPECT_TRUE(server_->stream_begin(conn, "text/event-stream", extra));
  EXPECT_TRUE(server_->stream_write(conn, ": connected\n\n"));
  EXPECT_FALSE(server_->http_reply(conn, 200, "text/plain", "no"));
  until([&] { return client.text().ends_with("\r\nd\r\n: connected\n\n\r\n"); });
  now_ += 1'000'000;
  settle();
  EXPECT_TRUE(server_->stream_write(conn, "data: 1\n\n"));
  until([&] { return client.text().ends_with("9\r\ndata: 1\n\n\r\n"); });
  client.close();
  EXPECT_EQ(next().kind, NetEventKind::kHttpClosed);
  EXPECT_FALSE(server_->stream_write(conn, "data: 2\n\n"));
}

TEST_F(NetServer, a_stream_that_ends_leaves_the_connection_usable) {
  start();
  Client client(path_);
  client.send(kGet);
  const ConnRef conn = next().conn;
  server_->stream_begin(conn, "text/event-stream");
  server_->stream_write(conn, "x");
  EXPECT_TRUE(server_->stream_end(conn));
  until([&] { return client.text().ends_with("1\r\nx\r\n0\r\n\r\n"); });
  client.send(kGet);
  EXPECT_EQ(next().conn, conn);
}

TEST_F(NetServer, too_many_connections_are_turned_away) {
  options_.connections_max = 1;
  start();
  Client first(port_);
  until([&] { return server_->connections() == 1; });
  Client second(port_);
  until([&] { return second.ended(); });
  EXPECT_EQ(second.text().substr(0, 12), "HTTP/1.1 503");
  EXPECT_TRUE(second.text().ends_with("{\"error\":\"too many connections\"}"));
  EXPECT_EQ(server_->stats().refused_full, 1u);
}

TEST_F(NetServer, tcp_leaves_half_of_the_connections_to_the_unix_socket) {
  options_.connections_max = 4;
  start();
  Client first(port_), second(port_);
  until([&] { return server_->connections() == 2; });
  Client third(port_);
  until([&] { return third.ended(); });
  EXPECT_EQ(third.text().substr(0, 12), "HTTP/1.1 503");
  EXPECT_EQ(server_->stats().refused_full, 1u);
  Client own(path_), other(path_);
  until([&] { return server_->connections() == 4; });
  first.close();
  until([&] { return server_->connections() == 3; });
  Client again(port_);
  until([&] { return server_->connections() == 4; });
  EXPECT_FALSE(again.ended()) << "a slot of TCP was free again";
}

TEST_F(NetServer, out_of_descriptors_the_listeners_pause_instead_of_spinning) {
  start();
  Client first(port_);
  until([&] { return server_->connections() == 1; });
  Client second(port_);
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{static_cast<rlim_t>(second.fd()), before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  until([&] { return server_->next_deadline() == kStart + 1'000; });
  ::setrlimit(RLIMIT_NOFILE, &before);
  now_ += 1'000;
  until([&] { return server_->connections() == 2; });
}

TEST_F(NetServer, a_vanished_socket_file_is_bound_again_and_a_stale_one_replaced) {
  start();
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  until([&] { return ::access(path_.c_str(), F_OK) == 0; });
  Client client(path_);
  client.send(kGet);
  EXPECT_EQ(next().kind, NetEventKind::kHttpRequest);

  Server other(*loop_, options_, scratch_, pool_);
  EXPECT_EQ(other.listen_unix(path_).code(), Err::kAlreadyRunning);
  const std::string stale = folder_ + "/stale.sock";
  {
    FileId file;
    Result<Fd> left_behind = listen_unix(stale, file);
    ASSERT_TRUE(left_behind);
  }
  EXPECT_TRUE(other.listen_unix(stale));
  const std::string regular = folder_ + "/file";
  Fd(::open(regular.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(other.listen_unix(regular).code(), Err::kIo);
  EXPECT_EQ(::access(regular.c_str(), F_OK), 0);
  ::unlink(regular.c_str());
  EXPECT_EQ(other.listen_unix(folder_ + "/" + std::string(120, 'x')).code(), Err::kInvalidArgument);
  other.drain(1001, "");
  EXPECT_NE(::access(stale.c_str(), F_OK), 0);
}

TEST_F(NetServer, drains_websockets_streams_and_replies_that_are_due) {
  start();
  Client ws(path_);
  open_ws(ws);
  Client idle(path_);
  Client busy(path_);
  busy.send(kGet);
  const ConnRef due = next().conn;
  server_->drain(1001, "shutting down");
  until([&] { return ws.text() == close_frame(1001, "shutting down"); });
  ws.close();
  until([&] { return idle.ended(); });
  idle.close();
  EXPECT_TRUE(server_->http_reply(due, 200, "text/plain", "last"));
  until([&] { return busy.ended(); });
  EXPECT_NE(busy.text().find("Connection: close"), std::string::npos);
  busy.close();
  until([&] { return server_->drained(); });
  EXPECT_NE(::access(path_.c_str(), F_OK), 0);
}

TEST_F(NetServer, a_client_that_begins_tls_on_a_plain_port_is_told_at_once) {
  start();
  Client client(path_);
  client.send(std::string("\x16\x03\x01\x00\x10", 5));
  until([&] { return client.ended(); });
  EXPECT_TRUE(client.text().starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(
      client.text().ends_with("{\"error\":\"this port speaks no TLS: use http:// or ws://\"}"));
}

}  // namespace
}  // namespace cm::net
