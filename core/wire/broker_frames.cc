// broker_frames.cc — one parse and one write function a frame.
#include "core/wire/broker_frames.h"

#include "core/base/time_text.h"
#include "core/base/utf8.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

// A time that is missing or not ISO-8601 is unknown, not an error: it is only shown.
std::uint64_t time_or_zero(FieldReader& fields, std::string_view key) {
  return iso_parse(fields.text(key, 40, Need::kOptional)).value_or(0);
}

std::string_view any_text(const FieldReader& fields, std::string_view key) noexcept {
  const JsonNode* found = fields.node(key);
  return found != nullptr && found->type == JsonType::kText ? found->text : std::string_view{};
}

// Empty if it is no text, or a longer one.
std::string_view usable(const FieldReader& fields, std::string_view key, std::size_t max) noexcept {
  const std::string_view text = any_text(fields, key);
  return text.size() <= max ? text : std::string_view{};
}

}  // namespace

Status parse_hello_ack(const BrokerFrame& frame, HelloAck& ack) {
  ack = {};
  FieldReader fields(frame.tape, frame.tape.root());
  ack.presence_id = fields.broker_id("presenceId");
  ack.member_display_name = fields.text("memberDisplayName", kDisplayNameMax, Need::kOptional);
  // Only shown: what cannot be shown is left out, and refuses no connection.
  const JsonNode* version = frame.tape.find("brokerVersion");
  if (version != nullptr && version->type == JsonType::kText && is_client_id(version->text)) {
    ack.broker_version = version->text;
  }
  const JsonNode* receipts = frame.tape.find("receipts");
  if (receipts != nullptr && receipts->type == JsonType::kInteger && receipts->integer > 0) {
    ack.receipts = receipts->integer;
  }
  return fields.take();
}

void write_hello_ack(const HelloAck& ack, std::uint32_t lease_ttl_ms, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "hello_ack").field("presenceId", ack.presence_id);
  json.field("memberDisplayName", ack.member_display_name);
  if (ack.has_profile) {
    json.key("memberProfile").begin_object().nullable_field("roleTag", ack.role_tag);
    json.key("groups").raw(ack.groups.empty() ? "[]" : ack.groups);
    json.field("messageMode", ack.message_mode).end_object();
  }
  if (!ack.policy.empty()) json.key("meshPolicy").raw(ack.policy);
  if (!ack.restored.empty()) json.field("restored", true).members(ack.restored);
  if (ack.has_services) json.key("services").begin_array().end_array();
  json.field("leaseTtlMs", lease_ttl_ms).optional_field("brokerVersion", ack.broker_version);
  if (ack.receipts != 0) json.field("receipts", ack.receipts);
  json.end_object();
}

Status parse_ack(const BrokerFrame& frame, Ack& ack) {
  ack = {};
  FieldReader fields(frame.tape, frame.tape.root());
  ack.id = fields.text("id", kRequestIdMax, Need::kOptional);
  ack.message_id = fields.text("messageId", kRequestIdMax, Need::kOptional);
  ack.queued = fields.boolean("queued", false);
  ack.duplicate = fields.boolean("duplicate", false);
  ack.history_available = fields.boolean("history_available", true);
  ack.is_dedupe_answer = fields.node("first_seen_at") != nullptr;
  ack.first_seen_ms = time_or_zero(fields, "first_seen_at");
  ack.recipient_offline = fields.text("recipient", kLabelMax, Need::kOptional) == "offline";
  ack.error = fields.text("error", kErrorTextMax, Need::kOptional);
  ack.code = fields.text("code", kTypeMax, Need::kOptional);
  ack.conflict = fields.text("conflict", kTypeMax, Need::kOptional);
  ack.fingerprint_prefix = fields.text("broker_fingerprint_prefix", 16, Need::kOptional);
  ack.retry_after_ms =
      static_cast<std::uint64_t>(fields.integer("retry_after_ms", 0, 3'600'000, Need::kOptional));
  return fields.take();
}

