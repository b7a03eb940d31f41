// daemon_send_test.cc — the accept table, and who a name is.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

// --- the accept table ------------------------------------------------------------------------

TEST_F(DaemonTest, every_cell_of_the_accept_table_answers_as_designed) {
  struct Cell {
    OutboxStatus state;
    std::uint32_t same_status;
    const char* same;  // status word of a 2xx, conflict of a 409
    const char* conflict;
  };
  const Cell cells[] = {
      {OutboxStatus::kPending, 202, "queued", "outbox_pending_fingerprint_mismatch"},
      {OutboxStatus::kInflight, 202, "inflight", "outbox_inflight_fingerprint_mismatch"},
      {OutboxStatus::kDone, 200, "done", "outbox_done_fingerprint_mismatch"},
      {OutboxStatus::kDead, 409, "outbox_dead_fingerprint_match",
       "outbox_dead_fingerprint_mismatch"},
      {OutboxStatus::kAborted, 409, "outbox_aborted_fingerprint_match",
       "outbox_aborted_fingerprint_mismatch"},
  };
  static_assert(std::size(cells) == static_cast<std::size_t>(OutboxStatus::kCount));
  start();
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    ASSERT_EQ(send(bob_.hex, id), 202u);
    EXPECT_EQ(field(reply_, "status"), "queued");
  }
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    change_row(id, [&](store::OutboxRow& row) {
      row.fixed.status = cell.state;
      if (cell.state >= OutboxStatus::kDone) row.text[store::kOutboxBrokerId] = "b-77";
      if (cell.state == OutboxStatus::kDead) row.text[store::kOutboxLastError] = "because";
    });
  }
  // Without a restart: recovery would turn inflight into pending.
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    SCOPED_TRACE(id);
    const auto as_known = [&](const std::string& body) {
      wire::HttpRequest request;
      request.method = "POST";
      request.path = "/v1/send";
      request.body = body;
      request.peer_is_unix = true;
      effects_.clear();
      core_->on_http({500, 1}, request);
      CHECK(effects_.list().size() == 1);
      reply_ = effects_.list().front().text;
      const std::uint32_t code = effects_.list().front().code;
      effects_.clear();
      core_->committed();
      parts_.end_reading();
      return code;
    };
    EXPECT_EQ(as_known(body_of(bob_.hex, id)), cell.same_status);
    if (cell.same_status == 409) {
      EXPECT_EQ(field(reply_, "error"), "idempotency_key_reused");
      EXPECT_EQ(field(reply_, "conflict"), cell.same);
      EXPECT_EQ(field(reply_, "daemon_fingerprint_prefix").size(), 16u);
      EXPECT_EQ(field(reply_, "reason"), cell.state == OutboxStatus::kDead ? "because" : "");
    } else {
      EXPECT_EQ(field(reply_, "status"), cell.same);
      EXPECT_EQ(field(reply_, "duplicate"), cell.state == OutboxStatus::kDone ? "true" : "");
      EXPECT_EQ(field(reply_, "broker_message_id"),
                cell.state == OutboxStatus::kDone ? "b-77" : "");
    }
    for (const std::string& other : {body_of(bob_.hex, id, "else"), body_of(eve_.hex, id),
                                     body_of(bob_.hex, id, "hi", R"(,"priority":"now")"),
                                     body_of(bob_.hex, id, "hi", R"(,"meta":{})"),
                                     body_of(bob_.hex, id, "hi", R"(,"reply_to_id":"r")")}) {
      EXPECT_EQ(as_known(other), 409u) << other;
      EXPECT_EQ(field(reply_, "conflict"), cell.conflict);
      EXPECT_EQ(field(reply_, "broker_message_id"),
                cell.state >= OutboxStatus::kDone ? "b-77" : "null");
    }
  }
  EXPECT_EQ(parts_.count(TableId::kOutbox), std::size(cells));
}

