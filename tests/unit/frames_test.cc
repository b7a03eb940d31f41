// frames_test.cc — every frame: good forms, bad input for every field, and round trips.
// Holds:  each bad input gives kMalformed with the field's name in the detail.
// Source: spec/wire.md §1, §2, §5; spec/observed.md for what the reference broker sends.
// Not:    JSON itself (json_test.cc).
#include <gtest/gtest.h>

#include <cstdio>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "core/base/time_text.h"
#include "core/crypto/encoding.h"
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

using std::string_view_literals::operator""sv;

#define CM_KEY "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
#define CM_ID "Msg00000000000000000000000000001"
#define CM_NONCE "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
constexpr std::string_view kKeyHex = CM_KEY;

class Frames : public testing::Test {
 protected:
  const ClientFrame& frame(std::string_view text) {
    const Status status =
        parse_client_frame(parser_, scratch_.copy(text), scratch_, frames_.emplace_back());
    EXPECT_TRUE(status) << status.error().detail << " for " << text;
    return frames_.back();
  }
  template <class T, class Write>
  std::string written(const T& value, Write write) {
    TextBuf out(scratch_);
    write(value, out);
    return std::string(out.view());
  }

  JsonParser parser_;
  ScratchArena scratch_;
  std::deque<ClientFrame> frames_;
};

// --- the head of every frame ---

TEST_F(Frames, a_frame_has_a_type_and_may_have_a_correlation) {
  EXPECT_EQ(frame(R"({"type":"x"})").type, "x");
  EXPECT_EQ(frame(R"({"type":"x"})").request_id, "");
  EXPECT_EQ(frame(R"({"type":"x","_reqId":"pl-1","more":{"a":[]}})").request_id, "pl-1");
  EXPECT_EQ(frame(R"({"type":"x","_reqId":null})").request_id, "");
}

TEST_F(Frames, a_bad_head_is_refused) {
  const std::string longer = std::string(129, 'a');
  for (const auto& [text, named] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "object"},
           {"\"x\"", "object"},
           {"null", "object"},
           {"{}", "'type'"},
           {R"({"type":1})", "'type'"},
           {R"({"type":null})", "'type'"},
           {R"({"type":""})", "'type'"},
           {"{\"type\":\"" + longer + "\"}", "'type'"},
           {R"({"type":"x","_reqId":5})", "'_reqId'"},
           {"{\"type\":\"x\",\"_reqId\":\"" + longer + "\"}", "'_reqId'"}}) {
    ClientFrame bad;
    const Status status = parse_client_frame(parser_, text, scratch_, bad);
    ASSERT_EQ(status.code(), Err::kMalformed) << text;
    EXPECT_NE(status.error().detail.find(named), std::string::npos) << status.error().detail;
  }
}

// --- bad input, field by field ---

enum class Rule : std::uint8_t {
  kText,       // any string
  kShown,      // without hidden characters
  kNoControl,  // without C0 controls
  kBrokerId,
  kClientId,
  kKey,
  kHash,
  kInteger,
  kBool,
};

struct FieldCase {
  const char* name;
  Rule rule;
  std::size_t max;  // bytes; 0: bounded by its rule alone
  bool required;
};

struct FrameCase {
  const char* base;  // a good frame that holds every field below
  std::function<Status(const ClientFrame&)> parse;
  std::vector<FieldCase> fields;
};

// The source range of a member's value in a flat object.
std::string with_value(const std::string& base, const std::string& key, const std::string& value) {
  const std::string mark = "\"" + key + "\":";
  const std::size_t at = base.find(mark);
  EXPECT_NE(at, std::string::npos) << key << " is not in " << base;
  const std::size_t from = at + mark.size();
  std::size_t to = from;
  bool quoted = false;
  for (; quoted || (base[to] != ',' && base[to] != '}'); ++to) quoted ^= base[to] == '"';
  return base.substr(0, from) + value + base.substr(to);
}

std::string without(const std::string& base, const std::string& key) {
  const std::size_t at = base.find("\"" + key + "\":");
  return base.substr(0, at) + "\"" + key + "_\":" + base.substr(at + key.size() + 3);
}

