// invite_test.cc — invite tokens: the shared vector, every pasted form, and every bad field.
// Source: spec/enrollment.md §5.2.
// Not:    short codes, expiry and use.
#include <gtest/gtest.h>

#include <string>

#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/crypto/slab.h"
#include "core/wire/invite.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

// Of tests/conformance/vectors.json, "invite_v1".
constexpr std::string_view kPayload =
    R"({"v":1,"mesh_id":"Mesh0000000000000000000000000001","mesh_slug":"demo-mesh",)"
    R"("broker_url":"wss://ic.claudemesh.com/ws","expires_at":1893456000,)"
    R"("mesh_root_key":"VVZXWFlaW1xdXl9gYWJjZGVmZ2hpamtsbW5vcHFyc3Q","role":"member",)"
    R"("owner_pubkey":"03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",)"
    R"("signature":"20098f4ec5619f1ba79a64825be6aff446da0cc42def29f6e7e2ea2687959dcfebaa0e1317b)"
    R"(b68f2dde792f8a914d325aaa0f2cb6458fb0f61aa8862fe7f5f05"})";

class InviteToken : public testing::Test {
 protected:
  std::string token_of(std::string_view payload) {
    TextBuf out(scratch_);
    crypto::base64url_append(as_bytes(payload), out);
    return std::string(out.view());
  }
  Status decode(std::string_view payload) {
    const std::string token = token_of(payload);
    return decode_invite_token(parser_, scratch_.copy(std::string_view(token)), scratch_, invite_);
  }
  static std::string replaced(std::string_view old_text, std::string_view new_text) {
    std::string payload(kPayload);
    const std::size_t at = payload.find(old_text);
    EXPECT_NE(at, std::string::npos) << old_text;
    return payload.replace(at, old_text.size(), new_text);
  }

  JsonParser parser_;
  ScratchArena scratch_;
  Invite invite_;
};

TEST_F(InviteToken, the_shared_vector_is_read_and_its_signature_holds) {
  const Status status = decode(kPayload);
  ASSERT_TRUE(status) << status.error().detail;
  EXPECT_EQ(invite_.mesh_id, "Mesh0000000000000000000000000001");
  EXPECT_EQ(invite_.mesh_slug, "demo-mesh");
  EXPECT_EQ(invite_.broker_url, "wss://ic.claudemesh.com/ws");
  EXPECT_EQ(invite_.expires_at_s, 1893456000u);
  EXPECT_EQ(invite_.role, "member");
}

TEST_F(InviteToken, what_was_read_is_written_as_the_same_text) {
  ASSERT_TRUE(decode(kPayload));
  TextBuf out(scratch_);
  write_invite(invite_, out);
  EXPECT_EQ(out.view(), kPayload);
}

TEST_F(InviteToken, a_fresh_invite_goes_round) {
  crypto::SecretSlab slab(2);
  Invite made;
  const crypto::SecretRef owner = slab.generate(made.owner).value();
  made.mesh_id = "M1";
  made.mesh_slug = "ab";
  made.broker_url = "ws://localhost:7900/ws";
  made.expires_at_s = 1;
  made.mesh_root_key = "k";
  made.role = "admin";
  TextBuf canonical(scratch_);
  ASSERT_TRUE(
      crypto::canonical_invite_v1({made.mesh_id, made.mesh_slug, made.broker_url, made.expires_at_s,
                                   made.mesh_root_key, made.role, made.owner},
                                  canonical));
  made.signature = crypto::sign(slab, owner, canonical.view());
  TextBuf payload(scratch_);
  write_invite(made, payload);
  ASSERT_TRUE(decode(payload.view()));
  EXPECT_EQ(invite_.role, "admin");
  EXPECT_EQ(invite_.owner, made.owner);
}

TEST_F(InviteToken, every_signed_field_is_covered_by_the_signature) {
  for (const auto& [old_text, new_text] :
       {std::pair{"0001\"", "0002\""}, std::pair{"demo-mesh", "demo-mash"},
        std::pair{"ic.claudemesh", "ic.claudemash"}, std::pair{"1893456000", "1893456001"},
        std::pair{"VVZX", "VVZY"}, std::pair{"\"member\"", "\"admin\""},
        std::pair{"20098f", "20098e"}}) {
    EXPECT_EQ(decode(replaced(old_text, new_text)).code(), Err::kInviteBadSignature) << old_text;
  }
}

TEST_F(InviteToken, a_separator_in_a_field_cannot_move_the_border_of_two_fields) {
  const Status status = decode(replaced("demo-mesh", "demo|mesh"));
  EXPECT_EQ(status.code(), Err::kInvalidArgument);
  EXPECT_NE(status.error().detail.find("mesh_slug"), std::string::npos);
}

