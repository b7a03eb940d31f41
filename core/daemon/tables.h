// tables.h — everything the daemon keeps in memory, as tables.
// Owns:   meshes, links, roster mirror, topics, outbox work and its lanes, parked sends, calls that
//         wait for brokers, event streams and the ring of last events.
// Holds:  the work table mirrors the outbox rows that are not terminal; it is rebuilt from the
//         store at start and after an abandoned iteration.
// Limits: capacities come from Limits. Flags are bytes: a column is addressable.
// Not:    the rules by which they change (the .cc files that daemon.h names).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/ids.h"
#include "core/base/limits.h"
#include "core/base/pressure.h"
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
struct JobTag;
struct CallTag;
using MeshRef = Ref<MeshTag>;
using PeerRef = Ref<PeerTag>;
using WorkRef = Ref<WorkTag>;
using LaneRef = Ref<LaneTag>;
using ParkedRef = Ref<ParkedTag>;
using JobRef = Ref<JobTag>;
using CallRef = Ref<CallTag>;

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
  bool truncated = false;           // there are more peers than the list has
  std::uint64_t asked_serial = 0;   // of the newest request; 0: none on its way
  std::uint64_t loaded_serial = 0;  // of the newest answer
  std::uint64_t asked_ms = 0;       // monotonic
  std::vector<PeerRef> peers;
};

// Names of topics and their ids: kept over a lost connection, refreshed before a name is refused.
struct Topics {
  bool loaded = false;
  std::uint64_t asked_serial = 0;                          // as in Roster
  std::uint64_t asked_ms = 0;                              // monotonic
  std::uint64_t loaded_serial = 0;                         // as in Roster
  std::vector<std::pair<std::string, std::string>> names;  // name, id
};

enum MeshCol { kMeshConfig, kMeshLink, kMeshRoster, kMeshTopics };
using MeshTable = Table<MeshTag, MeshConfig, LinkRef, Roster, Topics>;

enum class LinkState : std::uint8_t { kConnecting, kHelloSent, kOpen, kRefused };

// What the broker of a link agreed to. Asked once a connection; one that says nothing for 2 s is
// legacy (spec/decisions.md, "Negotiation").
enum class FeatureState : std::uint8_t { kUnknown, kAsked, kLegacy, kAgreed };
struct Features {
  FeatureState state = FeatureState::kUnknown;
  std::uint64_t deadline_ms = 0;   // monotonic, while asked
  std::uint32_t inline_bytes = 0;  // largest encoded frame; 0: not told
  std::uint32_t age_hours = 0;     // of the outbox, by the broker's dedupe retention; 0: not told
  bool receipts = false;           // it takes them, by its hello_ack or its answer
  bool met = false;  // it told its numbers, or that it has none, to this daemon or one before
  std::vector<std::string> names;
  std::vector<std::string> params;  // JSON objects, in the order of the names
};
// Attempts that failed since the link was open last: a reason is logged when it changes, and then
// once a minute.
struct FailedAttempts {
  std::uint32_t count = 0;
  std::uint64_t logged_ms = 0;  // monotonic; 0: not yet
  std::string reason;           // as logged last
};
enum LinkCol {
  kLinkMesh,
  kLinkState,
  kLinkHelloDeadline,  // monotonic ms; 0 unless a hello waits for its answer
  kLinkBlocked,        // the transport takes no more until writable
  kLinkTouched,        // gave an event or was opened or closed in this iteration
  kLinkLastError,      // code of the last refusal or loss, for status
  kLinkReopenAt,       // monotonic ms; 0 while the transport has a peer for it
  kLinkFailures,       // times in a row that we had to open it anew
  kLinkFeatures,
  kLinkLostAt,  // monotonic ms at which it was open last; 0 before the first time, and while open
  kLinkBrokerVersion,  // as the broker named itself; empty if it does not
  kLinkHoldUntil,  // monotonic ms up to which requests wait for it; 0 once an attempt has failed
  kLinkFailed,     // of attempts to connect, for the log
};
using LinkTable = Table<LinkTag, MeshRef, LinkState, std::uint64_t, std::uint8_t, std::uint8_t,
                        std::string, std::uint64_t, std::uint32_t, Features, std::uint64_t,
                        std::string, std::uint64_t, FailedAttempts>;

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

// A send that waits for a list of the broker: its request, to be handled again. Without a mesh it
// waits for the lists of all.
// kTerms: what its broker takes.
enum class Wait : std::uint8_t { kNo, kRoster, kTopics, kAllRosters, kAllTopics, kTerms };
enum ParkedCol {
  kParkedConn,
  kParkedMesh,
  kParkedDeadline,
  kParkedSerial,  // of the list, or of the newest of all lists, that will do
  kParkedRequest,
  kParkedFor,
};
struct ParkedRequest {
  std::string body;
  std::string idempotency_key;
  bool is_post = false;  // of /v1/topic/post
};
using ParkedTable =
    Table<ParkedTag, ConnRef, MeshRef, std::uint64_t, std::uint64_t, ParkedRequest, Wait>;

// A request that was passed on to brokers (calls.cc). The row of its kind is in calls.h.
enum class CallKind : std::uint8_t {
  kPeers,
  kGetState,
  kListState,
  kSetState,
  kRemember,
  kRecall,
  kForget,
  kListSkills,
  kGetSkill,
  kSetSummary,
  kSetStatus,
  kSetVisible,
  kSetProfile,
  kTopicList,
  kTopicCreate,
  kTopicJoin,
  kTopicLeave,
  kTopicMembers,
  kTopicHistory,
  kTopicRead,
  kGroupJoin,
  kGroupLeave,
  kMessageStatus,
  kMessageExplain,
  kCount
};

