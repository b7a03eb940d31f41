// json_test.cc — JSON of frames: what is taken, what is refused and where, and what it costs.
// Holds:  every refusal is kMalformed with the byte; hostile depth and size do not recurse.
// Not:    fields (frames_test.cc), canonical JSON (jcs_test.cc).
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/alloc_count.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

using std::string_view_literals::operator""sv;

class Json : public testing::Test {
 protected:
  Status parse(std::string_view text) {
    // A block of the exact size: a read behind the input is seen by ASan.
    input_ = std::make_unique<char[]>(text.size());
    text.copy(input_.get(), text.size());
    return parser_.parse({input_.get(), text.size()}, scratch_, tape_);
  }
  void expect_refused(std::string_view text) {
    const Status status = parse(text);
    EXPECT_EQ(status.code(), Err::kMalformed) << text.substr(0, 80);
    if (status) return;
    EXPECT_TRUE(status.error().detail.starts_with("JSON at byte ")) << text;
  }
  std::string text_of(std::string_view json) {
    const Status status = parse(json);
    return status ? std::string(tape_.root().text) : "refused: " + status.error().detail;
  }

  JsonParser parser_;
  ScratchArena scratch_;
  JsonTape tape_;
  std::unique_ptr<char[]> input_;
};

std::string repeat(std::string_view part, std::size_t times) {
  std::string all;
  for (std::size_t index = 0; index < times; ++index) all += part;
  return all;
}

TEST_F(Json, every_kind_of_value_is_read) {
  ASSERT_TRUE(
      parse(R"( {"n":null,"t":true,"f":false,"i":-42,"d":1.5,"s":"x","a":[1,[2]],"o":{}} )"));
  EXPECT_EQ(tape_.root().type, JsonType::kObject);
  EXPECT_EQ(tape_.root().count, 8u);
  EXPECT_EQ(tape_.find("n")->type, JsonType::kNull);
  EXPECT_TRUE(tape_.find("t")->boolean);
  EXPECT_EQ(tape_.find("f")->type, JsonType::kBool);
  EXPECT_EQ(tape_.find("i")->integer, -42);
  EXPECT_EQ(tape_.find("d")->type, JsonType::kDouble);
  EXPECT_EQ(tape_.find("d")->number, 1.5);
  EXPECT_EQ(tape_.find("s")->text, "x");
  EXPECT_EQ(tape_.find("a")->text, "[1,[2]]");
  EXPECT_EQ(tape_.find("a")->count, 2u);
  EXPECT_EQ(tape_.find("o")->text, "{}");
  EXPECT_EQ(tape_.find("absent"), nullptr);
}

TEST_F(Json, a_key_inside_a_member_is_not_a_key_of_the_object) {
  ASSERT_TRUE(parse(R"({"a":{"b":1},"c":2})"));
  EXPECT_EQ(tape_.find("b"), nullptr);
  EXPECT_EQ(tape_.find(*tape_.find("a"), "b")->integer, 1);
  EXPECT_EQ(tape_.find(*tape_.find("c"), "b"), nullptr);
}

TEST_F(Json, raw_texts_keep_the_bytes_of_the_source) {
  ASSERT_TRUE(parse(R"({"a": { "k" : "\u0041\n" , "n": 1.0 } })"));
  EXPECT_EQ(tape_.find("a")->text, R"({ "k" : "\u0041\n" , "n": 1.0 })");
  EXPECT_EQ(tape_.find(*tape_.find("a"), "k")->text, "A\n");
}

TEST_F(Json, escapes_are_resolved) {
  EXPECT_EQ(text_of(R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac")"),
            "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac");
  EXPECT_EQ(text_of(R"("\ud83e\udd8a")"), "\xf0\x9f\xa6\x8a");
  EXPECT_EQ(text_of(R"("a\u0000b")"), "a\0b"sv);
}

