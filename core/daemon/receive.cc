// receive.cc — from a push to an inbox row, its ack and its event.
// Holds:  client_ack is an effect: it leaves after the commit that has the row. A redelivery finds
//         its key and is acked again without a second row. What cannot be opened is kept with a
//         null body and a reason, never decoded as text.
// Source: docs/PROTOCOL.md §5; design/delivery.md, promise 5; spec/decisions.md, "Delivery";
//         spec/ipc.md §7.
// Not:    showing the inbox (routes_inbox.cc), what an ack tells beside itself (receipts.cc).
#include <algorithm>

#include "core/base/utf8.h"
#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"
#include "core/wire/fields.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint32_t kControlFrame = 0;
constexpr std::uint64_t kRosterLeastMs = 1'000;
constexpr std::string_view kWebhookPrefix = "webhook:";

// To one key. Brokers that do not name the target send the member's fields with multicasts only
// (spec/observed.md, "send, ack, push").
bool is_direct(const wire::Push& push) noexcept {
  if (!push.target.empty()) return wire::is_hex_key(push.target);
  return !push.sender_member && push.topic.empty();
}

}  // namespace

bool Daemon::on_push(LinkRef link, const wire::BrokerFrame& frame) {
  wire::Push push;
  if (Status parsed = wire::parse_push(frame, push); !parsed) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    env_.log->warn("push_malformed", {{"detail", parsed.error().detail}});
    return false;
  }
  if (push.subtype == "system") {
    on_system_push(link, frame, push);
  } else {
    on_message(link, push);
  }
  return true;
}

void Daemon::on_system_push(LinkRef link, const wire::BrokerFrame& frame, const wire::Push& push) {
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  roster.stale = true;
  roster_check_ms_ = std::min(roster_check_ms_, roster.asked_ms + kRosterLeastMs);
  // What this member did itself is no news (spec/ipc.md §7).
  const wire::JsonNode* data = frame.tape.find("eventData");
  const wire::JsonNode* key = data != nullptr ? frame.tape.find(*data, "pubkey") : nullptr;
  if (key != nullptr && key->text == crypto::view(crypto::hex_text(config_of(mesh).key))) return;
  emit_system(mesh, frame, push.event);
}

void Daemon::on_message(LinkRef link, const wire::Push& push) {
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  const MeshConfig& config = config_of(mesh);
  // An echo: what this member sent to many. Mail from its own sessions to its key is mail.
  if (!is_direct(push) && (push.sender_key == config.key || push.sender_member == config.key)) {
    metrics_.add(Metric::kDaemonEcho);
    return acknowledge(link, push, nullptr);
  }
  const auto sealed = crypto::base64_decode(push.ciphertext, scratch());
  wire::AckReceipt room;
  const wire::AckReceipt* receipt = receipt_for(link, push, sealed, room);
  const std::string_view id =
      push.client_message_id.empty() ? push.message_id : push.client_message_id;
  const store::Key key =
      store::inbox_dedupe_key(config.mesh_id, push.sender_pubkey, id, config.key);
  if (const Bytes known = batch().get_index(TableId::kInboxKey, key.bytes()); !known.empty()) {
    Ulid id_here;
    metrics_.add(Metric::kDaemonRecvDuplicate);
    acknowledge(link, push, receipt);
    if (store::parse_ulid_key(known, id_here)) repeat_seen(id_here, mesh);
    return;
  }
  store::InboxRow row;
  row.fixed.received_ms = env_.wall_ms;
  row.fixed.created_ms = push.created_ms;
  row.fixed.priority = static_cast<store::Priority>(push.priority);
  row.fixed.recipient_kind = store::MailboxKind::kMember;
  row.fixed.recipient = config.key;
  if (push.sender_member) row.fixed.sender_member = *push.sender_member;
  if (receipt != nullptr) {
    row.fixed.told = static_cast<std::uint8_t>(1 + static_cast<int>(receipt->level));
  }
  row.text[store::kInboxClientId] = id;
  row.text[store::kInboxBrokerId] = push.message_id;
  row.text[store::kInboxMesh] = config.mesh_id;
  row.text[store::kInboxSender] = push.sender_pubkey;
  const bool webhook = push.sender_pubkey.starts_with(kWebhookPrefix);
  row.text[store::kInboxSenderName] = !push.sender_name.empty() ? push.sender_name
                                      : webhook ? push.sender_pubkey.substr(kWebhookPrefix.size())
                                                : push.sender_pubkey.substr(0, 8);
  const bool to_topic = push.topic.empty() && push.target.starts_with('#');
  row.text[store::kInboxTopic] = to_topic ? push.target.substr(1) : push.topic;
  row.text[store::kInboxReplyTo] = push.reply_to;
  row.text[store::kInboxSubtype] = push.subtype;
  // Only a box that opened proves who made it. A session key is its member's only by an
  // attestation, which this version does not read; and whatever came readable, anybody between us
  // may have written (design/delivery.md, "Who a name is").
  const bool opened = open_body(mesh, push, sealed, row);
  row.fixed.has_member = opened && push.sender_member == push.sender_key;

  const Ulid ulid = ulids_.next(env_.wall_ms);
  batch().put(TableId::kInbox, store::ulid_key(ulid).bytes(), row);
  batch().put_index(TableId::kInboxKey, key.bytes(), ulid.bytes);
  metrics_.add(Metric::kDaemonRecvStored);
  acknowledge(link, push, receipt);
  emit_message(mesh, ulid, row);
}

