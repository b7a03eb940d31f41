// fuzz_mutator_test.cc — the mutators that keep JSON JSON.
// Holds:  the same seed gives the same input; what they make is read by our own parser, or refused
//         only for what they do on purpose: a name twice, too deep, too many members.
// Not:    whether they find anything (fuzz/).
#include <gtest/gtest.h>

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
    Dice dice(seed);
    JsonMutator mutator(dice, kWireNames, kFrameTypes, nullptr);
    std::string text(kSend);
    for (int round = 0; round < 3; ++round) {
      text = mutator.mutate(text);
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
    Dice first(seed), second(seed);
    JsonMutator left(first, kWireNames, kFrameTypes, nullptr);
    JsonMutator right(second, kWireNames, kFrameTypes, nullptr);
    EXPECT_EQ(left.mutate(kSend), right.mutate(kSend));
    EXPECT_EQ(left.cross(kSend, R"({"a":[1]})"), right.cross(kSend, R"({"a":[1]})"));
  }
}

TEST(FuzzMutator, what_is_no_json_is_left_alone) {
  Dice dice(1);
  JsonMutator mutator(dice, kWireNames, kFrameTypes, nullptr);
  for (const char* text : {"", "{", "[1,]", "{\"a\"}", "{\"a\":1}x", "\"\n\"", "nonsense"}) {
    EXPECT_EQ(mutator.mutate(text), "") << text;
    EXPECT_EQ(mutator.cross(text, "[1]"), "") << text;
  }
}

TEST(FuzzMutator, a_first_line_that_is_no_json_is_kept) {
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    Dice dice(seed);
    JsonMutator mutator(dice, kSendNames, {}, nullptr);
    EXPECT_TRUE(mutator.mutate("c-1\n{\"to\":\"ann\"}").starts_with("c-1\n"));
  }
}

TEST(FuzzMutator, lines_are_added_removed_moved_and_changed) {
  constexpr std::string_view kLines[] = {"0{\"type\":\"send\"}", "t", "c1"};
  std::size_t longer = 0, shorter = 0;
  for (std::uint64_t seed = 0; seed < 1'000; ++seed) {
    Dice dice(seed);
    LineMutator mutator(dice, kLines, kWireNames, nullptr);
    const std::string text = mutator.mutate("t\n1{\"type\":\"ack\",\"id\":\"x\"}\nt");
    const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
    longer += lines > 3;
    shorter += lines < 3;
    EXPECT_FALSE(mutator.mutate("").empty());
  }
  EXPECT_GT(longer, 100u);
  EXPECT_GT(shorter, 50u);
}

}  // namespace
}  // namespace cm::fuzz
