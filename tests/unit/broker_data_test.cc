// broker_data_test.cc — what a mesh shares: state, memory, skills, profiles; negotiation.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    messages (broker_test.cc, broker_route_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

TEST_F(BrokerTest, state_is_set_told_read_and_listed_in_both_forms) {
  found(2);
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  text(one, R"({"type":"set_state","key":"build","value":{"n":1.50,"ok":[true,null]}})");
  EXPECT_TRUE(frames(one).empty()) << "as existing brokers";
  const std::string change = frames(two, "state_change").at(0);
  EXPECT_TRUE(has(change, R"("value":{"n":1.50,"ok":[true,null]},"updatedBy":"m0")")) << change;
  text(two, R"({"type":"get_state","key":"build","_reqId":"g"})");
  const std::string result = frames(two, "state_result").at(0);
  EXPECT_TRUE(has(result, R"("value":{"n":1.50,)")) << result;
  EXPECT_EQ(field(result, "_reqId"), "g");
  EXPECT_TRUE(has(frames(two, "state_value").at(0), R"("state":{"key":"build")"));
  text(two, R"({"type":"get_state","key":"none","_reqId":"g"})");
  EXPECT_TRUE(has(frames(two, "state_result").at(0), R"("value":null,"updatedBy":"")"));
  EXPECT_TRUE(has(frames(two, "state_value").at(0), R"("state":null)"));
  EXPECT_EQ(
      field(ask(one, R"({"type":"set_state","key":"a","value":9007199254740993,"_reqId":"1"})",
                "ack"),
            "_reqId"),
      "1");
  const std::string list = ask(two, R"({"type":"list_state"})", "state_list");
  EXPECT_LT(list.find("\"key\":\"a\""), list.find("\"key\":\"build\""));
  EXPECT_TRUE(has(list, "9007199254740993"));
  start();
  const ConnRef again = connect(members_[0], {}, "later");
  EXPECT_TRUE(has(ask(again, R"({"type":"get_state","key":"build"})", "state_result"), "1.50"));
}

TEST_F(BrokerTest, numbers_of_shared_state_keep_their_digits) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  for (const char* value : {"0.1", "1e400", "-0.0", "123456789012345678901234567890", "1.0E-7"}) {
    text(conn, R"({"type":"set_state","key":"n","value":[)" + std::string(value) + "]}");
    const std::string in_list = ask(conn, R"({"type":"get_state","key":"n"})", "state_result");
    if (std::string_view(value) == "1e400") continue;  // refused: no double holds it
    EXPECT_TRUE(has(in_list, "[" + std::string(value) + "]")) << in_list;
    text(conn, R"({"type":"set_state","key":"n","value":)" + std::string(value) + "}");
    const std::string bare = ask(conn, R"({"type":"get_state","key":"n"})", "state_result");
    EXPECT_TRUE(has(bare, "\"value\":" + std::string(value) + ",")) << bare;
  }
}

TEST_F(BrokerTest, state_has_bounds_and_refuses_bad_fields_by_name) {
  parts_.limits.state_keys_max = 1;
  found(1);
  const ConnRef conn = connect(members_[0]);
  const auto refusal = [&](const std::string& frame) {
    text(conn, frame);
    EXPECT_EQ(frames(conn).size(), 1u) << frame;
    return first(conn);
  };
  EXPECT_TRUE(has(refusal(R"({"type":"set_state","value":1})"), "'key'"));
  EXPECT_TRUE(has(refusal(R"({"type":"set_state","key":"k"})"), "'value'"));
  EXPECT_TRUE(has(refusal(R"({"type":"set_state","key":7,"value":1})"), "'key'"));
  EXPECT_TRUE(has(refusal(R"({"type":"set_state","key":"","value":1})"), "'key'"));
  EXPECT_TRUE(has(refusal(R"({"type":"get_state"})"), "'key'"));
  const std::string big(65'600, 'x');
  EXPECT_EQ(field(refusal(R"({"type":"set_state","key":"k","value":")" + big + "\"}"), "code"),
            "payload_too_large");
  text(conn, R"({"type":"set_state","key":"k","value":1})");
  EXPECT_EQ(field(refusal(R"({"type":"set_state","key":"l","value":1})"), "code"), "full");
  text(conn, R"({"type":"set_state","key":"k","value":2})");
  EXPECT_TRUE(frames(conn).empty()) << "changing one is no new key";
}

