// query_reader.h — typed, bounded parameters of a request target; the first malformed one is named.
// Owns:   QueryReader.
// Holds:  a parameter that is there and cannot be understood is an error, never a default.
// Not:    percent-decoding (core/wire/query.h), JSON bodies (core/wire/fields.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/result.h"
#include "core/base/time_text.h"
#include "core/base/ulid.h"
#include "core/base/utf8.h"
#include "core/crypto/encoding.h"
#include "core/wire/fields.h"
#include "core/wire/limits.h"
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
  // A whole number, also a negative one; one outside of 1..most becomes the nearer end.
  std::int64_t clamped(std::string_view name, std::int64_t otherwise, std::int64_t most) {
    const auto value = text(name);
    if (!value) return otherwise;
    const bool negative = value->starts_with('-');
    const std::string_view digits = value->substr(negative ? 1 : 0);
    std::int64_t number = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9') {
        refuse(name, "a number from 1 to " + std::to_string(most));
        return otherwise;
      }
      number = std::min(most, number * 10 + (c - '0'));
    }
    if (digits.empty()) refuse(name, "a number from 1 to " + std::to_string(most));
    return negative ? 1 : std::max<std::int64_t>(1, number);
  }
  // A key of a sender as rows hold it: 64 hex digits, in lower case, or the name of a webhook.
  std::optional<std::string_view> sender(std::string_view name) {
    const auto value = text(name, wire::kTargetMax);
    if (!value || value->starts_with("webhook:")) return value;
    crypto::PublicKey key{};
    if (!crypto::hex_parse_any_case(*value, key)) {
      refuse(name, "a key of 64 hex digits, or webhook:NAME");
      return value;
    }
    TextBuf lower(scratch_, 65);
    crypto::hex_append(key, lower);
    return lower.view();
  }
  // For requests that change much: a name that was misspelt must not widen them.
  void only(std::initializer_list<std::string_view> known) {
    const auto unknown = wire::query_unknown(query_, known, scratch_);
    if (!unknown) return;
    std::string list;
    for (const std::string_view name : known) {
      list += (list.empty() ? "" : ", ") + std::string(name);
    }
    const bool shows = utf8_valid(*unknown) && !wire::has_control(*unknown);
    refuse(shows ? utf8_prefix(*unknown, 64) : "?", "no other parameter than " + list);
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
  // The row that a page begins behind: an id as `rel="next"` names it. Zero: the newest is first.
  Ulid cursor() {
    const auto value = text("cursor");
    if (!value) return {};
    const auto id = ulid_parse(*value);
    if (!id) refuse("cursor", "an id as the Link header of the page before names it");
    return id.value_or(Ulid{});
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
