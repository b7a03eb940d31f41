// net_loop_test.cc — the loop alone: what wakes it, and how an iteration is cut short.
// Holds:  waits only for what has already been made ready.
// Not:    connections (net_server_test.cc).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "core/net/loop.h"
#include "core/net/socket.h"

namespace cm::net {
namespace {

TEST(Loop, timer_signals_and_descriptors_wake_a_blocking_collect) {
  auto loop = std::move(Loop::create(20'000).value());
  loop->arm(Loop::mono_ms() + 1);
  loop->collect(true);
  ASSERT_TRUE(loop->watch_signal(SIGUSR1));
  EXPECT_FALSE(loop->take_signal(SIGUSR1));
  ::raise(SIGUSR1);
  loop->collect(true);
  EXPECT_TRUE(loop->take_signal(SIGUSR1));
  EXPECT_FALSE(loop->take_signal(SIGUSR1));

  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  int calls = 0;
  const auto count = [](void* context, unsigned ready) noexcept {
    EXPECT_EQ(ready, Loop::kRead);
    ++*static_cast<int*>(context);
  };
  Loop::Watch* watch = loop->watch(reader.get(), Loop::kRead, count, &calls);
  ASSERT_NE(watch, nullptr);
  loop->collect(false);
  EXPECT_EQ(calls, 0);
  ASSERT_EQ(::write(writer.get(), "x", 1), 1);
  loop->collect(true);
  EXPECT_EQ(calls, 1);
  loop->set_interest(watch, 0);
  loop->collect(false);
  EXPECT_EQ(calls, 1);
  loop->set_interest(watch, Loop::kRead);
  loop->collect(true);
  EXPECT_EQ(calls, 2);
  loop->unwatch(watch);
}

TEST(Loop, a_stopped_collect_leaves_the_rest_for_the_next_one) {
  auto loop = std::move(Loop::create(1'000'000).value());
  struct Counter {
    Loop* loop;
    int calls = 0;
  } counter{loop.get()};
  const auto count = [](void* context, unsigned) noexcept {
    auto* found = static_cast<Counter*>(context);
    ++found->calls;
    found->loop->stop_collecting();
  };
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  const Fd second(::fcntl(writer.get(), F_DUPFD_CLOEXEC, 0));
  Loop::Watch* one = loop->watch(writer.get(), Loop::kWrite, count, &counter);
  Loop::Watch* two = loop->watch(second.get(), Loop::kWrite, count, &counter);
  loop->collect(false);
  EXPECT_EQ(counter.calls, 1);
  loop->collect(false);
  EXPECT_EQ(counter.calls, 2);
  loop->unwatch(one);
  loop->unwatch(two);
}

}  // namespace
}  // namespace cm::net
