// table.h — struct-of-arrays tables addressed by typed generational handles.
// Owns:   Ref<Tag>, Table<Tag, Columns...>.
// Holds:  an odd generation is a live row; a stale Ref is detected, never dereferenced. Freed
//         slots are reused in FIFO order, so that a stale handle stays detectable for long.
// Limits: rows <= capacity given at construction; insert() answers an empty Ref when full.
// Not:    durable rows (store/), variable-length data (arenas).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace cm {

// A handle: 32-bit slot, 32-bit generation. Typed by Tag, so that a SessionRef cannot be passed
// for a ConnRef. The default Ref names nothing.
template <class Tag>
struct Ref {
  std::uint32_t slot = 0;
  std::uint32_t gen = 0;

  friend bool operator==(Ref, Ref) = default;
  explicit operator bool() const noexcept { return gen != 0; }
  std::uint64_t bits() const noexcept { return (std::uint64_t{gen} << 32) | slot; }
  static Ref from_bits(std::uint64_t bits) noexcept {
    return {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)};
  }
};

// Columns are named by an enum in the order of the type list:
//   enum PeerCol { kName, kDeadline };
//   using PeerTable = Table<struct PeerTag, std::string, std::uint64_t>;
//   peers.get<kDeadline>(ref) = now;
// References into a column live until the next insert().
template <class Tag, class... Columns>
class Table {
 public:
  using Handle = Ref<Tag>;
  template <std::size_t I>
  using Column = std::tuple_element_t<I, std::tuple<Columns...>>;

  explicit Table(std::uint32_t capacity) : capacity_(capacity) {}

  // Columns start value-initialised. An empty Handle when the table is full.
  Handle insert() {
    std::uint32_t slot;
    if (free_head_ != kNone) {
      slot = free_head_;
      free_head_ = next_free_[slot];
      if (free_head_ == kNone) free_tail_ = kNone;
    } else {
      if (gens_.size() >= capacity_) return {};
      slot = static_cast<std::uint32_t>(gens_.size());
      gens_.push_back(0);
      next_free_.push_back(kNone);
      std::apply([](auto&... column) { (column.emplace_back(), ...); }, columns_);
    }
    ++gens_[slot];
    CHECK(gens_[slot] & 1u);
    ++count_;
    return {slot, gens_[slot]};
  }

  void erase(Handle ref) {
    CHECK(alive(ref));
    std::apply([&](auto&... column) { ((column[ref.slot] = {}), ...); }, columns_);
    ++gens_[ref.slot];
    next_free_[ref.slot] = kNone;
    if (free_tail_ == kNone) {
      free_head_ = ref.slot;
    } else {
      next_free_[free_tail_] = ref.slot;
    }
    free_tail_ = ref.slot;
    --count_;
  }

  void clear() {
    for (std::uint32_t slot = 0; slot < gens_.size(); ++slot) {
      if (gens_[slot] & 1u) erase({slot, gens_[slot]});
    }
  }

  bool alive(Handle ref) const noexcept {
    return ref.slot < gens_.size() && gens_[ref.slot] == ref.gen && (ref.gen & 1u);
  }

  template <std::size_t I>
  Column<I>& get(Handle ref) {
    CHECK(alive(ref));
    return std::get<I>(columns_)[ref.slot];
  }
  template <std::size_t I>
  const Column<I>& get(Handle ref) const {
    CHECK(alive(ref));
    return std::get<I>(columns_)[ref.slot];
  }

  std::uint32_t slots() const noexcept { return static_cast<std::uint32_t>(gens_.size()); }
  std::uint32_t count() const noexcept { return count_; }
  std::uint32_t capacity() const noexcept { return capacity_; }
  bool full() const noexcept { return count_ >= capacity_; }

  // Calls visit(Handle) for each live row; the visitor may erase rows, not insert them.
  template <class Visit>
  void each(Visit&& visit) {
    for (std::uint32_t slot = 0; slot < gens_.size(); ++slot) {
      if (gens_[slot] & 1u) visit(Handle{slot, gens_[slot]});
    }
  }
  template <class Visit>
  void each(Visit&& visit) const {
    for (std::uint32_t slot = 0; slot < gens_.size(); ++slot) {
      if (gens_[slot] & 1u) visit(Handle{slot, gens_[slot]});
    }
  }

  // Counts match lists, the free list reaches every dead slot. Part of verify_all().
  bool verify() const noexcept {
    std::uint32_t live = 0;
    for (const std::uint32_t gen : gens_) live += gen & 1u;
    std::uint32_t free = 0;
    for (std::uint32_t slot = free_head_; slot != kNone; slot = next_free_[slot]) {
      if (slot >= gens_.size() || (gens_[slot] & 1u) || ++free > gens_.size()) return false;
    }
    return live == count_ && live + free == gens_.size();
  }

 private:
  static constexpr std::uint32_t kNone = 0xffffffffu;

  std::uint32_t capacity_;
  std::uint32_t count_ = 0;
  std::uint32_t free_head_ = kNone;
  std::uint32_t free_tail_ = kNone;
  std::vector<std::uint32_t> gens_;
  std::vector<std::uint32_t> next_free_;
  std::tuple<std::vector<Columns>...> columns_;
};

}  // namespace cm

template <class Tag>
struct std::hash<cm::Ref<Tag>> {
  std::size_t operator()(cm::Ref<Tag> ref) const noexcept {
    return static_cast<std::size_t>(ref.bits() * 0x9e3779b97f4a7c15ull);
  }
};
