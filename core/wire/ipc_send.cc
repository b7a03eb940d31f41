// ipc_send.cc — field checks of a send, in the order of spec/ipc.md §5.
#include "core/wire/ipc_send.h"

#include "core/crypto/jcs.h"
#include "core/wire/fields.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

std::string_view trim(std::string_view text) noexcept {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Status read_meta(FieldReader& fields, ScratchArena& scratch, SendRequest& request) {
  const JsonNode* meta = fields.object("meta", Need::kOptional);
  if (!fields.ok()) return fail(Err::kMalformed, "field 'meta': expected an object");
  if (meta == nullptr) return {};
  TextBuf canonical(scratch);
  if (Status done = crypto::jcs_append(meta->text, canonical); !done) {
    return fail(Err::kMalformed, "field 'meta': " + done.error().detail);
  }
  request.meta_jcs = canonical.view();
  return {};
}

std::string_view topic_target(std::string_view topic, ScratchArena& scratch) {
  if (topic.starts_with('#')) return topic;
  TextBuf target(scratch, topic.size() + 1);
  target.append('#');
  target.append(topic);
  return target.view();
}

void check_mentions(const JsonTape& tape, FieldReader& fields, std::string_view message) {
  const JsonNode* mentions = fields.array("mentions", Need::kOptional);
  if (mentions == nullptr) return;
  if (mentions->count > kMentionsMax) return fields.refuse("mentions", "at most 16 names");
  for (std::uint32_t at = tape.first(*mentions); at < mentions->next; at = tape.at(at).next) {
    const JsonNode& name = tape.at(at);
    if (name.type != JsonType::kText || name.text.empty() || name.text.size() > kLabelMax) {
      return fields.refuse("mentions", "an array of names");
    }
    if (message.find("@" + std::string(name.text)) == std::string_view::npos) {
      return fields.refuse("mentions", "names that the message mentions as @name");
    }
  }
}

}  // namespace

Status parse_send_request(JsonParser& parser, std::string_view body,
                          std::string_view idempotency_key, ScratchArena& scratch,
                          SendRequest& request, SendForm form) {
  request = {};
  JsonTape tape;
  if (Status parsed = parser.parse(body, scratch, tape); !parsed) return parsed;
  if (tape.root().type != JsonType::kObject) {
    return fail(Err::kMalformed, "expected a JSON object");
  }
  FieldReader fields(tape, tape.root());
  const std::string_view to = form == SendForm::kTopicPost ? "topic" : "to";
  request.to = trim(fields.text(to, kTargetMax));
  if (fields.ok() && request.to.empty()) fields.refuse(to, "a non-empty string");
  if (has_control(request.to)) fields.refuse(to, "text without control characters");
  if (form == SendForm::kTopicPost) request.to = topic_target(request.to, scratch);
  const JsonNode* message = fields.node("message");
  if (message == nullptr || message->type != JsonType::kText || message->text.empty()) {
    fields.refuse("message", "a non-empty string");
  } else {
    request.message = message->text;
  }
  const std::string_view priority = fields.text("priority", 8, Need::kOptional);
  if (!priority.empty()) {
    const auto parsed = priority_parse(priority);
    if (!parsed) fields.refuse("priority", "'now', 'next' or 'low'");
    request.priority = parsed.value_or(Priority::kNext);
  }
  request.reply_to = fields.text("reply_to_id", kReplyToMax, Need::kOptional);
  if (has_control(request.reply_to)) {
    fields.refuse("reply_to_id", "text without control characters");
  }
  request.client_message_id =
      trim(fields.text("client_message_id", 2 * kClientIdMax, Need::kOptional));
  if (const JsonNode* given = fields.node("client_message_id");
      given != nullptr && given->type == JsonType::kText && request.client_message_id.empty()) {
    fields.refuse("client_message_id", "1 to 128 printable ASCII characters without spaces");
  }
  request.mesh = trim(fields.text("mesh", kTargetMax, Need::kOptional));
  if (form == SendForm::kTopicPost) check_mentions(tape, fields, request.message);
  if (!fields.ok()) return fields.take();
  if (Status meta = read_meta(fields, scratch, request); !meta) return meta;

  const std::string_view header = trim(idempotency_key);
  if (!header.empty() && !request.client_message_id.empty() &&
      header != request.client_message_id) {
    return fail(Err::kInvalidArgument,
                "header 'Idempotency-Key' and field 'client_message_id' differ; send one of them");
  }
  if (request.client_message_id.empty()) request.client_message_id = header;
  if (!request.client_message_id.empty() && !is_client_id(request.client_message_id)) {
    return fail(Err::kMalformed,
                "field 'client_message_id': expected 1 to 128 printable ASCII characters "
                "without spaces");
  }
  return {};
}

}  // namespace cm::wire
