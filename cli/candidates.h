// candidates.h — the meshes that an ambiguous target may mean, as the daemon lists them.
// Owns:   add_candidates.
// Holds:  each is told by mesh, name and the beginning of its key; the whole keys are in --json.
// Source: spec/ipc.md §5, spec/cli.md §9.
// Not:    who matches (core/daemon/targets.cc), the form of errors (output.h).
#pragma once

#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

// What `body` lists in "candidates" becomes the detail of the error, and report() prints the list
// as JSON. An answer without any, or of another form, changes nothing.
void add_candidates(std::string_view body, Error& error);

}  // namespace cm::cli
