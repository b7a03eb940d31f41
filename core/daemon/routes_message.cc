// routes_message.cc — how far one message has come, and which rows say so.
// Holds:  both take every id that a send has printed: the client's, ours, the broker's or the
//         beginning of the broker's. A client's id is translated through the outbox. What this
//         machine knows is an answer also while no broker can be asked.
// Limits: kRowsMax rows of a broker, kSaysMax bytes of each text.
// Source: docs/PROTOCOL.md §10.3; spec/wire.md §5.6; design/delivery.md, promise 8 and "Ids".
// Not:    signatures (chain.cc), the form of the answers (answers.cc).
#include <algorithm>

#include "core/base/time_text.h"
#include "core/base/utf8.h"
#include "core/daemon/calls.h"
#include "core/daemon/chain.h"
#include "core/daemon/query_reader.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"
#include "core/wire/mesh_replies.h"
#include "core/wire/mesh_requests.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;
using wire::JsonNode;
using wire::JsonType;

constexpr std::size_t kPrefixLeast = 8;
constexpr std::uint32_t kRowsMax = 256;
constexpr std::size_t kSaysMax = 512;

constexpr const char* kForged =
    "a recipient did not sign what the broker says that it has: ask it, compare keys with "
    "'claudemesh peer verify', and trust this broker no further";

std::string time_of(std::uint64_t ms) { return std::string(view(iso_text(ms))); }

void append_own(wire::JsonWriter& json, std::string_view table, std::string_view key,
                std::string_view says) {
  json.begin_object().field("where", "daemon").field("table", table).field("key", key);
  json.field("says", says).end_object();
}

// Of the recipients that the broker names.
std::string next_of_recipients(const wire::BrokerFrame& frame) {
  std::size_t all = 0, delivered = 0, expired = 0;
  if (const JsonNode* list = wire::array_of(frame, {"recipients"}); list != nullptr) {
    const wire::JsonTape& tape = frame.tape;
    for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
      const JsonNode* state = tape.find(tape.at(at), "state");
      if (state == nullptr) state = tape.find(tape.at(at), "status");
      ++all;
      if (state == nullptr) continue;
      delivered += state->text == "delivered" ? 1 : 0;
      expired += state->text == "expired" ? 1 : 0;
    }
  }
  if (all == 0) return "nothing: nobody was there to get it";
  if (delivered == all) return "nothing: every recipient has it";
  if (delivered + expired == all) {
    return "nothing: who does not have it gets it no more; send it again";
  }
  return "the broker pushes it to who has not taken it yet, and gives up when it is too old (7 "
         "days, unless its operator chose otherwise)";
}

}  // namespace

void Daemon::get_message_status(ConnRef conn, const wire::HttpRequest& request) {
  ask_status(conn, request, CallKind::kMessageStatus);
}

void Daemon::get_message_explain(ConnRef conn, const wire::HttpRequest& request) {
  ask_status(conn, request, CallKind::kMessageExplain);
}

