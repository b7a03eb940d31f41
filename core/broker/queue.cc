// queue.cc — from a delivery row to an acknowledged one: claim, push, lease, ack, release.
// Holds:  a mailbox is claimed by one connection at a time, and each priority from its front, so
//         the lanes in it keep their order. Only the recipient's client_ack ends a row. The rows
//         of one lane on one connection share one lease, renewed by each ack in that lane.
// Limits: claim_rows_max rows or claim_bytes_max bytes unacked on a connection, always one row.
// Source: design/delivery.md, "Queue: claim, lease, ack".
// Not:    acceptance (accept.cc); whether a socket is writable: the window bounds what it holds.
#include <algorithm>

#include "core/broker/broker.h"
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
  const PresenceRef presence = tables_.clients.get<kClientPresence>(client);
  if (!presence) return;
  const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
  if (key.kind != MailboxKind::kSession) return;
  store::BindingRow binding;
  if (batch().get(TableId::kBinding, store::u32_bytes_key(key.mesh_no, key.key).bytes(), binding)) {
    mark({MailboxKind::kSession, binding.fixed.session_no});
  }
}

// The connection that holds claims keeps the mailbox; else the best class, newest hello first.
// One whose lease ran out gets nothing until it acks something.
ClientRef Broker::choose_claimer(MailboxRef box) {
  const ClientRef holder = tables_.mailboxes.get<kBoxClaimer>(box);
  if (tables_.mailboxes.get<kBoxClaimed>(box) > 0) {
    CHECK(tables_.clients.alive(holder));
    return tables_.clients.get<kClientLapsed>(holder) != 0 ? ClientRef{} : holder;
  }
  MemberMirror* owner = member(tables_.mailboxes.get<kBoxMemberNo>(box));
  if (owner == nullptr || owner->revoked) return {};
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  ClientRef best;
  for (const ClientRef client : owner->clients) {
    if (tables_.clients.get<kClientLapsed>(client) != 0) continue;
    if (id.kind == MailboxKind::kSession) {
      const PresenceRef presence = tables_.clients.get<kClientPresence>(client);
      const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
      store::BindingRow binding;
      if (key.kind != MailboxKind::kSession ||
          !batch().get(TableId::kBinding, store::u32_bytes_key(key.mesh_no, key.key).bytes(),
                       binding) ||
          binding.fixed.session_no != id.no) {
        continue;
      }
    }
    if (!best) {
      best = client;
      continue;
    }
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
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  const bool rescan = tables_.mailboxes.get<kBoxRescan>(box) != 0;
  if (rescan) tables_.mailboxes.get<kBoxAfter>(box) = {};
  store::Cursor cursor(batch(), TableId::kDelivery);
  for (std::uint8_t priority = 0; priority < wire::kPriorities; ++priority) {
    Ulid after = tables_.mailboxes.get<kBoxAfter>(box)[priority];
    const store::Key from = store::delivery_key(id, priority, after);
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      store::DeliveryKeyParts parts;
      if (!store::parse_delivery_key(cursor.key(), parts)) break;
      if (!(parts.mailbox == id) || parts.priority != priority) break;
      if (parts.message == after) continue;
      if (rescan && find_claim(client, parts.message)) {
        // Claimed rows lie behind the mark as well: without it they would be pushed twice.
        tables_.mailboxes.get<kBoxAfter>(box)[priority] = parts.message;
        continue;
      }
      if (!budget.left()) return false;
      store::DeliveryRow row;
      if (!cursor.row(row)) continue;  // damaged: counted, confined, found by fsck
      if (!push_row(box, client, parts, row)) return true;  // the window is full
      budget.spend(row.fixed.bytes);
      tables_.mailboxes.get<kBoxAfter>(box)[priority] = parts.message;
    }
  }
  tables_.mailboxes.get<kBoxRescan>(box) = 0;
  return true;
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
  wire::write_push(push, out);
}

ClaimRef Broker::find_claim(ClientRef client, const Ulid& message) const {
  // Acks come in push order: the first claim is nearly always the one.
  ClaimRef claim = tables_.clients.get<kClientClaims>(client).first;
  while (claim && !(tables_.claims.get<kClaimMessage>(claim) == message)) {
    claim = tables_.claims.get<kClaimLinks>(claim).next;
  }
  return claim;
}

