// ulid.cc — text form and monotonic generation (the ULID specification, "Monotonicity").
#include "core/base/ulid.h"

#include <array>

#include "core/base/check.h"

namespace cm {
namespace {

constexpr char kAlphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

constexpr std::uint8_t kNoDigit = 0xff;
constexpr std::array<std::uint8_t, 256> make_digits() {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(kNoDigit);
  for (std::uint8_t value = 0; value < 32; ++value) {
    const auto c = static_cast<unsigned char>(kAlphabet[value]);
    digits[c] = value;
    if (c >= 'A') digits[c + ('a' - 'A')] = value;
  }
  return digits;
}
constexpr std::array<std::uint8_t, 256> kDigits = make_digits();

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

// 128 bits are 26 digits of 5 bits, the last one from the lowest bits.
UlidText ulid_text(const Ulid& id) noexcept {
  std::uint64_t high = load_be64(id.bytes.data());
  std::uint64_t low = load_be64(id.bytes.data() + 8);
  UlidText text;
  for (std::size_t digit = kUlidText; digit-- > 0;) {
    text[digit] = kAlphabet[low & 31];
    low = (low >> 5) | (high << 59);
    high >>= 5;
  }
  return text;
}

std::optional<Ulid> ulid_parse(std::string_view text) noexcept {
  if (text.size() != kUlidText) return std::nullopt;
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  unsigned seen = 0;
  for (const char c : text) {
    const std::uint8_t value = kDigits[static_cast<unsigned char>(c)];
    seen |= value;
    high = (high << 5) | (low >> 59);
    low = (low << 5) | (value & 31u);
  }
  // A character that is no digit has higher bits; a first digit above 7 has no room in 128 bits.
  if (seen > 31 || kDigits[static_cast<unsigned char>(text.front())] > 7) return std::nullopt;
  Ulid id;
  store_be64(id.bytes.data(), high);
  store_be64(id.bytes.data() + 8, low);
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
