// query.h — parameters of a request target: strict percent-decoding, first match, bounded.
// Source: RFC 3986 §2.1; '+' is not a space here.
// Not:    request parsing (core/net).
#pragma once

#include <optional>
#include <string_view>

#include "core/base/arena.h"

namespace cm::wire {

// The decoded value of the first parameter of this name; nullopt when it is absent. A value that
// is malformed (bad escape, a NUL byte) or over 4 KiB counts as absent and sets `malformed`.
std::optional<std::string_view> query_parameter(std::string_view query, std::string_view name,
                                                ScratchArena& scratch, bool& malformed);

// True if the parameter is there at all, with or without a value.
bool has_query_parameter(std::string_view query, std::string_view name) noexcept;

}  // namespace cm::wire
