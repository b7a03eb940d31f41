// retention.h — where the nightly job stands: what expires, what is pruned, what hangs on nothing.
// Owns:   Retention, a position in one table after another and the counts of this run.
// Holds:  copied at each commit: an abandoned iteration goes back to the copy and does its share
//         again. Nothing of it is durable but the time of the last run (row of kMeta).
// Source: design/delivery.md, "Broker: accept", "Queue"; spec/wire.md §11.3, "Retention".
// Not:    the work itself (retention.cc); undelivered rows, which end by the hour (queue.cc).
#pragma once

#include <cstdint>
#include <vector>

namespace cm::broker {

// In this order; each walks one table in key order, a share in an iteration.
enum class RetentionPhase : std::uint8_t {
  kIdle,
  kDedupe,      // rows past their retention are erased
  kHistory,     // messages past theirs, with their receipts and posts; the dedupe row says so
  kDeliveries,  // from here on rows are only counted that hang on nothing
  kReceipts,
  kMessages,
  kDedupeRefs,
  kCount
};

struct Retention {
  RetentionPhase phase = RetentionPhase::kIdle;
  std::vector<std::uint8_t> after;  // last key that was looked at in this phase
  std::uint64_t looked = 0;
  std::uint64_t dedupe_expired = 0;
  std::uint64_t messages_pruned = 0;
  std::uint64_t orphan_deliveries = 0;  // of a message that is gone
  std::uint64_t orphan_receipts = 0;    // of a message that is gone
  std::uint64_t orphan_messages = 0;    // direct, with neither a delivery nor a receipt
  std::uint64_t orphan_dedupe = 0;      // promises a history that is gone; mended
};

}  // namespace cm::broker
