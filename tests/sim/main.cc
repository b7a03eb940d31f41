// main.cc — runs seeds, reports what broke and how to see it again, and counts what was done.
//   sim                                     1,000 seeds from 1
//   sim --seeds A-B [--turns M]             these seeds
//   sim --seed N [--turns M] [--verbose]    one seed
//     [--without FAULT,.. | --only FAULT,..|none] [--daemons D] [--requests R]   a part
//   sim --file seeds.txt                    the seeds that once found something
//   sim --repeatable N                      the same seed is the same run, another one is not
//   sim --nightly [--seeds A-B]             10,000 seeds; fails when a cell was never reached
//   sim --shrink --seed N [--turns M]       the smallest run that fails as this one does; a failing
//                                           run is shrunk by itself, unless --no-shrink is given
//   sim --test-shrink N --plant redelivery  that a planted failure is found and shrunk
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
#include "tests/sim/run.h"
#include "tests/sim/shrink.h"

namespace cm::sim {
namespace {

struct Options {
  std::vector<Job> jobs;
  Job pattern;  // what all of them have
  bool verbose = false;
  bool nightly = false;
  bool cells = false;  // prints each of them
  bool shrink = false;
  bool may_shrink = true;
  std::optional<std::uint64_t> repeatable;
  std::optional<std::uint64_t> test_shrink;
};

bool shrinks_crashes = true;

// Written with write(2) alone: the process is ending over a failed CHECK. It is shrunk by a new
// one, which takes the place of this one.
void report_crash(int fd, const void*) {
  const Running& now = running();
  if (now.journal == nullptr || now.quiet) return;
  now.journal->print_last(fd);
  const std::string command = "repeat with: sim " + command_of(now.job) + " --verbose\n";
  if (::write(fd, command.data(), command.size()) < 0 || !shrinks_crashes) return;
  const std::string seed = std::to_string(now.job.seed);
  const std::string turns = std::to_string(now.job.turns);
  ::execl("/proc/self/exe", "sim", "--shrink", "--seed", seed.c_str(), "--turns", turns.c_str(),
          static_cast<char*>(nullptr));
}

std::string work_directory() {
  const char* chosen = std::getenv("TMPDIR");
  std::string base = chosen != nullptr ? chosen : "/dev/shm";
  if (!std::filesystem::is_directory(base)) base = "/tmp";
  base += "/cm-sim-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  return base;
}

void print_counters(const Counters& c, double seconds) {
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("sim: %llu seeds, %llu turns in %.1f s: %.0f seeds an hour on one core\n", n(c.seeds),
              n(c.turns), seconds, static_cast<double>(c.seeds) / seconds * 3600);
  std::printf("  sends accepted %llu, delivered %llu, dead %llu, duplicates %llu, conflicts %llu\n",
              n(c.accepted), n(c.delivered), n(c.dead), n(c.duplicates), n(c.conflicts));
  std::printf("  of them to many: %llu stored, %llu delivered\n", n(c.many_stored),
              n(c.many_delivered));
  std::printf("  frames to the broker %llu, events %llu, inbox reads %llu, commits %llu\n",
              n(c.frames), n(c.events), n(c.inbox_reads), n(c.commits));
  std::printf("  requeues %llu, statuses asked %llu\n", n(c.requeues), n(c.statuses));
  std::printf("  recipients told: nothing %llu, handed %llu, seen %llu, expired %llu; %llu live, ",
              n(c.told[0]), n(c.told[1]), n(c.told[2]), n(c.told[3]), n(c.live_receipts));
  std::printf("%llu signatures verified\n", n(c.verified));
  std::string line = "  faults:";
  for (std::size_t at = 0; at < kFaults; ++at) {
    const auto fault = static_cast<Fault>(at);
    const std::string part =
        ' ' + std::string(name_of(fault)) + ' ' + std::to_string(c.faults[fault]);
    if (line.size() + part.size() > 98) {
      std::printf("%s\n", line.c_str());
      line = "         ";
    }
    line += part + (at + 1 < kFaults ? "," : "");
  }
  std::printf("%s\n", line.c_str());
}

bool read_seeds(const char* path, const Job& pattern, std::vector<Job>& jobs) {
  std::ifstream file(path);
  if (!file) return false;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    char* rest = nullptr;
    Job job = pattern;
    job.seed = std::strtoull(line.c_str(), &rest, 10);
    if (const std::uint64_t own = std::strtoull(rest, nullptr, 10); own != 0) job.turns = own;
    jobs.push_back(job);
  }
  return true;
}

int usage() {
  std::fprintf(
      stderr,
      "usage: sim [--seed N | --seeds A-B | --file PATH | --repeatable N | --nightly |\n"
      "            --shrink --seed N | --test-shrink N] [--turns M] [--verbose] [--cells]\n"
      "           [--without FAULT,.. | --only FAULT,..|none] [--daemons D] [--requests R]\n"
      "           [--plant redelivery] [--no-shrink]\n");
  return 3;
}

bool parse(int count, char** words, Options& options) {
  const char* file = nullptr;
  std::optional<std::pair<std::uint64_t, std::uint64_t>> seeds;
  for (int index = 1; index < count; ++index) {
    const std::string word = words[index];
    bool* const flag = word == "--verbose"   ? &options.verbose
                       : word == "--nightly" ? &options.nightly
                       : word == "--cells"   ? &options.cells
                       : word == "--shrink"  ? &options.shrink
                                             : nullptr;
    if (flag != nullptr || word == "--no-shrink") {
      if (flag != nullptr) *flag = true;
      if (flag == nullptr) options.may_shrink = false;
      continue;
    }
    const char* value = index + 1 < count ? words[index + 1] : nullptr;
    if (value == nullptr) return false;
    ++index;
    char* rest = nullptr;
    const auto number = [&] { return std::strtoull(value, &rest, 10); };
    if (word == "--seed") {
      const std::uint64_t seed = number();
      seeds = {seed, seed};
    } else if (word == "--seeds") {
      const std::uint64_t first = number();
      if (*rest != '-') return false;
      seeds = {first, std::strtoull(rest + 1, &rest, 10)};
    } else if (word == "--turns") {
      options.pattern.turns = number();
    } else if (word == "--repeatable") {
      options.repeatable = number();
    } else if (word == "--test-shrink") {
      options.test_shrink = number();
    } else if (word == "--daemons") {
      options.pattern.bounds.daemons_max = static_cast<std::uint32_t>(number());
    } else if (word == "--requests") {
      options.pattern.bounds.requests_max = static_cast<std::uint32_t>(number());
    } else if (word == "--without") {
      if (!parse_faults(value, options.pattern.bounds.without)) return false;
    } else if (word == "--only") {
      FaultMask kept;
      if (std::string_view(value) != "none" && !parse_faults(value, kept)) return false;
      options.pattern.bounds.without = ~kept;
    } else if (word == "--plant") {
      options.pattern.plant = value;
    } else if (word == "--file") {
      file = value;
    } else {
      return false;
    }
    if (rest != nullptr && *rest != '\0') return false;
  }
  if (file != nullptr) return read_seeds(file, options.pattern, options.jobs);
  if (!seeds) seeds = {1, options.nightly ? 10'000 : 1'000};
  for (std::uint64_t seed = seeds->first; seed <= seeds->second; ++seed) {
    options.jobs.push_back(options.pattern);
    options.jobs.back().seed = seed;
  }
  return !options.jobs.empty();
}

int check_repeatable(const Options& options, const std::string& directory) {
  Counters counters;
  Cells cells;
  const Context context{directory, false, false, &counters, &cells};
  Job job = options.pattern;
  job.seed = *options.repeatable;
  const Verdict first = run_job(job, context);
  ++job.seed;
  const Verdict other = run_job(job, context);
  --job.seed;
  const Verdict again = run_job(job, context);
  std::printf(
      "seed %llu: %016llx, again %016llx; the next seed: %016llx\n",
      static_cast<unsigned long long>(job.seed), static_cast<unsigned long long>(first.hash),
      static_cast<unsigned long long>(again.hash), static_cast<unsigned long long>(other.hash));
  return first.hash == again.hash && first.hash != other.hash ? 0 : 1;
}

// A failure that is there for certain: what shrinking leaves must still fail, and be smaller.
int check_shrink(const Options& options, const std::string& directory) {
  Job job = options.pattern;
  job.seed = *options.test_shrink;
  const Shrunk shrunk = shrink_and_tell(job, directory);
  const bool smaller = shrunk.job.turns < job.turns / 2 &&
                       shrunk.job.bounds.without.count() >= kFaults / 2 &&
                       shrunk.job.bounds.requests_max <= 8;
  return shrunk.fails && smaller ? 0 : 1;
}

int run_all(const Options& options, const std::string& directory) {
  Counters counters;
  Cells cells;
  int result = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const Job& job : options.jobs) {
    const Verdict verdict = run_job(job, {directory, options.verbose, false, &counters, &cells});
    if (options.verbose || options.jobs.size() == 1) {
      std::printf("seed %llu: hash %016llx\n", static_cast<unsigned long long>(job.seed),
                  static_cast<unsigned long long>(verdict.hash));
    }
    if (verdict.problem.empty()) continue;
    result = 1;
    if (options.may_shrink && !options.verbose) shrink_and_tell(job, directory);
    break;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  print_counters(counters, took.count());
  const bool complete = cells.report(options.cells);
  if (options.nightly && result == 0 && !complete) {
    std::fprintf(stderr, "the generator does not reach every cell that can be reached\n");
    result = 1;
  }
  return result;
}

int run(const Options& options) {
  shrinks_crashes = options.may_shrink && !options.verbose && !options.shrink;
  const std::string directory = work_directory();
  const int result = options.repeatable    ? check_repeatable(options, directory)
                     : options.test_shrink ? check_shrink(options, directory)
                     : options.shrink
                         ? (shrink_and_tell(options.jobs.front(), directory).fails ? 1 : 0)
                         : run_all(options, directory);
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
