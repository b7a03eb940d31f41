// number_text.h — a double as ECMAScript writes it (Number::toString, RFC 8785 §3.2.2.3).
// Holds:  the text is the shortest that reads back as the same double; -0 is "0".
// Why:    std::to_chars gives the shortest digits; only the layout around them is ours.
// Not:    reading numbers (jcs.cc).
#pragma once

#include "core/base/arena.h"

namespace cm::crypto {

constexpr std::size_t kNumberTextMax = 25;  // -0.000001234567890123456

// CHECKs that the value is finite: JSON has no text for the others. At most kNumberTextMax bytes.
void jcs_number(double value, TextBuf& out);

}  // namespace cm::crypto
