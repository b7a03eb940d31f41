// routes_info.cc — what the daemon says of itself: version, health, compatibility, metrics.
// Holds:  no label of a metric is taken from a client: meshes by their slug, or by their id where
//         the slug is not one.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §3, §10.
// Not:    the counters (core/base/metrics.h).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

constexpr int kIpcMinor = 1;

std::string_view link_text(LinkState state) noexcept {
  switch (state) {
    case LinkState::kConnecting: return "reconnecting";
    case LinkState::kHelloSent: return "connecting";
    case LinkState::kOpen: return "open";
    case LinkState::kRefused: return "refused";
  }
  return "closed";
}

std::string_view features_text(FeatureState state) noexcept {
  switch (state) {
    case FeatureState::kUnknown: return "unknown";
    case FeatureState::kAsked: return "asked";
    case FeatureState::kLegacy: return "legacy";
    case FeatureState::kAgreed: return "agreed";
  }
  return "unknown";
}

void write_texts(wire::JsonWriter& json, std::string_view key,
                 std::initializer_list<std::string_view> texts) {
  json.key(key).begin_array();
  for (const std::string_view text : texts) json.text(text);
  json.end_array();
}

}  // namespace

struct Daemon::MeshQueue {
  std::uint64_t depth = 0;
  std::uint64_t age_ms = 0;  // of the oldest
};

void Daemon::get_version(ConnRef conn, const wire::HttpRequest&) {
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("daemon_version", config_.version).field("ipc_api", "v1");
  json.field("ipc_minor", kIpcMinor);
  write_texts(json, "ipc_features",
              {"version", "health", "send", "inbox", "outbox", "events", "peers", "profile",
               "skills", "state", "memory", "topics", "groups", "message_status", "message_explain",
               "metrics", "compat", "reload", "token_rotate"});
  json.field("schema_version", store::kSchemaVersion);
  json.key("broker_features_negotiated").begin_object();
  tables_.meshes.each([&](MeshRef mesh) {
    json.key(config_of(mesh).slug).begin_array();
    const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
    if (features.state == FeatureState::kAgreed) {
      for (const std::string& name : features.names) json.text(name);
    }
    json.end_array();
  });
  json.end_object().end_object();
  reply(conn, 200, text.view());
}

void Daemon::get_health(ConnRef conn, const wire::HttpRequest&) {
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("pid", config_.pid);
  json.key("brokers").begin_object();
  bool connected = false;
  tables_.meshes.each([&](MeshRef mesh) {
    connected = connected || state_of(mesh) == LinkState::kOpen;
    json.field(config_of(mesh).slug, link_text(state_of(mesh)));
  });
  json.end_object().field("connected", connected);
  json.field("queue_depth", tables_.work.count()).field("inflight", inflight_);
  json.field("uptime_s", (env_.mono_ms - started_mono_ms_) / 1000);
  json.field("schema_version", store::kSchemaVersion);
  json.field("daemon_version", config_.version);
  json.field("durability", config_.durability_sync ? "sync" : "relaxed");
  json.field("store_accepts", batch().admits());
  json.key("pressure").begin_object().field("level", text_of(pressure_.level));
  json.field("pct", pressure_.percent).field("rows_pct", pressure_.rows_percent);
  json.field("store_pct", pressure_.store_percent);
  json.field("tombstones_pct", pressure_.tombstone_percent);
  json.field("takes_sends", static_cast<bool>(has_room())).end_object();
  json.field("secrets_locked", slab_.locked() && boxes_.locked());
  if (!config_.warnings.empty()) {
    json.key("warnings").begin_array();
    for (const std::string& warning : config_.warnings) json.text(warning);
    json.end_array();
  }
  const auto queues = mesh_queues();
  json.key("meshes").begin_array();
  tables_.meshes.each([&](MeshRef mesh) {
    const MeshConfig& config = config_of(mesh);
    const LinkRef link = link_of(mesh);
    const Features& features = tables_.links.get<kLinkFeatures>(link);
    const auto queue = queues.find(mesh.bits());
    const MeshQueue mine = queue == queues.end() ? MeshQueue{} : queue->second;
    json.begin_object().field("slug", config.slug).field("mesh_id", config.mesh_id);
    json.key("member_pubkey").hex(config.key);
    json.field("broker_url", config.broker_url);
    json.nullable_field("broker_version", tables_.links.get<kLinkBrokerVersion>(link));
    json.field("state", link_text(tables_.links.get<kLinkState>(link)));
    json.nullable_field("last_error", tables_.links.get<kLinkLastError>(link));
    json.field("negotiation", features_text(features.state));
    json.field("inline_bytes", payload_limit(mesh)).field("outbox_max_age_hours", age_hours(mesh));
    json.field("queue_depth", mine.depth).field("lag_ms", mine.age_ms);
    json.key("features").begin_object();
    if (features.state == FeatureState::kAgreed) {
      for (std::size_t at = 0; at < features.names.size(); ++at) {
        json.key(features.names[at]).raw(features.params[at]);
      }
    }
    json.end_object().end_object();
  });
  json.end_array().end_object();
  reply(conn, 200, text.view());
}

void Daemon::get_compat(ConnRef conn, const wire::HttpRequest&) {
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("daemon", config_.version);
  write_texts(json, "compatible_brokers", {"claudemesh >=0.1", "reference 0.1 (legacy)"});
  write_texts(json, "required_broker_features",
              {"client_message_id_dedupe", "concurrent_connection_policy"});
  json.field("legacy_brokers", config_.legacy_brokers ? "allow" : "refuse");
  write_texts(json, "compatible_clis", {"claudemesh >=0.1", "reference 1.37"});
  json.key("compatible_sdks").begin_object();
  for (const char* sdk : {"python", "go", "ts"}) json.field(sdk, "ipc v1");
  json.end_object().end_object();
  reply(conn, 200, text.view());
}

