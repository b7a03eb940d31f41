// daemon_drain_test.cc — rows on their way to the broker: lanes, retries, ages.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

// --- draining --------------------------------------------------------------------------------

TEST_F(DaemonTest, rows_in_flight_at_a_crash_are_pending_with_one_more_attempt) {
  start();
  link_up();
  send(bob_.hex, "id");
  ASSERT_EQ(row("id")->status, OutboxStatus::kInflight);
  ASSERT_EQ(row("id")->attempts, 1u);
  start();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  EXPECT_EQ(row("id")->attempts, 2u);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonTest, a_retry_carries_the_same_bytes) {
  start();
  link_up();
  send(bob_.hex, "id");
  const auto sent = [&] {
    for (const Done& done : done_) {
      if (field(done.text, "type") == "send") return done.text;
    }
    return std::string();
  };
  const std::string before = sent();
  ASSERT_FALSE(before.empty());
  start();
  link_up();
  EXPECT_EQ(sent(), before);
}

TEST_F(DaemonTest, a_lane_has_one_message_in_flight_and_other_lanes_go_on) {
  start();
  link_up();
  for (const char* id : {"a1", "a2", "a3"}) send(bob_.hex, id);
  EXPECT_EQ(row("a1")->status, OutboxStatus::kInflight);
  EXPECT_EQ(row("a2")->status, OutboxStatus::kPending);
  send(eve_.hex, "b1");
  EXPECT_EQ(sends(), (Texts{"b1"}));
  send(bob_.hex, "a4", "hi", R"(,"priority":"now")");
  EXPECT_EQ(sends(), (Texts{"a4"})) << "another priority is another lane";
  refuse("a1", "queue_full", "queue_full: wait");
  EXPECT_TRUE(sends().empty());
  good_ack("b1");
  EXPECT_EQ(row("b1")->status, OutboxStatus::kDone);
  later(500);
  EXPECT_EQ(sends(), (Texts{"a1"})) << "the oldest first";
  good_ack("a1");
  EXPECT_EQ(sends(), (Texts{"a2"}));
}

