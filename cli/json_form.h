// json_form.h — the form in which a verb prints its JSON.
// Owns:   JsonForm and the pretty form.
// Holds:  only white space between tokens differs: members stay in their order, numbers keep their
//         digits, texts their escapes.
// Source: spec/cli.md §3.
// Not:    what is printed (the verbs), where to (output.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cm::cli {

enum class JsonForm : std::uint8_t {
  kPretty,  // over several lines, indented by two spaces
  kRows,    // the same; --json=NAME,NAME shows these members of each row alone
  kLine,    // one line
  kText,    // the verb prints text also with --json: a page, a script, a log
};

// `json` is a valid document. Empty objects and arrays stay {} and [].
std::string pretty_json(std::string_view json);

}  // namespace cm::cli
