// reload.cc — joining and leaving meshes while the daemon runs.
// Holds:  the list is checked before anything changes; a mesh that is equal keeps its connection.
//         A mesh that is not in the list is left: its connection is closed, its secret released,
//         its undelivered rows are dead with the reason mesh_left, where an operator sees them. A
//         mesh whose member key changed is left and joined: what was encrypted under the old key
//         cannot be sent under the new one.
// Why:    rows of a mesh that is merely absent when the daemon starts wait instead (drain.cc): a
//         file that was damaged must not end them. reload() is given well-formed files only.
// Source: docs/PROTOCOL.md §10.3.
// Not:    reading config.json, watching it (cli/run_daemon.cc).
#include <algorithm>

#include "core/daemon/calls.h"

namespace cm::daemon {
namespace {

constexpr std::string_view kLeft = "mesh_left: this mesh is no longer joined here";

// The same member on the same mesh.
bool same_identity(const MeshConfig& left, const MeshConfig& right) {
  return left.mesh_id == right.mesh_id && left.key == right.key;
}

bool same(const MeshConfig& left, const MeshConfig& right) {
  return same_identity(left, right) && left.member_id == right.member_id &&
         left.slug == right.slug && left.name == right.name && left.broker_url == right.broker_url;
}

}  // namespace

Status Daemon::check_meshes(const std::vector<MeshConfig>& meshes) const {
  if (meshes.size() > limits_.daemon_meshes_max) {
    return fail(Err::kFull, "more meshes than 'daemon limits' allows");
  }
  for (std::size_t index = 0; index < meshes.size(); ++index) {
    for (std::size_t other = 0; other < index; ++other) {
      if (meshes[index].slug == meshes[other].slug ||
          meshes[index].mesh_id == meshes[other].mesh_id) {
        return fail(Err::kInvalidArgument,
                    "the mesh '" + meshes[index].slug + "' is configured twice");
      }
    }
  }
  return {};
}

void Daemon::release_secret(crypto::SecretRef secret) {
  boxes_.forget(secret);
  slab_.release(secret);
}

Result<Reloaded> Daemon::reload(const std::vector<MeshConfig>& meshes) {
  if (Status checked = check_meshes(meshes); !checked) {
    for (const MeshConfig& mesh : meshes) release_secret(mesh.secret);
    return checked.error();
  }
  Reloaded outcome;
  std::vector<MeshRef> leaving;
  tables_.meshes.each([&](MeshRef mesh) {
    const bool stays = std::any_of(meshes.begin(), meshes.end(), [&](const MeshConfig& wanted) {
      return same_identity(config_of(mesh), wanted);
    });
    if (!stays) leaving.push_back(mesh);
  });
  for (const MeshRef mesh : leaving) leave_mesh(mesh);
  outcome.left = static_cast<std::uint32_t>(leaving.size());
  // Slugs may have changed places: the old ones go before the new ones come.
  for (const MeshConfig& wanted : meshes) {
    const MeshRef mesh = mesh_by_id(wanted.mesh_id);
    if (!mesh) continue;
    release_secret(wanted.secret);  // ours is the same
    if (same(config_of(mesh), wanted)) {
      ++outcome.kept;
      continue;
    }
    MeshConfig& config = tables_.meshes.get<kMeshConfig>(mesh);
    const crypto::SecretRef secret = config.secret;
    const bool reconnects =
        config.broker_url != wanted.broker_url || config.member_id != wanted.member_id;
    config = wanted;
    config.secret = secret;
    if (reconnects) {
      reopen_link(link_of(mesh), 1000, "the configuration changed");
      tables_.links.get<kLinkFailures>(link_of(mesh)) = 0;
    }
    ++outcome.changed;
  }
  for (const MeshConfig& wanted : meshes) {
    if (mesh_by_id(wanted.mesh_id)) continue;
    const Status added = add_mesh(wanted);
    CHECK(added);  // checked above, and there is room
    const MeshRef mesh = mesh_by_id(wanted.mesh_id);
    attach_lanes(mesh);
    touch(link_of(mesh));
    load_terms(link_of(mesh));
    open_link(link_of(mesh));
    ++outcome.joined;
    env_.log->info("mesh_joined", {{"mesh", wanted.slug}});
  }
  close_left_lanes(meshes);
  return outcome;
}

void Daemon::leave_mesh(MeshRef mesh) {
  const LinkRef link = link_of(mesh);
  env_.log->info("mesh_left", {{"mesh", config_of(mesh).slug}});
  fail_calls_of(mesh, "this mesh was left");
  effects_.link_close(link, 1000, "the mesh was left");
  link_lost(link);
  set_link_state(link, LinkState::kRefused);
  forget_roster(mesh);
  std::vector<ParkedRef> waiting;
  tables_.parked.each([&](ParkedRef parked) {
    if (tables_.parked.get<kParkedMesh>(parked) == mesh) waiting.push_back(parked);
  });
  for (const ParkedRef parked : waiting) {
    const ConnRef conn = tables_.parked.get<kParkedConn>(parked);
    note_answered(conn);
    reply_error(conn, fail(Err::kMeshNotAttached, config_of(mesh).slug));
    tables_.parked.erase(parked);
  }
  tables_.lanes.each([&](LaneRef lane) {
    if (tables_.lanes.get<kLaneMesh>(lane) == mesh) tables_.lanes.get<kLaneMesh>(lane) = {};
  });
  tables_.left.push_back(link);
  release_secret(config_of(mesh).secret);
  tables_.links.erase(link);
  tables_.meshes.erase(mesh);
}

void Daemon::forget_roster(MeshRef mesh) {
  Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  for (const PeerRef peer : roster.peers) tables_.peers.erase(peer);
  roster.peers.clear();
}

// Rows that waited for this mesh to be joined again, under the same key.
void Daemon::attach_lanes(MeshRef mesh) {
  const std::string prefix = config_of(mesh).mesh_id + "|";
  tables_.lanes.each([&](LaneRef lane) {
    if (tables_.lanes.get<kLaneMesh>(lane)) return;
    if (!tables_.lanes.get<kLaneName>(lane).starts_with(prefix)) return;
    tables_.lanes.get<kLaneMesh>(lane) = mesh;
    mark_ready(lane);
  });
}

void Daemon::close_left_lanes(const std::vector<MeshConfig>& meshes) {
  std::vector<LaneRef> lanes;
  tables_.lanes.each([&](LaneRef lane) {
    const std::string& name = tables_.lanes.get<kLaneName>(lane);
    const std::string_view mesh_id = std::string_view(name).substr(0, name.find('|'));
    const bool joined = std::any_of(meshes.begin(), meshes.end(), [&](const MeshConfig& mesh) {
      return mesh.mesh_id == mesh_id;
    });
    if (!tables_.lanes.get<kLaneMesh>(lane) && !joined) lanes.push_back(lane);
  });
  for (const LaneRef lane : lanes) {
    while (tables_.lanes.alive(lane)) {
      const WorkRef work = tables_.lanes.get<kLaneFirst>(lane);
      store::OutboxRow row;
      if (!outbox_row(tables_.work.get<kWorkId>(work), row)) break;
      row.text[store::kOutboxLastError] = kLeft;
      finish(work, row, outbox_next(state_of_work(work), OutboxEvent::kMeshLeft));
    }
  }
}

}  // namespace cm::daemon
