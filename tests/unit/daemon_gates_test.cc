// daemon_gates_test.cc — bearer, sessions, limits: who is let in to the IPC, and how often.
// Holds:  see daemon_fixture.h.
#include "core/crypto/sign.h"
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using crypto::sha256;

constexpr const char* kToken = "0123456789abcdef0123456789abcdef0123456789a";
constexpr const char* kNewToken = "fedcba9876543210fedcba9876543210fedcba98765";

std::string bearer(const char* token) { return std::string("Bearer ") + token; }

TEST_F(DaemonTest, tcp_needs_the_bearer_and_the_unix_socket_does_not) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  const struct {
    std::string authorization;
    std::uint32_t status;
    const char* error;
  } rows[] = {
      {bearer(kToken), 200, ""},
      {"bearer  " + std::string(kToken), 200, ""},
      {"", 401, "missing bearer token"},
      {"Bearer", 401, "missing bearer token"},
      {"Bearer ", 401, "missing bearer token"},
      {"Basic eDp5", 401, "missing bearer token"},
      {"ClaudeMesh-Session " + std::string(64, 'a'), 401, "missing bearer token"},
      {bearer(kNewToken), 401, "invalid bearer token"},
      {bearer(kToken) + "x", 401, "invalid bearer token"},
      {bearer(kToken).substr(0, 20), 401, "invalid bearer token"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.authorization);
    EXPECT_EQ(status(tcp(row.authorization)), row.status);
    EXPECT_EQ(field(reply_, "error"), row.error);
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedBearer), 8u);
  EXPECT_EQ(status(http("GET", "/v1/version")), 200u);
}

TEST_F(DaemonTest, without_a_token_nobody_comes_in_over_tcp) {
  start();
  EXPECT_EQ(status(tcp(bearer(kToken))), 401u);
  EXPECT_EQ(status(tcp("Bearer " + std::string(43, '\0'))), 401u);
}

TEST_F(DaemonTest, health_is_public_only_when_it_was_asked_for) {
  config_.public_health = true;
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  EXPECT_EQ(status(tcp("", "/v1/health")), 200u);
  EXPECT_EQ(status(tcp("", "/v1/health", "POST")), 401u);
  EXPECT_EQ(status(tcp("", "/v1/version")), 401u);
}

TEST_F(DaemonTest, a_rotated_token_is_valid_for_another_sixty_seconds) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  const ConnRef conn = http("POST", "/v1/token/rotate");
  ASSERT_EQ(count(EffectKind::kRotateToken), 1u);
  EXPECT_EQ(status(conn), 0u) << "the file is written first";
  core_->set_local_token(sha256(as_bytes(std::string_view(kNewToken))));
  core_->on_token_rotated(conn, {}, "/d/local-token");
  run();
  EXPECT_EQ(status(conn), 200u);
  EXPECT_FALSE(has(reply_, kNewToken));
  EXPECT_EQ(status(tcp(bearer(kToken))), 200u);
  EXPECT_EQ(status(tcp(bearer(kNewToken))), 200u);
  later(59'999);
  EXPECT_EQ(status(tcp(bearer(kToken))), 200u);
  later(1);
  EXPECT_EQ(status(tcp(bearer(kToken))), 401u);
  EXPECT_EQ(status(tcp(bearer(kNewToken))), 200u);
}

TEST_F(DaemonTest, a_token_is_rotated_over_the_unix_socket_alone) {
  start();
  EXPECT_EQ(status(http("POST", "/v1/token/rotate")), 503u) << "there is none";
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  EXPECT_EQ(status(tcp(bearer(kToken), "/v1/token/rotate", "POST")), 403u);
  EXPECT_EQ(count(EffectKind::kRotateToken), 0u);
  const ConnRef conn = http("POST", "/v1/token/rotate");
  core_->on_token_rotated(conn, fail(Err::kIo, "cannot write"), "/d/local-token");
  run();
  EXPECT_EQ(status(conn), 500u);
}

TEST_F(DaemonTest, an_unknown_session_is_refused_except_for_version_and_health) {
  start();
  const struct {
    const char* path;
    const char* authorization;
    std::uint32_t status;
  } rows[] = {
      {"/v1/version", "ClaudeMesh-Session 00", 200}, {"/v1/health", "ClaudeMesh-Session 00", 200},
      {"/v1/inbox", "ClaudeMesh-Session 00", 401},   {"/v1/inbox", "claudemesh-session zz", 401},
      {"/v1/nowhere", "ClaudeMesh-Session 00", 401}, {"/v1/inbox", "Bearer x", 200},
      {"/v1/inbox", "ClaudeMesh-Sessions 00", 200},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(std::string(row.path) + " " + row.authorization);
    wire::HttpRequest request = request_of("GET", row.path, {}, {});
    request.authorization = row.authorization;
    request.peer_is_unix = true;
    EXPECT_EQ(status(submit(request)), row.status);
    if (row.status == 401) {
      EXPECT_EQ(field(reply_, "error"), "session_unknown");
      EXPECT_FALSE(field(reply_, "remedy").empty());
    }
  }
}

