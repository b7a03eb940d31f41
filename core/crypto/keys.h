// keys.h — the fixed-size public values of the protocol, and comparing without a timing trace.
// Owns:   PublicKey, Signature, Nonce, Hash32 and their sizes.
// Holds:  nothing in here is secret. Secret bytes have no type of their own: they are named by a
//         SecretRef and stay in the slab.
// Not:    secrets (slab.h), their text forms (encoding.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"

namespace cm::crypto {

using PublicKey = std::array<std::uint8_t, 32>;  // ed25519
using Signature = std::array<std::uint8_t, 64>;  // ed25519, detached
using Nonce = std::array<std::uint8_t, 24>;      // crypto_box
using Hash32 = std::array<std::uint8_t, 32>;     // SHA-256 or HMAC-SHA-256

constexpr std::size_t kBoxTag = 16;  // bytes that a sealed message is longer than its plaintext

// For tokens and MACs: the time depends on the sizes alone. Sizes are not secret.
bool equal_in_constant_time(Bytes left, Bytes right) noexcept;

}  // namespace cm::crypto
