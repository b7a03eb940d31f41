// broker_admin_test.cc — the broker's HTTP routes: authority, meshes, members, grants, codes,
// hooks.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    version 1 joins and health (broker_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

// --- authority --------------------------------------------------------------------------------

TEST_F(BrokerTest, every_route_that_changes_or_tells_something_demands_authority) {
  found(2);
  const std::string member = "/mesh/" + mesh_ + "/member/" + members_[1].id;
  const struct {
    const char* method;
    std::string path;
  } routes[] = {{"POST", "/cli/mesh/create"},
                {"GET", "/cli/meshes"},
                {"PATCH", "/cli/mesh/crew"},
                {"DELETE", "/cli/mesh/crew"},
                {"POST", "/cli/mesh/crew/invite"},
                {"GET", "/cli/mesh/crew/grants"},
                {"POST", "/cli/mesh/crew/grants"},
                {"GET", "/cli/mesh/crew/permissions"},
                {"POST", "/cli/mesh/crew/permissions"},
                {"GET", "/mesh/" + mesh_ + "/members"},
                {"PATCH", member},
                {"PATCH", "/mesh/" + mesh_ + "/settings"}};
  for (const auto& route : routes) {
    const std::string refusal = http(route.method, route.path, "{}");
    EXPECT_EQ(status_, 401u) << route.method << " " << route.path << " " << refusal;
    EXPECT_EQ(field(refusal, "error"), "unauthenticated");
    EXPECT_NE(field(refusal, "remedy"), "");
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerHttpRefused), std::size(routes));
  const Member stranger = Member::make();
  for (const auto& route : routes) {
    signed_http(stranger, route.method, route.path, "{}");
    const bool refused = status_ == 403 || status_ == 401;
    EXPECT_TRUE(refused || route.path == "/cli/meshes") << route.path << " " << status_;
  }
}

