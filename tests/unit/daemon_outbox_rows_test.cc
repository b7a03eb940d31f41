// daemon_outbox_rows_test.cc — an operator's hands on the outbox: inspect, requeue, drop, prune.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

constexpr std::uint64_t kHourMs = 3'600'000;
constexpr std::uint64_t kDayMs = 24 * kHourMs;

class OutboxRows : public DaemonTest {
 protected:
  std::uint32_t inspect(const std::string& id) { return status(get("/v1/outbox/" + id)); }
  std::uint32_t drop(const std::string& id) { return status(http("DELETE", "/v1/outbox/" + id)); }
  std::uint32_t requeue(const std::string& id, const std::string& more = {}) {
    return status(http("POST", "/v1/outbox/requeue", {}, R"({"id":")" + id + "\"" + more + "}"));
  }
  std::uint32_t prune(const std::string& body) {
    const ConnRef conn = http("POST", "/v1/outbox/prune", {}, body);
    for (int turn = 0; turn < 50; ++turn) {
      if (const std::uint32_t code = status(conn); code != 0) return code;
      run();
    }
    return 0;
  }
  void done(const std::string& id, const std::string& broker_id) {
    ASSERT_EQ(send(bob_.hex, id), 202u) << reply_;
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":")" + broker_id +
          R"(","queued":true})");
  }
  void dead(const std::string& id) {
    ASSERT_EQ(send(bob_.hex, id), 202u) << reply_;
    refuse(id, "forbidden", "not allowed");
  }
  std::string opened(const std::string& frame_text) {
    std::uint8_t theirs[32], ours[32];
    CHECK(crypto_sign_ed25519_pk_to_curve25519(ours, self_.key.data()) == 0);
    CHECK(crypto_sign_ed25519_sk_to_curve25519(theirs, bob_.secret.data()) == 0);
    const auto nonce = crypto::base64_decode(field(frame_text, "nonce"), parts_.scratch);
    const auto sealed = crypto::base64_decode(field(frame_text, "ciphertext"), parts_.scratch);
    CHECK(nonce && sealed && nonce->size() == 24 && sealed->size() > 16);
    std::string text(sealed->size() - 16, 0);
    const bool good =
        crypto_box_open_easy(reinterpret_cast<unsigned char*>(text.data()), sealed->data(),
                             sealed->size(), nonce->data(), ours, theirs) == 0;
    parts_.scratch.reset();
    return good ? text : std::string("(sealed to somebody else)");
  }
};

