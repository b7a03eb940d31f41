// core_fixture.h — what the tests of both cores stand on: a store in a directory, clocks, texts.
// Owns:   CoreParts (store, environment, clocks), Member (a key pair), reading JSON by field name.
// Holds:  the clocks move only when a test moves them; no network, no threads, no sleeps. A test
//         drives its core as the shells do: events, step, commit, effects.
// Not:    the cores themselves (broker_test.cc, daemon_send_test.cc and those beside them).
#pragma once

#include <gtest/gtest.h>
#include <sodium.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/slab.h"
#include "core/wire/http_request.h"
#include "store/fsck.h"
#include "store/store.h"

namespace cm {

// The text or number behind `"key":`, without quotes; empty when it is absent. Enough for the
// flat objects that the cores write; escapes are left as they are.
inline std::string field(std::string_view json, std::string_view key) {
  const std::string mark = "\"" + std::string(key) + "\":";
  const std::size_t at = json.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = json.substr(at + mark.size());
  if (rest.starts_with('"')) return std::string(rest.substr(1, rest.find('"', 1) - 1));
  return std::string(rest.substr(0, rest.find_first_of(",}]")));
}

inline bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

struct Member {
  std::array<std::uint8_t, 32> seed{};
  std::array<std::uint8_t, 64> secret{};
  crypto::PublicKey key{};
  std::string hex;
  std::string id;  // at the broker

  static Member make() {
    Member made;
    randombytes_buf(made.seed.data(), made.seed.size());
    crypto_sign_seed_keypair(made.key.data(), made.secret.data(), made.seed.data());
    made.hex = crypto::view(crypto::hex_text(made.key));
    return made;
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
  explicit CoreParts(store::Role role)
      : log([](void* self,
               std::string_view line) { static_cast<CoreParts*>(self)->logged.append(line); },
            [](void*) { return std::uint64_t{0}; }, this) {
    EXPECT_GE(sodium_init(), 0);
    char path[] = "/tmp/cm-core-XXXXXX";
    CHECK(mkdtemp(path) != nullptr);
    options.directory = path;
    options.role = role;
    options.bound_bytes = 256 << 20;
    options.durability = store::Durability::kRelaxed;
    env.wall_ms = 1'700'000'000'000;
    env.mono_ms = 1'000'000;
    env.rng = crypto::fill_random;
    env.log = &log;
  }
  ~CoreParts() {
    if (store != nullptr && !holds_foreign_rows) expect_sound();
    store.reset();
    std::filesystem::remove_all(options.directory);
  }
  CoreParts(const CoreParts&) = delete;
  CoreParts& operator=(const CoreParts&) = delete;

  void open() {
    store.reset();
    auto opened = store::Store::open(options, scratch);
    CHECK(opened);
    store = std::move(*opened);
    env.batch = &store->batch();
    store->set_commit_fault(
        [](void* context) { return static_cast<CoreParts*>(context)->commit_fails ? ENOSPC : 0; },
        this);
  }
  // Whatever a test did, the tables agree with one another at its end.
  void expect_sound() {
    store->abort();
    const auto sink = [](std::string_view table, std::string_view problem, Bytes key) {
      ADD_FAILURE() << "fsck: " << table << ": " << problem << " ("
                    << ::testing::PrintToString(std::vector<int>(key.begin(), key.end())) << ")";
    };
    store::fsck(store->batch(), options.role, sink);
  }
  void advance(std::uint64_t ms) {
    env.wall_ms += ms;
    env.mono_ms += ms;
  }
  void end_reading() {
    store->abort();
    scratch.reset();
  }
  std::size_t count(store::TableId table) {
    std::size_t rows = 0;
    {
      store::Cursor cursor(store->batch(), table);
      for (bool more = cursor.seek({}); more; more = cursor.next()) ++rows;
    }
    end_reading();
    return rows;
  }
  // Fills the store up to its bound with rows of a table that no test looks at.
  void fill(store::TableId table) {
    holds_foreign_rows = true;
    const std::string body(64 << 10, 'x');
    for (std::uint64_t number = 0; store->batch().admits(); ++number) {
      store::MetaRow row;
      row.text[store::kMetaValue] = body;
      store->batch().put(table, store::Key().add_u64(~number).bytes(), row);
      CHECK(store->commit() == store::CommitResult::kCommitted);
      scratch.reset();
    }
  }

  bool holds_foreign_rows = false;  // a test wrote what no core would; fsck has its own tests
  store::Options options;
  Limits limits;
  ScratchArena scratch{64 * 1024};
  Metrics metrics;
  std::string logged;  // every line
  Log log;
  Env env;
  crypto::SecretSlab slab{256};
  std::unique_ptr<store::Store> store;
  bool commit_fails = false;
};

}  // namespace cm
