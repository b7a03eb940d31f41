// load.cc — start, mirrors, abandoned iterations, verification.
// Holds:  after a crash, inflight rows return to pending with one more attempt: nobody knows what
//         the broker got, and it dedupes. Memory then says what the store says.
// Not:    opening the store; corrupt stores (store/fsck.cc finds them).
#include <algorithm>

#include "core/base/check.h"
#include "core/daemon/daemon.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

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
      started_mono_ms_(env.mono_ms) {}

MeshRef Daemon::mesh_by_id(std::string_view mesh_id) const {
  MeshRef found;
  tables_.meshes.each([&](MeshRef mesh) {
    if (config_of(mesh).mesh_id == mesh_id) found = mesh;
  });
  return found;
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
  if (Status loaded = load_outbox(true); !loaded) return loaded;
  tables_.links.each([&](LinkRef link) { open_link(link); });
  return {};
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
      if (row.fixed.status > OutboxStatus::kInflight) continue;
      if (row.fixed.status == OutboxStatus::kInflight) inflight.push_back(id);
      if (!add_work(id, row)) {
        return fail(Err::kFull, "the outbox holds more rows than 'outbox_rows_max'");
      }
    }
    ulids_.start_after(id);
  }
  store::Cursor inbox(batch(), TableId::kInbox);
  Ulid last;
  if (inbox.seek_before({}) && store::parse_ulid_key(inbox.key(), last)) ulids_.start_after(last);
  if (!recover) return {};
  for (const Ulid& id : inflight) {
    store::OutboxRow row;
    if (!outbox_row(id, row)) continue;
    row.fixed.status = OutboxStatus::kPending;
    row.fixed.attempts += 1;
    row.text[store::kOutboxLastError] = "the daemon was stopped while this was in flight";
    batch().put(TableId::kOutbox, store::ulid_key(id).bytes(), row);
  }
  if (!inflight.empty()) env_.log->info("outbox_recovered", {{"rows", inflight.size()}});
  return {};
}

void Daemon::abandon(Err why) {
  effects_.clear();
  tables_.work.clear();
  tables_.lanes.clear();
  tables_.work_of.clear();
  tables_.lane_of.clear();
  tables_.ready.clear();
  inflight_ = 0;
  // Rows that stand as inflight go out again at once: the broker dedupes them.
  const Status loaded = load_outbox(false);
  if (!loaded) env_.log->error("outbox_reload_failed", {{"detail", loaded.error().detail}});
  const std::vector<ConnRef> requests = tables_.requests;
  for (const ConnRef conn : requests) {
    std::erase(tables_.streams, conn);  // opened in this iteration: its head was never sent
    reply_error(conn, fail(why));
  }
  tables_.parked.each([&](ParkedRef parked) {
    const ConnRef conn = tables_.parked.get<kParkedConn>(parked);
    if (std::find(requests.begin(), requests.end(), conn) != requests.end()) {
      tables_.parked.erase(parked);
    }
  });
  tables_.requests.clear();
  metrics_.set(Metric::kDaemonStreams, tables_.streams.size());
  tables_.links.each([&](LinkRef link) {
    // What the broker sent in this iteration was not stored, so no later ack may pass it; what
    // was to be sent was not sent either. A new hello makes both ends begin again, in order.
    effects_.link_close(link, 1011, "the daemon could not store this");
    tables_.links.get<kLinkTouched>(link) = 0;
    tables_.links.get<kLinkBlocked>(link) = 0;
    Roster& roster = tables_.meshes.get<kMeshRoster>(tables_.links.get<kLinkMesh>(link));
    roster.asked_serial = 0;
    set_link_state(link, LinkState::kConnecting);
    tables_.links.get<kLinkLastError>(link) = info_of(why).wire_code;
    reopen_later(link);
  });
}

void Daemon::committed() noexcept { tables_.requests.clear(); }

void Daemon::step() {
  expire_hellos();
  reopen_due();
  refresh_rosters();
  if (env_.mono_ms >= parked_check_ms_) wake_parked();
  expire_work();
  keep_streams_alive();
  drain_ready();
  metrics_.set(Metric::kDaemonOutboxInflight, inflight_);
  metrics_.set(Metric::kDaemonOutboxPending, tables_.work.count() - inflight_);
}

std::uint64_t Daemon::next_deadline() const noexcept {
  std::uint64_t age = UINT64_MAX;
  if (age_check_ms_ != UINT64_MAX) {
    age = env_.mono_ms + (age_check_ms_ > env_.wall_ms ? age_check_ms_ - env_.wall_ms : 0);
  }
  return std::min({hello_check_ms_, lane_check_ms_, work_check_ms_, age, roster_check_ms_,
                   parked_check_ms_, keepalive_ms_, reopen_check_ms_});
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

const char* Daemon::verify_all() {
  if (!tables_.meshes.verify() || !tables_.links.verify() || !tables_.peers.verify() ||
      !tables_.work.verify() || !tables_.lanes.verify() || !tables_.parked.verify()) {
    return "a table's free list or count is broken";
  }
  if (tables_.lane_of.size() != tables_.lanes.count()) return "a lane is not indexed";
  if (!boxes_.verify_table()) return "the box key cache is inconsistent";
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
}

}  // namespace cm::daemon
