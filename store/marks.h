// marks.h — what a store remembers beside its data file, because that file cannot tell.
// Owns:   RELAXED: the kernel's boot id, while a relaxed store is open. MADE: an empty file, since
//         the data file holds its first commit.
// Holds:  RELAXED is on the disk before the first relaxed commit, and goes only after a flush.
//         Found under another boot id it means: the machine stopped while the kernel held pages
//         that were never written, and LMDB may open a mixture of old and new ones.
//         MADE is written when the first commit is on the disk: a data file without a commit is
//         then damage, without MADE a creation that was cut off.
// Why:    relaxed commits promise to survive kill -9, not power loss; a store that lost power has
//         to be looked at before it is believed (tests/faults/crash_images.cc shows what it may
//         be). And a file that was emptied must not pass for a new one: what was accepted would be
//         forgotten in silence.
// Not:    the look itself (fsck.h, pages.h), who does it (store.cc).
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

bool was_made(const std::string& directory);
// kIo with the path. Flushed before it returns.
Status set_made_mark(const std::string& directory);
// For who puts the data file away himself: the next owner may begin a new one.
void clear_made_mark(const std::string& directory);

}  // namespace cm::store
