// run.cc — running and reporting.
#include "tests/sim/run.h"

#include <unistd.h>

#include <cstdio>

namespace cm::sim {
namespace {

Running now;

}  // namespace

const Running& running() noexcept { return now; }

std::string command_of(const Job& job) {
  std::string text = "--seed " + std::to_string(job.seed) + " --turns " + std::to_string(job.turns);
  const FaultMask& without = job.bounds.without;
  if (without.count() > kFaults / 2) {
    text += " --only " + (without.all() ? std::string("none") : text_of(~without));
  } else if (without.any()) {
    text += " --without " + text_of(without);
  }
  if (job.bounds.daemons_max != UINT32_MAX) {
    text += " --daemons " + std::to_string(job.bounds.daemons_max);
  }
  if (job.bounds.requests_max != UINT32_MAX) {
    text += " --requests " + std::to_string(job.bounds.requests_max);
  }
  if (!job.plant.empty()) text += " --plant " + job.plant;
  return text;
}

Verdict run_job(const Job& job, const Context& context) {
  World world(job.seed, job.bounds, job.plant, context.directory + "/world", context.verbose,
              *context.counters, *context.cells);
  now = {job, &world.journal(), context.quiet};
  Verdict verdict = world.run(job.turns);
  ++context.counters->seeds;
  if (!verdict.problem.empty() && !context.quiet) {
    std::fflush(stdout);
    std::fprintf(stderr, "FAILED seed %llu at turn %llu\n  %s\nthe last lines:\n",
                 static_cast<unsigned long long>(job.seed),
                 static_cast<unsigned long long>(verdict.turn), verdict.problem.c_str());
    world.journal().print_last(STDERR_FILENO);
    std::fprintf(stderr, "repeat with: sim %s --verbose\n", command_of(job).c_str());
  }
  now.journal = nullptr;
  return verdict;
}

}  // namespace cm::sim
