// doctor.h — what is wrong with this installation, and what to do about it.
// Owns:   Finding and the examination.
// Holds:  nothing is changed, started or sent but a health request to each broker. Whatever is not
//         well has a remedy. No secret is shown.
// Source: spec/cli.md §17.
// Not:    how findings are printed (verbs/doctor.cc); the rows of the store (fsck.h).
#pragma once

#include <string>
#include <vector>

namespace cm::cli {

enum class Health { kWell, kWarning, kFailure };

struct Finding {
  std::string check;  // "config.json", "broker demo"
  Health health = Health::kWell;
  std::string detail;
  std::string remedy;  // empty if it is well
};

// In the order in which a person would look. Asks each broker once, 15 s at most.
std::vector<Finding> examine();

}  // namespace cm::cli
