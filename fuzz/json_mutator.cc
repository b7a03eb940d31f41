// json_mutator.cc — where a document may be changed, and how.
// Not:    instrumented: CMakeLists.txt compiles it without coverage and sanitizers.
#include "fuzz/json_mutator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fuzz/json_spans.h"

namespace cm::fuzz {
namespace {

class JsonMutator {
 public:
  // `names` are member names that the target knows, `types` values of a member "type".
  JsonMutator(Dice& dice, Words names, Words types, RawMutate by_bytes) noexcept
      : dice_(dice), names_(names), types_(types), raw_(by_bytes) {}

  // The document with one change; empty if it is none. A first line that is no JSON is kept.
  std::string mutate(std::string_view document) {
    const std::size_t line = document.find('\n');
    if (line != document.npos && document.find('{') > line) {
      const std::string changed = mutate(document.substr(line + 1));
      return changed.empty() ? changed : std::string(document.substr(0, line + 1)) + changed;
    }
    text_ = document;
    const JsonSpans spans(text_);
    if (spans.values().empty()) return {};
    values_ = &spans.values();
    const std::size_t index = pick();
    switch (dice_.below(12)) {
      case 0: drop(index); break;
      case 1: duplicate(index); break;
      case 2: exchange(index, pick()); break;
      case 3: set(index, other_type()); break;
      case 4: set(index, std::string(dice_.of(kNumbers))); break;
      case 5: rename(index); break;
      case 6: change_version(); break;
      case 7: nest(index); break;
      case 8: set(index, std::string(span((*values_)[pick()]))); break;
      case 9: add(); break;
      default: change_text(index); break;
    }
    values_ = nullptr;
    return text_;
  }

  // The document with a value of the other one in the place of one of its own.
  std::string cross(std::string_view document, std::string_view other) {
    const JsonSpans theirs(other);
    text_ = document;
    const JsonSpans ours(text_);
    if (ours.values().empty() || theirs.values().empty()) return {};
    values_ = &ours.values();
    const JsonValue& from = theirs.values()[dice_.below(theirs.values().size())];
    set(pick(), std::string(other.substr(from.begin, from.end - from.begin)));
    values_ = nullptr;
    return text_;
  }

 private:
  static constexpr std::string_view kNumbers[] = {"0",
                                                  "-0",
                                                  "1",
                                                  "-1",
                                                  "0.5",
                                                  "1e3",
                                                  "63",
                                                  "64",
                                                  "65",
                                                  "127",
                                                  "128",
                                                  "255",
                                                  "256",
                                                  "65535",
                                                  "65536",
                                                  "2147483647",
                                                  "2147483648",
                                                  "-2147483648",
                                                  "4294967295",
                                                  "4294967296",
                                                  "4294967297",
                                                  "9007199254740991",
                                                  "9007199254740992",
                                                  "-9007199254740991",
                                                  "9223372036854775807",
                                                  "9223372036854775808",
                                                  "-9223372036854775808",
                                                  "18446744073709551615",
                                                  "18446744073709551616",
                                                  "1e308",
                                                  "1e-320",
                                                  "1700000000000",
                                                  "1700000060001",
                                                  "1699999939999",
                                                  "0.1e1"};
  static constexpr std::string_view kOthers[] = {"null", "true", "false", "0",  "\"\"",
                                                 "[]",   "{}",   "\"x\"", "-1", "[null]"};
  static constexpr std::string_view kPieces[] = {"\\u0000",
                                                 "\\u001b",
                                                 "\\n",
                                                 "\\\"",
                                                 "\\\\",
                                                 "\\/",
                                                 "\\u0041",
                                                 "\\ud83e\\udd8a",
                                                 "\xf0\x9f\xa6\x8a",
                                                 "\\uFFFF",
                                                 "\xc3\xa4",
                                                 "\\u200d",
                                                 "\\u202e",
                                                 "\xe2\x80\xae",
                                                 " ",
                                                 "*",
                                                 "@",
                                                 "#",
                                                 "|",
                                                 "~",
                                                 "%00",
                                                 "\\u0130",
                                                 "\xc5\xbf",
                                                 "\\u00e9",
                                                 "e\xcc\x81"};
  static constexpr std::size_t kLengths[] = {1,   16,  31,  32,   33,   63,   64,   65,
                                             123, 124, 127, 128,  129,  255,  256,  257,
                                             511, 512, 513, 1024, 1025, 2048, 2049, 4096};

