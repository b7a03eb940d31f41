// main.cc — runs seeds, reports what broke and how to see it again, and counts what was done.
//   sim                                     1,000 seeds from 1
//   sim --seeds A-B [--turns M]             these seeds
//   sim --seed N [--turns M] [--verbose]    one seed
//   sim --file seeds.txt                    the seeds that once found something
//   sim --repeatable N                      the same seed is the same run, another one is not
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "tests/sim/world.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kTurns = 600;

struct Job {
  std::uint64_t seed = 1;
  std::uint64_t turns = kTurns;
};

struct Options {
  std::vector<Job> jobs;
  std::uint64_t turns = kTurns;
  bool verbose = false;
  std::optional<std::uint64_t> repeatable;
};

// What runs now, for the report of a failed CHECK.
struct Now {
  Job job;
  const Journal* journal = nullptr;
};
Now running;

void print_repeat(int fd, const Job& job) {
  char text[160];
  const int size = std::snprintf(
      text, sizeof text, "repeat with: sim --seed %llu --turns %llu --verbose\n",
      static_cast<unsigned long long>(job.seed), static_cast<unsigned long long>(job.turns));
  if (::write(fd, text, static_cast<std::size_t>(size)) < 0) return;
}

void report_crash(int fd, const void*) {
  if (running.journal != nullptr) running.journal->print_last(fd);
  print_repeat(fd, running.job);
}

std::string work_directory() {
  const char* chosen = std::getenv("TMPDIR");
  std::string base = chosen != nullptr ? chosen : "/dev/shm";
  if (!std::filesystem::is_directory(base)) base = "/tmp";
  base += "/cm-sim-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  return base;
}

Verdict run_one(const Job& job, const std::string& directory, bool verbose, Counters& counters) {
  World world(job.seed, directory + "/world", verbose, counters);
  running = {job, &world.journal()};
  Verdict verdict = world.run(job.turns);
  ++counters.seeds;
  if (!verdict.problem.empty()) {
    std::fflush(stdout);
    std::fprintf(stderr, "FAILED seed %llu at turn %llu\n  %s\nthe last lines:\n",
                 static_cast<unsigned long long>(job.seed),
                 static_cast<unsigned long long>(verdict.turn), verdict.problem.c_str());
    world.journal().print_last(STDERR_FILENO);
    print_repeat(STDERR_FILENO, job);
  }
  running.journal = nullptr;
  return verdict;
}

void print_counters(const Counters& c, double seconds) {
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("sim: %llu seeds, %llu turns in %.1f s: %.0f seeds an hour on one core\n", n(c.seeds),
              n(c.turns), seconds, static_cast<double>(c.seeds) / seconds * 3600);
  std::printf("  sends accepted %llu, delivered %llu, dead %llu, duplicates %llu, conflicts %llu\n",
              n(c.accepted), n(c.delivered), n(c.dead), n(c.duplicates), n(c.conflicts));
  std::printf("  frames to the broker %llu, events %llu, inbox reads %llu, commits %llu\n",
              n(c.frames), n(c.events), n(c.inbox_reads), n(c.commits));
  std::printf("  crashes: before the commit %llu, before effects %llu, amid %llu, after %llu\n",
              n(c.crash_before_commit), n(c.crash_before_effects), n(c.crash_amid_effects),
              n(c.crash_after_effects));
  std::printf("  faults: commits failed %llu, cuts %llu, half-open %llu, connects refused %llu\n",
              n(c.commits_failed), n(c.cuts), n(c.half_opens), n(c.refused_connects));
  std::printf("          blocked %llu, slow reads %llu, stalls %llu, wall clock jumps %llu\n",
              n(c.blocks), n(c.slow_reads), n(c.stalls), n(c.wall_jumps));
}

bool read_seeds(const char* path, std::uint64_t turns, std::vector<Job>& jobs) {
  std::ifstream file(path);
  if (!file) return false;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    char* rest = nullptr;
    Job job{std::strtoull(line.c_str(), &rest, 10), turns};
    if (const std::uint64_t own = std::strtoull(rest, nullptr, 10); own != 0) job.turns = own;
    jobs.push_back(job);
  }
  return true;
}

int usage() {
  std::fprintf(stderr,
               "usage: sim [--seed N | --seeds A-B | --file PATH | --repeatable N] [--turns M] "
               "[--verbose]\n");
  return 3;
}

bool parse(int count, char** words, Options& options) {
  const char* file = nullptr;
  std::uint64_t first = 1;
  std::uint64_t last = 1000;
  for (int index = 1; index < count; ++index) {
    const std::string word = words[index];
    const char* value = index + 1 < count ? words[index + 1] : nullptr;
    if (word == "--verbose") {
      options.verbose = true;
      continue;
    }
    if (value == nullptr) return false;
    ++index;
    char* rest = nullptr;
    if (word == "--seed") {
      first = last = std::strtoull(value, &rest, 10);
    } else if (word == "--seeds") {
      first = std::strtoull(value, &rest, 10);
      if (*rest != '-') return false;
      last = std::strtoull(rest + 1, &rest, 10);
    } else if (word == "--turns") {
      options.turns = std::strtoull(value, &rest, 10);
    } else if (word == "--repeatable") {
      options.repeatable = std::strtoull(value, &rest, 10);
    } else if (word == "--file") {
      file = value;
    } else {
      return false;
    }
    if (rest != nullptr && *rest != '\0') return false;
  }
  if (file != nullptr) return read_seeds(file, options.turns, options.jobs);
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    options.jobs.push_back({seed, options.turns});
  }
  return true;
}

int check_repeatable(const Options& options, const std::string& directory) {
  Counters counters;
  const Job job{*options.repeatable, options.turns};
  const Verdict first = run_one(job, directory, false, counters);
  const Verdict other = run_one({job.seed + 1, job.turns}, directory, false, counters);
  const Verdict again = run_one(job, directory, false, counters);
  std::printf(
      "seed %llu: %016llx, again %016llx; the next seed: %016llx\n",
      static_cast<unsigned long long>(job.seed), static_cast<unsigned long long>(first.hash),
      static_cast<unsigned long long>(again.hash), static_cast<unsigned long long>(other.hash));
  return first.hash == again.hash && first.hash != other.hash ? 0 : 1;
}

int run(const Options& options) {
  const std::string directory = work_directory();
  int result = 0;
  if (options.repeatable) {
    result = check_repeatable(options, directory);
  } else {
    Counters counters;
    const auto begin = std::chrono::steady_clock::now();
    for (const Job& job : options.jobs) {
      const Verdict verdict = run_one(job, directory, options.verbose, counters);
      if (options.verbose || options.jobs.size() == 1) {
        std::printf("seed %llu: hash %016llx\n", static_cast<unsigned long long>(job.seed),
                    static_cast<unsigned long long>(verdict.hash));
      }
      if (!verdict.problem.empty()) {
        result = 1;
        break;
      }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    print_counters(counters, took.count());
  }
  std::filesystem::remove_all(directory);
  return result;
}

}  // namespace
}  // namespace cm::sim

int main(int count, char** words) {
  cm::sim::Options options;
  if (!cm::sim::parse(count, words, options)) return cm::sim::usage();
  cm::sim::install_sodium_rng();
  if (!cm::crypto::initialise()) return 1;
  cm::add_crash_reporter(cm::sim::report_crash, nullptr);
  return cm::sim::run(options);
}
