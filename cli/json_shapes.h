// json_shapes.h — what each verb prints with --json, written down once.
// Owns:   the table of shapes, which the manual page and `help --json` show.
// Holds:  docs/CLI.md has the same text for each verb, and tests/e2e/test_json_shapes.py compares
//         both with what the verbs print: a member that is not written here is a defect.
// Source: spec/cli.md §6-§16.
// Not:    printing (output.h), errors (core/base/errors.h).
#pragma once

#include <string_view>

namespace cm::cli {

// The shape of a verb by its path, in the notation of docs/CLI.md; empty for what prints text.
std::string_view json_shape(std::string_view verb_path) noexcept;

}  // namespace cm::cli
