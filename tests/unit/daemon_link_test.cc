// daemon_link_test.cc — receiving, links, failed commits.
// Holds:  see daemon_fixture.h.
#include "core/crypto/sign.h"
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

// --- receiving -------------------------------------------------------------------------------

TEST_F(DaemonTest, a_message_is_stored_then_acked_and_a_redelivery_is_acked_again) {
  start();
  connect({});
  get("/v1/events");
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"brokerMessageId\":\"brokerm1\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 0u);
  start();
  link_up();
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  status(get("/v1/inbox"));
  EXPECT_TRUE(has(reply_, "hello there"));
}

TEST_F(DaemonTest, no_ack_leaves_when_the_row_could_not_be_stored) {
  start();
  connect({});
  get("/v1/events");
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0], push("m1", "hello")));
  EXPECT_FALSE(run());
  EXPECT_EQ(count(EffectKind::kLinkSend), 0u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 0u);
  EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
  parts_.commit_fails = false;
  later(1'000);
  link_up();
  frame(push("m1", "hello"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 1u);
}

TEST_F(DaemonTest, what_cannot_be_opened_has_a_null_body_and_a_reason) {
  start();
  connect({});
  get("/v1/events");
  frame(push("m1", "secret", true));
  EXPECT_EQ(count(EffectKind::kStreamWrite, "\"body\":null"), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "body_missing"), 1u);
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  // Plain text in base64, as the reference would decode it.
  frame(R"({"type":"push","messageId":"b2","meshId":"mesh0","senderPubkey":")" + bob_.hex +
        R"(","priority":"next","nonce":")" + std::string(32, 'A') +
        R"(","ciphertext":"cGxhaW4=","createdAt":"x"})");
  status(get("/v1/inbox"));
  EXPECT_FALSE(has(reply_, "plain")) << reply_;
  EXPECT_EQ(parts_.count(TableId::kInbox), 2u);
}

TEST_F(DaemonTest, a_body_that_is_no_text_leaves_the_inbox_readable) {
  start();
  connect({});
  frame(push("m1", "\xff\xfe"));
  status(get("/v1/inbox"));
  EXPECT_TRUE(has(reply_, "it is not UTF-8 text")) << reply_;
  EXPECT_FALSE(has(reply_, "\xff"));
}

TEST_F(DaemonTest, a_peer_entry_with_a_mesh_member_of_its_own_is_left_out) {
  start();
  std::string hostile = peer(eve_, "eve");
  hostile.insert(hostile.size() - 1, R"(,"mesh":"forged")");
  connect({peer(bob_, "bob"), hostile});
  status(get("/v1/peers"));
  EXPECT_TRUE(has(reply_, "bob"));
  EXPECT_FALSE(has(reply_, "forged"));
}

TEST_F(DaemonTest, the_same_id_of_another_sender_is_another_message) {
  start();
  connect({});
  frame(push("m1", "one"));
  std::string other = push("m1", "two");
  other.replace(other.find(bob_.hex), 64, eve_.hex);
  frame(other);
  EXPECT_EQ(parts_.count(TableId::kInbox), 2u);
}

