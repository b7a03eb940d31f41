// canary_fuzz.cc — a harness that must crash: it proves that the alarm rings.
// Holds:  six bytes, found one by one; a build without coverage feedback or without a working
//         crash report does not find them.
// Not:    part of the corpus replay or of normal runs (check_canary.sh runs it).
#include "core/base/check.h"
#include "fuzz/registry.h"

CM_FUZZ_TARGET(canary) {
  constexpr char kCanary[] = "CANARY";
  std::size_t found = 0;
  if (size >= sizeof kCanary - 1) {
    while (kCanary[found] != '\0' && data[found] == static_cast<std::uint8_t>(kCanary[found])) {
      ++found;
    }
  }
  CHECK(found < sizeof kCanary - 1);
  return 0;
}
