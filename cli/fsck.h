// fsck.h — the two fsck verbs share one body.
// Not:    the checks (store/fsck.h).
#pragma once

#include <string>

#include "store/schema.h"

namespace cm::cli {

// Opens a read-only snapshot (beside a running owner, too), checks it, prints the problems and
// answers the exit status: 0 clean, 10 with problems.
int run_fsck(const std::string& directory, store::Role role);

}  // namespace cm::cli
