// client_frames.cc — one parse and one write function a frame.
#include "core/wire/client_frames.h"

#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

constexpr std::int64_t kTimestampMax = 1ll << 53;

constexpr std::size_t kNonceDigits = 32;

bool is_base64_text(std::string_view text) noexcept {
  if (text.size() % 4 != 0) return false;
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  const auto within = [](unsigned char c, unsigned char first, unsigned char count) {
    return static_cast<unsigned char>(c - first) < count;
  };
  const auto is_bad = [&](unsigned char c) {
    const bool letter = within(c | 0x20, 'a', 26);
    return static_cast<unsigned char>(!(letter | within(c, '0', 10) | (c == '+') | (c == '/')));
  };
  std::size_t at = 0;
  // Steps of a fixed size without branches become vector instructions.
  constexpr std::size_t kStep = 32;
  for (; at + kStep <= text.size(); at += kStep) {
    unsigned char bad = 0;
    for (std::size_t index = 0; index < kStep; ++index) {
      bad |= is_bad(static_cast<unsigned char>(text[at + index]));
    }
    if (bad != 0) return false;
  }
  for (; at < text.size(); ++at) {
    if (is_bad(static_cast<unsigned char>(text[at])) != 0) return false;
  }
  return true;
}

// 24 bytes are 32 digits without padding and without spare bits: nothing to decode.
bool is_nonce_text(std::string_view text) noexcept {
  return text.size() == kNonceDigits && text.back() != '=' && is_base64_text(text);
}

}  // namespace

Status parse_client_frame(JsonParser& parser, std::string_view text, ScratchArena& scratch,
                          ClientFrame& frame) {
  frame = {};
  frame.scratch = &scratch;
  if (Status parsed = parser.parse(text, scratch, frame.tape); !parsed) return parsed;
  if (frame.tape.root().type != JsonType::kObject) {
    return fail(Err::kMalformed, "a frame is one JSON object");
  }
  FieldReader fields(frame.tape, frame.tape.root());
  frame.request_id = fields.text("_reqId", kRequestIdMax, Need::kOptional);
  frame.type = fields.text("type", kTypeMax);
  return fields.take();
}

namespace {

bool time_of(const JsonNode* node, std::int64_t& ms) noexcept {
  if (node == nullptr || node->type != JsonType::kInteger || node->integer < 0 ||
      node->integer > kTimestampMax) {
    return false;
  }
  ms = node->integer;
  return true;
}

// What both hellos have.
void parse_common(FieldReader& fields, ScratchArena& scratch, Hello& hello) {
  // A client that were refused for a character in its name or directory could never connect.
  const auto label = [&](std::string_view key, std::size_t max) {
    return fields.display(key, max, Lines::kOne, scratch);
  };
  hello.session_pubkey_text = fields.text("sessionPubkey", kTargetMax, Need::kOptional);
  hello.mesh_id = fields.text("meshId", kTargetMax);
  hello.signature_text = fields.text("signature", kTargetMax);
  hello.session_id = fields.shown("sessionId", kSessionIdMax);
  hello.display_name = label("displayName", kDisplayNameMax);
  hello.cwd = label("cwd", kPathMax);
  hello.hostname = label("hostname", kLabelMax);
  hello.peer_type = label("peerType", kLabelMax);
  hello.channel = label("channel", kLabelMax);
  hello.model = label("model", kLabelMax);
  hello.pid = fields.integer("pid", 0, kTimestampMax, Need::kOptional);
  hello.receipts = fields.integer("receipts", 0, kTimestampMax, Need::kOptional);
  hello.groups = fields.array("groups", Need::kOptional);
  hello.timestamp_valid = time_of(fields.node("timestamp"), hello.timestamp_ms);
}

}  // namespace

Status parse_hello(const ClientFrame& frame, Hello& hello) {
  hello = {};
  FieldReader fields(frame.tape, frame.tape.root());
  parse_common(fields, *frame.scratch, hello);
  // The reference never compares memberId, so any text without the separator may be signed.
  hello.member_id = fields.text("memberId", kTargetMax);
  hello.pubkey_text = fields.text("pubkey", kTargetMax);
  return fields.take();
}

Status parse_session_hello(const ClientFrame& frame, SessionHello& hello) {
  hello = {};
  FieldReader fields(frame.tape, frame.tape.root());
  parse_common(fields, *frame.scratch, hello.common);
  hello.parent_pubkey_text = fields.text("parentMemberPubkey", kTargetMax, Need::kOptional);
  hello.parent_member_id = fields.text("parentMemberId", kTargetMax, Need::kOptional);
  hello.attestation = fields.object("parentAttestation", Need::kOptional);
  if (!fields.ok() || hello.attestation == nullptr) return fields.take();
  FieldReader inner(frame.tape, *hello.attestation);
  hello.attested_session_text = inner.text("sessionPubkey", kTargetMax, Need::kOptional);
  hello.attested_parent_text = inner.text("parentMemberPubkey", kTargetMax, Need::kOptional);
  hello.attestation_signature_text = inner.text("signature", kTargetMax, Need::kOptional);
  hello.attestation_expires_valid = time_of(inner.node("expiresAt"), hello.attestation_expires_ms);
  hello.attestation_version = inner.integer("version", 1, 2, Need::kOptional, 1);
  hello.allowed_caps = inner.array("allowed_caps", Need::kOptional);
  return inner.take();
}

