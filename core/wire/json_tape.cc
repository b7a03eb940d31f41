// json_tape.cc — RapidJSON's iterative SAX reader over a scratch copy, writing the tape.
// Holds:  in situ parsing destroys the copy, never the input; offsets are the same in both.
// Not:    a DOM: RapidJSON's Accept and teardown recurse on deep documents.
#include "core/wire/json_tape.h"

#if defined(__SSE2__)  // of every x86-64
#define RAPIDJSON_SSE2
#elif defined(__ARM_NEON)
#define RAPIDJSON_NEON
#endif
#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/base/utf8.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

using Stream = rapidjson::InsituStringStream;
constexpr unsigned kFlags = rapidjson::kParseInsituFlag | rapidjson::kParseIterativeFlag |
                            rapidjson::kParseStopWhenDoneFlag;
// Not kParseFullPrecisionFlag: a zero with an exponent ("0e40") is undefined behaviour in it, and
// no field of the wire is a fraction. Hashed numbers are read by core/crypto/jcs.

// The vector instructions that look for the end of a string load aligned blocks of 16 bytes: all of
// the block with the closing NUL must be ours.
constexpr std::size_t kGuardBytes = 16;

std::uint32_t hash_of(std::string_view key) noexcept {
  std::uint32_t hash = 2166136261u;
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

// RapidJSON lets a lone low surrogate escape through as three bytes that are no UTF-8.
bool has_surrogate(std::string_view text) noexcept {
  const char* at = text.data();
  const char* const end = at + text.size();
  while ((at = static_cast<const char*>(
              std::memchr(at, 0xed, static_cast<std::size_t>(end - at)))) != nullptr) {
    if (at + 1 < end && static_cast<unsigned char>(at[1]) >= 0xa0) return true;
    if (++at == end) break;
  }
  return false;
}

// RapidJSON's vector instructions take the control characters from 0x1a on for text. No document
// has them anywhere but as escapes. Steps of a fixed size without branches are vectors as well.
std::size_t missed_control(std::string_view text) noexcept {
  const auto is_missed = [](char c) {
    return static_cast<unsigned char>(static_cast<unsigned char>(c) - 0x1a) < 6;
  };
  constexpr std::size_t kStep = 32;
  std::size_t at = 0;
  for (; at + kStep <= text.size(); at += kStep) {
    unsigned char found = 0;
    for (std::size_t index = 0; index < kStep; ++index) {
      found |= static_cast<unsigned char>(is_missed(text[at + index]));
    }
    if (found != 0) break;
  }
  while (at < text.size() && !is_missed(text[at])) ++at;
  return at;
}

Status refused_at(std::size_t byte, std::string_view what) {
  return fail(Err::kMalformed, "JSON at byte " + std::to_string(byte) + ": " + std::string(what));
}

class Handler {
 public:
  Handler(std::string_view input, Stream& stream, ScratchArena& scratch)
      : input_(input),
        stream_(stream),
        scratch_(scratch),
        has_escapes_(input.find('\\') != std::string_view::npos) {
    // A node needs at least two bytes of input ("1,"); grow in steps to that bound.
    grow(16);
  }

  const char* refusal() const noexcept { return refusal_; }
  JsonNode* nodes() const noexcept { return nodes_; }
  std::uint32_t size() const noexcept { return size_; }

  bool Null() { return add(JsonType::kNull) != nullptr; }
  bool Bool(bool value) {
    JsonNode* node = add(JsonType::kBool);
    if (node != nullptr) node->boolean = value;
    return node != nullptr;
  }
  bool Int(int value) { return integer(value); }
  bool Uint(unsigned value) { return integer(value); }
  bool Int64(std::int64_t value) { return integer(value); }
  bool Uint64(std::uint64_t value) {
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (value <= kMax) return integer(static_cast<std::int64_t>(value));
    return Double(static_cast<double>(value));
  }
  bool Double(double value) {
    JsonNode* node = add(JsonType::kDouble);
    if (node == nullptr) return false;
    node->number = value;
    node->text = number_text(stream_.Tell());
    return true;
  }
  bool RawNumber(const char*, rapidjson::SizeType, bool) { return false; }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    const std::string_view value(text, length);
    if (has_escapes_ && has_surrogate(value)) return refuse("a lone surrogate in a string");
    JsonNode* node = add(JsonType::kText);
    if (node != nullptr) node->text = value;
    return node != nullptr;
  }
  bool Key(const char* text, rapidjson::SizeType length, bool) {
    const std::string_view key(text, length);
    if (has_escapes_ && has_surrogate(key)) return refuse("a lone surrogate in a key");
    Level& level = levels_[depth_ - 1];
    if (level.keys == kJsonKeysMax) return refuse("more than 256 keys in an object");
    const std::uint32_t hash = hash_of(key);
    for (std::size_t index = 0; index < level.keys; ++index) {
      if (level.hashes[index] != hash) continue;
      // One scan looks at every key of the object: more keys of this hash need no further one.
      if (has_key(level.node, key)) return refuse("a duplicate key");
      break;
    }
    level.hashes[level.keys++] = hash;
    key_ = key;
    return true;
  }
  bool StartObject() { return open(JsonType::kObject, '{'); }
  bool EndObject(rapidjson::SizeType) { return close('}'); }
  bool StartArray() { return open(JsonType::kArray, '['); }
  bool EndArray(rapidjson::SizeType) { return close(']'); }

 private:
  struct Level {
    std::uint32_t node = 0;
    std::size_t start = 0;
    std::size_t keys = 0;
    std::array<std::uint32_t, kJsonKeysMax> hashes;
  };

  // The source text of the number at `start`: RapidJSON's value may have lost digits. It reads
  // numbers from a copy of the stream, which still stands in front of the number now.
  std::string_view number_text(std::size_t start) const noexcept {
    constexpr std::string_view kNumberChars = "0123456789+-.eE";
    std::size_t end = start;
    while (end < input_.size() && kNumberChars.find(input_[end]) != std::string_view::npos) ++end;
    CHECK(end > start);
    return input_.substr(start, end - start);
  }
  bool refuse(const char* what) noexcept {
    refusal_ = what;
    return false;
  }
  void grow(std::uint32_t capacity) {
    auto* bigger = reinterpret_cast<JsonNode*>(scratch_.allocate(capacity * sizeof(JsonNode), 8));
    if (size_ != 0) std::memcpy(static_cast<void*>(bigger), nodes_, size_ * sizeof(JsonNode));
    nodes_ = bigger;
    capacity_ = capacity;
  }
  JsonNode* add(JsonType type) {
    if (size_ == kJsonNodesMax) {
      refuse("more values than a document may have");
      return nullptr;
    }
    if (size_ == capacity_) grow(capacity_ * 2);
    JsonNode* node = new (&nodes_[size_]) JsonNode;
    node->type = type;
    node->key = key_;
    key_ = {};
    node->next = ++size_;
    if (depth_ > 0) ++nodes_[levels_[depth_ - 1].node].count;
    return node;
  }
  bool integer(std::int64_t value) {
    JsonNode* node = add(JsonType::kInteger);
    if (node == nullptr) return false;
    node->integer = value;
    node->number = static_cast<double>(value);
    return true;
  }
  bool open(JsonType type, char expected) {
    if (depth_ == kJsonDepthMax) return refuse("nested deeper than 16 levels");
    if (add(type) == nullptr) return false;
    Level& level = levels_[depth_++];
    level.node = size_ - 1;
    level.start = stream_.Tell();
    level.keys = 0;
    CHECK(input_[level.start] == expected);
    return true;
  }
  bool close(char expected) {
    CHECK(depth_ > 0);
    const Level& level = levels_[--depth_];
    const std::size_t end = stream_.Tell();
    CHECK(input_[end] == expected);
    JsonNode& node = nodes_[level.node];
    node.next = size_;
    node.text = input_.substr(level.start, end + 1 - level.start);
    return true;
  }
  bool has_key(std::uint32_t object, std::string_view key) const noexcept {
    for (std::uint32_t index = object + 1; index < size_;) {
      if (nodes_[index].key == key) return true;
      index = nodes_[index].next;
    }
    return false;
  }

  std::string_view input_;
  Stream& stream_;
  ScratchArena& scratch_;
  bool has_escapes_;  // the input is UTF-8: only an escape can make a surrogate
  JsonNode* nodes_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t capacity_ = 0;
  std::string_view key_;
  const char* refusal_ = nullptr;
  std::size_t depth_ = 0;
  std::array<Level, kJsonDepthMax> levels_;
};

}  // namespace

