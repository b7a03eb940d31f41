// jcs.cc — RapidJSON's iterative SAX reader fills a flat list of tokens, which is then written in
//          the order of sorted keys.
// Holds:  a token's `next` is the token behind its whole subtree, so that members can be walked
//         without descending. An object's `order` lists its key tokens, sorted.
// Why:    tokens and strings live in the arena: no heap on the path of a message, no recursion on
//         hostile depth. Numbers are taken as texts and read by std::from_chars, which rounds
//         correctly; RapidJSON's own conversion does not always.
#include "core/crypto/jcs.h"

#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "core/crypto/number_text.h"

namespace cm::crypto {
namespace {

// RapidJSON's memory from a scratch arena, which frees all at once.
class ArenaAllocator {
 public:
  [[maybe_unused]] static constexpr bool kNeedFree = false;
  ArenaAllocator() = default;  // named by RapidJSON for readers without an allocator, not called
  explicit ArenaAllocator(ScratchArena& arena) noexcept : arena_(&arena) {}
  void* Malloc(std::size_t size) { return size == 0 ? nullptr : arena_->allocate(size, 16); }
  void* Realloc(void* old, std::size_t old_size, std::size_t new_size) {
    void* fresh = Malloc(new_size);
    if (old != nullptr && fresh != nullptr) std::memcpy(fresh, old, std::min(old_size, new_size));
    return fresh;
  }
  static void Free(void*) noexcept {}

 private:
  ScratchArena* arena_ = nullptr;
};

constexpr char kNumberTooBig[] = "a number beyond the largest double";

enum class Kind : std::uint8_t { kObject, kArray, kString, kLiteral };

struct Token {
  const char* text = nullptr;            // kString: unescaped; kLiteral: as it is written out
  const std::uint32_t* order = nullptr;  // kObject: its keys' tokens, sorted
  std::uint32_t size = 0;                // bytes of text, or members of an object
  std::uint32_t next = 0;
  Kind kind = Kind::kLiteral;

  std::string_view view() const noexcept { return {text, size}; }
};

// A growing array in the arena; pointers into it live until the next push().
class TokenList {
 public:
  explicit TokenList(ScratchArena& arena) : arena_(&arena) { grow(64); }
  std::uint32_t push(const Token& token) {
    if (size_ == capacity_) grow(capacity_ * 2);
    tokens_[size_] = token;
    return size_++;
  }
  Token& operator[](std::uint32_t index) noexcept { return tokens_[index]; }
  const Token& operator[](std::uint32_t index) const noexcept { return tokens_[index]; }
  std::uint32_t size() const noexcept { return size_; }

 private:
  void grow(std::uint32_t capacity) {
    void* fresh = arena_->allocate(capacity * sizeof(Token), alignof(Token));
    if (size_ != 0) std::memcpy(fresh, tokens_, size_ * sizeof(Token));
    tokens_ = static_cast<Token*>(fresh);
    capacity_ = capacity;
  }

  ScratchArena* arena_;
  Token* tokens_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t capacity_ = 0;
};

// Whether a text that is out of the range of a double is too large (and not too small): the
// decimal exponent of its first digit that is not zero decides.
bool is_beyond_largest(std::string_view number) noexcept {
  if (number.starts_with('-')) number.remove_prefix(1);
  const std::size_t e = number.find_first_of("eE");
  std::string_view digits = number.substr(0, e);
  const std::size_t first = digits.find_first_of("123456789");
  if (first == std::string_view::npos) return false;
  const std::size_t point = std::min(digits.find('.'), digits.size());
  const auto place = static_cast<std::int64_t>(point) - static_cast<std::int64_t>(first);
  if (e == std::string_view::npos) return place > 0;
  std::string_view exponent = number.substr(e + 1);
  if (exponent.starts_with('+')) exponent.remove_prefix(1);
  std::int64_t value = 0;
  const auto read = std::from_chars(exponent.data(), exponent.data() + exponent.size(), value);
  if (read.ec != std::errc{}) return !exponent.starts_with('-');
  return value + place > 0;
}

bool read_number(std::string_view text, double& value) noexcept {
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec == std::errc::result_out_of_range) {
    value = 0;
    return !is_beyond_largest(text);
  }
  return read.ec == std::errc{} && read.ptr == text.data() + text.size() && std::isfinite(value);
}

// RapidJSON refuses lone high surrogates but lets "\udc00" through, as three bytes from ED A0 up.
bool has_surrogate(std::string_view text) noexcept {
  for (std::size_t at = text.find('\xed'); at != std::string_view::npos;
       at = text.find('\xed', at + 1)) {
    if (at + 1 < text.size() && static_cast<std::uint8_t>(text[at + 1]) >= 0xa0) return true;
  }
  return false;
}

// The SAX handler. A false answer ends the parse; `fault` then says why.
class Builder {
 public:
  Builder(ScratchArena& arena, TokenList& tokens) : arena_(&arena), tokens_(&tokens) {}
  const char* fault() const noexcept { return fault_; }

