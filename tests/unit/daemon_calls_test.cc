// daemon_calls_test.cc — requests that are passed on to brokers: answers in every known shape,
//                        silence, errors, loss, several meshes at once.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

// A broker that does not know the question about features.
constexpr std::uint64_t kLegacyMs = 2'000;

class DaemonCalls : public DaemonTest {
 protected:
  void up(std::size_t meshes = 1) {
    start(meshes);
    for (std::size_t mesh = 0; mesh < meshes; ++mesh) connect({}, mesh);
  }
  void agree(std::size_t mesh = 0) {
    frame(R"({"type":"feature_negotiation_response","supported":{)"
          R"("client_message_id_dedupe":{"params":{"version":1,"mode":"permanent",)"
          R"("request_fingerprint":true}},)"
          R"("concurrent_connection_policy":{"params":{"version":1}}},"missing_required":[]})",
          mesh);
  }
};

TEST_F(DaemonCalls, both_shapes_of_an_answer_are_understood) {
  const struct {
    const char *method, *path, *query, *body;
    const char *request, *type, *members;
    const char* expected;
  } rows[] = {
      {"GET", "/v1/state", "key=k", "", "get_state", "state_result",
       R"("key":"k","value":{"a":1.50},"updatedBy":"bob","updatedAt":"2026-01-02T03:04:05.000Z")",
       R"({"state":{"key":"k","value":{"a":1.50},"updatedBy":"bob",)"
       R"("updatedAt":"2026-01-02T03:04:05.000Z","mesh":"crew"}})"},
      {"GET", "/v1/state", "key=k", "", "get_state", "state_value",
       R"("state":{"key":"k","value":3.1400,"updatedBy":"bob",)"
       R"("updatedAt":"2026-01-02T03:04:05.000Z"})",
       R"({"state":{"key":"k","value":3.1400,"updatedBy":"bob",)"
       R"("updatedAt":"2026-01-02T03:04:05.000Z","mesh":"crew"}})"},
      {"GET", "/v1/state", "key=k", "", "get_state", "state_data",
       R"("row":{"key":"k","value":"v","updatedBy":"bob","updatedAt":"2026-01-02T03:04:05.000Z"})",
       R"({"state":{"key":"k","value":"v","updatedBy":"bob",)"
       R"("updatedAt":"2026-01-02T03:04:05.000Z","mesh":"crew"}})"},
      {"GET", "/v1/state", "", "", "list_state", "state_list",
       R"("entries":[{"key":"k","value":[1, 2]},{}])",
       R"({"entries":[{"key":"k","value":[1, 2],"mesh":"crew"},{"mesh":"crew"}]})"},
      {"POST", "/v1/memory", "", R"({"content":"c","tags":["t"]})", "remember", "memory_stored",
       R"("id":"m1")", R"({"ok":true,"id":"m1","mesh":"crew","confirmed":true})"},
      {"POST", "/v1/memory", "", R"({"content":"c"})", "remember", "memory_stored",
       R"("memoryId":"m2")", R"({"ok":true,"id":"m2","mesh":"crew","confirmed":true})"},
      {"GET", "/v1/memory", "q=c", "", "recall", "memory_results", R"("memories":[{"id":"m1"}])",
       R"({"matches":[{"id":"m1","mesh":"crew"}]})"},
      {"GET", "/v1/memory", "", "", "recall", "memory_recall_result", R"("matches":[{"id":"m1"}])",
       R"({"matches":[{"id":"m1","mesh":"crew"}]})"},
      {"DELETE", "/v1/memory/m1", "", "", "forget", "ack", R"("id":"m1","queued":false)",
       R"({"ok":true,"id":"m1","mesh":"crew","confirmed":true})"},
      {"GET", "/v1/skills", "query=x", "", "list_skills", "skill_list",
       R"("skills":[{"name":"s"}])", R"({"skills":[{"name":"s","mesh":"crew"}]})"},
      {"GET", "/v1/skills/a%20b", "", "", "get_skill", "skill_data",
       R"("skill":{"name":"a b","manifest":null})",
       R"({"skill":{"name":"a b","manifest":null,"mesh":"crew"}})"},
      {"POST", "/v1/state", "", R"({"key":"k","value":{"b":[1.10]}})", "set_state", "ack",
       R"("id":"","queued":false)", R"({"ok":true,"key":"k","mesh":"crew","confirmed":true})"},
      {"GET", "/v1/topic/list", "", "", "topic_list", "topic_list_response",
       R"("topics":[{"id":"t1","name":"general"}])",
       R"({"topics":[{"id":"t1","name":"general","mesh":"crew"}]})"},
      {"GET", "/v1/topic/members", "topic=%23general", "", "topic_members",
       "topic_members_response", R"("topic":"general","members":[{"pubkey":"p"}])",
       R"({"topic":"general","members":[{"pubkey":"p","mesh":"crew"}]})"},
      {"GET", "/v1/topic/history", "topic=general&limit=2&before=b1", "", "topic_history",
       "topic_history_response",
       R"("messages":[{"id":"x","ciphertext":"aGk=","bodyVersion":1},{"id":"y",)"
       R"("ciphertext":"aGk=","bodyVersion":2}])",
       R"({"topic":"general","messages":[{"id":"x","ciphertext":"aGk=","bodyVersion":1,)"
       R"("mesh":"crew","body":"hi"},{"id":"y","ciphertext":"aGk=","bodyVersion":2,)"
       R"("mesh":"crew"}]})"},
      {"POST", "/v1/topic/create", "", R"({"name":"#general"})", "topic_create", "topic_created",
       R"("topic":{"id":"t1","name":"general"},"created":true)",
       R"({"topic":{"id":"t1","name":"general","mesh":"crew"},"created":true})"},
      {"POST", "/v1/topic/subscribe", "", R"({"topic":"general"})", "topic_join", "ack", "",
       R"({"ok":true,"topic":"general","mesh":"crew","confirmed":true})"},
      {"POST", "/v1/topic/unsubscribe", "", R"({"topic":"general"})", "topic_leave", "ack", "",
       R"({"ok":true,"topic":"general","mesh":"crew","confirmed":true})"},
      {"POST", "/v1/topic/read", "", R"({"topic":"general"})", "topic_mark_read", "ack", "",
       R"({"ok":true,"topic":"general","mesh":"crew","confirmed":true})"},
      {"POST", "/v1/group/join", "", R"({"name":"@ops","role":"lead"})", "join_group", "ack", "",
       R"({"ok":true,"name":"ops","mesh":"crew","confirmed":true})"},
      {"POST", "/v1/group/leave", "", R"({"name":"ops"})", "leave_group", "ack", "",
       R"({"ok":true,"name":"ops","mesh":"crew","confirmed":true})"},
      {"GET", "/v1/message/status", "id=abcdefgh12", "", "message_status", "message_status_result",
       R"("messageId":"abcdefgh12","targetSpec":"*","delivered":false,"deliveredAt":null,)"
       R"("recipients":[{"status":"held"}])",
       R"({"id":"abcdefgh12","message":{"messageId":"abcdefgh12","targetSpec":"*",)"
       R"("delivered":false,"deliveredAt":null,"recipients":[{"status":"held","chain":[]}],)"
       R"("mesh":"crew"}})"},
  };
  up();
  for (const auto& row : rows) {
    SCOPED_TRACE(std::string(row.path) + " " + row.type);
    const ConnRef conn = http(row.method, row.path, row.query, row.body);
    EXPECT_EQ(status(conn), 0u) << reply_;
    answer(sent(row.request), row.type, row.members);
    EXPECT_EQ(status(conn), 200u);
    EXPECT_EQ(reply_, row.expected);
  }
}

