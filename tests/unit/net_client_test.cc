// net_client_test.cc — the blocking client of the command line, against a Server.
// Holds:  the client runs in a thread of its own, the server in the test's.
// Not:    used by the loop (core/net/http_client.h).
#include <atomic>
#include <thread>
#include <vector>

#include "core/net/http_client.h"
#include "tests/unit/net_server_fixture.h"
#include "tests/unit/tls_fixture.h"

namespace cm::net {
namespace {

TEST_F(NetServer, blocking_client_calls_over_unix_and_tcp) {
  start();
  on_event_ = [&](const NetEvent& event) {
    if (event.kind != NetEventKind::kHttpRequest) return;
    server_->http_reply(event.conn, 200, "application/json", event.request->body);
  };
  std::atomic<bool> done = false;
  std::thread caller([&] {
    for (const Endpoint& endpoint : {Endpoint{path_, {}, 0}, Endpoint{{}, "127.0.0.1", port_}}) {
      const std::string body(300'000, 'b');
      const HttpHeader headers[] = {{"X-Test", "1"}};
      const auto reply = http_call(endpoint, "POST", "/v1/send", headers, body, 10'000);
      EXPECT_TRUE(reply);
      if (!reply) continue;
      EXPECT_EQ(reply->status, 200);
      EXPECT_EQ(reply->header("content-type"), "application/json");
      EXPECT_EQ(reply->body, body);
    }
    done = true;
  });
  until([&] { return done.load(); });
  caller.join();
}

TEST_F(NetServer, blocking_client_reads_a_stream_line_by_line) {
  start();
  on_event_ = [&](const NetEvent& event) {
    if (event.kind != NetEventKind::kHttpRequest) return;
    server_->stream_begin(event.conn, "text/event-stream");
    server_->stream_write(event.conn, ": conn");
    server_->stream_write(event.conn, "ected\n\ndata: 1\r\n");
    if (event.request->path == "/ends") server_->stream_end(event.conn);
  };
  std::atomic<bool> done = false;
  std::thread caller([&] {
    const Endpoint endpoint{path_, {}, 0};
    std::vector<std::string> lines;
    const auto collect = [](void* context, std::string_view line) {
      auto* found = static_cast<std::vector<std::string>*>(context);
      found->emplace_back(line);
      return found->size() != 3;
    };
    const std::vector<std::string> expected = {": connected", "", "data: 1"};
    EXPECT_TRUE(http_stream(endpoint, "GET", "/stays", {}, 10'000, collect, &lines));
    EXPECT_EQ(lines, expected);
    lines.assign(10, "");
    EXPECT_TRUE(http_stream(endpoint, "GET", "/ends", {}, 10'000, collect, &lines));
    EXPECT_EQ(lines.size(), 13u);
    done = true;
  });
  until([&] { return done.load(); });
  caller.join();
}

TEST_F(NetServer, blocking_client_tells_absence_from_silence) {
  EXPECT_EQ(http_call({path_, {}, 0}, "GET", "/", {}, {}, 1'000).code(), Err::kUnavailable);
  EXPECT_EQ(http_call({{}, "127.0.0.1", 1}, "GET", "/", {}, {}, 1'000).code(), Err::kUnavailable);
  start();
  EXPECT_EQ(http_call({path_, {}, 0}, "GET", "/", {}, {}, 0).code(), Err::kTimeout);
  EXPECT_EQ(http_call({path_, {}, 0}, "GET", "/", {}, {}, 20).code(), Err::kTimeout);
}

TEST_F(NetServer, blocking_client_verifies_who_answers_over_tls) {
  TestCa ca;
  TestCa other("another CA");
  server_ = std::make_unique<Server>(*loop_, options_, scratch_, pool_);
  server_->set_tls(ca.server());
  port_ = server_->listen_tls("127.0.0.1", 0).value();
  on_event_ = [&](const NetEvent& event) {
    if (event.kind != NetEventKind::kHttpRequest) return;
    server_->http_reply(event.conn, 200, "application/json", event.request->body);
  };
  std::atomic<bool> done = false;
  std::thread caller([&] {
    Endpoint endpoint{{}, "127.0.0.1", port_, true, ca.file()};
    const std::string body(300'000, 'b');
    const auto reply = http_call(endpoint, "POST", "/x", {}, body, 10'000);
    EXPECT_TRUE(reply) << reply.error().detail;
    EXPECT_TRUE(reply && reply->body == body);
    endpoint.host = "localhost";
    EXPECT_TRUE(http_call(endpoint, "POST", "/x", {}, "y", 10'000));
    endpoint.ca_file = other.file();
    const auto refused = http_call(endpoint, "POST", "/x", {}, "y", 10'000);
    EXPECT_EQ(refused.code(), Err::kTlsFailed);
    EXPECT_NE(refused.error().detail.find("unknown CA"), std::string::npos);
    endpoint.ca_file = "/nonexistent.pem";
    EXPECT_EQ(http_call(endpoint, "POST", "/x", {}, "y", 10'000).code(), Err::kIo);
    endpoint.tls = false;  // plain HTTP to a TLS port
    const auto plain = http_call(endpoint, "GET", "/x", {}, {}, 10'000);
    EXPECT_TRUE(plain && plain->status == 400);
    done = true;
  });
  until([&] { return done.load(); });
  caller.join();
}

TEST_F(NetServer, blocking_client_gives_up_on_a_handshake_that_does_not_come) {
  start();  // a plain server that waits for a request; and one that never answers at all
  TestCa ca;
  const Fd silent = std::move(listen_tcp("127.0.0.1", 0).value());
  const Endpoint endpoint{{}, "127.0.0.1", bound_port(silent.get()), true, ca.file()};
  EXPECT_EQ(http_call(endpoint, "GET", "/", {}, {}, 50).code(), Err::kTimeout);
}

}  // namespace
}  // namespace cm::net