TEST_F(DaemonTest, the_gates_come_in_their_order) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  wire::HttpRequest request = request_of("GET", "/v1/nowhere", "token=x", {});
  request.host = "evil.example";
  request.has_origin = true;
  EXPECT_EQ(status(submit(request)), 400u);
  request.query = {};
  EXPECT_EQ(status(submit(request)), 403u);
  EXPECT_EQ(field(reply_, "error"), "forbidden host");
  request.host = "[::1]:47823";
  EXPECT_EQ(status(submit(request)), 403u);
  EXPECT_EQ(field(reply_, "error"), "forbidden origin");
  request.method = "OPTIONS";
  EXPECT_EQ(status(submit(request)), 403u) << "a preflight";
  request.has_origin = false;
  EXPECT_EQ(status(submit(request)), 401u);
  const std::string authorization = bearer(kToken);
  request.authorization = authorization;
  EXPECT_EQ(status(submit(request)), 404u);
}

TEST_F(DaemonTest, a_page_comes_in_only_when_its_origin_was_allowed_and_never_with_a_preflight) {
  config_.allowed_origins = {"http://localhost:3000", "https://app.example"};
  start();
  const struct {
    const char* origin;
    std::uint32_t status;
  } rows[] = {{"http://localhost:3000", 200},
              {"HTTP://LocalHost:3000", 200},
              {"https://app.example", 200},
              {"http://localhost:3001", 403},
              {"http://localhost", 403},
              {"http://localhost:3000.evil", 403},
              {"http://app.example", 403},
              {"https://app.example:443", 403},
              {"null", 403},
              {"", 403}};
  for (const auto& row : rows) {
    wire::HttpRequest request = request_of("GET", "/v1/version", {}, {});
    request.peer_is_unix = true;
    request.has_origin = true;
    request.origin = row.origin;
    EXPECT_EQ(status(submit(request)), row.status) << row.origin;
    request.method = "OPTIONS";
    EXPECT_EQ(status(submit(request)), 403u) << row.origin;
  }
  core_->set_allowed_origins({});
  wire::HttpRequest request = request_of("GET", "/v1/version", {}, {});
  request.peer_is_unix = true;
  request.has_origin = true;
  request.origin = "http://localhost:3000";
  EXPECT_EQ(status(submit(request)), 403u) << "a reload may take it back";
}

TEST_F(DaemonTest, an_allowed_origin_needs_the_bearer_like_everybody) {
  config_.allowed_origins = {"http://localhost:3000"};
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  wire::HttpRequest request = request_of("GET", "/v1/version", {}, {});
  request.has_origin = true;
  request.origin = "http://localhost:3000";
  EXPECT_EQ(status(submit(request)), 401u);
  const std::string authorization = bearer(kToken);
  request.authorization = authorization;
  EXPECT_EQ(status(submit(request)), 200u);
}

TEST_F(DaemonTest, a_host_in_brackets_ends_with_them_or_a_port) {
  start();
  const struct {
    const char* host;
    std::uint32_t status;
  } rows[] = {{"[::1]", 200},
              {"[::1]:47823", 200},
              {"[::1", 403},
              {"[evil.example", 403},
              {"[", 403},
              {"[]", 403},
              {"[::1].evil.example", 403},
              {"[::1]x", 403},
              {"[::1]:80.evil.example", 403},
              {"localhost:47823", 200},
              {"127.0.0.1", 200},
              {"", 200}};
  for (const auto& row : rows) {
    wire::HttpRequest request = request_of("GET", "/v1/version", {}, {});
    request.peer_is_unix = true;
    request.host = row.host;
    EXPECT_EQ(status(submit(request)), row.status) << row.host;
  }
}