  bool Null() { return literal("null"); }
  bool Bool(bool value) { return literal(value ? "true" : "false"); }
  bool RawNumber(const char* text, rapidjson::SizeType size, bool) {
    double value = 0;
    if (!read_number({text, size}, value)) return refuse(kNumberTooBig);
    TextBuf number(*arena_, kNumberTextMax);
    jcs_number(value, number);
    return literal(number.view());
  }
  bool String(const char* text, rapidjson::SizeType size, bool) {
    if (has_surrogate({text, size})) return refuse("a lone surrogate");
    return add(Kind::kString, arena_->copy(std::string_view(text, size)));
  }
  bool Key(const char* text, rapidjson::SizeType size, bool copy) {
    return String(text, size, copy);
  }
  bool StartObject() { return open(Kind::kObject); }
  bool StartArray() { return open(Kind::kArray); }
  bool EndArray(rapidjson::SizeType) {
    close();
    return true;
  }
  bool EndObject(rapidjson::SizeType members) {
    const std::uint32_t object = close();
    return members == 0 || sort_members(object, members);
  }

  // Numbers come as texts.
  bool Int(int) { return refuse("a number"); }
  bool Uint(unsigned) { return refuse("a number"); }
  bool Int64(std::int64_t) { return refuse("a number"); }
  bool Uint64(std::uint64_t) { return refuse("a number"); }
  bool Double(double) { return refuse("a number"); }

 private:
  bool refuse(const char* fault) noexcept {
    fault_ = fault;
    return false;
  }
  bool literal(std::string_view text) { return add(Kind::kLiteral, text); }
  bool add(Kind kind, std::string_view text) {
    Token token;
    token.kind = kind;
    token.text = text.data();
    token.size = static_cast<std::uint32_t>(text.size());
    token.next = tokens_->size() + 1;
    tokens_->push(token);
    return true;
  }
  bool open(Kind kind) {
    if (depth_ == kJcsDepthMax) return refuse("nested deeper than 64 levels");
    Token token;
    token.kind = kind;
    open_[depth_++] = tokens_->push(token);
    return true;
  }
  std::uint32_t close() noexcept {
    CHECK(depth_ > 0);
    const std::uint32_t index = open_[--depth_];
    (*tokens_)[index].next = tokens_->size();
    return index;
  }
  bool sort_members(std::uint32_t object, std::uint32_t members) {
    auto* order = reinterpret_cast<std::uint32_t*>(
        arena_->allocate(members * sizeof(std::uint32_t), alignof(std::uint32_t)));
    std::uint32_t key = object + 1;
    for (std::uint32_t member = 0; member < members; ++member) {
      order[member] = key;
      key = (*tokens_)[key + 1].next;  // the key behind this one's value
    }
    CHECK_EQ(key, (*tokens_)[object].next);
    std::sort(order, order + members, [this](std::uint32_t left, std::uint32_t right) {
      return compare_as_utf16((*tokens_)[left].view(), (*tokens_)[right].view()) < 0;
    });
    for (std::uint32_t member = 1; member < members; ++member) {
      if ((*tokens_)[order[member - 1]].view() == (*tokens_)[order[member]].view()) {
        return refuse("a key given twice");
      }
    }
    (*tokens_)[object].order = order;
    (*tokens_)[object].size = members;
    return true;
  }

  ScratchArena* arena_;
  TokenList* tokens_;
  std::uint32_t open_[kJcsDepthMax] = {};
  std::size_t depth_ = 0;
  const char* fault_ = nullptr;
};

void write_escape(char c, TextBuf& out) {
  switch (c) {
    case '"': return out.append("\\\"");
    case '\\': return out.append("\\\\");
    case '\b': return out.append("\\b");
    case '\t': return out.append("\\t");
    case '\n': return out.append("\\n");
    case '\f': return out.append("\\f");
    case '\r': return out.append("\\r");
    default: break;
  }
  constexpr char kHex[] = "0123456789abcdef";
  out.append("\\u00");
  out.append(kHex[static_cast<unsigned char>(c) >> 4]);
  out.append(kHex[static_cast<unsigned char>(c) & 15]);
}

void write_string(std::string_view text, TextBuf& out) {
  out.append('"');
  std::size_t plain = 0;  // where the run of bytes that need no escape begins
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20) continue;
    out.append(text.substr(plain, at - plain));
    write_escape(c, out);
    plain = at + 1;
  }
  out.append(text.substr(plain));
  out.append('"');
}

