// broker_content_test.cc — what is kept of what a client says, and what that lets others suffer.
// Holds:  as broker_test.cc; verify_all() after every iteration. Each test is a finding of a
//         review: it failed before its fix.
// Not:    the ordinary ways of the same verbs (broker_data_test.cc, broker_admin_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

std::string swapped(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// As our own daemons read it: within the depth of the wire.
bool parses(std::string_view json) {
  wire::JsonParser parser;
  ScratchArena arena(64 * 1024);
  wire::JsonTape tape;
  return static_cast<bool>(parser.parse(json, arena, tape));
}

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + "1" + std::string(depth, ']');
}

// --- what is kept of JSON ---------------------------------------------------------------------

TEST_F(BrokerTest, an_attestation_is_kept_as_it_was_signed_and_nothing_beside_it) {
  found(2);
  const ConnRef other = connect(members_[1]);
  const std::string padding = R"("pad":")" + std::string(60'000, 'x') + R"(","deep":)" + nested(14);
  for (const bool second : {false, true}) {
    BrokerTest::SessionText hello{members_[0], Member::make(), "", "", 3'600'000, ""};
    if (second) {
      hello.caps = R"([ "dm" , "broadcast" ])";
      hello.capabilities_csv = "broadcast,dm";
    }
    const ConnRef session = open();
    text(session, swapped(write_session(hello), R"("parentAttestation":{)",
                          R"("parentAttestation":{)" + padding + ","));
    ASSERT_EQ(field(first(session), "type"), "hello_ack") << first(session);
    const std::string list = ask(other, R"({"type":"list_peers"})", "peers_list");
    EXPECT_LT(list.size(), 4'000u);
    EXPECT_TRUE(has(list, "\"attestation\":{")) << list;
    EXPECT_TRUE(parses(list));
    if (second) {
      EXPECT_TRUE(has(list, R"("version":2,"allowed_caps":["dm","broadcast"]})")) << list;
    }
    send(session, members_[1].hex, second ? "b" : "a");
    const std::string push = frames(other, "push").back();
    EXPECT_TRUE(has(push, "\"senderAttestation\":{")) << push;
    EXPECT_LT(push.size(), 3'000u);
    EXPECT_TRUE(parses(push));
  }
}

TEST_F(BrokerTest, an_attestation_counts_in_the_window_of_those_to_whom_it_is_pushed) {
  parts_.limits.claim_bytes_max = 7'000;
  found(2);
  const ConnRef to = connect(members_[1]);
  BrokerTest::SessionText hello{members_[0], Member::make(), "[", "", 3'600'000, ""};
  for (int number = 10; number < 60; ++number) {
    const std::string name = "unknown-capability-of-forty-characters-" + std::to_string(number);
    hello.caps += (number == 10 ? "\"" : ",\"") + name + "\"";
    hello.capabilities_csv += (number == 10 ? "" : ",") + name;
  }
  hello.caps += R"(,"dm"])";
  hello.capabilities_csv = "dm," + hello.capabilities_csv;
  const ConnRef session = connect_session(hello);
  std::size_t count = 0;
  for (const char* id : {"a", "b", "c", "d", "e"}) {
    send(session, members_[1].hex, id);
    count += pushed(to).size();
  }
  EXPECT_EQ(count, 2u) << "each has 2 KiB of attestation";
}

TEST_F(BrokerTest, white_space_between_the_texts_of_a_list_is_not_kept) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string list = "[\"a\"" + std::string(90'000, ' ') + ",\"b\"]";
  text(conn, R"({"type":"set_profile","capabilities":)" + list + "}");
  EXPECT_TRUE(has(ask(conn, R"({"type":"list_peers"})", "peers_list"),
                  R"("profile":{"capabilities":["a","b"]})"));
  text(conn, R"({"type":"set_profile","bio":"me"})");
  EXPECT_TRUE(has(ask(conn, R"({"type":"list_peers"})", "peers_list"),
                  R"("profile":{"bio":"me","capabilities":["a","b"]})"));
  text(conn, R"({"type":"remember","content":"text","tags":)" + list + "}");
  EXPECT_TRUE(has(ask(conn, R"({"type":"recall","query":"text"})", "memory_results"),
                  R"("tags":["a","b"])"));
  text(conn, R"({"type":"share_skill","name":"s","description":"d","instructions":"i","tags":)" +
                 list + "}");
  EXPECT_TRUE(
      has(ask(conn, R"({"type":"get_skill","name":"s"})", "skill_data"), R"("tags":["a","b"])"));
}

TEST_F(BrokerTest, a_skill_has_a_manifest_of_at_most_64_kib) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const auto share = [&](std::size_t bytes) {
    return R"({"type":"share_skill","name":"s","description":"d","instructions":"i","manifest":")" +
           std::string(bytes, 'x') + "\"}";
  };
  const std::string refusal = ask(conn, share(65'535), "error");
  EXPECT_TRUE(has(refusal, "'manifest'") && has(refusal, "65536")) << refusal;
  EXPECT_EQ(field(ask(conn, share(65'534), "skill_ack"), "action"), "shared");
}

TEST_F(BrokerTest, a_stored_value_can_be_read_in_every_answer_that_holds_it) {
  found(2);
  const ConnRef conn = connect(members_[0]);
  const ConnRef other = connect(members_[1]);
  const auto set = [&](std::size_t depth) {
    return R"({"type":"set_state","key":"k","value":)" + nested(depth) + R"(,"_reqId":"r"})";
  };
  const std::string refusal = ask(conn, set(13), "error");
  EXPECT_TRUE(has(refusal, "'value'") && has(refusal, "12")) << refusal;
  EXPECT_NE(ask(conn, set(12), "ack"), "");
  EXPECT_TRUE(parses(frames(other, "state_change").at(0)));
  for (const char* frame : {R"({"type":"list_state"})", R"({"type":"get_state","key":"k"})"}) {
    text(conn, frame);
    for (const std::string& answer : frames(conn)) EXPECT_TRUE(parses(answer)) << answer;
  }
  const auto share = [&](std::size_t depth) {
    return R"({"type":"share_skill","name":"s","description":"d","instructions":"i","manifest":)" +
           nested(depth) + "}";
  };
  EXPECT_TRUE(has(ask(conn, share(13), "error"), "'manifest'"));
  EXPECT_NE(ask(conn, share(12), "skill_ack"), "");
  EXPECT_TRUE(parses(ask(conn, R"({"type":"get_skill","name":"s"})", "skill_data")));
}

// --- budgets ----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_refused_id_has_paid_for_one_recipient_and_not_for_many) {
  parts_.limits.rate_per_minute = 60;
  parts_.limits.rate_burst = 4;
  found(4);
  const ConnRef from = connect(members_[0]);
  for (std::size_t index = 1; index < 4; ++index) connect(members_[index]);
  EXPECT_EQ(field(send(from, "#nowhere", "x"), "code"), "not_found");
  EXPECT_EQ(field(send(from, "*", "x"), "queued"), "true");
  EXPECT_EQ(field(send(from, members_[1].hex, "y"), "queued"), "true") << "three are spent";
  EXPECT_EQ(field(send(from, members_[1].hex, "z"), "code"), "rate_limit");
}

TEST_F(BrokerTest, a_sender_in_debt_repeats_a_refused_id_and_reaches_nobody_with_it) {
  parts_.limits.rate_per_minute = 60;
  parts_.limits.rate_burst = 1;
  found(4);
  const ConnRef from = connect(members_[0]);
  for (std::size_t index = 1; index < 4; ++index) connect(members_[index]);
  EXPECT_EQ(field(send(from, "#nowhere", "x"), "code"), "not_found");
  EXPECT_EQ(field(send(from, "#nowhere", "x"), "code"), "not_found") << "paid";
  EXPECT_EQ(field(send(from, "*", "x"), "code"), "rate_limit");
}

TEST_F(BrokerTest, accepted_ids_do_not_make_the_broker_forget_refused_ones) {
  parts_.limits.rate_per_minute = 60;
  parts_.limits.rate_burst = 20;
  parts_.limits.queue_pair_rows_max = 1;
  found(2);
  const ConnRef from = connect(members_[0]);
  EXPECT_EQ(field(send(from, members_[1].hex, "first"), "queued"), "true");
  EXPECT_EQ(field(send(from, members_[1].hex, "late"), "code"), "queue_full");
  for (int number = 0; number < 17; ++number) {
    EXPECT_EQ(field(send(from, "*", "all-" + std::to_string(number)), "queued"), "true");
  }
  EXPECT_EQ(field(send(from, members_[1].hex, "late"), "code"), "queue_full");
  EXPECT_EQ(field(send(from, "*", "last"), "queued"), "true") << "the retry was free";
}

// What no wait makes room for is refused for good, so that it does not hold up its lane: seed 65 of
// the simulator tried one for an hour.
TEST_F(BrokerTest, the_share_of_a_sender_holds_for_its_first_message_too) {
  parts_.limits.queue_sender_bytes_max = 1'000;
  found(4);
  const ConnRef from = connect(members_[0]);
  for (std::size_t index = 1; index < 4; ++index) connect(members_[index]);
  const std::string refused = send(from, "*", "x");
  EXPECT_EQ(field(refused, "code"), "invalid_argument");
  EXPECT_TRUE(has(refused, "3 recipients")) << refused;
  EXPECT_EQ(field(send(from, members_[1].hex, "y"), "queued"), "true");
}

// --- permissions ------------------------------------------------------------------------------

TEST_F(BrokerTest, a_role_that_is_taken_away_takes_its_permissions_along) {
  found(2);
  const std::string path = "/cli/mesh/crew/permissions";
  const std::string self = "/mesh/" + mesh_ + "/member/" + members_[1].id;
  signed_http(members_[0], "PATCH", self, R"({"permission":"admin"})");
  signed_http(members_[0], "POST", path,
              R"({"member_id":")" + members_[1].id +
                  R"(","permissions":{"canInvite":true,"canUseTools":false}})");
  signed_http(members_[1], "POST", "/cli/mesh/crew/invite", "{}");
  EXPECT_EQ(status_, 200u);
  signed_http(members_[0], "PATCH", self, R"({"permission":"member"})");
  EXPECT_EQ(status_, 200u);
  signed_http(members_[1], "POST", "/cli/mesh/crew/invite", "{}");
  EXPECT_EQ(status_, 403u);
  const std::string list = signed_http(members_[0], "GET", path);
  EXPECT_TRUE(has(list.substr(list.find(members_[1].id)), "\"canUseTools\":false")) << list;
  signed_http(members_[0], "PATCH", self, R"({"permission":"admin"})");
  signed_http(members_[1], "POST", "/cli/mesh/crew/invite", "{}");
  EXPECT_EQ(status_, 200u) << "and a role that is given brings them";
}

TEST_F(BrokerTest, nobody_gives_a_permission_that_it_does_not_have) {
  found(3);
  const std::string path = "/cli/mesh/crew/permissions";
  const auto change = [&](const Member& whom, const std::string& permissions) {
    return R"({"member_id":")" + whom.id + R"(","permissions":{)" + permissions + "}}";
  };
  signed_http(members_[0], "POST", path, change(members_[1], R"("canManagePermissions":true)"));
  ASSERT_EQ(status_, 200u);
  const std::string refusal =
      signed_http(members_[1], "POST", path, change(members_[2], R"("canInvite":true)"));
  EXPECT_EQ(status_, 403u);
  EXPECT_TRUE(has(refusal, "canInvite")) << refusal;
  signed_http(members_[1], "POST", path, change(members_[1], R"("canInvite":true)"));
  EXPECT_EQ(status_, 403u) << "nor to itself";
  signed_http(members_[1], "PATCH", "/mesh/" + mesh_ + "/member/" + members_[2].id,
              R"({"permission":"admin"})");
  EXPECT_EQ(status_, 403u) << "nor by a role";
  signed_http(members_[1], "POST", path,
              change(members_[2], R"("canSend":false,"canManagePermissions":true)"));
  EXPECT_EQ(status_, 200u) << "what it has, it gives";
  http("POST", path, change(members_[2], R"("canDeleteMesh":true)"), true);
  EXPECT_EQ(status_, 200u) << "the operator has everything";
}

TEST_F(BrokerTest, who_may_delete_the_mesh_is_safe_from_those_who_may_not) {
  found(2);
  const std::string path = "/cli/mesh/crew/permissions";
  const std::string founder = "/mesh/" + mesh_ + "/member/" + members_[0].id;
  signed_http(members_[0], "PATCH", "/mesh/" + mesh_ + "/member/" + members_[1].id,
              R"({"permission":"admin"})");
  const auto change = [&](const std::string& permissions) {
    signed_http(members_[1], "POST", path,
                R"({"member_id":")" + members_[0].id + R"(","permissions":{)" + permissions + "}}");
    return status_;
  };
  EXPECT_EQ(change(R"("canSend":false,"canDeleteMesh":false)"), 403u);
  EXPECT_EQ(change(R"("canSend":false)"), 403u);
  EXPECT_EQ(change(R"("canSend":true)"), 200u) << "nothing is taken";
  signed_http(members_[1], "PATCH", founder, R"({"permission":"member"})");
  EXPECT_EQ(status_, 403u);
  signed_http(members_[1], "PATCH", founder, R"({"displayName":"Ann"})");
  EXPECT_EQ(status_, 200u) << "an edit that takes nothing";
}

// --- names and texts --------------------------------------------------------------------------

TEST_F(BrokerTest, the_owner_of_a_mesh_with_a_long_name_has_a_name_that_fits) {
  start();
  const Member owner = Member::make();
  std::string name = std::string(123, 'n') + "\u00e9";  // cut between two bytes of a letter
  const std::string mesh =
      http("POST", "/cli/mesh/create",
           R"({"name":")" + name + R"(","slug":"crew","pubkey":")" + owner.hex + "\"}", true);
  ASSERT_EQ(status_, 200u) << mesh;
  mesh_ = field(mesh, "id");
  Member made = owner;
  made.id = field(mesh, "member_id");
  const ConnRef conn = connect(made);
  const std::string shown = field(first(conn), "memberDisplayName");
  EXPECT_LE(shown.size(), wire::kDisplayNameMax);
  EXPECT_TRUE(shown.ends_with("nnn-owner")) << shown;
}

TEST_F(BrokerTest, texts_of_a_hello_are_shown_without_what_hides_and_never_refused_for_it) {
  found(2);
  const ConnRef other = connect(members_[1]);
  const ConnRef conn = open();
  const std::string coder = "\U0001F469\u200d\U0001F4BB";     // woman, joiner, laptop
  const std::string want = "\u0645\u06cc\u200c\u062e\u0648";  // Persian with a non-joiner
  text(conn, swapped(write(members_[0], hello_of(members_[0])), R"("cwd":"/w")",
                     R"("displayName":")" + coder + "\u202eb\\u0007o\u200bb" + R"(","cwd":"/)" +
                         want + R"(\n","groups":["my team",{"name":"a","role":"x\ny"}])"));
  ASSERT_EQ(field(first(conn), "type"), "hello_ack") << first(conn);
  const std::string list = ask(other, R"({"type":"list_peers"})", "peers_list");
  EXPECT_TRUE(has(list, "\"displayName\":\"" + coder + "bob\"")) << list;
  EXPECT_TRUE(has(list, "\"cwd\":\"/" + want + " \"")) << list;
  EXPECT_TRUE(has(list, R"([{"name":"my team"},{"name":"a","role":"x y"}])")) << list;
  send(other, "@my team", "x");
  EXPECT_EQ(pushed(conn), Texts{"x"});
}

TEST_F(BrokerTest, texts_that_existing_clients_set_may_have_lines) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  EXPECT_NE(ask(conn, R"({"type":"set_summary","summary":"one\ntwo\u202e","_reqId":"r"})", "ack"),
            "");
  EXPECT_TRUE(has(ask(conn, R"({"type":"list_peers"})", "peers_list"), R"("summary":"one two")"));
  EXPECT_EQ(field(ask(conn,
                      R"({"type":"share_skill","name":"s","description":"one\n\ttwo\u0007",)"
                      R"("instructions":"i"})",
                      "skill_ack"),
                  "action"),
            "shared");
  EXPECT_TRUE(
      has(ask(conn, R"({"type":"list_skills"})", "skill_list"), R"("description":"one\n\ttwo")"));
  EXPECT_NE(
      ask(conn, R"({"type":"topic_create","name":"t","description":"one\ntwo"})", "topic_created"),
      "");
  EXPECT_NE(
      ask(conn, R"({"type":"set_profile","bio":"one\ntwo","title":"a\nb","_reqId":"r"})", "ack"),
      "");
  EXPECT_TRUE(has(ask(conn, R"({"type":"list_peers"})", "peers_list"),
                  R"("profile":{"title":"a b","bio":"one\ntwo"})"));
}

TEST_F(BrokerTest, an_ack_of_what_was_never_queued_is_ignored_and_no_error) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  for (int number = 0; number < 150; ++number) {
    text(conn, R"({"type":"client_ack","brokerMessageId":"3b0a5c1e-6a51-4d0e-9d8b-0123456789ab",)"
               R"("clientMessageId":"webhook: build \u00e9"})");
    ASSERT_TRUE(frames(conn).empty()) << first(conn);
  }
  EXPECT_EQ(closed(conn), 0u);
}

