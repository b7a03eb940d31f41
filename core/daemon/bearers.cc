// bearers.cc — tokens of the local HTTP API and their credit.
// Not:    the replies (gates.cc).
#include "core/daemon/bearers.h"

#include <algorithm>
#include <utility>

namespace cm::daemon {
namespace {

constexpr std::uint64_t kBeforeMs = 60'000;
constexpr std::uint64_t kWhole = 1'000;      // parts of one request in a credit
constexpr std::size_t kShownBytesMax = 256;  // our tokens have 43 characters
constexpr std::uint64_t kMismatchLogMs = 1'000;
constexpr std::uint64_t kCreditedMsMax = 86'400'000;

}  // namespace

void Bearers::set(const crypto::Hash32& sha256, std::uint64_t now) noexcept {
  before_ = owner_;
  if (before_.until_ms != 0) before_.until_ms = now + kBeforeMs;
  owner_ = {sha256, UINT64_MAX, kWhole * limits_.ipc_rate_burst, now};
}

Bearers::Who Bearers::who(std::string_view shown, std::uint64_t now) const noexcept {
  if (shown.size() > kShownBytesMax) return Who::kStranger;  // not worth a hash
  const crypto::Hash32 hash = crypto::sha256(as_bytes(shown));
  // Both are compared, so that the time does not tell which one was near.
  const bool is_owner = crypto::equal_in_constant_time(hash, owner_.sha256);
  const bool is_before = crypto::equal_in_constant_time(hash, before_.sha256);
  if (is_owner && owner_.until_ms != 0) return Who::kOwner;
  return is_before && before_.until_ms > now ? Who::kOwnerBefore : Who::kStranger;
}

bool Bearers::take_credit(Who who, std::uint64_t now) noexcept {
  Token& token = who == Who::kOwner ? owner_ : who == Who::kOwnerBefore ? before_ : strangers_;
  const std::uint64_t most = kWhole * limits_.ipc_rate_burst;
  const std::uint64_t passed = std::min<std::uint64_t>(now - token.credited_ms, kCreditedMsMax);
  token.credit = std::min(most, token.credit + passed * limits_.ipc_rate_per_second);
  token.credited_ms = now;
  if (token.credit < kWhole) return false;
  token.credit -= kWhole;
  return true;
}

std::uint64_t Bearers::note_mismatch(std::uint64_t now) noexcept {
  ++mismatches_;
  if (now < logged_until_ms_) return 0;
  logged_until_ms_ = now + kMismatchLogMs;
  return std::exchange(mismatches_, 0);
}

}  // namespace cm::daemon
