// budget.cc — token buckets and queue shares.
#include "core/broker/budget.h"

#include <algorithm>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/hash.h"

namespace cm::broker {
namespace {

constexpr std::uint64_t kMinuteMs = 60'000;
// What a token is divided into: a millisecond refills rate_per_minute of these, without a rest.
constexpr std::int64_t kParts = kMinuteMs;

std::uint64_t mark_of(std::string_view id) noexcept { return hash64(as_bytes(id)) | 1; }

}  // namespace

Budget::Budget(const Limits& limits)
    : limits_(limits), buckets_(&pool_), pairs_(&pool_), senders_(&pool_), mailboxes_(&pool_) {}

Budget::Bucket& Budget::bucket(std::uint32_t member_no, std::uint64_t mono_ms) {
  const auto [found, fresh] = buckets_.try_emplace(member_no);
  Bucket& bucket = found->second;
  const std::int64_t full = std::int64_t{limits_.rate_burst} * kParts;
  if (fresh) {
    bucket.parts = full;
    bucket.at_ms = mono_ms;
    bucket.window_ms = mono_ms;
    return bucket;
  }
  const auto passed = static_cast<std::int64_t>(std::min(mono_ms - bucket.at_ms, kMinuteMs));
  bucket.parts = std::min(full, bucket.parts + passed * limits_.rate_per_minute);
  bucket.at_ms = mono_ms;
  if (mono_ms - bucket.window_ms >= kMinuteMs) {
    bucket.window_ms = mono_ms;
    bucket.paid = {};
  }
  return bucket;
}

Budget::Payment* Budget::payment_of(Bucket& bucket, std::string_view id) noexcept {
  if (id.empty()) return nullptr;
  const std::uint64_t mark = mark_of(id);
  for (Payment& payment : bucket.paid) {
    if (payment.mark == mark) return &payment;
  }
  return nullptr;
}

bool Budget::may_send(std::uint32_t member_no, std::string_view id, std::uint32_t count,
                      std::uint64_t mono_ms) {
  if (limits_.rate_per_minute == 0) return true;
  Bucket& mine = bucket(member_no, mono_ms);
  if (mine.parts >= kParts) return true;
  const Payment* payment = payment_of(mine, id);
  return payment != nullptr && payment->count >= count;
}

void Budget::charge(std::uint32_t member_no, std::string_view id, std::uint32_t count,
                    Outcome outcome, std::uint64_t mono_ms) {
  if (limits_.rate_per_minute == 0) return;
  Bucket& mine = bucket(member_no, mono_ms);
  Payment* payment = payment_of(mine, id);
  const std::uint32_t paid = payment == nullptr ? 0 : payment->count;
  mine.parts -= std::int64_t{count - std::min(count, paid)} * kParts;
  if (id.empty()) return;
  if (outcome == Outcome::kAccepted) {
    if (payment != nullptr) *payment = {};
    return;
  }
  if (payment == nullptr) {
    payment = &mine.paid[mine.next_paid];
    mine.next_paid = (mine.next_paid + 1) % kRemembered;
  }
  *payment = {mark_of(id), std::max(count, paid)};
}

bool Budget::in_debt(std::uint32_t member_no, std::uint64_t mono_ms) {
  return limits_.rate_per_minute != 0 && bucket(member_no, mono_ms).parts < 0;
}

std::uint64_t Budget::wait_ms(std::uint32_t member_no) const noexcept {
  const auto found = buckets_.find(member_no);
  if (found == buckets_.end() || limits_.rate_per_minute == 0) return 0;
  const std::int64_t missing = kParts - found->second.parts;
  if (missing <= 0) return 0;
  return static_cast<std::uint64_t>(missing) / limits_.rate_per_minute + 1;
}

bool Budget::pair_has_room(std::uint32_t sender_no, std::uint64_t mailbox,
                           std::uint32_t bytes) const {
  const auto found = pairs_.find({sender_no, mailbox});
  if (found == pairs_.end()) {
    const auto mine = mailboxes_.find(sender_no);
    return mine == mailboxes_.end() || mine->second < limits_.queue_sender_mailboxes_max;
  }
  return found->second.rows < limits_.queue_pair_rows_max &&
         found->second.bytes + bytes <= limits_.queue_pair_bytes_max;
}

bool Budget::sender_has_room(std::uint32_t sender_no, std::uint64_t bytes,
                             std::size_t recipients) const {
  const auto found = senders_.find(sender_no);
  if (found == senders_.end()) return recipients <= 1 || bytes <= limits_.queue_sender_bytes_max;
  return found->second + bytes <= limits_.queue_sender_bytes_max;
}

void Budget::queued(std::uint32_t sender_no, std::uint64_t mailbox, std::uint32_t bytes) {
  Share& share = pairs_[{sender_no, mailbox}];
  if (++share.rows == 1) ++mailboxes_[sender_no];
  share.bytes += bytes;
  senders_[sender_no] += bytes;
  ++rows_;
}

void Budget::ended(std::uint32_t sender_no, std::uint64_t mailbox, std::uint32_t bytes) {
  const auto pair = pairs_.find({sender_no, mailbox});
  const auto sender = senders_.find(sender_no);
  CHECK(pair != pairs_.end() && pair->second.rows > 0 && pair->second.bytes >= bytes);
  CHECK(sender != senders_.end() && sender->second >= bytes && rows_ > 0);
  --rows_;
  pair->second.bytes -= bytes;
  if (--pair->second.rows == 0) {
    pairs_.erase(pair);
    const auto mine = mailboxes_.find(sender_no);
    CHECK(mine != mailboxes_.end() && mine->second > 0);
    if (--mine->second == 0) mailboxes_.erase(mine);
  }
  sender->second -= bytes;
  if (sender->second == 0) senders_.erase(sender);
}

void Budget::forget_queues() {
  pairs_.clear();
  senders_.clear();
  mailboxes_.clear();
  rows_ = 0;
}

}  // namespace cm::broker
