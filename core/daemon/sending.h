// sending.h — what is known of a message before it has a row in the outbox.
// Owns:   Daemon::Outgoing, KnownRow, Candidate, KnownName; filled by targets.cc and resolve.cc,
//         read by send.cc and requeue.cc.
// Holds:  for one request only: views point into the request or the iteration's arena.
// Not:    the row (store/schema.h).
#pragma once

#include "core/daemon/daemon.h"

namespace cm::daemon {

struct Daemon::Outgoing {
  MeshRef mesh;
  Wait wait = Wait::kNo;  // a list of the broker is needed first
  crypto::Hash32 fingerprint{};
  bool encrypted = true;
  PublicKey target{};                    // when encrypted
  std::string target_text;               // as the broker gets it
  std::optional<PublicKey> bind_member;  // who is named by bind_name from now on
  std::string bind_name;                 // the name that was used, or that the key bears
  crypto::Nonce nonce{};
  std::string_view nonce_text;
  std::string_view ciphertext;
};

// What the row of an id, or its tombstone, says of it.
struct Daemon::KnownRow {
  OutboxState state = OutboxState::kNone;
  OutboxState answers_as = OutboxState::kNone;  // of a tombstone: the state in which it ended
  crypto::Hash32 fingerprint{};
  std::string_view mesh, target, broker_id, reason;  // target: empty of a tombstone
};

struct Daemon::Candidate {
  MeshRef mesh;
  std::string name;
  PublicKey member{};
};

struct Daemon::KnownName {
  std::vector<PublicKey> recent;  // members of whom it is the newest name within 30 days
  std::optional<PublicKey> bound;
};

}  // namespace cm::daemon