void write_ack(const Ack& ack, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "ack").field("id", ack.id);
  json.field("messageId", ack.message_id).field("queued", ack.queued);
  if (!ack.error.empty()) {
    json.field("error", ack.error).optional_field("code", ack.code);
    json.optional_field("conflict", ack.conflict);
    json.optional_field("broker_fingerprint_prefix", ack.fingerprint_prefix);
    if (ack.retry_after_ms != 0) json.field("retry_after_ms", ack.retry_after_ms);
  } else if (ack.is_dedupe_answer) {
    json.field("duplicate", ack.duplicate).field("history_available", ack.history_available);
    json.key("first_seen_at").iso_time(ack.first_seen_ms);
  }
  if (ack.recipient_offline) json.field("recipient", "offline");
  json.end_object();
}

// What a sender chose freely, and another broker passed on unchecked, must not keep its message
// out: the receiver would neither store nor ack it, and get it again for ever. Only who sent it,
// and the id by which it is acked, have to be there (spec/wire.md §5.4).
Status parse_push(const BrokerFrame& frame, Push& push) {
  push = {};
  FieldReader fields(frame.tape, frame.tape.root());
  push.message_id = fields.text("messageId", kRequestIdMax);
  push.sender_pubkey = fields.text("senderPubkey", kTargetMax);
  if (!fields.ok()) return fields.take();
  push.mesh_id = usable(fields, "meshId", kBrokerIdMax);
  push.sender_key = crypto::public_key_parse(push.sender_pubkey);
  push.sender_member = crypto::public_key_parse(usable(fields, "senderMemberPubkey", 64));
  push.sender_member_id = usable(fields, "senderMemberId", kBrokerIdMax);
  push.sender_name = usable(fields, "senderName", kDisplayNameMax);
  if (!is_shown_text(push.sender_name)) push.sender_name = {};
  // Cut, it still is no key: what is not to one key is never taken for a direct message.
  push.target = utf8_prefix(any_text(fields, "targetSpec"), kTargetMax);
  push.priority = priority_parse(usable(fields, "priority", 8)).value_or(Priority::kNext);
  // Without a nonce it would be readable text: one that is damaged stays damaged.
  const JsonNode* nonce = fields.node("nonce");
  const bool has_nonce = nonce != nullptr && nonce->type != JsonType::kNull;
  const bool is_text = has_nonce && nonce->type == JsonType::kText;
  if (has_nonce) push.nonce = is_text ? nonce->text.substr(0, kNonceTextMax + 1) : "?";
  push.ciphertext = any_text(fields, "ciphertext");
  push.created_ms = iso_parse(usable(fields, "createdAt", 40)).value_or(0);
  push.client_message_id = usable(fields, "client_message_id", kClientIdMax);
  if (!is_client_id(push.client_message_id)) push.client_message_id = {};
  push.has_fingerprint =
      crypto::hex_parse_any_case(usable(fields, "request_fingerprint", 64), push.fingerprint);
  if (!push.has_fingerprint) push.fingerprint = {};  // half of one is none
  push.topic = usable(fields, "topic", kTargetMax);
  push.reply_to = usable(fields, "replyToId", kReplyToMax);
  if (has_control(push.reply_to)) push.reply_to = {};
  push.subtype = usable(fields, "subtype", kTypeMax);
  push.event = usable(fields, "event", kLabelMax);
  const JsonNode* data = fields.node("eventData");
  if (data != nullptr && data->type == JsonType::kObject) push.event_data = data->text;
  const JsonNode* version = fields.node("bodyVersion");
  if (version != nullptr && version->type == JsonType::kInteger && version->integer > 0 &&
      version->integer < 256) {
    push.body_version = static_cast<std::uint32_t>(version->integer);
  }
  return {};
}

