// json_shapes.cc — the shapes, in the order of the table of verbs.
#include "cli/json_shapes.h"

namespace cm::cli {
namespace {

struct Shape {
  std::string_view verb;
  std::string_view text;
};

#define CM_JOINED                                                                          \
  "{ok: bool, schema_version: text, slug: text, id: text, member_id: text, pubkey: text, " \
  "broker_url: text, already_joined: bool}"
#define CM_PEER                                                                                   \
  "{pubkey: text, memberPubkey: text, displayName: text, status: text, summary: text|null, "      \
  "groups: [{name: text, role?: text}], sessionId: text, connectedAt: text, cwd: text, "          \
  "peerRole: text, hostname?: text, peerType?: text, channel?: text, model?: text, stats?: any, " \
  "visible: bool, profile?: any, allowed_caps?: any, attestation?: any, mesh: text"
#define CM_PEER_ROW CM_PEER ", isSelf: bool, isThisSession: bool, role: text|null}"
#define CM_COMMAND_TOPIC "{ok: bool, topic: text, mesh: text, confirmed: bool}"
#define CM_PRESENCE \
  "ok: bool, applied: [text], meshes: [text], confirmed: bool, errors?: " CM_ERRORS "}"
#define CM_ERRORS "[{mesh: text, error: text, detail: text}]"
#define CM_STARTED "{ok: bool, detached: bool, pid: number, log: text|null, already_running?: bool}"
#define CM_FSCK "{problems: [{table: text, problem: text, key: text}], rows: number, ok: bool}"
#define CM_STORE_FILE "{ok: bool, file: text, bytes: number, rows: number}"
#define CM_HEALTH                                                                             \
  "{ok: bool, pid: number, brokers: {*: text}, connected: bool, queue_depth: number, "        \
  "inflight: number, uptime_s: number, schema_version: number, daemon_version: text, "        \
  "durability: text, store_accepts: bool, pressure: {level: text, pct: number, rows_pct: "    \
  "number, store_pct: number, tombstones_pct: number, takes_sends: bool}, secrets_locked: "   \
  "bool, meshes: [{slug: text, mesh_id: text, member_pubkey: text, broker_url: text, "        \
  "broker_version: text|null, state: text, last_error: text|null, negotiation: text, "        \
  "inline_bytes: number, outbox_max_age_hours: number, queue_depth: number, lag_ms: number, " \
  "features: {*: any}}], warnings?: [text]}"
#define CM_STATUS "{running: bool, pid?: number, health?: " CM_HEALTH "}"

constexpr Shape kShapes[] = {
    {"create", CM_JOINED},
    {"share",
     "{schema_version: text, url: text, code: text, expires_at: text, short_url: text, token: "
     "text, role: text, max_uses: number, emailed: bool, copied: bool}"},
    {"join", CM_JOINED},
    {"list",
     "{meshes: [{slug: text, name: text, id: text, member_id: text, pubkey: text, broker_url: "
     "text}]}"},
    {"info",
     "{slug: text, name: text, id: text, member_id: text, pubkey: text, broker_url: text, "
     "joined_at: text, daemon: bool, peers?: number, topics?: number}"},
    {"leave", "{ok: bool, left: text}"},
    {"rename", "{ok: bool, id: text, slug: text, name: text}"},
    {"delete", "{ok: bool, deleted: text}"},
    {"member list",
     "{ok: bool, members: [{id: text, pubkey: text, displayName: text, roleTag: text|null, groups: "
     "[{name: text, role?: text}], messageMode: text, permission: text, dashboardUserId: null, "
     "joinedAt: text, lastSeenAt: text|null, online: bool, sessionCount: number, revoked: bool}]}"},
    {"whoami",
     "{schema_version: text, signed_in: bool, config: text, meshes: [{slug: text, mesh_id: text, "
     "member_id: text, pubkey: text}], local: {meshes: number}, session: null}"},
    {"send",
     "{ok: bool, messageId: text, target: text, via: text, duplicate: bool, status: text, "
     "recipientOnline: bool|null, brokerMessageId?: text} | {ok: bool, fanout: [{pubkey: text, ok: "
     "bool, messageId?: text, error?: text, detail?: text}], via: text}"},
    {"inbox",
     "[{id: text, client_message_id: text, broker_message_id: text, mesh: text, topic: text|null, "
     "sender_pubkey: text, unattested?: bool, sender_name: text, name_conflict?: bool, subtype?: "
     "text, body: text|null, body_missing?: text, encrypted: bool, priority: text, received_at: "
     "text, reply_to_id: text|null, seen_at: text|null, receipt: text|null, receipt_due?: bool, "
     "recipient_pubkey: text, recipient_kind: text}]"},
    {"inbox flush", "{ok: bool, removed: number}"},
    {"inbox delete", "{ok: bool, id: text}"},
    {"outbox list",
     "{items: [{id: text, client_message_id: text, status: text, mesh: text, target: text, "
     "attempts: number, enqueued_at: text, next_attempt_at: text, delivered_at: text|null, "
     "broker_message_id: text|null, last_error: text|null, aborted_at: text|null, aborted_by: "
     "text|null, superseded_by: text|null, payload_bytes: number}]}"},
    {"outbox inspect",
     "{id: text, client_message_id: text, status: text, tombstone: bool, mesh: text, target: "
     "text|null, priority: text|null, sender_session_pubkey: text|null, reply_to_id: text|null, "
     "attempts: number|null, enqueued_at: text, next_attempt_at: text|null, delivered_at: "
     "text|null, ended_at: text|null, shrunk_at: text|null, dropped: bool, broker_message_id: "
     "text|null, last_error: text|null, aborted_at: text|null, aborted_by: text|null, "
     "superseded_by: text|null, supersedes: text|null, payload_bytes: number|null, "
     "ciphertext_bytes: number|null, request_fingerprint_prefix: text, lane: {position: number, "
     "length: number, waits_for: text, failures: number, due_in_ms: number}|null, chain: [{id: "
     "text, client_message_id: text, status: text, tombstone: bool, enqueued_at: text, ended_at: "
     "text|null, last_error: text|null, this: bool}]}"},
    {"outbox requeue",
     "{aborted_row_id: text, new_row_id: text, new_client_message_id: text, "
     "aborted_client_message_id: text, patched: bool, may_arrive_twice: bool}"},
    {"outbox drop", "{id: text, client_message_id: text, status: text, dropped: bool}"},
    {"outbox prune", "{shrunk: number, payload_bytes: number, dry_run: bool}"},
    {"message status",
     "{id: text, messageId: text, targetSpec: text, delivered: bool, deliveredAt: text|null, "
     "recipients: [{name: text, pubkey?: text, kind?: text, status: text, state?: text, reason?: "
     "text, storedAt?: text|null, endedAt?: text|null, recipientKey?: text, level?: text, "
     "handedAt?: text, handedSignature?: text, seenAt?: text|null, chain: [{state: text, at: "
     "text|null, reason?: text}], signature?: text, signatureWhy?: text}], mesh: text, outbox?: "
     "{client_message_id: text, status: text, attempts: number, mesh: text, target: text, "
     "accepted_at: text, stored_at: text|null, broker_message_id: text|null, last_error: "
     "text|null, tombstone?: bool}, errors?: " CM_ERRORS "}"},
    {"message explain",
     "{id: text, rows: [{where: text, table: text, key: text, says: text}], next: text, "
     "errors?: " CM_ERRORS "}"},
    {"peer list", "[" CM_PEER_ROW "] | [{mesh: text, peers: [" CM_PEER_ROW "]}]"},
    {"peer verify", "[{mesh: text, peer: text, pubkey: text, safetyNumber: text}]"},
    {"group join", "{group: text, role: text|null, mesh: text, confirmed: bool}"},
    {"group leave", "{group: text, left: bool, mesh: text, confirmed: bool}"},
    {"summary", "{summary: text, " CM_PRESENCE},
    {"visible", "{visible: bool, " CM_PRESENCE},
    {"status", CM_STATUS},
    {"status set", "{status: text, " CM_PRESENCE},
    {"profile",
     "[" CM_PEER
     "}] | {ok: bool, member?: {id: text, displayName: text, permission: text}, changes?: any, "
     "applied?: [text], meshes?: [text], confirmed?: bool, errors?: " CM_ERRORS "}"},
    {"topic create", "{id: text, name: text, created: bool, mesh: text}"},
    {"topic list",
     "{topics: [{id: text, name: text, description: text|null, visibility: text, memberCount: "
     "number, createdAt: text, mesh: text}], errors?: " CM_ERRORS ", truncated?: bool}"},
    {"topic join", CM_COMMAND_TOPIC},
    {"topic leave", CM_COMMAND_TOPIC},
    {"topic members",
     "{topic: text, members: [{memberId: text, pubkey: text, displayName: text, role: text, "
     "joinedAt: text, lastReadAt: text|null, mesh: text}], truncated?: bool}"},
    {"topic history",
     "{topic: text, messages: [{id: text, senderPubkey: text, senderName: text, senderMemberId?: "
     "text, nonce: text, ciphertext: text, bodyVersion: number, replyToId?: text|null, createdAt: "
     "text, mesh: text, body?: text}], truncated?: bool}"},
    {"topic tail",
     "{id: text, topic: text, senderName: text, senderPubkey: text, createdAt: text|null, "
     "replyToId: "
     "text|null, message: text|null}"},
    {"topic read", CM_COMMAND_TOPIC},
    {"topic post",
     "{messageId: text, historyId?: text, queueId?: text, topic: text, topicId: text, bodyVersion: "
     "number, mentions: [text], replyToId?: text, status: text, duplicate: bool, encrypted: bool}"},
    {"state get", "{key: text, value: any, updatedBy: text, updatedAt: text, mesh: text}"},
    {"state set", "{ok: bool, key: text, mesh: text, confirmed: bool}"},
    {"state list",
     "{entries: [{key: text, value: any, updatedBy: text, updatedAt: text, mesh: text}], "
     "errors?: " CM_ERRORS ", truncated?: bool}"},
    {"remember", "{id: text, content: text, tags: [text], mesh: text}"},
    {"recall",
     "{matches: [{id: text, content: text, tags: [text], rememberedBy: text, rememberedAt: text, "
     "mesh: text}], errors?: " CM_ERRORS ", truncated?: bool}"},
    {"forget", "{id: text, forgotten: bool}"},
    {"skill list",
     "{skills: [{name: text, description: text, tags: [text], author: text, createdAt: text, mesh: "
     "text}], errors?: " CM_ERRORS ", truncated?: bool}"},
    {"skill get",
     "{name: text, description: text, instructions: text, tags: [text], author: text, manifest: "
     "any, createdAt: text, mesh: text}"},
    {"daemon up", CM_STARTED},
    {"daemon down", "{ok: bool, stopped: bool, pid: number|null, reason?: text}"},
    {"daemon restart", CM_STARTED},
    {"daemon status", CM_STATUS},
    {"daemon version",
     "{daemon_version: text, ipc_api: text, ipc_minor: number, ipc_features: [text], "
     "schema_version: number, broker_features_negotiated: {*: [text]}}"},
    {"daemon reload",
     "{ok: bool, joined: number, left: number, changed: number, kept: number, "
     "settings_need_restart: [text]}"},
    {"daemon rotate-token", "{ok: bool, path: text, old_valid_s: number}"},
    {"daemon accept-host", "{ok: bool, fingerprint_prefix: text}"},
    {"daemon limits",
     "{bill: [{what: text, bytes: number}], total_bytes: number, budget_bytes: number, "
     "store_bound_bytes: number, limits: {*: number}}"},
    {"daemon fsck", CM_FSCK},
    {"daemon recover",
     "{ok: bool, dry_run: bool, problems: [{table: text, problem: text, key: text, action: text}], "
     "problem_count: number, lost_ids: [text], schema_was_damaged: bool, dump: text|null, renamed: "
     "text|null, rows: number}"},
    {"broker status", "{running: bool, pid?: number, url?: text, ready?: bool, health?: any}"},
    {"broker backup", CM_STORE_FILE},
    {"broker restore", CM_STORE_FILE},
    {"broker compact", CM_STORE_FILE},
    {"broker rotate-admin-token", "{ok: bool}"},
    {"broker fsck", CM_FSCK},
    {"config",
     "{path: text, exists: bool, place: {name: text, mark: text|null}, places: [{name: text, tcp: "
     "bool, keeps_host_identity: bool, why: text}], settings: [{name: text, value: text|null, "
     "origin: text, where: text|null, reloads: bool}]}"},
    {"config path", "{path: text, exists: bool}"},
    {"config check", "{ok: bool}"},
    {"doctor",
     "{ok: bool, failures: number, warnings: number, checks: [{check: text, status: text, detail: "
     "text, remedy: text|null}]}"},
    {"transport list",
     "{transports: [{path: text, loaded: bool, sha256: text, kind: text, version: text, abi: text, "
     "capabilities: text, max_message_bytes: number, refusal: text|null}]}"},
    {"version", "{version: text, ipc_api: text}"},
    {"help",
     "{verbs: [{verb: text, group: text, summary: text, usage: text, json: text|null, aliases: "
     "[text]}]}"},
};

}  // namespace

std::string_view json_shape(std::string_view verb_path) noexcept {
  for (const Shape& shape : kShapes) {
    if (shape.verb == verb_path) return shape.text;
  }
  return {};
}

}  // namespace cm::cli
