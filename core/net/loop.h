// loop.h — the libevent loop: ready descriptors, one timer, signals, and the two clocks.
// Owns:   the event base, every Watch, the process's signal watches.
// Holds:  callbacks run only inside collect(), never throw, and may unwatch anything. Without
//         ready descriptors, a timer or a signal the process sleeps: there is no periodic wake-up.
// Why:    an iteration is bounded in time, so that one busy peer cannot starve the others
//         (design/architecture.md, "The loop").
// Not:    connections (server.h), what a deadline is for: the owner computes it and calls arm().
#pragma once

#include <cstdint>
#include <memory>

#include "core/base/result.h"

namespace cm::net {

constexpr std::uint64_t kNever = UINT64_MAX;

class Loop {
 public:
  // Interests, and what was found ready. Errors and hang-ups are reported as ready.
  static constexpr unsigned kRead = 1;
  static constexpr unsigned kWrite = 2;
  using OnReady = void (*)(void* context, unsigned ready) noexcept;
  struct Watch;

  // `micros_max` bounds one collect(): callbacks that did not run yet run in the next one.
  static Result<std::unique_ptr<Loop>> create(std::uint32_t micros_max);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // The descriptor must stay open until unwatch(). Null if the system refuses the watch.
  Watch* watch(int fd, unsigned interest, OnReady on_ready, void* context);
  void set_interest(Watch* watch, unsigned interest);
  void unwatch(Watch* watch);

  // Waits until something is ready (or not at all), then runs the callbacks. With may_block it
  // may still return with nothing to do: after the timer, a signal or an interruption.
  void collect(bool may_block);
  // From a callback: return from collect() after this callback.
  void stop_collecting() noexcept;

  // The one timer: collect() returns at this monotonic time or a few milliseconds around it.
  // kNever disarms it.
  void arm(std::uint64_t mono_ms);

  // SIGINT, SIGTERM, SIGHUP, SIGUSR1 and the like arrive as a mark, cleared by reading it.
  Status watch_signal(int signal);
  bool take_signal(int signal) noexcept;

  static std::uint64_t mono_ms() noexcept;
  static std::uint64_t mono_micros() noexcept;
  static std::uint64_t wall_ms() noexcept;

 private:
  explicit Loop(std::uint32_t micros_max);
  void spent_check() noexcept;

  struct Base;
  struct SignalWatch;
  static constexpr int kSignalsMax = 8;

  std::unique_ptr<Base> base_;
  std::uint32_t micros_max_;
  std::uint64_t collect_until_us_ = 0;
  std::uint64_t armed_ms_ = kNever;
  std::uint64_t signals_seen_ = 0;
};

// Raises RLIMIT_NOFILE to its hard limit and answers it; connection caps derive from it.
std::uint64_t raise_fd_limit() noexcept;

}  // namespace cm::net
