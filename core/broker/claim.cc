// claim.cc — from a pushed row to an acknowledged one: acks, leases, release.
// Holds:  only the recipient's client_ack marks a row delivered. The rows of one lane on one
//         connection share one lease, renewed by each ack in that lane; what is released is pushed
//         again in order.
// Source: docs/PROTOCOL.md §5.2; design/delivery.md, "Queue: claim, lease, ack".
// Not:    pushing (queue.cc), acceptance (accept.cc), what senders see of it (receipts.cc).
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"

namespace cm::broker {

using store::TableId;

ClaimRef Broker::find_claim(ClientRef client, const Ulid& message, MailboxRef box) const {
  // Acks come in push order: the first claim is nearly always the one. A connection may hold one
  // message for its member and for its session.
  const auto is_it = [&](ClaimRef claim) {
    return tables_.claims.get<kClaimMessage>(claim) == message &&
           (!box || tables_.claims.get<kClaimMailbox>(claim) == box);
  };
  ClaimRef claim = tables_.clients.get<kClientClaims>(client).first;
  while (claim && !is_it(claim)) claim = tables_.claims.get<kClaimLinks>(claim).next;
  return claim;
}

ClaimRef Broker::find_claim_by_client_id(ClientRef client, std::string_view id, bool& ambiguous) {
  ClaimRef found;
  ambiguous = false;
  const std::uint64_t hash = hash64(as_bytes(id));
  for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
       claim = tables_.claims.get<kClaimLinks>(claim).next) {
    if (tables_.claims.get<kClaimClientId>(claim) != hash) continue;
    store::MessageRow row;
    const store::Key key = store::ulid_key(tables_.claims.get<kClaimMessage>(claim));
    if (!batch().get(TableId::kMessage, key.bytes(), row)) continue;
    if (row.text[store::kMessageClientId] != id) continue;
    ambiguous = ambiguous || static_cast<bool>(found);
    found = claim;
  }
  return found;
}

void Broker::handle_client_ack(ClientRef client, const Frame& frame) {
  wire::ClientAck ack;
  if (Status parsed = wire::parse_client_ack(frame, ack); !parsed) {
    send_error(client, "malformed", parsed.error().detail, frame.request_id);
    return;
  }
  if (auto& lapsed = tables_.clients.get<kClientLapsed>(client); lapsed.any()) {
    lapsed.clear();
    mark_mailboxes_of(client);  // also when the ack names no row: nothing else would push again
  }
  ClaimRef claim;
  if (!ack.broker_message_id.empty()) {
    const auto message = ulid_parse(ack.broker_message_id);
    if (!message) return;  // an id of another broker or of a system push: nothing of ours
    claim = find_claim(client, *message);
    if (!claim) {
      acknowledge_late(client, *message, ack);
      return;
    }
  } else {
    bool ambiguous = false;
    claim = find_claim_by_client_id(client, ack.client_message_id, ambiguous);
    if (ambiguous || !claim) return;  // names no row, or not exactly one
  }
  const MailboxRef box = tables_.claims.get<kClaimMailbox>(claim);
  const LaneRef lane = tables_.claims.get<kClaimLane>(claim);
  RowEnd end = delivered_by(client, ack);
  end.claimed_ms = tables_.claims.get<kClaimPushed>(claim);
  const bool ended = end_delivery(box, tables_.claims.get<kClaimPriority>(claim),
                                  tables_.claims.get<kClaimMessage>(claim), end);
  if (!ended && !batch().failed()) {
    env_.log->error("delivery_row_unreadable", {{"message", ack.broker_message_id}});
  }
  tables_.lanes.get<kLaneDeadline>(lane) = env_.mono_ms + limits_.claim_lease_ms;
  unlink_claim(client, claim);
  mark_mailboxes_of(client);
}

// The lease had run out, or the push went over an earlier connection. The row still ends here:
// the recipient has it.
void Broker::acknowledge_late(ClientRef client, const Ulid& message, const wire::ClientAck& ack) {
  store::MessageRow row;
  if (!batch().get(TableId::kMessage, store::ulid_key(message).bytes(), row)) return;
  const auto priority = static_cast<std::uint8_t>(row.fixed.priority);
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  MailboxId id{MailboxKind::kMember, member_no};
  const MailboxId own{MailboxKind::kSession, tables_.clients.get<kClientSessionNo>(client)};
  if (own.no != 0 &&
      batch().get_raw(TableId::kDelivery, store::delivery_key(own, priority, message).bytes())) {
    id = own;
  }
  const auto found = tables_.mailbox_of.find(id.bits());
  if (found == tables_.mailbox_of.end()) return;
  const MailboxRef box = found->second;
  drop_claim(box, message);
  end_delivery(box, priority, message, delivered_by(client, ack));
  mark_dirty(box);
}

