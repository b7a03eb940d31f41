// mesh_replies.cc — reads the answers of reference brokers and of ours.
#include "core/wire/mesh_replies.h"

#include "core/base/utf8.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

constexpr std::size_t kFeaturesMax = 64;

bool is_type(const JsonNode* node, JsonType type) noexcept {
  return node != nullptr && node->type == type;
}

const JsonNode* member_of_type(const JsonTape& tape, const JsonNode& object, std::string_view key,
                               JsonType type) noexcept {
  const JsonNode* found = tape.find(object, key);
  return is_type(found, type) ? found : nullptr;
}

// An integer within bounds, or nothing.
std::optional<std::int64_t> bounded(const JsonTape& tape, const JsonNode& params,
                                    std::string_view key, std::int64_t least, std::int64_t most) {
  const JsonNode* found = member_of_type(tape, params, key, JsonType::kInteger);
  if (found == nullptr || found->integer < least || found->integer > most) return std::nullopt;
  return found->integer;
}

// The params of a feature in version 1, or null.
const JsonNode* params_of(const JsonTape& tape, const JsonNode& supported, std::string_view name) {
  const JsonNode* feature = member_of_type(tape, supported, name, JsonType::kObject);
  if (feature == nullptr) return nullptr;
  const JsonNode* params = member_of_type(tape, *feature, "params", JsonType::kObject);
  if (params == nullptr || !bounded(tape, *params, "version", 1, 1)) return nullptr;
  return params;
}

void read_dedupe(const JsonTape& tape, const JsonNode& supported, FeatureAnswer& answer) {
  const auto refuse = [&](std::string_view kind, std::string_view detail) {
    answer.kind = kind;
    answer.feature = "client_message_id_dedupe";
    answer.detail = detail;
  };
  if (tape.find(supported, "client_message_id_dedupe") == nullptr) {
    return refuse("feature_unavailable", "not offered");
  }
  const JsonNode* params = params_of(tape, supported, "client_message_id_dedupe");
  if (params == nullptr) return refuse("feature_param_invalid", "version");
  const JsonNode* fingerprint = tape.find(*params, "request_fingerprint");
  if (!is_type(fingerprint, JsonType::kBool) || !fingerprint->boolean) {
    return refuse("feature_param_invalid", "request_fingerprint");
  }
  const std::string_view mode = text_member(tape, *params, "mode");
  if (mode == "permanent") {
    answer.permanent_dedupe = true;
    return;
  }
  if (mode != "retention_scoped") return refuse("feature_param_invalid", "mode");
  const auto days = bounded(tape, *params, "dedupe_retention_days", 0, kDedupeDaysMost);
  if (!days) return refuse("feature_param_invalid", "dedupe_retention_days");
  if (*days < kDedupeDaysFloor) {
    return refuse("feature_param_below_floor", "dedupe_retention_days < 3");
  }
  answer.dedupe_days = static_cast<std::uint32_t>(*days);
}

void read_policy(const JsonTape& tape, const JsonNode& supported, FeatureAnswer& answer) {
  if (!answer.kind.empty()) return;
  const bool offered = tape.find(supported, "concurrent_connection_policy") != nullptr;
  if (offered && params_of(tape, supported, "concurrent_connection_policy") != nullptr) return;
  answer.kind = offered ? "feature_param_invalid" : "feature_unavailable";
  answer.feature = "concurrent_connection_policy";
  answer.detail = offered ? "version" : "not offered";
}

}  // namespace

void write_value(const JsonNode& node, JsonWriter& json) {
  switch (node.type) {
    case JsonType::kNull: json.null(); break;
    case JsonType::kBool: json.boolean(node.boolean); break;
    case JsonType::kInteger: json.number(node.integer); break;
    case JsonType::kText: json.text(node.text); break;
    case JsonType::kDouble:
    case JsonType::kObject:
    case JsonType::kArray: json.raw(node.text); break;
  }
}

bool append_row(const JsonTape& tape, const JsonNode& row, std::string_view slug, TextBuf& out) {
  if (row.type != JsonType::kObject || row.count >= kJsonKeysMax ||
      tape.find(row, "mesh") != nullptr) {
    return false;
  }
  out.append(row.text.substr(0, row.text.size() - 1));
  out.append(row.count == 0 ? "\"mesh\":" : ",\"mesh\":");
  append_json_text(out, slug);
  out.append('}');
  return true;
}

std::size_t append_rows(const JsonTape& tape, const JsonNode& array, std::string_view slug,
                        TextBuf& out) {
  std::size_t left_out = 0;
  for (std::uint32_t at = tape.first(array); at < array.next; at = tape.at(at).next) {
    const std::size_t before = out.size();
    if (before != 0) out.append(',');
    if (append_row(tape, tape.at(at), slug, out)) continue;
    out.truncate(before);
    ++left_out;
  }
  return left_out;
}

std::string_view text_member(const JsonTape& tape, const JsonNode& object, std::string_view key) {
  const JsonNode* found = member_of_type(tape, object, key, JsonType::kText);
  return found != nullptr ? found->text : std::string_view{};
}

