// broker_abandon_test.cc — what a failed commit leaves as it was for those that had no part in it.
// Holds:  as broker_test.cc, which has the cases of those that had one.
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

class AbandonTest : public BrokerTest {
 protected:
  // An iteration in which only `conn` spoke, and which failed.
  void fail_commit(ConnRef conn) {
    parts_.commit_fails = true;
    text(conn, send_text(members_[0].hex, "lost"));
    parts_.commit_fails = false;
    EXPECT_EQ(closed(conn), 1011u);
  }
};

TEST_F(AbandonTest, a_session_that_survives_still_gets_its_mail) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef other = connect(members_[2]);
  const SessionText hello = session_of(members_[1]);
  const ConnRef to = connect_session(hello);
  fail_commit(other);
  EXPECT_EQ(closed(to), 0u);
  send(from, hello.session.hex, "for-the-session");
  EXPECT_EQ(pushed(to), Texts{"for-the-session"});
}

TEST_F(AbandonTest, a_recall_that_waited_is_not_forgotten_with_its_answer) {
  found(3);
  parts_.limits.rate_burst = 10'000;
  const ConnRef writer = connect(members_[0]);
  const ConnRef asker = connect(members_[1]);
  const ConnRef other = connect(members_[2]);
  for (int count = 0; count < 600; ++count) {
    core_->on_text(writer,
                   R"({"type":"remember","content":"alpha )" + std::to_string(count) + "\"}");
    if (count % 200 == 199) run();
  }
  text(asker, R"({"type":"recall","query":"alpha 17","_reqId":"q"})");
  run();
  ASSERT_TRUE(frames(asker).empty()) << "there are more memories than two iterations read";
  fail_commit(other);
  EXPECT_EQ(closed(asker), 1011u)
      << "it was answered in an iteration that never was: it asks again";
}

TEST_F(AbandonTest, the_newest_connection_still_comes_first) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef gone = connect(members_[1], "", "gone");
  const ConnRef older = connect(members_[1], "", "older");
  core_->on_closed(gone);
  run();
  const ConnRef filler = connect(members_[2], "", "filler");
  const ConnRef newest = connect(members_[1], "", "newest");
  fail_commit(filler);
  send(from, members_[1].hex, "a");
  EXPECT_EQ(pushed(newest), Texts{"a"});
  EXPECT_TRUE(pushed(older).empty());
}

TEST_F(AbandonTest, a_lapsed_lane_stays_lapsed) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef other = connect(members_[2]);
  const ConnRef to = connect(members_[1]);
  send(from, members_[1].hex, "a");
  EXPECT_EQ(pushed(to), Texts{"a"});
  later(parts_.limits.claim_lease_ms + 1);
  fail_commit(other);
  EXPECT_TRUE(pushed(to).empty());
  run();
  EXPECT_TRUE(pushed(to).empty()) << "it acknowledged nothing";
}

TEST_F(AbandonTest, the_word_of_a_hook_counts_until_its_end) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef other = connect(members_[2]);
  wire::PeerAddress here{};
  here[15] = 1;
  const ConnRef to{77, 1};
  core_->on_open(to, here);
  text(to, write(members_[1], hello_of(members_[1])));
  wire::HttpRequest request;
  request.method = "POST";
  request.path = "/hook/set-status";
  request.body = R"({"cwd":"/w","pid":7,"status":"working"})";
  request.peer_address = here;
  ASSERT_EQ(field(request_of(request), "ok"), "true");
  fail_commit(other);
  send(from, members_[1].hex, "waits");
  EXPECT_TRUE(pushed(to).empty());
  later(30'001);
  EXPECT_EQ(pushed(to), Texts{"waits"});
}

TEST_F(AbandonTest, who_has_not_said_hello_gets_no_more_time_for_it) {
  found(2);
  const ConnRef silent = open();
  const ConnRef other = connect(members_[1]);
  later(parts_.limits.hello_deadline_ms - 100);
  fail_commit(other);
  later(200);
  EXPECT_EQ(closed(silent), 1008u);
}

TEST_F(AbandonTest, what_a_peer_said_about_itself_in_memory_only_is_still_shown) {
  found(3);
  const ConnRef other = connect(members_[2]);
  const ConnRef peer = connect(members_[1]);
  text(peer, R"({"type":"set_stats","stats":{"messagesIn":41}})");
  fail_commit(other);
  EXPECT_TRUE(has(ask(peer, R"({"type":"list_peers"})", "peers_list"), "41"));
}

}  // namespace
}  // namespace cm::broker
