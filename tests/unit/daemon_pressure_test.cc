// daemon_pressure_test.cc — disk pressure at 80, 95 and 100 %: what is refused, told, and healed.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

class DaemonPressure : public DaemonTest {
 protected:
  static constexpr std::uint64_t kBound = 8 << 20;

  void begin() {
    parts_.options.bound_bytes = kBound;
    start();
    link_up();
    stream_ = get("/v1/events");
  }
  std::uint32_t fill_percent() { return parts_.store->batch().fill_percent(); }
  // Rows of a table that no rule looks at, until the share is reached.
  void fill_to(std::uint32_t percent) {
    parts_.holds_foreign_rows = true;
    const std::string body(16 << 10, 'x');
    while (fill_percent() < percent) {
      store::MetaRow filler;
      filler.text[store::kMetaValue] = body;
      parts_.store->batch().put(TableId::kMeta, store::Key().add_u64(~filled_++).bytes(), filler);
      ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
      parts_.end_reading();
    }
    run();
  }
  void free_to(std::uint32_t percent) {
    // Pages that a transaction has freed are counted as free two commits later.
    while (fill_percent() >= percent && filled_ > 0) {
      parts_.store->batch().erase(TableId::kMeta, store::Key().add_u64(~--filled_).bytes());
      ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
      parts_.end_reading();
    }
    run();
  }
  std::string told(std::string_view kind) {
    std::string data;
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kStreamWrite && done.conn == stream_ &&
          has(done.text, "event: " + std::string(kind) + "\n")) {
        data += done.text;
      }
    }
    return data;
  }
  std::string pressure(const std::string& key) {
    status(get("/v1/health"));
    const std::size_t at = reply_.find(R"("pressure")");
    return at == std::string::npos ? "" : field(std::string_view(reply_).substr(at), key);
  }
  ConnRef stream_;
  std::uint64_t filled_ = 0;
};

TEST_F(DaemonPressure, eighty_percent_of_the_bytes_is_told_and_refuses_nothing) {
  begin();
  EXPECT_EQ(pressure("level"), "normal");
  fill_to(80);
  EXPECT_TRUE(has(told("outbox_pressure_high"), R"("level":"high")"));
  EXPECT_EQ(core_->pressure(), Pressure::kHigh);
  EXPECT_EQ(pressure("takes_sends"), "true");
  EXPECT_EQ(send(bob_.hex, "a"), 202u) << reply_;
  EXPECT_EQ(told("outbox_pressure_high"), "") << "once";
}

TEST_F(DaemonPressure, at_ninety_five_percent_new_sends_are_507_and_the_outbox_is_drained) {
  begin();
  link_down();
  send(bob_.hex, "waits");
  fill_to(95);
  EXPECT_TRUE(has(told("outbox_pressure_high"), R"("level":"refusing")"));
  EXPECT_EQ(send(bob_.hex, "new"), 507u);
  EXPECT_EQ(field(reply_, "error"), "insufficient_storage");
  EXPECT_TRUE(has(reply_, "store_bound_bytes")) << reply_;
  EXPECT_EQ(send(bob_.hex, "waits"), 202u) << "a known id needs no room";
  EXPECT_EQ(pressure("takes_sends"), "false");
  EXPECT_EQ(status(get("/v1/events")), 0u) << "a stream is still opened";
  link_up();
  EXPECT_EQ(sends(), (Texts{"waits"}));
  good_ack("waits");
  EXPECT_EQ(row("waits")->status, OutboxStatus::kDone);
  EXPECT_FALSE(row("new"));
}

