// tables.h — everything the broker keeps in memory, as tables.
// Owns:   connections, presences, members, mailboxes, claims and lane leases.
// Holds:  rows name each other by typed handles; what is durable is a mirror of store/schema.h and
//         is rebuilt from it. Claims are memory only: a restart releases them all, which is right.
// Limits: capacities come from Limits. Flags are bytes: a column is addressable.
// Not:    the rules by which they change (the .cc files that broker.h names).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/base/hash.h"
#include "core/base/ids.h"
#include "core/base/limits.h"
#include "core/base/table.h"
#include "core/broker/budget.h"
#include "core/crypto/keys.h"
#include "core/wire/http_request.h"
#include "store/schema.h"

namespace cm::broker {

using crypto::PublicKey;
using store::MailboxId;
using store::MailboxKind;

struct ClientTag;
struct PresenceTag;
struct MailboxTag;
struct ClaimTag;
struct LaneTag;
using ClientRef = Ref<ClientTag>;      // an open WebSocket as the core sees it
using PresenceRef = Ref<PresenceTag>;  // one entry a stable key
using MailboxRef = Ref<MailboxTag>;
using ClaimRef = Ref<ClaimTag>;
using LaneRef = Ref<LaneTag>;

// How a connection may serve its member's mailbox, best first (spec/decisions.md, "Delivery").
enum class ClientClass : std::uint8_t { kControlPlane, kSession, kOther };

enum ClientCol {
  kClientConn,
  kClientHelloDeadline,  // monotonic ms; 0 once the hello was accepted
  kClientPresence,
  kClientMeshNo,
  kClientMemberNo,
  kClientClass,
  kClientSerial,  // order of hellos: the newest claims first
  kClientClaims,  // first and last claim
  kClientClaimCount,
  kClientClaimBytes,
  kClientLapsed,  // lanes whose lease ran out here; no push in them until it acks something
  kClientErrors,  // error frames sent in the current minute
  kClientErrorsSince,
  kClientTouched,  // delivered a frame in this iteration, or was answered one of before
  kClientAddress,
  kClientKnowsPolicy,  // negotiated concurrent_connection_policy
  kClientSessionNo,    // of its session key; 0 without one
  kClientSessionHash,  // of its hello's sessionId; compared within one presence only
  kClientReceipts,     // knows receipts (docs/PROTOCOL.md §5.5)
};
// Lanes as hash_of(mailbox, lane). When there are too many of them, all: who never acks is
// bounded, too.
struct LapsedLanes {
  static constexpr std::size_t kMax = 64;
  std::vector<std::uint64_t> lanes;
  bool all = false;

  bool any() const noexcept { return all || !lanes.empty(); }
  bool has(std::uint64_t lane) const noexcept {
    return all || std::find(lanes.begin(), lanes.end(), lane) != lanes.end();
  }
  void add(std::uint64_t lane) {
    if (has(lane)) return;
    if (lanes.size() == kMax) all = true;
    if (!all) lanes.push_back(lane);
  }
  void clear() noexcept {
    lanes.clear();
    all = false;
  }
  static std::uint64_t hash_of(std::uint64_t mailbox, std::uint64_t lane) noexcept {
    return (mailbox * 0xc2b2ae3d27d4eb4full) ^ lane;
  }
};
struct ClaimList {
  ClaimRef first;
  ClaimRef last;
};
using ClientTable =
    Table<ClientTag, ConnRef, std::uint64_t, PresenceRef, std::uint32_t, std::uint32_t, ClientClass,
          std::uint64_t, ClaimList, std::uint32_t, std::uint64_t, LapsedLanes, std::uint32_t,
          std::uint64_t, std::uint8_t, wire::PeerAddress, std::uint8_t, std::uint32_t,
          std::uint64_t, std::uint8_t>;

enum PresenceCol {
  kPresKey,       // kind and key
  kPresOwner,     // mesh and member
  kPresDeadline,  // monotonic ms while offline, else 0
  kPresClients,   // live sockets, oldest first
  kPresStatus,
  kPresInfo,
};
struct PresenceKey {
  std::uint32_t mesh_no = 0;
  MailboxKind kind = MailboxKind::kMember;
  PublicKey key{};
  friend bool operator==(const PresenceKey&, const PresenceKey&) = default;
};
struct PresenceOwner {
  std::uint32_t mesh_no = 0;
  std::uint32_t member_no = 0;
};
// What a throw-away connection saves for its member: what it set itself, not what it got back.
constexpr std::uint8_t kChangedSummary = 1, kChangedProfile = 2, kChangedGroups = 4,
                       kChangedVisible = 8, kChangedStats = 16;
constexpr std::uint8_t kChangedAll = 31;
// What decides whether a queued row is pushed (spec/decisions.md, "Delivery", status).
struct PresenceStatus {
  store::PeerStatus manual = store::PeerStatus::kIdle;
  store::PeerStatus hook = store::PeerStatus::kIdle;
  std::uint64_t hook_until_ms = 0;  // monotonic; the hook's word counts until then
  Ulid open_until;                  // queued before the last reattach: pushed at any status
  std::uint16_t caps = 0xffff;      // of the session's attestation, bits of capability.h
  std::uint8_t proved = 0;          // by session_hello
  std::uint8_t hidden = 0;
  std::uint8_t changed = 0;  // kChanged*: what verbs have set since its hello

