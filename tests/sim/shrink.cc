// shrink.cc — attempts in processes of their own.
#include "tests/sim/shrink.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "core/base/check.h"

namespace cm::sim {
namespace {

constexpr std::string_view kCheck = "a CHECK failed";

// The promise that a run breaks; empty when it breaks none.
struct Outcome {
  std::string problem;
  std::uint64_t turn = 0;
};

Outcome attempt(const Job& job, const std::string& directory) {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    Counters counters;
    Cells cells;
    const Verdict verdict = run_job(job, {directory, false, true, &counters, &cells});
    const std::string text = std::to_string(verdict.turn) + ' ' + verdict.problem;
    const bool told = ::write(ends[1], text.data(), text.size()) >= 0;
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  std::string text;
  char part[512];
  for (ssize_t size = 0; (size = ::read(ends[0], part, sizeof part)) > 0;) {
    text.append(part, static_cast<std::size_t>(size));
  }
  ::close(ends[0]);
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  if (!WIFEXITED(status) || text.empty()) return {std::string(kCheck), job.turns};
  char* rest = nullptr;
  const std::uint64_t turn = std::strtoull(text.c_str(), &rest, 10);
  return {rest + 1, turn};
}

// "6: order: request 7 ..." is "6: order", whichever request it is about.
std::string_view promise_of(std::string_view problem) {
  const std::size_t number = problem.find(": ");
  if (number == std::string_view::npos) return problem;
  const bool numbered = number <= 2;
  return problem.substr(0, problem.find(": ", numbered ? number + 2 : number));
}

class Search {
 public:
  Search(const Job& job, const std::string& directory) : directory_(directory) {
    best_.job = job;
    const Outcome outcome = attempt(job, directory);
    best_.attempts = 1;
    best_.fails = !outcome.problem.empty();
    best_.problem = outcome.problem;
    promise_ = promise_of(outcome.problem);
    if (best_.fails && outcome.turn < job.turns) best_.job.turns = outcome.turn;
    if (best_.fails && !keeps(best_.job)) best_.job.turns = job.turns;
  }

  void fewer_turns() {
    for (std::uint64_t step = best_.job.turns / 2; step > 0; step /= 2) {
      while (step < best_.job.turns) {
        Job smaller = best_.job;
        smaller.turns -= step;
        if (!keeps(smaller)) break;
      }
    }
  }

  void fewer_faults() {
    for (std::size_t at = 0; at < kFaults; ++at) {
      if (best_.job.bounds.without.test(at)) continue;
      Job smaller = best_.job;
      smaller.bounds.without.set(at);
      keeps(smaller);
    }
  }

  void fewer_daemons() {
    Job smaller = best_.job;
    smaller.bounds.daemons_max = 2;
    if (best_.job.bounds.daemons_max > 2) keeps(smaller);
  }

  void fewer_requests() {
    for (const std::uint32_t most : {64u, 32u, 16u, 8u, 6u, 4u, 3u, 2u, 1u}) {
      if (most >= best_.job.bounds.requests_max) continue;
      Job smaller = best_.job;
      smaller.bounds.requests_max = most;
      keeps(smaller);  // the failure may return with fewer: what is drawn has shifted
    }
  }

  Shrunk& best() noexcept { return best_; }

 private:
  bool keeps(const Job& job) {
    ++best_.attempts;
    const Outcome outcome = attempt(job, directory_);
    if (outcome.problem.empty() || promise_of(outcome.problem) != promise_) return false;
    best_.job = job;
    best_.problem = outcome.problem;
    return true;
  }

  std::string directory_;
  std::string promise_;
  Shrunk best_;
};

}  // namespace

Shrunk shrink(const Job& job, const std::string& directory) {
  Search search(job, directory);
  if (!search.best().fails) return search.best();
  search.fewer_turns();
  search.fewer_requests();
  search.fewer_faults();
  search.fewer_daemons();
  search.fewer_turns();
  search.fewer_faults();
  search.fewer_requests();
  search.fewer_turns();
  return search.best();
}

Shrunk shrink_and_tell(const Job& job, const std::string& directory) {
  const Shrunk shrunk = shrink(job, directory);
  if (!shrunk.fails) {
    std::fprintf(stderr, "not shrunk: it does not fail in a process of its own\n");
    return shrunk;
  }
  std::fprintf(
      stderr, "shrunk in %llu attempts: turns %llu -> %llu, %zu kinds of faults without\n",
      static_cast<unsigned long long>(shrunk.attempts), static_cast<unsigned long long>(job.turns),
      static_cast<unsigned long long>(shrunk.job.turns), shrunk.job.bounds.without.count());
  std::fprintf(stderr, "  %s\nrepeat with: sim %s --verbose\n", shrunk.problem.c_str(),
               command_of(shrunk.job).c_str());
  return shrunk;
}

}  // namespace cm::sim
