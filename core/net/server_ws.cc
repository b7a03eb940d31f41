// server_ws.cc — the WebSocket side of a connection (RFC 6455 at a server).
// Holds:  every kWsOpen is followed by exactly one kWsClosed, whoever ended the connection.
// Not:    frames (ws_frame.h), the handshake's checks (ws_handshake.h).
#include "core/base/check.h"
#include "core/net/connection.h"
#include "core/net/server.h"
#include "core/net/ws_handshake.h"

namespace cm::net {
namespace {

constexpr std::string_view kPath = "/ws";
constexpr std::string_view kJson = "application/json";

}  // namespace

// True if the request was about WebSockets and is dealt with. Only the exact target upgrades; a
// query behind it is answered like any unknown path (spec/wire.md §1).
bool Server::take_upgrade(Conn& conn, const HttpRequest& request) {
  if (request.path != kPath && !ws_wants_upgrade(request)) return false;
  if (request.target != kPath) {
    reply(conn, 404, kJson, "{\"error\":\"not found\"}", {});
    return true;
  }
  const HttpRefusal refusal = ws_check_upgrade(request);
  if (refusal.status != 0) {
    const HttpHeader needed[] = {{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}};
    TextBuf body(*scratch_, 128);
    body.append("{\"error\":\"");
    body.append(refusal.sentence);
    body.append("\"}");
    reply(conn, refusal.status, kJson, body.view(),
          refusal.status == 426 ? HttpHeaders(needed) : HttpHeaders());
    return true;
  }
  if (draining_) {
    reply(conn, 503, kJson, "{\"error\":\"shutting down\"}", {});
    return true;
  }
  TextBuf accept(*scratch_);
  ws_write_accept(accept, request);
  conn.state = ConnState::kWs;
  conn.ws.set_limit(options_.limits.unauthenticated_bytes_max);
  add_event(conn, NetEventKind::kWsOpen).request = &request;
  put(conn, accept.view());
  return true;
}

// True if there may be more to take from the input.
bool Server::process_ws(Conn& conn) {
  WsEvent event;
  const bool taken = conn.ws.next(codec_, conn.in, *scratch_, event);
  conn.partial = !conn.in.empty() || conn.ws.in_message();
  if (!taken) return false;
  if (!conn.ws.in_message()) conn.partial_since = 0;
  switch (event.kind) {
    case WsEvent::Kind::kMessage: take_message(conn, event); break;
    case WsEvent::Kind::kPing:
      if (conn.state == ConnState::kWs) put_frame(conn, WsOpcode::kPong, event.payload);
      break;
    case WsEvent::Kind::kPong: break;
    case WsEvent::Kind::kClose:
      report_ws_closed(conn, event.code, event.payload, true);
      // The peer's own code goes back (RFC 6455 §5.5.1); ours was sent before if we began.
      if (conn.state == ConnState::kWs) {
        if (!room_for(conn, 127)) return false;
        codec_.write_close(conn.out, event.code, {}, nullptr);
      }
      linger(conn);
      break;
    case WsEvent::Kind::kError: fail_ws(conn, event.code, event.payload); break;
  }
  return true;
}

void Server::take_message(Conn& conn, const WsEvent& message) {
  if (conn.state != ConnState::kWs) return;
  iteration_bytes_ += message.payload.size();
  NetEvent& event = add_event(conn, NetEventKind::kWsMessage);
  event.binary = message.binary;
  event.payload = message.payload;
}

void Server::report_ws_closed(Conn& conn, std::uint16_t code, std::string_view reason,
                              bool by_peer) {
  if (conn.closed_told) return;
  conn.closed_told = true;
  NetEvent& event = add_event(conn, NetEventKind::kWsClosed);
  event.code = code;
  event.by_peer = by_peer;
  event.payload = reason;
}

void Server::fail_ws(Conn& conn, std::uint16_t code, std::string_view sentence) {
  ++stats_.protocol_errors;
  report_ws_closed(conn, code, sentence);
  if (conn.state == ConnState::kWs) {
    if (!room_for(conn, 127)) return;
    codec_.write_close(conn.out, code, sentence, nullptr);
  }
  linger(conn);
}

bool Server::put_frame(Conn& conn, WsOpcode opcode, std::string_view payload) {
  if (!room_for(conn, WsCodec::frame_bytes(payload.size(), false))) return false;
  codec_.write_frame(conn.out, opcode, payload, nullptr);
  wrote(conn);
  return true;
}

bool Server::ws_send(ConnRef ref, std::string_view text) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kWs) return false;
  return put_frame(*conn, WsOpcode::kText, text);
}

void Server::start_close(Conn& conn, std::uint16_t code, std::string_view reason) {
  if (!room_for(conn, 127)) return;
  codec_.write_close(conn.out, code, reason, nullptr);
  wrote(conn);
  conn.state = ConnState::kWsClosing;
  conn.close_by = 0;
  touch(conn);
}

bool Server::ws_close(ConnRef ref, std::uint16_t code, std::string_view reason) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kWs) return false;
  start_close(*conn, code, reason);
  return true;
}

bool Server::ws_set_frame_limit(ConnRef ref, std::uint32_t bytes) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kWs) return false;
  CHECK(bytes <= 31u << 20);  // a pooled block ends at 32 MiB
  conn->ws.set_limit(bytes);
  return true;
}

bool Server::ws_set_group(ConnRef ref, std::uint64_t group) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kWs) return false;
  const std::uint32_t held = conn->charged;
  discharge(*conn);
  conn->group = group;
  if (group != 0) ++groups_[group].connections;
  scope_of(*conn).charged += held;
  everyone_.charged += held;
  conn->charged = held;
  charge_output(*conn);
  return true;
}

}  // namespace cm::net
