// events.cc — GET /v1/events: the server-sent event streams of this daemon.
// Holds:  ids grow over the daemon's life and over restarts: they begin at the clock, never below
//         what the store says was in use. The last events are kept in a ring, so that a stream
//         that comes back with its last id misses nothing, or is told that it did. An event
//         leaves, and stays in the ring, only after the commit of what it tells.
// Source: docs/PROTOCOL.md §10.4; spec/ipc.md §6; the HTML standard, "Server-sent events".
// Limits: Limits::ipc_streams_max streams, event_ring_bytes kept.
// Not:    the events themselves (receive.cc, link.cc); slow readers, whom the shell ends.
#include <algorithm>
#include <charconv>
#include <utility>

#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"
#include "core/wire/query.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint64_t kKeepaliveMs = 15'000;
constexpr std::string_view kHello = ": connected\n\nretry: 1000\n\n";
constexpr std::string_view kReservedKey = "event_ids";
// A thousand ids a millisecond: below 2^53 until the year 2248.
constexpr std::uint64_t kIdsAMilli = 1'024;
constexpr std::uint64_t kIdsReserved = 1 << 20;

void append_event(TextBuf& out, std::uint64_t id, std::string_view kind, std::string_view data) {
  out.append("id: ");
  out.append_unsigned(id);
  out.append("\nevent: ");
  out.append(kind);
  out.append("\ndata: ");
  out.append(data);  // JSON on one line: the writer escapes every line feed
  out.append("\n\n");
}

}  // namespace

// --- ids ---

void Daemon::seed_events() {
  store::MetaRow row;
  const store::Key key = store::text_key(kReservedKey);
  if (batch().get(TableId::kMeta, key.bytes(), row)) event_reserved_ = row.fixed.number;
  event_serial_ = std::max(env_.wall_ms * kIdsAMilli, event_reserved_);
  event_first_ = event_serial_;
  event_committed_ = event_serial_;
  reserve_event_ids();
}

// One small row a million events: after a crash ids begin behind what could have been used.
void Daemon::reserve_event_ids() {
  if (event_serial_ < event_reserved_) return;
  store::MetaRow row;
  row.fixed.number = event_serial_ + kIdsReserved;
  batch().put(TableId::kMeta, store::text_key(kReservedKey).bytes(), row);
  event_reserved_ = row.fixed.number;
}

// --- streams ---

void Daemon::open_stream(ConnRef conn, const wire::HttpRequest& request) {
  const wire::QueryValue asked = wire::query_find(request.query, "lastEventId", scratch());
  if (asked.kind == wire::QueryValue::Kind::kMalformed) {
    return reply_error(conn, fail(Err::kMalformed,
                                  "parameter 'lastEventId': expected the id of "
                                  "an event, given once"));
  }
  if (tables_.streams.size() >= limits_.ipc_streams_max) {
    return reply_error(
        conn, fail(Err::kTooManyStreams, "at most " + std::to_string(limits_.ipc_streams_max)), 5);
  }
  tables_.streams.push_back(conn);
  had_stream_ = true;
  count_reply(conn, 200);
  effects_.stream_begin(conn);
  effects_.stream_write(conn, kHello);
  const std::string_view last = request.last_event_id.empty() ? asked.value : request.last_event_id;
  if (!last.empty()) replay(conn, last);
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
  keepalive_ms_ = std::min(keepalive_ms_, env_.mono_ms + kKeepaliveMs);
}

// What followed `last_id`; before it a gap event when something between is not kept any more.
void Daemon::replay(ConnRef conn, std::string_view last_id) {
  std::uint64_t last = 0;
  const char* const end = last_id.data() + last_id.size();
  const auto parsed = std::from_chars(last_id.data(), end, last);
  const bool is_id = parsed.ec == std::errc() && parsed.ptr == end;
  const std::uint64_t first_kept =
      tables_.ring.empty() ? event_serial_ + 1 : tables_.ring.front().id;
  std::string_view reason;
  if (!is_id || last > event_serial_) {
    reason = "unknown_id";  // of another daemon, or no id at all
  } else if (last < event_first_) {
    reason = "restart";
  } else if (last + 1 < first_kept) {
    reason = "dropped";
  }
  if (!reason.empty()) {
    metrics_.add(Metric::kDaemonStreamGaps);
    if (reason == "unknown_id") last = 0;
    TextBuf data(scratch());
    wire::JsonWriter json(data);
    json.begin_object().key("ts").iso_time(env_.wall_ms);
    json.field("from", last).field("to", first_kept).field("reason", reason).end_object();
    TextBuf text(scratch());
    append_event(text, first_kept - 1, "gap", data.view());
    effects_.stream_write(conn, text.view());
  }
  for (const KeptEvent& event : tables_.ring) {
    if (event.id <= last) continue;
    // The ring may lose this event before the effects are executed.
    TextBuf copy(scratch(), event.text.size() + 1);
    copy.append(event.text);
    effects_.stream_write(conn, copy.view());
  }
}

void Daemon::forget_stream(ConnRef conn) {
  std::erase(tables_.streams, conn);
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
}

void Daemon::on_stream_slow(ConnRef conn) {
  metrics_.add(Metric::kDaemonStreamsSlow);
  env_.log->warn("event_stream_slow", {{"remedy", "read faster, or resume with Last-Event-ID"}});
  forget_stream(conn);
}

