// query.cc — walks name=value pairs between ampersands.
#include "core/wire/query.h"

namespace cm::wire {
namespace {

constexpr std::size_t kValueMax = 4096;

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The raw value of the first pair of this name; nullopt when there is none.
std::optional<std::string_view> find_raw(std::string_view query, std::string_view name) noexcept {
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    const std::size_t equals = pair.find('=');
    if (pair.substr(0, equals) == name) {
      return equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1);
    }
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return std::nullopt;
}

}  // namespace

bool has_query_parameter(std::string_view query, std::string_view name) noexcept {
  return find_raw(query, name).has_value();
}

std::optional<std::string_view> query_parameter(std::string_view query, std::string_view name,
                                                ScratchArena& scratch, bool& malformed) {
  const auto raw = find_raw(query, name);
  if (!raw) return std::nullopt;
  if (raw->size() > kValueMax) {
    malformed = true;
    return std::nullopt;
  }
  TextBuf value(scratch, raw->size() + 1);
  for (std::size_t index = 0; index < raw->size(); ++index) {
    char c = (*raw)[index];
    if (c == '%') {
      const int high = index + 2 < raw->size() ? hex_digit((*raw)[index + 1]) : -1;
      const int low = index + 2 < raw->size() ? hex_digit((*raw)[index + 2]) : -1;
      if (high < 0 || low < 0 || (high == 0 && low == 0)) {
        malformed = true;
        return std::nullopt;
      }
      c = static_cast<char>(high * 16 + low);
      index += 2;
    }
    value.append(c);
  }
  return value.view();
}

}  // namespace cm::wire
