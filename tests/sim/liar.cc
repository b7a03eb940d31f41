// liar.cc — the attacks.
#include "tests/sim/liar.h"

#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "core/wire/client_frames.h"
#include "tests/sim/legacy_client.h"
#include "tests/sim/session_hello.h"

namespace cm::sim {
namespace {

constexpr std::string_view kMalformed[] = {
    "{\"type\":\"send\"}",
    "{\"type\":\"no_such_type\",\"_reqId\":\"x\"}",
    "{\"type\":",
    "[]",
    "{\"type\":\"client_ack\"}",
    "{\"type\":\"send\",\"id\":\"y\",\"targetSpec\":7}",
    "{\"type\":\"message_status\",\"messageId\":\"0\"}",
};

}  // namespace

Liar::Liar(Wires& wires, Identity who, std::vector<DaemonNode>& victims)
    : wires_(wires), who_(std::move(who)), victims_(victims) {
  const auto secret = slab_.store_seed(who_.seed);
  CHECK(secret);
  secret_ = *secret;
}

void Liar::start(std::uint64_t now_ms) {
  wires_.network.link_open(who_.number, kMember, now_ms);
  wires_.network.link_open(who_.number, kStranger, now_ms);
  act_at_ms_ = now_ms + wires_.rng.below(2'000);
}

void Liar::leave(std::uint64_t now_ms) {
  gone_ = true;
  wires_.network.link_close(who_.number, kMember, now_ms);
  wires_.network.link_close(who_.number, kStranger, now_ms);
}

std::uint64_t Liar::wake_ms() const {
  if (gone_) return UINT64_MAX;
  return std::min(wires_.network.next_for_daemon(who_.number), act_at_ms_);
}

void Liar::send(std::uint64_t now_ms, LinkRef link, std::string_view frame) {
  wires_.network.link_send(who_.number, link, frame, now_ms);
}

void Liar::iterate(std::uint64_t now_ms) {
  if (gone_) return;
  std::vector<LinkInput> inputs;
  wires_.network.collect_for_daemon(who_.number, now_ms, SIZE_MAX, inputs);
  for (const LinkInput& input : inputs) {
    const bool stranger = input.link == kStranger;
    if (input.item.kind == ItemKind::kUp) {
      if (stranger) {
        act_as_stranger(now_ms);
      } else {
        send(now_ms, kMember,
             signed_hello(who_, slab_, secret_, clock_.wall(now_ms), "daemon-101"));
      }
    }
    if (input.item.kind == ItemKind::kDown && !stranger) open_ = false;
    if (input.item.kind != ItemKind::kText || !is_type(input.item.text, "hello_ack")) continue;
    if (!stranger) open_ = true;
    if (!stranger) continue;
    // A broker remembers hellos for as long as they are fresh by its clock. When that was set
    // forward and back again, one that it has forgotten is fresh once more: a known limit.
    if (!wires_.network.broker_clock_went_back) {
      wires_.oracle.breaks("a hello that is not its own is refused", "a stranger's");
    }
    wires_.network.link_close(who_.number, kStranger, now_ms);
    wires_.network.link_open(who_.number, kStranger, now_ms + 1'000);
  }
  if (act_at_ms_ > now_ms) return;
  act_at_ms_ = now_ms + wires_.rng.below(2'000);
  if (open_) act(now_ms);
}

void Liar::act_as_stranger(std::uint64_t now_ms) {
  const Relay& ear = wires_.network.relay();
  const std::uint64_t dice = wires_.rng.below(4);
  if (dice == 0 && wires_.plan.may(Fault::kBadSignature)) {
    wires_.counters.faults.add(Fault::kBadSignature);
    return send(now_ms, kStranger, broken_hello(now_ms));
  }
  if (dice == 1 && !ear.admitted_hellos().empty() && wires_.plan.may(Fault::kReplayedHello)) {
    wires_.counters.faults.add(Fault::kReplayedHello);
    const auto& hellos = ear.admitted_hellos();
    return send(now_ms, kStranger, hellos[wires_.rng.below(hellos.size())]);
  }
  if (dice == 2 && wires_.plan.may(Fault::kStrangerAck)) {
    wires_.counters.faults.add(Fault::kStrangerAck);
    return send(now_ms, kStranger, wrong_ack());
  }
  if (!wires_.plan.may(Fault::kGarbage)) return;
  wires_.counters.faults.add(Fault::kGarbage);
  send(now_ms, kStranger, kMalformed[wires_.rng.below(std::size(kMalformed))]);
}

// Of a victim, signed with the liar's key; a session that the victim never vouched for; or its own
// with a digit changed.
std::string Liar::broken_hello(std::uint64_t now_ms) {
  if (wires_.rng.chance(250)) {
    const Identity& victim = victims_[wires_.rng.below(victims_.size())].who();
    return session_hello(new_session(victim, who_.number), victim, who_, clock_.wall(now_ms));
  }
  Identity claimed =
      wires_.rng.chance(600) ? victims_[wires_.rng.below(victims_.size())].who() : who_;
  const bool own = claimed.number == who_.number;
  std::string hello = signed_hello(claimed, slab_, secret_, clock_.wall(now_ms), "daemon-101");
  if (own) {
    const std::string_view signature = member_of_frame(hello, "signature");
    char& digit = hello[static_cast<std::size_t>(signature.data() - hello.data()) + 9];
    digit = digit == '0' ? '1' : '0';
  }
  return hello;
}

std::string Liar::wrong_ack() {
  Rng& rng = wires_.rng;
  const Relay& ear = wires_.network.relay();
  wire::ClientAck ack;
  std::string client_id = "id-never-sent";
  std::string broker_id;
  if (!ear.client_ids().empty()) client_id = ear.client_ids()[rng.below(ear.client_ids().size())];
  if (!ear.broker_ids().empty() && rng.chance(700)) {
    broker_id = ear.broker_ids()[rng.below(ear.broker_ids().size())];
  } else if (rng.chance(300)) {
    broker_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  }
  ack.client_message_id = client_id;
  ack.broker_message_id = broker_id;
  ScratchArena scratch(4 * 1024);
  TextBuf text(scratch);
  wire::write_client_ack(ack, text);
  return std::string(text.view());
}

// To a victim, under an id of a victim's or its own, with a fingerprint that need not fit.
void Liar::send_rubbish(std::uint64_t now_ms) {
  Rng& rng = wires_.rng;
  const Relay& ear = wires_.network.relay();
  ScratchArena scratch(4 * 1024);
  std::string id = "liar-" + std::to_string(rng.chance(300) ? rng.below(sent_ + 1) : sent_++);
  const bool stolen = !ear.client_ids().empty() && rng.chance(400);
  if (stolen) id = ear.client_ids()[rng.below(ear.client_ids().size())];
  wires_.counters.faults.add(stolen || sent_ > 0 ? Fault::kStolenId : Fault::kGarbage);
  TextBuf body(scratch);
  crypto::base64_append(as_bytes(std::string(kLiarMark) + " " + std::to_string(rng.below(9))),
                        body);
  wire::Send send_frame;
  send_frame.id = id;
  send_frame.client_message_id = id;
  send_frame.has_fingerprint = rng.chance(700);
  send_frame.fingerprint[0] = static_cast<std::uint8_t>(rng.below(3));
  send_frame.target = victims_[rng.below(victims_.size())].who().key_hex;
  send_frame.priority = static_cast<wire::Priority>(rng.below(3));
  send_frame.nonce = rng.chance(300) ? "" : "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
  send_frame.ciphertext = body.view();
  TextBuf text(scratch);
  wire::write_send(send_frame, text);
  send(now_ms, kMember, text.view());
}

void Liar::act(std::uint64_t now_ms) {
  const std::uint64_t dice = wires_.rng.below(10);
  if (dice < 4 && wires_.plan.may(Fault::kWrongClientAck)) {
    wires_.counters.faults.add(Fault::kWrongClientAck);
    return send(now_ms, kMember, wrong_ack());
  }
  if (dice < 7 && wires_.plan.may(Fault::kStolenId)) return send_rubbish(now_ms);
  if (!wires_.plan.may(Fault::kGarbage)) return;
  wires_.counters.faults.add(Fault::kGarbage);
  send(now_ms, kMember, kMalformed[wires_.rng.below(std::size(kMalformed))]);
}

}  // namespace cm::sim
