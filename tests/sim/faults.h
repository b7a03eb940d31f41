// faults.h — every kind of fault that a run can meet: its name, and how often it struck.
// Owns:   Fault, FaultMask, Tally.
// Holds:  a fault is counted where it strikes, never where it was only possible.
// Why:    a kind that is never counted was never tested; shrinking takes whole kinds away.
// Not:    when a fault strikes (world.cc, network.cc, relay.cc, liar.cc).
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cm::sim {

// X(enum name, name on the command line)
#define CM_FAULTS(X)                                                                         \
  /* a process and its disk */                                                               \
  X(CrashBeforeCommit, "crash-before-commit")                                                \
  X(CrashBeforeEffects, "crash-before-effects")                                              \
  X(CrashAmidEffects, "crash-amid-effects")                                                  \
  X(CrashAfterEffects, "crash-after-effects")                                                \
  X(LongAbsence, "long-absence")                                                             \
  X(PidReuse, "pid-reuse")                                                                   \
  X(CommitFails, "commit-fails")                                                             \
  X(SlowCommit, "slow-commit")                                                               \
  X(FullStore, "full-store") /* the admission bound: 507 */                                  \
  X(FullMap, "full-map")     /* LMDB's own MDB_MAP_FULL, amid an iteration */                \
  X(Stall, "stall")                                                                          \
  X(ClockForward, "clock-forward")                                                           \
  X(ClockBack, "clock-back")                                                                 \
  X(ExpiredMail, "expired-mail") /* queues are kept for a day, clocks jump by more */        \
  /* the wire */                                                                             \
  X(Cut, "cut")                                                                              \
  X(HalfOpen, "half-open")                                                                   \
  X(Unreachable, "unreachable")                                                              \
  X(GaveUp, "gave-up") /* a transport ends for good */                                       \
  X(Delay, "delay")                                                                          \
  X(OneByteReads, "one-byte-reads") /* frames of core/net, fed piece by piece */             \
  X(SlowReads, "slow-reads")        /* one frame of a connection an iteration */             \
  X(Blocked, "blocked")             /* the transport of a daemon takes no more */            \
  X(SlowConsumer, "slow-consumer")  /* a daemon reads nothing; output piles up */            \
  X(ConsumerDropped, "consumer-dropped")                                                     \
  /* a relay between honest ends that lies */                                                \
  X(Duplicate, "duplicate")                                                                  \
  X(Reorder, "reorder")                                                                      \
  X(LateFrame, "late-frame") /* of an earlier connection */                                  \
  X(ChangedCiphertext, "changed-ciphertext")                                                 \
  X(MismatchedFingerprint, "mismatched-fingerprint")                                         \
  X(ForgedAck, "forged-ack") /* of a send that this daemon never made */                     \
  /* peers */                                                                                \
  X(BadSignature, "bad-signature")                                                           \
  X(ReplayedHello, "replayed-hello")                                                         \
  X(WrongClientAck, "wrong-client-ack") /* by a member, of what is not its own */            \
  X(StrangerAck, "stranger-ack")        /* without a hello */                                \
  X(StolenId, "stolen-id")              /* another's client_message_id, and its own twice */ \
  X(Garbage, "garbage")                 /* malformed frames, mail that does not open */      \
  X(LegacyBroker, "legacy-broker")                                                           \
  X(LegacyClient, "legacy-client")                                                           \
  X(Session, "session") /* a hello of one: a key of its own, and its member's mail */        \
  X(TwinIdentity, "twin-identity")

enum class Fault : std::uint8_t {
#define CM_FAULT_NAME(name, text) k##name,
  CM_FAULTS(CM_FAULT_NAME)
#undef CM_FAULT_NAME
      kCount
};
constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::kCount);

std::string_view name_of(Fault fault) noexcept;

// The faults that a run does without.
using FaultMask = std::bitset<kFaults>;
// "cut,delay": false when a name is unknown.
bool parse_faults(std::string_view names, FaultMask& mask);
std::string text_of(const FaultMask& mask);

struct Tally {
  std::array<std::uint64_t, kFaults> counts{};
  void add(Fault fault) noexcept { ++counts[static_cast<std::size_t>(fault)]; }
  std::uint64_t operator[](Fault fault) const noexcept {
    return counts[static_cast<std::size_t>(fault)];
  }
};

}  // namespace cm::sim
