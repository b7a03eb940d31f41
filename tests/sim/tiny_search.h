// tiny_search.h — every state of the tiny world, breadth first, by processes that fork.
// Owns:   search_tiny_world().
// Holds:  a worker keeps the world at its beginning. For a state it forks a process that replays
//         the choices that lead there, and that one forks again for each choice but the last: the
//         world lives in memory (memory_disk.h), so every fork has one of its own.
//         Levels are searched one behind the other: a failure is told by one of the shortest paths.
// Limits: states are the same when tiny_state.cc says so; a state is expanded once.
// Not:    what a choice is (tiny_world.h), what is printed (small_world.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/sim/tiny_world.h"

namespace cm::sim {

using Path = std::vector<std::uint8_t>;  // at each state, the number of the choice

struct SearchResult {
  std::uint64_t states = 0, transitions = 0, ends = 0;
  std::size_t depth = 0;  // of the deepest state
  std::size_t left = 0;   // states that were not expanded: out of time, or behind a failure
  std::string problem;    // empty: no promise was broken
  Path path;              // that leads to the problem
};

// Told at each new level: its depth, the states seen and those of this level.
using OnLevel = std::function<void(std::size_t depth, std::uint64_t states, std::size_t level)>;

// `directory` is for the locks of the stores; nothing of it is left. Stops between two states
// after `seconds`. `workers` is 1 to 64.
SearchResult search_tiny_world(const std::string& directory, const TinyWorld::Size& size,
                               double seconds, unsigned workers, const OnLevel& on_level);

}  // namespace cm::sim