TEST_F(DaemonCalls, a_full_broker_is_not_mistaken_for_a_full_daemon) {
  up();
  const ConnRef conn = http("POST", "/v1/memory", {}, R"({"content":"c"})");
  frame(
      R"({"type":"error","code":"insufficient_storage","message":"the store is full","_reqId":")" +
      field(sent("remember"), "_reqId") + "\"}");
  EXPECT_EQ(status(conn), 507u);
  EXPECT_EQ(field(reply_, "error"), "broker_full");
  EXPECT_TRUE(has(reply_, "ask its operator to raise store_bound_bytes")) << reply_;
}

TEST_F(DaemonCalls, requests_carry_what_was_asked_with_fractions_as_they_were) {
  up();
  http("POST", "/v1/state", {}, R"({"key":"k","value":{"n":[1.10,1e3]}})");
  EXPECT_TRUE(has(sent("set_state"), R"("key":"k","value":{"n":[1.10,1e3]})"));
  http("POST", "/v1/state", {}, R"({"key":"k","value":0.10})");
  EXPECT_TRUE(has(sent("set_state"), R"("value":0.10,)"));
  http("POST", "/v1/memory", {}, R"({"content":"c","tags":["a","b"]})");
  EXPECT_TRUE(has(sent("remember"), R"("content":"c","tags":["a","b"])"));
  http("GET", "/v1/topic/history", "topic=t&limit=7&before=abc");
  EXPECT_TRUE(has(sent("topic_history"), R"("topic":"t","limit":7,"beforeId":"abc")"));
  http("GET", "/v1/skills/a+b%2Fc");
  EXPECT_TRUE(has(sent("get_skill"), R"("name":"a+b/c")"));
}