  store::PeerStatus effective(std::uint64_t mono_ms) const noexcept {
    if (manual == store::PeerStatus::kDnd) return manual;
    return mono_ms < hook_until_ms ? hook : manual;
  }
};
struct PeerGroup {
  std::string name;
  std::string role;  // may be empty
};
struct PresenceStats {
  std::uint64_t messages_in = 0, messages_out = 0, tool_calls = 0, uptime_s = 0, errors = 0;
  bool set = false;
};
struct PresenceInfo {  // cold: shown in peers_list
  std::string presence_id, session_id, name, cwd, hostname, peer_type, channel, model;
  std::string summary;
  std::string profile;      // JSON object, or empty
  std::string groups_json;  // of `groups`, as it is shown and stored
  std::string attestation;  // JSON object, or empty
  std::string caps_json;    // array, or empty for all
  std::vector<PeerGroup> groups;
  PresenceStats stats;
  std::uint64_t connected_ms = 0;
  std::int64_t pid = 0;
};
using PresenceTable = Table<PresenceTag, PresenceKey, PresenceOwner, std::uint64_t,
                            std::vector<ClientRef>, PresenceStatus, PresenceInfo>;

struct PublicKeyHash {
  std::size_t operator()(const PublicKey& key) const noexcept {
    return static_cast<std::size_t>(hash64(key));
  }
};
struct PresenceKeyHash {
  std::size_t operator()(const PresenceKey& key) const noexcept;
};

// A row that will not be delivered: ended after the walk that found it.
struct RefusedRow {
  MailboxRef box;
  std::uint8_t priority = 0;
  Ulid message;
  std::string_view reason;  // a literal
};

// How a delivery row ends. Views live until the next write.
struct RowEnd {
  store::ReceiptState state = store::ReceiptState::kDelivered;
  std::string_view reason = {};  // of an expired one
  store::ReportLevel level = store::ReportLevel::kHanded;
  std::uint64_t claimed_ms = 0;     // 0: not known
  std::uint64_t signed_ms = 0;      // 0: unsigned
  std::string_view signature = {};  // 64 bytes, or empty
};

// A receipt that changed in this iteration: its sender is told at the end of it.
struct ChangedReceipt {
  std::uint32_t sender_no = 0;
  Ulid message;
  MailboxId mailbox;
};

// A row after which its recipient closed with 1009.
struct TooLarge {
  MailboxId box;
  Ulid message;
};

// A mailbox in memory: it has queued rows, or a connection that could take them.
enum MailboxCol {
  kBoxId,
  kBoxMemberNo,
  kBoxClaimer,  // the one connection that holds claims of this mailbox
  kBoxClaimed,  // rows it holds
  kBoxRows,     // undelivered rows, claimed ones included
  kBoxBytes,
  kBoxAfter,   // per priority: rows up to here are claimed (unless `rescan`)
  kBoxRescan,  // claims were released or rows passed over: start from the front and skip what
               // is still claimed
  kBoxDirty,   // in the list of mailboxes to drain
};
using MailboxTable =
    Table<MailboxTag, MailboxId, std::uint32_t, ClientRef, std::uint32_t, std::uint32_t,
          std::uint64_t, std::array<Ulid, 3>, std::uint8_t, std::uint8_t>;

// One pushed and unacknowledged row. Doubly linked in push order on its connection.
enum ClaimCol {
  kClaimMessage,
  kClaimMailbox,
  kClaimLane,
  kClaimBytes,
  kClaimPriority,
  kClaimLinks,
  kClaimClientId,  // hash of the client_message_id: an ack by an unknown one reads no rows
  kClaimPushed     // wall clock; goes into the receipt
};
struct ClaimLinks {
  ClaimRef previous;
  ClaimRef next;
};
using ClaimTable = Table<ClaimTag, Ulid, MailboxRef, LaneRef, std::uint32_t, std::uint8_t,
                         ClaimLinks, std::uint64_t, std::uint64_t>;

// The lease that the unacked rows of one lane on one connection share.
enum LaneCol { kLaneDeadline, kLaneClient, kLaneMailbox, kLaneHash, kLaneClaims };
using LaneTable =
    Table<LaneTag, std::uint64_t, ClientRef, MailboxRef, std::uint64_t, std::uint32_t>;

struct LaneKey {
  std::uint64_t client = 0;
  std::uint64_t mailbox = 0;
  std::uint64_t lane = 0;
  friend bool operator==(const LaneKey&, const LaneKey&) = default;
};
struct LaneKeyHash {
  std::size_t operator()(const LaneKey& key) const noexcept {
    return static_cast<std::size_t>((key.client * 0x9e3779b97f4a7c15ull) ^
                                    (key.mailbox * 0xc2b2ae3d27d4eb4full) ^ key.lane);
  }
};

// Mirror of a member row that is in use; loaded at first need and kept.
struct MemberMirror {
  std::uint32_t mesh_no = 0;
  bool revoked = false;
  PublicKey key{};
  std::string id;
  std::string name;
  std::vector<ClientRef> clients;  // of this member, any class
  std::uint32_t receipts = 0;      // of these, how many know receipts
  std::uint32_t presences = 0;     // leased ones included
  std::uint8_t is_admin = 0;
  std::uint16_t caps = 0xffff;    // what its permissions leave to any of its connections
  std::uint8_t has_grants = 0;    // at least one row names this member as recipient
  std::uint64_t reply_bytes = 0;  // of replies, less what has leaked away since (meter.cc)
  std::uint64_t reply_at_ms = 0;  // when that was true
};
struct MeshMirror {
  std::string id;
  std::string slug;
  bool deleted = false;
  std::vector<PresenceRef> presences;
  std::uint32_t clients = 0;
};

// What a mesh keeps for its members, counted (shared/quotas.cc).
struct SharedUse {
  std::array<std::uint32_t, 3> rows{};  // state keys, memories, skills
  std::uint64_t bytes = 0;              // of those rows
  std::uint32_t topics = 0;
};

struct Tables {
  explicit Tables(const Limits& limits)
      : clients(limits.broker_connections_max),
        presences(limits.presences_max),
        mailboxes(UINT32_MAX),  // what the store has is loaded even over mailboxes_max
        claims(claims_max(limits)),
        lanes(claims_max(limits)),
        budget(limits) {}

