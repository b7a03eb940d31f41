// alloc_count.cc — replaces the global operator new by a counting one.
// Not:    linked into the product; see alloc_count.h.
#include "core/base/alloc_count.h"

#include <cstdlib>
#include <new>

#include "core/base/check.h"

namespace {

std::uint64_t g_allocations = 0;

void* counted(std::size_t size) noexcept {
  ++g_allocations;
  void* at = std::malloc(size == 0 ? 1 : size);
  CHECK(at != nullptr);
  return at;
}

}  // namespace

namespace cm {
std::uint64_t allocation_count() noexcept { return g_allocations; }
}  // namespace cm

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* at) noexcept { std::free(at); }
void operator delete[](void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t) noexcept { std::free(at); }
