// queue.cc — from a delivery row to an acknowledged one: claim, push, lease, ack, release.
// Holds:  a mailbox is claimed by one connection at a time, and each priority from its front, so
//         the lanes in it keep their order. Only the recipient's client_ack ends a row. The rows
//         of one lane on one connection share one lease, renewed by each ack in that lane.
// Limits: claim_rows_max rows or claim_bytes_max bytes unacked on a connection, always one row.
// Source: docs/PROTOCOL.md §5.1, §5.2; design/delivery.md, "Queue: claim, lease, ack".
// Not:    acceptance (accept.cc); whether a socket is writable: the window bounds what it holds.
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/encoding.h"

namespace cm::broker {

using store::TableId;

MailboxRef Broker::mailbox(MailboxId id, std::uint32_t member_no) {
  const auto found = tables_.mailbox_of.find(id.bits());
  if (found != tables_.mailbox_of.end()) return found->second;
  const MailboxRef box = tables_.mailboxes.insert();
  if (!box) return box;
  tables_.mailboxes.get<kBoxId>(box) = id;
  tables_.mailboxes.get<kBoxMemberNo>(box) = member_no;
  tables_.mailbox_of[id.bits()] = box;
  return box;
}

void Broker::mark_dirty(MailboxRef box) {
  auto& dirty = tables_.mailboxes.get<kBoxDirty>(box);
  if (dirty != 0) return;
  dirty = 1;
  tables_.dirty.push_back(box);
}

// After the table of claims was full: whoever found it so is looked at again.
void Broker::feed_starved() {
  if (tables_.starved.empty() || tables_.claims.full()) return;
  for (const MailboxRef box : tables_.starved) {
    if (tables_.mailboxes.alive(box)) mark_dirty(box);
  }
  tables_.starved.clear();
}

// Memory is for mailboxes with rows; the next row makes it anew.
void Broker::forget_if_empty(MailboxRef box) {
  if (tables_.mailboxes.get<kBoxRows>(box) != 0) return;
  CHECK(tables_.mailboxes.get<kBoxClaimed>(box) == 0 && tables_.mailboxes.get<kBoxDirty>(box) == 0);
  tables_.mailbox_of.erase(tables_.mailboxes.get<kBoxId>(box).bits());
  tables_.mailboxes.erase(box);
}

// The mailboxes that this connection may serve: its member's and its session's.
void Broker::mark_mailboxes_of(ClientRef client) {
  const auto mark = [&](MailboxId id) {
    const auto found = tables_.mailbox_of.find(id.bits());
    if (found != tables_.mailbox_of.end()) mark_dirty(found->second);
  };
  mark({MailboxKind::kMember, tables_.clients.get<kClientMemberNo>(client)});
  const std::uint32_t session_no = tables_.clients.get<kClientSessionNo>(client);
  if (session_no != 0) mark({MailboxKind::kSession, session_no});
}

// The connection that holds claims keeps the mailbox; else the best class, newest hello first.
// One on which leases ran out comes behind all others, and gets the other lanes only.
ClientRef Broker::choose_claimer(MailboxRef box) {
  const ClientRef holder = tables_.mailboxes.get<kBoxClaimer>(box);
  if (tables_.mailboxes.get<kBoxClaimed>(box) > 0) {
    CHECK(tables_.clients.alive(holder));
    return holder;
  }
  MemberMirror* owner = member(tables_.mailboxes.get<kBoxMemberNo>(box));
  if (owner == nullptr || owner->revoked) return {};
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  ClientRef best;
  for (const ClientRef client : owner->clients) {
    const LapsedLanes& lapsed = tables_.clients.get<kClientLapsed>(client);
    if (lapsed.all) continue;
    if (id.kind == MailboxKind::kSession &&
        tables_.clients.get<kClientSessionNo>(client) != id.no) {
      continue;
    }
    const bool rests = best && tables_.clients.get<kClientLapsed>(best).any();
    if (!best || (rests && !lapsed.any())) {
      best = client;
      continue;
    }
    if (lapsed.any() && !rests) continue;
    const ClientClass left = tables_.clients.get<kClientClass>(client);
    const ClientClass right = tables_.clients.get<kClientClass>(best);
    const bool newer =
        tables_.clients.get<kClientSerial>(client) > tables_.clients.get<kClientSerial>(best);
    if (left < right || (left == right && newer)) best = client;
  }
  return best;
}

// Pushes what the window allows. False when it stopped at `budget` with work left.
bool Broker::drain(MailboxRef box, DrainBudget& budget) {
  if (tables_.mailboxes.get<kBoxRows>(box) == tables_.mailboxes.get<kBoxClaimed>(box)) return true;
  const ClientRef client = choose_claimer(box);
  if (!client) return true;
  DrainState state;
  state.rescan = tables_.mailboxes.get<kBoxRescan>(box) != 0;
  if (state.rescan) tables_.mailboxes.get<kBoxAfter>(box) = {};
  for (std::uint8_t priority = 0; priority < wire::kPriorities && !state.stopped; ++priority) {
    drain_priority(box, client, priority, budget, state);
  }
  if (!state.stopped) tables_.mailboxes.get<kBoxRescan>(box) = 0;
  if (state.skipped) tables_.mailboxes.get<kBoxRescan>(box) = 1;
  return !state.left;
}

void Broker::drain_priority(MailboxRef box, ClientRef client, std::uint8_t priority,
                            DrainBudget& budget, DrainState& state) {
  constexpr std::size_t kSkippedMax = 1024;
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  const LapsedLanes& lapsed = tables_.clients.get<kClientLapsed>(client);
  Ulid& mark = tables_.mailboxes.get<kBoxAfter>(box)[priority];
  const Ulid after = mark;
  std::size_t skipped = 0;
  store::Cursor cursor(batch(), TableId::kDelivery);
  const store::Key from = store::delivery_key(id, priority, after);
  for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
    store::DeliveryKeyParts parts;
    if (!store::parse_delivery_key(cursor.key(), parts)) break;
    if (!(parts.mailbox == id) || parts.priority != priority) break;
    if (parts.message == after) continue;
    if (state.rescan && find_claim(client, parts.message, box)) {
      // Claimed rows lie behind the mark as well: without it they would be pushed twice.
      mark = parts.message;
      continue;
    }
    if (is_gated(client, parts)) break;  // newer rows of this priority wait as well
    if (!budget.left()) {
      state.stopped = state.left = true;
      return;
    }
    store::DeliveryRow row;
    if (!cursor.row(row)) continue;  // damaged: counted, confined, found by fsck
    if (lapsed.any() && lapsed.has(LapsedLanes::hash_of(id.bits(), row.fixed.lane))) {
      state.skipped = true;
      if (++skipped >= kSkippedMax) return;
      continue;
    }
    if (!push_row(box, client, parts, row)) {  // the window is full
      state.stopped = true;
      return;
    }
    budget.spend(row.fixed.bytes);
    mark = parts.message;
  }
}