  std::size_t pick() { return dice_.below(values_->size()); }
  std::string_view span(const JsonValue& value) const {
    return std::string_view(text_).substr(value.begin, value.end - value.begin);
  }
  bool is_text(std::size_t index) const { return text_[(*values_)[index].begin] == '"'; }
  void set(std::size_t index, const std::string& value) {
    const JsonValue& at = (*values_)[index];
    text_.replace(at.begin, at.end - at.begin, value);
  }
  std::string other_type() { return std::string(dice_.of(kOthers)); }
  static std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }
  std::string_view name() { return names_.empty() ? "id" : dice_.of(names_); }

  void drop(std::size_t index) {
    const JsonValue& at = (*values_)[index];
    if (at.parent == SIZE_MAX) return;
    std::size_t begin = at.key, end = at.end;
    const std::size_t next = text_.find_first_not_of(" \t\r\n", end);
    const std::size_t before = text_.find_last_not_of(" \t\r\n", begin - 1);
    if (text_[next] == ',') {
      end = next + 1;
    } else if (text_[before] == ',') {
      begin = before;
    }
    text_.erase(begin, end - begin);
  }
  void duplicate(std::size_t index) {
    const JsonValue& at = (*values_)[index];
    if (at.parent == SIZE_MAX) return;
    std::string copy = "," + text_.substr(at.key, at.end - at.key);
    const bool is_member = at.key != at.begin;
    if (is_member && dice_.once_in(2)) {
      copy = "," + quoted(name()) + ":" + std::string(span(at));
    }
    text_.insert(at.end, copy);
  }
  void exchange(std::size_t left, std::size_t right) {
    JsonValue first = (*values_)[left], second = (*values_)[right];
    if (first.begin > second.begin) std::swap(first, second);
    if (first.end > second.begin) return;  // one holds the other
    const std::string early(span(first)), late(span(second));
    text_.replace(second.begin, late.size(), early);
    text_.replace(first.begin, early.size(), late);
  }
  void rename(std::size_t index) {
    const JsonValue& at = (*values_)[index];
    if (at.key == at.begin) return set(index, other_type());
    const std::size_t end = text_.rfind(':', at.begin);
    text_.replace(at.key, end - at.key, quoted(name()));
  }
  // An envelope with a client's id is one of version 2; without, of version 1.
  void change_version() {
    const std::size_t id = member("client_message_id");
    if (id != SIZE_MAX) {
      drop(id);
      return;
    }
    if (text_[(*values_)[0].begin] != '{') return;
    insert("\"client_message_id\":\"c-" + std::to_string(dice_.below(4)) +
           "\",\"request_fingerprint\":" + quoted(std::string(64, "0af"[dice_.below(3)])));
  }
  std::size_t member(std::string_view wanted) const {
    for (std::size_t index = 1; index < values_->size(); ++index) {
      const JsonValue& at = (*values_)[index];
      if (at.parent == 0 && at.key != at.begin &&
          std::string_view(text_).substr(at.key + 1).starts_with(wanted)) {
        return index;
      }
    }
    return SIZE_MAX;
  }
  // A new member of the root.
  void insert(const std::string& member_text) {
    const JsonValue& root = (*values_)[0];
    text_.insert(root.begin + 1, member_text + (root.children == 0 ? "" : ","));
  }
  void add() {
    if (text_[(*values_)[0].begin] != '{') return nest(0);
    insert(quoted(name()) + ":" +
           (dice_.once_in(2) ? other_type() : std::string(span((*values_)[pick()]))));
  }
  void nest(std::size_t index) {
    const std::string inner(span((*values_)[index]));
    const std::size_t depth = dice_.once_in(4) ? 1 + dice_.below(16) : 1;
    std::string open, close;
    for (std::size_t level = 0; level < depth; ++level) {
      const bool is_object = dice_.once_in(2);
      open += is_object ? "{\"a\":" : "[";
      close.insert(0, is_object ? "}" : "]");
    }
    set(index, open + inner + close);
  }