// What one mesh answered.
struct CallResult {
  std::string mesh;  // slug
  bool ok = false;
  bool confirmed = true;  // false: a legacy broker says nothing to this, and said nothing
  std::string body;       // JSON: rows between commas, or one object, or empty for "not set"
  int http_status = 0;    // of a failure, with its code and sentence
  std::string error, detail;
};
// One IPC request: it is answered when no call of it is open.
struct Job {
  CallKind kind = CallKind::kPeers;
  std::string subject;  // the key, name or id that was asked about
  std::string extra;    // JSON members for the answer, each with a comma before it
  std::string next;     // kMessageExplain: what happens next, as far as this machine knows
  std::uint32_t open = 0;
  std::vector<CallResult> results;
};
enum JobCol { kJobConn, kJobRow };
using JobTable = Table<JobTag, ConnRef, Job>;

enum CallCol {
  kCallJob,
  kCallMesh,
  kCallKind,
  kCallIndex,  // of its result
  kCallSerial,
  kCallSent,   // monotonic ms
  kCallDue,    // monotonic ms at which to look at it again
  kCallHeld,   // not sent: the link is being made
  kCallFrame,  // of a held call; empty for the list of peers, which a new link asks for itself
};
using CallTable = Table<CallTag, JobRef, MeshRef, CallKind, std::uint32_t, std::uint64_t,
                        std::uint64_t, std::uint64_t, std::uint8_t, std::string>;

// Rows of the inbox that are deleted in bounded batches: by request, or by age.
struct Purge {
  ConnRef conn;  // empty: by age
  std::string mesh_id, topic, sender;
  std::uint64_t before_ms = UINT64_MAX;
  bool in_time_order = false;  // ends at the first row that is not older
  Ulid last{};                 // newest row of the inbox at the request: what came later stays
  Ulid position{};             // the next row to look at is behind it
  Ulid committed_position{};
  std::uint64_t removed = 0;
  std::uint64_t committed_removed = 0;
};

// Outbox rows that have ended become tombstones, in bounded batches: by request, or by age.
struct Shrink {
  ConnRef conn;                 // empty: by age
  std::uint64_t before_ms = 0;  // ended before this; wall clock
  std::uint32_t states = 0;     // bit per store::OutboxStatus
  bool dry_run = false;         // counts only
  Ulid last{};                  // newest row of the outbox at the request
  Ulid position{};              // the next row to look at is behind it
  Ulid committed_position{};
  std::uint64_t shrunk = 0, bytes = 0;
  std::uint64_t committed_shrunk = 0, committed_bytes = 0;
};

// How full the daemon is: the larger share of rows and of bytes; tombstones have their own.
struct PressureState {
  Pressure level = Pressure::kNormal;
  bool tombstones_high = false;  // the event tombstone_pressure_high was told
  std::uint64_t percent = 0;     // the largest of the three
  std::uint64_t rows_percent = 0, store_percent = 0, tombstone_percent = 0;
  std::uint64_t tombstone_bytes = 0;
};

// Reports of seen that brokers are to be told, each a row of kSeenDue: in the order in which they
// are sent, by mesh id, and those that wait for their answer, by the serial in their `_reqId`.
struct SentReport {
  Ulid id;  // of the inbox row
  LinkRef link;
  std::string mesh_id;
  std::uint64_t due_ms = 0;  // monotonic; sent again then
};
struct SeenReports {
  std::unordered_map<std::string, std::deque<Ulid>> waiting;
  std::map<std::uint64_t, SentReport> sent;
  std::size_t rows = 0;  // of both
  bool ready = false;    // something may be sent
};

struct KeptEvent {
  std::uint64_t id = 0;
  std::string text;  // as it stands in the stream
};

// An IPC request that has no answer yet.
struct OpenRequest {
  std::uint32_t route = 0;  // index into the route table
  bool is_unix = false;
  std::uint64_t since_ms = 0;  // monotonic
};

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
        parked(limits.parked_sends_max),
        jobs(limits.ipc_requests_max),
        calls(limits.broker_calls_max) {}

  MeshTable meshes;
  LinkTable links;
  PeerTable peers;
  WorkTable work;
  LaneTable lanes;
  ParkedTable parked;
  JobTable jobs;
  CallTable calls;

  std::unordered_map<Ulid, WorkRef, UlidHash> work_of;
  std::unordered_map<std::string, LaneRef> lane_of;
  std::unordered_map<std::string, PublicKey> bound;    // by store::known_peer_prefix()
  std::vector<std::string> newly_bound;                // in this iteration: forgotten if it fails
  std::unordered_map<std::uint64_t, CallRef> call_of;  // by the serial in its `_reqId`
  std::unordered_map<ConnRef, OpenRequest> open;       // requests without an answer
  std::vector<LaneRef> ready;                          // lanes to look at in this step
  std::vector<ConnRef> streams;                        // open event streams
  std::vector<ConnRef> requests;  // HTTP requests of this iteration, answered 503 if it fails
  std::vector<LinkRef> touched;   // links that this iteration has to close if it fails
  std::vector<LinkRef> left;      // links of meshes that were left in this iteration
  std::deque<KeptEvent> ring;     // the last events, oldest first
  std::deque<Purge> purges;
  std::deque<Shrink> shrinks;
  SeenReports seen;
};

}  // namespace cm::daemon