TEST_F(BrokerTest, a_member_signature_counts_once_in_time_and_for_its_own_request) {
  found(2);
  const std::string path = "/mesh/" + mesh_ + "/members";
  EXPECT_TRUE(has(signed_http(members_[0], "GET", path), members_[1].hex));
  EXPECT_EQ(status_, 200u);
  const std::string used = last_authority_;
  wire::HttpRequest request;
  request.method = "GET";
  request.path = path;
  request.host = "broker.example";
  request.authorization = used;
  EXPECT_TRUE(has(request_of(request), "nonce was used"));
  EXPECT_EQ(status_, 401u);
  parts_.advance(61'000);
  request_of(request);
  EXPECT_EQ(status_, 400u) << "too old";
  signed_http(members_[0], "GET", path);
  const std::string fresh = last_authority_;
  for (int part = 0; part < 3; ++part) {
    wire::HttpRequest other;
    other.method = part == 0 ? "PATCH" : "GET";
    other.path = part == 1 ? std::string_view("/mesh/x/members") : std::string_view(path);
    other.host = part == 2 ? "elsewhere" : "broker.example";
    other.authorization = fresh;
    if (part == 0) other.path = "/cli/mesh/crew";
    request_of(other);
    EXPECT_EQ(status_, part == 2 ? 401u : 400u) << "signed for another request";
  }
  for (const char* bad : {"CM-Member ", "CM-Member x:1:2:3", "Basic x", "CM-Member ::::"}) {
    request.authorization = bad;
    request_of(request);
    EXPECT_EQ(status_, 401u) << bad;
  }
}

TEST_F(BrokerTest, the_admin_token_is_refused_where_it_could_be_read_on_the_way) {
  config_.accepts_admin_token = false;
  start();
  const std::string refusal = http("POST", "/cli/mesh/create", "{}", true);
  EXPECT_EQ(status_, 401u);
  EXPECT_TRUE(has(refusal, "TLS")) << refusal;
}

// --- meshes -----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_mesh_is_listed_renamed_and_deleted) {
  found(2);
  EXPECT_TRUE(has(http("GET", "/cli/meshes", {}, true), "\"slug\":\"crew\""));
  EXPECT_EQ(field(signed_http(members_[0], "GET", "/cli/meshes"), "is_owner"), "true");
  EXPECT_EQ(field(signed_http(members_[1], "GET", "/cli/meshes"), "is_owner"), "false");
  signed_http(Member::make(), "GET", "/cli/meshes");
  EXPECT_EQ(status_, 403u) << "a key of no mesh";

  signed_http(members_[1], "PATCH", "/cli/mesh/crew", R"({"slug":"band"})");
  EXPECT_EQ(status_, 403u);
  EXPECT_EQ(field(signed_http(members_[0], "PATCH", "/cli/mesh/crew",
                              R"({"slug":"band","name":"The band"})"),
                  "slug"),
            "band");
  http("PATCH", "/cli/mesh/crew", R"({"slug":"x1"})", true);
  EXPECT_EQ(status_, 404u) << "the old slug is gone";
  for (const char* bad : {R"({"slug":"UPPER"})", R"({"slug":"../x"})", R"({})", R"({"slug":1})"}) {
    http("PATCH", "/cli/mesh/band", bad, true);
    EXPECT_EQ(status_, 400u) << bad;
  }
  http("POST", "/cli/mesh/create", R"({"name":"club","pubkey":")" + Member::make().hex + "\"}",
       true);
  EXPECT_EQ(
      field(http("PATCH", "/cli/mesh/band", R"({"slug":"club","name":"Club"})", true), "error"),
      "already_exists");
  EXPECT_EQ(status_, 409u);
  const std::string both = http("GET", "/cli/meshes", {}, true);
  EXPECT_TRUE(has(both, "The band") && has(both, "\"slug\":\"band\"")) << both;
  const ConnRef conn = connect(members_[1]);
  signed_http(members_[1], "DELETE", "/cli/mesh/band");
  EXPECT_EQ(status_, 403u);
  EXPECT_EQ(field(signed_http(members_[0], "DELETE", "/cli/mesh/band"), "deleted"), "band");
  EXPECT_EQ(closed(conn), 4002u);
  const ConnRef again = open();
  text(again, write(members_[1], hello_of(members_[1])));
  EXPECT_EQ(field(first(again), "code"), "unauthorized");
  EXPECT_FALSE(has(http("GET", "/cli/meshes", {}, true), "band"));
  http("POST", "/cli/mesh/create", R"({"name":"band","pubkey":")" + Member::make().hex + "\"}",
       true);
  EXPECT_EQ(status_, 200u) << "the slug is free again";
  start();
  const ConnRef later_conn = open();
  text(later_conn, write(members_[1], hello_of(members_[1])));
  EXPECT_EQ(field(first(later_conn), "code"), "unauthorized") << "also after a restart";
}

// --- members ----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_member_edits_itself_within_the_policy_and_is_told) {
  found(2);
  const std::string self = "/mesh/" + mesh_ + "/member/" + members_[1].id;
  const std::string settings = "/mesh/" + mesh_ + "/settings";
  const ConnRef conn = connect(members_[1]);
  const std::string reply =
      signed_http(members_[1], "PATCH", self,
                  R"({"displayName":"Ann","roleTag":"dev","groups":["@ops:lead"],)"
                  R"("messageMode":"inbox"})");
  EXPECT_EQ(status_, 200u) << reply;
  EXPECT_EQ(events(conn, "profile_updated"), 1u);
  EXPECT_TRUE(
      has(frames(conn, "push").at(0), R"("eventData":{"displayName":"Ann","roleTag":"dev")"));
  const std::string list = signed_http(members_[0], "GET", "/mesh/" + mesh_ + "/members");
  EXPECT_TRUE(has(list, R"("displayName":"Ann","roleTag":"dev","groups":[{"name":"ops",)"
                        R"("role":"lead"}],"messageMode":"inbox")"))
      << list;
  const ConnRef second = connect(members_[1], Member::make().hex, "other");
  (void)second;
  signed_http(members_[1], "PATCH", self, R"({"permission":"admin"})");
  EXPECT_EQ(status_, 403u);
  signed_http(members_[0], "PATCH", settings, R"({"selfEditable":{"displayName":false}})");
  EXPECT_EQ(status_, 200u);
  const std::string refusal = signed_http(members_[1], "PATCH", self, R"({"displayName":"Bob"})");
  EXPECT_EQ(status_, 403u);
  EXPECT_TRUE(has(refusal, "displayName")) << refusal;
  signed_http(members_[1], "PATCH", settings, R"({"selfEditable":{"displayName":true}})");
  EXPECT_EQ(status_, 403u);
  signed_http(members_[1], "PATCH", "/mesh/" + mesh_ + "/member/" + members_[0].id,
              R"({"displayName":"X"})");
  EXPECT_EQ(status_, 403u);
  signed_http(members_[0], "PATCH", self, R"({"permission":"admin"})");
  EXPECT_EQ(status_, 200u);
  signed_http(members_[1], "PATCH", self, R"({"displayName":"Bob"})");
  EXPECT_EQ(status_, 200u) << "an admin now";
  for (const char* bad : {"{}", R"({"displayName":""})", R"({"displayName":7})",
                          R"({"messageMode":"loud"})", R"({"groups":[1]})", R"({"permission":"x"})",
                          R"({"displayName":"a\u202eb"})", "[]", "nonsense"}) {
    signed_http(members_[0], "PATCH", self, bad);
    EXPECT_EQ(status_, 400u) << bad;
  }
}