  void change_text(std::size_t index) {
    const std::size_t type = member("type");
    if (!types_.empty() && type != SIZE_MAX && dice_.once_in(8)) {
      return set(type, quoted(dice_.of(types_)));
    }
    // Texts are what most members are: look for one.
    for (int tries = 0; tries < 8 && !is_text(index); ++tries) index = pick();
    if (!is_text(index)) return set(index, quoted(dice_.of(kPieces)));
    std::string inner(span((*values_)[index]));
    inner = inner.substr(1, inner.size() - 2);
    switch (dice_.below(6)) {
      case 0: inner = longer(inner); break;
      case 1: inner.insert(boundary(inner), dice_.of(kPieces)); break;
      case 2:
      case 3: inner = flip_digit(inner); break;
      case 4: inner = escaped(inner); break;
      default: inner = by_bytes_of(inner); break;
    }
    set(index, quoted(inner));
  }
  // A place that is not inside of an escape or a character.
  std::size_t boundary(std::string_view inner) {
    std::size_t at = dice_.below(inner.size() + 1);
    if (inner.find('\\') != inner.npos) at = dice_.once_in(2) ? 0 : inner.size();
    while (at < inner.size() && (static_cast<unsigned char>(inner[at]) & 0xc0) == 0x80) ++at;
    return at;
  }
  std::string longer(std::string_view inner) {
    const std::size_t length = dice_.of(kLengths);
    const bool is_plain = !inner.empty() && inner.find('\\') == inner.npos &&
                          std::all_of(inner.begin(), inner.end(),
                                      [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    std::string text;
    while (text.size() < length) text += is_plain ? inner : std::string_view("x");
    text.resize(length);
    return text;
  }
  // One digit of a number in hexadecimal or base64 becomes another; its length stays, mostly.
  std::string flip_digit(std::string_view inner) {
    std::string text(inner);
    if (text.empty() || text.find('\\') != text.npos) return text;
    const std::size_t at = dice_.below(text.size());
    const bool is_hex = text.find_first_not_of("0123456789abcdef") == text.npos;
    const std::string_view digits =
        is_hex ? "0123456789abcdef"
               : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=";
    switch (dice_.below(8)) {
      case 0: text.erase(ascii_at(text, at), 1); break;
      case 1: text.insert(ascii_at(text, at), 1, dice_.of(digits)); break;
      case 2: text = std::string(64, dice_.of(digits)); break;
      case 3: text[ascii_at(text, at)] = 'A'; break;
      default: text[ascii_at(text, at)] = dice_.of(digits);
    }
    return text;
  }
  // The next place of a character of one byte; texts without any get one.
  static std::size_t ascii_at(std::string& text, std::size_t at) {
    for (std::size_t step = 0; step < text.size(); ++step) {
      const std::size_t place = (at + step) % text.size();
      if (static_cast<unsigned char>(text[place]) < 0x80) return place;
    }
    text.push_back('x');
    return text.size() - 1;
  }
  std::string escaped(std::string_view inner) {
    if (inner.empty() || inner.find('\\') != inner.npos) return std::string(inner);
    std::string text(inner);
    const std::size_t at = ascii_at(text, dice_.below(text.size()));
    constexpr char kDigits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(text[at]);
    const char code[] = {'\\', 'u', '0', '0', kDigits[byte >> 4], kDigits[byte & 15], '\0'};
    text.replace(at, 1, code);
    return text;
  }
  // libFuzzer's mutation inside of the quotes: it knows what the code compares with.
  std::string by_bytes_of(std::string_view inner) {
    if (raw_ == nullptr || inner.size() > 4096) return std::string(inner);
    std::vector<std::uint8_t> bytes(inner.begin(), inner.end());
    bytes.resize(std::max<std::size_t>(inner.size() + 64, 1));
    const std::size_t size = raw_(bytes.data(), inner.size(), bytes.size());
    std::string text;
    for (std::size_t index = 0; index < size; ++index) {
      const std::uint8_t byte = bytes[index];
      // Only what needs no escape and breaks no character.
      if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
        text.push_back(static_cast<char>(byte));
      }
    }
    return text;
  }

  Dice& dice_;
  Words names_, types_;
  RawMutate raw_;
  std::string text_;
  const std::vector<JsonValue>* values_ = nullptr;
};

// Inputs of lines: the first byte says what happens, JSON may follow anywhere behind it.
class LineMutator {
 public:
  LineMutator(Dice& dice, Words lines, Words names, RawMutate by_bytes) noexcept
      : dice_(dice), templates_(lines), names_(names), raw_(by_bytes) {}

