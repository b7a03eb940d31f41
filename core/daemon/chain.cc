// chain.cc — how far a message has come: what its recipients signed, held against what was sent.
// Holds:  `valid` is said only of a signature over the ciphertext that this machine sent, by the
//         key that it was sent to; for a message to many, by a key that is known here. What cannot
//         be checked is said to be unchecked, never valid. A recipient whose signature is wrong
//         has not the message, whatever its broker says.
// Why:    a broker, or who took its place, can say `delivered`; it cannot sign it.
// Limits: kChecksAtOnce signatures an iteration.
// Source: docs/PROTOCOL.md §5.4, §5.5, §10.3, §10.4; design/delivery.md, promise 8.
// Not:    signing (receipts.cc), asking (routes_message.cc).
#include <algorithm>

#include "core/base/time_text.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/daemon/calls.h"
#include "core/daemon/chain.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"
#include "core/wire/mesh_replies.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;
using wire::JsonNode;
using wire::JsonType;

std::uint64_t time_at(const wire::JsonTape& tape, const JsonNode& row, std::string_view key) {
  return iso_parse(wire::text_member(tape, row, key)).value_or(0);
}

}  // namespace

bool Daemon::find_sent(std::string_view id, Sent& sent) {
  const Bytes named = batch().get_index(TableId::kOutboxId, store::text_key(id).bytes());
  if (!store::parse_ulid_key(named, sent.id)) {
    const auto parsed = ulid_parse(id);
    if (!parsed) return false;
    sent.id = *parsed;
  }
  store::OutboxRow row;
  if (outbox_row(sent.id, row)) {
    sent.client_id = row.text[store::kOutboxClientId];
    sent.mesh_id = row.text[store::kOutboxMesh];
    sent.target = row.text[store::kOutboxTarget];
    sent.broker_id = row.text[store::kOutboxBrokerId];
    sent.last_error = row.text[store::kOutboxLastError];
    sent.superseded_by = row.text[store::kOutboxSupersededBy];
    sent.status = row.fixed.status;
    sent.is_foreign = row.fixed.is_foreign != 0;
    sent.attempts = row.fixed.attempts;
    sent.enqueued_ms = row.fixed.enqueued_ms;
    sent.stored_ms = row.fixed.delivered_ms;
    sent.next_attempt_ms = row.fixed.next_attempt_ms;
    return sent.status < OutboxStatus::kCount;
  }
  store::TombstoneRow grave;
  if (!batch().get(TableId::kTombstone, store::ulid_key(sent.id).bytes(), grave)) return false;
  sent.client_id = grave.text[store::kTombstoneClientId];
  sent.mesh_id = grave.text[store::kTombstoneMesh];
  sent.broker_id = grave.text[store::kTombstoneBrokerId];
  sent.last_error = grave.text[store::kTombstoneReason];
  sent.superseded_by = grave.text[store::kTombstoneSupersededBy];
  sent.status = grave.fixed.status;
  sent.is_tombstone = true;
  sent.enqueued_ms = grave.fixed.enqueued_ms;
  sent.stored_ms = sent.status == OutboxStatus::kDone ? grave.fixed.ended_ms : 0;
  return sent.status < OutboxStatus::kCount;
}

void Daemon::hash_body(Sent& sent) {
  store::OutboxBodyRow body;
  if (!batch().get(TableId::kOutboxBody, store::ulid_key(sent.id).bytes(), body)) return;
  const auto bytes = crypto::base64_decode(body.text[store::kBodyCiphertext], scratch());
  if (bytes) sent.ciphertext = crypto::sha256(*bytes);
}

void Daemon::append_sent(const Sent& sent, wire::JsonWriter& json) const {
  json.begin_object().field("client_message_id", sent.client_id);
  json.field("status", text_of(outbox_state(sent.status)));
  json.field("attempts", sent.attempts).field("mesh", slug_of(sent.mesh_id));
  json.field("target", sent.target).key("accepted_at").iso_time(sent.enqueued_ms);
  json.key("stored_at").iso_time_or_null(sent.stored_ms);
  json.nullable_field("broker_message_id", sent.broker_id);
  json.nullable_field("last_error", sent.last_error);
  if (sent.is_tombstone) json.field("tombstone", true);
  json.end_object();
}

