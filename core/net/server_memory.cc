// server_memory.cc — how much unfinished input may lie in memory, of one group and of all.
// Owns:   what connections are charged with, and starved_: those that wait for memory.
// Holds:  a charge is memory, not bytes that came: the blocks that are held, and the buffer of an
//         unfinished TLS record. Each connection may always hold the smallest block, which is set
//         aside, so that a hello gets through however much the others hold.
// Why:    over a budget a socket is not read, and the peer's own kernel makes it wait. One
//         connection of a full scope, its favourite, goes on all the same: otherwise frames that
//         fill the budget together would wait for each other until their deadlines.
// Limits: limits.partial_bytes_max, limits.partial_group_bytes_max; strangers (group 0) of a server
//         with WebSockets share a quarter of the former, so that they cannot starve members.
// Source: docs/PROTOCOL.md §1; spec/decisions.md, "Limits".
// Not:    the deadline of a frame (server_time.cc), pending output (server_output.cc).
#include <algorithm>

#include "core/net/connection.h"
#include "core/net/server.h"

namespace cm::net {
namespace {

constexpr std::size_t kSmallest = BufferPool::kSmallest;
constexpr std::size_t kRecordBytes = 17 * 1024;  // OpenSSL's buffer of one record

std::size_t held_bytes(const Conn& conn) noexcept {
  const std::size_t record = conn.tls && conn.tls->in_record() ? kRecordBytes : 0;
  return conn.in.capacity() + conn.ws.held_bytes() + record;
}

}  // namespace

Server::PartialScope& Server::scope_of(const Conn& conn) {
  return conn.group == 0 ? strangers_ : groups_[conn.group];
}

std::uint64_t Server::scope_bytes_max(const Conn& conn) const noexcept {
  const std::uint64_t all = options_.limits.partial_bytes_max;
  if (conn.group != 0) return std::min<std::uint64_t>(all, options_.limits.partial_group_bytes_max);
  return options_.websockets ? all / 4 : all;
}

// A favourite stays one until it gives memory back; see recharge().
bool Server::favours(PartialScope& scope, const Conn& conn) const {
  const Conn* now = find(scope.favourite);
  if (now == nullptr || now->charged <= kSmallest) scope.favourite = conn.ref;
  return scope.favourite == conn.ref;
}

bool Server::may_grow(const Conn& conn, std::size_t bytes) {
  const std::uint64_t all = options_.limits.partial_bytes_max;
  const std::uint64_t aside =
      std::min<std::uint64_t>(all / 2, std::uint64_t{kSmallest} * options_.connections_max);
  const bool all_fit = everyone_.charged + bytes <= all - aside;
  if (!all_fit) return favours(everyone_, conn);
  PartialScope& scope = scope_of(conn);
  return scope.charged + bytes <= scope_bytes_max(conn) || favours(scope, conn);
}

// How many bytes to prepare for, at most `want`; 0: wait for memory.
std::size_t Server::grant(const Conn& conn, std::size_t want) {
  // What is read may move on into an unfinished message, whose block then doubles at least.
  const std::size_t message = conn.ws.held_bytes();
  const std::size_t grown = message == 0 ? 0 : std::max(2 * message, message + want);
  const std::size_t after = conn.in.capacity_for(want) + grown;
  if (after <= conn.charged || after <= kSmallest) return want;
  if (may_grow(conn, after - conn.charged)) return want;
  if (message != 0) return 0;
  // What fits without growing. An empty buffer may be the smallest block.
  const std::size_t room = std::max(conn.in.capacity(), kSmallest) - conn.in.size();
  return std::min(want, room);
}

void Server::starve(Conn& conn) {
  if (conn.starved) return;
  conn.starved = true;
  ++stats_.starved;
  starved_.push_back(conn.ref);
}

// Only after memory was given back: a look at each of them, and those that may grow are read again.
void Server::feed_starved() {
  if (!memory_freed_ || starved_.empty()) return;
  memory_freed_ = false;
  std::swap(starved_, feeding_);
  for (const ConnRef ref : feeding_) {
    Conn* conn = find(ref);
    if (conn == nullptr) continue;
    if (!may_grow(*conn, std::max<std::size_t>(conn->in.capacity(), kSmallest))) {
      starved_.push_back(ref);
      continue;
    }
    conn->starved = false;
    update_interest(*conn);
  }
  feeding_.clear();
}

void Server::recharge(Conn& conn) {
  const auto held = static_cast<std::uint32_t>(held_bytes(conn));
  if (held == conn.charged) return;
  PartialScope& scope = scope_of(conn);
  scope.charged = scope.charged - conn.charged + held;
  everyone_.charged = everyone_.charged - conn.charged + held;
  if (held < conn.charged) {
    memory_freed_ = true;
    if (scope.favourite == conn.ref) scope.favourite = {};
    if (everyone_.favourite == conn.ref) everyone_.favourite = {};
  }
  conn.charged = held;
}

// Takes it out of its scopes: before it leaves, or before it changes its group.
void Server::discharge(Conn& conn) {
  PartialScope& scope = scope_of(conn);
  scope.charged -= conn.charged;
  everyone_.charged -= conn.charged;
  scope.output -= conn.out_charged;
  everyone_.output -= conn.out_charged;
  if (conn.charged != 0) memory_freed_ = true;
  conn.charged = 0;
  conn.out_charged = 0;
  if (scope.favourite == conn.ref) scope.favourite = {};
  if (everyone_.favourite == conn.ref) everyone_.favourite = {};
  leave_group(conn);
}

void Server::leave_group(Conn& conn) {
  if (conn.group == 0) return;
  const auto found = groups_.find(conn.group);
  if (--found->second.connections == 0) groups_.erase(found);
  conn.group = 0;
}

bool Server::verify_charges() const {
  std::uint64_t all = 0;
  std::uint64_t strangers = 0;
  std::uint64_t members = 0;
  std::uint64_t output = 0;
  std::uint64_t grouped_output = strangers_.output;
  conns_.each([&](ConnRef ref) {
    const Conn& conn = *conns_.get<kRow>(ref);
    all += conn.charged;
    output += conn.out_charged;
    if (conn.group == 0) strangers += conn.charged;
    if (conn.group != 0) ++members;
  });
  bool sound = all == everyone_.charged && strangers == strangers_.charged;
  std::uint64_t grouped = 0;
  std::uint64_t counted = 0;
  for (const auto& [group, scope] : groups_) {
    grouped += scope.charged;
    grouped_output += scope.output;
    counted += scope.connections;
    sound = sound && group != 0 && scope.connections > 0;
  }
  sound = sound && output == everyone_.output && output == grouped_output;
  return sound && grouped == all - strangers && counted == members;
}

}  // namespace cm::net
