// node.h — one process of the world: a real core over a real store, driven as its shell does.
// Owns:   Clock, Fate, Parts (what both roles have), BrokerNode, DaemonNode.
// Holds:  an iteration is: clocks, events, step, commit, effects, as in cli/run_broker.cc and
//         cli/run_daemon.cc. A process may die before the commit, behind it, amid its effects or
//         after them; its store is then opened again by the next process.
// Not:    when it runs and dies (world.h), what clients ask (workload.h).
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/env.h"
#include "core/base/metrics.h"
#include "core/broker/broker.h"
#include "core/daemon/daemon.h"
#include "store/store.h"
#include "tests/sim/network.h"
#include "tests/sim/oracle.h"
#include "tests/sim/watch.h"

namespace cm::sim {

// A machine's clocks over the world's time. The wall clock may jump, the other never does.
struct Clock {
  static constexpr std::uint64_t kEpochMs = 1'700'000'000'000;
  std::uint64_t mono_base_ms = 0;
  std::int64_t wall_offset_ms = 0;
  std::uint64_t mono(std::uint64_t now_ms) const noexcept { return mono_base_ms + now_ms; }
  std::uint64_t wall(std::uint64_t now_ms) const noexcept {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(kEpochMs + now_ms) +
                                      wall_offset_ms);
  }
};

enum class Crash : std::uint8_t {
  kNone,
  kBeforeCommit,
  kBeforeEffects,
  kAmidEffects,
  kAfterEffects
};

// What happens to one iteration.
struct Fate {
  Crash crash = Crash::kNone;
  bool commit_fails = false;
  std::size_t frames = SIZE_MAX;   // taken from each connection
  std::uint32_t effects_kept = 0;  // per mille, of kAmidEffects
  std::uint64_t commit_ms = 0;     // that the commit takes
};

// What the nodes share.
struct Wires {
  const Plan& plan;
  Rng& rng;
  Journal& journal;
  Counters& counters;
  Network& network;
  Oracle& oracle;
  Cells& cells;
};

// The parts of a process that both roles have. Dies with it.
class Parts {
 public:
  // `bound_bytes`: of the store; 0 for one that is large enough.
  Parts(std::string_view name, Journal& journal, const Plan& plan, store::Role role,
        const std::string& directory, std::uint64_t bound_bytes);
  // The next commit that writes fails with ENOSPC.
  void fail_next_commit(bool fails) noexcept { commit_fails_ = fails; }
  void set_now(const Clock& clock, std::uint64_t now_ms) noexcept {
    env.wall_ms = clock.wall(now_ms);
    env.mono_ms = clock.mono(now_ms);
  }

  Limits limits;
  ScratchArena scratch{64 * 1024};
  Metrics metrics;
  std::string name;
  Journal& journal;
  Log log;
  Env env;
  crypto::SecretSlab slab{4};
  std::unique_ptr<store::Store> store;

 private:
  bool commit_fails_ = false;
};

// Counts iterations that were due, had no input, and are due again at once: a core that spins.
class SpinGuard {
 public:
  bool spins(bool had_input, bool due_again, bool work_left) noexcept {
    idle_ = !had_input && due_again && !work_left ? idle_ + 1 : 0;
    return idle_ > 20;
  }

 private:
  std::uint32_t idle_ = 0;
};

class BrokerNode {
 public:
  BrokerNode(Wires& wires, std::string directory)
      : wires_(wires), directory_(std::move(directory)) {}

  bool up() const noexcept { return process_ != nullptr; }
  void start(std::uint64_t now_ms);
  void iterate(std::uint64_t now_ms, const Fate& fate);
  void die(std::uint64_t now_ms);
  // The world's time at which it has something to do; due_ms(): without what arrives.
  std::uint64_t wake_ms() const;
  std::uint64_t due_ms() const;
  bool queues_empty() const;
  const broker::Broker& core() const noexcept { return process_->core; }

  // Set-up only: one request outside the network. The body of a 200, or nothing.
  std::optional<std::string> call(std::uint64_t now_ms, std::string_view method,
                                  std::string_view path, std::string_view body,
                                  std::string_view token);
  store::Batch& batch() { return process_->parts.store->batch(); }
  void end_reading() { process_->parts.store->abort(); }
  void check_store();

