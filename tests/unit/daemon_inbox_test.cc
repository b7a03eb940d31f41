// daemon_inbox_test.cc — pushes of every kind become rows; rows are filtered, seen and deleted.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint64_t kDayMs = 24ull * 3'600'000;

class DaemonInbox : public DaemonTest {
 protected:
  void SetUp() override {
    start();
    connect({});
  }
  // A push of base64 text with more members.
  std::string plain(const std::string& id, const std::string& ciphertext,
                    const std::string& members, bool nonce = true) {
    return R"({"type":"push","messageId":")" + id + R"(","meshId":"mesh0","priority":"next",)" +
           R"("nonce":")" + (nonce ? std::string(32, 'A') : "") + R"(","ciphertext":")" +
           ciphertext + R"(","createdAt":"2026-01-02T03:04:05.000Z",)" + members + "}";
  }
  std::string from_bob(const std::string& more = {}) const {
    return R"("senderPubkey":")" + bob_.hex + "\"" + (more.empty() ? "" : "," + more);
  }
  std::string inbox(std::string_view query = "mark_seen=false") {
    EXPECT_EQ(status(get("/v1/inbox", query)), 200u) << reply_;
    return reply_;
  }
  std::size_t items(std::string_view query) {
    const std::string text = inbox(query);
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find("\"client_message_id\"", at)) != std::string::npos;
         ++at) {
      ++found;
    }
    return found;
  }
  static std::string upper(std::string text) {
    for (char& c : text) c = c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c;
    return text;
  }
  // Of the last answer.
  std::string next() const {
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kHttpReply) return done.next;
    }
    return "no answer";
  }
  // Runs until nothing is left to delete; the answer of the request.
  std::uint32_t finish(ConnRef conn) {
    std::uint32_t code = status(conn);
    for (int turns = 0; core_->work_left() && turns < 1'000; ++turns) {
      run();
      if (code == 0) code = status(conn);
    }
    return code;
  }
};