void Daemon::post_heartbeat(ConnRef conn, const wire::HttpRequest&) { reply(conn, 200, "{}"); }

void Daemon::get_events(ConnRef conn, const wire::HttpRequest& request) {
  if (pressure_.level == Pressure::kDegraded) {
    return reply_error(conn, fail(Err::kDiskFull,
                                  "the daemon has no room and opens no event stream; receiving, "
                                  "sending what is there and deleting go on"));
  }
  open_stream(conn, request);
}

// Whoever can rotate can lock all others out: only those who could read the file anyway.
void Daemon::post_rotate(ConnRef conn, const wire::HttpRequest& request) {
  if (!request.peer_is_unix) {
    return reply_error(conn, fail(Err::kForbidden, "ask over the unix socket"));
  }
  if (!bearers_.is_set()) {
    return reply_error(conn, fail(Err::kUnavailable, "this daemon has no local token"));
  }
  effects_.rotate_token(conn);
}

void Daemon::on_token_rotated(ConnRef conn, const Status& written, std::string_view path) {
  if (!written) return reply_error(conn, written.error());
  metrics_.add(Metric::kDaemonTokenRotations);
  env_.log->info("local_token_rotated");
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("path", path).field("old_valid_s", 60).end_object();
  reply(conn, 200, text.view());
}

void Daemon::post_reload(ConnRef conn, const wire::HttpRequest&) { effects_.reload(conn); }

void Daemon::on_reloaded(ConnRef conn, const Result<Reloaded>& outcome) {
  metrics_.add(outcome ? Metric::kDaemonReloads : Metric::kDaemonReloadsRefused);
  if (!conn) return;
  note_answered(conn);
  if (!outcome) return reply_error(conn, outcome.error());
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("joined", outcome->joined);
  json.field("left", outcome->left).field("changed", outcome->changed);
  json.field("kept", outcome->kept).key("settings_need_restart").begin_array();
  for (const std::string& name : outcome->waiting) json.text(name);
  json.end_array().end_object();
  reply(conn, 200, text.view());
}

void Daemon::get_metrics(ConnRef conn, const wire::HttpRequest&) {
  metrics_.set(Metric::kDaemonOutboxInflight, inflight_);
  metrics_.set(Metric::kDaemonOutboxPending, tables_.work.count() - inflight_);
  TextBuf text(scratch(), 8192);
  metrics_.expose(MetricRole::kDaemon, text);
  append_mesh_metrics(text);
  route_counts_.append(&Daemon::append_endpoint, text);
  append_disk_metrics(text);
  if (config_.append_metrics != nullptr) config_.append_metrics(config_.metrics_context, text);
  reply(conn, 200, text.view(), "text/plain; version=0.0.4; charset=utf-8");
}

void Daemon::append_mesh_metrics(TextBuf& out) const {
  const auto family = [&](std::string_view name, std::string_view help, auto value) {
    out.append("# HELP ");
    out.append(name);
    out.append(' ');
    out.append(help);
    out.append("\n# TYPE ");
    out.append(name);
    out.append(" gauge\n");
    tables_.meshes.each([&](MeshRef mesh) {
      const MeshConfig& config = config_of(mesh);
      out.append(name);
      out.append("{mesh=\"");
      out.append(wire::is_slug(config.slug) ? config.slug : config.mesh_id);
      out.append("\"} ");
      out.append_unsigned(value(mesh));
      out.append('\n');
    });
  };
  family("cm_daemon_connected", "1 if the broker connection of the mesh is open",
         [&](MeshRef mesh) { return state_of(mesh) == LinkState::kOpen ? 1u : 0u; });
  family("cm_daemon_broker_legacy", "1 if the broker of the mesh does not negotiate features",
         [&](MeshRef mesh) {
           const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
           return features.state == FeatureState::kLegacy ? 1u : 0u;
         });
  family("cm_daemon_broker_inline_bytes", "Largest encoded frame that the broker takes",
         [&](MeshRef mesh) { return payload_limit(mesh); });
  const auto queues = mesh_queues();
  const auto age_ms = [&](MeshRef mesh) {
    const auto queue = queues.find(mesh.bits());
    return queue == queues.end() ? std::uint64_t{0} : queue->second.age_ms;
  };
  family("cm_daemon_outbox_age_seconds",
         "Age of the oldest message that the broker has not accepted",
         [&](MeshRef mesh) { return age_ms(mesh) / 1000; });
}

std::unordered_map<std::uint64_t, Daemon::MeshQueue> Daemon::mesh_queues() const {
  std::unordered_map<std::uint64_t, MeshQueue> queues;
  tables_.work.each([&](WorkRef work) {
    const LaneRef lane = tables_.work.get<kWorkLane>(work);
    MeshQueue& queue = queues[tables_.lanes.get<kLaneMesh>(lane).bits()];
    const std::uint64_t since = tables_.work.get<kWorkEnqueued>(work);
    ++queue.depth;
    if (since < env_.wall_ms) queue.age_ms = std::max(queue.age_ms, env_.wall_ms - since);
  });
  return queues;
}

void Daemon::append_endpoint(std::size_t route, TextBuf& out) {
  const bool known = route < kRouteCount;
  out.append(known ? kRoutes[route].method : "other");
  if (known) out.append(' ');
  if (known) out.append(kRoutes[route].path);
}

}  // namespace cm::daemon
