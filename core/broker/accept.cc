// accept.cc — a send, in the four phases of design/delivery.md "Broker: accept".
// Holds:  B0 the sender's own ids first: a known id is answered without touching any budget.
//         B1 shape, capability, rate. B2 the destination (route.cc), reads only, and its quotas.
//         B3 dedupe, message, history and a delivery row a recipient together: they are true, or
//         none is, when the iteration commits.
// Why:    a dedupe record exists if and only if the message was accepted (promise 4).
// Source: docs/PROTOCOL.md §4, §4.1, §4.2.
// Not:    pushing it (queue.cc); nothing here talks to the recipient.
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/encoding.h"
#include "core/crypto/keys.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::uint64_t kDayMs = 24ull * 3600 * 1000;

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

void Broker::handle_send(ClientRef client, const Frame& frame) {
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
  Route route;
  if (Status found = find_route(client, send, route); !found) {
    // Guessing at destinations costs what a message costs; the same id pays once a minute.
    charge(client, send, 1, Budget::Outcome::kRefused);
    if (found.code() == Err::kNotFound) metrics_.add(Metric::kBrokerRateThenRefused);
    refuse_send(client, send, found.error());
    return;
  }
  const std::uint32_t bytes = push_bytes(client, send);
  if (Status room = check_quota(client, route, bytes); !room) {
    charge(client, send, 1, Budget::Outcome::kRefused);
    refuse_send(client, send, room.error());
    return;
  }
  const std::uint32_t count =
      std::max<std::uint32_t>(1, static_cast<std::uint32_t>(recipients_.size()));
  if (Status may = check_rate(client, send, count); !may) {  // it paid, but not for so many
    refuse_send(client, send, may.error());
    return;
  }
  charge(client, send, count, Budget::Outcome::kAccepted);
  accept(client, send, route);
}

// Of one push of it, for windows and quotas. A session's attestation rides on each of them.
std::uint32_t Broker::push_bytes(ClientRef client, const wire::Send& send) {
  const PresenceInfo& sender = tables_.presences.get<kPresInfo>(presence_of(client));
  return static_cast<std::uint32_t>(send.ciphertext.size() + sender.attestation.size()) +
         kPushOverhead;
}

