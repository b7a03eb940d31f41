// client_frames.h — frames from a client (daemon, session, CLI) to a broker: parse and write.
// Owns:   ClientFrame (type and correlation), Hello, SessionHello, Send, ClientAck and their
// writers. Holds:  unknown fields are ignored (version 1); every known one is bounded and checked
// before a
//         handler sees it. Views live until the scratch arena is reset. A parser overwrites the
//         whole struct: nothing of an earlier frame stays in it.
// Source: docs/PROTOCOL.md §2, §4, §5.2; spec/wire.md §2.1, §2.2, §5.1, §5.5; spec/observed.md for
//         the order of members.
// Not:    judging what a frame asks for (core/broker).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/crypto/keys.h"
#include "core/wire/fields.h"
#include "core/wire/json_tape.h"
#include "core/wire/priority.h"
#include "core/wire/receipts.h"

namespace cm::wire {

// What every frame has. `request_id` is `_reqId`, echoed on the reply when it was given.
struct ClientFrame {
  JsonTape tape;
  std::string_view type;
  std::string_view request_id;
  ScratchArena* scratch = nullptr;  // of the tape; texts that are shown may be copied there
};
Status parse_client_frame(JsonParser& parser, std::string_view text, ScratchArena& scratch,
                          ClientFrame& frame);

struct Hello {
  std::string_view mesh_id;
  std::string_view member_id;
  std::string_view pubkey_text;  // as sent: its shape is judged in the order of wire.md §2.1
  std::string_view signature_text;
  std::string_view session_pubkey_text;  // empty when absent
  std::string_view session_id;
  std::string_view display_name;
  std::string_view cwd;
  std::string_view hostname;
  std::string_view peer_type;
  std::string_view channel;
  std::string_view model;
  std::int64_t timestamp_ms = 0;
  bool timestamp_valid = false;  // it was a finite number
  std::int64_t pid = 0;
  std::int64_t receipts = 0;  // version of the feature that it knows (§5.5); 0: none
  // [{name, role?}] or ["name"], checked entry by entry by who stores them; null when absent.
  const JsonNode* groups = nullptr;
};
Status parse_hello(const ClientFrame& frame, Hello& hello);
// Members in the order that reference daemons send them.
void write_hello(const Hello& hello, TextBuf& out);

// A session's hello: `common` has its meshId, sessionId, sessionPubkey (the texts as sent) and the
// rest of a hello; pubkey and memberId of a hello are empty in it.
struct SessionHello {
  Hello common;
  std::string_view parent_pubkey_text;
  std::string_view parent_member_id;       // empty when absent
  const JsonNode* attestation = nullptr;   // an object, or null
  std::string_view attested_session_text;  // of the attestation, as sent
  std::string_view attested_parent_text;
  std::string_view attestation_signature_text;
  std::int64_t attestation_expires_ms = 0;
  bool attestation_expires_valid = false;
  std::int64_t attestation_version = 1;
  const JsonNode* allowed_caps = nullptr;  // an array of texts; required in version 2
};
Status parse_session_hello(const ClientFrame& frame, SessionHello& hello);

struct Send {
  std::string_view id;                 // echoed as ack.id
  std::string_view client_message_id;  // empty: not deduped
  crypto::Hash32 fingerprint{};
  bool has_fingerprint = false;
  std::string_view target;
  Priority priority = Priority::kNext;
  std::string_view nonce;       // base64, as sent
  std::string_view ciphertext;  // base64, as sent
  std::string_view reply_to;
  std::uint32_t body_version = 1;  // of topic posts
};
Status parse_send(const ClientFrame& frame, Send& send);
void write_send(const Send& send, TextBuf& out);

struct ClientAck {
  std::string_view client_message_id;
  std::string_view broker_message_id;
  bool has_receipt = false;  // additive, from who knows receipts
  AckReceipt receipt;
};
Status parse_client_ack(const ClientFrame& frame, ClientAck& ack);
void write_client_ack(const ClientAck& ack, TextBuf& out);

// {"type":"list_peers"} with its correlation.
void write_list_peers(std::string_view request_id, TextBuf& out);

}  // namespace cm::wire
