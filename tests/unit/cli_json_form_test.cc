// cli_json_form_test.cc — the pretty form of JSON changes white space and nothing else.
#include <gtest/gtest.h>

#include "cli/json_form.h"

namespace cm::cli {
namespace {

TEST(JsonForm, MembersAndRowsGetALineEachIndentedByTwoSpaces) {
  EXPECT_EQ(pretty_json(R"({"a":1,"b":[true,{"c":null}]})"),
            "{\n  \"a\": 1,\n  \"b\": [\n    true,\n    {\n      \"c\": null\n    }\n  ]\n}");
}

TEST(JsonForm, EmptyObjectsAndArraysStayOnTheirLine) {
  EXPECT_EQ(pretty_json("{}"), "{}");
  EXPECT_EQ(pretty_json(R"({"a":[ ],"b":{}})"), "{\n  \"a\": [],\n  \"b\": {}\n}");
}

TEST(JsonForm, TextsWithBracesQuotesAndBackslashesAreCopied) {
  EXPECT_EQ(pretty_json(R"(["{\"a\":[1,2]}","\\", "c, d"])"),
            "[\n  \"{\\\"a\\\":[1,2]}\",\n  \"\\\\\",\n  \"c, d\"\n]");
}

TEST(JsonForm, NumbersKeepTheirDigitsAndForeignWhiteSpaceGoes) {
  EXPECT_EQ(pretty_json("[ 1.50 ,\n123456789012345678901234567890, -1e400 ]"),
            "[\n  1.50,\n  123456789012345678901234567890,\n  -1e400\n]");
}

TEST(JsonForm, APlainValueStaysAsItIs) {
  EXPECT_EQ(pretty_json("\"a : b\""), "\"a : b\"");
  EXPECT_EQ(pretty_json("null"), "null");
}

}  // namespace
}  // namespace cm::cli
