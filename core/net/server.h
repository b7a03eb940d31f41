// server.h — HTTP/1.1 and WebSocket connections of a daemon or broker, as a table.
// Owns:   the table of connections, their buffers while they need any, all their deadlines.
// Holds:  it never calls its owner: collect() and tick() append NetEvents, and the owner's calls
//         act later. Views in events live in the scratch arena until its owner resets it. A stale
//         ConnRef is ignored: every call with one answers false.
// Why:    the owner commits between reading events and calling, so nothing is acknowledged before
//         it is durable (design/architecture.md, "The loop").
// Limits: ServerOptions. An idle connection owns no buffer and no parser: about 0.6 KB in all.
// Not:    routes, authority, JSON: they are the cores'. Outgoing connections: http_client.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/arena.h"
#include "core/base/ids.h"
#include "core/base/limits.h"
#include "core/base/table.h"
#include "core/net/http_message.h"
#include "core/net/http_write.h"
#include "core/net/listener.h"
#include "core/net/loop.h"
#include "core/net/tls.h"
#include "core/net/ws_frame.h"

namespace cm::net {

struct Conn;

struct ServerOptions {
  Limits limits;  // the lines "one iteration" and "network", ping and stale
  // Beyond it a connection gets 503 and is closed. A server that has a unix socket too keeps half
  // of them for it: whoever may reach its port cannot lock out whoever may open its file.
  std::uint32_t connections_max = 0;
  bool websockets = false;  // upgrade on the exact target "/ws" (spec/wire.md §1)
};

enum class NetEventKind : std::uint8_t {
  kHttpRequest,  // answer it with http_reply() or stream_begin(); nothing more is read until then
  kHttpClosed,   // the requester, or the reader of a stream, went away
  kWsOpen,       // `request` is the upgrade request
  kWsMessage,    // payload, binary
  kWsClosed,     // exactly once for each kWsOpen; code as RFC 6455 reports it (1006: no close)
  kWritable      // pending output was over the soft limit and is under half of it again
};

struct NetEvent {
  NetEventKind kind = NetEventKind::kHttpRequest;
  bool binary = false;
  bool by_peer = false;  // kWsClosed: the peer's close frame said `code`
  std::uint16_t code = 0;
  ConnRef conn;
  PeerInfo peer;
  const HttpRequest* request = nullptr;
  std::string_view payload;  // kWsMessage: the message; kWsClosed: the reason
};

struct ServerStats {
  std::uint64_t accepted = 0;
  std::uint64_t refused_full = 0;      // over connections_max
  std::uint64_t refused_requests = 0;  // malformed, too long or too slow HTTP
  std::uint64_t long_bodies = 0;       // of those, bodies over the limit (413)
  std::uint64_t protocol_errors = 0;   // WebSockets closed with 1002, 1007, 1008 or 1009
  std::uint64_t dropped_slow = 0;      // pending output over the hard limit or a budget
  std::uint64_t dropped_stale = 0;     // silence
  std::uint64_t tls_failed = 0;        // handshakes that came to nothing
  std::uint64_t starved = 0;           // times that a connection waited for memory
};

class Server {
 public:
  // What an idle connection costs with TLS, for the memory bill; a test measures it.
  static constexpr std::size_t kTlsIdleBytes = 16 * 1024;

  // All arguments outlive the server.
  Server(Loop& loop, const ServerOptions& options, ScratchArena& scratch, BufferPool& pool);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Answers the bound port (port 0 lets the system choose).
  Result<std::uint16_t> listen_tcp(const std::string& host, std::uint16_t port);
  Status listen_unix(const std::string& path);
  // Also for a certificate that was renewed: connections that are open keep theirs.
  void set_tls(TlsContext context) noexcept { tls_ = std::move(context); }
  // As listen_tcp(), for TLS alone; after set_tls().
  Result<std::uint16_t> listen_tls(const std::string& host, std::uint16_t port);

