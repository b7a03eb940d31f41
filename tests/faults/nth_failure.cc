// nth_failure.cc — the Nth allocation, write, sync, open or mmap fails; stores and cores in
// process.
//   nth_failure              N = 1, 1 + stride, ...: what `make test` has time for
//   nth_failure --whole      every N, until a run in which nothing failed
//   nth_failure [--seed N] [--kind NAME --nth N]
// A child works with three stores while one call of it fails; another one, without a failure, then
// starts over what it left. Good: it went on, or a node ended and came back, or it refused to start
// with an error, or it ended by a CHECK or for want of memory with a report. Whatever it was, every
// promise of before holds, fsck is content, everything accepted arrives once, and nothing hangs.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "tests/faults/fail_shim.h"
#include "tests/faults/oracle.h"

namespace cm::faults {
namespace {

constexpr const char* kKindNames[] = {"none",        "alloc", "write-full", "write-io",
                                      "write-short", "sync",  "open",       "mmap"};
constexpr int kStepsOfTraffic = 10;
constexpr int kExitRefused = 10;  // a clean error
constexpr int kExitWrong = 11;    // the board says what
constexpr unsigned kSecondsMost = 60;

struct Options {
  std::uint64_t seed = 1;
  bool whole = false;
  int kind = 0;
  std::uint64_t nth = 0;
};

// Shared with the children.
struct Board {
  cm_fail_board fail;
  std::uint32_t deaths;  // nodes whose store broke, and that came back
  std::uint32_t promises;
  struct {
    std::uint8_t node, kind;
    char id[30];
  } promise[4096];
  char problem[512];
};

struct Totals {
  std::uint64_t trials = 0, reached = 0, went_on = 0, came_back = 0, refused = 0, reported = 0;
  std::uint64_t failures = 0;
};

std::string work_directory() {
  const char* chosen = std::getenv("TMPDIR");
  std::string base = chosen != nullptr ? chosen : "/dev/shm";
  if (!std::filesystem::is_directory(base)) base = "/tmp";
  base += "/cm-nth-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  return base;
}

[[noreturn]] void wrong(Board& board, const std::string& what) {
  board.fail.kind = CM_FAIL_NONE;
  std::snprintf(board.problem, sizeof board.problem, "%s", what.c_str());
  ::_exit(kExitWrong);
}

// Brings back whoever ended. A start may meet the failure, too: the supervisor tries again.
bool revive(World& world, Board& board) {
  for (const Node node : {kBroker, kAlice, kBob}) {
    if (world.is_up(node)) continue;
    ++board.deaths;
    if (!world.start(node) && !world.start(node)) return false;
  }
  return true;
}

[[noreturn]] void work(const std::string& directory, const World& earlier, const Options& options,
                       Board& board) {
  Observer observer;
  observer.promised = [&](Node node, const Promise& promise) {
    auto& at = board.promise[board.promises];
    at.node = static_cast<std::uint8_t>(node);
    at.kind = static_cast<std::uint8_t>(promise.kind);
    std::snprintf(at.id, sizeof at.id, "%s", promise.id.c_str());
    ++board.promises;
    CHECK(board.promises < std::size(board.promise));
  };
  World world(directory, store::Durability::kSync, observer);
  world.adopt(earlier);
  cm_fail_use(&board.fail);
  if (!world.start()) ::_exit(kExitRefused);
  Traffic traffic(world, options.seed + 1, 1'000);
  for (int step = 0; step < kStepsOfTraffic; ++step) {
    traffic.step();
    if (!revive(world, board)) ::_exit(kExitRefused);
  }
  bool arrived = false;
  for (int attempt = 0; attempt < 3 && !arrived; ++attempt) {
    arrived = traffic.finish();
    if (!revive(world, board)) ::_exit(kExitRefused);
  }
  board.fail.kind = CM_FAIL_NONE;
  if (!arrived) wrong(board, "not everything arrived, though all processes run");
  const std::string problem = lost_or_twice(world, traffic.sent());
  if (!problem.empty()) wrong(board, problem);
  for (const Node node : {kBroker, kAlice, kBob}) {
    const char* const broken =
        node == kBroker ? world.broker().verify_all() : world.daemon(node).verify_all();
    if (broken != nullptr) wrong(board, std::string(kNodeNames[node]) + ": " + broken);
  }
  ::_exit(0);
}

// Without a failure, over what is left.
[[noreturn]] void judge(const std::string& directory, const World& earlier, Board& board) {
  World world(directory, store::Durability::kSync, {});
  world.adopt(earlier);
  if (const Status started = world.start(); !started) {
    wrong(board, "does not start again: " + started.error().detail);
  }
  std::vector<Sent> accepted;
  for (const Node node : {kBroker, kAlice, kBob}) {
    store::Batch& batch = world.parts(node).store->batch();
    const std::string found = fsck_problem(batch, role_of(node));
    if (!found.empty()) wrong(board, std::string(kNodeNames[node]) + ": fsck: " + found);
    std::vector<Promise> promises;
    for (std::uint32_t index = 0; index < board.promises; ++index) {
      if (board.promise[index].node != node) continue;
      promises.push_back(
          {static_cast<PromiseKind>(board.promise[index].kind), board.promise[index].id});
    }
    const std::string lost =
        broken_promise(batch, node, promises.data(), promises.data() + promises.size());
    if (!lost.empty()) wrong(board, std::string(kNodeNames[node]) + ": " + lost);
    for (const Promise& promise : promises) {
      if (promise.kind != PromiseKind::kAccepted) continue;
      if (!promise.id.starts_with("alice-") && !promise.id.starts_with("bob-")) continue;
      Sent sent;
      sent.from = node;
      sent.to = node == kAlice ? kBob : kAlice;
      sent.id = promise.id;
      sent.accepted = true;
      accepted.push_back(std::move(sent));
    }
    world.parts(node).store->abort();
  }
  Traffic traffic(world, 1);
  if (!traffic.finish()) wrong(board, "not everything arrives after the restart");
  const std::string problem = lost_or_twice(world, accepted);
  if (!problem.empty()) wrong(board, "after the restart: " + problem);
  ::_exit(0);
}

template <class Work>
int in_child(Work work_of_child) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDERR_FILENO);  // reports of CHECKs and of exhausted memory, thousands of them
    ::alarm(kSecondsMost);
    work_of_child();
    ::_exit(kExitWrong);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

// False when nothing failed: the sweep of this kind is at its end.
bool trial(const std::string& base, const World& earlier, int kind, std::uint64_t nth,
           const Options& options, Board& board, Totals& totals) {
  const std::string directory = base + "-trial";
  std::filesystem::remove_all(directory);
  std::filesystem::copy(base, directory, std::filesystem::copy_options::recursive);
  std::memset(&board, 0, sizeof board);
  board.fail.kind = static_cast<std::uint32_t>(kind);
  board.fail.nth = nth;
  const int status = in_child([&] { work(directory, earlier, options, board); });
  const bool fired = board.fail.fired != 0;
  const std::uint64_t count = board.fail.count;
  std::string problem;
  ++totals.trials;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    ++(board.deaths != 0 ? totals.came_back : totals.went_on);
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == kExitRefused) {
    ++totals.refused;
  } else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) {
    ++totals.reported;
  } else if (WIFSIGNALED(status)) {
    problem = "signal " + std::to_string(WTERMSIG(status));
  } else {
    problem = board.problem;
  }
  if (problem.empty()) {
    const int judged = in_child([&] { judge(directory, earlier, board); });
    if (!WIFEXITED(judged) || WEXITSTATUS(judged) != 0) {
      problem = board.problem[0] != 0 ? board.problem : "the restart ends with a signal";
    }
  }
  if (!problem.empty()) {
    constexpr std::uint64_t kShownMost = 20;
    if (++totals.failures <= kShownMost) {
      std::fprintf(stderr, "FAILED nth_failure --seed %llu --kind %s --nth %llu: %s\n",
                   static_cast<unsigned long long>(options.seed), kKindNames[kind],
                   static_cast<unsigned long long>(nth), problem.c_str());
    }
  }
  if (!fired) {
    totals.reached = count;
    --(board.deaths != 0 ? totals.came_back : totals.went_on);
    --totals.trials;
  }
  return fired;
}

