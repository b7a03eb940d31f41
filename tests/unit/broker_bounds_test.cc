// broker_bounds_test.cc — what one member can make a broker hold, write or send is bounded.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    the bounds of queues (broker_test.cc), those of sockets (net_server_memory_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

class BoundsTest : public BrokerTest {
 protected:
  // Frames that come in one iteration.
  void flood(ConnRef conn, const std::string& frame, int times) {
    for (int count = 0; count < times; ++count) core_->on_text(conn, frame);
  }
  std::size_t refused(ConnRef conn) const {
    std::size_t count = 0;
    for (const std::string& frame : frames(conn, "error")) {
      count += field(frame, "code") == "rate_limit";
    }
    return count;
  }
  std::size_t bytes_to(ConnRef conn) const {
    std::size_t bytes = 0;
    for (const std::string& frame : frames(conn)) bytes += frame.size();
    return bytes;
  }
};

TEST_F(BoundsTest, replies_to_one_member_are_bounded_whatever_it_asks_for) {
  constexpr std::size_t kBound = 100'000;
  parts_.limits.member_reply_bytes_max = kBound;
  found(2);
  const ConnRef one = connect(members_[0]);
  const std::string long_text(60'000, 'x');
  text(one, R"({"type":"set_state","key":"k","value":")" + long_text + "\"}");
  text(one, R"({"type":"remember","content":"word )" + long_text + "\"}");
  text(one, R"({"type":"share_skill","name":"s","description":"d","instructions":")" + long_text +
                "\"}");
  text(one, R"({"type":"topic_create","name":"t"})");
  for (int count = 0; count < 30; ++count) {
    text(one, R"({"type":"topic_create","name":"t)" + std::to_string(count) +
                  R"(","description":")" + std::string(500, 'd') + "\"}");
    text(one, R"({"type":"share_skill","name":"s)" + std::to_string(count) +
                  R"(","description":")" + std::string(500, 'd') + R"(","instructions":"i"})");
  }
  text(one, send_text("#t", "post", std::string(64, 'a'), "next", std::string(60'000, 'A')));
  const ConnRef two = connect(members_[1]);
  for (const char* frame :
       {R"({"type":"list_state","_reqId":"r"})", R"({"type":"get_state","key":"k","_reqId":"r"})",
        R"({"type":"recall","query":"word","_reqId":"r"})",
        R"({"type":"list_skills","_reqId":"r"})", R"({"type":"get_skill","name":"s","_reqId":"r"})",
        R"({"type":"topic_list","_reqId":"r"})",
        R"({"type":"topic_history","topic":"t","_reqId":"r"})",
        R"({"type":"topic_members","topic":"t","_reqId":"r"})",
        R"({"type":"list_peers","_reqId":"r"})"}) {
    parts_.advance(60'000);
    flood(one, frame, 1'500);
    core_->on_text(two, frame);
    run();
    EXPECT_GT(refused(one), 0u) << frame;
    EXPECT_LT(bytes_to(one) - refused(one) * 200, 4 * kBound) << frame;
    EXPECT_EQ(refused(two), 0u) << frame << ": another member's budget is its own";
    EXPECT_EQ(closed(one), 0u);
    const std::string last = frames(one).back();
    EXPECT_EQ(field(last, "_reqId"), "r");
    EXPECT_GT(std::stoul(field(last, "retry_after_ms")), 0u);
    parts_.advance(std::stoul(field(last, "retry_after_ms")));
    text(one, frame);
    EXPECT_EQ(refused(one), 0u) << frame << ": after the time that it was told";
  }
}

TEST_F(BoundsTest, an_iteration_is_full_when_it_has_written_or_sends_its_share) {
  found(2);
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  parts_.limits.iteration_rows_max = 30;
  int sent = 0;
  while (!core_->iteration_full()) {
    core_->on_text(one, send_text(members_[1].hex, "id-" + std::to_string(++sent)));
  }
  EXPECT_EQ(sent, 10) << "message, dedupe and delivery each";
  run();
  EXPECT_FALSE(core_->iteration_full());
  parts_.limits.iteration_rows_max = 4'096;
  parts_.limits.iteration_effect_bytes_max = 50'000;
  core_->on_text(one,
                 R"({"type":"set_state","key":"k","value":")" + std::string(49'000, 'x') + "\"}");
  EXPECT_FALSE(core_->iteration_full());
  core_->on_text(two,
                 R"({"type":"set_state","key":"l","value":")" + std::string(1'000, 'x') + "\"}");
  EXPECT_TRUE(core_->iteration_full());
  run();
}

TEST_F(BoundsTest, leases_that_end_together_end_over_several_iterations) {
  constexpr std::size_t kMany = 12;
  found(kMany + 2);
  std::vector<ConnRef> listeners = {connect(members_[0]), connect(members_[1])};
  std::vector<ConnRef> leaving;
  for (std::size_t index = 2; index < kMany + 2; ++index)
    leaving.push_back(connect(members_[index]));
  for (const ConnRef conn : leaving) core_->on_closed(conn);
  run();
  parts_.limits.iteration_effect_bytes_max = 2'000;
  later(parts_.limits.presence_lease_ms);
  std::size_t told[2] = {events(listeners[0], "peer_left"), events(listeners[1], "peer_left")};
  EXPECT_GT(told[0], 0u);
  EXPECT_LT(told[0], kMany / 2);
  int iterations = 1;
  while (core_->work_left()) {
    EXPECT_LE(core_->next_deadline(), parts_.env.mono_ms);
    run();
    for (int which : {0, 1}) {
      const std::size_t now = events(listeners[static_cast<std::size_t>(which)], "peer_left");
      EXPECT_GT(now, 0u) << "each iteration goes on";
      told[which] += now;
    }
    ASSERT_LT(++iterations, 100);
  }
  EXPECT_EQ(told[0], kMany);
  EXPECT_EQ(told[1], kMany);
  EXPECT_EQ(core_->tables().presences.count(), 2u);
}

}  // namespace
}  // namespace cm::broker
