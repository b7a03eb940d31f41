// json_writer.h — writes compact JSON into a TextBuf.
// Owns:   JsonWriter, which places commas and escapes texts.
// Holds:  balanced by construction of its callers; texts are valid UTF-8 (checked where they came
//         in). Members appear in the order of the calls: peers rely on it (spec/observed.md).
// Not:    canonical JSON (core/crypto/jcs.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/arena.h"
#include "core/base/ulid.h"
#include "core/wire/json_tape.h"

namespace cm::wire {

class JsonWriter {
 public:
  explicit JsonWriter(TextBuf& out) noexcept : out_(&out) {}

  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);

  JsonWriter& text(std::string_view value);
  JsonWriter& number(std::int64_t value);
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  JsonWriter& raw(std::string_view json);          // already JSON
  JsonWriter& members(std::string_view json);      // one or more members, without braces
  JsonWriter& value(const JsonNode& node);         // as it was read, numbers digit by digit
  JsonWriter& iso_time(std::uint64_t ms);          // wire form of times
  JsonWriter& iso_time_or_null(std::uint64_t ms);  // null for 0
  JsonWriter& hex(Bytes bytes);                    // lower case, quoted

  // key and value in one call
  JsonWriter& field(std::string_view name, std::string_view value) { return key(name).text(value); }
  JsonWriter& field(std::string_view name, const char* value) { return key(name).text(value); }
  JsonWriter& field(std::string_view name, bool value) { return key(name).boolean(value); }
  template <class Int>
  requires(std::is_integral_v<Int> &&
           !std::is_same_v<Int, bool>) JsonWriter& field(std::string_view name, Int value) {
    return key(name).number(static_cast<std::int64_t>(value));
  }
  // Nothing at all when the value is empty.
  JsonWriter& optional_field(std::string_view name, std::string_view value) {
    return value.empty() ? *this : field(name, value);
  }
  // null when the value is empty.
  JsonWriter& nullable_field(std::string_view name, std::string_view value) {
    return value.empty() ? key(name).null() : field(name, value);
  }

  std::string_view view() const noexcept { return out_->view(); }

 private:
  void separate();

  TextBuf* out_;
  bool comma_ = false;
};

// Appends `value` quoted and escaped as RFC 8259 asks: the shortest form, raw UTF-8.
void append_json_text(TextBuf& out, std::string_view value);

}  // namespace cm::wire
