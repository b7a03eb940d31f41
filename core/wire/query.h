// query.h — parameters of a request target: strict percent-decoding, nothing guessed.
// Holds:  names are compared decoded, so that no gate is passed by "to%6Ben"; a name given twice, a
//         bad escape, a NUL or text that is not UTF-8 is malformed, and the caller answers 400.
// Source: docs/PROTOCOL.md §10.3; RFC 3986 §2.1; '+' is a space, as forms write it.
// Limits: 64 parameters; the target itself is bounded by core/net.
// Not:    request parsing (core/net).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/base/arena.h"

namespace cm::wire {

struct QueryValue {
  enum class Kind : std::uint8_t { kAbsent, kFound, kMalformed };
  Kind kind = Kind::kAbsent;
  std::string_view value;  // decoded, in the arena
};

// Looks one parameter up in "a=b&c=d".
QueryValue query_find(std::string_view query, std::string_view name, ScratchArena& arena);

// The first name in `query` that is not among `known`, decoded; a name that cannot be decoded comes
// back as it stands. Nothing when all are known.
std::optional<std::string_view> query_unknown(std::string_view query,
                                              std::initializer_list<std::string_view> known,
                                              ScratchArena& arena);

// Appends `query` with `name` set to `value`, which needs no escaping: what another page of the
// same list is asked with. Only characters that a URI may hold are written as they are.
void query_with(std::string_view query, std::string_view name, std::string_view value,
                ScratchArena& arena, TextBuf& out);

// One segment of a path ('+' stands for itself), or nothing if it is empty, malformed or no UTF-8.
std::optional<std::string_view> path_segment(std::string_view segment, ScratchArena& arena);

}  // namespace cm::wire