TEST_F(BrokerTest, memories_are_found_by_their_stems_in_their_mesh_only) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string stored = ask(
      conn,
      R"({"type":"remember","content":"Deploying runs on Fridays","tags":["ops"],"_reqId":"1"})",
      "memory_stored");
  const std::string id = field(stored, "id");
  EXPECT_EQ(field(stored, "memoryId"), id);
  ask(conn, R"({"type":"remember","content":"the cat sleeps"})", "memory_stored");
  const auto recall = [&](const std::string& query) {
    return ask(conn, R"({"type":"recall","query":")" + query + "\"}", "memory_results");
  };
  EXPECT_TRUE(has(recall("deploy friday"), id));
  EXPECT_TRUE(has(recall("OPS"), id)) << "tags count";
  EXPECT_FALSE(has(recall("deploy cat"), id)) << "every term must match";
  EXPECT_TRUE(has(recall("\\\" OR * NEAR( -deploy"), "\"memories\":[]")) << "no query syntax";
  EXPECT_TRUE(has(recall(""), "\"memories\":[]"));
  EXPECT_TRUE(has(frames(conn, "memory_recall_result").at(0), "\"matches\":[]"));
  start();
  const ConnRef again = connect(members_[0], {}, "x");
  EXPECT_TRUE(has(ask(again, R"({"type":"recall","query":"deploys"})", "memory_results"), id));
  const std::string gone = ask(again, R"({"type":"forget","memoryId":")" + id + "\"}", "ack");
  EXPECT_EQ(field(gone, "messageId"), id);
  EXPECT_FALSE(has(ask(again, R"({"type":"recall","query":"deploys"})", "memory_results"), id));
}

TEST_F(BrokerTest, forgetting_a_memory_that_is_not_there_is_acked_as_not_found) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string id =
      field(ask(conn, R"({"type":"remember","content":"kept"})", "memory_stored"), "id");
  const std::string part = id.substr(0, 8);
  const std::string missed =
      ask(conn, R"({"type":"forget","memoryId":")" + part + R"(","_reqId":"1"})", "ack");
  EXPECT_EQ(field(missed, "id"), part);
  EXPECT_EQ(field(missed, "code"), "not_found");
  EXPECT_FALSE(field(missed, "error").empty());
  EXPECT_EQ(parts_.count(TableId::kMemory), 1u) << "an id's beginning names nothing";
}

TEST_F(BrokerTest, an_abandoned_iteration_leaves_no_memory_in_the_index) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  ask(conn, R"({"type":"recall","query":"x"})", "memory_results");
  parts_.commit_fails = true;
  text(conn, R"({"type":"remember","content":"phantom"})");
  parts_.commit_fails = false;
  run();
  const ConnRef again = connect(members_[0], {}, "again");
  EXPECT_FALSE(
      has(ask(again, R"({"type":"recall","query":"phantom"})", "memory_results"), "phantom"));
}

TEST_F(BrokerTest, skills_are_shared_replaced_listed_and_removed) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string share = R"({"type":"share_skill","name":"review","description":"Reads diffs",)"
                            R"("instructions":"1","tags":["git"]})";
  EXPECT_EQ(field(ask(conn, share, "skill_ack"), "action"), "shared");
  ask(conn, R"({"type":"share_skill","name":"review","description":"d2","instructions":"2"})",
      "skill_ack");
  EXPECT_EQ(parts_.count(TableId::kSkill), 1u);
  EXPECT_TRUE(has(ask(conn, R"({"type":"get_skill","name":"review"})", "skill_data"),
                  "\"instructions\":\"2\""));
  EXPECT_TRUE(has(ask(conn, R"({"type":"list_skills","query":"REV"})", "skill_list"), "review"));
  EXPECT_FALSE(has(ask(conn, R"({"type":"list_skills","query":"zzz"})", "skill_list"), "review"));
  EXPECT_EQ(field(ask(conn, R"({"type":"remove_skill","name":"review"})", "skill_ack"), "action"),
            "removed");
  EXPECT_EQ(field(ask(conn, R"({"type":"remove_skill","name":"review"})", "skill_ack"), "action"),
            "not_found");
  EXPECT_TRUE(
      has(ask(conn, R"({"type":"get_skill","name":"review"})", "skill_data"), "\"skill\":null"));
}