TEST_F(Json, what_is_not_json_is_refused) {
  for (const std::string_view text :
       {""sv,          " "sv,           "{"sv,         "}"sv,     "["sv,         "{]"sv,
        "[1,]"sv,      "{\"a\":1,}"sv,  "{\"a\"}"sv,   "{a:1}"sv, "{'a':1}"sv,   "nul"sv,
        "NaN"sv,       "Infinity"sv,    "-Infinity"sv, "+1"sv,    "01"sv,        "1."sv,
        ".5"sv,        "-"sv,           "1e"sv,        "0x10"sv,  "// x\n1"sv,   "/* x */1"sv,
        "\"\\x41\""sv, "\"\\u12g4\""sv, "\"open"sv,    "[1 2]"sv, "{\"a\" 1}"sv, "\xef\xbb\xbf{}"sv,
        "\xff"sv,      "{,}"sv,         "[,1]"sv}) {
    expect_refused(text);
  }
}

TEST_F(Json, nothing_may_follow_the_document_but_white_space) {
  EXPECT_TRUE(parse("{} \t\r\n"));
  for (const std::string_view text : {"{}{}"sv, "{} x"sv, "1 1"sv, "{}\0"sv, "{}\0{}"sv, "{} \0 "sv,
                                      "{},"sv, "\"a\"\"b\""sv, "{}\x0b"sv, "{}\xc2\xa0"sv}) {
    expect_refused(text);
  }
}

TEST_F(Json, a_nul_byte_inside_the_document_is_refused) {
  expect_refused("{\"a\":\0 1}"sv);
  expect_refused("{\"a\":\"b\0c\"}"sv);
  expect_refused("{\"a\0\":1}"sv);
  expect_refused("\0{}"sv);
}

TEST_F(Json, raw_control_characters_are_refused_at_every_place_of_a_string) {
  for (int control = 0; control < 0x20; ++control) {
    for (std::size_t place = 0; place < 40; ++place) {
      std::string text = "{\"k\":\"" + std::string(40, 'x') + "\"}";
      text[6 + place] = static_cast<char>(control);
      expect_refused(text);
    }
  }
  EXPECT_TRUE(parse("\"\x7f\""));  // DEL is no control character to RFC 8259
}

TEST_F(Json, lone_surrogates_are_refused_in_texts_and_keys) {
  for (const char* escape : {R"(\ud800)", R"(\udbff)", R"(\udc00)", R"(\udfff)", R"(\ud800\ud800)",
                             R"(\ud800x)", R"(\udc00\ud800)", R"(\ud800\u0041)", R"(x\udc00y)"}) {
    expect_refused("\"" + std::string(escape) + "\"");
    expect_refused("{\"" + std::string(escape) + "\":1}");
    expect_refused("{\"a\":[{\"b\":\"" + std::string(escape) + "\"}]}");
  }
  EXPECT_EQ(text_of("\"\xed\x9f\xbf\xee\x80\x80\""), "\xed\x9f\xbf\xee\x80\x80");  // the neighbours
}

TEST_F(Json, bytes_that_are_not_utf8_are_refused_in_texts_and_keys) {
  for (const std::string_view bytes :
       {"\x80"sv, "\xbf"sv, "\xc0\xaf"sv, "\xc1\xbf"sv, "\xe0\x80\xaf"sv, "\xe0\x9f\xbf"sv,
        "\xed\xa0\x80"sv, "\xed\xbf\xbf"sv, "\xf0\x8f\xbf\xbf"sv, "\xf4\x90\x80\x80"sv,
        "\xf5\x80\x80\x80"sv, "\xff"sv, "\xfe"sv, "\xc3"sv, "\xe2\x82"sv, "\xf0\x9f\xa6"sv}) {
    expect_refused("\"" + std::string(bytes) + "\"");
    expect_refused("\"" + std::string(bytes));  // the text ends within the character
    expect_refused("{\"" + std::string(bytes) + "\":1}");
  }
}

