// small_world.cc — every interleaving of the tiny world, breadth first.
//   small_world                  until no state is left to look at
//   small_world --seconds S      stops there, and says so
//   small_world --messages N     with the first N messages; --no-crash: without the crash
//   small_world --workers N      processes that search; as many as there are processors without
//   small_world --path 0,3,1     one path, verbose: as a failure prints it
// Holds:  what is printed, and the exit status: 0, 1 (a promise is broken), 3 (usage).
// Why:    what random seeds meet by luck, this meets for certain, in a small world.
// Limits: those of tiny_world.h, printed with the result.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "tests/sim/memory_disk.h"
#include "tests/sim/tiny_search.h"

namespace cm::sim {
namespace {

struct Options {
  TinyWorld::Size size;
  double seconds = 1e8;
  unsigned workers = std::max(1u, std::min(64u, std::thread::hardware_concurrency()));
  const char* path = nullptr;
};

std::string path_text(const Path& path) {
  std::string text;
  for (const std::uint8_t choice : path) {
    if (!text.empty()) text += ',';
    text += std::to_string(choice);
  }
  return text;
}

std::string size_text(const TinyWorld::Size& size) {
  return " --messages " + std::to_string(size.messages) + (size.may_crash ? "" : " --no-crash");
}

int explore(const Options& options, const std::string& directory) {
  const auto begin = std::chrono::steady_clock::now();
  const auto took = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  constexpr double kTellEvery = 30;
  double told = kTellEvery;
  const SearchResult result = search_tiny_world(
      directory, options.size, options.seconds, options.workers,
      [&](std::size_t depth, std::uint64_t states, std::size_t level) {
        if (took() < told) return;
        told = took() + kTellEvery;
        std::printf("  %.0f s: depth %zu, %llu states, %zu of this depth\n", took(), depth,
                    static_cast<unsigned long long>(states), level);
        std::fflush(stdout);
      });
  std::printf(
      "small world: %llu distinct states, %llu transitions, depth %zu, %llu quiet ends, %.1f s, "
      "%u workers\n",
      static_cast<unsigned long long>(result.states),
      static_cast<unsigned long long>(result.transitions), result.depth,
      static_cast<unsigned long long>(result.ends), took(), options.workers);
  std::printf(
      "  two daemons, one broker, %u messages, %s;\n  bounds: time passes only when nothing else "
      "can happen; amid effects is behind half of them;\n  both daemons are connected when it "
      "begins\n",
      options.size.messages,
      options.size.may_crash ? "at most one crash of any of them at any iteration" : "no crash");
  if (!result.problem.empty()) {
    std::fprintf(stderr, "FAILED behind %zu choices\n  %s\nrepeat with: small_world%s --path %s\n",
                 result.path.size(), result.problem.c_str(), size_text(options.size).c_str(),
                 path_text(result.path).c_str());
    return 1;
  }
  if (result.left == 0) {
    std::printf("  exhausted: no state is left to look at\n");
  } else {
    std::printf(
        "  NOT exhausted: stopped after %.0f s with %zu states to look at; all states of depth "
        "< %zu were expanded\n",
        options.seconds, result.left, result.depth);
  }
  return 0;
}

int show(const Options& options, const std::string& directory) {
  cm_memory_disk_on();
  Path path;
  for (const char* text = options.path; *text != '\0';) {
    char* rest = nullptr;
    path.push_back(static_cast<std::uint8_t>(std::strtoul(text, &rest, 10)));
    if (rest == text) return 3;
    text = *rest == ',' ? rest + 1 : rest;
  }
  TinyWorld world(directory + "/world", options.size, true);
  for (const std::uint8_t number : path) {
    const std::vector<Choice> open = world.choices();
    CHECK(number < open.size());
    world.take(open[number]);
  }
  if (world.is_quiet()) world.judge_end();
  int number = 0;
  for (const Choice& choice : world.choices()) {
    std::printf("choice %d: %s\n", number++, text_of(choice).c_str());
  }
  const std::string problem = world.problem();
  std::printf("%s\n", problem.empty() ? "no promise is broken" : problem.c_str());
  return problem.empty() ? 0 : 1;
}

bool parse(int count, char** words, Options& options) {
  for (int index = 1; index < count; ++index) {
    const bool has_value = index + 1 < count;
    const auto number = [&] {
      return static_cast<unsigned>(std::strtoul(words[++index], nullptr, 10));
    };
    if (has_value && std::strcmp(words[index], "--seconds") == 0) {
      options.seconds = std::strtod(words[++index], nullptr);
    } else if (has_value && std::strcmp(words[index], "--messages") == 0) {
      options.size.messages = number();
    } else if (has_value && std::strcmp(words[index], "--workers") == 0) {
      options.workers = number();
    } else if (has_value && std::strcmp(words[index], "--path") == 0) {
      options.path = words[++index];
    } else if (std::strcmp(words[index], "--no-crash") == 0) {
      options.size.may_crash = false;
    } else {
      return false;
    }
  }
  return options.size.messages >= 1 && options.size.messages <= TinyWorld::kMessages &&
         options.workers >= 1 && options.workers <= 64;
}

int run(int count, char** words) {
  Options options;
  if (!parse(count, words, options)) {
    std::fprintf(stderr,
                 "usage: small_world [--messages 1-3] [--no-crash] [--workers 1-64] "
                 "[--seconds S | --path N,..]\n");
    return 3;
  }
  std::string base = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
  base += "/cm-small-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  const int result = options.path != nullptr ? show(options, base) : explore(options, base);
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
