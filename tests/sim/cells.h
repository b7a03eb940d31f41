// cells.h — every (state, event) of an outbox row, a delivery row and a link: what was reached.
// Owns:   the three tables of cells with their expectations, and Cells, which counts.
// Holds:  a '+' must be reached by the nightly run, or its generator has failed; a letter says
//         why the cell cannot be, and reaching it is a failure, too.
// Why:    "all states, all events" is a claim only when somebody counts.
// Source: design/delivery.md, "Outbox: states", "Queue: claim, lease, ack".
// Not:    seeing them (watch.h), what happens in a cell (core/daemon, core/broker).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cm::sim {

enum class OutboxState : std::uint8_t { kNone, kPending, kInflight, kDone, kDead, kAborted };
enum class OutboxEvent : std::uint8_t {
  kSendSame,   // a client asks for this id with the same request
  kSendOther,  // ... with another one
  kRequeue,
  kSent,  // its frame leaves
  kAccepted,
  kDuplicate,
  kTransient,
  kPermanent,  // the broker's 409 included
  kLinkLost,
  kTimeout,  // 15 s without an answer
  kTooOld,
  kStart,
  kAbandon,  // the commit of an iteration fails
  kCount
};

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

const CellTable& outbox_cells();
const CellTable& delivery_cells();
const CellTable& link_cells();

class Cells {
 public:
  void hit(OutboxState state, OutboxEvent event) noexcept { hit(0, state, event); }
  void hit(DeliveryState state, DeliveryEvent event) noexcept { hit(1, state, event); }
  void hit(LinkStateCell state, LinkEventCell event) noexcept { hit(2, state, event); }

  // Prints "cells reached n of m", those that were not, and those that should not have been.
  // `whole`: also the count of each cell. False when a cell failed its expectation.
  bool report(bool whole) const;

 private:
  static constexpr std::size_t kMost = 16;
  template <class State, class Event>
  void hit(std::size_t table, State state, Event event) noexcept {
    ++counts_[table][static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
  }
  std::array<std::array<std::array<std::uint64_t, kMost>, kMost>, 3> counts_{};
};

}  // namespace cm::sim
