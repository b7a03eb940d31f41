// jcs_test.cc — RFC 8785: number text, order of keys, escapes, and everything that has no form.
// Why:    fingerprints are taken over this form; two readings of one text would be two requests.
// Not:    the shared vectors (crypto_vectors_test.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "core/base/alloc_count.h"
#include "core/crypto/encoding.h"
#include "core/crypto/jcs.h"
#include "core/crypto/number_text.h"
#include "core/crypto/sign.h"

namespace cm::crypto {
namespace {

using std::string_view_literals::operator""sv;

std::string canonical(std::string_view json) {
  ScratchArena arena;
  TextBuf out(arena);
  const Status status = jcs_append(json, out);
  if (!status) return "refused: " + status.error().detail;
  return std::string(out.view());
}

Err refusal(std::string_view json) {
  ScratchArena arena;
  TextBuf out(arena);
  out.append("kept");
  const Status status = jcs_append(json, out);
  EXPECT_TRUE(status || out.view() == "kept");
  return status.code();
}

std::string number(double value) {
  ScratchArena arena(4096);
  TextBuf out(arena);
  jcs_number(value, out);
  EXPECT_LE(out.size(), kNumberTextMax);
  return std::string(out.view());
}

// --- numbers ---

TEST(JcsNumber, layouts_change_where_ecmascript_says) {
  EXPECT_EQ(number(0.0), "0");
  EXPECT_EQ(number(-0.0), "0");
  EXPECT_EQ(number(1), "1");
  EXPECT_EQ(number(-1.5), "-1.5");
  EXPECT_EQ(number(1e20), "100000000000000000000");
  EXPECT_EQ(number(123456789012345680000.0), "123456789012345680000");
  EXPECT_EQ(number(1e21), "1e+21");
  EXPECT_EQ(number(-1.25e21), "-1.25e+21");
  EXPECT_EQ(number(1e-6), "0.000001");
  EXPECT_EQ(number(1.5e-6), "0.0000015");
  EXPECT_EQ(number(1e-7), "1e-7");
  EXPECT_EQ(number(-1.25e-7), "-1.25e-7");
  EXPECT_EQ(number(0.1), "0.1");
  EXPECT_EQ(number(10.01), "10.01");
  EXPECT_EQ(number(5e-324), "5e-324");
  EXPECT_EQ(number(1.7976931348623157e308), "1.7976931348623157e+308");
  EXPECT_EQ(number(2.2250738585072014e-308), "2.2250738585072014e-308");
  EXPECT_EQ(number(9007199254740993.0), "9007199254740992");
  EXPECT_EQ(number(-0.000001234567890123456), "-0.000001234567890123456");
}

// The doubles of the published ES6 number sequence (cyberphone/json-canonicalization): first
// this list, then 2000 from the smallest normal one up, then a chain of SHA-256 over 32 bytes
// that begins with zeros, each hash four little-endian doubles, leaving out what is not finite
// and zero.
constexpr std::uint64_t kFirstDoubles[] = {
    0x0000000000000000, 0x8000000000000000, 0x0000000000000001, 0x8000000000000001,
    0xc46696695dbd1cc3, 0xc43211ede4974a35, 0xc3fce97ca0f21056, 0xc3c7213080c1a6ac,
    0xc39280f39a348556, 0xc35d9b1f5d20d557, 0xc327af4c4a80aaac, 0xc2f2f2a36ecd5556,
    0xc2be51057e155558, 0xc28840d131aaaaac, 0xc253670dc1555557, 0xc21f0b4935555557,
    0xc1e8d5d42aaaaaac, 0xc1b3de4355555556, 0xc17fca0555555556, 0xc1496e6aaaaaaaab,
    0xc114585555555555, 0xc0e046aaaaaaaaab, 0xc0aa0aaaaaaaaaaa, 0xc074d55555555555,
    0xc040aaaaaaaaaaab, 0xc00aaaaaaaaaaaab, 0xbfd5555555555555, 0xbfa1111111111111,
    0xbf6b4e81b4e81b4f, 0xbf35d867c3ece2a5, 0xbf0179ec9cbd821e, 0xbecbf647612f3696,
    0xbe965e9f80f29212, 0xbe61e54c672874db, 0xbe2ca213d840baf8, 0xbdf6e80fe033c8c6,
    0xbdc2533fe68fd3d2, 0xbd8d51ffd74c861c, 0xbd5774ccac3d3817, 0xbd22c3d6f030f9ac,
    0xbcee0624b3818f79, 0xbcb804ea293472c7, 0xbc833721ba905bd3, 0xbc4ebe9c5db3c61e,
    0xbc18987d17c304e5, 0xbbe3ad30dfcf371d, 0xbbaf7b816618582f, 0xbb792f9ab81379bf,
    0xbb442615600f9499, 0xbb101e77800c76e1, 0xbad9ca58cce0be35, 0xbaa4a1e0a3e6fe90,
    0xba708180831f320d, 0xba3a68cd9e985016, 0x446696695dbd1cc3, 0x443211ede4974a35,
    0x43fce97ca0f21056, 0x43c7213080c1a6ac, 0x439280f39a348556, 0x435d9b1f5d20d557,
    0x4327af4c4a80aaac, 0x42f2f2a36ecd5556, 0x42be51057e155558, 0x428840d131aaaaac,
    0x4253670dc1555557, 0x421f0b4935555557, 0x41e8d5d42aaaaaac, 0x41b3de4355555556,
    0x417fca0555555556, 0x41496e6aaaaaaaab, 0x4114585555555555, 0x40e046aaaaaaaaab,
    0x40aa0aaaaaaaaaaa, 0x4074d55555555555, 0x4040aaaaaaaaaaab, 0x400aaaaaaaaaaaab,
    0x3fd5555555555555, 0x3fa1111111111111, 0x3f6b4e81b4e81b4f, 0x3f35d867c3ece2a5,
    0x3f0179ec9cbd821e, 0x3ecbf647612f3696, 0x3e965e9f80f29212, 0x3e61e54c672874db,
    0x3e2ca213d840baf8, 0x3df6e80fe033c8c6, 0x3dc2533fe68fd3d2, 0x3d8d51ffd74c861c,
    0x3d5774ccac3d3817, 0x3d22c3d6f030f9ac, 0x3cee0624b3818f79, 0x3cb804ea293472c7,
    0x3c833721ba905bd3, 0x3c4ebe9c5db3c61e, 0x3c18987d17c304e5, 0x3be3ad30dfcf371d,
    0x3baf7b816618582f, 0x3b792f9ab81379bf, 0x3b442615600f9499, 0x3b101e77800c76e1,
    0x3ad9ca58cce0be35, 0x3aa4a1e0a3e6fe90, 0x3a708180831f320d, 0x3a3a68cd9e985016,
    0x4024000000000000, 0x4014000000000000, 0x3fe0000000000000, 0x3fa999999999999a,
    0x3f747ae147ae147b, 0x3f40624dd2f1a9fc, 0x3f0a36e2eb1c432d, 0x3ed4f8b588e368f1,
    0x3ea0c6f7a0b5ed8d, 0x3e6ad7f29abcaf48, 0x3e35798ee2308c3a, 0x3ed539223589fa95,
    0x3ed4ff26cd5a7781, 0x3ed4f95a762283ff, 0x3ed4f8c60703520c, 0x3ed4f8b72f19cd0d,
    0x3ed4f8b5b31c0c8d, 0x3ed4f8b58d1c461a, 0x3ed4f8b5894f7f0e, 0x3ed4f8b588ee37f3,
    0x3ed4f8b588e47da4, 0x3ed4f8b588e3849c, 0x3ed4f8b588e36bb5, 0x3ed4f8b588e36937,
    0x3ed4f8b588e368f8, 0x3ed4f8b588e368f1, 0x3ff0000000000000, 0xbff0000000000000,
    0xbfeffffffffffffa, 0xbfeffffffffffffb, 0x3feffffffffffffa, 0x3feffffffffffffb,
    0x3feffffffffffffc, 0x3feffffffffffffe, 0xbfefffffffffffff, 0xbfefffffffffffff,
    0x3fefffffffffffff, 0x3fefffffffffffff, 0x3fd3333333333332, 0x3fd3333333333333,
    0x3fd3333333333334, 0x0010000000000000, 0x000ffffffffffffd, 0x000fffffffffffff,
    0x7fefffffffffffff, 0xffefffffffffffff, 0x4340000000000000, 0xc340000000000000,
    0x4430000000000000, 0x44b52d02c7e14af5, 0x44b52d02c7e14af6, 0x44b52d02c7e14af7,
    0x444b1ae4d6e2ef4e, 0x444b1ae4d6e2ef4f, 0x444b1ae4d6e2ef50, 0x3eb0c6f7a0b5ed8c,
    0x3eb0c6f7a0b5ed8d, 0x41b3de4355555553, 0x41b3de4355555554, 0x41b3de4355555555,
    0x41b3de4355555556, 0x41b3de4355555557, 0xbecbf647612f3696, 0x43143ff3c1cb0959,
};

class Es6Sequence {
 public:
  double next() {
    const std::size_t index = index_++;
    if (index < std::size(kFirstDoubles)) return std::bit_cast<double>(kFirstDoubles[index]);
    const std::size_t serial = index - std::size(kFirstDoubles);
    if (serial < 2000) return std::bit_cast<double>(0x0010000000000000u + serial);
    for (;;) {
      if (used_ == 4) {
        block_ = sha256(block_);
        used_ = 0;
      }
      const double value = load_le<double>(block_.data() + 8 * used_++);
      if (std::isfinite(value) && value != 0) return value;
    }
  }

