// accept.cc — a send, in the four phases of design/delivery.md "Broker: accept".
// Holds:  B0 the sender's own ids first: a known id is answered without touching any budget.
//         B1 shape and size. B2 the destination, reads only. B3 dedupe, message and delivery row
//         together: they are true, or none is, when the iteration commits.
// Why:    a dedupe record exists if and only if the message was accepted (promise 4).
// Not:    pushing it (queue.cc); nothing here talks to the recipient.
#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/crypto/encoding.h"
#include "core/crypto/keys.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::uint64_t kDayMs = 24ull * 3600 * 1000;
constexpr std::uint64_t kDedupeRetentionMs = 365 * kDayMs;  // retention_scoped

// Fixed members, keys and times of a push around its variable texts; for windows and quotas.
constexpr std::uint32_t kPushOverhead = 512;

std::string_view sender_text(const wire::Send& send) {
  return send.id.empty() ? send.client_message_id : send.id;
}

std::uint64_t lane_of(const PublicKey& sender, const wire::Send& send) noexcept {
  return hash64(as_bytes(send.target),
                hash64(sender, 1 + static_cast<std::uint64_t>(send.priority)));
}

std::string prefix_of(const crypto::Hash32& fingerprint, ScratchArena& scratch) {
  TextBuf text(scratch, 16);
  crypto::hex_append(Bytes(fingerprint).first(8), text);
  return std::string(text.view());
}

Metric routed(wire::Priority priority) noexcept {
  switch (priority) {
    case wire::Priority::kNow: return Metric::kBrokerRoutedNow;
    case wire::Priority::kNext: return Metric::kBrokerRoutedNext;
    case wire::Priority::kLow: return Metric::kBrokerRoutedLow;
  }
  return Metric::kBrokerRoutedNext;
}

}  // namespace

void Broker::handle_send(ClientRef client, const wire::ClientFrame& frame) {
  wire::Send send;
  if (Status parsed = wire::parse_send(frame, send); !parsed) {
    // Existing clients wait for an ack with their id: answer there when there is one.
    if (sender_text(send).empty()) {
      send_error(client, "malformed", parsed.error().detail, frame.request_id);
    } else {
      refuse_send(client, send, parsed.error());
    }
    return;
  }
  if (answer_known_id(client, send)) return;
  if (Status checked = check_send(client, send); !checked) {
    refuse_send(client, send, checked.error());
    return;
  }
  Recipient recipient;
  if (Status resolved = resolve(client, send, recipient); !resolved) {
    refuse_send(client, send, resolved.error());
    return;
  }
  const auto bytes = static_cast<std::uint32_t>(send.ciphertext.size()) + kPushOverhead;
  if (Status room = check_quota(recipient, bytes); !room) {
    refuse_send(client, send, room.error());
    return;
  }
  accept(client, send, recipient);
}

// B0. Answers to the sender member only: ids of different senders never meet (promise 3).
bool Broker::answer_known_id(ClientRef client, const wire::Send& send) {
  if (send.client_message_id.empty()) return false;
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const store::Key key = store::u32_bytes_key(member_no, as_bytes(send.client_message_id));
  store::DedupeRow row;
  if (!batch().get(TableId::kDedupe, key.bytes(), row)) return false;

  const bool same = send.has_fingerprint == (row.fixed.has_fingerprint != 0) &&
                    crypto::equal_in_constant_time(send.fingerprint, row.fixed.fingerprint);
  if (!same) {
    wire::Ack refusal;
    refusal.id = sender_text(send);
    // The word "invalid" makes existing clients stop retrying (spec/decisions.md).
    refusal.error =
        "idempotency_key_reused: invalid retry, this client_message_id names another request";
    refusal.code = "idempotency_key_reused";
    refusal.conflict = "request_fingerprint_mismatch";
    const std::string prefix = prefix_of(send.fingerprint, scratch());
    refusal.fingerprint_prefix = prefix;
    TextBuf text(scratch());
    wire::write_ack(refusal, text);
    send_text(client, text);
    metrics_.add(Metric::kBrokerMismatches);
    return true;
  }
  const UlidText message_id = ulid_text(row.fixed.message);
  wire::Ack ack;
  ack.id = sender_text(send);
  ack.message_id = view(message_id);
  ack.queued = true;
  ack.duplicate = true;
  ack.is_dedupe_answer = true;
  ack.history_available = row.fixed.history_available != 0;
  ack.first_seen_ms = row.fixed.first_seen_ms;
  TextBuf text(scratch());
  wire::write_ack(ack, text);
  send_text(client, text);
  metrics_.add(Metric::kBrokerDuplicates);
  return true;
}

