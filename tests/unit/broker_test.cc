// broker_test.cc — the broker's core by its events and effects, over a real store.
// Holds:  each iteration is: events, step, commit, effects; verify_all() after every one.
// Not:    sockets and HTTP (net_server_test.cc), crashes at any instant (tests/sim).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

// --- hello -----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_hello_is_checked_in_the_order_of_the_specification) {
  found(2);
  const Member& who = members_[0];
  const Member stranger = Member::make();
  const std::string upper = [&] {
    std::string text = who.hex;
    for (char& c : text) c = static_cast<char>(std::toupper(c));
    return text;
  }();
  const std::string stale = std::to_string(parts_.env.wall_ms - 60'100);
  const std::string future = std::to_string(parts_.env.wall_ms + 60'100);
  struct Case {
    std::string name, session, time, pubkey, signature, code;
    const Member* signer;
  };
  // Each row breaks its own check and all later ones that can be broken beside it.
  const Case cases[] = {
      {"session key", "XYZ", stale, "zz", "00", "bad_session_pubkey", &who},
      {"upper-case session key", upper, stale, "zz", "00", "bad_session_pubkey", &who},
      {"old", "", stale, "zz", "00", "timestamp_skew", &who},
      {"of the future", "", future, "zz", "00", "timestamp_skew", &who},
      {"no number", "", "\"now\"", "zz", "00", "timestamp_skew", &who},
      {"pubkey shape", "", "", "zz", "00", "malformed", &stranger},
      {"signature shape", "", "", who.hex, "00", "malformed", &stranger},
      {"signature", "", "", stranger.hex, std::string(128, '0'), "bad_signature", &stranger},
      {"stranger", "", "", stranger.hex, "", "unauthorized", &stranger},
      {"upper-case member", "", "", upper, "", "unauthorized", &who},
      {"a member key as session", members_[1].hex, "", who.hex, "", "bad_session_pubkey", &who},
      {"its own key as session", who.hex, "", who.hex, "", "bad_session_pubkey", &who},
  };
  for (const Case& row : cases) {
    SCOPED_TRACE(row.name);
    HelloText hello = hello_of(who);
    hello.session = row.session;
    hello.pubkey = row.pubkey;
    if (!row.time.empty()) hello.timestamp = row.time;
    if (!row.signature.empty()) hello.signature = row.signature;
    const ConnRef conn = open();
    text(conn, write(*row.signer, hello));
    EXPECT_EQ(field(first(conn), "type"), "error");
    EXPECT_EQ(field(first(conn), "code"), row.code) << first(conn);
    EXPECT_EQ(closed(conn), 1008u);
    EXPECT_EQ(core_->tables().clients.count(), 0u);
  }
  EXPECT_EQ(parts_.count(TableId::kHelloSeen), 0u);
  EXPECT_EQ(parts_.count(TableId::kPresence), 0u);
}

TEST_F(BrokerTest, a_full_mesh_answers_capacity_before_it_looks_at_the_clock) {
  parts_.limits.mesh_connections_max = 1;
  found(2);
  connect(members_[0]);
  HelloText hello = hello_of(members_[1]);
  hello.timestamp = "5";
  const ConnRef conn = open();
  text(conn, write(members_[1], hello));
  EXPECT_EQ(field(first(conn), "code"), "capacity");
  EXPECT_EQ(closed(conn), 1008u);
}

TEST_F(BrokerTest, a_member_has_a_capacity_of_its_own) {
  parts_.limits.member_connections_max = 1;
  found(2);
  connect(members_[0]);
  connect(members_[1]);
  HelloText hello = hello_of(members_[0]);
  hello.session_id = "another";
  const ConnRef conn = open();
  text(conn, write(members_[0], hello));
  EXPECT_EQ(field(first(conn), "code"), "capacity");
}

TEST_F(BrokerTest, more_presences_than_the_table_holds_are_refused_and_not_fatal) {
  parts_.limits.presences_max = 2;
  found(1);
  connect(members_[0], Member::make().hex);
  const ConnRef left = connect(members_[0], Member::make().hex);
  core_->on_closed(left);
  run();
  HelloText hello = hello_of(members_[0]);
  hello.session = Member::make().hex;
  const ConnRef conn = open();
  text(conn, write(members_[0], hello));
  EXPECT_EQ(field(first(conn), "code"), "capacity");
  EXPECT_EQ(closed(conn), 1008u);
  EXPECT_EQ(parts_.count(TableId::kBinding), 2u);
}

TEST_F(BrokerTest, a_revoked_member_is_closed_with_4002_and_no_new_invite_lets_it_in) {
  found(2);
  {
    store::MemberRow row;
    const store::Key key = store::u32_key(2);
    ASSERT_TRUE(parts_.store->batch().get(TableId::kMember, key.bytes(), row));
    row.fixed.revoked_ms = parts_.env.wall_ms;
    parts_.store->batch().put(TableId::kMember, key.bytes(), row);
    ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
  }
  start();
  const ConnRef conn = open();
  text(conn, write(members_[1], hello_of(members_[1])));
  EXPECT_EQ(field(first(conn), "code"), "revoked");
  EXPECT_EQ(closed(conn), 4002u);
  EXPECT_EQ(field(join(invite(), members_[1], "again"), "error"), "revoked");
}

TEST_F(BrokerTest, a_replayed_hello_is_refused_also_after_a_restart) {
  found(1);
  const std::string hello = write(members_[0], hello_of(members_[0]));
  const ConnRef one = open();
  text(one, hello);
  EXPECT_EQ(field(first(one), "type"), "hello_ack");
  const ConnRef two = open();
  text(two, hello);
  EXPECT_EQ(field(first(two), "code"), "bad_signature");
  EXPECT_EQ(closed(two), 1008u);
  start();
  const ConnRef three = open();
  text(three, hello);
  EXPECT_EQ(field(first(three), "code"), "bad_signature");
}

TEST_F(BrokerTest, signatures_that_can_no_longer_be_replayed_are_forgotten) {
  found(1);
  for (int count = 0; count < 5; ++count) connect(members_[0]);
  EXPECT_EQ(parts_.count(TableId::kHelloSeen), 5u);
  later(200'000);
  connect(members_[0]);
  EXPECT_EQ(parts_.count(TableId::kHelloSeen), 1u);
}

TEST_F(BrokerTest, a_session_key_claimed_by_one_member_is_refused_to_another_while_it_lives) {
  found(2);
  const std::string session = Member::make().hex;
  const ConnRef owner = connect(members_[0], session);
  HelloText hello = hello_of(members_[1]);
  hello.session = session;
  const ConnRef thief = open();
  text(thief, write(members_[1], hello));
  EXPECT_EQ(field(first(thief), "code"), "bad_session_pubkey");
  EXPECT_EQ(closed(thief), 1008u);
  core_->on_closed(owner);
  later(50'000);
  const ConnRef early = open();
  text(early, write(members_[1], hello));
  EXPECT_EQ(field(first(early), "code"), "bad_session_pubkey") << "the lease still holds";
  later(90'000);
  connect(members_[1], session);
}

TEST_F(BrokerTest, a_frame_before_the_hello_is_answered_and_the_socket_stays) {
  found(1);
  const ConnRef conn = open();
  text(conn, R"({"type":"list_peers","_reqId":"r1"})");
  EXPECT_EQ(field(first(conn), "code"), "no_hello");
  EXPECT_EQ(field(first(conn), "_reqId"), "r1");
  EXPECT_EQ(closed(conn), 0u);
  text(conn, write(members_[0], hello_of(members_[0])));
  EXPECT_EQ(field(first(conn), "type"), "hello_ack");
  text(conn, write(members_[0], hello_of(members_[0])));
  EXPECT_EQ(field(first(conn), "code"), "malformed") << "a second hello";
  EXPECT_EQ(closed(conn), 0u);
}

TEST_F(BrokerTest, a_socket_without_a_hello_is_closed_after_ten_seconds) {
  found(1);
  const ConnRef conn = open();
  run();
  EXPECT_EQ(core_->next_deadline(), parts_.env.mono_ms + 10'000);
  later(9'999);
  EXPECT_EQ(closed(conn), 0u);
  later(1);
  EXPECT_EQ(closed(conn), 1008u);
}

TEST_F(BrokerTest, unknown_types_and_bad_json_are_answered_and_a_flood_is_closed) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  text(conn, R"({"type":"dance","_reqId":"r9"})");
  EXPECT_EQ(field(first(conn), "code"), "unknown_message_type");
  EXPECT_EQ(field(first(conn), "_reqId"), "r9");
  for (const std::string_view bad : {"{", "[]", "7", R"({"type":7})", "{}", "\xff"}) {
    text(conn, bad);
    EXPECT_EQ(field(first(conn), "code"), "malformed") << bad;
  }
  for (int count = 7; count < 100; ++count) {
    text(conn, "{");
    ASSERT_EQ(closed(conn), 0u);
  }
  text(conn, "{");
  EXPECT_EQ(closed(conn), 1008u);
}

TEST_F(BrokerTest, a_bad_hello_as_the_error_that_closes_the_socket_is_not_fatal) {
  found(1);
  const ConnRef conn = open();
  for (int count = 0; count < 100; ++count) text(conn, R"({"type":"x"})");
  EXPECT_EQ(closed(conn), 0u);
  text(conn, R"({"type":"hello"})");
  EXPECT_EQ(closed(conn), 1008u);
}

TEST_F(BrokerTest, one_member_cannot_take_every_presence_with_session_keys) {
  parts_.limits.member_connections_max = 3;
  found(2);
  for (const char* key : {"1", "2", "3"}) {
    const ConnRef conn = connect(members_[0], std::string(63, '0') + key, key);
    core_->on_closed(conn);  // leased for 90 s, so it still counts
    run();
  }
  const ConnRef conn = open();
  HelloText hello = hello_of(members_[0]);
  hello.session = std::string(63, '0') + "4";
  core_->on_text(conn, write(members_[0], hello));
  run();
  EXPECT_EQ(field(first(conn), "code"), "capacity");
  EXPECT_EQ(closed(conn), 1008u);
  connect(members_[1]);
}

TEST_F(BrokerTest, peer_lists_of_one_iteration_share_a_bound) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  for (int count = 0; count < 40'000; ++count) {
    core_->on_text(conn, R"({"type":"list_peers","_reqId":"r"})");
    if (closed(conn) != 0) break;
  }
  run();
  std::size_t bytes = 0;
  for (const std::string& frame : frames(conn, "peers_list")) bytes += frame.size();
  EXPECT_LT(bytes, 9u << 20);
  EXPECT_FALSE(frames(conn, "error").empty());
}

TEST_F(BrokerTest, what_a_full_window_held_back_goes_to_the_members_other_connection) {
  parts_.limits.claim_rows_max = 1;
  found(2);
  const ConnRef from = connect(members_[0]);
  const std::string session(64, '5');
  const ConnRef full = connect(members_[1], session, "one");
  send(from, session, "held");  // its only claim
  EXPECT_EQ(pushed(full), (Texts{"held"}));
  send(from, members_[1].hex, "waits");
  EXPECT_TRUE(pushed(full).empty());
  const ConnRef other = connect(members_[1], {}, "two");
  EXPECT_EQ(pushed(other), (Texts{"waits"}));
}

TEST_F(BrokerTest, a_session_key_with_waiting_mail_is_not_taken_over) {
  found(3);
  const std::string session(64, '6');
  const ConnRef owner = connect(members_[1], session);
  const ConnRef from = connect(members_[0]);
  core_->on_closed(owner);
  run();
  send(from, session, "for-the-owner");
  later(90'001);
  const ConnRef thief = open();
  HelloText hello = hello_of(members_[2]);
  hello.session = session;
  core_->on_text(thief, write(members_[2], hello));
  run();
  EXPECT_EQ(field(first(thief), "code"), "bad_session_pubkey");
  const ConnRef back = connect(members_[1], session);
  EXPECT_EQ(pushed(back), (Texts{"for-the-owner"}));
}

TEST_F(BrokerTest, a_plaintext_listener_off_loopback_takes_no_admin_token) {
  config_.accepts_admin_token = false;
  start();
  const std::string body = R"({"name":"crew","pubkey":")" + Member::make().hex + "\"}";
  http("POST", "/cli/mesh/create", body, true);
  EXPECT_EQ(status_, 401u);
}

TEST_F(BrokerTest, a_slow_trickle_of_errors_closes_nothing) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  for (int count = 0; count < 300; ++count) {
    parts_.advance(1'000);
    text(conn, "{");
    ASSERT_EQ(closed(conn), 0u);
  }
}

// --- accept ----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_send_is_accepted_once_and_repeated_as_a_duplicate) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const std::string accepted = send(from, members_[1].hex, "id-1");
  EXPECT_EQ(field(accepted, "id"), "id-1");
  EXPECT_EQ(field(accepted, "messageId").size(), 26u);
  EXPECT_EQ(field(accepted, "queued"), "true");
  EXPECT_EQ(field(accepted, "duplicate"), "false");
  EXPECT_EQ(field(accepted, "history_available"), "true");
  EXPECT_EQ(field(accepted, "recipient"), "offline");
  const std::string since = field(accepted, "first_seen_at");
  later(5'000);
  const std::string again = send(from, members_[1].hex, "id-1");
  EXPECT_EQ(field(again, "messageId"), field(accepted, "messageId"));
  EXPECT_EQ(field(again, "queued"), "true");
  EXPECT_EQ(field(again, "duplicate"), "true");
  EXPECT_EQ(field(again, "history_available"), "true");
  EXPECT_EQ(field(again, "first_seen_at"), since);
  EXPECT_EQ(parts_.count(TableId::kMessage), 1u);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
}

TEST_F(BrokerTest, a_reused_id_is_refused_in_words_that_stop_existing_clients) {
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "id-1");
  const std::string other = std::string(16, 'b') + std::string(48, 'c');
  const std::string refusal = send(from, members_[1].hex, "id-1", other);
  EXPECT_EQ(field(refusal, "queued"), "false");
  EXPECT_EQ(field(refusal, "messageId"), "");
  EXPECT_EQ(field(refusal, "code"), "idempotency_key_reused");
  EXPECT_EQ(field(refusal, "conflict"), "request_fingerprint_mismatch");
  EXPECT_EQ(field(refusal, "broker_fingerprint_prefix"), std::string(16, 'b'));
  EXPECT_TRUE(has(field(refusal, "error"), "invalid"));
  EXPECT_EQ(parts_.count(TableId::kMessage), 1u);
}

TEST_F(BrokerTest, ids_of_different_senders_never_meet) {
  found(3);
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  const std::string first_ack = send(one, members_[2].hex, "same");
  const std::string second_ack = send(two, members_[2].hex, "same", std::string(64, 'b'));
  EXPECT_EQ(field(second_ack, "duplicate"), "false");
  EXPECT_NE(field(first_ack, "messageId"), field(second_ack, "messageId"));
  EXPECT_EQ(parts_.count(TableId::kDelivery), 2u);
}

TEST_F(BrokerTest, two_sends_of_one_id_in_one_iteration_are_one_message) {
  found(2);
  const ConnRef from = connect(members_[0]);
  core_->on_text(from, send_text(members_[1].hex, "id-1"));
  core_->on_text(from, send_text(members_[1].hex, "id-1"));
  run();
  const auto acks = frames(from, "ack");
  ASSERT_EQ(acks.size(), 2u);
  EXPECT_EQ(field(acks[1], "duplicate"), "true");
  EXPECT_EQ(parts_.count(TableId::kMessage), 1u);
}

TEST_F(BrokerTest, sends_without_an_id_are_accepted_and_not_deduped) {
  found(2);
  const ConnRef from = connect(members_[0]);
  text(from, send_text(members_[1].hex, ""));
  text(from, send_text(members_[1].hex, ""));
  EXPECT_EQ(field(first(from), "queued"), "true");
  EXPECT_EQ(parts_.count(TableId::kMessage), 2u);
  EXPECT_EQ(parts_.count(TableId::kDedupe), 0u);
}

TEST_F(BrokerTest, an_accept_is_whole_or_nothing) {
  found(2);
  ConnRef from = connect(members_[0]);
  parts_.commit_fails = true;
  core_->on_text(from, send_text(members_[1].hex, "id-1"));
  EXPECT_FALSE(run());
  EXPECT_TRUE(frames(from).empty());
  EXPECT_EQ(closed(from), 1011u);
  for (const TableId table : {TableId::kMessage, TableId::kDedupe, TableId::kDelivery}) {
    EXPECT_EQ(parts_.count(table), 0u);
  }
  parts_.commit_fails = false;
  from = connect(members_[0]);
  EXPECT_EQ(field(send(from, members_[1].hex, "id-1"), "duplicate"), "false");
  for (const TableId table : {TableId::kMessage, TableId::kDedupe, TableId::kDelivery}) {
    EXPECT_EQ(parts_.count(table), 1u);
  }
}

TEST_F(BrokerTest, targets_that_cannot_be_reached_are_refused_for_good_and_leave_no_record) {
  found(2);
  const ConnRef from = connect(members_[0]);
  EXPECT_EQ(field(send(from, Member::make().hex, "a"), "code"), "not_found");
  EXPECT_EQ(field(send(from, members_[0].hex, "b"), "code"), "not_found");
  EXPECT_EQ(field(send(from, "somebody", "c"), "code"), "invalid_argument");
  EXPECT_EQ(field(send(from, "#nowhere", "d"), "code"), "not_found");
  text(from, R"({"type":"send","id":"e","targetSpec":"x","priority":"soon","ciphertext":"AAAA"})");
  EXPECT_EQ(field(first(from), "code"), "malformed");
  EXPECT_TRUE(has(field(first(from), "error"), "invalid")) << "existing clients stop retrying";
  EXPECT_EQ(parts_.count(TableId::kDedupe), 0u);
  EXPECT_EQ(field(send(from, members_[1].hex, "a"), "queued"), "true") << "the id is still free";
}

TEST_F(BrokerTest, a_member_reaches_its_own_other_session) {
  found(1);
  const ConnRef from = connect(members_[0]);
  connect(members_[0], Member::make().hex);
  EXPECT_EQ(field(send(from, members_[0].hex, "id"), "queued"), "true");
}

TEST_F(BrokerTest, a_full_queue_is_refused_for_the_moment_and_known_ids_still_answered) {
  parts_.limits.queue_rows_max = 2;
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  send(from, members_[1].hex, "b");
  const std::string refusal = send(from, members_[1].hex, "c");
  EXPECT_EQ(field(refusal, "code"), "queue_full");
  EXPECT_EQ(field(refusal, "queued"), "false");
  EXPECT_EQ(field(send(from, members_[1].hex, "a"), "duplicate"), "true");
  const ConnRef to = connect(members_[1]);
  ack(to, field(send(from, members_[1].hex, "a"), "messageId"));
  EXPECT_EQ(field(send(from, members_[1].hex, "c"), "duplicate"), "false");
}

TEST_F(BrokerTest, a_full_store_refuses_new_work_and_still_takes_acks) {
  parts_.options.bound_bytes = 2 << 20;
  found(2);
  const std::string token = invite();
  const ConnRef from = connect(members_[0]);
  const std::string kept = send(from, members_[1].hex, "kept");
  const ConnRef to = connect(members_[1]);
  parts_.fill(TableId::kMeta);
  EXPECT_EQ(field(send(from, members_[1].hex, "new"), "code"), "insufficient_storage");
  EXPECT_EQ(field(send(from, members_[1].hex, "kept"), "duplicate"), "true");
  EXPECT_EQ(field(join(token, Member::make(), "late"), "error"), "insufficient_storage");
  EXPECT_EQ(status_, 507u);
  ack(to, field(kept, "messageId"));
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
}

// --- queue -----------------------------------------------------------------------------------

TEST_F(BrokerTest, hello_ack_precedes_the_queued_pushes_in_order) {
  found(2);
  const ConnRef from = connect(members_[0]);
  for (const char* id : {"a", "b", "c"}) send(from, members_[1].hex, id);
  const ConnRef to = connect(members_[1]);
  EXPECT_EQ(field(frames(to).at(0), "type"), "hello_ack");
  EXPECT_EQ(pushed(to), (Texts{"a", "b", "c"}));
  const std::string push = frames(to).at(1);
  EXPECT_EQ(field(push, "senderPubkey"), members_[0].hex);
  EXPECT_EQ(field(push, "senderMemberPubkey"), members_[0].hex);
  EXPECT_EQ(field(push, "senderMemberId"), members_[0].id);
  EXPECT_EQ(field(push, "senderName"), "m0");
  EXPECT_EQ(field(push, "request_fingerprint"), std::string(64, 'a'));
}

TEST_F(BrokerTest, an_urgent_message_overtakes_the_others) {
  found(2);
  const ConnRef from = connect(members_[0]);
  for (const char* priority : {"low", "next", "now"}) {
    text(from, send_text(members_[1].hex, priority, std::string(64, 'a'), priority));
  }
  EXPECT_EQ(pushed(connect(members_[1])), (Texts{"now", "next", "low"}));
}

TEST_F(BrokerTest, the_window_is_256_rows_and_each_ack_lets_one_more_through) {
  found(2);
  const ConnRef from = connect(members_[0]);
  for (int count = 0; count < 300; ++count) {
    core_->on_text(from, send_text(members_[1].hex, "i" + std::to_string(count)));
  }
  run();
  const ConnRef to = connect(members_[1]);
  EXPECT_EQ(pushed(to).size(), 256u);
  const std::string push = frames(to, "push").front();
  ack(to, field(push, "messageId"));
  EXPECT_EQ(pushed(to), (Texts{"i256"}));
}

TEST_F(BrokerTest, the_window_is_bounded_in_bytes_but_one_row_always_fits) {
  parts_.limits.claim_bytes_max = 100;
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  send(from, members_[1].hex, "b");
  const ConnRef to = connect(members_[1]);
  EXPECT_EQ(pushed(to), (Texts{"a"}));
  ack(to, field(frames(to, "push").front(), "messageId"));
  EXPECT_EQ(pushed(to), (Texts{"b"}));
}

TEST_F(BrokerTest, more_claims_than_the_table_holds_wait_and_are_not_fatal) {
  parts_.limits.claims_max = 32;
  found(2);
  const ConnRef from = connect(members_[0]);
  for (int count = 0; count < 40; ++count) {
    core_->on_text(from, send_text(members_[1].hex, "i" + std::to_string(count)));
  }
  run();
  const ConnRef to = connect(members_[1]);
  Texts seen = pushed(to);
  EXPECT_EQ(seen.size(), 32u);
  ack(to, field(frames(to, "push").front(), "messageId"));
  EXPECT_EQ(pushed(to), (Texts{"i32"}));
}

TEST_F(BrokerTest, a_mailbox_that_found_the_claim_table_full_is_served_when_others_have_acked) {
  parts_.limits.claims_max = 48;
  found(3);
  const ConnRef from = connect(members_[0]);
  for (int count = 0; count < 48; ++count) {
    core_->on_text(from, send_text(members_[1].hex, "i" + std::to_string(count)));
  }
  core_->on_text(from, send_text(members_[2].hex, "other"));
  run();
  const ConnRef to = connect(members_[1]);
  const std::string oldest = field(frames(to, "push").front(), "messageId");
  const ConnRef waiting = connect(members_[2]);
  EXPECT_TRUE(pushed(waiting).empty());
  core_->on_text(to, R"({"type":"client_ack","brokerMessageId":")" + oldest + "\"}");
  run();
  if (pushed(waiting).empty()) run();
  EXPECT_EQ(pushed(waiting), (Texts{"other"}));
}

TEST_F(BrokerTest, a_lapsed_connection_gets_nothing_until_it_acks) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1]);
  core_->on_text(from, send_text(members_[1].hex, "a"));
  run();
  EXPECT_EQ(pushed(to), (Texts{"a"}));
  const std::string id = field(frames(to, "push").front(), "messageId");
  later(29'999);
  EXPECT_TRUE(frames(to).empty());
  later(1);
  EXPECT_TRUE(pushed(to).empty());
  core_->on_text(from, send_text(members_[1].hex, "b"));
  run();
  EXPECT_TRUE(pushed(to).empty());
  ack(to, id);  // late, and still the end of its row
  EXPECT_EQ(pushed(to), (Texts{"b"}));
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
}

