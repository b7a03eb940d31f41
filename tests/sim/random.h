// random.h — the one source of chance in a simulated run, for the world and for libsodium.
// Owns:   Rng (xoshiro256**, seeded by splitmix64) and its installation as libsodium's generator.
// Holds:  the same seed gives the same numbers on every machine. The world and libsodium draw from
//         two streams, so that one more key pair does not shift every later decision.
// Not:    anything secret: these keys are worth nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cm::sim {

class Rng {
 public:
  explicit Rng(std::uint64_t seed) noexcept;
  std::uint64_t next() noexcept;
  // 0 <= value < bound; bound > 0.
  std::uint64_t below(std::uint64_t bound) noexcept { return next() % bound; }
  // least <= value <= most.
  std::uint64_t between(std::uint64_t least, std::uint64_t most) noexcept {
    return least + below(most - least + 1);
  }
  bool chance(std::uint32_t per_mille) noexcept { return below(1000) < per_mille; }

 private:
  std::uint64_t state_[4];
};

// Once, before crypto::initialise(): libsodium asks the stream below from then on.
void install_sodium_rng();
// At the start of each run.
void seed_sodium_rng(std::uint64_t seed);

}  // namespace cm::sim
