// env.h — all that the cores know of the world: the time, randomness, the log, the open batch.
// Holds:  both clocks stand still within an iteration; the loop (or the simulator) moves them.
//         There is no network in it: what a core wants done, it appends to its effects.
// Not:    system calls of any kind. core/daemon and core/broker make none.
#pragma once

#include <cstdint>

#include "core/base/log.h"
#include "core/base/ulid.h"

namespace cm {

namespace store {
class Batch;
}

struct Env {
  std::uint64_t wall_ms = 0;  // milliseconds since 1970; may jump both ways
  std::uint64_t mono_ms = 0;  // monotonic milliseconds; every deadline in memory is of this clock
  FillRandom rng = nullptr;   // libsodium's randombytes_buf, which the simulator seeds
  const Log* log = nullptr;
  store::Batch* batch = nullptr;  // opened, committed and aborted by the loop alone
};

}  // namespace cm
