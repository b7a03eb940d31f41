// errors.h — every operating error there is: one row gives exit code, HTTP status, wire code,
//            sentence and remedy.
// Owns:   enum Err and its table. All other texts about errors are derived from it.
// Holds:  wire codes never change once released (spec/wire.md §10, spec/cli.md §2).
// Not:    details of one occurrence (Error::detail in result.h).
#pragma once

#include <cstdint>
#include <string_view>

namespace cm {

// X(name, wire code, CLI exit code, HTTP status, what it means, what to do next)
#define CM_ERRORS(X)                                                                               \
  X(Ok, "ok", 0, 200, "done", "nothing to do")                                                     \
  X(Full, "full", 1, 429, "a table is at its configured limit",                                    \
    "wait for work to finish, or raise the limit shown by 'claudemesh daemon limits'")             \
  X(Malformed, "malformed", 3, 400, "the input is not of the expected form",                       \
    "correct the field named in the detail and send it again")                                     \
  X(Usage, "usage", 3, 400, "the command was not understood",                                      \
    "run 'claudemesh help' for the verbs and their flags")                                         \
  X(InvalidArgument, "invalid_argument", 3, 400, "a value is outside its range",                   \
    "use one of the values named in the detail")                                                   \
  X(TooBig, "payload_too_large", 3, 413, "the message is larger than the limit",                   \
    "shorten it, or split it into several messages")                                               \
  X(Unauthenticated, "unauthenticated", 2, 401, "no valid authority was shown",                    \
    "pass the admin token (--admin-token-file) or the local token named in the detail")            \
  X(Unauthorized, "unauthorized", 2, 401, "this key is not a member of the mesh",                  \
    "join the mesh again with a fresh invite")                                                     \
  X(Forbidden, "forbidden", 7, 403, "the request is not allowed",                                  \
    "do what the detail names, use another identity, or ask an admin of the mesh")                 \
  X(NotFound, "not_found", 5, 404, "there is no such object",                                      \
    "check the name, id or path in the detail; the list of its kind shows what there is")          \
  X(AlreadyExists, "already_exists", 6, 409, "the name is taken", "choose another name")           \
  X(AlreadyRunning, "already_running", 1, 409, "another process holds the store",                  \
    "use the running one, or stop it: 'claudemesh daemon down', or SIGTERM for a broker")          \
  X(IdReused, "idempotency_key_reused", 6, 409,                                                    \
    "this client_message_id already names another request",                                        \
    "send with a fresh id; the old one stays bound to its request")                                \
  X(OutboxOpen, "outbox_row_open", 6, 409, "the message is still on its way",                      \
    "wait for its end, or abort it with 'claudemesh outbox requeue <id>'")                         \
  X(OutboxEnded, "outbox_row_ended", 6, 409, "the message cannot be sent a second time",           \
    "send its text again under a fresh id, if it did not arrive")                                  \
  X(AmbiguousId, "ambiguous_id", 6, 409, "several messages match this id",                         \
    "use more of the id; 'claudemesh outbox list' shows whole ones")                               \
  X(PeerNameConflict, "peer_name_conflict", 6, 409, "the name does not name one known member",     \
    "compare keys with 'claudemesh peer verify'; sending to the full key binds the name to it")    \
  X(MeshRequired, "mesh_required", 3, 400, "several meshes are joined and none was named",         \
    "name one with --mesh or the field 'mesh'")                                                    \
  X(MeshNotAttached, "mesh_not_attached", 5, 404, "this mesh is not joined here",                  \
    "join it with 'claudemesh join <invite>'")                                                     \
  X(NoMesh, "no_mesh", 2, 400, "no mesh is joined yet",                                            \
    "run 'claudemesh create <name>' or 'claudemesh join <invite>' first")                          \
  X(Busy, "daemon_busy", 1, 429, "too many requests are in flight",                                \
    "wait a moment and send the same request again")                                               \
  X(TooManyStreams, "too_many_streams", 1, 429, "too many event streams are open",                 \
    "close one of the streams")                                                                    \
  X(TooManyRequests, "too_many_requests", 1, 429, "this token asks faster than its limit",         \
    "wait for the seconds that Retry-After names, then go on more slowly")                         \
  X(SessionUnknown, "session_unknown", 2, 401, "this session token is unknown or has expired",     \
    "register the session again, or ask without a session token")                                  \
  X(PortInUse, "address_in_use", 1, 409, "another program listens on this address",                \
    "stop it, or choose another port: --listen of a broker, --tcp-port or --no-tcp of a daemon")   \
  X(AmbiguousMesh, "ambiguous_mesh", 6, 409, "peers of several meshes match",                      \
    "name one of the candidates' meshes with --mesh or the field 'mesh'")                          \
  X(RateLimit, "rate_limit", 1, 429, "this member sends faster than the mesh allows",              \
    "slow down; the same id can be retried and costs nothing more")                                \
  X(QueueFull, "queue_full", 1, 429, "the recipient's queue is full",                              \
    "nothing: it is retried until the recipient has read or the message is too old")               \
  X(DiskFull, "insufficient_storage", 10, 507, "the store has reached its bound",                  \
    "free space with 'claudemesh inbox flush' or 'outbox prune', or raise what the detail names")  \
  X(BrokerFull, "broker_full", 10, 507, "the broker of this mesh has no room",                     \
    "ask its operator to raise store_bound_bytes or to lower history_days_max")                    \
  X(StoreFailed, "store_failed", 10, 503, "the store could not commit",                            \
    "nothing was changed; send the same request again")                                            \
  X(StoreBroken, "store_broken", 10, 500, "the disk reported an error; what is stored is unknown", \
    "check the disk, run 'claudemesh daemon fsck', then start again")                              \
  X(Corrupt, "corrupt", 10, 500, "a stored row does not match its checksum",                       \
    "keep a copy, then 'claudemesh daemon recover' (of a broker: 'broker fsck', then restore)")    \
  X(SchemaNewer, "schema_newer", 10, 500, "the store was written by a newer version",              \
    "run that newer version; this one leaves the store untouched")                                 \
  X(Io, "io_error", 10, 500, "the operating system refused a file or socket",                      \
    "check the path and the permissions named in the detail")                                      \
  X(Unavailable, "unavailable", 4, 503, "the service is not reachable",                            \
    "start it ('claudemesh daemon up' or 'claudemesh broker up') and try again")                   \
  X(BrokerAway, "broker_away", 4, 503, "the broker of this mesh cannot be reached",                \
    "'claudemesh daemon status' shows the link; it reconnects by itself, try again later")         \
  X(Transport, "transport", 4, 502, "the transport failed",                                        \
    "it reconnects by itself; 'claudemesh daemon status' shows the state")                         \
  X(TlsFailed, "tls_failed", 4, 502, "no trustworthy TLS connection could be made",                \
    "do what the detail says; --ca-file names a CA that this system does not know")                \
  X(Timeout, "timeout", 4, 504, "no answer came in time",                                          \
    "try again; 'claudemesh daemon status' shows whether the broker is connected")                 \
  X(NotImplementedByPeer, "unknown_message_type", 4, 501, "the peer does not know this message",   \
    "upgrade the peer")                                                                            \
  X(NoHello, "no_hello", 4, 400, "a frame came before the hello was accepted",                     \
    "send hello first and wait for hello_ack")                                                     \
  X(BadSessionPubkey, "bad_session_pubkey", 4, 400, "the session key is malformed or taken",       \
    "use 64 lower-case hex digits of a key that belongs to this member")                           \
  X(BadParentPubkey, "bad_parent_pubkey", 4, 400, "the member key of a session is malformed",      \
    "use 64 lower-case hex digits of the member's key")                                            \
  X(AttestationMismatch, "attestation_mismatch", 4, 400,                                           \
    "the attestation is missing or names other keys than the hello",                               \
    "attest the very session key that says hello, with the member's key")                          \
  X(ParentMemberMismatch, "parent_member_id_mismatch", 4, 400,                                     \
    "the member id does not belong to the member key", "send the id that join returned")           \
  X(Expired, "expired", 4, 400, "the attestation has expired",                                     \
    "mint a fresh attestation and connect again")                                                  \
  X(TtlTooLong, "ttl_too_long", 4, 400, "the attestation lasts longer than 24 hours",              \
    "mint one that ends within 24 hours")                                                          \
  X(Capacity, "capacity", 4, 503, "the mesh has as many connections as it allows",                 \
    "close idle sessions, or raise the broker's limit")                                            \
  X(TimestampSkew, "timestamp_skew", 4, 400, "the clocks differ by more than 60 seconds",          \
    "set the clock of this machine (NTP) and connect again")                                       \
  X(BadSignature, "bad_signature", 4, 400, "the signature does not verify",                        \
    "use the key that joined the mesh, and sign every hello freshly")                              \
  X(Undecryptable, "undecryptable", 4, 400, "the message cannot be decrypted with this key",       \
    "ask its sender to send it again; compare keys with 'claudemesh peer verify'")                 \
  X(Revoked, "revoked", 2, 403, "this member was removed from the mesh",                           \
    "ask an admin of the mesh")                                                                    \
  X(InviteBadSignature, "invite_bad_signature", 3, 400, "the invite was not signed by the mesh",   \
    "ask for a new invite and paste it unchanged")                                                 \
  X(MeshNotFound, "mesh_not_found", 5, 400, "the broker does not have this mesh",                  \
    "check that the invite is for this broker")                                                    \
  X(InviteOwnerMismatch, "invite_owner_mismatch", 3, 400, "the invite names another mesh owner",   \
    "ask for a new invite")                                                                        \
  X(InviteNotFound, "invite_not_found", 5, 400, "the broker does not know this invite",            \
    "ask for a new invite and paste it unchanged")                                                 \
  X(InviteMeshMismatch, "invite_mesh_mismatch", 3, 400, "the invite belongs to another mesh",      \
    "ask for a new invite")                                                                        \
  X(InviteRevoked, "invite_revoked", 3, 400, "the invite was withdrawn", "ask for a new invite")   \
  X(InviteExpired, "invite_expired", 3, 400, "the invite has expired", "ask for a new invite")     \
  X(ClaimUnsupported, "invite_v2_disabled", 3, 501, "this claim lacks the key of a member",        \
    "join with 'claudemesh join <link>', or claim with peer_pubkey")                               \
  X(InviteExhausted, "invite_exhausted", 3, 400, "the invite was already used",                    \
    "ask for a new invite; each one admits one member")                                            \
  X(HostMismatch, "host_fingerprint_mismatch", 4, 500, "this store was made on another machine",   \
    "accept it with 'claudemesh daemon accept-host', or join afresh")                              \
  X(PluginRefused, "plugin_refused", 10, 500, "a transport plugin was not loaded",                 \
    "correct what the detail names; 'claudemesh transport list' shows each file")                  \
  X(PluginDisabled, "plugin_disabled", 10, 502, "a transport plugin broke a rule of the ABI",      \
    "report it to the plugin's author with the rule named in the detail")                          \
  X(Unconfirmed, "unconfirmed", 7, 403, "this cannot be undone and was not confirmed",             \
    "answer the question in a terminal, or confirm it with the flag in the detail")                \
  X(PlaintextRefused, "plaintext_refused", 7, 403, "a listener off loopback needs TLS",            \
    "pass --tls-cert and --tls-key, or --insecure-plaintext behind a proxy that does TLS")         \
  X(UnsafeMode, "unsafe_permissions", 7, 500, "what holds secrets is in other users' hands",       \
    "check who changed it, then run the command in the detail")                                    \
  X(Internal, "internal", 8, 500, "an unexpected error", "report it with the log line of its time")

enum class Err : std::uint16_t {
#define CM_ERR_NAME(name, ...) k##name,
  CM_ERRORS(CM_ERR_NAME)
#undef CM_ERR_NAME
      kCount
};

struct ErrInfo {
  std::string_view wire_code;  // stable, machine-readable
  int exit_code;               // spec/cli.md §2
  int http_status;
  std::string_view meaning;  // a sentence without its full stop
  std::string_view remedy;   // what to do next
};

// For telling somebody of it; `make coverage` counts which were told.
const ErrInfo& info_of(Err code) noexcept;

// The same row, for who prints or checks the whole table and tells nobody.
const ErrInfo& row_of(Err code) noexcept;

// The code whose wire text is `code`, or kInternal. For errors that a peer reports.
Err err_of_wire_code(std::string_view code) noexcept;

}  // namespace cm
