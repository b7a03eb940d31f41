// crypto_vectors_test.cc — the conformance vectors of tests/conformance/vectors.json.
// Holds:  every vector of the sections on the path of messages and enrolment is compared byte for
//         byte, in both directions where there are two.
// Not:    hostile input (the other crypto tests).
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/crypto/box.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/fingerprint.h"
#include "core/crypto/jcs.h"
#include "core/crypto/sign.h"

namespace cm::crypto {
namespace {

using rapidjson::Value;

std::string_view text_at(const Value& row, const char* name) {
  const Value& value = row[name];
  return {value.GetString(), value.GetStringLength()};
}

PublicKey key_at(const Value& row, const char* name) {
  return public_key_parse(text_at(row, name)).value();
}

class CryptoVectors : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(CM_TESTS_DIR "/conformance/vectors.json");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    document_.Parse<rapidjson::kParseFullPrecisionFlag>(text.c_str(), text.size());
    ASSERT_FALSE(document_.HasParseError());
    // By index: clang finds the iterators' comparison ambiguous in C++20.
    const Value& keys = document_["keys"];
    for (rapidjson::SizeType index = 0; index < keys.MemberCount(); ++index) {
      const auto& each = *(keys.MemberBegin() + static_cast<std::ptrdiff_t>(index));
      const auto secret = slab_.store_hex(text_at(each.value, "secret_key_hex"));
      ASSERT_TRUE(secret);
      named_.emplace_back(each.name.GetString(), *secret);
      titled_.emplace_back(each.value["name"].GetString(), *secret);
    }
  }

  // `name` is that of the section "keys" ("alice") or the title there ("alice member").
  SecretRef secret(std::string_view name) const {
    for (const auto* list : {&named_, &titled_}) {
      for (const auto& [each, ref] : *list) {
        if (each == name) return ref;
      }
    }
    ADD_FAILURE() << "no key " << name;
    return {};
  }
  PublicKey key(std::string_view name) const { return slab_.public_key(secret(name)); }

  const Value& section(const char* name) const {
    EXPECT_TRUE(document_.HasMember(name)) << name;
    EXPECT_GT(document_[name].Size(), 0u);
    return document_[name];
  }

  // The text is that of the vector, its signature too, and the signature verifies.
  void expect_signed(const Value& row, std::string_view signer, std::string_view canonical,
                     const char* canonical_field = "canonical") {
    EXPECT_EQ(canonical, text_at(row, canonical_field));
    const Signature signature = sign(slab_, secret(signer), canonical);
    EXPECT_EQ(hex(signature), text_at(row, "signature_hex"));
    EXPECT_TRUE(verify(key(signer), canonical, signature));
  }

  std::string_view hex(Bytes bytes) {
    TextBuf out(arena_);
    hex_append(bytes, out);
    return out.view();
  }
  std::string_view base64(Bytes bytes) {
    TextBuf out(arena_);
    base64_append(bytes, out);
    return out.view();
  }

  rapidjson::Document document_;
  ScratchArena arena_;
  SecretSlab slab_{16};
  std::vector<std::pair<std::string, SecretRef>> named_;
  std::vector<std::pair<std::string, SecretRef>> titled_;
};

TEST_F(CryptoVectors, keys_follow_from_their_seeds) {
  for (const auto& [name, ref] : named_) {
    const Value& row = document_["keys"][name.c_str()];
    std::array<std::uint8_t, kSeedBytes> seed;
    ASSERT_TRUE(hex_parse_lower(text_at(row, "seed_hex"), seed));
    const auto stored = slab_.store_seed(seed);
    ASSERT_TRUE(stored);
    EXPECT_EQ(slab_.public_key(*stored), key_at(row, "public_key_hex"));
    std::array<char, kSecretHexText> exported;
    slab_.export_hex(*stored, exported);
    EXPECT_EQ(std::string_view(exported.data(), exported.size()), text_at(row, "secret_key_hex"));
    slab_.release(*stored);
    EXPECT_EQ(slab_.public_key(ref), key_at(row, "public_key_hex"));
  }
}