TEST_F(DaemonTest, a_retry_succeeds_after_its_peer_has_gone) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id-1"), 202u);
  link_down();
  EXPECT_EQ(send("bob", "id-1"), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, an_id_is_bound_to_its_mesh) {
  start(2);
  EXPECT_EQ(send(bob_.hex, "id-1", "hi", R"(,"mesh":"crew")"), 202u);
  EXPECT_EQ(send(bob_.hex, "id-1", "hi", R"(,"mesh":"other")"), 409u);
  EXPECT_EQ(field(reply_, "conflict"), "outbox_pending_fingerprint_mismatch");
  EXPECT_EQ(send(bob_.hex, "id-1"), 202u) << "no mesh named: the row's";
  EXPECT_EQ(send(bob_.hex, "id-2"), 400u);
  EXPECT_EQ(field(reply_, "error"), "mesh_required");
  EXPECT_EQ(send(bob_.hex, "id-2", "hi", R"(,"mesh":"none")"), 404u);
  EXPECT_EQ(field(reply_, "error"), "mesh_not_attached");
}

TEST_F(DaemonTest, a_header_and_a_body_that_disagree_consume_neither_id) {
  start();
  EXPECT_EQ(status(ask(body_of(bob_.hex, "body-id"), "header-id")), 400u);
  EXPECT_FALSE(row("body-id") || row("header-id"));
  EXPECT_EQ(status(ask(body_of(bob_.hex, ""), "header-id")), 202u);
  EXPECT_EQ(field(reply_, "client_message_id"), "header-id");
  EXPECT_EQ(status(ask(body_of(bob_.hex, "header-id"), "header-id")), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, what_is_refused_consumes_no_id) {
  start();
  meet_legacy();
  EXPECT_EQ(send(bob_.hex, "id", std::string(60'000, 'x')), 413u);
  EXPECT_TRUE(has(reply_, "65536"));
  EXPECT_EQ(send(self_.hex, "id"), 400u);
  EXPECT_EQ(send("@", "id"), 400u);
  EXPECT_EQ(send("#", "id"), 400u);
  EXPECT_EQ(send(std::string(64, '0'), "id"), 400u) << "no key to encrypt to";
  EXPECT_EQ(status(ask("{")), 400u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 0u);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonTest, an_id_is_minted_when_none_is_given) {
  start();
  EXPECT_EQ(send(bob_.hex, ""), 202u);
  EXPECT_EQ(field(reply_, "client_message_id").size(), 26u);
}

TEST_F(DaemonTest, a_full_outbox_and_a_full_store_answer_507) {
  parts_.limits.outbox_rows_max = 1;
  parts_.options.bound_bytes = 2 << 20;
  start();
  EXPECT_EQ(send(bob_.hex, "a"), 202u);
  EXPECT_EQ(send(bob_.hex, "b"), 507u);
  EXPECT_EQ(send(bob_.hex, "a"), 202u) << "a known id needs no room";
  link_up();
  good_ack("a");
  parts_.fill(TableId::kMeta);
  EXPECT_EQ(send(bob_.hex, "b"), 507u);
  EXPECT_EQ(field(reply_, "error"), "insufficient_storage");
}

// --- names -----------------------------------------------------------------------------------

TEST_F(DaemonTest, nobody_is_unknown_by_a_list_that_is_cut) {
  start();
  connect({});
  for (const std::string& to : {std::string("bob"), bob_.hex.substr(0, 16)}) {
    const ConnRef conn = ask(body_of(to, "id"));
    frame(R"({"type":"peers_list","_reqId":")" + asked() + R"(","peers":[],"truncated":true})");
    EXPECT_EQ(status(conn), 503u);
    EXPECT_EQ(field(reply_, "error"), "unavailable");
    EXPECT_TRUE(has(reply_, "whole key")) << reply_;
  }
  EXPECT_FALSE(row("id"));
}

TEST_F(DaemonTest, an_unknown_name_is_refused_only_after_a_fresh_list) {
  start();
  connect({});
  const ConnRef conn = ask(body_of("bob", "id"));
  EXPECT_EQ(status(conn), 0u) << "it waits";
  const std::string request = asked();
  ASSERT_FALSE(request.empty());
  list(request, {});
  EXPECT_EQ(status(conn), 404u);
  EXPECT_EQ(field(reply_, "error"), "not_found");
  EXPECT_FALSE(row("id"));
  const ConnRef again = ask(body_of("bob", "id"));
  list(asked(), {peer(bob_, "Bob")});
  EXPECT_EQ(status(again), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, a_name_waits_five_seconds_for_a_broker_and_then_answers_503) {
  start();
  const ConnRef conn = ask(body_of("bob", "id"));
  EXPECT_EQ(status(conn), 0u);
  later(4'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 503u);
  EXPECT_FALSE(row("id"));
  EXPECT_EQ(core_->tables().parked.count(), 0u);
}

TEST_F(DaemonTest, a_connection_that_comes_in_time_serves_the_waiting) {
  start();
  const ConnRef conn = ask(body_of("bob", "id"));
  const ConnRef gone = ask(body_of("bob", "gone"));
  core_->on_http_closed(gone);
  later(2'000);
  connect({peer(bob_, "bob")});
  EXPECT_EQ(status(conn), 202u);
  EXPECT_FALSE(row("gone")) << "its client had left";
}

TEST_F(DaemonTest, two_parked_sends_of_one_id_become_one_row) {
  start();
  const ConnRef one = ask(body_of("bob", "id"));
  const ConnRef two = ask(body_of("bob", "id"));
  connect({peer(bob_, "bob")});
  EXPECT_EQ(status(one), 202u);
  EXPECT_EQ(status(two), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, too_many_waiting_sends_are_told_to_come_again) {
  parts_.limits.parked_sends_max = 1;
  start();
  ask(body_of("bob", "a"));
  EXPECT_EQ(send("bob", "b"), 429u);
}

TEST_F(DaemonTest, a_name_that_two_members_bear_is_refused_with_both_keys) {
  start();
  connect({peer(bob_, "bob"), peer(eve_, "BOB")});
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(field(reply_, "error"), "peer_name_conflict");
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex));
  EXPECT_FALSE(row("id"));
}

TEST_F(DaemonTest, a_bound_name_under_another_key_is_refused) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id-1"), 202u);  // binds it
  link_down();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id-2"), 409u);
  EXPECT_EQ(field(reply_, "error"), "peer_name_conflict");
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex));
  EXPECT_EQ(send(eve_.hex, "id-2"), 202u) << "the full key goes";
  start();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id-3"), 409u) << "bound for good";
}

TEST_F(DaemonTest, a_name_that_arrives_under_another_key_is_refused_while_the_first_is_remembered) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({peer(eve_, "Bob")});
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(field(reply_, "error"), "peer_name_conflict");
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex)) << reply_;
  EXPECT_FALSE(row("id"));
  later(31ull * 24 * 3'600'000);
  EXPECT_EQ(send("bob", "id"), 202u) << "nobody remembers the first";
  EXPECT_EQ(row("id")->target, eve_.hex);
}

