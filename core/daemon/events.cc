// events.cc — GET /v1/events: the server-sent event streams of this daemon.
// Holds:  ids grow by one for each event of the process; an event leaves after the commit of what
//         it tells. A slow reader is bounded by the server's output limits, not here.
// Source: spec/ipc.md §6.
// Not:    the events themselves (receive.cc, link.cc).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

constexpr std::uint64_t kKeepaliveMs = 15'000;

}  // namespace

void Daemon::open_stream(ConnRef conn) {
  if (tables_.streams.size() >= limits_.ipc_streams_max) {
    reply_error(conn,
                fail(Err::kTooManyStreams, "at most " + std::to_string(limits_.ipc_streams_max)));
    return;
  }
  tables_.streams.push_back(conn);
  effects_.stream_begin(conn);
  effects_.stream_write(conn, ": connected\n\n");
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
  keepalive_ms_ = std::min(keepalive_ms_, env_.mono_ms + kKeepaliveMs);
}

void Daemon::emit(std::string_view kind, std::string_view data) {
  ++event_serial_;
  if (tables_.streams.empty()) return;
  TextBuf text(scratch(), data.size() + 64);
  text.append("id: ");
  text.append_unsigned(event_serial_);
  text.append("\nevent: ");
  text.append(kind);
  text.append("\ndata: ");
  text.append(data);  // JSON on one line: the writer escapes every line feed
  text.append("\n\n");
  for (const ConnRef conn : tables_.streams) effects_.stream_write(conn, text.view());
}

void Daemon::emit_message(MeshRef mesh, const Ulid& id, const store::InboxRow& row) {
  if (tables_.streams.empty()) return;
  const UlidText id_text = ulid_text(id);
  TextBuf data(scratch(), row.text[store::kInboxBody].size() + 1024);
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("id", view(id_text));
  json.field("mesh", config_of(mesh).slug);
  json.field("client_message_id", row.text[store::kInboxClientId]);
  json.field("broker_message_id", row.text[store::kInboxBrokerId]);
  json.field("sender_pubkey", row.text[store::kInboxSender]);
  json.key("sender_member_pubkey");
  if (row.fixed.has_member != 0) {
    json.hex(row.fixed.sender_member);
  } else {
    json.null();
  }
  if (row.fixed.has_member == 0) json.field("unattested", true);
  json.field("sender_name", row.text[store::kInboxSenderName]);
  json.nullable_field("topic", row.text[store::kInboxTopic]);
  json.nullable_field("reply_to_id", row.text[store::kInboxReplyTo]);
  json.field("priority", text_of(static_cast<wire::Priority>(row.fixed.priority)));
  json.optional_field("subtype", row.text[store::kInboxSubtype]);
  json.key("body");
  if (row.fixed.body_missing != 0) {
    json.null().field("body_missing", row.text[store::kInboxReason]);
  } else {
    json.text(row.text[store::kInboxBody]);
  }
  json.key("created_at").iso_time_or_null(row.fixed.created_ms);
  json.key("recipient_pubkey").hex(row.fixed.recipient).field("recipient_kind", "member");
  json.end_object();
  emit("message", data.view());
}

void Daemon::keep_streams_alive() {
  if (env_.mono_ms < keepalive_ms_) return;
  keepalive_ms_ = UINT64_MAX;
  if (tables_.streams.empty()) return;
  for (const ConnRef conn : tables_.streams) effects_.stream_write(conn, ": keepalive\n\n");
  keepalive_ms_ = env_.mono_ms + kKeepaliveMs;
}

}  // namespace cm::daemon
