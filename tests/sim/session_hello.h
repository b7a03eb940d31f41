// session_hello.h — a session of a member: a key of its own, and the member's word for it.
// Owns:   new_session(), session_hello().
// Why:    the broker binds a session key to a member by this proof alone; the simulator's sessions
//         give it, and its liar forges it.
// Source: spec/wire.md §2.2; spec/crypto.md, "Attestations".
// Not:    what a session then sends and takes (legacy_client.h).
#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/node.h"

namespace cm::sim {

// Called `number` by the simulation, with a key that nobody has seen.
Identity new_session(const Identity& parent, std::uint32_t number);

// At `wall_ms`, with an attestation of some hours that `voucher` signs in the name of `parent`: its
// own seed for an honest one.
std::string session_hello(const Identity& who, const Identity& parent, const Identity& voucher,
                          std::uint64_t wall_ms);

}  // namespace cm::sim
