// server_time.cc — the deadlines of connections: one column, swept at most once a second.
// Owns:   the kDeadline column and next_sweep_.
// Holds:  the clock moves only in tick(). What is read while the loop collects is stamped there,
//         because the loop may have slept since the last tick; the owner's calls come after it.
// Why:    a timer a connection would cost memory and wake-ups; ten thousand idle connections cost
//         one walk over 80 KB a second.
// Not:    what follows on a deadline: refusals and closes are server_http.cc's and server_ws.cc's.
#include <poll.h>

#include <algorithm>

#include "core/net/connection.h"
#include "core/net/server.h"

namespace cm::net {
namespace {

constexpr std::uint64_t kSweepMs = 1'000;

}  // namespace

void Server::touch(Conn& conn) {
  if (!collecting_) {
    settle(conn);
    return;
  }
  if (conn.touched) return;
  conn.touched = true;
  touched_.push_back(conn.ref);
}

void Server::settle(Conn& conn) {
  if (conn.heard) conn.last_heard = now_;
  if (conn.sent) conn.last_wrote = now_;
  conn.heard = conn.sent = false;
  if (!conn.partial) conn.partial_since = 0;
  if (conn.partial_since == 0) conn.excused = false;
  if (conn.partial && conn.partial_since == 0) {
    conn.partial_since = std::max<std::uint64_t>(now_, 1);
  }
  if (conn.state == ConnState::kWs && conn.ping_at == 0) {
    conn.ping_at = now_ + options_.limits.ping_ms;
  }
  const bool closing = conn.state == ConnState::kWsClosing || conn.shut;
  if (closing && conn.close_by == 0) conn.close_by = now_ + kCloseMs;
  rearm(conn);
}

void Server::rearm(Conn& conn) {
  const std::uint64_t deadline = deadline_of(conn);
  conns_.get<kDeadline>(conn.ref) = deadline;
  if (deadline == kNever) return;
  next_sweep_ = std::min(next_sweep_, std::max(deadline, last_sweep_ + kSweepMs));
}

// When expire() has something to look at, by the state's own rule and by output that waits.
std::uint64_t Server::deadline_of(const Conn& conn) const noexcept {
  const Limits& limits = options_.limits;
  std::uint64_t deadline = kNever;
  if (conn.blocked && !conn.out.empty()) deadline = conn.last_wrote + limits.stale_ms;
  const bool waits = waits_for_output(conn);  // the silence is ours
  if (conn.partial_since != 0 && !waits) {
    deadline = std::min(deadline, conn.partial_since + limits.partial_frame_ms_max);
  }
  switch (conn.state) {
    case ConnState::kTlsHandshake:
      if (conn.partial_since != 0) {
        deadline = std::min(deadline, conn.partial_since + limits.tls_handshake_ms);
      }
      break;
    case ConnState::kHttpRead:
      if (conn.partial_since == 0) {
        const std::uint64_t idle = conn.served ? limits.stale_ms : limits.partial_frame_ms_max;
        deadline = std::min(deadline, std::max(conn.last_heard, conn.last_wrote) + idle);
      }
      break;
    case ConnState::kHttpReply:
    case ConnState::kHttpStream: break;
    case ConnState::kWs:
      deadline = std::min(deadline, conn.ping_at);
      if (!waits) deadline = std::min(deadline, conn.last_heard + limits.stale_ms);
      break;
    case ConnState::kWsClosing: deadline = std::min(deadline, conn.close_by); break;
    case ConnState::kLinger:
      if (conn.shut) deadline = std::min(deadline, conn.close_by);
      break;
  }
  return deadline;
}

// Bytes wait in the kernel or in TLS: it is we who were late, after a stall or under load.
bool Server::has_unread(const Conn& conn) noexcept {
  if (conn.tls && conn.tls->pending()) return true;
  pollfd look{conn.fd.get(), POLLIN, 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & POLLIN) != 0;
}

// It was heard; what is unfinished gets as long as the next sweep takes to come, but only once: a
// flood that is never read to its end has no end either.
void Server::excuse(Conn& conn) {
  const std::uint64_t most = options_.limits.partial_frame_ms_max;
  conn.last_heard = now_;
  if (conn.partial_since != 0 && now_ >= conn.partial_since + most) {
    conn.excused = true;
    conn.partial_since = now_ + kSweepMs > most ? now_ + kSweepMs - most : 1;
  }
  rearm(conn);
}

void Server::expire(Conn& conn) {
  const Limits& limits = options_.limits;
  const bool waits = waits_for_output(conn);
  const bool partial =
      !waits && conn.partial_since != 0 && now_ >= conn.partial_since + limits.partial_frame_ms_max;
  const bool silent = !waits && now_ >= conn.last_heard + limits.stale_ms;
  // What is starved is unread on purpose, and holds memory.
  const bool reads = conn.state == ConnState::kHttpRead || conn.state == ConnState::kWs;
  const bool late = partial ? !conn.excused : silent || conn.state == ConnState::kHttpRead;
  if (reads && late && !waits && !conn.starved && has_unread(conn)) {
    excuse(conn);
    return;
  }
  if (conn.blocked && !conn.out.empty() && now_ >= conn.last_wrote + limits.stale_ms) {
    ++stats_.dropped_stale;
    doom(conn);
    return;
  }
  switch (conn.state) {
    case ConnState::kTlsHandshake:
      ++stats_.tls_failed;
      doom(conn);
      return;
    case ConnState::kHttpRead:
      if (partial) {
        refuse(conn, 408, "the request did not arrive in time");
      } else {
        doom(conn);
      }
      return;
    case ConnState::kHttpReply:
    case ConnState::kHttpStream: return;
    case ConnState::kWs:
      if (silent) {
        ++stats_.dropped_stale;
        doom(conn);
      } else if (partial) {
        fail_ws(conn, ws_code::kPolicy, "a message did not arrive in time");
      } else if (now_ >= conn.ping_at) {
        conn.ping_at = now_ + limits.ping_ms;
        put_frame(conn, WsOpcode::kPing, {});
      }
      return;
    case ConnState::kWsClosing:
    case ConnState::kLinger: doom(conn); return;
  }
}

void Server::sweep() {
  last_sweep_ = now_;
  conns_.each([this](ConnRef ref) {
    if (conns_.get<kDeadline>(ref) > now_) return;
    Conn* conn = find(ref);
    if (conn == nullptr || deadline_of(*conn) > now_) return;
    expire(*conn);
  });
  std::uint64_t earliest = kNever;
  conns_.each([&](ConnRef ref) {
    if (conns_.get<kDeadline>(ref) <= now_) {
      const Conn* conn = find(ref);
      conns_.get<kDeadline>(ref) = conn == nullptr ? kNever : deadline_of(*conn);
    }
    earliest = std::min(earliest, conns_.get<kDeadline>(ref));
  });
  next_sweep_ = earliest == kNever ? kNever : std::max(earliest, now_ + kSweepMs);
}

void Server::tick(std::uint64_t mono_ms) {
  collecting_ = false;
  now_ = mono_ms;
  for (const ConnRef ref : touched_) {
    Conn* conn = find(ref);
    if (conn == nullptr) continue;
    conn->touched = false;
    settle(*conn);
  }
  touched_.clear();
  if (now_ >= next_sweep_) sweep();
  if (listeners_.needs_retry() && now_ >= last_retry_ + kSweepMs) {
    last_retry_ = now_;
    listeners_.retry();
  }
  reap();
}

std::uint64_t Server::next_deadline() const noexcept {
  if (conns_.count() == 0 && !listeners_.needs_retry()) return kNever;
  return listeners_.needs_retry() ? std::min(next_sweep_, last_retry_ + kSweepMs) : next_sweep_;
}

}  // namespace cm::net
