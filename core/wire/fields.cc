// fields.cc — the character rules and the bounded reads.
#include "core/wire/fields.h"

#include <algorithm>
#include <string>

#include "core/base/utf8.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

bool is_alnum(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Decodes one code point of text that is known to be valid UTF-8.
char32_t next_code_point(std::string_view text, std::size_t& index) noexcept {
  const auto lead = static_cast<unsigned char>(text[index++]);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
  char32_t point = lead & (0x3fu >> more);
  for (int byte = 0; byte < more && index < text.size(); ++byte) {
    point = (point << 6) | (static_cast<unsigned char>(text[index++]) & 0x3fu);
  }
  return point;
}

bool is_hidden(char32_t point) noexcept {
  return point < 0x20 || (point >= 0x7f && point < 0xa0) ||          // C0, DEL, C1
         point == 0x061c || (point >= 0x200b && point <= 0x200f) ||  // zero width, marks
         (point >= 0x2028 && point <= 0x202e) ||                     // separators, bidi embeddings
         (point >= 0x2066 && point <= 0x2069) || point == 0xfeff;
}

bool is_joiner(char32_t point) noexcept { return point == 0x200c || point == 0x200d; }

// May `point` stand between `before` and the text at `index`? A joiner shapes letters and emoji;
// within ASCII it would only make two names look alike.
bool may_stand(char32_t before, char32_t point, std::string_view text, std::size_t index) noexcept {
  if (!is_joiner(point)) return !is_hidden(point);
  if (before < 0x80 || is_joiner(before) || index == text.size()) return false;
  const char32_t next = next_code_point(text, index);
  return next >= 0x80 && !is_hidden(next);
}

}  // namespace

bool is_broker_id(std::string_view text) noexcept {
  if (text.empty() || text.size() > kBrokerIdMax) return false;
  for (const char c : text) {
    if (!is_alnum(c)) return false;
  }
  return true;
}

bool is_client_id(std::string_view text) noexcept {
  if (text.empty() || text.size() > kClientIdMax) return false;
  for (const char c : text) {
    if (c < '!' || c > '~') return false;
  }
  return true;
}

bool is_slug(std::string_view text) noexcept {
  if (text.size() < 2 || text.size() > kSlugMax || text[0] == '-') return false;
  for (const char c : text) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  }
  return true;
}

bool is_shown_text(std::string_view utf8) noexcept {
  char32_t before = 0;
  for (std::size_t index = 0; index < utf8.size();) {
    const char32_t point = next_code_point(utf8, index);
    if (!may_stand(before, point, utf8, index)) return false;
    before = point;
  }
  return true;
}

std::string_view shown_copy(std::string_view utf8, Lines lines, ScratchArena& scratch) {
  if (is_shown_text(utf8)) return utf8;
  TextBuf out(scratch, utf8.size());
  char32_t before = 0;  // the last one that was kept
  for (std::size_t index = 0; index < utf8.size();) {
    const std::size_t start = index;
    const char32_t point = next_code_point(utf8, index);
    if (point == '\n' || point == '\t') {
      out.append(lines == Lines::kMany ? utf8[start] : ' ');
    } else if (may_stand(before, point, utf8, index)) {
      out.append(utf8.substr(start, index - start));
    } else {
      continue;
    }
    before = point;
  }
  return out.view();
}

bool has_control(std::string_view text) noexcept {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return true;
  }
  return false;
}

bool is_hex_key(std::string_view text) noexcept {
  return crypto::public_key_parse(text).has_value();
}

void FieldReader::refuse(std::string_view key, std::string_view expected) {
  if (!ok()) return;
  status_ =
      fail(Err::kMalformed, "field '" + std::string(key) + "': expected " + std::string(expected));
}

const JsonNode* FieldReader::wanted(std::string_view key, JsonType type, Need need,
                                    std::string_view expected) {
  if (!ok()) return nullptr;
  const JsonNode* found = tape_->find(*object_, key);
  const bool absent = found == nullptr || found->type == JsonType::kNull;
  if (absent) {
    if (need == Need::kRequired) refuse(key, expected);
    return nullptr;
  }
  if (found->type != type) {
    refuse(key, expected);
    return nullptr;
  }
  return found;
}

