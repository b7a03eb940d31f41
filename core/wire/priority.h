// priority.h — the three priorities and their words on the wire.
// Holds:  numbers sort as they are served: now, next, low. store::Priority has the same values.
// Source: docs/PROTOCOL.md §5.3.
// Not:    status gating (core/broker).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace cm::wire {

enum class Priority : std::uint8_t { kNow = 0, kNext = 1, kLow = 2 };
constexpr std::size_t kPriorities = 3;

constexpr std::string_view text_of(Priority priority) noexcept {
  constexpr std::string_view kTexts[] = {"now", "next", "low"};
  return kTexts[static_cast<std::size_t>(priority)];
}

constexpr std::optional<Priority> priority_parse(std::string_view text) noexcept {
  if (text == "now") return Priority::kNow;
  if (text == "next") return Priority::kNext;
  if (text == "low") return Priority::kLow;
  return std::nullopt;
}

}  // namespace cm::wire
