// pressure.h — how full something is that may not overflow: four levels, with a way back.
// Owns:   Pressure, the percents at which each level begins and ends, their names.
// Holds:  both roles use these levels: high is told, refusing takes nothing that would stay,
//         degraded serves only what makes room. A level ends below the percent at which it began,
//         so that a store at the edge does not flap. Behind 100 % is a reserve (limits.h).
// Source: design/delivery.md, "Disk".
// Not:    measuring (store/store.h), what a role does about it (core/*/pressure.cc).
#pragma once

#include <cstdint>
#include <string_view>

namespace cm {

enum class Pressure : std::uint8_t { kNormal, kHigh, kRefusing, kDegraded };

struct PressureStep {
  Pressure level;
  std::string_view text;
  std::uint64_t from, below;  // percent: begins at `from`, ends below `below`
};
inline constexpr PressureStep kPressureSteps[] = {{Pressure::kNormal, "normal", 0, 0},
                                                  {Pressure::kHigh, "high", 80, 70},
                                                  {Pressure::kRefusing, "refusing", 95, 90},
                                                  {Pressure::kDegraded, "degraded", 100, 98}};

constexpr const PressureStep& step_of(Pressure level) noexcept {
  return kPressureSteps[static_cast<std::size_t>(level)];
}
constexpr std::string_view text_of(Pressure level) noexcept { return step_of(level).text; }

// The highest level that has begun, or that was there `before` and has not ended.
constexpr Pressure pressure_of(std::uint64_t percent,
                               Pressure before = Pressure::kNormal) noexcept {
  Pressure level = Pressure::kNormal;
  for (const PressureStep& step : kPressureSteps) {
    if (percent >= (step.level <= before ? step.below : step.from)) level = step.level;
  }
  return level;
}

}  // namespace cm
