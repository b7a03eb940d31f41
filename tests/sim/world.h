// world.h — one seed: a broker, its daemons, the wire between them, and what befalls them.
// Owns:   World. Time moves from one thing that is due to the next; nothing waits for real.
// Holds:  a turn is one iteration of one node. After the last turn the world is healed, and within
//         bounded time every promise has to be kept.
// Not:    what the promises are (oracle.h), how a node works (node.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/legacy_client.h"
#include "tests/sim/liar.h"
#include "tests/sim/node.h"
#include "tests/sim/workload.h"

namespace cm::sim {

struct Verdict {
  std::uint64_t hash = 0;
  std::uint64_t turn = 0;
  std::string problem;  // empty: every promise was kept
};

class World {
 public:
  // `directory` is emptied and used for the stores.
  World(std::uint64_t seed, const Bounds& bounds, std::string_view plant, std::string directory,
        bool verbose, Counters& counters, Cells& cells);
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Verdict run(std::uint64_t turns);
  const Journal& journal() const noexcept { return journal_; }
  const Plan& plan() const noexcept { return plan_; }

 private:
  void set_up();
  // `parent`: of a session.
  void add_client(std::unique_ptr<LegacyClient> client, const Identity* parent);
  void add_sessions();
  // Moves time to what is due next and does it. False when nothing ever is.
  bool advance();
  void run_node(std::uint32_t node);  // 0: the broker
  LegacyClient* client_of(std::uint32_t node) const;
  std::uint32_t nodes() const noexcept { return plan_.daemons + 3 + plan_.sessions; }
  std::uint64_t wake_of(std::uint32_t node) const;
  Fate draw_fate();
  void count_crash(Crash crash);
  void plan_restart(std::uint32_t node);
  void restart_due();
  void strike();
  void jump_wall_clock();
  void pass_a_day();
  void heal();
  void end_who_gave_up();
  // Daemons with one member key never stay together: each drains alone.
  void settle_twins();
  void start(DaemonNode& daemon);
  static Held held_by(void* world, std::uint32_t daemon, std::string_view sender,
                      std::string_view id);
  static bool hash_of_sent(void* world, std::uint32_t daemon, std::string_view id,
                           crypto::Hash32& hash);
  bool quiet() const;
  void settle();
  void restart_all();
  void check_end();

  Rng rng_;
  Plan plan_;
  Counters& counters_;
  Journal journal_;
  Network network_;
  Oracle oracle_;
  Wires wires_;
  std::string directory_;
  BrokerNode broker_;
  std::vector<DaemonNode> daemons_;
  // A legacy member, and sessions.
  std::vector<std::unique_ptr<LegacyClient>> clients_;
  std::unique_ptr<Liar> liar_;
  Workload workload_;
  std::uint64_t now_ms_ = 0;
  std::uint64_t turn_ = 0;
  std::uint64_t act_at_ms_ = 0;
  std::uint64_t strike_at_ms_ = 0;
  std::uint64_t day_passes_at_ms_ = UINT64_MAX;  // at the broker
  bool calm_ = false;
};

}  // namespace cm::sim
