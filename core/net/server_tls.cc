// server_tls.cc — the byte path of a connection: the socket itself, or TLS over it.
// Holds:  what TLS takes from a socket before it gives anything is bounded in bytes of the wire, in
//         one go and in all; a descriptor that has more stays ready.
// Why:    records of TLS that carry nothing (alerts, key updates) cost us more than others do, and
//         no bound on what they carry would ever stop them.
// Limits: kTlsWireShare in one go, kTlsWireIdle in all; unauthenticated_bytes_max in a handshake.
// Not:    TLS itself (tls.h), when to read and write (server.cc).
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "core/net/connection.h"
#include "core/net/server.h"

namespace cm::net {
namespace {

ssize_t wire_read(void* context, MutableBytes to) {
  Conn& conn = *static_cast<Conn*>(context);
  if (conn.wire_left == 0) {
    errno = EAGAIN;
    return -1;
  }
  const std::size_t size = std::min<std::size_t>(to.size(), conn.wire_left);
  for (;;) {
    const ssize_t got = ::recv(conn.fd.get(), to.data(), size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got > 0) conn.wire_left -= static_cast<std::uint32_t>(got);
    if (got > 0) conn.wire_idle += static_cast<std::uint32_t>(got);
    return got;
  }
}

ssize_t wire_write(void* context, Bytes bytes) {
  const Conn& conn = *static_cast<const Conn*>(context);
  for (;;) {
    const ssize_t sent = ::send(conn.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    return sent;
  }
}

bool later(int error) noexcept { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

void Server::attach_tls(Conn& conn) {
  conn.tls = std::make_unique<TlsStream>(tls_, TlsIo{&wire_read, &wire_write, &conn});
  conn.peer.is_tls = true;
  conn.state = ConnState::kTlsHandshake;
  conn.partial = true;  // its deadline runs from here
  conn.wire_left = options_.limits.unauthenticated_bytes_max;
}

// A record that has begun is the beginning of something, also while nothing of it can be read.
void Server::note_record(Conn& conn) {
  if (conn.state != ConnState::kHttpRead && conn.state != ConnState::kWs) return;
  conn.partial = !conn.in.empty() || conn.ws.in_message() || conn.tls->in_record();
  touch(conn);
}

// True once HTTP may be read.
bool Server::shake_hands(Conn& conn) {
  switch (conn.tls->handshake()) {
    case TlsStep::kOk:
      conn.state = ConnState::kHttpRead;
      conn.wire_idle = 0;
      conn.partial = false;
      conn.partial_since = 0;
      conn.heard = true;
      touch(conn);
      return true;
    case TlsStep::kWantRead:
      if (conn.wire_left != 0) return false;
      ++stats_.tls_failed;
      doom(conn);
      return false;
    case TlsStep::kWantWrite: conn.read_wants_write = true; return false;
    case TlsStep::kEnd:
    case TlsStep::kCut:
    case TlsStep::kFailed: break;
  }
  // OpenSSL has sent its alert. From here on the connection is a plain one that ends.
  ++stats_.tls_failed;
  const bool was_http = conn.tls->was_http();
  conn.tls.reset();
  conn.keep_alive = false;
  if (was_http) {
    refuse(conn, 400, "this port speaks TLS: use https:// or wss://");
  } else {
    linger(conn);
  }
  return false;
}

Server::Io Server::receive(Conn& conn, MutableBytes to, std::size_t& got) const {
  if (!conn.tls) {
    ssize_t size = 0;
    do {
      size = ::recv(conn.fd.get(), to.data(), to.size(), 0);
    } while (size < 0 && errno == EINTR);
    got = size > 0 ? static_cast<std::size_t>(size) : 0;
    if (size < 0) return later(errno) ? Io::kLater : Io::kError;
    return size == 0 ? Io::kEnd : Io::kOk;
  }
  switch (conn.tls->read(to, got)) {
    case TlsStep::kOk:
      conn.wire_left = kTlsWireShare;
      conn.wire_idle = 0;
      return Io::kOk;
    case TlsStep::kWantRead:
      // A record is 16 KiB and a little; what takes more than two of them carries nothing.
      return conn.wire_idle > kTlsWireIdle ? Io::kError : Io::kLater;
    case TlsStep::kWantWrite: conn.read_wants_write = true; return Io::kLater;
    // HTTP and WebSocket know by themselves whether what came is complete.
    case TlsStep::kEnd:
    case TlsStep::kCut: return Io::kEnd;
    case TlsStep::kFailed: break;
  }
  return Io::kError;
}

Server::Io Server::transmit(Conn& conn, Bytes bytes, std::size_t& taken) {
  if (!conn.tls) {
    const ssize_t sent = wire_write(&conn, bytes);
    taken = sent > 0 ? static_cast<std::size_t>(sent) : 0;
    if (sent < 0) return later(errno) ? Io::kLater : Io::kError;
    return Io::kOk;
  }
  switch (conn.tls->write(bytes, taken)) {
    case TlsStep::kOk: return Io::kOk;
    case TlsStep::kWantRead: conn.write_wants_read = true; return Io::kLater;
    case TlsStep::kWantWrite: return Io::kLater;
    case TlsStep::kEnd:
    case TlsStep::kCut:
    case TlsStep::kFailed: break;
  }
  return Io::kError;
}

void Server::half_close(Conn& conn) {
  if (conn.half_closed) return;
  conn.close_waits = conn.tls && conn.tls->close() == TlsStep::kWantWrite;
  if (conn.close_waits) return;
  conn.half_closed = true;
  ::shutdown(conn.fd.get(), SHUT_WR);
}

}  // namespace cm::net