 private:
  std::size_t index_ = 0;
  Hash32 block_{};
  std::size_t used_ = 4;
};

TEST(JcsNumber, the_published_es6_sequence_has_the_published_hashes) {
  ScratchArena arena(1 << 20, 16 << 20);
  TextBuf out(arena, 8 << 20);
  Es6Sequence sequence;
  const auto hash_so_far = [&] {
    return std::string(view(hex_text(sha256(as_bytes(out.view())))));
  };
  for (std::size_t line = 1; line <= 100'000; ++line) {
    const double value = sequence.next();
    char hex[17];
    const auto end = std::to_chars(hex, hex + sizeof hex, std::bit_cast<std::uint64_t>(value), 16);
    out.append({hex, static_cast<std::size_t>(end.ptr - hex)});
    out.append(',');
    jcs_number(value, out);
    out.append('\n');
    if (line == 1'000) {
      EXPECT_EQ(hash_so_far(), "be18b62b6f69cdab33a7e0dae0d9cfa869fda80ddc712221570f9f40a5878687");
    } else if (line == 10'000) {
      EXPECT_EQ(hash_so_far(), "b9f7a8e75ef22a835685a52ccba7f7d6bdc99e34b010992cbc5864cd12be6892");
    }
  }
  EXPECT_EQ(hash_so_far(), "22776e6d4b49fa294a0d0f349268e5c28808fe7e0cb2bcbe28f63894e494d4c7");
}

TEST(JcsNumber, random_doubles_read_back_as_themselves) {
  std::mt19937_64 random(8785);
  ScratchArena arena;
  for (int round = 0; round < 200'000; ++round) {
    const double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    TextBuf out(arena, 32);
    jcs_number(value, out);
    out.append('\0');
    ASSERT_EQ(std::strtod(out.view().data(), nullptr), value);
    arena.reset();
  }
}

TEST(JcsNumber, long_decimal_texts_are_rounded_as_strtod_rounds) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = std::to_string(1 + random() % 9);
    for (std::uint64_t digits = random() % 30; digits > 0; --digits) {
      text += static_cast<char>('0' + random() % 10);
    }
    text += '.';
    for (std::uint64_t digits = 1 + random() % 30; digits > 0; --digits) {
      text += static_cast<char>('0' + random() % 10);
    }
    text += "e" + std::to_string(static_cast<int>(random() % 560) - 300);
    const double expected = std::strtod(text.c_str(), nullptr);
    if (!std::isfinite(expected)) continue;
    ASSERT_EQ(canonical(text), number(expected)) << text;
  }
  // Halfway between two doubles, and a hair above and below.
  EXPECT_EQ(canonical("9007199254740993"), "9007199254740992");
  EXPECT_EQ(canonical("9007199254740993.0000000000000000000000000000000000001"),
            "9007199254740994");
  EXPECT_EQ(canonical("9007199254740992.9999999999999999999999999999999999999"),
            "9007199254740992");
}