bool Broker::push_row(MailboxRef box, ClientRef client, const store::DeliveryKeyParts& key,
                      const store::DeliveryRow& row) {
  auto& clients = tables_.clients;
  const std::uint32_t held = clients.get<kClientClaimCount>(client);
  if (held > 0 &&
      (held >= limits_.claim_rows_max ||
       clients.get<kClientClaimBytes>(client) + row.fixed.bytes > limits_.claim_bytes_max)) {
    return false;
  }
  if (tables_.claims.full()) {
    tables_.starved.push_back(box);  // step() comes back to it when a claim is free
    return false;
  }
  store::MessageRow message;
  if (!batch().get(TableId::kMessage, store::ulid_key(key.message).bytes(), message)) {
    env_.log->error("message_unreadable", {{"message", view(ulid_text(key.message))}});
    return true;
  }
  if (const std::string_view why = refusal_of(message, row.fixed.recipient_member_no);
      !why.empty()) {
    tables_.refused.push_back({box, key.priority, key.message, why});
    return true;
  }
  const LaneKey lane_key{client.bits(), box.bits(), row.fixed.lane};
  const auto known = tables_.lane_of.find(lane_key);
  LaneRef lane = known == tables_.lane_of.end() ? LaneRef{} : known->second;
  if (!lane) {
    lane = tables_.lanes.insert();
    CHECK(lane);  // each lane has a claim, and there are as many rows for claims
    tables_.lanes.get<kLaneClient>(lane) = client;
    tables_.lanes.get<kLaneMailbox>(lane) = box;
    tables_.lanes.get<kLaneHash>(lane) = row.fixed.lane;
    tables_.lanes.get<kLaneDeadline>(lane) = env_.mono_ms + limits_.claim_lease_ms;
    claim_check_ms_ = std::min(claim_check_ms_, env_.mono_ms + limits_.claim_lease_ms);
    tables_.lane_of[lane_key] = lane;
  }
  const ClaimRef claim = tables_.claims.insert();
  CHECK(claim);
  tables_.claims.get<kClaimMessage>(claim) = key.message;
  tables_.claims.get<kClaimMailbox>(claim) = box;
  tables_.claims.get<kClaimLane>(claim) = lane;
  tables_.claims.get<kClaimBytes>(claim) = row.fixed.bytes;
  tables_.claims.get<kClaimPriority>(claim) = key.priority;
  tables_.claims.get<kClaimPushed>(claim) = env_.wall_ms;
  tables_.claims.get<kClaimClientId>(claim) =
      hash64(as_bytes(message.text[store::kMessageClientId]));
  ClaimList& list = clients.get<kClientClaims>(client);
  tables_.claims.get<kClaimLinks>(claim) = {list.last, {}};
  if (list.last) {
    tables_.claims.get<kClaimLinks>(list.last).next = claim;
  } else {
    list.first = claim;
  }
  list.last = claim;
  clients.get<kClientClaimCount>(client) += 1;
  clients.get<kClientClaimBytes>(client) += row.fixed.bytes;
  tables_.lanes.get<kLaneClaims>(lane) += 1;
  tables_.mailboxes.get<kBoxClaimed>(box) += 1;
  tables_.mailboxes.get<kBoxClaimer>(box) = client;

  TextBuf text(scratch(), message.text[store::kMessageCiphertext].size() + 1024);
  write_push_for(key.message, message, text);
  send_text(client, text);
  metrics_.add(Metric::kBrokerPushes);
  return true;
}