int run(const Options& options) {
  const std::string directory = work_directory();
  const std::string base = directory + "/base";
  sim::seed_sodium_rng(options.seed);
  World world(base, store::Durability::kSync, {});
  CHECK(world.start());
  {
    Traffic traffic(world, options.seed);
    traffic.furnish();
    for (int step = 0; step < kStepsOfTraffic; ++step) traffic.step();
    CHECK(traffic.finish());
  }
  for (const Node node : {kBroker, kAlice, kBob}) world.kill(node);
  void* const shared =
      ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  Board& board = *static_cast<Board*>(shared);
  std::uint64_t failures = 0;
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  for (int kind = CM_FAIL_ALLOC; kind <= CM_FAIL_MMAP; ++kind) {
    if (options.kind != 0 && kind != options.kind) continue;
    const auto began = std::chrono::steady_clock::now();
    Totals totals;
    if (options.nth != 0) {
      trial(base, world, kind, options.nth, options, board, totals);
    } else {
      trial(base, world, kind, UINT64_MAX, options, board, totals);  // counts
      constexpr std::uint64_t kShortTrials = 24;
      const std::uint64_t stride = options.whole ? 1 : totals.reached / kShortTrials + 1;
      for (std::uint64_t nth = 1; totals.failures < 100; nth += stride) {
        if (!trial(base, world, kind, nth, options, board, totals)) break;
      }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf(
        "nth failure, %s: %llu trials to N = %llu: went on %llu, a node came back %llu, "
        "refused to start %llu, ended with a report %llu; %llu failures, %.1f s\n",
        kKindNames[kind], n(totals.trials), n(totals.reached), n(totals.went_on),
        n(totals.came_back), n(totals.refused), n(totals.reported), n(totals.failures),
        took.count());
    std::fflush(stdout);
    failures += totals.failures;
  }
  std::filesystem::remove_all(directory);
  return failures == 0 ? 0 : 1;
}

bool parse(int count, char** words, Options& options) {
  for (int index = 1; index < count; ++index) {
    const std::string_view word = words[index];
    if (word == "--whole") {
      options.whole = true;
      continue;
    }
    if (index + 1 == count) return false;
    const std::string_view value = words[++index];
    if (word == "--kind") {
      for (int kind = CM_FAIL_ALLOC; kind <= CM_FAIL_MMAP; ++kind) {
        if (value == kKindNames[kind]) options.kind = kind;
      }
      if (options.kind == 0) return false;
    } else if (word == "--seed") {
      options.seed = std::strtoull(words[index], nullptr, 10);
    } else if (word == "--nth") {
      options.nth = std::strtoull(words[index], nullptr, 10);
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
    std::fprintf(stderr, "usage: nth_failure [--whole] [--seed N] [--kind NAME] [--nth N]\n");
    return 3;
  }
  std::set_new_handler([] {  // as both roles do
    constexpr bool kMemoryIsExhausted = true;
    CHECK(!kMemoryIsExhausted);
  });
  cm::sim::install_sodium_rng();
  if (!cm::crypto::initialise()) return 1;
  return cm::faults::run(options);
}
