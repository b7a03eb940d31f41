// server.cc — connections: accepting, reading, writing, leaving.
// Owns:   the life of a Conn, and the lists that carry it from one iteration to the next.
// Holds:  rows leave the table only in reap(), which no callback is inside of.
// Not:    HTTP (server_http.cc), WebSocket (server_ws.cc), deadlines (server_time.cc), the byte
//         path (server_tls.cc), budgets of memory (server_memory.cc, server_output.cc).
#include "core/net/server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/base/check.h"
#include "core/net/connection.h"

namespace cm::net {
namespace {

constexpr std::size_t kFirstRead = 16 * 1024;
constexpr std::size_t kNextRead = 64 * 1024;

constexpr std::string_view kFullReply =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    "Content-Length: 32\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}";

// On a unix socket a hang-up tells a closed peer from one that only finished sending.
bool hung_up(int fd) noexcept {
  pollfd look{fd, 0, 0};
  return ::poll(&look, 1, 0) == 1 && (look.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace

Server::Server(Loop& loop, const ServerOptions& options, ScratchArena& scratch, BufferPool& pool)
    : loop_(&loop),
      options_(options),
      scratch_(&scratch),
      pool_(&pool),
      conns_(options.connections_max),
      listeners_(
          loop,
          [](void* self, Fd fd, bool tls) noexcept {
            static_cast<Server*>(self)->on_accept(std::move(fd), tls);
          },
          this) {
  // A pooled block ends at 32 MiB: pending output and one frame must stay below it.
  CHECK(options.connections_max > 0);
  CHECK(options.limits.slow_consumer_hard_bytes <= 31u << 20);
  CHECK(options.limits.http_body_bytes_max <= 8u << 20);
  http_limits_.head_bytes = options.limits.http_head_bytes_max;
  http_limits_.target_bytes = options.limits.http_head_bytes_max / 2;
  http_limits_.body_bytes = options.limits.http_body_bytes_max;
}

Server::~Server() {
  conns_.each([this](ConnRef ref) {
    Conn& conn = *conns_.get<kRow>(ref);
    if (conn.watch != nullptr) loop_->unwatch(conn.watch);
  });
}

Result<std::uint16_t> Server::listen_tcp(const std::string& host, std::uint16_t port) {
  return listeners_.add_tcp(host, port, false);
}
Result<std::uint16_t> Server::listen_tls(const std::string& host, std::uint16_t port) {
  CHECK(tls_);
  return listeners_.add_tcp(host, port, true);
}
Status Server::listen_unix(const std::string& path) {
  Status added = listeners_.add_unix(path);
  if (added) has_unix_ = true;
  return added;
}

Conn* Server::find(ConnRef ref) const {
  if (!conns_.alive(ref)) return nullptr;
  Conn* conn = conns_.get<kRow>(ref).get();
  return conn->doomed ? nullptr : conn;
}

bool Server::alive(ConnRef ref) const noexcept { return find(ref) != nullptr; }

std::size_t Server::pending_output(ConnRef ref) const noexcept {
  const Conn* conn = find(ref);
  return conn == nullptr ? 0 : conn->out.size();
}

bool Server::append_peer_address(ConnRef ref, TextBuf& out) const {
  const Conn* conn = find(ref);
  if (conn == nullptr) return false;
  net::append_peer_address(out, conn->fd.get());
  return true;
}

NetEvent& Server::add_event(Conn& conn, NetEventKind kind) {
  NetEvent& event = events_.emplace_back();
  event.kind = kind;
  event.conn = conn.ref;
  event.peer = conn.peer;
  return event;
}

bool Server::budget_left() const noexcept {
  return events_.size() < options_.limits.iteration_rows_max &&
         iteration_bytes_ < options_.limits.iteration_bytes_max;
}

// --- the iteration ---

void Server::collect(bool may_block) {
  collecting_ = true;
  iteration_bytes_ = 0;
  reap();
  for (const ConnRef ref : writable_) {
    if (Conn* conn = find(ref); conn != nullptr) add_event(*conn, NetEventKind::kWritable);
  }
  writable_.clear();
  read_cut();
  std::swap(resume_, resuming_);
  for (const ConnRef ref : resuming_) {
    Conn* conn = find(ref);
    if (conn == nullptr) continue;
    conn->resuming = false;
    touch(*conn);
    process(*conn);
    // What TLS has already decrypted is not announced by the descriptor any more.
    if (!conn->doomed && conn->tls && conn->tls->pending()) read_some(*conn);
    if (conn->doomed) continue;
    recharge(*conn);
    update_interest(*conn);
  }
  resuming_.clear();
  feed_starved();
  loop_->collect(may_block && events_.empty() && !work_left());
  reap();
}

void Server::attend() {
  collecting_ = true;
  attending_ = true;
  loop_->collect(false);
  attending_ = false;
}

bool Server::work_left() const noexcept {
  return !resume_.empty() || !doomed_.empty() || !writable_.empty() || !dirty_.empty() ||
         !cut_.empty();
}

void Server::on_accept(Fd fd, bool tls) {
  const PeerInfo peer = peer_of(fd.get());
  const bool may_stay = peer.is_unix || !has_unix_ || tcp_conns_ < tcp_connections_max();
  const ConnRef ref = may_stay ? conns_.insert() : ConnRef{};
  if (!ref) {
    ++stats_.refused_full;
    // One attempt without waiting; who is turned away at the door gets no buffer, and no handshake.
    if (!tls)
      (void)::send(fd.get(), kFullReply.data(), kFullReply.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(fd.get(), SHUT_WR);
    return;
  }
  ++stats_.accepted;
  conns_.get<kDeadline>(ref) = kNever;
  auto& row = conns_.get<kRow>(ref);
  row = std::make_unique<Conn>(*this, *pool_, std::move(fd));
  Conn& conn = *row;
  conn.ref = ref;
  conn.peer = peer;
  if (!peer.is_unix) ++tcp_conns_;
  if (tls) attach_tls(conn);
  if (!conn.peer.is_unix) set_nodelay(conn.fd.get());
  conn.watch = loop_->watch(conn.fd.get(), Loop::kRead, &Server::on_ready, &conn);
  touch(conn);
  if (conn.watch == nullptr) doom(conn);
}

void Server::on_ready(void* self, unsigned ready) noexcept {
  Conn& conn = *static_cast<Conn*>(self);
  Server& server = *conn.server;
  if ((ready & Loop::kWrite) != 0 && !conn.doomed) {
    const bool read = conn.read_wants_write && !server.attending_;
    if (read) {
      conn.read_wants_write = false;
      server.read_some(conn);
    }
    if (!conn.doomed) server.flush_one(conn);
  }
  if ((ready & Loop::kRead) != 0 && !conn.doomed) server.read_some(conn);
  if (!conn.doomed) server.update_interest(conn);
}

void Server::read_some(Conn& conn) {
  if (attending_) return;  // the descriptor stays ready and comes again
  if (!budget_left()) {
    loop_->stop_collecting();  // the descriptor stays ready and comes again
    return;
  }
  if (conn.state == ConnState::kTlsHandshake && !shake_hands(conn)) return;
  std::size_t left = options_.limits.socket_read_bytes_max;
  std::size_t want = kFirstRead;
  conn.wire_left = kTlsWireShare;
  while (left > 0 && !conn.doomed && !conn.peer_eof && !conn.resuming && !conn.starved &&
         !waits_for_output(conn)) {
    const bool paused = conn.state == ConnState::kHttpReply || conn.state == ConnState::kHttpStream;
    if (paused && conn.in.size() >= kPipelineBytes) break;
    const std::size_t granted = grant(conn, want);
    if (granted == 0) {
      starve(conn);
      break;
    }
    const MutableBytes room = conn.in.prepare(granted);
    const std::size_t size = std::min(room.size(), left);
    std::size_t got = 0;
    const Io outcome = receive(conn, room.first(size), got);
    if (outcome == Io::kError) doom(conn);
    if (outcome == Io::kEnd) on_eof(conn);
    if (outcome != Io::kOk) break;
    conn.in.commit(got);
    conn.heard = true;
    touch(conn);
    process(conn);
    left -= got;
    // A short count means that the socket is empty. A TLS record ends where it likes.
    if (got < size && !conn.tls) break;
    want = kNextRead;
  }
  conn.in.fit();
  if (conn.doomed) return;
  recharge(conn);
  if (!conn.tls) return;
  note_record(conn);
  if (!conn.write_wants_read) return;
  conn.write_wants_read = false;
  flush_one(conn);
}

void Server::process(Conn& conn) {
  while (!conn.doomed && !conn.in.empty()) {
    if (conn.state == ConnState::kLinger) {
      conn.in.release();
      return;
    }
    if (conn.state == ConnState::kHttpReply || conn.state == ConnState::kHttpStream) return;
    if (waits_for_output(conn)) return;
    if (!budget_left()) {
      resume_later(conn);
      return;
    }
    const bool more = conn.state == ConnState::kHttpRead ? process_http(conn) : process_ws(conn);
    if (!more) return;
  }
}

void Server::resume_later(Conn& conn) {
  if (conn.resuming) return;
  conn.resuming = true;
  resume_.push_back(conn.ref);
}

void Server::on_eof(Conn& conn) {
  conn.peer_eof = true;
  switch (conn.state) {
    case ConnState::kTlsHandshake: doom(conn); return;
    case ConnState::kHttpReply:
      // Over TCP a client that only finished sending looks the same; it still gets its reply.
      if (conn.peer.is_unix && hung_up(conn.fd.get())) doom(conn);
      return;
    case ConnState::kHttpRead:
    case ConnState::kLinger:
      if (conn.out.empty() || (conn.peer.is_unix && hung_up(conn.fd.get()))) {
        doom(conn);
      } else {
        linger(conn);
      }
      return;
    case ConnState::kHttpStream:
    case ConnState::kWs:
    case ConnState::kWsClosing: doom(conn); return;
  }
}

// --- output ---

bool Server::room_for(Conn& conn, std::size_t bytes) {
  const std::size_t hard = options_.limits.slow_consumer_hard_bytes;
  if (bytes > hard || conn.out.size() > hard - bytes) {
    ++stats_.dropped_slow;
    doom(conn);
    return false;
  }
  return true;
}

bool Server::put(Conn& conn, std::string_view bytes) {
  if (!room_for(conn, bytes.size())) return false;
  conn.out.append(as_bytes(bytes));
  wrote(conn);
  return true;
}

void Server::wrote(Conn& conn) {
  if (conn.out.size() > options_.limits.slow_consumer_soft_bytes) conn.over_soft = true;
  if (conn.dirty) return;
  conn.dirty = true;
  dirty_.push_back(conn.ref);
}

void Server::flush() {
  for (const ConnRef ref : dirty_) {
    Conn* conn = find(ref);
    if (conn == nullptr) continue;
    conn->dirty = false;
    if (!conn->blocked) flush_one(*conn);
    if (conn->doomed) continue;
    charge_output(*conn);
    update_interest(*conn);
  }
  dirty_.clear();
  shed_output();
}

void Server::flush_one(Conn& conn) {
  if (conn.state == ConnState::kTlsHandshake) return;
  if (conn.cut) conn.out.release();
  const bool was_blocked = conn.blocked;
  conn.blocked = false;
  while (!conn.out.empty()) {
    const Bytes bytes = conn.out.bytes();
    std::size_t sent = 0;
    const Io outcome = transmit(conn, bytes, sent);
    if (outcome == Io::kError) {
      cut(conn);
      return;
    }
    if (outcome == Io::kLater) {
      conn.blocked = true;
      if (!was_blocked) conn.sent = true;  // the wait begins now
      touch(conn);
      break;
    }
    conn.out.consume(sent);
    conn.sent = true;
    touch(conn);
    // A short count means that the socket is full; asking again would only tell the same.
    if (sent < bytes.size() && !conn.tls) {
      conn.blocked = true;
      break;
    }
  }
  after_flush(conn);
}

void Server::after_flush(Conn& conn) {
  charge_output(conn);
  if (conn.over_soft && conn.out.size() < options_.limits.slow_consumer_soft_bytes / 2) {
    output_went(conn);
  }
  if (conn.state != ConnState::kLinger || !conn.out.empty()) return;
  if (!conn.shut) {
    conn.shut = true;
    touch(conn);
  }
  // Our half only: closing outright with unread input would reset the connection, and the peer
  // might lose the reply that we just wrote.
  half_close(conn);
  if (conn.peer_eof) doom(conn);
}

// A write failed. What the peer said before it went may still lie in the socket: its close frame
// tells why. It is read once, by the next collect(), and then nothing remains to be done.
void Server::cut(Conn& conn) {
  if (conn.state != ConnState::kWs && conn.state != ConnState::kWsClosing) return doom(conn);
  conn.out.release();
  conn.over_soft = false;
  charge_output(conn);
  if (conn.cut) return;
  conn.cut = true;
  cut_.push_back(conn.ref);
}

void Server::read_cut() {
  std::vector<ConnRef> left;
  for (const ConnRef ref : cut_) {
    Conn* conn = find(ref);
    if (conn == nullptr) continue;
    if (!conn->resuming) read_some(*conn);
    if (conn->doomed) continue;
    if (conn->resuming) {
      left.push_back(ref);  // its input goes beyond this iteration's share
    } else {
      doom(*conn);
    }
  }
  std::swap(cut_, left);
}

void Server::linger(Conn& conn) {
  if (conn.doomed) return;
  conn.state = ConnState::kLinger;
  conn.partial = false;
  conn.partial_since = 0;
  conn.close_by = 0;
  conn.in.release();
  conn.ws.abandon();
  recharge(conn);
  wrote(conn);  // so that flush() also shuts a connection without pending output
  touch(conn);
}

void Server::update_interest(Conn& conn) {
  bool read = !conn.peer_eof && !conn.resuming && !conn.starved && !conn.read_wants_write &&
              !waits_for_output(conn);
  if (conn.state == ConnState::kHttpReply || conn.state == ConnState::kHttpStream) {
    read = read && conn.in.size() < kPipelineBytes;
  }
  if (read && conn.tls && conn.tls->pending()) {
    resume_later(conn);
    read = false;
  }
  const bool output_waits = conn.blocked && !conn.out.empty() && !conn.write_wants_read;
  const bool write = output_waits || conn.read_wants_write || conn.close_waits;
  loop_->set_interest(conn.watch, (read ? Loop::kRead : 0u) | (write ? Loop::kWrite : 0u));
}

// --- leaving ---

void Server::doom(Conn& conn) {
  if (conn.doomed) return;
  conn.doomed = true;
  // Whoever is in the table until the next reap() owes nothing any more.
  conn.out.release();
  charge_output(conn);
  if (conn.watch != nullptr) loop_->unwatch(conn.watch);
  conn.watch = nullptr;
  doomed_.push_back(conn.ref);
}

void Server::reap() {
  if (doomed_.empty()) return;
  for (const ConnRef ref : doomed_) {
    Conn& conn = *conns_.get<kRow>(ref);
    switch (conn.state) {
      case ConnState::kWs:
      case ConnState::kWsClosing: report_ws_closed(conn, ws_code::kAbnormal, {}); break;
      case ConnState::kHttpReply:
      case ConnState::kHttpStream: add_event(conn, NetEventKind::kHttpClosed); break;
      case ConnState::kTlsHandshake:
      case ConnState::kHttpRead:
      case ConnState::kLinger: break;
    }
    discharge(conn);
    if (!conn.peer.is_unix) --tcp_conns_;
    conns_.erase(ref);
  }
  doomed_.clear();
  if (listeners_.needs_retry()) listeners_.retry();
}

void Server::drain(std::uint16_t code, std::string_view reason) {
  draining_ = true;
  listeners_.close();
  conns_.each([&](ConnRef ref) {
    Conn* conn = find(ref);
    if (conn == nullptr) return;
    if (conn->state == ConnState::kWs) start_close(*conn, code, reason);
    if (conn->state == ConnState::kHttpStream) stream_end(ref);
    if (conn->state == ConnState::kHttpRead) linger(*conn);
    if (conn->state == ConnState::kTlsHandshake) doom(*conn);
  });
}

bool Server::verify() const {
  bool sound = conns_.verify() && verify_charges();
  std::uint32_t tcp = 0;
  conns_.each([&](ConnRef ref) {
    const Conn& conn = *conns_.get<kRow>(ref);
    tcp += conn.peer.is_unix ? 0 : 1;
    sound = sound && conn.ref == ref && conn.doomed == (conn.watch == nullptr);
    // Nothing waits without somebody who will look at it.
    if (!conn.doomed && !conn.out.empty()) sound = sound && (conn.blocked || conn.dirty);
  });
  return sound && tcp == tcp_conns_;
}

}  // namespace cm::net
