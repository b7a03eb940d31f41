// watch.cc — reading states before events.
#include "tests/sim/watch.h"

#include "core/crypto/encoding.h"

#include "tests/sim/relay.h"

namespace cm::sim {
namespace {

using store::TableId;

std::string key_text(const Ulid& id) { return std::string(as_text(id.bytes)); }

LinkStateCell cell_of(daemon::LinkState state) noexcept {
  return static_cast<LinkStateCell>(static_cast<std::uint8_t>(state));
}

}  // namespace

// --- a daemon ---

void DaemonWatch::link_input(const daemon::Daemon& core, const LinkInput& input) {
  const auto& links = core.tables().links;
  if (!links.alive(input.link)) return;
  const LinkStateCell state = cell_of(links.get<daemon::kLinkState>(input.link));
  const Item& item = input.item;
  const auto hit = [&](LinkEventCell event) { cells_.hit(state, event); };
  switch (item.kind) {
    case ItemKind::kUp: return hit(LinkEventCell::kUp);
    case ItemKind::kDown:
    case ItemKind::kGaveUp:
      return hit(item.code == 4003 || item.code == 4004 ? LinkEventCell::kReplaced
                                                        : LinkEventCell::kDown);
    case ItemKind::kBlocked: return hit(LinkEventCell::kBlocked);
    case ItemKind::kWritable: return hit(LinkEventCell::kWritable);
    case ItemKind::kBytes: return;
    case ItemKind::kText: break;
  }
  if (is_type(item.text, "hello_ack")) hit(LinkEventCell::kHelloAck);
  if (is_type(item.text, "error")) hit(LinkEventCell::kError);
  if (is_type(item.text, "push")) hit(LinkEventCell::kPush);
  if (is_type(item.text, "peers_list")) hit(LinkEventCell::kPeersList);
  if (is_type(item.text, "feature_negotiation_response")) hit(LinkEventCell::kFeatures);
  if (is_type(item.text, "ack")) hit(LinkEventCell::kAck);
}

void DaemonWatch::before_step(const daemon::Daemon& core) {
  links_.clear();
  const auto& links = core.tables().links;
  links.each([&](daemon::LinkRef link) {
    links_[link.bits()] = cell_of(links.get<daemon::kLinkState>(link));
  });
}

void DaemonWatch::after_step(const std::vector<daemon::Effect>& effects) {
  for (const daemon::Effect& effect : effects) {
    const auto link = links_.find(effect.link.bits());
    if (link == links_.end()) continue;
    if (effect.kind == daemon::EffectKind::kLinkOpen) {
      cells_.hit(link->second, LinkEventCell::kReopen);
    }
    if (effect.kind == daemon::EffectKind::kLinkClose && effect.text == "hello timeout") {
      cells_.hit(link->second, LinkEventCell::kHelloTimeout);
    }
  }
}

void DaemonWatch::before_abandon(const daemon::Daemon& core) {
  const auto& links = core.tables().links;
  links.each([&](daemon::LinkRef link) {
    cells_.hit(cell_of(links.get<daemon::kLinkState>(link)), LinkEventCell::kAbandon);
  });
}

// --- the broker ---

// It has a row for each recipient, in states of their own: no one cell.
bool BrokerWatch::is_multicast(store::Batch& batch, const Ulid& message) {
  store::MessageRow row;
  return batch.get(TableId::kMessage, store::ulid_key(message).bytes(), row) &&
         !crypto::public_key_parse(row.text[store::kMessageTarget]);
}

DeliveryState BrokerWatch::state_of(store::ReceiptState state) noexcept {
  return state == store::ReceiptState::kDelivered ? DeliveryState::kDelivered
                                                  : DeliveryState::kExpired;
}

bool BrokerWatch::is_claimed(const broker::Broker& core, const Ulid& message) const {
  bool claimed = false;
  const auto& claims = core.tables().claims;
  claims.each([&](broker::ClaimRef claim) {
    claimed = claimed || claims.get<broker::kClaimMessage>(claim) == message;
  });
  return claimed;
}

BrokerWatch::Row BrokerWatch::row_of(const broker::Broker& core, store::Batch& batch,
                                     const Ulid& message) {
  store::MessageRow row;
  if (!batch.get(TableId::kMessage, store::ulid_key(message).bytes(), row)) return {};
  const auto key = crypto::public_key_parse(row.text[store::kMessageTarget]);
  if (!key) return {};
  const store::Key at = store::u32_bytes_key(row.fixed.mesh_no, *key);
  store::MailboxId box{store::MailboxKind::kMember, 0};
  store::BindingRow session;
  if (const auto no = batch.get_number(TableId::kMemberKey, at.bytes())) {
    box.no = *no;
  } else if (batch.get(TableId::kBinding, at.bytes(), session)) {
    box = {store::MailboxKind::kSession, session.fixed.session_no};
  } else {
    return {};
  }
  store::ReceiptRow receipt;
  if (batch.get(TableId::kReceipt, store::receipt_key(message, box).bytes(), receipt)) {
    return {state_of(receipt.fixed.state), box};
  }
  return {is_claimed(core, message) ? DeliveryState::kClaimed : DeliveryState::kQueued, box};
}

void BrokerWatch::conn_input(const broker::Broker& core, store::Batch& batch,
                             const ConnInput& input) {
  const auto& tables = core.tables();
  if (input.conn.slot >= tables.client_of_slot.size()) return;
  const broker::ClientRef client = tables.client_of_slot[input.conn.slot];
  if (!tables.clients.alive(client) ||
      !(tables.clients.get<broker::kClientConn>(client) == input.conn)) {
    return;
  }
  const std::uint32_t member_no = tables.clients.get<broker::kClientMemberNo>(client);
  if (input.item.kind == ItemKind::kDown) {
    for (broker::ClaimRef claim = tables.clients.get<broker::kClientClaims>(client).first; claim;
         claim = tables.claims.get<broker::kClaimLinks>(claim).next) {
      cells_.hit(DeliveryState::kClaimed, DeliveryEvent::kClosed);
    }
    const std::uint32_t session_no = tables.clients.get<broker::kClientSessionNo>(client);
    const store::MailboxId box = session_no != 0
                                     ? store::MailboxId{store::MailboxKind::kSession, session_no}
                                     : store::MailboxId{store::MailboxKind::kMember, member_no};
    const auto found = tables.mailbox_of.find(box.bits());
    if (member_no != 0 && found != tables.mailbox_of.end() &&
        tables.mailboxes.get<broker::kBoxRows>(found->second) >
            tables.mailboxes.get<broker::kBoxClaimed>(found->second)) {
      cells_.hit(DeliveryState::kQueued, DeliveryEvent::kClosed);
    }
    return;
  }
  if (input.item.kind != ItemKind::kText || member_no == 0) return;
  const std::string& text = input.item.text;
  if (is_type(text, "client_ack")) {
    const auto message = ulid_parse(member_of_frame(text, "brokerMessageId"));
    if (message && is_multicast(batch, *message)) return;
    const Row row = message ? row_of(core, batch, *message) : Row{};
    const std::uint32_t no = row.box.kind == store::MailboxKind::kMember
                                 ? member_no
                                 : tables.clients.get<broker::kClientSessionNo>(client);
    const bool own = row.state != DeliveryState::kNone && row.box.no == no;
    return cells_.hit(row.state, own ? DeliveryEvent::kAck : DeliveryEvent::kWrongAck);
  }
  if (!is_type(text, "send")) return;
  const std::string_view id = member_of_frame(text, "client_message_id");
  store::DedupeRow known;
  const store::Key key = store::u32_bytes_key(member_no, as_bytes(id));
  if (!batch.get(TableId::kDedupe, key.bytes(), known)) {
    return cells_.hit(DeliveryState::kNone, DeliveryEvent::kSend);
  }
  if (is_multicast(batch, known.fixed.message)) return;
  cells_.hit(row_of(core, batch, known.fixed.message).state, DeliveryEvent::kSendAgain);
}

void BrokerWatch::each_row(store::Batch& batch, DeliveryEvent event) {
  store::Cursor queued(batch, TableId::kDelivery);
  if (queued.seek({})) cells_.hit(DeliveryState::kQueued, event);
  store::Cursor receipts(batch, TableId::kReceipt);
  for (bool more = receipts.seek({}); more; more = receipts.next()) {
    store::ReceiptRow row;
    if (receipts.row(row)) cells_.hit(state_of(row.fixed.state), event);
  }
}

void BrokerWatch::dies(const broker::Broker& core) {
  if (core.tables().claims.count() != 0) {
    cells_.hit(DeliveryState::kClaimed, DeliveryEvent::kStart);
  }
}

void BrokerWatch::before_step(const broker::Broker& core) {
  claims_.clear();
  const auto& claims = core.tables().claims;
  claims.each([&](broker::ClaimRef claim) {
    claims_[key_text(claims.get<broker::kClaimMessage>(claim))] = claim;
  });
}

void BrokerWatch::after_step(const broker::Broker& core, store::Batch& batch,
                             const std::vector<broker::Effect>& effects, std::uint64_t expired) {
  const auto& claims = core.tables().claims;
  for (const auto& [key, claim] : claims_) {
    if (claims.alive(claim)) continue;
    Ulid id;
    if (!store::parse_ulid_key(as_bytes(key), id) || is_multicast(batch, id)) continue;
    const DeliveryState now = row_of(core, batch, id).state;
    const bool too_old = now == DeliveryState::kExpired;
    cells_.hit(DeliveryState::kClaimed,
               too_old ? DeliveryEvent::kTooOld : DeliveryEvent::kLeaseEnds);
    if (too_old && expired > 0) --expired;
  }
  if (expired > 0) cells_.hit(DeliveryState::kQueued, DeliveryEvent::kTooOld);
  for (const broker::Effect& effect : effects) {
    if (effect.kind != broker::EffectKind::kWsText || !is_type(effect.text, "push")) continue;
    const auto message = ulid_parse(member_of_frame(effect.text, "messageId"));
    if (!message || is_multicast(batch, *message)) continue;
    const auto before = claims_.find(key_text(*message));
    const bool still = before != claims_.end() && claims.alive(before->second);
    cells_.hit(still ? DeliveryState::kClaimed : DeliveryState::kQueued, DeliveryEvent::kPush);
  }
}

void BrokerWatch::before_abandon(const broker::Broker& core) {
  if (core.tables().claims.count() != 0) {
    cells_.hit(DeliveryState::kClaimed, DeliveryEvent::kAbandon);
  }
}

}  // namespace cm::sim