TEST_F(InviteToken, bad_fields_are_named) {
  const std::string slug33(33, 'a');
  const std::string url513(513, 'u');
  const struct {
    const char* old_text;
    std::string new_text;
    const char* field;
  } kCases[] = {
      {"\"v\":1", "\"v\":2", "v"},
      {"\"v\":1", "\"v\":\"1\"", "v"},
      {"\"v\":1,", "", "v"},
      {"\"Mesh0000000000000000000000000001\"", "7", "mesh_id"},
      {"\"Mesh0000000000000000000000000001\"", "\"a-b\"", "mesh_id"},
      {"\"Mesh0000000000000000000000000001\"", "\"" + slug33 + "\"", "mesh_id"},
      {"\"demo-mesh\"", "null", "mesh_slug"},
      {"\"demo-mesh\"", "\"\"", "mesh_slug"},
      {"\"demo-mesh\"", "\"" + slug33 + "\"", "mesh_slug"},
      {"\"wss://ic.claudemesh.com/ws\"", "[]", "broker_url"},
      {"\"wss://ic.claudemesh.com/ws\"", "\"" + url513 + "\"", "broker_url"},
      {"1893456000", "-1", "expires_at"},
      {"1893456000", "1893456000.5", "expires_at"},
      {"1893456000", "\"1893456000\"", "expires_at"},
      {"1893456000", "253402300800", "expires_at"},
      {"1893456000", "99999999999999999999", "expires_at"},
      {"\"VVZXWFlaW1xdXl9gYWJjZGVmZ2hpamtsbW5vcHFyc3Q\"", "{}", "mesh_root_key"},
      {"\"member\"", "\"owner\"", "role"},
      {"\"member\"", "\"Member\"", "role"},
      {"\"member\"", "true", "role"},
      {"03a107bf", "03A107BF", "owner_pubkey"},
      {"03a107bf", "03a107b", "owner_pubkey"},
      {"03a107bf", "03a107bf0", "owner_pubkey"},
      {"20098f4e", "2009 f4e", "signature"},
      {"20098f4e", "20098f4", "signature"},
      {"\"signature\"", "\"signatur\"", "signature"},
  };
  for (const auto& each : kCases) {
    const Status status = decode(replaced(each.old_text, each.new_text));
    ASSERT_EQ(status.code(), Err::kMalformed) << each.new_text;
    EXPECT_NE(status.error().detail.find("'" + std::string(each.field) + "'"), std::string::npos)
        << status.error().detail;
  }
}

TEST_F(InviteToken, a_signature_may_be_in_either_case_and_unknown_fields_are_ignored) {
  EXPECT_TRUE(decode(replaced("20098f4ec5619f1ba", "20098F4EC5619F1BA")));
  EXPECT_TRUE(decode(replaced("{\"v\"", "{\"extra\":[1],\"v\"")));
}

TEST_F(InviteToken, a_payload_cut_at_any_byte_is_refused) {
  for (std::size_t size = 0; size < kPayload.size(); ++size) {
    EXPECT_EQ(decode(kPayload.substr(0, size)).code(), Err::kMalformed) << size;
    scratch_.reset();
  }
}

TEST_F(InviteToken, payloads_that_are_no_object_are_refused) {
  for (const std::string_view payload : {"[1,2,3,4,5,6,7,8,9]", "\"a long enough text\"",
                                         "1234567890123456", "null               "}) {
    EXPECT_EQ(decode(payload).code(), Err::kMalformed) << payload;
  }
}

TEST_F(InviteToken, every_form_a_person_may_paste_gives_the_token_unmodified) {
  const std::string token = token_of(kPayload);
  for (const std::string& pasted :
       {token, "ic://join/" + token, "https://claudemesh.com/join/" + token,
        "https://claudemesh.com/de/join/" + token, "http://localhost:3000/join/" + token,
        "  " + token + "\r\n", "https://claudemesh.com/join/" + token + "/"}) {
    const auto found = invite_token_of(pasted);
    ASSERT_TRUE(found) << pasted;
    EXPECT_EQ(*found, token);
  }
}

TEST_F(InviteToken, what_is_no_invite_is_refused_with_what_was_expected) {
  const std::string token = token_of(kPayload);
  for (const std::string& pasted :
       {std::string(), std::string("   "), std::string("short"), std::string(20, 'a'),
        std::string(kTokenMax + 1, 'a'), "ftp://host/join/" + token,
        std::string("https://host/i/abcd1234"), "https://host/" + token,
        "https://host/join/" + token + "?x=1", token + "=", token + "+a", token + " " + token,
        std::string("https://host/join/")}) {
    const auto found = invite_token_of(pasted);
    ASSERT_EQ(found.code(), Err::kMalformed) << pasted;
    EXPECT_NE(found.error().detail.find("expected"), std::string::npos);
  }
  EXPECT_TRUE(invite_token_of(std::string(21, 'a')));
  EXPECT_TRUE(invite_token_of(std::string(kTokenMax, 'a')));
}

TEST_F(InviteToken, a_token_that_is_not_canonical_base64url_is_refused) {
  for (const std::string_view token : {"aaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaab",
                                       "aaaaaaaaaaaaaaaaaaaaaaaa=", "short"}) {
    EXPECT_EQ(decode_invite_token(parser_, token, scratch_, invite_).code(), Err::kMalformed);
  }
}

}  // namespace
}  // namespace cm::wire
