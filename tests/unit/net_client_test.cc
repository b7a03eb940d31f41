// net_client_test.cc — the blocking client of the command line, against a Server.
// Holds:  the client runs in a thread of its own, the server in the test's.
// Not:    used by the loop (http_client.h).
#include <atomic>
#include <thread>
#include <vector>

#include "core/net/http_client.h"
#include "tests/unit/net_server_fixture.h"

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

}  // namespace
}  // namespace cm::net