TEST_F(BrokerTest, a_profile_is_merged_shown_and_given_back_after_the_lease) {
  found(2);
  const ConnRef conn = connect(members_[0]);
  const ConnRef watcher = connect(members_[1]);
  text(conn, R"({"type":"set_profile","title":"Lead","capabilities":["cpp"]})");
  text(conn, R"({"type":"set_profile","bio":"writes"})");
  text(conn, R"({"type":"set_summary","summary":"reading logs"})");
  text(conn, R"({"type":"set_stats","stats":{"messagesIn":3,"uptime":9}})");
  text(conn, R"({"type":"join_group","name":"ops"})");
  const std::string list = ask(watcher, R"({"type":"list_peers"})", "peers_list");
  for (const char* part :
       {"\"title\":\"Lead\"", "\"bio\":\"writes\"", "\"capabilities\":[\"cpp\"]",
        "\"summary\":\"reading logs\"", "\"messagesIn\":3", "\"groups\":[{\"name\":\"ops\"}]"}) {
    EXPECT_TRUE(has(list, part)) << part << " in " << list;
  }
  core_->on_closed(conn);
  run();
  later(90'001);
  const ConnRef back = open();
  text(back, write(members_[0], hello_of(members_[0])));
  const std::string ack = first(back);
  EXPECT_EQ(field(ack, "restored"), "true") << ack;
  EXPECT_EQ(field(ack, "lastSummary"), "reading logs");
  EXPECT_TRUE(has(ack, R"("restoredGroups":[{"name":"ops"}])"));
  EXPECT_TRUE(has(ack, R"("restoredStats":{"messagesIn":3)"));
  EXPECT_EQ(events(watcher, "peer_returned"), 1u);
  EXPECT_TRUE(has(ask(watcher, R"({"type":"list_peers"})", "peers_list"), "\"title\":\"Lead\""));
}

TEST_F(BrokerTest, features_are_told_with_their_parameters) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string reply =
      ask(conn,
          R"({"type":"feature_negotiation_request","optional":["max_payload"],)"
          R"("require":["client_message_id_dedupe","warp"]})",
          "feature_negotiation_response");
  EXPECT_EQ(field(reply, "dedupe_retention_days"), "365");
  EXPECT_EQ(field(reply, "inline_bytes"), "1048576");
  EXPECT_TRUE(has(reply, "\"missing_required\":[\"warp\"]")) << reply;
}

TEST_F(BrokerTest, of_two_daemons_of_one_member_that_know_the_policy_the_newer_stays) {
  found(1);
  const std::string ask_for =
      R"({"type":"feature_negotiation_request","require":["concurrent_connection_policy"]})";
  const ConnRef older = connect(members_[0], {}, "daemon-1");
  const ConnRef unaware = connect(members_[0], {}, "daemon-0");
  const ConnRef cli = connect(members_[0], Member::make().hex, "cli");
  text(cli, ask_for);
  text(older, ask_for);
  EXPECT_EQ(closed(older), 0u);
  const ConnRef newer = connect(members_[0], {}, "daemon-2");
  EXPECT_EQ(closed(older), 0u) << "not before it says that it knows the policy";
  text(newer, ask_for);
  EXPECT_EQ(closed(older), 4003u);
  EXPECT_EQ(closed(unaware), 0u);
  EXPECT_EQ(closed(cli), 0u);
  EXPECT_EQ(closed(newer), 0u);
}