TEST_F(BrokerTest, permissions_are_shown_changed_and_enforced) {
  found(3);
  const std::string path = "/cli/mesh/crew/permissions";
  const std::string list = signed_http(members_[2], "GET", path);
  EXPECT_TRUE(has(list, "\"canDeleteMesh\":true")) << list;
  const std::string change = R"({"member_id":")" + members_[1].id +
                             R"(","permissions":{"canSend":false,"canInvite":true}})";
  signed_http(members_[2], "POST", path, change);
  EXPECT_EQ(status_, 403u);
  const ConnRef conn = connect(members_[1]);
  EXPECT_EQ(field(signed_http(members_[0], "POST", path, change), "canSend"), "false");
  EXPECT_EQ(field(send(conn, members_[2].hex, "a"), "code"), "forbidden");
  start();
  const ConnRef again = connect(members_[1], {}, "again");
  EXPECT_EQ(field(send(again, members_[2].hex, "a"), "code"), "forbidden") << "it is durable";
  signed_http(members_[1], "POST", "/cli/mesh/crew/invite", "{}");
  EXPECT_EQ(status_, 200u) << "it may invite";
  signed_http(members_[1], "POST", "/cli/mesh/crew/invite", R"({"role":"admin"})");
  EXPECT_EQ(status_, 403u) << "but not make admins";
  signed_http(members_[0], "POST", path,
              R"({"member_id":")" + members_[1].id + R"(","permissions":{"canFly":true}})");
  EXPECT_EQ(status_, 400u);
}

TEST_F(BrokerTest, grants_hold_at_accept_and_for_what_is_queued_already) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const std::string path = "/cli/mesh/crew/grants";
  EXPECT_EQ(field(send(from, members_[1].hex, "queued"), "queued"), "true");
  signed_http(members_[1], "POST", path, R"({"grants":{")" + members_[0].hex + R"(":[]}})");
  EXPECT_EQ(status_, 200u);
  const std::string refusal = send(from, members_[1].hex, "later");
  EXPECT_EQ(field(refusal, "code"), "forbidden");
  EXPECT_TRUE(has(refusal, "blocked by recipient grants (sender lacks dm capability)"));
  const ConnRef to = connect(members_[1]);
  EXPECT_TRUE(pushed(to).empty()) << "blocked after it was queued";
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  const ConnRef third = connect(members_[2]);
  text(from, send_text("*", "b"));
  EXPECT_TRUE(pushed(to).empty());
  EXPECT_EQ(pushed(third), Texts{"b"});
  EXPECT_TRUE(has(signed_http(members_[1], "GET", path), "\"" + members_[0].hex + "\":[]"));
  signed_http(members_[1], "POST", path, R"({"grants":{")" + members_[0].hex + R"(":null}})");
  EXPECT_EQ(field(send(from, members_[1].hex, "free"), "queued"), "true");
  EXPECT_EQ(signed_http(members_[1], "GET", path), R"({"ok":true,"grants":{}})");
  http("POST", path, R"({"grants":{}})", true);
  EXPECT_EQ(status_, 403u) << "not even the admin token grants in a member's name";
  for (const char* bad : {R"({"grants":{"x":[]}})", R"({"grants":[]})", R"({})"}) {
    signed_http(members_[1], "POST", path, bad);
    EXPECT_EQ(status_, 400u) << bad;
  }
  signed_http(members_[1], "POST", path, R"({"grants":{")" + members_[0].hex + R"(":["fly"]}})");
  EXPECT_EQ(status_, 400u);
}

