// utf8.cc — the validator: ASCII in steps of 32 or 8 bytes, other characters one at a time.
// Holds:  reads only inside the given text.
// Not:    vector instructions; measured, messages are nearly all ASCII.
#include "core/base/utf8.h"

#include <cstdint>

#include "core/base/bytes.h"

namespace cm {
namespace {

std::uint64_t word(const std::uint8_t* at) noexcept { return load_le<std::uint64_t>(at); }
bool all_ascii(std::uint64_t bytes) noexcept { return (bytes & 0x8080808080808080ull) == 0; }

bool tail(std::uint8_t byte) noexcept { return (byte & 0xc0u) == 0x80u; }

// Size of the well-formed character at `at` (RFC 3629 §4, table of the ABNF), or 0.
std::size_t character(const std::uint8_t* at, std::size_t left) noexcept {
  const std::uint8_t lead = at[0];
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || left < 2) return 0;
  const std::uint8_t second = at[1];
  if (lead < 0xe0) return tail(second) ? 2 : 0;
  if (lead < 0xf0) {
    if (left < 3 || !tail(second) || !tail(at[2])) return 0;
    if (lead == 0xe0 && second < 0xa0) return 0;   // overlong
    if (lead == 0xed && second >= 0xa0) return 0;  // surrogate
    return 3;
  }
  if (lead > 0xf4 || left < 4 || !tail(second) || !tail(at[2]) || !tail(at[3])) return 0;
  if (lead == 0xf0 && second < 0x90) return 0;   // overlong
  if (lead == 0xf4 && second >= 0x90) return 0;  // above U+10FFFF
  return 4;
}

}  // namespace

std::size_t utf8_valid_bytes(std::string_view text) noexcept {
  const Bytes bytes = as_bytes(text);
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::uint8_t* here = bytes.data() + at;
    if (bytes.size() - at >= 32 &&
        all_ascii(word(here) | word(here + 8) | word(here + 16) | word(here + 24))) {
      at += 32;
      continue;
    }
    if (bytes.size() - at >= 8 && all_ascii(word(here))) {
      at += 8;
      continue;
    }
    const std::size_t size = character(here, bytes.size() - at);
    if (size == 0) break;
    at += size;
  }
  return at;
}

std::string_view utf8_prefix(std::string_view text, std::size_t bytes) noexcept {
  if (text.size() <= bytes) return text;
  std::size_t end = bytes;
  while (end > 0 && tail(static_cast<std::uint8_t>(text[end]))) --end;
  return text.substr(0, end);
}

}  // namespace cm