void Daemon::emit(std::string_view kind, std::string_view data) {
  ++event_serial_;
  reserve_event_ids();
  TextBuf text(scratch(), data.size() + 64);
  append_event(text, event_serial_, kind, data);
  for (const ConnRef conn : tables_.streams) effects_.stream_write(conn, text.view());
  ring_bytes_ += text.size();
  tables_.ring.push_back({event_serial_, std::string(text.view())});
  while (ring_bytes_ > limits_.event_ring_bytes) {
    ring_bytes_ -= tables_.ring.front().text.size();
    tables_.ring.pop_front();
  }
}

// --- the kinds ---

void Daemon::emit_status(MeshRef mesh, LinkState state) {
  const std::string_view status = state == LinkState::kOpen        ? "open"
                                  : state == LinkState::kHelloSent ? "connecting"
                                  : state == LinkState::kRefused   ? "refused"
                                                                   : "reconnecting";
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("mesh", config_of(mesh).slug);
  json.field("status", status).end_object();
  emit("broker_status", data.view());
}

// Once a connection that was there is lost, and once it is back: for hooks and displays that care
// about the mesh, not about each attempt (spec/ipc.md §6).
void Daemon::emit_link_change(LinkRef link, bool is_open) {
  auto& lost_at = tables_.links.get<kLinkLostAt>(link);
  if (is_open && lost_at == 0) return;  // the first time
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms);
  json.field("mesh", config_of(tables_.links.get<kLinkMesh>(link)).slug);
  if (is_open) {
    json.field("down_ms", env_.mono_ms - lost_at);
  } else {
    json.nullable_field("reason", tables_.links.get<kLinkLastError>(link));
  }
  json.end_object();
  lost_at = is_open ? 0 : env_.mono_ms;
  emit(is_open ? "daemon_reconnect" : "daemon_disconnect", data.view());
}

// The members of eventData stand beside ours, and never in their place.
void Daemon::emit_system(MeshRef mesh, const wire::BrokerFrame& frame, std::string_view event) {
  TextBuf data(scratch(), 512);
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("mesh", config_of(mesh).slug);
  json.field("event", event);
  const wire::JsonNode* sent = frame.tape.find("eventData");
  if (sent != nullptr && sent->type == wire::JsonType::kObject) {
    const wire::JsonTape& tape = frame.tape;
    const auto one_line = [&](std::string_view raw) {
      // White space between tokens may be a line feed, which would end the stream's data line.
      std::string text(raw);
      std::replace_if(
          text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
      TextBuf copy(scratch(), text.size() + 1);
      copy.append(text);
      return copy.view();
    };
    for (std::uint32_t at = tape.first(*sent); at < sent->next; at = tape.at(at).next) {
      const wire::JsonNode& member = tape.at(at);
      const std::string_view key = member.key;
      if (key == "ts" || key == "mesh" || key == "event" || key == "data") continue;
      json.key(key);
      switch (member.type) {
        case wire::JsonType::kText: json.text(member.text); break;
        case wire::JsonType::kInteger: json.number(member.integer); break;
        case wire::JsonType::kBool: json.boolean(member.boolean); break;
        case wire::JsonType::kNull: json.null(); break;
        default: json.raw(one_line(member.text)); break;
      }
    }
    json.key("data").raw(one_line(sent->text));
  }
  json.end_object();
  const bool joined = event == "peer_joined";
  const bool left = event == "peer_left";
  emit(joined ? "peer_join" : left ? "peer_leave" : "system", data.view());
}

void Daemon::emit_message(MeshRef mesh, const Ulid& id, const store::InboxRow& row) {
  const UlidText id_text = ulid_text(id);
  TextBuf data(scratch(), row.text[store::kInboxBody].size() + 1024);
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("id", view(id_text));
  json.field("mesh", config_of(mesh).slug);
  json.field("client_message_id", row.text[store::kInboxClientId]);
  json.field("broker_message_id", row.text[store::kInboxBrokerId]);
  json.field("sender_pubkey", row.text[store::kInboxSender]);
  json.key("sender_member_pubkey");
  if (is_attested(row)) {
    json.hex(row.fixed.sender_member);
  } else {
    json.null().field("unattested", true);
  }
  json.field("sender_name", row.text[store::kInboxSenderName]);
  if (has_name_conflict(row)) json.field("name_conflict", true);
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
  json.field("encrypted", row.fixed.plaintext == 0);
  json.key("created_at").iso_time_or_null(row.fixed.created_ms);
  json.key("recipient_pubkey").hex(row.fixed.recipient).field("recipient_kind", "member");
  json.field("wake", !std::exchange(is_woken_, true)).end_object();
  emit("message", data.view());
}

// Of a message that was sent here: what its broker tells at once, and message status tells again.
void Daemon::emit_receipt(MeshRef mesh, const wire::LiveReceipt& receipt,
                          std::string_view signature) {
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("mesh", config_of(mesh).slug);
  json.field("client_message_id", receipt.client_message_id);
  json.field("broker_message_id", receipt.message_id);
  json.nullable_field("recipient", receipt.recipient).field("state", receipt.state);
  json.key("at").iso_time_or_null(receipt.at_ms).field("signature", signature).end_object();
  emit("receipt", data.view());
}

void Daemon::keep_streams_alive() {
  if (env_.mono_ms < keepalive_ms_) return;
  keepalive_ms_ = UINT64_MAX;
  if (tables_.streams.empty()) return;
  for (const ConnRef conn : tables_.streams) effects_.stream_write(conn, ": keepalive\n\n");
  keepalive_ms_ = env_.mono_ms + kKeepaliveMs;
}

}  // namespace cm::daemon
