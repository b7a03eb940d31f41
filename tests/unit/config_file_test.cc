// config_file_test.cc — config.json: what is refused, and what survives being written again.
#include <gtest/gtest.h>

#include <string>

#include "cli/config.h"

namespace cm::cli {
namespace {

const std::string kPubkey(64, 'a');
const std::string kSecret(128, 'b');

std::string mesh_text(const std::string& pubkey = kPubkey, const std::string& more = {}) {
  return R"({"meshId":"m1","memberId":"p1","slug":"demo","name":"alice","pubkey":")" + pubkey +
         R"(","secretKey":")" + kSecret + R"(","brokerUrl":"ws://h/ws","joinedAt":"t")" + more +
         "}";
}

TEST(ConfigFile, what_is_not_understood_is_refused_with_path_and_field) {
  struct {
    const char* what;
    std::string text;
    const char* names;
  } const table[] = {
      {"empty", "", "byte"},
      {"truncated", R"({"meshes":[)" + mesh_text().substr(0, 40), "byte"},
      {"a list", "[]", "one JSON object"},
      {"wrong type of meshes", R"({"meshes":{}})", "'meshes'"},
      {"no list of meshes", R"({"version":1})", "'meshes'"},
      {"a misspelt list", R"({"meshs":[]})", "'meshes'"},
      {"null meshes", R"({"meshes":null})", "'meshes'"},
      {"a mesh that is a text", R"({"meshes":["m"]})", "object"},
      {"missing field", R"({"meshes":[{}]})", "'meshId'"},
      {"wrong type", R"({"meshes":[{"meshId":7}]})", "'meshId'"},
      {"short key", R"({"meshes":[)" + mesh_text("ab") + "]}", "'pubkey'"},
      {"upper case key", R"({"meshes":[)" + mesh_text(std::string(64, 'A')) + "]}", "'pubkey'"},
      {"long key", R"({"meshes":[)" + mesh_text(std::string(65, 'a')) + "]}", "'pubkey'"},
      {"duplicate key", R"({"meshes":[],"meshes":[]})", "duplicate key"},
      {"duplicate field", R"({"meshes":[)" + mesh_text(kPubkey, R"(,"slug":"x")") + "]}",
       "duplicate key"},
      {"not UTF-8", "{\"a\":\"\xff\"}", "byte"},
      {"lone surrogate", R"({"a":"\ud800"})", "byte"},
      {"deep", R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}", "nested"},
      {"huge number", R"({"a":1e999})", "Number too big"},
      {"something behind", "{}x", "byte"},
  };
  for (const auto& bad : table) {
    const auto config = parse_config(bad.text, "/c/config.json");
    ASSERT_FALSE(config) << bad.what;
    EXPECT_EQ(config.code(), Err::kMalformed) << bad.what;
    const std::string& detail = config.error().detail;
    EXPECT_TRUE(detail.starts_with("/c/config.json: ")) << bad.what << ": " << detail;
    EXPECT_NE(detail.find(bad.names), std::string::npos) << bad.what << ": " << detail;
    EXPECT_EQ(detail.find("bbbb"), std::string::npos) << bad.what << ": a secret was shown";
  }
}

TEST(ConfigFile, what_it_does_not_know_survives_being_written) {
  const std::string text = R"({"role":"x","meshes":[)" + mesh_text(kPubkey, R"(,"new":[1.50])") +
                           R"(],"more":{"a":null}})";
  const auto config = parse_config(text, "/c/config.json");
  ASSERT_TRUE(config) << config.error().detail;
  ASSERT_EQ(config->meshes.size(), 1u);
  EXPECT_EQ(config->meshes[0].slug, "demo");
  EXPECT_EQ(config_text(*config), R"({"version":1,"meshes":[)" +
                                      mesh_text(kPubkey, R"(,"new":[1.50])") +
                                      R"(],"role":"x","more":{"a":null}})" + "\n");
}

}  // namespace
}  // namespace cm::cli
