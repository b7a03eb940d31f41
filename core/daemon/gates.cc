// gates.cc — what stands before the routes of the local HTTP API, and how a reply leaves.
// Holds:  gates come first and in the order of spec/ipc.md §2: token in the query, Host, Origin,
//         bearer, session, then the limits. Tokens are compared by their hashes, in constant time.
//         Every reply goes through reply(), which counts it by route, status and transport.
// Source: docs/PROTOCOL.md §10.1; spec/ipc.md §2, §10; spec/decisions.md, "Limits", "Presence and
//         identity".
// Not:    the routes themselves (routes_*.cc), sockets (core/net).
#include <algorithm>
#include <utility>

#include "core/crypto/sign.h"
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"
#include "core/wire/query.h"

namespace cm::daemon {
namespace {

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// What may stand behind the bracket of an address.
bool is_port_or_nothing(std::string_view text) noexcept {
  if (text.empty()) return true;
  return text.front() == ':' &&
         std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_local_host(std::string_view host) noexcept {
  std::string_view name = host;
  if (name.starts_with("[")) {
    const std::size_t end = name.find(']');
    if (end == std::string_view::npos || !is_port_or_nothing(name.substr(end + 1))) return false;
    name = name.substr(0, end + 1);
  } else if (name.find(':') == name.rfind(':')) {
    name = name.substr(0, name.find(':'));
  }
  std::string text(name);
  std::transform(text.begin(), text.end(), text.begin(), lower);
  return text.empty() || text == "localhost" || text == "127.0.0.1" || text == "[::1]" ||
         text == "::1";
}

// The credentials behind a scheme, which compares without case; nothing for another scheme.
std::optional<std::string_view> credentials(std::string_view authorization,
                                            std::string_view scheme) noexcept {
  const std::size_t space = authorization.find(' ');
  if (space != scheme.size()) return std::nullopt;
  const bool same = std::equal(scheme.begin(), scheme.end(), authorization.begin(),
                               [](char a, char b) { return lower(a) == lower(b); });
  if (!same) return std::nullopt;
  const std::size_t start = authorization.find_first_not_of(' ', space);
  return start == std::string_view::npos ? std::string_view{} : authorization.substr(start);
}

}  // namespace

// The path of a row with is_prefix is followed by one segment.
const Daemon::Route Daemon::kRoutes[] = {
    {"GET", "/v1/version", false, &Daemon::get_version},
    {"GET", "/v1/health", false, &Daemon::get_health},
    {"GET", "/v1/compat", false, &Daemon::get_compat},
    {"GET", "/v1/metrics", false, &Daemon::get_metrics},
    {"POST", "/v1/heartbeat", false, &Daemon::post_heartbeat},
    {"POST", "/v1/token/rotate", false, &Daemon::post_rotate},
    {"POST", "/v1/reload", false, &Daemon::post_reload},
    {"GET", "/v1/events", false, &Daemon::get_events},
    {"POST", "/v1/send", false, &Daemon::post_send},
    {"GET", "/v1/outbox", false, &Daemon::get_outbox},
    {"POST", "/v1/outbox/requeue", false, &Daemon::post_requeue},
    {"POST", "/v1/outbox/prune", false, &Daemon::post_prune},
    {"GET", "/v1/outbox/", true, &Daemon::get_outbox_row},
    {"DELETE", "/v1/outbox/", true, &Daemon::delete_outbox_row},
    {"GET", "/v1/message/status", false, &Daemon::get_message_status},
    {"GET", "/v1/message/explain", false, &Daemon::get_message_explain},
    {"GET", "/v1/inbox", false, &Daemon::get_inbox},
    {"POST", "/v1/inbox/seen", false, &Daemon::post_seen},
    {"DELETE", "/v1/inbox", false, &Daemon::delete_inbox},
    {"DELETE", "/v1/inbox/", true, &Daemon::delete_inbox_row},
    {"GET", "/v1/peers", false, &Daemon::get_peers},
    {"GET", "/v1/state", false, &Daemon::get_state},
    {"POST", "/v1/state", false, &Daemon::post_state},
    {"GET", "/v1/memory", false, &Daemon::get_memory},
    {"POST", "/v1/memory", false, &Daemon::post_memory},
    {"DELETE", "/v1/memory/", true, &Daemon::delete_memory},
    {"GET", "/v1/skills", false, &Daemon::get_skills},
    {"GET", "/v1/skills/", true, &Daemon::get_skill},
    {"POST", "/v1/profile", false, &Daemon::post_profile},
    {"GET", "/v1/topic/list", false, &Daemon::get_topics},
    {"GET", "/v1/topic/members", false, &Daemon::get_topic_members},
    {"GET", "/v1/topic/history", false, &Daemon::get_topic_history},
    {"POST", "/v1/topic/create", false, &Daemon::post_topic_create},
    {"POST", "/v1/topic/post", false, &Daemon::post_topic_post},
    {"POST", "/v1/topic/subscribe", false, &Daemon::post_topic_subscribe},
    {"POST", "/v1/topic/unsubscribe", false, &Daemon::post_topic_unsubscribe},
    {"POST", "/v1/topic/read", false, &Daemon::post_topic_read},
    {"POST", "/v1/group/join", false, &Daemon::post_group_join},
    {"POST", "/v1/group/leave", false, &Daemon::post_group_leave},
};
const std::size_t Daemon::kRouteCount = std::size(Daemon::kRoutes);

void Daemon::on_http(ConnRef conn, const wire::HttpRequest& request) {
  metrics_.add(Metric::kDaemonIpcRequests);
  tables_.requests.push_back(conn);
  const auto serves = [&](const Route& route) {
    if (route.method != request.method) return false;
    if (!route.is_prefix) return route.path == request.path;
    return request.path.starts_with(route.path) && request.path.size() > route.path.size() &&
           request.path.find('/', route.path.size()) == std::string_view::npos;
  };
  const Route* const end = kRoutes + kRouteCount;
  const Route* const route = std::find_if(kRoutes, end, serves);
  tables_.open[conn] = {static_cast<std::uint32_t>(route - kRoutes), request.peer_is_unix,
                        env_.mono_ms};
  if (!pass_gates(conn, request)) return;
  if (request.body.size() > limits_.http_body_bytes_max) {
    metrics_.add(Metric::kDaemonRefusedBody);
    return reply_error(conn,
                       fail(Err::kTooBig, "the body has " + std::to_string(request.body.size()) +
                                              " bytes, the limit is " +
                                              std::to_string(limits_.http_body_bytes_max)));
  }
  if (route == end) return reply(conn, 404, R"({"error":"not found"})");
  (this->*route->handler)(conn, request);
}

bool Daemon::pass_gates(ConnRef conn, const wire::HttpRequest& request) {
  const auto refuse = [&](Metric metric, std::uint32_t status, std::string_view text) {
    metrics_.add(metric);
    reply(conn, status, text);
    return false;
  };
  // A query that cannot be read is refused the same way: it might hold one.
  if (wire::query_find(request.query, "token", scratch()).kind != wire::QueryValue::Kind::kAbsent) {
    env_.log->warn("ipc_token_in_query_string_rejected");
    return refuse(Metric::kDaemonRefusedToken, 400,
                  R"({"error":"token must be in Authorization header, not query string"})");
  }
  if (!is_local_host(request.host)) {
    return refuse(Metric::kDaemonRefusedHost, 403, R"({"error":"forbidden host"})");
  }
  // Browsers show one with every preflight and every foreign request. No answer ever carries a CORS
  // header, so a page that is let in may act, and reads nothing unless it is served from here.
  if (request.has_origin && !is_allowed_origin(request)) {
    return refuse(Metric::kDaemonRefusedOrigin, 403, R"({"error":"forbidden origin"})");
  }
  return request.peer_is_unix ? pass_session(conn, request) : pass_bearer(conn, request);
}

// Scheme and host compare without case; settings are in lower case. No preflight is ever answered.
bool Daemon::is_allowed_origin(const wire::HttpRequest& request) const noexcept {
  if (request.method == "OPTIONS") return false;
  const std::string_view shown = request.origin;
  return std::any_of(config_.allowed_origins.begin(), config_.allowed_origins.end(),
                     [&](const std::string& one) {
                       return std::equal(one.begin(), one.end(), shown.begin(), shown.end(),
                                         [](char a, char b) { return a == lower(b); });
                     });
}

bool Daemon::pass_session(ConnRef conn, const wire::HttpRequest& request) {
  if (!credentials(request.authorization, "ClaudeMesh-Session")) return true;
  if (request.path == "/v1/version" || request.path == "/v1/health") return true;
  metrics_.add(Metric::kDaemonRefusedSession);
  reply_error(conn, fail(Err::kSessionUnknown));
  return false;
}

// A token is looked at before the credit of strangers, so that they cannot lock its owner out.
bool Daemon::pass_bearer(ConnRef conn, const wire::HttpRequest& request) {
  using Who = Bearers::Who;
  if (config_.public_health && request.method == "GET" && request.path == "/v1/health") {
    return take_credit(conn, Who::kStranger);
  }
  const auto shown = credentials(request.authorization, "Bearer");
  const bool has_token = shown && !shown->empty();
  const Who who = has_token ? bearers_.who(*shown, env_.mono_ms) : Who::kStranger;
  if (has_token && who == Who::kStranger) log_bearer_mismatch();
  if (!take_credit(conn, who)) return false;
  if (who != Who::kStranger) return true;
  metrics_.add(Metric::kDaemonRefusedBearer);
  reply(conn, 401,
        has_token ? R"({"error":"invalid bearer token"})" : R"({"error":"missing bearer token"})");
  return false;
}

// False: it was answered with 429.
bool Daemon::take_credit(ConnRef conn, Bearers::Who who) {
  if (bearers_.take_credit(who, env_.mono_ms)) return true;
  metrics_.add(Metric::kDaemonRefusedRate);
  reply_error(conn,
              fail(Err::kTooManyRequests, "at most " + std::to_string(limits_.ipc_rate_per_second) +
                                              " requests a second, " +
                                              std::to_string(limits_.ipc_rate_burst) + " at once"),
              1);
  return false;
}

void Daemon::log_bearer_mismatch() {
  const std::uint64_t count = bearers_.note_mismatch(env_.mono_ms);
  if (count != 0) env_.log->warn("ipc_bearer_mismatch", {{"count", count}});
}

void Daemon::set_local_token(const crypto::Hash32& sha256) { bearers_.set(sha256, env_.mono_ms); }

void Daemon::reply(ConnRef conn, std::uint32_t status, std::string_view body,
                   std::string_view content_type, std::uint32_t retry_after_s,
                   std::string_view next) {
  count_reply(conn, status);
  effects_.http_reply(conn, status, body, content_type, retry_after_s, next);
}

std::string_view Daemon::page_behind(const wire::HttpRequest& request, const Ulid& id) {
  TextBuf target(scratch(), 256);
  target.append(request.path);
  target.append('?');
  const UlidText text = ulid_text(id);
  wire::query_with(request.query, "cursor", view(text), scratch(), target);
  return target.view();
}

void Daemon::note_answered(ConnRef conn) {
  const auto& requests = tables_.requests;
  if (std::find(requests.begin(), requests.end(), conn) == requests.end()) {
    tables_.requests.push_back(conn);
  }
}

void Daemon::count_reply(ConnRef conn, std::uint32_t status) {
  const auto found = tables_.open.find(conn);
  if (found == tables_.open.end()) return;
  // A stream begins, it does not end: how long it lasts is no duration of an answer.
  route_counts_.add(found->second.route, found->second.is_unix, status,
                    env_.mono_ms - found->second.since_ms);
  tables_.open.erase(found);
}

void Daemon::reply_error(ConnRef conn, const Error& error, std::uint32_t retry_after_s) {
  const ErrInfo& info = info_of(error.code);
  if (error.code == Err::kBusy) metrics_.add(Metric::kDaemonRefusedBusy);
  if (error.code == Err::kTooManyStreams) metrics_.add(Metric::kDaemonRefusedStream);
  if (error.code == Err::kDiskFull) metrics_.add(Metric::kDaemonRefusedDisk);
  tell_refused(error.code, error.detail);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("error", info.wire_code);
  if (error.code == Err::kMeshRequired) {
    json.key("attached").begin_array();
    tables_.meshes.each([&](MeshRef mesh) { json.text(config_of(mesh).slug); });
    json.end_array();
  }
  if (error.code == Err::kMeshNotAttached) json.field("mesh", error.detail);
  json.field("detail", error.detail.empty() ? info.meaning : std::string_view(error.detail));
  json.field("remedy", info.remedy).end_object();
  reply(conn, static_cast<std::uint32_t>(info.http_status), text.view(), "application/json",
        retry_after_s);
}

const wire::JsonTape* Daemon::body_of(ConnRef conn, const wire::HttpRequest& request) {
  void* const room = scratch().allocate(sizeof(wire::JsonTape), alignof(wire::JsonTape));
  auto* const tape = new (room) wire::JsonTape;
  if (Status parsed = parser_.parse(request.body, scratch(), *tape); !parsed) {
    reply_error(conn, parsed.error());
    return nullptr;
  }
  if (tape->root().type != wire::JsonType::kObject) {
    reply_error(conn, fail(Err::kMalformed, "expected a JSON object"));
    return nullptr;
  }
  return tape;
}

// Decoded; empty when it is malformed.
std::string_view Daemon::last_segment(const wire::HttpRequest& request) {
  const std::string_view raw = request.path.substr(request.path.rfind('/') + 1);
  return wire::path_segment(raw, scratch()).value_or(std::string_view{});
}

void Daemon::on_http_closed(ConnRef conn) {
  forget_stream(conn);
  std::erase(tables_.requests, conn);
  tables_.open.erase(conn);
  tables_.parked.each([&](ParkedRef parked) {
    if (tables_.parked.get<kParkedConn>(parked) == conn) tables_.parked.erase(parked);
  });
  std::vector<JobRef> gone;
  tables_.jobs.each([&](JobRef job) {
    if (tables_.jobs.get<kJobConn>(job) == conn) gone.push_back(job);
  });
  for (const JobRef job : gone) drop_job(job);
  leave_purges(conn);
  leave_shrinks(conn);
}

}  // namespace cm::daemon