std::vector<std::string> bad_values(const FieldCase& field) {
  const auto quoted = [](const std::string& text) { return "\"" + text + "\""; };
  if (field.rule == Rule::kInteger) {
    return {"\"1\"", "1.5", "-1", "1e3", "99999999999999999999", "true", "[]", "{}"};
  }
  if (field.rule == Rule::kBool) return {"0", "\"true\"", "[]", "{}"};
  std::vector<std::string> bad = {"7", "true", "[\"a\"]", "{}"};
  if (field.max != 0) bad.push_back(quoted(std::string(field.max + 1, 'a')));
  if (field.required) bad.push_back("\"\"");
  switch (field.rule) {
    case Rule::kShown:
      for (const char* hidden : {"\\u0000", "\\u001b", "\\u007f", "\\u0085", "\\u200b", "\\u200f",
                                 "\\u2028", "\\u202e", "\\u2066", "\\ufeff", "\\u061c"}) {
        bad.push_back(quoted(std::string("a") + hidden));
      }
      break;
    case Rule::kNoControl:
      for (const char* control : {"\\u0000", "\\n", "\\u001f", "\\u007f"}) {
        bad.push_back(quoted(std::string("a") + control));
      }
      break;
    case Rule::kBrokerId:
      for (const char* text : {"a-b", "a b", "\\u00e9", "a/b", "a\\u0000"})
        bad.push_back(quoted(text));
      break;
    case Rule::kClientId:
      for (const char* text : {"a b", "\\u00e9", "a\\n", "\\u007f", "a\\u0000"}) {
        bad.push_back(quoted(text));
      }
      break;
    case Rule::kKey:
      bad.push_back(quoted("03A107BFF3CE10BE1D70DD18E74BC09967E4D6309BA50D5F1DDC8664125531B8"));
      [[fallthrough]];
    case Rule::kHash:
      bad.push_back(quoted(std::string(63, 'a')));
      bad.push_back(quoted(std::string(64, 'g')));
      bad.push_back(quoted(std::string(65, 'a')));
      break;
    default: break;
  }
  return bad;
}