void Daemon::ask_status(ConnRef conn, const wire::HttpRequest& request, CallKind kind) {
  QueryReader query(request.query, scratch());
  const std::string_view id = query.required("id", wire::kClientIdMax);
  const std::string_view wanted = query.mesh();
  if (query.status() && !wire::is_client_id(id)) query.refuse("id", "printable ASCII");
  if (!query.status()) return reply_error(conn, query.status().error());

  Sent sent;
  bool own = find_sent(id, sent);
  std::vector<MeshRef> meshes;
  std::string broker_id(id);
  if (!own) {
    // The forms that the outbox takes: the beginning of an id, or its last characters.
    const auto found = find_outbox(id);
    if (found) own = find_sent(view(ulid_text(found->id)), sent);
    if (found.code() == Err::kAmbiguousId) return reply_error(conn, found.error());
  }
  store::InboxRow received;
  const auto inbox_id = ulid_parse(id);
  const bool is_here = !own && inbox_id &&
                       batch().get(TableId::kInbox, store::ulid_key(*inbox_id).bytes(), received);
  if (own) {
    const MeshRef mesh = mesh_by_id(sent.mesh_id);
    if (!wanted.empty()) {
      const auto asked = meshes_for(wanted);
      if (!asked) return reply_error(conn, asked.error());
      if (!(asked->front() == mesh)) {
        return reply_error(conn,
                           fail(Err::kNotFound, "this message was sent in the mesh '" +
                                                    std::string(slug_of(sent.mesh_id)) + "'"));
      }
    }
    if (mesh) meshes.push_back(mesh);
  } else if (is_here) {
    // Its broker knows it by another id than our inbox.
    broker_id = received.text[store::kInboxBrokerId];
    const MeshRef mesh = mesh_by_id(received.text[store::kInboxMesh]);
    if (mesh && wire::is_broker_id(broker_id)) meshes.push_back(mesh);
  } else {
    const bool may_be_broker_id = wire::is_broker_id(id) && id.size() >= kPrefixLeast;
    if (!may_be_broker_id) {
      return reply_error(conn, fail(Err::kNotFound,
                                    "parameter 'id': no message was sent under it, "
                                    "and a broker's id has 8 to 32 letters and "
                                    "digits"));
    }
    const auto asked = meshes_for(wanted);
    if (!asked) return reply_error(conn, asked.error());
    meshes = *asked;
  }
  const bool explains = kind == CallKind::kMessageExplain;
  if (is_here && meshes.empty() && !explains) {
    return reply_error(conn, fail(Err::kNotFound,
                                  "it came through a mesh that is not joined here any more; "
                                  "'message explain' shows its row"));
  }
  const JobRef job = open_job(conn, kind, id);
  if (!job) return;
  if (explains) explain_locally(id, own ? &sent : nullptr, tables_.jobs.get<kJobRow>(job));
  if (own) {
    if (!explains) {
      TextBuf extra(scratch(), 256);
      extra.append(",\"outbox\":");
      wire::JsonWriter json(extra);
      append_sent(sent, json);
      tables_.jobs.get<kJobRow>(job).extra = extra.view();
    }
    broker_id = sent.broker_id;
    if (!wire::is_broker_id(broker_id)) meshes.clear();  // no broker has it yet
  }
  for (const MeshRef mesh : meshes) {
    call(job, mesh, kind, [&](std::string_view request_id, TextBuf& out) {
      wire::write_status_request(broker_id, explains, request_id, out);
    });
  }
  close_job_if_done(job);
}

// The rows of this machine: the outbox's, or of something received under this id the inbox's.
void Daemon::explain_locally(std::string_view id, const Sent* sent, Job& job) {
  TextBuf rows(scratch(), 1024);
  wire::JsonWriter json(rows);
  if (sent == nullptr) {
    store::InboxRow row;
    const auto ulid = ulid_parse(id);
    if (!ulid || !batch().get(TableId::kInbox, store::ulid_key(*ulid).bytes(), row)) return;
    append_own(
        json, "inbox", id,
        "received at " + time_of(row.fixed.received_ms) +
            (row.fixed.seen_ms == 0 ? ", unread" : ", seen at " + time_of(row.fixed.seen_ms)) +
            (row.fixed.told == 0 ? "; its broker takes no receipts"
                                 : "; its sender may know that it is here, as far as "
                                   "'receipts.level' let it then"));
    job.extra = rows.view();
    job.next = "nothing: it is here";
    return;
  }
  const UlidText ulid = ulid_text(sent->id);
  append_own(json, "outbox_id", sent->client_id, "names the row " + std::string(view(ulid)));
  std::string says = sent->is_tombstone ? "shrunk: " : "";
  says += "accepted at " + time_of(sent->enqueued_ms);
  switch (sent->status) {
    case OutboxStatus::kPending:
      says += ", pending, " + std::to_string(sent->attempts) + " attempts, the next one at " +
              time_of(sent->next_attempt_ms);
      break;
    case OutboxStatus::kInflight:
      says += ", in flight, attempt " + std::to_string(sent->attempts);
      break;
    case OutboxStatus::kDone:
      says +=
          ", done: stored by the broker at " + time_of(sent->stored_ms) + " as " + sent->broker_id;
      break;
    case OutboxStatus::kDead: says += ", dead"; break;
    case OutboxStatus::kAborted: says += ", aborted, superseded by " + sent->superseded_by; break;
    case OutboxStatus::kCount: break;
  }
  if (!sent->last_error.empty()) says += "; last error: " + sent->last_error;
  append_own(json, sent->is_tombstone ? "tombstone" : "outbox", view(ulid), says);
  store::OutboxBodyRow body;
  const bool has_body = batch().get(TableId::kOutboxBody, store::ulid_key(sent->id).bytes(), body);
  append_own(json, "outbox_body", view(ulid),
             has_body ? std::to_string(body.text[store::kBodyPayload].size()) +
                            " bytes of text: signatures of recipients can be checked"
                      : std::string("gone: it cannot be sent again, and no signature checked"));
  job.extra = rows.view();
  job.next = next_of(*sent);
}

