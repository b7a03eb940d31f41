// message_status.cc — where a message is, for who sent it and for who should get it.
// Holds:  an id or a prefix is looked up among the asker's own messages and its own mail only; all
//         else is not_found. What is said comes from durable rows: a receipt, or a delivery row.
// Limits: a prefix is looked for in at most kScanMax messages of its span of time.
// Source: docs/PROTOCOL.md §5.4; spec/wire.md §5.6; design/delivery.md, "Ids".
// Not:    receipts of the recipient's side (they end at the recipient's inbox).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::size_t kPrefixMin = 8;
constexpr std::size_t kScanMax = 16'384;

bool is_id_text(std::string_view text) noexcept {
  return text.size() >= kPrefixMin && wire::is_broker_id(text);
}

// The least (fill '0') or greatest (fill 'Z') id that begins with `prefix`.
std::optional<Ulid> bound_of(std::string_view prefix, char fill) {
  std::string text(prefix);
  if (text.size() > kUlidText) return std::nullopt;
  text.resize(kUlidText, fill);
  return ulid_parse(text);
}

}  // namespace

void Broker::handle_message_status(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view text = fields.text("messageId", wire::kRequestIdMax);
  if (!fields.ok() || !is_id_text(text)) {
    send_error(client, "invalid_argument",
               "field 'messageId': expected 8 to 32 characters of [0-9A-Za-z]", frame.request_id);
    return;
  }
  Ulid id;
  store::MessageRow row;
  if (Status found = find_own_message(client, text, id, row); !found) {
    const bool ambiguous = found.code() == Err::kInvalidArgument;
    send_error(client, ambiguous ? "ambiguous_prefix" : "not_found", found.error().detail,
               frame.request_id);
    return;
  }
  TextBuf recipients(scratch(), 512);
  std::uint64_t delivered_ms = 0;
  bool all_delivered = true;
  const std::string target(row.text[store::kMessageTarget]);
  const std::uint32_t asker_no = tables_.clients.get<kClientMemberNo>(client);
  const std::uint32_t only = row.fixed.sender_member_no == asker_no ? 0 : asker_no;
  write_recipients(id, row, only, recipients, delivered_ms, all_delivered);
  const UlidText full = ulid_text(id);
  TextBuf reply(scratch(), 1024);
  wire::JsonWriter json(reply);
  json.begin_object().field("type", "message_status_result").field("messageId", text);
  json.field("fullMessageId", view(full)).field("targetSpec", target);
  json.field("delivered", all_delivered);
  json.key("deliveredAt").iso_time_or_null(all_delivered ? delivered_ms : 0);
  json.key("recipients").begin_array();
  if (recipients.size() != 0) json.members(recipients.view());
  json.end_array();
  finish_reply(client, frame, json, reply);
}

Status Broker::find_own_message(ClientRef client, std::string_view text, Ulid& id,
                                store::MessageRow& row) {
  const Error none = fail(Err::kNotFound, "no message of yours has this id");
  if (const auto exact = ulid_parse(text)) {
    id = *exact;
    if (!batch().get(TableId::kMessage, store::ulid_key(id).bytes(), row)) return none;
    if (!concerns(client, id, row)) return none;
    return {};
  }
  const auto least = bound_of(text, '0');
  const auto most = bound_of(text, 'Z');
  if (!least || !most) return none;
  std::optional<Ulid> found;
  std::size_t seen = 0;
  {
    store::Cursor cursor(batch(), TableId::kMessage);
    for (bool more = cursor.seek(least->bytes); more; more = cursor.next()) {
      Ulid at;
      if (!store::parse_ulid_key(cursor.key(), at) || at > *most) break;
      if (++seen > kScanMax || (found && concerns_at(client, at))) {
        return fail(Err::kInvalidArgument, "several messages begin like this; give more of the id");
      }
      if (!found && concerns_at(client, at)) found = at;
    }
  }
  if (!found || !batch().get(TableId::kMessage, store::ulid_key(*found).bytes(), row)) return none;
  id = *found;
  return {};
}

bool Broker::concerns_at(ClientRef client, const Ulid& id) {
  store::MessageRow row;
  return batch().get(TableId::kMessage, store::ulid_key(id).bytes(), row) &&
         concerns(client, id, row);
}

