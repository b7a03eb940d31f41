// query.h — small parts that the verbs share: request targets, and walking the arrays of replies.
// Owns:   Target (a path with its query), array_of, each_of, warn_of_errors, time_of, joined.
// Holds:  values are percent-encoded; views live as long as the reply.
// Not:    calls (http.h), printing (output.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/http.h"
#include "core/wire/json_tape.h"

namespace cm::cli {

class Target {
 public:
  explicit Target(std::string_view path) : text_(path) {}
  // Nothing when the value is empty.
  Target& add(std::string_view name, std::string_view value);
  // One more part of the path.
  Target& part(std::string_view value);
  const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
};

std::string percent_encoded(std::string_view text);

// The member if it is an array, else null.
const wire::JsonNode* array_of(const Reply& reply, std::string_view key);
template <class Visit>
void each_of(const Reply& reply, const wire::JsonNode& array, Visit&& visit) {
  for (std::uint32_t at = reply.tape.first(array); at < array.next; at = reply.tape.at(at).next) {
    visit(reply.tape.at(at));
  }
}

// A list of several meshes tells which of them failed or were cut: a line each, to stderr.
void warn_of_errors(const Reply& reply);

std::uint64_t time_of(std::string_view iso);  // 0 when it is none
std::string joined(const std::vector<std::string>& words);

}  // namespace cm::cli
