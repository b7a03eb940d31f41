// ipc.cc — the routes of the daemon's local HTTP API and the gates before them.
// Holds:  gates come first, in the order of spec/ipc.md §2. Errors are JSON with code, detail and
//         remedy. Replies are bounded.
// Source: spec/ipc.md §2, §3, §7, §8.
// Not:    sending (send.cc), event streams (events.cc), sockets (core/net).
#include <algorithm>

#include "core/base/time_text.h"
#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"
#include "core/wire/query.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::size_t kReplyBytesMax = 10 << 20;
constexpr std::int64_t kInboxDefault = 100;
constexpr std::int64_t kInboxMax = 1000;
constexpr std::int64_t kOutboxDefault = 50;
constexpr std::int64_t kOutboxMax = 500;

constexpr std::string_view kStatusTexts[] = {"pending", "inflight", "done", "dead", "aborted"};

std::string_view link_text(LinkState state) noexcept {
  switch (state) {
    case LinkState::kConnecting: return "reconnecting";
    case LinkState::kHelloSent: return "connecting";
    case LinkState::kOpen: return "open";
    case LinkState::kRefused: return "refused";
  }
  return "closed";
}

bool is_local_host(std::string_view host) noexcept {
  std::string_view name = host;
  if (name.starts_with("[")) {
    name = name.substr(0, name.find(']') + 1);
  } else if (name.find(':') == name.rfind(':')) {
    name = name.substr(0, name.find(':'));
  }
  std::string lower(name);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower.empty() || lower == "localhost" || lower == "127.0.0.1" || lower == "[::1]" ||
         lower == "::1";
}

// Reads the bounded parameters of a listing; the first malformed one is named.
class Query {
 public:
  Query(std::string_view query, ScratchArena& scratch) : query_(query), scratch_(scratch) {}

  std::optional<std::string_view> text(std::string_view name) {
    const wire::QueryValue found = wire::query_find(query_, name, scratch_);
    if (found.kind == wire::QueryValue::Kind::kMalformed) {
      refuse(name, "percent-encoded UTF-8, given once");
    }
    if (found.kind != wire::QueryValue::Kind::kFound) return std::nullopt;
    return found.value;
  }
  std::int64_t number(std::string_view name, std::int64_t otherwise, std::int64_t most) {
    const auto value = text(name);
    if (!value) return otherwise;
    std::int64_t number = 0;
    for (const char c : *value) {
      if (c < '0' || c > '9' || number > most) {
        refuse(name, "a number from 1 to " + std::to_string(most));
        return otherwise;
      }
      number = number * 10 + (c - '0');
    }
    if (value->empty() || number < 1 || number > most) {
      refuse(name, "a number from 1 to " + std::to_string(most));
      return otherwise;
    }
    return number;
  }
  bool flag(std::string_view name, bool otherwise) {
    const auto value = text(name);
    if (!value) return otherwise;
    if (*value != "true" && *value != "false") refuse(name, "true or false");
    return *value == "true";
  }
  std::uint64_t instant(std::string_view name) {
    const auto value = text(name);
    if (!value) return 0;
    const auto ms = iso_parse(*value);
    if (!ms) refuse(name, "a time like 2026-01-02T03:04:05Z");
    return ms.value_or(0);
  }
  void refuse(std::string_view name, std::string_view expected) {
    if (!status_) return;
    status_ = fail(Err::kMalformed,
                   "parameter '" + std::string(name) + "': expected " + std::string(expected));
  }
  const Status& status() const noexcept { return status_; }

 private:
  std::string_view query_;
  ScratchArena& scratch_;
  Status status_;
};

}  // namespace

