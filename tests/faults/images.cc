// images.cc — epochs of a stream, and the subsets, orders and tears of each.
#include "tests/faults/images.h"

#include <algorithm>
#include <numeric>

#include "store/pages.h"

namespace cm::faults {
namespace {

constexpr std::size_t kSectorBytes = 512;

void put(FileBytes& file, const Event& event, std::size_t size) {
  const std::size_t end = event.offset + size;
  if (file.size() < end) file.resize(end);
  std::copy_n(event.bytes.begin(), size, file.begin() + static_cast<std::ptrdiff_t>(event.offset));
}
void put(FileBytes& file, const Event& event) { put(file, event, event.bytes.size()); }

class Images {
 public:
  Images(const Stream& stream, std::uint32_t stride, std::uint64_t seed, const ImageSink& sink)
      : stream_(stream), stride_(stride), rng_(seed), sink_(sink) {}

  // What is promised to hold when the power fails.
  ImageCounts power() {
    for (at_ = 0; at_ < stream_.events.size() && !ended_; ++at_) {
      const Event& event = stream_.events[at_];
      if (event.kind == EventKind::kSync) {
        settle();
      } else if (event.kind == EventKind::kResize) {
        disk_.resize(event.offset);
      } else if (event.is_synced) {
        synced_write(event);
      } else {
        if (is_chosen()) torn_page(event);
        pending_.push_back(&event);
      }
    }
    return counts_;
  }

  // What holds when only the process dies.
  ImageCounts kill() {
    for (at_ = 0; at_ < stream_.events.size() && !ended_; ++at_) {
      const Event& event = stream_.events[at_];
      if (event.kind == EventKind::kResize) disk_.resize(event.offset);
      if (event.kind != EventKind::kWrite) continue;
      put(disk_, event);
      if (event.is_meta) {
        ++commit_;
        ++counts_.epochs;
      }
      if (is_chosen()) show(disk_, "killed", false);
    }
    return counts_;
  }

 private:
  bool is_chosen() const noexcept { return commit_ % stride_ == 0; }

  void show(const FileBytes& file, std::string_view kind, bool may_be_next) {
    if (ended_) return;
    Image image;
    image.bytes = &file;
    image.commit = commit_;
    image.may_be_next = may_be_next;
    image.promises = stream_.events[at_].promises;
    image.kind = kind;
    image.event = at_;
    ended_ = !sink_(image);
  }

  // The file is synced: before it was, any subset of the pages could have been there.
  void settle() {
    if (!pending_.empty() && is_chosen()) {
      ++counts_.epochs;
      if (pending_.size() <= kAllSubsets) {
        ++counts_.all_subsets;
        for (std::size_t mask = 0; mask + 1 < std::size_t{1} << pending_.size(); ++mask) {
          subset([mask](std::size_t index) { return (mask >> index & 1) != 0; });
        }
      } else {
        some_subsets();
      }
    }
    for (const Event* event : pending_) put(disk_, *event);
    pending_.clear();
    if (is_chosen()) show(disk_, "whole", false);
  }

  template <class IsThere>
  void subset(IsThere is_there) {
    FileBytes file = disk_;
    for (std::size_t index = 0; index < pending_.size(); ++index) {
      if (is_there(index)) put(file, *pending_[index]);
    }
    show(file, "subset", false);
  }

  void some_subsets() {
    const std::size_t count = pending_.size();
    subset([](std::size_t) { return false; });
    for (std::size_t one = 0; one < count; ++one) {
      subset([one](std::size_t index) { return index != one; });
      subset([one](std::size_t index) { return index == one; });
    }
    std::vector<std::size_t> order(count);
    for (std::size_t permutation = 0; permutation < kPermutations; ++permutation) {
      std::iota(order.begin(), order.end(), std::size_t{0});
      for (std::size_t index = count; index > 1; --index) {
        std::swap(order[index - 1], order[rng_.below(index)]);
      }
      std::vector<bool> there(count, false);
      for (std::size_t length = 0; length + 1 < count; ++length) {
        there[order[length]] = true;
        subset([&there](std::size_t index) { return there[index]; });
      }
    }
  }

  // The write of a page was cut off; those before it are there, or are not.
  void torn_page(const Event& event) {
    for (std::size_t size = kSectorBytes; size < event.bytes.size(); size += kSectorBytes) {
      FileBytes file = disk_;
      put(file, event, size);
      show(file, "torn page", false);
      if (pending_.empty()) continue;
      file = disk_;
      for (const Event* before : pending_) put(file, *before);
      put(file, event, size);
      show(file, "torn page", false);
    }
  }

  // Through O_DSYNC: there when the call returns. What is pending beside it may be there or not.
  void synced_write(const Event& event) {
    for (std::size_t size = 1; is_chosen() && size < event.bytes.size(); ++size) {
      FileBytes file = disk_;
      put(file, event, size);
      show(file, "torn meta", event.is_meta);
    }
    put(disk_, event);
    if (event.is_meta) ++commit_;
    if (is_chosen()) show(disk_, "whole", false);
  }

  const Stream& stream_;
  std::uint32_t stride_;
  sim::Rng rng_;
  const ImageSink& sink_;
  FileBytes disk_;
  std::vector<const Event*> pending_;
  std::uint64_t commit_ = 0;
  std::size_t at_ = 0;
  bool ended_ = false;
  ImageCounts counts_;
};

}  // namespace

ImageCounts each_image(const Stream& stream, store::Durability durability, std::uint32_t stride,
                       std::uint64_t seed, const ImageSink& sink) {
  Images images(stream, stride, seed, sink);
  return durability == store::Durability::kSync ? images.power() : images.kill();
}

FileBytes power_loss_image(const Stream& stream, std::size_t events, sim::Rng& rng) {
  FileBytes file;
  const std::uint32_t kept = static_cast<std::uint32_t>(rng.between(500, 995));
  for (std::size_t index = 0; index < events; ++index) {
    const Event& event = stream.events[index];
    if (event.kind == EventKind::kWrite && rng.chance(kept)) put(file, event);
  }
  return file;
}

}  // namespace cm::faults