std::vector<FrameCase> frame_cases() {
  static Hello hello;
  static Send send;
  static ClientAck client_ack;
  static HelloAck hello_ack;
  static Ack ack;
  static Push push;
  static ErrorFrame error;
  return {
      {R"({"type":"hello","meshId":"M","memberId":"m","pubkey":"k","sessionPubkey":"s",)"
       R"("sessionId":"i","pid":1,"cwd":"/","hostname":"h","peerType":"ai","channel":"c",)"
       R"("model":"x","displayName":"n","timestamp":1,"signature":"s"})",
       [](const ClientFrame& frame) { return parse_hello(frame, hello); },
       {{"meshId", Rule::kText, kTargetMax, true},
        {"memberId", Rule::kText, kTargetMax, true},
        {"pubkey", Rule::kText, kTargetMax, true},
        {"signature", Rule::kText, kTargetMax, true},
        {"sessionPubkey", Rule::kText, kTargetMax, false},
        {"sessionId", Rule::kShown, kSessionIdMax, true},
        {"displayName", Rule::kText, kDisplayNameMax, false},
        {"cwd", Rule::kText, kPathMax, false},
        {"hostname", Rule::kText, kLabelMax, false},
        {"peerType", Rule::kText, kLabelMax, false},
        {"channel", Rule::kText, kLabelMax, false},
        {"model", Rule::kText, kLabelMax, false},
        {"pid", Rule::kInteger, 0, false}}},
      {R"({"type":"send","id":"i","client_message_id":"c","request_fingerprint":")" CM_KEY
       R"(","targetSpec":"t","priority":"now","nonce":")" CM_NONCE
       R"(","ciphertext":"aGk=","replyToId":"r"})",
       [](const ClientFrame& frame) { return parse_send(frame, send); },
       {{"id", Rule::kText, kRequestIdMax, false},
        {"client_message_id", Rule::kClientId, kClientIdMax, false},
        {"request_fingerprint", Rule::kHash, 0, false},
        {"targetSpec", Rule::kNoControl, kTargetMax, true},
        {"priority", Rule::kText, 8, true},
        {"nonce", Rule::kText, kNonceTextMax, false},
        {"replyToId", Rule::kNoControl, kReplyToMax, false}}},
      {R"({"type":"client_ack","clientMessageId":"c","brokerMessageId":"b"})",
       [](const ClientFrame& frame) { return parse_client_ack(frame, client_ack); },
       {{"clientMessageId", Rule::kText, kClientIdMax, false},
        {"brokerMessageId", Rule::kText, kRequestIdMax, false}}},
      {R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"n"})",
       [](const ClientFrame& frame) { return parse_hello_ack(frame, hello_ack); },
       {{"presenceId", Rule::kBrokerId, kBrokerIdMax, true},
        {"memberDisplayName", Rule::kText, kDisplayNameMax, false}}},
      {R"({"type":"ack","id":"i","messageId":"m","queued":true,"duplicate":true,)"
       R"("history_available":false,"first_seen_at":"2026-01-02T03:04:05.678Z",)"
       R"("recipient":"offline","error":"e","code":"c","conflict":"x",)"
       R"("broker_fingerprint_prefix":"0123456789abcdef"})",
       [](const ClientFrame& frame) { return parse_ack(frame, ack); },
       {{"id", Rule::kText, kRequestIdMax, false},
        {"messageId", Rule::kText, kRequestIdMax, false},
        {"queued", Rule::kBool, 0, false},
        {"duplicate", Rule::kBool, 0, false},
        {"history_available", Rule::kBool, 0, false},
        {"first_seen_at", Rule::kText, 40, false},
        {"recipient", Rule::kText, kLabelMax, false},
        {"error", Rule::kText, kErrorTextMax, false},
        {"code", Rule::kText, kTypeMax, false},
        {"conflict", Rule::kText, kTypeMax, false},
        {"broker_fingerprint_prefix", Rule::kText, 16, false}}},
      {R"({"type":"push","subtype":"system","event":"e","messageId":"m","meshId":"M",)"
       R"("senderPubkey":"k","senderMemberPubkey":")" CM_KEY
       R"(","senderMemberId":"s","senderName":"n","targetSpec":"t","priority":"now",)"
       R"("nonce":"n","ciphertext":"c","createdAt":"2026-01-02T03:04:05.678Z",)"
       R"("client_message_id":"c","request_fingerprint":")" CM_KEY
       R"(","topic":"t","replyToId":"r"})",
       [](const ClientFrame& frame) { return parse_push(frame, push); },
       {{"messageId", Rule::kText, kRequestIdMax, true},
        {"senderPubkey", Rule::kText, kTargetMax, true}}},
      {R"({"type":"error","code":"c","message":"m","id":"i"})",
       [](const ClientFrame& frame) { return parse_error(frame, error); },
       {{"code", Rule::kText, kTypeMax, false},
        {"message", Rule::kText, kErrorTextMax, false},
        {"id", Rule::kText, kRequestIdMax, false}}},
  };
}

TEST_F(Frames, every_field_refuses_what_is_not_its_form_and_is_named) {
  for (const FrameCase& each : frame_cases()) {
    ASSERT_TRUE(each.parse(frame(each.base))) << each.base;
    for (const FieldCase& field : each.fields) {
      for (const std::string& value : bad_values(field)) {
        const std::string text = with_value(each.base, field.name, value);
        const Status status = each.parse(frame(text));
        ASSERT_EQ(status.code(), Err::kMalformed) << text;
        EXPECT_EQ(status.error().detail.find("field '" + std::string(field.name) + "': expected "),
                  0u)
            << status.error().detail << " for " << text;
      }
    }
  }
}

TEST_F(Frames, every_field_is_read_at_its_longest) {
  for (const FrameCase& each : frame_cases()) {
    for (const FieldCase& field : each.fields) {
      if (field.max == 0 || std::string_view(field.name) == "priority") continue;
      const bool is_nonce_of_send = std::string_view(field.name) == "nonce" && each.base[9] == 's';
      if (is_nonce_of_send) continue;  // exactly 32 characters, which the base has
      const std::string value = "\"" + std::string(field.max, 'a') + "\"";
      const Status status = each.parse(frame(with_value(each.base, field.name, value)));
      EXPECT_TRUE(status) << field.name << ": " << status.error().detail;
    }
  }
}

TEST_F(Frames, required_fields_are_missed_by_name_and_optional_ones_may_be_absent_or_null) {
  for (const FrameCase& each : frame_cases()) {
    for (const FieldCase& field : each.fields) {
      for (const std::string& text :
           {without(each.base, field.name), with_value(each.base, field.name, "null")}) {
        const Status status = each.parse(frame(text));
        if (!field.required) {
          EXPECT_TRUE(status) << text << ": " << status.error().detail;
          continue;
        }
        ASSERT_EQ(status.code(), Err::kMalformed) << text;
        EXPECT_NE(status.error().detail.find("'" + std::string(field.name) + "'"),
                  std::string::npos)
            << status.error().detail;
      }
    }
  }
}

