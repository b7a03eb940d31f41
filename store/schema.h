// schema.h — the whole durable schema: tables, key layouts and row layouts of both roles.
// Owns:   Table ids, key builders, row structs. A minute's reading; nothing durable is elsewhere.
// Holds:  integers in keys are big-endian, so that byte order is sort order; hot tables are keyed
//         by ULIDs, so that they grow in append order. Row structs are little-endian with explicit
//         padding. A layout grows at its end only, with a new schema byte of the row and a new
//         kSchemaVersion: rows of before decode with zeros there. Other changes are migrations.
// Why:    secondary indexes change in the same batch as their row; every value is checksummed
//         together with its key, so that bit rot is detected and confined to the row.
// Not:    meaning of the rows: core/daemon and core/broker.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/bytes.h"
#include "core/base/ulid.h"

namespace cm::store {

constexpr std::uint32_t kSchemaVersion = 3;  // migrations: migrate.cc

enum class Role : std::uint8_t { kDaemon = 1, kBroker = 2 };

// X(enum name, lmdb name, role, form, key, value)
// Forms: Row = a checksummed flat row; Index = at most 32 bytes naming a row elsewhere.
#define CM_TABLES(X)                                                                           \
  X(Meta, "meta", Both, Row, "name", "MetaRow")                                                \
  /* daemon */                                                                                 \
  X(Outbox, "outbox", Daemon, Row, "ulid", "OutboxRow: state of a promise to deliver")         \
  X(OutboxBody, "outbox_body", Daemon, Row, "ulid", "OutboxBodyRow: until it is a tombstone")  \
  X(OutboxId, "outbox_id", Daemon, Index, "client_message_id", "ulid of the outbox row")       \
  X(Inbox, "inbox", Daemon, Row, "ulid", "InboxRow")                                           \
  X(InboxKey, "inbox_key", Daemon, Index, "InboxDedupeKey", "ulid of the inbox row")           \
  X(Tombstone, "tombstone", Daemon, Row, "ulid of the outbox row", "TombstoneRow: for good")   \
  X(SeenDue, "seen_due", Daemon, Index, "ulid of the inbox row", "1: seen, broker not told")   \
  X(KnownPeer, "known_peer", Daemon, Row, "mesh 00 name 00 member key", "KnownPeerRow")        \
  /* broker */                                                                                 \
  X(Mesh, "mesh", Broker, Row, "mesh_no", "MeshRow")                                           \
  X(MeshId, "mesh_id", Broker, Index, "mesh id", "mesh_no")                                    \
  X(MeshSlug, "mesh_slug", Broker, Index, "slug", "mesh_no")                                   \
  X(Member, "member", Broker, Row, "member_no", "MemberRow")                                   \
  X(MemberKey, "member_key", Broker, Index, "mesh_no public key", "member_no")                 \
  X(Invite, "invite", Broker, Row, "sha256 of the token", "InviteRow")                         \
  X(Binding, "binding", Broker, Row, "mesh_no session key", "BindingRow")                      \
  X(Presence, "presence", Broker, Row, "mesh_no kind key", "PresenceRow: a lease")             \
  X(HelloSeen, "hello_seen", Broker, Index, "timestamp_ms signature", "member_no")             \
  X(Message, "message", Broker, Row, "ulid", "MessageRow")                                     \
  X(Dedupe, "dedupe", Broker, Row, "member_no client_message_id", "DedupeRow")                 \
  X(Delivery, "delivery", Broker, Row, "mailbox priority ulid", "DeliveryRow: undelivered")    \
  X(Receipt, "receipt", Broker, Row, "ulid mailbox", "ReceiptRow: delivered, expired, queued") \
  X(MeshSettings, "mesh_settings", Broker, Row, "mesh_no", "MeshSettingsRow, when changed")    \
  X(MemberProfile, "member_profile", Broker, Row, "member_no", "MemberProfileRow, when set")   \
  X(PeerState, "peer_state", Broker, Row, "member_no", "PeerStateRow: given back at hello")    \
  X(Grant, "grant", Broker, Index, "recipient member_no, sender key", "capability bits")       \
  X(Attestation, "attestation", Broker, Row, "mesh_no session key", "AttestationRow: proof")   \
  X(Topic, "topic", Broker, Row, "topic_no", "TopicRow")                                       \
  X(TopicId, "topic_id", Broker, Index, "mesh_no topic id", "topic_no")                        \
  X(TopicName, "topic_name", Broker, Index, "mesh_no topic name", "topic_no")                  \
  X(TopicMember, "topic_member", Broker, Row, "topic_no member_no", "TopicMemberRow")          \
  X(TopicPost, "topic_post", Broker, Row, "topic_no ulid", "TopicPostRow: history of a topic") \
  X(State, "state", Broker, Row, "mesh_no key", "StateRow: shared key and value")              \
  X(Memory, "memory", Broker, Row, "mesh_no memory id", "MemoryRow")                           \
  X(Skill, "skill", Broker, Row, "mesh_no name", "SkillRow")                                   \
  X(Code, "code", Broker, Row, "sha256 of a short code", "CodeRow: the invite behind it")      \
  X(HttpNonce, "http_nonce", Broker, Index, "ms, sha256 of key and nonce", "member_no")

enum class TableId : std::uint8_t {
#define CM_TABLE_NAME(name, ...) k##name,
  CM_TABLES(CM_TABLE_NAME)
#undef CM_TABLE_NAME
      kCount
};
constexpr std::size_t kTableCount = static_cast<std::size_t>(TableId::kCount);

struct TableInfo {
  const char* name;
  std::uint8_t roles;  // bit per Role
  bool is_index;
};
const TableInfo& info_of(TableId table) noexcept;

constexpr std::size_t kKeyBytesMax = 511;  // LMDB's compiled-in limit
constexpr std::size_t kIndexValueMax = 32;

// ---------------------------------------------------------------------------------------------
// Keys. A Key is a small buffer on the stack; bytes() lives as long as it.

class Key {
 public:
  Key& add(Bytes part) noexcept;
  Key& add(std::string_view part) noexcept { return add(as_bytes(part)); }
  Key& add_u8(std::uint8_t value) noexcept;
  Key& add_u32(std::uint32_t value) noexcept;
  Key& add_u64(std::uint64_t value) noexcept;
  Key& add(const Ulid& id) noexcept { return add(Bytes(id.bytes)); }
  Bytes bytes() const noexcept { return {data_.data(), size_}; }

