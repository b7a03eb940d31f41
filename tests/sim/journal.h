// journal.h — everything that happens in a run, as lines: hashed, the last ones kept.
// Owns:   Journal and Counters.
// Holds:  the hash chains every line, so that two runs are the same run exactly if it is equal.
//         Whether lines are printed changes nothing in it.
// Not:    judging what happened (oracle.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/sim/faults.h"

namespace cm::sim {

// What the end of the program reports, summed over all seeds.
struct Counters {
  std::uint64_t seeds = 0, turns = 0;
  std::uint64_t accepted = 0, delivered = 0, duplicates = 0, conflicts = 0, dead = 0;
  std::uint64_t many_stored = 0, many_delivered = 0;  // multicasts, and how often one arrived
  std::uint64_t commits = 0, requeues = 0, statuses = 0;
  Tally faults;
  std::uint64_t events = 0, inbox_reads = 0, frames = 0;
  // What senders were told of recipients: nothing, handed, seen, expired; over streams;
  // signatures that the oracle verified.
  std::array<std::uint64_t, 4> told{};
  std::uint64_t live_receipts = 0, verified = 0;
};

class Journal {
 public:
  static constexpr std::size_t kKept = 30;

  explicit Journal(bool verbose) : verbose_(verbose) {}

  void line(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void add(std::string_view text);
  // The virtual time and the turn, in front of each line.
  void set_now(std::uint64_t now_ms, std::uint64_t turn) noexcept {
    now_ms_ = now_ms;
    turn_ = turn;
  }
  std::uint64_t turn() const noexcept { return turn_; }
  std::uint64_t hash() const noexcept { return hash_; }
  // The last lines, oldest first. Writes with write(2) alone: a failed CHECK calls it, too.
  void print_last(int fd) const noexcept;

 private:
  bool verbose_;
  std::uint64_t now_ms_ = 0;
  std::uint64_t turn_ = 0;
  std::uint64_t hash_ = 0;
  std::uint64_t count_ = 0;
  std::array<std::string, kKept> kept_;
};

}  // namespace cm::sim
