// tables.h — everything the daemon keeps in memory, as tables.
// Owns:   meshes, links, roster mirror, outbox work and its lanes, parked sends, event streams.
// Holds:  the work table mirrors the outbox rows that are not terminal; it is rebuilt from the
//         store at start and after an abandoned iteration.
// Limits: capacities come from Limits. Flags are bytes: a column is addressable.
// Not:    the rules by which they change (the .cc files that daemon.h names).
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/ids.h"
#include "core/base/limits.h"
#include "core/base/table.h"
#include "core/crypto/keys.h"
#include "core/crypto/slab.h"
#include "core/daemon/effects.h"
#include "core/wire/priority.h"
#include "store/schema.h"

namespace cm::daemon {

using crypto::PublicKey;

struct MeshTag;
struct PeerTag;
struct WorkTag;
struct LaneTag;
struct ParkedTag;
using MeshRef = Ref<MeshTag>;
using PeerRef = Ref<PeerTag>;
using WorkRef = Ref<WorkTag>;
using LaneRef = Ref<LaneTag>;
using ParkedRef = Ref<ParkedTag>;

// What config.json says of one mesh. The secret stays in the slab.
struct MeshConfig {
  std::string mesh_id, member_id, slug, name, broker_url;
  PublicKey key{};
  crypto::SecretRef secret;
};

// The roster mirror: listed at connect, again at most once a second after any peer event, and
// once more before a name is refused (design/delivery.md).
enum class RosterState : std::uint8_t { kUnknown, kLoaded };
struct Roster {
  RosterState state = RosterState::kUnknown;
  bool stale = false;               // a peer event came since the last list
  bool wanted = false;              // a parked send waits for a fresh list
  std::uint64_t asked_serial = 0;   // of the newest request; 0: none on its way
  std::uint64_t loaded_serial = 0;  // of the newest answer
  std::uint64_t asked_ms = 0;       // monotonic
  std::vector<PeerRef> peers;
};

enum MeshCol { kMeshConfig, kMeshLink, kMeshRoster };
using MeshTable = Table<MeshTag, MeshConfig, LinkRef, Roster>;

enum class LinkState : std::uint8_t { kConnecting, kHelloSent, kOpen, kRefused };
enum LinkCol {
  kLinkMesh,
  kLinkState,
  kLinkHelloDeadline,  // monotonic ms; 0 unless a hello waits for its answer
  kLinkBlocked,        // the transport takes no more until writable
  kLinkTouched,        // delivered a frame in this iteration
  kLinkLastError,      // code of the last refusal or loss, for status
  kLinkReopenAt,       // monotonic ms; 0 while the transport has a peer for it
  kLinkFailures,       // times in a row that we had to open it anew
};
using LinkTable = Table<LinkTag, MeshRef, LinkState, std::uint64_t, std::uint8_t, std::uint8_t,
                        std::string, std::uint64_t, std::uint32_t>;

enum PeerCol { kPeerMesh, kPeerKey, kPeerMember, kPeerNameFolded, kPeerIsControl, kPeerRaw };
using PeerTable =
    Table<PeerTag, MeshRef, PublicKey, PublicKey, std::string, std::uint8_t, std::string>;

// One outbox row that is not terminal. Linked in enqueue order within its lane.
enum WorkCol { kWorkId, kWorkLane, kWorkInflight, kWorkDeadline, kWorkEnqueued, kWorkNext };
using WorkTable =
    Table<WorkTag, Ulid, LaneRef, std::uint8_t, std::uint64_t, std::uint64_t, WorkRef>;

// (mesh, sender key, target, priority): in order, one message in flight (promise 6).
enum LaneCol {
  kLaneMesh,
  kLaneName,   // its key in lane_of
  kLaneFirst,  // oldest row; the one in flight, if any
  kLaneLast,
  kLaneDue,       // monotonic ms before which nothing is tried again; 0: at once
  kLaneFailures,  // transient failures in a row, for the backoff
  kLaneReady,     // in the list of lanes to drain
};
using LaneTable = Table<LaneTag, MeshRef, std::string, WorkRef, WorkRef, std::uint64_t,
                        std::uint32_t, std::uint8_t>;

// A send by name that waits for the roster: its request, to be handled again.
enum ParkedCol { kParkedConn, kParkedMesh, kParkedDeadline, kParkedSerial, kParkedRequest };
struct ParkedRequest {
  std::string body;
  std::string idempotency_key;
};
using ParkedTable = Table<ParkedTag, ConnRef, MeshRef, std::uint64_t, std::uint64_t, ParkedRequest>;

struct UlidHash {
  std::size_t operator()(const Ulid& id) const noexcept {
    return static_cast<std::size_t>(load_le<std::uint64_t>(id.bytes.data() + 8));
  }
};

struct Tables {
  explicit Tables(const Limits& limits)
      : meshes(limits.daemon_meshes_max),
        links(limits.daemon_meshes_max),
        peers(limits.roster_rows_max),
        work(limits.outbox_rows_max),
        lanes(limits.outbox_lanes_max),
        parked(limits.parked_sends_max) {}

  MeshTable meshes;
  LinkTable links;
  PeerTable peers;
  WorkTable work;
  LaneTable lanes;
  ParkedTable parked;

  std::unordered_map<Ulid, WorkRef, UlidHash> work_of;
  std::unordered_map<std::string, LaneRef> lane_of;
  std::vector<LaneRef> ready;     // lanes to look at in this step
  std::vector<ConnRef> streams;   // open event streams
  std::vector<ConnRef> requests;  // HTTP requests of this iteration, answered 503 if it fails
};

}  // namespace cm::daemon