// Sets the body, or why there is none. True: a box of the sender's key opened.
bool Daemon::open_body(MeshRef mesh, const wire::Push& push, const std::optional<Bytes>& sealed,
                       store::InboxRow& row) {
  const auto refuse = [&](std::string_view reason) {
    row.fixed.body_missing = 1;
    row.text[store::kInboxReason] = reason;
    metrics_.add(Metric::kDaemonRecvUndecryptable);
    return false;
  };
  if (push.subtype == "webhook") {
    if (push.event_data.empty()) return refuse("the webhook sent no data");
    row.fixed.plaintext = 1;
    row.text[store::kInboxBody] = push.event_data;
    return false;
  }
  if (!sealed) return refuse("the ciphertext is not base64");
  std::string_view reason = "the sender is not a key";
  const auto nonce = crypto::nonce_parse(push.nonce);
  TextBuf body(scratch(), sealed->size() + 1);
  if (!push.nonce.empty() && !nonce) {
    reason = "the nonce is malformed";
  } else if (nonce && push.sender_key) {
    if (boxes_.open(config_of(mesh).secret, *push.sender_key, *nonce, *sealed, body)) {
      // Any member can encrypt any bytes to us; what is shown as JSON has to be text.
      if (!utf8_valid(body.view())) return refuse("it is not UTF-8 text");
      row.text[store::kInboxBody] = body.view();
      return true;
    }
    reason = "it was not encrypted to this member by its sender";
  }
  // Scheduled messages have no nonce; broadcasts, groups and topics are never encrypted. A direct
  // message that does not open stays closed (spec/crypto.md §4).
  const bool plain = push.nonce.empty() || (nonce && !is_direct(push));
  if (!plain) return refuse(reason);
  if (!utf8_valid(as_text(*sealed))) return refuse("it is not UTF-8 text");
  row.fixed.plaintext = 1;
  row.text[store::kInboxBody] = as_text(*sealed);
  return false;
}

void Daemon::acknowledge(LinkRef link, const wire::Push& push, const wire::AckReceipt* receipt) {
  wire::ClientAck ack;
  // Both ids, as existing daemons do (spec/wire.md §5.5).
  ack.client_message_id = push.client_message_id.empty() ? push.message_id : push.client_message_id;
  ack.broker_message_id = push.message_id;
  ack.has_receipt = receipt != nullptr;
  if (receipt != nullptr) ack.receipt = *receipt;
  TextBuf text(scratch(), 384);
  wire::write_client_ack(ack, text);
  effects_.link_send(link, kControlFrame, text.view());
}

}  // namespace cm::daemon