TEST_F(DaemonTest, a_bound_name_wins_over_who_was_seen_under_it) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "first"), 202u);
  link_down();
  connect({peer(eve_, "bob")});
  link_down();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id"), 202u) << reply_;
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, who_bore_a_name_and_is_listed_under_another_has_no_claim_to_it) {
  start();
  connect({peer(bob_, "robert"), peer(eve_, "bob")});
  link_down();
  connect({peer(bob_, "bob"), peer(eve_, "eve")});
  EXPECT_EQ(send("bob", "id"), 202u) << reply_;
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, of_who_is_away_the_newest_name_counts) {
  start();
  connect({peer(eve_, "eve"), peer(bob_, "robert")});
  link_down();
  later(1'000);
  connect({peer(eve_, "bob"), peer(bob_, "robert")});
  link_down();
  later(1'000);
  connect({peer(eve_, "eve"), peer(bob_, "robert")});  // within the hour in which rows rest
  link_down();
  later(1'000);
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id"), 202u) << reply_;
  EXPECT_EQ(row("id")->target, bob_.hex);
  EXPECT_EQ(send("eve", "to-eve"), 202u) << "its newest name, while away";
  EXPECT_EQ(row("to-eve")->target, eve_.hex);
}

TEST_F(DaemonTest, nobody_gets_what_was_meant_for_a_name_that_was_left) {
  start();
  connect({peer(eve_, "bob")});
  link_down();
  later(1'000);
  connect({peer(eve_, "eve")});
  const ConnRef conn = ask(body_of("bob", "id"));
  list(asked(), {peer(eve_, "eve")});
  EXPECT_EQ(status(conn), 404u) << reply_;
}

TEST_F(DaemonTest, two_names_that_a_member_bears_at_once_are_both_its_own) {
  start();
  connect({peer(bob_, "desk")});
  later(1'000);
  link_down();
  connect({peer(bob_, "desk"), peer(bob_, "lap")});
  link_down();
  connect({});
  EXPECT_EQ(send("desk", "id"), 202u) << reply_;
  EXPECT_EQ(send("lap", "id-2"), 202u) << reply_;
}

TEST_F(DaemonTest, sending_to_a_key_binds_the_name_that_it_bears) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({peer(bob_, "bob"), peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(send(bob_.hex, "by-key"), 202u);
  link_down();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id"), 202u) << "eve was seen under it, but it is bound: " << reply_;
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, sending_to_the_key_of_who_is_away_binds_its_newest_name) {
  start();
  connect({peer(bob_, "bob"), peer(eve_, "bob")});
  link_down();
  connect({});
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(send(bob_.hex, "by-key"), 202u);
  EXPECT_EQ(send("bob", "id"), 202u) << reply_;
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, sending_to_the_key_of_who_took_a_bound_name_does_not_bind_it_again) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send(bob_.hex.substr(0, 16), "by-digits"), 202u);
  link_down();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send(eve_.hex, "to-eve"), 202u);
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex));
}

TEST_F(DaemonTest, a_name_resolves_for_thirty_days_while_its_bearer_is_away) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({});
  later(29ull * 24 * 3'600'000);
  EXPECT_EQ(send("Bob", "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, a_name_that_was_never_used_is_forgotten_after_thirty_days) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({});
  later(31ull * 24 * 3'600'000);
  const ConnRef conn = ask(body_of("bob", "id"));
  list(asked(), {});
  EXPECT_EQ(status(conn), 404u);
}

TEST_F(DaemonTest, sixteen_digits_of_a_key_suffice_when_they_name_one_peer) {
  start();
  connect({peer(self_, "self"), peer(bob_, "bob")});
  EXPECT_EQ(send(bob_.hex.substr(0, 16), "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
  EXPECT_EQ(send(self_.hex.substr(0, 20), "own"), 400u);
  const ConnRef unknown = ask(body_of(eve_.hex.substr(0, 16), "id-2"));
  list(asked(), {peer(bob_, "bob")});
  EXPECT_EQ(status(unknown), 404u);
}

TEST_F(DaemonTest, an_ambiguous_prefix_is_refused) {
  start();
  Member twin = bob_;
  twin.hex.back() = twin.hex.back() == '0' ? '1' : '0';
  connect({peer(bob_, "bob"), peer(twin, "twin")});
  EXPECT_EQ(send(bob_.hex.substr(0, 32), "id"), 400u);
  EXPECT_TRUE(has(reply_, "ambiguous"));
}

TEST_F(DaemonTest, a_name_goes_to_its_member_and_never_to_a_session_key_the_broker_vouches_for) {
  start();
  connect({peer(bob_, "bob"), peer(bob_, "bob", eve_.hex)});
  EXPECT_EQ(send("bob", "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

}  // namespace
}  // namespace cm::daemon
