// load.cc — start, mirrors, abandoned iterations, verification.
// Holds:  after a crash, inflight rows return to pending with one more attempt: nobody knows what
//         the broker got, and it dedupes. Memory then says what the store says.
// Not:    opening the store; corrupt stores (store/fsck.cc finds them).
#include <algorithm>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "core/daemon/daemon.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

constexpr std::uint64_t kAckTimeoutMs = 15'000;  // as in drain.cc

}  // namespace

Daemon::Daemon(const Config& config, const Limits& limits, Env& env, Effects& effects,
               Metrics& metrics, crypto::SecretSlab& slab)
    : config_(config),
      limits_(limits),
      env_(env),
      effects_(effects),
      metrics_(metrics),
      slab_(slab),
      boxes_(slab, limits.box_keys_max),
      tables_(limits),
      ulids_(env.rng),
      started_mono_ms_(env.mono_ms),
      request_prefix_(std::string(crypto::view(crypto::base62_id(env.rng)).substr(0, 8)) + "-"),
      bearers_(limits),
      route_counts_(kRouteCount) {}

MeshRef Daemon::mesh_by_id(std::string_view mesh_id) const {
  MeshRef found;
  tables_.meshes.each([&](MeshRef mesh) {
    if (config_of(mesh).mesh_id == mesh_id) found = mesh;
  });
  return found;
}

std::string_view Daemon::slug_of(std::string_view mesh_id) const {
  const MeshRef mesh = mesh_by_id(mesh_id);
  return mesh ? std::string_view(config_of(mesh).slug) : mesh_id;
}

Status Daemon::add_mesh(const MeshConfig& config) {
  bool taken = false;
  tables_.meshes.each([&](MeshRef mesh) {
    taken =
        taken || config_of(mesh).slug == config.slug || config_of(mesh).mesh_id == config.mesh_id;
  });
  if (taken) return fail(Err::kAlreadyExists, "the mesh '" + config.slug + "' is configured twice");
  const MeshRef mesh = tables_.meshes.insert();
  const LinkRef link = mesh ? tables_.links.insert() : LinkRef{};
  if (!link) return fail(Err::kFull, "more meshes than 'daemon limits' allows");
  tables_.meshes.get<kMeshConfig>(mesh) = config;
  tables_.meshes.get<kMeshLink>(mesh) = link;
  tables_.links.get<kLinkMesh>(link) = mesh;
  return {};
}

Status Daemon::start() {
  load_terms();
  if (Status loaded = load_outbox(true); !loaded) return loaded;
  load_bound_names();
  seed_events();
  load_seen_reports(true);
  prune_ms_ = env_.mono_ms;
  shrink_ms_ = env_.mono_ms;
  measure_pressure();
  tables_.links.each([&](LinkRef link) { open_link(link); });
  return {};
}

// After an abandoned iteration: it went out over a connection that is still there, and its answer
// may be on its way. Over another one it goes out again at once, and the broker dedupes it.
void Daemon::keep_inflight(const Ulid& id) {
  const WorkRef work = tables_.work_of.at(id);
  const LaneRef where = tables_.work.get<kWorkLane>(work);
  const MeshRef mesh = tables_.lanes.get<kLaneMesh>(where);
  if (!mesh || state_of(mesh) != LinkState::kOpen ||
      !(tables_.lanes.get<kLaneFirst>(where) == work)) {
    return;
  }
  tables_.work.get<kWorkInflight>(work) = 1;
  tables_.work.get<kWorkDeadline>(work) = env_.mono_ms + kAckTimeoutMs;
  work_check_ms_ = std::min(work_check_ms_, env_.mono_ms + kAckTimeoutMs);
  ++inflight_;
}

void Daemon::start_ids_after(TableId table) {
  store::Cursor cursor(batch(), table);
  Ulid last;
  if (cursor.seek_before({}) && store::parse_ulid_key(cursor.key(), last)) ulids_.start_after(last);
}