TEST_F(DaemonInbox, what_is_plain_and_what_stays_closed_by_table) {
  const std::string member = R"("senderMemberPubkey":")" + bob_.hex + "\"";
  const struct {
    const char* id;
    std::string frame;
    const char* body;  // null: closed
  } rows[] = {
      {"a", plain("a", "aGk=", from_bob(R"("targetSpec":"*")")), "hi"},
      {"b", plain("b", "aGk=", from_bob(R"("targetSpec":"@ops")")), "hi"},
      {"c", plain("c", "aGk=", from_bob(R"("targetSpec":"#Topic1")")), "hi"},
      {"d", plain("d", "aGk=", from_bob(R"("targetSpec":")" + self_.hex + "\"")), nullptr},
      {"e", plain("e", "aGk=", from_bob()), nullptr},      // a reference's direct message
      {"f", plain("f", "aGk=", from_bob(member)), "hi"},   // a reference's multicast
      {"g", plain("g", "aGk=", from_bob(), false), "hi"},  // a scheduled one
      {"h", plain("h", "/w==", from_bob(R"("targetSpec":"*")")), nullptr},  // not UTF-8
      {"i", plain("i", "a!", from_bob(R"("targetSpec":"*")")), nullptr},    // not base64
      {"j", plain("j", "aGk=", R"("senderPubkey":"somebody","targetSpec":"*")"), "hi"},
      {"k",
       plain("k", "",
             R"("senderPubkey":"webhook:ci","subtype":"webhook","event":"build",)"
             R"("eventData":{"ok":true,"n":1.50})",
             false),
       R"({\"ok\":true,\"n\":1.50})"},
      {"l", plain("l", "", R"("senderPubkey":"webhook:ci","subtype":"webhook")", false), nullptr},
  };
  for (const auto& each : rows) {
    SCOPED_TRACE(each.id);
    frame(each.frame);
    EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
    const std::string text = inbox("limit=1&mark_seen=false");
    EXPECT_EQ(field(text, "client_message_id"), each.id);
    if (each.body == nullptr) {
      EXPECT_TRUE(has(text, "\"body\":null,\"body_missing\":\"")) << text;
    } else {
      EXPECT_TRUE(has(text, "\"body\":\"" + std::string(each.body) + "\",\"encrypted\":false"))
          << text;
    }
  }
}

TEST_F(DaemonInbox, a_full_push_keeps_topic_reply_and_name) {
  frame(plain("a", "aGk=",
              from_bob(R"("targetSpec":"#T1","senderName":"Bob","replyToId":"r1",)"
                       R"("subtype":"reminder")")));
  std::string text = inbox();
  EXPECT_EQ(field(text, "topic"), "T1");
  EXPECT_EQ(field(text, "reply_to_id"), "r1");
  EXPECT_EQ(field(text, "sender_name"), "Bob");
  EXPECT_EQ(field(text, "subtype"), "reminder");
  frame(plain("b", "aGk=", from_bob(R"("targetSpec":"#T1","topic":"general")")));
  EXPECT_EQ(field(inbox("limit=1"), "topic"), "general");
  frame(plain("c", "", R"("senderPubkey":"webhook:ci","subtype":"webhook","eventData":{})", false));
  EXPECT_EQ(field(inbox("limit=1"), "sender_name"), "ci");
}

TEST_F(DaemonInbox, a_sender_is_attested_by_a_box_that_opened_and_by_nothing_else) {
  const std::string member = R"("senderMemberPubkey":")" + bob_.hex + "\"";
  std::string sealed = push("s", "pay bob");
  sealed.insert(sealed.size() - 1, "," + member);
  std::string of_another = push("o", "pay eve");  // bob's box, under another member's name
  of_another.insert(of_another.size() - 1, R"(,"senderMemberPubkey":")" + eve_.hex + "\"");
  const struct {
    const char* id;
    std::string frame;
    bool attested;
  } rows[] = {
      {"sealed", sealed, true},
      {"of another", of_another, false},
      {"direct",
       plain("d", "cGF5IGV2ZQ==", from_bob(member + R"(,"targetSpec":")" + self_.hex + "\""),
             false),
       false},
      {"many", plain("m", "aGk=", from_bob(member + R"(,"targetSpec":"*")")), false},
      {"closed", plain("c", "aGk=", from_bob(member + R"(,"targetSpec":")" + self_.hex + "\"")),
       false},
      {"session", push("t", "hi"), false},
  };
  for (const auto& each : rows) {
    SCOPED_TRACE(each.id);
    const ConnRef stream = get("/v1/events");
    frame(each.frame);
    EXPECT_EQ(count(EffectKind::kStreamWrite, "\"unattested\":true") == 0, each.attested);
    const std::string text = inbox("limit=1&mark_seen=false");
    EXPECT_EQ(has(text, "\"unattested\":true"), !each.attested) << text;
    EXPECT_EQ(field(text, "sender_pubkey"), bob_.hex);
    core_->on_http_closed(stream);
  }
}

TEST_F(DaemonInbox, a_name_that_is_bound_to_another_key_is_shown_as_a_conflict) {
  link_down();
  connect({peer(bob_, "Bob")});
  const auto conflict = [&](const std::string& members) {
    static int serial = 0;
    const ConnRef stream = get("/v1/events");
    frame(plain("n" + std::to_string(++serial), "aGk=", members + R"(,"targetSpec":"*")"));
    const bool told = count(EffectKind::kStreamWrite, "\"name_conflict\":true") != 0;
    EXPECT_EQ(has(inbox("limit=1&mark_seen=false"), "\"name_conflict\":true"), told);
    core_->on_http_closed(stream);
    return told;
  };
  const std::string eve = R"("senderPubkey":")" + eve_.hex + R"(","senderName":"bob")";
  EXPECT_FALSE(conflict(eve)) << "nobody used the name yet";
  EXPECT_EQ(send("bob", "id"), 202u);
  EXPECT_TRUE(conflict(eve));
  EXPECT_TRUE(conflict(R"("senderPubkey":"webhook:x","senderName":"BOB")"));
  EXPECT_FALSE(conflict(from_bob(R"("senderName":"bob")")));
  EXPECT_FALSE(conflict(R"("senderPubkey":")" + eve_.hex + R"(","senderName":"eve")"));
  const Member session = Member::make();
  EXPECT_FALSE(conflict(R"("senderPubkey":")" + session.hex + R"(","senderMemberPubkey":")" +
                        bob_.hex + R"(","senderName":"bob")"))
      << "a session of bob, as the broker says";
  start();
  connect({});
  EXPECT_TRUE(conflict(eve)) << "also after a restart";
}