TEST_F(BrokerTest, an_ack_that_names_no_row_still_ends_the_lapse_and_the_waiting) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1]);
  send(from, members_[1].hex, "a");
  later(30'000);
  text(to, R"({"type":"client_ack","clientMessageId":"a"})");
  EXPECT_EQ(pushed(to), (Texts{"a"})) << "nothing else would push it again";
}

TEST_F(BrokerTest, what_a_lapsed_connection_held_goes_to_another_one_in_order) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef throwaway = connect(members_[1], Member::make().hex);
  send(from, members_[1].hex, "a");
  send(from, members_[1].hex, "b");
  const ConnRef session = connect(members_[1], Member::make().hex);
  EXPECT_TRUE(pushed(session).empty());
  later(30'000);
  EXPECT_TRUE(pushed(throwaway).empty());
  EXPECT_EQ(pushed(session), (Texts{"a", "b"}));
}

TEST_F(BrokerTest, an_ack_renews_the_lease_of_its_lane) {
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  send(from, members_[1].hex, "b");
  const ConnRef to = connect(members_[1]);
  const std::string id = field(frames(to, "push").front(), "messageId");
  later(20'000);
  ack(to, id);
  later(20'000);
  ASSERT_EQ(core_->tables().claims.count(), 1u) << "b is still held";
  later(10'000);
  EXPECT_EQ(core_->tables().claims.count(), 0u);
}

TEST_F(BrokerTest, a_closed_connection_gives_its_rows_back_at_once) {
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  send(from, members_[1].hex, "b");
  const ConnRef to = connect(members_[1]);
  core_->on_closed(to);
  run();
  EXPECT_EQ(pushed(connect(members_[1])), (Texts{"a", "b"}));
}

TEST_F(BrokerTest, queued_rows_survive_a_restart) {
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  connect(members_[1]);
  start();
  EXPECT_EQ(pushed(connect(members_[1])), (Texts{"a"}));
  EXPECT_EQ(field(send(connect(members_[0]), members_[1].hex, "a"), "duplicate"), "true");
}

TEST_F(BrokerTest, the_control_plane_is_preferred_and_of_its_kind_the_newest) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef older = connect(members_[1]);
  const ConnRef newer = connect(members_[1]);
  const ConnRef session = connect(members_[1], Member::make().hex);
  text(from, send_text(members_[1].hex, "a"));
  EXPECT_EQ(pushed(newer), (Texts{"a"}));
  EXPECT_TRUE(pushed(older).empty() && pushed(session).empty());
}

TEST_F(BrokerTest, mail_for_a_session_goes_to_that_session_only) {
  found(2);
  const std::string key = Member::make().hex;
  const ConnRef from = connect(members_[0]);
  const ConnRef control = connect(members_[1]);
  ConnRef session = connect(members_[1], key);
  text(from, send_text(key, "a"));
  EXPECT_EQ(pushed(session), (Texts{"a"}));
  EXPECT_TRUE(pushed(control).empty());
  core_->on_closed(session);
  run();
  EXPECT_TRUE(pushed(control).empty());
  EXPECT_EQ(field(send(from, key, "b"), "recipient"), "offline");
  session = connect(members_[1], key);
  EXPECT_EQ(pushed(session), (Texts{"a", "b"}));
}

TEST_F(BrokerTest, an_ack_by_client_id_alone_counts_only_when_it_names_one_row) {
  found(3);
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  const ConnRef to = connect(members_[2]);
  send(one, members_[2].hex, "same");
  send(two, members_[2].hex, "same");
  text(to, R"({"type":"client_ack","clientMessageId":"same"})");
  EXPECT_EQ(parts_.count(TableId::kDelivery), 2u);
  send(one, members_[2].hex, "single");
  text(to, R"({"type":"client_ack","clientMessageId":"single"})");
  EXPECT_EQ(parts_.count(TableId::kDelivery), 2u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
  text(to, R"({"type":"client_ack"})");
  EXPECT_EQ(field(first(to), "code"), "malformed");
}

TEST_F(BrokerTest, an_ack_of_somebody_elses_message_does_nothing) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef stranger = connect(members_[2]);
  const std::string id = field(send(from, members_[1].hex, "a"), "messageId");
  ack(stranger, id);
  ack(from, id);
  ack(stranger, "nonsense");
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 0u);
  EXPECT_EQ(pushed(connect(members_[1])), (Texts{"a"}));
  ack(stranger, id);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
  EXPECT_EQ(core_->tables().claims.count(), 1u);
}

TEST_F(BrokerTest, a_members_other_connection_cannot_ack_what_a_session_holds) {
  found(2);
  const std::string key = Member::make().hex;
  const ConnRef from = connect(members_[0]);
  const ConnRef session = connect(members_[1], key);
  send(from, members_[1].hex, "for-the-member");
  text(from, send_text(key, "for-the-session"));
  ASSERT_EQ(pushed(session), (Texts{"for-the-session"}));
  const std::string id = field(frames(session, "push").front(), "messageId");
  const ConnRef control = connect(members_[1]);
  const auto held = core_->tables().claims.count();
  ack(control, id);
  EXPECT_EQ(core_->tables().claims.count(), held);
  ack(session, id);
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
}

// --- presence --------------------------------------------------------------------------------

TEST_F(BrokerTest, a_lost_peer_is_announced_once_at_the_end_of_its_lease_and_once_on_return) {
  found(2);
  const ConnRef watcher = connect(members_[0]);
  ConnRef peer = open();
  core_->on_text(peer, write(members_[1], hello_of(members_[1])));
  run();
  EXPECT_EQ(events(watcher, "peer_joined"), 1u);
  core_->on_closed(peer);
  run();
  EXPECT_TRUE(frames(watcher).empty());
  later(89'999);
  EXPECT_TRUE(frames(watcher).empty());
  later(1);
  EXPECT_EQ(events(watcher, "peer_left"), 1u);
  later(200'000);
  EXPECT_TRUE(frames(watcher).empty());
  peer = open();
  core_->on_text(peer, write(members_[1], hello_of(members_[1])));
  run();
  EXPECT_EQ(events(watcher, "peer_returned"), 1u);
  EXPECT_EQ(events(watcher, "peer_joined"), 0u);
}

TEST_F(BrokerTest, a_return_within_the_lease_is_told_to_nobody) {
  found(2);
  const ConnRef watcher = connect(members_[0]);
  const ConnRef peer = connect(members_[1], "", "daemon-1");
  core_->on_closed(peer);
  later(80'000);
  const ConnRef back = open();
  HelloText hello = hello_of(members_[1]);
  hello.session_id = "daemon-2";
  core_->on_text(back, write(members_[1], hello));
  run();
  EXPECT_EQ(field(first(back), "type"), "hello_ack");
  EXPECT_TRUE(frames(watcher).empty());
  later(200'000);
  EXPECT_TRUE(frames(watcher).empty());
}

TEST_F(BrokerTest, leases_survive_a_restart) {
  found(3);
  const ConnRef gone = connect(members_[1]);
  connect(members_[2]);
  core_->on_closed(gone);
  later(60'000);
  start();
  const ConnRef watcher = connect(members_[0]);
  later(29'900);
  EXPECT_EQ(events(watcher, "peer_left"), 0u);
  later(100);  // the rest of the first one's lease
  EXPECT_EQ(events(watcher, "peer_left"), 1u);
  later(59'990);
  EXPECT_EQ(events(watcher, "peer_left"), 0u);
  later(20);  // a whole lease for the one that the restart cut off
  EXPECT_EQ(events(watcher, "peer_left"), 1u);
  EXPECT_EQ(parts_.count(TableId::kPresence), 1u);
}

TEST_F(BrokerTest, the_same_process_replaces_its_own_dead_socket_and_no_other) {
  found(2);
  const ConnRef old = connect(members_[0], "", "daemon-1");
  const ConnRef other = connect(members_[1], "", "daemon-1");
  const ConnRef now = open();
  HelloText hello = hello_of(members_[0]);
  hello.session_id = "daemon-1";
  core_->on_text(now, write(members_[0], hello));
  run();
  EXPECT_EQ(closed(old), 1000u);
  const auto replaced = std::find_if(sent_.begin(), sent_.end(), [](const Sent& sent) {
    return sent.kind == EffectKind::kWsClose;
  });
  EXPECT_EQ(replaced->text, "session_replaced");
  EXPECT_EQ(closed(other), 0u);
  EXPECT_EQ(field(first(now), "type"), "hello_ack");
  EXPECT_EQ(core_->tables().clients.count(), 2u);
}

TEST_F(BrokerTest, the_list_of_peers_shows_the_online_and_the_leased) {
  found(3);
  const ConnRef asker = connect(members_[0]);
  const ConnRef leased = connect(members_[1]);
  core_->on_closed(leased);
  run();
  text(asker, R"({"type":"list_peers","_reqId":"pl-1"})");
  const std::string list = first(asker);
  EXPECT_EQ(field(list, "type"), "peers_list");
  EXPECT_EQ(field(list, "_reqId"), "pl-1");
  EXPECT_TRUE(has(list, members_[0].hex) && has(list, members_[1].hex));
  EXPECT_FALSE(has(list, members_[2].hex));
}

// --- a commit that failed --------------------------------------------------------------------

TEST_F(BrokerTest, a_failed_commit_closes_the_sockets_that_spoke_and_no_others) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef quiet = connect(members_[1]);
  const ConnRef silent = open();
  run();
  parts_.commit_fails = true;
  core_->on_text(from, send_text(members_[1].hex, "a"));
  EXPECT_FALSE(run());
  EXPECT_EQ(closed(from), 1011u);
  EXPECT_EQ(closed(quiet), 0u);
  EXPECT_EQ(closed(silent), 0u);
  EXPECT_TRUE(frames(quiet).empty()) << "nothing of it leaves";
  parts_.commit_fails = false;
  run();
  const ConnRef again = connect(members_[0]);
  text(again, send_text(members_[1].hex, "a"));
  EXPECT_EQ(pushed(quiet), (Texts{"a"}));
  text(silent, write(members_[2], hello_of(members_[2])));
  EXPECT_EQ(field(first(silent), "type"), "hello_ack");
}

TEST_F(BrokerTest, a_hello_whose_commit_failed_is_no_hello) {
  found(2);
  const ConnRef watcher = connect(members_[0]);
  const std::string hello = write(members_[1], hello_of(members_[1]));
  const ConnRef conn = open();
  parts_.commit_fails = true;
  core_->on_text(conn, hello);
  EXPECT_FALSE(run());
  EXPECT_EQ(closed(conn), 1011u);
  EXPECT_TRUE(frames(watcher).empty());
  parts_.commit_fails = false;
  const ConnRef again = open();
  core_->on_text(again, hello);  // its signature was never used
  run();
  EXPECT_EQ(field(first(again), "type"), "hello_ack");
  EXPECT_EQ(events(watcher, "peer_joined"), 1u);
}

TEST_F(BrokerTest, what_was_pushed_before_a_failed_commit_is_pushed_again_and_acks_repeated) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const std::string id = field(send(from, members_[1].hex, "a"), "messageId");
  ConnRef to = connect(members_[1]);
  parts_.commit_fails = true;
  core_->on_text(to, R"({"type":"client_ack","brokerMessageId":")" + id + "\"}");
  EXPECT_FALSE(run());
  EXPECT_EQ(closed(to), 1011u);
  parts_.commit_fails = false;
  to = connect(members_[1]);
  EXPECT_EQ(pushed(to), (Texts{"a"}));
  ack(to, id);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
}

TEST_F(BrokerTest, a_socket_that_the_failed_iteration_had_closed_is_closed_anyway) {
  found(1);
  const ConnRef old = connect(members_[0], "", "daemon-1");
  const ConnRef now = open();
  HelloText hello = hello_of(members_[0]);
  hello.session_id = "daemon-1";
  parts_.commit_fails = true;
  core_->on_text(now, write(members_[0], hello));
  EXPECT_FALSE(run());
  EXPECT_EQ(closed(old), 1011u);
  EXPECT_EQ(closed(now), 1011u);
}

// --- HTTP ------------------------------------------------------------------------------------

TEST_F(BrokerTest, creating_and_inviting_demand_the_admin_token) {
  found(1);
  const Member who = Member::make();
  const std::string body = R"({"name":"other","pubkey":")" + who.hex + "\"}";
  EXPECT_EQ(field(http("POST", "/cli/mesh/create", body), "error"), "unauthenticated");
  EXPECT_EQ(status_, 401u);
  http("POST", "/cli/mesh/crew/invite", "{}");
  EXPECT_EQ(status_, 401u);
  wire::HttpRequest request;
  request.method = "POST";
  request.path = "/cli/mesh/create";
  request.body = body;
  for (const char* wrong : {"Bearer wrong", "Bearer ", "Basic x", "the-admin-token-of-the-tests"}) {
    request.authorization = wrong;
    request_of(request);
    EXPECT_EQ(status_, 401u) << wrong;
  }
  EXPECT_EQ(parts_.count(TableId::kMesh), 1u);
  http("POST", "/cli/mesh/create", body, true);
  EXPECT_EQ(status_, 200u);
  http("POST", "/cli/mesh/nowhere/invite", "{}", true);
  EXPECT_EQ(status_, 404u);
  http("POST", "/cli/mesh/create", "{", true);
  EXPECT_EQ(status_, 400u);
}

TEST_F(BrokerTest, a_taken_slug_gets_a_number) {
  found(1);
  const std::string body = R"({"name":"Crew!","pubkey":")" + Member::make().hex + "\"}";
  EXPECT_EQ(field(http("POST", "/cli/mesh/create", body, true), "slug"), "crew-2");
}

TEST_F(BrokerTest, metrics_off_loopback_need_the_token_and_health_does_not) {
  found(1);
  http("GET", "/metrics");
  EXPECT_EQ(status_, 200u);
  http("GET", "/metrics", "", false, false);
  EXPECT_EQ(status_, 401u);
  http("GET", "/metrics", "", true, false);
  EXPECT_EQ(status_, 200u);
  http("GET", "/health", "", false, false);
  EXPECT_EQ(status_, 200u);
  http("GET", "/nothing");
  EXPECT_EQ(status_, 404u);
  http("POST", "/metrics");
  EXPECT_EQ(status_, 404u);
}

class JoinTest : public BrokerTest {
 protected:
  void change_invite(const std::string& token, void (*change)(store::InviteFixed&)) {
    store::InviteRow row;
    const crypto::Hash32 key = crypto::sha256(as_bytes(token));
    ASSERT_TRUE(parts_.store->batch().get(TableId::kInvite, key, row));
    const std::string id(row.text[store::kInviteId]);
    row.text[store::kInviteId] = id;
    change(row.fixed);
    parts_.store->batch().put(TableId::kInvite, key, row);
    ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
    parts_.end_reading();
  }
  std::string error_of(const std::string& reply) { return field(reply, "error"); }
};

TEST_F(JoinTest, each_refusal_of_a_join_has_its_code_and_its_place) {
  found(1);
  const Member who = Member::make();
  const std::string token = invite();
  const std::string payload = payload_of(token);
  std::string changed = payload;
  changed.replace(changed.find("crew"), 4, "kraw");
  EXPECT_EQ(error_of(join_with("x" + token, changed, who, "w")), "invite_bad_signature");
  EXPECT_EQ(status_, 400u);
  EXPECT_EQ(error_of(join_with("x" + token, payload, who, "w")), "invite_not_found");

  // Another mesh of this broker, and another broker.
  http("POST", "/cli/mesh/create", R"({"name":"other","pubkey":")" + who.hex + "\"}", true);
  const std::string foreign = field(http("POST", "/cli/mesh/other/invite", "{}", true), "token");
  EXPECT_EQ(error_of(join_with(foreign, payload, who, "w")), "invite_mesh_mismatch");

  change_invite(token, [](store::InviteFixed& row) {
    row.revoked_ms = 1;
    row.expires_ms = 1;
    row.uses = row.uses_max;
  });
  EXPECT_EQ(error_of(join(token, who, "w")), "invite_revoked");
  change_invite(token, [](store::InviteFixed& row) { row.revoked_ms = 0; });
  EXPECT_EQ(error_of(join(token, who, "w")), "invite_expired");
  change_invite(token, [](store::InviteFixed& row) { row.expires_ms = ~0ull >> 8; });
  EXPECT_EQ(error_of(join(token, who, "w")), "invite_exhausted");
  const std::string member = join(token, members_[0], "w");
  EXPECT_EQ(field(member, "alreadyMember"), "true") << "before the uses are counted";
  EXPECT_EQ(field(member, "memberId"), members_[0].id);
  change_invite(token, [](store::InviteFixed& row) { row.uses = 0; });
  EXPECT_EQ(field(join(token, who, "w"), "ok"), "true");
  EXPECT_EQ(error_of(join(token, Member::make(), "w")), "invite_exhausted");
}

TEST_F(JoinTest, an_invite_signed_by_somebody_else_names_no_mesh_or_another_owner) {
  found(1);
  const Member forger = Member::make();
  const auto forged = [&](const std::string& mesh) {
    const std::string root = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    ScratchArena arena(4096);
    TextBuf canonical(arena);
    CHECK(crypto::canonical_invite_v1(
        {mesh, "crew", config_.public_url, 1'800'000'000, root, "admin", forger.key}, canonical));
    return R"({"v":1,"mesh_id":")" + mesh + R"(","mesh_slug":"crew","broker_url":")" +
           config_.public_url + R"(","expires_at":1800000000,"mesh_root_key":")" + root +
           R"(","role":"admin","owner_pubkey":")" + forger.hex + R"(","signature":")" +
           forger.sign(canonical.view()) + "\"}";
  };
  EXPECT_EQ(error_of(join_with(invite(), forged("nomesh"), forger, "f")), "mesh_not_found");
  EXPECT_EQ(error_of(join_with(invite(), forged(mesh_), forger, "f")), "invite_owner_mismatch");
  EXPECT_EQ(parts_.count(TableId::kMember), 1u);
}

TEST_F(JoinTest, a_known_session_key_cannot_join) {
  found(1);
  const Member session = Member::make();
  connect(members_[0], session.hex);
  EXPECT_EQ(error_of(join(invite(), session, "s")), "malformed");
  EXPECT_EQ(status_, 400u);
}

TEST_F(JoinTest, a_join_whose_commit_failed_used_nothing_up) {
  found(1);
  const std::string token = invite();
  const Member who = Member::make();
  parts_.commit_fails = true;
  join(token, who, "w");
  EXPECT_EQ(status_, 0u) << "the shell answers for the lost iteration";
  parts_.commit_fails = false;
  EXPECT_EQ(field(join(token, who, "w"), "alreadyMember"), "");
  EXPECT_EQ(status_, 200u);
}

}  // namespace
}  // namespace cm::broker
