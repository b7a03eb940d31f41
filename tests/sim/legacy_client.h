// legacy_client.h — an honest peer that speaks the original protocol and nothing newer: a member
// on its own, or a session of one.
// Owns:   LegacyClient: hello, send without a fingerprint, push, client_ack; nothing else.
// Holds:  one send is unanswered at a time and is repeated until it is accepted; what it was sent
//         is kept before it is acknowledged. It loses nothing when its connection does. A session
//         takes its member's mail, too, when the broker gives it, and can open it.
// Why:    peers of the reference implementation keep every promise among ours, and theirs to us.
// Source: spec/observed.md, "Handshake", "send, ack, push".
// Not:    durability of its own: it never crashes.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "core/base/arena.h"
#include "core/crypto/box.h"
#include "core/crypto/slab.h"
#include "tests/sim/node.h"

namespace cm::sim {

// The text of a hello of this member, signed at `wall_ms`.
std::string signed_hello(const Identity& who, crypto::SecretSlab& slab, crypto::SecretRef secret,
                         std::uint64_t wall_ms, std::string_view session_id);

class LegacyClient {
 public:
  LegacyClient(Wires& wires, Identity who);
  // A session; its parent is an honest member.
  LegacyClient(Wires& wires, Identity who, Identity parent);

  const Identity& who() const noexcept { return who_; }
  bool is_session() const noexcept { return parent_.has_value(); }
  // The broker knows its key from then on.
  bool was_admitted() const noexcept { return was_admitted_; }
  void start(std::uint64_t now_ms);
  // One message, as a Request of the oracle.
  void send(std::uint32_t request);
  void iterate(std::uint64_t now_ms);
  std::uint64_t wake_ms() const;
  bool outbox_empty() const noexcept { return outbox_.empty(); }

 private:
  void take(const std::string& frame, std::uint64_t now_ms);
  void take_push(const std::string& frame, std::uint64_t now_ms);
  void send_first(std::uint64_t now_ms);
  std::string sealed(const Request& request);
  std::string hello(std::uint64_t now_ms);

  Wires& wires_;
  Identity who_;
  LinkRef link_{0, 1};
  Clock clock_;
  ScratchArena scratch_{16 * 1024};
  crypto::SecretSlab slab_{2};
  crypto::SecretRef secret_;
  std::optional<Identity> parent_;  // of a session
  crypto::SecretRef parent_secret_;
  std::unique_ptr<crypto::BoxCache> boxes_;
  std::deque<std::pair<std::uint32_t, std::string>> outbox_;  // request, frame
  std::set<std::pair<std::string, std::string>> inbox_;       // sender, id
  std::uint64_t now_ms_ = 0;
  std::uint64_t try_at_ms_ = 0;
  bool open_ = false;
  bool was_admitted_ = false;
  bool waiting_ = false;  // for the answer to the first one
};

}  // namespace cm::sim