TEST_F(DaemonInbox, a_name_whose_binding_was_not_stored_is_no_conflict) {
  link_down();
  connect({peer(bob_, "Bob")});
  parts_.commit_fails = true;
  EXPECT_EQ(send("bob", "id"), 507u);
  parts_.commit_fails = false;
  run();
  frame(plain(
      "e", "aGk=", R"("senderPubkey":")" + eve_.hex + R"(","senderName":"bob","targetSpec":"*")"));
  EXPECT_FALSE(has(inbox(), "name_conflict"));
}

TEST_F(DaemonInbox, a_listing_stays_below_what_a_client_reads_and_marks_only_what_it_shows) {
  const std::string body(700'000, '\x01');
  TextBuf sealed(parts_.scratch, 1'000'000);
  crypto::base64_append(as_bytes(std::string_view(body)), sealed);
  const std::string ciphertext(sealed.view());
  for (const char* id : {"a", "b", "c"}) {
    frame(plain(id, ciphertext, from_bob(R"("targetSpec":"*")")));
  }
  std::string text = inbox("unread_only=true");
  EXPECT_LE(text.size(), 10u << 20);
  EXPECT_EQ(field(text, "marked_seen"), "2");
  EXPECT_TRUE(has(text, "\"truncated\":true"));
  text = inbox("unread_only=true");
  EXPECT_EQ(field(text, "client_message_id"), "a");
  EXPECT_FALSE(has(text, "truncated"));
}

TEST_F(DaemonInbox, a_body_that_fits_into_no_listing_does_not_hide_those_behind_it) {
  frame(plain("small", "aGk=", from_bob(R"("targetSpec":"*")")));
  const std::string body(2'000'000, '\x01');
  TextBuf sealed(parts_.scratch, 3'000'000);
  crypto::base64_append(as_bytes(std::string_view(body)), sealed);
  frame(plain("large", std::string(sealed.view()), from_bob(R"("targetSpec":"*")")));
  const std::string text = inbox("unread_only=true");
  EXPECT_LE(text.size(), 10u << 20);
  EXPECT_TRUE(has(text, "\"body\":null,\"body_missing\":\"it has 2000000 bytes")) << text.size();
  EXPECT_TRUE(has(text, "\"client_message_id\":\"small\""));
  EXPECT_EQ(field(text, "marked_seen"), "1") << "nobody saw the body";
}

TEST_F(DaemonInbox, optional_fields_that_cannot_be_used_do_not_keep_a_message_out) {
  const std::string long_text(4'000, 'x');
  const struct {
    const char* id;
    std::string members;
    const char* name;
    const char* value;  // as the inbox shows it
  } rows[] = {
      {"b1", R"("client_message_id":"retry 1")", "client_message_id", "b1"},
      {"b2", R"("client_message_id":7)", "client_message_id", "b2"},
      {"b3", R"("client_message_id":")" + long_text + "\"", "client_message_id", "b3"},
      {"b4", R"("senderName":")" + long_text + "\"", "sender_name", nullptr},
      {"b5", R"("senderName":"a\u202eb")", "sender_name", nullptr},
      {"b6", R"("senderName":["x"])", "sender_name", nullptr},
      {"b7", R"("replyToId":")" + long_text + "\"", "reply_to_id", "null"},
      {"b8", R"("request_fingerprint":"zz","senderMemberPubkey":"zz","senderMemberId":{})", "body",
       "hi"},
      {"b9", R"("priority":9,"bodyVersion":"x","meshId":7,"createdAt":7,"event":7)", "body", "hi"},
      {"b10", R"("topic":7,"subtype":[])", "topic", "null"},
  };
  for (const auto& each : rows) {
    SCOPED_TRACE(each.id);
    frame(R"({"type":"push","messageId":")" + std::string(each.id) +
          R"(","ciphertext":"aGk=","targetSpec":"*",)" + from_bob(each.members) + "}");
    EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
    const std::string text = inbox("limit=1&mark_seen=false");
    EXPECT_EQ(field(text, "broker_message_id"), each.id);
    EXPECT_EQ(field(text, each.name),
              each.value != nullptr ? std::string(each.value) : bob_.hex.substr(0, 8));
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonInvalidInbound), 0u);
}

