// box.cc — the table of precomputed keys: hash chains over a fixed array, a clock for eviction.
// Why:    chains are keyed by SipHash with a random key, since peers choose their own keys and
//         could otherwise choose them to collide.
#include "core/crypto/box.h"

#include <sodium.h>

#include "core/crypto/random.h"
#include "core/crypto/slab_access.h"

namespace cm::crypto {
namespace {

constexpr std::size_t kKeyBytes = crypto_box_BEFORENMBYTES;
static_assert(crypto_box_MACBYTES == kBoxTag);
static_assert(crypto_box_NONCEBYTES == sizeof(Nonce));

// Shared key of an own ed25519 secret and a peer's ed25519 public key, written to `out`.
bool precompute(const std::uint8_t* own_secret, const PublicKey& peer, std::uint8_t* out) noexcept {
  std::uint8_t peer_curve[crypto_scalarmult_curve25519_BYTES];
  // Refuses keys off the curve, of small order and outside the main subgroup.
  if (crypto_sign_ed25519_pk_to_curve25519(peer_curve, peer.data()) != 0) return false;
  std::uint8_t own_curve[crypto_scalarmult_curve25519_SCALARBYTES];
  const bool done = crypto_sign_ed25519_sk_to_curve25519(own_curve, own_secret) == 0 &&
                    crypto_box_beforenm(out, peer_curve, own_curve) == 0;
  sodium_memzero(own_curve, sizeof own_curve);
  if (!done) sodium_memzero(out, kKeyBytes);
  return done;
}

std::size_t bucket_count(std::uint32_t capacity) noexcept {
  std::size_t count = 16;
  while (count < std::size_t{capacity} * 2) count *= 2;
  return count;
}

}  // namespace

BoxCache::BoxCache(const SecretSlab& slab, std::uint32_t capacity)
    : slab_(slab), entries_(capacity), buckets_(bucket_count(capacity), kNone) {
  CHECK(initialise());
  CHECK(capacity > 0);
  const std::size_t bytes = capacity * kKeyBytes;
  region_ = static_cast<std::uint8_t*>(sodium_malloc(bytes));
  CHECK(region_ != nullptr);
  locked_ = sodium_mlock(region_, bytes) == 0;
  sodium_memzero(region_, bytes);
  static_assert(sizeof hash_key_ == crypto_shorthash_KEYBYTES);
  fill_random(hash_key_.data(), hash_key_.size());
}

BoxCache::~BoxCache() { sodium_free(region_); }  // which wipes

std::uint8_t* BoxCache::key_at(std::uint32_t index) const noexcept {
  return region_ + index * kKeyBytes;
}

std::uint32_t BoxCache::bucket_of(SecretRef own, const PublicKey& peer) const noexcept {
  std::uint8_t pair[sizeof(std::uint64_t) + sizeof(PublicKey)];
  store_le(pair, own.bits());
  std::memcpy(pair + sizeof(std::uint64_t), peer.data(), peer.size());
  std::uint8_t hash[crypto_shorthash_BYTES];
  crypto_shorthash(hash, pair, sizeof pair, hash_key_.data());
  return static_cast<std::uint32_t>(load_le<std::uint64_t>(hash) & (buckets_.size() - 1));
}

std::uint32_t BoxCache::find(SecretRef own, const PublicKey& peer) const noexcept {
  std::uint32_t index = buckets_[bucket_of(own, peer)];
  while (index != kNone && !(entries_[index].own == own && entries_[index].peer == peer)) {
    index = entries_[index].next;
  }
  return index;
}

bool BoxCache::contains(SecretRef own, const PublicKey& peer) const noexcept {
  return find(own, peer) != kNone;
}

void BoxCache::drop(std::uint32_t index) noexcept {
  Entry& entry = entries_[index];
  std::uint32_t* link = &buckets_[bucket_of(entry.own, entry.peer)];
  while (*link != index) {
    CHECK(*link != kNone);
    link = &entries_[*link].next;
  }
  *link = entry.next;
  sodium_memzero(key_at(index), kKeyBytes);
  entry = {};
  --count_;
}

// The clock rule: the hand passes over entries used since its last visit, once.
std::uint32_t BoxCache::take_free_entry() noexcept {
  const auto capacity = static_cast<std::uint32_t>(entries_.size());
  for (;;) {
    const std::uint32_t index = hand_;
    hand_ = hand_ + 1 == capacity ? 0 : hand_ + 1;
    Entry& entry = entries_[index];
    if (!entry.own) return index;
    if (!entry.used_lately) {
      drop(index);
      return index;
    }
    entry.used_lately = false;
  }
}

const std::uint8_t* BoxCache::key_for(SecretRef own, const PublicKey& peer) {
  CHECK(slab_.alive(own));
  std::uint32_t index = find(own, peer);
  if (index == kNone) {
    index = take_free_entry();
    if (!precompute(SlabAccess::secret(slab_, own), peer, key_at(index))) return nullptr;
    std::uint32_t& head = buckets_[bucket_of(own, peer)];
    entries_[index] = {peer, own, head, false};
    head = index;
    ++count_;
  }
  entries_[index].used_lately = true;
  return key_at(index);
}

Status BoxCache::seal(SecretRef sender, const PublicKey& recipient, const Nonce& nonce,
                      Bytes plaintext, TextBuf& out) {
  const std::uint8_t* key = key_for(sender, recipient);
  if (key == nullptr) return fail(Err::kInvalidArgument, "recipient: not a usable public key");
  auto* sealed = reinterpret_cast<unsigned char*>(out.grow(plaintext.size() + kBoxTag));
  CHECK(crypto_box_easy_afternm(sealed, plaintext.data(), plaintext.size(), nonce.data(), key) ==
        0);
  return {};
}

Status BoxCache::open(SecretRef receiver, const PublicKey& sender, const Nonce& nonce, Bytes sealed,
                      TextBuf& out) {
  if (sealed.size() < kBoxTag) return Err::kUndecryptable;
  const std::uint8_t* key = key_for(receiver, sender);
  if (key == nullptr) return fail(Err::kInvalidArgument, "sender: not a usable public key");
  const std::size_t before = out.size();
  auto* plain = reinterpret_cast<unsigned char*>(out.grow(sealed.size() - kBoxTag));
  if (crypto_box_open_easy_afternm(plain, sealed.data(), sealed.size(), nonce.data(), key) != 0) {
    out.truncate(before);
    return Err::kUndecryptable;
  }
  return {};
}

void BoxCache::forget(SecretRef ref) noexcept {
  for (std::uint32_t index = 0; index < entries_.size(); ++index) {
    if (entries_[index].own && entries_[index].own == ref) drop(index);
  }
}

bool BoxCache::verify_table() const noexcept {
  std::uint32_t chained = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    for (std::uint32_t index = buckets_[bucket]; index != kNone; index = entries_[index].next) {
      const Entry& entry = entries_[index];
      if (!entry.own || bucket_of(entry.own, entry.peer) != bucket) return false;
      if (++chained > count_) return false;
    }
  }
  std::uint32_t live = 0;
  for (const Entry& entry : entries_) live += entry.own ? 1u : 0u;
  return chained == count_ && live == count_;
}

}  // namespace cm::crypto