void Broker::charge(ClientRef client, const wire::Send& send, std::uint32_t count,
                    Budget::Outcome outcome) {
  tables_.budget.charge(tables_.clients.get<kClientMemberNo>(client), send.client_message_id, count,
                        outcome, env_.mono_ms);
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

// B1. The frame limit has bounded the size; what is left is capability, room and rate.
Status Broker::check_send(ClientRef client, const wire::Send& send) {
  if (send.client_message_id.empty() && send.has_fingerprint) {
    return fail(Err::kMalformed, "request_fingerprint without client_message_id");
  }
  const bool direct = crypto::public_key_parse(send.target).has_value();
  const std::uint16_t needed = direct ? kCapDm : kCapBroadcast;
  if ((caps_of(client) & needed) == 0) {
    return fail(Err::kForbidden, "forbidden: missing session capability \"" +
                                     std::string(name_of_cap(needed)) + "\"");
  }
  if (Status room = check_disk("the message"); !room) return room;
  return check_rate(client, send, 1);
}

Status Broker::check_rate(ClientRef client, const wire::Send& send, std::uint32_t count) {
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  if (!tables_.budget.may_send(member_no, send.client_message_id, count, env_.mono_ms)) {
    return fail(Err::kRateLimit, "rate_limit: max " + std::to_string(limits_.rate_per_minute) +
                                     " msg/min (burst " + std::to_string(limits_.rate_burst) +
                                     ") \u2014 slow down");
  }
  return {};
}

bool Broker::mailbox_has_room(MailboxId mailbox, std::uint32_t bytes) const {
  const auto found = tables_.mailbox_of.find(mailbox.bits());
  if (found == tables_.mailbox_of.end()) {
    return tables_.mailboxes.count() < limits_.mailboxes_max;
  }
  return tables_.mailboxes.get<kBoxRows>(found->second) < limits_.queue_rows_max &&
         tables_.mailboxes.get<kBoxBytes>(found->second) + bytes <= limits_.queue_bytes_max;
}

// A direct message is refused for now; of a multicast only the recipient without room misses it.
Status Broker::check_quota(ClientRef client, const Route& route, std::uint32_t bytes) {
  const std::uint32_t sender = tables_.clients.get<kClientMemberNo>(client);
  const std::uint64_t all = std::uint64_t{bytes} * recipients_.size();
  // No wait makes room for it: to try again would only hold up its lane.
  if (recipients_.size() > 1 && all > limits_.queue_sender_bytes_max) {
    return fail(Err::kInvalidArgument,
                "invalid: " + std::to_string(bytes) + " bytes for each of " +
                    std::to_string(recipients_.size()) + " recipients are more than the " +
                    std::to_string(limits_.queue_sender_bytes_max) +
                    " that a member may have undelivered (queue_sender_bytes_max); send a "
                    "shorter message");
  }
  if (!tables_.budget.sender_has_room(sender, all, recipients_.size())) {
    return fail(Err::kQueueFull,
                "queue_full: at most " + std::to_string(limits_.queue_sender_bytes_max) +
                    " bytes of yours may be undelivered in this mesh; retried until there is room");
  }
  if (route.multicast) return {};
  CHECK(recipients_.size() == 1);
  const MailboxId mailbox = recipients_.front().mailbox;
  if (!mailbox_has_room(mailbox, bytes)) {
    return fail(Err::kQueueFull,
                "queue_full: the recipient's queue is full; retried until there is room");
  }
  if (!tables_.budget.pair_has_room(sender, mailbox.bits(), bytes)) {
    return fail(Err::kQueueFull,
                "queue_full: the recipient has " + std::to_string(limits_.queue_pair_rows_max) +
                    " undelivered messages of yours, or 16 MiB; or " +
                    std::to_string(limits_.queue_sender_mailboxes_max) + " recipients have some");
  }
  return {};
}

// B3.
void Broker::accept(ClientRef client, const wire::Send& send, const Route& route) {
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const PresenceKey& sender = tables_.presences.get<kPresKey>(presence_of(client));
  const Ulid id = ulids_.next(env_.wall_ms);
  put_message(client, id, send, route);

  if (!send.client_message_id.empty()) {
    store::DedupeRow dedupe;
    dedupe.fixed.message = id;
    dedupe.fixed.fingerprint = send.fingerprint;
    dedupe.fixed.has_fingerprint = send.has_fingerprint;
    dedupe.fixed.first_seen_ms = env_.wall_ms;
    const bool permanent = limits_.dedupe_retention_days == 0;
    dedupe.fixed.expires_ms = permanent ? 0 : env_.wall_ms + limits_.dedupe_retention_days * kDayMs;
    batch().put(TableId::kDedupe,
                store::u32_bytes_key(member_no, as_bytes(send.client_message_id)).bytes(), dedupe);
  }
  store::DeliveryRow delivery;
  delivery.fixed.sender_member_no = member_no;
  delivery.fixed.stored_ms = env_.wall_ms;
  delivery.fixed.lane = lane_of(sender.key, send);
  delivery.fixed.bytes = push_bytes(client, send);
  for (const Recipient& recipient : recipients_) {
    queue_for(recipient, id, delivery, send.priority, route);
  }
  acknowledge_send(client, id, send, route);
  metrics_.add(routed(send.priority));
}

void Broker::put_message(ClientRef client, const Ulid& id, const wire::Send& send,
                         const Route& route) {
  const PresenceKey& sender = tables_.presences.get<kPresKey>(presence_of(client));
  store::MessageRow message;
  message.fixed.mesh_no = sender.mesh_no;
  message.fixed.sender_member_no = tables_.clients.get<kClientMemberNo>(client);
  message.fixed.created_ms = env_.wall_ms;
  message.fixed.priority = static_cast<store::Priority>(send.priority);
  message.fixed.has_fingerprint = send.has_fingerprint;
  message.fixed.sender_is_session = sender.kind == MailboxKind::kSession;
  message.fixed.fingerprint = send.fingerprint;
  message.fixed.sender_key = sender.key;
  message.fixed.many = recipients_.size() > kReceiptRecipientsMax;
  message.text[store::kMessageClientId] = send.client_message_id;
  message.text[store::kMessageTarget] = route.target;
  message.text[store::kMessageNonce] = send.nonce;
  message.text[store::kMessageCiphertext] = send.ciphertext;
  message.text[store::kMessageReplyTo] = send.reply_to;
  batch().put(TableId::kMessage, store::ulid_key(id).bytes(), message);
  if (route.topic_no == 0) return;
  store::TopicPostRow post;
  post.fixed.body_version = send.body_version;
  batch().put(TableId::kTopicPost, store::topic_post_key(route.topic_no, id).bytes(), post);
}

void Broker::queue_for(const Recipient& recipient, const Ulid& id, store::DeliveryRow& delivery,
                       wire::Priority priority, const Route& route) {
  delivery.fixed.recipient_member_no = recipient.member_no;
  const std::uint32_t sender = delivery.fixed.sender_member_no;
  const std::uint32_t bytes = delivery.fixed.bytes;
  const std::uint64_t mailbox_bits = recipient.mailbox.bits();
  const bool has_room =
      !route.multicast || (mailbox_has_room(recipient.mailbox, bytes) &&
                           tables_.budget.pair_has_room(sender, mailbox_bits, bytes));
  if (route.multicast) {
    store::ReceiptRow receipt;
    receipt.fixed.state = has_room ? store::ReceiptState::kQueued : store::ReceiptState::kExpired;
    receipt.fixed.recipient_member_no = recipient.member_no;
    receipt.fixed.stored_ms = env_.wall_ms;
    receipt.fixed.ended_ms = has_room ? 0 : env_.wall_ms;
    if (!has_room) receipt.text[store::kReceiptReason] = "queue_full";
    batch().put(TableId::kReceipt, store::receipt_key(id, recipient.mailbox).bytes(), receipt);
  }
  if (!has_room) {
    metrics_.add(Metric::kBrokerExpired);
    return;
  }
  const auto lane = static_cast<std::uint8_t>(priority);
  batch().put(TableId::kDelivery, store::delivery_key(recipient.mailbox, lane, id).bytes(),
              delivery);
  const MailboxRef box = mailbox(recipient.mailbox, recipient.member_no);
  CHECK(box);  // mailbox_has_room() saw a place for it
  tables_.mailboxes.get<kBoxRows>(box) += 1;
  tables_.mailboxes.get<kBoxBytes>(box) += bytes;
  tables_.budget.queued(sender, mailbox_bits, bytes);
  ++queued_rows_;
  mark_dirty(box);
}

void Broker::acknowledge_send(ClientRef client, const Ulid& id, const wire::Send& send,
                              const Route& route) {
  const UlidText id_text = ulid_text(id);
  wire::Ack ack;
  ack.id = sender_text(send);
  ack.message_id = view(id_text);
  ack.queued = true;
  ack.recipient_offline = !route.multicast && !recipients_.front().online;
  if (!send.client_message_id.empty()) {
    ack.is_dedupe_answer = true;
    ack.first_seen_ms = env_.wall_ms;
  }
  TextBuf text(scratch());
  wire::write_ack(ack, text);
  send_text(client, text);
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
  if (error.code == Err::kRateLimit) {
    ack.retry_after_ms = tables_.budget.wait_ms(tables_.clients.get<kClientMemberNo>(client));
  }
  TextBuf text(scratch());
  wire::write_ack(ack, text);
  send_text(client, text);
  switch (error.code) {
    case Err::kRateLimit: metrics_.add(Metric::kBrokerRejectedRate); break;
    case Err::kForbidden: metrics_.add(Metric::kBrokerRejectedGrant); break;
    case Err::kQueueFull: metrics_.add(Metric::kBrokerRejectedQueue); break;
    case Err::kDiskFull: metrics_.add(Metric::kBrokerRejectedDisk); break;
    case Err::kNotFound: metrics_.add(Metric::kBrokerRejectedTarget); break;
    default: metrics_.add(Metric::kBrokerRejectedOther); break;
  }
}

}  // namespace cm::broker
