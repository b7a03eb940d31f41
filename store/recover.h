// recover.h — what a damaged store of the daemon needs to be whole again, and doing it.
// Owns:   Repair, find_damage(), find_damaged_inbox(), repair().
// Holds:  finding changes nothing. Whatever is removed was handed to the caller before; an id that
//         was ever written stays consumed: where its row is lost, a dead tombstone takes its place
//         (design/delivery.md, promise 2). After repair() and a commit, fsck finds nothing.
// Why:    a damaged row is confined: it costs its message, never its neighbours.
// Source: design/delivery.md, "Start-up".
// Not:    files that LMDB itself cannot read, the dump and its report (cli/verbs/recover.cc).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/ulid.h"
#include "store/store.h"

namespace cm::store {

enum class RepairKind : std::uint8_t {
  kErase,   // the value cannot be read, or belongs to nothing: handed to the caller, then removed
  kIndex,   // the entry is written anew: `key` leads to `row`
  kEntomb,  // the row of this client_message_id is lost: a dead tombstone at `row` keeps the id
  kKill,    // an open row without its body: it is dead
};

struct Repair {
  RepairKind kind = RepairKind::kErase;
  TableId table = TableId::kMeta;
  const char* what = "";          // the problem, for people
  std::vector<std::uint8_t> key;  // of `table`
  std::string client_id;          // of kEntomb and kKill
  Ulid row{};                     // of kIndex, kEntomb and kKill
};

// Every table of a daemon's store.
std::vector<Repair> find_damage(Batch& batch);
// Rows of the inbox that cannot be read: their dedupe keys stay as they are.
std::vector<Repair> find_damaged_inbox(Batch& batch);

// Before it is removed, with its raw value.
using SetAside = std::function<void(const Repair& repair, Bytes value)>;
// `reason` is told to whoever asks for an id that was lost; it begins with kCorruptReason. The
// caller commits.
void repair(Batch& batch, const std::vector<Repair>& repairs, std::string_view reason,
            std::uint64_t now_ms, const SetAside& set_aside);

}  // namespace cm::store