// RapidJSON reads as many bytes as the lead byte announces; the parser CHECKs that they were
// within its copy. Every alignment, because ASan sees an overrun only in the arena's padding.
TEST_F(Json, a_text_that_ends_behind_a_lead_byte_is_not_read_past_its_end) {
  for (const std::string_view lead : {"\xc3"sv, "\xe2"sv, "\xe2\x82"sv, "\xf0"sv, "\xf0\x9f"sv}) {
    for (std::size_t before = 0; before < 16; ++before) {
      scratch_.reset();
      expect_refused("\"" + std::string(before, 'x') + std::string(lead));
      scratch_.reset();
      expect_refused("{\"" + std::string(before, 'x') + std::string(lead));
    }
  }
}

TEST_F(Json, a_duplicate_key_is_refused_after_unescaping) {
  expect_refused(R"({"a":1,"a":2})");
  expect_refused(R"({"a":1,"\u0061":2})");
  expect_refused(R"({"type":"x","b":{},"t\u0079pe":"y"})");
  expect_refused(R"({"o":{"":1,"":2}})");
  EXPECT_TRUE(parse(R"({"a":{"a":1},"b":{"a":1},"A":2})"));
  EXPECT_TRUE(parse(R"([{"a":1},{"a":1}])"));
}

TEST_F(Json, sixteen_levels_are_read_and_seventeen_refused) {
  EXPECT_TRUE(parse(repeat("[", 16) + repeat("]", 16)));
  expect_refused(repeat("[", 17) + repeat("]", 17));
  EXPECT_TRUE(parse(repeat("{\"a\":", 15) + "{}" + repeat("}", 15)));
  expect_refused(repeat("{\"a\":", 16) + "{}" + repeat("}", 16));
}

TEST_F(Json, hostile_depth_neither_recurses_nor_fills_memory) {
  for (const std::string& text : {repeat("[", 100'000), repeat("{\"a\":", 100'000),
                                  repeat("[", 100'000) + repeat("]", 100'000)}) {
    expect_refused(text);
    EXPECT_LT(scratch_.used_bytes(), 2'000'000u);
    scratch_.reset();
  }
}

TEST_F(Json, an_object_has_at_most_256_keys) {
  std::string text = "{\"k0\":0";
  for (int key = 1; key < 256; ++key) text += ",\"k" + std::to_string(key) + "\":0";
  EXPECT_TRUE(parse(text + "}"));
  EXPECT_EQ(tape_.root().count, 256u);
  expect_refused(text + ",\"k256\":0}");
}

TEST_F(Json, a_document_has_a_bounded_number_of_values) {
  EXPECT_TRUE(parse("[0" + repeat(",0", kJsonNodesMax - 2) + "]"));
  EXPECT_EQ(tape_.size(), kJsonNodesMax);
  expect_refused("[0" + repeat(",0", kJsonNodesMax - 1) + "]");
}