TEST(JcsNumber, too_large_is_refused_and_too_small_is_zero) {
  for (const char* text :
       {"1e309", "-1e309", "1e400", "1e99999999999999999999", "1.7976931348623159e308",
        "179769313486231590e291", "[1,2e308]", "0.1e310"}) {
    EXPECT_EQ(refusal(text), Err::kMalformed) << text;
  }
  EXPECT_EQ(refusal("1" + std::string(309, '0')), Err::kMalformed);
  EXPECT_EQ(refusal("17976931348623159" + std::string(292, '0')), Err::kMalformed);
  for (const char* text :
       {"1e-400", "-1e-400", "2e-324", "1e-99999999999999999999", "0e-99999999999", "0.0e5"}) {
    EXPECT_EQ(canonical(text), "0") << text;
  }
  EXPECT_EQ(canonical("0." + std::string(400, '0') + "1"), "0");
  EXPECT_EQ(canonical("3e-324"), "5e-324");
  EXPECT_EQ(canonical("1" + std::string(308, '0')), "1e+308");
  EXPECT_EQ(canonical("0." + std::string(300, '0') + "1e302"), "10");
}

// --- order and text ---

TEST(Jcs, keys_sort_by_utf16_code_units) {
  EXPECT_EQ(canonical("{\"\xef\xac\xb3\":1,\"\xf0\x9f\x98\x80\":2,\"\xee\x80\x80\":3,"
                      "\"\xed\x9f\xbf\":4,\"z\":5,\"\":6}"),
            "{\"\":6,\"z\":5,\"\xed\x9f\xbf\":4,\"\xf0\x9f\x98\x80\":2,"
            "\"\xee\x80\x80\":3,\"\xef\xac\xb3\":1}");
  EXPECT_LT(compare_as_utf16("a", "ab"), 0);
  EXPECT_GT(compare_as_utf16("ab", "a"), 0);
  EXPECT_EQ(compare_as_utf16("ab", "ab"), 0);
  EXPECT_LT(compare_as_utf16("", "\0"sv), 0);
}