TEST_F(DaemonTest, peer_events_make_the_list_stale_and_it_is_asked_for_once_a_second) {
  start();
  connect({});
  const std::string event =
      R"({"type":"push","subtype":"system","event":"peer_joined","eventData":{},"messageId":"u-1",)"
      R"("meshId":"mesh0","senderPubkey":"system","priority":"low","nonce":"","ciphertext":""})";
  get("/v1/events");
  frame(event);
  EXPECT_EQ(asked(), "") << "asked less than a second ago";
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: peer_join"), 1u);
  frame(event);
  EXPECT_EQ(asked(), "");
  later(1'000);
  const std::string request = asked();
  EXPECT_NE(request, "");
  list(request, {});
  later(5'000);
  EXPECT_EQ(asked(), "") << "nothing came since";
  frame(event);
  EXPECT_NE(asked(), "");
}

TEST_F(DaemonTest, a_list_of_peers_that_was_lost_or_unreadable_is_asked_for_again) {
  start();
  link_up();
  std::string request = asked();
  later(4'999);
  EXPECT_EQ(asked(), "");
  later(1);
  EXPECT_NE(asked(), "");
  request = asked();
  frame(R"({"type":"peers_list","_reqId":")" + request + R"(","peers":7})");
  later(5'000);
  request = asked();
  EXPECT_NE(request, "");
  list(request, {peer(bob_, "bob")});
  later(5'000);
  EXPECT_EQ(asked(), "") << "answered";
  EXPECT_EQ(send("bob", "id"), 202u);
}

TEST_F(DaemonTest, strangers_take_the_place_of_who_was_seen_longest_ago_and_of_nobody_in_use) {
  parts_.limits.known_peers_max = 4;
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id"), 202u);
  link_down();
  connect({peer(eve_, "eve")});
  const auto strangers = [&](const std::string& prefix, int number) {
    std::vector<std::string> peers;
    for (int index = 0; index < number; ++index) {
      peers.push_back(peer(Member::make(), prefix + std::to_string(index)));
    }
    link_down();
    parts_.advance(2 * 3'600'000);
    connect(peers);
  };
  strangers("a", 2);
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 4u);
  strangers("b", 3);
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 5u) << "bob, who is in use, is not counted";
  link_down();
  EXPECT_EQ(send("bob", "id-2"), 202u);
  const ConnRef gone = ask(body_of("eve", "id-3"));
  later(5'000);
  EXPECT_EQ(status(gone), 503u) << "seen longest ago";
  EXPECT_EQ(send("b2", "id-4"), 202u);
  strangers("c", 40);
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 5u + 1u) << "b2 is in use by now";
}

TEST_F(DaemonTest, a_table_of_known_peers_over_its_limit_shrinks) {
  start();
  std::vector<std::string> peers;
  for (int index = 0; index < 30; ++index) {
    peers.push_back(peer(Member::make(), "p" + std::to_string(index)));
  }
  connect(peers);
  ASSERT_EQ(parts_.count(TableId::kKnownPeer), 30u);
  parts_.limits.known_peers_max = 10;
  parts_.advance(2 * 3'600'000);
  start();
  for (int index = 0; index < 30; ++index) {
    link_down();
    connect({peer(Member::make(), "n" + std::to_string(index))});
  }
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 10u);
}

TEST_F(DaemonTest, a_member_has_few_unused_names_in_one_list_and_in_many) {
  start();
  connect({peer(bob_, "x0"), peer(bob_, "x1"), peer(bob_, "x2"), peer(bob_, "x3"), peer(bob_, "x4"),
           peer(bob_, "x5"), peer(bob_, "x6"), peer(bob_, "x7"), peer(bob_, "x8")});
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 8u);
  link_down();
  connect({peer(bob_, "x9")});
  EXPECT_EQ(parts_.count(TableId::kKnownPeer), 8u);
}

TEST_F(DaemonTest, why_a_broker_is_away_is_logged_once_a_reason_and_then_once_a_minute) {
  const auto told = [&](std::string_view part) {
    std::size_t found = 0;
    for (std::size_t at = 0;
         (at = parts_.logged.find("broker_unreachable", at)) < std::string::npos; ++at) {
      const std::size_t end = parts_.logged.find('\n', at);
      found += has(parts_.logged.substr(at, end - at), part) ? 1 : 0;
    }
    return found;
  };
  start();
  parts_.logged.clear();
  const auto fails = [&](const char* why) {
    core_->on_link_event(links_[0], LinkEvent::kConnecting, 1006, why);
    run();
  };
  core_->on_link_event(links_[0], LinkEvent::kConnecting, 0, {});
  run();
  EXPECT_EQ(told(""), 0u) << "nothing has failed";
  for (int attempt = 0; attempt < 5; ++attempt) {
    fails("connection refused");
    later(5'000);
  }
  EXPECT_EQ(told("connection refused"), 1u);
  EXPECT_TRUE(has(parts_.logged, R"("mesh":"crew")"));
  fails("no such host");
  EXPECT_EQ(told("no such host"), 1u) << "another reason";
  EXPECT_TRUE(has(parts_.logged, R"("attempts":6)"));
  later(60'000);
  fails("no such host");
  EXPECT_EQ(told("no such host"), 2u) << "a minute later";
  link_up();
  link_down();
  fails("no such host");
  EXPECT_EQ(told("no such host"), 3u) << "a new loss";
}

// --- links -----------------------------------------------------------------------------------

TEST_F(DaemonTest, a_hello_is_signed_freshly_and_verifies) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  ASSERT_EQ(count(EffectKind::kLinkSend), 1u);
  const std::string hello = done_.front().text;
  EXPECT_EQ(field(hello, "type"), "hello");
  EXPECT_EQ(field(hello, "sessionPubkey"), "");
  const auto signature = crypto::signature_parse(field(hello, "signature"));
  ASSERT_TRUE(signature);
  EXPECT_TRUE(crypto::verify(
      self_.key, "mesh0|me|" + self_.hex + "|" + std::to_string(parts_.env.wall_ms), *signature));
}

TEST_F(DaemonTest, nothing_is_sent_before_the_hello_is_answered) {
  start();
  send(bob_.hex, "id");
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  EXPECT_TRUE(sends().empty());
  hello_ack();
  EXPECT_EQ(sends(), (Texts{"id"}));
  EXPECT_EQ(count(EffectKind::kLinkNote), 1u);
}

TEST_F(DaemonTest, a_hello_without_an_answer_for_five_seconds_opens_the_link_anew) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  later(4'999);
  EXPECT_EQ(count(EffectKind::kLinkClose), 0u);
  later(1);
  EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
  EXPECT_EQ(count(EffectKind::kLinkOpen), 0u);
  later(1'000);
  EXPECT_EQ(count(EffectKind::kLinkOpen), 1u);
}

TEST_F(DaemonTest, a_refused_hello_is_noted_for_the_transport) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  frame(R"({"type":"error","code":"revoked","message":"no"})");
  ASSERT_EQ(count(EffectKind::kLinkNote), 1u);
  EXPECT_EQ(done_.front().code, 2u);
  status(get("/v1/health"));
  EXPECT_EQ(field(reply_, "last_error"), "revoked");
}

TEST_F(DaemonTest, a_failed_commit_answers_507_and_reopens_links_with_growing_delay) {
  start();
  link_up();
  parts_.commit_fails = true;
  const std::uint64_t delays[] = {1'000, 2'000, 4'000, 8'000, 16'000, 30'000, 30'000};
  for (const std::uint64_t delay : delays) {
    EXPECT_TRUE(core_->on_link_frame(links_[0], push("m", "hello")));
    const ConnRef conn = ask(body_of(bob_.hex, "id"));
    EXPECT_EQ(status(conn), 507u);
    ASSERT_EQ(count(EffectKind::kLinkClose), 1u);
    EXPECT_TRUE(sends().empty());
    for (const Done& done : done_) {
      EXPECT_TRUE(done.kind != EffectKind::kLinkClose || done.code == 1011u);
    }
    EXPECT_FALSE(row("id"));
    later(delay - 1);
    EXPECT_EQ(count(EffectKind::kLinkOpen), 0u);
    later(1);
    EXPECT_EQ(count(EffectKind::kLinkOpen), 1u);
  }
  parts_.commit_fails = false;
  link_up();
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonTest, a_failed_commit_can_also_say_503) {
  start();
  wire::HttpRequest request;
  request.method = "POST";
  request.path = "/v1/send";
  const std::string body = body_of(bob_.hex, "id");
  request.body = body;
  request.peer_is_unix = true;
  core_->on_http({1, 1}, request);
  parts_.commit_fails = true;
  core_->step();
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kFailed);
  core_->abandon(Err::kStoreFailed);
  ASSERT_FALSE(effects_.list().empty());
  EXPECT_EQ(effects_.list().front().code, 503u);
  effects_.clear();
  parts_.commit_fails = false;
  run();
}

TEST_F(DaemonTest, a_row_in_flight_whose_iteration_failed_is_sent_again) {
  start();
  link_up();
  send(bob_.hex, "id");
  ASSERT_EQ(sends(), (Texts{"id"}));
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0],
                                   R"({"type":"ack","id":"id","messageId":"b1","queued":true})"));
  EXPECT_FALSE(run());
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  parts_.commit_fails = false;
  later(1'000);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
  good_ack("id");
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

}  // namespace
}  // namespace cm::daemon
