// limit_option.h — --limit NAME=VALUE: any capacity of core/base/limits.h, by its name.
// Holds:  an unknown name or a value that is no number is an error that lists the nearest names.
// Why:    every limit is configurable and none needs a flag of its own.
// Not:    what the limits mean (core/base/limits.h), whether they fit into memory (cli/runtime.h).
#pragma once

#include <string>
#include <vector>

#include "core/base/limits.h"
#include "core/base/result.h"

namespace cm::cli {

Status set_limits(const std::vector<std::string>& assignments, Limits& limits);

}  // namespace cm::cli
