// retention.cc — deleting inbox rows in bounded batches: by request, and by age.
// Holds:  a batch is a part of its iteration's transaction; if that is abandoned, the batch is
//         done again. The dedupe key of a deleted row stays, so a late redelivery is a duplicate.
//         What came after the request is not deleted by it.
// Why:    a mailbox of a hundred thousand rows deleted at once would hold up every message.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §7, "Retention".
// Not:    the outbox: its terminal rows stay as they are.
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::size_t kPurgesMax = 8;  // that wait, by request
constexpr std::size_t kRowsABatch = 500;
constexpr std::size_t kLooksABatch = 5'000;
constexpr std::uint64_t kHourMs = 3'600'000;
constexpr std::uint64_t kDayMs = 24 * kHourMs;

}  // namespace

// False: it was answered with 429.
bool Daemon::may_purge(ConnRef conn) {
  if (tables_.purges.size() < kPurgesMax) return true;
  reply_error(conn,
              fail(Err::kBusy, "at most " + std::to_string(kPurgesMax) + " deletions may wait"), 1);
  return false;
}

// Whoever asked is gone: what has begun is finished, the rest is dropped.
void Daemon::leave_purges(ConnRef conn) {
  std::erase_if(tables_.purges,
                [&](const Purge& purge) { return purge.conn == conn && purge.position.is_zero(); });
  for (Purge& purge : tables_.purges) {
    if (purge.conn == conn) purge.conn = {};
  }
}

void Daemon::start_purge(Purge purge) {
  {
    store::Cursor inbox(batch(), TableId::kInbox);
    if (inbox.seek_before({})) (void)store::parse_ulid_key(inbox.key(), purge.last);
  }
  tables_.purges.push_back(std::move(purge));
}

void Daemon::prune_inbox_due() {
  if (env_.mono_ms < prune_ms_) return;
  prune_ms_ = env_.mono_ms + kHourMs;
  const std::uint64_t age = limits_.inbox_days_max * kDayMs;
  if (env_.wall_ms <= age) return;
  Purge purge;
  purge.before_ms = env_.wall_ms - age;
  purge.in_time_order = true;
  start_purge(std::move(purge));
}

void Daemon::step_purge() {
  if (tables_.purges.empty()) return;
  Purge& purge = tables_.purges.front();
  std::vector<Ulid> doomed;
  bool finished = true;
  {
    const store::Key from = store::ulid_key(purge.position);
    store::Cursor cursor(batch(), TableId::kInbox);
    std::size_t looks = 0;
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      if (doomed.size() == kRowsABatch || ++looks > kLooksABatch) {
        finished = false;
        break;
      }
      store::InboxRow row;
      Ulid id;
      if (!store::parse_ulid_key(cursor.key(), id) || !cursor.row(row)) continue;
      if (id > purge.last) break;
      purge.position = id;
      if (row.fixed.received_ms >= purge.before_ms) {
        if (purge.in_time_order) break;
        continue;
      }
      const bool matches =
          (purge.mesh_id.empty() || row.text[store::kInboxMesh] == purge.mesh_id) &&
          (purge.topic.empty() || row.text[store::kInboxTopic] == purge.topic) &&
          (purge.sender.empty() || row.text[store::kInboxSender] == purge.sender);
      if (matches) doomed.push_back(id);
    }
  }
  for (const Ulid& id : doomed) {
    if (batch().erase(TableId::kInbox, store::ulid_key(id).bytes())) ++purge.removed;
  }
  metrics_.add(Metric::kDaemonInboxPruned, doomed.size());
  if (!finished) return;
  if (purge.conn) {
    note_answered(purge.conn);
    TextBuf text(scratch());
    wire::JsonWriter json(text);
    json.begin_object().field("removed", purge.removed).end_object();
    reply(purge.conn, 200, text.view());
  } else if (purge.removed != 0) {
    env_.log->info("inbox_pruned", {{"rows", purge.removed}});
  }
  tables_.purges.pop_front();
}

}  // namespace cm::daemon
