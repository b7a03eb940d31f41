// alloc_count.h — counts heap allocations of C++ code, for tests and benches only.
// Owns:   one counter of the process.
// Holds:  linking alloc_count.cc replaces operator new; release binaries do not link it. What C
//         libraries allocate is counted by the preload shim in bench/.
#pragma once

#include <cstdint>

namespace cm {

// Calls of operator new since the process began.
std::uint64_t allocation_count() noexcept;

}  // namespace cm
