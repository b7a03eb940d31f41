// routes_inbox.cc — what was received: listing, marking as seen, deleting.
// Holds:  a filter that cannot be understood deletes nothing: it is 400 and names the parameter,
//         and so is a parameter that we do not know. Without a filter every row goes. Replies are
//         bounded, and name the next page. A deleted row leaves its dedupe key behind.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §3, §7.
// Not:    storing (receive.cc), the batches in which rows are deleted (retention.cc).
#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/daemon/query_reader.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::int64_t kInboxDefault = 100;
constexpr std::int64_t kInboxMax = 1'000;
constexpr std::size_t kSeenMax = 1'000;

}  // namespace

void Daemon::get_inbox(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::int64_t limit = query.clamped("limit", kInboxDefault, kInboxMax);
  const bool unread_only = query.flag("unread_only", false);
  const bool marks_seen = query.flag("mark_seen", true);
  const std::uint64_t since = query.instant("since", 0);
  const std::uint64_t before = query.instant("before", UINT64_MAX);
  const auto from = query.sender("from");
  const auto topic = query.text("topic", wire::kTargetMax);
  const std::string_view wanted = query.mesh();
  const Ulid behind = query.cursor();
  if (!query.status()) return reply_error(conn, query.status().error());
  std::string_view mesh_id;
  if (!wanted.empty()) {
    const auto chosen = choose_mesh(wanted);
    if (!chosen) return reply_error(conn, chosen.error());
    mesh_id = config_of(*chosen).mesh_id;
  }

  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().key("items").begin_array();
  std::vector<Ulid> shown_unread;
  std::int64_t count = 0;
  bool truncated = false;
  bool more = false;  // rows that match and are not shown
  Ulid last;
  {
    store::Cursor cursor(batch(), TableId::kInbox);
    const store::Key before_key = store::ulid_key(behind);
    for (bool found = cursor.seek_before(behind.is_zero() ? Bytes{} : before_key.bytes()); found;
         found = cursor.previous()) {
      store::InboxRow row;
      Ulid id;
      if (!cursor.row(row) || !store::parse_ulid_key(cursor.key(), id)) continue;
      if (row.fixed.received_ms < since) break;
      // Whether an older row matches is not looked for: the next page may be empty.
      if (count == limit) {
        more = true;
        break;
      }
      if (row.fixed.received_ms >= before) continue;
      if (unread_only && row.fixed.seen_ms != 0) continue;
      if (from && row.text[store::kInboxSender] != *from) continue;
      if (topic && row.text[store::kInboxTopic] != *topic) continue;
      if (!mesh_id.empty() && row.text[store::kInboxMesh] != mesh_id) continue;
      // How long it is in JSON is known when it is written.
      const std::size_t before_row = text.size();
      append_inbox_row(id, row, true, json);
      bool with_body = true;
      if (text.size() > kReplyBytesMax) {
        text.truncate(before_row);
        truncated = true;
        more = count != 0;
        if (more) break;
        json = wire::JsonWriter(text);  // as it was before the first row
        append_inbox_row(id, row, false, json);
        with_body = false;
      }
      ++count;
      last = id;
      if (row.fixed.seen_ms == 0 && with_body) shown_unread.push_back(id);
    }
  }
  json.end_array();
  if (marks_seen) is_woken_ = false;  // the reader's cursor has moved
  json.field("marked_seen", marks_seen ? mark_seen(shown_unread) : 0);
  if (truncated) json.field("truncated", true);
  json.end_object();
  reply_page(conn, text.view(), more ? page_behind(request, last) : std::string_view{});
}

