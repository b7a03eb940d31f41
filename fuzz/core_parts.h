// core_parts.h — what the harnesses of the cores stand on: a store, clocks that stand still, keys.
// Owns:   CoreParts, KeyPair.
// Holds:  an input changes nothing that the next one sees: what it writes is never committed, and
//         randomness begins anew. So a crash is found again by its input alone.
// Why:    a commit and a fresh store for each input would cost more than the cores themselves.
// Not:    the cores (broker_fuzz.cc, sse_fuzz.cc).
#pragma once

#include <sodium.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/crypto/encoding.h"
#include "core/crypto/slab.h"
#include "store/fsck.h"
#include "store/store.h"

namespace cm::fuzz {

// The same bytes for the same sequence of calls; libsodium's stream cipher with a counter.
class Randomness {
 public:
  static void restart() noexcept { counter() = 0; }
  static void fill(void* to, std::size_t size) noexcept {
    std::array<std::uint8_t, randombytes_SEEDBYTES> seed{};
    store_le(seed.data(), ++counter());
    randombytes_buf_deterministic(to, size, seed.data());
  }

 private:
  static std::uint64_t& counter() noexcept {
    static std::uint64_t value = 0;
    return value;
  }
};

struct KeyPair {
  std::array<std::uint8_t, 32> seed{};
  std::array<std::uint8_t, 64> secret{};
  crypto::PublicKey key{};
  std::string hex;

  explicit KeyPair(std::uint8_t number) {
    CHECK(sodium_init() >= 0);
    seed.fill(number);
    crypto_sign_seed_keypair(key.data(), secret.data(), seed.data());
    hex = crypto::view(crypto::hex_text(key));
  }
  std::string sign(std::string_view text) const {
    crypto::Signature signature;
    crypto_sign_detached(signature.data(), nullptr,
                         reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                         secret.data());
    ScratchArena arena(4096);
    TextBuf out(arena);
    crypto::hex_append(signature, out);
    return std::string(out.view());
  }
};

class CoreParts {
 public:
  static constexpr std::uint64_t kWallMs = 1'700'000'000'000;

  explicit CoreParts(store::Role role)
      : log([](void*, std::string_view) {}, [](void*) { return std::uint64_t{0}; }, nullptr) {
    CHECK(sodium_init() >= 0);
    char path[] = "/tmp/cm-fuzz-XXXXXX";
    CHECK(mkdtemp(path) != nullptr);
    store::Options options;
    options.directory = path;
    options.role = role;
    options.bound_bytes = 64 << 20;
    options.durability = store::Durability::kRelaxed;
    auto opened = store::Store::open(options, scratch);
    CHECK(opened);
    store = std::move(*opened);
    env.batch = &store->batch();
    env.rng = Randomness::fill;
    env.log = &log;
    begin();
  }
  ~CoreParts() {
    const std::string directory = store->options().directory;
    store->abort();
    store.reset();
    std::filesystem::remove_all(directory);
  }
  CoreParts(const CoreParts&) = delete;
  CoreParts& operator=(const CoreParts&) = delete;

  // The state in which every input begins.
  void begin() {
    store->abort();
    scratch.reset();
    env.wall_ms = kWallMs;
    env.mono_ms = 1'000'000;
    Randomness::restart();
    slab.emplace(16);
  }
  void advance(std::uint64_t ms) {
    env.wall_ms += ms;
    env.mono_ms += ms;
  }
  // The tables, with what was written and not committed, agree with one another.
  void expect_sound(store::Role role) {
    CHECK(!store->batch().failed());
    const auto sink = [](std::string_view table, std::string_view problem, Bytes) {
      std::fprintf(stderr, "fsck: %.*s: %.*s\n", static_cast<int>(table.size()), table.data(),
                   static_cast<int>(problem.size()), problem.data());
    };
    CHECK_EQ(store::fsck(store->batch(), role, sink).problems, 0u);
  }

  Limits limits;
  ScratchArena scratch{64 * 1024};
  Metrics metrics;
  Log log;
  Env env;
  std::optional<crypto::SecretSlab> slab;
  std::unique_ptr<store::Store> store;
};

}  // namespace cm::fuzz
