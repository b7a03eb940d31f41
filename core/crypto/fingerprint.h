// fingerprint.h — what makes two requests the same request (design/delivery.md).
// Owns:   Destination, RequestParts, the fingerprint and its form on the wire.
// Holds:  fields are separated by zero bytes, so a text field with a zero byte is refused.
// Why:    the bare fingerprint would confirm guesses of short bodies; it never leaves the daemon
//         except as an HMAC keyed from the member secret.
// Source: docs/PROTOCOL.md §8.
// Not:    minting ids, looking them up (core/daemon).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/crypto/keys.h"
#include "core/crypto/slab.h"

namespace cm::crypto {

enum class DestinationKind : std::uint8_t { kTopic, kDm, kQueue };

// The words are hashed: they never change.
std::string_view text_of(DestinationKind kind) noexcept;

struct Destination {
  DestinationKind kind = DestinationKind::kDm;
  std::string_view ref;  // lives as long as the text it came from
};

// How a typed `to` enters the fingerprint, before it is resolved to keys (crypto.md §9): "@x" is
// topic "x", "*" is topic "*", all else (names, keys, "#topicId") is dm with the text as typed.
// ASCII white space around it is dropped first.
Destination map_destination(std::string_view to) noexcept;

constexpr std::uint32_t kEnvelopeVersion = 1;

struct RequestParts {
  Destination destination;
  std::string_view reply_to;  // empty when there is none
  std::string_view priority;  // now, next or low; the default is applied before
  std::string_view meta_jcs;  // jcs_append() of meta; empty when absent or null
  Bytes body;                 // the message as accepted, before encryption
};

// Err::kInvalidArgument names the field that holds a zero byte.
Result<Hash32> request_fingerprint(const RequestParts& parts);

// HMAC-SHA-256 under SHA-256("claudemesh-wire-fingerprint-v1" 00 seed of the member secret).
// Stored with the row: it changes with the key, the row's copy does not.
Hash32 wire_fingerprint(const SecretSlab& slab, SecretRef member, const Hash32& fingerprint);

}  // namespace cm::crypto
