// log.cc — renders one event as one JSON line of at most 4 KiB, without touching the heap.
// Holds:  a line is always valid JSON: fields that no longer fit are left out whole, bytes that
//         are no UTF-8 are shown as U+FFFD.
#include "core/base/log.h"

#include <charconv>
#include <cstring>

#include "core/base/time_text.h"

namespace cm {
namespace {

constexpr std::string_view kSecretKeys[] = {
    "token",        "secret",   "secretkey",     "secret_key",    "passphrase", "password",
    "rootkey",      "root_key", "mesh_root_key", "authorization", "nonce",      "signature",
    "invite_token", "body",     "message",       "plaintext"};

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equals_ignoring_case(std::string_view left, std::string_view right) noexcept {
  if (left.size() != right.size()) return false;
  for (std::size_t index = 0; index < left.size(); ++index) {
    if (lower(left[index]) != right[index]) return false;
  }
  return true;
}

bool ends_ignoring_case(std::string_view text, std::string_view end) noexcept {
  return text.size() >= end.size() &&
         equals_ignoring_case(text.substr(text.size() - end.size()), end);
}

bool holds_ignoring_case(std::string_view text, std::string_view part) noexcept {
  for (std::size_t at = 0; at + part.size() <= text.size(); ++at) {
    if (equals_ignoring_case(text.substr(at, part.size()), part)) return true;
  }
  return false;
}

// 128 hex digits are a secret key or a signature (spec/crypto.md §1), wherever they stand.
bool holds_long_hex(std::string_view text) noexcept {
  std::size_t run = 0;
  for (const char c : text) {
    const bool digit = (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'f');
    run = digit ? run + 1 : 0;
    if (run == 128) return true;
  }
  return false;
}

// The bytes of the well-formed UTF-8 character at the front (RFC 3629 §4), or 0.
std::size_t utf8_front(std::string_view text) noexcept {
  const auto byte = [&](std::size_t index) {
    return index < text.size() ? static_cast<unsigned char>(text[index]) : 0u;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const unsigned least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < least || byte(1) > most) return 0;
  for (std::size_t index = 2; index < size; ++index) {
    if (byte(index) < 0x80 || byte(index) > 0xbf) return 0;
  }
  return size;
}

class Line {
 public:
  bool add(std::string_view text) noexcept {
    if (size_ + text.size() > kRoom) return false;
    std::memcpy(data_ + size_, text.data(), text.size());
    size_ += text.size();
    return true;
  }
  bool add_number(std::int64_t number) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    return add({digits, static_cast<std::size_t>(end - digits)});
  }
  bool add_quoted(std::string_view text) noexcept {
    if (!add("\"")) return false;
    while (!text.empty()) {
      const char c = text.front();
      const auto byte = static_cast<unsigned char>(c);
      const std::size_t size = utf8_front(text);
      char escaped[8];
      std::string_view piece = size == 0 ? "\\ufffd" : text.substr(0, size);
      text.remove_prefix(size == 0 ? 1 : size);
      if (c == '"' || c == '\\') {
        escaped[0] = '\\';
        escaped[1] = c;
        piece = {escaped, 2};
      } else if (byte < 0x20 || byte == 0x7f) {
        constexpr char kHex[] = "0123456789abcdef";
        std::memcpy(escaped, "\\u00", 4);
        escaped[4] = kHex[byte >> 4];
        escaped[5] = kHex[byte & 15];
        piece = {escaped, 6};
      }
      if (!add(piece)) return false;
    }
    return add("\"");
  }
  std::size_t mark() const noexcept { return size_; }
  void rewind(std::size_t mark) noexcept { size_ = mark; }
  std::string_view finish() noexcept {
    std::memcpy(data_ + size_, "}\n", 2);
    return {data_, size_ + 2};
  }

 private:
  static constexpr std::size_t kRoom = 4096 - 2;
  char data_[kRoom + 2];
  std::size_t size_ = 0;
};

std::string_view level_name(LogLevel level) noexcept {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarn: return "warn";
    case LogLevel::kError: return "error";
  }
  return "error";
}

bool add_value(Line& line, const LogField& field) noexcept {
  switch (field.kind) {
    case LogField::Kind::kNumber: return line.add_number(field.number);
    case LogField::Kind::kBool: return line.add(field.number != 0 ? "true" : "false");
    case LogField::Kind::kText:
      return line.add_quoted(log_redacts(field.key, field.text) ? "***" : field.text);
  }
  return false;
}

}  // namespace

bool log_redacts(std::string_view key, std::string_view value) noexcept {
  for (const std::string_view secret : kSecretKeys) {
    if (equals_ignoring_case(key, secret)) return true;
  }
  for (const std::string_view end : {"token", "secret", "passphrase", "password"}) {
    if (ends_ignoring_case(key, end)) return true;
  }
  return holds_long_hex(value) || holds_ignoring_case(value, "bearer ") ||
         holds_ignoring_case(value, "claudemesh-session ");
}

void Log::write(LogLevel level, std::string_view event,
                std::initializer_list<LogField> fields) const {
  if (!enabled(level)) return;
  Line line;
  const IsoText ts = iso_text(clock_(context_));
  line.add("{\"ts\":");
  line.add_quoted(view(ts));
  line.add(",\"level\":");
  line.add_quoted(level_name(level));
  line.add(",\"event\":");
  line.add_quoted(event);
  for (const LogField& field : fields) {
    const std::size_t mark = line.mark();
    if (!(line.add(",") && line.add_quoted(field.key) && line.add(":") && add_value(line, field))) {
      line.rewind(mark);
    }
  }
  sink_(context_, line.finish());
}

}  // namespace cm
