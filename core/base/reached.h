// reached.h — what the build of `make coverage` writes down: errors told, cells reached.
// Owns:   Reached, a row of flags and the lines that they stand for.
// Why:    gcov knows lines only, and forgets all of a process that is killed. Each line is written
//         when it is reached first, to the file named by CM_REACHED.
// Not:    in any other build. What has to be reached is judged by tests/coverage.py.
#pragma once

#ifdef CM_COVERAGE
#include <array>
#include <atomic>
#include <cstddef>
#include <string_view>

namespace cm {

// Appends "<kind> <first> <second>" and a newline; false if that was not possible. The texts are
// at most 64 bytes each. One write(2), so that the lines of several processes never mix.
bool write_reached(std::string_view kind, std::string_view first, std::string_view second) noexcept;

template <std::size_t N>
class Reached {
 public:
  void note(std::size_t index, std::string_view kind, std::string_view first,
            std::string_view second) noexcept {
    if (!seen_[index]) seen_[index] = write_reached(kind, first, second);
  }

 private:
  std::array<std::atomic<bool>, N> seen_{};
};

}  // namespace cm
#endif