// The row as it is shown; without its body if not even alone it fits into an answer.
void Daemon::append_inbox_row(const Ulid& id, const store::InboxRow& row, bool with_body,
                              wire::JsonWriter& json) {
  const UlidText id_text = ulid_text(id);
  json.begin_object().field("id", view(id_text));
  json.field("client_message_id", row.text[store::kInboxClientId]);
  json.field("broker_message_id", row.text[store::kInboxBrokerId]);
  json.field("mesh", slug_of(row.text[store::kInboxMesh]));
  json.nullable_field("topic", row.text[store::kInboxTopic]);
  json.field("sender_pubkey", row.text[store::kInboxSender]);
  if (!is_attested(row)) json.field("unattested", true);
  json.field("sender_name", row.text[store::kInboxSenderName]);
  if (has_name_conflict(row)) json.field("name_conflict", true);
  json.optional_field("subtype", row.text[store::kInboxSubtype]);
  json.key("body");
  if (row.fixed.body_missing != 0) {
    json.null().field("body_missing", row.text[store::kInboxReason]);
  } else if (!with_body) {
    json.null().field("body_missing", "it has " +
                                          std::to_string(row.text[store::kInboxBody].size()) +
                                          " bytes, more than an answer holds");
  } else {
    json.text(row.text[store::kInboxBody]);
  }
  json.field("encrypted", row.fixed.plaintext == 0);
  json.field("priority", text_of(static_cast<wire::Priority>(row.fixed.priority)));
  json.key("received_at").iso_time(row.fixed.received_ms);
  json.nullable_field("reply_to_id", row.text[store::kInboxReplyTo]);
  json.key("seen_at").iso_time_or_null(row.fixed.seen_ms);
  json.key("receipt");
  if (row.fixed.told == 0) {
    json.null();
  } else {
    json.text(wire::text_of(static_cast<wire::ReportLevel>(row.fixed.told - 1)));
  }
  if (row.fixed.seen_ms != 0 &&
      !batch().get_index(TableId::kSeenDue, store::ulid_key(id).bytes()).empty()) {
    json.field("receipt_due", true);
  }
  json.key("recipient_pubkey").hex(row.fixed.recipient);
  json.field("recipient_kind", "member").end_object();
}

// The number of rows that were unread.
std::int64_t Daemon::mark_seen(const std::vector<Ulid>& ids) {
  std::int64_t marked = 0;
  for (const Ulid& id : ids) {
    store::InboxRow row;
    const store::Key key = store::ulid_key(id);
    if (!batch().get(TableId::kInbox, key.bytes(), row) || row.fixed.seen_ms != 0) continue;
    row.fixed.seen_ms = env_.wall_ms;
    const MeshRef mesh = mesh_by_id(row.text[store::kInboxMesh]);
    batch().put(TableId::kInbox, key.bytes(), row);
    note_seen(id, mesh);
    ++marked;
  }
  return marked;
}

void Daemon::post_seen(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const wire::JsonNode* ids = fields.array("ids");
  if (ids != nullptr && ids->count > kSeenMax) fields.refuse("ids", "at most 1000 ids");
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  std::vector<Ulid> rows;
  for (std::uint32_t at = tape->first(*ids); at < ids->next; at = tape->at(at).next) {
    const wire::JsonNode& item = tape->at(at);
    if (item.type != wire::JsonType::kText || item.text.size() > wire::kClientIdMax) {
      fields.refuse("ids", "strings: ids as the inbox shows them");
      return reply_error(conn, fields.take().error());
    }
    // An id of another form names no row of ours.
    if (const auto id = ulid_parse(item.text)) rows.push_back(*id);
  }
  is_woken_ = false;
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("marked_seen", mark_seen(rows)).end_object();
  reply(conn, 200, text.view());
}

void Daemon::delete_inbox(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  Purge purge;
  purge.conn = conn;
  const std::string_view wanted = query.mesh();
  const auto topic = query.text("topic", wire::kTargetMax);
  const auto from = query.sender("from");
  query.only({"mesh", "topic", "from", "before", "all"});
  if (topic && topic->empty()) query.refuse("topic", "a non-empty value");
  if (wanted.empty() && query.text("mesh")) query.refuse("mesh", "a non-empty value");
  purge.before_ms = query.instant("before", UINT64_MAX);
  const bool all = query.flag("all", true);
  if (!all && wanted.empty() && !topic && !from && purge.before_ms == UINT64_MAX) {
    query.refuse("all", "true, or one of mesh, topic, from, before");
  }
  if (!query.status()) return reply_error(conn, query.status().error());
  if (!wanted.empty()) {
    const auto chosen = choose_mesh(wanted);
    if (!chosen) return reply_error(conn, chosen.error());
    purge.mesh_id = config_of(*chosen).mesh_id;
  }
  if (!may_purge(conn)) return;
  is_woken_ = false;
  purge.topic = topic.value_or(std::string_view{});
  purge.sender = from.value_or(std::string_view{});
  start_purge(std::move(purge));
}

void Daemon::delete_inbox_row(ConnRef conn, const wire::HttpRequest& request) {
  const std::string_view text_id = last_segment(request);
  const auto id = ulid_parse(text_id);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  if (id && batch().erase(TableId::kInbox, store::ulid_key(*id).bytes())) {
    is_woken_ = false;
    metrics_.add(Metric::kDaemonInboxPruned);
    json.begin_object().field("removed", 1).field("id", text_id).end_object();
    return reply(conn, 200, text.view());
  }
  json.begin_object().field("error", "not found").field("id", text_id).end_object();
  reply(conn, 404, text.view());
}

}  // namespace cm::daemon
