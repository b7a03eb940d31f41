// json_form.cc — indents a document token by token.
#include "cli/json_form.h"

namespace cm::cli {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// The first byte at or behind `at` that is no white space, or NUL.
char next_token(std::string_view json, std::size_t at) {
  while (at < json.size() && is_space(json[at])) ++at;
  return at < json.size() ? json[at] : '\0';
}

// Behind the quote that closes the text which opens at `at`.
std::size_t text_end(std::string_view json, std::size_t at) {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') ++at;
  }
  return at < json.size() ? at + 1 : json.size();
}

}  // namespace

std::string pretty_json(std::string_view json) {
  std::string out;
  out.reserve(json.size() + json.size() / 2);
  std::size_t depth = 0;
  const auto break_line = [&] { out.append("\n").append(2 * depth, ' '); };
  for (std::size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (is_space(c)) continue;
    if (c == '"') {
      const std::size_t end = text_end(json, at);
      out.append(json, at, end - at);
      at = end - 1;
    } else if (c == '{' || c == '[') {
      out += c;
      const char next = next_token(json, at + 1);
      if (next == '}' || next == ']') {
        out += next;
        at = json.find(next, at + 1);
      } else {
        ++depth;
        break_line();
      }
    } else if (c == '}' || c == ']') {
      if (depth > 0) --depth;
      break_line();
      out += c;
    } else if (c == ',') {
      out += c;
      break_line();
    } else {
      out += c;
      if (c == ':') out += ' ';
    }
  }
  return out;
}

}  // namespace cm::cli