TEST_F(DaemonTest, strangers_share_one_rate_and_do_not_use_up_the_owners) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  const std::string wrong[] = {bearer(kNewToken), "", "Bearer " + std::string(4'000, 'x')};
  std::uint32_t refused = 0;
  while (status(tcp(wrong[refused % 3])) == 401 && refused < 2'000) ++refused;
  EXPECT_EQ(refused, 1'000u);
  EXPECT_EQ(status(tcp(bearer(kNewToken))), 429u);
  EXPECT_EQ(field(reply_, "error"), "too_many_requests");
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedBearer), 1'000u);
  EXPECT_EQ(status(tcp(bearer(kToken))), 200u) << "who knows the token is no stranger";
  EXPECT_EQ(status(http("GET", "/v1/version")), 200u);
  later(1'000);
  refused = 0;
  while (status(tcp(bearer(kNewToken))) == 401 && refused < 2'000) ++refused;
  EXPECT_EQ(refused, 100u);
}

TEST_F(DaemonTest, wrong_bearers_are_logged_once_a_second_with_their_number) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  const auto lines = [&] {
    std::size_t found = 0;
    for (std::size_t at = 0;
         (at = parts_.logged.find("ipc_bearer_mismatch", at)) != std::string::npos; ++at) {
      ++found;
    }
    return found;
  };
  for (int index = 0; index < 50; ++index) tcp(bearer(kNewToken));
  EXPECT_EQ(lines(), 1u);
  parts_.advance(999);
  tcp(bearer(kNewToken));
  EXPECT_EQ(lines(), 1u);
  parts_.advance(1);
  tcp(bearer(kNewToken));
  EXPECT_EQ(lines(), 2u);
  EXPECT_TRUE(has(parts_.logged, "\"count\":51")) << parts_.logged;
}

TEST_F(DaemonTest, a_token_has_a_thousand_requests_at_once_and_a_hundred_a_second) {
  start();
  core_->set_local_token(sha256(as_bytes(std::string_view(kToken))));
  std::uint32_t passed = 0;
  while (status(tcp(bearer(kToken))) == 200 && passed < 2'000) ++passed;
  EXPECT_EQ(passed, 1'000u);
  EXPECT_EQ(field(reply_, "error"), "too_many_requests");
  EXPECT_TRUE(has(reply_, "100 requests a second"));
  std::uint32_t retry_after = 0;
  core_->on_http({9'000, 1}, [&] {
    static const std::string authorization = bearer(kToken);
    wire::HttpRequest request = request_of("GET", "/v1/version", {}, {});
    request.authorization = authorization;
    return request;
  }());
  for (const Effect& effect : effects_.list()) retry_after = effect.retry_after_s;
  EXPECT_EQ(retry_after, 1u);
  run();
  later(1'000);
  passed = 0;
  while (status(tcp(bearer(kToken))) == 200 && passed < 2'000) ++passed;
  EXPECT_EQ(passed, 100u);
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedRate), 3u);
  EXPECT_EQ(status(http("GET", "/v1/version")), 200u) << "the unix socket has no token";
}

TEST_F(DaemonTest, a_body_over_the_limit_is_413_and_names_it) {
  start();
  const std::string body((1 << 20) + 1, ' ');
  EXPECT_EQ(status(http("POST", "/v1/send", {}, body)), 413u);
  EXPECT_TRUE(has(reply_, "1048576")) << reply_;
  EXPECT_FALSE(field(reply_, "remedy").empty());
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedBody), 1u);
}

TEST_F(DaemonTest, the_65th_request_that_has_to_wait_is_told_to_come_again) {
  start();
  connect({});
  std::vector<ConnRef> waiting;
  for (int index = 0; index < 64; ++index) waiting.push_back(http("GET", "/v1/topic/list"));
  EXPECT_EQ(status(http("GET", "/v1/topic/list")), 429u);
  EXPECT_EQ(field(reply_, "error"), "daemon_busy");
  EXPECT_EQ(status(http("GET", "/v1/inbox")), 200u) << "what is answered at once never waits";
  EXPECT_EQ(status(http("GET", "/v1/peers")), 200u);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
  core_->on_http_closed(waiting[0]);
  http("GET", "/v1/topic/list");
  EXPECT_FALSE(sent("topic_list").empty()) << "one that went away made room";
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedBusy), 1u);
}

TEST_F(DaemonTest, wrong_methods_and_unknown_routes_are_404) {
  start();
  const char* const rows[][2] = {{"POST", "/v1/version"},
                                 {"GET", "/v1/send"},
                                 {"PUT", "/v1/inbox"},
                                 {"DELETE", "/v1/inbox/"},
                                 {"DELETE", "/v1/inbox/a/b"},
                                 {"GET", "/v1/skills/a/b"},
                                 {"GET", "/v1/skills/"},
                                 {"GET", "/v1"},
                                 {"GET", "/"},
                                 {"GET", "/v1/version/"},
                                 {"HEAD", "/v1/version"},
                                 {"get", "/v1/version"}};
  for (const auto& row : rows) {
    EXPECT_EQ(status(http(row[0], row[1])), 404u) << row[0] << " " << row[1];
    EXPECT_EQ(reply_, R"({"error":"not found"})");
  }
}

TEST_F(DaemonTest, replies_are_counted_by_endpoint_status_and_transport) {
  start();
  status(http("GET", "/v1/inbox"));
  status(http("GET", "/v1/inbox", "limit=x"));
  status(http("GET", "/v1/inbox/<script>"));
  status(tcp("", "/v1/inbox"));
  status(http("GET", "/v1/metrics"));
  const char* const lines[] = {
      R"(cm_daemon_ipc_replies_total{endpoint="GET /v1/inbox",status="2xx",transport="unix"} 1)",
      R"(cm_daemon_ipc_replies_total{endpoint="GET /v1/inbox",status="4xx",transport="unix"} 1)",
      R"(cm_daemon_ipc_replies_total{endpoint="GET /v1/inbox",status="4xx",transport="tcp"} 1)",
      R"(cm_daemon_ipc_replies_total{endpoint="other",status="4xx",transport="unix"} 1)",
      R"(cm_daemon_connected{mesh="crew"} 0)"};
  for (const char* line : lines) EXPECT_TRUE(has(reply_, line)) << line << "\n" << reply_;
  EXPECT_FALSE(has(reply_, "script"));
}

TEST_F(DaemonTest, answers_are_counted_by_how_long_they_took) {
  start();
  connect({});
  status(http("GET", "/v1/version"));
  const ConnRef waiting = http("GET", "/v1/topic/list");
  later(5'000);
  EXPECT_EQ(status(waiting), 504u);
  status(http("GET", "/v1/metrics"));
  const std::string lists = R"({endpoint="GET /v1/topic/list")";
  const std::string lines[] = {
      R"(cm_daemon_ipc_duration_seconds_bucket{endpoint="GET /v1/version",le="0.001"} 1)",
      R"(cm_daemon_ipc_duration_seconds_sum{endpoint="GET /v1/version"} 0.000)",
      "cm_daemon_ipc_duration_seconds_bucket" + lists + R"(,le="1"} 0)",
      "cm_daemon_ipc_duration_seconds_bucket" + lists + R"(,le="5"} 1)",
      "cm_daemon_ipc_duration_seconds_bucket" + lists + R"(,le="+Inf"} 1)",
      "cm_daemon_ipc_duration_seconds_sum" + lists + "} 5.000",
      "cm_daemon_ipc_duration_seconds_count" + lists + "} 1"};
  for (const std::string& line : lines) EXPECT_TRUE(has(reply_, line + "\n")) << line << reply_;
}

TEST_F(DaemonTest, the_age_of_the_outbox_and_the_use_of_the_disk_are_shown) {
  parts_.limits.outbox_rows_max = 4;
  start(2);
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"crew")"), 202u);
  later(90'500);
  status(http("GET", "/v1/metrics"));
  for (const char* line :
       {R"(cm_daemon_outbox_age_seconds{mesh="crew"} 90)",
        R"(cm_daemon_outbox_age_seconds{mesh="other"} 0)", R"(cm_daemon_disk_pct{kind="store"} 0)",
        R"(cm_daemon_disk_pct{kind="tombstones"} 0)", R"(cm_daemon_disk_pct{kind="outbox"} 25)"}) {
    EXPECT_TRUE(has(reply_, std::string(line) + "\n")) << line << reply_;
  }
}

// Each family once, with its help and type before its samples.
TEST_F(DaemonTest, metrics_have_the_form_that_prometheus_asks_for) {
  start(2);
  status(http("GET", "/v1/metrics"));
  std::vector<std::string> families;
  std::string family;
  bool histogram = false;
  std::size_t at = 0;
  while (at < reply_.size()) {
    const std::size_t end = reply_.find('\n', at);
    ASSERT_NE(end, std::string::npos) << "the last line ends";
    const std::string line = reply_.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_EQ(std::count(families.begin(), families.end(), family), 0) << family;
      families.push_back(family);
    } else if (line.starts_with("# TYPE ")) {
      const bool counter = line.ends_with(" counter");
      histogram = line.ends_with(" histogram");
      EXPECT_EQ(line.substr(7, family.size() + 1), family + " ");
      EXPECT_EQ(counter, family.ends_with("_total")) << line;
    } else {
      const std::string name = line.substr(0, line.find_first_of("{ "));
      const bool part = histogram && (name == family + "_bucket" || name == family + "_sum" ||
                                      name == family + "_count");
      EXPECT_TRUE(part || name == family) << line;
    }
  }
  EXPECT_GT(families.size(), 20u);
}

}  // namespace
}  // namespace cm::daemon