std::string_view FieldReader::text(std::string_view key, std::size_t max, Need need) {
  const JsonNode* found = wanted(key, JsonType::kText, need, "a string");
  if (found == nullptr) return {};
  if (found->text.size() > max) {
    refuse(key, "at most " + std::to_string(max) + " bytes");
    return {};
  }
  if (need == Need::kRequired && found->text.empty()) {
    refuse(key, "a non-empty string");
    return {};
  }
  return found->text;
}

std::string_view FieldReader::shown(std::string_view key, std::size_t max, Need need) {
  const std::string_view value = text(key, max, need);
  if (!is_shown_text(value)) {
    refuse(key, "text without control or direction-changing characters");
    return {};
  }
  return value;
}

std::string_view FieldReader::display(std::string_view key, std::size_t max, Lines lines,
                                      ScratchArena& scratch, Need need) {
  return shown_copy(text(key, max, need), lines, scratch);
}

std::string_view FieldReader::broker_id(std::string_view key, Need need) {
  const std::string_view value = text(key, kBrokerIdMax, need);
  if (!value.empty() && !is_broker_id(value)) refuse(key, "1 to 32 characters of [0-9A-Za-z]");
  return ok() ? value : std::string_view{};
}

std::string_view FieldReader::client_id(std::string_view key, Need need) {
  const std::string_view value = text(key, kClientIdMax, need);
  if (!value.empty() && !is_client_id(value)) {
    refuse(key, "1 to 128 printable ASCII characters without spaces");
  }
  return ok() ? value : std::string_view{};
}

std::int64_t FieldReader::integer(std::string_view key, std::int64_t least, std::int64_t most,
                                  Need need, std::int64_t otherwise) {
  const JsonNode* found = wanted(key, JsonType::kInteger, need, "an integer");
  if (found == nullptr) return otherwise;
  if (found->integer < least || found->integer > most) {
    refuse(key, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    return otherwise;
  }
  return found->integer;
}

void FieldReader::only(std::initializer_list<std::string_view> known) {
  for (std::uint32_t at = tape_->first(*object_); at < object_->next; at = tape_->at(at).next) {
    const std::string_view key = tape_->at(at).key;
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string list;
    for (const std::string_view each : known) {
      list += (list.empty() ? "" : ", ") + std::string(each);
    }
    constexpr std::size_t kShownMost = 40;
    const std::string_view shown = is_shown_text(key) ? utf8_prefix(key, kShownMost) : "?";
    return refuse(shown, "another field: there are " + list);
  }
}

bool FieldReader::boolean(std::string_view key, bool otherwise) {
  const JsonNode* found = wanted(key, JsonType::kBool, Need::kOptional, "true or false");
  return found == nullptr ? otherwise : found->boolean;
}

crypto::PublicKey FieldReader::public_key(std::string_view key, Need need) {
  const std::string_view value = text(key, 64, need);
  if (value.empty()) return {};
  const auto parsed = crypto::public_key_parse(value);
  if (!parsed) refuse(key, "64 lower-case hex digits");
  return parsed.value_or(crypto::PublicKey{});
}

std::optional<crypto::PublicKey> FieldReader::optional_key(std::string_view key) {
  const std::string_view value = text(key, 64, Need::kOptional);
  if (value.empty()) return std::nullopt;
  const auto parsed = crypto::public_key_parse(value);
  if (!parsed) refuse(key, "64 lower-case hex digits");
  return parsed;
}

crypto::Signature FieldReader::signature(std::string_view key) {
  const std::string_view value = text(key, 128, Need::kRequired);
  if (!ok()) return {};
  const auto parsed = crypto::signature_parse(value);
  if (!parsed) refuse(key, "128 hex digits");
  return parsed.value_or(crypto::Signature{});
}

crypto::Hash32 FieldReader::hash(std::string_view key, bool& present) {
  crypto::Hash32 value{};
  const std::string_view hex = text(key, 64, Need::kOptional);
  present = !hex.empty();
  if (present && !crypto::hex_parse_any_case(hex, value)) {
    refuse(key, "64 hex digits");
    present = false;
  }
  return value;
}

const JsonNode* FieldReader::object(std::string_view key, Need need) {
  return wanted(key, JsonType::kObject, need, "an object");
}

const JsonNode* FieldReader::array(std::string_view key, Need need) {
  return wanted(key, JsonType::kArray, need, "an array");
}

}  // namespace cm::wire
