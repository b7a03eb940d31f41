// hash.h — a fast 64-bit hash for tables in memory and for lanes (xxHash's XXH3).
// Holds:  the value of equal bytes is equal on every machine: lane hashes are stored in rows.
// Not:    anything an attacker may gain by colliding; that is core/crypto's SHA-256.
#pragma once

#include <cstdint>

#include "core/base/bytes.h"

namespace cm {

std::uint64_t hash64(Bytes bytes, std::uint64_t seed = 0) noexcept;

}  // namespace cm