// The outbox is walked in key order, which is enqueue order: lanes come out in order.
Status Daemon::load_outbox(bool recover) {
  std::vector<Ulid> inflight;
  {
    store::Cursor cursor(batch(), TableId::kOutbox);
    Ulid id;
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      store::OutboxRow row;
      if (!store::parse_ulid_key(cursor.key(), id) || !cursor.row(row)) {
        return fail(Err::kCorrupt, "the outbox has a damaged row");
      }
      if (row.fixed.status >= OutboxStatus::kCount) {
        return fail(Err::kCorrupt, "an outbox row has an unknown status");
      }
      const OutboxState state = outbox_state(row.fixed.status);
      if (recover) outbox_next(state, OutboxEvent::kRestart);
      if (row.fixed.status > OutboxStatus::kInflight) continue;
      if (row.fixed.status == OutboxStatus::kInflight) inflight.push_back(id);
      if (!add_work(id, row)) {
        return fail(Err::kFull, "the outbox holds more rows than 'outbox_rows_max'");
      }
      if (!recover && row.fixed.status == OutboxStatus::kInflight) keep_inflight(id);
    }
    ulids_.start_after(id);
  }
  start_ids_after(TableId::kTombstone);
  start_ids_after(TableId::kInbox);
  if (!recover) return {};
  for (const Ulid& id : inflight) {
    store::OutboxRow row;
    if (!outbox_row(id, row)) continue;
    row.fixed.status = status_of(outbox_cell(OutboxState::kInflight, OutboxEvent::kRestart).next);
    row.fixed.attempts += 1;
    row.text[store::kOutboxLastError] = "the daemon was stopped while this was in flight";
    batch().put(TableId::kOutbox, store::ulid_key(id).bytes(), row);
  }
  if (!inflight.empty()) env_.log->info("outbox_recovered", {{"rows", inflight.size()}});
  return {};
}

// The requests of this iteration are answered with the error; so are older ones whose answer was in
// the effects. Nothing of them may be left.
void Daemon::abandon_calls() {
  const std::vector<ConnRef>& requests = tables_.requests;
  const auto is_told = [&](ConnRef conn) {
    return std::find(requests.begin(), requests.end(), conn) != requests.end();
  };
  std::vector<JobRef> jobs;
  tables_.jobs.each([&](JobRef job) {
    if (is_told(tables_.jobs.get<kJobConn>(job))) jobs.push_back(job);
  });
  for (const JobRef job : jobs) drop_job(job);
  tables_.parked.each([&](ParkedRef parked) {
    if (is_told(tables_.parked.get<kParkedConn>(parked))) tables_.parked.erase(parked);
  });
  std::erase_if(tables_.purges,
                [&](const Purge& purge) { return purge.conn && is_told(purge.conn); });
  std::erase_if(tables_.shrinks,
                [&](const Shrink& shrink) { return shrink.conn && is_told(shrink.conn); });
  for (Purge& purge : tables_.purges) {
    purge.position = purge.committed_position;
    purge.removed = purge.committed_removed;
  }
  for (Shrink& shrink : tables_.shrinks) {
    shrink.position = shrink.committed_position;
    shrink.shrunk = shrink.committed_shrunk;
    shrink.bytes = shrink.committed_bytes;
  }
}

