// canonical.h — the texts that are signed (spec/crypto.md §3, design/delivery.md).
// Holds:  fields are joined by '|' and nothing is escaped, so a '|' inside a text field is refused
//         (Err::kInvalidArgument naming the field). On an error nothing is appended.
// Why:    two records with one text would share a signature.
// Source: docs/PROTOCOL.md §2, §7, §7.1.
// Not:    signing (sign.h), judging times, roles or capabilities (core/broker, core/daemon).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/arena.h"
#include "core/base/result.h"
#include "core/crypto/keys.h"

namespace cm::crypto {

// Signed by the member.
Status canonical_hello(std::string_view mesh_id, std::string_view member_id,
                       const PublicKey& member, std::uint64_t timestamp_ms, TextBuf& out);

// Signed by the member (parent). Version 1 grants every capability, version 2 those listed; an
// empty list grants none and its text ends with '|'.
void canonical_attestation_v1(const PublicKey& parent, const PublicKey& session,
                              std::uint64_t expires_at_ms, TextBuf& out);
Status canonical_attestation_v2(const PublicKey& parent, const PublicKey& session,
                                std::uint64_t expires_at_ms,
                                std::span<const std::string_view> capabilities, TextBuf& out);

// The capabilities in lower case, sorted, without repetitions, joined by ','. At most
// kCapabilitiesMax of 1 to kCapabilityText characters of [A-Za-z0-9._:-].
constexpr std::size_t kCapabilitiesMax = 64;
constexpr std::size_t kCapabilityText = 64;
Status capabilities_csv(std::span<const std::string_view> capabilities, TextBuf& out);

// Signed by the session.
Status canonical_session_hello(std::string_view mesh_id, const PublicKey& parent,
                               const PublicKey& session, std::uint64_t timestamp_ms, TextBuf& out);

// Both signed by the mesh owner. Expiry in seconds since 1970.
struct InviteV1 {
  std::string_view mesh_id;
  std::string_view mesh_slug;
  std::string_view broker_url;
  std::uint64_t expires_at_s = 0;
  std::string_view mesh_root_key;  // base64url, as it stands in the token
  std::string_view role;
  PublicKey owner{};
};
Status canonical_invite_v1(const InviteV1& invite, TextBuf& out);
Status canonical_invite_v2(std::string_view mesh_id, std::string_view invite_id,
                           std::uint64_t expires_at_s, std::string_view role,
                           const PublicKey& owner, TextBuf& out);

// Signed by the recipient's routing key. `ciphertext_hash` is the SHA-256 of the ciphertext's
// bytes. The client's id may hold a '|': all fields around it cannot, so its place is certain.
struct HandedReceipt {
  std::string_view mesh_id;
  std::string_view broker_message_id;
  std::string_view client_message_id;
  PublicKey recipient{};
  Hash32 ciphertext_hash{};
  std::uint64_t handed_at_ms = 0;
};
Status canonical_handed(const HandedReceipt& receipt, TextBuf& out);

}  // namespace cm::crypto