// Writes tokens depth first with a stack of its own.
class Writer {
 public:
  Writer(const TokenList& tokens, TextBuf& out) : tokens_(&tokens), out_(&out) {}

  void write() {
    begin(0);
    while (depth_ > 0) {
      Frame& frame = frames_[depth_ - 1];
      const Token& token = (*tokens_)[frame.token];
      const bool object = token.kind == Kind::kObject;
      const bool done = object ? frame.done == token.size : frame.child == token.next;
      if (done) {
        out_->append(object ? '}' : ']');
        --depth_;
        continue;
      }
      if (frame.done != 0) out_->append(',');
      std::uint32_t child = frame.child;
      if (object) {
        const std::uint32_t key = token.order[frame.done];
        write_string((*tokens_)[key].view(), *out_);
        out_->append(':');
        child = key + 1;
      }
      ++frame.done;
      frame.child = (*tokens_)[child].next;
      begin(child);
    }
  }

 private:
  struct Frame {
    std::uint32_t token;  // the object or array
    std::uint32_t done;   // members or elements written
    std::uint32_t child;  // an array's next element
  };

  void begin(std::uint32_t index) {
    const Token& token = (*tokens_)[index];
    switch (token.kind) {
      case Kind::kString: return write_string(token.view(), *out_);
      case Kind::kLiteral: return out_->append(token.view());
      case Kind::kObject: out_->append('{'); break;
      case Kind::kArray: out_->append('['); break;
    }
    CHECK(depth_ < kJcsDepthMax);
    frames_[depth_++] = {index, 0, index + 1};
  }

  const TokenList* tokens_;
  TextBuf* out_;
  Frame frames_[kJcsDepthMax];
  std::size_t depth_ = 0;
};

Error fault_at(const char* what, std::size_t offset) {
  std::string detail = "JSON: ";
  detail += what;
  detail += " at byte ";
  detail += std::to_string(offset);
  return Error{Err::kMalformed, std::move(detail)};
}

}  // namespace

int compare_as_utf16(std::string_view left, std::string_view right) noexcept {
  const std::size_t common = std::min(left.size(), right.size());
  std::size_t at = 0;
  while (at < common && left[at] == right[at]) ++at;
  if (at == common) return left.size() < right.size() ? -1 : left.size() > right.size();
  // Order of bytes is order of code points. UTF-16 differs from it in one point: U+E000 to U+FFFF
  // (lead bytes EE and EF) come after the surrogates of all above U+FFFF (lead bytes F0 to F4).
  const auto rank = [](char c) noexcept {
    const auto byte = static_cast<unsigned char>(c);
    return byte == 0xee || byte == 0xef ? byte + 0x10 : int{byte};
  };
  return rank(left[at]) - rank(right[at]);
}

Status jcs_append(std::string_view json, TextBuf& out) {
  if (json.size() > kJcsBytesMax) return fail(Err::kTooBig, "JSON: more than 1 MiB");
  constexpr unsigned kFlags = rapidjson::kParseIterativeFlag |
                              rapidjson::kParseValidateEncodingFlag |
                              rapidjson::kParseNumbersAsStringsFlag;
  ScratchArena& arena = out.arena();
  ArenaAllocator allocator(arena);
  rapidjson::GenericReader<rapidjson::UTF8<>, rapidjson::UTF8<>, ArenaAllocator> reader(&allocator);
  rapidjson::MemoryStream stream(json.data(), json.size());
  TokenList tokens(arena);
  Builder builder(arena, tokens);
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, builder);
  if (result.IsError()) {
    if (builder.fault() != nullptr) return fault_at(builder.fault(), result.Offset());
    const bool too_big = result.Code() == rapidjson::kParseErrorNumberTooBig;
    return fault_at(too_big ? kNumberTooBig : "not well-formed", result.Offset());
  }
  // A zero byte looks like the end to the reader.
  if (stream.Tell() != json.size()) return fault_at("a zero byte", stream.Tell());
  Writer(tokens, out).write();
  return {};
}

}  // namespace cm::crypto