TEST_F(OutboxRows, an_inspected_row_shows_its_audit_columns_and_where_it_stands) {
  start();
  link_up();
  for (const char* id : {"first", "second", "third"}) {
    send(bob_.hex, id, "hello", R"(,"priority":"now","reply_to_id":"r-1")");
  }
  ASSERT_EQ(inspect("second"), 200u) << reply_;
  EXPECT_EQ(field(reply_, "status"), "pending");
  EXPECT_EQ(field(reply_, "target"), bob_.hex);
  EXPECT_EQ(field(reply_, "priority"), "now");
  EXPECT_EQ(field(reply_, "reply_to_id"), "r-1");
  EXPECT_EQ(field(reply_, "payload_bytes"), "5");
  EXPECT_EQ(field(reply_, "mesh"), "crew");
  EXPECT_EQ(field(reply_, "request_fingerprint_prefix").size(), 16u);
  EXPECT_TRUE(has(reply_, R"("lane":{"position":2,"length":3,"waits_for":"messages before it")"));
  ASSERT_EQ(inspect("first"), 200u);
  EXPECT_TRUE(has(reply_, R"("waits_for":"the broker's answer")")) << reply_;
  refuse("first", "queue_full", "wait");
  inspect("first");
  EXPECT_TRUE(has(reply_, R"("waits_for":"the backoff","failures":1)")) << reply_;
  EXPECT_NE(field(reply_, "next_attempt_at"), "null");
  link_down();
  inspect("first");
  EXPECT_TRUE(has(reply_, R"("waits_for":"the broker connection")")) << reply_;
  EXPECT_EQ(inspect("nobody-has-this"), 404u);
}

TEST_F(OutboxRows, a_row_is_found_by_every_name_that_people_have_for_it) {
  start();
  link_up();
  done("message-0001", "brokerA111111111111111111111111A");
  done("message-0002", "brokerB222222222222222222222222B");
  inspect("message-0001");
  const std::string row_id = field(reply_, "id");
  for (const std::string& name :
       {row_id, std::string("brokerA111111111111111111111111A"), std::string("brokerA1"),
        row_id.substr(18), std::string("1111111A"), std::string("age-0001")}) {
    ASSERT_EQ(inspect(name), 200u) << name << reply_;
    EXPECT_EQ(field(reply_, "client_message_id"), "message-0001") << name;
  }
  EXPECT_EQ(inspect("message-"), 409u) << reply_;
  EXPECT_EQ(field(reply_, "error"), "ambiguous_id");
  EXPECT_EQ(inspect("message"), 404u) << "seven characters are too few";
  EXPECT_EQ(drop("message-0001"), 200u);
  for (const std::string& name : {row_id, std::string("brokerA1"), std::string("age-0001")}) {
    ASSERT_EQ(inspect(name), 200u) << name << reply_;
    EXPECT_EQ(field(reply_, "tombstone"), "true") << name;
  }
}

TEST_F(OutboxRows, the_chain_of_attempts_is_shown_whole_from_each_of_its_links) {
  start();
  link_up();
  dead("a");
  ASSERT_EQ(requeue("a", R"(,"new_client_message_id":"b")"), 200u) << reply_;
  refuse("b", "forbidden", "still not");
  ASSERT_EQ(requeue("b", R"(,"new_client_message_id":"c")"), 200u) << reply_;
  good_ack("c");
  ASSERT_EQ(drop("a"), 200u) << reply_;
  for (const char* id : {"a", "b", "c"}) {
    ASSERT_EQ(inspect(id), 200u) << reply_;
    const std::string chain = reply_.substr(reply_.find(R"("chain")"));
    const std::size_t a =
        chain.find(R"("client_message_id":"a","status":"aborted","tombstone":true)");
    const std::size_t b =
        chain.find(R"("client_message_id":"b","status":"aborted","tombstone":false)");
    const std::size_t c = chain.find(R"("client_message_id":"c","status":"done")");
    EXPECT_TRUE(a < b && b < c && c != std::string::npos) << id << chain;
    const std::size_t here = chain.find(R"("this":true)");
    EXPECT_GT(here, std::string_view(id) == "a" ? a : std::string_view(id) == "b" ? b : c);
  }
}

TEST_F(OutboxRows, a_patched_payload_goes_sealed_anew_to_the_same_target_and_nobody_else) {
  start();
  link_up();
  send(bob_.hex, "a", "wrong words", R"(,"priority":"low","reply_to_id":"r")");
  const std::string first = sent("send");
  EXPECT_EQ(opened(first), "wrong words");
  refuse("a", "forbidden", "no");
  ASSERT_EQ(requeue("a", R"(,"new_client_message_id":"b","patch_payload":"right\nwords")"), 200u)
      << reply_;
  EXPECT_EQ(field(reply_, "patched"), "true");
  EXPECT_EQ(field(reply_, "aborted_client_message_id"), "a");
  const std::string second = sent("send");
  EXPECT_EQ(opened(second), "right\nwords");
  for (const char* name : {"targetSpec", "priority", "replyToId"}) {
    EXPECT_EQ(field(first, name), field(second, name)) << name;
  }
  for (const char* name : {"nonce", "ciphertext", "request_fingerprint"}) {
    EXPECT_NE(field(first, name), field(second, name)) << name;
  }
  good_ack("b");
  EXPECT_EQ(send(bob_.hex, "a", "wrong words", R"(,"priority":"low","reply_to_id":"r")"), 409u);
  EXPECT_EQ(field(reply_, "conflict"), "outbox_aborted_fingerprint_match")
      << "the old id stays bound to the old text";
}

TEST_F(OutboxRows, a_patch_that_cannot_be_sent_changes_nothing) {
  start();
  meet_legacy();
  dead("a");
  const std::string big(parts_.limits.payload_bytes_max + 1, 'x');
  EXPECT_EQ(requeue("a", R"(,"patch_payload":")" + big + "\""), 413u);
  EXPECT_TRUE(has(reply_, "'patch_payload'")) << reply_;
  for (const char* wrong : {R"(,"patch_payload":"")", R"(,"patch_payload":7)"}) {
    EXPECT_EQ(requeue("a", wrong), 400u) << reply_;
  }
  EXPECT_EQ(row("a")->status, OutboxStatus::kDead);
  change_row("a", [](store::OutboxRow& changed) { changed.fixed.has_session = 1; });
  EXPECT_EQ(requeue("a", R"(,"patch_payload":"other")"), 400u);
  EXPECT_TRUE(has(reply_, "a session wrote this message")) << reply_;
  EXPECT_EQ(row("a")->status, OutboxStatus::kDead);
}

TEST_F(OutboxRows, only_what_has_ended_can_be_dropped_and_its_id_stays_taken) {
  start();
  link_up();
  send(bob_.hex, "open");
  send(bob_.hex, "behind");
  for (const char* id : {"open", "behind"}) {
    EXPECT_EQ(drop(id), 409u);
    EXPECT_EQ(field(reply_, "error"), "outbox_row_open");
    EXPECT_TRUE(has(reply_, "requeue")) << reply_;
  }
  good_ack("open");
  EXPECT_EQ(drop("open"), 200u) << reply_;
  EXPECT_EQ(field(reply_, "dropped"), "true");
  EXPECT_EQ(drop("open"), 200u) << "again: it is gone already";
  EXPECT_EQ(field(reply_, "dropped"), "false");
  EXPECT_EQ(drop("never-sent"), 404u);
  EXPECT_FALSE(row("open"));
  EXPECT_EQ(parts_.count(TableId::kOutboxBody), 1u);
  EXPECT_EQ(parts_.count(TableId::kTombstone), 1u);
  EXPECT_EQ(requeue("open"), 409u) << "its bytes are gone";
  EXPECT_TRUE(has(reply_, "its bytes are gone")) << reply_;
  EXPECT_EQ(field(reply_, "code"), "outbox_row_ended");
  EXPECT_EQ(requeue("never-sent"), 409u);
  EXPECT_EQ(field(reply_, "code"), "not_found");
  EXPECT_EQ(requeue("behind", R"(,"new_client_message_id":"open")"), 409u)
      << "an id is never freed";
}

TEST_F(OutboxRows, a_misspelt_field_prunes_and_requeues_nothing) {
  start();
  link_up();
  done("done", "b1");
  dead("dead");
  EXPECT_EQ(status(http("POST", "/v1/outbox/prune", {}, R"({"older_than":604800})")), 400u);
  EXPECT_TRUE(has(reply_, "'older_than': expected another field: there are older_than_s, states"))
      << reply_;
  EXPECT_EQ(requeue("dead", R"(,"patch_paylod":"other words")"), 400u);
  EXPECT_TRUE(row("done") && row("dead")->status == store::OutboxStatus::kDead);
}

TEST_F(OutboxRows, a_requeue_of_what_had_been_sent_says_that_both_may_arrive) {
  start();
  ASSERT_EQ(send(bob_.hex, "waits"), 202u);
  EXPECT_EQ(requeue("waits"), 200u);
  EXPECT_EQ(field(reply_, "may_arrive_twice"), "false");
  link_up();
  ASSERT_EQ(send(eve_.hex, "sent"), 202u);
  ASSERT_EQ(row("sent")->status, store::OutboxStatus::kInflight);
  EXPECT_EQ(requeue("sent"), 200u);
  EXPECT_EQ(field(reply_, "may_arrive_twice"), "true");
}

TEST_F(OutboxRows, a_full_outbox_takes_the_requeue_of_what_is_open) {
  parts_.limits.outbox_rows_max = 100;
  start();
  for (int number = 0; send(bob_.hex, "m" + std::to_string(number)) == 202u; ++number) {
  }
  EXPECT_EQ(requeue("m1"), 200u) << reply_;
}

TEST_F(OutboxRows, a_tombstone_answers_as_the_row_did) {
  start();
  link_up();
  done("done", "b1");
  dead("dead");
  dead("aborted");
  ASSERT_EQ(requeue("aborted", R"(,"new_client_message_id":"other")"), 200u);
  good_ack("other");
  const auto answers = [&] {
    std::string all;
    for (const char* id : {"done", "dead", "aborted"}) {
      for (const char* text : {"hi", "another"}) {
        const std::uint32_t code = send(bob_.hex, id, text);
        all += std::to_string(code) + " " + field(reply_, "conflict") + " " +
               field(reply_, "reason") + " " + field(reply_, "broker_message_id") + " " +
               field(reply_, "duplicate") + "\n";
      }
    }
    return all;
  };
  const std::string before = answers();
  EXPECT_TRUE(has(before, "200   b1 true\n409 outbox_done_fingerprint_mismatch  b1")) << before;
  EXPECT_TRUE(has(before, "409 outbox_dead_fingerprint_match not allowed")) << before;
  ASSERT_EQ(prune(R"({"states":["done","dead","aborted"]})"), 200u) << reply_;
  EXPECT_EQ(field(reply_, "shrunk"), "4");
  EXPECT_EQ(parts_.count(TableId::kOutbox), 0u);
  EXPECT_EQ(answers(), before);
  start();
  EXPECT_EQ(answers(), before) << "after a restart, too";
  EXPECT_EQ(send(bob_.hex, "done", "hi", R"(,"mesh":"elsewhere")"), 409u)
      << "another mesh is another request";
}

TEST_F(OutboxRows, pruning_spares_what_is_open_what_is_young_and_what_can_be_requeued) {
  start();
  link_up();
  done("old", "b1");
  dead("old-dead");
  later(2 * kHourMs);
  done("young", "b2");
  send(bob_.hex, "open");
  ASSERT_EQ(prune(R"({"older_than_s":3600,"dry_run":true})"), 200u) << reply_;
  EXPECT_EQ(field(reply_, "shrunk"), "1");
  EXPECT_EQ(field(reply_, "dry_run"), "true");
  EXPECT_EQ(parts_.count(TableId::kTombstone), 0u);
  ASSERT_EQ(prune(R"({"older_than_s":3600})"), 200u) << reply_;
  EXPECT_FALSE(row("old"));
  EXPECT_EQ(row("old-dead")->status, OutboxStatus::kDead);
  EXPECT_EQ(row("young")->status, OutboxStatus::kDone);
  ASSERT_EQ(prune(R"({"states":["dead"]})"), 200u) << reply_;
  EXPECT_FALSE(row("old-dead"));
  ASSERT_EQ(prune("{}"), 200u) << reply_;
  EXPECT_FALSE(row("young"));
  EXPECT_EQ(row("open")->status, OutboxStatus::kInflight);
  EXPECT_EQ(parts_.count(TableId::kTombstone), 3u);
  EXPECT_EQ(parts_.count(TableId::kOutboxId), 4u);
  for (const char* wrong : {R"({"states":[]})", R"({"states":["pending"]})", R"({"states":7})",
                            R"({"older_than_s":-1})", R"({"dry_run":"yes"})"}) {
    EXPECT_EQ(prune(wrong), 400u) << wrong;
  }
}

TEST_F(OutboxRows, what_ended_shrinks_by_itself_after_seven_days) {
  start();
  link_up();
  done("a", "b1");
  later(7 * kDayMs - 2 * kHourMs);
  done("b", "b2");
  EXPECT_EQ(row("a")->status, OutboxStatus::kDone);
  later(3 * kHourMs);
  EXPECT_FALSE(row("a")) << "seven days and an hour";
  EXPECT_EQ(row("b")->status, OutboxStatus::kDone);
  EXPECT_EQ(send(bob_.hex, "a"), 200u);
  EXPECT_EQ(field(reply_, "broker_message_id"), "b1");
  inspect("a");
  EXPECT_EQ(field(reply_, "dropped"), "false");
}

TEST_F(OutboxRows, rows_of_the_schema_before_shrink_by_what_they_know_of_their_end) {
  start();
  link_up();
  done("a", "b1");
  change_row("a", [](store::OutboxRow& changed) { changed.fixed.ended_ms = 0; });
  later(7 * kDayMs + 2 * kHourMs);
  EXPECT_FALSE(row("a"));
}

TEST_F(OutboxRows, many_shrink_in_batches_and_an_abandoned_batch_is_done_again) {
  start();
  link_up();
  constexpr int kMany = 1'200;
  for (int number = 0; number < kMany; ++number) done("m" + std::to_string(number), "b");
  const ConnRef conn = http("POST", "/v1/outbox/prune", {}, "{}");
  EXPECT_EQ(status(conn), 0u) << "not within one iteration";
  EXPECT_EQ(parts_.count(TableId::kTombstone), 500u);
  EXPECT_TRUE(core_->work_left());
  parts_.commit_fails = true;
  run();
  parts_.commit_fails = false;
  EXPECT_EQ(parts_.count(TableId::kTombstone), 500u);
  run();
  run();
  for (int turn = 0; turn < 3 && status(conn) == 0; ++turn) run();
  EXPECT_EQ(parts_.count(TableId::kTombstone), static_cast<std::size_t>(kMany));
  EXPECT_EQ(field(reply_, "shrunk"), std::to_string(kMany));
}

TEST_F(OutboxRows, a_start_looks_at_no_tombstone_and_goes_on_behind_the_newest_id) {
  start();
  link_up();
  done("a", "b1");
  inspect("a");
  const std::string before = field(reply_, "id");
  ASSERT_EQ(drop("a"), 200u);
  parts_.env.wall_ms -= kHourMs;  // the clock was set back
  start();
  link_up();
  done("b", "b2");
  inspect("b");
  EXPECT_GT(field(reply_, "id"), before);
}

// What was told 202 is not left out because a limit was lowered: the start names the limit.
TEST_F(OutboxRows, more_open_rows_than_a_lowered_limit_stop_the_start_and_lose_nothing) {
  start();
  for (const char* id : {"a", "b", "c"}) ASSERT_EQ(send(bob_.hex, id), 202u);
  const std::uint32_t limit = parts_.limits.outbox_rows_max;
  parts_.limits.outbox_rows_max = 2;
  core_.reset();
  parts_.open();
  core_.emplace(config_, parts_.limits, parts_.env, effects_, parts_.metrics, parts_.slab);
  const Status started = core_->start();
  EXPECT_EQ(started.code(), Err::kFull);
  EXPECT_TRUE(has(started.error().detail, "outbox_rows_max")) << started.error().detail;
  EXPECT_TRUE(has(info_of(started.code()).remedy, "raise the limit"));
  parts_.end_reading();
  parts_.limits.outbox_rows_max = limit;
  start();
  link_up();
  done("a", "b1");
  done("b", "b2");
  done("c", "b3");
}

TEST_F(OutboxRows, a_damaged_row_stops_the_start_and_names_the_remedy) {
  for (const bool is_readable : {false, true}) {
    start();
    send(bob_.hex, "a");
    change_row("a", [](store::OutboxRow& changed) { changed.fixed.status = OutboxStatus::kCount; });
    store::Batch& batch = parts_.store->batch();
    Ulid id;
    ASSERT_TRUE(store::parse_ulid_key(
        batch.get_index(TableId::kOutboxId, store::text_key("a").bytes()), id));
    if (!is_readable) batch.put(TableId::kOutbox, store::ulid_key(id).bytes(), store::MetaRow{});
    ASSERT_LE(parts_.store->commit(), store::CommitResult::kCommitted);
    core_.reset();
    parts_.open();
    core_.emplace(config_, parts_.limits, parts_.env, effects_, parts_.metrics, parts_.slab);
    const Status started = core_->start();
    EXPECT_EQ(started.code(), Err::kCorrupt);
    EXPECT_TRUE(has(info_of(started.code()).remedy, "claudemesh daemon recover"));
    parts_.end_reading();
    parts_.holds_foreign_rows = true;
    std::filesystem::remove_all(parts_.options.directory);
  }
}

TEST_F(OutboxRows, a_late_answer_for_a_tombstone_is_nothing) {
  start();
  link_up();
  done("a", "b1");
  ASSERT_EQ(drop("a"), 200u);
  good_ack("a");
  refuse("a", "forbidden", "late");
  EXPECT_EQ(send(bob_.hex, "a"), 200u);
}

}  // namespace
}  // namespace cm::daemon
