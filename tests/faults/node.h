// node.h — a broker's and a daemon's core over real stores, as their shells drive them.
// Owns:   Parts (a process without its core), BrokerNode, DaemonNode, Identity.
// Holds:  starting never CHECKs what a damaged store may say: it answers a Status, as the shells
// do. Not:    the wire between them and who dies when (world.h), virtual time by seeds (tests/sim).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/broker/broker.h"
#include "core/daemon/daemon.h"
#include "store/fsck.h"
#include "store/store.h"

namespace cm::faults {

inline constexpr std::uint64_t kEpochMs = 1'700'000'000'000;

struct Parts {
  Parts();
  Status open(const std::string& directory, store::Role role, store::Durability durability);
  void set_now(std::uint64_t now_ms) noexcept {
    env.wall_ms = kEpochMs + now_ms;
    env.mono_ms = 1'000'000 + now_ms;
  }

  Limits limits;
  ScratchArena scratch{64 * 1024};
  Metrics metrics;
  Log log;
  Env env;
  crypto::SecretSlab slab{4};
  std::unique_ptr<store::Store> store;
};

struct BrokerNode {
  // Opens, loads and commits; verify_all() at the end. The error says which of them failed.
  static Result<std::unique_ptr<BrokerNode>> start(const std::string& directory,
                                                   store::Durability durability,
                                                   std::uint64_t now_ms);
  Parts parts;
  broker::Effects effects;
  std::optional<broker::Broker> core;
};

// Who a daemon is: its config.json.
struct Identity {
  std::string name, mesh_id, member_id, slug, broker_url;
  std::array<std::uint8_t, 32> seed{};
  crypto::PublicKey key{};
  std::string key_hex;
  static Identity make(std::string_view name);
};

struct DaemonNode {
  static Result<std::unique_ptr<DaemonNode>> start(const std::string& directory,
                                                   store::Durability durability,
                                                   std::uint64_t now_ms, const Identity& who);
  Parts parts;
  daemon::Effects effects;
  std::optional<daemon::Daemon> core;
};

// The admin token of every broker here.
std::string_view admin_authority();

// The text or number behind `"key":` of a flat object, without quotes; empty when it is absent.
std::string field(std::string_view json, std::string_view key);

}  // namespace cm::faults
