// query_test.cc — parameters of a request target.
#include <gtest/gtest.h>

#include <string>

#include "core/wire/query.h"

namespace cm::wire {
namespace {

TEST(Query, one_parameter_is_found_decoded) {
  ScratchArena arena;
  const auto found = query_find("a=1&mesh=x%20y+z%2B&b", "mesh", arena);
  EXPECT_EQ(found.kind, QueryValue::Kind::kFound);
  EXPECT_EQ(found.value, "x y z+");
  EXPECT_EQ(query_find("a=1&b", "b", arena).kind, QueryValue::Kind::kFound);
  EXPECT_EQ(query_find("a=1", "b", arena).kind, QueryValue::Kind::kAbsent);
  EXPECT_EQ(query_find("", "b", arena).kind, QueryValue::Kind::kAbsent);
  EXPECT_EQ(query_find("to%6Ben=1", "token", arena).kind, QueryValue::Kind::kFound);
}

TEST(Query, doubtful_parameters_are_malformed) {
  ScratchArena arena;
  std::string many;
  for (int index = 0; index < 70; ++index) many += "x=1&";
  for (const std::string& query :
       {std::string("a=1&a=2"), std::string("a=%"), std::string("a=%4"), std::string("a=%zz"),
        std::string("a=%00"), std::string("a=%ff"), std::string("%=1&a=2"), many + "a=1"}) {
    EXPECT_EQ(query_find(query, "a", arena).kind, QueryValue::Kind::kMalformed) << query;
  }
}

TEST(Query, a_name_that_is_not_expected_is_found_in_any_spelling) {
  ScratchArena arena;
  EXPECT_FALSE(query_unknown("", {"a"}, arena));
  EXPECT_FALSE(query_unknown("a=1&%61=2&&", {"a"}, arena));
  EXPECT_EQ(query_unknown("a=1&form=x", {"a", "from"}, arena), "form");
  EXPECT_EQ(query_unknown("a%zz=1", {"a"}, arena), "a%zz");
  EXPECT_EQ(query_unknown("%ff", {"a"}, arena), "%ff");
}

TEST(Query, the_next_page_repeats_the_query_and_writes_nothing_that_a_header_could_not_hold) {
  ScratchArena arena;
  const auto with = [&](std::string_view query) {
    TextBuf out(arena, 64);
    query_with(query, "cursor", "X", arena, out);
    return std::string(out.view());
  };
  EXPECT_EQ(with(""), "cursor=X");
  EXPECT_EQ(with("limit=2&topic=a%20b"), "limit=2&topic=a%20b&cursor=X");
  EXPECT_EQ(with("curso%72=Y&limit=2&cursor=Z"), "limit=2&cursor=X");
  EXPECT_EQ(with("a=<b>\"\r\n\x7f\xff"), "a=%3Cb%3E%22%0D%0A%7F%FF&cursor=X");
  EXPECT_EQ(with("%zz=1&b=2"), "b=2&cursor=X") << "a pair that nobody can read says nothing";
}

}  // namespace
}  // namespace cm::wire
