// crypto_sign_test.cc — what verify() must refuse, and the signed texts must not hide.
// Why:    the strict checks are libsodium's; this test fails if a build of it goes without them.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/fingerprint.h"
#include "core/crypto/sign.h"

namespace cm::crypto {
namespace {

// The eight points of small order and the non-canonical texts of them (y >= p, or x = 0 with the
// sign bit), as little-endian y.
const char* const kSmallOrder[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
};

class CryptoSign : public testing::Test {
 protected:
  void SetUp() override { secret_ = slab_.generate(key_).value(); }

  SecretSlab slab_{4};
  PublicKey key_;
  SecretRef secret_;
  ScratchArena arena_;
};

TEST_F(CryptoSign, a_signature_holds_for_its_text_and_key_only) {
  const Signature signature = sign(slab_, secret_, "text");
  EXPECT_TRUE(verify(key_, "text", signature));
  EXPECT_FALSE(verify(key_, "Text", signature));
  EXPECT_FALSE(verify(key_, "", signature));
  PublicKey other;
  ASSERT_TRUE(slab_.generate(other));
  EXPECT_FALSE(verify(other, "text", signature));
}

TEST_F(CryptoSign, every_flipped_bit_of_a_signature_is_noticed) {
  Signature signature = sign(slab_, secret_, "text");
  for (std::size_t bit = 0; bit < signature.size() * 8; ++bit) {
    signature[bit / 8] = static_cast<std::uint8_t>(signature[bit / 8] ^ (1u << (bit % 8)));
    EXPECT_FALSE(verify(key_, "text", signature)) << bit;
    signature[bit / 8] = static_cast<std::uint8_t>(signature[bit / 8] ^ (1u << (bit % 8)));
  }
  EXPECT_TRUE(verify(key_, "text", signature));
}

TEST_F(CryptoSign, a_second_signature_made_by_adding_the_order_is_refused) {
  Signature signature = sign(slab_, secret_, "text");
  std::array<std::uint8_t, 32> order;
  ASSERT_TRUE(
      hex_parse_lower("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", order));
  unsigned carry = 0;
  for (std::size_t index = 0; index < 32; ++index) {
    carry += signature[32 + index] + unsigned{order[index]};
    signature[32 + index] = static_cast<std::uint8_t>(carry);
    carry >>= 8;
  }
  EXPECT_FALSE(verify(key_, "text", signature));
}

TEST_F(CryptoSign, keys_of_small_order_sign_nothing) {
  // With A of small order, R = 0 * B - h * A and S = 0 would verify for many texts.
  for (const char* key_hex : kSmallOrder) {
    const PublicKey key = public_key_parse(key_hex).value();
    for (const char* r_hex : kSmallOrder) {
      Signature signature{};
      const PublicKey r = public_key_parse(r_hex).value();
      std::copy(r.begin(), r.end(), signature.begin());
      for (const char* text : {"", "a", "b", "c", "d", "e", "f", "g"}) {
        EXPECT_FALSE(verify(key, text, signature)) << key_hex << " " << r_hex;
      }
    }
  }
}

TEST_F(CryptoSign, all_zero_and_all_one_signatures_are_refused) {
  Signature signature{};
  EXPECT_FALSE(verify(key_, "text", signature));
  signature.fill(0xff);
  EXPECT_FALSE(verify(key_, "text", signature));
  PublicKey key;
  key.fill(0xff);
  EXPECT_FALSE(verify(key, "text", sign(slab_, secret_, "text")));
}

TEST_F(CryptoSign, a_bar_in_a_signed_field_is_refused_and_named) {
  TextBuf out(arena_);
  out.append("before");
  InviteV1 invite;
  invite.mesh_id = "m";
  invite.mesh_slug = "a|b";
  invite.broker_url = "wss://x";
  Status status = canonical_invite_v1(invite, out);
  EXPECT_EQ(status.code(), Err::kInvalidArgument);
  EXPECT_NE(status.error().detail.find("mesh_slug"), std::string::npos);
  invite.mesh_slug = "a";
  invite.broker_url = "wss://x|";
  status = canonical_invite_v1(invite, out);
  EXPECT_EQ(status.code(), Err::kInvalidArgument);
  EXPECT_NE(status.error().detail.find("broker_url"), std::string::npos);
  EXPECT_FALSE(canonical_invite_v2("m|", "i", 1, "member", key_, out));
  EXPECT_FALSE(canonical_hello("m", "a|b", key_, 1, out));
  EXPECT_FALSE(canonical_session_hello("|", key_, key_, 1, out));
  HandedReceipt receipt;
  receipt.broker_message_id = "x|y";
  EXPECT_FALSE(canonical_handed(receipt, out));
  EXPECT_EQ(out.view(), "before");
}

TEST_F(CryptoSign, the_handed_receipt_has_seven_fields) {
  HandedReceipt receipt;
  receipt.mesh_id = "Mesh1";
  receipt.broker_message_id = "Msg1";
  receipt.client_message_id = "a|b";
  receipt.recipient = key_;
  receipt.ciphertext_hash = sha256(as_bytes("abc"));
  receipt.handed_at_ms = 1700000000000;
  TextBuf out(arena_);
  ASSERT_TRUE(canonical_handed(receipt, out));
  EXPECT_EQ(out.view(),
            "claudemesh-handed|Mesh1|Msg1|a|b|" + std::string(view(hex_text(key_))) +
                "|ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad|1700000000000");
}

TEST_F(CryptoSign, capabilities_are_lower_case_sorted_and_unique) {
  const std::string_view given[] = {"read", "DM", "dm", "Read", "ban"};
  TextBuf out(arena_);
  ASSERT_TRUE(capabilities_csv(given, out));
  EXPECT_EQ(out.view(), "ban,dm,read");
  const std::string long_name(65, 'a');
  for (const std::string_view bad :
       {std::string_view(""), std::string_view("a,b"), std::string_view("a|b"),
        std::string_view("a b"), std::string_view("\xc3\x84"), std::string_view(long_name)}) {
    TextBuf none(arena_);
    const std::string_view list[] = {"dm", bad};
    EXPECT_EQ(capabilities_csv(list, none).code(), Err::kInvalidArgument) << bad;
    EXPECT_FALSE(canonical_attestation_v2(key_, key_, 1, list, none));
    EXPECT_EQ(none.size(), 0u);
  }
  const std::vector<std::string_view> many(65, "dm");
  EXPECT_FALSE(capabilities_csv(many, out));
}

TEST(CryptoFingerprint, destinations_are_mapped_as_typed) {
  const auto expect = [](std::string_view to, DestinationKind kind, std::string_view ref) {
    const Destination destination = map_destination(to);
    EXPECT_EQ(destination.kind, kind) << to;
    EXPECT_EQ(destination.ref, ref) << to;
  };
  expect("@ops", DestinationKind::kTopic, "ops");
  expect("  @ops\n", DestinationKind::kTopic, "ops");
  expect("@", DestinationKind::kTopic, "");
  expect("*", DestinationKind::kTopic, "*");
  expect(" * ", DestinationKind::kTopic, "*");
  expect("**", DestinationKind::kDm, "**");
  expect("#t1", DestinationKind::kDm, "#t1");
  expect("\t bob smith ", DestinationKind::kDm, "bob smith");
  expect("", DestinationKind::kDm, "");
  expect("   ", DestinationKind::kDm, "");
}

TEST(CryptoFingerprint, a_zero_byte_in_a_field_is_refused_and_named) {
  using std::string_view_literals::operator""sv;
  RequestParts parts;
  parts.destination.ref = "bob\0x"sv;
  EXPECT_EQ(request_fingerprint(parts).code(), Err::kInvalidArgument);
  parts.destination.ref = "bob";
  parts.reply_to = "\0"sv;
  const auto refused = request_fingerprint(parts);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().detail.find("reply_to_id"), std::string::npos);
  parts.reply_to = "";
  parts.body = as_bytes("\0\0"sv);
  EXPECT_TRUE(request_fingerprint(parts));
}

TEST(CryptoFingerprint, each_part_changes_it) {
  RequestParts parts;
  parts.destination = {DestinationKind::kDm, "bob"};
  parts.priority = "next";
  parts.body = as_bytes("text");
  const Hash32 base = request_fingerprint(parts).value();
  EXPECT_EQ(request_fingerprint(parts).value(), base);
  RequestParts other = parts;
  other.destination.kind = DestinationKind::kTopic;
  EXPECT_NE(request_fingerprint(other).value(), base);
  other = parts;
  other.reply_to = "m1";
  EXPECT_NE(request_fingerprint(other).value(), base);
  other = parts;
  other.meta_jcs = "{}";
  EXPECT_NE(request_fingerprint(other).value(), base);
  other = parts;
  other.body = as_bytes("text ");
  EXPECT_NE(request_fingerprint(other).value(), base);
}

TEST(CryptoFingerprint, the_wire_form_is_the_hmac_that_the_design_names) {
  SecretSlab slab(2);
  std::array<std::uint8_t, 32> seed;
  for (std::size_t index = 0; index < 32; ++index) seed[index] = static_cast<std::uint8_t>(index);
  const SecretRef member = slab.store_seed(seed).value();
  Hash32 fingerprint;
  fingerprint.fill(0xab);
  ScratchArena arena;
  TextBuf hex(arena);
  hex_append(wire_fingerprint(slab, member, fingerprint), hex);
  // Computed with Python's hashlib and hmac.
  EXPECT_EQ(hex.view(), "c783227bfc6231425862015291843ad0cde210b4e6fa8d332ff17343cf72c9ee");
  PublicKey key;
  const SecretRef other = slab.generate(key).value();
  EXPECT_NE(wire_fingerprint(slab, other, fingerprint),
            wire_fingerprint(slab, member, fingerprint));
}

}  // namespace
}  // namespace cm::crypto
