// small_world.cc — every interleaving of the tiny world, breadth first.
//   small_world                  until no state is left to look at
//   small_world --seconds S      stops there, and says so
//   small_world --messages N     with the first N messages; --no-crash: without the crash
//   small_world --path 0,3,1     one path, verbose: as a failure prints it
// Holds:  a state is reached by replaying its choices from the beginning: stores cannot be forked.
//         States are the same when tiny_state.cc says so; a state is expanded once.
// Why:    what random seeds meet by luck, this meets for certain, in a small world.
// Limits: those of tiny_world.h, printed with the result.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "tests/sim/tiny_world.h"

namespace cm::sim {
namespace {

struct StateHasher {
  std::size_t operator()(const StateHash& state) const noexcept {
    return static_cast<std::size_t>(state.low);
  }
};

using Path = std::vector<std::uint8_t>;  // at each state, the number of the choice

struct Search {
  std::string directory;
  TinyWorld::Size size;
  std::unordered_map<StateHash, std::uint32_t, StateHasher> seen;  // state: its depth
  std::deque<Path> frontier;
  std::uint64_t transitions = 0, ends = 0, replayed = 0, deepest = 0;
};

std::string path_text(const Path& path) {
  std::string text;
  for (const std::uint8_t choice : path) {
    if (!text.empty()) text += ',';
    text += std::to_string(choice);
  }
  return text;
}

std::unique_ptr<TinyWorld> replay(Search& search, const Path& path, bool verbose) {
  auto world = std::make_unique<TinyWorld>(search.directory + "/world", search.size, verbose);
  for (const std::uint8_t number : path) {
    const std::vector<Choice> open = world->choices();
    CHECK(number < open.size());
    world->take(open[number]);
    ++search.replayed;
  }
  return world;
}

int fail(const Search& search, const Path& path, const std::string& problem) {
  std::fprintf(stderr, "FAILED behind %zu choices, %zu states seen\n  %s\n", path.size(),
               search.seen.size(), problem.c_str());
  std::fprintf(stderr, "repeat with: small_world --path %s\n", path_text(path).c_str());
  return 1;
}

// Looks at the state behind `path`; it joins the frontier when it is new and not an end.
int visit(Search& search, TinyWorld& world, const Path& path) {
  if (std::string problem = world.problem(); !problem.empty()) return fail(search, path, problem);
  const auto depth = static_cast<std::uint32_t>(path.size());
  if (!search.seen.emplace(world.state(), depth).second) return 0;
  search.deepest = std::max<std::uint64_t>(search.deepest, depth);
  if (!world.is_quiet()) {
    search.frontier.push_back(path);
    return 0;
  }
  ++search.ends;
  world.judge_end();
  if (std::string problem = world.problem(); !problem.empty()) return fail(search, path, problem);
  return 0;
}

int expand(Search& search, const Path& path) {
  std::unique_ptr<TinyWorld> world = replay(search, path, false);
  const std::size_t count = world->choices().size();
  CHECK(count <= UINT8_MAX);
  for (std::size_t number = 0; number < count; ++number) {
    if (number > 0) {
      world.reset();  // its stores are locked
      world = replay(search, path, false);
    }
    Path next = path;
    next.push_back(static_cast<std::uint8_t>(number));
    world->take(world->choices()[number]);
    ++search.transitions;
    if (const int result = visit(search, *world, next); result != 0) return result;
  }
  return 0;
}

int explore(Search& search, double seconds) {
  const auto begin = std::chrono::steady_clock::now();
  const auto took = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  {
    const std::unique_ptr<TinyWorld> world = replay(search, {}, false);
    if (const int result = visit(search, *world, {}); result != 0) return result;
  }
  double told = 60;
  while (!search.frontier.empty() && took() < seconds) {
    const Path path = std::move(search.frontier.front());
    search.frontier.pop_front();
    if (const int result = expand(search, path); result != 0) return result;
    if (took() < told) continue;
    told += 60;
    std::printf("  %.0f s: depth %zu, %zu states, %zu to look at\n", took(), path.size(),
                search.seen.size(), search.frontier.size());
    std::fflush(stdout);
  }
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "small world: %zu distinct states, %llu transitions, depth %llu, %llu quiet ends, "
      "%llu choices replayed, %.1f s\n",
      search.seen.size(), n(search.transitions), n(search.deepest), n(search.ends),
      n(search.replayed), took());
  if (search.frontier.empty()) {
    std::printf("  exhausted: the frontier is empty\n");
  } else {
    std::printf(
        "  NOT exhausted: stopped after %.0f s with %zu states to look at; all states "
        "of depth < %zu were expanded\n",
        seconds, search.frontier.size(), search.frontier.front().size());
  }
  std::printf(
      "  two daemons, one broker, %u messages, %s;\n  bounds: time passes only when nothing else "
      "can happen; amid effects "
      "is behind half of them;\n  both daemons are connected when it begins\n",
      search.size.messages,
      search.size.may_crash ? "at most one crash of any of them at any iteration" : "no crash");
  return 0;
}

int show(Search& search, const char* text) {
  Path path;
  while (*text != '\0') {
    char* rest = nullptr;
    path.push_back(static_cast<std::uint8_t>(std::strtoul(text, &rest, 10)));
    if (rest == text) return 3;
    text = *rest == ',' ? rest + 1 : rest;
  }
  const std::unique_ptr<TinyWorld> world = replay(search, path, true);
  if (world->is_quiet()) world->judge_end();
  int number = 0;
  for (const Choice& choice : world->choices()) {
    std::printf("choice %d: %s\n", number++, text_of(choice).c_str());
  }
  const std::string problem = world->problem();
  std::printf("%s\n", problem.empty() ? "no promise is broken" : problem.c_str());
  return problem.empty() ? 0 : 1;
}

int run(int count, char** words) {
  double seconds = 1e9;
  const char* path = nullptr;
  TinyWorld::Size size;
  for (int index = 1; index < count; ++index) {
    if (index + 1 < count && std::strcmp(words[index], "--seconds") == 0) {
      seconds = std::strtod(words[++index], nullptr);
    } else if (index + 1 < count && std::strcmp(words[index], "--messages") == 0) {
      size.messages = static_cast<std::uint32_t>(std::strtoul(words[++index], nullptr, 10));
    } else if (std::strcmp(words[index], "--no-crash") == 0) {
      size.may_crash = false;
    } else if (index + 1 < count && std::strcmp(words[index], "--path") == 0) {
      path = words[++index];
    } else {
      std::fprintf(
          stderr, "usage: small_world [--messages 1-3] [--no-crash] [--seconds S | --path N,..]\n");
      return 3;
    }
  }
  std::string base = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
  base += "/cm-small-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  Search search;
  search.directory = base;
  search.size = size;
  const int result = path != nullptr ? show(search, path) : explore(search, seconds);
  std::filesystem::remove_all(base);
  return result;
}

}  // namespace
}  // namespace cm::sim

int main(int count, char** words) {
  cm::sim::install_sodium_rng();
  if (!cm::crypto::initialise()) return 1;
  return cm::sim::run(count, words);
}