// --- codes ------------------------------------------------------------------------------------

TEST_F(BrokerTest, a_short_code_leads_to_its_invite_until_it_is_used) {
  found(1);
  const std::string made = http("POST", "/cli/mesh/crew/invite", "{}", true);
  const std::string code = field(made, "code");
  EXPECT_EQ(code.size(), 12u);
  EXPECT_EQ(field(made, "short_url"), "http://127.0.0.1:7900/i/" + code);
  const std::string path = "/api/public/invite-code/" + code;
  EXPECT_EQ(field(http("GET", path), "token"), field(made, "token"));
  EXPECT_TRUE(has(http("GET", "/i/" + code), "claudemesh join"));
  EXPECT_EQ(http("GET", "/api/public/invite-code/0000000000aa"), R"({"found":false})");
  EXPECT_EQ(status_, 404u);
  join(field(made, "token"), Member::make(), "new");
  EXPECT_EQ(status_, 200u);
  EXPECT_EQ(http("GET", path), R"({"found":false})") << "used: as if it had never been";
  for (int count = 0; count < 20; ++count) http("GET", "/api/public/invite-code/0000000000aa");
  EXPECT_EQ(status_, 429u) << "codes can not be tried";
  later(61'000);
  http("GET", "/api/public/invite-code/0000000000aa");
  EXPECT_EQ(status_, 404u);
}

TEST_F(BrokerTest, a_network_asks_ten_times_a_minute_and_previews_leave_codes_alone) {
  found(1);
  const std::string code = field(http("POST", "/cli/mesh/crew/invite", "{}", true), "code");
  const auto ask = [&](std::string_view path, unsigned network, unsigned host) {
    wire::HttpRequest request;
    request.method = "GET";
    request.path = path;
    request.peer_address = {0x20, 0x01, 0x0d, 0xb8};
    for (std::size_t byte = 0; byte < 4; ++byte) {
      request.peer_address[4 + byte] = static_cast<std::uint8_t>(network >> (8 * byte));
      request.peer_address[12 + byte] = static_cast<std::uint8_t>(host >> (8 * byte));
    }
    request_of(request);
    return status_;
  };
  for (unsigned host = 0; host < 10; ++host) ask("/api/public/invite/nonsense", 1, host);
  EXPECT_EQ(ask("/api/public/invite/nonsense", 1, 77), 429u) << "a host has a whole /64";
  for (unsigned network = 2; network < 10'010; ++network) {
    ask("/api/public/invite/nonsense", network, 0);
  }
  EXPECT_EQ(status_, 429u) << "the table is full";
  EXPECT_EQ(ask("/api/public/invite-code/" + code, 1, 0), 200u);
}

TEST_F(BrokerTest, a_claim_with_a_member_key_joins_and_gets_the_sealed_root_key) {
  found(1);
  const std::string code = field(http("POST", "/cli/mesh/crew/invite", "{}", true), "code");
  std::array<std::uint8_t, 32> box_public{};
  std::array<std::uint8_t, 32> box_secret{};
  crypto_box_keypair(box_public.data(), box_secret.data());
  TextBuf box_text(parts_.scratch);
  crypto::base64url_append(box_public, box_text);
  const std::string recipient(box_text.view());
  const Member claimer = Member::make();
  const std::string path = "/invites/" + code + "/claim";
  http("POST", path, R"({"recipient_x25519_pubkey":")" + recipient + "\"}");
  EXPECT_EQ(status_, 501u);
  http("POST", path, R"({"recipient_x25519_pubkey":"short","peer_pubkey":")" + claimer.hex + "\"}");
  EXPECT_EQ(status_, 400u);
  const std::string reply =
      http("POST", path,
           R"({"recipient_x25519_pubkey":")" + recipient + R"(","peer_pubkey":")" + claimer.hex +
               R"(","display_name":"claimer"})");
  ASSERT_EQ(status_, 200u) << reply;
  const auto sealed = crypto::base64url_decode(field(reply, "sealed_root_key"), parts_.scratch);
  ASSERT_TRUE(sealed);
  std::array<std::uint8_t, 32> root{};
  EXPECT_EQ(crypto_box_seal_open(root.data(), sealed->data(), sealed->size(), box_public.data(),
                                 box_secret.data()),
            0);
  EXPECT_EQ(field(reply, "canonical_v2").substr(0, 4), "v=2|");
  Member member = claimer;
  member.id = field(reply, "member_id");
  const ConnRef conn = connect(member);
  const std::string general =
      ask(conn, R"({"type":"topic_members","topic":"general"})", "topic_members_response");
  EXPECT_TRUE(has(general, claimer.hex)) << general;
  http("POST", path,
       R"({"recipient_x25519_pubkey":")" + recipient + R"(","peer_pubkey":")" + Member::make().hex +
           "\"}");
  EXPECT_EQ(status_, 400u) << "single use";
}

