// query_reader.h — typed, bounded parameters of a request target; the first malformed one is named.
// Owns:   QueryReader.
// Holds:  a parameter that is there and cannot be understood is an error, never a default.
// Not:    percent-decoding (core/wire/query.h), JSON bodies (core/wire/fields.h).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/base/time_text.h"
#include "core/wire/fields.h"
#include "core/wire/query.h"

namespace cm::daemon {

class QueryReader {
 public:
  // Views live as long as the query and the arena.
  QueryReader(std::string_view query, ScratchArena& scratch) : query_(query), scratch_(scratch) {}

  std::optional<std::string_view> text(std::string_view name, std::size_t most = 1'024) {
    const wire::QueryValue found = wire::query_find(query_, name, scratch_);
    if (found.kind == wire::QueryValue::Kind::kMalformed) {
      refuse(name, "percent-encoded UTF-8, given once");
    }
    if (found.kind != wire::QueryValue::Kind::kFound) return std::nullopt;
    if (found.value.size() > most) refuse(name, "at most " + std::to_string(most) + " bytes");
    if (wire::has_control(found.value)) refuse(name, "text without control characters");
    return found.value;
  }
  // Required and not empty.
  std::string_view required(std::string_view name, std::size_t most) {
    const auto value = text(name, most);
    if (!value || value->empty()) refuse(name, "a non-empty value");
    return value.value_or(std::string_view{});
  }
  // Empty when absent or blank: no mesh was chosen.
  std::string_view mesh() {
    const std::string_view value = text("mesh", 128).value_or(std::string_view{});
    return value.find_first_not_of(' ') == std::string_view::npos ? std::string_view{} : value;
  }
  std::int64_t number(std::string_view name, std::int64_t otherwise, std::int64_t most) {
    const auto value = text(name);
    if (!value) return otherwise;
    std::int64_t number = 0;
    for (const char c : *value) {
      if (c < '0' || c > '9' || number > most) {
        refuse(name, "a number from 1 to " + std::to_string(most));
        return otherwise;
      }
      number = number * 10 + (c - '0');
    }
    if (value->empty() || number < 1 || number > most) {
      refuse(name, "a number from 1 to " + std::to_string(most));
      return otherwise;
    }
    return number;
  }
  bool flag(std::string_view name, bool otherwise) {
    const auto value = text(name);
    if (!value) return otherwise;
    if (*value != "true" && *value != "false") refuse(name, "true or false");
    return *value == "true";
  }
  std::uint64_t instant(std::string_view name, std::uint64_t otherwise) {
    const auto value = text(name);
    if (!value) return otherwise;
    const auto ms = iso_parse(*value);
    if (!ms) refuse(name, "a time like 2026-01-02T03:04:05Z");
    return ms.value_or(otherwise);
  }
  void refuse(std::string_view name, std::string_view expected) {
    if (!status_) return;
    status_ = fail(Err::kMalformed,
                   "parameter '" + std::string(name) + "': expected " + std::string(expected));
  }
  const Status& status() const noexcept { return status_; }

 private:
  std::string_view query_;
  ScratchArena& scratch_;
  Status status_;
};

}  // namespace cm::daemon
