// box.h — encryption of direct messages: crypto_box between ed25519 identities (crypto.md §4).
// Owns:   BoxCache: precomputed keys of (own secret, peer) pairs in a guarded region.
// Holds:  an evicted or forgotten key is wiped. A peer's key of small order, outside the main
//         subgroup or not on the curve is refused, and so is an all-zero shared secret.
// Why:    precomputing costs 80 us with the curve conversions, sealing with a kept key 1.4 us.
// Limits: Limits::box_keys_max pairs, evicted by the clock rule. One pair serves both directions.
// Source: docs/PROTOCOL.md §8.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/arena.h"
#include "core/base/result.h"
#include "core/crypto/keys.h"
#include "core/crypto/slab.h"

namespace cm::crypto {

class BoxCache {
 public:
  // The slab outlives the cache.
  BoxCache(const SecretSlab& slab, std::uint32_t capacity);
  ~BoxCache();
  BoxCache(const BoxCache&) = delete;
  BoxCache& operator=(const BoxCache&) = delete;

  // Appends the tag (16 bytes) and the ciphertext, raw. A nonce is used once: random_nonce().
  // Err::kInvalidArgument: the recipient's key is not usable. CHECKs that `sender` is alive.
  Status seal(SecretRef sender, const PublicKey& recipient, const Nonce& nonce, Bytes plaintext,
              TextBuf& out);

  // Appends the plaintext. Err::kInvalidArgument: the sender's key is not usable.
  // Err::kUndecryptable: too short, not meant for this key, or changed on its way. On an error
  // nothing is appended.
  Status open(SecretRef receiver, const PublicKey& sender, const Nonce& nonce, Bytes sealed,
              TextBuf& out);

  // Wipes all keys of this secret. Call it before SecretSlab::release().
  void forget(SecretRef ref) noexcept;

  std::uint32_t count() const noexcept { return count_; }
  bool contains(SecretRef own, const PublicKey& peer) const noexcept;
  bool locked() const noexcept { return locked_; }  // as SecretSlab::locked()
  // Each live entry is in exactly its own chain. Part of verify_all().
  bool verify_table() const noexcept;

 private:
  struct Entry {
    PublicKey peer{};
    SecretRef own;             // empty: the entry is free
    std::uint32_t next = 0;    // in its hash chain; kNone ends it
    bool used_lately = false;  // the clock's mark
  };
  static constexpr std::uint32_t kNone = 0xffffffffu;

  std::uint32_t bucket_of(SecretRef own, const PublicKey& peer) const noexcept;
  std::uint32_t find(SecretRef own, const PublicKey& peer) const noexcept;
  std::uint32_t take_free_entry() noexcept;
  void drop(std::uint32_t index) noexcept;
  // The precomputed key of the pair, or null when the peer's key is not usable.
  const std::uint8_t* key_for(SecretRef own, const PublicKey& peer);
  std::uint8_t* key_at(std::uint32_t index) const noexcept;

  const SecretSlab& slab_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> buckets_;  // a power of two of chain heads
  std::uint8_t* region_;                // entries_.size() keys of 32 bytes
  std::array<std::uint8_t, 16> hash_key_;
  std::uint32_t count_ = 0;
  std::uint32_t hand_ = 0;
  bool locked_;
};

}  // namespace cm::crypto
