// encoding.h — bytes to text and back: hex, base64, base64url (spec/crypto.md §1).
// Holds:  decoders accept exactly one text for each value: full length, no white space, padding
//         as the variant demands, no stray bits behind the last byte.
// Why:    keys and tokens are compared as texts by peers, so two texts of one value are a hole.
// Not:    JSON strings (jcs.h, core/wire), ids (core/base/ulid.h).
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "core/base/arena.h"
#include "core/base/bytes.h"
#include "core/crypto/keys.h"

namespace cm::crypto {

// Lower case, 2 characters a byte.
void hex_append(Bytes bytes, TextBuf& out);

using HexText64 = std::array<char, 64>;
HexText64 hex_text(const std::array<std::uint8_t, 32>& bytes) noexcept;
inline std::string_view view(const HexText64& text) noexcept { return {text.data(), text.size()}; }

// Fills `out` exactly; false (and `out` unspecified) unless text is 2 * out.size() hex digits.
// Keys and hashes are lower case only: they are compared as texts. Signatures may be of either.
// Both are for what everybody may see: they look digits up in a table.
bool hex_parse_lower(std::string_view text, MutableBytes out) noexcept;
bool hex_parse_any_case(std::string_view text, MutableBytes out) noexcept;
// The same in constant time, of either case.
bool hex_parse_secret(std::string_view text, MutableBytes out) noexcept;
bool is_hex_text(std::string_view text, std::size_t digits) noexcept;  // of either case
std::optional<PublicKey> public_key_parse(std::string_view hex) noexcept;
std::optional<Signature> signature_parse(std::string_view hex) noexcept;

// Standard alphabet with padding: nonces, ciphertexts, sealed keys.
void base64_append(Bytes bytes, TextBuf& out);
bool base64_parse(std::string_view text, MutableBytes out) noexcept;  // fills `out` exactly
std::optional<Nonce> nonce_parse(std::string_view base64) noexcept;
// The bytes live in the arena until its reset().
std::optional<Bytes> base64_decode(std::string_view text, ScratchArena& arena);

// URL alphabet without padding: invites, root keys, tokens.
void base64url_append(Bytes bytes, TextBuf& out);
bool base64url_parse(std::string_view text, MutableBytes out) noexcept;  // fills `out` exactly
std::optional<Bytes> base64url_decode(std::string_view text, ScratchArena& arena);

}  // namespace cm::crypto