TEST_F(Frames, broken_json_in_any_field_is_refused_and_so_is_every_cut) {
  for (const FrameCase& each : frame_cases()) {
    const std::string base = each.base;
    ClientFrame bad;
    for (const FieldCase& field : each.fields) {
      for (const std::string_view value :
           {"\"\xff\""sv, "\"\xed\xa0\x80\""sv, "\"\\ud800\""sv, "\"\\udc00\""sv, "\"a\0b\""sv,
            "\"a\nb\""sv, "1e999"sv, ""sv}) {
        const std::string text = with_value(base, field.name, std::string(value));
        EXPECT_EQ(parse_client_frame(parser_, text, scratch_, bad).code(), Err::kMalformed) << text;
      }
      const std::string name = field.name;
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(name[0]));
      const std::string twice =
          base.substr(0, base.size() - 1) + ",\"" + escape + name.substr(1) + "\":\"x\"}";
      EXPECT_EQ(parse_client_frame(parser_, twice, scratch_, bad).code(), Err::kMalformed) << twice;
    }
    for (std::size_t size = 0; size < base.size(); ++size) {
      EXPECT_EQ(parse_client_frame(parser_, base.substr(0, size), scratch_, bad).code(),
                Err::kMalformed)
          << size;
    }
    for (const std::string_view behind : {"x"sv, "{}"sv, "\0"sv, "\0{}"sv}) {
      EXPECT_EQ(parse_client_frame(parser_, base + std::string(behind), scratch_, bad).code(),
                Err::kMalformed);
    }
  }
}

TEST_F(Frames, unknown_fields_are_ignored) {
  for (const FrameCase& each : frame_cases()) {
    const std::string base = each.base;
    const std::string more =
        base.substr(0, base.size() - 1) + R"(,"later":{"a":[1,{"b":null}]},"mentions":["x"]})";
    EXPECT_TRUE(each.parse(frame(more)));
  }
}

// --- rules of single frames ---

TEST_F(Frames, a_send_needs_a_priority_a_nonce_of_24_bytes_and_base64) {
  const std::string base = frame_cases()[1].base;
  Send send;
  const auto refused = [&](const char* field, const char* value) {
    const Status status = parse_send(frame(with_value(base, field, value)), send);
    EXPECT_EQ(status.code(), Err::kMalformed) << field << " " << value;
    if (status) return;
    EXPECT_NE(status.error().detail.find(field), std::string::npos);
  };
  for (const char* value : {"\"soon\"", "\"Now\"", "\"\""}) refused("priority", value);
  for (const char* value : {"\"AAAA\"", "\"AAECAwQFBgcICQoLDA0ODxAREhMUFR==\"",
                            "\"AAECAwQFBgcICQoLDA0ODxAREhMUFR_-\""}) {
    refused("nonce", value);
  }
  for (const char* value : {"null", "1", "\"a\"", "\"aGk\"", "\"aG k\"", "\"a=k=\"", "\"====\"",
                            "\"=aGk\"", "\"aG_-\"", "\"aGk=\\u0000===\""}) {
    refused("ciphertext", value);
  }
  EXPECT_TRUE(parse_send(frame(with_value(base, "nonce", "\"\"")), send));
  EXPECT_TRUE(parse_send(frame(with_value(base, "ciphertext", "\"\"")), send));
  EXPECT_TRUE(parse_send(frame(with_value(base, "ciphertext", "\"aA==\"")), send));
}

TEST_F(Frames, a_hello_with_a_bad_timestamp_is_read_and_says_so) {
  const std::string base = frame_cases()[0].base;
  Hello hello;
  for (const char* value : {"\"1\"", "null", "-1", "1.5", "1e400", "99999999999999999999"}) {
    const std::string text = with_value(base, "timestamp", value);
    ClientFrame bad;
    if (!parse_client_frame(parser_, text, scratch_, bad)) continue;  // 1e400 is no JSON number
    ASSERT_TRUE(parse_hello(bad, hello)) << value;
    EXPECT_FALSE(hello.timestamp_valid) << value;
    EXPECT_EQ(hello.timestamp_ms, 0);
  }
  ASSERT_TRUE(parse_hello(frame(base), hello));
  EXPECT_TRUE(hello.timestamp_valid);
}

