// json_writer.cc — commas, quotes and escapes.
#include "core/wire/json_writer.h"

#include <array>

#include "core/base/time_text.h"

namespace cm::wire {
namespace {

constexpr std::array<bool, 256> make_plain() {
  std::array<bool, 256> plain{};
  for (std::size_t c = 0x20; c < 256; ++c) plain[c] = c != '"' && c != '\\';
  return plain;
}
constexpr std::array<bool, 256> kPlain = make_plain();
constexpr char kHex[] = "0123456789abcdef";

void append_escape(TextBuf& out, unsigned char c) {
  switch (c) {
    case '"': out.append("\\\""); return;
    case '\\': out.append("\\\\"); return;
    case '\b': out.append("\\b"); return;
    case '\f': out.append("\\f"); return;
    case '\n': out.append("\\n"); return;
    case '\r': out.append("\\r"); return;
    case '\t': out.append("\\t"); return;
    default: {
      const char escape[] = {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
      out.append({escape, sizeof escape});
    }
  }
}

// Where the next byte stands that needs an escape. Ciphertexts are long and have none: steps of a
// fixed size without branches become vector instructions. Names of members are short: eight bytes
// of them fit into a word.
std::size_t next_escape(std::string_view text, std::size_t from) noexcept {
  constexpr std::size_t kStep = 32;
  for (; from + kStep <= text.size(); from += kStep) {
    unsigned char found = 0;
    for (std::size_t index = 0; index < kStep; ++index) {
      const auto c = static_cast<unsigned char>(text[from + index]);
      found |= static_cast<unsigned char>((c < 0x20) | (c == '"') | (c == '\\'));
    }
    if (found != 0) break;
  }
  constexpr std::uint64_t kOnes = 0x0101010101010101ull;
  constexpr std::uint64_t kHighs = 0x8080808080808080ull;
  const auto has_zero = [](std::uint64_t word) { return (word - kOnes) & ~word & kHighs; };
  for (; from + 8 <= text.size(); from += 8) {
    const auto word = load_le<std::uint64_t>(text.data() + from);
    const std::uint64_t below_space = (word - kOnes * 0x20) & ~word & kHighs;
    if ((below_space | has_zero(word ^ (kOnes * '"')) | has_zero(word ^ (kOnes * '\\'))) != 0) {
      break;
    }
  }
  while (from < text.size() && kPlain[static_cast<unsigned char>(text[from])]) ++from;
  return from;
}

}  // namespace

void append_json_text(TextBuf& out, std::string_view value) {
  const std::size_t escape = next_escape(value, 0);
  if (escape == value.size()) {  // nearly always
    char* const at = out.grow(value.size() + 2);
    at[0] = '"';
    if (!value.empty()) std::memcpy(at + 1, value.data(), value.size());
    at[value.size() + 1] = '"';
    return;
  }
  out.append('"');
  std::size_t start = 0;
  for (std::size_t index = escape; index < value.size(); index = next_escape(value, index + 1)) {
    const auto c = static_cast<unsigned char>(value[index]);
    out.append(value.substr(start, index - start));
    append_escape(out, c);
    start = index + 1;
  }
  out.append(value.substr(start));
  out.append('"');
}

void JsonWriter::separate() {
  if (comma_) out_->append(',');
  comma_ = true;
}

JsonWriter& JsonWriter::begin_object() {
  separate();
  out_->append('{');
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::end_object() {
  out_->append('}');
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::begin_array() {
  separate();
  out_->append('[');
  comma_ = false;
  return *this;
}

JsonWriter& JsonWriter::end_array() {
  out_->append(']');
  comma_ = true;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  const std::size_t comma = comma_ ? 1 : 0;
  comma_ = false;
  if (name.empty() || next_escape(name, 0) != name.size()) {
    if (comma != 0) out_->append(',');
    append_json_text(*out_, name);
    out_->append(':');
    return *this;
  }
  char* at = out_->grow(comma + name.size() + 3);
  if (comma != 0) *at++ = ',';
  *at++ = '"';
  std::memcpy(at, name.data(), name.size());
  at += name.size();
  *at++ = '"';
  *at = ':';
  return *this;
}

JsonWriter& JsonWriter::text(std::string_view value) {
  separate();
  append_json_text(*out_, value);
  return *this;
}

JsonWriter& JsonWriter::number(std::int64_t value) {
  separate();
  out_->append_number(value);
  return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
  separate();
  out_->append(value ? "true" : "false");
  return *this;
}

JsonWriter& JsonWriter::null() {
  separate();
  out_->append("null");
  return *this;
}

JsonWriter& JsonWriter::raw(std::string_view json) {
  separate();
  out_->append(json);
  return *this;
}

JsonWriter& JsonWriter::members(std::string_view json) { return raw(json); }

JsonWriter& JsonWriter::value(const JsonNode& node) {
  switch (node.type) {
    case JsonType::kNull: return null();
    case JsonType::kBool: return boolean(node.boolean);
    case JsonType::kInteger: return number(node.integer);
    case JsonType::kText: return text(node.text);
    case JsonType::kDouble:
    case JsonType::kObject:
    case JsonType::kArray: return raw(node.text);
  }
  return null();
}

JsonWriter& JsonWriter::iso_time(std::uint64_t ms) { return text(cm::view(iso_text(ms))); }

JsonWriter& JsonWriter::iso_time_or_null(std::uint64_t ms) {
  return ms == 0 ? null() : iso_time(ms);
}

JsonWriter& JsonWriter::hex(Bytes bytes) {
  separate();
  char* at = out_->grow(bytes.size() * 2 + 2);
  *at++ = '"';
  for (const std::uint8_t byte : bytes) {
    *at++ = kHex[byte >> 4];
    *at++ = kHex[byte & 15];
  }
  *at = '"';
  return *this;
}

}  // namespace cm::wire