 private:
  std::array<std::uint8_t, kKeyBytesMax> data_;
  std::size_t size_ = 0;
};

using KeyBytes = std::array<std::uint8_t, 32>;  // an ed25519 public key

// A recipient's queue: a member's or a session's, by its number.
enum class MailboxKind : std::uint8_t { kMember = 0, kSession = 1 };
struct MailboxId {
  MailboxKind kind = MailboxKind::kMember;
  std::uint32_t no = 0;  // member_no, or BindingRow::session_no
  friend bool operator==(const MailboxId&, const MailboxId&) = default;
  std::uint64_t bits() const noexcept { return (static_cast<std::uint64_t>(kind) << 32) | no; }
};

Key ulid_key(const Ulid& id) noexcept;
Key u32_key(std::uint32_t no) noexcept;
Key text_key(std::string_view text) noexcept;
Key u32_bytes_key(std::uint32_t no, Bytes rest) noexcept;
Key presence_key(std::uint32_t mesh_no, MailboxKind kind, const KeyBytes& key) noexcept;
Key hello_key(std::uint64_t timestamp_ms, Bytes signature) noexcept;
Key delivery_key(MailboxId mailbox, std::uint8_t priority, const Ulid& message) noexcept;
Key delivery_prefix(MailboxId mailbox, std::uint8_t priority) noexcept;
Key receipt_key(const Ulid& message, MailboxId mailbox) noexcept;
Key pair_key(std::uint32_t first, std::uint32_t second) noexcept;
Key topic_post_key(std::uint32_t topic_no, const Ulid& message) noexcept;
Key known_peer_prefix(std::string_view mesh_id, std::string_view name_folded) noexcept;
Key known_peer_key(std::string_view mesh_id, std::string_view name_folded,
                   const KeyBytes& member) noexcept;
// design/delivery.md promise 5: (mesh, sender, client or broker id, recipient).
Key inbox_dedupe_key(std::string_view mesh_id, std::string_view sender, std::string_view id,
                     const KeyBytes& recipient) noexcept;

struct DeliveryKeyParts {
  MailboxId mailbox;
  std::uint8_t priority = 0;
  Ulid message;
};
constexpr std::size_t kDeliveryKeyBytes = 1 + 4 + 1 + 16;
bool parse_delivery_key(Bytes key, DeliveryKeyParts& parts) noexcept;
bool parse_ulid_key(Bytes key, Ulid& id) noexcept;
bool parse_receipt_key(Bytes key, Ulid& message, MailboxId& mailbox) noexcept;

// ---------------------------------------------------------------------------------------------
// Rows: a fixed part, then `kTexts` byte strings. `text` views live until the next write to the
// table (store/store.h). Kind and schema bytes are in the head of each encoded row.

// kFixedBefore, kTextsBefore: what a row of the schema byte before this one has; 0: there is none.
template <class FixedPart, std::uint8_t kRowKind, std::size_t kTextCount, std::uint8_t kSchema = 1,
          std::size_t kFixedBefore = 0, std::size_t kTextsBefore = 0>
struct Row {
  static_assert((kSchema == 1) == (kFixedBefore == 0) && kFixedBefore <= sizeof(FixedPart) &&
                kTextsBefore <= kTextCount);
  using Fixed = FixedPart;
  static constexpr std::uint8_t kKind = kRowKind;
  static constexpr std::uint8_t kRowSchema = kSchema;
  static constexpr std::size_t kTexts = kTextCount;
  static constexpr std::size_t kBeforeFixed = kFixedBefore;
  static constexpr std::size_t kBeforeTexts = kTextsBefore;
  FixedPart fixed{};
  std::array<std::string_view, kTextCount> text{};
};

struct MetaFixed {
  std::uint64_t number = 0;
};
enum MetaText { kMetaValue, kMetaTexts };
using MetaRow = Row<MetaFixed, 1, kMetaTexts>;

// --- daemon ---

enum class OutboxStatus : std::uint8_t { kPending, kInflight, kDone, kDead, kAborted, kCount };
enum class Priority : std::uint8_t { kNow, kNext, kLow, kCount };

struct OutboxFixed {
  OutboxStatus status = OutboxStatus::kPending;
  Priority priority = Priority::kNext;
  std::uint8_t has_session = 0;  // sender_session is set: drains over that session only
  std::uint8_t is_foreign = 0;   // done, and the broker seems to have the id from a store before
  std::uint32_t attempts = 0;
  std::uint32_t payload_bytes = 0;
  std::uint32_t pad1 = 0;
  std::uint64_t enqueued_ms = 0;
  std::uint64_t next_attempt_ms = 0;  // wall clock; informative, the work table has the deadline
  std::uint64_t delivered_ms = 0;
  std::uint64_t aborted_ms = 0;
  std::array<std::uint8_t, 32> request_fingerprint{};
  std::array<std::uint8_t, 32> wire_fingerprint{};
  KeyBytes sender_session{};
  std::uint64_t ended_ms = 0;  // when it became terminal; 0: open, or ended before schema 3
};
static_assert(sizeof(OutboxFixed) == 152);
enum OutboxText {
  kOutboxClientId,
  kOutboxMesh,  // mesh id
  kOutboxTarget,
  kOutboxLastError,
  kOutboxBrokerId,
  kOutboxAbortedBy,
  kOutboxSupersededBy,  // client_message_id of the row that took its place
  kOutboxSupersedes,    // client_message_id of the row whose place it took
  kOutboxTexts
};
using OutboxRow = Row<OutboxFixed, 2, kOutboxTexts, 2, 144, 7>;

struct OutboxBodyFixed {
  std::array<std::uint8_t, 24> nonce{};
};
enum OutboxBodyText { kBodyPayload, kBodyCiphertext, kBodyReplyTo, kOutboxBodyTexts };
using OutboxBodyRow = Row<OutboxBodyFixed, 3, kOutboxBodyTexts>;

// What stays of a terminal outbox row, so that its id names one request for good.
struct TombstoneFixed {
  OutboxStatus status = OutboxStatus::kDone;
  std::uint8_t dropped = 0;  // 1: an operator dropped it before its time
  std::uint8_t pad0[6] = {};
  std::uint64_t enqueued_ms = 0;
  std::uint64_t ended_ms = 0;
  std::uint64_t shrunk_ms = 0;
  std::array<std::uint8_t, 32> request_fingerprint{};
};
static_assert(sizeof(TombstoneFixed) == 64);
enum TombstoneText {
  kTombstoneClientId,
  kTombstoneMesh,  // mesh id
  kTombstoneBrokerId,
  kTombstoneReason,
  kTombstoneSupersededBy,
  kTombstoneSupersedes,
  kTombstoneTexts
};
using TombstoneRow = Row<TombstoneFixed, 26, kTombstoneTexts>;
// How the reason of a row begins whose bytes were damaged.
constexpr std::string_view kCorruptReason = "corrupt: ";

struct InboxFixed {
  std::uint64_t received_ms = 0;
  std::uint64_t created_ms = 0;  // at the broker; 0 if it did not say
  std::uint64_t seen_ms = 0;     // 0: unread
  Priority priority = Priority::kNext;
  MailboxKind recipient_kind = MailboxKind::kMember;
  std::uint8_t body_missing = 0;  // 1: body is null, kInboxReason says why
  std::uint8_t has_member = 0;    // 1: sender_member is proved by the box that it made
  std::uint8_t plaintext = 0;     // 1: it came unencrypted, as broadcasts, groups and topics do
  std::uint8_t told =
      0;  // 1 + ReportLevel that went with the first ack; 0: no receipt went with it
  std::uint8_t pad0[2] = {};
  KeyBytes sender_member{};  // as the broker said; zero if it did not
  KeyBytes recipient{};
};
static_assert(sizeof(InboxFixed) == 96);
enum InboxText {
  kInboxClientId,
  kInboxBrokerId,
  kInboxMesh,    // mesh id
  kInboxSender,  // hex key, or "system" or "webhook:<name>"
  kInboxSenderName,
  kInboxBody,
  kInboxTopic,
  kInboxReplyTo,
  kInboxSubtype,
  kInboxReason,
  kInboxTexts
};
using InboxRow = Row<InboxFixed, 4, kInboxTexts>;

struct KnownPeerFixed {
  std::uint64_t first_seen_ms = 0;
  std::uint64_t last_seen_ms = 0;
  std::uint64_t bound_ms = 0;  // first use: the name names this key from then on; 0 if not bound
  KeyBytes member{};
};
enum KnownPeerText { kKnownPeerName, kKnownPeerTexts };
using KnownPeerRow = Row<KnownPeerFixed, 5, kKnownPeerTexts>;

// --- broker ---

struct MeshFixed {
  std::uint64_t created_ms = 0;
  std::array<std::uint8_t, 32> owner_public{};
  std::array<std::uint8_t, 64> owner_secret{};
};
enum MeshText { kMeshIdText, kMeshSlugText, kMeshName, kMeshTexts };
using MeshRow = Row<MeshFixed, 6, kMeshTexts>;

enum class MemberRole : std::uint8_t { kMember = 0, kAdmin = 1 };
struct MemberFixed {
  std::uint32_t mesh_no = 0;
  MemberRole role = MemberRole::kMember;
  std::uint8_t pad0[3] = {};
  std::uint64_t joined_ms = 0;
  std::uint64_t revoked_ms = 0;  // 0: in force
  KeyBytes key{};
};
static_assert(sizeof(MemberFixed) == 56);
enum MemberText { kMemberId, kMemberName, kMemberTexts };
using MemberRow = Row<MemberFixed, 7, kMemberTexts>;

struct InviteFixed {
  std::uint32_t mesh_no = 0;
  std::uint32_t uses = 0;
  std::uint32_t uses_max = 1;
  MemberRole role = MemberRole::kMember;
  std::uint8_t pad0[3] = {};
  std::uint64_t created_ms = 0;
  std::uint64_t expires_ms = 0;
  std::uint64_t revoked_ms = 0;
};
static_assert(sizeof(InviteFixed) == 40);
enum InviteText { kInviteId, kInviteTexts };
using InviteRow = Row<InviteFixed, 8, kInviteTexts>;

// design/presence.md, "Binding": the member to which a session key belongs.
struct BindingFixed {
  std::uint32_t member_no = 0;
  std::uint32_t session_no = 0;  // names its mailbox
  std::uint64_t first_ms = 0;
  std::uint64_t last_ms = 0;
  std::uint8_t proved = 0;  // 1: by session_hello; 0: claimed by a plain hello
  std::uint8_t pad0[7] = {};
};
static_assert(sizeof(BindingFixed) == 32);
using BindingRow = Row<BindingFixed, 9, 0>;

enum class PeerStatus : std::uint8_t { kIdle, kWorking, kDnd, kCount };
struct PresenceFixed {
  std::uint32_t member_no = 0;
  std::uint8_t online = 0;
  std::uint8_t proved = 0;  // 1: by session_hello
  std::uint8_t hidden = 0;
  PeerStatus status = PeerStatus::kIdle;  // as set by hand; hooks are not durable
  std::uint64_t connected_ms = 0;
  std::uint64_t lease_until_ms = 0;  // wall clock; meaningful while offline
  std::int64_t pid = 0;
};
static_assert(sizeof(PresenceFixed) == 32);
enum PresenceText {
  kPresenceId,
  kPresenceSessionId,
  kPresenceName,
  kPresenceCwd,
  kPresenceHostname,
  kPresencePeerType,
  kPresenceChannel,
  kPresenceModel,
  kPresenceSummary,
  kPresenceGroups,   // JSON array of {name, role}
  kPresenceProfile,  // JSON object of avatar, title, bio, capabilities
  kPresenceTexts
};
using PresenceRow = Row<PresenceFixed, 10, kPresenceTexts>;

struct MessageFixed {
  std::uint32_t mesh_no = 0;
  std::uint32_t sender_member_no = 0;
  std::uint64_t created_ms = 0;
  Priority priority = Priority::kNext;
  std::uint8_t has_fingerprint = 0;
  std::uint8_t sender_is_session = 0;
  std::uint8_t many = 0;  // 1: so many recipients that its sender is not told of each as it happens
  std::uint8_t pad0[4] = {};
  std::array<std::uint8_t, 32> fingerprint{};  // wire form, as the sender supplied it
  KeyBytes sender_key{};                       // session key, else member key
};
static_assert(sizeof(MessageFixed) == 88);
enum MessageText {
  kMessageClientId,
  kMessageTarget,
  kMessageNonce,       // base64, as sent
  kMessageCiphertext,  // base64, as sent
  kMessageReplyTo,
  kMessageTexts
};
using MessageRow = Row<MessageFixed, 11, kMessageTexts>;

struct DedupeFixed {
  Ulid message;
  std::array<std::uint8_t, 32> fingerprint{};
  std::uint64_t first_seen_ms = 0;
  std::uint64_t expires_ms = 0;  // 0: permanent
  std::uint8_t has_fingerprint = 0;
  std::uint8_t history_available = 1;
  std::uint8_t pad0[6] = {};
};
static_assert(sizeof(DedupeFixed) == 72);
using DedupeRow = Row<DedupeFixed, 12, 0>;

struct DeliveryFixed {
  std::uint32_t recipient_member_no = 0;
  std::uint32_t sender_member_no = 0;
  std::uint64_t stored_ms = 0;
  std::uint64_t lane = 0;   // hash of (sender key, target, priority)
  std::uint32_t bytes = 0;  // of the push it will become, for quotas and windows
  std::uint32_t pad0 = 0;
};
static_assert(sizeof(DeliveryFixed) == 32);
using DeliveryRow = Row<DeliveryFixed, 13, 0>;

// kQueued: one recipient of several, so that all of them can be listed before they have it.
enum class ReceiptState : std::uint8_t { kDelivered = 1, kExpired = 2, kQueued = 3 };
// How far a recipient lets senders see the chain; design/delivery.md, promise 8.
enum class ReportLevel : std::uint8_t { kHanded, kStored, kSeen, kCount };
struct ReceiptFixed {
  ReceiptState state = ReceiptState::kDelivered;
  ReportLevel level =
      ReportLevel::kHanded;  // of the recipient that acknowledged; rows of before: 0
  std::uint8_t pad0[2] = {};
  std::uint32_t recipient_member_no = 0;
  std::uint64_t stored_ms = 0;
  std::uint64_t ended_ms = 0;    // delivered (handed) or expired
  std::uint64_t claimed_ms = 0;  // pushed to the connection that acknowledged it; 0: not known
  std::uint64_t seen_ms = 0;     // 0: not reported
  std::uint64_t signed_ms = 0;   // the recipient's clock, as in its signature; 0: unsigned
};
static_assert(sizeof(ReceiptFixed) == 48);
enum ReceiptText {
  kReceiptReason,
  kReceiptSignature,  // 64 raw bytes or empty; the sender checks it, the broker does not
  kReceiptTexts
};
using ReceiptRow = Row<ReceiptFixed, 14, kReceiptTexts, 2, 24, 1>;

// spec/enrollment.md §8: who may change which of its own fields; all by default.
constexpr std::uint8_t kEditName = 1, kEditRoleTag = 2, kEditGroups = 4, kEditMessageMode = 8;
constexpr std::uint8_t kEditAll = 15;
// Two live control planes of one member that both know the policy: which of them stays.
enum class ConcurrencyPolicy : std::uint8_t { kPreferNewest, kPreferOldest, kAllow, kCount };
struct MeshSettingsFixed {
  std::uint64_t deleted_ms = 0;  // 0: in use
  std::uint8_t self_editable = kEditAll;
  std::uint8_t has_policy = 0;                                       // somebody set self_editable
  ConcurrencyPolicy concurrency = ConcurrencyPolicy::kPreferNewest;  // rows of before have a 0 here
  std::uint8_t pad0[5] = {};
};
static_assert(sizeof(MeshSettingsFixed) == 16);
using MeshSettingsRow = Row<MeshSettingsFixed, 15, 0>;

enum class MessageMode : std::uint8_t { kPush, kInbox, kOff, kCount };
struct MemberProfileFixed {
  std::uint16_t permissions = 0;  // bit per permission, core/broker/http/authority.h
  std::uint8_t has_permissions = 0;
  MessageMode message_mode = MessageMode::kPush;
  std::uint32_t pad0 = 0;
};
static_assert(sizeof(MemberProfileFixed) == 8);
enum MemberProfileText { kProfileRoleTag, kProfileGroups, kMemberProfileTexts };
using MemberProfileRow = Row<MemberProfileFixed, 16, kMemberProfileTexts>;

struct PeerStateFixed {
  std::uint64_t last_seen_ms = 0;
  std::uint64_t messages_in = 0;  // sums over all presences that ended
  std::uint64_t messages_out = 0;
  std::uint64_t tool_calls = 0;
  std::uint64_t errors = 0;
  std::uint8_t hidden = 0;
  std::uint8_t pad0[7] = {};
};
static_assert(sizeof(PeerStateFixed) == 48);
enum PeerStateText { kStateGroups, kStateProfile, kStateSummary, kStateName, kPeerStateTexts };
using PeerStateRow = Row<PeerStateFixed, 17, kPeerStateTexts>;

// The newest proof of a session key; shown to peers, who verify it (design/delivery.md).
struct AttestationFixed {
  std::uint64_t expires_ms = 0;
  std::uint32_t member_no = 0;
  std::uint32_t version = 1;
};
static_assert(sizeof(AttestationFixed) == 16);
enum AttestationText { kAttestationJson, kAttestationTexts };
using AttestationRow = Row<AttestationFixed, 18, kAttestationTexts>;

enum class TopicVisibility : std::uint8_t { kPublic, kPrivate, kDm, kCount };
enum class TopicRole : std::uint8_t { kLead, kMember, kObserver, kCount };
struct TopicFixed {
  std::uint32_t mesh_no = 0;
  std::uint32_t created_by = 0;  // member_no
  std::uint64_t created_ms = 0;
  TopicVisibility visibility = TopicVisibility::kPublic;
  std::uint8_t pad0[7] = {};
};
static_assert(sizeof(TopicFixed) == 24);
enum TopicText { kTopicIdText, kTopicNameText, kTopicDescription, kTopicTexts };
using TopicRow = Row<TopicFixed, 19, kTopicTexts>;

struct TopicMemberFixed {
  std::uint64_t joined_ms = 0;
  std::uint64_t last_read_ms = 0;  // 0: never
  TopicRole role = TopicRole::kMember;
  std::uint8_t pad0[7] = {};
};
static_assert(sizeof(TopicMemberFixed) == 24);
using TopicMemberRow = Row<TopicMemberFixed, 20, 0>;

struct TopicPostFixed {
  std::uint32_t body_version = 1;
  std::uint32_t pad0 = 0;
};
static_assert(sizeof(TopicPostFixed) == 8);
using TopicPostRow = Row<TopicPostFixed, 21, 0>;

struct StateFixed {
  std::uint64_t updated_ms = 0;
};
enum StateText { kStateKey, kStateValue, kStateUpdatedBy, kStateTexts };  // value: JSON
using StateRow = Row<StateFixed, 22, kStateTexts>;

struct MemoryFixed {
  std::uint64_t remembered_ms = 0;
  std::uint32_t member_no = 0;
  std::uint32_t pad0 = 0;
};
static_assert(sizeof(MemoryFixed) == 16);
enum MemoryText { kMemoryContent, kMemoryTags, kMemoryBy, kMemoryTexts };  // tags: JSON array
using MemoryRow = Row<MemoryFixed, 23, kMemoryTexts>;

struct SkillFixed {
  std::uint64_t created_ms = 0;
  std::uint32_t member_no = 0;
  std::uint32_t pad0 = 0;
};
static_assert(sizeof(SkillFixed) == 16);
enum SkillText {
  kSkillName,
  kSkillDescription,
  kSkillInstructions,
  kSkillTags,      // JSON array
  kSkillManifest,  // JSON, or empty
  kSkillAuthor,
  kSkillTexts
};
using SkillRow = Row<SkillFixed, 24, kSkillTexts>;

struct CodeFixed {
  std::uint64_t expires_ms = 0;
};
enum CodeText { kCodeToken, kCodeTexts };
using CodeRow = Row<CodeFixed, 25, kCodeTexts>;

}  // namespace cm::store
