// random.h — starting libsodium, its random source, and random ids and tokens.
// Holds:  ids and tokens take their bytes from the rng that is passed in (Env::rng), so that a
//         simulated run repeats itself.
// Not:    ULIDs (core/base/ulid.h), key pairs (slab.h).
#pragma once

#include <array>
#include <string_view>

#include "core/base/ulid.h"
#include "core/crypto/keys.h"

namespace cm::crypto {

// Call once at start, before a sandbox takes away /dev/urandom; more calls do nothing. False
// when the system has no random source: the program must not go on.
[[nodiscard]] bool initialise() noexcept;

// libsodium's randombytes_buf as a cm::FillRandom.
void fill_random(void* to, std::size_t size) noexcept;

Nonce random_nonce(FillRandom rng) noexcept;

// An id in the form that brokers give: 32 characters of [0-9A-Za-z], each equally likely
// (190 bits).
using Base62Id = std::array<char, 32>;
Base62Id base62_id(FillRandom rng) noexcept;
inline std::string_view view(const Base62Id& id) noexcept { return {id.data(), id.size()}; }

// 32 random bytes as base64url (local token, API key) or as lower-case hex (session token).
// Secrets: the caller wipes them when they are written.
using UrlToken = std::array<char, 43>;
using HexToken = std::array<char, 64>;
UrlToken url_token(FillRandom rng) noexcept;
HexToken hex_token(FillRandom rng) noexcept;

}  // namespace cm::crypto
