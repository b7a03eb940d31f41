// log.cc — renders one event as one JSON line of at most 4 KiB, without touching the heap.
// Holds:  a line is always valid JSON: fields that no longer fit are left out whole.
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

bool equals_ignoring_case(std::string_view left, std::string_view right) noexcept {
  if (left.size() != right.size()) return false;
  for (std::size_t index = 0; index < left.size(); ++index) {
    const char c = left[index];
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower != right[index]) return false;
  }
  return true;
}

bool is_hex(std::string_view text) noexcept {
  for (const char c : text) {
    const bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!digit) return false;
  }
  return true;
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
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      char escaped[8];
      std::string_view piece(&c, 1);
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
  // 128 hex digits are a secret key or a signature (spec/crypto.md §1); neither is printed.
  if (value.size() == 128 && is_hex(value)) return true;
  return value.find("Bearer ") != std::string_view::npos ||
         value.find("ClaudeMesh-Session ") != std::string_view::npos;
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
