// message_status.cc — where a message is, for who sent it and for who should get it.
// Holds:  an id or a prefix is looked up among the asker's own messages and its own mail only; all
//         else is not_found. What is said comes from durable rows: a receipt, or a delivery row.
//         Of a recipient that is hidden, blocks the sender or reports no more, the chain ends at
//         `stored`, in the very form of a message that nobody has taken yet.
// Limits: a prefix is looked for in at most kScanMax messages of its span of time.
// Source: docs/PROTOCOL.md §5.4, §5.5; spec/wire.md §5.6; design/delivery.md, promise 8 and "Ids".
// Not:    how receipts come about (claim.cc, receipts.cc); the rows themselves (explain.cc).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::ReceiptState;
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
  const wire::JsonNode* explain = fields.node("explain");
  const std::uint32_t asker_no = tables_.clients.get<kClientMemberNo>(client);
  const bool is_sender = row.fixed.sender_member_no == asker_no;
  const bool knows_receipts = tables_.clients.get<kClientReceipts>(client) != 0;
  const std::vector<RecipientView> views = recipients_of(id, row, asker_no);
  std::uint64_t delivered_ms = 0;
  bool all_delivered = !views.empty();
  for (const RecipientView& view : views) {
    delivered_ms = std::max(delivered_ms, view.ended_ms);
    if (view.state != ReceiptState::kDelivered) all_delivered = false;
  }
  const UlidText full = ulid_text(id);
  TextBuf reply(scratch(), 1024);
  wire::JsonWriter json(reply);
  json.begin_object().field("type", "message_status_result").field("messageId", text);
  json.field("fullMessageId", view(full)).field("targetSpec", row.text[store::kMessageTarget]);
  json.field("delivered", all_delivered);
  json.key("deliveredAt").iso_time_or_null(all_delivered ? delivered_ms : 0);
  json.key("recipients").begin_array();
  for (const RecipientView& view : views) {
    TextBuf entry(scratch(), 512);
    write_recipient(view, knows_receipts, entry);
    json.raw(entry.view());
  }
  json.end_array();
  if (is_sender && knows_receipts) {
    json.optional_field("clientMessageId", row.text[store::kMessageClientId]);
  }
  if (is_sender && explain != nullptr && explain->type == wire::JsonType::kBool &&
      explain->boolean) {
    write_explanation(id, row, views, json.key("rows"));
  }
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

std::vector<Broker::RecipientView> Broker::recipients_of(const Ulid& id,
                                                         const store::MessageRow& row,
                                                         std::uint32_t asker_no) {
  std::vector<RecipientView> views;
  const std::uint32_t only = row.fixed.sender_member_no == asker_no ? 0 : asker_no;
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
      const std::uint32_t member_no = receipt.fixed.recipient_member_no;
      if (only != 0 && member_no != only) continue;
      views.push_back(view_of(id, row, mailbox, member_no, &receipt, asker_no));
    }
  }
  if (any) return views;
  // One recipient, and it has no receipt yet: the target says who it is.
  const auto key = crypto::public_key_parse(row.text[store::kMessageTarget]);
  if (!key) return views;
  const store::Key stored = store::u32_bytes_key(row.fixed.mesh_no, *key);
  store::BindingRow binding;
  if (const auto member_no = batch().get_number(TableId::kMemberKey, stored.bytes())) {
    views.push_back(
        view_of(id, row, {MailboxKind::kMember, *member_no}, *member_no, nullptr, asker_no));
  } else if (batch().get(TableId::kBinding, stored.bytes(), binding)) {
    const MailboxId mailbox{MailboxKind::kSession, binding.fixed.session_no};
    views.push_back(view_of(id, row, mailbox, binding.fixed.member_no, nullptr, asker_no));
  }
  return views;
}

