// server_output.cc — how much unsent output may lie in memory, and who is not read because of it.
// Owns:   what connections are charged with for output; over_.
// Holds:  a charge is the block that is held. A WebSocket whose output is over the soft limit is
//         not read until half of that is sent: who does not take answers asks no further. While it
//         is not read, its silence and its unfinished message do not count against it; output
//         that does not move at all still ends it (server_time.cc).
// Why:    the hard limit is of one connection, and a member has thousands of them.
// Limits: slow_consumer_soft_bytes; output_group_bytes_max and output_bytes_max, beyond which the
//         largest consumer of the group, or of all, is dropped: behind megabytes that it does not
//         read, a close frame would reach it no more than they do.
// Source: spec/decisions.md, "Limits".
// Not:    the hard limit of one connection (room_for()), unfinished input (server_memory.cc).
#include "core/base/check.h"
#include "core/net/connection.h"
#include "core/net/server.h"

namespace cm::net {

bool Server::waits_for_output(const Conn& conn) noexcept {
  return conn.over_soft && conn.state == ConnState::kWs;
}

// Under half of the soft limit again: it is read from here on, and its clocks begin anew.
void Server::output_went(Conn& conn) {
  conn.over_soft = false;
  writable_.push_back(conn.ref);
  if (conn.state != ConnState::kWs) return;
  conn.heard = true;
  conn.partial_since = 0;
  touch(conn);
  if (!conn.in.empty()) resume_later(conn);
}

void Server::charge_output(Conn& conn) {
  if (conn.out.capacity() == conn.out_charged) return;  // nearly always: both are 0
  conn.out.fit();
  const auto held = static_cast<std::uint32_t>(conn.out.capacity());
  PartialScope& scope = scope_of(conn);
  scope.output = scope.output - conn.out_charged + held;
  everyone_.output = everyone_.output - conn.out_charged + held;
  const bool grew = held > conn.out_charged;
  conn.out_charged = held;
  if (grew && conn.group != 0 && scope.output > options_.limits.output_group_bytes_max) {
    over_.push_back(conn.group);
  }
}

void Server::shed_output() {
  for (const std::uint64_t group : over_) {
    for (auto found = groups_.find(group);
         found != groups_.end() && found->second.output > options_.limits.output_group_bytes_max;) {
      drop_largest(group);
    }
  }
  over_.clear();
  while (everyone_.output > options_.limits.output_bytes_max) drop_largest(0);
}

// A walk over all connections, for each of the few that have to go.
void Server::drop_largest(std::uint64_t group) {
  Conn* largest = nullptr;
  conns_.each([&](ConnRef ref) {
    Conn* conn = find(ref);
    if (conn == nullptr || (group != 0 && conn->group != group)) return;
    if (largest == nullptr || conn->out_charged > largest->out_charged) largest = conn;
  });
  CHECK(largest != nullptr && largest->out_charged > 0);
  ++stats_.dropped_slow;
  doom(*largest);
}

}  // namespace cm::net
