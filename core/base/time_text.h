// time_text.h — ISO-8601 UTC with milliseconds, the time form of the wire and of the log.
// Not:    reading a clock (Env, core/net/loop.h).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace cm {

constexpr std::size_t kIsoText = 24;  // 2026-01-02T03:04:05.678Z
using IsoText = std::array<char, kIsoText>;

// Milliseconds since 1970, up to the year 9999; later times are shown as its last millisecond.
IsoText iso_text(std::uint64_t ms) noexcept;
inline std::string_view view(const IsoText& text) noexcept { return {text.data(), text.size()}; }

// Exactly the form above, or with the milliseconds left out. Nothing else is accepted.
std::optional<std::uint64_t> iso_parse(std::string_view text) noexcept;

}  // namespace cm
