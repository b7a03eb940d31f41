// random.cc — libsodium's generator and the texts made from it.
#include "core/crypto/random.h"

#include <sodium.h>

#include <cstring>

namespace cm::crypto {

bool initialise() noexcept { return sodium_init() >= 0; }

void fill_random(void* to, std::size_t size) noexcept { randombytes_buf(to, size); }

Nonce random_nonce(FillRandom rng) noexcept {
  Nonce nonce;
  rng(nonce.data(), nonce.size());
  return nonce;
}

Base62Id base62_id(FillRandom rng) noexcept {
  constexpr char kAlphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  Base62Id id;
  std::size_t made = 0;
  while (made < id.size()) {
    // Six bits of each byte; the two values too many are dropped, a remainder would favour some.
    std::array<std::uint8_t, 40> bytes;
    rng(bytes.data(), bytes.size());
    for (const std::uint8_t byte : bytes) {
      const unsigned value = byte & 63u;
      if (value < 62 && made < id.size()) id[made++] = kAlphabet[value];
    }
  }
  return id;
}

UrlToken url_token(FillRandom rng) noexcept {
  std::uint8_t bytes[32];
  rng(bytes, sizeof bytes);
  char with_nul[sizeof(UrlToken) + 1];
  sodium_bin2base64(with_nul, sizeof with_nul, bytes, sizeof bytes,
                    sodium_base64_VARIANT_URLSAFE_NO_PADDING);
  UrlToken token;
  std::memcpy(token.data(), with_nul, token.size());
  sodium_memzero(bytes, sizeof bytes);
  sodium_memzero(with_nul, sizeof with_nul);
  return token;
}

HexToken hex_token(FillRandom rng) noexcept {
  std::uint8_t bytes[32];
  rng(bytes, sizeof bytes);
  char with_nul[sizeof(HexToken) + 1];
  sodium_bin2hex(with_nul, sizeof with_nul, bytes, sizeof bytes);
  HexToken token;
  std::memcpy(token.data(), with_nul, token.size());
  sodium_memzero(bytes, sizeof bytes);
  sodium_memzero(with_nul, sizeof with_nul);
  return token;
}

}  // namespace cm::crypto
