// images.h — the files that a crash may leave behind, from a write stream.
// Owns:   Disk (what is there for certain, what is on its way) and each_image().
// Holds:  the model. Power failure: of the pages written since the last sync of the file any subset
//         may be there (a disk orders nothing); what was synced is there; of one page that was
//         being written when it happened a prefix of sectors (512 bytes), of a meta page's 120
//         bytes any prefix. Kill: what was written is there, of the last write a prefix of pages.
// Limits: all subsets of up to kAllSubsets pages; beyond it, each page missing alone, each there
//         alone, and all prefixes of kPermutations seeded orders.
// Not:    bytes of one sector that arrive in another order: disks write a sector whole or not.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/faults/recording.h"
#include "tests/sim/random.h"

namespace cm::faults {

inline constexpr std::size_t kAllSubsets = 8;
inline constexpr std::size_t kPermutations = 8;

using FileBytes = std::vector<std::uint8_t>;

struct Image {
  const FileBytes* bytes = nullptr;
  std::uint64_t commit = 0;  // whose meta page is there; of a torn one the next
  bool may_be_next = false;  // a torn meta page may be whole in effect
  std::size_t promises = 0;  // made by then
  std::string_view kind;     // "subset", "torn page", "torn meta", "whole", "killed"
  std::size_t event = 0;
};

// False ends the walk.
using ImageSink = std::function<bool(const Image&)>;

struct ImageCounts {
  std::uint64_t epochs = 0;
  std::uint64_t all_subsets = 0;  // epochs of which every subset was built
};

// Of every commit, or of one in `stride` of them. In relaxed mode nothing is synced, and the images
// are those of a kill.
ImageCounts each_image(const Stream& stream, store::Durability durability, std::uint32_t stride,
                       std::uint64_t seed, const ImageSink& sink);

// Relaxed mode and a power failure: of every page any of the versions that were written by then.
FileBytes power_loss_image(const Stream& stream, std::size_t events, sim::Rng& rng);

}  // namespace cm::faults