  // --- one iteration, in this order ---
  // Continues what the last iteration left over, then runs the loop. It does not block while
  // work_left() or if the first part already gave events.
  void collect(bool may_block);
  // In place of collect() while events of the last one wait: runs the loop without waiting, for
  // output, new connections and signals, and reads nothing. Views in events stay.
  void attend();
  // Moves the server's clock: stamps what collect() read and acts on deadlines that have passed.
  void tick(std::uint64_t mono_ms);
  const std::vector<NetEvent>& events() const noexcept { return events_; }
  // (the owner applies the events, commits, and makes its calls)
  // One write for each connection with new output; what the socket does not take waits for it.
  void flush();
  // Forgets the events; the owner resets the scratch arena after this.
  void end_iteration() noexcept { events_.clear(); }

  // Buffered input or closed connections that the next collect() will turn into events.
  bool work_left() const noexcept;
  // When tick() must run next; kNever without connections. At most once a second.
  std::uint64_t next_deadline() const noexcept;

  // --- calls of the owner; false if the connection is gone or in no state for the call ---
  bool http_reply(ConnRef conn, int status, std::string_view content_type, std::string_view body,
                  HttpHeaders extra = {});
  // A reply whose body comes in pieces (server-sent events). It ends by stream_end() alone.
  bool stream_begin(ConnRef conn, std::string_view content_type, HttpHeaders extra = {});
  bool stream_write(ConnRef conn, std::string_view bytes);
  bool stream_end(ConnRef conn);

  bool ws_send(ConnRef conn, std::string_view text);
  // Starts the closing handshake, bounded to 5 s. Messages that still come are dropped.
  bool ws_close(ConnRef conn, std::uint16_t code, std::string_view reason);
  // Bytes of one message. A new connection begins with limits.unauthenticated_bytes_max.
  bool ws_set_frame_limit(ConnRef conn, std::uint32_t bytes);
  // Whose connection this is: unfinished input and unsent output of one group are bounded
  // together (limits.partial_group_bytes_max, output_group_bytes_max). 0: nobody's, as at first.
  bool ws_set_group(ConnRef conn, std::uint64_t group);

  bool alive(ConnRef conn) const noexcept;
  // Bytes not yet taken by the socket; 0 for a stale handle.
  std::size_t pending_output(ConnRef conn) const noexcept;
  // Address and port for logs.
  bool append_peer_address(ConnRef conn, TextBuf& out) const;

  // --- shutdown ---
  // Stops listening; closes idle connections and streams, WebSockets with this code; replies that
  // are due are still written. Go on with iterations until drained().
  void drain(std::uint16_t code, std::string_view reason);
  bool drained() const noexcept { return conns_.count() == 0; }

  std::uint32_t connections() const noexcept { return conns_.count(); }
  // Memory of unfinished input, as the budgets count it.
  std::uint64_t partial_bytes() const noexcept { return everyone_.charged; }
  // Memory of output that the sockets have not taken, likewise.
  std::uint64_t output_bytes() const noexcept { return everyone_.output; }
  const ServerStats& stats() const noexcept { return stats_; }
  // Invariants of the table and of every connection; part of verify_all().
  bool verify() const;

 private:
  // The sweep walks kDeadline alone; kRow is the rest.
  enum Col { kDeadline, kRow };
  using ConnTable = Table<ConnTag, std::uint64_t, std::unique_ptr<Conn>>;

  // server.cc: connections, reading, writing
  Conn* find(ConnRef ref) const;
  void on_accept(Fd fd, bool tls);
  static void on_ready(void* conn, unsigned ready) noexcept;
  void read_some(Conn& conn);
  void on_eof(Conn& conn);
  void process(Conn& conn);
  bool put(Conn& conn, std::string_view bytes);
  bool room_for(Conn& conn, std::size_t bytes);
  void wrote(Conn& conn);
  void flush_one(Conn& conn);
  void after_flush(Conn& conn);
  void cut(Conn& conn);
  void read_cut();
  void linger(Conn& conn);
  void doom(Conn& conn);
  void reap();
  void update_interest(Conn& conn);
  void resume_later(Conn& conn);
  bool budget_left() const noexcept;
  NetEvent& add_event(Conn& conn, NetEventKind kind);
  std::uint32_t tcp_connections_max() const noexcept {
    return options_.connections_max - options_.connections_max / 2;
  }

  // server_tls.cc: the byte path of a connection, plain or TLS
  enum class Io : std::uint8_t { kOk, kLater, kEnd, kError };
  void attach_tls(Conn& conn);
  void note_record(Conn& conn);
  bool shake_hands(Conn& conn);
  Io receive(Conn& conn, MutableBytes to, std::size_t& got) const;
  static Io transmit(Conn& conn, Bytes bytes, std::size_t& taken);
  static void half_close(Conn& conn);

