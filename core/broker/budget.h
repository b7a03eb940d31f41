// budget.h — what a sender may still use: its rate, and its share of the queues.
// Owns:   Budget: a token bucket a member, bytes and rows a (sender, mailbox), bytes a sender.
// Holds:  charging is idempotent within a minute: a retry of an id that was refused costs nothing
//         more, so a slow recipient can not spend its sender's budget. What an id has paid counts
//         towards what it costs later and never buys more than that. Queue shares mirror the
//         delivery table; the rate lives in memory only and is full after a restart.
// Limits: core/base/limits.h: rate_*, queue_pair_*, queue_sender_*.
// Source: docs/PROTOCOL.md §4.2; design/delivery.md, "Broker: accept", Quotas; spec/decisions.md,
//         "Limits".
// Not:    who is asked (accept.cc), the recipients' own bounds (the mailbox table).
#pragma once

#include <array>
#include <cstdint>
#include <memory_resource>
#include <string_view>
#include <unordered_map>

#include "core/base/limits.h"

namespace cm::broker {

class Budget {
 public:
  explicit Budget(const Limits& limits);

  // --- rate, in messages; one recipient of a multicast is one message ---
  // True if the member has a token left, or its refused id has paid for `count` messages in this
  // minute. `id` may be empty: such a send is never remembered.
  bool may_send(std::uint32_t member_no, std::string_view id, std::uint32_t count,
                std::uint64_t mono_ms);
  // Takes `count` tokens, as debt if need be, less what the id has paid already. A refused id is
  // remembered; an accepted one is not, since its retries are answered as duplicates.
  enum class Outcome : std::uint8_t { kRefused, kAccepted };
  void charge(std::uint32_t member_no, std::string_view id, std::uint32_t count, Outcome outcome,
              std::uint64_t mono_ms);
  // Whether more was taken than there was, after what the time since then has refilled.
  bool in_debt(std::uint32_t member_no, std::uint64_t mono_ms);
  // Milliseconds until the member has a token again; 0 when it has one.
  std::uint64_t wait_ms(std::uint32_t member_no) const noexcept;

  // --- shares of the queues ---
  // Also false when the sender has rows at as many other recipients as it may.
  bool pair_has_room(std::uint32_t sender_no, std::uint64_t mailbox, std::uint32_t bytes) const;
  // `bytes` of all recipients. One row always fits into an empty share: else a message that is
  // larger than the share would be retried for ever.
  bool sender_has_room(std::uint32_t sender_no, std::uint64_t bytes, std::size_t recipients) const;
  void queued(std::uint32_t sender_no, std::uint64_t mailbox, std::uint32_t bytes);
  void ended(std::uint32_t sender_no, std::uint64_t mailbox, std::uint32_t bytes);
  void forget_queues();  // before they are rebuilt from the store

  // For verify_all(): rows over all pairs.
  std::uint64_t rows() const noexcept { return rows_; }

 private:
  static constexpr std::size_t kRemembered = 16;  // refused ids of a member
  struct Payment {
    std::uint64_t mark = 0;  // of the id; 0: an empty place
    std::uint32_t count = 0;
  };
  struct Bucket {
    std::int64_t parts = 0;       // of tokens, in 1/60,000; below 0 is debt
    std::uint64_t at_ms = 0;      // when that was true
    std::uint64_t window_ms = 0;  // start of the minute of `paid`
    std::array<Payment, kRemembered> paid{};
    std::uint32_t next_paid = 0;
  };
  struct Share {
    std::uint32_t rows = 0;
    std::uint64_t bytes = 0;
  };
  struct PairKey {
    std::uint32_t sender_no;
    std::uint64_t mailbox;
    friend bool operator==(const PairKey&, const PairKey&) = default;
  };
  struct PairHash {
    std::size_t operator()(const PairKey& key) const noexcept {
      return static_cast<std::size_t>((key.mailbox ^ (std::uint64_t{key.sender_no} << 40)) *
                                      0x9e3779b97f4a7c15ull);
    }
  };

  Bucket& bucket(std::uint32_t member_no, std::uint64_t mono_ms);
  static Payment* payment_of(Bucket& bucket, std::string_view id) noexcept;

  const Limits& limits_;
  // Nodes come from this pool: a queue that empties and fills again allocates nothing.
  std::pmr::unsynchronized_pool_resource pool_;
  std::pmr::unordered_map<std::uint32_t, Bucket> buckets_;
  std::pmr::unordered_map<PairKey, Share, PairHash> pairs_;
  std::pmr::unordered_map<std::uint32_t, std::uint64_t> senders_;
  std::pmr::unordered_map<std::uint32_t, std::uint32_t> mailboxes_;  // pairs of a sender
  std::uint64_t rows_ = 0;
};

}  // namespace cm::broker
