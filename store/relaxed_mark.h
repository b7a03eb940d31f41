// relaxed_mark.h — remembers that a store was open in relaxed mode, and under which boot.
// Owns:   the file RELAXED beside data.mdb: the kernel's boot id, while a relaxed store is open.
// Holds:  it is on the disk before the first relaxed commit, and goes only after a flush. Found
//         under another boot id it means: the machine stopped while the kernel held pages that
//         were never written, and LMDB may open a mixture of old and new ones.
// Why:    relaxed commits promise to survive kill -9, not power loss; a store that lost power has
//         to be looked at before it is believed (tests/faults/crash_images.cc shows what it may
//         be).
// Not:    the look itself (fsck.h), who does it (store.cc).
#pragma once

#include <string>

#include "core/base/result.h"

namespace cm::store {

enum class LastEnd { kClean, kKilled, kPowerLost };

// What the mark says of the last owner. Without a boot id of the kernel: kKilled at worst.
LastEnd last_end(const std::string& directory);
// kIo with the path. Flushed before it returns.
Status set_relaxed_mark(const std::string& directory);
void clear_relaxed_mark(const std::string& directory);

}  // namespace cm::store