  // Every connection may fill its window, up to a bound for all; then mailboxes wait.
  static std::uint32_t claims_max(const Limits& limits) noexcept {
    const std::uint64_t all = std::uint64_t{limits.broker_connections_max} * limits.claim_rows_max;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(all, limits.claims_max));
  }

  ClientTable clients;
  PresenceTable presences;
  MailboxTable mailboxes;
  ClaimTable claims;
  LaneTable lanes;

  std::vector<ClientRef> client_of_slot;  // by ConnRef::slot
  std::unordered_map<PresenceKey, PresenceRef, PresenceKeyHash> presence_of;
  std::unordered_map<std::uint64_t, MailboxRef> mailbox_of;  // by MailboxId::bits()
  std::unordered_map<LaneKey, LaneRef, LaneKeyHash> lane_of;
  std::unordered_map<std::uint32_t, MemberMirror> members;
  std::unordered_map<std::uint32_t, MeshMirror> meshes;
  std::unordered_map<std::uint32_t, SharedUse> shared;           // by mesh
  std::unordered_map<std::uint32_t, std::uint32_t> subscribers;  // by topic
  // mesh_no of each member row of a key, revoked ones included.
  std::unordered_multimap<PublicKey, std::uint32_t, PublicKeyHash> meshes_of_key;
  Budget budget;
  std::vector<MailboxRef> dirty;
  std::vector<RefusedRow> refused;
  std::vector<ChangedReceipt> changed_receipts;
  std::vector<TooLarge> too_large;  // seen once; the oldest is forgotten when there are many
  std::vector<MailboxRef> starved;  // found the table of claims full; looked at when it is not
  std::vector<ClientRef> touched;   // delivered a frame in this iteration
  std::vector<ConnRef> closing;     // closed by us in this iteration: closed again if it fails
};

}  // namespace cm::broker