// --- presence ---------------------------------------------------------------------------------

TEST_F(BrokerTest, a_throw_away_connection_saves_only_what_it_set) {
  found(1);
  const ConnRef daemon = connect(members_[0], {}, "daemon-1");
  text(daemon, R"({"type":"set_summary","summary":"one"})");
  text(daemon, R"({"type":"join_group","name":"ops"})");
  core_->on_closed(daemon);
  later(90'001);
  const ConnRef back = connect(members_[0], {}, "daemon-1");
  const ConnRef once = connect(members_[0], Member::make().hex, "cli-1");
  const ConnRef setter = connect(members_[0], Member::make().hex, "cli-2");
  text(setter, R"({"type":"set_summary","summary":"two"})");
  text(back, R"({"type":"set_visible","visible":false})");
  core_->on_closed(back);
  core_->on_closed(once);
  core_->on_closed(setter);
  later(90'001);
  const ConnRef again = connect(members_[0], {}, "daemon-1");
  EXPECT_EQ(field(first(again), "lastSummary"), "two");
  const std::string list = ask(again, R"({"type":"list_peers"})", "peers_list");
  EXPECT_TRUE(has(list, "\"visible\":false")) << list;
  EXPECT_TRUE(has(list, "\"name\":\"ops\"")) << list;
}

TEST_F(BrokerTest, a_second_socket_replaces_the_one_with_its_session_id_and_no_other) {
  found(1);
  const ConnRef one = connect(members_[0], {}, "daemon-1");
  const ConnRef two = connect(members_[0], {}, "daemon-2");
  const ConnRef again = connect(members_[0], {}, "daemon-2");
  EXPECT_EQ(closed(two), 1000u);
  EXPECT_EQ(closed(one), 0u);
  connect(members_[0], {}, "daemon-1");
  EXPECT_EQ(closed(one), 1000u) << "though it was not the newest";
  EXPECT_EQ(closed(again), 0u);
}

TEST_F(BrokerTest, sockets_that_outlive_a_failed_commit_keep_their_session_id_and_changes) {
  found(1);
  const ConnRef one = connect(members_[0], {}, "daemon-1");
  const ConnRef setter = connect(members_[0], Member::make().hex, "cli-1");
  text(setter, R"({"type":"set_summary","summary":"two"})");
  const ConnRef other = connect(members_[0], {}, "daemon-2");
  parts_.commit_fails = true;
  core_->on_text(other, R"({"type":"set_summary","summary":"lost"})");
  ASSERT_FALSE(run());
  parts_.commit_fails = false;
  run();
  connect(members_[0], {}, "daemon-1");
  EXPECT_EQ(closed(one), 1000u);
  core_->on_closed(setter);
  core_->on_closed(one);
  EXPECT_TRUE(run());
  const ConnRef last{next_conn_ - 1, 1};
  core_->on_closed(last);
  later(90'001);
  EXPECT_EQ(field(first(connect(members_[0], {}, "daemon-3")), "restored"), "true");
}

TEST_F(BrokerTest, a_restricted_session_is_listed_as_restricted_after_a_restart) {
  found(2);
  connect_session(
      {members_[0], Member::make(), R"(["DM","read-minds"])", "", 3'600'000, "dm,read-minds"});
  start();
  const ConnRef other = connect(members_[1]);
  EXPECT_TRUE(has(ask(other, R"({"type":"list_peers"})", "peers_list"),
                  R"(,"allowed_caps":["DM","read-minds"],"attestation":{)"));
  start();
  const ConnRef session = connect_session({members_[0], Member::make(), "", "", 3'600'000, ""});
  core_->on_closed(session);
  start();
  const ConnRef third = connect(members_[1], {}, "third");
  EXPECT_TRUE(has(ask(third, R"({"type":"list_peers"})", "peers_list"),
                  R"("allowed_caps":null,"attestation":{)"));
}

// --- HTTP -------------------------------------------------------------------------------------

class Hooks : public BrokerTest {
 protected:
  std::string hook(std::uint8_t address, int pid) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/hook/set-status";
    const std::string body = R"({"cwd":"/w","pid":)" + std::to_string(pid) + R"(,"status":"idle"})";
    request.body = body;
    request.peer_address[10] = request.peer_address[11] = 0xff;
    request.peer_address[15] = address;
    return request_of(request);
  }
};

TEST_F(Hooks, of_one_address_are_counted_before_they_cost_others_anything) {
  found(1);
  for (int pid = 1; pid <= 300; ++pid) {
    hook(1, pid);
    ASSERT_EQ(status_, 200u) << pid;
  }
  EXPECT_TRUE(has(hook(1, 301), "address"));
  EXPECT_EQ(status_, 429u);
  hook(2, 301);
  EXPECT_EQ(status_, 200u);
}

TEST_F(Hooks, without_proof_cannot_keep_out_who_has_one) {
  found(1);
  for (int pid = 1; pid <= 10'000; ++pid) {  // the whole table, from 250 addresses
    hook(static_cast<std::uint8_t>(pid % 250), pid);
  }
  hook(251, 1);
  EXPECT_EQ(status_, 429u);
  const std::string body = R"({"cwd":"/w","pid":7,"status":"idle"})";
  signed_http(members_[0], "POST", "/hook/set-status", body);
  EXPECT_EQ(status_, 200u);
  http("POST", "/hook/set-status", body, true);
  EXPECT_EQ(status_, 200u);
}

TEST_F(Hooks, that_wait_are_few_of_each_address) {
  found(1);
  for (int pid = 1; pid <= 16; ++pid) ASSERT_EQ(field(hook(1, pid), "pending"), "true") << pid;
  EXPECT_EQ(field(hook(1, 17), "pending"), "");
  EXPECT_EQ(field(hook(2, 17), "pending"), "true");
}

TEST_F(Hooks, and_metrics_with_the_admin_token_leave_a_trace_of_it) {
  found(1);
  std::string lines;
  const Log log(
      [](void* all, std::string_view line) { static_cast<std::string*>(all)->append(line); },
      [](void*) { return std::uint64_t{0}; }, &lines);
  parts_.env.log = &log;
  http("POST", "/hook/set-status", R"({"cwd":"/w","pid":7,"status":"idle"})", true);
  EXPECT_TRUE(has(lines, "admin_token_used") && has(lines, "/hook/set-status")) << lines;
  lines.clear();
  http("GET", "/metrics", {}, true, false);
  EXPECT_EQ(status_, 200u);
  EXPECT_TRUE(has(lines, "admin_token_used") && has(lines, "/metrics")) << lines;
  lines.clear();
  http("GET", "/metrics");
  EXPECT_EQ(lines, "");
}

TEST_F(BrokerTest, a_signature_for_another_host_is_not_one_for_this_broker) {
  found(1);
  const auto status_for = [&](std::string_view host, bool loopback) {
    signed_host_ = host;
    signed_loopback_ = loopback;
    signed_http(members_[0], "GET", "/cli/meshes");
    return status_;
  };
  EXPECT_EQ(status_for("broker.example", false), 200u);
  EXPECT_EQ(status_for("Broker.Example", false), 200u);
  EXPECT_EQ(status_for("other.example", false), 401u);
  EXPECT_EQ(status_for("broker.example:444", false), 401u);
  EXPECT_EQ(status_for("", false), 401u);
  EXPECT_EQ(status_for("127.0.0.1:7900", true), 200u);
  EXPECT_EQ(status_for("localhost:7900", true), 200u);
  EXPECT_EQ(status_for("127.0.0.1:7901", true), 401u) << "another broker on this machine";
  EXPECT_EQ(status_for("127.0.0.1:7900", false), 401u) << "another machine's own";
}

TEST_F(BrokerTest, a_key_that_is_member_of_nothing_writes_nothing) {
  found(2);
  const std::size_t before = parts_.count(TableId::kHttpNonce);
  signed_http(Member::make(), "GET", "/cli/meshes");
  EXPECT_EQ(status_, 403u);
  signed_http(Member::make(), "GET", "/cli/mesh/crew/grants");
  EXPECT_EQ(status_, 403u);
  EXPECT_EQ(parts_.count(TableId::kHttpNonce), before);
  start();
  signed_http(members_[1], "GET", "/cli/meshes");
  EXPECT_EQ(status_, 200u) << "members are known after a restart";
  EXPECT_EQ(parts_.count(TableId::kHttpNonce), before + 1);
}

TEST_F(BrokerTest, a_member_sees_its_own_meshes_in_the_list_and_no_others) {
  found(2);
  const Member other = Member::make();
  http("POST", "/cli/mesh/create", R"({"name":"band","pubkey":")" + other.hex + "\"}", true);
  http("POST", "/cli/mesh/create", R"({"name":"choir","pubkey":")" + members_[1].hex + "\"}", true);
  EXPECT_EQ(field(signed_http(other, "GET", "/cli/meshes"), "slug"), "band");
  const std::string two = signed_http(members_[1], "GET", "/cli/meshes");
  EXPECT_TRUE(has(two, "\"slug\":\"choir\"") && has(two, "\"slug\":\"crew\"")) << two;
  EXPECT_FALSE(has(two, "\"slug\":\"band\"")) << two;
  signed_http(members_[1], "DELETE", "/cli/mesh/choir");
  EXPECT_FALSE(has(signed_http(members_[1], "GET", "/cli/meshes"), "choir"));
}

}  // namespace
}  // namespace cm::broker