// RapidJSON writes through what its allocator gives it without looking: exhausted memory has to end
// the process here, with a report, as operator new does.
struct CheckedAllocator {
  static constexpr bool kNeedFree = true;

  void* Malloc(std::size_t size) { return size == 0 ? nullptr : checked(std::malloc(size)); }
  void* Realloc(void* old, std::size_t, std::size_t size) {
    if (size != 0) return checked(std::realloc(old, size));
    std::free(old);
    return nullptr;
  }
  static void Free(void* at) noexcept { std::free(at); }

 private:
  static void* checked(void* at) noexcept {
    CHECK(at != nullptr);
    return at;
  }
};

struct JsonParser::Reader {
  rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, CheckedAllocator> reader;
};

JsonParser::JsonParser() : reader_(new Reader) {}
JsonParser::~JsonParser() { delete reader_; }

const JsonNode* JsonTape::find(const JsonNode& object, std::string_view key) const noexcept {
  if (object.type != JsonType::kObject) return nullptr;
  for (std::uint32_t index = first(object); index < object.next; index = nodes_[index].next) {
    if (nodes_[index].key == key) return &nodes_[index];
  }
  return nullptr;
}

std::size_t JsonTape::depth(const JsonNode& node) const noexcept {
  const auto is_list = [](const JsonNode& each) {
    return each.type == JsonType::kObject || each.type == JsonType::kArray;
  };
  if (!is_list(node)) return 0;
  std::array<std::uint32_t, kJsonDepthMax> ends;  // of the lists that hold the node at hand
  std::size_t open = 0;
  std::size_t deepest = 0;
  for (auto index = static_cast<std::uint32_t>(&node - nodes_); index < node.next; ++index) {
    while (open > 0 && index >= ends[open - 1]) --open;
    if (!is_list(nodes_[index])) continue;
    CHECK(open < ends.size());  // the parser took no deeper document
    ends[open++] = nodes_[index].next;
    deepest = std::max(deepest, open);
  }
  return deepest;
}