TEST_F(DaemonCalls, a_profile_becomes_one_command_for_each_part) {
  up();
  const ConnRef conn = http(
      "POST", "/v1/profile", {},
      R"({"summary":"","status":"dnd","visible":false,"title":"t","capabilities":["x"],"z":1})");
  const std::string types[] = {"set_summary", "set_status", "set_visible", "set_profile"};
  std::vector<std::string> frames;
  for (const std::string& type : types) frames.push_back(sent(type));
  EXPECT_TRUE(has(frames[0], R"("summary":"")"));
  EXPECT_TRUE(has(frames[1], R"("status":"dnd")"));
  EXPECT_TRUE(has(frames[2], R"("visible":false)"));
  EXPECT_TRUE(has(frames[3], R"("title":"t","capabilities":["x"])"));
  EXPECT_FALSE(has(frames[3], "avatar"));
  for (const std::string& request : frames) answer(request, "ack", R"("queued":false)");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_EQ(reply_, R"({"ok":true,"applied":["summary","status","visible","title","capabilities"],)"
                    R"("meshes":["crew"],"confirmed":true})");
}

TEST_F(DaemonCalls, what_is_not_set_is_404) {
  up();
  const char* const nothing[][2] = {
      {"state_result", R"("key":"k","value":null,"updatedBy":"","updatedAt":"")"},
      {"state_value", R"("state":null)"}};
  for (const auto& row : nothing) {
    const ConnRef conn = http("GET", "/v1/state", "key=k");
    answer(sent("get_state"), row[0], row[1]);
    EXPECT_EQ(status(conn), 404u);
    EXPECT_EQ(reply_, R"({"error":"state_not_found","key":"k"})");
  }
  const ConnRef conn = http("GET", "/v1/skills/s");
  answer(sent("get_skill"), "skill_data", R"("skill":null)");
  EXPECT_EQ(status(conn), 404u);
  EXPECT_EQ(reply_, R"({"error":"skill_not_found","name":"s"})");
}

TEST_F(DaemonCalls, errors_of_a_broker_are_found_by_either_member_and_have_their_status) {
  up();
  const struct {
    const char *code, *member;
    std::uint32_t status;
  } rows[] = {{"topic_not_found", "id", 404},
              {"topic_not_found", "_reqId", 404},
              {"forbidden", "_reqId", 403},
              {"invalid_args", "id", 400},
              {"rate_limit", "_reqId", 429},
              {"unknown_message_type", "_reqId", 501},
              {"ambiguous_prefix", "_reqId", 409},
              {"query_error", "_reqId", 502},
              {"", "_reqId", 502}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.code);
    const ConnRef conn = http("GET", "/v1/topic/members", "topic=t");
    const std::string id = field(sent("topic_members"), "_reqId");
    frame(R"({"type":"error","code":")" + std::string(row.code) +
          R"(","message":"in its words",")" + row.member + R"(":")" + id + "\"}");
    EXPECT_EQ(status(conn), row.status);
    EXPECT_EQ(field(reply_, "error"), *row.code != '\0' ? row.code : "refused");
    EXPECT_EQ(field(reply_, "detail"), "in its words");
    EXPECT_EQ(field(reply_, "mesh"), "crew");
    EXPECT_FALSE(field(reply_, "remedy").empty());
  }
}

TEST_F(DaemonCalls, an_ack_can_refuse_a_command) {
  up();
  const ConnRef conn = http("POST", "/v1/topic/subscribe", {}, R"({"topic":"t"})");
  answer(sent("topic_join"), "ack",
         R"("messageId":"","queued":false,"error":"no","code":"forbidden")");
  EXPECT_EQ(status(conn), 403u);
}