TEST_F(Json, numbers_at_the_borders_of_64_bits) {
  ASSERT_TRUE(
      parse("[9223372036854775807,-9223372036854775808,9223372036854775808,"
            "18446744073709551615,18446744073709551616,-9223372036854775809,0,-0]"));
  EXPECT_EQ(tape_.at(1).integer, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(tape_.at(2).integer, std::numeric_limits<std::int64_t>::min());
  for (std::uint32_t index = 3; index < 7; ++index) {
    EXPECT_EQ(tape_.at(index).type, JsonType::kDouble) << index;
  }
  EXPECT_EQ(tape_.at(7).integer, 0);
}

TEST_F(Json, numbers_beyond_a_double_are_refused_and_zeros_with_exponents_are_zeros) {
  expect_refused("1e400");
  expect_refused("-1e400");
  expect_refused(std::string(400, '9'));
  ASSERT_TRUE(parse("[0e40,0.0e-5,-0E+10,1e-400,0.5]"));
  for (std::uint32_t index = 1; index < 5; ++index) EXPECT_EQ(tape_.at(index).number, 0.0);
  EXPECT_EQ(tape_.at(5).number, 0.5);
  EXPECT_TRUE(parse("0." + std::string(100'000, '1')));  // long, and no work beyond its length
}

TEST_F(Json, a_document_cut_at_any_byte_is_refused) {
  constexpr std::string_view kWhole =
      R"({"type":"send","n":[1,-2.5e3,true,null],"s":"\ud83e\udd8a é\n","o":{"k":{}}})";
  ASSERT_TRUE(parse(kWhole));
  for (std::size_t size = 0; size < kWhole.size(); ++size) expect_refused(kWhole.substr(0, size));
}

TEST_F(Json, the_refusal_names_a_byte_within_the_text) {
  EXPECT_EQ(parse("{\"a\":x}").error().detail.substr(0, 14), "JSON at byte 5");
  // RapidJSON looks for the rest of this character behind the text.
  const Status cut = parse("\"{\xf0");
  ASSERT_EQ(cut.code(), Err::kMalformed);
  EXPECT_LE(std::stoul(cut.error().detail.substr(13)), 3u) << cut.error().detail;
}

TEST_F(Json, parsing_allocates_nothing_in_steady_state) {
  std::string text = R"({"type":"send","targetSpec":"a","e":"\u00e9","n":[1.5,2,{"k":"v"}],"c":")" +
                     std::string(4000, 'A') + "\"}";
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(parser_.parse(text, scratch_, tape_));
    scratch_.reset();
  }
  const std::uint64_t before = allocation_count();
  for (int round = 0; round < 100; ++round) {
    const bool good = static_cast<bool>(parser_.parse(text, scratch_, tape_));
    scratch_.reset();
    if (!good) break;
  }
  EXPECT_EQ(allocation_count(), before);
}

TEST_F(Json, a_parser_that_refused_reads_the_next_document) {
  for (const std::string_view bad :
       {"{\"a\":[[["sv, "[1e400"sv, "\"\xec"sv, "{\"a\":1,\"a\":2}"sv}) {
    expect_refused(bad);
    ASSERT_TRUE(parse(R"({"a":[1]})"));
    EXPECT_EQ(tape_.size(), 3u);
  }
}

TEST_F(Json, what_the_writer_escapes_the_parser_reads_back) {
  std::string all;
  for (int c = 0; c < 0x80; ++c) all += static_cast<char>(c);
  all += "\xc2\x80 \xe2\x80\xa8 \xef\xbf\xbf \xf4\x8f\xbf\xbf";
  TextBuf out(scratch_);
  append_json_text(out, all);
  EXPECT_EQ(text_of(out.view()), all);
}

TEST_F(Json, the_writer_places_commas_and_skips_what_is_empty) {
  TextBuf out(scratch_);
  JsonWriter json(out);
  json.begin_object().field("a", 1).optional_field("b", "").nullable_field("c", "").key("d");
  json.begin_array().number(1).boolean(true).null().begin_object().end_object().end_array();
  json.key("t").iso_time(0).key("z").iso_time_or_null(0).key("r").raw("[2]");
  const std::uint8_t bytes[] = {0, 0xab};
  json.key("h").hex(bytes).field("e", "\"\x01").end_object();
  EXPECT_EQ(out.view(),
            R"({"a":1,"c":null,"d":[1,true,null,{}],"t":"1970-01-01T00:00:00.000Z","z":null,)"
            R"("r":[2],"h":"00ab","e":"\"\u0001"})");
  EXPECT_TRUE(parse(out.view()));
}

TEST(JsonTape, keys_of_one_hash_cost_one_scan_each_and_not_one_for_each_other) {
  // Pairs of keys that FNV-1a maps to one value, found by search: one scan each, both accepted.
  ScratchArena scratch;
  JsonParser parser;
  JsonTape tape;
  EXPECT_TRUE(parser.parse(R"({"costarring":1,"liquid":2})", scratch, tape));
  EXPECT_FALSE(parser.parse(R"({"costarring":1,"liquid":2,"liquid":3})", scratch, tape));
  EXPECT_FALSE(parser.parse(R"({"costarring":1,"liquid":2,"costarring":3})", scratch, tape));
}

}  // namespace
}  // namespace cm::wire
