// daemon_targets_test.cc — sends to topics, groups and everybody, and the mesh of a target.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;

class DaemonTargets : public DaemonTest {
 protected:
  // Answers the list of topics that was asked for.
  void topics(const std::string& request, const std::string& list, std::size_t mesh = 0) {
    answer(request, "topic_list_response", R"("topics":)" + list, mesh);
  }
};

constexpr const char* kTopicId = "Abcdefghijklmnopqrst0123456789AB";
const std::string kGeneral =
    std::string(R"([{"id":")") + kTopicId + R"(","name":"general"},{"id":"bad id","name":"x"}])";

TEST_F(DaemonTargets, groups_and_everybody_get_readable_text_and_the_answer_says_so) {
  start();
  connect({});
  for (const char* target : {"*", "@all", "@ops", "@a/b"}) {
    const std::string id = std::string("to-") + target;
    EXPECT_EQ(send(target, id, "hi"), 202u) << reply_;
    EXPECT_TRUE(has(reply_, R"("encrypted":false)")) << reply_;
    const std::string frame_text = sent("send");
    EXPECT_EQ(field(frame_text, "targetSpec"), target);
    EXPECT_EQ(field(frame_text, "ciphertext"), "aGk=");
    EXPECT_EQ(field(frame_text, "nonce").size(), 32u);
    EXPECT_EQ(field(frame_text, "request_fingerprint").size(), 64u);
  }
  EXPECT_EQ(send(bob_.hex, "direct"), 202u);
  EXPECT_FALSE(has(reply_, "encrypted"));
}

TEST_F(DaemonTargets, each_target_is_a_lane_of_its_own) {
  start();
  connect({});
  EXPECT_EQ(send("*", "1"), 202u);
  EXPECT_EQ(sends(), (Texts{"1"}));
  EXPECT_EQ(send("*", "2"), 202u);
  EXPECT_TRUE(sends().empty());
  EXPECT_EQ(send("@ops", "3"), 202u);
  EXPECT_EQ(sends(), (Texts{"3"}));
  good_ack("1");
  EXPECT_EQ(sends(), (Texts{"2"}));
}

TEST_F(DaemonTargets, a_topics_name_becomes_its_id_after_one_question) {
  start();
  connect({});
  const ConnRef conn = ask(body_of("#general", "id"));
  EXPECT_EQ(status(conn), 0u);
  topics(sent("topic_list"), kGeneral);
  EXPECT_EQ(status(conn), 202u);
  EXPECT_EQ(field(sent("send"), "targetSpec"), std::string("#") + kTopicId);
  EXPECT_EQ(row("id")->target, std::string("#") + kTopicId);
  EXPECT_EQ(send("#general", "id-2"), 202u) << "kept";
  EXPECT_TRUE(sent("topic_list").empty());
  EXPECT_EQ(send(std::string("#") + kTopicId, "id-3"), 202u);
  link_down();
  EXPECT_EQ(send("#general", "id-4"), 202u) << "kept over a lost connection";
}

TEST_F(DaemonTargets, a_topic_is_refused_only_after_a_fresh_list) {
  start();
  connect({});
  ConnRef conn = ask(body_of("#general", ""));
  topics(sent("topic_list"), kGeneral);
  for (const std::string& name : {std::string("later"), std::string(24, 'z')}) {
    conn = ask(body_of("#" + name, ""));
    EXPECT_EQ(status(conn), 0u) << name;
    topics(sent("topic_list"), kGeneral);
    EXPECT_EQ(status(conn), 404u);
    EXPECT_EQ(field(reply_, "error"), "not_found");
  }
  conn = ask(body_of("#new", ""));
  topics(sent("topic_list"), R"([{"id":"New1","name":"new"}])");
  EXPECT_EQ(status(conn), 202u);
}

TEST_F(DaemonTargets, without_a_broker_an_id_is_taken_at_its_word_and_a_name_is_not) {
  start();
  EXPECT_EQ(send(std::string("#") + kTopicId, "id"), 202u);
  const ConnRef conn = ask(body_of("#general", ""));
  EXPECT_EQ(status(conn), 0u);
  later(4'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 503u);
}

TEST_F(DaemonTargets, a_broker_that_comes_in_time_is_asked_for_the_topic) {
  start();
  const ConnRef conn = ask(body_of("#general", ""));
  link_up();
  topics(sent("topic_list"), kGeneral);
  EXPECT_EQ(status(conn), 202u);
}

TEST_F(DaemonTargets, a_post_to_a_topic_is_a_send) {
  start();
  connect({});
  const ConnRef conn =
      http("POST", "/v1/topic/post", {},
           R"({"topic":"general","message":"@bob look","mentions":["bob"],"priority":"low",)"
           R"("client_message_id":"p1"})");
  topics(sent("topic_list"), kGeneral);
  EXPECT_EQ(status(conn), 202u);
  EXPECT_EQ(field(reply_, "client_message_id"), "p1");
  EXPECT_EQ(field(sent("send"), "targetSpec"), std::string("#") + kTopicId);
  EXPECT_EQ(field(sent("send"), "priority"), "low");
  EXPECT_EQ(send("#general", "p1", "@bob look", R"(,"priority":"low")"), 202u)
      << "the same request in other words";
}

TEST_F(DaemonTargets, a_size_is_that_of_the_frame_also_in_plain) {
  start();
  connect({});
  later(2'000);
  EXPECT_EQ(send("*", "id", std::string(60'000, 'x')), 413u);
  EXPECT_TRUE(has(reply_, "'message'")) << reply_;
  EXPECT_FALSE(row("id"));
}

// --- which mesh ------------------------------------------------------------------------------

TEST_F(DaemonTargets, a_peer_that_one_mesh_knows_is_found_there) {
  start(2);
  connect({peer(bob_, "bob")}, 0);
  connect({peer(eve_, "eve")}, 1);
  const struct {
    std::string to, mesh;
  } rows[] = {{"bob", "crew"},
              {"EVE", "other"},
              {bob_.hex, "crew"},
              {eve_.hex, "other"},
              {eve_.hex.substr(0, 16), "other"}};
  for (const auto& each : rows) {
    EXPECT_EQ(send(each.to, ""), 202u) << each.to << reply_;
    EXPECT_EQ(field(reply_, "mesh"), each.mesh) << each.to;
  }
}

TEST_F(DaemonTargets, a_session_key_leads_to_the_mesh_of_its_member) {
  start(2);
  const Member session = Member::make();
  connect({peer(bob_, "bob", session.hex)}, 1);
  connect({}, 0);
  EXPECT_EQ(send(session.hex, ""), 202u) << reply_;
  EXPECT_EQ(field(reply_, "mesh"), "other");
}

TEST_F(DaemonTargets, a_peer_of_two_meshes_is_refused_with_both) {
  start(2);
  connect({peer(bob_, "Bob")}, 0);
  connect({peer(eve_, "bob")}, 1);
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(field(reply_, "error"), "ambiguous_mesh");
  EXPECT_TRUE(has(reply_, R"({"mesh":"crew","name":"bob","memberPubkey":")" + bob_.hex)) << reply_;
  EXPECT_TRUE(has(reply_, R"({"mesh":"other","name":"bob","memberPubkey":")" + eve_.hex));
  EXPECT_FALSE(row("id"));
  EXPECT_EQ(send("bob", "id", "hi", R"(,"mesh":"other")"), 202u);
  EXPECT_EQ(send("bob", "id"), 202u) << "the id is known, whatever the mesh";
}

TEST_F(DaemonTargets, nobody_is_unknown_before_every_mesh_was_asked_once_more) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  const ConnRef conn = ask(body_of("carol", ""));
  const std::string first = field(sent_to("list_peers", 0), "_reqId");
  const std::string second = field(sent_to("list_peers", 1), "_reqId");
  EXPECT_EQ(status(conn), 0u);
  list(first, {}, 0);
  EXPECT_EQ(status(conn), 0u) << "the other mesh has not answered";
  list(second, {}, 1);
  EXPECT_EQ(status(conn), 400u);
  EXPECT_EQ(field(reply_, "error"), "mesh_required");
  EXPECT_TRUE(has(reply_, R"("attached":["crew","other"])"));
}

TEST_F(DaemonTargets, a_peer_that_comes_with_the_asked_list_is_found) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  const ConnRef conn = ask(body_of("bob", ""));
  const std::string first = field(sent_to("list_peers", 0), "_reqId");
  const std::string second = field(sent_to("list_peers", 1), "_reqId");
  list(first, {}, 0);
  list(second, {peer(bob_, "bob")}, 1);
  EXPECT_EQ(status(conn), 202u);
  EXPECT_EQ(field(reply_, "mesh"), "other");
}

TEST_F(DaemonTargets, a_list_on_its_way_is_waited_for_but_not_for_ever) {
  start(2);
  connect({peer(bob_, "bob")}, 0);
  link_up(1);  // its list was asked for and does not come
  const ConnRef conn = ask(body_of("bob", ""));
  EXPECT_EQ(status(conn), 0u);
  later(5'000);
  EXPECT_EQ(status(conn), 202u) << "the one mesh that is known to know it";
  EXPECT_EQ(field(reply_, "mesh"), "crew");
}

TEST_F(DaemonTargets, peers_of_the_last_thirty_days_are_found_while_all_are_away) {
  start(2);
  connect({peer(bob_, "bob")}, 0);
  connect({}, 1);
  link_down(0);
  link_down(1);
  EXPECT_EQ(send("bob", ""), 202u) << reply_;
  EXPECT_EQ(field(reply_, "mesh"), "crew");
  EXPECT_EQ(send(bob_.hex, ""), 202u);
}

TEST_F(DaemonTargets, groups_of_several_meshes_need_one) {
  start(2);
  for (const char* target : {"*", "@all", "@ops", "#general"}) {
    EXPECT_EQ(send(target, ""), 400u) << target;
    EXPECT_EQ(field(reply_, "error"), "mesh_required") << target;
  }
  EXPECT_EQ(send("*", "", "hi", R"(,"mesh":"other")"), 202u);
}

TEST_F(DaemonTargets, a_topic_without_a_mesh_waits_for_the_lists_of_all) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  ConnRef conn = http("GET", "/v1/topic/list", "mesh=other");
  topics(sent("topic_list"), kGeneral, 1);
  EXPECT_EQ(status(conn), 200u);
  conn = ask(body_of("#general", "id"));
  EXPECT_EQ(status(conn), 0u) << "the other mesh may have one too";
  EXPECT_TRUE(sent_to("topic_list", 1).empty()) << "known";
  topics(sent_to("topic_list", 0), kGeneral, 0);
  EXPECT_EQ(status(conn), 409u);
  EXPECT_EQ(field(reply_, "error"), "ambiguous_mesh");
  EXPECT_FALSE(row("id"));
}

TEST_F(DaemonTargets, a_topic_that_one_of_all_lists_has_is_found_there) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  const ConnRef conn = ask(body_of("#general", "id"));
  const std::string first = sent_to("topic_list", 0);
  const std::string second = sent_to("topic_list", 1);
  topics(second, kGeneral, 1);
  EXPECT_EQ(status(conn), 0u);
  topics(first, "[]", 0);
  EXPECT_EQ(status(conn), 202u);
  EXPECT_EQ(field(reply_, "mesh"), "other");
}

TEST_F(DaemonTargets, a_topic_without_a_mesh_needs_one_while_a_list_is_missing) {
  start(2);
  connect({}, 1);
  const ConnRef conn = ask(body_of("#general", "id"));
  topics(sent_to("topic_list", 1), kGeneral, 1);
  EXPECT_EQ(status(conn), 400u) << "the broker of the other mesh cannot be asked";
  EXPECT_EQ(field(reply_, "error"), "mesh_required");
  connect({}, 0);
  const ConnRef silent = ask(body_of("#general", "id"));
  EXPECT_EQ(status(silent), 0u);
  later(5'000);
  EXPECT_EQ(status(silent), 400u);
  EXPECT_FALSE(row("id"));
}

TEST_F(DaemonTargets, a_mesh_that_connects_in_time_is_asked_for_its_topics) {
  start(2);
  connect({}, 1);
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  const ConnRef conn = ask(body_of("#general", "id"));
  topics(sent_to("topic_list", 1), kGeneral, 1);
  EXPECT_EQ(status(conn), 0u);
  hello_ack(0);
  topics(sent_to("topic_list", 0), "[]", 0);
  EXPECT_EQ(status(conn), 202u);
}

TEST_F(DaemonTargets, an_answer_without_a_list_says_nothing_of_the_topics) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  const ConnRef conn = ask(body_of("#general", "id"));
  const std::string first = sent_to("topic_list", 0);
  topics(sent_to("topic_list", 1), kGeneral, 1);
  answer(first, "topic_list_response", R"("topics":7)", 0);
  EXPECT_EQ(status(conn), 0u);
  later(5'000);
  EXPECT_EQ(status(conn), 400u);
}

TEST_F(DaemonTargets, a_refused_list_of_topics_is_asked_for_again) {
  start();
  connect({});
  const ConnRef first = ask(body_of("#general", "id"));
  answer(sent("topic_list"), "error", R"("code":"rate_limit","message":"slow down")");
  EXPECT_EQ(status(first), 0u);
  const ConnRef second = ask(body_of("#general", "id-2"));
  topics(sent("topic_list"), kGeneral);
  EXPECT_EQ(status(first), 202u);
  EXPECT_EQ(status(second), 202u);
}

TEST_F(DaemonTargets, a_list_of_topics_that_was_lost_is_asked_for_again_after_five_seconds) {
  start();
  connect({});
  const ConnRef first = ask(body_of("#general", "id"));
  const std::string lost = sent("topic_list");
  ask(body_of("#general", "id-1"));
  EXPECT_TRUE(sent("topic_list").empty()) << "one is on its way";
  later(5'000);
  EXPECT_EQ(status(first), 503u);
  const ConnRef second = ask(body_of("#general", "id-2"));
  topics(sent("topic_list"), kGeneral);
  EXPECT_EQ(status(second), 202u);
}

}  // namespace
}  // namespace cm::daemon