bool Daemon::pass_gates(ConnRef conn, const wire::HttpRequest& request) {
  const auto refuse = [&](std::uint32_t status, std::string_view text) {
    effects_.http_reply(conn, status, text);
    return false;
  };
  // A query that cannot be read is refused the same way: it might hold one.
  if (wire::query_find(request.query, "token", scratch()).kind != wire::QueryValue::Kind::kAbsent) {
    env_.log->warn("ipc_token_in_query_string_rejected");
    return refuse(400, R"({"error":"token must be in Authorization header, not query string"})");
  }
  if (!is_local_host(request.host)) return refuse(403, R"({"error":"forbidden host"})");
  if (request.has_origin) return refuse(403, R"({"error":"forbidden origin"})");
  return true;
}

void Daemon::on_http(ConnRef conn, const wire::HttpRequest& request) {
  metrics_.add(Metric::kDaemonIpcRequests);
  tables_.requests.push_back(conn);
  if (!pass_gates(conn, request)) return;
  const bool get = request.method == "GET";
  const std::string_view path = request.path;
  if (request.method == "POST" && path == "/v1/send") {
    return handle_send(conn, request.body, request.idempotency_key, {});
  }
  if (get && path == "/v1/version") return reply_version(conn);
  if (get && path == "/v1/health") return reply_health(conn);
  if (get && path == "/v1/peers") return reply_peers(conn, request);
  if (get && path == "/v1/inbox") return reply_inbox(conn, request);
  if (get && path == "/v1/outbox") return reply_outbox(conn, request);
  if (get && path == "/v1/events") return open_stream(conn);
  if (get && path == "/v1/metrics") return reply_metrics(conn);
  effects_.http_reply(conn, 404, R"({"error":"not found"})");
}

void Daemon::on_http_closed(ConnRef conn) {
  std::erase(tables_.streams, conn);
  std::erase(tables_.requests, conn);
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
  tables_.parked.each([&](ParkedRef parked) {
    if (tables_.parked.get<kParkedConn>(parked) == conn) tables_.parked.erase(parked);
  });
}

void Daemon::reply_error(ConnRef conn, const Error& error) {
  const ErrInfo& info = info_of(error.code);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("error", info.wire_code);
  json.field("detail", error.detail.empty() ? info.meaning : std::string_view(error.detail));
  json.field("remedy", info.remedy).end_object();
  effects_.http_reply(conn, static_cast<std::uint32_t>(info.http_status), text.view());
}

