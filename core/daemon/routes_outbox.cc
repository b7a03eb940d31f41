// routes_outbox.cc — what was sent: the outbox.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §8.
// Not:    sending (send.cc), how far one message has come (routes_message.cc).
#include <algorithm>

#include "core/daemon/daemon.h"
#include "core/daemon/query_reader.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

constexpr std::int64_t kOutboxDefault = 50;
constexpr std::int64_t kOutboxMax = 500;

std::string_view status_text(const store::OutboxRow& row) noexcept {
  return text_of(outbox_state(row.fixed.status));
}

bool is_status(std::string_view word) noexcept {
  for (std::uint8_t status = 0; status < static_cast<std::uint8_t>(OutboxStatus::kCount);
       ++status) {
    if (word == text_of(outbox_state(static_cast<OutboxStatus>(status)))) return true;
  }
  return false;
}

}  // namespace

void Daemon::post_send(ConnRef conn, const wire::HttpRequest& request) {
  handle_send(conn, {std::string(request.body), std::string(request.idempotency_key), false}, {});
}

void Daemon::get_outbox(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::int64_t limit = query.clamped("limit", kOutboxDefault, kOutboxMax);
  const auto status = query.text("status");
  if (status && !is_status(*status)) {
    query.refuse("status", "pending, inflight, done, dead or aborted");
  }
  const std::string_view target = query.text("target", wire::kTargetMax).value_or("");
  const std::string_view wanted = query.mesh();
  const std::uint64_t since = query.instant("since", 0);
  const std::uint64_t before = query.instant("before", UINT64_MAX);
  const Ulid behind = query.cursor();
  if (!query.status()) return reply_error(conn, query.status().error());
  std::string_view mesh_id;
  if (!wanted.empty()) {
    const auto chosen = choose_mesh(wanted);
    // Rows of a mesh that was left are still here, under its id.
    mesh_id = chosen ? std::string_view(config_of(*chosen).mesh_id) : wanted;
  }
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("items").begin_array();
  std::int64_t count = 0;
  store::Cursor cursor(batch(), TableId::kOutbox);
  const store::Key before_key = store::ulid_key(behind);
  bool more = false;  // rows that match and are not shown
  Ulid last;
  for (bool found = cursor.seek_before(behind.is_zero() ? Bytes{} : before_key.bytes()); found;
       found = cursor.previous()) {
    store::OutboxRow row;
    Ulid id;
    if (!cursor.row(row) || !store::parse_ulid_key(cursor.key(), id)) continue;
    if (count == limit) {
      more = true;
      break;
    }
    if (status && status_text(row) != *status) continue;
    if (!mesh_id.empty() && row.text[store::kOutboxMesh] != mesh_id) continue;
    if (!target.empty() && row.text[store::kOutboxTarget] != target) continue;
    if (row.fixed.enqueued_ms < since || row.fixed.enqueued_ms >= before) continue;
    ++count;
    last = id;
    const UlidText id_text = ulid_text(id);
    json.begin_object().field("id", view(id_text));
    json.field("client_message_id", row.text[store::kOutboxClientId]);
    json.field("status", status_text(row));
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
  reply_page(conn, text.view(), more ? page_behind(request, last) : std::string_view{});
}

}  // namespace cm::daemon