void Daemon::abandon(Err why) {
  effects_.clear();
  // Events tell of what is stored; these told of what is not.
  while (!tables_.ring.empty() && tables_.ring.back().id > event_committed_) {
    ring_bytes_ -= tables_.ring.back().text.size();
    tables_.ring.pop_back();
  }
  event_reserved_ = 0;  // read again, or written again, with the next event
  abandon_calls();
  forget_new_bindings();
  const std::vector<ConnRef> requests = std::exchange(tables_.requests, {});
  // A stream that was opened in this iteration has no head: no event may go to it, and a refusal is
  // one.
  for (const ConnRef conn : requests) std::erase(tables_.streams, conn);
  for (const ConnRef conn : requests) reply_error(conn, fail(why));
  gave_up_.clear();
  pressure_ = committed_pressure_;
  is_woken_ = committed_woken_;
  for (const LinkRef link : std::exchange(tables_.left, {})) {
    effects_.link_close(link, 1000, "the mesh was left");
  }
  // What a broker sent in this iteration was not stored, so no later ack may pass it. A new hello
  // makes both ends begin again, in order. A link without a part in it goes on.
  for (const LinkRef link : std::exchange(tables_.touched, {})) {
    if (!tables_.links.alive(link)) continue;
    effects_.link_close(link, 1011, "the daemon could not store this");
    tables_.links.get<kLinkTouched>(link) = 0;
    const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
    fail_calls_of(mesh, "the connection to the broker was closed");
    tables_.links.get<kLinkBlocked>(link) = 0;
    tables_.links.get<kLinkFeatures>(link).state = FeatureState::kUnknown;
    tables_.meshes.get<kMeshRoster>(mesh).asked_serial = 0;
    tables_.meshes.get<kMeshTopics>(mesh).asked_serial = 0;
    set_link_state(link, LinkState::kConnecting);
    tables_.links.get<kLinkLastError>(link) = info_of(why).wire_code;
    reopen_later(link);
  }
  // Lists that were asked for in this iteration were not: they are asked for again.
  tables_.meshes.each([&](MeshRef mesh) {
    if (state_of(mesh) != LinkState::kOpen) return;
    Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
    if (roster.asked_serial != 0) {
      roster.asked_serial = 0;
      roster.stale = true;
      roster_check_ms_ = 0;
    }
    Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
    if (topics.asked_serial != 0) ask_topics(mesh);
  });
  tables_.requests.clear();
  tables_.work.clear();
  tables_.lanes.clear();
  tables_.work_of.clear();
  tables_.lane_of.clear();
  tables_.ready.clear();
  inflight_ = 0;
  const Status loaded = load_outbox(false);
  if (!loaded) env_.log->error("outbox_reload_failed", {{"detail", loaded.error().detail}});
  load_seen_reports(false);
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
  event_committed_ = event_serial_;  // those since are of connections, and leave
}

void Daemon::committed() noexcept {
  tables_.requests.clear();
  for (const LinkRef link : tables_.touched) {
    if (tables_.links.alive(link)) tables_.links.get<kLinkTouched>(link) = 0;
  }
  tables_.touched.clear();
  tables_.left.clear();
  tables_.newly_bound.clear();
  event_committed_ = event_serial_;
  committed_pressure_ = pressure_;
  committed_woken_ = is_woken_;
  for (Purge& purge : tables_.purges) {
    purge.committed_position = purge.position;
    purge.committed_removed = purge.removed;
  }
  for (Shrink& shrink : tables_.shrinks) {
    shrink.committed_position = shrink.position;
    shrink.committed_shrunk = shrink.shrunk;
    shrink.committed_bytes = shrink.bytes;
  }
}

void Daemon::step() {
  expire_hellos();
  expire_features();
  reopen_due();
  refresh_rosters();
  if (env_.mono_ms >= parked_check_ms_) wake_parked();
  expire_calls();
  expire_work();
  prune_inbox_due();
  step_purge();
  shrink_outbox_due();
  step_shrink();
  send_seen_reports();
  checks_left_ = kChecksAtOnce;  // of the next iteration
  keep_streams_alive();
  drain_ready();
  watch_pressure();
  metrics_.set(Metric::kDaemonOutboxInflight, inflight_);
  metrics_.set(Metric::kDaemonOutboxPending, tables_.work.count() - inflight_);
}

std::uint64_t Daemon::next_deadline() const noexcept {
  std::uint64_t age = UINT64_MAX;
  if (age_check_ms_ != UINT64_MAX) {
    age = env_.mono_ms + (age_check_ms_ > env_.wall_ms ? age_check_ms_ - env_.wall_ms : 0);
  }
  return std::min({hello_check_ms_, lane_check_ms_, work_check_ms_, age, roster_check_ms_,
                   parked_check_ms_, keepalive_ms_, reopen_check_ms_, features_check_ms_,
                   calls_check_ms_, prune_ms_, shrink_ms_, seen_check_ms_});
}

