// json_tape.h — one JSON document as a flat tape of nodes, made by a SAX parse.
// Owns:   JsonParser (keeps its reader's stack between parses), JsonTape, JsonNode.
// Holds:  strict RFC 8259 in valid UTF-8, the whole input and nothing behind it, depth and node
//         count bounded, duplicate keys refused after unescaping. No recursion anywhere.
// Why:    a DOM recurses on hostile input and allocates node by node; a tape does neither.
// Limits: core/wire/limits.h.
// Source: docs/PROTOCOL.md §1.
// Not:    what fields mean (fields.h and the frame files), canonical JSON (core/crypto/jcs.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/arena.h"
#include "core/base/result.h"

namespace cm::wire {

enum class JsonType : std::uint8_t { kNull, kBool, kInteger, kDouble, kText, kObject, kArray };

struct JsonNode {
  JsonType type = JsonType::kNull;
  bool boolean = false;
  std::uint32_t next = 0;    // index behind this node's whole subtree
  std::uint32_t count = 0;   // members of an object or array
  std::int64_t integer = 0;  // kInteger; a number of more than 64 bits is a kDouble
  double number = 0;         // kInteger and kDouble; a kDouble may be off in its last digits
  std::string_view key;      // unescaped; empty outside objects
  std::string_view text;     // kText: unescaped value. kObject, kArray, kDouble: the source text
};

// Views live until the scratch arena is reset (raw texts: as long as the input).
class JsonTape {
 public:
  const JsonNode& root() const noexcept { return nodes_[0]; }
  const JsonNode& at(std::uint32_t index) const noexcept {
    CHECK(index < size_);
    return nodes_[index];
  }
  std::uint32_t size() const noexcept { return size_; }

  // The member of an object, or null. Linear: objects here have a dozen keys.
  const JsonNode* find(const JsonNode& object, std::string_view key) const noexcept;
  const JsonNode* find(std::string_view key) const noexcept { return find(root(), key); }
  // Arrays and objects within one another, this node included; 0 for what is neither.
  std::size_t depth(const JsonNode& node) const noexcept;
  // First child, then siblings by index: for (i = first(n); i < n.next; i = at(i).next).
  std::uint32_t first(const JsonNode& parent) const noexcept {
    return static_cast<std::uint32_t>(&parent - nodes_) + 1;
  }

 private:
  friend class JsonParser;
  JsonNode* nodes_ = nullptr;
  std::uint32_t size_ = 0;
};

class JsonParser {
 public:
  JsonParser();
  ~JsonParser();
  JsonParser(const JsonParser&) = delete;
  JsonParser& operator=(const JsonParser&) = delete;

  // kMalformed with the byte offset and what was expected. `input` is not changed; the tape and
  // its texts live in `scratch`.
  Status parse(std::string_view input, ScratchArena& scratch, JsonTape& tape);

 private:
  struct Reader;
  Reader* reader_;
};

}  // namespace cm::wire
