// drain.cc — from a pending outbox row to done or dead, lane by lane.
// Holds:  a lane is (mesh, sender key, target, priority), in enqueue order, one row in flight; a
//         row changes its state as outbox_state.h says, through outbox_next() alone. A transient
//         refusal stops that lane only. inflight is written before the frame leaves; a row leaves
//         it only by an ack, a lost connection, a timeout or start-up recovery.
// Source: docs/PROTOCOL.md §4, §4.1; design/delivery.md, promises 3 and 6, "Outbox: states".
// Not:    encryption: it happened at accept, draining only forwards.
#include <algorithm>

#include "core/base/reached.h"
#include "core/crypto/encoding.h"
#include "core/daemon/daemon.h"

namespace cm::daemon {
namespace {

using store::OutboxRow;
using store::OutboxStatus;
using store::TableId;

constexpr std::uint64_t kAckTimeoutMs = 15'000;
constexpr std::uint64_t kBackoffFirstMs = 500;
constexpr std::uint64_t kBackoffMostMs = 30'000;
constexpr std::uint64_t kHourMs = 3'600'000;
constexpr std::size_t kSendsAStep = 1'024;
constexpr std::uint32_t kEnvelopeFrame = 1;
constexpr std::size_t kErrorKept = 256;
constexpr std::size_t kAroundCiphertext = 1'024;  // of a frame, at most

bool contains_ignoring_case(std::string_view text, std::string_view lower) noexcept {
  const auto same = [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
  };
  return std::search(text.begin(), text.end(), lower.begin(), lower.end(), same) != text.end();
}

constexpr std::string_view kMismatchCode = "idempotency_key_reused";

// By code where there is one; for brokers that send only text by the union of the reference's
// patterns and the texts of spec/wire.md §5.1 (spec/decisions.md, "error classification").
bool is_permanent(const wire::Ack& ack) noexcept {
  constexpr std::string_view kTransientCodes[] = {
      "rate_limit", "queue_full", "insufficient_storage", "store_failed", "lane_stalled",
      "capacity",   "timeout",    "unavailable",          "full",         "internal"};
  constexpr std::string_view kPermanentTexts[] = {"payload_too_large",
                                                  "payload too large",
                                                  "forbidden",
                                                  "not_found",
                                                  "invalid",
                                                  "schema",
                                                  "auth",
                                                  "signature",
                                                  "not_authorized",
                                                  "unknown",
                                                  "target_not_found",
                                                  "blocked by recipient"};
  if (!ack.code.empty()) {
    return std::find(std::begin(kTransientCodes), std::end(kTransientCodes), ack.code) ==
           std::end(kTransientCodes);
  }
  for (const std::string_view text : kPermanentTexts) {
    if (contains_ignoring_case(ack.error, text)) return true;
  }
  return false;
}

OutboxEvent event_of(const wire::Ack& ack) noexcept {
  if (ack.queued && ack.error.empty()) {
    return ack.duplicate ? OutboxEvent::kAckDuplicate : OutboxEvent::kAckStored;
  }
  if (!is_permanent(ack)) return OutboxEvent::kRefusedTransient;
  return ack.code == kMismatchCode ? OutboxEvent::kAckMismatch : OutboxEvent::kRefusedPermanent;
}

}  // namespace

const OutboxCell& Daemon::outbox_next(OutboxState state, OutboxEvent event) {
  const OutboxCell& cell = outbox_cell(state, event);
  ++outbox_cells_[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
#ifdef CM_COVERAGE
  static Reached<kOutboxStates * kOutboxEvents> cells;
  cells.note(static_cast<std::size_t>(state) * kOutboxEvents + static_cast<std::size_t>(event),
             "outbox", text_of(state), text_of(event));
#endif
  CHECK(cell.kind != CellKind::kImpossible);
  return cell;
}

OutboxState Daemon::state_of_row(const Ulid& id, const OutboxRow& row) const {
  const auto work = tables_.work_of.find(id);
  return work == tables_.work_of.end() ? outbox_state(row.fixed.status)
                                       : state_of_work(work->second);
}

bool Daemon::outbox_row(const Ulid& id, OutboxRow& row) {
  return batch().get(TableId::kOutbox, store::ulid_key(id).bytes(), row);
}

LaneRef Daemon::lane(MeshRef mesh, std::string_view target, store::Priority priority,
                     const OutboxRow& row) {
  std::string name(row.text[store::kOutboxMesh]);
  name += '|';
  if (row.fixed.has_session != 0) name += as_text(row.fixed.sender_session);
  name += '|';
  name += target;
  name += static_cast<char>('0' + static_cast<int>(priority));
  const auto found = tables_.lane_of.find(name);
  if (found != tables_.lane_of.end()) return found->second;
  const LaneRef made = tables_.lanes.insert();
  if (!made) return made;
  tables_.lanes.get<kLaneMesh>(made) = mesh;
  tables_.lanes.get<kLaneName>(made) = name;
  tables_.lane_of[name] = made;
  return made;
}

// False when a table is full; nothing was changed then.
bool Daemon::add_work(const Ulid& id, const OutboxRow& row) {
  const MeshRef mesh = mesh_by_id(row.text[store::kOutboxMesh]);
  const WorkRef work = tables_.work.insert();
  if (!work) return false;
  const LaneRef where = lane(mesh, row.text[store::kOutboxTarget], row.fixed.priority, row);
  if (!where) {
    tables_.work.erase(work);
    return false;
  }
  tables_.work.get<kWorkId>(work) = id;
  tables_.work.get<kWorkLane>(work) = where;
  tables_.work.get<kWorkEnqueued>(work) = row.fixed.enqueued_ms;
  tables_.work_of[id] = work;
  const WorkRef last = tables_.lanes.get<kLaneLast>(where);
  if (last) {
    tables_.work.get<kWorkNext>(last) = work;
  } else {
    tables_.lanes.get<kLaneFirst>(where) = work;
  }
  tables_.lanes.get<kLaneLast>(where) = work;
  age_check_ms_ = std::min(age_check_ms_, row.fixed.enqueued_ms + age_hours(mesh) * kHourMs);
  mark_ready(where);
  return true;
}

void Daemon::mark_ready(LaneRef where) {
  auto& ready = tables_.lanes.get<kLaneReady>(where);
  if (ready != 0) return;
  ready = 1;
  tables_.ready.push_back(where);
}

void Daemon::drain_ready() {
  std::size_t done = 0;
  for (std::size_t sent = 0; done < tables_.ready.size() && sent < kSendsAStep; ++done) {
    const LaneRef where = tables_.ready[done];
    if (!tables_.lanes.alive(where)) continue;
    tables_.lanes.get<kLaneReady>(where) = 0;
    if (send_first(where)) ++sent;
  }
  tables_.ready.erase(tables_.ready.begin(),
                      tables_.ready.begin() + static_cast<std::ptrdiff_t>(done));
}

// Sends the lane's oldest row if nothing holds it back. What does holds until an event marks the
// lane ready again: its ack, its due time, the link's opening or its becoming writable.
bool Daemon::send_first(LaneRef where) {
  const MeshRef mesh = tables_.lanes.get<kLaneMesh>(where);
  if (!mesh) return false;  // rows of a mesh that was left: they wait, and age
  const LinkRef link = tables_.meshes.get<kMeshLink>(mesh);
  const WorkRef work = tables_.lanes.get<kLaneFirst>(where);
  CHECK(work);
  if (tables_.links.get<kLinkState>(link) != LinkState::kOpen ||
      tables_.links.get<kLinkBlocked>(link) != 0) {
    return false;
  }
  const OutboxState state = state_of_work(work);
  if (state == OutboxState::kInflight) {
    outbox_next(state, OutboxEvent::kDrain);
    return false;
  }
  if (tables_.lanes.get<kLaneDue>(where) > env_.mono_ms) {
    lane_check_ms_ = std::min(lane_check_ms_, tables_.lanes.get<kLaneDue>(where));
    return false;
  }
  const Ulid id = tables_.work.get<kWorkId>(work);
  const store::Key key = store::ulid_key(id);
  OutboxRow row;
  store::OutboxBodyRow body;
  if (!outbox_row(id, row)) {
    env_.log->error("outbox_row_unreadable", {{"id", view(ulid_text(id))}});
    return false;
  }
  if (!batch().get(TableId::kOutboxBody, key.bytes(), body)) {
    row.text[store::kOutboxLastError] = "corrupt: the stored body is damaged";
    finish(work, row, outbox_next(state, OutboxEvent::kBodyCorrupt));
    return false;
  }
  // What was encrypted under one key of ours cannot be sent under another: its recipient derives
  // the key from the sender that the broker shows.
  const MeshConfig& config = config_of(mesh);
  const crypto::Hash32 expected =
      crypto::wire_fingerprint(slab_, config.secret, row.fixed.request_fingerprint);
  if (expected != row.fixed.wire_fingerprint) {
    row.text[store::kOutboxLastError] = "member_key_changed: it was made under another key";
    finish(work, row, outbox_next(state, OutboxEvent::kKeyChanged));
    return false;
  }
  wire::Send send;
  send.id = row.text[store::kOutboxClientId];
  send.client_message_id = send.id;
  send.fingerprint = row.fixed.wire_fingerprint;
  send.has_fingerprint = true;
  send.target = row.text[store::kOutboxTarget];
  send.priority = static_cast<wire::Priority>(row.fixed.priority);
  TextBuf nonce(scratch(), 40);
  crypto::base64_append(body.fixed.nonce, nonce);
  send.nonce = nonce.view();
  send.ciphertext = body.text[store::kBodyCiphertext];
  send.reply_to = body.text[store::kBodyReplyTo];
  TextBuf frame(scratch(), send.ciphertext.size() + 512);
  wire::write_send(send, frame);
  bool too_large = false;
  if (!may_go(mesh, row, frame.size(), too_large)) {
    if (!too_large) return false;
    const std::string why = "payload_too_large: it has " + std::to_string(frame.size()) +
                            " bytes as it is sent, and the broker now takes " +
                            std::to_string(payload_limit(mesh));
    row.text[store::kOutboxLastError] = why;
    env_.log->warn("outbox_dead", {{"id", row.text[store::kOutboxClientId]}, {"reason", why}});
    finish(work, row, outbox_next(state, OutboxEvent::kRefusedPermanent));
    return false;
  }

  row.fixed.status = status_of(outbox_next(state, OutboxEvent::kDrain).next);
  row.fixed.attempts += 1;
  batch().put(TableId::kOutbox, key.bytes(), row);
  tables_.work.get<kWorkInflight>(work) = 1;
  const std::uint64_t deadline = env_.mono_ms + kAckTimeoutMs;
  tables_.work.get<kWorkDeadline>(work) = deadline;
  work_check_ms_ = std::min(work_check_ms_, deadline);
  ++inflight_;
  effects_.link_send(link, kEnvelopeFrame, frame.view());
  return true;
}

void Daemon::on_ack(LinkRef link, const wire::BrokerFrame& frame) {
  wire::Ack ack;
  if (Status parsed = wire::parse_ack(frame, ack); !parsed || ack.id.empty()) return;
  const OutboxEvent event = event_of(ack);
  const auto known = find_outbox_id(ack.id);
  if (!known) {
    outbox_next(OutboxState::kNone, event);
    return;
  }
  OutboxRow row;
  if (known->is_tombstone) {
    outbox_next(OutboxState::kTombstone, event);
    return;
  }
  if (!outbox_row(known->id, row)) return;
  const auto found = tables_.work_of.find(known->id);
  if (found == tables_.work_of.end()) {
    outbox_next(outbox_state(row.fixed.status), event);
    return;
  }
  const WorkRef work = found->second;
  const LaneRef where = tables_.work.get<kWorkLane>(work);
  const MeshRef mesh = tables_.lanes.get<kLaneMesh>(where);
  // Only the broker it was sent to, and only a row that was sent, can be answered. A row of a
  // mesh that was left has no broker here.
  if (!mesh || !(tables_.meshes.get<kMeshLink>(mesh) == link) ||
      !(tables_.lanes.get<kLaneFirst>(where) == work) || row.fixed.attempts == 0) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    return;
  }
  const OutboxCell& cell = outbox_next(state_of_work(work), event);
  const std::string_view reason = (ack.error.empty() ? ack.code : ack.error).substr(0, kErrorKept);
  if (cell.next == OutboxState::kPending) return retry_later(work, row, cell, reason, true);
  if (cell.next == OutboxState::kDead) {
    row.text[store::kOutboxLastError] = reason;
    env_.log->warn("outbox_dead", {{"id", ack.id}, {"reason", reason}});
    return finish(work, row, cell);
  }
  if (ack.duplicate && !ack.history_available) {
    env_.log->warn("broker_history_pruned", {{"id", ack.id}});
  }
  // Known before this row was sent: of a store that is gone, or repeated on its way (chain.cc).
  row.fixed.is_foreign = ack.duplicate && row.fixed.attempts == 1 ? 1 : 0;
  row.fixed.delivered_ms = env_.wall_ms;
  row.text[store::kOutboxBrokerId] = ack.message_id;
  row.text[store::kOutboxLastError] = {};
  finish(work, row, cell);
}

void Daemon::finish(WorkRef work, OutboxRow& row, const OutboxCell& cell) {
  row.fixed.status = status_of(cell.next);
  CHECK(row.fixed.status > OutboxStatus::kInflight);
  row.fixed.ended_ms = env_.wall_ms;
  batch().put(TableId::kOutbox, store::ulid_key(tables_.work.get<kWorkId>(work)).bytes(), row);
  metrics_.add(row.fixed.status == OutboxStatus::kDone ? Metric::kDaemonOutboxDone
                                                       : Metric::kDaemonOutboxDead);
  remove_work(work);
}

// Only a lane's first row can end or be in flight, so only it is ever removed.
void Daemon::remove_work(WorkRef work) {
  const LaneRef where = tables_.work.get<kWorkLane>(work);
  CHECK(tables_.lanes.get<kLaneFirst>(where) == work);
  if (tables_.work.get<kWorkInflight>(work) != 0) --inflight_;
  const WorkRef next = tables_.work.get<kWorkNext>(work);
  tables_.work_of.erase(tables_.work.get<kWorkId>(work));
  tables_.work.erase(work);
  tables_.lanes.get<kLaneFirst>(where) = next;
  tables_.lanes.get<kLaneDue>(where) = 0;
  tables_.lanes.get<kLaneFailures>(where) = 0;
  if (next) {
    mark_ready(where);
    return;
  }
  tables_.lane_of.erase(tables_.lanes.get<kLaneName>(where));
  tables_.lanes.erase(where);
}

void Daemon::retry_later(WorkRef work, OutboxRow& row, const OutboxCell& cell,
                         std::string_view error, bool backoff) {
  const LaneRef where = tables_.work.get<kWorkLane>(work);
  const std::uint64_t delay = backoff ? backoff_ms(tables_.lanes.get<kLaneFailures>(where)++) : 0;
  CHECK(cell.next == OutboxState::kPending);
  row.fixed.status = OutboxStatus::kPending;
  row.fixed.next_attempt_ms = env_.wall_ms + delay;
  row.text[store::kOutboxLastError] = error.substr(0, kErrorKept);
  batch().put(TableId::kOutbox, store::ulid_key(tables_.work.get<kWorkId>(work)).bytes(), row);
  if (tables_.work.get<kWorkInflight>(work) != 0) --inflight_;
  tables_.work.get<kWorkInflight>(work) = 0;
  tables_.lanes.get<kLaneDue>(where) = env_.mono_ms + delay;
  metrics_.add(Metric::kDaemonOutboxRetries);
  mark_ready(where);
}

// 0.5 s doubling to 30 s, of which a random half is waited: lanes do not retry in step.
std::uint64_t Daemon::backoff_ms(std::uint32_t failures) {
  const std::uint64_t cap =
      std::min(kBackoffMostMs, kBackoffFirstMs << std::min<std::uint32_t>(failures, 10));
  std::uint32_t random = 0;
  env_.rng(&random, sizeof random);
  return cap / 2 + random % (cap / 2 + 1);
}

// Nobody knows whether the broker accepted what was in flight: it is sent again, and deduped.
void Daemon::lanes_lost(MeshRef mesh) {
  tables_.lanes.each([&](LaneRef where) {
    if (!(tables_.lanes.get<kLaneMesh>(where) == mesh)) return;
    const WorkRef work = tables_.lanes.get<kLaneFirst>(where);
    OutboxRow row;
    if (!outbox_row(tables_.work.get<kWorkId>(work), row)) return;
    const OutboxCell& cell = outbox_next(state_of_work(work), OutboxEvent::kConnectionLost);
    if (cell.kind != CellKind::kMove) return;
    retry_later(work, row, cell, "the connection to the broker was lost", false);
  });
}

// The broker closed because of a message's size, whatever it had said about sizes before. Only one
// that is larger than every broker takes can be meant; it would end each connection that follows.
void Daemon::refuse_largest(MeshRef mesh) {
  WorkRef largest;
  std::size_t most = limits_.payload_bytes_max -
                     std::min<std::size_t>(limits_.payload_bytes_max, kAroundCiphertext);
  tables_.lanes.each([&](LaneRef where) {
    const WorkRef work = tables_.lanes.get<kLaneFirst>(where);
    if (!(tables_.lanes.get<kLaneMesh>(where) == mesh) ||
        tables_.work.get<kWorkInflight>(work) == 0) {
      return;
    }
    store::OutboxBodyRow body;
    const store::Key key = store::ulid_key(tables_.work.get<kWorkId>(work));
    if (!batch().get(TableId::kOutboxBody, key.bytes(), body)) return;
    if (body.text[store::kBodyCiphertext].size() <= most) return;
    most = body.text[store::kBodyCiphertext].size();
    largest = work;
  });
  OutboxRow row;
  if (!largest || !outbox_row(tables_.work.get<kWorkId>(largest), row)) return;
  row.text[store::kOutboxLastError] =
      "payload_too_large: the broker closed the connection because of its size (1009)";
  env_.log->warn("outbox_dead", {{"id", row.text[store::kOutboxClientId]},
                                 {"reason", row.text[store::kOutboxLastError]}});
  finish(largest, row, outbox_next(OutboxState::kInflight, OutboxEvent::kRefusedPermanent));
}

void Daemon::expire_work() {
  if (env_.mono_ms >= work_check_ms_) {
    work_check_ms_ = UINT64_MAX;
    tables_.work.each([&](WorkRef work) {
      if (tables_.work.get<kWorkInflight>(work) == 0) return;
      const std::uint64_t deadline = tables_.work.get<kWorkDeadline>(work);
      OutboxRow row;
      if (deadline > env_.mono_ms || !outbox_row(tables_.work.get<kWorkId>(work), row)) {
        work_check_ms_ = std::min(work_check_ms_, std::max(deadline, env_.mono_ms + 1'000));
        return;
      }
      const OutboxCell& cell = outbox_next(state_of_work(work), OutboxEvent::kAckTimeout);
      retry_later(work, row, cell, "the broker did not answer within 15 s", true);
    });
  }
  if (env_.mono_ms >= lane_check_ms_) {
    lane_check_ms_ = UINT64_MAX;
    tables_.lanes.each([&](LaneRef where) {
      const std::uint64_t due = tables_.lanes.get<kLaneDue>(where);
      if (due > env_.mono_ms) {
        lane_check_ms_ = std::min(lane_check_ms_, due);
      } else {
        mark_ready(where);
      }
    });
  }
  if (env_.wall_ms < age_check_ms_) return;
  age_check_ms_ = UINT64_MAX;
  tables_.lanes.each([&](LaneRef where) {
    while (tables_.lanes.alive(where)) {
      const WorkRef work = tables_.lanes.get<kLaneFirst>(where);
      const std::uint64_t hours = age_hours(tables_.lanes.get<kLaneMesh>(where));
      const std::uint64_t end = tables_.work.get<kWorkEnqueued>(work) + hours * kHourMs;
      OutboxRow row;
      const auto look_again = [&] {
        age_check_ms_ = std::min(age_check_ms_, std::max(end, env_.wall_ms + 60'000));
      };
      if (end > env_.wall_ms || !outbox_row(tables_.work.get<kWorkId>(work), row)) {
        return look_again();
      }
      const OutboxCell& cell = outbox_next(state_of_work(work), OutboxEvent::kAgeExhausted);
      if (cell.kind != CellKind::kMove) return look_again();
      std::string reason =
          "max_age_exceeded: not accepted within " + std::to_string(hours) + " hours";
      if (const std::string_view last = row.text[store::kOutboxLastError]; !last.empty()) {
        reason += "; last: " + std::string(last);
      }
      row.text[store::kOutboxLastError] = std::string_view(reason).substr(0, kErrorKept);
      finish(work, row, cell);
    }
  });
}

}  // namespace cm::daemon
