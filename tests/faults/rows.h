// rows.h — all rows of a store as values, for comparison; and a row of every kind.
// Owns:   Rows, read_rows(), differing(), fill_every_table().
// Not:    what their difference means (bit_rot.cc).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "store/store.h"
#include "tests/faults/world.h"

namespace cm::faults {

// (number of the table + key, value), in the order of the tables and their keys.
using Rows = std::vector<std::pair<std::string, std::string>>;

Rows read_rows(store::Batch& batch, store::Role role);
// How many rows are in one and not in the other, or have another value. A row whose key changed is
// one row, though it counts twice here.
std::size_t differing(const Rows& left, const Rows& right);

// Puts a row into each table of the role that has none yet, so that fsck stays content.
void fill_every_table(store::Store& store, store::Role role);
// The tables of the role without a row; nothing to test there.
std::string empty_tables(store::Batch& batch, store::Role role);

}  // namespace cm::faults
