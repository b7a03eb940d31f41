// run.h — one run of the simulator, named by what it takes to repeat it.
// Owns:   Job, Context, run_job(), the command that repeats a job.
// Not:    many runs (main.cc), smaller ones (shrink.h).
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/cells.h"
#include "tests/sim/plan.h"
#include "tests/sim/world.h"

namespace cm::sim {

constexpr std::uint64_t kTurns = 600;

struct Job {
  std::uint64_t seed = 1;
  std::uint64_t turns = kTurns;
  Bounds bounds;
  std::string plant;  // what the oracle forbids although nobody promised it
};

// The words behind `sim`.
std::string command_of(const Job& job);

// Where a run leaves its stores, and what it adds to.
struct Context {
  std::string directory;
  bool verbose = false;
  bool quiet = false;  // says nothing about a failure
  Counters* counters = nullptr;
  Cells* cells = nullptr;
};

// The job that runs now, and its journal, for the report of a failed CHECK; null when none does.
struct Running {
  Job job;
  const Journal* journal = nullptr;
  bool quiet = false;
};
const Running& running() noexcept;

// Reports a failure on stderr, with the last lines and the command that repeats it.
Verdict run_job(const Job& job, const Context& context);

}  // namespace cm::sim
