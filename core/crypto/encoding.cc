// encoding.cc — libsodium's codecs behind strict sizes.
// Holds:  libsodium decodes secrets in constant time and refuses stray bits, white space and a
// wrong
//         padding when it is given no characters to ignore; case and size are checked here.
#include "core/crypto/encoding.h"

#include <sodium.h>

#include <array>

namespace cm::crypto {
namespace {

constexpr int kPadded = sodium_base64_VARIANT_ORIGINAL;
constexpr int kUrl = sodium_base64_VARIANT_URLSAFE_NO_PADDING;

void append(Bytes bytes, int variant, TextBuf& out) {
  // The length counts the closing NUL, which is cut off again.
  const std::size_t before = out.size();
  const std::size_t room = sodium_base64_encoded_len(bytes.size(), variant);
  sodium_bin2base64(out.grow(room), room, bytes.data(), bytes.size(), variant);
  out.truncate(before + room - 1);
}

bool parse(std::string_view text, int variant, MutableBytes out, std::size_t& size) noexcept {
  return sodium_base642bin(out.data(), out.size(), text.data(), text.size(), nullptr, &size,
                           nullptr, variant) == 0;
}

// The value of each hex digit; of any other character, something above 15.
constexpr std::array<std::uint8_t, 256> make_digits(bool capitals) {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(0xff);
  for (std::uint8_t value = 0; value < 16; ++value) {
    if (value < 10) {
      digits['0' + std::size_t{value}] = value;
    } else {
      digits['a' + std::size_t{value} - 10] = value;
      if (capitals) digits['A' + std::size_t{value} - 10] = value;
    }
  }
  return digits;
}
constexpr auto kHexDigits = make_digits(true);
constexpr auto kLowerHexDigits = make_digits(false);

bool hex_parse(std::string_view text, MutableBytes out,
               const std::array<std::uint8_t, 256>& digits) noexcept {
  if (text.size() != out.size() * 2) return false;
  unsigned seen = 0;
  for (std::size_t index = 0; index < out.size(); ++index) {
    const unsigned high = digits[static_cast<unsigned char>(text[2 * index])];
    const unsigned low = digits[static_cast<unsigned char>(text[2 * index + 1])];
    seen |= high | low;
    out[index] = static_cast<std::uint8_t>(high << 4 | (low & 15u));
  }
  return seen < 16;
}

bool parse_exactly(std::string_view text, int variant, MutableBytes out) noexcept {
  std::size_t size = 0;
  return parse(text, variant, out, size) && size == out.size();
}

std::optional<Bytes> decode(std::string_view text, int variant, ScratchArena& arena) {
  const std::size_t room = text.size() / 4 * 3 + 3;
  MutableBytes out(arena.allocate(room, 1), room);
  std::size_t size = 0;
  if (!parse(text, variant, out, size)) return std::nullopt;
  return Bytes(out.first(size));
}

}  // namespace

bool equal_in_constant_time(Bytes left, Bytes right) noexcept {
  return left.size() == right.size() && sodium_memcmp(left.data(), right.data(), left.size()) == 0;
}

void hex_append(Bytes bytes, TextBuf& out) {
  const std::size_t before = out.size();
  const std::size_t room = bytes.size() * 2 + 1;  // with the closing NUL, cut off again
  sodium_bin2hex(out.grow(room), room, bytes.data(), bytes.size());
  out.truncate(before + room - 1);
}

HexText64 hex_text(const std::array<std::uint8_t, 32>& bytes) noexcept {
  char with_nul[65];
  sodium_bin2hex(with_nul, sizeof with_nul, bytes.data(), bytes.size());
  HexText64 text;
  std::memcpy(text.data(), with_nul, text.size());
  return text;
}

bool hex_parse_any_case(std::string_view text, MutableBytes out) noexcept {
  return hex_parse(text, out, kHexDigits);
}

bool hex_parse_lower(std::string_view text, MutableBytes out) noexcept {
  return hex_parse(text, out, kLowerHexDigits);
}

bool hex_parse_secret(std::string_view text, MutableBytes out) noexcept {
  if (text.size() != out.size() * 2) return false;
  std::size_t size = 0;
  return sodium_hex2bin(out.data(), out.size(), text.data(), text.size(), nullptr, &size,
                        nullptr) == 0 &&
         size == out.size();
}

bool is_hex_text(std::string_view text, std::size_t digits) noexcept {
  if (text.size() != digits) return false;
  for (const char c : text) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!good) return false;
  }
  return true;
}

std::optional<PublicKey> public_key_parse(std::string_view hex) noexcept {
  PublicKey key;
  if (!hex_parse_lower(hex, key)) return std::nullopt;
  return key;
}

std::optional<Signature> signature_parse(std::string_view hex) noexcept {
  Signature signature;
  if (!hex_parse_any_case(hex, signature)) return std::nullopt;
  return signature;
}

void base64_append(Bytes bytes, TextBuf& out) { append(bytes, kPadded, out); }
void base64url_append(Bytes bytes, TextBuf& out) { append(bytes, kUrl, out); }

bool base64_parse(std::string_view text, MutableBytes out) noexcept {
  return parse_exactly(text, kPadded, out);
}
bool base64url_parse(std::string_view text, MutableBytes out) noexcept {
  return parse_exactly(text, kUrl, out);
}

std::optional<Nonce> nonce_parse(std::string_view base64) noexcept {
  Nonce nonce;
  if (!base64_parse(base64, nonce)) return std::nullopt;
  return nonce;
}

std::optional<Bytes> base64_decode(std::string_view text, ScratchArena& arena) {
  return decode(text, kPadded, arena);
}
std::optional<Bytes> base64url_decode(std::string_view text, ScratchArena& arena) {
  return decode(text, kUrl, arena);
}

}  // namespace cm::crypto