void Daemon::reply_version(ConnRef conn) {
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("daemon_version", config_.version).field("ipc_api", "v1");
  json.key("ipc_features").begin_array();
  for (const std::string_view feature :
       {"version", "health", "send", "inbox", "outbox", "events", "peers", "metrics"}) {
    json.text(feature);
  }
  json.end_array().field("schema_version", store::kSchemaVersion).end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Daemon::reply_health(ConnRef conn) {
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("pid", config_.pid);
  json.key("brokers").begin_object();
  bool connected = false;
  tables_.meshes.each([&](MeshRef mesh) {
    const LinkState state = tables_.links.get<kLinkState>(tables_.meshes.get<kMeshLink>(mesh));
    connected = connected || state == LinkState::kOpen;
    json.field(config_of(mesh).slug, link_text(state));
  });
  json.end_object().field("connected", connected);
  json.field("queue_depth", tables_.work.count()).field("inflight", inflight_);
  json.field("uptime_s", (env_.mono_ms - started_mono_ms_) / 1000);
  json.field("schema_version", store::kSchemaVersion);
  json.field("daemon_version", config_.version);
  json.field("durability", config_.durability_sync ? "sync" : "relaxed");
  json.field("store_accepts", batch().admits());
  json.field("secrets_locked", slab_.locked() && boxes_.locked());
  json.key("meshes").begin_array();
  tables_.meshes.each([&](MeshRef mesh) {
    const MeshConfig& config = config_of(mesh);
    const LinkRef link = tables_.meshes.get<kMeshLink>(mesh);
    json.begin_object().field("slug", config.slug).field("mesh_id", config.mesh_id);
    json.key("member_pubkey").hex(config.key);
    json.field("broker_url", config.broker_url);
    json.field("state", link_text(tables_.links.get<kLinkState>(link)));
    json.nullable_field("last_error", tables_.links.get<kLinkLastError>(link));
    json.field("negotiation", "legacy").end_object();
  });
  json.end_array().end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Daemon::reply_peers(ConnRef conn, const wire::HttpRequest& request) {
  Query query(request.query, scratch());
  const auto wanted = query.text("mesh");
  if (!query.status()) return reply_error(conn, query.status().error());
  MeshRef only;
  if (wanted && !wanted->empty()) {
    const auto chosen = choose_mesh(*wanted);
    if (!chosen) return reply_error(conn, chosen.error());
    only = *chosen;
  }
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("peers").begin_array();
  tables_.meshes.each([&](MeshRef mesh) {
    if (only && !(only == mesh)) return;
    for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(mesh).peers) {
      // The broker's own object, with the mesh added in front of its closing brace.
      const std::string_view raw = tables_.peers.get<kPeerRaw>(peer);
      TextBuf entry(scratch(), raw.size() + 64);
      entry.append(raw.substr(0, raw.size() - 1));
      entry.append(",\"mesh\":");
      wire::append_json_text(entry, config_of(mesh).slug);
      entry.append('}');
      json.raw(entry.view());
    }
  });
  json.end_array().end_object();
  effects_.http_reply(conn, 200, text.view());
}

std::string_view Daemon::slug_of(std::string_view mesh_id) const {
  const MeshRef mesh = mesh_by_id(mesh_id);
  return mesh ? std::string_view(config_of(mesh).slug) : mesh_id;
}

void Daemon::reply_inbox(ConnRef conn, const wire::HttpRequest& request) {
  Query query(request.query, scratch());
  const std::int64_t limit = query.number("limit", kInboxDefault, kInboxMax);
  const bool unread_only = query.flag("unread_only", false);
  const bool mark_seen = query.flag("mark_seen", true);
  const std::uint64_t since = query.instant("since");
  const auto from = query.text("from");
  const auto wanted = query.text("mesh");
  std::string_view mesh_id;
  if (wanted && !wanted->empty()) {
    const auto chosen = choose_mesh(*wanted);
    if (!chosen) return reply_error(conn, chosen.error());
    mesh_id = config_of(*chosen).mesh_id;
  }
  if (!query.status()) return reply_error(conn, query.status().error());

  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("items").begin_array();
  std::vector<Ulid> shown_unread;
  std::int64_t count = 0;
  bool truncated = false;
  {
    store::Cursor cursor(batch(), TableId::kInbox);
    for (bool more = cursor.seek_before({}); more && count < limit; more = cursor.previous()) {
      store::InboxRow row;
      Ulid id;
      if (!cursor.row(row) || !store::parse_ulid_key(cursor.key(), id)) continue;
      if (row.fixed.received_ms < since) break;
      if (unread_only && row.fixed.seen_ms != 0) continue;
      if (from && row.text[store::kInboxSender] != *from) continue;
      if (!mesh_id.empty() && row.text[store::kInboxMesh] != mesh_id) continue;
      if (text.size() + row.text[store::kInboxBody].size() > kReplyBytesMax) {
        truncated = true;
        break;
      }
      ++count;
      if (row.fixed.seen_ms == 0) shown_unread.push_back(id);
      const UlidText id_text = ulid_text(id);
      json.begin_object().field("id", view(id_text));
      json.field("client_message_id", row.text[store::kInboxClientId]);
      json.field("broker_message_id", row.text[store::kInboxBrokerId]);
      json.field("mesh", slug_of(row.text[store::kInboxMesh]));
      json.nullable_field("topic", row.text[store::kInboxTopic]);
      json.field("sender_pubkey", row.text[store::kInboxSender]);
      if (row.fixed.has_member == 0) json.field("unattested", true);
      json.field("sender_name", row.text[store::kInboxSenderName]);
      json.key("body");
      if (row.fixed.body_missing != 0) {
        json.null().field("body_missing", row.text[store::kInboxReason]);
      } else {
        json.text(row.text[store::kInboxBody]);
      }
      json.field("priority", text_of(static_cast<wire::Priority>(row.fixed.priority)));
      json.key("received_at").iso_time(row.fixed.received_ms);
      json.nullable_field("reply_to_id", row.text[store::kInboxReplyTo]);
      json.key("seen_at").iso_time_or_null(row.fixed.seen_ms);
      json.key("recipient_pubkey").hex(row.fixed.recipient);
      json.field("recipient_kind", "member").end_object();
    }
  }
  json.end_array();
  std::int64_t marked = 0;
  if (mark_seen) {
    for (const Ulid& id : shown_unread) {
      store::InboxRow row;
      const store::Key key = store::ulid_key(id);
      if (!batch().get(TableId::kInbox, key.bytes(), row)) continue;
      row.fixed.seen_ms = env_.wall_ms;
      batch().put(TableId::kInbox, key.bytes(), row);
      ++marked;
    }
  }
  json.field("marked_seen", marked);
  if (truncated) json.field("truncated", true);
  json.end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Daemon::reply_outbox(ConnRef conn, const wire::HttpRequest& request) {
  Query query(request.query, scratch());
  const std::int64_t limit = query.number("limit", kOutboxDefault, kOutboxMax);
  const auto status = query.text("status");
  if (status && std::find(std::begin(kStatusTexts), std::end(kStatusTexts), *status) ==
                    std::end(kStatusTexts)) {
    query.refuse("status", "pending, inflight, done, dead or aborted");
  }
  if (!query.status()) return reply_error(conn, query.status().error());
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("items").begin_array();
  std::int64_t count = 0;
  store::Cursor cursor(batch(), TableId::kOutbox);
  for (bool more = cursor.seek_before({}); more && count < limit; more = cursor.previous()) {
    store::OutboxRow row;
    Ulid id;
    if (!cursor.row(row) || !store::parse_ulid_key(cursor.key(), id)) continue;
    const std::string_view state = kStatusTexts[static_cast<std::size_t>(row.fixed.status)];
    if (status && state != *status) continue;
    ++count;
    const UlidText id_text = ulid_text(id);
    json.begin_object().field("id", view(id_text));
    json.field("client_message_id", row.text[store::kOutboxClientId]).field("status", state);
    json.field("mesh", slug_of(row.text[store::kOutboxMesh]));
    json.field("target", row.text[store::kOutboxTarget]);
    json.field("attempts", row.fixed.attempts);
    json.key("enqueued_at").iso_time(row.fixed.enqueued_ms);
    json.key("next_attempt_at").iso_time(row.fixed.next_attempt_ms);
    json.key("delivered_at").iso_time_or_null(row.fixed.delivered_ms);
    json.nullable_field("broker_message_id", row.text[store::kOutboxBrokerId]);
    json.nullable_field("last_error", row.text[store::kOutboxLastError]);
    json.key("aborted_at").iso_time_or_null(row.fixed.aborted_ms);
    json.nullable_field("aborted_by", row.text[store::kOutboxAbortedBy]);
    json.nullable_field("superseded_by", row.text[store::kOutboxSupersededBy]);
    json.field("payload_bytes", row.fixed.payload_bytes).end_object();
  }
  json.end_array().end_object();
  effects_.http_reply(conn, 200, text.view());
}

void Daemon::reply_metrics(ConnRef conn) {
  metrics_.set(Metric::kDaemonOutboxInflight, inflight_);
  metrics_.set(Metric::kDaemonOutboxPending, tables_.work.count() - inflight_);
  TextBuf text(scratch(), 8192);
  metrics_.expose(MetricRole::kDaemon, text);
  if (config_.append_metrics != nullptr) config_.append_metrics(config_.metrics_context, text);
  effects_.http_reply(conn, 200, text.view(), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace cm::daemon