TEST_F(CryptoVectors, hello) {
  for (const Value& row : section("hello").GetArray()) {
    TextBuf out(arena_);
    ASSERT_TRUE(canonical_hello(text_at(row, "meshId"), text_at(row, "memberId"),
                                key_at(row, "pubkey"), row["timestamp"].GetUint64(), out));
    expect_signed(row, text_at(row, "signer"), out.view());
  }
}

TEST_F(CryptoVectors, attestation_of_version_1) {
  for (const Value& row : section("attestation_v1").GetArray()) {
    TextBuf out(arena_);
    canonical_attestation_v1(key(text_at(row, "parent")), key(text_at(row, "session")),
                             row["expiresAt"].GetUint64(), out);
    expect_signed(row, text_at(row, "parent"), out.view());
  }
}

TEST_F(CryptoVectors, attestation_of_version_2) {
  for (const Value& row : section("attestation_v2").GetArray()) {
    std::vector<std::string_view> capabilities;
    for (const Value& each : row["allowed_caps_input"].GetArray()) {
      capabilities.emplace_back(each.GetString(), each.GetStringLength());
    }
    TextBuf csv(arena_);
    ASSERT_TRUE(capabilities_csv(capabilities, csv));
    EXPECT_EQ(csv.view(), text_at(row, "caps_csv"));
    TextBuf out(arena_);
    ASSERT_TRUE(canonical_attestation_v2(key("alice"), key("aliceSession"),
                                         row["expiresAt"].GetUint64(), capabilities, out));
    expect_signed(row, text_at(row, "signer"), out.view());
  }
}

TEST_F(CryptoVectors, session_hello) {
  for (const Value& row : section("session_hello").GetArray()) {
    TextBuf out(arena_);
    ASSERT_TRUE(canonical_session_hello(text_at(row, "meshId"), key_at(row, "parentMemberPubkey"),
                                        key_at(row, "sessionPubkey"), row["timestamp"].GetUint64(),
                                        out));
    expect_signed(row, text_at(row, "signer"), out.view());
  }
}

TEST_F(CryptoVectors, invites_of_both_versions) {
  for (const Value& row : section("invite_v1").GetArray()) {
    const Value& payload = row["payload"];
    InviteV1 invite;
    invite.mesh_id = text_at(payload, "mesh_id");
    invite.mesh_slug = text_at(payload, "mesh_slug");
    invite.broker_url = text_at(payload, "broker_url");
    invite.expires_at_s = payload["expires_at"].GetUint64();
    invite.mesh_root_key = text_at(payload, "mesh_root_key");
    invite.role = text_at(payload, "role");
    invite.owner = key_at(payload, "owner_pubkey");
    TextBuf out(arena_);
    ASSERT_TRUE(canonical_invite_v1(invite, out));
    expect_signed(row, text_at(row, "signer"), out.view());
  }
  for (const Value& row : section("invite_v2").GetArray()) {
    TextBuf out(arena_);
    ASSERT_TRUE(canonical_invite_v2("Mesh0000000000000000000000000001",
                                    "Invite00000000000000000000000001", 1893456000, "member",
                                    key("owner"), out));
    expect_signed(row, text_at(row, "signer"), out.view());
  }
}

TEST_F(CryptoVectors, resume_token) {
  for (const Value& row : section("resume_token").GetArray()) {
    const std::string_view payload = text_at(row, "payload_json");
    expect_signed(row, text_at(row, "signer"), payload, "payload_json");
    TextBuf token(arena_);
    token.append("mesh-resume.v1.");
    base64url_append(as_bytes(payload), token);
    token.append('.');
    base64url_append(sign(slab_, secret("broker"), payload), token);
    EXPECT_EQ(token.view(), text_at(row, "token"));
  }
}

TEST_F(CryptoVectors, direct_messages_seal_and_open) {
  BoxCache boxes(slab_, 8);
  for (const Value& row : section("crypto_box_direct").GetArray()) {
    const SecretRef from = secret(text_at(row, "from"));
    const SecretRef to = secret(text_at(row, "to"));
    const Nonce nonce = nonce_parse(text_at(row, "nonce_b64")).value();
    EXPECT_EQ(hex(nonce), text_at(row, "nonce_hex"));
    TextBuf sealed(arena_);
    ASSERT_TRUE(
        boxes.seal(from, slab_.public_key(to), nonce, as_bytes(text_at(row, "plaintext")), sealed));
    EXPECT_EQ(hex(as_bytes(sealed.view())), text_at(row, "ciphertext_hex"));
    EXPECT_EQ(base64(as_bytes(sealed.view())), text_at(row, "ciphertext_b64"));
    TextBuf opened(arena_);
    const auto received = base64_decode(text_at(row, "ciphertext_b64"), arena_);
    ASSERT_TRUE(received);
    ASSERT_TRUE(boxes.open(to, slab_.public_key(from), nonce, *received, opened));
    EXPECT_EQ(opened.view(), text_at(row, "plaintext"));
  }
}

