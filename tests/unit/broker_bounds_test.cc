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

TEST_F(BoundsTest, what_is_told_to_many_costs_what_messages_to_many_do) {
  parts_.limits.rate_burst = 10;
  found(2);
  const ConnRef one = connect(members_[0]);
  std::vector<ConnRef> others;
  for (int count = 0; count < 24; ++count) others.push_back(connect(members_[1]));
  for (int count = 0; count < 50; ++count) {
    core_->on_text(one, R"({"type":"set_visible","visible":true,"_reqId":"v"})");
  }
  run();
  EXPECT_EQ(events(others[0], "peer_visible"), 0u) << "nothing has changed";
  EXPECT_EQ(refused(one), 40u);
  parts_.advance(60'000);
  for (int count = 0; count < 50; ++count) {
    core_->on_text(one, R"({"type":"set_visible","visible":)" +
                            std::string(count % 2 == 0 ? "false}" : "true}"));
  }
  run();
  // 1 for the frame and 2 for 24 connections that are told: three frames leave one token.
  EXPECT_EQ(events(others[0], "peer_visible") + events(others[0], "peer_hidden"), 4u);
  EXPECT_EQ(refused(one), 46u);
  EXPECT_GT(std::stoul(field(frames(one, "error").back(), "retry_after_ms")), 0u);
  EXPECT_EQ(closed(one), 0u) << "who is too fast is no broken peer";
  parts_.advance(60'000);
  for (int count = 0; count < 50; ++count) {
    core_->on_text(one, R"({"type":"set_state","key":"k","value":1})");
  }
  run();
  EXPECT_EQ(frames(others[0], "state_change").size(), 4u);
  EXPECT_EQ(field(send(one, members_[1].hex, "id"), "code"), "rate_limit") << "one budget for all";
}

TEST_F(BoundsTest, what_is_kept_for_a_mesh_is_bounded_in_bytes) {
  parts_.limits.mesh_shared_bytes_max = 10'000;
  found(1);
  ConnRef conn = connect(members_[0]);
  const auto set = [&](const std::string& key, std::size_t bytes) {
    text(conn, R"({"type":"set_state","key":")" + key + R"(","value":")" + std::string(bytes, 'x') +
                   R"(","_reqId":"r"})");
    return first(conn);
  };
  const auto is_full = [](const std::string& answer) {
    return field(answer, "code") == "full" && has(answer, "mesh_shared_bytes_max");
  };
  EXPECT_EQ(field(set("a", 4'000), "type"), "ack");
  const std::string memory = R"({"type":"remember","content":")" + std::string(4'000, 'm') + "\"}";
  const std::string id = field(ask(conn, memory, "memory_stored"), "id");
  EXPECT_TRUE(is_full(set("b", 4'000)));
  EXPECT_TRUE(is_full(ask(conn, memory, "error")));
  EXPECT_TRUE(is_full(ask(conn,
                          R"({"type":"share_skill","name":"s","description":"d","instructions":")" +
                              std::string(4'000, 'i') + "\"}",
                          "error")));
  EXPECT_EQ(field(set("a", 3'900), "type"), "ack") << "less than before";
  start();
  conn = connect(members_[0], {}, "later");
  EXPECT_TRUE(is_full(set("b", 4'000))) << "counted from the store";
  parts_.limits.mesh_shared_bytes_max = 100;
  EXPECT_EQ(field(set("a", 3'000), "type"), "ack") << "also over a limit that was lowered";
  EXPECT_TRUE(is_full(set("a", 3'001)));
  parts_.limits.mesh_shared_bytes_max = 10'000;
  text(conn, R"({"type":"forget","memoryId":")" + id + "\"}");
  EXPECT_EQ(field(set("b", 4'000), "type"), "ack");
  parts_.commit_fails = true;
  set("c", 1'000);
  parts_.commit_fails = false;
  run();  // verify_all() compares the counts with the store
}

TEST_F(BoundsTest, a_list_of_peers_that_is_cut_says_so) {
  found(3);
  const ConnRef one = connect(members_[0]);
  connect(members_[1]);
  connect(members_[2]);
  const std::string whole = ask(one, R"({"type":"list_peers"})", "peers_list");
  EXPECT_FALSE(has(whole, "truncated"));
  parts_.limits.peers_list_bytes_max = 200;
  const std::string cut = ask(one, R"({"type":"list_peers","_reqId":"r"})", "peers_list");
  EXPECT_EQ(field(cut, "truncated"), "true");
  EXPECT_EQ(field(cut, "_reqId"), "r");
  EXPECT_LT(cut.size(), whole.size());
}

TEST_F(BoundsTest, mail_beyond_a_limit_that_was_lowered_is_loaded_and_ends_as_any) {
  found(4);
  ConnRef sender = connect(members_[0]);
  for (std::size_t index = 1; index < 4; ++index) {
    EXPECT_EQ(field(send(sender, members_[index].hex, "id-" + std::to_string(index)), "queued"),
              "true");
  }
  parts_.limits.mailboxes_max = 1;
  start();
  EXPECT_EQ(core_->tables().mailboxes.count(), 3u);
  for (std::size_t index = 1; index < 4; ++index) {
    const ConnRef conn = connect(members_[index]);
    ASSERT_EQ(pushed(conn), Texts{"id-" + std::to_string(index)});
    ack(conn, field(frames(conn, "push").back(), "messageId"));
    core_->on_closed(conn);
    run();
  }
  EXPECT_EQ(core_->tables().mailboxes.count(), 0u);
  sender = connect(members_[0], {}, "later");
  EXPECT_EQ(field(send(sender, members_[1].hex, "a"), "queued"), "true");
  EXPECT_EQ(field(send(sender, members_[1].hex, "b"), "queued"), "true");
  EXPECT_EQ(field(send(sender, members_[2].hex, "c"), "code"), "queue_full");
}

TEST_F(BoundsTest, a_broker_makes_no_more_meshes_than_it_may) {
  parts_.limits.meshes_max = 2;
  found(1);
  const auto make = [&](const std::string& name) {
    return http("POST", "/cli/mesh/create",
                R"({"name":")" + name + R"(","pubkey":")" + members_[0].hex + "\"}", true);
  };
  make("second");
  EXPECT_EQ(status_, 200u);
  const std::string refusal = make("third");
  EXPECT_EQ(status_, 429u);
  EXPECT_TRUE(has(refusal, "meshes_max")) << refusal;
  http("DELETE", "/cli/mesh/second", {}, true);
  EXPECT_EQ(status_, 200u);
  make("third");
  EXPECT_EQ(status_, 200u);
}

TEST_F(BoundsTest, a_broadcast_leaves_no_rows_for_connections_that_nobody_can_prove_again) {
  found(3);
  const ConnRef one = connect(members_[0]);
  const ConnRef member = connect(members_[1]);
  const ConnRef throw_away = connect(members_[2], Member::make().hex);
  const ConnRef proved = connect_session({members_[2], Member::make(), "", "", 3600 * 1000, ""});
  send(one, "*", "both");
  EXPECT_EQ(pushed(throw_away), Texts{"both"}) << "while it is connected it is a peer as any";
  ack(throw_away, field(frames(throw_away, "push").back(), "messageId"));
  for (const ConnRef conn : {member, throw_away, proved}) core_->on_closed(conn);
  run();
  const auto before = core_->tables().budget.rows();
  send(one, "*", "later");
  EXPECT_EQ(core_->tables().budget.rows(), before + 2) << "the member and its proved session";
}

TEST_F(BoundsTest, one_sender_holds_mail_at_so_many_recipients_and_no_more) {
  parts_.limits.queue_sender_mailboxes_max = 2;
  found(5);
  const ConnRef greedy = connect(members_[0]);
  const ConnRef other = connect(members_[1]);
  EXPECT_EQ(field(send(greedy, members_[2].hex, "a"), "queued"), "true");
  EXPECT_EQ(field(send(greedy, members_[3].hex, "b"), "queued"), "true");
  EXPECT_EQ(field(send(greedy, members_[3].hex, "c"), "queued"), "true");
  const std::string refusal = send(greedy, members_[4].hex, "d");
  EXPECT_EQ(field(refusal, "code"), "queue_full");
  EXPECT_TRUE(has(refusal, "2 recipients")) << refusal;
  EXPECT_EQ(field(send(other, members_[4].hex, "e"), "queued"), "true");
  const ConnRef reader = connect(members_[2]);
  ack(reader, field(frames(reader, "push").back(), "messageId"));
  EXPECT_EQ(field(send(greedy, members_[4].hex, "d"), "queued"), "true");
}

TEST_F(BoundsTest, members_of_topics_are_counted_through_joins_leaves_and_restarts) {
  found(2);
  ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  const auto count = [&](ConnRef conn) {
    const std::string list = ask(conn, R"({"type":"topic_list"})", "topic_list_response");
    return field(list.substr(std::min(list.size(), list.find("\"name\":\"t\""))), "memberCount");
  };
  text(one, R"({"type":"topic_create","name":"t"})");
  EXPECT_EQ(count(one), "1");
  text(two, R"({"type":"topic_join","topic":"t"})");
  text(two, R"({"type":"topic_join","topic":"t"})");
  EXPECT_EQ(count(one), "2");
  start();
  one = connect(members_[0], {}, "later");
  EXPECT_EQ(count(one), "2");
  for (int times = 0; times < 2; ++times) {
    text(one, R"({"type":"topic_leave","topic":"t"})");
    EXPECT_EQ(count(one), "1");
  }
}

TEST_F(BoundsTest, new_session_keys_cost_their_member_and_end_with_its_rate) {
  parts_.limits.rate_burst = 10;
  parts_.limits.rate_per_minute = 60;
  found(2);
  const ConnRef watcher = connect(members_[0]);
  int accepted = 0;
  std::size_t told = 0;
  const auto bring = [&](const std::string& session) {
    const ConnRef conn = open();
    HelloText hello = hello_of(members_[1]);
    hello.session = session;
    hello.session_id = session;
    text(conn, write(members_[1], hello));
    accepted += field(first(conn), "type") == "hello_ack";
    told += events(watcher, "peer_joined");
    return conn;
  };
  std::string known;
  for (int count = 0; count < 30; ++count) {
    const std::string session = Member::make().hex;
    bring(session);
    if (count == 0) known = session;
  }
  EXPECT_EQ(accepted, 11) << "ten tokens, and one as debt";
  EXPECT_EQ(told, 11u);
  const ConnRef refused = bring(Member::make().hex);
  EXPECT_EQ(field(first(refused), "code"), "capacity");
  EXPECT_EQ(closed(refused), 1008u);
  accepted = 0;
  bring(known);
  EXPECT_EQ(accepted, 1) << "who was here comes back";
  connect_session(session_of(members_[1]));
  connect(members_[1]);
  parts_.advance(60'000);
  accepted = 0;
  bring(Member::make().hex);
  EXPECT_EQ(accepted, 1);
}

TEST(BudgetTest, a_low_rate_refills_however_often_it_is_looked_at) {
  Limits limits;
  limits.rate_per_minute = 30;
  limits.rate_burst = 1;
  Budget budget(limits);
  int sent = 0;
  for (std::uint64_t ms = 0; ms < 60'000; ++ms) {
    if (!budget.may_send(1, {}, 1, ms)) continue;
    budget.charge(1, {}, 1, Budget::Outcome::kAccepted, ms);
    ++sent;
  }
  EXPECT_EQ(sent, 30);
}

}  // namespace
}  // namespace cm::broker
