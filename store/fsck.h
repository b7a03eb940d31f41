// fsck.h — walks every table of a role: checksums, key forms, and that indexes and rows agree.
// Owns:   fsck(), used by `claudemesh daemon fsck` and `broker fsck` and by verify_all().
// Holds:  reads only; what it finds it reports, it repairs nothing. Pages are checked first
//         (pages.h), under the table name "(pages)"; over damaged ones no row is read.
// Not:    comparison with the mirrors in memory (verify_all of each core).
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "store/store.h"

namespace cm::store {

struct FsckReport {
  std::uint64_t rows = 0;
  std::uint64_t problems = 0;
};

// Called once for each problem: the table, what is wrong, and the key it was found under.
using FsckSink = std::function<void(std::string_view table, std::string_view problem, Bytes key)>;

FsckReport fsck(Batch& batch, Role role, const FsckSink& sink);

}  // namespace cm::store