TEST_F(CryptoVectors, canonical_json) {
  for (const Value& row : section("jcs").GetArray()) {
    TextBuf out(arena_);
    const std::string_view label = text_at(row, "label");
    const Status status = jcs_append(text_at(row, "json_input"), out);
    if (label.starts_with("lone surrogate")) {
      EXPECT_EQ(status.code(), Err::kMalformed);
    } else {
      ASSERT_TRUE(status) << label;
      EXPECT_EQ(out.view(), text_at(row, "rfc8785")) << label;
    }
  }
}

TEST_F(CryptoVectors, request_fingerprints) {
  for (const Value& row : section("request_fingerprint").GetArray()) {
    const std::string_view label = text_at(row, "label");
    ASSERT_EQ(row["envelope_version"].GetUint(), kEnvelopeVersion);
    RequestParts parts;
    const std::string_view kind = text_at(row, "destination_kind");
    parts.destination.kind = kind == "topic" ? DestinationKind::kTopic
                             : kind == "dm"  ? DestinationKind::kDm
                                             : DestinationKind::kQueue;
    EXPECT_EQ(text_of(parts.destination.kind), kind);
    parts.destination.ref = text_at(row, "destination_ref");
    if (row["reply_to_id"].IsString()) parts.reply_to = text_at(row, "reply_to_id");
    parts.priority = text_at(row, "priority");
    parts.body = as_bytes(text_at(row, "body"));
    TextBuf meta(arena_);
    if (!row["meta"].IsNull()) {
      rapidjson::StringBuffer text;
      rapidjson::Writer<rapidjson::StringBuffer> writer(text);
      row["meta"].Accept(writer);
      ASSERT_TRUE(jcs_append({text.GetString(), text.GetSize()}, meta)) << label;
    }
    parts.meta_jcs = meta.view();
    const auto fingerprint = request_fingerprint(parts);
    ASSERT_TRUE(fingerprint);
    // spec/decisions.md: the strict form wherever the reference's own JSON order differs, and the
    // two bytes of an empty object.
    const bool empty_object = row["meta"].IsObject() && row["meta"].MemberCount() == 0;
    const char* column =
        empty_object ? "fingerprint_reference_hex" : "fingerprint_rawbody_strict_jcs_hex";
    EXPECT_EQ(hex(*fingerprint), text_at(row, column)) << label;
  }
}

TEST_F(CryptoVectors, safety_numbers) {
  for (const Value& row : section("safety_number").GetArray()) {
    const PublicKey a = key_at(row, "pubkey_a_hex");
    const PublicKey b = key_at(row, "pubkey_b_hex");
    EXPECT_EQ(view(safety_number(a, b)), text_at(row, "safety_number"));
    EXPECT_EQ(view(safety_number(b, a)), text_at(row, "safety_number"));
  }
}

TEST_F(CryptoVectors, topic_keys_open_with_the_box_of_the_sealer) {
  BoxCache boxes(slab_, 8);
  for (const Value& row : section("topic_key_seal").GetArray()) {
    const auto blob = base64_decode(text_at(row, "encryptedKey_b64"), arena_);
    ASSERT_TRUE(blob);
    const Nonce nonce = nonce_parse(text_at(row, "nonce_b64")).value();
    TextBuf topic_key(arena_);
    ASSERT_TRUE(boxes.open(secret(text_at(row, "recipient")), key(text_at(row, "sealer")), nonce,
                           blob->subspan(32), topic_key));
    EXPECT_EQ(hex(as_bytes(topic_key.view())), text_at(row, "topic_key_hex"));
  }
}

}  // namespace
}  // namespace cm::crypto
