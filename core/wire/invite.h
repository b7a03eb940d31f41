// invite.h — the v1 invite: a signed payload in a token, and the links that carry it.
// Owns:   Invite, token and payload forms.
// Holds:  the broker knows a token by its exact text, so a token is passed on unmodified.
// Source: docs/PROTOCOL.md §7.1; spec/enrollment.md §5.2, §5.3; canonical text:
//         core/crypto/canonical.h.
// Not:    short codes (their resolver is HTTP), judging expiry and use (core/broker).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/result.h"
#include "core/crypto/keys.h"
#include "core/wire/json_tape.h"

namespace cm::wire {

struct Invite {
  std::string_view mesh_id;
  std::string_view mesh_slug;
  std::string_view broker_url;
  std::uint64_t expires_at_s = 0;  // unix seconds
  std::string_view mesh_root_key;  // base64url of 32 bytes
  std::string_view role;           // admin or member
  crypto::PublicKey owner{};
  crypto::Signature signature{};
};

// `object` is the payload itself: the JSON inside a token, or `invite_payload` of a join.
Status parse_invite(const JsonTape& tape, const JsonNode& object, Invite& invite);
void write_invite(const Invite& invite, TextBuf& out);

// The token in any form a person may paste: the raw token, ic://join/<token>,
// http(s)://<host>[/<xx>]/join/<token>. kMalformed says what was expected.
Result<std::string_view> invite_token_of(std::string_view pasted);

// token -> payload. Views live in `scratch`. The signature is verified against the embedded
// owner key: kInviteBadSignature.
Status decode_invite_token(JsonParser& parser, std::string_view token, ScratchArena& scratch,
                           Invite& invite);
Status verify_invite(const Invite& invite, ScratchArena& scratch);

}  // namespace cm::wire