  Clock clock;
  std::uint64_t store_bytes = 0;  // admission bound of the next process; 0: large
  std::uint64_t stalled_until_ms = 0;
  std::uint64_t restart_at_ms = UINT64_MAX;

 private:
  struct Process {
    Process(Wires& wires, const std::string& directory, const Clock& clock, std::uint64_t now_ms,
            std::uint64_t store_bytes);
    Parts parts;
    BrokerWatch watch;
    broker::Effects effects;
    broker::Broker core;
    std::vector<ConnInput> inputs;  // of the last collection; those from `applied` on wait
    std::size_t applied = 0;
  };
  void apply(ConnInput& input);
  void execute(const broker::Effect& effect, std::uint64_t now_ms);

  Wires& wires_;
  std::string directory_;
  std::unique_ptr<Process> process_;
  SpinGuard spin_;
  std::uint64_t now_ms_ = 0;
  std::optional<std::string> reply_;
};

// A call of a client that waits to be taken by the daemon.
struct Call {
  std::uint64_t due_ms = 0;
  ConnRef conn;
  Ask ask;
  bool leaves = false;  // not a call: the client closes its connection
  std::string method, path, query, body, idempotency_key;
};

// Who a daemon is: its config.json.
struct Identity {
  std::uint32_t number = 0;
  std::string mesh_id, member_id, slug, name, broker_url;
  std::array<std::uint8_t, 32> seed{};
  crypto::PublicKey key{};
  std::string key_hex;
  store::ReportLevel report_level = store::ReportLevel::kHanded;
};

class DaemonNode {
 public:
  DaemonNode(Wires& wires, std::string directory, Identity who)
      : wires_(wires), directory_(std::move(directory)), who_(std::move(who)) {}

  bool up() const noexcept { return process_ != nullptr; }
  void start(std::uint64_t now_ms);
  void iterate(std::uint64_t now_ms, const Fate& fate);
  void die(std::uint64_t now_ms);
  std::uint64_t wake_ms() const;
  std::uint64_t due_ms() const;
  bool outbox_empty() const;
  // Something was seen, and the broker has not said that it knows.
  bool has_seen_to_report() const { return up() && process_->core.tables().seen.rows != 0; }
  const daemon::Daemon& core() const noexcept { return process_->core; }
  // The broker refused its only mesh for good: a process would end now.
  bool gave_up() const { return up() && !process_->core.gave_up().empty(); }

  // Queues a call; its connection. Only while it is up.
  ConnRef submit(std::uint64_t now_ms, Call call);
  void leave(std::uint64_t now_ms, ConnRef conn);
  const Identity& who() const noexcept { return who_; }
  store::Batch& batch() { return process_->parts.store->batch(); }
  void end_reading() { process_->parts.store->abort(); }
  void check_store();

  Clock clock;
  std::uint64_t store_bytes = 0;  // admission bound of the next process; 0: large
  std::uint64_t stalled_until_ms = 0;
  std::uint64_t restart_at_ms = UINT64_MAX;

 private:
  struct Process {
    Process(Wires& wires, const std::string& directory, const Clock& clock, std::uint64_t now_ms,
            const Identity& who, std::uint32_t pid, std::uint64_t store_bytes);
    ~Process();  // counts what it has reached
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    Parts parts;
    Cells& cells;
    DaemonWatch watch;
    daemon::Effects effects;
    daemon::Daemon core;
  };
  void apply(const LinkInput& input);
  void apply(const Call& call);
  void execute(const daemon::Effect& effect, std::uint64_t now_ms, bool abandoned);

  Wires& wires_;
  std::string directory_;
  Identity who_;
  std::unique_ptr<Process> process_;
  std::deque<Call> calls_;
  SpinGuard spin_;
  std::uint64_t now_ms_ = 0;
  std::uint32_t pid_ = 100;
  std::uint32_t next_conn_ = 0;
};

}  // namespace cm::sim
