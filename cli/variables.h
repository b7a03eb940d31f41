// variables.h — the environment variables that are no setting of the daemon.
// Owns:   the table of them, for the manual page.
// Holds:  every CLAUDEMESH_ name that our code reads is here or in the table of settings; a test
//         compares both with the sources and with docs/SETTINGS.md.
// Not:    the settings (settings.h), reading the variables.
#pragma once

#include <span>
#include <string_view>

namespace cm::cli {

struct Variable {
  std::string_view name, about;
};
std::span<const Variable> variables();

}  // namespace cm::cli