// Idle takes everything, working and dnd only `now`; what was queued before the last reattach is
// delivered at any status, so that a lane never skips its earlier rows.
bool Broker::is_gated(ClientRef client, const store::DeliveryKeyParts& key) const {
  if (key.priority == static_cast<std::uint8_t>(wire::Priority::kNow)) return false;
  const PresenceStatus& status = tables_.presences.get<kPresStatus>(presence_of(client));
  if (status.effective(env_.mono_ms) == store::PeerStatus::kIdle) return false;
  return key.message > status.open_until;
}

std::string_view Broker::refusal_of(const store::MessageRow& message, std::uint32_t recipient_no) {
  const MemberMirror* sender = member(message.fixed.sender_member_no);
  if (sender == nullptr || sender->revoked) return "sender_revoked";
  const std::string_view target = message.text[store::kMessageTarget];
  const bool multicast =
      target.starts_with('*') || target.starts_with('@') || target.starts_with('#');
  const PublicKey* session =
      message.fixed.sender_is_session != 0 ? &message.fixed.sender_key : nullptr;
  if (may_reach(recipient_no, sender->key, session, multicast ? kCapBroadcast : kCapDm)) return {};
  metrics_.add(Metric::kBrokerDroppedByGrant);
  return "blocked";
}

// Rows that the walk found undeliverable; they end outside it, because it holds a cursor.
void Broker::end_refused_rows() {
  for (const RefusedRow& refused : tables_.refused) {
    if (!tables_.mailboxes.alive(refused.box)) continue;
    end_row(refused.box, refused.priority, refused.message,
            {store::ReceiptState::kExpired, refused.reason});
    mark_dirty(refused.box);  // it may be empty now
  }
  tables_.refused.clear();
}