TEST_F(BrokerTest, a_mesh_chooses_which_of_two_daemons_stays) {
  found(2);
  const std::string ask_for =
      R"({"type":"feature_negotiation_request","require":["concurrent_connection_policy"]})";
  const std::string settings = "/mesh/" + mesh_ + "/settings";
  const auto choose = [&](const std::string& policy) {
    return signed_http(members_[0], "PATCH", settings,
                       R"({"cloneConcurrencyPolicy":")" + policy + "\"}");
  };
  const struct {
    const char* policy;
    std::uint32_t older, newer;
  } rows[] = {{"prefer_oldest", 0, 4004}, {"allow_concurrent", 0, 0}, {"prefer_newest", 4003, 0}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.policy);
    EXPECT_EQ(field(choose(row.policy), "cloneConcurrencyPolicy"), row.policy);
    start();  // it is kept
    const ConnRef older = connect(members_[0], {}, "daemon-1");
    const std::string told = ask(older, ask_for, "feature_negotiation_response");
    EXPECT_EQ(field(told, "default_policy"), row.policy);
    const ConnRef newer = connect(members_[0], {}, "daemon-2");
    text(newer, ask_for);
    EXPECT_EQ(closed(older), row.older);
    EXPECT_EQ(closed(newer), row.newer);
  }
  signed_http(members_[1], "PATCH", settings, R"({"cloneConcurrencyPolicy":"prefer_oldest"})");
  EXPECT_EQ(status_, 403u);
  for (const char* bad :
       {R"({"cloneConcurrencyPolicy":"oldest"})", "{}", R"({"cloneConcurrencyPolicy":1})",
        R"({"cloneConcurrencyPolicy":"prefer_oldest","selfEditable":1})"}) {
    signed_http(members_[0], "PATCH", settings, bad);
    EXPECT_EQ(status_, 400u) << bad;
  }
  EXPECT_EQ(field(signed_http(members_[0], "PATCH", settings,
                              R"({"selfEditable":{"displayName":false}})"),
                  "cloneConcurrencyPolicy"),
            "prefer_newest")
      << "what was refused changed nothing";
}

// With two older ones of which one knows the policy, and asked the other way round.
TEST_F(BrokerTest, where_the_oldest_stays_it_stays_whoever_asks_first) {
  found(1);
  signed_http(members_[0], "PATCH", "/mesh/" + mesh_ + "/settings",
              R"({"cloneConcurrencyPolicy":"prefer_oldest"})");
  const std::string ask_for =
      R"({"type":"feature_negotiation_request","require":["concurrent_connection_policy"]})";
  const ConnRef older = connect(members_[0], {}, "daemon-1");
  const ConnRef newer = connect(members_[0], {}, "daemon-2");
  const ConnRef cli = connect(members_[0], Member::make().hex, "cli");
  text(cli, ask_for);
  text(newer, ask_for);
  EXPECT_EQ(closed(newer), 0u) << "alone in knowing it";
  text(older, ask_for);
  EXPECT_EQ(closed(newer), 4004u);
  EXPECT_EQ(closed(older), 0u);
  EXPECT_EQ(closed(cli), 0u);
}

TEST_F(BrokerTest, who_knows_the_policy_and_came_first_is_not_forgotten_with_a_failed_commit) {
  found(2);
  const std::string ask_for =
      R"({"type":"feature_negotiation_request","require":["concurrent_connection_policy"]})";
  const ConnRef other = connect(members_[1]);
  const ConnRef gap = connect(members_[0], Member::make().hex, "cli");
  const ConnRef older = connect(members_[0], {}, "daemon-1");
  core_->on_closed(gap);  // its place in the table of connections is taken by who comes next
  const ConnRef newer = connect(members_[0], {}, "daemon-2");
  text(newer, ask_for);
  parts_.commit_fails = true;
  text(other, R"({"type":"set_state","key":"k","value":1})");
  parts_.commit_fails = false;
  EXPECT_EQ(closed(other), 1011u);
  text(older, ask_for);
  EXPECT_EQ(closed(older), 4003u);
  EXPECT_EQ(closed(newer), 0u);
}

