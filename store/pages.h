// pages.h — is the file what LMDB believes it to be? Asked before it is used, and by fsck.
// Owns:   check_metas() (before the environment is opened), check_pages() (one whole snapshot),
//         forget_unfinished() (a file whose creation was cut off), mend_metas() (for recovery).
// Holds:  nothing outside the file is read, whatever its bytes say; nothing is changed, except by
//         forget_unfinished(), which only touches a file that never held a commit, and by
//         mend_metas(), which writes the two meta pages and nothing else.
// Why:    LMDB follows page numbers, offsets and counts without looking. A flipped bit in them is
//         a crash at best; at worst it takes an older commit for the newest, loses rows of which
//         no checksum of a row can tell, or gives a page in use to the next writer.
// Limits: format 1 (LMDB 0.9) with pages of 4096 bytes, as on every machine that we support.
// Source: the layout that the authors of LMDB describe above its structs; written anew.
// Not:    the rows (row.h), and what they promise each other (fsck.h).
#pragma once

#include <cstdint>
#include <string>

#include "core/base/result.h"

struct MDB_env;

namespace cm::store {

constexpr std::uint32_t kPageBytes = 4096;

// What was found first, and in which page. `what` is null when all is well.
struct PageProblem {
  const char* what = nullptr;
  std::uint64_t page = 0;
  explicit operator bool() const noexcept { return what != nullptr; }
};

// The two meta pages: form, sizes, and that their transactions follow one another, so that the
// newest commit is the newest. A file that is absent or empty is well: LMDB makes it.
PageProblem check_metas(const std::string& file);

// Every page that the last commit reaches, and its free list: page headers, node bounds, key
// order, counts, table names, and that each page has one use. A running owner may go on meanwhile.
PageProblem check_pages(MDB_env* env);

// Empties a file of at most two pages in which no commit can be: its creation was interrupted.
// The caller holds LOCK. An errno-like code, or 0.
int forget_unfinished(const std::string& file) noexcept;

// What the two meta pages can still lead to. LMDB never overwrites a page of the last two commits,
// so that when one of them cannot be followed, the other usually can.
enum class Mend {
  kSound,    // both are well, and the newest commit is whole: the damage is elsewhere, or none
  kMended,   // both lead to the newest commit that is whole; it may be the last but one
  kHopeless  // neither does; nothing was changed
};

// The caller holds LOCK, and nobody has the file open. With `change` the pages are written and
// flushed; without, it is only said what would be.
Mend mend_metas(const std::string& file, bool change);

}  // namespace cm::store
