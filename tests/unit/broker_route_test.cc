// broker_route_test.cc — who gets a message: sessions, groups, topics; grants, budgets, status.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    the accept table and the queue (broker_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

// --- session_hello ----------------------------------------------------------------------------

TEST_F(BrokerTest, a_session_connects_sends_and_receives_under_its_own_key) {
  found(2);
  const ConnRef peer = connect(members_[1]);
  const Member session = Member::make();
  const ConnRef conn = connect_session({members_[0], session, "", "", 3600'000, ""});
  EXPECT_FALSE(has(first(conn), "services"));
  EXPECT_EQ(field(first(conn), "memberDisplayName"), "worker");

  text(peer, send_text(session.hex, "to-session"));
  ASSERT_EQ(pushed(conn), Texts{"to-session"});
  ack(conn, field(frames(conn, "push").front(), "messageId"));

  text(conn, send_text(members_[1].hex, "from-session"));
  ASSERT_EQ(pushed(peer), Texts{"from-session"});
  const std::string push = frames(peer, "push").front();
  EXPECT_EQ(field(push, "senderPubkey"), session.hex);
  EXPECT_EQ(field(push, "senderMemberPubkey"), members_[0].hex);
  EXPECT_TRUE(has(push, "\"senderAttestation\":{\"sessionPubkey\":" + quoted(session.hex)));

  const std::string list = ask(peer, R"({"type":"list_peers"})", "peers_list");
  EXPECT_TRUE(has(list, "\"peerRole\":\"session\"")) << list;
  EXPECT_TRUE(has(list, "\"allowed_caps\":null")) << list;
  EXPECT_TRUE(has(list, "\"attestation\":{")) << list;
}

TEST_F(BrokerTest, a_session_hello_is_checked_in_the_order_of_the_specification) {
  found(2);
  const Member session = Member::make();
  const auto code_of = [&](const std::string& frame) {
    const ConnRef conn = open();
    core_->on_text(conn, frame);
    run();
    EXPECT_NE(closed(conn), 0u) << frame;
    return field(first(conn), "code");
  };
  const auto changed = [&](std::string frame, const std::string& from, const std::string& to) {
    const std::size_t at = frame.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return frame.replace(at, from.size(), to);
  };
  const SessionText good{members_[0], session, "", "", 3600'000, ""};
  const std::string zeros(128, '0');
  EXPECT_EQ(code_of(changed(write_session(good), "\"sessionPubkey\":\"", "\"sessionPubkey\":\"X")),
            "bad_session_pubkey");
  EXPECT_EQ(code_of(changed(write_session(good), "\"parentMemberPubkey\":\"",
                            "\"parentMemberPubkey\":\"X")),
            "bad_parent_pubkey");
  EXPECT_EQ(code_of(changed(write_session(good), "parentAttestation", "attestation")),
            "attestation_mismatch");
  SessionText other = good;
  other.ttl_ms = -1;
  EXPECT_EQ(code_of(write_session(other)), "expired");
  other.ttl_ms = 25ll * 3600 * 1000;
  EXPECT_EQ(code_of(write_session(other)), "ttl_too_long");
  EXPECT_EQ(code_of(changed(write_session(good), "\"expiresAt\":1", "\"expiresAt\":\"\",\"x\":1")),
            "malformed");
  std::string forged = write_session(good);
  forged.replace(forged.find("\"signature\":\"") + 13, 128, zeros);
  EXPECT_EQ(code_of(forged), "bad_signature");
  forged = write_session(good);
  forged.replace(forged.rfind("\"signature\":\"") + 13, 128, zeros);
  EXPECT_EQ(code_of(forged), "bad_signature");
  EXPECT_EQ(code_of(changed(write_session(good), "\"timestamp\":1", "\"timestamp\":2")),
            "timestamp_skew");
  other = good;
  other.parent = Member::make();
  other.parent.id = members_[0].id;
  EXPECT_EQ(code_of(write_session(other)), "unauthorized");
  other = good;
  other.parent.id = members_[1].id;
  EXPECT_EQ(code_of(write_session(other)), "parent_member_id_mismatch");
  other = good;
  other.session = members_[1];
  EXPECT_EQ(code_of(write_session(other)), "bad_session_pubkey") << "a member's key";
  const std::string once = write_session(good);
  const ConnRef conn = open();
  text(conn, once);
  EXPECT_EQ(field(first(conn), "type"), "hello_ack");
  EXPECT_EQ(code_of(once), "bad_signature") << "replayed";
}

TEST_F(BrokerTest, a_proof_takes_a_key_from_who_only_claimed_it_with_the_mail_that_waits) {
  found(3);
  const Member session = Member::make();
  const ConnRef sender = connect(members_[2]);
  const ConnRef impostor = connect(members_[1], session.hex);
  text(sender, send_text(session.hex, "secret"));
  EXPECT_EQ(pushed(impostor), Texts{"secret"}) << "it can not read it";
  const ConnRef owner = open();
  text(owner, write_session({members_[0], session, "", "", 3600'000, ""}));
  EXPECT_EQ(closed(impostor), 1008u);
  EXPECT_EQ(pushed(owner), Texts{"secret"});
  ack(owner, field(ask(sender, R"({"type":"list_peers"})", "peers_list"), "none"));
  const ConnRef again = open();
  HelloText hello = hello_of(members_[1]);
  hello.session = session.hex;
  core_->on_text(again, write(members_[1], hello));
  run();
  EXPECT_EQ(field(first(again), "code"), "bad_session_pubkey");
}

TEST_F(BrokerTest, a_session_that_comes_back_replaces_its_older_socket) {
  found(1);
  const SessionText hello{members_[0], Member::make(), "", "", 3600'000, ""};
  const ConnRef older = connect_session(hello);
  const std::string presence = field(first(older), "presenceId");
  const ConnRef newer = open();
  text(newer, write_session(hello));
  EXPECT_EQ(closed(older), 1000u);
  EXPECT_EQ(field(first(newer), "presenceId"), presence);
  EXPECT_FALSE(has(first(newer), "memberProfile"));
}

TEST_F(BrokerTest, capabilities_of_an_attestation_bound_what_a_session_may_do) {
  found(2);
  const ConnRef conn = connect_session(
      {members_[0], Member::make(), R"(["state-read"])", "", 3600'000, "state-read"});
  text(conn, R"({"type":"set_state","key":"k","value":1,"_reqId":"r"})");
  EXPECT_EQ(field(first(conn), "code"), "forbidden");
  EXPECT_TRUE(has(first(conn), "missing session capability"));
  const std::string refusal = send(conn, members_[1].hex, "id");
  EXPECT_TRUE(has(refusal, "forbidden: missing session capability")) << refusal;
  EXPECT_EQ(field(refusal, "code"), "forbidden");
  EXPECT_EQ(field(ask(conn, R"({"type":"get_state","key":"k"})", "state_result"), "value"), "null");
  const ConnRef none = connect_session({members_[0], Member::make(), "[]", "", 3600'000, ""});
  text(none, R"({"type":"get_state","key":"k"})");
  EXPECT_EQ(field(first(none), "code"), "forbidden");
}

// --- broadcast, groups, topics ----------------------------------------------------------------

TEST_F(BrokerTest, a_broadcast_reaches_every_other_member_and_waits_for_its_acks) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef one = connect(members_[1]);
  const ConnRef session = connect_session({members_[1], Member::make(), "", "", 3600'000, ""});
  const ConnRef two = connect(members_[2]);
  text(from, send_text("*", "all-1"));
  for (const ConnRef conn : {one, session, two}) EXPECT_EQ(pushed(conn), Texts{"all-1"});
  EXPECT_TRUE(pushed(from).empty());
  EXPECT_EQ(parts_.count(TableId::kDelivery), 3u);
  const std::string push = [&] {
    text(from, send_text("@all", "all-2"));
    return frames(one, "push").front();
  }();
  EXPECT_EQ(field(push, "senderName"), "m0");
  EXPECT_EQ(field(push, "senderMemberId"), members_[0].id);
  EXPECT_EQ(field(push, "client_message_id"), "all-2");
  ack(one, field(push, "messageId"));
  EXPECT_EQ(parts_.count(TableId::kDelivery), 5u);
  const std::string again = send(from, "*", "all-1");
  EXPECT_EQ(field(again, "duplicate"), "true") << again;
}

TEST_F(BrokerTest, a_group_reaches_its_own_and_what_is_below_it) {
  found(4);
  const ConnRef from = connect(members_[0]);
  const ConnRef exact = connect(members_[1]);
  const ConnRef below = connect(members_[2]);
  const ConnRef beside = connect(members_[3]);
  text(exact, R"({"type":"join_group","name":"@ops","role":"lead"})");
  EXPECT_TRUE(frames(exact).empty()) << "nobody asked for an answer";
  EXPECT_EQ(field(ask(below, R"({"type":"join_group","name":"ops/eu/north","_reqId":"q"})", "ack"),
                  "_reqId"),
            "q");
  text(beside, R"({"type":"join_group","name":"opsish"})");
  text(from, send_text("@ops", "g-1"));
  EXPECT_EQ(pushed(exact), Texts{"g-1"});
  EXPECT_EQ(pushed(below), Texts{"g-1"});
  EXPECT_TRUE(pushed(beside).empty());
  text(below, R"({"type":"leave_group","name":"ops/eu/north"})");
  text(from, send_text("@ops", "g-2"));
  EXPECT_TRUE(pushed(below).empty());
  text(exact, R"({"type":"join_group","name":" a","_reqId":"q"})");
  EXPECT_EQ(field(first(exact), "code"), "malformed");
}

TEST_F(BrokerTest, hidden_peers_get_no_broadcast_and_are_not_listed) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef hidden = connect(members_[1]);
  const ConnRef watcher = connect(members_[2]);
  text(hidden, R"({"type":"set_visible","visible":false,"_reqId":"v"})");
  EXPECT_EQ(field(first(hidden), "type"), "ack");
  EXPECT_EQ(events(watcher, "peer_hidden"), 1u);
  text(from, send_text("*", "b-1"));
  EXPECT_TRUE(pushed(hidden).empty());
  EXPECT_FALSE(has(ask(watcher, R"({"type":"list_peers"})", "peers_list"), members_[1].hex));
  EXPECT_TRUE(has(ask(hidden, R"({"type":"list_peers"})", "peers_list"), members_[1].hex));
  text(hidden, R"({"type":"set_visible","visible":true})");
  EXPECT_EQ(events(watcher, "peer_visible"), 1u);
  EXPECT_EQ(field(send(from, members_[1].hex, "d-1"), "queued"), "true");
}

TEST_F(BrokerTest, a_topic_is_created_joined_posted_to_and_read) {
  found(3);
  const ConnRef lead = connect(members_[0]);
  const ConnRef reader = connect(members_[1]);
  const ConnRef outside = connect(members_[2]);
  const std::string made =
      ask(lead, R"({"type":"topic_create","name":"deploys","description":"d","_reqId":"1"})",
          "topic_created");
  EXPECT_EQ(field(made, "created"), "true") << made;
  EXPECT_EQ(field(made, "_reqId"), "1");
  const std::string id = field(made, "id");
  EXPECT_EQ(
      field(ask(reader, R"({"type":"topic_create","name":"deploys"})", "topic_created"), "created"),
      "false");
  text(reader, R"({"type":"topic_join","topic":"deploys"})");
  EXPECT_TRUE(frames(reader).empty());
  text(outside, R"({"type":"topic_join","topic":"nowhere","_reqId":"7"})");
  EXPECT_EQ(field(first(outside), "code"), "topic_not_found");
  EXPECT_EQ(field(first(outside), "id"), "7");
  EXPECT_EQ(field(first(outside), "_reqId"), "7");

  text(lead, send_text("#deploys", "p-1"));
  ASSERT_EQ(pushed(reader), Texts{"p-1"});
  const std::string push = frames(reader, "push").front();
  EXPECT_EQ(field(push, "topic"), "deploys");
  EXPECT_EQ(field(push, "targetSpec"), "#" + id);
  EXPECT_EQ(field(push, "senderName"), "m0");
  EXPECT_TRUE(pushed(outside).empty());
  core_->on_closed(reader);
  run();
  text(lead, send_text("#" + id, "p-2"));
  const ConnRef back = connect(members_[1]);
  EXPECT_EQ(pushed(back), (Texts{"p-1", "p-2"})) << "posts wait like the rest";

  const std::string members =
      ask(lead, R"({"type":"topic_members","topic":"#deploys"})", "topic_members_response");
  EXPECT_TRUE(has(members, "\"role\":\"lead\"") && has(members, members_[1].hex)) << members;
  const std::string list = ask(lead, R"({"type":"topic_list"})", "topic_list_response");
  EXPECT_EQ(field(list, "memberCount"), "2");
  const std::string page = ask(lead, R"({"type":"topic_history","topic":"deploys","limit":1})",
                               "topic_history_response");
  const std::string newest = field(page.substr(page.find("messages")), "id");
  const std::string older =
      ask(lead, R"({"type":"topic_history","topic":"deploys","beforeId":")" + newest + "\"}",
          "topic_history_response");
  EXPECT_TRUE(has(older, "senderMemberId") && !has(older, newest)) << older;
  EXPECT_EQ(field(ask(back, R"({"type":"topic_mark_read","topic":"deploys","_reqId":"m"})", "ack"),
                  "_reqId"),
            "m");
  text(back, R"({"type":"topic_leave","topic":"deploys"})");
  text(lead, send_text("#deploys", "p-3"));
  EXPECT_TRUE(pushed(back).empty());
}

// --- status -----------------------------------------------------------------------------------

TEST_F(BrokerTest, working_and_dnd_let_only_now_through_and_idle_lets_go) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1]);
  for (const char* status : {"working", "dnd"}) {
    text(to, std::string(R"({"type":"set_status","status":")") + status + "\"}");
    EXPECT_TRUE(frames(to).empty());
    text(from, send_text(members_[1].hex, std::string(status) + "-next"));
    EXPECT_TRUE(pushed(to).empty());
    text(from,
         send_text(members_[1].hex, std::string(status) + "-now", std::string(64, 'a'), "now"));
    EXPECT_EQ(pushed(to), Texts{std::string(status) + "-now"});
    ack(to, field(frames(to, "push").front(), "messageId"));
    later(120'000);
    EXPECT_TRUE(pushed(to).empty()) << "a manual status stands";
    text(to, R"({"type":"set_status","status":"idle"})");
    ASSERT_GE(pushed(to).size(), 1u);
    EXPECT_EQ(pushed(to).back(), std::string(status) + "-next");
    for (const std::string& frame : frames(to, "push")) ack(to, field(frame, "messageId"));
  }
  text(to, R"({"type":"set_status","status":"away"})");
  EXPECT_EQ(field(first(to), "code"), "malformed");
}

TEST_F(BrokerTest, after_a_lease_gap_everything_queued_is_delivered_at_any_status) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1], {}, "s");
  text(to, R"({"type":"set_status","status":"dnd"})");
  text(from, send_text(members_[1].hex, "before"));
  core_->on_closed(to);
  run();
  text(from, send_text(members_[1].hex, "during"));
  const ConnRef back = connect(members_[1], {}, "s");
  EXPECT_EQ(pushed(back), (Texts{"before", "during"}));
  text(from, send_text(members_[1].hex, "after"));
  EXPECT_TRUE(pushed(back).empty()) << "still dnd";
}

// --- budgets ----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_sender_over_its_rate_is_refused_for_now_and_a_retry_burns_nothing) {
  parts_.limits.rate_per_minute = 60;
  parts_.limits.rate_burst = 3;
  found(2);
  const ConnRef from = connect(members_[0]);
  for (int index = 0; index < 3; ++index) {
    EXPECT_EQ(field(send(from, members_[1].hex, "id-" + std::to_string(index)), "queued"), "true");
  }
  const std::string refusal = send(from, members_[1].hex, "id-3");
  EXPECT_EQ(field(refusal, "code"), "rate_limit");
  EXPECT_FALSE(has(refusal, "invalid") || has(refusal, "forbidden")) << "transient by its text";
  EXPECT_GT(std::stoi(field(refusal, "retry_after_ms")), 0);
  EXPECT_EQ(field(send(from, members_[1].hex, "id-1"), "duplicate"), "true") << "B0 comes first";
  later(1'100);
  EXPECT_EQ(field(send(from, members_[1].hex, "id-3"), "queued"), "true");
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerRejectedRate), 1u);
}

TEST_F(BrokerTest, a_broadcast_costs_a_token_a_recipient_taken_as_debt) {
  parts_.limits.rate_per_minute = 60;
  parts_.limits.rate_burst = 2;
  found(4);
  for (std::size_t index = 1; index < 4; ++index) connect(members_[index]);
  const ConnRef from = connect(members_[0]);
  EXPECT_EQ(field(send(from, "*", "b"), "queued"), "true");
  EXPECT_EQ(field(send(from, "*", "c"), "code"), "rate_limit");
  later(1'100);
  EXPECT_EQ(field(send(from, "*", "c"), "code"), "rate_limit") << "one token is still owed";
  later(1'000);
  EXPECT_EQ(field(send(from, "*", "c"), "queued"), "true");
}

TEST_F(BrokerTest, a_pair_has_a_share_of_the_queue_and_a_multicast_skips_who_is_full) {
  parts_.limits.queue_pair_rows_max = 2;
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef full = connect(members_[1]);
  const ConnRef free = connect(members_[2]);
  send(from, members_[1].hex, "1");
  send(from, members_[1].hex, "2");
  EXPECT_EQ(field(send(from, members_[1].hex, "3"), "code"), "queue_full");
  EXPECT_EQ(field(send(free, members_[1].hex, "other"), "queued"), "true");
  const std::string all = send(from, "*", "b");
  EXPECT_EQ(field(all, "queued"), "true");
  EXPECT_EQ(pushed(free), Texts{"b"});
  EXPECT_TRUE(pushed(full).empty());
  const std::string status =
      ask(from, R"({"type":"message_status","messageId":")" + field(all, "messageId") + "\"}",
          "message_status_result");
  EXPECT_TRUE(has(status, "\"state\":\"expired\",\"reason\":\"queue_full\"")) << status;
  EXPECT_TRUE(has(status, "\"state\":\"claimed\"")) << status;
}

TEST_F(BrokerTest, undelivered_bytes_of_a_sender_are_bounded) {
  parts_.limits.queue_sender_bytes_max = 2'000;
  found(3);
  const ConnRef from = connect(members_[0]);
  EXPECT_EQ(field(send(from, members_[1].hex, "1"), "queued"), "true");
  EXPECT_EQ(field(send(from, members_[2].hex, "2"), "queued"), "true");
  EXPECT_EQ(field(send(from, members_[2].hex, "3"), "queued"), "true");
  EXPECT_EQ(field(send(from, members_[2].hex, "4"), "code"), "queue_full");
  start();
  EXPECT_STREQ(core_->verify_all(), nullptr) << "shares are rebuilt";
}

TEST_F(BrokerTest, mail_that_nobody_fetched_for_seven_days_ends_with_a_reason) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const std::string id = field(send(from, members_[1].hex, "old"), "messageId");
  later(6ull * 24 * 3600 * 1000);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
  later(25ull * 3600 * 1000);
  later(3600 * 1000);
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  const ConnRef asker = connect(members_[0], {}, "again");
  const std::string status =
      ask(asker, R"({"type":"message_status","messageId":")" + id + "\"}", "message_status_result");
  EXPECT_EQ(field(status, "delivered"), "false");
  EXPECT_EQ(field(status, "reason"), "undelivered_7_days") << status;
}

// --- message_status ---------------------------------------------------------------------------

TEST_F(BrokerTest, message_status_answers_sender_and_recipient_by_id_or_prefix) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1]);
  const ConnRef other = connect(members_[2]);
  const std::string id = field(send(from, members_[1].hex, "m"), "messageId");
  const auto ask_for = [&](ConnRef conn, const std::string& text) {
    this->text(conn, R"({"type":"message_status","messageId":")" + text + R"(","_reqId":"s"})");
    return first(conn);
  };
  EXPECT_TRUE(has(ask_for(from, id), "\"status\":\"held\""));
  EXPECT_EQ(field(ask_for(from, id.substr(0, 12)), "fullMessageId"), id);
  EXPECT_EQ(field(ask_for(to, id), "type"), "message_status_result");
  EXPECT_EQ(field(ask_for(other, id), "code"), "not_found");
  EXPECT_EQ(field(ask_for(from, "short"), "code"), "invalid_argument");
  ack(to, id);
  const std::string done = ask_for(from, id);
  EXPECT_EQ(field(done, "delivered"), "true");
  EXPECT_TRUE(has(done, "\"status\":\"delivered\""));
  send(from, members_[1].hex, "n");
  EXPECT_EQ(field(ask_for(from, id.substr(0, 8)), "code"), "ambiguous_prefix");
}

}  // namespace
}  // namespace cm::broker
