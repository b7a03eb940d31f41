// recording.h — the write streams of three stores at work, and what was promised between writes.
// Owns:   Recording: one Stream a node, filled while a World runs (record()).
// Holds:  a write is cut into the pages that it covers: a disk may keep any of them. A commit is a
//         write to a meta page; its number in the stream is counted from 1.
// Not:    what a power failure makes of it (images.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/faults/oracle.h"

namespace cm::faults {

enum class EventKind : std::uint8_t { kWrite, kSync, kResize };

struct Event {
  EventKind kind = EventKind::kWrite;
  bool is_meta = false;     // ends a commit: 120 bytes in one of the first two pages
  bool is_synced = false;   // written through a descriptor of O_DSYNC
  std::uint32_t write = 0;  // number of the call that this page was a part of
  std::uint64_t offset = 0;
  std::vector<std::uint8_t> bytes;
  std::size_t promises = 0;  // how many of the stream's promises were made before this event
};

// What the running store's rows were behind one of its commits.
struct Seen {
  std::uint64_t commit = 0;
  StateHash state = 0;
};

struct Stream {
  std::vector<Event> events;
  std::vector<Promise> promises;
  std::vector<Seen> seen;
  std::uint64_t commits = 0, writes = 0, syncs = 0;
  std::string problem;  // the stream used a way to the file that is not modelled
};

struct Recording {
  std::array<Stream, kNodes> streams;
  std::array<Identity, kNodes> identities;
  std::uint64_t end_ms = 0;
  std::string problem;  // empty: the work was done, and nothing was lost or twice
};

// `steps` requests of `seed`, over stores below `directory`.
Recording record(const std::string& directory, store::Durability durability, std::uint64_t seed,
                 std::uint32_t steps);

}  // namespace cm::faults