// Of a recipient of a message to many: the broker named it, so it must be known from elsewhere.
bool Daemon::is_known_key(MeshRef mesh, const PublicKey& key) {
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(mesh).peers) {
    if (tables_.peers.get<kPeerMember>(peer) == key || tables_.peers.get<kPeerKey>(peer) == key) {
      return true;
    }
  }
  const store::Key from = store::text_key(config_of(mesh).mesh_id).add_u8(0);
  store::Cursor cursor(batch(), TableId::kKnownPeer);
  for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
    const std::string_view at = as_text(cursor.key());
    if (!at.starts_with(as_text(from.bytes()))) return false;
    if (at.ends_with(as_text(key))) return true;
  }
  return false;
}

Daemon::Verdict Daemon::check_receipt(MeshRef mesh, const Sent* sent, const Signed& receipt) {
  if (receipt.signature.empty()) return {"unsigned", {}};
  const auto signature = crypto::signature_parse(receipt.signature);
  if (!signature || receipt.handed_ms == 0) return {"invalid", {}};
  if (sent == nullptr) return {"unchecked", "it was not sent from this machine"};
  if (!sent->ciphertext) return {"unchecked", "its body is no longer here"};
  if (checks_left_ == 0) return {"unchecked", "there are more recipients than are checked at once"};
  auto signer = crypto::public_key_parse(sent->target);
  if (!signer) {
    signer = crypto::public_key_parse(receipt.recipient);
    if (!signer || !is_known_key(mesh, *signer)) {
      return {"unchecked", "the key of this recipient is not known here"};
    }
  }
  --checks_left_;
  crypto::HandedReceipt handed;
  handed.mesh_id = sent->mesh_id;
  handed.broker_message_id = sent->broker_id;
  handed.client_message_id = sent->client_id;
  handed.recipient = *signer;
  handed.ciphertext_hash = *sent->ciphertext;
  handed.handed_at_ms = receipt.handed_ms;
  TextBuf text(scratch(), 384);
  if (crypto::canonical_handed(handed, text) && crypto::verify(*signer, text.view(), *signature)) {
    return {"valid", {}};
  }
  if (sent->is_foreign) {
    return {"unchecked", "the broker had this id already, with a text that is not stored here"};
  }
  metrics_.add(Metric::kDaemonReceiptsInvalid);
  env_.log->warn("receipt_signature_invalid",
                 {{"mesh", config_of(mesh).slug}, {"message", sent->client_id}});
  return {"invalid", {}};
}

bool Daemon::find_answered(CallRef call, const wire::BrokerFrame& frame, Sent& sent) {
  const wire::JsonTape& tape = frame.tape;
  const std::string_view id = wire::text_member(tape, tape.root(), "messageId");
  const std::string_view full = wire::text_member(tape, tape.root(), "fullMessageId");
  // The broker names the client's id of a message that was asked for by its own id.
  const Job& job = tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call));
  if (!find_sent(job.subject, sent) &&
      !find_sent(wire::text_member(tape, tape.root(), "clientMessageId"), sent = {})) {
    return false;
  }
  if (sent.mesh_id != config_of(tables_.calls.get<kCallMesh>(call)).mesh_id ||
      sent.broker_id.empty() ||
      !(full.empty() ? sent.broker_id.starts_with(id) : sent.broker_id == full)) {
    return false;
  }
  hash_body(sent);
  return true;
}

Daemon::Verdict Daemon::verdict_of(MeshRef mesh, const wire::JsonTape& tape, const JsonNode& row,
                                   const Sent* sent) {
  const std::string_view state = wire::text_member(tape, row, "state");
  if ((state.empty() ? wire::text_member(tape, row, "status") : state) != "delivered") return {};
  return check_receipt(
      mesh, sent,
      {wire::text_member(tape, row, "handedSignature"),
       wire::text_member(tape, row, "recipientKey"), time_at(tape, row, "handedAt")});
}

// message_status_result as the IPC shows it: the chain begins at this machine, and each signature
// has a verdict.
Status Daemon::append_message_status(CallRef call, const wire::BrokerFrame& frame, TextBuf& out) {
  const wire::JsonTape& tape = frame.tape;
  const MeshRef mesh = tables_.calls.get<kCallMesh>(call);
  wire::FieldReader fields(tape, tape.root());
  const std::string_view id = fields.text("messageId", wire::kRequestIdMax);
  bool delivered = fields.boolean("delivered", false);
  if (!fields.ok()) return fields.take();
  Sent sent;
  const bool ours = find_answered(call, frame, sent);
  TextBuf rows(scratch(), 1024);
  wire::JsonWriter recipients(rows);
  recipients.begin_array();
  if (const JsonNode* list = wire::array_of(frame, {"recipients"}); list != nullptr) {
    for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
      const std::string_view verdict =
          append_recipient(mesh, tape, tape.at(at), ours ? &sent : nullptr, recipients);
      if (verdict == "invalid") delivered = false;
    }
  }
  recipients.end_array();
  wire::JsonWriter json(out);
  json.begin_object().field("messageId", id);
  json.field("targetSpec", wire::text_member(tape, tape.root(), "targetSpec"));
  json.field("delivered", delivered);
  json.nullable_field("deliveredAt", delivered ? wire::text_member(tape, tape.root(), "deliveredAt")
                                               : std::string_view{});
  json.key("recipients").raw(rows.view());
  json.field("mesh", config_of(mesh).slug).end_object();
  return {};
}