TEST_F(DaemonCalls, a_memory_id_alone_answers_forget_as_the_reference_does) {
  up();
  const ConnRef conn = http("DELETE", "/v1/memory/m1");
  frame(R"({"type":"ack","id":"m2","messageId":"m2","queued":false})");
  EXPECT_EQ(status(conn), 0u) << "of another memory";
  frame(R"({"type":"ack","id":"m1","messageId":"m1","queued":false})");
  EXPECT_EQ(status(conn), 200u);
}

TEST_F(DaemonCalls, a_legacy_broker_that_says_nothing_to_a_command_has_accepted_it) {
  up();
  later(kLegacyMs);
  const ConnRef conn = http("POST", "/v1/state", {}, R"({"key":"k","value":1})");
  later(1'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 200u);
  EXPECT_EQ(reply_, R"({"ok":true,"key":"k","mesh":"crew","confirmed":false})");
}

TEST_F(DaemonCalls, it_is_first_found_out_whether_a_silent_broker_is_legacy) {
  up();
  later(kLegacyMs - 500);
  const ConnRef conn = http("POST", "/v1/group/join", {}, R"({"name":"g"})");
  later(500);
  later(1'500);
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("confirmed":false)"));
}

TEST_F(DaemonCalls, a_broker_that_negotiated_has_to_answer_commands) {
  up();
  agree();
  const ConnRef conn = http("POST", "/v1/state", {}, R"({"key":"k","value":1})");
  later(2'000);
  EXPECT_EQ(status(conn), 0u);
  later(2'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 504u);
  EXPECT_EQ(field(reply_, "error"), "timeout");
  EXPECT_TRUE(has(reply_, "within 5 s"));
}

TEST_F(DaemonCalls, a_question_without_an_answer_is_504_after_five_seconds) {
  up();
  later(kLegacyMs);
  const ConnRef conn = http("GET", "/v1/state", "key=k");
  const std::string request = sent("get_state");
  later(4'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 504u);
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonCallsTimedOut), 1u);
  answer(request, "state_result", R"("key":"k","value":1,"updatedAt":"x")");
  EXPECT_EQ(count(EffectKind::kHttpReply), 0u) << "too late";
}

TEST_F(DaemonCalls, a_lost_connection_answers_what_waits_for_it) {
  up();
  const ConnRef conn = http("GET", "/v1/memory", "q=x");
  link_down();
  EXPECT_EQ(status(conn), 503u);
  EXPECT_EQ(field(reply_, "error"), "broker_away");
  const ConnRef next = http("GET", "/v1/memory", "q=x");
  EXPECT_EQ(status(next), 0u) << "it is connecting again";
  link_down();
  EXPECT_EQ(status(next), 503u) << "it could not";
  EXPECT_EQ(status(http("GET", "/v1/memory", "q=x")), 503u) << "at once, while it is away";
}

TEST_F(DaemonCalls, requests_before_the_first_connection_wait_for_it_and_are_sent_in_order) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnecting, 0, {});  // the transport begins
  run();
  const ConnRef recall = http("GET", "/v1/memory", "q=x");
  const ConnRef join = http("POST", "/v1/group/join", {}, R"({"name":"ops"})");
  const ConnRef profile = http("POST", "/v1/profile", {}, R"({"summary":"s","status":"dnd"})");
  const ConnRef peers = http("GET", "/v1/peers");
  for (const ConnRef conn : {recall, join, profile, peers}) EXPECT_EQ(status(conn), 0u) << reply_;
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  EXPECT_TRUE(sent("recall").empty()) << "nothing but a hello before its ack";
  hello_ack();
  std::vector<std::string> types;
  for (const Done& done : done_) {
    if (done.kind == EffectKind::kLinkSend) types.push_back(field(done.text, "type"));
  }
  EXPECT_EQ(types, (std::vector<std::string>{"feature_negotiation_request", "list_peers", "recall",
                                             "join_group", "set_summary", "set_status"}));
  std::vector<std::string> requests;
  for (const char* type : {"recall", "join_group", "set_summary", "set_status"}) {
    requests.push_back(sent(type));
  }
  list(asked(), {peer(bob_, "bob")});
  EXPECT_EQ(status(peers), 200u);
  EXPECT_TRUE(has(reply_, bob_.hex));
  EXPECT_FALSE(has(reply_, "errors"));
  answer(requests[0], "memory_results", R"("memories":[{"id":"m1"}])");
  EXPECT_EQ(status(recall), 200u);
  EXPECT_EQ(reply_, R"({"matches":[{"id":"m1","mesh":"crew"}]})");
  answer(requests[1], "ack", "");
  EXPECT_EQ(status(join), 200u);
  answer(requests[2], "ack", "");
  answer(requests[3], "ack", "");
  EXPECT_EQ(status(profile), 200u);
}

TEST_F(DaemonCalls, a_first_attempt_that_fails_answers_at_once_who_waited_for_it) {
  start();
  const ConnRef waits = http("GET", "/v1/state");
  EXPECT_EQ(status(waits), 0u);
  link_down();
  EXPECT_EQ(status(waits), 503u);
  EXPECT_TRUE(has(reply_, "not open")) << reply_;
  EXPECT_TRUE(has(reply_, "reconnects by itself")) << "the daemon runs: " << reply_;
  EXPECT_EQ(status(http("GET", "/v1/state")), 503u) << "after a failure nobody waits";
  link_up();
  EXPECT_TRUE(sent("list_state").empty()) << "it was answered";
}

TEST_F(DaemonCalls, a_first_attempt_is_waited_for_three_seconds) {
  start();
  later(1'000);
  const ConnRef waits = http("GET", "/v1/state");
  later(1'999);
  EXPECT_EQ(status(waits), 0u);
  EXPECT_EQ(core_->next_deadline(), parts_.env.mono_ms + 1);
  later(1);
  EXPECT_EQ(status(waits), 503u);
  EXPECT_EQ(status(http("GET", "/v1/state")), 503u) << "its time is over";
  EXPECT_EQ(status(http("GET", "/v1/peers")), 200u);
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"crew")"));
}

TEST_F(DaemonCalls, what_is_held_counts_as_what_waits) {
  start();
  for (std::uint32_t index = 0; index < parts_.limits.ipc_requests_max; ++index) {
    EXPECT_EQ(status(http("GET", "/v1/state")), 0u);
  }
  EXPECT_EQ(status(http("GET", "/v1/state")), 429u);
  later(3'000);
  EXPECT_EQ(core_->tables().jobs.count(), 0u);
  EXPECT_EQ(core_->tables().calls.count(), 0u);
}

TEST_F(DaemonCalls, frames_are_held_up_to_a_bound) {
  parts_.limits.broker_replies_bytes_max = parts_.limits.http_body_bytes_max + 1'000;
  start();
  const std::string memory = R"({"content":")" + std::string(2'000, 'm') + R"("})";
  EXPECT_EQ(status(http("POST", "/v1/memory", {}, memory)), 0u);
  EXPECT_EQ(status(http("POST", "/v1/memory", {}, memory)), 429u);
}

TEST_F(DaemonCalls, who_went_away_is_not_answered) {
  up();
  const ConnRef conn = http("GET", "/v1/skills");
  const std::string request = sent("list_skills");
  core_->on_http_closed(conn);
  answer(request, "skill_list", R"("skills":[])");
  EXPECT_EQ(count(EffectKind::kHttpReply), 0u);
}

TEST_F(DaemonCalls, an_answer_of_another_broker_or_to_another_question_is_ignored) {
  up(2);
  const ConnRef conn = http("GET", "/v1/skills", "mesh=crew");
  const std::string request = sent("list_skills");
  answer(request, "skill_list", R"("skills":[{"name":"forged"}])", 1);
  EXPECT_EQ(status(conn), 0u);
  answer(request, "state_list", R"("entries":[])");
  EXPECT_EQ(status(conn), 0u);
  answer(request, "skill_list", R"("skills":7)");
  EXPECT_EQ(status(conn), 502u) << "an answer that is none";
}

TEST_F(DaemonCalls, every_mesh_is_asked_at_once_and_those_that_failed_are_named) {
  up(2);
  const ConnRef conn = http("GET", "/v1/state");
  const std::string first = sent_to("list_state", 0);
  const std::string second = sent_to("list_state", 1);
  answer(second, "state_list", R"("entries":[{"key":"b"}])", 1);
  EXPECT_EQ(status(conn), 0u);
  answer(first, "error", R"("code":"forbidden","message":"no")");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_EQ(reply_, R"({"entries":[{"key":"b","mesh":"other"}],)"
                    R"("errors":[{"mesh":"crew","error":"forbidden","detail":"no"}]})");
}

TEST_F(DaemonCalls, nothing_is_called_not_set_while_a_mesh_could_not_say) {
  up(2);
  link_down(1);
  const ConnRef conn = http("GET", "/v1/state", "key=k");
  answer(sent("get_state"), "state_value", R"("state":null)");
  EXPECT_EQ(status(conn), 0u) << "the other one is connecting";
  link_down(1);
  EXPECT_EQ(status(conn), 503u);
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"other")"));
}

TEST_F(DaemonCalls, a_key_that_two_meshes_have_shows_both) {
  up(2);
  const ConnRef conn = http("GET", "/v1/state", "key=k");
  const std::string first = sent_to("get_state", 0);
  const std::string second = sent_to("get_state", 1);
  answer(second, "state_result", R"("key":"k","value":2,"updatedAt":"t")", 1);
  answer(first, "state_result", R"("key":"k","value":1,"updatedAt":"t")", 0);
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(reply_.starts_with(R"({"state":{"key":"k","value":1,)")) << reply_;
  EXPECT_TRUE(has(reply_, R"("all":[)"));
}

TEST_F(DaemonCalls, a_change_needs_one_mesh) {
  up(2);
  const char* const rows[][3] = {
      {"POST", "/v1/state", R"({"key":"k","value":1})"},
      {"POST", "/v1/memory", R"({"content":"c"})"},
      {"POST", "/v1/topic/create", R"({"name":"t"})"},
      {"POST", "/v1/group/join", R"({"name":"g"})"},
      {"DELETE", "/v1/memory/m1", ""},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row[1]);
    EXPECT_EQ(status(http(row[0], row[1], {}, row[2])), 400u);
    EXPECT_EQ(field(reply_, "error"), "mesh_required");
    EXPECT_TRUE(has(reply_, R"("attached":["crew","other"])")) << reply_;
  }
  EXPECT_EQ(status(http("GET", "/v1/skills", "mesh=none")), 404u);
  EXPECT_EQ(field(reply_, "error"), "mesh_not_attached");
  EXPECT_EQ(field(reply_, "mesh"), "none");
  http("DELETE", "/v1/memory/m1", "mesh=other");
  EXPECT_FALSE(sent_to("forget", 1).empty());
}

TEST_F(DaemonCalls, rows_that_carry_a_mesh_of_their_own_are_left_out) {
  up();
  const ConnRef conn = http("GET", "/v1/skills");
  answer(sent("list_skills"), "skill_list",
         R"("skills":[{"name":"a","mesh":"forged"},7,{"name":"b"}])");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_EQ(reply_, R"({"skills":[{"name":"b","mesh":"crew"}]})");
}

TEST_F(DaemonCalls, answers_that_are_kept_have_a_bound) {
  parts_.limits.broker_replies_bytes_max = 100;
  up(2);
  const ConnRef conn = http("GET", "/v1/state");
  const std::string first = sent_to("list_state", 0);
  const std::string second = sent_to("list_state", 1);
  answer(first, "state_list", R"("entries":[{"key":")" + std::string(200, 'k') + "\"}]", 0);
  answer(second, "state_list", R"("entries":[{"key":"b"}])", 1);
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"crew","error":"daemon_busy")")) << reply_;
}

