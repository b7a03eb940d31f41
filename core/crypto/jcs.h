// jcs.h — the canonical form of a JSON text (RFC 8785), from which hashes are taken.
// Holds:  one value has one form. What has no form is refused: bytes that are not UTF-8, lone
//         surrogates, a key twice in an object (after unescaping), numbers beyond a double,
//         anything that RFC 8259 does not allow, anything behind the value.
// Why:    a fingerprint over two readings of one text would let two requests pass for one.
// Limits: kJcsDepthMax levels, kJcsBytesMax bytes; time is n log n; no recursion.
//         Texts like 0e400 or 1000...e-300, whose parts alone pass a double, are refused too.
// Not:    reading frames (core/wire).
#pragma once

#include <string_view>

#include "core/base/arena.h"
#include "core/base/result.h"

namespace cm::crypto {

constexpr std::size_t kJcsDepthMax = 64;       // arrays and objects around a value
constexpr std::size_t kJcsBytesMax = 1 << 20;  // of input

// Appends the canonical form of `json` to `out`; on an error nothing is appended. Works in the
// arena of `out` (up to 60 times the input for a text of many one-digit numbers). `json` must not
// be what `out` holds. Errors: Err::kTooBig, or Err::kMalformed with the place of the fault;
// neither quotes the text.
Status jcs_append(std::string_view json, TextBuf& out);

// Orders two UTF-8 texts as their UTF-16 code units (RFC 8785 §3.2.3): below, at or above 0.
int compare_as_utf16(std::string_view left, std::string_view right) noexcept;

}  // namespace cm::crypto
