// core_parts.h — what the harnesses of the cores stand on: a store, clocks that stand still, keys.
// Owns:   CoreParts, KeyPair, Lines.
// Holds:  an input changes nothing that the next one sees: what it writes is not committed, or is
//         erased before the next one, and randomness begins anew. So a crash is found again by its
//         input alone.
// Why:    a commit and a fresh store for each input would cost more than the cores themselves. A
//         commit is needed only before a crash or a failed commit, which lose what came after it.
// Not:    the cores (broker_world.h, daemon_world.h, sse_fuzz.cc).
#pragma once

#include <sodium.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

// An input as lines; empty ones are skipped.
class Lines {
 public:
  static constexpr std::size_t kMost = 64;
  explicit Lines(std::string_view input) noexcept : rest_(input) {}
  bool next(std::string_view& line) noexcept {
    while (!rest_.empty() && count_ < kMost) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++count_;
      if (!line.empty()) return true;
    }
    return false;
  }

 private:
  std::string_view rest_;
  std::size_t count_ = 0;
};

class CoreParts {
 public:
  static constexpr std::uint64_t kWallMs = 1'700'000'000'000;

  explicit CoreParts(store::Role role)
      : log([](void*, std::string_view) {}, [](void*) { return std::uint64_t{0}; }, nullptr) {
    CHECK(sodium_init() >= 0);
    std::string path = std::filesystem::temp_directory_path() / "cm-fuzz-XXXXXX";
    CHECK(mkdtemp(path.data()) != nullptr);
    store::Options options;
    options.directory = path;
    options.role = role;
    options.bound_bytes = 64 << 20;
    options.durability = store::Durability::kRelaxed;
    auto opened = store::Store::open(options, scratch);
    CHECK(opened);
    store = std::move(*opened);
    role_ = role;
    store->set_commit_fault(
        [](void* self) { return static_cast<const CoreParts*>(self)->fails_ ? ENOSPC : 0; }, this);
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

  // The state in which every input begins. True if the store was emptied for it.
  bool begin() {
    store->abort();
    const bool emptied = committed_;
    if (committed_) empty();
    restart();
    return emptied;
  }
  void restart() {
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
  // What was written up to here outlives crash() and fail(), and only the input.
  void checkpoint() {
    const store::CommitResult result = store->commit();
    CHECK(result <= store::CommitResult::kCommitted);
    committed_ = committed_ || result == store::CommitResult::kCommitted;
  }
  // The process is gone with what it wrote since the last checkpoint.
  void crash() { store->abort(); }
  // What was written since is not: the disk is full. False if nothing was.
  bool fail_commit() {
    fails_ = true;
    const store::CommitResult result = store->commit();
    fails_ = false;
    CHECK(result == store::CommitResult::kFailed || result == store::CommitResult::kNothing);
    return result == store::CommitResult::kFailed;
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

 private:
  // All but what says of which schema and role the store is.
  void empty() {
    for (std::size_t number = 0; number < store::kTableCount; ++number) {
      const auto table = static_cast<store::TableId>(number);
      if ((store::info_of(table).roles & (1u << static_cast<unsigned>(role_))) == 0) continue;
      std::vector<std::string> keys;
      {
        store::Cursor cursor(store->batch(), table);
        for (bool more = cursor.seek({}); more; more = cursor.next()) {
          keys.emplace_back(as_text(cursor.key()));
        }
      }
      for (const std::string& key : keys) {
        if (table == store::TableId::kMeta && (key == "schema_version" || key == "role")) continue;
        store->batch().erase(table, as_bytes(key));
      }
    }
    CHECK(store->commit() <= store::CommitResult::kCommitted);
    scratch.reset();
    committed_ = false;
  }

  store::Role role_ = store::Role::kDaemon;
  bool committed_ = false;
  bool fails_ = false;
};

}  // namespace cm::fuzz