  // server_memory.cc: budgets of unfinished input
  struct PartialScope {
    std::uint64_t charged = 0;
    std::uint64_t output = 0;       // see server_output.cc
    std::uint32_t connections = 0;  // of a group
    ConnRef favourite;              // goes on although the scope is full
  };
  PartialScope& scope_of(const Conn& conn);
  std::uint64_t scope_bytes_max(const Conn& conn) const noexcept;
  bool favours(PartialScope& scope, const Conn& conn) const;
  bool may_grow(const Conn& conn, std::size_t bytes);
  std::size_t grant(const Conn& conn, std::size_t want);
  void starve(Conn& conn);
  void feed_starved();
  void recharge(Conn& conn);
  void discharge(Conn& conn);
  void leave_group(Conn& conn);
  bool verify_charges() const;

  // server_output.cc: budgets of unsent output
  static bool waits_for_output(const Conn& conn) noexcept;
  void output_went(Conn& conn);
  void charge_output(Conn& conn);
  void shed_output();
  void drop_largest(std::uint64_t group);

  // server_time.cc: deadlines
  void touch(Conn& conn);
  void settle(Conn& conn);
  void rearm(Conn& conn);
  std::uint64_t deadline_of(const Conn& conn) const noexcept;
  static bool has_unread(const Conn& conn) noexcept;
  void excuse(Conn& conn);
  void expire(Conn& conn);
  void sweep();

  // server_http.cc
  bool process_http(Conn& conn);
  void take_request(Conn& conn, const HttpRequest& request);
  void refuse(Conn& conn, int status, std::string_view sentence);
  bool reply(Conn& conn, int status, std::string_view content_type, std::string_view body,
             HttpHeaders extra);
  void reply_done(Conn& conn);

  // server_ws.cc
  bool take_upgrade(Conn& conn, const HttpRequest& request);
  bool process_ws(Conn& conn);
  void take_message(Conn& conn, const WsEvent& event);
  void fail_ws(Conn& conn, std::uint16_t code, std::string_view sentence);
  void report_ws_closed(Conn& conn, std::uint16_t code, std::string_view reason,
                        bool by_peer = false);
  void start_close(Conn& conn, std::uint16_t code, std::string_view reason);
  bool put_frame(Conn& conn, WsOpcode opcode, std::string_view payload);

  Loop* loop_;
  ServerOptions options_;
  HttpLimits http_limits_;
  ScratchArena* scratch_;
  BufferPool* pool_;
  WsCodec codec_;
  ConnTable conns_;
  Listeners listeners_;
  TlsContext tls_;

  std::vector<NetEvent> events_;
  std::vector<ConnRef> dirty_;     // new output since the last flush()
  std::vector<ConnRef> touched_;   // read from or written to since the last tick()
  std::vector<ConnRef> resume_;    // buffered input that may be processed
  std::vector<ConnRef> resuming_;  // resume_ of the last iteration, while it is walked
  std::vector<ConnRef> writable_;  // kWritable to be told
  std::vector<ConnRef> doomed_;    // to be taken out of the table
  std::vector<ConnRef> cut_;       // take no output any more; read once, then doomed
  std::vector<ConnRef> starved_;   // not read until memory is free
  std::vector<ConnRef> feeding_;   // starved_ while it is walked

  PartialScope everyone_;
  PartialScope strangers_;                                  // group 0
  std::unordered_map<std::uint64_t, PartialScope> groups_;  // while they have connections
  bool memory_freed_ = false;                               // since the last feed_starved()
  std::vector<std::uint64_t> over_;                         // groups with too much unsent output

  std::uint64_t now_ = 0;
  std::uint64_t last_sweep_ = 0;
  std::uint64_t next_sweep_ = kNever;
  std::uint64_t last_retry_ = 0;
  std::uint64_t iteration_bytes_ = 0;
  bool collecting_ = false;  // between collect() and tick(): now_ is of the last iteration
  bool attending_ = false;   // within attend()
  bool draining_ = false;
  ServerStats stats_;
  bool has_unix_ = false;
  std::uint32_t tcp_conns_ = 0;  // of the table
};

}  // namespace cm::net
