// plan.h — what one seed is about: which faults, how often, and how small the limits are.
// Owns:   Plan, drawn whole from the seed before anything runs; Bounds, which make it smaller.
// Holds:  a fault that is taken away is drawn all the same: the numbers behind it stay the same.
// Why:    a run with every fault at its average rate meets no corner. Each seed leaves some faults
//         out and makes others frequent, so that long quiet and heavy weather are both reached.
// Not:    when a fault strikes (world.cc draws that as it goes).
#pragma once

#include <cstdint>

#include "core/base/limits.h"
#include "tests/sim/faults.h"
#include "tests/sim/random.h"

namespace cm::sim {

// What a person, or shrinking, takes away from a seed.
struct Bounds {
  FaultMask without;
  std::uint32_t daemons_max = UINT32_MAX;
  std::uint32_t requests_max = UINT32_MAX;  // behind so many, clients only ask again and read
};

struct Plan {
  Limits limits;
  Bounds bounds;
  std::uint32_t daemons = 2;
  std::uint32_t report_level = 0;  // of the first daemon; each other one has the next
  // Per mille of a node's iterations.
  std::uint32_t crash = 0;
  std::uint32_t commit_failure = 0;
  std::uint32_t slow_commit = 0;
  std::uint32_t slow_read = 0;
  // Weights of the faults that strike by time.
  std::uint32_t cut = 0, half_open = 0, stall = 0, wall_jump = 0, block = 0, partition = 0;
  std::uint32_t slow_consumer = 0, gave_up = 0;
  std::uint64_t fault_every_ms = 10'000;
  std::uint64_t delay_most_ms = 5;
  std::uint64_t send_every_ms = 50;
  std::uint32_t requests_max = 0;  // behind so many, clients only ask again and read
  std::uint32_t long_pause = 20;   // per mille of pauses that are long
  // That it has lived for when its first daemon comes; its clock is set forward by a day before
  // its hour ends, which is when it looks for what is too old. 0: neither.
  std::uint64_t broker_age_ms = 0;
  std::uint32_t long_absence = 0;  // per mille of restarts that come late
  std::uint32_t big_bodies = 20;   // per mille
  std::uint32_t pid_reuse = 0;     // per mille of restarts
  // Per mille of what clients do: requeues; drops and prunes.
  std::uint32_t requeues = 0, drops = 0;
  // Per mille of what daemons send: to everybody, to a topic. 0 where nothing was promised of it:
  // nobody protects its bytes from a relay, a legacy broker pushes it without its id, and a liar
  // never acknowledges what it gets.
  std::uint32_t multicast = 0;
  // Of frames, per mille.
  std::uint32_t duplicate = 0, reorder = 0, tamper = 0, forged_ack = 0;
  std::uint32_t late = 0;        // of connections: frames of the one before arrive there
  std::uint32_t byte_wires = 0;  // of connections: bytes of real frames travel, in pieces
  // Who else is there.
  bool legacy_broker = false;
  bool legacy_client = false;
  std::uint32_t sessions = 0;
  bool liar = false;
  bool mail_expires = false;  // the broker keeps mail for a day
  bool twin = false;
  bool twins_may_stay = false;  // the mesh allows concurrent connections
  // Admission bounds until the world is healed, and of the map behind it; 0: large.
  std::uint64_t daemon_store_bytes = 0, broker_store_bytes = 0;
  std::uint64_t store_reserve_bytes = 0;

  bool may(Fault fault) const noexcept {
    return !bounds.without.test(static_cast<std::size_t>(fault));
  }
  // A relay or a peer lies: what only it can break is not held against honest ends.
  bool relay_changes() const noexcept { return tamper != 0; }
};

Plan draw_plan(Rng& rng, const Bounds& bounds);

}  // namespace cm::sim