TEST_F(DaemonCalls, a_failed_commit_answers_what_it_opened_and_what_it_would_have_closed) {
  up();
  later(kLegacyMs);
  const ConnRef older = http("GET", "/v1/skills");
  const std::string request = sent("list_skills");
  parts_.commit_fails = true;
  const std::string push_text = push("m1", "hello");
  EXPECT_TRUE(core_->on_link_frame(links_[0], push_text));
  EXPECT_TRUE(core_->on_link_frame(links_[0], R"({"type":"skill_list","_reqId":")" +
                                                  field(request, "_reqId") + R"(","skills":[]})"));
  const ConnRef newer = http("GET", "/v1/topic/list");
  EXPECT_EQ(status(older), 507u);
  EXPECT_EQ(status(newer), 507u);
  EXPECT_TRUE(sent("topic_list").empty());
  EXPECT_EQ(core_->tables().jobs.count(), 0u);
}

TEST_F(DaemonCalls, peers_are_asked_for_anew_after_a_second_and_shown_as_known_meanwhile) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(status(http("GET", "/v1/peers")), 200u) << "just listed";
  EXPECT_TRUE(has(reply_, bob_.hex));
  later(1'000);
  const ConnRef conn = http("GET", "/v1/peers");
  EXPECT_EQ(status(conn), 0u);
  list(asked(), {peer(eve_, "eve")});
  // The list came in the iteration that asked() saw last.
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, eve_.hex));
  link_down();
  link_down();
  EXPECT_EQ(status(http("GET", "/v1/peers")), 200u);
  EXPECT_TRUE(has(reply_, eve_.hex)) << "as known";
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"crew","error":"broker_away")"));
}

