// watch.h — sees which (state, event) cells of links and delivery rows an iteration goes through.
// Owns:   DaemonWatch and BrokerWatch, one a process.
// Holds:  the state is read before the core is told of the event: from its store, its tables and
//         nothing else. It reads only; the run is the same without it.
// Not:    judging (oracle.h), which cells there are (cells.h), the outbox's (the product counts).
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "core/broker/broker.h"
#include "core/daemon/daemon.h"
#include "store/store.h"
#include "tests/sim/cells.h"
#include "tests/sim/network.h"

namespace cm::sim {

class DaemonWatch {
 public:
  explicit DaemonWatch(Cells& cells) : cells_(cells) {}

  // Before the core sees it.
  void link_input(const daemon::Daemon& core, const LinkInput& input);
  // Around step().
  void before_step(const daemon::Daemon& core);
  void after_step(const std::vector<daemon::Effect>& effects);
  void before_abandon(const daemon::Daemon& core);

 private:
  Cells& cells_;
  std::unordered_map<std::uint64_t, LinkStateCell> links_;  // by link, before step()
};

class BrokerWatch {
 public:
  explicit BrokerWatch(Cells& cells) : cells_(cells) {}

  void conn_input(const broker::Broker& core, store::Batch& batch, const ConnInput& input);
  void start(store::Batch& batch) { each_row(batch, DeliveryEvent::kStart); }
  void dies(const broker::Broker& core);
  void before_step(const broker::Broker& core);
  // `expired`: rows that step() ended because nobody had taken them.
  void after_step(const broker::Broker& core, store::Batch& batch,
                  const std::vector<broker::Effect>& effects, std::uint64_t expired);
  void before_abandon(const broker::Broker& core);
  void after_abandon(store::Batch& batch) { each_row(batch, DeliveryEvent::kAbandon); }

 private:
  struct Row {
    DeliveryState state = DeliveryState::kNone;
    store::MailboxId box;
  };
  static bool is_multicast(store::Batch& batch, const Ulid& message);
  // Of the one recipient of a direct message.
  Row row_of(const broker::Broker& core, store::Batch& batch, const Ulid& message);
  bool is_claimed(const broker::Broker& core, const Ulid& message) const;
  void each_row(store::Batch& batch, DeliveryEvent event);
  static DeliveryState state_of(store::ReceiptState state) noexcept;

  Cells& cells_;
  std::unordered_map<std::string, broker::ClaimRef> claims_;  // by message, before step()
};

}  // namespace cm::sim
