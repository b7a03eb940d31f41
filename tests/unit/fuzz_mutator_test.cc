// fuzz_mutator_test.cc — the mutators that keep JSON JSON.
// Holds:  the same seed gives the same input; what they make is read by our own parser, or refused
//         only for what they do on purpose: a name twice, too deep, too many members.
// Not:    whether they find anything (fuzz/).
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "core/wire/json_tape.h"
#include "fuzz/json_mutator.h"
#include "fuzz/wire_names.h"

namespace cm::fuzz {
namespace {

constexpr std::string_view kSend =
    R"({"type":"send","id":"c-1","client_message_id":"c-1","targetSpec":"03a107bff3ce10be",)"
    R"("priority":"next","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"AAAA",)"
    R"("meta":{"a":[1,-2.5,true,null,"Zo\u00eb ä 🦊"],"b":{}},"list":[]})";

bool is_on_purpose(std::string_view detail) {
  for (const char* part : {"a duplicate key", "deep", "members"}) {
    if (detail.find(part) != std::string_view::npos) return true;
  }
  return false;
}

TEST(FuzzMutator, a_mutated_document_is_a_document) {
  wire::JsonParser parser;
  std::set<std::string> seen;
  std::size_t read = 0;
  for (std::uint64_t seed = 0; seed < 20'000; ++seed) {
    std::string text(kSend);
    for (std::uint64_t round = 0; round < 3; ++round) {
      text = mutate_json(text, kWireNames, kFrameTypes, seed + (round << 32), nullptr);
      ASSERT_FALSE(text.empty()) << "seed " << seed;
    }
    seen.insert(text);
    ScratchArena scratch;
    wire::JsonTape tape;
    const Status parsed = parser.parse(text, scratch, tape);
    if (parsed) {
      ++read;
    } else {
      EXPECT_TRUE(is_on_purpose(parsed.error().detail)) << parsed.error().detail << ": " << text;
    }
  }
  EXPECT_GT(read, 12'000u);
  EXPECT_GT(seen.size(), 10'000u);
}

TEST(FuzzMutator, the_same_seed_makes_the_same_input) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(mutate_json(kSend, kWireNames, kFrameTypes, seed, nullptr),
              mutate_json(kSend, kWireNames, kFrameTypes, seed, nullptr));
    EXPECT_EQ(cross_json(kSend, R"({"a":[1]})", seed), cross_json(kSend, R"({"a":[1]})", seed));
  }
}

TEST(FuzzMutator, what_is_no_json_is_left_alone) {
  for (const char* text : {"", "{", "[1,]", "{\"a\"}", "{\"a\":1}x", "\"\n\"", "nonsense"}) {
    EXPECT_EQ(mutate_json(text, kWireNames, kFrameTypes, 1, nullptr), "") << text;
    EXPECT_EQ(cross_json(text, "[1]", 1), "") << text;
  }
}

TEST(FuzzMutator, a_first_line_that_is_no_json_is_kept) {
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    const std::string text = mutate_json("c-1\n{\"to\":\"ann\"}", kSendNames, {}, seed, nullptr);
    EXPECT_TRUE(text.starts_with("c-1\n")) << text;
  }
}

TEST(FuzzMutator, lines_are_added_removed_moved_and_changed) {
  constexpr std::string_view kLines[] = {"0{\"type\":\"send\"}", "t", "c1"};
  std::size_t longer = 0, shorter = 0;
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    const std::string text =
        mutate_lines("t\n1{\"type\":\"ack\",\"id\":\"x\"}\nt", kLines, kWireNames, seed, nullptr);
    const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
    longer += lines > 3;
    shorter += lines < 3;
    EXPECT_FALSE(mutate_lines("", kLines, kWireNames, seed, nullptr).empty());
  }
  EXPECT_GT(longer, 100u);
  EXPECT_GT(shorter, 50u);
}

}  // namespace
}  // namespace cm::fuzz