ClaimRef Broker::find_claim_by_client_id(ClientRef client, std::string_view id, bool& ambiguous) {
  ClaimRef found;
  ambiguous = false;
  for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
       claim = tables_.claims.get<kClaimLinks>(claim).next) {
    store::MessageRow row;
    const store::Key key = store::ulid_key(tables_.claims.get<kClaimMessage>(claim));
    if (!batch().get(TableId::kMessage, key.bytes(), row)) continue;
    if (row.text[store::kMessageClientId] != id) continue;
    ambiguous = ambiguous || static_cast<bool>(found);
    found = claim;
  }
  return found;
}

void Broker::handle_client_ack(ClientRef client, const wire::ClientFrame& frame) {
  wire::ClientAck ack;
  if (Status parsed = wire::parse_client_ack(frame, ack); !parsed) {
    send_error(client, "malformed", parsed.error().detail, frame.request_id);
    return;
  }
  if (auto& lapsed = tables_.clients.get<kClientLapsed>(client); lapsed != 0) {
    lapsed = 0;
    mark_mailboxes_of(client);  // also when the ack names no row: nothing else would push again
  }
  ClaimRef claim;
  if (!ack.broker_message_id.empty()) {
    const auto message = ulid_parse(ack.broker_message_id);
    if (!message) return;  // an id of another broker or of a system push: nothing of ours
    claim = find_claim(client, *message);
    if (!claim) {
      acknowledge_late(client, *message);
      return;
    }
  } else {
    bool ambiguous = false;
    claim = find_claim_by_client_id(client, ack.client_message_id, ambiguous);
    if (ambiguous || !claim) return;  // names no row, or not exactly one
  }
  const MailboxRef box = tables_.claims.get<kClaimMailbox>(claim);
  const LaneRef lane = tables_.claims.get<kClaimLane>(claim);
  const bool ended = end_delivery(box, tables_.claims.get<kClaimPriority>(claim),
                                  tables_.claims.get<kClaimMessage>(claim));
  if (!ended && !batch().failed()) {
    env_.log->error("delivery_row_unreadable", {{"message", ack.broker_message_id}});
  }
  tables_.lanes.get<kLaneDeadline>(lane) = env_.mono_ms + limits_.claim_lease_ms;
  unlink_claim(client, claim);
  mark_mailboxes_of(client);
}

// The lease had run out, or the push went over an earlier connection. The row still ends here:
// the recipient has it.
void Broker::acknowledge_late(ClientRef client, const Ulid& message) {
  store::MessageRow row;
  if (!batch().get(TableId::kMessage, store::ulid_key(message).bytes(), row)) return;
  const auto priority = static_cast<std::uint8_t>(row.fixed.priority);
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const PresenceKey& key =
      tables_.presences.get<kPresKey>(tables_.clients.get<kClientPresence>(client));
  MailboxId id{MailboxKind::kMember, member_no};
  if (key.kind == MailboxKind::kSession) {
    store::BindingRow binding;
    const store::Key bound = store::u32_bytes_key(key.mesh_no, key.key);
    if (batch().get(TableId::kBinding, bound.bytes(), binding) &&
        batch().get_raw(TableId::kDelivery,
                        store::delivery_key({MailboxKind::kSession, binding.fixed.session_no},
                                            priority, message)
                            .bytes())) {
      id = {MailboxKind::kSession, binding.fixed.session_no};
    }
  }
  const auto found = tables_.mailbox_of.find(id.bits());
  if (found == tables_.mailbox_of.end()) return;
  const MailboxRef box = found->second;
  // Another connection of the member may hold it by now: its claim goes with the row.
  const ClientRef holder = tables_.mailboxes.get<kBoxClaimer>(box);
  if (tables_.mailboxes.get<kBoxClaimed>(box) > 0) {
    // Of this mailbox only: the holder may have the same message claimed for its session.
    const ClaimRef claim = find_claim(holder, message);
    if (claim && tables_.claims.get<kClaimMailbox>(claim) == box) unlink_claim(holder, claim);
  }
  end_delivery(box, priority, message);
  mark_dirty(box);
}

