// http.cc — the broker's HTTP routes and who may use them.
// Holds:  a route that changes anything demands authority before its body is read. Replies are
//         JSON; an error names its code and its remedy.
// Source: spec/enrollment.md §7; design/presence.md, "Authority and exposure of a broker".
// Not:    HTTP itself (core/net), enrolment (enroll.cc).
#include "core/broker/broker.h"
#include "core/crypto/keys.h"
#include "core/crypto/sign.h"
#include "core/wire/json_writer.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::string_view kAdminTokenKey = "admin_token_sha256";
constexpr std::string_view kInvitePrefix = "/cli/mesh/";
constexpr std::string_view kInviteSuffix = "/invite";

// The slug between prefix and suffix, or empty: no path of ours needs percent-decoding.
std::string_view slug_in(std::string_view path) noexcept {
  if (!path.starts_with(kInvitePrefix) || !path.ends_with(kInviteSuffix)) return {};
  if (path.size() <= kInvitePrefix.size() + kInviteSuffix.size()) return {};
  return path.substr(kInvitePrefix.size(),
                     path.size() - kInvitePrefix.size() - kInviteSuffix.size());
}

}  // namespace

void Broker::set_admin_token_hash(const crypto::Hash32& hash) {
  store::MetaRow row;
  const store::Key key = store::text_key(kAdminTokenKey);
  if (batch().get(TableId::kMeta, key.bytes(), row) &&
      row.text[store::kMetaValue] == as_text(hash)) {
    return;
  }
  row = {};
  row.text[store::kMetaValue] = as_text(hash);
  batch().put(TableId::kMeta, key.bytes(), row);
}

bool Broker::is_admin(const wire::HttpRequest& request) {
  constexpr std::string_view kScheme = "Bearer ";
  if (!config_.accepts_admin_token || !request.authorization.starts_with(kScheme)) return false;
  store::MetaRow row;
  if (!batch().get(TableId::kMeta, store::text_key(kAdminTokenKey).bytes(), row)) return false;
  const crypto::Hash32 shown =
      crypto::sha256(as_bytes(request.authorization.substr(kScheme.size())));
  return crypto::equal_in_constant_time(shown, as_bytes(row.text[store::kMetaValue]));
}

void Broker::on_http(ConnRef conn, const wire::HttpRequest& request) {
  const bool get = request.method == "GET";
  const bool post = request.method == "POST";
  if (get && request.path == "/health") return reply_health(conn);
  if (get && request.path == "/metrics") return reply_metrics(conn, request);

  const std::string_view slug = slug_in(request.path);
  const bool create = post && request.path == "/cli/mesh/create";
  const bool invite = post && !slug.empty();
  const bool joining = post && request.path == "/join";
  if (!create && !invite && !joining) {
    return reply_error(conn, fail(Err::kNotFound, "no such route"));
  }
  if ((create || invite) && !is_admin(request)) {
    env_.log->warn("admin_token_refused",
                   {{"route", create ? "/cli/mesh/create" : "/cli/mesh/:slug/invite"}});
    return reply_error(conn, fail(Err::kUnauthenticated,
                                  "this route needs 'Authorization: Bearer <admin token>'"));
  }
  if (!batch().admits()) {
    return reply_error(conn, fail(Err::kDiskFull, "the broker's store is full"));
  }
  TextBuf reply(scratch(), 2048);
  const Status done = create   ? create_mesh(request, reply)
                      : invite ? create_invite(request, slug, reply)
                               : join(request, reply);
  if (!done) return reply_error(conn, done.error());
  effects_.http_reply(conn, 200, reply.view());
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
  json.field("connections", tables_.clients.count()).field("queued", queued_rows_).end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Broker::reply_metrics(ConnRef conn, const wire::HttpRequest& request) {
  if (!request.peer_is_loopback && !is_admin(request)) {
    return reply_error(conn, fail(Err::kUnauthenticated, "/metrics off loopback needs the token"));
  }
  TextBuf text(scratch(), 8192);
  metrics_.expose(MetricRole::kBroker, text);
  effects_.http_reply(conn, 200, text.view(), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace cm::broker