TEST_F(Frames, texts_of_a_hello_lose_what_must_not_be_shown) {
  const std::string base = frame_cases()[0].base;
  const auto name = [&](const std::string& text) {
    Hello hello;
    EXPECT_TRUE(parse_hello(frame(with_value(base, "displayName", "\"" + text + "\"")), hello));
    EXPECT_TRUE(is_shown_text(hello.display_name));
    return std::string(hello.display_name);
  };
  EXPECT_EQ(name("a\\u0000\\u001b\\u007f\\u0085\\u200b\\u200f\\u2028\\u202e\\u2066\\ufeff\\u061cb"),
            "ab");
  EXPECT_EQ(name("a\\n\\tb\\r"), "a  b");
  const std::string joined = "\U0001F469\u200d\U0001F4BB \u0645\u200c\u0646";
  EXPECT_EQ(name(joined), joined);
  EXPECT_EQ(name("bo\u200db\u200c"), "bob") << "two names that look alike";
  EXPECT_EQ(name("\u200d\u00e9\u200d\u200d\u00e9\u200d"), "\u00e9\u200d\u00e9") << "one joins";
  EXPECT_EQ(name("\u00e9\u200d\u202e\u00e9"), "\u00e9\u00e9");
}

TEST_F(Frames, a_client_ack_needs_one_of_its_ids) {
  ClientAck ack;
  const Status status = parse_client_ack(frame(R"({"type":"client_ack"})"), ack);
  ASSERT_EQ(status.code(), Err::kMalformed);
  EXPECT_NE(status.error().detail.find("brokerMessageId"), std::string::npos);
  EXPECT_TRUE(parse_client_ack(frame(R"({"type":"client_ack","clientMessageId":"c"})"), ack));
  EXPECT_TRUE(parse_client_ack(frame(R"({"type":"client_ack","brokerMessageId":"b"})"), ack));
}

TEST_F(Frames, a_parser_leaves_nothing_of_the_frame_before) {
  const auto cases = frame_cases();
  Push push;
  ASSERT_TRUE(parse_push(frame(cases[5].base), push));
  ASSERT_TRUE(
      parse_push(frame(R"({"type":"push","messageId":"m","senderPubkey":"system"})"), push));
  EXPECT_TRUE(push.ciphertext.empty() && push.event_data.empty() && !push.sender_member);
  Hello hello;
  ASSERT_TRUE(parse_hello(frame(cases[0].base), hello));
  ASSERT_TRUE(parse_hello(frame(with_value(cases[0].base, "timestamp", "null")), hello));
  EXPECT_EQ(hello.timestamp_ms, 0);
}

// --- what the reference broker sends ---

