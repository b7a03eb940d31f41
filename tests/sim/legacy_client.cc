// legacy_client.cc — sending, taking, acknowledging.
#include "tests/sim/legacy_client.h"

#include "core/base/check.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/wire/client_frames.h"
#include "tests/sim/session_hello.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kRetryMs = 1'000;
constexpr std::uint64_t kAnswerMs = 20'000;

}  // namespace

std::string signed_hello(const Identity& who, crypto::SecretSlab& slab, crypto::SecretRef secret,
                         std::uint64_t wall_ms, std::string_view session_id) {
  ScratchArena scratch(4 * 1024);
  TextBuf canonical(scratch);
  CHECK(crypto::canonical_hello(who.mesh_id, who.member_id, who.key, wall_ms, canonical));
  const crypto::Signature signature = crypto::sign(slab, secret, canonical.view());
  TextBuf signature_text(scratch, 128);
  crypto::hex_append(signature, signature_text);
  wire::Hello hello;
  hello.mesh_id = who.mesh_id;
  hello.member_id = who.member_id;
  hello.pubkey_text = who.key_hex;
  hello.signature_text = signature_text.view();
  hello.session_id = session_id;
  hello.pid = 101;
  hello.cwd = "/sim";
  hello.hostname = "host";
  hello.peer_type = "ai";
  hello.channel = "claudemesh-daemon";
  hello.timestamp_ms = static_cast<std::int64_t>(wall_ms);
  TextBuf text(scratch, 1024);
  wire::write_hello(hello, text);
  return std::string(text.view());
}

LegacyClient::LegacyClient(Wires& wires, Identity who) : wires_(wires), who_(std::move(who)) {
  const auto secret = slab_.store_seed(who_.seed);
  CHECK(secret);
  secret_ = *secret;
  boxes_ = std::make_unique<crypto::BoxCache>(slab_, 8);
}

LegacyClient::LegacyClient(Wires& wires, Identity who, Identity parent)
    : LegacyClient(wires, std::move(who)) {
  parent_ = std::move(parent);
  const auto secret = slab_.store_seed(parent_->seed);
  CHECK(secret);
  parent_secret_ = *secret;
}

std::string LegacyClient::hello(std::uint64_t now_ms) {
  wires_.counters.faults.add(parent_ ? Fault::kSession : Fault::kLegacyClient);
  if (parent_) return session_hello(who_, *parent_, *parent_, clock_.wall(now_ms));
  return signed_hello(who_, slab_, secret_, clock_.wall(now_ms), "daemon-101");
}

void LegacyClient::start(std::uint64_t now_ms) {
  wires_.network.link_open(who_.number, link_, now_ms);
}

std::string LegacyClient::sealed(const Request& request) {
  ScratchArena scratch(16 * 1024);
  const auto target = crypto::public_key_parse(request.to);
  CHECK(target);
  const crypto::Nonce nonce = crypto::random_nonce(crypto::fill_random);
  TextBuf box(scratch, request.message.size() + 32);
  CHECK(boxes_->seal(secret_, *target, nonce, as_bytes(request.message), box));
  TextBuf text(scratch, box.size() * 4 / 3 + 8);
  crypto::base64_append(as_bytes(box.view()), text);
  TextBuf nonce_text(scratch, 40);
  crypto::base64_append(nonce, nonce_text);
  wire::Send send;
  send.id = request.id;
  send.client_message_id = request.id;
  send.target = request.to;
  send.priority = static_cast<wire::Priority>(request.priority);
  send.nonce = nonce_text.view();
  send.ciphertext = text.view();
  TextBuf frame(scratch, text.size() + 512);
  wire::write_send(send, frame);
  return std::string(frame.view());
}

void LegacyClient::send(std::uint32_t request) {
  outbox_.emplace_back(request, sealed(wires_.oracle.requests()[request]));
}

