// crypto_slab_test.cc — secrets in slots: full, stale, wiped, and never a mismatched pair.
// Not:    what is done with a secret (crypto_sign_test.cc, crypto_box_test.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/crypto/slab.h"
#include "core/crypto/slab_access.h"

namespace cm::crypto {
namespace {

TEST(CryptoSlab, a_full_slab_refuses_and_takes_again_after_a_release) {
  SecretSlab slab(2);
  PublicKey first_key, second_key, third_key;
  const auto first = slab.generate(first_key);
  const auto second = slab.generate(second_key);
  ASSERT_TRUE(first && second);
  EXPECT_NE(first_key, second_key);
  EXPECT_EQ(slab.generate(third_key).code(), Err::kFull);
  EXPECT_EQ(slab.store_seed(std::array<std::uint8_t, 32>{}).code(), Err::kFull);
  slab.release(*first);
  ASSERT_TRUE(slab.generate(third_key));
  EXPECT_EQ(slab.count(), 2u);
  EXPECT_EQ(slab.public_key(*second), second_key);
}

TEST(CryptoSlab, a_stale_ref_is_detected) {
  SecretSlab slab(1);
  PublicKey key;
  const SecretRef old = slab.generate(key).value();
  slab.release(old);
  EXPECT_FALSE(slab.alive(old));
  EXPECT_FALSE(slab.alive({}));
  const SecretRef fresh = slab.generate(key).value();
  EXPECT_EQ(fresh.slot, old.slot);
  EXPECT_FALSE(slab.alive(old));
  EXPECT_TRUE(slab.alive(fresh));
  EXPECT_DEATH((void)sign(slab, old, "text"), "alive");
  EXPECT_DEATH(slab.release(old), "alive");
  EXPECT_DEATH((void)slab.public_key(SecretRef{}), "alive");
}

TEST(CryptoSlab, a_released_slot_is_wiped) {
  SecretSlab slab(1);
  PublicKey key;
  const SecretRef ref = slab.generate(key).value();
  const std::uint8_t* slot = SlabAccess::secret(slab, ref);
  EXPECT_TRUE(std::equal(key.begin(), key.end(), slot + kSeedBytes));
  slab.release(ref);
  EXPECT_TRUE(std::all_of(slot, slot + kSecretBytes, [](std::uint8_t byte) { return byte == 0; }));
}

TEST(CryptoSlab, a_public_half_of_another_seed_is_refused_and_leaves_no_trace) {
  SecretSlab slab(2);
  PublicKey key;
  const SecretRef ref = slab.generate(key).value();
  std::array<char, kSecretHexText> hex;
  slab.export_hex(ref, hex);
  std::string text(hex.data(), hex.size());
  ASSERT_TRUE(slab.store_hex(text));
  EXPECT_EQ(slab.count(), 2u);
  EXPECT_EQ(slab.store_hex(text).code(), Err::kFull);
  slab.release(ref);
  text[70] = text[70] == '0' ? '1' : '0';
  EXPECT_EQ(slab.store_hex(text).code(), Err::kInvalidArgument);
  EXPECT_EQ(slab.count(), 1u);
}

TEST(CryptoSlab, a_secret_of_another_form_is_refused) {
  SecretSlab slab(1);
  EXPECT_EQ(slab.store_hex("").code(), Err::kMalformed);
  EXPECT_EQ(slab.store_hex(std::string(126, 'a')).code(), Err::kMalformed);
  EXPECT_EQ(slab.store_hex(std::string(128, 'z')).code(), Err::kMalformed);
  EXPECT_EQ(slab.count(), 0u);
}

TEST(CryptoSlab, an_exported_secret_signs_the_same) {
  SecretSlab slab(2);
  PublicKey key;
  const SecretRef made = slab.generate(key).value();
  std::array<char, kSecretHexText> hex;
  slab.export_hex(made, hex);
  const SecretRef read = slab.store_hex({hex.data(), hex.size()}).value();
  EXPECT_EQ(slab.public_key(read), key);
  EXPECT_EQ(sign(slab, made, "text"), sign(slab, read, "text"));
}

}  // namespace
}  // namespace cm::crypto