TEST_F(DaemonPressure, a_full_daemon_is_degraded_and_still_receives_acknowledges_and_deletes) {
  begin();
  send(bob_.hex, "sent");
  fill_to(100);
  EXPECT_EQ(core_->pressure(), Pressure::kDegraded);
  EXPECT_EQ(send(bob_.hex, "new"), 507u);
  EXPECT_EQ(status(get("/v1/events")), 507u);
  EXPECT_TRUE(has(reply_, "opens no event stream")) << reply_;
  good_ack("sent");
  EXPECT_EQ(row("sent")->status, OutboxStatus::kDone);
  frame(push("in", "hello"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "client_ack"), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  EXPECT_EQ(status(http("DELETE", "/v1/outbox/sent")), 200u) << reply_;
  EXPECT_EQ(status(http("GET", "/v1/metrics")), 200u);
  EXPECT_TRUE(has(reply_, "cm_daemon_pressure_level 3\n")) << reply_;
}

TEST_F(DaemonPressure, it_heals_by_itself_and_says_so) {
  begin();
  fill_to(100);
  ASSERT_EQ(send(bob_.hex, "a"), 507u);
  free_to(60);
  run();
  EXPECT_EQ(core_->pressure(), Pressure::kNormal);
  EXPECT_EQ(send(bob_.hex, "a"), 202u) << reply_;
}

TEST_F(DaemonPressure, the_event_of_the_end_is_told_once) {
  begin();
  fill_to(81);
  std::string all;
  while (core_->pressure() != Pressure::kNormal && filled_ > 0) {
    free_to(fill_percent());
    all += told("outbox_pressure_high");
  }
  EXPECT_TRUE(has(all, R"("high":false)")) << all;
  EXPECT_EQ(all.find(R"("high":false)"), all.rfind(R"("high":false)"));
}

TEST_F(DaemonPressure, rows_count_as_bytes_do_and_end_at_ninety_percent) {
  parts_.limits.outbox_rows_max = 100;
  begin();
  link_down();
  for (int number = 0; number < 95; ++number) {
    ASSERT_EQ(send(Member::make().hex, "m" + std::to_string(number)), 202u) << number << reply_;
  }
  EXPECT_EQ(send(bob_.hex, "more"), 507u);
  EXPECT_TRUE(has(reply_, "outbox_rows_max")) << reply_;
  EXPECT_EQ(core_->pressure(), Pressure::kRefusing);
  link_up();
  for (int number = 0; number < 5; ++number) good_ack("m" + std::to_string(number));
  EXPECT_EQ(send(bob_.hex, "more"), 507u) << "at 90 rows it has not ended yet";
  good_ack("m5");
  EXPECT_EQ(send(bob_.hex, "more"), 202u) << reply_;
}

TEST_F(DaemonPressure, a_level_that_was_not_committed_was_not_reached) {
  parts_.limits.outbox_rows_max = 10;
  begin();
  link_down();
  for (int number = 0; number < 7; ++number) {
    send(Member::make().hex, "m" + std::to_string(number));
  }
  parts_.commit_fails = true;
  send(bob_.hex, "eighth");
  parts_.commit_fails = false;
  EXPECT_EQ(core_->pressure(), Pressure::kNormal);
  EXPECT_EQ(told("outbox_pressure_high"), "");
}

TEST_F(DaemonPressure, a_stream_of_a_failed_iteration_is_told_of_no_refusal) {
  begin();
  parts_.commit_fails = true;
  const std::string body = body_of(bob_.hex, "a");
  const wire::HttpRequest sending = request_of("POST", "/v1/send", {}, body);
  const wire::HttpRequest opening = request_of("GET", "/v1/events", {}, {});
  for (wire::HttpRequest request : {sending, opening}) {
    request.peer_is_unix = true;
    core_->on_http(ConnRef{next_conn_++, 1}, request);
  }
  const ConnRef opened{next_conn_ - 1, 1};
  run();
  parts_.commit_fails = false;
  EXPECT_EQ(status(opened), 507u);
  for (const Done& done : done_) {
    EXPECT_FALSE(done.kind == EffectKind::kStreamWrite && done.conn == opened) << done.text;
  }
  EXPECT_TRUE(has(told("request_refused"), R"("status":507)")) << "who listens is told";
}

TEST_F(DaemonPressure, the_ids_of_past_messages_have_a_bound_of_their_own) {
  config_.tombstone_bytes = 64 << 10;
  begin();
  std::string told_high;
  int ended = 0;
  // 16 pages of 4 KiB: 80 % are 13 of them.
  while (ended < 2'000) {
    const std::string id = "m" + std::to_string(ended);
    if (send(bob_.hex, id) != 202u) break;
    ++ended;
    good_ack(id);
    ASSERT_EQ(status(http("DELETE", "/v1/outbox/" + id)), 200u) << reply_;
    told_high += told("tombstone_pressure_high");
  }
  EXPECT_TRUE(has(told_high, R"("high":true,"bytes":)")) << told_high;
  EXPECT_LT(ended, 2'000);
  EXPECT_EQ(send(bob_.hex, "more"), 507u);
  EXPECT_TRUE(has(reply_, "tombstone_bytes")) << reply_;
  status(get("/v1/health"));
  EXPECT_EQ(field(reply_, "level"), "refusing");
  EXPECT_EQ(send(bob_.hex, "m0"), 200u) << "what is known is still answered";
  status(http("GET", "/v1/metrics"));
  EXPECT_TRUE(has(reply_, R"(cm_daemon_disk_pct{kind="tombstones"} 10)")) << reply_;
  config_.tombstone_bytes = 1 << 20;
  start();
  EXPECT_EQ(send(bob_.hex, "more"), 202u) << "the remedy: " << reply_;
}

TEST_F(DaemonPressure, each_kind_of_refusal_has_its_event_at_most_once_a_second) {
  begin();
  meet_legacy();
  const std::string big = body_of(bob_.hex, "big", std::string(70'000, 'x'));
  EXPECT_EQ(status(ask(big)), 413u);
  EXPECT_TRUE(has(told("request_refused"), R"("error":"payload_too_large","status":413,"count":1)"))
      << told("request_refused");
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedPayload), 1u);
  ask(big);
  ask(big);
  EXPECT_EQ(told("request_refused"), "");
  parts_.advance(1'000);
  ask(big);
  EXPECT_TRUE(has(told("request_refused"), R"("count":3)")) << told("request_refused");
  fill_to(95);
  ask(body_of(bob_.hex, "disk"));
  EXPECT_TRUE(has(told("request_refused"), R"("error":"insufficient_storage","status":507)"));
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonRefusedDisk), 1u);
}

}  // namespace
}  // namespace cm::daemon