// B1. The frame limit has bounded the size; what is left is the store's room.
Status Broker::check_send(ClientRef, const wire::Send& send) const {
  if (send.client_message_id.empty() && send.has_fingerprint) {
    return fail(Err::kMalformed, "request_fingerprint without client_message_id");
  }
  if (!env_.batch->admits()) {
    return fail(Err::kDiskFull, "the broker's store is full; retried until there is room");
  }
  return {};
}

// B2. Reads only: an unknown key is refused for good, a known one may be away.
Status Broker::resolve(ClientRef client, const wire::Send& send, Recipient& recipient) {
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const auto key = crypto::public_key_parse(send.target);
  if (!key) {
    return fail(Err::kInvalidArgument,
                "invalid targetSpec: expected 64 lower-case hex digits of a member or session");
  }
  const store::Key stored = store::u32_bytes_key(mesh_no, *key);
  if (const auto member_no = batch().get_number(TableId::kMemberKey, stored.bytes())) {
    const MemberMirror* target = member(*member_no);
    if (target == nullptr || target->revoked) {
      return fail(Err::kNotFound, "not_found: this member was removed from the mesh");
    }
    if (*member_no == tables_.clients.get<kClientMemberNo>(client) && target->clients.size() < 2) {
      return fail(Err::kNotFound, "not_found: targetSpec is your own key without another session");
    }
    recipient.mailbox = {MailboxKind::kMember, *member_no};
    recipient.member_no = *member_no;
    recipient.online = !target->clients.empty();
    return {};
  }
  store::BindingRow binding;
  if (!batch().get(TableId::kBinding, stored.bytes(), binding)) {
    return fail(Err::kNotFound, "not_found: no member or session of this mesh has this key");
  }
  recipient.mailbox = {MailboxKind::kSession, binding.fixed.session_no};
  recipient.member_no = binding.fixed.member_no;
  const auto presence = tables_.presence_of.find({mesh_no, MailboxKind::kSession, *key});
  recipient.online = presence != tables_.presence_of.end() &&
                     !tables_.presences.get<kPresClients>(presence->second).empty();
  return {};
}

Status Broker::check_quota(const Recipient& recipient, std::uint32_t bytes) {
  const auto found = tables_.mailbox_of.find(recipient.mailbox.bits());
  if (found == tables_.mailbox_of.end()) {
    if (!tables_.mailboxes.full()) return {};
    return fail(Err::kQueueFull, "queue_full: the broker keeps no more mailboxes");
  }
  const MailboxRef box = found->second;
  if (tables_.mailboxes.get<kBoxRows>(box) >= limits_.queue_rows_max ||
      tables_.mailboxes.get<kBoxBytes>(box) + bytes > limits_.queue_bytes_max) {
    return fail(Err::kQueueFull, "queue_full: the recipient has " +
                                     std::to_string(tables_.mailboxes.get<kBoxRows>(box)) +
                                     " undelivered messages; retried until there is room");
  }
  return {};
}

