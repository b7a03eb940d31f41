// envelope_fuzz.cc — frames that were read can be written, and read as the same again.
// Holds:  parse, write, parse: equal fields; write, parse, write: equal text.
// Why:    a broker stores what it read and writes it to others: nothing may change on the way.
// Not:    the bounds of each field (frame_fuzz.cc).
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_checks.h"
#include "fuzz/wire_names.h"

namespace cm::wire {
namespace {

struct Context {
  JsonParser parser;
  ScratchArena scratch;
};

void check_equal(const Send& left, const Send& right) {
  CHECK(left.id == right.id && left.client_message_id == right.client_message_id);
  CHECK(left.has_fingerprint == right.has_fingerprint && left.fingerprint == right.fingerprint);
  CHECK(left.target == right.target && left.priority == right.priority);
  CHECK(left.nonce == right.nonce && left.ciphertext == right.ciphertext);
  CHECK(left.reply_to == right.reply_to);
}

void check_equal(const Push& left, const Push& right) {
  CHECK(left.message_id == right.message_id && left.mesh_id == right.mesh_id);
  CHECK(left.sender_pubkey == right.sender_pubkey && left.sender_key == right.sender_key);
  CHECK(left.sender_member == right.sender_member);
  CHECK(left.sender_member_id == right.sender_member_id);
  CHECK(left.sender_name == right.sender_name && left.target == right.target);
  CHECK(left.priority == right.priority && left.nonce == right.nonce);
  CHECK(left.ciphertext == right.ciphertext && left.created_ms == right.created_ms);
  CHECK(left.client_message_id == right.client_message_id);
  CHECK(left.has_fingerprint == right.has_fingerprint && left.fingerprint == right.fingerprint);
  CHECK(left.topic == right.topic && left.reply_to == right.reply_to);
  CHECK(left.subtype == right.subtype && left.event == right.event);
  CHECK(left.event_data == right.event_data);
}

void check_equal(const Hello& left, const Hello& right) {
  CHECK(left.mesh_id == right.mesh_id && left.member_id == right.member_id);
  CHECK(left.pubkey_text == right.pubkey_text && left.signature_text == right.signature_text);
  CHECK(left.session_pubkey_text == right.session_pubkey_text);
  CHECK(left.session_id == right.session_id && left.display_name == right.display_name);
  CHECK(left.cwd == right.cwd && left.hostname == right.hostname && left.model == right.model);
  CHECK(left.peer_type == right.peer_type && left.channel == right.channel);
  CHECK(left.timestamp_ms == right.timestamp_ms && left.pid == right.pid);
  CHECK(left.receipts == right.receipts);
}

void check_equal(const ClientAck& left, const ClientAck& right) {
  CHECK(left.client_message_id == right.client_message_id);
  CHECK(left.broker_message_id == right.broker_message_id);
  CHECK(left.has_receipt == right.has_receipt);
  CHECK(left.receipt.level == right.receipt.level && left.receipt.at_ms == right.receipt.at_ms);
  CHECK(left.receipt.is_signed == right.receipt.is_signed);
  CHECK(left.receipt.signature == right.receipt.signature);
}

void check_equal(const SeenReport& left, const SeenReport& right) {
  CHECK(left.message_id == right.message_id && left.at_ms == right.at_ms);
  CHECK(left.client_message_id == right.client_message_id);
}

void write_seen(const SeenReport& report, TextBuf& out) { write_seen_report(report, {}, out); }

void round_trip_receipts(Context& context, const BrokerFrame& frame) {
  const JsonNode* list = frame.tape.find("receipts");
  if (list == nullptr || list->type != JsonType::kArray) return;
  for (std::uint32_t at = frame.tape.first(*list); at < list->next; at = frame.tape.at(at).next) {
    LiveReceipt first;
    if (!parse_live_receipt(frame.tape, frame.tape.at(at), first)) continue;
    TextBuf text(context.scratch);
    JsonWriter json(text);
    write_live_receipt(first, json);
    JsonTape tape;
    CHECK(context.parser.parse(text.view(), context.scratch, tape));
    LiveReceipt second;
    CHECK(parse_live_receipt(tape, tape.root(), second));
    CHECK(first.message_id == second.message_id && first.state == second.state);
    CHECK(first.recipient == second.recipient && first.at_ms == second.at_ms);
    CHECK(first.is_signed == second.is_signed && first.signature == second.signature);
  }
}

// An ack has three forms, and each writes its own members: the text is compared alone.
void check_equal(const Ack& left, const Ack& right) {
  CHECK(left.id == right.id && left.message_id == right.message_id);
  CHECK(left.queued == right.queued && left.error == right.error);
}

void check_equal(const ErrorFrame& left, const ErrorFrame& right) {
  CHECK(left.code == right.code && left.message == right.message && left.id == right.id);
}

void check_equal(const HelloAck& left, const HelloAck& right) {
  CHECK(left.presence_id == right.presence_id);
  CHECK(left.member_display_name == right.member_display_name);
}

void write_hello_ack_90(const HelloAck& ack, TextBuf& out) { write_hello_ack(ack, 90'000, out); }

template <class T>
void round_trip(Context& context, const ClientFrame& frame, Status (*parse)(const ClientFrame&, T&),
                void (*write)(const T&, TextBuf&)) {
  T first;
  if (!parse(frame, first)) return;
  TextBuf text(context.scratch);
  write(first, text);
  ClientFrame again;
  CHECK(parse_client_frame(context.parser, text.view(), context.scratch, again));
  T second;
  CHECK(parse(again, second));
  check_equal(first, second);
  TextBuf text_again(context.scratch);
  write(second, text_again);
  CHECK(text.view() == text_again.view());
}

void round_trip_peers(Context& context, const BrokerFrame& frame) {
  const Result<const JsonNode*> peers = peers_of(frame);
  if (!peers) return;
  for (std::uint32_t index = frame.tape.first(**peers); index < (*peers)->next;
       index = frame.tape.at(index).next) {
    PeerEntry first;
    if (!parse_peer(frame.tape, frame.tape.at(index), first)) continue;
    TextBuf text(context.scratch);
    write_peer(first, text);
    JsonTape tape;
    CHECK(context.parser.parse(text.view(), context.scratch, tape));
    PeerEntry second;
    CHECK(parse_peer(tape, tape.root(), second));
    CHECK(first.pubkey == second.pubkey && first.member_pubkey == second.member_pubkey);
    CHECK(first.display_name == second.display_name && first.summary == second.summary);
    CHECK(first.connected_ms == second.connected_ms && first.cwd == second.cwd);
    CHECK(second.raw == text.view());
  }
}

}  // namespace
}  // namespace cm::wire

CM_FUZZ_JSON_MUTATOR(cm::fuzz::kWireNames, cm::fuzz::kFrameTypes)

CM_FUZZ_TARGET(envelope) {
  using namespace cm;
  using namespace cm::wire;
  static Context context;
  context.scratch.reset();
  ClientFrame frame;
  if (!parse_client_frame(context.parser, as_text({data, size}), context.scratch, frame)) return 0;
  round_trip<Send>(context, frame, parse_send, write_send);
  round_trip<Push>(context, frame, parse_push, write_push);
  round_trip<Hello>(context, frame, parse_hello, write_hello);
  round_trip<ClientAck>(context, frame, parse_client_ack, write_client_ack);
  round_trip<SeenReport>(context, frame, parse_seen_report, write_seen);
  round_trip<Ack>(context, frame, parse_ack, write_ack);
  round_trip<ErrorFrame>(context, frame, parse_error, write_error);
  round_trip<HelloAck>(context, frame, parse_hello_ack, write_hello_ack_90);
  round_trip_peers(context, frame);
  round_trip_receipts(context, frame);
  return 0;
}
