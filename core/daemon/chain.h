// chain.h — what is known of a message that was sent from here, and of a receipt about it.
// Owns:   Daemon::Sent, Signed, Verdict.
// Holds:  for one request only: views point into the answer of the broker.
// Source: design/delivery.md (the chain of receipts).
// Not:    the rules (chain.cc).
#pragma once

#include "core/daemon/daemon.h"

namespace cm::daemon {

// What this machine sent under an id: an outbox row or its tombstone.
struct Daemon::Sent {
  Ulid id;
  std::string client_id, mesh_id, target, broker_id, last_error, superseded_by;
  store::OutboxStatus status = store::OutboxStatus::kPending;
  bool is_tombstone = false;
  bool is_foreign = false;  // OutboxFixed::is_foreign
  std::uint32_t attempts = 0;
  std::uint64_t enqueued_ms = 0, stored_ms = 0, next_attempt_ms = 0;
  std::optional<crypto::Hash32> ciphertext;  // SHA-256; while the body is here
};

struct Daemon::Signed {                   // by a recipient, as its broker tells it
  std::string_view signature, recipient;  // hex
  std::uint64_t handed_ms = 0;
};

struct Daemon::Verdict {
  std::string_view word;  // valid, invalid, unsigned, unchecked
  std::string_view why;   // of unchecked
};

}  // namespace cm::daemon