void write_push(const Push& push, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "push");
  json.optional_field("subtype", push.subtype).optional_field("event", push.event);
  if (!push.event_data.empty()) json.key("eventData").raw(push.event_data);
  json.field("messageId", push.message_id).field("meshId", push.mesh_id);
  json.field("senderPubkey", push.sender_pubkey);
  if (push.sender_member) json.key("senderMemberPubkey").hex(*push.sender_member);
  json.optional_field("senderMemberId", push.sender_member_id);
  json.optional_field("senderName", push.sender_name);
  json.optional_field("targetSpec", push.target);
  json.field("priority", text_of(push.priority)).field("nonce", push.nonce);
  json.field("ciphertext", push.ciphertext).key("createdAt").iso_time(push.created_ms);
  json.optional_field("client_message_id", push.client_message_id);
  if (push.has_fingerprint) json.key("request_fingerprint").hex(push.fingerprint);
  json.optional_field("topic", push.topic).optional_field("replyToId", push.reply_to);
  if (push.body_version != 1) json.field("bodyVersion", push.body_version);
  if (!push.sender_attestation.empty()) json.key("senderAttestation").raw(push.sender_attestation);
  json.end_object();
}

Result<const JsonNode*> peers_of(const BrokerFrame& frame) {
  FieldReader fields(frame.tape, frame.tape.root());
  const JsonNode* peers = fields.array("peers");
  if (peers == nullptr) return fields.take().error();
  return peers;
}

Status parse_peer(const JsonTape& tape, const JsonNode& node, PeerEntry& peer) {
  peer = {};
  if (node.type != JsonType::kObject) return fail(Err::kMalformed, "a peer is an object");
  FieldReader fields(tape, node);
  peer.raw = node.text;
  peer.pubkey = fields.public_key("pubkey");
  peer.member_pubkey = fields.optional_key("memberPubkey").value_or(peer.pubkey);
  peer.display_name = fields.text("displayName", kDisplayNameMax, Need::kOptional);
  peer.status = fields.text("status", kLabelMax, Need::kOptional);
  peer.summary = fields.text("summary", kSummaryMax, Need::kOptional);
  peer.session_id = fields.text("sessionId", kSessionIdMax, Need::kOptional);
  peer.connected_ms = time_or_zero(fields, "connectedAt");
  peer.cwd = fields.text("cwd", kPathMax, Need::kOptional);
  peer.peer_role = fields.text("peerRole", kLabelMax, Need::kOptional);
  peer.hostname = fields.text("hostname", kLabelMax, Need::kOptional);
  peer.peer_type = fields.text("peerType", kLabelMax, Need::kOptional);
  peer.channel = fields.text("channel", kLabelMax, Need::kOptional);
  peer.model = fields.text("model", kLabelMax, Need::kOptional);
  return fields.take();
}

void write_peer(const PeerEntry& peer, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().key("pubkey").hex(peer.pubkey);
  json.key("memberPubkey").hex(peer.member_pubkey);
  json.field("displayName", peer.display_name).field("status", peer.status);
  json.nullable_field("summary", peer.summary);
  json.key("groups").raw(peer.groups.empty() ? "[]" : peer.groups);
  json.field("sessionId", peer.session_id).key("connectedAt").iso_time(peer.connected_ms);
  json.field("cwd", peer.cwd).field("peerRole", peer.peer_role);
  json.optional_field("hostname", peer.hostname).optional_field("peerType", peer.peer_type);
  json.optional_field("channel", peer.channel).optional_field("model", peer.model);
  if (!peer.stats.empty()) json.key("stats").raw(peer.stats);
  json.field("visible", peer.visible);
  if (!peer.profile.empty()) json.key("profile").raw(peer.profile);
  if (!peer.allowed_caps.empty()) json.key("allowed_caps").raw(peer.allowed_caps);
  if (!peer.attestation.empty()) json.key("attestation").raw(peer.attestation);
  json.end_object();
}

Status parse_error(const BrokerFrame& frame, ErrorFrame& error) {
  error = {};
  FieldReader fields(frame.tape, frame.tape.root());
  error.code = fields.text("code", kTypeMax, Need::kOptional);
  error.message = fields.text("message", kErrorTextMax, Need::kOptional);
  error.id = frame.request_id;
  if (error.id.empty()) error.id = fields.text("id", kRequestIdMax, Need::kOptional);
  return fields.take();
}

void write_error(const ErrorFrame& error, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "error").field("code", error.code);
  json.field("message", error.message).optional_field("_reqId", error.id);
  if (error.retry_after_ms != 0) json.field("retry_after_ms", error.retry_after_ms);
  json.end_object();
}

}  // namespace cm::wire
