// limit_option.h — --limit NAME=VALUE and [limits] NAME = VALUE: any capacity by its name in
// core/base/limits.h.
// Holds:  an unknown name or a value that is no number is an error that lists the nearest names. A
//         capacity is at least 1, save for the two whose 0 means something.
// Why:    every limit is configurable and none needs a flag of its own.
// Not:    what the limits mean (core/base/limits.h), whether they fit into memory (cli/runtime.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/limits.h"
#include "core/base/result.h"

namespace cm::cli {

// kUsage; its detail names the limit and what would be right.
Status set_limit(std::string_view name, std::uint64_t value, Limits& limits);
// NAME=VALUE, set and given back in its two parts.
Result<std::pair<std::string, std::uint64_t>> read_limit(std::string_view assignment,
                                                         Limits& limits);
Status set_limits(const std::vector<std::string>& assignments, Limits& limits);
// Every name with its value, in the order of core/base/limits.h.
std::vector<std::pair<std::string_view, std::uint64_t>> list_limits(const Limits& limits);

}  // namespace cm::cli
