// ipc_send_test.cc — the body of POST /v1/send: every field's rules, and the id in two places.
// Source: spec/ipc.md §5, design/delivery.md "Ids".
// Not:    whom a target names (core/daemon).
#include <gtest/gtest.h>

#include <string>

#include "core/wire/ipc_send.h"

namespace cm::wire {
namespace {

using std::string_view_literals::operator""sv;

class IpcSend : public testing::Test {
 protected:
  Status parse(std::string_view body, std::string_view header = {}) {
    return parse_send_request(parser_, body, header, scratch_, request_);
  }
  void expect_refused(std::string_view body, std::string_view field) {
    const Status status = parse(body);
    EXPECT_EQ(status.code(), Err::kMalformed) << body;
    if (status) return;
    EXPECT_NE(status.error().detail.find("'" + std::string(field) + "'"), std::string::npos)
        << status.error().detail << " for " << body;
  }

  JsonParser parser_;
  ScratchArena scratch_;
  SendRequest request_;
};

TEST_F(IpcSend, all_fields_are_read) {
  ASSERT_TRUE(
      parse(R"({"to":" ann ","message":"hi é","priority":"now","meta":{"b":1.50,"a":"x"},)"
            R"("reply_to_id":"m1","client_message_id":" c-1 ","mesh":"demo","unknown":[]})"));
  EXPECT_EQ(request_.to, "ann");
  EXPECT_EQ(request_.message, "hi \xc3\xa9");
  EXPECT_EQ(request_.priority, Priority::kNow);
  EXPECT_EQ(request_.meta_jcs, R"({"a":"x","b":1.5})");
  EXPECT_EQ(request_.reply_to, "m1");
  EXPECT_EQ(request_.client_message_id, "c-1");
  EXPECT_EQ(request_.mesh, "demo");
}

TEST_F(IpcSend, optional_fields_have_defaults_and_nothing_stays_of_the_last_request) {
  ASSERT_TRUE(parse(R"({"to":"a","message":"m","priority":"low","meta":{"k":1},"mesh":"x",)"
                    R"("client_message_id":"c","reply_to_id":"r"})"));
  ASSERT_TRUE(parse(R"({"to":"b","message":"n","meta":null,"priority":null})"));
  EXPECT_EQ(request_.priority, Priority::kNext);
  EXPECT_TRUE(request_.meta_jcs.empty() && request_.mesh.empty() && request_.reply_to.empty());
  EXPECT_TRUE(request_.client_message_id.empty());
}

TEST_F(IpcSend, bad_fields_are_named) {
  const std::string long_text(257, 'a');
  const struct {
    std::string body;
    const char* field;
  } kCases[] = {
      {R"({"message":"m"})", "to"},
      {R"({"to":null,"message":"m"})", "to"},
      {R"({"to":7,"message":"m"})", "to"},
      {R"({"to":"","message":"m"})", "to"},
      {R"({"to":" \t ","message":"m"})", "to"},
      {R"({"to":"a\u0007b","message":"m"})", "to"},
      {R"({"to":"a\u0000","message":"m"})", "to"},
      {R"({"to":")" + long_text + R"(","message":"m"})", "to"},
      {R"({"to":"a"})", "message"},
      {R"({"to":"a","message":""})", "message"},
      {R"({"to":"a","message":["m"]})", "message"},
      {R"({"to":"a","message":"m","priority":"soon"})", "priority"},
      {R"({"to":"a","message":"m","priority":"NOW"})", "priority"},
      {R"({"to":"a","message":"m","priority":1})", "priority"},
      {R"({"to":"a","message":"m","meta":[]})", "meta"},
      {R"({"to":"a","message":"m","meta":"x"})", "meta"},
      {R"({"to":"a","message":"m","reply_to_id":1})", "reply_to_id"},
      {R"({"to":"a","message":"m","reply_to_id":"a\nb"})", "reply_to_id"},
      {R"({"to":"a","message":"m","reply_to_id":")" + long_text + "\"}", "reply_to_id"},
      {R"({"to":"a","message":"m","client_message_id":"a b"})", "client_message_id"},
      {R"({"to":"a","message":"m","client_message_id":"\u00e9"})", "client_message_id"},
      {R"({"to":"a","message":"m","client_message_id":{}})", "client_message_id"},
      {R"({"to":"a","message":"m","client_message_id":")" + std::string(129, 'a') + "\"}",
       "client_message_id"},
      {R"({"to":"a","message":"m","mesh":false})", "mesh"},
      {R"({"to":"a","message":"m","mesh":")" + long_text + "\"}", "mesh"},
  };
  for (const auto& each : kCases) expect_refused(each.body, each.field);
}

TEST_F(IpcSend, what_is_no_object_is_refused) {
  for (const std::string_view body :
       {""sv, "[]"sv, "1"sv, "\"to\""sv, "null"sv, "{"sv, R"({"to":"a","message":"m"}x)"sv,
        R"({"to":"a","to":"b","message":"m"})"sv}) {
    EXPECT_EQ(parse(body).code(), Err::kMalformed) << body;
  }
}

TEST_F(IpcSend, a_body_cut_at_any_byte_is_refused) {
  constexpr std::string_view kWhole =
      R"({"to":"a","message":"m\u00e9","meta":{"k":[1,2]},"client_message_id":"c"})";
  ASSERT_TRUE(parse(kWhole));
  for (std::size_t size = 0; size < kWhole.size(); ++size) {
    EXPECT_EQ(parse(kWhole.substr(0, size)).code(), Err::kMalformed) << size;
  }
}

TEST_F(IpcSend, the_header_gives_the_id_when_the_body_has_none) {
  ASSERT_TRUE(parse(R"({"to":"a","message":"m"})", " c-9 "));
  EXPECT_EQ(request_.client_message_id, "c-9");
  ASSERT_TRUE(parse(R"({"to":"a","message":"m","client_message_id":"c-9"})", "c-9"));
  EXPECT_EQ(request_.client_message_id, "c-9");
}

TEST_F(IpcSend, two_different_ids_are_refused_and_both_places_named) {
  const Status status = parse(R"({"to":"a","message":"m","client_message_id":"c-1"})", "c-2");
  ASSERT_EQ(status.code(), Err::kInvalidArgument);
  EXPECT_NE(status.error().detail.find("Idempotency-Key"), std::string::npos);
  EXPECT_NE(status.error().detail.find("client_message_id"), std::string::npos);
}

TEST_F(IpcSend, an_unprintable_header_is_refused) {
  EXPECT_EQ(parse(R"({"to":"a","message":"m"})", "a b").code(), Err::kMalformed);
  EXPECT_EQ(parse(R"({"to":"a","message":"m"})", "\xc3\xa9").code(), Err::kMalformed);
  EXPECT_EQ(parse(R"({"to":"a","message":"m"})", std::string(129, 'a')).code(), Err::kMalformed);
}

TEST_F(IpcSend, equal_meta_has_one_canonical_text) {
  ASSERT_TRUE(parse(R"({"to":"a","message":"m","meta":{"b":[1e2, 2],"\u0061":null}})"));
  const std::string first(request_.meta_jcs);
  ASSERT_TRUE(parse(R"({"to":"a","message":"m","meta":{"a":null,"b":[100,2.0]}})"));
  EXPECT_EQ(request_.meta_jcs, first);
}

}  // namespace
}  // namespace cm::wire
