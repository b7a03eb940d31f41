// frame_fuzz.cc — any bytes as a frame, through every parser of both directions.
// Holds:  the tape is well-formed; what a parser lets through is within its bounds; what it does
//         not is kMalformed and names a field.
// Not:    writing frames (envelope_fuzz.cc).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "core/wire/limits.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_checks.h"
#include "fuzz/wire_names.h"

namespace cm::wire {
namespace {

void check_field_refusal(const Status& status) {
  fuzz::check_refusal(status);
  CHECK(status.error().detail.starts_with("field '"));
}

void check_subtree(const JsonTape& tape, std::uint32_t parent) {
  const JsonNode& node = tape.at(parent);
  CHECK(node.next > parent && node.next <= tape.size());
  if (node.type != JsonType::kObject && node.type != JsonType::kArray) {
    CHECK(node.next == parent + 1 && node.count == 0);
    return;
  }
  CHECK(node.text.front() == (node.type == JsonType::kObject ? '{' : '['));
  std::uint32_t count = 0;
  for (std::uint32_t index = tape.first(node); index < node.next; index = tape.at(index).next) {
    CHECK(tape.at(index).next <= node.next);
    if (node.type == JsonType::kObject)
      CHECK(tape.find(node, tape.at(index).key) == &tape.at(index));
    ++count;
  }
  CHECK_EQ(count, node.count);
  CHECK_IMPLIES(node.type == JsonType::kObject, count <= kJsonKeysMax);
}

// Raw texts of objects are what jcs and event data use: they must read as the same value.
void check_raw(JsonParser& parser, const JsonNode& node, ScratchArena& scratch) {
  JsonTape again;
  CHECK(parser.parse(node.text, scratch, again));
  CHECK(again.root().type == node.type && again.root().count == node.count);
}

void check_tape(JsonParser& parser, const JsonTape& tape, ScratchArena& scratch) {
  CHECK_EQ(tape.root().next, tape.size());
  const std::uint32_t most = std::min<std::uint32_t>(tape.size(), 64);
  for (std::uint32_t index = 0; index < most; ++index) {
    const JsonNode& node = tape.at(index);
    check_subtree(tape, index);
    fuzz::check_text(parser, node.key, scratch);
    if (node.type == JsonType::kText) fuzz::check_text(parser, node.text, scratch);
    if (node.type == JsonType::kObject || node.type == JsonType::kArray) {
      check_raw(parser, node, scratch);
    }
  }
}

void run_hello(const ClientFrame& frame) {
  Hello hello;
  if (const Status status = parse_hello(frame, hello); !status) return check_field_refusal(status);
  CHECK(!hello.mesh_id.empty() && hello.mesh_id.size() <= kTargetMax);
  CHECK(!hello.session_id.empty() && hello.session_id.size() <= kSessionIdMax);
  CHECK(hello.cwd.size() <= kPathMax && hello.display_name.size() <= kDisplayNameMax);
  for (const std::string_view text :
       {hello.session_id, hello.display_name, hello.cwd, hello.hostname, hello.peer_type,
        hello.channel, hello.model}) {
    CHECK(is_shown_text(text) && !has_control(text));
  }
  CHECK(hello.pid >= 0 && hello.timestamp_ms >= 0);
}

void run_send(const ClientFrame& frame) {
  Send send;
  if (const Status status = parse_send(frame, send); !status) return check_field_refusal(status);
  CHECK(!send.target.empty() && send.target.size() <= kTargetMax && !has_control(send.target));
  CHECK(send.nonce.empty() || crypto::nonce_parse(send.nonce));
  CHECK(send.ciphertext.size() % 4 == 0);
  CHECK(send.client_message_id.empty() || is_client_id(send.client_message_id));
  CHECK(send.reply_to.size() <= kReplyToMax && !has_control(send.reply_to));
  CHECK(send.id.size() <= kRequestIdMax);
}

void run_client_ack(const ClientFrame& frame) {
  ClientAck ack;
  if (const Status status = parse_client_ack(frame, ack); !status) {
    return check_field_refusal(status);
  }
  CHECK(!ack.client_message_id.empty() || !ack.broker_message_id.empty());
  CHECK(ack.client_message_id.size() <= kClientIdMax);
  CHECK(ack.broker_message_id.size() <= kRequestIdMax);
  CHECK(ack.receipt.at_ms <= static_cast<std::uint64_t>(kReceiptTimeMax));
  CHECK_IMPLIES(ack.has_receipt, ack.receipt.at_ms != 0);
}

void run_seen_report(const ClientFrame& frame) {
  SeenReport report;
  if (const Status status = parse_seen_report(frame, report); !status) {
    return check_field_refusal(status);
  }
  CHECK(!report.message_id.empty() && report.message_id.size() <= kRequestIdMax);
  CHECK(report.at_ms != 0 && report.at_ms <= static_cast<std::uint64_t>(kReceiptTimeMax));
}

void run_push(const BrokerFrame& frame) {
  Push push;
  if (const Status status = parse_push(frame, push); !status) return check_field_refusal(status);
  CHECK(!push.message_id.empty() && push.message_id.size() <= kRequestIdMax);
  CHECK(!push.sender_pubkey.empty() && push.sender_pubkey.size() <= kTargetMax);
  CHECK(push.sender_key.has_value() == is_hex_key(push.sender_pubkey));
  CHECK(push.event_data.empty() || push.event_data.front() == '{');
}

void run_peers(const BrokerFrame& frame) {
  const Result<const JsonNode*> peers = peers_of(frame);
  if (!peers) return;
  const JsonNode& list = **peers;
  for (std::uint32_t index = frame.tape.first(list); index < list.next;
       index = frame.tape.at(index).next) {
    PeerEntry peer;
    const Status status = parse_peer(frame.tape, frame.tape.at(index), peer);
    if (!status) {
      fuzz::check_refusal(status);
      continue;
    }
    CHECK(peer.display_name.size() <= kDisplayNameMax && peer.summary.size() <= kSummaryMax);
    CHECK(peer.raw.front() == '{' && peer.raw.back() == '}');
  }
}

void run_answers(const BrokerFrame& frame) {
  HelloAck hello_ack;
  if (const Status status = parse_hello_ack(frame, hello_ack); !status) {
    check_field_refusal(status);
  } else {
    CHECK(is_broker_id(hello_ack.presence_id));
  }
  Ack ack;
  if (const Status status = parse_ack(frame, ack); !status) {
    check_field_refusal(status);
  } else {
    CHECK(ack.error.size() <= kErrorTextMax && ack.message_id.size() <= kRequestIdMax);
  }
  ErrorFrame error;
  if (const Status status = parse_error(frame, error); !status) {
    check_field_refusal(status);
  } else {
    CHECK(error.id.size() <= kRequestIdMax && error.message.size() <= kErrorTextMax);
    CHECK_IMPLIES(!frame.request_id.empty(), error.id == frame.request_id);
  }
}

}  // namespace
}  // namespace cm::wire

CM_FUZZ_JSON_MUTATOR(cm::fuzz::kWireNames, cm::fuzz::kFrameTypes)

CM_FUZZ_TARGET(frame) {
  using namespace cm;
  using namespace cm::wire;
  static JsonParser parser;
  static ScratchArena scratch;
  scratch.reset();
  ClientFrame frame;
  const Status status = parse_client_frame(parser, as_text({data, size}), scratch, frame);
  if (!status) {
    fuzz::check_refusal(status);
    return 0;
  }
  CHECK(!frame.type.empty() && frame.type.size() <= kTypeMax);
  CHECK(frame.request_id.size() <= kRequestIdMax);
  check_tape(parser, frame.tape, scratch);
  run_hello(frame);
  run_send(frame);
  run_client_ack(frame);
  run_seen_report(frame);
  run_push(frame);
  run_peers(frame);
  run_answers(frame);
  return 0;
}
