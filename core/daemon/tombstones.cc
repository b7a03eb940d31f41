// tombstones.cc — rows that have ended shrink to what keeps their id bound to one request.
// Holds:  the body and the row go, the tombstone and the entry of the id stay for good, in one
//         transaction. A batch is a part of its iteration; if that is abandoned, it is done again.
//         What ended after a request is not shrunk by it.
// Why:    an id names one request for good (promise 2), a message's bytes do not stay for good.
// Source: design/delivery.md, "Outbox: states" (7 days, or on drop); spec/decisions.md, "history
//         and outbox plaintext".
// Limits: Limits::outbox_terminal_days; their own bound is watched in pressure.cc.
// Not:    answers from a tombstone (send.cc), the routes (routes_outbox_row.cc).
#include <algorithm>

#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

constexpr std::size_t kShrinksMax = 8;  // that wait, by request
constexpr std::size_t kRowsABatch = 500;
constexpr std::size_t kLooksABatch = 5'000;
constexpr std::uint64_t kHourMs = 3'600'000;
constexpr std::uint64_t kDayMs = 24 * kHourMs;
constexpr std::uint32_t kAllEnded = 1u << static_cast<unsigned>(OutboxStatus::kDone) |
                                    1u << static_cast<unsigned>(OutboxStatus::kDead) |
                                    1u << static_cast<unsigned>(OutboxStatus::kAborted);

// Rows of before schema 3 do not say when they ended: at their last known instant, at the latest.
std::uint64_t ended_at(const store::OutboxRow& row) noexcept {
  if (row.fixed.ended_ms != 0) return row.fixed.ended_ms;
  return std::max({row.fixed.enqueued_ms, row.fixed.delivered_ms, row.fixed.aborted_ms});
}

}  // namespace

// Reads the row to its end before the first write.
void Daemon::shrink(const Ulid& id, const store::OutboxRow& row, const OutboxCell& cell,
                    bool dropped) {
  CHECK(cell.next == OutboxState::kTombstone && row.fixed.status > OutboxStatus::kInflight);
  const store::Key key = store::ulid_key(id);
  store::TombstoneRow stone;
  stone.fixed.status = row.fixed.status;
  stone.fixed.dropped = dropped ? 1 : 0;
  stone.fixed.enqueued_ms = row.fixed.enqueued_ms;
  stone.fixed.ended_ms = ended_at(row);
  stone.fixed.shrunk_ms = env_.wall_ms;
  stone.fixed.request_fingerprint = row.fixed.request_fingerprint;
  stone.text[store::kTombstoneClientId] = row.text[store::kOutboxClientId];
  stone.text[store::kTombstoneMesh] = row.text[store::kOutboxMesh];
  stone.text[store::kTombstoneBrokerId] = row.text[store::kOutboxBrokerId];
  stone.text[store::kTombstoneReason] = row.text[store::kOutboxLastError];
  stone.text[store::kTombstoneSupersededBy] = row.text[store::kOutboxSupersededBy];
  stone.text[store::kTombstoneSupersedes] = row.text[store::kOutboxSupersedes];
  batch().put(TableId::kTombstone, key.bytes(), stone);
  batch().erase(TableId::kOutbox, key.bytes());
  batch().erase(TableId::kOutboxBody, key.bytes());
  tombstones_changed_ = true;
  metrics_.add(Metric::kDaemonOutboxShrunk);
}

// False: it was answered with 429.
bool Daemon::may_shrink(ConnRef conn) {
  if (tables_.shrinks.size() < kShrinksMax) return true;
  reply_error(conn,
              fail(Err::kBusy, "at most " + std::to_string(kShrinksMax) + " of them may wait"), 1);
  return false;
}

// Whoever asked is gone: what has begun is finished, the rest is dropped.
void Daemon::leave_shrinks(ConnRef conn) {
  std::erase_if(tables_.shrinks, [&](const Shrink& shrink) {
    return shrink.conn == conn && shrink.position.is_zero();
  });
  for (Shrink& shrink : tables_.shrinks) {
    if (shrink.conn == conn) shrink.conn = {};
  }
}

void Daemon::start_shrink(Shrink shrink) {
  {
    store::Cursor outbox(batch(), TableId::kOutbox);
    if (outbox.seek_before({})) (void)store::parse_ulid_key(outbox.key(), shrink.last);
  }
  tables_.shrinks.push_back(shrink);
}

void Daemon::shrink_outbox_due() {
  if (env_.mono_ms < shrink_ms_) return;
  shrink_ms_ = env_.mono_ms + kHourMs;
  const std::uint64_t age = limits_.outbox_terminal_days * kDayMs;
  if (env_.wall_ms <= age) return;
  Shrink shrink;
  shrink.before_ms = env_.wall_ms - age;
  shrink.states = kAllEnded;
  start_shrink(shrink);
}

void Daemon::step_shrink() {
  if (tables_.shrinks.empty()) return;
  Shrink& now = tables_.shrinks.front();
  std::vector<Ulid> ended;
  bool finished = true;
  {
    const store::Key from = store::ulid_key(now.position);
    store::Cursor cursor(batch(), TableId::kOutbox);
    std::size_t looks = 0;
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      if (ended.size() == kRowsABatch || ++looks > kLooksABatch) {
        finished = false;
        break;
      }
      store::OutboxRow row;
      Ulid id;
      if (!store::parse_ulid_key(cursor.key(), id)) continue;
      if (id > now.last) break;
      // Behind this one: a row that is not shrunk, as in a dry run, is not looked at twice.
      if (id == now.position) continue;
      now.position = id;
      if (!cursor.row(row)) continue;
      const OutboxState state = state_of_row(id, row);
      const bool wanted = (now.states >> static_cast<unsigned>(status_of(state)) & 1u) != 0;
      if (state <= OutboxState::kInflight) {
        outbox_next(state, OutboxEvent::kShrink);
      } else if (wanted && ended_at(row) < now.before_ms) {
        ended.push_back(id);
      }
    }
  }
  for (const Ulid& id : ended) {
    store::OutboxRow row;
    if (!outbox_row(id, row)) continue;
    ++now.shrunk;
    now.bytes += row.fixed.payload_bytes;
    if (now.dry_run) continue;
    shrink(id, row, outbox_next(outbox_state(row.fixed.status), OutboxEvent::kShrink), false);
  }
  if (!finished) return;
  if (now.conn) {
    note_answered(now.conn);
    TextBuf text(scratch());
    wire::JsonWriter json(text);
    json.begin_object().field("shrunk", now.shrunk).field("payload_bytes", now.bytes);
    json.field("dry_run", now.dry_run).end_object();
    reply(now.conn, 200, text.view());
  } else if (now.shrunk != 0) {
    env_.log->info("outbox_shrunk", {{"rows", now.shrunk}});
  }
  tables_.shrinks.pop_front();
}

}  // namespace cm::daemon
