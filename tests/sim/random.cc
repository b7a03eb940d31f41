// random.cc — xoshiro256** and libsodium's table of functions over it.
#include "tests/sim/random.h"

#include <sodium.h>

#include <cstring>

namespace cm::sim {
namespace {

Rng sodium_stream(1);

std::uint32_t sodium_random() { return static_cast<std::uint32_t>(sodium_stream.next()); }

void sodium_buf(void* const to, const std::size_t size) {
  auto* out = static_cast<std::uint8_t*>(to);
  for (std::size_t done = 0; done < size;) {
    const std::uint64_t word = sodium_stream.next();
    const std::size_t part = size - done < sizeof word ? size - done : sizeof word;
    std::memcpy(out + done, &word, part);
    done += part;
  }
}

const char* sodium_name() { return "claudemesh-sim"; }

std::uint64_t rotate(std::uint64_t value, int bits) noexcept {
  return (value << bits) | (value >> (64 - bits));
}

}  // namespace

Rng::Rng(std::uint64_t seed) noexcept {
  for (std::uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15ull;
    std::uint64_t mixed = seed;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
    word = mixed ^ (mixed >> 31);
  }
}

std::uint64_t Rng::next() noexcept {
  const std::uint64_t result = rotate(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = rotate(state_[3], 45);
  return result;
}

void install_sodium_rng() {
  static randombytes_implementation implementation{};
  implementation.implementation_name = sodium_name;
  implementation.random = sodium_random;
  implementation.buf = sodium_buf;
  randombytes_set_implementation(&implementation);
}

void seed_sodium_rng(std::uint64_t seed) { sodium_stream = Rng(seed ^ 0x736f6469756d2121ull); }

}  // namespace cm::sim
