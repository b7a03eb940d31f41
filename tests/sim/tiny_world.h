// tiny_world.h — two daemons, one broker, three messages, one crash: every step is a choice.
// Owns:   Choice and TinyWorld, which lists the choices of its state, takes one, and says what
//         state it is in then.
// Holds:  the real cores over real stores, as in world.h, on a wire that only moves when told to.
//         Messages m0 and m1 share a lane (d0 to d1), m2 goes the other way. A client whose answer
//         was lost asks once more.
// Limits: what is not explored: time passes only when nothing else can happen, by one deadline, so
//         no deadline overtakes a frame or a restart; effects of a crash amid them are all, none
//         or the first half; the two daemons are connected when it begins.
// Not:    the search (small_world.cc).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/node.h"

namespace cm::sim {

struct Choice {
  enum class Kind : std::uint8_t {
    kSubmit,   // message `what`
    kDeliver,  // the next item of connection `what`, to the broker if `up`
    kLose,     // the rest of what a lost connection had on its way
    kDial,     // daemon `what` connects
    kRestart,  // node `what`: 0 the broker
    kStep,     // node `what`: a deadline or work left over
    kTime,     // to the next deadline of anybody
  };
  Kind kind = Kind::kTime;
  std::uint8_t what = 0;
  bool up = false;
  Crash crash = Crash::kNone;  // of the node that acts
};

std::string text_of(const Choice& choice);

struct StateHash {
  std::uint64_t low = 0, high = 0;
  friend bool operator==(const StateHash&, const StateHash&) = default;
};

class TinyWorld {
 public:
  static constexpr std::uint32_t kDaemons = 2;
  static constexpr std::uint32_t kMessages = 3;

  struct Size {
    std::uint32_t messages = kMessages;  // the first so many
    bool may_crash = true;
  };

  // `directory` is emptied and used for the stores.
  TinyWorld(const std::string& directory, const Size& size, bool verbose);
  TinyWorld(const TinyWorld&) = delete;
  TinyWorld& operator=(const TinyWorld&) = delete;

  std::vector<Choice> choices();
  void take(const Choice& choice);
  // All messages were asked for, everything has arrived and nobody waits.
  bool is_quiet();
  StateHash state();
  // Empty, or the promise that was broken. At a quiet end the stores are judged, too.
  std::string problem();
  void judge_end();
  std::size_t crashes() const noexcept { return crashed_ ? 1 : 0; }

 private:
  bool up(std::uint32_t node) const;
  std::uint64_t due(std::uint32_t node) const;
  void iterate(std::uint32_t node, Crash crash);
  void submit(std::uint32_t message);
  bool may_submit(std::uint32_t message) const;
  void describe(std::string& out);
  void describe_daemon(std::uint32_t number, std::string& out);
  void describe_broker(std::string& out);
  void describe_wires(std::string& out);
  std::string short_form(std::string_view frame, std::uint32_t daemon);
  std::string short_key(std::string_view hex) const;

  Size size_;
  Rng rng_{1};
  Plan plan_;
  Counters counters_;
  Cells cells_;
  Journal journal_;
  Network network_;
  Oracle oracle_;
  Wires wires_;
  std::string directory_;
  BrokerNode broker_;
  std::vector<DaemonNode> daemons_;
  std::array<std::uint8_t, kMessages> asked_{};  // times
  std::uint64_t now_ms_ = 1'000;
  bool crashed_ = false;
  bool beginning_ = true;
};

}  // namespace cm::sim
