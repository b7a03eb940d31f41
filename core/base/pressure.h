// pressure.h — how full a store is, in the three steps at which something changes.
// Owns:   Pressure, its thresholds in percent of the admission bound, its names.
// Holds:  both roles use these steps: 80 is told, 95 refuses what would grow, 100 is degraded. The
//         reserve behind the bound (core/base/limits.h) is for acks and deletes.
// Source: design/delivery.md, "Disk".
// Not:    measuring (store/store.h), what a role does about it.
#pragma once

#include <cstdint>
#include <string_view>

namespace cm {

enum class Pressure : std::uint8_t { kNone, kHigh, kRefusing, kDegraded };

constexpr std::uint32_t kPressureHighPercent = 80;
constexpr std::uint32_t kPressureRefusingPercent = 95;
constexpr std::uint32_t kPressureDegradedPercent = 100;

constexpr Pressure pressure_of(std::uint32_t percent) noexcept {
  if (percent >= kPressureDegradedPercent) return Pressure::kDegraded;
  if (percent >= kPressureRefusingPercent) return Pressure::kRefusing;
  return percent >= kPressureHighPercent ? Pressure::kHigh : Pressure::kNone;
}

constexpr std::string_view text_of(Pressure pressure) noexcept {
  constexpr std::string_view kTexts[] = {"none", "high", "refusing", "degraded"};
  return kTexts[static_cast<std::size_t>(pressure)];
}

}  // namespace cm
