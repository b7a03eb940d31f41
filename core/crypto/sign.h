// sign.h — ed25519 signatures (RFC 8032, detached) and the safety number of two keys.
// Holds:  verify() refuses small-order and non-canonical keys, small-order R and S >= L, so that
//         one message has one signature and no key signs everything.
// Not:    the signed texts (canonical.h).
#pragma once

#include <array>
#include <string_view>

#include "core/base/bytes.h"
#include "core/crypto/keys.h"
#include "core/crypto/slab.h"

namespace cm::crypto {

// About 18 us.
Signature sign(const SecretSlab& slab, SecretRef signer, std::string_view message);

// About 52 us: never on the path of each message in the broker (design/performance.md).
bool verify(const PublicKey& signer, std::string_view message, const Signature& signature) noexcept;

Hash32 sha256(Bytes bytes) noexcept;

// "07983 28574 65810 06567 38069 72583", equal on both sides (spec/crypto.md §8). Both keys are
// member keys: session keys would give the two sides different numbers.
using SafetyNumber = std::array<char, 35>;
SafetyNumber safety_number(const PublicKey& mine, const PublicKey& theirs) noexcept;
inline std::string_view view(const SafetyNumber& text) noexcept {
  return {text.data(), text.size()};
}

}  // namespace cm::crypto
