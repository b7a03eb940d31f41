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

}  // namespace
}  // namespace cm::wire
