// receipts.cc — one parse and one write function a form.
#include "core/wire/receipts.h"

#include "core/base/time_text.h"
#include "core/wire/client_frames.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

constexpr std::size_t kWordMax = 16;

std::uint64_t time_of(FieldReader& fields, std::string_view key) {
  const std::string_view text = fields.text(key, kLabelMax, Need::kOptional);
  const auto ms = iso_parse(text);
  if (fields.ok() && !text.empty() && !ms) fields.refuse(key, "a time in ISO 8601");
  return ms.value_or(0);
}

void read_signature(FieldReader& fields, bool& is_signed, crypto::Signature& signature) {
  const JsonNode* node = fields.node("sig");
  is_signed = node != nullptr && node->type != JsonType::kNull;
  if (is_signed) signature = fields.signature("sig");
}

}  // namespace

std::string_view text_of(ReportLevel level) noexcept {
  switch (level) {
    case ReportLevel::kHanded: return "handed";
    case ReportLevel::kStored: return "stored";
    case ReportLevel::kSeen: return "seen";
  }
  return "stored";
}

std::optional<ReportLevel> report_level_parse(std::string_view text) noexcept {
  for (const ReportLevel level : {ReportLevel::kHanded, ReportLevel::kStored, ReportLevel::kSeen}) {
    if (text == text_of(level)) return level;
  }
  return std::nullopt;
}

Status parse_ack_receipt(const JsonTape& tape, const JsonNode& object, AckReceipt& receipt) {
  receipt = {};
  FieldReader fields(tape, object);
  const auto level = report_level_parse(fields.text("level", kWordMax));
  if (fields.ok() && !level) fields.refuse("level", "stored, handed or seen");
  receipt.level = level.value_or(ReportLevel::kStored);
  receipt.at_ms = static_cast<std::uint64_t>(fields.integer("at", 1, kReceiptTimeMax));
  read_signature(fields, receipt.is_signed, receipt.signature);
  return fields.take();
}

void write_ack_receipt(const AckReceipt& receipt, JsonWriter& json) {
  json.begin_object().field("level", text_of(receipt.level)).field("at", receipt.at_ms);
  if (receipt.is_signed) json.key("sig").hex(receipt.signature);
  json.end_object();
}

Status parse_seen_report(const ClientFrame& frame, SeenReport& report) {
  report = {};
  FieldReader fields(frame.tape, frame.tape.root());
  report.message_id = fields.text("messageId", kRequestIdMax);
  report.client_message_id = fields.text("clientMessageId", kClientIdMax, Need::kOptional);
  const std::string_view kind = fields.text("kind", kWordMax);
  if (fields.ok() && kind != "seen") fields.refuse("kind", "seen");
  report.at_ms = static_cast<std::uint64_t>(fields.integer("at", 1, kReceiptTimeMax));
  return fields.take();
}

void write_seen_report(const SeenReport& report, std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "receipt").field("messageId", report.message_id);
  json.optional_field("clientMessageId", report.client_message_id).field("kind", "seen");
  json.field("at", report.at_ms).optional_field("_reqId", request_id).end_object();
}

Status parse_live_receipt(const JsonTape& tape, const JsonNode& object, LiveReceipt& receipt) {
  receipt = {};
  if (object.type != JsonType::kObject) return fail(Err::kMalformed, "a receipt is an object");
  FieldReader fields(tape, object);
  receipt.message_id = fields.broker_id("messageId");
  receipt.client_message_id = fields.client_id("clientMessageId");
  receipt.recipient = fields.text("recipient", kTargetMax, Need::kOptional);
  if (!receipt.recipient.empty() && !is_hex_key(receipt.recipient)) {
    fields.refuse("recipient", "64 lower-case hex digits");
  }
  receipt.state = fields.text("state", kWordMax);
  if (fields.ok() && receipt.state != "handed" && receipt.state != "seen" &&
      receipt.state != "expired") {
    fields.refuse("state", "handed, seen or expired");
  }
  receipt.at_ms = time_of(fields, "at");
  receipt.handed_ms = time_of(fields, "handedAt");
  read_signature(fields, receipt.is_signed, receipt.signature);
  return fields.take();
}

void write_live_receipt(const LiveReceipt& receipt, JsonWriter& json) {
  json.begin_object().field("messageId", receipt.message_id);
  json.optional_field("clientMessageId", receipt.client_message_id);
  json.optional_field("recipient", receipt.recipient).field("state", receipt.state);
  json.key("at").iso_time(receipt.at_ms);
  if (receipt.is_signed) {
    json.key("handedAt").iso_time(receipt.handed_ms).key("sig").hex(receipt.signature);
  }
  json.end_object();
}

}  // namespace cm::wire
