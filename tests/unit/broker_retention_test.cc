// broker_retention_test.cc — what a broker forgets, when, and what it says of a disk that fills.
#include <gtest/gtest.h>

#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

constexpr std::uint64_t kDayMs = 24ull * 3600 * 1000;

class BrokerRetentionTest : public BrokerTest {
 protected:
  // Days pass, and the daily job runs once behind them.
  void pass_days(std::uint64_t days) {
    ASSERT_TRUE(later(days * kDayMs));
    finish_job();
  }
  void finish_job() {
    const std::uint64_t runs = parts_.metrics.get(Metric::kBrokerRetentionRuns);
    for (int share = 0; share < 10'000; ++share) {
      later(5);
      if (parts_.metrics.get(Metric::kBrokerRetentionRuns) > runs) return;
    }
    FAIL() << "the job does not end";
  }
  // alice's message to bob, who acknowledges it.
  void deliver(ConnRef alice, ConnRef bob, const std::string& id) {
    const std::string ack_frame = send(alice, members_[1].hex, id);
    EXPECT_EQ(field(ack_frame, "queued"), "true") << ack_frame;
    ack(bob, field(ack_frame, "messageId"));
  }
  void leave(ConnRef conn) {
    core_->on_closed(conn);
    run();
  }
};

TEST_F(BrokerRetentionTest, a_dedupe_row_lives_as_long_as_was_promised_and_no_longer) {
  parts_.limits.dedupe_retention_days = 5;
  found(2);
  ConnRef alice = connect(members_[0]);
  deliver(alice, connect(members_[1]), "one");
  pass_days(4);
  alice = connect(members_[0]);
  EXPECT_EQ(field(send(alice, members_[1].hex, "one"), "duplicate"), "true");
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerDedupeExpired), 0u);
  pass_days(2);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerDedupeExpired), 1u);
  EXPECT_EQ(parts_.count(TableId::kDedupe), 0u);
  EXPECT_EQ(parts_.count(TableId::kMessage), 1u);
  EXPECT_EQ(field(send(connect(members_[0]), members_[1].hex, "one"), "duplicate"), "false");
}

TEST_F(BrokerRetentionTest, in_permanent_mode_no_id_is_ever_forgotten_and_daemons_are_told) {
  parts_.limits.dedupe_retention_days = 0;
  found(2);
  const ConnRef alice = connect(members_[0]);
  const std::string features =
      ask(alice, R"({"type":"feature_negotiation_request","require":["client_message_id_dedupe"]})",
          "feature_negotiation_response");
  EXPECT_TRUE(has(features, R"("mode":"permanent")")) << features;
  EXPECT_FALSE(has(features, "dedupe_retention_days")) << features;
  deliver(alice, connect(members_[1]), "one");
  pass_days(3'000);
  const std::string again = send(connect(members_[0]), members_[1].hex, "one");
  EXPECT_EQ(field(again, "duplicate"), "true");
  EXPECT_EQ(field(again, "history_available"), "false");  // the text of it is another matter
}

TEST_F(BrokerRetentionTest, a_pruned_message_is_a_duplicate_without_its_history) {
  parts_.limits.history_days_max = 10;
  found(2);
  const ConnRef alice = connect(members_[0]);
  const ConnRef bob = connect(members_[1]);
  deliver(alice, bob, "old");
  pass_days(9);
  deliver(connect(members_[0]), connect(members_[1]), "young");
  pass_days(2);
  EXPECT_EQ(parts_.count(TableId::kMessage), 1u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerMessagesPruned), 1u);
  const ConnRef again = connect(members_[0]);
  EXPECT_EQ(field(send(again, members_[1].hex, "old"), "history_available"), "false");
  EXPECT_EQ(field(send(again, members_[1].hex, "young"), "history_available"), "true");
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanDedupe), 0u);
}

TEST_F(BrokerRetentionTest, what_somebody_has_not_got_yet_is_never_pruned) {
  parts_.limits.history_days_max = 2;
  parts_.limits.undelivered_days_max = 30;
  found(3);
  const ConnRef alice = connect(members_[0]);
  for (const std::size_t other : {1u, 2u}) leave(connect(members_[other]));
  send(alice, members_[1].hex, "direct");
  send(alice, "*", "to-all");
  pass_days(10);
  EXPECT_EQ(parts_.count(TableId::kMessage), 2u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerMessagesPruned), 0u);
  pass_days(25);  // now both have expired into history, and that is old enough
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerExpired), 3u);
  EXPECT_EQ(parts_.count(TableId::kMessage), 0u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 0u);
}

TEST_F(BrokerRetentionTest, a_topic_post_goes_with_its_message) {
  parts_.limits.history_days_max = 10;
  found(2);
  const ConnRef alice = connect(members_[0]);
  const ConnRef bob = connect(members_[1]);
  text(alice, R"({"type":"topic_create","name":"builds","_reqId":"r"})");
  text(bob, R"({"type":"topic_join","topic":"builds"})");
  const std::string posted = send(alice, "#builds", "post");
  ack(bob, field(posted, "messageId"));
  EXPECT_EQ(parts_.count(TableId::kTopicPost), 1u);
  pass_days(11);
  EXPECT_EQ(parts_.count(TableId::kTopicPost), 0u);
  EXPECT_EQ(parts_.count(TableId::kMessage), 0u);
}