TEST_F(DaemonTest, transient_refusals_back_off_with_jitter_within_bounds) {
  for (const auto& [code, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {"rate_limit", "slow down"},
           {"queue_full", "queue_full"},
           {"insufficient_storage", "invalid word in it"},
           {"", "rate_limit: max 60 msg/min (burst 10) - slow down"},
           {"", "no connected peer for target (not online)"},
       }) {
    SCOPED_TRACE(text);
    start();
    link_up();
    const std::string id = "id-" + std::to_string(next_conn_);
    send(Member::make().hex, id);
    std::uint64_t cap = 500;
    for (int attempt = 0; attempt < 9; ++attempt, cap = std::min<std::uint64_t>(cap * 2, 30'000)) {
      refuse(id, code, text);
      const auto kept = row(id);
      ASSERT_EQ(kept->status, OutboxStatus::kPending);
      EXPECT_EQ(kept->error, text);
      const std::uint64_t delay = kept->next_ms - parts_.env.wall_ms;
      EXPECT_GE(delay, cap / 2);
      EXPECT_LE(delay, cap);
      later(delay - 1);
      EXPECT_TRUE(sends().empty());
      later(1);
      ASSERT_EQ(sends(), (Texts{id}));
    }
    good_ack(id);
  }
}

TEST_F(DaemonTest, permanent_refusals_end_the_row_with_their_reason) {
  start();
  link_up();
  for (const auto& [code, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {"not_found", "no such key"},
           {"idempotency_key_reused", "idempotency_key_reused: invalid retry"},
           {"", "payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"},
           {"", "blocked by recipient grants (sender lacks dm capability)"},
           {"", "Forbidden: missing"},
           {"", "unknown thing"},
       }) {
    SCOPED_TRACE(text);
    const std::string id = "id-" + std::to_string(next_conn_);
    send(bob_.hex, id);
    ASSERT_EQ(sends(), (Texts{id}));
    refuse(id, code, text);
    EXPECT_EQ(row(id)->status, OutboxStatus::kDead);
    EXPECT_EQ(row(id)->error, text);
    EXPECT_EQ(send(bob_.hex, id), 409u);
    EXPECT_EQ(field(reply_, "reason"), text);
  }
}

TEST_F(DaemonTest, an_ack_that_does_not_come_in_fifteen_seconds_is_a_retry) {
  start();
  link_up();
  send(bob_.hex, "id");
  later(14'999);
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  later(1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  good_ack("id");  // late, and still an answer
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
  refuse("id", "not_found", "too late");
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

TEST_F(DaemonTest, only_the_broker_that_got_a_message_can_answer_for_it) {
  start(2);
  link_up(0);
  link_up(1);
  send(bob_.hex, "id", "hi", R"(,"mesh":"crew")");
  good_ack("id", 1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  send(bob_.hex, "second", "hi", R"(,"mesh":"crew")");
  good_ack("second", 0);
  EXPECT_EQ(row("second")->status, OutboxStatus::kPending) << "it was never sent";
  good_ack("id", 0);
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

TEST_F(DaemonTest, an_ack_for_a_row_of_a_mesh_that_was_left_is_ignored) {
  start();
  link_up();
  send(bob_.hex, "id");
  change_row("id", [](store::OutboxRow& row) { row.text[store::kOutboxMesh] = "left"; });
  start();
  link_up();
  EXPECT_TRUE(sends().empty());
  good_ack("id");
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
}

TEST_F(DaemonTest, a_lost_connection_makes_rows_pending_and_the_next_one_sends_them) {
  start();
  link_up();
  send(bob_.hex, "id");
  link_down();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
  EXPECT_EQ(row("id")->attempts, 2u);
}

TEST_F(DaemonTest, a_blocked_link_is_sent_nothing_until_it_is_writable) {
  start();
  link_up();
  core_->on_link_blocked(links_[0], true);
  send(bob_.hex, "id");
  EXPECT_TRUE(sends().empty());
  core_->on_link_blocked(links_[0], false);
  run();
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonTest, a_row_that_is_168_hours_old_is_dead) {
  start();
  send(bob_.hex, "id");
  send(bob_.hex, "id-2");
  later(168ull * 3'600'000 - 1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  later(1);
  for (const char* id : {"id", "id-2"}) {
    EXPECT_EQ(row(id)->status, OutboxStatus::kDead);
    EXPECT_TRUE(has(row(id)->error, "max_age_exceeded"));
  }
}

// --- an operator's second attempt -------------------------------------------------------------

TEST_F(DaemonTest, a_requeued_row_keeps_its_bytes_and_its_route_under_a_fresh_id) {
  start();
  link_up();
  send(bob_.hex, "id", "hi", R"(,"priority":"now","reply_to_id":"r")");
  const std::string first = sent("send");
  refuse("id", "forbidden", "no");
  EXPECT_EQ(row("id")->status, OutboxStatus::kDead);
  EXPECT_EQ(status(http("POST", "/v1/outbox/requeue", {},
                        R"({"id":"id","new_client_message_id":"id-2","aborted_by":"ann"})")),
            200u);
  EXPECT_EQ(field(reply_, "new_client_message_id"), "id-2");
  const std::string second = sent("send");
  for (const char* name :
       {"targetSpec", "priority", "nonce", "ciphertext", "replyToId", "request_fingerprint"}) {
    EXPECT_EQ(field(first, name), field(second, name)) << name;
  }
  EXPECT_EQ(field(second, "client_message_id"), "id-2");
  EXPECT_EQ(row("id")->status, OutboxStatus::kAborted);
  status(get("/v1/outbox", "status=aborted"));
  EXPECT_EQ(field(reply_, "aborted_by"), "ann");
  EXPECT_EQ(field(reply_, "superseded_by"), "id-2");
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"priority":"now","reply_to_id":"r")"), 409u);
  good_ack("id-2");
  EXPECT_EQ(row("id-2")->status, OutboxStatus::kDone);
}

TEST_F(DaemonTest, a_row_anywhere_in_its_lane_can_be_requeued_once) {
  start();
  link_up();
  for (const char* id : {"1", "2", "3"}) send(bob_.hex, id);
  const auto requeue = [&](const std::string& id) {
    return status(http("POST", "/v1/outbox/requeue", {}, R"({"id":")" + id + "\"}"));
  };
  EXPECT_EQ(requeue("2"), 200u);  // in the middle
  const std::string new_two = field(reply_, "new_client_message_id");
  EXPECT_EQ(requeue("3"), 200u);
  const std::string new_three = field(reply_, "new_row_id");
  EXPECT_EQ(requeue(new_three), 200u) << "by the row's id, at the end";
  const std::string last = field(reply_, "new_client_message_id");
  for (const std::string& id : {std::string("2"), std::string("3"), std::string("none")}) {
    EXPECT_EQ(requeue(id), 409u) << id;
  }
  EXPECT_EQ(requeue("1"), 200u) << "in flight: it may arrive twice, as the operator knows";
  const std::string new_one = field(reply_, "new_client_message_id");
  EXPECT_EQ(sends(), (Texts{new_two}));
  good_ack("1");
  EXPECT_EQ(row("1")->status, OutboxStatus::kAborted) << "too late";
  good_ack(new_two);
  EXPECT_EQ(sends(), (Texts{last}));
  good_ack(last);
  EXPECT_EQ(sends(), (Texts{new_one}));
  EXPECT_EQ(requeue(new_two), 409u) << "done";
  EXPECT_EQ(status(http("POST", "/v1/outbox/requeue", {},
                        R"({"id":")" + new_one + R"(","new_client_message_id":"1"})")),
            409u)
      << "an id is never freed";
}

}  // namespace
}  // namespace cm::daemon
