// world.h — a broker and two daemons in one process, over real stores and a wire without faults.
// Owns:   World, Promise, Observer.
// Holds:  an iteration is: events, step, commit, effects, as in the shells. What a client was told
//         is a Promise, reported when its effect leaves, thus after the commit. A node whose store
//         breaks is dead, as its process would be; start() brings it back.
// Why:    the fault tests want the write stream and the failures of real work, in a fixed order.
// Not:    faults of the network and of clocks (tests/sim); what is written where (traffic.h).
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/faults/node.h"

namespace cm::faults {

enum Node : std::size_t { kBroker, kAlice, kBob, kNodes };
inline constexpr const char* kNodeNames[] = {"broker", "alice", "bob"};

// What may not be lost: an id in one of the tables of the node that promised it.
enum class PromiseKind : std::uint8_t {
  kAccepted,  // a daemon answered a send with 2xx: the id is in its outbox
  kStored,    // the broker's ack: there is a dedupe row, and what it stands for
  kReceived,  // a client_ack left: the inbox knows the id
};
struct Promise {
  PromiseKind kind = PromiseKind::kAccepted;
  std::string id;
};

struct Observer {
  std::function<void(Node)> before_commit;
  std::function<void(Node, store::CommitResult)> after_commit;
  std::function<void(Node, const Promise&)> promised;
};

struct Reply {
  std::uint32_t status = 0;  // 0: none came
  std::string text;
};

class World {
 public:
  World(std::string directory, store::Durability durability, Observer observer);
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Starts what is not running; the first time the mesh is founded and joined.
  Status start();
  Status start(Node node);
  // The stores below the directory are those of an earlier world, whose members these are.
  void adopt(const World& earlier);
  bool is_up(Node node) const noexcept;
  void kill(Node node);
  // Iterations until nothing is on its way. False when that does not end.
  bool pump();
  // Lets time pass and pumps.
  bool advance(std::uint64_t ms);
  void partition(Node daemon, bool away);

  // One request of a client on this machine; what the node answered.
  Reply call(Node node, std::string_view method, std::string_view path, std::string_view body = {},
             std::string_view query = {});

  const Identity& who(Node daemon) const { return identities_[daemon]; }
  std::string directory(Node node) const { return directory_ + "/" + kNodeNames[node]; }
  Parts& parts(Node node);
  broker::Broker& broker() { return *broker_->core; }
  daemon::Daemon& daemon(Node node) { return *daemons_[node]->core; }
  std::uint64_t now_ms() const noexcept { return now_ms_; }

 private:
  enum class InputKind : std::uint8_t { kUp, kText, kDown, kCall };
  struct Input {
    InputKind kind = InputKind::kText;
    std::uint32_t code = 0;
    ConnRef conn;
    daemon::LinkRef link;
    std::string text;  // frame, reason, or body
    std::string method, path, query;
  };
  struct Wire {
    Node daemon;
    daemon::LinkRef link;
    ConnRef conn;
    bool open = false;
    std::uint64_t dial_ms = 0;  // not before
  };

  Status found();
  Status enrol(Node daemon, const std::string& token);
  void apply(Node node, const Input& input);
  void iterate(Node node);
  void end_iteration(Node node);
  void execute(const broker::Effect& effect);
  void execute(Node node, const daemon::Effect& effect);
  void note_promises(Node node, std::string_view frame);
  void dial();
  void close(Wire& wire, std::uint32_t code, std::string_view reason, bool by_broker);
  Wire* wire_of(ConnRef conn);
  Wire* wire_of(Node daemon, daemon::LinkRef link);
  bool has_work(Node node) const;

  std::string directory_;
  store::Durability durability_;
  Observer observer_;
  std::unique_ptr<BrokerNode> broker_;
  std::array<std::unique_ptr<DaemonNode>, kNodes> daemons_;
  std::array<Identity, kNodes> identities_;
  std::array<std::deque<Input>, kNodes> inputs_;
  std::array<bool, kNodes> away_{};
  std::vector<Wire> wires_;
  Reply reply_;
  std::uint64_t now_ms_ = 0;
  std::uint32_t next_conn_ = 1;
  bool founded_ = false;
};

}  // namespace cm::faults
