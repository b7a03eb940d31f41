// minute_count.h — how often somebody asked within a minute, for a bounded number of askers.
// Owns:   MinuteCount, and whom an address stands for (network_of).
// Holds:  memory is bounded: a full table forgets who was quiet for a minute, and while nobody was,
//         it refuses who is new, so that a flood of names can not buy a flood of calls.
// Source: docs/PROTOCOL.md §7; design/presence.md, last section; spec/wire.md §4 (hooks).
// Not:    the budget of messages (budget.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "core/base/hash.h"
#include "core/wire/http_request.h"

namespace cm::broker {

// Whom an address stands for: an IPv6 host has a whole /64, an IPv4 one (mapped) itself.
inline std::uint64_t network_of(const wire::PeerAddress& address) noexcept {
  constexpr std::size_t kPrefix = 8;
  const bool is_short =
      std::all_of(address.begin(), address.begin() + kPrefix, [](auto byte) { return byte == 0; });
  return hash64(is_short ? Bytes(address) : Bytes(address).first(kPrefix));
}

class MinuteCount {
 public:
  explicit MinuteCount(std::uint32_t calls_max) : calls_max_(calls_max) {}

  // Counts a call. `who` is a hash of the asker; a collision shares one count.
  bool may(std::uint64_t who, std::uint64_t mono_ms) {
    if (seen_.size() >= kAskersMax && !seen_.contains(who)) {
      std::erase_if(seen_, [&](const auto& e) { return mono_ms - e.second.since_ms >= kMinuteMs; });
      if (seen_.size() >= kAskersMax) return false;
    }
    Count& mine = seen_[who];
    if (mine.calls == 0 || mono_ms - mine.since_ms >= kMinuteMs) mine = {mono_ms, 0};
    if (mine.calls >= calls_max_) return false;
    ++mine.calls;
    return true;
  }

 private:
  static constexpr std::size_t kAskersMax = 10'000;
  static constexpr std::uint64_t kMinuteMs = 60'000;
  struct Count {
    std::uint64_t since_ms = 0;
    std::uint32_t calls = 0;
  };
  std::uint32_t calls_max_;
  std::unordered_map<std::uint64_t, Count> seen_;
};

}  // namespace cm::broker
