// broker_frames.h — frames from a broker to a client: parse and write.
// Owns:   BrokerFrame, HelloAck, Ack, Push, PeerEntry, ErrorFrame and their writers.
// Holds:  a client reads what reference brokers send, too: optional members stay optional, and a
//         correlation id may stand in `id` instead of `_reqId` (spec/wire.md §1.2).
// Source: docs/PROTOCOL.md §2.3, §4, §5.1; spec/wire.md §2.3, §5.2, §5.4, §6; design/delivery.md,
//         "Broker: accept".
// Not:    what a daemon does with them (core/daemon).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/crypto/keys.h"
#include "core/wire/client_frames.h"

namespace cm::wire {

// Any frame of a broker: type and correlation; `tape` for the rest.
using BrokerFrame = ClientFrame;

struct HelloAck {
  std::string_view presence_id;
  std::string_view member_display_name;
  std::string_view broker_version = {};  // empty: it did not say, or said no plain word
  std::int64_t receipts = 0;             // version of the feature from now on; 0: none
  // Written only:
  bool has_profile = true;  // absent when a session comes back
  std::string_view role_tag = {};
  std::string_view groups = {};  // JSON array; empty: none
  std::string_view message_mode = "push";
  std::string_view policy = {};    // JSON object of meshPolicy, or empty
  std::string_view restored = {};  // members of a JSON object, without braces, or empty
  bool has_services = true;        // a member's hello, not a session's
};
Status parse_hello_ack(const BrokerFrame& frame, HelloAck& ack);
void write_hello_ack(const HelloAck& ack, std::uint32_t lease_ttl_ms, TextBuf& out);

// The answer to a send, in the three forms of spec/decisions.md: accepted, duplicate, refused.
struct Ack {
  std::string_view id;          // of the send; empty if it had none
  std::string_view message_id;  // empty when refused
  bool queued = false;
  bool duplicate = false;
  bool is_dedupe_answer = false;  // history_available and first_seen_at are set
  bool history_available = true;
  bool recipient_offline = false;
  std::uint64_t first_seen_ms = 0;
  std::string_view error;  // text for people and for existing clients
  std::string_view code;   // stable code (core/base/errors.h); empty from reference brokers
  std::string_view conflict;
  std::string_view fingerprint_prefix;  // 16 hex digits
  std::uint64_t retry_after_ms = 0;     // of a rate limit; 0: not said
};
Status parse_ack(const BrokerFrame& frame, Ack& ack);
void write_ack(const Ack& ack, TextBuf& out);

struct Push {
  std::string_view message_id;
  std::string_view mesh_id;
  std::string_view sender_pubkey;               // hex, or "system", or "webhook:<name>"
  std::optional<crypto::PublicKey> sender_key;  // when sender_pubkey is a key
  std::optional<crypto::PublicKey> sender_member;
  std::string_view sender_member_id;
  std::string_view sender_name;
  std::string_view target;  // additive: the spec the sender addressed
  Priority priority = Priority::kNext;
  std::string_view nonce;
  std::string_view ciphertext;
  std::uint64_t created_ms = 0;
  std::string_view client_message_id;
  crypto::Hash32 fingerprint{};
  bool has_fingerprint = false;
  std::string_view topic;
  std::string_view reply_to;
  std::string_view subtype;  // "system", "webhook", "reminder" or empty
  std::string_view event;
  std::string_view event_data;               // raw JSON object, or empty
  std::uint32_t body_version = 1;            // of topic posts
  std::string_view sender_attestation = {};  // additive: JSON object, or empty
};
// Optional members that cannot be used are left out; only id and sender make it malformed.
Status parse_push(const BrokerFrame& frame, Push& push);
void write_push(const Push& push, TextBuf& out);

struct PeerEntry {
  crypto::PublicKey pubkey{};  // routing key
  crypto::PublicKey member_pubkey{};
  std::string_view display_name;
  std::string_view status;
  std::string_view summary;
  std::string_view session_id;
  std::uint64_t connected_ms = 0;
  std::string_view cwd;
  std::string_view peer_role;  // control-plane, session, service
  std::string_view hostname;
  std::string_view peer_type;
  std::string_view channel;
  std::string_view model;
  std::string_view raw;  // the whole entry as sent; empty when writing
  // Written only, as JSON: empty ones are left out (groups: an empty array).
  std::string_view groups = {};
  std::string_view profile = {};
  std::string_view stats = {};
  std::string_view attestation = {};   // additive: proof of a session key
  std::string_view allowed_caps = {};  // additive: array, or null for all
  bool visible = true;
};
// One entry of peers_list.peers. Entries that do not parse are skipped by the caller, counted.
Status parse_peer(const JsonTape& tape, const JsonNode& node, PeerEntry& peer);
// The `peers` array of the frame; kMalformed when it is none.
Result<const JsonNode*> peers_of(const BrokerFrame& frame);
void write_peer(const PeerEntry& peer, TextBuf& out);  // one object, no comma

struct ErrorFrame {
  std::string_view code;
  std::string_view message;
  std::string_view id;               // `_reqId`, or the `id` of brokers that misplace it
  std::uint64_t retry_after_ms = 0;  // of rate_limit; written only
};
Status parse_error(const BrokerFrame& frame, ErrorFrame& error);
void write_error(const ErrorFrame& error, TextBuf& out);

}  // namespace cm::wire
