// slab_access.h — the door to secret bytes, for the sources of core/crypto alone.
// Owns:   SlabAccess.
// Holds:  the pointer is good until release() of the slot; nobody copies what it points to, and
//         what is derived from it is wiped.
// Not:    included outside core/crypto.
#pragma once

#include "core/crypto/slab.h"

namespace cm::crypto {

struct SlabAccess {
  static const std::uint8_t* secret(const SecretSlab& slab, SecretRef ref) {
    return slab.slot(ref);
  }
};

}  // namespace cm::crypto