// What the recipient tells of it. Of what a hidden one took, nothing is kept to be told later.
RowEnd Broker::delivered_by(ClientRef client, const wire::ClientAck& ack) const {
  RowEnd end;
  if (ack.has_receipt) end.level = static_cast<store::ReportLevel>(ack.receipt.level);
  if (tables_.presences.get<kPresStatus>(presence_of(client)).hidden != 0) {
    end.level = store::ReportLevel::kStored;
  }
  if (!ack.has_receipt || !ack.receipt.is_signed || end.level == store::ReportLevel::kStored) {
    return end;
  }
  end.signed_ms = ack.receipt.at_ms;
  end.signature = as_text(ack.receipt.signature);
  return end;
}

// The row is about to end: whoever holds it holds it no more.
void Broker::drop_claim(MailboxRef box, const Ulid& message) {
  if (tables_.mailboxes.get<kBoxClaimed>(box) == 0) return;
  const ClientRef holder = tables_.mailboxes.get<kBoxClaimer>(box);
  if (const ClaimRef claim = find_claim(holder, message, box)) unlink_claim(holder, claim);
}

// The peer closed because a frame was too large for it: the largest one that it did not
// acknowledge. The second time the row ends, so that it does not stop all mail behind it.
void Broker::note_too_large(ClientRef client) {
  constexpr std::size_t kNotedMax = 1024;
  ClaimRef largest;
  for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
       claim = tables_.claims.get<kClaimLinks>(claim).next) {
    if (!largest ||
        tables_.claims.get<kClaimBytes>(claim) > tables_.claims.get<kClaimBytes>(largest)) {
      largest = claim;
    }
  }
  if (!largest) return;
  const MailboxRef box = tables_.claims.get<kClaimMailbox>(largest);
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  const Ulid message = tables_.claims.get<kClaimMessage>(largest);
  auto& noted = tables_.too_large;
  const auto known = std::find_if(noted.begin(), noted.end(), [&](const TooLarge& row) {
    return row.box == id && row.message == message;
  });
  if (known == noted.end()) {
    if (noted.size() >= kNotedMax) noted.erase(noted.begin());
    noted.push_back({id, message});
    return;
  }
  noted.erase(known);
  const std::uint8_t priority = tables_.claims.get<kClaimPriority>(largest);
  drop_claim(box, message);
  end_row(box, priority, message, {store::ReceiptState::kExpired, "too_large"});
  mark_dirty(box);
}

bool Broker::end_delivery(MailboxRef box, std::uint8_t priority, const Ulid& message,
                          const RowEnd& end) {
  if (!end_row(box, priority, message, end)) return false;
  metrics_.add(Metric::kBrokerAcks);
  if (!end.signature.empty()) metrics_.add(Metric::kBrokerReceiptsSigned);
  return true;
}

// A delivery row becomes a receipt; the counts of its mailbox and its sender follow.
bool Broker::end_row(MailboxRef box, std::uint8_t priority, const Ulid& message,
                     const RowEnd& end) {
  const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
  const store::Key key = store::delivery_key(id, priority, message);
  store::DeliveryRow row;
  if (!batch().get(TableId::kDelivery, key.bytes(), row)) return false;
  store::ReceiptRow receipt;
  receipt.fixed.state = end.state;
  receipt.fixed.level = end.level;
  receipt.fixed.recipient_member_no = row.fixed.recipient_member_no;
  receipt.fixed.stored_ms = row.fixed.stored_ms;
  receipt.fixed.ended_ms = env_.wall_ms;
  receipt.fixed.claimed_ms = end.claimed_ms;
  receipt.fixed.signed_ms = end.signed_ms;
  receipt.text[store::kReceiptReason] = end.reason;
  receipt.text[store::kReceiptSignature] = end.signature;
  batch().put(TableId::kReceipt, store::receipt_key(message, id).bytes(), receipt);
  batch().erase(TableId::kDelivery, key.bytes());
  CHECK(tables_.mailboxes.get<kBoxRows>(box) > 0 &&
        tables_.mailboxes.get<kBoxBytes>(box) >= row.fixed.bytes && queued_rows_ > 0);
  tables_.mailboxes.get<kBoxRows>(box) -= 1;
  tables_.mailboxes.get<kBoxBytes>(box) -= row.fixed.bytes;
  tables_.budget.ended(row.fixed.sender_member_no, id.bits(), row.fixed.bytes);
  --queued_rows_;
  if (end.state == store::ReceiptState::kExpired) metrics_.add(Metric::kBrokerExpired);
  note_receipt(row.fixed.sender_member_no, message, id);
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
    tables_.clients.get<kClientLapsed>(client).add(LapsedLanes::hash_of(
        tables_.mailboxes.get<kBoxId>(box).bits(), tables_.lanes.get<kLaneHash>(lane)));
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
