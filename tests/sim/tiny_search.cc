// tiny_search.cc — workers that expand states, and the level-by-level search that feeds them.
#include "tests/sim/tiny_search.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_set>

#include "core/base/check.h"
#include "tests/sim/memory_disk.h"

namespace cm::sim {
namespace {

// What a worker tells of one choice, followed by `problem` bytes of text. The choice behind the
// last one has kind kNoMore.
struct Found {
  enum class Kind : std::uint8_t { kState, kEnd, kProblem, kNoMore };
  StateHash state;
  std::uint32_t problem = 0;
  Kind kind = Kind::kNoMore;
};

void write_all(int fd, const void* bytes, std::size_t size) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t done = ::write(fd, at, size);
    if (done <= 0) std::_Exit(1);  // the search is gone
    at += done;
    size -= static_cast<std::size_t>(done);
  }
}

bool read_all(int fd, void* bytes, std::size_t size) {
  char* at = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t done = ::read(fd, at, size);
    if (done <= 0) return false;
    at += done;
    size -= static_cast<std::size_t>(done);
  }
  return true;
}

void tell_problem(int out, const std::string& problem) {
  const Found found{{}, static_cast<std::uint32_t>(problem.size()), Found::Kind::kProblem};
  write_all(out, &found, sizeof found);
  write_all(out, problem.data(), problem.size());
}

void take_and_tell(int out, TinyWorld& world, const Choice& choice) {
  world.take(choice);
  if (std::string problem = world.problem(); !problem.empty()) return tell_problem(out, problem);
  Found found{world.state(), 0, Found::Kind::kState};
  if (world.is_quiet()) {
    found.kind = Found::Kind::kEnd;
    world.judge_end();
    if (std::string problem = world.problem(); !problem.empty()) return tell_problem(out, problem);
  }
  write_all(out, &found, sizeof found);
}

// Runs `body` in a fork of this process. A fork that ends otherwise than it should is a finding.
template <typename Body>
void in_a_fork(int out, const Body& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    body();
    std::_Exit(0);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  if (status == 0) return;
  tell_problem(out, WIFSIGNALED(status)
                        ? "the process ended by signal " + std::to_string(WTERMSIG(status))
                        : "the process ended with status " + std::to_string(WEXITSTATUS(status)));
}

void expand(int out, TinyWorld& world, const Path& path) {
  for (const std::uint8_t number : path) world.take(world.choices().at(number));
  const std::vector<Choice> open = world.choices();
  CHECK(open.size() <= UINT8_MAX);
  for (std::size_t number = 0; number + 1 < open.size(); ++number) {
    in_a_fork(out, [&] { take_and_tell(out, world, open[number]); });
  }
  if (!open.empty()) take_and_tell(out, world, open.back());
}

[[noreturn]] void work(int in, int out, const std::string& directory, const TinyWorld::Size& size) {
  cm_memory_disk_on();
  TinyWorld world(directory, size, false);
  for (std::uint8_t length = 0; read_all(in, &length, sizeof length);) {
    Path path(length);
    if (!read_all(in, path.data(), path.size())) break;
    in_a_fork(out, [&] { expand(out, world, path); });
    const Found no_more;
    write_all(out, &no_more, sizeof no_more);
  }
  std::_Exit(0);
}

class Worker {
 public:
  Worker(const std::string& directory, const TinyWorld::Size& size) {
    int down[2], up[2];
    CHECK(::pipe(down) == 0 && ::pipe(up) == 0);
    std::fflush(nullptr);
    pid_ = ::fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      work(down[0], up[1], directory, size);
    }
    ::close(down[0]);
    ::close(up[1]);
    to_ = down[1];
    from_ = up[0];
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    ::close(to_);
    ::close(from_);
    ::waitpid(pid_, nullptr, 0);
  }

  int from() const { return from_; }
  std::size_t waiting() const { return asked_.size() - answered_; }

  void ask(const Path& path) {
    CHECK(path.size() <= UINT8_MAX);
    const auto length = static_cast<std::uint8_t>(path.size());
    write_all(to_, &length, sizeof length);
    write_all(to_, path.data(), path.size());
    asked_.push_back(&path);
  }

  // The answer to the question that has waited longest: on_found(path, found, problem) for each.
  template <typename OnFound>
  void answer(const OnFound& on_found) {
    CHECK(waiting() > 0);
    const Path& path = *asked_[answered_++];
    for (std::uint8_t number = 0;; ++number) {
      Found found;
      CHECK(read_all(from_, &found, sizeof found));
      if (found.kind == Found::Kind::kNoMore) break;
      std::string problem(found.problem, '\0');
      CHECK(read_all(from_, problem.data(), problem.size()));
      Path next = path;
      next.push_back(number);
      on_found(std::move(next), found, std::move(problem));
    }
    if (waiting() == 0) {
      asked_.clear();
      answered_ = 0;
    }
  }

 private:
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  std::vector<const Path*> asked_;
  std::size_t answered_ = 0;
};

