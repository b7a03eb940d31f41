// receipts.cc — what a recipient reports after its ack, and what the sender of a message is told.
// Holds:  a report of seen counts from the recipient's member only, for a row that was delivered to
//         it, once; every other one is answered and changes nothing, so that it does not come for
//         ever. Senders are told after the commit of what they are told, and only over connections
//         that know receipts. Who is hidden, blocks the sender or reports no more is not told of.
// Why:    nothing of it is needed for the truth: message_status reads the rows themselves.
// Limits: of a message with more than kReceiptRecipientsMax recipients nobody is told live; at
//         most kChangedMax changes an iteration are, while its effects have room.
// Source: docs/PROTOCOL.md §5.5; design/delivery.md, promise 8.
// Not:    the receipt of an ack (claim.cc), the chain (message_status.cc). Signatures are kept and
//         not checked here: their reader is the sender.
#include <algorithm>
#include <tuple>

#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/encoding.h"

namespace cm::broker {
namespace {

using store::ReceiptState;
using store::ReportLevel;
using store::TableId;

constexpr std::size_t kChangedMax = 4'096;

constexpr bool same(ReportLevel stored, wire::ReportLevel sent) noexcept {
  return static_cast<int>(stored) == static_cast<int>(sent);
}
static_assert(same(ReportLevel::kHanded, wire::ReportLevel::kHanded) &&
              same(ReportLevel::kStored, wire::ReportLevel::kStored) &&
              same(ReportLevel::kSeen, wire::ReportLevel::kSeen) &&
              static_cast<int>(ReportLevel::kCount) == 3);

}  // namespace

void Broker::take_receipts(ClientRef client) {
  std::uint8_t& knows = tables_.clients.get<kClientReceipts>(client);
  if (knows != 0) return;
  knows = 1;
  ++member(tables_.clients.get<kClientMemberNo>(client))->receipts;
}

void Broker::handle_receipt(ClientRef client, const Frame& frame) {
  wire::SeenReport report;
  if (Status parsed = wire::parse_seen_report(frame, report); !parsed) {
    return refuse(client, frame, parsed.error());
  }
  if (const auto message = ulid_parse(report.message_id)) {
    const MailboxId session{MailboxKind::kSession, tables_.clients.get<kClientSessionNo>(client)};
    const MailboxId own{MailboxKind::kMember, tables_.clients.get<kClientMemberNo>(client)};
    const bool found = session.no != 0 && record_seen(client, *message, session, report.at_ms);
    if (!found) record_seen(client, *message, own, report.at_ms);
  }
  TextBuf text(scratch(), 96);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "receipt_ack");
  finish_reply(client, frame, json, text);
}

// False: no row that this may be said of. What was seen while hidden is not kept.
bool Broker::record_seen(ClientRef client, const Ulid& message, MailboxId mailbox,
                         std::uint64_t at_ms) {
  const store::Key key = store::receipt_key(message, mailbox);
  store::ReceiptRow receipt;
  if (!batch().get(TableId::kReceipt, key.bytes(), receipt)) return false;
  if (receipt.fixed.state != ReceiptState::kDelivered ||
      receipt.fixed.recipient_member_no != tables_.clients.get<kClientMemberNo>(client) ||
      receipt.fixed.level == ReportLevel::kStored || receipt.fixed.seen_ms != 0 ||
      tables_.presences.get<kPresStatus>(presence_of(client)).hidden != 0) {
    return false;
  }
  // By the recipient's clock, which may be wrong: nobody sees what is not handed, or in the future.
  receipt.fixed.seen_ms =
      std::max(receipt.fixed.ended_ms, std::min<std::uint64_t>(at_ms, env_.wall_ms));
  receipt.fixed.level = ReportLevel::kSeen;
  batch().put(TableId::kReceipt, key.bytes(), receipt);
  store::MessageRow row;
  if (batch().get(TableId::kMessage, store::ulid_key(message).bytes(), row)) {
    note_receipt(row.fixed.sender_member_no, message, mailbox);
  }
  return true;
}

// Now, by any of its connections that could serve this mailbox, or while it is leased.
bool Broker::is_hidden(const MemberMirror& owner, MailboxId mailbox,
                       const std::optional<PublicKey>& key) const {
  const auto hides = [&](PresenceRef presence) {
    return tables_.presences.get<kPresStatus>(presence).hidden != 0;
  };
  for (const ClientRef client : owner.clients) {
    const bool serves = mailbox.kind == MailboxKind::kMember ||
                        tables_.clients.get<kClientSessionNo>(client) == mailbox.no;
    if (serves && hides(presence_of(client))) return true;
  }
  if (!key) return false;
  const auto leased = tables_.presence_of.find({owner.mesh_no, mailbox.kind, *key});
  return leased != tables_.presence_of.end() && hides(leased->second);
}

