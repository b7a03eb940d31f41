// json_mutator.h — changes inputs that are JSON, or lines with JSON in them, and leaves them JSON.
// Owns:   mutate_json, mutate_lines and their cross-overs; CM_FUZZ_JSON_MUTATOR and
//         CM_FUZZ_LINE_MUTATOR, which give a target its mutator.
// Holds:  a document that was well-formed stays so (members may get the name of another, which a
//         strict parser refuses too); what is no JSON is left to libFuzzer's own mutations, and a
//         quarter of all changes are those, so that malformed inputs are tried as before. The same
//         seed makes the same input.
// Why:    a flipped byte nearly always breaks the syntax, and then nothing behind the parser runs.
//         The code is in a file of its own, so that it is neither instrumented nor learnt from.
// Limits: documents of at most 512 values, nested 64 deep.
// Not:    what the members mean: targets give names and lines of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace cm::fuzz {

// libFuzzer's byte-wise mutation, or null where there is none (tests).
using RawMutate = std::size_t (*)(std::uint8_t* data, std::size_t size, std::size_t longest);
using Words = std::span<const std::string_view>;

// The document with one change; empty if it is none. A first line that is no JSON is kept. `names`
// are names of members that the target knows, `types` values of its member "type".
std::string mutate_json(std::string_view document, Words names, Words types, std::uint64_t seed,
                        RawMutate raw);
// The document with a value of the other one in the place of one of its own.
std::string cross_json(std::string_view document, std::string_view other, std::uint64_t seed);

// Inputs of lines: the first byte says what happens, JSON may follow anywhere behind it. `lines`
// are what a new one is made from.
std::string mutate_lines(std::string_view input, Words lines, Words names, std::uint64_t seed,
                         RawMutate raw);
std::string cross_lines(std::string_view input, std::string_view other, Words lines,
                        std::uint64_t seed);

// What the two macros call. With CM_FUZZ_PLAIN in the environment libFuzzer's own mutations alone
// are used, to compare with.
enum class Form : std::uint8_t { kJson, kLines };
std::size_t engine_mutate(Form form, std::span<std::uint8_t> room, std::size_t size, unsigned seed,
                          Words first, Words second, RawMutate raw);
std::size_t engine_cross(Form form, std::string_view left, std::string_view right,
                         std::span<std::uint8_t> out, unsigned seed, Words first);

}  // namespace cm::fuzz

#ifdef CM_FUZZ_ENGINE
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t longest);

#define CM_FUZZ_MUTATOR(form, first, second)                                              \
  extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,    \
                                                 std::size_t longest, unsigned seed) {    \
    return cm::fuzz::engine_mutate(form, {data, longest}, size, seed, first, second,      \
                                   LLVMFuzzerMutate);                                     \
  }                                                                                       \
  extern "C" std::size_t LLVMFuzzerCustomCrossOver(                                       \
      const std::uint8_t* left, std::size_t left_size, const std::uint8_t* right,         \
      std::size_t right_size, std::uint8_t* out, std::size_t longest, unsigned seed) {    \
    return cm::fuzz::engine_cross(form, {reinterpret_cast<const char*>(left), left_size}, \
                                  {reinterpret_cast<const char*>(right), right_size},     \
                                  {out, longest}, seed, first);                           \
  }
#else
#define CM_FUZZ_MUTATOR(form, first, second)
#endif
#define CM_FUZZ_JSON_MUTATOR(names, types) CM_FUZZ_MUTATOR(cm::fuzz::Form::kJson, names, types)
#define CM_FUZZ_LINE_MUTATOR(lines, names) CM_FUZZ_MUTATOR(cm::fuzz::Form::kLines, lines, names)
