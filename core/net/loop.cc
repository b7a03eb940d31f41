// loop.cc — Loop over libevent's event base.
// Owns:   all calls of libevent in this folder.
// Holds:  a Watch's event is deleted before its memory goes; libevent then drops it from its
//         queue of active events too, so a callback never sees a dead watch.
// Not:    bufferevents and evhttp (design/architecture.md, "Network").
#include "core/net/loop.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/resource.h>
#include <time.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/base/check.h"

namespace cm::net {
namespace {

std::uint64_t clock_us(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec) / 1000u;
}

short flags_of(unsigned interest) noexcept {
  int flags = EV_PERSIST;
  if (interest & Loop::kRead) flags |= EV_READ;
  if (interest & Loop::kWrite) flags |= EV_WRITE;
  return static_cast<short>(flags);
}

timeval timeval_of(std::uint64_t us) noexcept {
  return {static_cast<time_t>(us / 1'000'000u), static_cast<suseconds_t>(us % 1'000'000u)};
}

}  // namespace

struct Loop::Watch {
  event ready{};
  Loop* loop = nullptr;
  OnReady on_ready = nullptr;
  void* context = nullptr;
  unsigned interest = 0;
};

struct Loop::SignalWatch {
  event raised{};
  Loop* loop = nullptr;
  bool used = false;
};

struct Loop::Base {
  event_base* events = nullptr;
  event timer{};
  SignalWatch signals[kSignalsMax];
};

Loop::Loop(std::uint32_t micros_max) : base_(std::make_unique<Base>()), micros_max_(micros_max) {}

Result<std::unique_ptr<Loop>> Loop::create(std::uint32_t micros_max) {
  std::unique_ptr<Loop> loop(new Loop(micros_max));
  event_config* config = event_config_new();
  if (config == nullptr) return fail(Err::kIo, "the event loop could not be configured");
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
  // This makes libevent look at the time between callbacks and poll again, yet its loop goes on
  // while callbacks are active: spent_check() is what ends an iteration.
  const timeval interval = timeval_of(micros_max);
  event_config_set_max_dispatch_interval(config, &interval, -1, 0);
  loop->base_->events = event_base_new_with_config(config);
  event_config_free(config);
  if (loop->base_->events == nullptr) return fail(Err::kIo, "the event loop could not be made");
  evtimer_assign(
      &loop->base_->timer, loop->base_->events,
      [](evutil_socket_t, short, void* self) { static_cast<Loop*>(self)->armed_ms_ = kNever; },
      loop.get());
  return loop;
}

Loop::~Loop() {
  if (base_->events == nullptr) return;
  evtimer_del(&base_->timer);
  for (SignalWatch& watch : base_->signals) {
    if (watch.used) evsignal_del(&watch.raised);
  }
  event_base_free(base_->events);
}

Loop::Watch* Loop::watch(int fd, unsigned interest, OnReady on_ready, void* context) {
  auto watch = std::make_unique<Watch>();
  watch->loop = this;
  watch->on_ready = on_ready;
  watch->context = context;
  event_assign(
      &watch->ready, base_->events, fd, flags_of(interest),
      [](evutil_socket_t, short what, void* self) {
        auto* found = static_cast<Watch*>(self);
        Loop* loop = found->loop;  // the callback may free the watch
        const unsigned ready = ((what & EV_READ) ? kRead : 0u) | ((what & EV_WRITE) ? kWrite : 0u);
        found->on_ready(found->context, ready);
        loop->spent_check();
      },
      watch.get());
  watch->interest = interest;
  if (interest != 0 && event_add(&watch->ready, nullptr) != 0) return nullptr;
  return watch.release();
}

void Loop::set_interest(Watch* watch, unsigned interest) {
  if (watch->interest == interest) return;
  if (watch->interest != 0) event_del(&watch->ready);
  watch->interest = interest;
  if (interest == 0) return;
  const int fd = static_cast<int>(event_get_fd(&watch->ready));
  const event_callback_fn callback = event_get_callback(&watch->ready);
  event_assign(&watch->ready, base_->events, fd, flags_of(interest), callback, watch);
  CHECK_EQ(event_add(&watch->ready, nullptr), 0);
}

void Loop::unwatch(Watch* watch) {
  if (watch->interest != 0) event_del(&watch->ready);
  delete watch;
}

void Loop::spent_check() noexcept {
  const std::uint64_t now = clock_us(CLOCK_MONOTONIC);
  if (collect_until_us_ == 0) collect_until_us_ = now + micros_max_;
  if (now >= collect_until_us_) stop_collecting();
}

void Loop::stop_collecting() noexcept { event_base_loopbreak(base_->events); }

void Loop::collect(bool may_block) {
  // Time asleep is not time spent: the account begins with the first callback.
  collect_until_us_ = 0;
  event_base_loop(base_->events, may_block ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

void Loop::arm(std::uint64_t mono) {
  if (mono == armed_ms_) return;
  armed_ms_ = mono;
  if (mono == kNever) {
    evtimer_del(&base_->timer);
    return;
  }
  const std::uint64_t now = mono_ms();
  const timeval wait = timeval_of(mono > now ? (mono - now) * 1000u : 0u);
  evtimer_add(&base_->timer, &wait);
}

Status Loop::watch_signal(int signal) {
  CHECK(signal > 0 && signal < 64);
  for (SignalWatch& watch : base_->signals) {
    if (watch.used) continue;
    watch.loop = this;
    evsignal_assign(
        &watch.raised, base_->events, signal,
        [](evutil_socket_t which, short, void* self) {
          static_cast<SignalWatch*>(self)->loop->signals_seen_ |= std::uint64_t{1} << which;
        },
        &watch);
    if (evsignal_add(&watch.raised, nullptr) != 0) {
      return fail(Err::kIo, "a signal could not be watched");
    }
    watch.used = true;
    return {};
  }
  return fail(Err::kFull, "too many signals are watched");
}

bool Loop::take_signal(int signal) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << signal;
  const bool seen = (signals_seen_ & bit) != 0;
  signals_seen_ &= ~bit;
  return seen;
}

std::uint64_t Loop::mono_ms() noexcept { return clock_us(CLOCK_MONOTONIC) / 1000u; }
std::uint64_t Loop::mono_micros() noexcept { return clock_us(CLOCK_MONOTONIC); }
std::uint64_t Loop::wall_ms() noexcept { return clock_us(CLOCK_REALTIME) / 1000u; }

std::uint64_t raise_fd_limit() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlimit raised{limit.rlim_max, limit.rlim_max};
  if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0) {
    return raised.rlim_cur;
  }
  return limit.rlim_cur;
}

}  // namespace cm::net