TEST_F(BrokerTest, a_new_mesh_has_a_general_topic_which_its_creator_leads) {
  found(2);
  const ConnRef conn = connect(members_[1]);
  const std::string topics = ask(conn, R"({"type":"topic_list"})", "topic_list_response");
  EXPECT_EQ(field(topics, "name"), "general");
  EXPECT_EQ(field(topics, "memberCount"), "1") << "who joins with a version 1 invite is not in it";
  const std::string members =
      ask(conn, R"({"type":"topic_members","topic":"#general"})", "topic_members_response");
  EXPECT_EQ(field(members, "pubkey"), members_[0].hex);
  EXPECT_EQ(field(members, "role"), "lead");
  start();
  const ConnRef again = connect(members_[1]);
  EXPECT_EQ(field(ask(again, R"({"type":"topic_list"})", "topic_list_response"), "memberCount"),
            "1");
}

TEST_F(BrokerTest, an_invite_can_be_looked_at_without_using_it) {
  found(2);
  const std::string token = invite(R"({"role":"admin","max_uses":2})");
  const auto look = [&](const std::string& what) {
    const std::string reply = http("GET", "/api/public/invite/" + what);
    EXPECT_EQ(status_, 200u) << reply;
    later(10'000);  // ten looks a minute
    return reply;
  };
  std::string reply = look(token);
  const std::pair<const char*, std::string> members[] = {
      {"valid", "true"},       {"meshName", "crew"}, {"meshSlug", "crew"},
      {"inviterName", "null"}, {"memberCount", "2"}, {"role", "admin"},
      {"maxUses", "2"},        {"usedCount", "0"},   {"token", token}};
  for (const auto& [name, value] : members) EXPECT_EQ(field(reply, name), value) << reply;
  EXPECT_FALSE(has(reply, members_[0].hex) || has(reply, members_[0].id)) << "who is in it";
  const auto reason = [&](const std::string& what) {
    const std::string refusal = look(what);
    EXPECT_EQ(field(refusal, "valid"), "false");
    EXPECT_FALSE(has(refusal, "crew")) << refusal;
    return field(refusal, "reason");
  };
  EXPECT_EQ(reason("x"), "malformed");
  EXPECT_EQ(reason(std::string(3'000, 'a')), "malformed");
  std::string payload = payload_of(token);
  const auto encoded = [&](const std::string& text) {
    TextBuf out(parts_.scratch);
    crypto::base64url_append(as_bytes(std::string_view(text)), out);
    return std::string(out.view());
  };
  std::string forged = payload;
  forged.replace(forged.find("\"admin\""), 7, "\"member\"");
  EXPECT_EQ(reason(encoded(forged)), "bad_signature");
  EXPECT_EQ(reason(encoded(payload + " ")), "not_found") << "a token is known by its exact text";
  for (const char* name : {"a", "b"}) join(token, Member::make(), name);
  EXPECT_EQ(reason(token), "exhausted");
  const std::string other = invite();
  parts_.advance(8ull * 24 * 3'600'000);
  EXPECT_EQ(reason(other), "expired");
  const std::string last = invite();
  http("DELETE", "/cli/mesh/crew", {}, true);
  EXPECT_EQ(reason(last), "mesh_archived");
  for (int count = 0; count < 11; ++count) http("GET", "/api/public/invite/x");
  EXPECT_EQ(status_, 429u);
}

TEST_F(BrokerTest, lists_over_http_are_paid_for_by_who_asks) {
  parts_.limits.member_reply_bytes_max = 2'000;
  found(2);
  const std::string path = "/mesh/" + mesh_ + "/members";
  int served = 0;
  while (served < 100) {
    signed_http(members_[0], "GET", path);
    if (status_ != 200) break;
    ++served;
  }
  EXPECT_EQ(status_, 429u);
  EXPECT_GT(served, 1);
  EXPECT_LT(served, 100);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerRateRefusals), 1u);
  signed_http(members_[0], "GET", "/cli/meshes");
  EXPECT_EQ(status_, 429u) << "one budget for all lists";
  signed_http(members_[1], "GET", path);
  EXPECT_EQ(status_, 200u) << "another member's budget is its own";
  for (int count = 0; count < 20; ++count) http("GET", path, {}, true);
  EXPECT_EQ(status_, 200u) << "the operator is not counted";
  parts_.advance(5'000);
  signed_http(members_[0], "GET", path);
  EXPECT_EQ(status_, 200u);
}

// --- hooks and readiness ----------------------------------------------------------------------

TEST_F(BrokerTest, hooks_and_the_health_of_the_store_are_metrics) {
  found(1);
  const auto metric = [&](const std::string& line) {
    return has(http("GET", "/metrics"), "\n" + line + "\n");
  };
  for (int count = 0; count < 31; ++count) {
    http("POST", "/hook/set-status", R"({"cwd":"/w","pid":7,"status":"working"})");
  }
  EXPECT_EQ(status_, 429u);
  EXPECT_TRUE(metric("broker_hook_requests_total 31"));
  EXPECT_TRUE(metric("broker_hook_requests_rate_limited_total 1"));
  EXPECT_TRUE(metric("broker_db_healthy 1"));
  const ConnRef conn = connect(members_[0]);
  parts_.commit_fails = true;
  text(conn, R"({"type":"set_state","key":"k","value":1})");
  parts_.commit_fails = false;
  EXPECT_TRUE(metric("broker_db_healthy 0"));
  EXPECT_TRUE(metric("broker_db_healthy 0")) << "nothing was written since";
  parts_.metrics.add(Metric::kCommits);
  EXPECT_TRUE(metric("broker_db_healthy 1")) << "a commit that succeeded says so";
  parts_.fill(TableId::kMeta);
  EXPECT_TRUE(metric("broker_db_healthy 0"));
}

TEST_F(BrokerTest, sweeps_of_leases_are_counted_by_whether_one_ended) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  core_->on_closed(conn);
  run();
  later(parts_.limits.presence_lease_ms - 1);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerTtlSweepsSome), 0u);
  later(1);
  EXPECT_EQ(parts_.metrics.get(Metric::kBrokerTtlSweepsSome), 1u);
}

TEST_F(BrokerTest, a_hook_counts_for_the_one_process_it_names_and_for_thirty_seconds) {
  found(2);
  const ConnRef from = connect(members_[0]);
  wire::PeerAddress here{};
  here[15] = 1;
  const ConnRef to{77, 1};
  core_->on_open(to, here);
  HelloText hello = hello_of(members_[1]);
  core_->on_text(to, write(members_[1], hello));
  run();
  const auto hook = [&](const std::string& body, const wire::PeerAddress& address) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/hook/set-status";
    request.body = body;
    request.peer_address = address;
    return request_of(request);
  };
  const std::string working = R"({"cwd":"/w","pid":7,"status":"working"})";
  wire::PeerAddress elsewhere{};
  elsewhere[15] = 2;
  EXPECT_EQ(field(hook(working, elsewhere), "ok"), "false") << "from another machine";
  EXPECT_EQ(field(hook(R"({"cwd":"/w","pid":8,"status":"working"})", here), "ok"), "false");
  EXPECT_EQ(field(hook(R"({"cwd":"/w","status":"working"})", here), "ok"), "false");
  EXPECT_EQ(field(hook(working, here), "ok"), "true");
  text(from, send_text(members_[1].hex, "waits"));
  EXPECT_TRUE(pushed(to).empty());
  later(29'000);
  EXPECT_TRUE(pushed(to).empty());
  EXPECT_LE(core_->next_deadline(), parts_.env.mono_ms + 1'000);
  later(1'001);
  EXPECT_EQ(pushed(to), Texts{"waits"}) << "the hook's word ran out";
  hook(R"({"cwd":7,"pid":7,"status":"working"})", here);
  EXPECT_EQ(status_, 400u);
  hook(R"({"cwd":"/w","pid":7,"status":"away"})", here);
  EXPECT_EQ(status_, 400u);
}

TEST_F(BrokerTest, a_hook_that_comes_before_its_session_waits_ten_seconds_for_it) {
  found(3);
  wire::PeerAddress here{};
  here[15] = 1;
  const auto hook = [&](int pid) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/hook/set-status";
    const std::string body =
        R"({"cwd":"/w","pid":)" + std::to_string(pid) + R"(,"status":"working"})";
    request.body = body;
    request.peer_address = here;
    return request_of(request);
  };
  const auto arrive = [&](std::uint32_t no, const Member& who) {
    const ConnRef conn{no, 1};
    core_->on_open(conn, here);
    HelloText hello = hello_of(who);  // pid 7 in /w
    core_->on_text(conn, write(who, hello));
    run();
    return conn;
  };
  EXPECT_EQ(field(hook(7), "pending"), "true");
  EXPECT_EQ(field(hook(0), "pending"), "") << "nothing tells whose it is";
  later(9'000);
  const ConnRef first = arrive(77, members_[1]);
  const ConnRef from = connect(members_[0]);
  text(from, send_text(members_[1].hex, "waits"));
  EXPECT_TRUE(pushed(first).empty());
  EXPECT_EQ(field(hook(8), "pending"), "true") << "another process";
  later(10'001);
  const ConnRef second = arrive(78, members_[2]);
  text(from, send_text(members_[2].hex, "comes"));
  EXPECT_EQ(pushed(second), Texts{"comes"});
}

TEST_F(BrokerTest, one_process_has_thirty_hooks_a_minute_and_costs_no_other_any) {
  found(1);
  const auto status_of = [&](int pid) {
    http("POST", "/hook/set-status",
         R"({"cwd":"/w","pid":)" + std::to_string(pid) + R"(,"status":"idle"})");
    return status_;
  };
  for (int call = 0; call < 30; ++call) ASSERT_EQ(status_of(7), 200u) << call;
  EXPECT_EQ(status_of(7), 429u);
  EXPECT_EQ(status_of(8), 200u);
  later(60'000);
  EXPECT_EQ(status_of(7), 200u);
}

TEST_F(BrokerTest, readiness_says_when_no_new_work_should_come) {
  start();
  EXPECT_EQ(field(http("GET", "/health/ready"), "status"), "ready");
  core_->set_draining();
  EXPECT_EQ(field(http("GET", "/health/ready"), "reason"), "shutting_down");
  EXPECT_EQ(status_, 503u);
  http("GET", "/health");
  EXPECT_EQ(status_, 200u);
}

}  // namespace
}  // namespace cm::broker