bool Broker::end_delivery(MailboxRef box, std::uint8_t priority, const Ulid& message) {
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  const store::Key key = store::delivery_key(id, priority, message);
  store::DeliveryRow row;
  if (!batch().get(TableId::kDelivery, key.bytes(), row)) return false;
  store::ReceiptRow receipt;
  receipt.fixed.state = store::ReceiptState::kDelivered;
  receipt.fixed.recipient_member_no = row.fixed.recipient_member_no;
  receipt.fixed.stored_ms = row.fixed.stored_ms;
  receipt.fixed.ended_ms = env_.wall_ms;
  batch().put(TableId::kReceipt, store::receipt_key(message, id).bytes(), receipt);
  batch().erase(TableId::kDelivery, key.bytes());
  CHECK(tables_.mailboxes.get<kBoxRows>(box) > 0 &&
        tables_.mailboxes.get<kBoxBytes>(box) >= row.fixed.bytes && queued_rows_ > 0);
  tables_.mailboxes.get<kBoxRows>(box) -= 1;
  tables_.mailboxes.get<kBoxBytes>(box) -= row.fixed.bytes;
  --queued_rows_;
  metrics_.add(Metric::kBrokerAcks);
  return true;
}

// Takes the claim out of its connection, lane and mailbox; the row itself is not touched.
void Broker::unlink_claim(ClientRef client, ClaimRef claim) {
  const ClaimLinks links = tables_.claims.get<kClaimLinks>(claim);
  ClaimList& list = tables_.clients.get<kClientClaims>(client);
  if (links.previous) {
    tables_.claims.get<kClaimLinks>(links.previous).next = links.next;
  } else {
    CHECK(list.first == claim);
    list.first = links.next;
  }
  if (links.next) {
    tables_.claims.get<kClaimLinks>(links.next).previous = links.previous;
  } else {
    CHECK(list.last == claim);
    list.last = links.previous;
  }
  const MailboxRef box = tables_.claims.get<kClaimMailbox>(claim);
  const LaneRef lane = tables_.claims.get<kClaimLane>(claim);
  tables_.clients.get<kClientClaimCount>(client) -= 1;
  tables_.clients.get<kClientClaimBytes>(client) -= tables_.claims.get<kClaimBytes>(claim);
  tables_.mailboxes.get<kBoxClaimed>(box) -= 1;
  if (tables_.mailboxes.get<kBoxClaimed>(box) == 0) tables_.mailboxes.get<kBoxClaimer>(box) = {};
  auto& in_lane = tables_.lanes.get<kLaneClaims>(lane);
  if (--in_lane == 0) {
    tables_.lane_of.erase({client.bits(), box.bits(), tables_.lanes.get<kLaneHash>(lane)});
    tables_.lanes.erase(lane);
  }
  tables_.claims.erase(claim);
}

void Broker::release_claims_of(ClientRef client) {
  for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
       claim = tables_.clients.get<kClientClaims>(client).first) {
    const MailboxRef box = tables_.claims.get<kClaimMailbox>(claim);
    unlink_claim(client, claim);
    tables_.mailboxes.get<kBoxRescan>(box) = 1;
    mark_dirty(box);
    metrics_.add(Metric::kBrokerRedeliveries);
  }
}

// Releases lanes whose lease ran out; their rows are pushed again in order, elsewhere first.
void Broker::expire_claims() {
  if (env_.mono_ms < claim_check_ms_) return;
  claim_check_ms_ = UINT64_MAX;
  tables_.lanes.each([&](LaneRef lane) {
    const std::uint64_t deadline = tables_.lanes.get<kLaneDeadline>(lane);
    if (deadline > env_.mono_ms) {
      claim_check_ms_ = std::min(claim_check_ms_, deadline);
      return;
    }
    const ClientRef client = tables_.lanes.get<kLaneClient>(lane);
    const MailboxRef box = tables_.lanes.get<kLaneMailbox>(lane);
    tables_.clients.get<kClientLapsed>(client) = 1;
    for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;) {
      const ClaimRef next = tables_.claims.get<kClaimLinks>(claim).next;
      if (tables_.claims.get<kClaimLane>(claim) == lane) {
        unlink_claim(client, claim);
        metrics_.add(Metric::kBrokerRedeliveries);
      }
      claim = next;
    }
    tables_.mailboxes.get<kBoxRescan>(box) = 1;
    mark_dirty(box);
    mark_mailboxes_of(client);  // the others it served are another connection's now
    env_.log->warn("claim_lease_expired", {{"mailbox", tables_.mailboxes.get<kBoxId>(box).no}});
  });
}

}  // namespace cm::broker
