// requeue.cc — POST /v1/outbox/requeue: an operator's second attempt under a fresh id.
// Holds:  in one transaction the old row becomes aborted (when, by whom, superseded by what) and a
//         new row is pending with every routing field and the same bytes, or with another text that
//         is encrypted anew to the same target. An id is never freed.
// Why:    the reference copies the text alone and may send a private message to everybody.
// Source: docs/PROTOCOL.md §10.3; design/delivery.md, "Outbox: states"; spec/ipc.md §3, §8;
//         spec/decisions.md, "requeue".
// Not:    automatic retries (drain.cc), which states allow it (outbox_state.cc).
#include "core/crypto/encoding.h"
#include "core/daemon/sending.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;
using wire::Need;

constexpr std::string_view kNotOpen = "row not found, already aborted, or already done";
constexpr std::string_view kStatusInText = "409: ";  // of a cell of the table
constexpr std::string_view kNotOpenRemedy =
    "list rows with GET /v1/outbox; what is done needs no second attempt";

}  // namespace

// Copies: what is read from the store does not outlive the first write.
struct Daemon::SecondAttempt {
  Ulid old_id, new_id;
  store::OutboxRow row;  // its texts are in `texts`
  std::array<std::string, store::kOutboxTexts> texts;
  store::OutboxBodyFixed body;
  std::string payload, ciphertext, reply_to;
  std::string client_id, aborted_by;
  MeshRef mesh;
  bool patched = false;
};

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
  fields.only({"id", "new_client_message_id", "aborted_by", "patch_payload"});
  const std::string_view named = fields.client_id("id", Need::kRequired);
  const std::string_view wanted = fields.client_id("new_client_message_id");
  const std::string_view by = fields.shown("aborted_by", wire::kLabelMax, Need::kOptional);
  const wire::JsonNode* text = fields.node("patch_payload");
  const bool patches = text != nullptr && text->type != wire::JsonType::kNull;
  if (patches && (text->type != wire::JsonType::kText || text->text.empty())) {
    fields.refuse("patch_payload", "a non-empty string");
  }
  if (!fields.ok()) return reply_error(conn, fields.take().error());

  const auto found = find_outbox(named);
  if (found.code() == Err::kAmbiguousId) return reply_error(conn, found.error());
  const auto not_open = [&](std::string_view detail, Err code) {
    if (detail.starts_with(kStatusInText)) detail.remove_prefix(kStatusInText.size());
    TextBuf out(scratch());
    wire::JsonWriter json(out);
    json.begin_object().field("error", kNotOpen).field("code", info_of(code).wire_code);
    json.field("detail", detail);
    json.field("remedy", kNotOpenRemedy).end_object();
    reply(conn, 409, out.view());
  };
  if (!found) return not_open(found.error().detail, Err::kNotFound);
  SecondAttempt attempt;
  if (found->is_tombstone) {
    return not_open(outbox_next(OutboxState::kTombstone, OutboxEvent::kRequeue).text,
                    Err::kOutboxEnded);
  }
  if (Status read = read_attempt(found->id, attempt); !read) {
    return reply_error(conn, read.error());
  }
  const OutboxState state = state_of_row(attempt.old_id, attempt.row);
  if (outbox_cell(state, OutboxEvent::kRequeue).kind == CellKind::kRefused) {
    return not_open(outbox_next(state, OutboxEvent::kRequeue).text, Err::kOutboxEnded);
  }
  if (!attempt.mesh) {
    return reply_error(conn, fail(Err::kMeshNotAttached, attempt.texts[store::kOutboxMesh]));
  }
  attempt.new_id = ulids_.next(env_.wall_ms);
  const UlidText minted = ulid_text(attempt.new_id);
  attempt.client_id = wanted.empty() ? view(minted) : wanted;
  attempt.aborted_by = by.empty() ? std::string_view("operator") : by;
  if (batch().get_raw(TableId::kOutboxId, store::text_key(attempt.client_id).bytes())) {
    return reply_error(conn, fail(Err::kIdReused, "field 'new_client_message_id'"));
  }
  const bool makes_room = state != OutboxState::kDead;  // the old row leaves its lane
  if (!makes_room && (tables_.work.full() || tables_.lanes.full())) {
    return reply_error(conn, fail(Err::kDiskFull,
                                  "the outbox holds as many undelivered messages "
                                  "as outbox_rows_max allows"));
  }
  if (patches) {
    if (Status patched = patch(text->text, attempt); !patched) {
      return reply_error(conn, patched.error());
    }
  }
  supersede(attempt);
  reply_requeued(conn, attempt);
}

Status Daemon::read_attempt(const Ulid& id, SecondAttempt& attempt) {
  store::OutboxBodyRow body;
  attempt.old_id = id;
  if (!outbox_row(id, attempt.row)) return fail(Err::kCorrupt, "the outbox row of this id");
  for (std::size_t at = 0; at < attempt.texts.size(); ++at) {
    attempt.texts[at] = attempt.row.text[at];
    attempt.row.text[at] = attempt.texts[at];
  }
  if (!batch().get(TableId::kOutboxBody, store::ulid_key(id).bytes(), body)) {
    return fail(Err::kCorrupt, "the stored body of this row");
  }
  attempt.body = body.fixed;
  attempt.payload = body.text[store::kBodyPayload];
  attempt.ciphertext = body.text[store::kBodyCiphertext];
  attempt.reply_to = body.text[store::kBodyReplyTo];
  attempt.mesh = mesh_by_id(attempt.texts[store::kOutboxMesh]);
  return {};
}