// The verdict of its signature; empty if it has nothing to sign yet. Members of other brokers stay
// as they were sent.
std::string_view Daemon::append_recipient(MeshRef mesh, const wire::JsonTape& tape,
                                          const JsonNode& row, const Sent* sent,
                                          wire::JsonWriter& json) {
  if (row.type != JsonType::kObject) return {};
  const Verdict verdict = verdict_of(mesh, tape, row, sent);
  const bool handed = !verdict.word.empty();
  const bool invalid = verdict.word == "invalid";
  json.begin_object();
  for (std::uint32_t at = tape.first(row); at < row.next; at = tape.at(at).next) {
    const JsonNode& member = tape.at(at);
    if (member.key == "chain" || member.key == "signature" || member.key == "signatureWhy")
      continue;
    json.key(member.key);
    if (invalid && member.key == "status") {
      json.text("held");
    } else if (invalid && member.key == "state") {
      json.text("stored");
    } else {
      wire::write_value(member, json);
    }
  }
  json.key("chain").begin_array();
  const auto link = [&](std::string_view name, std::string_view at, std::string_view reason) {
    json.begin_object().field("state", name).nullable_field("at", at);
    json.optional_field("reason", reason).end_object();
  };
  const auto link_of_ours = [&](std::string_view name, std::uint64_t at_ms) {
    json.begin_object().field("state", name).key("at").iso_time_or_null(at_ms).end_object();
  };
  if (sent != nullptr) link_of_ours("accepted", sent->enqueued_ms);
  const JsonNode* chain = tape.find(row, "chain");
  if (chain != nullptr && chain->type == JsonType::kArray) {
    for (std::uint32_t at = tape.first(*chain); at < chain->next; at = tape.at(at).next) {
      const JsonNode& each = tape.at(at);
      const std::string_view name = wire::text_member(tape, each, "state");
      if (each.type != JsonType::kObject || name.empty() || name.size() > wire::kTypeMax) continue;
      if (invalid && (name == "handed" || name == "seen")) continue;
      link(name, wire::text_member(tape, each, "at"), wire::text_member(tape, each, "reason"));
    }
  } else {  // of a broker that has no chain: what it says of itself, and what we know
    if (sent != nullptr && sent->stored_ms != 0) link_of_ours("stored", sent->stored_ms);
    if (handed) link("handed", wire::text_member(tape, row, "endedAt"), {});
  }
  json.end_array();
  json.optional_field("signature", verdict.word).optional_field("signatureWhy", verdict.why);
  json.end_object();
  return verdict.word;
}

// While nobody has listened there is nobody to tell, and nobody who could come back for it.
void Daemon::on_live_receipts(LinkRef link, const wire::BrokerFrame& frame) {
  const JsonNode* list = wire::array_of(frame, {"receipts"});
  if (list == nullptr || list->count > wire::kReceiptsAFrame || !takes_receipts(link)) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    return;
  }
  if (!had_stream_) return;
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  const wire::JsonTape& tape = frame.tape;
  for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
    wire::LiveReceipt receipt;
    if (!wire::parse_live_receipt(tape, tape.at(at), receipt)) {
      metrics_.add(Metric::kDaemonInvalidInbound);
      continue;
    }
    Sent sent;
    const bool ours =
        !receipt.client_message_id.empty() && find_sent(receipt.client_message_id, sent) &&
        sent.mesh_id == config_of(mesh).mesh_id && sent.broker_id == receipt.message_id;
    Verdict verdict{"unsigned", {}};
    if (receipt.is_signed) {
      if (ours) hash_body(sent);
      TextBuf signature(scratch(), 2 * receipt.signature.size());
      crypto::hex_append(receipt.signature, signature);
      verdict = check_receipt(mesh, ours ? &sent : nullptr,
                              {signature.view(), receipt.recipient, receipt.handed_ms});
    }
    emit_receipt(mesh, receipt, verdict.word);
  }
}

}  // namespace cm::daemon
