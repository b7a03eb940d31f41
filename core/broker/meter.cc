// meter.cc — what frames and lists over HTTP cost their member, beside messages: tokens, or bytes.
// Holds:  a member's replies leak away at member_reply_bytes_max a second. Who has as many of them
//         outstanding asks again later; what is being answered may go beyond.
// Why:    a list is long and a request for it short: without a bound one member's requests fill
//         the memory and the time of all meshes. What is written and told costs what messages do.
// Limits: member_reply_bytes_max; rate_*.
// Source: docs/PROTOCOL.md §1.2.
// Not:    messages (budget.h), how much one iteration does (Broker::iteration_full()).
#include <algorithm>

#include "core/broker/broker.h"

namespace cm::broker {

bool Broker::may_pay(ClientRef client, const Frame& frame, Cost cost) {
  if (cost == Cost::kFree) return true;
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  if (cost == Cost::kToken) {
    if (!tables_.budget.may_send(member_no, {}, 1, env_.mono_ms)) {
      refuse_rate(client, frame, "rate_limit: you send faster than the mesh allows; slow down",
                  tables_.budget.wait_ms(member_no));
      return false;
    }
    tables_.budget.charge(member_no, {}, 1, Budget::Outcome::kAccepted, env_.mono_ms);
    return true;
  }
  MemberMirror& asker = *member(member_no);
  const std::uint64_t used = replies_of(asker);
  if (used < limits_.member_reply_bytes_max) return true;
  const std::uint64_t excess = used - limits_.member_reply_bytes_max + 1;
  refuse_rate(client, frame, "rate_limit: you ask for too much at once; ask again later",
              excess * 1000 / limits_.member_reply_bytes_max + 1);
  return false;
}

std::uint64_t Broker::replies_of(MemberMirror& asker) noexcept {
  constexpr std::uint64_t kHourMs = 3'600'000;
  const std::uint64_t passed = std::min(env_.mono_ms - asker.reply_at_ms, kHourMs);
  const std::uint64_t leaked = passed * limits_.member_reply_bytes_max / 1000;
  if (leaked > 0) {
    asker.reply_bytes -= std::min(asker.reply_bytes, leaked);
    asker.reply_at_ms = env_.mono_ms;
  }
  return asker.reply_bytes;
}

// One of the members that have this key: the same person asks for all of them.
std::uint32_t Broker::payer_of(const Authority& authority) {
  if (!authority.key) return 0;
  const auto [first, last] = tables_.meshes_of_key.equal_range(*authority.key);
  for (auto entry = first; entry != last; ++entry) {
    if (const std::uint32_t member_no = member_of(entry->second, *authority.key)) {
      return member_no;
    }
  }
  return 0;
}

void Broker::charge_reply(ClientRef client, std::size_t bytes) {
  MemberMirror& asker = *member(tables_.clients.get<kClientMemberNo>(client));
  replies_of(asker);
  asker.reply_bytes += bytes;
}

// As debt: what was told is told.
void Broker::charge_fan_out(ClientRef client, std::size_t receivers) {
  tables_.budget.charge(tables_.clients.get<kClientMemberNo>(client), {},
                        static_cast<std::uint32_t>(receivers / kFanOut), Budget::Outcome::kAccepted,
                        env_.mono_ms);
}

// No sign of a broken peer: it does not count with its errors, and nothing is closed.
void Broker::refuse_rate(ClientRef client, const Frame& frame, std::string_view message,
                         std::uint64_t retry_after_ms) {
  metrics_.add(Metric::kBrokerRateRefusals);
  TextBuf text(scratch());
  wire::write_error({"rate_limit", message, frame.request_id, retry_after_ms}, text);
  send_text(client, text);
}

}  // namespace cm::broker
