// faults.cc — names of faults.
#include "tests/sim/faults.h"

namespace cm::sim {
namespace {

constexpr std::string_view kNames[] = {
#define CM_FAULT_TEXT(name, text) text,
    CM_FAULTS(CM_FAULT_TEXT)
#undef CM_FAULT_TEXT
};

}  // namespace

std::string_view name_of(Fault fault) noexcept { return kNames[static_cast<std::size_t>(fault)]; }

bool parse_faults(std::string_view names, FaultMask& mask) {
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    std::size_t at = 0;
    while (at < kFaults && kNames[at] != name) ++at;
    if (at == kFaults) return false;
    mask.set(at);
  }
  return true;
}

std::string text_of(const FaultMask& mask) {
  std::string text;
  for (std::size_t at = 0; at < kFaults; ++at) {
    if (!mask.test(at)) continue;
    if (!text.empty()) text += ',';
    text += kNames[at];
  }
  return text;
}

}  // namespace cm::sim
