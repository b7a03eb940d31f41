// bit_rot.cc — each byte of a small store of each role, changed: is it told, or is it harmless?
//   bit_rot                 a seeded sample: what `make test` has time for
//   bit_rot --whole         every byte, and each bit of a sample
//   bit_rot [--seed N] [--stride N] [--use N]   use: one of N stores that open is worked with
//   bit_rot --only OFFSET --mask N [--node 0|1] one change, in this process, and worked with
// Outcomes of one change. Refused: the store does not open. Reported: fsck names it, and at most
// one row differs. Harmless: no problem, and every row is as it was. Anything else is a failure:
// rows that differ without a report, more rows than one, a signal, no end. Each is tried in a
// child.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "tests/faults/oracle.h"
#include "tests/faults/rows.h"

namespace cm::faults {
namespace {

struct Options {
  std::uint64_t seed = 1;
  std::uint32_t stride = 61;
  std::uint32_t bits_of = 199;  // each bit of one byte in so many
  std::uint32_t use = 8;
  std::uint32_t only = 0, mask = 0, node = 0;
};

struct Change {
  std::uint32_t offset = 0;
  std::uint8_t mask = 0xff;
};

enum class Outcome : std::uint8_t {
  kNone,
  kRefused,
  kReported,
  kHarmless,
  kSilent,      // rows differ and nobody says so
  kSpread,      // reported, but more than one row differs
  kUnreported,  // the owner's open refused what the reader's did not
  kCount
};
constexpr const char* kOutcomeTexts[] = {
    "",       "refused at open",   "reported by fsck", "harmless",
    "SILENT", "MORE THAN ONE ROW", "INCONSISTENT"};

enum class Use : std::uint8_t { kNotTried, kWorked, kRefused, kWorking, kCount };

// Shared with the children: what became of each change.
struct Board {
  std::uint32_t next;  // the change that is being tried
  bool in_use;         // the core was working when it ended
  std::uint8_t outcomes[1 << 22];
  std::uint8_t uses[1 << 22];
};

struct Subject {
  Node node = kBroker;
  std::string directory;  // of a world: all three stores
  std::vector<char> bytes;
  Rows rows;
};

std::string work_directory() {
  const char* chosen = std::getenv("TMPDIR");
  std::string base = chosen != nullptr ? chosen : "/dev/shm";
  if (!std::filesystem::is_directory(base)) base = "/tmp";
  base += "/cm-rot-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  return base;
}

std::string file_of(const std::string& directory, Node node) {
  return directory + "/" + kNodeNames[node] + "/data.mdb";
}

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.flush());
}

class Trial {
 public:
  Trial(const Subject& subject, const World& world, const Options& options, Board& board)
      : subject_(subject),
        world_(world),
        options_(options),
        board_(board),
        file_(file_of(subject.directory, subject.node)) {}

  void run(const std::vector<Change>& changes) {
    for (std::uint32_t at = board_.next; at < changes.size(); ++at) {
      board_.next = at;
      board_.in_use = false;
      ::alarm(kSecondsMost);
      std::vector<char> bytes = subject_.bytes;
      bytes[changes[at].offset] = static_cast<char>(bytes[changes[at].offset] ^ changes[at].mask);
      write_file(file_, bytes);
      const Outcome outcome = judge();
      board_.outcomes[at] = static_cast<std::uint8_t>(outcome);
      const bool opens = outcome == Outcome::kReported || outcome == Outcome::kHarmless;
      if (opens && at % options_.use == 0) {
        board_.in_use = true;
        board_.uses[at] = static_cast<std::uint8_t>(Use::kWorking);
        board_.uses[at] = static_cast<std::uint8_t>(work());
      }
    }
    board_.next = static_cast<std::uint32_t>(changes.size());
  }

 private:
  static constexpr unsigned kSecondsMost = 20;

  Outcome judge() {
    store::Options options;
    options.directory = subject_.directory + "/" + kNodeNames[subject_.node];
    options.role = role_of(subject_.node);
    options.bound_bytes = std::uint64_t{64} << 20;
    options.read_only = true;
    ScratchArena scratch;
    auto opened = store::Store::open(options, scratch);
    if (!opened) return Outcome::kRefused;
    const std::string problem = fsck_problem((*opened)->batch(), options.role);
    const Rows rows = read_rows((*opened)->batch(), options.role);
    const bool failed = (*opened)->batch().failed();
    if (problem.empty() && !failed) {
      return rows == subject_.rows ? Outcome::kHarmless : Outcome::kSilent;
    }
    return failed || differing(rows, subject_.rows) > 1 ? Outcome::kSpread : Outcome::kReported;
  }

