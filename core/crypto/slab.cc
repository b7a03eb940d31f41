// slab.cc — slots in a sodium_malloc'ed region, numbered like the rows of a table.
#include "core/crypto/slab.h"

#include <sodium.h>

#include "core/crypto/encoding.h"
#include "core/crypto/random.h"

namespace cm::crypto {

static_assert(crypto_sign_SECRETKEYBYTES == kSecretBytes);
static_assert(crypto_sign_SEEDBYTES == kSeedBytes);

SecretSlab::SecretSlab(std::uint32_t slots) : keys_(slots) {
  CHECK(initialise());
  CHECK(slots > 0);
  const std::size_t bytes = std::size_t{slots} * kSecretBytes;
  region_ = static_cast<std::uint8_t*>(sodium_malloc(bytes));
  CHECK(region_ != nullptr);
  // sodium_malloc locks too, but does not tell whether it could. Locks do not nest, so that
  // sodium_free undoes both.
  locked_ = sodium_mlock(region_, bytes) == 0;
  sodium_memzero(region_, bytes);
}

SecretSlab::~SecretSlab() { sodium_free(region_); }  // which wipes

std::uint8_t* SecretSlab::slot(SecretRef ref) const {
  CHECK(keys_.alive(ref));
  return region_ + std::size_t{ref.slot} * kSecretBytes;
}

Result<SecretRef> SecretSlab::store_seed(Seed seed) {
  const SecretRef ref = keys_.insert();
  if (!ref) return fail(Err::kFull, "slots for secret keys");
  crypto_sign_seed_keypair(keys_.get<0>(ref).data(), slot(ref), seed.data());
  return ref;
}

Result<SecretRef> SecretSlab::store(Secret secret) {
  const auto stored = store_seed(secret.first<kSeedBytes>());
  if (!stored) return stored;
  if (sodium_memcmp(slot(*stored), secret.data(), kSecretBytes) != 0) {
    release(*stored);
    return fail(Err::kInvalidArgument, "secret key: its public half does not fit");
  }
  return stored;
}

Result<SecretRef> SecretSlab::store_hex(std::string_view hex) {
  std::uint8_t secret[kSecretBytes];
  Result<SecretRef> stored = hex_parse_secret(hex, secret)
                                 ? store(secret)
                                 : fail(Err::kMalformed, "secret key: 128 hex digits");
  sodium_memzero(secret, sizeof secret);
  return stored;
}

Result<SecretRef> SecretSlab::generate(PublicKey& out) {
  const SecretRef ref = keys_.insert();
  if (!ref) return fail(Err::kFull, "slots for secret keys");
  crypto_sign_keypair(keys_.get<0>(ref).data(), slot(ref));
  out = keys_.get<0>(ref);
  return ref;
}

void SecretSlab::export_hex(SecretRef ref, std::span<char, kSecretHexText> out) const {
  char with_nul[kSecretHexText + 1];
  sodium_bin2hex(with_nul, sizeof with_nul, slot(ref), kSecretBytes);
  std::memcpy(out.data(), with_nul, kSecretHexText);
  sodium_memzero(with_nul, sizeof with_nul);
}

void SecretSlab::release(SecretRef ref) {
  sodium_memzero(slot(ref), kSecretBytes);
  keys_.erase(ref);
}

}  // namespace cm::crypto
