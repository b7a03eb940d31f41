// query.cc — targets, arrays and words.
#include "cli/query.h"

#include <cstdio>

#include "cli/output.h"
#include "core/base/time_text.h"

namespace cm::cli {

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_' || c == '.';
    if (plain) {
      out += c;
    } else {
      char escape[4];
      std::snprintf(escape, sizeof escape, "%%%02X", static_cast<unsigned char>(c));
      out += escape;
    }
  }
  return out;
}

Target& Target::add(std::string_view name, std::string_view value) {
  if (value.empty()) return *this;
  text_ += text_.find('?') == std::string::npos ? '?' : '&';
  text_ += std::string(name) + "=" + percent_encoded(value);
  return *this;
}

Target& Target::part(std::string_view value) {
  text_ += "/" + percent_encoded(value);
  return *this;
}

const wire::JsonNode* array_of(const Reply& reply, std::string_view key) {
  const wire::JsonNode* node = reply.tape.find(key);
  return node != nullptr && node->type == wire::JsonType::kArray ? node : nullptr;
}

void warn_of_errors(const Reply& reply) {
  const wire::JsonNode* errors = array_of(reply, "errors");
  if (errors == nullptr) return;
  each_of(reply, *errors, [&](const wire::JsonNode& error) {
    say("warning: " + harmless(text_of(reply.tape, error, "mesh")) + ": " +
        harmless(text_of(reply.tape, error, "detail")));
  });
}

std::uint64_t time_of(std::string_view iso) { return iso_parse(iso).value_or(0); }

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}  // namespace cm::cli