  // All three processes, one of them over the damaged store: it may refuse, it may end with a
  // report, it may miss what is damaged, but it goes on or ends in an orderly way.
  Use work() {
    const std::string copy = subject_.directory + "-used";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(subject_.directory, copy, std::filesystem::copy_options::recursive);
    World world(copy, store::Durability::kRelaxed, {});
    world.adopt(world_);
    if (!world.start()) return Use::kRefused;
    Traffic traffic(world, options_.seed + 1, 1'000);
    for (int step = 0; step < 6; ++step) traffic.step();
    return Use::kWorked;
  }

  const Subject& subject_;
  const World& world_;
  const Options& options_;
  Board& board_;
  std::string file_;
};

struct Totals {
  std::array<std::uint64_t, static_cast<std::size_t>(Outcome::kCount)> outcomes{};
  std::uint64_t used = 0, worked = 0, use_refused = 0, use_reported = 0;
  std::uint64_t signals = 0, failures = 0;
};

void report(const Subject& subject, const Change& change, const std::string& what, Totals& totals) {
  constexpr std::uint64_t kShownMost = 20;
  if (++totals.failures > kShownMost) return;
  std::fprintf(stderr,
               "FAILED %s, byte %u (page %u, offset %u): %s\n"
               "  repeat with: bit_rot --only %u --mask %u --node %u\n",
               kNodeNames[subject.node], change.offset, change.offset / 4096, change.offset % 4096,
               what.c_str(), change.offset, change.mask, static_cast<unsigned>(subject.node));
}

// Children try the changes one after another; one that dies is followed by the next.
void try_all(const Subject& subject, const World& world, const std::vector<Change>& changes,
             const Options& options, Board& board, Totals& totals) {
  board.next = 0;
  CHECK(changes.size() <= sizeof board.outcomes);
  std::fill_n(board.outcomes, changes.size(), std::uint8_t{0});
  std::fill_n(board.uses, changes.size(), std::uint8_t{0});
  while (board.next < changes.size()) {
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, STDERR_FILENO);  // reports of CHECKs, thousands of them
      Trial(subject, world, options, board).run(changes);
      ::_exit(0);
    }
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    const Change& change = changes[board.next];
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (board.in_use && signal == SIGABRT) {
      ++totals.use_reported;  // a CHECK: it ended with a report
    } else {
      ++totals.signals;
      report(subject, change,
             (board.in_use ? "in use: signal " : "signal ") + std::to_string(signal), totals);
    }
    ++board.next;
  }
  for (std::size_t at = 0; at < changes.size(); ++at) {
    const auto outcome = static_cast<Outcome>(board.outcomes[at]);
    ++totals.outcomes[board.outcomes[at]];
    if (outcome > Outcome::kHarmless) {
      report(subject, changes[at], kOutcomeTexts[board.outcomes[at]], totals);
    }
    const auto use = static_cast<Use>(board.uses[at]);
    totals.used += use != Use::kNotTried ? 1 : 0;
    totals.worked += use == Use::kWorked ? 1 : 0;
    totals.use_refused += use == Use::kRefused ? 1 : 0;
  }
}

std::vector<Change> plan(std::size_t size, const Options& options) {
  std::vector<Change> changes;
  sim::Rng rng(options.seed);
  for (std::size_t offset = rng.below(options.stride); offset < size; offset += options.stride) {
    changes.push_back({static_cast<std::uint32_t>(offset), 0xff});
  }
  // The meta pages, and the head of every page with its first pointers: whatever the stride.
  for (std::size_t offset = 0; options.stride > 1 && offset < size; ++offset) {
    const std::size_t within = offset % 4096;
    if (within < 24 || (offset < 8192 && within < 160)) {
      changes.push_back({static_cast<std::uint32_t>(offset), 0xff});
    }
  }
  for (std::size_t offset = rng.below(options.bits_of); offset < size; offset += options.bits_of) {
    for (int bit = 0; bit < 8; ++bit) {
      changes.push_back({static_cast<std::uint32_t>(offset), static_cast<std::uint8_t>(1 << bit)});
    }
  }
  return changes;
}

