// ulid.h — identifiers that sort by the time of their making.
// Owns:   Ulid (16 bytes, big-endian: 48 bits of milliseconds, 80 bits of randomness) and the
//         monotonic generator.
// Holds:  ids of one generator strictly increase, even when the clock steps back: they are the
//         append-order keys of hot tables (design/performance.md).
// Not:    secrets. An id is guessable by who has seen its neighbours.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/bytes.h"

namespace cm {

struct Ulid {
  std::array<std::uint8_t, 16> bytes{};

  friend bool operator==(const Ulid&, const Ulid&) = default;
  friend auto operator<=>(const Ulid&, const Ulid&) = default;
  std::uint64_t time_ms() const noexcept;
  bool is_zero() const noexcept { return *this == Ulid{}; }
};

constexpr std::size_t kUlidText = 26;  // Crockford base32, upper case
using UlidText = std::array<char, kUlidText>;

UlidText ulid_text(const Ulid& id) noexcept;
inline std::string_view view(const UlidText& text) noexcept { return {text.data(), text.size()}; }
// Accepts 26 characters of either case; nothing else.
std::optional<Ulid> ulid_parse(std::string_view text) noexcept;

using FillRandom = void (*)(void* to, std::size_t size);

class UlidGenerator {
 public:
  explicit UlidGenerator(FillRandom rng) noexcept : rng_(rng) {}
  // Ids made from now on are greater than `last` (the newest one found in the store).
  void start_after(const Ulid& last) noexcept;
  Ulid next(std::uint64_t now_ms) noexcept;
  const Ulid& last() const noexcept { return last_; }  // zero before the first

 private:
  FillRandom rng_;
  Ulid last_{};
};

}  // namespace cm
