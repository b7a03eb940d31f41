// json_spans.h — where the values of a document stand, and the dice of the mutators.
// Owns:   Dice, JsonValue, JsonSpans.
// Holds:  only spans: nothing is decoded, so that what a mutator leaves alone stays as it was.
// Why:    our own parser refuses what a mutator has to make: names that stand twice, deep nesting.
// Limits: 512 values, nested 64 deep.
// Not:    changing anything (json_mutator.cc).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace cm::fuzz {

// SplitMix64: libFuzzer gives a seed for each call and wants the same answer for the same seed.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
  }
  std::size_t below(std::size_t bound) noexcept {
    return bound == 0 ? 0 : static_cast<std::size_t>(next() % bound);
  }
  bool once_in(std::size_t count) noexcept { return below(count) == 0; }
  template <class List>
  const auto& of(const List& list) noexcept {
    return list[below(std::size(list))];
  }

 private:
  std::uint64_t state_;
};

struct JsonValue {
  std::size_t begin = 0, end = 0;  // of the value
  std::size_t key = 0;             // where its member begins; equal to `begin` in arrays
  std::size_t parent = SIZE_MAX;
  std::size_t children = 0;
};

// Spans of all values in the text, the root first; empty if it is no JSON that this can change.
class JsonSpans {
 public:
  explicit JsonSpans(std::string_view text) : text_(text) {
    skip();
    if (!value(at_, SIZE_MAX, 0)) values_.clear();
    skip();
    if (at_ != text_.size()) values_.clear();
  }
  const std::vector<JsonValue>& values() const noexcept { return values_; }

 private:
  static constexpr std::size_t kDepthMax = 64;
  static constexpr std::size_t kValuesMax = 512;

  void skip() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool text() {
    if (!take('"')) return false;
    for (; at_ < text_.size(); ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '"') return ++at_, true;
      if (text_[at_] == '\\') ++at_;
    }
    return false;
  }
  bool value(std::size_t key, std::size_t parent, std::size_t depth) {
    skip();
    if (at_ == text_.size() || depth > kDepthMax || values_.size() == kValuesMax) return false;
    const std::size_t index = values_.size();
    values_.push_back({at_, at_, key == SIZE_MAX ? at_ : key, parent, 0});
    const char first = text_[at_];
    bool good = false;
    if (first == '{' || first == '[') {
      good = members(index, first == '{', depth);
    } else if (first == '"') {
      good = text();
    } else {
      const std::size_t stop = std::min(text_.find_first_of(",]} \t\r\n", at_), text_.size());
      good = is_literal(text_.substr(at_, stop - at_));
      at_ = stop;
    }
    values_[index].end = at_;
    return good;
  }
  static bool is_literal(std::string_view word) {
    if (word == "true" || word == "false" || word == "null") return true;
    return !word.empty() && word.find_first_not_of("-+.eE0123456789") == word.npos &&
           (word.front() == '-' || word.front() >= '0') && word.back() >= '0' && word.back() <= '9';
  }
  bool members(std::size_t index, bool is_object, std::size_t depth) {
    const char close = text_[at_++] == '{' ? '}' : ']';
    if (take(close)) return true;
    for (;;) {
      skip();
      const std::size_t key = is_object ? at_ : SIZE_MAX;
      if (is_object && (!text() || !take(':'))) return false;
      if (!value(key, index, depth + 1)) return false;
      ++values_[index].children;
      if (take(close)) return true;
      if (!take(',')) return false;
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<JsonValue> values_;
};

}  // namespace cm::fuzz
