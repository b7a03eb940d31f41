// cells.h — every (state, event) of an outbox row, a delivery row and a link: what was reached.
// Owns:   the tables of delivery and link cells with their expectations, and Cells, which counts.
// Holds:  the outbox's cells are the product's own: its table says which cannot be, its counters
//         which were reached. What can be must be reached by the nightly run, or its generator
//         has failed; what cannot be and is reached is a failure, too.
// Why:    "all states, all events" is a claim only when somebody counts.
// Source: design/delivery.md, "Outbox: states", "Queue: claim, lease, ack"; docs/OUTBOX.md.
// Not:    seeing them (watch.h), what happens in a cell (core/daemon, core/broker).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/daemon/outbox_state.h"

namespace cm::sim {

enum class DeliveryState : std::uint8_t { kNone, kQueued, kClaimed, kDelivered, kExpired };
enum class DeliveryEvent : std::uint8_t {
  kSend,       // with an id that the broker does not know
  kSendAgain,  // with one that it knows
  kPush,
  kAck,       // client_ack of the recipient
  kWrongAck,  // of another member
  kLeaseEnds,
  kClosed,  // the recipient's connection
  kTooOld,
  kStart,
  kAbandon,
  kCount
};

enum class LinkStateCell : std::uint8_t { kConnecting, kHelloSent, kOpen, kRefused };
enum class LinkEventCell : std::uint8_t {
  kUp,
  kDown,
  kReplaced,  // closed with 4003 or 4004
  kHelloAck,
  kError,
  kPush,
  kAck,
  kPeersList,
  kFeatures,
  kBlocked,
  kWritable,
  kHelloTimeout,
  kReopen,
  kAbandon,
  kCount
};

// States are rows, events are columns. A letter of `map` is explained in `legend`.
struct CellTable {
  std::string_view name;
  std::vector<std::string_view> states;
  std::vector<std::string_view> events;
  std::vector<std::string_view> map;
  std::vector<std::pair<char, std::string_view>> legend;
};

const CellTable& delivery_cells();
const CellTable& link_cells();

class Cells {
 public:
  // What one daemon's process has reached in its life.
  void add(const daemon::CellCounts& counts) noexcept;
  void hit(DeliveryState state, DeliveryEvent event) noexcept { hit(0, state, event); }
  void hit(LinkStateCell state, LinkEventCell event) noexcept { hit(1, state, event); }

  // Prints "cells reached n of m", those that were not, and those that should not have been.
  // `whole`: also the count of each cell. False when a cell failed its expectation.
  bool report(bool whole) const;

 private:
  struct Cell {
    std::string name;
    std::uint64_t count = 0;
    std::string_view cannot_be;  // why; empty: it has to be reached
  };
  static constexpr std::size_t kMost = 16;
  template <class State, class Event>
  void hit(std::size_t table, State state, Event event) noexcept {
    ++counts_[table][static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
  }
  std::vector<Cell> cells_of_outbox() const;
  std::vector<Cell> cells_of(std::size_t at, const CellTable& table) const;
  static bool report_one(std::string_view name, const std::vector<Cell>& cells, bool whole);

  daemon::CellCounts outbox_{};
  std::array<std::array<std::array<std::uint64_t, kMost>, kMost>, 2> counts_{};
};

}  // namespace cm::sim