TEST_F(Frames, a_hello_ack_of_the_reference_with_restored_fields) {
  HelloAck ack;
  ASSERT_TRUE(parse_hello_ack(
      frame(R"({"type":"hello_ack","presenceId":")" CM_ID R"(","memberDisplayName":"ann",)"
            R"("memberProfile":{"roleTag":null,"groups":[{"name":"a/b","role":"r"}],)"
            R"("messageMode":"push"},"meshPolicy":{"selfEditable":{"displayName":true}},)"
            R"("restored":true,"lastSummary":"s","lastSeenAt":"2026-01-02T03:04:05.678Z",)"
            R"("restoredStats":{"messagesIn":1},"services":[{"name":"x","tools":[]}]})"),
      ack));
  EXPECT_EQ(ack.presence_id, CM_ID);
  EXPECT_EQ(ack.member_display_name, "ann");
  EXPECT_EQ(ack.broker_version, "");
  TextBuf named(scratch_);
  write_hello_ack({"P1", "ann", "1.2"}, 90'000, named);
  ASSERT_TRUE(parse_hello_ack(frame(named.view()), ack));
  EXPECT_EQ(ack.broker_version, "1.2");
}

TEST_F(Frames, acks_of_the_reference_have_no_code) {
  Ack ack;
  ASSERT_TRUE(parse_ack(
      frame(R"({"type":"ack","id":"c-1","messageId":")" CM_ID R"(","queued":true})"), ack));
  EXPECT_TRUE(ack.queued && ack.error.empty() && ack.code.empty() && !ack.is_dedupe_answer);
  ASSERT_TRUE(parse_ack(frame(R"({"type":"ack","id":"","messageId":"","queued":false,"error":)"
                              R"("rate_limit: max 60 msg/min (burst 10) — slow down"})"),
                        ack));
  EXPECT_FALSE(ack.queued);
  EXPECT_TRUE(ack.error.starts_with("rate_limit: ") && ack.code.empty() && ack.id.empty());
}

TEST_F(Frames, a_field_of_a_push_that_is_too_long_is_left_out) {
  const std::string base = frame_cases()[5].base;
  const struct {
    const char* field;
    std::size_t most;
    std::string_view Push::*member;
  } rows[] = {{"meshId", kBrokerIdMax, &Push::mesh_id},
              {"senderMemberId", kBrokerIdMax, &Push::sender_member_id},
              {"senderName", kDisplayNameMax, &Push::sender_name},
              {"client_message_id", kClientIdMax, &Push::client_message_id},
              {"topic", kTargetMax, &Push::topic},
              {"replyToId", kReplyToMax, &Push::reply_to},
              {"subtype", kTypeMax, &Push::subtype},
              {"event", kLabelMax, &Push::event}};
  for (const auto& each : rows) {
    Push push;
    const auto parsed = [&](std::size_t size) {
      const std::string value = "\"" + std::string(size, 'x') + "\"";
      EXPECT_TRUE(parse_push(frame(with_value(base, each.field, value.c_str())), push));
      return (push.*each.member).size();
    };
    EXPECT_EQ(parsed(each.most), each.most) << each.field;
    EXPECT_EQ(parsed(each.most + 1), 0u) << each.field;
  }
  Push push;
  const std::string target = "\"#" + std::string(kTargetMax, 'x') + "\"";
  ASSERT_TRUE(parse_push(frame(with_value(base, "targetSpec", target.c_str())), push));
  EXPECT_EQ(push.target.size(), kTargetMax) << "to many, as before";
}

TEST_F(Frames, a_drained_push_of_the_reference_has_no_member_fields) {
  Push push;
  ASSERT_TRUE(parse_push(
      frame(R"({"type":"push","messageId":")" CM_ID R"(","meshId":"M","senderPubkey":")" CM_KEY
            R"(","priority":"now","nonce":")" CM_NONCE R"(","ciphertext":"aGk=","createdAt":)"
            R"("2026-01-02T03:04:05.678Z","client_message_id":"c-1","request_fingerprint":")" CM_KEY
            R"("})"),
      push));
  EXPECT_EQ(push.sender_key, crypto::public_key_parse(kKeyHex));
  EXPECT_FALSE(push.sender_member);
  EXPECT_TRUE(push.sender_name.empty() && push.target.empty());
  EXPECT_TRUE(push.has_fingerprint);
  EXPECT_EQ(push.created_ms, iso_parse("2026-01-02T03:04:05.678Z"));
}

TEST_F(Frames, a_multicast_push_of_the_reference_has_member_fields_and_no_client_id) {
  Push push;
  ASSERT_TRUE(parse_push(
      frame(R"({"type":"push","messageId":")" CM_ID R"(","meshId":"M","senderPubkey":")" CM_KEY
            R"(","senderMemberPubkey":")" CM_KEY R"(","senderMemberId":"m","senderName":"ann",)"
            R"("priority":"next","nonce":")" CM_NONCE R"(","ciphertext":"aGk=",)"
            R"("createdAt":"2026-01-02T03:04:05.678Z","subtype":"reminder"})"),
      push));
  EXPECT_EQ(push.sender_member, crypto::public_key_parse(kKeyHex));
  EXPECT_EQ(push.sender_name, "ann");
  EXPECT_TRUE(push.client_message_id.empty() && !push.has_fingerprint);
}