struct StateHasher {
  std::size_t operator()(const StateHash& state) const noexcept {
    return static_cast<std::size_t>(state.low);
  }
};

class Search {
 public:
  Search(const std::string& directory, const TinyWorld::Size& size, double seconds, unsigned count)
      : end_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(std::min(seconds, kLongest)))) {
    CHECK(count >= 1 && count <= 64);
    for (unsigned number = 0; number < count; ++number) {
      workers_.push_back(std::make_unique<Worker>(directory + "/" + std::to_string(number), size));
    }
  }

  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;
  // The last first: it holds what would end those before it.
  ~Search() {
    while (!workers_.empty()) workers_.pop_back();
  }

  SearchResult run(const OnLevel& on_level) {
    std::vector<Path> level{Path{}};  // the beginning, whose own state nobody asks for
    result_.states = 1;
    while (!level.empty() && result_.problem.empty() && result_.left == 0) {
      on_level(level.front().size(), result_.states, level.size());
      result_.depth = level.front().size();
      next_.clear();
      search(level);
      level.swap(next_);
    }
    result_.left += result_.problem.empty() && result_.left == 0 ? 0 : level.size();
    return std::move(result_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr double kLongest = 1e8;
  static constexpr std::size_t kAskedAhead = 16;  // of one worker, so that it never waits for us

  void search(const std::vector<Path>& level) {
    std::size_t asked = 0;
    for (;;) {
      const bool is_over = !result_.problem.empty() || Clock::now() >= end_;
      for (const auto& worker : workers_) {
        while (!is_over && asked < level.size() && worker->waiting() < kAskedAhead) {
          worker->ask(level[asked++]);
        }
      }
      if (!hear()) break;
    }
    result_.left += level.size() - asked;
  }

  // One answer of each worker that has one. False: nobody was asked for anything.
  bool hear() {
    std::vector<pollfd> ready;
    for (const auto& worker : workers_) {
      ready.push_back({worker->waiting() > 0 ? worker->from() : -1, POLLIN, 0});
    }
    if (std::all_of(ready.begin(), ready.end(), [](const pollfd& one) { return one.fd < 0; })) {
      return false;
    }
    CHECK(::poll(ready.data(), ready.size(), -1) > 0);
    for (std::size_t number = 0; number < ready.size(); ++number) {
      if (ready[number].revents == 0) continue;
      workers_[number]->answer([this](Path path, const Found& found, std::string problem) {
        add(std::move(path), found, std::move(problem));
      });
    }
    return true;
  }

  void add(Path path, const Found& found, std::string problem) {
    ++result_.transitions;
    if (found.kind == Found::Kind::kProblem) {
      if (!result_.problem.empty()) return;
      result_.problem = std::move(problem);
      result_.path = std::move(path);
      return;
    }
    if (!seen_.insert(found.state).second) return;
    ++result_.states;
    if (found.kind == Found::Kind::kEnd) {
      ++result_.ends;
      result_.depth = std::max(result_.depth, path.size());
      return;
    }
    next_.push_back(std::move(path));
  }

  Clock::time_point end_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unordered_set<StateHash, StateHasher> seen_;
  std::vector<Path> next_;
  SearchResult result_;
};

}  // namespace

SearchResult search_tiny_world(const std::string& directory, const TinyWorld::Size& size,
                               double seconds, unsigned workers, const OnLevel& on_level) {
  return Search(directory, size, seconds, workers).run(on_level);
}

}  // namespace cm::sim
