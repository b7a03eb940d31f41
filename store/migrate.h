// migrate.h — forward-only migrations of the schema, each in one transaction.
// Holds:  a migration reads the layout before it and leaves the one after it; what it drops is
//         named here. There is no way back: a newer store refuses an older program.
// Source: design/architecture.md, "Store".
// Not:    the current layout (schema.h).
#pragma once

#include <cstdint>

#include "store/schema.h"

namespace cm::store {

class Batch;

// Changes the tables of `role` from schema `from` (below kSchemaVersion) to the one after it. The
// caller writes the new version and commits.
//   1 -> 2  broker: presence rows grew. Leases of at most 90 s are dropped; who was connected
//           connects again and is announced as if it were new.
//   2 -> 3  nothing: tables were added, outbox and receipt rows grew at their end.
void migrate(Batch& batch, Role role, std::uint32_t from);

}  // namespace cm::store
