// daemon_ipc_test.cc — gates, limits and replies of the IPC; event streams.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

// --- gates -----------------------------------------------------------------------------------

TEST_F(DaemonTest, the_gates_refuse_query_tokens_foreign_hosts_and_origins) {
  start();
  struct Case {
    const char* query;
    const char* host;
    bool origin;
    std::uint32_t status;
  };
  for (const Case& row : std::initializer_list<Case>{
           {"", "localhost", false, 200},
           {"", "LOCALHOST:47823", false, 200},
           {"", "127.0.0.1:47823", false, 200},
           {"", "[::1]:47823", false, 200},
           {"", "[::1]", false, 200},
           {"token=x", "localhost", false, 400},
           {"a=1&token", "localhost", false, 400},
           {"%74oken=x", "localhost", false, 400},
           {"to%6ben=", "localhost", false, 400},
           {"%zz=1", "localhost", false, 400},
           {"", "evil.example", false, 403},
           {"", "127.0.0.1.evil.example", false, 403},
           {"", "localhost.evil.example:80", false, 403},
           {"", "[::2]:80", false, 403},
           {"", "localhost", true, 403},
           {"token=x", "evil.example", true, 400},
       }) {
    SCOPED_TRACE(std::string(row.query) + " " + row.host);
    wire::HttpRequest request;
    request.method = "GET";
    request.path = "/v1/health";
    request.query = row.query;
    request.host = row.host;
    request.has_origin = row.origin;
    request.peer_is_unix = true;
    core_->on_http({1, 1}, request);
    run();
    EXPECT_EQ(status({1, 1}), row.status);
  }
  EXPECT_EQ(status(get("/v1/nothing")), 404u);
}

// --- streams ---------------------------------------------------------------------------------

TEST_F(DaemonTest, a_stream_begins_with_a_comment_and_is_kept_alive) {
  start();
  const ConnRef conn = get("/v1/events");
  EXPECT_EQ(count(EffectKind::kStreamBegin), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, ": connected\n\n"), 1u);
  later(14'999);
  EXPECT_EQ(count(EffectKind::kStreamWrite), 0u);
  later(1);
  EXPECT_EQ(count(EffectKind::kStreamWrite, ": keepalive\n\n"), 1u);
  core_->on_http_closed(conn);
  later(15'000);
  EXPECT_EQ(count(EffectKind::kStreamWrite), 0u);
}

TEST_F(DaemonTest, the_33rd_stream_is_refused) {
  start();
  ConnRef last;
  for (int stream = 0; stream < 32; ++stream) {
    last = get("/v1/events");
    EXPECT_EQ(status(last), 0u);
  }
  EXPECT_EQ(status(get("/v1/events")), 429u);
  EXPECT_EQ(field(reply_, "error"), "too_many_streams");
  core_->on_http_closed(last);
  EXPECT_EQ(status(get("/v1/events")), 0u);
}

}  // namespace
}  // namespace cm::daemon