const JsonNode* array_of(const BrokerFrame& frame, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    const JsonNode* found = frame.tape.find(name);
    if (is_type(found, JsonType::kArray)) return found;
  }
  return nullptr;
}

Status append_state(const BrokerFrame& frame, std::string_view slug, TextBuf& out) {
  const JsonTape& tape = frame.tape;
  const JsonNode* row = &tape.root();
  for (const std::string_view name : {"state", "row"}) {
    const JsonNode* inner = tape.find(name);
    if (is_type(inner, JsonType::kNull)) return {};
    if (is_type(inner, JsonType::kObject)) row = inner;
  }
  const JsonNode* key = tape.find(*row, "key");
  const JsonNode* value = tape.find(*row, "value");
  if (!is_type(key, JsonType::kText) || value == nullptr) {
    return fail(Err::kMalformed, "the broker's answer has no key and value");
  }
  // A key that is not set comes as null, by nobody, at no time.
  const std::string_view when = text_member(tape, *row, "updatedAt");
  if (value->type == JsonType::kNull && when.empty()) return {};
  JsonWriter json(out);
  json.begin_object().field("key", key->text).key("value");
  write_value(*value, json);
  json.field("updatedBy", text_member(tape, *row, "updatedBy")).field("updatedAt", when);
  json.field("mesh", slug).end_object();
  return {};
}

Result<std::string_view> memory_id(const BrokerFrame& frame) {
  for (const std::string_view name : {"memoryId", "id"}) {
    const std::string_view id = text_member(frame.tape, frame.tape.root(), name);
    if (!id.empty() && id.size() <= kRequestIdMax) return id;
  }
  return fail(Err::kMalformed, "the broker's answer has no id");
}

Status append_object(const BrokerFrame& frame, std::string_view name, std::string_view slug,
                     TextBuf& out) {
  const JsonNode* object = frame.tape.find(name);
  if (object == nullptr || object->type == JsonType::kNull) return {};
  if (append_row(frame.tape, *object, slug, out)) return {};
  return fail(Err::kMalformed, "the broker's answer is not of the expected form");
}

Status append_history(const BrokerFrame& frame, std::string_view slug, ScratchArena& scratch,
                      TextBuf& out) {
  const JsonTape& tape = frame.tape;
  const JsonNode* rows = array_of(frame, {"messages"});
  if (rows == nullptr) return fail(Err::kMalformed, "the broker's answer has no messages");
  for (std::uint32_t at = tape.first(*rows); at < rows->next; at = tape.at(at).next) {
    const JsonNode& row = tape.at(at);
    const std::size_t before = out.size();
    if (before != 0) out.append(',');
    if (!append_row(tape, row, slug, out)) {
      out.truncate(before);
      continue;
    }
    const JsonNode* version = tape.find(row, "bodyVersion");
    const bool sealed = is_type(version, JsonType::kInteger) && version->integer != 1;
    const auto text = crypto::base64_decode(text_member(tape, row, "ciphertext"), scratch);
    if (sealed || !text || !utf8_valid(as_text(*text)) || tape.find(row, "body") != nullptr) {
      continue;
    }
    out.truncate(out.size() - 1);
    out.append(",\"body\":");
    append_json_text(out, as_text(*text));
    out.append('}');
  }
  return {};
}

std::vector<TopicName> topic_names(const BrokerFrame& frame) {
  std::vector<TopicName> names;
  const JsonNode* topics = array_of(frame, {"topics"});
  if (topics == nullptr) return names;
  const JsonTape& tape = frame.tape;
  for (std::uint32_t at = tape.first(*topics); at < topics->next; at = tape.at(at).next) {
    const TopicName topic{text_member(tape, tape.at(at), "id"),
                          text_member(tape, tape.at(at), "name")};
    if (is_broker_id(topic.id) && !topic.name.empty() && topic.name.size() <= kLabelMax) {
      names.push_back(topic);
    }
  }
  return names;
}

Status parse_features(const BrokerFrame& frame, FeatureAnswer& answer) {
  answer = {};
  const JsonTape& tape = frame.tape;
  FieldReader fields(tape, tape.root());
  const JsonNode* supported = fields.object("supported");
  if (!fields.ok()) return fields.take();
  for (std::uint32_t at = tape.first(*supported); at < supported->next; at = tape.at(at).next) {
    const std::string_view name = tape.at(at).key;
    if (answer.names.size() < kFeaturesMax && name.size() <= kTypeMax && is_shown_text(name)) {
      answer.names.push_back(name);
    }
  }
  read_dedupe(tape, *supported, answer);
  read_policy(tape, *supported, answer);
  answer.lane_order = params_of(tape, *supported, "lane_order") != nullptr;
  answer.receipts = params_of(tape, *supported, "receipts") != nullptr;
  if (tape.find(*supported, "max_payload") == nullptr) return {};
  const JsonNode* params = params_of(tape, *supported, "max_payload");
  const auto bytes = params != nullptr ? bounded(tape, *params, "inline_bytes", kInlineBytesLeast,
                                                 kInlineBytesMost)
                                       : std::nullopt;
  answer.inline_bytes = static_cast<std::uint32_t>(bytes.value_or(0));
  answer.bad_optional = !bytes.has_value();
  return {};
}

}  // namespace cm::wire
