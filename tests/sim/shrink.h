// shrink.h — from a run that fails to the smallest one that fails in the same way.
// Owns:   shrink(): fewer turns, fewer kinds of faults, fewer daemons, fewer requests.
// Holds:  each attempt is a process of its own, so a failed CHECK is a result like any other. The
//         same failure is the same promise, or a failed CHECK again.
// Why:    a failure of three steps is read in a minute, one of six hundred turns in an afternoon.
// Limits: what is drawn later shifts when something is taken away, so the result is the shortest
//         found, not the shortest there is.
// Not:    running (run.h).
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/run.h"

namespace cm::sim {

struct Shrunk {
  bool fails = false;  // the job fails as it stands; else nothing was shrunk
  Job job;
  std::string problem;
  std::uint64_t attempts = 0;
};

Shrunk shrink(const Job& job, const std::string& directory);
// shrink(), and what came of it on stderr, with the command that repeats it.
Shrunk shrink_and_tell(const Job& job, const std::string& directory);

}  // namespace cm::sim
