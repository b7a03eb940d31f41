// liar.h — a member that attacks: with hellos that are not its own, acks of other people's mail,
// stolen ids and rubbish.
// Owns:   Liar: one connection as the member that it is, one as nobody.
// Holds:  it knows what a relay can hear (relay.h) and its own secret, nothing else.
// Why:    no peer may break a promise between others; the oracle judges those others only.
// Not:    lies on the way between honest ends (relay.h).
#pragma once

#include <string>

#include "core/crypto/slab.h"
#include "tests/sim/node.h"

namespace cm::sim {

// Every body that it sends begins so: what it sends is rubbish, and may be shown as what it is.
constexpr std::string_view kLiarMark = "RUBBISH";

class Liar {
 public:
  Liar(Wires& wires, Identity who, std::vector<DaemonNode>& victims);

  const Identity& who() const noexcept { return who_; }
  void start(std::uint64_t now_ms);
  void iterate(std::uint64_t now_ms);
  std::uint64_t wake_ms() const;
  // It goes; nobody hears of it again.
  void leave(std::uint64_t now_ms);

 private:
  static constexpr LinkRef kMember{0, 1};
  static constexpr LinkRef kStranger{1, 1};
  void act(std::uint64_t now_ms);
  void act_as_stranger(std::uint64_t now_ms);
  void send(std::uint64_t now_ms, LinkRef link, std::string_view frame);
  void send_rubbish(std::uint64_t now_ms);
  std::string wrong_ack();
  std::string broken_hello(std::uint64_t now_ms);

  Wires& wires_;
  Identity who_;
  std::vector<DaemonNode>& victims_;
  crypto::SecretSlab slab_{2};
  crypto::SecretRef secret_;
  Clock clock_;
  std::uint64_t act_at_ms_ = UINT64_MAX;
  std::uint32_t sent_ = 0;
  bool open_ = false;
  bool gone_ = false;
};

}  // namespace cm::sim