TEST(Jcs, order_of_all_pairs_of_edge_code_points_is_that_of_utf16) {
  struct Point {
    std::string utf8;
    std::u16string utf16;
  };
  std::vector<Point> points;
  for (const char32_t c : {0x0u, 0x41u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xd7ffu, 0xe000u, 0xefffu,
                           0xf000u, 0xfb33u, 0xffffu, 0x10000u, 0x1f600u, 0x3ffffu, 0x10ffffu}) {
    Point point;
    if (c < 0x80) {
      point.utf8 = {static_cast<char>(c)};
    } else if (c < 0x800) {
      point.utf8 = {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      point.utf8 = {static_cast<char>(0xe0 | (c >> 12)), static_cast<char>(0x80 | (c >> 6 & 63)),
                    static_cast<char>(0x80 | (c & 63))};
    } else {
      point.utf8 = {static_cast<char>(0xf0 | (c >> 18)), static_cast<char>(0x80 | (c >> 12 & 63)),
                    static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    if (c < 0x10000) {
      point.utf16 = {static_cast<char16_t>(c)};
    } else {
      point.utf16 = {static_cast<char16_t>(0xd800 + ((c - 0x10000) >> 10)),
                     static_cast<char16_t>(0xdc00 + ((c - 0x10000) & 0x3ff))};
    }
    points.push_back(point);
  }
  for (const Point& left : points) {
    for (const Point& right : points) {
      for (const Point& tail : points) {
        const std::string a = "x" + left.utf8 + tail.utf8;
        const std::string b = "x" + right.utf8;
        const int order = compare_as_utf16(a, b);
        const int expected = (u"x" + left.utf16 + tail.utf16).compare(u"x" + right.utf16);
        EXPECT_EQ(order < 0, expected < 0);
        EXPECT_EQ(order > 0, expected > 0);
      }
    }
  }
}

TEST(Jcs, escapes_are_the_shortest_and_lower_case) {
  EXPECT_EQ(canonical("\"\\u0041\\/\\u001F\\u007f\\u2028\\u000a\\u0000\""),
            "\"A/\\u001f\x7f\xe2\x80\xa8\\n\\u0000\"");
  EXPECT_EQ(canonical("\"\\b\\t\\n\\f\\r\\\"\\\\\""), "\"\\b\\t\\n\\f\\r\\\"\\\\\"");
  EXPECT_EQ(canonical("\"\\ud83d\\ude00\""), "\"\xf0\x9f\x98\x80\"");
}

TEST(Jcs, the_form_of_a_form_is_itself) {
  const std::string once = canonical(
      " { \"b\" : [ 1.0 , { \"y\" : null , \"x\" : [ ] } , \"\\u00e9\" ] ,\n\t\"a\" : { } , \"\" : "
      "-0 } ");
  EXPECT_EQ(once, "{\"\":0,\"a\":{},\"b\":[1,{\"x\":[],\"y\":null},\"\xc3\xa9\"]}");
  EXPECT_EQ(canonical(once), once);
  for (const char* text : {"true", "false", "null", "\"\"", "7", "[]", "{}", "[[],[{}],{}]"}) {
    EXPECT_EQ(canonical(text), text);
  }
}

TEST(Jcs, many_keys_are_sorted_in_reasonable_time) {
  std::string json = "{";
  for (int key = 50'000; key-- > 0;) json += "\"k" + std::to_string(key) + "\":0,";
  json.back() = '}';
  const std::string form = canonical(json);
  EXPECT_EQ(form.size(), json.size());
  EXPECT_TRUE(form.starts_with("{\"k0\":0,\"k1\":0,\"k10\":0,"));
}

// --- refusals ---

TEST(Jcs, what_is_not_json_is_refused) {
  for (const std::string_view text :
       {""sv,       " "sv,        "{"sv,         "}"sv,         "["sv,           "[1"sv,
        "[1,]"sv,   "[,1]"sv,     "[1 2]"sv,     "{\"a\"}"sv,   "{\"a\":}"sv,    "{\"a\":1,}"sv,
        "{a:1}"sv,  "{'a':1}"sv,  "{1:1}"sv,     "01"sv,        "-01"sv,         "1."sv,
        ".5"sv,     "-"sv,        "+1"sv,        "1e"sv,        "1e+"sv,         "0x10"sv,
        "NaN"sv,    "Infinity"sv, "-Infinity"sv, "Inf"sv,       "nan"sv,         "[NaN]"sv,
        "True"sv,   "nul"sv,      "nulll"sv,     "1 1"sv,       "{}{}"sv,        "[]]"sv,
        "{}}"sv,    "// c\n1"sv,  "/* c */1"sv,  "1//"sv,       "\""sv,          "\"a"sv,
        "\"\t\""sv, "\"\x1f\""sv, "\"\\x41\""sv, "\"\\u12\""sv, "\"\\u12G4\""sv, "\xef\xbb\xbf{}"sv,
        "{}\0"sv,   "\0{}"sv,     "{}\0{}"sv,    "\"a\0b\""sv,  "\x0b{}"sv,      "\xc2\xa0{}"sv,
        "[1}"sv,    "{\"a\":1]"sv}) {
    EXPECT_EQ(refusal(text), Err::kMalformed) << text;
  }
}

TEST(Jcs, what_is_not_utf8_is_refused) {
  for (const std::string_view text :
       {"\"\x80\""sv, "\"\xc3\""sv, "\"\xc0\x80\""sv, "\"\xc1\xbf\""sv, "\"\xe0\x80\x80\""sv,
        "\"\xed\xa0\x80\""sv, "\"\xed\xbf\xbf\""sv, "\"\xf0\x80\x80\x80\""sv,
        "\"\xf4\x90\x80\x80\""sv, "\"\xf8\x88\x80\x80\x80\""sv, "\"\xff\""sv, "\"\xe2\x82"sv,
        "{\"\xff\":1}"sv}) {
    EXPECT_EQ(refusal(text), Err::kMalformed) << text;
  }
}

TEST(Jcs, lone_surrogates_are_refused_in_values_and_keys) {
  for (const char* text : {"\"\\ud800\"", "\"\\udbff\"", "\"\\udc00\"", "\"\\udfff\"",
                           "\"\\ud800\\ud800\"", "\"\\ude00\\ud83d\"", "\"\\ud83dx\"",
                           "\"\\ud83d\\n\"", "\"a\\uDC00b\"", "{\"\\udc00\":1}"}) {
    EXPECT_EQ(refusal(text), Err::kMalformed) << text;
  }
  EXPECT_EQ(canonical("\"\\ud7ff\""), "\"\xed\x9f\xbf\"");
}

TEST(Jcs, a_key_given_twice_is_refused_however_it_is_written) {
  EXPECT_EQ(refusal("{\"a\":1,\"a\":1}"), Err::kMalformed);
  EXPECT_EQ(refusal("{\"a\":1,\"b\":2,\"\\u0061\":3}"), Err::kMalformed);
  EXPECT_EQ(refusal("[{\"x\":{\"/\":1,\"\\/\":2}}]"), Err::kMalformed);
  EXPECT_EQ(refusal("{\"\":1,\"\":2}"), Err::kMalformed);
  EXPECT_EQ(refusal("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}"), Err::kMalformed);
  EXPECT_EQ(canonical("{\"a\":{\"a\":{\"a\":1}}}"), "{\"a\":{\"a\":{\"a\":1}}}");
  EXPECT_EQ(canonical("{\"a\":1,\"A\":2,\"a\\u0000\":3}"), "{\"A\":2,\"a\":1,\"a\\u0000\":3}");
}

TEST(Jcs, depth_is_bounded_and_a_depth_bomb_costs_nothing) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_EQ(canonical(nested(kJcsDepthMax)), nested(kJcsDepthMax));
  EXPECT_EQ(refusal(nested(kJcsDepthMax + 1)), Err::kMalformed);
  EXPECT_EQ(refusal(std::string(kJcsBytesMax, '[')), Err::kMalformed);
  std::string objects;
  while (objects.size() < 500'000) objects += "{\"a\":";
  EXPECT_EQ(refusal(objects), Err::kMalformed);
}

TEST(Jcs, size_is_bounded) {
  EXPECT_EQ(refusal(std::string(kJcsBytesMax + 1, ' ')), Err::kTooBig);
  const std::string largest = "\"" + std::string(kJcsBytesMax - 2, 'x') + "\"";
  EXPECT_EQ(canonical(largest), largest);
}

TEST(Jcs, errors_name_the_place_and_quote_nothing) {
  ScratchArena arena;
  TextBuf out(arena);
  const Status status = jcs_append("{\"password\":\"hunter2\",\"password\":1}", out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().detail.find("hunter2"), std::string::npos);
  EXPECT_EQ(status.error().detail.find("password"), std::string::npos);
  EXPECT_NE(status.error().detail.find("byte 34"), std::string::npos) << status.error().detail;
}

TEST(Jcs, a_usual_meta_allocates_nothing_in_steady_state) {
  ScratchArena arena;
  std::uint64_t before = 0;
  for (int round = 0; round < 20; ++round) {
    if (round == 10) before = allocation_count();
    TextBuf out(arena);
    ASSERT_TRUE(jcs_append("{\"b\":[1,2.5,{\"k\":\"\\u00e9\"}],\"a\":true}", out));
    arena.reset();
  }
  EXPECT_EQ(allocation_count(), before);
}

}  // namespace
}  // namespace cm::crypto
