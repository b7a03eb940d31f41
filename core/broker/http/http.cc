// http.cc — the broker's HTTP routes: one table, and who may use them.
// Holds:  a route that changes anything has its authority before its body is read. Replies are
//         JSON; an error names its code and its remedy. Logs name route templates, never paths.
// Source: docs/PROTOCOL.md §7; spec/enrollment.md §5, §7; design/presence.md, "Authority and
//         exposure of a broker".
// Not:    HTTP itself (core/net), the routes' work (enroll.cc, mesh_admin.cc, members.cc,
// codes.cc).
#include "core/broker/broker.h"
#include "core/broker/http/authority.h"
#include "core/crypto/keys.h"
#include "core/wire/json_writer.h"

namespace cm::broker {
namespace {

// Fills `arguments` with what stands at ":name" parts. No path of ours needs percent-decoding.
bool matches(std::string_view pattern, std::string_view path, std::string_view (&arguments)[2]) {
  std::size_t count = 0;
  while (!pattern.empty() && !path.empty()) {
    if (pattern.front() != '/' || path.front() != '/') return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
    const std::string_view wanted = pattern.substr(0, pattern.find('/'));
    const std::string_view part = path.substr(0, path.find('/'));
    if (wanted.starts_with(':')) {
      if (part.empty() || count == 2) return false;
      arguments[count++] = part;
    } else if (wanted != part) {
      return false;
    }
    pattern.remove_prefix(wanted.size());
    path.remove_prefix(part.size());
  }
  return pattern.empty() && path.empty();
}

}  // namespace

const Broker::HttpRoute Broker::kHttpRoutes[] = {
    {"POST", "/join", &Broker::join, Access::kOpen, true},
    {"POST", "/invites/:code/claim", &Broker::claim_invite, Access::kOpen, true},
    {"GET", "/api/public/invite-code/:code", &Broker::resolve_code, Access::kOpen, false},
    {"GET", "/api/public/invite/:token", &Broker::preview_invite, Access::kOpen, false},
    {"GET", "/i/:code", &Broker::show_code, Access::kOpen, false},
    {"POST", "/hook/set-status", &Broker::hook_set_status, Access::kOpen, false},
    {"POST", "/cli/mesh/create", &Broker::create_mesh, Access::kAdmin, true},
    {"GET", "/cli/meshes", &Broker::list_meshes, Access::kProved, false, true},
    {"PATCH", "/cli/mesh/:slug", &Broker::rename_mesh, Access::kProved, true},
    {"DELETE", "/cli/mesh/:slug", &Broker::delete_mesh, Access::kProved, false},
    {"POST", "/cli/mesh/:slug/invite", &Broker::create_invite, Access::kProved, true},
    {"GET", "/cli/mesh/:slug/grants", &Broker::list_grants, Access::kProved, false, true},
    {"POST", "/cli/mesh/:slug/grants", &Broker::set_grants, Access::kProved, true},
    {"GET", "/cli/mesh/:slug/permissions", &Broker::list_permissions, Access::kProved, false, true},
    {"POST", "/cli/mesh/:slug/permissions", &Broker::set_permissions, Access::kProved, true},
    {"GET", "/mesh/:mesh/members", &Broker::list_members, Access::kProved, false, true},
    {"PATCH", "/mesh/:mesh/member/:member", &Broker::edit_member, Access::kProved, true},
    {"PATCH", "/mesh/:mesh/settings", &Broker::edit_settings, Access::kProved, true},
};

void Broker::on_http(ConnRef conn, const wire::HttpRequest& request) {
  if (request.method == "GET") {
    if (request.path == "/health") return reply_health(conn);
    if (request.path == "/health/ready") return reply_ready(conn);
    if (request.path == "/metrics") return reply_metrics(conn, request);
  }
  HttpCall call{request, {}, {}, TextBuf(scratch(), 2048), "application/json", 200};
  for (const HttpRoute& route : kHttpRoutes) {
    if (route.method != request.method) continue;
    if (!matches(route.pattern, request.path, call.arguments)) continue;
    if (Status done = run_route(route, call); !done) return reply_error(conn, done.error());
    effects_.http_reply(conn, call.status, call.reply.view(), call.content_type);
    return;
  }
  reply_error(conn, fail(Err::kNotFound, "no such route"));
}

Status Broker::run_route(const HttpRoute& route, HttpCall& call) {
  if (route.access != Access::kOpen) {
    auto authority = authority_of(call.request);
    if (authority && route.access == Access::kAdmin && !authority->admin) {
      authority =
          fail(Err::kUnauthenticated, "this route needs 'Authorization: Bearer <admin token>'");
    }
    if (!authority) {
      metrics_.add(Metric::kBrokerHttpRefused);
      env_.log->warn("authority_refused", {{"route", route.pattern},
                                           {"method", route.method},
                                           {"code", info_of(authority.code()).wire_code}});
      return authority.error();
    }
    call.authority = *authority;
    if (authority->admin) note_admin(route.pattern, route.method);
  }
  if (route.writes) {
    if (Status room = check_disk("the request"); !room) return room.error();
  }
  if (!route.lists) return (this->*route.handler)(call);
  const std::uint32_t payer = payer_of(call.authority);
  if (payer != 0 && replies_of(*member(payer)) >= limits_.member_reply_bytes_max) {
    metrics_.add(Metric::kBrokerRateRefusals);
    return fail(Err::kRateLimit, "you ask for too much at once; ask again in a second");
  }
  const Status done = (this->*route.handler)(call);
  if (payer != 0) member(payer)->reply_bytes += call.reply.size();
  return done;
}

// Every use of the admin token is audited (design/presence.md).
void Broker::note_admin(std::string_view route, std::string_view method) {
  env_.log->info("admin_token_used", {{"route", route}, {"method", method}});
}

void Broker::reply_error(ConnRef conn, const Error& error) {
  const ErrInfo& info = info_of(error.code);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  // `ok` and `error` are what existing clients read (spec/enrollment.md §5.3).
  json.begin_object().field("ok", false).field("error", info.wire_code);
  json.optional_field("detail", error.detail).field("remedy", info.remedy).end_object();
  effects_.http_reply(conn, static_cast<std::uint32_t>(info.http_status), text.view());
}

void Broker::reply_health(ConnRef conn) {
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("status", "ok").field("db", "up").field("version", config_.version);
  json.field("uptime", (env_.mono_ms - started_mono_ms_) / 1000);
  json.field("durability", config_.durability_sync ? "sync" : "relaxed");
  json.field("connections", tables_.clients.count()).field("queued", queued_rows_);
  json.field("store_percent", batch().fill_percent());
  json.field("disk_pressure", text_of(pressure_)).end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Broker::reply_ready(ConnRef conn) {
  const bool full = !batch().admits();
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("status", full || draining_ ? "not_ready" : "ready");
  if (draining_) {
    json.field("reason", "shutting_down");
  } else if (full) {
    json.field("reason", "store_full");
  }
  json.end_object();
  effects_.http_reply(conn, full || draining_ ? 503 : 200, text.view());
}

void Broker::reply_metrics(ConnRef conn, const wire::HttpRequest& request) {
  const bool admin = is_admin(request);
  if (admin) note_admin("/metrics", "GET");
  if (!request.peer_is_loopback && !admin) {
    return reply_error(conn, fail(Err::kUnauthenticated, "/metrics off loopback needs the token"));
  }
  TextBuf text(scratch(), 8192);
  // An iteration that changes nothing commits nothing: it proves nothing of the disk.
  const bool failed =
      failed_after_ != UINT64_MAX && metrics_.get(Metric::kCommits) <= failed_after_;
  metrics_.set(Metric::kBrokerDbHealthy, !failed && batch().admits() ? 1 : 0);
  metrics_.expose(MetricRole::kBroker, text);
  effects_.http_reply(conn, 200, text.view(), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace cm::broker