// Another text to the same target: sealed anew, under a fingerprint of its own. What the first
// request called the target by is not kept, so the key itself enters the fingerprint.
Status Daemon::patch(std::string_view message, SecondAttempt& attempt) {
  if (attempt.row.fixed.has_session != 0) {
    return fail(Err::kInvalidArgument,
                "field 'patch_payload': a session wrote this message and has ended; its key, under "
                "which another text would be encrypted, is gone. Send it again instead");
  }
  const MeshConfig& mesh = config_of(attempt.mesh);
  wire::SendRequest request;
  request.to = attempt.texts[store::kOutboxTarget];
  request.message = message;
  request.priority = static_cast<wire::Priority>(attempt.row.fixed.priority);
  request.reply_to = attempt.reply_to;
  Outgoing out;
  out.mesh = attempt.mesh;
  out.target_text = request.to;
  const auto key = crypto::public_key_parse(request.to);
  out.encrypted = key.has_value();
  if (key) out.target = *key;
  const auto fingerprint = crypto::request_fingerprint({crypto::map_destination(request.to),
                                                        request.reply_to,
                                                        text_of(request.priority),
                                                        {},
                                                        as_bytes(message)});
  if (!fingerprint) return fingerprint.error();
  if (Status sealed = encrypt(request, out); !sealed) return sealed;
  if (Status fits = check_size(request, out, attempt.client_id, "patch_payload"); !fits) {
    metrics_.add(Metric::kDaemonRefusedPayload);
    return fits;
  }
  attempt.patched = true;
  attempt.payload = message;
  attempt.ciphertext = out.ciphertext;
  attempt.body.nonce = out.nonce;
  attempt.row.fixed.payload_bytes = static_cast<std::uint32_t>(message.size());
  attempt.row.fixed.request_fingerprint = *fingerprint;
  attempt.row.fixed.wire_fingerprint = crypto::wire_fingerprint(slab_, mesh.secret, *fingerprint);
  return {};
}

void Daemon::supersede(SecondAttempt& attempt) {
  const store::Key old_key = store::ulid_key(attempt.old_id);
  store::OutboxRow before;
  const bool there = outbox_row(attempt.old_id, before);
  CHECK(there);
  // The old row keeps its own fingerprint: the new one may be of another text.
  store::OutboxRow row = attempt.row;
  row.fixed = before.fixed;
  const OutboxState state = state_of_row(attempt.old_id, before);
  row.fixed.status = status_of(outbox_next(state, OutboxEvent::kRequeue).next);
  row.fixed.aborted_ms = env_.wall_ms;
  row.fixed.ended_ms = env_.wall_ms;
  row.text[store::kOutboxAbortedBy] = attempt.aborted_by;
  row.text[store::kOutboxSupersededBy] = attempt.client_id;
  if (const auto work = tables_.work_of.find(attempt.old_id); work != tables_.work_of.end()) {
    unlink_work(work->second);
  }
  batch().put(TableId::kOutbox, old_key.bytes(), row);

  store::OutboxRow fresh = attempt.row;
  fresh.fixed.status = status_of(outbox_next(OutboxState::kNone, OutboxEvent::kRequeue).next);
  fresh.fixed.attempts = 0;
  fresh.fixed.ended_ms = 0;
  fresh.fixed.enqueued_ms = env_.wall_ms;
  fresh.fixed.next_attempt_ms = env_.wall_ms;
  fresh.text[store::kOutboxClientId] = attempt.client_id;
  fresh.text[store::kOutboxLastError] = {};
  fresh.text[store::kOutboxSupersedes] = attempt.texts[store::kOutboxClientId];
  store::OutboxBodyRow body;
  body.fixed = attempt.body;
  body.text[store::kBodyPayload] = attempt.payload;
  body.text[store::kBodyCiphertext] = attempt.ciphertext;
  body.text[store::kBodyReplyTo] = attempt.reply_to;
  const store::Key new_key = store::ulid_key(attempt.new_id);
  batch().put(TableId::kOutbox, new_key.bytes(), fresh);
  batch().put(TableId::kOutboxBody, new_key.bytes(), body);
  batch().put_index(TableId::kOutboxId, store::text_key(attempt.client_id).bytes(),
                    attempt.new_id.bytes);
  const bool added = add_work(attempt.new_id, fresh);
  CHECK(added);  // room was checked before anything was written
}

void Daemon::reply_requeued(ConnRef conn, const SecondAttempt& attempt) {
  const UlidText old_text = ulid_text(attempt.old_id);
  const UlidText new_text = ulid_text(attempt.new_id);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("aborted_row_id", view(old_text));
  json.field("new_row_id", view(new_text));
  json.field("new_client_message_id", attempt.client_id);
  json.field("aborted_client_message_id", attempt.texts[store::kOutboxClientId]);
  json.field("patched", attempt.patched);
  json.field("may_arrive_twice", attempt.row.fixed.attempts > 0).end_object();
  reply(conn, 200, text.view());
}

}  // namespace cm::daemon