TEST_F(Frames, system_and_webhook_pushes_of_the_reference) {
  Push push;
  ASSERT_TRUE(parse_push(
      frame(R"({"type":"push","subtype":"system","event":"peer_left","eventData":{"name":"a", )"
            R"("n":[1]},"messageId":"123e4567-e89b-42d3-a456-426614174000","meshId":"M",)"
            R"("senderPubkey":"system","priority":"low","nonce":"","ciphertext":"",)"
            R"("createdAt":"2026-01-02T03:04:05.678Z"})"),
      push));
  EXPECT_EQ(push.event, "peer_left");
  EXPECT_EQ(push.event_data, R"({"name":"a", "n":[1]})");
  EXPECT_FALSE(push.sender_key);
  EXPECT_EQ(push.priority, Priority::kLow);
  ASSERT_TRUE(parse_push(frame(R"({"type":"push","subtype":"webhook","event":"ci","eventData":[1],)"
                               R"("messageId":"m","senderPubkey":"webhook:ci","priority":"odd"})"),
                         push));
  EXPECT_TRUE(push.event_data.empty());
  EXPECT_EQ(push.priority, Priority::kNext);
}

TEST_F(Frames, a_peers_list_row_with_fields_we_do_not_know) {
  const BrokerFrame& list =
      frame(R"({"type":"peers_list","_reqId":"pl-1","peers":[{"pubkey":")" CM_KEY
            R"(","memberPubkey":")" CM_KEY R"(","displayName":"ann","status":"idle",)"
            R"("summary":null,"groups":[],"sessionId":"s","connectedAt":)"
            R"("2026-01-02T03:04:05.678Z","cwd":"/x","peerRole":"session","hostname":"h",)"
            R"("visible":true,"profile":{"avatar":null},"stats":[1]},{"pubkey":"zz"},7]})");
  const auto peers = peers_of(list);
  ASSERT_TRUE(peers);
  ASSERT_EQ((*peers)->count, 3u);
  PeerEntry peer;
  std::uint32_t index = list.tape.first(**peers);
  ASSERT_TRUE(parse_peer(list.tape, list.tape.at(index), peer));
  EXPECT_EQ(peer.display_name, "ann");
  EXPECT_TRUE(peer.summary.empty());
  EXPECT_TRUE(peer.raw.starts_with("{\"pubkey\"") && peer.raw.ends_with("\"stats\":[1]}"));
  index = list.tape.at(index).next;
  EXPECT_EQ(parse_peer(list.tape, list.tape.at(index), peer).code(), Err::kMalformed);
  EXPECT_TRUE(peer.display_name.empty());
  index = list.tape.at(index).next;
  EXPECT_EQ(parse_peer(list.tape, list.tape.at(index), peer).code(), Err::kMalformed);
}

TEST_F(Frames, peers_that_are_no_array_are_refused_by_name) {
  for (const char* text : {R"({"type":"x"})", R"({"type":"x","peers":{}})",
                           R"({"type":"x","peers":null})", R"({"type":"x","peers":"[]"})"}) {
    const auto peers = peers_of(frame(text));
    ASSERT_EQ(peers.code(), Err::kMalformed) << text;
    EXPECT_NE(peers.error().detail.find("'peers'"), std::string::npos);
  }
}

TEST_F(Frames, an_error_with_its_correlation_in_either_place) {
  ErrorFrame error;
  ASSERT_TRUE(parse_error(
      frame(R"({"type":"error","code":"topic_not_found","message":"x","id":"sg-10"})"), error));
  EXPECT_EQ(error.id, "sg-10");
  ASSERT_TRUE(parse_error(
      frame(R"({"type":"error","code":"c","message":"x","id":"other","_reqId":"pl-1"})"), error));
  EXPECT_EQ(error.id, "pl-1");
}

// --- round trips ---