  std::string mutate(std::string_view input) {
    split(input);
    const std::size_t at = dice_.below(lines_.size());
    switch (dice_.below(8)) {
      case 0: lines_.insert(place(at), std::string(dice_.of(templates_))); break;
      case 1: lines_.insert(place(dice_.below(lines_.size())), lines_[at]); break;
      case 2:
        if (lines_.size() > 1) lines_.erase(place(at));
        break;
      case 3: std::swap(lines_[at], lines_[dice_.below(lines_.size())]); break;
      case 4: {
        // The same thing happens by another's hand.
        const std::string_view from = dice_.of(templates_);
        if (!lines_[at].empty() && !from.empty()) lines_[at][0] = from[0];
        break;
      }
      default: change(at); break;
    }
    return joined();
  }
  std::string cross(std::string_view input, std::string_view other) {
    split(other);
    const std::vector<std::string> theirs = lines_;
    split(input);
    const std::size_t from = dice_.below(theirs.size());
    const std::size_t count = 1 + dice_.below(std::min<std::size_t>(theirs.size() - from, 4));
    const auto first = theirs.begin() + static_cast<std::ptrdiff_t>(from);
    lines_.insert(place(dice_.below(lines_.size() + 1)), first,
                  first + static_cast<std::ptrdiff_t>(count));
    return joined();
  }

 private:
  void split(std::string_view input) {
    lines_.clear();
    while (!input.empty()) {
      const std::size_t end = std::min(input.find('\n'), input.size());
      lines_.emplace_back(input.substr(0, end));
      input.remove_prefix(std::min(end + 1, input.size()));
    }
    if (lines_.empty()) lines_.emplace_back(dice_.of(templates_));
  }
  std::vector<std::string>::iterator place(std::size_t at) {
    return lines_.begin() + static_cast<std::ptrdiff_t>(at);
  }
  void change(std::size_t at) {
    std::string& line = lines_[at];
    const std::size_t open = line.find('{');
    if (open == line.npos) {
      line = std::string(dice_.of(templates_));
      return;
    }
    JsonMutator json(dice_, names_, {}, raw_);
    const std::string changed = json.mutate(std::string_view(line).substr(open));
    if (!changed.empty()) line.replace(open, line.size() - open, changed);
  }
  std::string joined() const {
    std::string text;
    for (const std::string& line : lines_) text.append(line).push_back('\n');
    if (!text.empty()) text.pop_back();
    return text;
  }

  Dice& dice_;
  Words templates_, names_;
  RawMutate raw_;
  std::vector<std::string> lines_;
};

bool is_plain() noexcept {
  static const bool plain = std::getenv("CM_FUZZ_PLAIN") != nullptr;
  return plain;
}
// Too long ones are not cut: that would break them.
std::size_t give(const std::string& text, std::span<std::uint8_t> room) noexcept {
  if (text.empty() || text.size() > room.size()) return 0;
  std::memcpy(room.data(), text.data(), text.size());
  return text.size();
}

}  // namespace

std::string mutate_json(std::string_view document, Words names, Words types, std::uint64_t seed,
                        RawMutate raw) {
  Dice dice(seed);
  return JsonMutator(dice, names, types, raw).mutate(document);
}
std::string cross_json(std::string_view document, std::string_view other, std::uint64_t seed) {
  Dice dice(seed);
  return JsonMutator(dice, {}, {}, nullptr).cross(document, other);
}
std::string mutate_lines(std::string_view input, Words lines, Words names, std::uint64_t seed,
                         RawMutate raw) {
  Dice dice(seed);
  return LineMutator(dice, lines, names, raw).mutate(input);
}
std::string cross_lines(std::string_view input, std::string_view other, Words lines,
                        std::uint64_t seed) {
  Dice dice(seed);
  return LineMutator(dice, lines, {}, nullptr).cross(input, other);
}

std::size_t engine_mutate(Form form, std::span<std::uint8_t> room, std::size_t size, unsigned seed,
                          Words first, Words second, RawMutate raw) {
  Dice dice(seed);
  if (!is_plain() && !dice.once_in(4)) {
    std::string text(reinterpret_cast<const char*>(room.data()), size);
    for (std::size_t count = 1 + dice.below(3); count > 0; --count) {
      const std::uint64_t next = dice.next();
      const std::string changed = form == Form::kJson
                                      ? mutate_json(text, first, second, next, raw)
                                      : mutate_lines(text, first, second, next, raw);
      if (!changed.empty()) text = changed;
    }
    if (const std::size_t given = give(text, room); given != 0) return given;
  }
  return raw(room.data(), size, room.size());
}

std::size_t engine_cross(Form form, std::string_view left, std::string_view right,
                         std::span<std::uint8_t> out, unsigned seed, Words first) {
  if (is_plain()) return 0;
  return give(
      form == Form::kJson ? cross_json(left, right, seed) : cross_lines(left, right, first, seed),
      out);
}

}  // namespace cm::fuzz