const char* Daemon::verify_work() {
  std::uint32_t linked = 0;
  std::uint32_t inflight = 0;
  const char* problem = nullptr;
  tables_.lanes.each([&](LaneRef lane) {
    const WorkRef first = tables_.lanes.get<kLaneFirst>(lane);
    if (!first) problem = "a lane is empty";
    for (WorkRef work = first; work; work = tables_.work.get<kWorkNext>(work)) {
      ++linked;
      const bool flying = tables_.work.get<kWorkInflight>(work) != 0;
      inflight += flying ? 1 : 0;
      if (flying && !(work == first)) problem = "a row behind its lane's first is in flight";
      store::OutboxRow row;
      if (!outbox_row(tables_.work.get<kWorkId>(work), row)) {
        problem = "a work row has no outbox row";
      } else if (row.fixed.status > OutboxStatus::kInflight) {
        problem = "a work row's outbox row is terminal";
      } else if (flying && row.fixed.status != OutboxStatus::kInflight) {
        problem = "a row in flight is stored as pending";
      }
    }
  });
  if (linked != tables_.work.count()) problem = "a work row is in no lane";
  if (inflight != inflight_) problem = "the count of rows in flight is wrong";
  std::uint32_t open = 0;
  store::Cursor cursor(batch(), TableId::kOutbox);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::OutboxRow row;
    if (decode(row, cursor.key(), cursor.value()) && row.fixed.status <= OutboxStatus::kInflight) {
      ++open;
    }
  }
  if (open != tables_.work.count()) problem = "the work table misses an open outbox row";
  return problem;
}

const char* Daemon::verify_calls() const {
  if (tables_.call_of.size() != tables_.calls.count()) return "a call is not indexed";
  const char* problem = nullptr;
  std::size_t open = 0;
  std::size_t bytes = 0;
  tables_.calls.each([&](CallRef call) {
    if (!tables_.jobs.alive(tables_.calls.get<kCallJob>(call))) problem = "a call has no job";
    bytes += tables_.calls.get<kCallFrame>(call).size();
    if (!tables_.meshes.alive(tables_.calls.get<kCallMesh>(call))) problem = "a call has no mesh";
  });
  tables_.jobs.each([&](JobRef job) {
    const Job& row = tables_.jobs.get<kJobRow>(job);
    if (row.open == 0) problem = "a job waits for nothing";
    open += row.open;
    for (const CallResult& result : row.results) bytes += result.body.size();
  });
  if (open != tables_.calls.count()) problem = "the count of open calls is wrong";
  if (bytes != reply_bytes_) problem = "the bytes of kept answers are wrong";
  std::size_t ring = 0;
  for (const KeptEvent& event : tables_.ring) ring += event.text.size();
  if (ring != ring_bytes_) problem = "the bytes of kept events are wrong";
  return problem;
}

const char* Daemon::verify_all() {
  if (!tables_.meshes.verify() || !tables_.links.verify() || !tables_.peers.verify() ||
      !tables_.work.verify() || !tables_.lanes.verify() || !tables_.parked.verify() ||
      !tables_.jobs.verify() || !tables_.calls.verify()) {
    return "a table's free list or count is broken";
  }
  if (tables_.lane_of.size() != tables_.lanes.count()) return "a lane is not indexed";
  if (!boxes_.verify_table()) return "the box key cache is inconsistent";
  if (const char* problem = verify_calls(); problem != nullptr) return problem;
  if (const char* problem = verify_seen(); problem != nullptr) return problem;
  return verify_work();
}

void Daemon::summarise(int fd) const noexcept {
  const auto line = [fd](const char* name, std::uint64_t count) {
    crash_write(fd, name);
    crash_write_number(fd, count);
    crash_write(fd, "\n");
  };
  line("  daemon meshes: ", tables_.meshes.count());
  line("  daemon peers: ", tables_.peers.count());
  line("  daemon outbox work: ", tables_.work.count());
  line("  daemon lanes: ", tables_.lanes.count());
  line("  daemon in flight: ", inflight_);
  line("  daemon parked sends: ", tables_.parked.count());
  line("  daemon broker calls: ", tables_.calls.count());
}

}  // namespace cm::daemon