TEST_F(BrokerTest, a_second_control_plane_of_a_member_is_audited_under_every_policy) {
  found(2);
  const auto lines = [&] {
    std::size_t found = 0;
    for (std::size_t at = 0;
         (at = parts_.logged.find("member_concurrent_connection", at)) != std::string::npos; ++at) {
      ++found;
    }
    return found;
  };
  connect(members_[0], {}, "daemon-1");
  connect(members_[0], Member::make().hex, "cli");
  connect(members_[0], {}, "daemon-1");
  connect(members_[1], {}, "daemon-1");
  EXPECT_EQ(lines(), 0u) << "a command, a reconnection and another member are none";
  connect(members_[0], {}, "daemon-2");
  EXPECT_EQ(lines(), 1u) << "it need not negotiate for that";
  EXPECT_TRUE(has(parts_.logged, "\"policy\":\"prefer_newest\""));
  signed_http(members_[0], "PATCH", "/mesh/" + mesh_ + "/settings",
              R"({"cloneConcurrencyPolicy":"allow_concurrent"})");
  connect(members_[0], {}, "daemon-3");
  EXPECT_EQ(lines(), 2u);
}

// Every verb, every field of a wrong type, too long, or with characters that hide: an error that
// names the field, and nothing stored.
TEST_F(BrokerTest, bad_fields_of_every_verb_are_named_and_change_nothing) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string long_text(70'000, 'x');
  const struct {
    std::string frame;
    const char* field;
  } cases[] = {
      {R"({"type":"set_status"})", "status"},
      {R"({"type":"set_status","status":7})", "status"},
      {R"({"type":"set_summary","summary":["x"]})", "summary"},
      {R"({"type":"set_summary","summary":")" + long_text + "\"}", "summary"},
      {R"({"type":"set_visible"})", "visible"},
      {R"({"type":"set_visible","visible":"yes"})", "visible"},
      {R"({"type":"set_profile","title":1})", "title"},
      {R"({"type":"set_profile","capabilities":["a",1]})", "capabilities"},
      {R"({"type":"set_stats"})", "stats"},
      {R"({"type":"set_stats","stats":{"messagesIn":-1}})", "messagesIn"},
      {R"({"type":"join_group"})", "name"},
      {R"({"type":"join_group","name":"../x"})", "name"},
      {R"({"type":"leave_group","name":null})", "name"},
      {R"({"type":"topic_create"})", "name"},
      {R"({"type":"topic_create","name":"a b"})", "name"},
      {R"({"type":"topic_create","name":"a","visibility":"secret"})", "visibility"},
      {R"({"type":"topic_join"})", "topic"},
      {R"({"type":"topic_join","topic":"a","role":"king"})", "role"},
      {R"({"type":"topic_history","topic":"a","limit":0})", "limit"},
      {R"({"type":"topic_history","topic":"a","beforeId":"x"})", "beforeId"},
      {R"({"type":"remember"})", "content"},
      {R"({"type":"remember","content":""})", "content"},
      {R"({"type":"remember","content":"a","tags":"b"})", "tags"},
      {R"({"type":"remember","content":"a","tags":[""]})", "tags"},
      {R"({"type":"recall","query":5})", "query"},
      {R"({"type":"forget"})", "memoryId"},
      {R"({"type":"forget","memoryId":"../.."})", "memoryId"},
      {R"({"type":"share_skill","description":"d","instructions":"i"})", "name"},
      {R"({"type":"share_skill","name":"n","instructions":"i"})", "description"},
      {R"({"type":"share_skill","name":"n","description":"d"})", "instructions"},
      {R"({"type":"get_skill"})", "name"},
      {R"({"type":"remove_skill","name":{}})", "name"},
      {R"({"type":"list_skills","query":[]})", "query"},
      {R"({"type":"message_status"})", "messageId"},
      {R"({"type":"feature_negotiation_request","require":"x"})", "require"},
      {R"({"type":"client_ack"})", "brokerMessageId"},
  };
  for (const auto& bad : cases) {
    text(conn, bad.frame);
    ASSERT_EQ(frames(conn).size(), 1u) << bad.frame.substr(0, 100);
    EXPECT_EQ(field(first(conn), "type"), "error");
    EXPECT_TRUE(has(first(conn), "'" + std::string(bad.field) + "'"))
        << bad.frame.substr(0, 100) << " -> " << first(conn);
  }
  EXPECT_EQ(parts_.count(TableId::kTopic), 1u) << "the one that every mesh begins with";
  for (const TableId table : {TableId::kMemory, TableId::kSkill}) {
    EXPECT_EQ(parts_.count(table), 0u);
  }
}

}  // namespace
}  // namespace cm::broker