TEST_F(DaemonInbox, a_nonce_that_cannot_be_used_keeps_a_direct_message_closed) {
  int serial = 0;
  for (const std::string& nonce : {std::string("7"), "\"" + std::string(400, 'A') + "\""}) {
    frame(R"({"type":"push","messageId":"x)" + std::to_string(++serial) + R"(","nonce":)" + nonce +
          R"(,"ciphertext":"aGk=","targetSpec":")" + self_.hex + "\"," + from_bob() + "}");
    EXPECT_TRUE(has(inbox("limit=1&mark_seen=false"), "\"body\":null")) << nonce;
  }
}

TEST_F(DaemonInbox, a_push_without_a_usable_id_or_sender_is_malformed) {
  for (const char* members :
       {R"("messageId":"","senderPubkey":"x")", R"("messageId":7,"senderPubkey":"x")",
        R"("messageId":"x")", R"("messageId":"x","senderPubkey":"")"}) {
    EXPECT_FALSE(core_->on_link_frame(links_[0], R"({"type":"push",)" + std::string(members) + "}"))
        << members;
    run();
  }
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
}

TEST_F(DaemonInbox, an_echo_is_acked_and_not_kept_and_mail_of_ones_own_sessions_is_kept) {
  const std::string own_member = R"("senderMemberPubkey":")" + self_.hex + "\"";
  const Member session = Member::make();
  const std::string echoes[] = {
      plain("a", "aGk=", R"("senderPubkey":")" + self_.hex + R"(","targetSpec":"*")"),
      plain("b",
            "aGk=", R"("senderPubkey":")" + session.hex + R"(","targetSpec":"#T",)" + own_member),
      plain("c", "aGk=", R"("senderPubkey":")" + session.hex + "\"," + own_member)};
  for (const std::string& echo : echoes) {
    frame(echo);
    EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  }
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonEcho), 3u);
  frame(plain("d", "aGk=",
              R"("senderPubkey":")" + session.hex + R"(","targetSpec":")" + self_.hex + "\"," +
                  own_member));
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
}

