// connection.h — the row of one connection, private to server*.cc.
// Owns:   the descriptor, its watch, and the buffers while they hold anything.
// Holds:  a doomed connection has no watch any more and leaves the table at the next reap(), never
//         inside a callback or a call that still uses it.
// Limits: static_assert below; the bytes an idle connection costs beside libevent's own.
// Not:    a public type: owners name connections by ConnRef.
#pragma once

#include <cstdint>
#include <memory>

#include "core/net/server.h"
#include "core/net/tls.h"

namespace cm::net {

enum class ConnState : std::uint8_t {
  kTlsHandshake,  // no byte of HTTP before its end
  kHttpRead,      // idle, or within a request
  kHttpReply,     // a request was handed out and waits for its reply
  kHttpStream,    // a streaming reply has begun
  kWs,            // open
  kWsClosing,     // our close frame is sent; theirs is awaited
  kLinger         // pending output, then our half is shut; input is dropped until theirs ends
};

struct Conn {
  Conn(Server& owner, BufferPool& pool, Fd descriptor) noexcept
      : server(&owner),
        fd(std::move(descriptor)),
        in(pool),
        out(pool),
        ws(WsRole::kServer, 0, pool) {}

  Server* server;
  ConnRef ref;
  Fd fd;
  Loop::Watch* watch = nullptr;
  PooledBuffer in;
  PooledBuffer out;
  WsReceiver ws;
  HttpProgress http;
  PeerInfo peer;
  std::unique_ptr<TlsStream> tls;   // null: plain
  std::uint64_t group = 0;          // whose budget of unfinished input; 0: none yet
  std::uint32_t charged = 0;        // bytes of unfinished input, as the budgets know it
  std::uint32_t out_charged = 0;    // bytes of unsent output, likewise
  std::uint32_t wire_left = 0;      // bytes that a TLS stream may still take from the socket now
  std::uint32_t wire_idle = 0;      // bytes that it took since it last gave any
  std::uint64_t last_heard = 0;     // last byte read
  std::uint64_t last_wrote = 0;     // last byte written, or when output began to wait
  std::uint64_t partial_since = 0;  // first byte of an unfinished request or message; 0 if none
  std::uint64_t ping_at = 0;
  std::uint64_t close_by = 0;  // end of kWsClosing and kLinger; 0 until the clock is known
  ConnState state = ConnState::kHttpRead;

  bool doomed : 1 = false;
  bool dirty : 1 = false;      // in dirty_
  bool touched : 1 = false;    // in touched_
  bool resuming : 1 = false;   // in resume_
  bool heard : 1 = true;       // since the last tick()
  bool sent : 1 = true;        // since the last tick()
  bool partial : 1 = false;    // `in` or `ws` holds the beginning of something
  bool blocked : 1 = false;    // the socket takes no more for now
  bool over_soft : 1 = false;  // of a WebSocket: not read until half of it is sent
  bool peer_eof : 1 = false;
  bool shut : 1 = false;          // our half is shut down, or will be as soon as TLS allows
  bool keep_alive : 1 = true;     // after the reply that is due
  bool head_request : 1 = false;  // the reply that is due has no body
  bool served : 1 = false;        // at least one request was answered
  bool closed_told : 1 = false;   // kWsClosed was reported
  bool starved : 1 = false;       // in starved_: not read until memory is free
  bool half_closed : 1 = false;   // the kernel knows that our half is shut
  bool close_waits : 1 = false;   // close_notify found no room
  bool cut : 1 = false;           // in cut_: a write failed
  bool excused : 1 = false;       // its unfinished message was given more time, once
  // A TLS stream may have to write before it can read, and the other way round.
  bool read_wants_write : 1 = false;
  bool write_wants_read : 1 = false;
};

static_assert(sizeof(Conn) <= 320, "an idle connection has a budget of 1 KB in all");

// Pipelined input kept while a reply is due.
constexpr std::size_t kPipelineBytes = 16 * 1024;
constexpr std::uint64_t kCloseMs = 5'000;
// Bytes of the wire that TLS may take without giving any: in one callback, and in all.
constexpr std::uint32_t kTlsWireShare = 20 * 1024;
constexpr std::uint32_t kTlsWireIdle = 40 * 1024;

}  // namespace cm::net