TEST_F(BrokerRetentionTest, many_rows_are_forgotten_in_shares_and_a_failed_share_is_done_again) {
  parts_.limits.dedupe_retention_days = 5;
  parts_.limits.history_days_max = 5;
  parts_.limits.rate_per_minute = 0;
  found(2);
  const ConnRef alice = connect(members_[0]);
  const ConnRef bob = connect(members_[1]);
  for (int number = 0; number < 700; ++number) {
    deliver(alice, bob, "m" + std::to_string(number));
  }
  ASSERT_TRUE(later(6 * kDayMs));
  for (int share = 0; share < 200; ++share) {
    parts_.commit_fails = share % 3 == 1;
    later(5);
  }
  parts_.commit_fails = false;
  if (parts_.metrics.get(Metric::kBrokerRetentionRuns) == 0) finish_job();
  EXPECT_EQ(parts_.count(TableId::kMessage), 0u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 0u);
  EXPECT_EQ(parts_.count(TableId::kDedupe), 0u);
}

TEST_F(BrokerRetentionTest, a_restart_does_not_begin_the_day_anew) {
  found(2);
  later(60'000);
  finish_job();
  later(kDayMs - 1'000'000);
  start();
  const std::uint64_t runs = parts_.metrics.get(Metric::kBrokerRetentionRuns);
  for (int share = 0; share < 100; ++share) later(5);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerRetentionRuns), runs);
  later(1'000'000);
  finish_job();
}

TEST_F(BrokerRetentionTest, rows_that_hang_on_nothing_are_counted_named_and_kept) {
  found(2);
  const ConnRef alice = connect(members_[0]);
  const ConnRef bob = connect(members_[1]);
  deliver(alice, bob, "kept");
  const std::string lost = field(send(alice, members_[1].hex, "lost"), "messageId");
  leave(bob);
  parts_.store->batch().erase(TableId::kMessage, store::ulid_key(*ulid_parse(lost)).bytes());
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
  later(60'000);
  finish_job();
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanDeliveries), 1u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanDedupe), 1u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanReceipts), 0u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanMessages), 0u);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
  EXPECT_TRUE(has(parts_.logged, "orphan_rows"));
  const std::string again = send(alice, members_[1].hex, "lost");
  EXPECT_EQ(field(again, "duplicate"), "true");
  EXPECT_EQ(field(again, "history_available"), "false");
  parts_.holds_foreign_rows = true;
}

TEST_F(BrokerRetentionTest, a_message_without_delivery_and_receipt_is_an_orphan) {
  found(2);
  const ConnRef alice = connect(members_[0]);
  const Ulid id = *ulid_parse(field(send(alice, members_[1].hex, "one"), "messageId"));
  send(alice, "*", "to-all");
  const std::uint32_t member_no = *parts_.store->batch().get_number(
      TableId::kMemberKey, store::u32_bytes_key(1, members_[1].key).bytes());
  parts_.store->batch().erase(
      TableId::kDelivery,
      store::delivery_key({store::MailboxKind::kMember, member_no}, 1, id).bytes());
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
  start();
  later(60'000);
  finish_job();
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerOrphanMessages), 1u);
}

// Sets how full the store is by its bound; ballast makes a percent more than a page or two.
class BrokerPressureTest : public BrokerRetentionTest {
 protected:
  void fill_to(std::uint64_t percent) {
    parts_.holds_foreign_rows = true;
    const std::string body(64 << 10, 'x');
    for (std::uint64_t number = 0; number < 100; ++number) {
      store::MetaRow row;
      row.text[store::kMetaValue] = body;
      parts_.store->batch().put(TableId::kMeta, store::Key().add_u64(~number).bytes(), row);
    }
    ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
    parts_.end_reading();
    const std::uint64_t used = parts_.store->used_bytes();
    parts_.options.bound_bytes = used * 100 / percent;
    start();
  }
};

TEST_F(BrokerPressureTest, at_80_percent_it_is_told_and_nothing_is_refused) {
  found(2);
  fill_to(85);
  const ConnRef alice = connect(members_[0]);
  EXPECT_EQ(field(send(alice, members_[1].hex, "one"), "queued"), "true");
  EXPECT_TRUE(has(parts_.logged, R"("event":"disk_pressure","level":"high")")) << parts_.logged;
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerPressureLevel), 1u);
  const std::string health = http("GET", "/health");
  EXPECT_EQ(field(health, "disk_pressure"), "high");
}

TEST_F(BrokerPressureTest, at_95_percent_messages_are_refused_for_now_and_deliveries_go_on) {
  found(2);
  const std::string waiting =
      field(send(connect(members_[0]), members_[1].hex, "waiting"), "messageId");
  fill_to(97);
  const ConnRef alice = connect(members_[0]);
  const std::string refused = send(alice, members_[1].hex, "one");
  EXPECT_EQ(field(refused, "code"), "insufficient_storage") << refused;
  EXPECT_TRUE(has(refused, "% full")) << refused;
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerRejectedDisk), 1u);
  EXPECT_EQ(parts_.count(TableId::kDedupe), 1u);  // a refusal consumes nothing
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerPressureLevel), 2u);
  const ConnRef bob = connect(members_[1]);
  ack(bob, waiting);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  fill_to(50);
  EXPECT_EQ(field(send(connect(members_[0]), members_[1].hex, "one"), "queued"), "true");
}

TEST_F(BrokerPressureTest, at_100_percent_nothing_new_is_kept_and_acks_are) {
  found(2);
  const std::string waiting =
      field(send(connect(members_[0]), members_[1].hex, "waiting"), "messageId");
  fill_to(103);
  const ConnRef bob = connect(members_[1]);
  const std::string summary =
      ask(bob, R"({"type":"set_summary","summary":"busy","_reqId":"r"})", "error");
  EXPECT_EQ(field(summary, "code"), "insufficient_storage") << summary;
  ack(bob, waiting);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerPressureLevel), 3u);
  EXPECT_TRUE(has(parts_.logged, R"("level":"degraded")"));
}

}  // namespace
}  // namespace cm::broker