Status JsonParser::parse(std::string_view input, ScratchArena& scratch, JsonTape& tape) {
  // Once over the whole text, so that RapidJSON need not validate character by character.
  if (const std::size_t good = utf8_valid_bytes(input); good != input.size()) {
    return refused_at(good, "the text is not UTF-8");
  }
  if (const std::size_t raw = missed_control(input); raw != input.size()) {
    return refused_at(raw, "a control character");
  }
  char* const copy =
      reinterpret_cast<char*>(scratch.allocate(input.size() + kGuardBytes, kGuardBytes));
  if (!input.empty()) std::memcpy(copy, input.data(), input.size());
  std::memset(copy + input.size(), 0, kGuardBytes);
  Stream stream(copy);
  Handler handler(input, stream, scratch);
  const rapidjson::ParseResult result = reader_->reader.Parse<kFlags>(stream, handler);
  CHECK(stream.Tell() <= input.size() + kGuardBytes);  // it read within the copy
  if (result.IsError()) {
    const char* what = handler.refusal() != nullptr ? handler.refusal()
                                                    : rapidjson::GetParseError_En(result.Code());
    const std::size_t place = std::min(result.Offset(), input.size());
    return refused_at(place, what);
  }
  // Only white space may follow; a NUL byte ends RapidJSON's stream and would hide the rest.
  for (std::size_t at = stream.Tell(); at < input.size(); ++at) {
    const char c = input[at];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
      return refused_at(at, "text behind the document");
    }
  }
  tape.nodes_ = handler.nodes();
  tape.size_ = handler.size();
  CHECK(tape.size_ > 0);
  return {};
}

}  // namespace cm::wire
