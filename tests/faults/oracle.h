// oracle.h — what a store has to say for itself after a fault.
// Owns:   StateHash of a store's rows, Ledger (promises by node), and the checks of a directory.
// Holds:  judged from outside: by rows read through store::Store, never through a core's memory.
// Not:    which fault it was (images.h, nth_failure.cc, bit_rot.cc).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/faults/traffic.h"
#include "tests/faults/world.h"

namespace cm::faults {

using StateHash = std::uint64_t;

// Of every row of every table of the role, in key order.
StateHash state_of(store::Batch& batch, store::Role role);

store::Role role_of(Node node) noexcept;

// The first problem that fsck has, or empty.
std::string fsck_problem(store::Batch& batch, store::Role role);

// The first of these promises that the node's store does not keep, or empty.
std::string broken_promise(store::Batch& batch, Node node, const Promise* first,
                           const Promise* last);

// Every accepted message is in its recipient's store exactly once (as a row, or as the key that a
// deleted row leaves), with its body unless that is empty, and rows of a lane are in order. The
// first problem, or empty.
std::string lost_or_twice(World& world, const std::vector<Sent>& sent);

}  // namespace cm::faults
