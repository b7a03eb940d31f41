// outbox_state.cc — the table itself: a row for each state, a column for each event.
// Holds:  the compiler refuses an empty cell, a move that leads nowhere, and a state that changes
//         without a move.
#include "core/daemon/outbox_state.h"

namespace cm::daemon {
namespace {

using State = OutboxState;

constexpr OutboxCell move(State next, std::string_view text) {
  return {CellKind::kMove, next, text};
}
constexpr OutboxCell stay(State state, std::string_view text) {
  return {CellKind::kStay, state, text};
}
constexpr OutboxCell refused(State state, std::string_view text) {
  return {CellKind::kRefused, state, text};
}
constexpr OutboxCell ignored(State state, std::string_view because) {
  return {CellKind::kIgnored, state, because};
}
constexpr OutboxCell impossible(State state, std::string_view because) {
  return {CellKind::kImpossible, state, because};
}

constexpr std::string_view kUnknown = "no row here has this id";
constexpr std::string_view kNoRow = "there is no row";
constexpr std::string_view kEnded = "it has ended: a late or a second answer";
constexpr std::string_view kNoLane = "what has ended is in no lane";
constexpr std::string_view kBeforeSending = "this is looked at before it is sent";
constexpr std::string_view kOpen = "409 outbox_row_open: requeue it, or wait for its end";
constexpr std::string_view kNotEnded = "it has not ended";
constexpr std::string_view kOnlyId = "only its id is left";

constexpr OutboxRules make_rules() {
  OutboxRules rules{};
  const auto row = [&](State state, const OutboxCell(&cells)[kOutboxEvents]) {
    for (std::size_t event = 0; event < kOutboxEvents; ++event) {
      rules[static_cast<std::size_t>(state)][event] = cells[event];
    }
  };
  constexpr State kNone = State::kNone, kPending = State::kPending, kInflight = State::kInflight,
                  kDone = State::kDone, kDead = State::kDead, kAborted = State::kAborted,
                  kTombstone = State::kTombstone;
  row(kNone, {
                 /* send_same          */ move(kPending, "inserted; 202 queued"),
                 /* send_other         */ impossible(kNone, "there is nothing to differ from"),
                 /* drain              */ impossible(kNone, kNoRow),
                 /* ack_stored         */ ignored(kNone, kUnknown),
                 /* ack_duplicate      */ ignored(kNone, kUnknown),
                 /* ack_mismatch       */ ignored(kNone, kUnknown),
                 /* refused_transient  */ ignored(kNone, kUnknown),
                 /* refused_permanent  */ ignored(kNone, kUnknown),
                 /* connection_lost    */ impossible(kNone, kNoRow),
                 /* ack_timeout        */ impossible(kNone, kNoRow),
                 /* age_exhausted      */ impossible(kNone, kNoRow),
                 /* requeue            */ move(kPending, "the second attempt, under a fresh id"),
                 /* drop               */ refused(kNone, "404 not_found"),
                 /* restart            */ impossible(kNone, kNoRow),
                 /* mesh_left          */ impossible(kNone, kNoRow),
                 /* key_changed        */ impossible(kNone, kNoRow),
                 /* body_corrupt       */ impossible(kNone, kNoRow),
                 /* shrink             */ impossible(kNone, kNoRow),
             });
  row(kPending,
      {
          /* send_same          */ stay(kPending, "202 queued"),
          /* send_other         */ refused(kPending, "409 outbox_pending_fingerprint_mismatch"),
          /* drain              */ move(kInflight, "attempts + 1; the frame follows the commit"),
          /* ack_stored         */ move(kDone, "an answer to an attempt before: it is stored"),
          /* ack_duplicate      */ move(kDone, "an answer to an attempt before: it is stored"),
          /* ack_mismatch       */ move(kDead, "an answer to an attempt before: its reason"),
          /* refused_transient  */ stay(kPending, "an answer to an attempt before: backoff"),
          /* refused_permanent  */ move(kDead, "its reason; also: larger than the broker takes"),
          /* connection_lost    */ ignored(kPending, "it was not on its way"),
          /* ack_timeout        */ impossible(kPending, "it waits for no answer"),
          /* age_exhausted      */ move(kDead, "max_age_exceeded"),
          /* requeue            */ move(kAborted, "when, by whom, superseded_by"),
          /* drop               */ refused(kPending, kOpen),
          /* restart            */ stay(kPending, "in its lane again"),
          /* mesh_left          */ move(kDead, "mesh_left"),
          /* key_changed        */ move(kDead, "member_key_changed"),
          /* body_corrupt       */ move(kDead, "corrupt"),
          /* shrink             */ ignored(kPending, kNotEnded),
      });
  row(kInflight,
      {
          /* send_same          */ stay(kInflight, "202 inflight"),
          /* send_other         */ refused(kInflight, "409 outbox_inflight_fingerprint_mismatch"),
          /* drain              */ ignored(kInflight, "a lane has one message in flight"),
          /* ack_stored         */ move(kDone, "with the broker's id"),
          /* ack_duplicate      */ move(kDone, "with the broker's id; a warning if it was pruned"),
          /* ack_mismatch       */ move(kDead, "its reason"),
          /* refused_transient  */ move(kPending, "backoff, 0.5 s doubling to 30 s, with jitter"),
          /* refused_permanent  */ move(kDead, "its reason"),
          /* connection_lost    */ move(kPending, "sent again with the next connection"),
          /* ack_timeout        */ move(kPending, "backoff"),
          /* age_exhausted      */ ignored(kInflight, "its answer or its timeout comes first"),
          /* requeue            */ move(kAborted, "when, by whom, superseded_by; may arrive twice"),
          /* drop               */ refused(kInflight, kOpen),
          /* restart            */ move(kPending, "attempts + 1: nobody knows what the broker got"),
          /* mesh_left          */ impossible(kInflight, "its connection is lost first"),
          /* key_changed        */ impossible(kInflight, kBeforeSending),
          /* body_corrupt       */ impossible(kInflight, kBeforeSending),
          /* shrink             */ ignored(kInflight, kNotEnded),
      });
  row(kDone, {
                 /* send_same          */ stay(kDone, "200 duplicate, with the broker's id"),
                 /* send_other         */ refused(kDone, "409 outbox_done_fingerprint_mismatch"),
                 /* drain              */ impossible(kDone, kNoLane),
                 /* ack_stored         */ ignored(kDone, kEnded),
                 /* ack_duplicate      */ ignored(kDone, kEnded),
                 /* ack_mismatch       */ ignored(kDone, kEnded),
                 /* refused_transient  */ ignored(kDone, kEnded),
                 /* refused_permanent  */ ignored(kDone, kEnded),
                 /* connection_lost    */ impossible(kDone, kNoLane),
                 /* ack_timeout        */ impossible(kDone, kNoLane),
                 /* age_exhausted      */ impossible(kDone, kNoLane),
                 /* requeue            */ refused(kDone, "409: the broker has it"),
                 /* drop               */ move(kTombstone, "its body is erased, its id stays"),
                 /* restart            */ ignored(kDone, "it needs no lane"),
                 /* mesh_left          */ impossible(kDone, kNoLane),
                 /* key_changed        */ impossible(kDone, kNoLane),
                 /* body_corrupt       */ impossible(kDone, kNoLane),
                 /* shrink             */ move(kTombstone, "its body is erased, its id stays"),
             });
  row(kDead,
      {
          /* send_same          */ refused(kDead, "409 outbox_dead_fingerprint_match, reason"),
          /* send_other         */ refused(kDead, "409 outbox_dead_fingerprint_mismatch"),
          /* drain              */ impossible(kDead, kNoLane),
          /* ack_stored         */ ignored(kDead, kEnded),
          /* ack_duplicate      */ ignored(kDead, kEnded),
          /* ack_mismatch       */ ignored(kDead, kEnded),
          /* refused_transient  */ ignored(kDead, kEnded),
          /* refused_permanent  */ ignored(kDead, kEnded),
          /* connection_lost    */ impossible(kDead, kNoLane),
          /* ack_timeout        */ impossible(kDead, kNoLane),
          /* age_exhausted      */ impossible(kDead, kNoLane),
          /* requeue            */ move(kAborted, "when, by whom, superseded_by"),
          /* drop               */ move(kTombstone, "its body is erased, its id stays"),
          /* restart            */ ignored(kDead, "it needs no lane"),
          /* mesh_left          */ impossible(kDead, kNoLane),
          /* key_changed        */ impossible(kDead, kNoLane),
          /* body_corrupt       */ impossible(kDead, kNoLane),
          /* shrink             */ move(kTombstone, "its body is erased, its id stays"),
      });
  row(kAborted,
      {
          /* send_same          */ refused(kAborted, "409 outbox_aborted_fingerprint_match"),
          /* send_other         */ refused(kAborted, "409 outbox_aborted_fingerprint_mismatch"),
          /* drain              */ impossible(kAborted, kNoLane),
          /* ack_stored         */ ignored(kAborted, kEnded),
          /* ack_duplicate      */ ignored(kAborted, kEnded),
          /* ack_mismatch       */ ignored(kAborted, kEnded),
          /* refused_transient  */ ignored(kAborted, kEnded),
          /* refused_permanent  */ ignored(kAborted, kEnded),
          /* connection_lost    */ impossible(kAborted, kNoLane),
          /* ack_timeout        */ impossible(kAborted, kNoLane),
          /* age_exhausted      */ impossible(kAborted, kNoLane),
          /* requeue            */ refused(kAborted, "409: it was superseded once"),
          /* drop               */ move(kTombstone, "its body is erased, its id stays"),
          /* restart            */ ignored(kAborted, "it needs no lane"),
          /* mesh_left          */ impossible(kAborted, kNoLane),
          /* key_changed        */ impossible(kAborted, kNoLane),
          /* body_corrupt       */ impossible(kAborted, kNoLane),
          /* shrink             */ move(kTombstone, "its body is erased, its id stays"),
      });
  row(kTombstone,
      {
          /* send_same          */ stay(kTombstone, "as the state in which it ended"),
          /* send_other         */ stay(kTombstone, "as the state in which it ended"),
          /* drain              */ impossible(kTombstone, kNoLane),
          /* ack_stored         */ ignored(kTombstone, kEnded),
          /* ack_duplicate      */ ignored(kTombstone, kEnded),
          /* ack_mismatch       */ ignored(kTombstone, kEnded),
          /* refused_transient  */ ignored(kTombstone, kEnded),
          /* refused_permanent  */ ignored(kTombstone, kEnded),
          /* connection_lost    */ impossible(kTombstone, kNoLane),
          /* ack_timeout        */ impossible(kTombstone, kNoLane),
          /* age_exhausted      */ impossible(kTombstone, kNoLane),
          /* requeue            */ refused(kTombstone, "409: its bytes are gone"),
          /* drop               */ ignored(kTombstone, "it was dropped, or has shrunk, before"),
          /* restart            */ impossible(kTombstone, "tombstones are not walked"),
          /* mesh_left          */ impossible(kTombstone, kNoLane),
          /* key_changed        */ impossible(kTombstone, kNoLane),
          /* body_corrupt       */ impossible(kTombstone, kOnlyId),
          /* shrink             */ impossible(kTombstone, "tombstones are not walked"),
      });
  return rules;
}

constexpr OutboxRules kRules = make_rules();

constexpr bool every_cell_is_filled() {
  for (std::size_t state = 0; state < kOutboxStates; ++state) {
    for (const OutboxCell& cell : kRules[state]) {
      const bool moves = static_cast<std::size_t>(cell.next) != state;
      if (cell.kind == CellKind::kEmpty || cell.text.empty() || cell.next >= State::kCount ||
          moves != (cell.kind == CellKind::kMove)) {
        return false;
      }
    }
  }
  return true;
}
static_assert(every_cell_is_filled());
static_assert(static_cast<int>(State::kPending) ==
              static_cast<int>(store::OutboxStatus::kPending) + 1);
static_assert(static_cast<int>(State::kAborted) ==
              static_cast<int>(store::OutboxStatus::kAborted) + 1);

constexpr std::string_view kStateTexts[] = {"none", "pending", "inflight", "done",
                                            "dead", "aborted", "tombstone"};
constexpr std::string_view kEventTexts[] = {"send_same",
                                            "send_other",
                                            "drain",
                                            "ack_stored",
                                            "ack_duplicate",
                                            "ack_mismatch",
                                            "refused_transient",
                                            "refused_permanent",
                                            "connection_lost",
                                            "ack_timeout",
                                            "age_exhausted",
                                            "requeue",
                                            "drop",
                                            "restart",
                                            "mesh_left",
                                            "key_changed",
                                            "body_corrupt",
                                            "shrink"};
constexpr std::string_view kKindTexts[] = {"empty",   "move",    "stay",
                                           "refused", "ignored", "impossible"};
static_assert(std::size(kStateTexts) == kOutboxStates && std::size(kEventTexts) == kOutboxEvents);

}  // namespace

const OutboxRules kOutboxRules = kRules;

std::string_view text_of(OutboxState state) noexcept {
  CHECK(state < OutboxState::kCount);
  return kStateTexts[static_cast<std::size_t>(state)];
}

std::string_view text_of(OutboxEvent event) noexcept {
  CHECK(event < OutboxEvent::kCount);
  return kEventTexts[static_cast<std::size_t>(event)];
}

std::string_view text_of(CellKind kind) noexcept {
  return kKindTexts[static_cast<std::size_t>(kind)];
}

}  // namespace cm::daemon