void write_hello(const Hello& hello, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "hello").field("meshId", hello.mesh_id);
  json.field("memberId", hello.member_id).field("pubkey", hello.pubkey_text);
  json.optional_field("sessionPubkey", hello.session_pubkey_text);
  json.field("sessionId", hello.session_id).field("pid", hello.pid).field("cwd", hello.cwd);
  json.field("hostname", hello.hostname).field("peerType", hello.peer_type);
  json.field("channel", hello.channel).optional_field("model", hello.model);
  json.optional_field("displayName", hello.display_name);
  json.field("timestamp", hello.timestamp_ms).field("signature", hello.signature_text);
  if (hello.receipts != 0) json.field("receipts", hello.receipts);
  json.end_object();
}

Status parse_send(const ClientFrame& frame, Send& send) {
  send = {};
  FieldReader fields(frame.tape, frame.tape.root());
  send.id = fields.text("id", kRequestIdMax, Need::kOptional);
  send.client_message_id = fields.client_id("client_message_id");
  send.fingerprint = fields.hash("request_fingerprint", send.has_fingerprint);
  send.target = fields.text("targetSpec", kTargetMax);
  if (has_control(send.target)) fields.refuse("targetSpec", "text without control characters");
  const std::string_view priority = fields.text("priority", 8);
  const auto parsed = priority_parse(priority);
  if (!parsed) fields.refuse("priority", "now, next or low");
  send.priority = parsed.value_or(Priority::kNext);
  send.nonce = fields.text("nonce", kNonceTextMax, Need::kOptional);
  if (!send.nonce.empty() && !is_nonce_text(send.nonce)) {
    fields.refuse("nonce", "24 bytes in base64 with padding");
  }
  const JsonNode* ciphertext = fields.node("ciphertext");
  if (ciphertext == nullptr || ciphertext->type != JsonType::kText ||
      !is_base64_text(ciphertext->text)) {
    fields.refuse("ciphertext", "base64 with padding");
  } else {
    send.ciphertext = ciphertext->text;  // bounded by the frame
  }
  send.reply_to = fields.text("replyToId", kReplyToMax, Need::kOptional);
  if (has_control(send.reply_to)) fields.refuse("replyToId", "text without control characters");
  send.body_version =
      static_cast<std::uint32_t>(fields.integer("bodyVersion", 1, 255, Need::kOptional, 1));
  return fields.take();
}

void write_send(const Send& send, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "send").field("id", send.id);
  json.optional_field("client_message_id", send.client_message_id);
  if (send.has_fingerprint) json.key("request_fingerprint").hex(send.fingerprint);
  json.field("targetSpec", send.target).field("priority", text_of(send.priority));
  json.field("nonce", send.nonce).field("ciphertext", send.ciphertext);
  json.optional_field("replyToId", send.reply_to);
  json.end_object();
}

Status parse_client_ack(const ClientFrame& frame, ClientAck& ack) {
  ack = {};
  FieldReader fields(frame.tape, frame.tape.root());
  // Existing clients acknowledge system and webhook pushes too, whose ids have any form.
  ack.client_message_id = fields.text("clientMessageId", kClientIdMax, Need::kOptional);
  ack.broker_message_id = fields.text("brokerMessageId", kRequestIdMax, Need::kOptional);
  if (fields.ok() && ack.client_message_id.empty() && ack.broker_message_id.empty()) {
    fields.refuse("brokerMessageId", "one of brokerMessageId and clientMessageId");
  }
  const JsonNode* receipt = fields.object("receipt", Need::kOptional);
  ack.has_receipt = fields.ok() && receipt != nullptr;
  return ack.has_receipt ? parse_ack_receipt(frame.tape, *receipt, ack.receipt) : fields.take();
}

void write_client_ack(const ClientAck& ack, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "client_ack");
  json.optional_field("clientMessageId", ack.client_message_id);
  json.optional_field("brokerMessageId", ack.broker_message_id);
  if (ack.has_receipt) write_ack_receipt(ack.receipt, json.key("receipt"));
  json.end_object();
}

void write_list_peers(std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "list_peers").optional_field("_reqId", request_id);
  json.end_object();
}

}  // namespace cm::wire
