// crypto_encoding_test.cc — one value has one text, and hostile texts are refused.
// Not:    the values of real keys (crypto_vectors_test.cc).
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/crypto/encoding.h"
#include "core/crypto/random.h"

namespace cm::crypto {
namespace {

const std::string kKeyHex = "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7";

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

TEST(CryptoEncoding, keys_are_lower_case_hex_of_the_exact_size) {
  ASSERT_TRUE(public_key_parse(kKeyHex));
  EXPECT_EQ(view(hex_text(*public_key_parse(kKeyHex))), kKeyHex);
  EXPECT_FALSE(public_key_parse(upper(kKeyHex)));
  EXPECT_FALSE(public_key_parse(""));
  EXPECT_FALSE(public_key_parse(kKeyHex.substr(1)));
  EXPECT_FALSE(public_key_parse(kKeyHex.substr(2)));
  EXPECT_FALSE(public_key_parse(kKeyHex + "00"));
  EXPECT_FALSE(public_key_parse(" " + kKeyHex.substr(1)));
  EXPECT_FALSE(public_key_parse(kKeyHex.substr(1) + "g"));
  EXPECT_FALSE(public_key_parse(kKeyHex.substr(2) + "0x"));
  std::string with_zero = kKeyHex;
  with_zero[10] = '\0';
  EXPECT_FALSE(public_key_parse(with_zero));
}

TEST(CryptoEncoding, every_character_but_hex_digits_is_refused) {
  for (int c = 0; c < 256; ++c) {
    std::string text = "0a";
    text[1] = static_cast<char>(c);
    std::uint8_t byte;
    const bool digit = c >= '0' && c <= '9';
    const bool lower = c >= 'a' && c <= 'f';
    const bool capital = c >= 'A' && c <= 'F';
    EXPECT_EQ(hex_parse_lower(text, {&byte, 1}), digit || lower) << c;
    EXPECT_EQ(hex_parse_any_case(text, {&byte, 1}), digit || lower || capital) << c;
    EXPECT_EQ(hex_parse_secret(text, {&byte, 1}), digit || lower || capital) << c;
  }
}

TEST(CryptoEncoding, signatures_are_hex_of_either_case) {
  const std::string text = kKeyHex + upper(kKeyHex);
  ASSERT_TRUE(signature_parse(text));
  ScratchArena arena;
  TextBuf out(arena);
  hex_append(*signature_parse(text), out);
  EXPECT_EQ(out.view(), kKeyHex + kKeyHex);
  EXPECT_FALSE(signature_parse(kKeyHex));
}

TEST(CryptoEncoding, base64_round_trips_at_every_size_up_to_100_bytes) {
  ScratchArena arena;
  for (std::size_t size = 0; size <= 100; ++size) {
    std::string bytes(size, '\0');
    fill_random(bytes.data(), size);
    TextBuf padded(arena, 1);
    TextBuf url(arena, 1);
    base64_append(as_bytes(bytes), padded);
    base64url_append(as_bytes(bytes), url);
    EXPECT_EQ(padded.size(), (size + 2) / 3 * 4);
    EXPECT_EQ(url.size(), (size * 4 + 2) / 3);
    EXPECT_EQ(url.view().find_first_of("+/="), std::string_view::npos);
    const auto from_padded = base64_decode(padded.view(), arena);
    const auto from_url = base64url_decode(url.view(), arena);
    ASSERT_TRUE(from_padded && from_url);
    EXPECT_EQ(as_text(*from_padded), bytes);
    EXPECT_EQ(as_text(*from_url), bytes);
  }
}

TEST(CryptoEncoding, base64_with_stray_bits_padding_or_space_is_refused) {
  ScratchArena arena;
  EXPECT_TRUE(base64_decode("QQ==", arena));
  for (const char* text : {"QR==", "QQ=", "QQ", "Q", "QQ===", "QUE", "QUF=", "QQ==QQ==", " QQ==",
                           "QQ==\n", "QQ= =", "QUJ_", "QUJ-", "====", "=", "QUJD="}) {
    EXPECT_FALSE(base64_decode(text, arena)) << text;
  }
  EXPECT_TRUE(base64url_decode("QQ", arena));
  EXPECT_TRUE(base64url_decode("_-8", arena));
  for (const char* text : {"QR", "QQ==", "Q", "QUF", "QQ ", "Q Q", "+w", "/w", "QQ\n", "QUJD="}) {
    EXPECT_FALSE(base64url_decode(text, arena)) << text;
  }
  EXPECT_FALSE(base64_decode(std::string_view("QQ\0=", 4), arena));
}

TEST(CryptoEncoding, fixed_sizes_are_exact) {
  EXPECT_TRUE(nonce_parse("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcY"));
  EXPECT_FALSE(nonce_parse("AQIDBAUGBwgJCgsMDQ4PEBESExQV"));
  EXPECT_FALSE(nonce_parse("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGQ=="));
  EXPECT_FALSE(nonce_parse(""));
  std::uint8_t two[2];
  EXPECT_TRUE(base64url_parse("AAE", two));
  EXPECT_FALSE(base64url_parse("AA", two));
  EXPECT_FALSE(base64url_parse("AAEC", two));
}

TEST(CryptoEncoding, comparing_in_constant_time_looks_at_size_and_bytes) {
  EXPECT_TRUE(equal_in_constant_time(as_bytes("token"), as_bytes("token")));
  EXPECT_FALSE(equal_in_constant_time(as_bytes("token"), as_bytes("tokeN")));
  EXPECT_FALSE(equal_in_constant_time(as_bytes("token"), as_bytes("toke")));
  EXPECT_TRUE(equal_in_constant_time({}, {}));
}

TEST(CryptoRandom, ids_use_the_whole_alphabet_evenly) {
  ASSERT_TRUE(initialise());
  std::array<int, 128> seen{};
  std::set<std::string> ids;
  for (int round = 0; round < 4000; ++round) {
    const Base62Id id = base62_id(fill_random);
    ids.emplace(view(id));
    for (const char c : id) ++seen[static_cast<unsigned char>(c)];
  }
  EXPECT_EQ(ids.size(), 4000u);
  int letters = 0;
  for (int c = 0; c < 128; ++c) {
    const bool allowed = std::isalnum(c) != 0;
    letters += allowed ? 1 : 0;
    // 128,000 draws over 62: 2064 on average, with a standard deviation of 45.
    EXPECT_EQ(seen[static_cast<std::size_t>(c)] > 1700, allowed) << c;
    EXPECT_LT(seen[static_cast<std::size_t>(c)], 2430);
  }
  EXPECT_EQ(letters, 62);
}

TEST(CryptoRandom, ids_and_tokens_come_from_the_rng_that_is_passed_in) {
  const FillRandom sevens = [](void* to, std::size_t size) { std::memset(to, 7, size); };
  EXPECT_EQ(view(base62_id(sevens)), std::string(32, '7'));
  const HexToken hex = hex_token(sevens);
  EXPECT_EQ(std::string(hex.data(), 6), "070707");
  const UrlToken url = url_token(sevens);
  EXPECT_EQ(std::string(url.data(), url.size()), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
  EXPECT_EQ(random_nonce(sevens)[23], 7);
}

}  // namespace
}  // namespace cm::crypto
