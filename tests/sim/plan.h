// plan.h — what one seed is about: which faults, how often, and how small the limits are.
// Owns:   Plan, drawn whole from the seed before anything runs.
// Why:    a run with every fault at its average rate meets no corner. Each seed leaves some faults
//         out and makes others frequent, so that long quiet and heavy weather are both reached.
// Not:    when a fault strikes (world.cc draws that as it goes).
#pragma once

#include <cstdint>

#include "core/base/limits.h"
#include "tests/sim/random.h"

namespace cm::sim {

struct Plan {
  Limits limits;
  std::uint32_t daemons = 2;
  // Per mille of a node's iterations.
  std::uint32_t crash = 0;
  std::uint32_t commit_failure = 0;
  std::uint32_t slow_read = 0;
  // Weights of the faults that strike by time.
  std::uint32_t cut = 0, half_open = 0, stall = 0, wall_jump = 0, block = 0, partition = 0;
  std::uint64_t fault_every_ms = 10'000;
  std::uint64_t delay_most_ms = 5;
  std::uint64_t send_every_ms = 50;
  std::uint32_t long_pause = 20;   // per mille of pauses that are long
  std::uint32_t long_absence = 0;  // per mille of restarts that come late
  std::uint32_t big_bodies = 20;   // per mille
};

Plan draw_plan(Rng& rng);

}  // namespace cm::sim
