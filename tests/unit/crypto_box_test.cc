// crypto_box_test.cc — sealing between identities, and the bounded table of precomputed keys.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/alloc_count.h"
#include "core/crypto/box.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"

namespace cm::crypto {
namespace {

class CryptoBox : public testing::Test {
 protected:
  void SetUp() override {
    alice_ = slab_.generate(alice_key_).value();
    bob_ = slab_.generate(bob_key_).value();
  }

  std::string_view sealed_by_alice(std::string_view text) {
    TextBuf out(arena_);
    EXPECT_TRUE(boxes_.seal(alice_, bob_key_, nonce_, as_bytes(text), out));
    return out.view();
  }
  Err open_as(SecretRef receiver, const PublicKey& sender, std::string_view sealed) {
    TextBuf out(arena_);
    const Status status = boxes_.open(receiver, sender, nonce_, as_bytes(sealed), out);
    EXPECT_TRUE(status || out.size() == 0);
    return status.code();
  }

  SecretSlab slab_{64};
  BoxCache boxes_{slab_, 4};
  ScratchArena arena_;
  PublicKey alice_key_, bob_key_;
  SecretRef alice_, bob_;
  Nonce nonce_ = random_nonce(fill_random);
};

TEST_F(CryptoBox, only_the_recipient_opens_and_only_what_was_sealed) {
  const std::string sealed(sealed_by_alice("hello"));
  EXPECT_EQ(sealed.size(), 5 + kBoxTag);
  EXPECT_EQ(open_as(bob_, alice_key_, sealed), Err::kOk);
  PublicKey eve_key;
  const SecretRef eve = slab_.generate(eve_key).value();
  EXPECT_EQ(open_as(eve, alice_key_, sealed), Err::kUndecryptable);
  EXPECT_EQ(open_as(bob_, eve_key, sealed), Err::kUndecryptable);
  for (std::size_t index = 0; index < sealed.size(); ++index) {
    std::string changed = sealed;
    changed[index] = static_cast<char>(changed[index] ^ 1);
    EXPECT_EQ(open_as(bob_, alice_key_, changed), Err::kUndecryptable);
  }
  EXPECT_EQ(open_as(bob_, alice_key_, sealed.substr(0, sealed.size() - 1)), Err::kUndecryptable);
  EXPECT_EQ(open_as(bob_, alice_key_, sealed.substr(0, kBoxTag - 1)), Err::kUndecryptable);
  EXPECT_EQ(open_as(bob_, alice_key_, ""), Err::kUndecryptable);
  nonce_[0] ^= 1;
  EXPECT_EQ(open_as(bob_, alice_key_, sealed), Err::kUndecryptable);
}

TEST_F(CryptoBox, an_empty_message_is_a_message) {
  EXPECT_EQ(open_as(bob_, alice_key_, sealed_by_alice("")), Err::kOk);
}

TEST_F(CryptoBox, keys_that_would_give_away_the_plaintext_are_refused) {
  for (const char* hex : {
           "0000000000000000000000000000000000000000000000000000000000000000",
           "0100000000000000000000000000000000000000000000000000000000000000",
           "0100000000000000000000000000000000000000000000000000000000000080",
           "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
           "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
           "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
           "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
           "0200000000000000000000000000000000000000000000000000000000000000",
       }) {
    const PublicKey peer = public_key_parse(hex).value();
    TextBuf out(arena_);
    EXPECT_EQ(boxes_.seal(alice_, peer, nonce_, as_bytes("x"), out).code(), Err::kInvalidArgument)
        << hex;
    EXPECT_EQ(out.size(), 0u);
    EXPECT_EQ(open_as(alice_, peer, std::string(20, 'x')), Err::kInvalidArgument) << hex;
    EXPECT_FALSE(boxes_.contains(alice_, peer));
  }
  EXPECT_EQ(boxes_.count(), 0u);
  EXPECT_TRUE(boxes_.verify_table());
}

TEST_F(CryptoBox, a_full_cache_evicts_and_keeps_what_is_in_use) {
  std::vector<PublicKey> peers(40);
  for (PublicKey& peer : peers) {
    const SecretRef ref = slab_.generate(peer).value();
    TextBuf out(arena_);
    ASSERT_TRUE(boxes_.seal(alice_, peer, nonce_, as_bytes("x"), out));
    // Bob is written to between any two others, so the clock's hand spares him.
    sealed_by_alice("x");
    EXPECT_TRUE(boxes_.contains(alice_, bob_key_));
    EXPECT_TRUE(boxes_.contains(alice_, peer));
    EXPECT_LE(boxes_.count(), 4u);
    EXPECT_TRUE(boxes_.verify_table());
    // An evicted pair is computed again and gives the same key.
    EXPECT_EQ(open_as(ref, alice_key_, out.view()), Err::kOk);
    boxes_.forget(ref);
    slab_.release(ref);
  }
  EXPECT_FALSE(boxes_.contains(alice_, peers[0]));
}

TEST_F(CryptoBox, forgetting_a_secret_drops_its_pairs_only) {
  sealed_by_alice("x");
  EXPECT_EQ(open_as(bob_, alice_key_, sealed_by_alice("x")), Err::kOk);
  EXPECT_EQ(boxes_.count(), 2u);
  boxes_.forget(alice_);
  EXPECT_EQ(boxes_.count(), 1u);
  EXPECT_FALSE(boxes_.contains(alice_, bob_key_));
  EXPECT_TRUE(boxes_.contains(bob_, alice_key_));
  EXPECT_TRUE(boxes_.verify_table());
  slab_.release(alice_);
  TextBuf out(arena_);
  EXPECT_DEATH((void)boxes_.seal(alice_, bob_key_, nonce_, as_bytes("x"), out), "alive");
}

TEST_F(CryptoBox, sealing_and_opening_with_kept_keys_allocates_nothing) {
  const std::string text(600, 't');
  std::uint64_t before = 0;
  for (int round = 0; round < 200; ++round) {
    if (round == 100) before = allocation_count();  // blocks of the arena are in place
    TextBuf sealed(arena_);
    ASSERT_TRUE(boxes_.seal(alice_, bob_key_, nonce_, as_bytes(text), sealed));
    TextBuf opened(arena_);
    ASSERT_TRUE(boxes_.open(bob_, alice_key_, nonce_, as_bytes(sealed.view()), opened));
    ASSERT_EQ(opened.size(), text.size());
    arena_.reset();
  }
  EXPECT_EQ(allocation_count(), before);
}

}  // namespace
}  // namespace cm::crypto
