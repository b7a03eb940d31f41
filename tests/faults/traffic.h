// traffic.h — the work that the fault tests disturb: sends, retries, deletions, what a mesh shares.
// Owns:   Traffic: one seeded request after another against a World, and what was asked of it.
// Holds:  the same seed asks the same in the same order. A request to a node that is down is not
//         made; one that failed is made again by finish(), with its id.
// Not:    what became of it (oracle.h).
#pragma once

#include <string>
#include <vector>

#include "tests/faults/world.h"
#include "tests/sim/random.h"

namespace cm::faults {

struct Sent {
  Node from = kAlice;
  Node to = kBob;
  std::string id, body, priority;
  bool accepted = false;
};

class Traffic {
 public:
  // Ids are numbered from `first`: those of an earlier run over the same stores are taken.
  Traffic(World& world, std::uint64_t seed, std::uint32_t first = 0)
      : world_(world), rng_(seed), first_(first) {}

  // A topic, a group, state, a memory, a profile: each table of the broker gets rows.
  void furnish();
  void send();
  void step();
  // Heals the wire, repeats what was not accepted, and lets everything arrive. False if it does
  // not.
  bool finish();
  // The first message of this node that has ended gives way to its tombstone. False: there is none.
  bool drop_one(Node node);
  const std::vector<Sent>& sent() const noexcept { return sent_; }

 private:
  void ask(Sent& sent);
  void erase_some();
  void share();
  void restart_one();

  World& world_;
  sim::Rng rng_;
  std::uint32_t first_;
  std::vector<Sent> sent_;
  std::uint32_t steps_away_ = 0;  // for which bob stays away
};

}  // namespace cm::faults
