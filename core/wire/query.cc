// query.cc — walks name=value pairs between ampersands.
#include "core/wire/query.h"

#include <algorithm>

#include "core/base/utf8.h"

namespace cm::wire {
namespace {

constexpr std::size_t kParametersMax = 64;

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool percent_decode(std::string_view text, TextBuf& out, bool plus_is_space = true) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '+' && plus_is_space) {
      out.append(' ');
    } else if (c != '%') {
      out.append(c);
    } else {
      if (text.size() - at < 3) return false;
      const int high = hex_value(text[at + 1]);
      const int low = hex_value(text[at + 2]);
      if (high < 0 || low < 0) return false;
      out.append(static_cast<char>(high * 16 + low));
      at += 2;
    }
  }
  return true;
}

// Takes the first pair off `query`.
std::string_view next_pair(std::string_view& query) noexcept {
  const std::size_t end = query.find('&');
  const std::string_view pair = query.substr(0, end);
  query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
  return pair;
}

// RFC 3986: pchar, '/' and '?', with the percent sign of escapes; neither a quote nor a bracket.
bool may_stand_in_query(char c) noexcept {
  const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return alnum ||
         (c != '\0' && std::string_view("-._~!$&'()*+,;=:@/?%").find(c) != std::string_view::npos);
}

}  // namespace

QueryValue query_find(std::string_view query, std::string_view name, ScratchArena& arena) {
  QueryValue found;
  const QueryValue malformed{QueryValue::Kind::kMalformed, {}};
  for (std::size_t parameters = 0; !query.empty(); ++parameters) {
    if (parameters == kParametersMax) return malformed;
    const std::string_view pair = next_pair(query);
    const std::size_t equals = pair.find('=');
    TextBuf key(arena, 64);
    if (!percent_decode(pair.substr(0, equals), key)) return malformed;
    if (key.view() != name) continue;
    if (found.kind == QueryValue::Kind::kFound) return malformed;
    TextBuf value(arena, 64);
    const std::string_view raw =
        equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1);
    if (!percent_decode(raw, value) || !utf8_valid(value.view())) return malformed;
    if (value.view().find('\0') != std::string_view::npos) return malformed;
    found = {QueryValue::Kind::kFound, value.view()};
  }
  return found;
}

std::optional<std::string_view> query_unknown(std::string_view query,
                                              std::initializer_list<std::string_view> known,
                                              ScratchArena& arena) {
  while (!query.empty()) {
    const std::string_view pair = next_pair(query);
    const std::string_view raw = pair.substr(0, pair.find('='));
    if (pair.empty()) continue;
    TextBuf key(arena, 64);
    if (!percent_decode(raw, key) || !utf8_valid(key.view())) return raw;
    if (std::find(known.begin(), known.end(), key.view()) == known.end()) return key.view();
  }
  return std::nullopt;
}

void query_with(std::string_view query, std::string_view name, std::string_view value,
                ScratchArena& arena, TextBuf& out) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  while (!query.empty()) {
    const std::string_view pair = next_pair(query);
    TextBuf key(arena, 64);
    if (pair.empty() || !percent_decode(pair.substr(0, pair.find('=')), key)) continue;
    if (key.view() == name) continue;
    for (const char c : pair) {
      if (may_stand_in_query(c)) {
        out.append(c);
        continue;
      }
      const auto byte = static_cast<unsigned char>(c);
      out.append('%');
      out.append(kDigits[byte >> 4]);
      out.append(kDigits[byte & 15]);
    }
    out.append('&');
  }
  out.append(name);
  out.append('=');
  out.append(value);
}

std::optional<std::string_view> path_segment(std::string_view segment, ScratchArena& arena) {
  TextBuf value(arena, 64);
  if (segment.empty() || !percent_decode(segment, value, false) || !utf8_valid(value.view()) ||
      value.view().find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  return value.view();
}

}  // namespace cm::wire
