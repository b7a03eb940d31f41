// requeue.cc — POST /v1/outbox/requeue: an operator's second attempt under a fresh id.
// Holds:  in one transaction the old row becomes aborted (when, by whom, superseded by what) and a
//         new row is pending with every routing field and the same bytes. An id is never freed.
// Why:    the reference copies the text alone and may send a private message to everybody.
// Source: docs/PROTOCOL.md §10.3; design/delivery.md, "Outbox: states"; spec/ipc.md §3, §8;
//         spec/decisions.md, "requeue".
// Not:    automatic retries (drain.cc).
#include "core/daemon/daemon.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;
using wire::Need;

constexpr std::string_view kNotOpen =
    R"({"error":"row not found, already aborted, or already done",)"
    R"("remedy":"list rows with GET /v1/outbox; what is done needs no second attempt"})";

}  // namespace

// Out of its lane, wherever it stands there.
void Daemon::unlink_work(WorkRef work) {
  const LaneRef where = tables_.work.get<kWorkLane>(work);
  WorkRef before = tables_.lanes.get<kLaneFirst>(where);
  if (before == work) return remove_work(work);
  while (!(tables_.work.get<kWorkNext>(before) == work)) {
    before = tables_.work.get<kWorkNext>(before);
  }
  const WorkRef next = tables_.work.get<kWorkNext>(work);
  tables_.work.get<kWorkNext>(before) = next;
  if (!next) tables_.lanes.get<kLaneLast>(where) = before;
  tables_.work_of.erase(tables_.work.get<kWorkId>(work));
  tables_.work.erase(work);
}

void Daemon::post_requeue(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const std::string_view named = fields.client_id("id", Need::kRequired);
  const std::string_view wanted = fields.client_id("new_client_message_id");
  const std::string_view by = fields.shown("aborted_by", wire::kLabelMax, Need::kOptional);
  if (!fields.ok()) return reply_error(conn, fields.take().error());

  Ulid old_id;
  store::OutboxRow row;
  store::OutboxBodyRow body;
  const Bytes index = batch().get_index(TableId::kOutboxId, store::text_key(named).bytes());
  bool found = store::parse_ulid_key(index, old_id) && outbox_row(old_id, row);
  if (const auto parsed = ulid_parse(named); !found && parsed) {
    old_id = *parsed;
    found = outbox_row(old_id, row);
  }
  const store::Key old_key = store::ulid_key(old_id);
  const bool open = found && (row.fixed.status <= OutboxStatus::kInflight ||
                              row.fixed.status == OutboxStatus::kDead);
  if (!open) return reply(conn, 409, kNotOpen);
  if (!batch().get(TableId::kOutboxBody, old_key.bytes(), body)) {
    return reply_error(conn, fail(Err::kCorrupt, "the stored body of this row"));
  }
  if (!mesh_by_id(row.text[store::kOutboxMesh])) {
    return reply_error(conn, fail(Err::kMeshNotAttached, row.text[store::kOutboxMesh]));
  }
  const Ulid new_id = ulids_.next(env_.wall_ms);
  const UlidText minted = ulid_text(new_id);
  const std::string client_id(wanted.empty() ? view(minted) : wanted);
  const store::Key id_key = store::text_key(client_id);
  if (batch().get_raw(TableId::kOutboxId, id_key.bytes())) {
    return reply_error(conn, fail(Err::kIdReused, "field 'new_client_message_id'"));
  }
  if (tables_.work.full() || tables_.lanes.full()) {
    return reply_error(conn, fail(Err::kDiskFull, "the outbox is full"));
  }
  // Rows are views into the store: what is needed after the first write is copied.
  const std::string payload(body.text[store::kBodyPayload]);
  const std::string ciphertext(body.text[store::kBodyCiphertext]);
  const std::string reply_to(body.text[store::kBodyReplyTo]);
  std::array<std::string, store::kOutboxTexts> texts;
  for (std::size_t at = 0; at < texts.size(); ++at) {
    texts[at] = row.text[at];
    row.text[at] = texts[at];
  }
  if (const auto work = tables_.work_of.find(old_id); work != tables_.work_of.end()) {
    unlink_work(work->second);
  }
  store::OutboxRow fresh = row;
  row.fixed.status = OutboxStatus::kAborted;
  row.fixed.aborted_ms = env_.wall_ms;
  row.fixed.ended_ms = env_.wall_ms;
  row.text[store::kOutboxAbortedBy] = by.empty() ? std::string_view("operator") : by;
  row.text[store::kOutboxSupersededBy] = client_id;
  batch().put(TableId::kOutbox, old_key.bytes(), row);

  fresh.fixed.status = OutboxStatus::kPending;
  fresh.fixed.attempts = 0;
  fresh.fixed.ended_ms = 0;
  fresh.fixed.enqueued_ms = env_.wall_ms;
  fresh.fixed.next_attempt_ms = env_.wall_ms;
  fresh.text[store::kOutboxClientId] = client_id;
  fresh.text[store::kOutboxLastError] = {};
  fresh.text[store::kOutboxSupersedes] = texts[store::kOutboxClientId];
  body.text[store::kBodyPayload] = payload;
  body.text[store::kBodyCiphertext] = ciphertext;
  body.text[store::kBodyReplyTo] = reply_to;
  const store::Key new_key = store::ulid_key(new_id);
  batch().put(TableId::kOutbox, new_key.bytes(), fresh);
  batch().put(TableId::kOutboxBody, new_key.bytes(), body);
  batch().put_index(TableId::kOutboxId, id_key.bytes(), new_id.bytes);
  const bool added = add_work(new_id, fresh);
  CHECK(added);  // room was checked before anything was written

  const UlidText old_text = ulid_text(old_id);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("aborted_row_id", view(old_text)).field("new_row_id", view(minted));
  json.field("new_client_message_id", client_id).end_object();
  reply(conn, 200, text.view());
}

}  // namespace cm::daemon