// The sending member, and a recipient for its own row.
bool Broker::concerns(ClientRef client, const Ulid& id, const store::MessageRow& row) {
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  if (row.fixed.sender_member_no == member_no) return true;
  const auto priority = static_cast<std::uint8_t>(row.fixed.priority);
  const auto has_row = [&](MailboxId box) {
    return batch().get_raw(TableId::kDelivery, store::delivery_key(box, priority, id).bytes()) ||
           batch().get_raw(TableId::kReceipt, store::receipt_key(id, box).bytes());
  };
  if (has_row({MailboxKind::kMember, member_no})) return true;
  const std::uint32_t session_no = tables_.clients.get<kClientSessionNo>(client);
  return session_no != 0 && has_row({MailboxKind::kSession, session_no});
}

// All recipients, for the sender; those of the member `only` otherwise.
void Broker::write_recipients(const Ulid& id, const store::MessageRow& row, std::uint32_t only,
                              TextBuf& out, std::uint64_t& delivered_ms, bool& all_delivered) {
  wire::JsonWriter json(out);
  bool any = false;
  {
    store::Cursor cursor(batch(), TableId::kReceipt);
    for (bool more = cursor.seek(store::ulid_key(id).bytes()); more; more = cursor.next()) {
      Ulid message;
      MailboxId mailbox;
      if (!store::parse_receipt_key(cursor.key(), message, mailbox) || !(message == id)) break;
      store::ReceiptRow receipt;
      if (!cursor.row(receipt)) continue;
      any = true;
      if (only != 0 && receipt.fixed.recipient_member_no != only) continue;
      delivered_ms = std::max(delivered_ms, receipt.fixed.ended_ms);
      if (receipt.fixed.state != store::ReceiptState::kDelivered) all_delivered = false;
      TextBuf entry(scratch(), 256);
      write_recipient(id, mailbox, receipt.fixed.recipient_member_no, &receipt, entry);
      json.raw(entry.view());
    }
  }
  if (any) return;
  // One recipient, and it has no receipt yet: the target says who it is.
  all_delivered = false;
  const auto key = crypto::public_key_parse(row.text[store::kMessageTarget]);
  if (!key) return;
  const store::Key stored = store::u32_bytes_key(row.fixed.mesh_no, *key);
  TextBuf entry(scratch(), 256);
  store::BindingRow binding;
  if (const auto member_no = batch().get_number(TableId::kMemberKey, stored.bytes())) {
    write_recipient(id, {MailboxKind::kMember, *member_no}, *member_no, nullptr, entry);
  } else if (batch().get(TableId::kBinding, stored.bytes(), binding)) {
    write_recipient(id, {MailboxKind::kSession, binding.fixed.session_no}, binding.fixed.member_no,
                    nullptr, entry);
  } else {
    return;
  }
  json.raw(entry.view());
}

// `status` is what existing clients know; `state` says it exactly.
void Broker::write_recipient(const Ulid& id, MailboxId mailbox, std::uint32_t member_no,
                             const store::ReceiptRow* receipt, TextBuf& out) {
  using store::ReceiptState;
  const MemberMirror* owner = member(member_no);
  const ReceiptState state = receipt == nullptr ? ReceiptState::kQueued : receipt->fixed.state;
  const bool online = owner != nullptr &&
                      std::any_of(owner->clients.begin(), owner->clients.end(), [&](auto client) {
                        return mailbox.kind == MailboxKind::kMember ||
                               tables_.clients.get<kClientSessionNo>(client) == mailbox.no;
                      });
  const auto box = tables_.mailbox_of.find(mailbox.bits());
  const bool claimed = state == ReceiptState::kQueued && box != tables_.mailbox_of.end() &&
                       tables_.mailboxes.get<kBoxClaimed>(box->second) > 0 &&
                       find_claim(tables_.mailboxes.get<kBoxClaimer>(box->second), id, box->second);
  wire::JsonWriter json(out);
  json.begin_object().field("name", owner == nullptr ? "unknown" : std::string_view(owner->name));
  if (owner != nullptr) json.key("pubkey").hex(owner->key);
  json.field("kind", mailbox.kind == MailboxKind::kSession ? "session" : "member");
  json.field("status", state == ReceiptState::kDelivered ? "delivered"
                       : online                          ? "held"
                                                         : "disconnected");
  json.field("state", state == ReceiptState::kDelivered ? "delivered"
                      : state == ReceiptState::kExpired ? "expired"
                      : claimed                         ? "claimed"
                                                        : "stored");
  if (receipt != nullptr) {
    json.optional_field("reason", receipt->text[store::kReceiptReason]);
    json.key("storedAt").iso_time_or_null(receipt->fixed.stored_ms);
    json.key("endedAt").iso_time_or_null(receipt->fixed.ended_ms);
  }
  json.end_object();
}

}  // namespace cm::broker