// B3.
void Broker::accept(ClientRef client, const wire::Send& send, const Recipient& recipient) {
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const PresenceKey& sender =
      tables_.presences.get<kPresKey>(tables_.clients.get<kClientPresence>(client));
  const Ulid id = ulids_.next(env_.wall_ms);
  const store::Key id_key = store::ulid_key(id);

  store::MessageRow message;
  message.fixed.mesh_no = sender.mesh_no;
  message.fixed.sender_member_no = member_no;
  message.fixed.created_ms = env_.wall_ms;
  message.fixed.priority = static_cast<store::Priority>(send.priority);
  message.fixed.has_fingerprint = send.has_fingerprint;
  message.fixed.sender_is_session = sender.kind == MailboxKind::kSession;
  message.fixed.fingerprint = send.fingerprint;
  message.fixed.sender_key = sender.key;
  message.text[store::kMessageClientId] = send.client_message_id;
  message.text[store::kMessageTarget] = send.target;
  message.text[store::kMessageNonce] = send.nonce;
  message.text[store::kMessageCiphertext] = send.ciphertext;
  message.text[store::kMessageReplyTo] = send.reply_to;
  batch().put(TableId::kMessage, id_key.bytes(), message);

  if (!send.client_message_id.empty()) {
    store::DedupeRow dedupe;
    dedupe.fixed.message = id;
    dedupe.fixed.fingerprint = send.fingerprint;
    dedupe.fixed.has_fingerprint = send.has_fingerprint;
    dedupe.fixed.first_seen_ms = env_.wall_ms;
    dedupe.fixed.expires_ms = env_.wall_ms + kDedupeRetentionMs;
    batch().put(TableId::kDedupe,
                store::u32_bytes_key(member_no, as_bytes(send.client_message_id)).bytes(), dedupe);
  }

  store::DeliveryRow delivery;
  delivery.fixed.recipient_member_no = recipient.member_no;
  delivery.fixed.sender_member_no = member_no;
  delivery.fixed.stored_ms = env_.wall_ms;
  delivery.fixed.lane = lane_of(sender.key, send);
  delivery.fixed.bytes = static_cast<std::uint32_t>(send.ciphertext.size()) + kPushOverhead;
  const auto priority = static_cast<std::uint8_t>(send.priority);
  batch().put(TableId::kDelivery, store::delivery_key(recipient.mailbox, priority, id).bytes(),
              delivery);

  const MailboxRef box = mailbox(recipient.mailbox, recipient.member_no);
  CHECK(box);  // check_quota() saw room for it
  tables_.mailboxes.get<kBoxRows>(box) += 1;
  tables_.mailboxes.get<kBoxBytes>(box) += delivery.fixed.bytes;
  ++queued_rows_;
  mark_dirty(box);

  const UlidText id_text = ulid_text(id);
  wire::Ack ack;
  ack.id = sender_text(send);
  ack.message_id = view(id_text);
  ack.queued = true;
  ack.recipient_offline = !recipient.online;
  if (!send.client_message_id.empty()) {
    ack.is_dedupe_answer = true;
    ack.first_seen_ms = env_.wall_ms;
  }
  TextBuf text(scratch());
  wire::write_ack(ack, text);
  send_text(client, text);
  metrics_.add(routed(send.priority));
}

void Broker::refuse_send(ClientRef client, const wire::Send& send, const Error& error) {
  const ErrInfo& info = info_of(error.code);
  wire::Ack ack;
  ack.id = sender_text(send);
  // Existing clients judge by the text: a malformed frame has to read as permanent.
  const std::string message =
      error.code == Err::kMalformed
          ? "invalid: " + error.detail
          : (error.detail.empty() ? std::string(info.meaning) : error.detail);
  ack.error = message;
  ack.code = info.wire_code;
  TextBuf text(scratch());
  wire::write_ack(ack, text);
  send_text(client, text);
  switch (error.code) {
    case Err::kQueueFull: metrics_.add(Metric::kBrokerRejectedQueue); break;
    case Err::kNotFound: metrics_.add(Metric::kBrokerRejectedTarget); break;
    default: metrics_.add(Metric::kBrokerRejectedOther); break;
  }
}

}  // namespace cm::broker