// May the sender see more of this recipient than that the message is stored?
bool Broker::is_reported(const store::MessageRow& row, MailboxId mailbox, std::uint32_t member_no) {
  const MemberMirror* recipient = member(member_no);
  if (recipient == nullptr ||
      is_hidden(*recipient, mailbox, routing_key(row, mailbox, recipient))) {
    return false;
  }
  if (recipient->has_grants == 0) return true;
  const MemberMirror* sender = member(row.fixed.sender_member_no);
  const PublicKey* session = row.fixed.sender_is_session != 0 ? &row.fixed.sender_key : nullptr;
  const bool direct = crypto::public_key_parse(row.text[store::kMessageTarget]).has_value();
  return sender != nullptr &&
         may_reach(member_no, sender->key, session, direct ? kCapDm : kCapBroadcast);
}

// The key that signs for a mailbox: of a session by the target of the message, or while it is here.
std::optional<PublicKey> Broker::routing_key(const store::MessageRow& row, MailboxId mailbox,
                                             const MemberMirror* owner) const {
  if (const auto target = crypto::public_key_parse(row.text[store::kMessageTarget])) return target;
  if (owner == nullptr) return std::nullopt;
  if (mailbox.kind == MailboxKind::kMember) return owner->key;
  for (const ClientRef client : owner->clients) {
    if (tables_.clients.get<kClientSessionNo>(client) == mailbox.no) {
      return tables_.presences.get<kPresKey>(presence_of(client)).key;
    }
  }
  return std::nullopt;
}

void Broker::note_receipt(std::uint32_t sender_no, const Ulid& message, MailboxId mailbox) {
  const MemberMirror* sender = member(sender_no);
  if (sender == nullptr || sender->receipts == 0) return;
  if (tables_.changed_receipts.size() >= kChangedMax) return;
  tables_.changed_receipts.push_back({sender_no, message, mailbox});
}

// Several changes of one row are one; those of one sender share their frames.
void Broker::send_receipts() {
  std::vector<ChangedReceipt>& changed = tables_.changed_receipts;
  if (changed.empty()) return;
  const auto order = [](const ChangedReceipt& row) {
    return std::tuple(row.sender_no, row.message, row.mailbox.bits());
  };
  std::sort(changed.begin(), changed.end(),
            [&](const auto& a, const auto& b) { return order(a) < order(b); });
  changed.erase(std::unique(changed.begin(), changed.end(),
                            [&](const auto& a, const auto& b) { return order(a) == order(b); }),
                changed.end());
  for (std::size_t at = 0; at < changed.size();) {
    if (effects_.bytes() >= limits_.iteration_effect_bytes_max) break;
    const std::uint32_t sender_no = changed[at].sender_no;
    TextBuf text(scratch(), 1024);
    wire::JsonWriter json(text);
    json.begin_object().field("type", "receipt").key("receipts").begin_array();
    std::size_t written = 0;
    for (; at < changed.size() && changed[at].sender_no == sender_no &&
           written < wire::kReceiptsAFrame;
         ++at) {
      written += write_receipt(changed[at], json) ? 1 : 0;
    }
    json.end_array().end_object();
    if (written == 0) continue;
    for (const ClientRef client : member(sender_no)->clients) {
      if (tables_.clients.get<kClientReceipts>(client) != 0) send_text(client, text);
    }
  }
  changed.clear();
}

bool Broker::write_receipt(const ChangedReceipt& changed, wire::JsonWriter& json) {
  store::MessageRow row;
  store::ReceiptRow receipt;
  if (!batch().get(TableId::kMessage, store::ulid_key(changed.message).bytes(), row) ||
      row.fixed.many != 0 ||
      !batch().get(TableId::kReceipt, store::receipt_key(changed.message, changed.mailbox).bytes(),
                   receipt)) {
    return false;
  }
  const RecipientView view =
      view_of(changed.message, row, changed.mailbox, receipt.fixed.recipient_member_no, &receipt,
              changed.sender_no);
  if (view.state == ReceiptState::kQueued) return false;
  const UlidText id = ulid_text(changed.message);
  crypto::HexText64 key;
  wire::LiveReceipt live;
  live.message_id = cm::view(id);
  live.client_message_id = row.text[store::kMessageClientId];
  if (view.key) {
    key = crypto::hex_text(*view.key);
    live.recipient = crypto::view(key);
  }
  live.state = view.state == ReceiptState::kExpired ? "expired"
               : view.seen_ms != 0                  ? "seen"
                                                    : "handed";
  live.at_ms = view.seen_ms != 0 ? view.seen_ms : view.ended_ms;
  live.is_signed = view.signature.size() == live.signature.size();
  if (live.is_signed) {
    std::copy_n(as_bytes(view.signature).begin(), live.signature.size(), live.signature.begin());
    live.handed_ms = view.signed_ms;
  }
  wire::write_live_receipt(live, json);
  return true;
}

}  // namespace cm::broker
