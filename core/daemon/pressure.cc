// pressure.cc — how full the daemon is, what it still does then, and how it says so.
// Holds:  80 % is told; from 95 % on nothing new is sent while what is there is drained; at 100 %
//         no event stream is opened either. Receiving, acks, deletes and requeues go on in the
//         reserve behind the bound. It ends by itself, below the share at which it began, and that
//         is told, too. Every refusal has its metric at once and its event at most once a second.
// Why:    a share is the larger one of bytes of the store and rows of the outbox; both stop sends.
// Source: design/delivery.md, "Disk"; spec/ipc.md §10 ("Disk", "Limits").
// Limits: Limits::store_bound_bytes, outbox_rows_max; Config::tombstone_bytes.
// Not:    counting pages (store/store.cc), the answers themselves (gates.cc).
#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/daemon/daemon.h"
#include "core/wire/json_writer.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint64_t kRefusingFrom = step_of(Pressure::kRefusing).from;
constexpr std::uint64_t kRefusalEventMs = 1'000;

// What is told by an event beside its answer.
constexpr Err kToldRefusals[] = {Err::kTooBig, Err::kBusy, Err::kTooManyRequests,
                                 Err::kTooManyStreams, Err::kDiskFull};

std::uint64_t share(std::uint64_t part, std::uint64_t whole) noexcept {
  return part * 100 / std::max<std::uint64_t>(1, whole);
}

}  // namespace

std::uint64_t Daemon::rows_percent() const noexcept {
  return share(tables_.work.count(), limits_.outbox_rows_max);
}

void Daemon::measure_pressure() {
  if (std::exchange(tombstones_changed_, false)) {
    pressure_.tombstone_bytes = batch().table_bytes(TableId::kTombstone);
  }
  pressure_.rows_percent = rows_percent();
  pressure_.store_percent = batch().fill_percent();
  pressure_.tombstone_percent = share(pressure_.tombstone_bytes, config_.tombstone_bytes);
  pressure_.percent = std::max(pressure_.rows_percent, pressure_.store_percent);
  metrics_.set(Metric::kDaemonTombstoneBytes, pressure_.tombstone_bytes);
}

void Daemon::watch_pressure() {
  measure_pressure();
  Pressure level = pressure_of(pressure_.percent, pressure_.level);
  if (pressure_.tombstone_bytes >= config_.tombstone_bytes) {
    level = std::max(level, Pressure::kRefusing);  // it takes no sends either
  }
  if (level != pressure_.level) {
    pressure_.level = level;
    emit_pressure();
  }
  metrics_.set(Metric::kDaemonPressureLevel, static_cast<std::uint64_t>(level));
  watch_tombstones();
}

void Daemon::emit_pressure() {
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms);
  json.field("high", pressure_.level != Pressure::kNormal);
  json.field("rows", tables_.work.count()).field("rows_max", limits_.outbox_rows_max);
  json.field("rows_pct", pressure_.rows_percent).field("store_pct", pressure_.store_percent);
  json.field("tombstones_pct", pressure_.tombstone_percent);
  json.field("level", text_of(pressure_.level)).end_object();
  emit("outbox_pressure_high", data.view());
  env_.log->warn("outbox_pressure_high", {{"level", text_of(pressure_.level)},
                                          {"rows_pct", pressure_.rows_percent},
                                          {"store_pct", pressure_.store_percent}});
}

void Daemon::watch_tombstones() {
  constexpr PressureStep kHigh = step_of(Pressure::kHigh);
  const bool high =
      pressure_.tombstone_percent >= (pressure_.tombstones_high ? kHigh.below : kHigh.from);
  if (high == pressure_.tombstones_high) return;
  pressure_.tombstones_high = high;
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("high", high);
  json.field("bytes", pressure_.tombstone_bytes).field("bytes_max", config_.tombstone_bytes);
  json.field("pct", pressure_.tombstone_percent).end_object();
  emit("tombstone_pressure_high", data.view());
  env_.log->warn("tombstone_pressure_high", {{"high", high},
                                             {"bytes", pressure_.tombstone_bytes},
                                             {"setting", "[outbox] tombstone_bytes"}});
}

// Rows are counted as they are now: an iteration accepts many. Bytes are those of the last commit.
Status Daemon::has_room() const {
  if (pressure_.tombstone_bytes >= config_.tombstone_bytes) {
    return fail(Err::kDiskFull,
                "the ids of past messages take " + std::to_string(pressure_.tombstone_bytes) +
                    " bytes of at most " + std::to_string(config_.tombstone_bytes) +
                    ": raise tombstone_bytes of [outbox] in config.toml and restart the daemon");
  }
  const std::uint64_t store = env_.batch->fill_percent();
  const std::uint64_t rows = rows_percent();
  const bool refusing = pressure_.level >= Pressure::kRefusing;
  if (store >= kRefusingFrom || !env_.batch->admits() ||
      (refusing && pressure_.store_percent >= pressure_.rows_percent)) {
    return fail(Err::kDiskFull, "the daemon's store is at " + std::to_string(store) +
                                    " % of its bound (limit store_bound_bytes); what is in the "
                                    "outbox is still being sent");
  }
  if (rows >= kRefusingFrom || refusing || tables_.work.full() || tables_.lanes.full()) {
    return fail(Err::kDiskFull, "the outbox holds " + std::to_string(tables_.work.count()) +
                                    " undelivered messages of at most " +
                                    std::to_string(limits_.outbox_rows_max) +
                                    " (limit outbox_rows_max); they are still being sent");
  }
  return {};
}

// A flood of refusals is one event a second, with their number.
void Daemon::tell_refused(Err code, std::string_view detail) {
  static_assert(std::size(kToldRefusals) == std::tuple_size_v<decltype(refusals_told_)>);
  const auto* const found = std::find(std::begin(kToldRefusals), std::end(kToldRefusals), code);
  if (found == std::end(kToldRefusals)) return;
  RefusalsTold& told = refusals_told_[static_cast<std::size_t>(found - kToldRefusals)];
  ++told.count;
  if (env_.mono_ms < told.until_ms) return;
  told.until_ms = env_.mono_ms + kRefusalEventMs;
  const ErrInfo& info = info_of(code);
  const std::uint64_t count = std::exchange(told.count, 0);
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms).field("error", info.wire_code);
  json.field("status", info.http_status).field("count", count);
  json.field("detail", detail.empty() ? info.meaning : detail).end_object();
  emit("request_refused", data.view());
  env_.log->warn("request_refused", {{"error", info.wire_code}, {"count", count}});
}

void Daemon::note_long_bodies(std::uint64_t total) {
  for (; long_bodies_ < total; ++long_bodies_) {
    metrics_.add(Metric::kDaemonRefusedPayload);
    tell_refused(Err::kTooBig, "the body of a request was longer than the limit");
  }
}

void Daemon::append_disk_metrics(TextBuf& out) {
  measure_pressure();
  out.append(
      "# HELP cm_daemon_disk_pct Use of what the store may hold, in percent\n"
      "# TYPE cm_daemon_disk_pct gauge\ncm_daemon_disk_pct{kind=\"store\"} ");
  out.append_unsigned(pressure_.store_percent);
  out.append("\ncm_daemon_disk_pct{kind=\"outbox\"} ");
  out.append_unsigned(pressure_.rows_percent);
  out.append("\ncm_daemon_disk_pct{kind=\"tombstones\"} ");
  out.append_unsigned(pressure_.tombstone_percent);
  out.append('\n');
}

}  // namespace cm::daemon
