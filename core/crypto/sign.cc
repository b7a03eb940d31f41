// sign.cc — libsodium's detached signatures.
// Why:    Debian builds libsodium 1.0.18 without ED25519_COMPAT: crypto_sign_verify_detached
//         itself does the strict checks that sign.h promises. A unit test holds each of them.
#include "core/crypto/sign.h"

#include <sodium.h>

#include <algorithm>

#include "core/crypto/slab_access.h"

namespace cm::crypto {
namespace {

const unsigned char* data_of(std::string_view text) noexcept {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

Signature sign(const SecretSlab& slab, SecretRef signer, std::string_view message) {
  Signature signature;
  crypto_sign_detached(signature.data(), nullptr, data_of(message), message.size(),
                       SlabAccess::secret(slab, signer));
  return signature;
}

bool verify(const PublicKey& signer, std::string_view message,
            const Signature& signature) noexcept {
  return crypto_sign_verify_detached(signature.data(), data_of(message), message.size(),
                                     signer.data()) == 0;
}

Hash32 sha256(Bytes bytes) noexcept {
  Hash32 hash;
  crypto_hash_sha256(hash.data(), bytes.data(), bytes.size());
  return hash;
}

SafetyNumber safety_number(const PublicKey& mine, const PublicKey& theirs) noexcept {
  const PublicKey& low = std::min(mine, theirs);
  const PublicKey& high = std::max(mine, theirs);
  std::array<std::uint8_t, 64> both;
  std::copy(low.begin(), low.end(), both.begin());
  std::copy(high.begin(), high.end(), both.begin() + 32);
  const Hash32 hash = sha256(both);

  SafetyNumber text;
  text.fill(' ');
  for (unsigned group = 0; group < 6; ++group) {
    // Six groups of 20 bits: each starts at a byte's upper or lower half.
    const unsigned bit = group * 20;
    const std::uint8_t* at = hash.data() + bit / 8;
    const std::uint32_t three = (std::uint32_t{at[0]} << 16) | (std::uint32_t{at[1]} << 8) | at[2];
    std::uint32_t value = ((three >> (4 - bit % 8)) & 0xfffffu) % 100000u;
    for (unsigned digit = 5; digit-- > 0;) {
      text[group * 6 + digit] = static_cast<char>('0' + value % 10);
      value /= 10;
    }
  }
  return text;
}

}  // namespace cm::crypto
