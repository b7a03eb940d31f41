// slab.h — the one guarded place of secret keys, addressed by SecretRef.
// Owns:   SecretSlab: one sodium_malloc'ed region (guard pages, canary, locked against swapping,
//         left out of core dumps) of fixed 64-byte slots: seed (32), public key (32).
// Holds:  a slot is wiped when it is released; the public half of a slot is that of its seed.
//         Secret bytes leave by export_hex() alone. Whoever needs a key names it by its slot.
// Why:    one sodium_malloc a secret costs 8 KB and four mappings. The region stays readable,
//         since two mprotect calls around each seal would cost more than the seal.
// Limits: Limits::secret_slots_max slots.
#pragma once

#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/table.h"
#include "core/crypto/keys.h"

namespace cm::crypto {

struct SecretTag;
using SecretRef = Ref<SecretTag>;

constexpr std::size_t kSecretBytes = 64;     // libsodium's form: seed, public key
constexpr std::size_t kSeedBytes = 32;       // the first half of it
constexpr std::size_t kSecretHexText = 128;  // its form in config.json and session files
using Secret = std::span<const std::uint8_t, kSecretBytes>;
using Seed = std::span<const std::uint8_t, kSeedBytes>;

class SecretSlab {
 public:
  explicit SecretSlab(std::uint32_t slots);
  ~SecretSlab();
  SecretSlab(const SecretSlab&) = delete;
  SecretSlab& operator=(const SecretSlab&) = delete;

  // Err::kFull when all slots are taken. The caller wipes (sodium_memzero) what it passed in.
  // store() answers Err::kInvalidArgument when the public half does not belong to the seed:
  // signing with such a pair would reveal the secret.
  Result<SecretRef> store(Secret secret);
  Result<SecretRef> store_seed(Seed seed);
  // A new random ed25519 pair, made inside the slot.
  Result<SecretRef> generate(PublicKey& out);
  // Reads the 128 hex digits of config.json; Err::kMalformed when it is anything else.
  Result<SecretRef> store_hex(std::string_view hex);

  // All below CHECK that the ref is alive.
  const PublicKey& public_key(SecretRef ref) const { return keys_.get<0>(ref); }
  // Writes the 128 hex digits for config.json or a session file. This is the only way out of the
  // slab; the caller wipes the text when the file is written.
  void export_hex(SecretRef ref, std::span<char, kSecretHexText> out) const;
  // Call BoxCache::forget() of this ref first.
  void release(SecretRef ref);

  bool alive(SecretRef ref) const noexcept { return keys_.alive(ref); }
  std::uint32_t count() const noexcept { return keys_.count(); }
  // False when the system refused to lock the region (RLIMIT_MEMLOCK); `daemon status` shows it.
  bool locked() const noexcept { return locked_; }

 private:
  friend struct SlabAccess;
  std::uint8_t* slot(SecretRef ref) const;

  Table<SecretTag, PublicKey> keys_;  // its slot numbers are those of the region
  std::uint8_t* region_;
  bool locked_;
};

}  // namespace cm::crypto
