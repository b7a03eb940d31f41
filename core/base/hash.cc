// hash.cc — one call into xxHash, compiled in so that nothing has to be linked for it.
#include "core/base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace cm {

std::uint64_t hash64(Bytes bytes, std::uint64_t seed) noexcept {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

}  // namespace cm
