// backoff.h — how long to wait before the next attempt.
// Owns:   Backoff: the upper bound of the wait; the peer draws uniformly from 0 to it (full
// jitter). Holds:  1, 2, 4, 8, 16, 30, 30.. s; only an accepted hello resets it. After a refused
// hello 30 s
//         and up to 5 min, since connecting again soon would be refused the same way.
// Source: docs/PROTOCOL.md §1; spec/wire.md §1, design/transports.md.
#pragma once

#include <algorithm>
#include <cstdint>

namespace cm::ws_broker {

class Backoff {
 public:
  std::uint64_t next_cap_ms() noexcept {
    if (refusals_ != 0) {
      return std::min<std::uint64_t>(kRefused << std::min(refusals_ - 1, 8u), kRefusedMax);
    }
    constexpr std::uint64_t kCaps[] = {1'000, 2'000, 4'000, 8'000, 16'000, 30'000};
    const std::uint64_t cap = kCaps[losses_];
    losses_ = std::min(losses_ + 1, 5u);
    return cap;
  }
  void ready() noexcept { losses_ = refusals_ = 0; }
  void auth_failed() noexcept { refusals_ = std::min(refusals_ + 1, 8u); }

 private:
  static constexpr std::uint64_t kRefused = 30'000;
  static constexpr std::uint64_t kRefusedMax = 300'000;
  std::uint32_t losses_ = 0;
  std::uint32_t refusals_ = 0;
};

}  // namespace cm::ws_broker