int run(const Options& options) {
  const auto began = std::chrono::steady_clock::now();
  const std::string directory = work_directory();
  sim::seed_sodium_rng(options.seed);
  World world(directory + "/world", store::Durability::kRelaxed, {});
  Traffic traffic(world, options.seed);
  CHECK(world.start());
  traffic.furnish();
  for (int step = 0; step < 12; ++step) traffic.step();
  CHECK(traffic.finish() && traffic.drop_one(kAlice));
  world.partition(kBob, true);  // so that the broker has mail for him, and alice rows in flight
  for (int mail = 0; mail < 6; ++mail) traffic.send();
  world.advance(100);
  void* const shared =
      ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  Board& board = *static_cast<Board*>(shared);
  for (const Node node : {kBroker, kAlice, kBob}) {
    fill_every_table(*world.parts(node).store, role_of(node));
  }
  std::array<Rows, kNodes> rows;
  for (const Node node : {kBroker, kAlice, kBob}) {
    store::Batch& batch = world.parts(node).store->batch();
    rows[node] = read_rows(batch, role_of(node));
    const std::string empty = empty_tables(batch, role_of(node));
    if (!empty.empty()) std::printf("  %s has no rows in: %s\n", kNodeNames[node], empty.c_str());
    const std::string problem = fsck_problem(batch, role_of(node));
    if (!problem.empty()) std::printf("  %s: %s\n", kNodeNames[node], problem.c_str());
    CHECK(problem.empty());
    world.parts(node).store->abort();
  }
  for (const Node node : {kBroker, kAlice, kBob}) world.kill(node);
  Totals totals;
  std::size_t tried = 0, bytes = 0;
  for (const Node node : {kBroker, kAlice}) {
    Subject subject;
    subject.node = node;
    subject.directory = directory + "/" + "subject-" + kNodeNames[node];
    std::filesystem::copy(directory + "/world", subject.directory,
                          std::filesystem::copy_options::recursive);
    subject.bytes = read_file(file_of(subject.directory, node));
    subject.rows = rows[node];
    if (options.mask != 0) {
      if (node != options.node) continue;
      board.next = 0;
      Options all = options;
      all.use = 1;
      Trial(subject, world, all, board)
          .run({{options.only, static_cast<std::uint8_t>(options.mask)}});
      std::printf("%s, use %u\n", kOutcomeTexts[board.outcomes[0]], board.uses[0]);
      continue;
    }
    const std::vector<Change> changes = plan(subject.bytes.size(), options);
    tried += changes.size();
    bytes += subject.bytes.size();
    try_all(subject, world, changes, options, board, totals);
  }
  std::filesystem::remove_all(directory);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("bit rot: %zu changes in %zu bytes of two stores (broker, daemon)\n ", tried, bytes);
  for (std::size_t index = 1; index < totals.outcomes.size(); ++index) {
    std::printf("%s %s %llu", index > 1 ? "," : "", kOutcomeTexts[index],
                n(totals.outcomes[index]));
  }
  std::printf(
      "\n  worked with %llu that open: %llu worked, %llu refused to start, %llu ended with "
      "a report\n",
      n(totals.used), n(totals.worked), n(totals.use_refused), n(totals.use_reported));
  std::printf("  %llu signals, %llu failures, %.1f s\n", n(totals.signals), n(totals.failures),
              took.count());
  return totals.failures == 0 ? 0 : 1;
}

bool parse(int count, char** words, Options& options) {
  for (int index = 1; index < count; ++index) {
    const std::string_view word = words[index];
    if (word == "--whole") {
      options.stride = 1;
      options.bits_of = 17;
      continue;
    }
    if (index + 1 == count) return false;
    const auto number = static_cast<std::uint32_t>(std::strtoul(words[++index], nullptr, 10));
    if (word == "--only") {
      options.only = number;
    } else if (word == "--node") {
      options.node = number;
    } else if (number == 0) {
      return false;
    } else if (word == "--mask") {
      options.mask = number;
    } else if (word == "--seed") {
      options.seed = number;
    } else if (word == "--stride") {
      options.stride = number;
    } else if (word == "--use") {
      options.use = number;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace cm::faults

int main(int count, char** words) {
  cm::faults::Options options;
  if (!cm::faults::parse(count, words, options)) {
    std::fprintf(stderr,
                 "usage: bit_rot [--whole] [--seed N] [--stride N] [--use N] "
                 "[--node N --only BYTE --mask BITS]\n");
    return 3;
  }
  cm::sim::install_sodium_rng();
  if (!cm::crypto::initialise()) return 1;
  return cm::faults::run(options);
}