Broker::RecipientView Broker::view_of(const Ulid& id, const store::MessageRow& row,
                                      MailboxId mailbox, std::uint32_t member_no,
                                      const store::ReceiptRow* receipt, std::uint32_t asker_no) {
  const MemberMirror* owner = member(member_no);
  const bool own = member_no == asker_no;
  RecipientView view;
  view.mailbox = mailbox;
  view.member_no = member_no;
  view.key = routing_key(row, mailbox, owner);
  view.stored_ms = receipt != nullptr ? receipt->fixed.stored_ms : row.fixed.created_ms;
  view.online = owner != nullptr && (own || !is_hidden(*owner, mailbox, view.key)) &&
                std::any_of(owner->clients.begin(), owner->clients.end(), [&](auto client) {
                  return mailbox.kind == MailboxKind::kMember ||
                         tables_.clients.get<kClientSessionNo>(client) == mailbox.no;
                });
  view.has_times = receipt != nullptr && !crypto::public_key_parse(row.text[store::kMessageTarget]);
  const bool reported = own || is_reported(row, mailbox, member_no);
  const ReceiptState state = receipt == nullptr ? ReceiptState::kQueued : receipt->fixed.state;
  if (state == ReceiptState::kQueued) {
    const auto box = tables_.mailbox_of.find(mailbox.bits());
    if (!reported || box == tables_.mailbox_of.end() ||
        tables_.mailboxes.get<kBoxClaimed>(box->second) == 0) {
      return view;
    }
    const ClientRef holder = tables_.mailboxes.get<kBoxClaimer>(box->second);
    const ClaimRef claim = find_claim(holder, id, box->second);
    view.claimed = static_cast<bool>(claim);
    if (claim) view.claimed_ms = tables_.claims.get<kClaimPushed>(claim);
    return view;
  }
  const bool is_told =
      state == ReceiptState::kExpired
          ? own || receipt->text[store::kReceiptReason] != "blocked"
          : own || (reported && receipt->fixed.level != store::ReportLevel::kStored);
  if (!is_told) return view;
  view.state = state;
  view.has_times = true;
  view.claimed_ms = receipt->fixed.claimed_ms;
  view.ended_ms = receipt->fixed.ended_ms;
  view.seen_ms = receipt->fixed.seen_ms;
  view.signed_ms = receipt->fixed.signed_ms;
  view.level = receipt->fixed.level;
  view.reason = receipt->text[store::kReceiptReason];
  view.signature = receipt->text[store::kReceiptSignature];
  return view;
}

// `status` is what existing clients know; `state` says it exactly. The chain is for who knows
// receipts.
void Broker::write_recipient(const RecipientView& view, bool with_chain, TextBuf& out) {
  const MemberMirror* owner = member(view.member_no);
  const bool delivered = view.state == ReceiptState::kDelivered;
  const bool expired = view.state == ReceiptState::kExpired;
  wire::JsonWriter json(out);
  json.begin_object().field("name", owner == nullptr ? "unknown" : std::string_view(owner->name));
  if (owner != nullptr) json.key("pubkey").hex(owner->key);
  json.field("kind", view.mailbox.kind == MailboxKind::kSession ? "session" : "member");
  json.field("status", delivered ? "delivered" : view.online ? "held" : "disconnected");
  json.field("state", delivered      ? "delivered"
                      : expired      ? "expired"
                      : view.claimed ? "claimed"
                                     : "stored");
  if (view.has_times) {
    json.optional_field("reason", view.reason);
    json.key("storedAt").iso_time_or_null(view.stored_ms);
    json.key("endedAt").iso_time_or_null(view.ended_ms);
  }
  if (with_chain) {
    const auto link = [&](std::string_view state, std::uint64_t at_ms) {
      json.begin_object().field("state", state).key("at").iso_time_or_null(at_ms);
      if (state == "expired") json.optional_field("reason", view.reason);
      json.end_object();
    };
    json.key("chain").begin_array();
    link("stored", view.stored_ms);
    if (view.claimed_ms != 0) link("claimed", view.claimed_ms);
    if (delivered) link("handed", view.ended_ms);
    if (delivered && view.seen_ms != 0) link("seen", view.seen_ms);
    if (expired) link("expired", view.ended_ms);
    json.end_array();
    if (view.key) json.key("recipientKey").hex(*view.key);
    if (delivered) {
      json.field("level", wire::text_of(static_cast<wire::ReportLevel>(view.level)));
      json.key("handedAt").iso_time(view.signed_ms != 0 ? view.signed_ms : view.ended_ms);
      if (!view.signature.empty()) json.key("handedSignature").hex(as_bytes(view.signature));
      json.key("seenAt").iso_time_or_null(view.seen_ms);
    }
  }
  json.end_object();
}

}  // namespace cm::broker
