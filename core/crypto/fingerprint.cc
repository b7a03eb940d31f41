// fingerprint.cc — streaming SHA-256 over the parts of a request; nothing is concatenated.
#include "core/crypto/fingerprint.h"

#include <sodium.h>

#include <charconv>

#include "core/crypto/sign.h"
#include "core/crypto/slab_access.h"

namespace cm::crypto {
namespace {

constexpr std::uint8_t kZero = 0;
constexpr std::string_view kWireLabel = "claudemesh-wire-fingerprint-v1";

class Hasher {
 public:
  Hasher() noexcept { crypto_hash_sha256_init(&state_); }
  ~Hasher() { sodium_memzero(&state_, sizeof state_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void add(Bytes bytes) noexcept { crypto_hash_sha256_update(&state_, bytes.data(), bytes.size()); }
  void add_field(std::string_view text) noexcept {
    add(as_bytes(text));
    add({&kZero, 1});
  }
  void finish(std::uint8_t* out) noexcept { crypto_hash_sha256_final(&state_, out); }

 private:
  crypto_hash_sha256_state state_;
};

bool is_space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool has_zero(std::string_view text) noexcept { return text.find('\0') != std::string_view::npos; }

}  // namespace

std::string_view text_of(DestinationKind kind) noexcept {
  switch (kind) {
    case DestinationKind::kTopic: return "topic";
    case DestinationKind::kDm: return "dm";
    case DestinationKind::kQueue: return "queue";
  }
  CHECK(false);
  return {};
}

Destination map_destination(std::string_view to) noexcept {
  while (!to.empty() && is_space(to.front())) to.remove_prefix(1);
  while (!to.empty() && is_space(to.back())) to.remove_suffix(1);
  if (to == "*") return {DestinationKind::kTopic, to};
  if (to.starts_with('@')) return {DestinationKind::kTopic, to.substr(1)};
  return {DestinationKind::kDm, to};
}

Result<Hash32> request_fingerprint(const RequestParts& parts) {
  if (has_zero(parts.destination.ref)) return fail(Err::kInvalidArgument, "to: a zero byte");
  if (has_zero(parts.reply_to)) return fail(Err::kInvalidArgument, "reply_to_id: a zero byte");
  if (has_zero(parts.priority)) return fail(Err::kInvalidArgument, "priority: a zero byte");
  if (has_zero(parts.meta_jcs)) return fail(Err::kInvalidArgument, "meta: a zero byte");

  char version[12];
  const auto end = std::to_chars(version, version + sizeof version, kEnvelopeVersion).ptr;
  Hasher hasher;
  hasher.add_field({version, static_cast<std::size_t>(end - version)});
  hasher.add_field(text_of(parts.destination.kind));
  hasher.add_field(parts.destination.ref);
  hasher.add_field(parts.reply_to);
  hasher.add_field(parts.priority);
  hasher.add_field(parts.meta_jcs);
  hasher.add(sha256(parts.body));
  Hash32 fingerprint;
  hasher.finish(fingerprint.data());
  return fingerprint;
}

Hash32 wire_fingerprint(const SecretSlab& slab, SecretRef member, const Hash32& fingerprint) {
  std::uint8_t key[crypto_hash_sha256_BYTES];
  {
    Hasher hasher;
    hasher.add_field(kWireLabel);
    hasher.add({SlabAccess::secret(slab, member), kSeedBytes});
    hasher.finish(key);
  }
  crypto_auth_hmacsha256_state state;
  crypto_auth_hmacsha256_init(&state, key, sizeof key);
  crypto_auth_hmacsha256_update(&state, fingerprint.data(), fingerprint.size());
  Hash32 mac;
  crypto_auth_hmacsha256_final(&state, mac.data());
  sodium_memzero(key, sizeof key);
  sodium_memzero(&state, sizeof state);
  return mac;
}

}  // namespace cm::crypto
