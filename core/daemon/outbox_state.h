// outbox_state.h — the life of an outbox row: one table of states and events, every cell filled.
// Owns:   OutboxState, OutboxEvent, the table, CellCounts.
// Holds:  every change of a row's state in the product is a look-up here (Daemon::outbox_next()). A
//         cell that says "impossible" is an invariant: reaching it ends the process. Whatever is
//         not impossible is reached by a test, or by the simulator in a long run.
// Why:    what a late answer does to a row that was given up is decided here, not by the order of
//         ifs in four files. docs/OUTBOX.md is this table, printed by its test.
// Source: design/delivery.md, "Outbox: states"; docs/PROTOCOL.md §10.2.
// Not:    what is sent and stored on the way (drain.cc, send.cc, requeue.cc, tombstones.cc).
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "core/base/check.h"
#include "store/schema.h"

namespace cm::daemon {

// kNone: no row has the id. The next five are stored as store::OutboxStatus, in its order.
enum class OutboxState : std::uint8_t {
  kNone,
  kPending,
  kInflight,
  kDone,
  kDead,
  kAborted,
  kTombstone,
  kCount
};

enum class OutboxEvent : std::uint8_t {
  kSendSame,          // POST /v1/send with this id and the same request
  kSendOther,         // with this id and another request, or another mesh
  kDrain,             // its lane is looked at while the connection is open
  kAckStored,         // the broker accepted it
  kAckDuplicate,      // the broker had accepted it before
  kAckMismatch,       // 409: the broker knows the id for another request
  kRefusedTransient,  // rate, queue, disk: try again
  kRefusedPermanent,  // no such target, not allowed, too large
  kConnectionLost,    // of its mesh
  kAckTimeout,        // no answer within 15 s
  kAgeExhausted,      // older than the broker's dedupe window allows
  kRequeue,           // an operator's second attempt under a fresh id
  kDrop,              // an operator lets its bytes go
  kRestart,           // the daemon starts, maybe after a crash
  kMeshLeft,          // config.json no longer names its mesh
  kKeyChanged,        // it was encrypted under another member key
  kBodyCorrupt,       // its stored body does not match its checksum
  kShrink,            // 7 days after its end, or asked for by 'outbox prune'
  kCount
};

constexpr std::size_t kOutboxStates = static_cast<std::size_t>(OutboxState::kCount);
constexpr std::size_t kOutboxEvents = static_cast<std::size_t>(OutboxEvent::kCount);

enum class CellKind : std::uint8_t {
  kEmpty,       // not filled in: does not compile
  kMove,        // the row is in `next` then
  kStay,        // something is done or answered, the state stays
  kRefused,     // who asked is told why not
  kIgnored,     // nothing happens, because of `text`
  kImpossible,  // CHECKed
};

struct OutboxCell {
  CellKind kind = CellKind::kEmpty;
  OutboxState next = OutboxState::kNone;
  std::string_view text;  // the action or the reason, for people
};

using OutboxRules = std::array<std::array<OutboxCell, kOutboxEvents>, kOutboxStates>;
extern const OutboxRules kOutboxRules;

// How often each cell was reached in this process.
using CellCounts = std::array<std::array<std::uint64_t, kOutboxEvents>, kOutboxStates>;

std::string_view text_of(OutboxState state) noexcept;
std::string_view text_of(OutboxEvent event) noexcept;
std::string_view text_of(CellKind kind) noexcept;

inline const OutboxCell& outbox_cell(OutboxState state, OutboxEvent event) noexcept {
  return kOutboxRules[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
}

inline OutboxState outbox_state(store::OutboxStatus status) noexcept {
  CHECK(status < store::OutboxStatus::kCount);
  return static_cast<OutboxState>(static_cast<std::uint8_t>(status) + 1);
}
// Only of a state that a row has.
inline store::OutboxStatus status_of(OutboxState state) noexcept {
  CHECK(state > OutboxState::kNone && state < OutboxState::kTombstone);
  return static_cast<store::OutboxStatus>(static_cast<std::uint8_t>(state) - 1);
}

}  // namespace cm::daemon