TEST_F(DaemonCalls, a_list_of_peers_that_its_broker_cut_says_so) {
  start();
  connect({});
  later(1'000);
  const ConnRef conn = http("GET", "/v1/peers");
  frame(R"({"type":"peers_list","_reqId":")" + asked() + R"(","peers":[],"truncated":true})");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("truncated":true)")) << reply_;
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"crew","error":"truncated")")) << reply_;
}

TEST_F(DaemonCalls, the_status_of_a_sent_message_is_asked_for_by_the_brokers_id) {
  up();
  send(bob_.hex, "mine");
  ConnRef conn = http("GET", "/v1/message/status", "id=mine");
  EXPECT_EQ(status(conn), 200u) << "the broker has not got it yet";
  EXPECT_TRUE(has(reply_, R"("status":"inflight")"));
  EXPECT_TRUE(has(reply_, R"("message":null)"));
  frame(R"({"type":"ack","id":"mine","messageId":"brokerid1","queued":true})");
  conn = http("GET", "/v1/message/status", "id=mine");
  EXPECT_EQ(field(sent("message_status"), "messageId"), "brokerid1");
  answer(sent("message_status"), "message_status_result",
         R"("messageId":"brokerid1","targetSpec":"t","delivered":true)");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("client_message_id":"mine","status":"done")")) << reply_;
  EXPECT_TRUE(has(reply_, R"("delivered":true)"));
  conn = http("GET", "/v1/message/status", "id=mine");
  link_down();
  EXPECT_EQ(status(conn), 200u) << "the outbox knows it without the broker";
  EXPECT_TRUE(has(reply_, "errors"));
}