std::uint64_t LegacyClient::wake_ms() const {
  const std::uint64_t next = wires_.network.next_for_daemon(who_.number);
  return open_ && !outbox_.empty() ? std::min(next, std::max(try_at_ms_, now_ms_)) : next;
}

void LegacyClient::iterate(std::uint64_t now_ms) {
  now_ms_ = now_ms;
  std::vector<LinkInput> inputs;
  wires_.network.collect_for_daemon(who_.number, now_ms, SIZE_MAX, inputs);
  for (const LinkInput& input : inputs) {
    switch (input.item.kind) {
      case ItemKind::kUp:
        wires_.network.link_send(who_.number, link_, hello(now_ms), now_ms);
        break;
      case ItemKind::kDown: open_ = waiting_ = false; break;
      case ItemKind::kText: take(input.item.text, now_ms); break;
      case ItemKind::kBytes:
      case ItemKind::kGaveUp:
      case ItemKind::kBlocked:
      case ItemKind::kWritable: break;
    }
  }
  send_first(now_ms);
}

void LegacyClient::send_first(std::uint64_t now_ms) {
  if (!open_ || outbox_.empty() || now_ms < try_at_ms_) return;
  waiting_ = true;
  try_at_ms_ = now_ms + kAnswerMs;
  wires_.network.link_send(who_.number, link_, outbox_.front().second, now_ms);
}

void LegacyClient::take(const std::string& frame, std::uint64_t now_ms) {
  if (is_type(frame, "hello_ack")) {
    open_ = was_admitted_ = true;
    try_at_ms_ = now_ms;
    wires_.network.link_note(who_.number, link_, 1);
  } else if (is_type(frame, "push") && member_of_frame(frame, "subtype") != "system") {
    take_push(frame, now_ms);
  } else if (is_type(frame, "ack") && !outbox_.empty()) {
    const Request& first = wires_.oracle.requests()[outbox_.front().first];
    if (member_of_frame(frame, "id") != first.id) return;
    waiting_ = false;
    if (frame.find("\"queued\":true") == std::string::npos) {
      try_at_ms_ = now_ms + kRetryMs;
      return;
    }
    wires_.oracle.raw_accepted(first.number);
    outbox_.pop_front();
    try_at_ms_ = now_ms;
  }
}

void LegacyClient::take_push(const std::string& frame, std::uint64_t now_ms) {
  const std::string sender(member_of_frame(frame, "senderPubkey"));
  const std::string broker_id(member_of_frame(frame, "messageId"));
  std::string id(member_of_frame(frame, "client_message_id"));
  if (id.empty()) id = broker_id;
  if (inbox_.emplace(sender, id).second) {
    scratch_.reset();
    const auto key = crypto::public_key_parse(sender);
    const auto nonce = crypto::nonce_parse(member_of_frame(frame, "nonce"));
    const auto box = crypto::base64_decode(member_of_frame(frame, "ciphertext"), scratch_);
    TextBuf body(scratch_, 1024);
    const auto opens = [&](crypto::SecretRef secret) {
      return key && nonce && box &&
             static_cast<bool>(boxes_->open(secret, *key, *nonce, *box, body));
    };
    const std::string_view target = member_of_frame(frame, "targetSpec");
    const bool opened = opens(secret_) || (parent_ && opens(parent_secret_));
    // Nobody encrypts a multicast.
    const bool is_open = !opened && box && !target.empty() && !wire::is_hex_key(target);
    wires_.oracle.raw_received(who_.number, sender, id, opened || is_open,
                               is_open ? as_text(*box) : body.view());
  }
  wire::ClientAck ack;
  ack.client_message_id = id;
  ack.broker_message_id = broker_id;
  ScratchArena scratch(4 * 1024);
  TextBuf text(scratch);
  wire::write_client_ack(ack, text);
  wires_.network.link_send(who_.number, link_, text.view(), now_ms);
}

}  // namespace cm::sim