TEST_F(DaemonInbox, a_listing_can_be_narrowed_by_every_field) {
  frame(plain("a", "aGk=", from_bob(R"("targetSpec":"#T1")")));
  parts_.advance(10'000);
  frame(plain("b", "aGk=", R"("senderPubkey":")" + eve_.hex + R"(","targetSpec":"*")"));
  parts_.advance(10'000);
  frame(plain("c", "aGk=", from_bob(R"("targetSpec":"*")")));
  const std::string middle = "2023-11-14T22:13:30";
  const struct {
    std::string query;
    std::size_t items;
  } rows[] = {{"", 3},
              {"limit=2", 2},
              {"from=" + bob_.hex, 2},
              {"topic=T1", 1},
              {"topic=", 2},
              {"since=" + middle + "Z", 2},
              {"before=" + middle + ".000Z", 1},
              {"since=" + middle + "Z&before=" + middle + ".001Z", 1},
              {"mesh=crew", 3},
              {"mesh=mesh0&from=" + eve_.hex, 1},
              {"mesh=%20", 3}};
  for (const auto& each : rows) {
    EXPECT_EQ(items(each.query + (each.query.empty() ? "" : "&") + "mark_seen=false"), each.items)
        << each.query;
  }
  EXPECT_EQ(items("limit=1"), 1u);
  EXPECT_EQ(items("unread_only=true&mark_seen=false"), 2u);
}

TEST_F(DaemonInbox, a_limit_outside_of_its_range_becomes_the_nearest_one) {
  for (const char* id : {"a", "b", "c"}) frame(plain(id, "aGk=", from_bob(R"("targetSpec":"*")")));
  const struct {
    const char* limit;
    std::size_t items;
  } rows[] = {{"0", 1},
              {"-7", 1},
              {"2", 2},
              {"1001", 3},
              {"99999999999999999999999", 3},
              {"-99999999999999999999999", 1},
              {"007", 3}};
  for (const auto& each : rows) {
    EXPECT_EQ(items("mark_seen=false&limit=" + std::string(each.limit)), each.items) << each.limit;
  }
  for (const char* id : {"x", "y"}) EXPECT_EQ(send(bob_.hex, id), 202u);
  for (const char* limit : {"0", "501"}) {
    EXPECT_EQ(status(get("/v1/outbox", "limit=" + std::string(limit))), 200u);
    EXPECT_EQ(has(reply_, "\"client_message_id\":\"x\""), std::string(limit) == "501");
  }
}

TEST_F(DaemonInbox, pages_of_rows_that_came_in_one_instant_follow_one_another_without_a_gap) {
  for (int number = 0; number < 5; ++number) {
    frame(plain("m" + std::to_string(number), "aGk=", from_bob(R"("targetSpec":"*")")));
  }
  std::string query = "limit=2&mark_seen=false&from=" + bob_.hex;
  std::vector<std::string> seen;
  for (int page = 0; page < 3; ++page) {
    const std::string text = inbox(query);
    for (std::size_t at = 0; (at = text.find("\"client_message_id\":\"", at)) != std::string::npos;
         ++at) {
      seen.push_back(text.substr(at + 21, 2));
    }
    if (page == 2) break;
    ASSERT_TRUE(next().starts_with("/v1/inbox?limit=2&mark_seen=false&from=")) << next();
    query = next().substr(std::string_view("/v1/inbox?").size());
  }
  EXPECT_EQ(next(), "");
  EXPECT_EQ(seen, (std::vector<std::string>{"m4", "m3", "m2", "m1", "m0"}));
  EXPECT_EQ(items("limit=5&mark_seen=false"), 5u);
  EXPECT_EQ(next(), "") << "there is no row behind";
}

TEST_F(DaemonInbox, a_listing_that_is_cut_for_its_size_names_the_next_page) {
  const std::string body(700'000, '\x01');
  TextBuf sealed(parts_.scratch, 1'000'000);
  crypto::base64_append(as_bytes(std::string_view(body)), sealed);
  const std::string ciphertext(sealed.view());
  for (const char* id : {"a", "b", "c"}) {
    frame(plain(id, ciphertext, from_bob(R"("targetSpec":"*")")));
  }
  EXPECT_TRUE(has(inbox(), "\"truncated\":true"));
  const std::string target = next();
  ASSERT_TRUE(target.starts_with("/v1/inbox?mark_seen=false&cursor=")) << target;
  EXPECT_EQ(field(inbox(target.substr(std::string_view("/v1/inbox?").size())), "client_message_id"),
            "a");
  EXPECT_EQ(next(), "");
}

TEST_F(DaemonInbox, pages_of_the_outbox_follow_one_another) {
  for (const char* id : {"x", "y", "z"}) EXPECT_EQ(send(bob_.hex, id), 202u);
  EXPECT_EQ(status(get("/v1/outbox", "limit=2&mesh=crew")), 200u);
  const std::string target = next();
  ASSERT_TRUE(target.starts_with("/v1/outbox?limit=2&mesh=crew&cursor=")) << target;
  EXPECT_EQ(status(get("/v1/outbox", target.substr(std::string_view("/v1/outbox?").size()))), 200u);
  EXPECT_EQ(field(reply_, "client_message_id"), "x");
  EXPECT_EQ(next(), "");
}

TEST_F(DaemonInbox, rows_are_marked_as_seen_once_and_only_ours) {
  frame(plain("a", "aGk=", from_bob(R"("targetSpec":"*")")));
  const std::string id = field(inbox(), "id");
  const auto seen = [&](const std::string& ids) {
    EXPECT_EQ(status(http("POST", "/v1/inbox/seen", {}, R"({"ids":[)" + ids + "]}")), 200u);
    return field(reply_, "marked_seen");
  };
  EXPECT_EQ(seen(""), "0");
  EXPECT_EQ(seen(R"("nonsense","01HF7YAT004PAWGVPCP0AKB5SV")"), "0");
  EXPECT_EQ(seen("\"" + id + "\",\"" + id + "\""), "1");
  EXPECT_EQ(seen("\"" + id + "\""), "0");
  EXPECT_EQ(items("unread_only=true"), 0u);
  std::string many;
  for (int number = 0; number < 1'001; ++number) many += (number == 0 ? "\"x\"" : ",\"x\"");
  EXPECT_EQ(status(http("POST", "/v1/inbox/seen", {}, R"({"ids":[)" + many + "]}")), 400u);
}

TEST_F(DaemonInbox, one_row_is_deleted_and_a_redelivery_stays_a_duplicate) {
  const std::string text = plain("a", "aGk=", from_bob(R"("targetSpec":"*")"));
  frame(text);
  const std::string id = field(inbox(), "id");
  EXPECT_EQ(status(http("DELETE", "/v1/inbox/" + id)), 200u);
  EXPECT_EQ(reply_, R"({"removed":1,"id":")" + id + "\"}");
  EXPECT_EQ(status(http("DELETE", "/v1/inbox/" + id)), 404u);
  EXPECT_EQ(status(http("DELETE", "/v1/inbox/nonsense")), 404u);
  frame(text);
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
}

TEST_F(DaemonInbox, only_what_a_filter_names_is_deleted) {
  const auto fill = [&] {
    static int serial = 0;
    for (const char* more : {R"("targetSpec":"#T1")", R"("targetSpec":"*")"}) {
      frame(plain("m" + std::to_string(++serial), "aGk=", from_bob(more)));
    }
    parts_.advance(10'000);
    frame(plain("m" + std::to_string(++serial),
                "aGk=", R"("senderPubkey":")" + eve_.hex + R"(","targetSpec":"*")"));
  };
  const struct {
    std::string query;
    const char* removed;
  } rows[] = {{"topic=T1", "1"},
              {"from=" + eve_.hex, "1"},
              {"before=2023-11-14T22:13:20Z", "0"},
              {"mesh=crew&topic=T1&from=" + eve_.hex, "0"},
              {"mesh=crew", "3"},
              {"from=" + upper(eve_.hex), "1"},
              {"all=true", "3"},
              {"", "3"}};
  for (const auto& each : rows) {
    SCOPED_TRACE(each.query);
    EXPECT_EQ(finish(http("DELETE", "/v1/inbox", "all=true")), 200u);
    fill();
    EXPECT_EQ(finish(http("DELETE", "/v1/inbox", each.query)), 200u);
    EXPECT_EQ(field(reply_, "removed"), each.removed);
  }
}

TEST_F(DaemonInbox, many_rows_are_deleted_in_batches_and_a_failed_one_is_done_again) {
  for (int number = 0; number < 1'200; ++number) {
    EXPECT_TRUE(core_->on_link_frame(
        links_[0], plain("m" + std::to_string(number), "aGk=", from_bob(R"("targetSpec":"*")"))));
  }
  run();
  ASSERT_EQ(parts_.count(TableId::kInbox), 1'200u);
  const ConnRef conn = http("DELETE", "/v1/inbox", "all=true");
  EXPECT_EQ(parts_.count(TableId::kInbox), 700u);
  EXPECT_EQ(status(conn), 0u);
  parts_.commit_fails = true;
  EXPECT_FALSE(run());
  parts_.commit_fails = false;
  EXPECT_EQ(parts_.count(TableId::kInbox), 700u);
  EXPECT_EQ(finish(conn), 200u);
  EXPECT_EQ(field(reply_, "removed"), "1200");
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
  EXPECT_EQ(parts_.count(TableId::kInboxKey), 1'200u);
}

TEST_F(DaemonInbox, what_comes_after_the_request_is_not_deleted_by_it) {
  const std::string queries[] = {"all=true", "mesh=crew", "from=" + bob_.hex, "topic=T1"};
  int serial = 0;
  for (const std::string& query : queries) {
    SCOPED_TRACE(query);
    const auto arrive = [&] {
      EXPECT_TRUE(core_->on_link_frame(links_[0], plain("m" + std::to_string(++serial), "aGk=",
                                                        from_bob(R"("targetSpec":"#T1")"))));
    };
    for (int number = 0; number < 600; ++number) arrive();
    run();
    const ConnRef conn = http("DELETE", "/v1/inbox", query);
    EXPECT_EQ(status(conn), 0u);
    arrive();
    run();
    EXPECT_EQ(finish(conn), 200u);
    EXPECT_EQ(field(reply_, "removed"), "600");
    EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
    finish(http("DELETE", "/v1/inbox", "all=true"));
  }
}

TEST_F(DaemonInbox, deletions_that_wait_are_few_and_those_of_who_left_are_dropped) {
  for (int number = 0; number < 600; ++number) {
    EXPECT_TRUE(core_->on_link_frame(
        links_[0], plain("m" + std::to_string(number), "aGk=", from_bob(R"("targetSpec":"*")"))));
  }
  run();
  std::vector<ConnRef> conns;
  wire::HttpRequest request = request_of("DELETE", "/v1/inbox", "all=true", {});
  request.peer_is_unix = true;
  for (int index = 0; index < 9; ++index) {
    conns.push_back({next_conn_++, 1});
    core_->on_http(conns.back(), request);
  }
  run();
  EXPECT_EQ(status(conns[8]), 429u);
  EXPECT_EQ(field(reply_, "error"), "daemon_busy");
  for (std::size_t index = 1; index < 8; ++index) core_->on_http_closed(conns[index]);
  EXPECT_EQ(core_->tables().purges.size(), 1u);
  core_->on_http_closed(conns[0]);
  EXPECT_EQ(core_->tables().purges.size(), 1u) << "it has begun: it is finished";
  finish({});
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
}

TEST_F(DaemonInbox, rows_older_than_thirty_days_go_at_start_and_every_hour) {
  frame(plain("old", "aGk=", from_bob(R"("targetSpec":"*")")));
  parts_.advance(29 * kDayMs);
  frame(plain("new", "aGk=", from_bob(R"("targetSpec":"*")")));
  EXPECT_EQ(parts_.count(TableId::kInbox), 2u);
  later(kDayMs + 1);
  finish({});
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  EXPECT_EQ(field(inbox(), "client_message_id"), "new");
  parts_.advance(31 * kDayMs);
  start();
  finish({});
  EXPECT_EQ(parts_.count(TableId::kInbox), 0u);
  EXPECT_EQ(parts_.count(TableId::kInboxKey), 2u) << "the keys outlive their rows";
  EXPECT_LE(core_->next_deadline(), parts_.env.mono_ms + 3'600'000);
}

TEST_F(DaemonInbox, a_failed_commit_closes_only_links_that_had_a_part_in_it) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  EXPECT_EQ(send(bob_.hex, "flying", "hi", R"(,"mesh":"other")"), 202u);
  ASSERT_EQ(sends(), (Texts{"flying"}));
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0], plain("a", "aGk=", from_bob())));
  EXPECT_FALSE(run());
  parts_.commit_fails = false;
  ASSERT_EQ(count(EffectKind::kLinkClose), 1u);
  for (const Done& done : done_) {
    if (done.kind == EffectKind::kLinkClose) {
      EXPECT_TRUE(done.link == links_[0]);
    }
  }
  run();
  EXPECT_TRUE(sends().empty()) << "what is in flight there is answered there";
  good_ack("flying", 1);
  EXPECT_EQ(row("flying")->status, store::OutboxStatus::kDone);
}

}  // namespace
}  // namespace cm::daemon
