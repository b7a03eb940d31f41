// ulid.cc — text form and monotonic generation (the ULID specification, "Monotonicity").
#include "core/base/ulid.h"

#include "core/base/check.h"

namespace cm {
namespace {

constexpr char kAlphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

int digit_of(char c) noexcept {
  if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  for (int index = 0; index < 32; ++index) {
    if (kAlphabet[index] == c) return index;
  }
  return -1;
}

void set_time(Ulid& id, std::uint64_t now_ms) noexcept {
  for (int index = 0; index < 6; ++index) {
    id.bytes[static_cast<std::size_t>(index)] =
        static_cast<std::uint8_t>(now_ms >> (8 * (5 - index)));
  }
}

}  // namespace

std::uint64_t Ulid::time_ms() const noexcept {
  std::uint64_t ms = 0;
  for (std::size_t index = 0; index < 6; ++index) ms = (ms << 8) | bytes[index];
  return ms;
}

UlidText ulid_text(const Ulid& id) noexcept {
  // 128 bits are 26 digits of 5 bits; the first digit holds the 3 highest bits.
  UlidText text;
  for (std::size_t digit = 0; digit < kUlidText; ++digit) {
    unsigned value = 0;
    for (std::size_t bit = 0; bit < 5; ++bit) {
      const std::size_t position = digit * 5 + bit;  // of 130, two leading zero bits
      value <<= 1;
      if (position >= 2) {
        const std::size_t index = position - 2;
        value |= (id.bytes[index / 8] >> (7 - index % 8)) & 1u;
      }
    }
    text[digit] = kAlphabet[value];
  }
  return text;
}

std::optional<Ulid> ulid_parse(std::string_view text) noexcept {
  if (text.size() != kUlidText) return std::nullopt;
  Ulid id;
  for (std::size_t digit = 0; digit < kUlidText; ++digit) {
    const int value = digit_of(text[digit]);
    if (value < 0 || (digit == 0 && value > 7)) return std::nullopt;
    for (std::size_t bit = 0; bit < 5; ++bit) {
      const std::size_t position = digit * 5 + bit;
      if (position < 2) continue;
      const std::size_t index = position - 2;
      const auto set = static_cast<unsigned>(value >> (4 - bit)) & 1u;
      id.bytes[index / 8] =
          static_cast<std::uint8_t>(id.bytes[index / 8] | (set << (7 - index % 8)));
    }
  }
  return id;
}

void UlidGenerator::start_after(const Ulid& last) noexcept {
  if (last > last_) last_ = last;
}

Ulid UlidGenerator::next(std::uint64_t now_ms) noexcept {
  if (now_ms > last_.time_ms()) {
    Ulid fresh;
    rng_(fresh.bytes.data() + 6, 10);
    set_time(fresh, now_ms);
    last_ = fresh;
    return last_;
  }
  // Same millisecond, or a clock that stepped back: increment the random part, carry upwards.
  std::size_t index = last_.bytes.size();
  do {
    CHECK(index > 0);  // 2^128 ids later
    --index;
    ++last_.bytes[index];
  } while (last_.bytes[index] == 0);
  return last_;
}

}  // namespace cm