// Once an hour: the front of each queue is its oldest row. A bounded share of it ends at a time;
// the rest follows in the next iteration.
void Broker::expire_old_mail() {
  if (env_.mono_ms < mail_check_ms_) return;
  constexpr std::uint64_t kHourMs = 3'600'000;
  constexpr std::uint64_t kSoonMs = 1;
  constexpr std::size_t kAtOnce = 1024;
  mail_check_ms_ = env_.mono_ms + kHourMs;
  const std::uint64_t age = std::uint64_t{limits_.undelivered_days_max} * 24 * kHourMs;
  if (env_.wall_ms < age) return;
  const std::uint64_t oldest = env_.wall_ms - age;
  tables_.mailboxes.each([&](MailboxRef box) {
    const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
    store::Cursor cursor(batch(), TableId::kDelivery);
    for (std::uint8_t priority = 0; priority < wire::kPriorities; ++priority) {
      const store::Key from = store::delivery_prefix(id, priority);
      for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
        store::DeliveryKeyParts parts;
        if (!store::parse_delivery_key(cursor.key(), parts) || !(parts.mailbox == id) ||
            parts.priority != priority || parts.message.time_ms() >= oldest) {
          break;
        }
        if (tables_.refused.size() >= kAtOnce) {
          mail_check_ms_ = env_.mono_ms + kSoonMs;
          return;
        }
        tables_.refused.push_back({box, priority, parts.message, "undelivered_7_days"});
      }
    }
  });
  for (const RefusedRow& old : tables_.refused) drop_claim(old.box, old.message);
  end_refused_rows();
}

void Broker::write_push_for(const Ulid& id, const store::MessageRow& row, TextBuf& out) {
  const UlidText id_text = ulid_text(id);
  const crypto::HexText64 sender = crypto::hex_text(row.fixed.sender_key);
  wire::Push push;
  push.message_id = view(id_text);
  push.mesh_id = mesh(row.fixed.mesh_no)->id;
  push.sender_pubkey = crypto::view(sender);
  if (const MemberMirror* owner = member(row.fixed.sender_member_no); owner != nullptr) {
    push.sender_member = owner->key;
    push.sender_member_id = owner->id;
    push.sender_name = owner->name;
  }
  push.target = row.text[store::kMessageTarget];
  push.priority = static_cast<wire::Priority>(row.fixed.priority);
  push.nonce = row.text[store::kMessageNonce];
  push.ciphertext = row.text[store::kMessageCiphertext];
  push.created_ms = row.fixed.created_ms;
  push.client_message_id = row.text[store::kMessageClientId];
  push.fingerprint = row.fixed.fingerprint;
  push.has_fingerprint = row.fixed.has_fingerprint != 0;
  push.reply_to = row.text[store::kMessageReplyTo];
  TopicFacts topic;
  if (push.target.starts_with('#') && find_topic(row.fixed.mesh_no, push.target.substr(1), topic)) {
    push.topic = topic.row.text[store::kTopicNameText];
    store::TopicPostRow post;
    if (batch().get(TableId::kTopicPost, store::topic_post_key(topic.no, id).bytes(), post)) {
      push.body_version = post.fixed.body_version;
    }
  }
  store::AttestationRow attestation;
  if (row.fixed.sender_is_session != 0 &&
      batch().get(TableId::kAttestation,
                  store::u32_bytes_key(row.fixed.mesh_no, row.fixed.sender_key).bytes(),
                  attestation)) {
    push.sender_attestation = attestation.text[store::kAttestationJson];
  }
  wire::write_push(push, out);
}

}  // namespace cm::broker