TEST_F(DaemonCalls, a_status_that_no_mesh_knows_is_404_and_that_of_two_is_ambiguous) {
  up(2);
  ConnRef conn = http("GET", "/v1/message/status", "id=abcdefgh");
  std::string first = sent_to("message_status", 0);
  std::string second = sent_to("message_status", 1);
  answer(first, "error", R"("code":"not_found","message":"no")", 0);
  answer(second, "error", R"("code":"not_found","message":"no")", 1);
  EXPECT_EQ(status(conn), 404u);
  conn = http("GET", "/v1/message/status", "id=abcdefgh");
  first = sent_to("message_status", 0);
  second = sent_to("message_status", 1);
  answer(first, "message_status_result", R"("messageId":"abcdefgh")", 0);
  answer(second, "message_status_result", R"("messageId":"abcdefgh")", 1);
  EXPECT_EQ(status(conn), 409u);
  EXPECT_TRUE(has(reply_, R"("meshes":["crew","other"])"));
  EXPECT_EQ(status(http("GET", "/v1/message/status", "id=short")), 404u);
}

TEST_F(DaemonCalls, answers_of_many_meshes_stay_below_what_a_client_reads) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  const std::string large =
      R"("entries":[{"key":"k","value":")" + std::string(6 << 20, 'x') + R"("}])";
  const ConnRef conn = http("GET", "/v1/state", {});
  const std::string first = sent_to("list_state", 0);
  const std::string second = sent_to("list_state", 1);
  answer(first, "state_list", large, 0);
  answer(second, "state_list", large, 1);
  EXPECT_EQ(status(conn), 200u);
  EXPECT_LE(reply_.size(), 10u << 20);
  EXPECT_TRUE(has(reply_, "\"truncated\":true"));
  EXPECT_TRUE(has(reply_, R"("errors":[{"mesh":"other")"));
}

}  // namespace
}  // namespace cm::daemon