// What becomes of a row of the outbox when nobody does anything, or what somebody can do.
std::string Daemon::next_of(const Sent& sent) const {
  switch (sent.status) {
    case OutboxStatus::kPending: return next_of_pending(sent);
    case OutboxStatus::kInflight:
      return "it waits for the broker's answer, and is sent again if none comes in 15 s";
    case OutboxStatus::kDone: return "the broker has it; ask again when it can be reached";
    case OutboxStatus::kDead: {
      std::string text = "it is not sent any more";
      if (sent.attempts > 0) {
        text +=
            "; it had been sent, and may have arrived: ask its recipient before a second "
            "attempt";
      }
      if (!mesh_by_id(sent.mesh_id)) {
        return text + "; its mesh is not joined here: join it again, then requeue the message";
      }
      return text +
             "; 'claudemesh outbox list --failed' shows it, and a requeue sends it under a "
             "new id";
    }
    case OutboxStatus::kAborted: {
      std::string text = "nothing: the message '" + sent.superseded_by + "' took its place";
      if (sent.attempts > 0) text += "; it had been sent, and may have arrived as well";
      return text;
    }
    case OutboxStatus::kCount: break;
  }
  return {};
}

std::string Daemon::next_of_pending(const Sent& sent) const {
  const MeshRef mesh = mesh_by_id(sent.mesh_id);
  if (!mesh) return "nothing while its mesh is not joined here; it ends when it is too old";
  const LinkRef link = link_of(mesh);
  const std::string& why = tables_.links.get<kLinkLastError>(link);
  if (tables_.links.get<kLinkState>(link) == LinkState::kRefused) {
    return "nothing while the mesh is refused" + (why.empty() ? "" : " (" + why + ")") +
           ": mend that, then 'claudemesh daemon restart'";
  }
  if (tables_.links.get<kLinkState>(link) != LinkState::kOpen) {
    return "it is sent when the broker can be reached and what is before it in its lane has gone; "
           "'claudemesh daemon status' shows the connection";
  }
  const auto work = tables_.work_of.find(sent.id);
  if (work == tables_.work_of.end()) return "it is sent when its turn comes";
  const LaneRef where = tables_.work.get<kWorkLane>(work->second);
  const WorkRef first = tables_.lanes.get<kLaneFirst>(where);
  if (!(first == work->second)) {
    return "it is sent when what is before it in its lane has gone; first is " +
           std::string(view(ulid_text(tables_.work.get<kWorkId>(first))));
  }
  if (tables_.lanes.get<kLaneDue>(where) > env_.mono_ms) {
    return "the broker does not take it now (" + sent.last_error + "); it is sent again at " +
           time_of(sent.next_attempt_ms) + ", and behind that with longer pauses of up to 30 s";
  }
  return "it is sent at once; what waits is only its turn";
}

// The broker's rows, each with where it stands; what happens next goes into the call's detail.
Status Daemon::append_explanation(CallRef call, const wire::BrokerFrame& frame, TextBuf& out) {
  const wire::JsonTape& tape = frame.tape;
  wire::JsonWriter json(out);
  const auto text = [&](const JsonNode& row, std::string_view key) {
    return utf8_prefix(wire::text_member(tape, row, key), kSaysMax);
  };
  const JsonNode* rows = wire::array_of(frame, {"rows"});
  if (rows != nullptr) {
    std::uint32_t shown = 0;
    for (std::uint32_t at = tape.first(*rows); at < rows->next && shown < kRowsMax;
         at = tape.at(at).next) {
      if (tape.at(at).type != JsonType::kObject) continue;
      ++shown;
      json.begin_object().field("where", "broker").field("table", text(tape.at(at), "table"));
      json.field("key", text(tape.at(at), "key")).field("says", text(tape.at(at), "says"));
      json.end_object();
    }
  } else {  // to a recipient, or by a broker that explains nothing: its word alone
    json.begin_object().field("where", "broker").field("table", "message_status");
    json.field("key", text(tape.root(), "messageId"));
    const JsonNode* delivered = tape.find("delivered");
    const bool all = delivered != nullptr && delivered->boolean;
    json.field("says", all ? "delivered" : "not delivered, or not all of it").end_object();
  }
  const MeshRef mesh = tables_.calls.get<kCallMesh>(call);
  Sent sent;
  const bool ours = find_answered(call, frame, sent);
  bool invalid = false;
  if (const JsonNode* list = wire::array_of(frame, {"recipients"}); list != nullptr) {
    for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
      const Verdict verdict = verdict_of(mesh, tape, tape.at(at), ours ? &sent : nullptr);
      invalid = invalid || verdict.word == "invalid";
    }
  }
  Job& job = tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call));
  // Asked for by the broker's id: now we know which row of ours it is.
  if (ours && job.extra.empty()) explain_locally(sent.client_id, &sent, job);
  job.results[tables_.calls.get<kCallIndex>(call)].detail =
      invalid ? kForged : next_of_recipients(frame);
  return {};
}

}  // namespace cm::daemon