TEST_F(Frames, client_frames_are_written_in_the_order_of_the_reference_and_read_back) {
  const std::string hello_text =
      R"({"type":"hello","meshId":"M","memberId":"m","pubkey":")" CM_KEY
      R"(","sessionId":"daemon-1","pid":1,"cwd":"/é","hostname":"h","peerType":"ai",)"
      R"("channel":"claudemesh-daemon","timestamp":1893456000000,"signature":"ab"})";
  Hello hello;
  ASSERT_TRUE(parse_hello(frame(hello_text), hello));
  EXPECT_EQ(written(hello, write_hello), hello_text);
  hello.model = "x";
  hello.display_name = "\"n\"";
  hello.session_pubkey_text = kKeyHex;
  const std::string full = written(hello, write_hello);
  Hello again;
  ASSERT_TRUE(parse_hello(frame(full), again));
  EXPECT_EQ(again.model, "x");
  EXPECT_EQ(again.display_name, "\"n\"");
  EXPECT_EQ(again.session_pubkey_text, kKeyHex);

  const std::string send_text =
      R"({"type":"send","id":"c-1","client_message_id":"c-1","request_fingerprint":")" CM_KEY
      R"(","targetSpec":")" CM_KEY R"(","priority":"next","nonce":")" CM_NONCE
      R"(","ciphertext":"aGk="})";
  Send send;
  ASSERT_TRUE(parse_send(frame(send_text), send));
  EXPECT_EQ(written(send, write_send), send_text);

  const std::string ack_text =
      R"({"type":"client_ack","clientMessageId":"c-1","brokerMessageId":")" CM_ID R"("})";
  ClientAck ack;
  ASSERT_TRUE(parse_client_ack(frame(ack_text), ack));
  EXPECT_EQ(written(ack, write_client_ack), ack_text);

  TextBuf list(scratch_);
  write_list_peers("pl-1", list);
  EXPECT_EQ(list.view(), R"({"type":"list_peers","_reqId":"pl-1"})");
}

TEST_F(Frames, broker_frames_are_written_and_read_back) {
  for (const std::string_view text :
       {R"({"type":"ack","id":"c","messageId":")" CM_ID R"(","queued":true})"sv,
        R"({"type":"ack","id":"c","messageId":"","queued":false,"error":"e","code":"full",)"
        R"("conflict":"x","broker_fingerprint_prefix":"0123456789abcdef"})"sv,
        R"({"type":"ack","id":"c","messageId":"m","queued":true,"duplicate":true,)"
        R"("history_available":false,"first_seen_at":"2026-01-02T03:04:05.678Z",)"
        R"("recipient":"offline"})"sv}) {
    Ack ack;
    ASSERT_TRUE(parse_ack(frame(text), ack));
    EXPECT_EQ(written(ack, write_ack), text);
  }

  const std::string push_text =
      R"({"type":"push","subtype":"system","event":"e","eventData":{"k": [1]},"messageId":"m",)"
      R"("meshId":"M","senderPubkey":")" CM_KEY R"(","senderMemberPubkey":")" CM_KEY
      R"(","senderMemberId":"s","senderName":"n","targetSpec":"*","priority":"low","nonce":"",)"
      R"("ciphertext":"aGk=","createdAt":"2026-01-02T03:04:05.678Z","client_message_id":"c",)"
      R"("request_fingerprint":")" CM_KEY R"(","topic":"t","replyToId":"r"})";
  Push push;
  ASSERT_TRUE(parse_push(frame(push_text), push));
  EXPECT_EQ(written(push, write_push), push_text);

  const std::string error_text = R"({"type":"error","code":"c","message":"m","_reqId":"r"})";
  ErrorFrame error;
  ASSERT_TRUE(parse_error(frame(error_text), error));
  EXPECT_EQ(written(error, write_error), error_text);

  TextBuf hello_ack(scratch_);
  write_hello_ack({"P1", "ann"}, 90'000, hello_ack);
  HelloAck ack;
  ASSERT_TRUE(parse_hello_ack(frame(hello_ack.view()), ack));
  EXPECT_EQ(ack.presence_id, "P1");
  EXPECT_EQ(ack.member_display_name, "ann");
}

TEST_F(Frames, a_peer_is_written_and_read_back) {
  PeerEntry peer;
  peer.pubkey = *crypto::public_key_parse(kKeyHex);
  peer.member_pubkey.fill(7);
  peer.display_name = "ann";
  peer.status = "idle";
  peer.session_id = "s";
  peer.connected_ms = 1893456000123;
  peer.cwd = "/x";
  peer.peer_role = "session";
  peer.hostname = "h";
  const std::string text = written(peer, write_peer);
  JsonTape tape;
  ASSERT_TRUE(parser_.parse(text, scratch_, tape));
  PeerEntry again;
  ASSERT_TRUE(parse_peer(tape, tape.root(), again));
  EXPECT_EQ(again.raw, text);
  again.raw = {};
  EXPECT_EQ(written(again, write_peer), text);
  EXPECT_EQ(again.member_pubkey, peer.member_pubkey);
  EXPECT_EQ(again.connected_ms, peer.connected_ms);
}

}  // namespace
}  // namespace cm::wire
