// server_http.cc — the HTTP side of a connection: one request at a time, its reply, streams.
// Holds:  while a reply is due nothing is parsed; pipelined bytes wait, at most 16 KiB of them.
// Not:    routes: a request is handed out as it came, unless it is refused for its form.
#include <new>

#include "core/base/check.h"
#include "core/net/connection.h"
#include "core/net/server.h"

namespace cm::net {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::uint8_t kTlsRecord = 0x16;  // a handshake, RFC 8446 §5.1; no method begins so
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

bool status_has_body(int status) noexcept {
  return status >= 200 && status != 204 && status != 304;
}

}  // namespace

// True if there may be more to take from the input.
bool Server::process_http(Conn& conn) {
  if (conn.in.bytes()[0] == kTlsRecord) {
    // Answered at once: the client would wait for its handshake until one of us gives up.
    refuse(conn, 400, "this port speaks no TLS: use http:// or ws://");
    return false;
  }
  HttpRequest request;
  const HttpStep step = parse_request(conn.in.bytes(), http_limits_, conn.http, *scratch_, request);
  switch (step.kind) {
    case HttpStep::Kind::kContinue: put(conn, kContinue); [[fallthrough]];
    case HttpStep::Kind::kNeedMore:
      conn.partial = true;
      if (conn.peer_eof) linger(conn);
      return false;
    case HttpStep::Kind::kRefused:
      refuse(conn, step.refusal.status, step.refusal.sentence);
      return false;
    case HttpStep::Kind::kComplete: break;
  }
  conn.in.consume(step.size);
  conn.http = {};
  conn.partial = false;
  conn.partial_since = 0;
  conn.state = ConnState::kHttpReply;
  conn.keep_alive = request.keep_alive;
  conn.head_request = request.method == "HEAD";
  take_request(conn, request);
  return true;
}

void Server::take_request(Conn& conn, const HttpRequest& request) {
  auto* kept =
      new (scratch_->allocate(sizeof(HttpRequest), alignof(HttpRequest))) HttpRequest(request);
  iteration_bytes_ += request.target.size() + request.body.size();
  if (options_.websockets && take_upgrade(conn, *kept)) return;
  add_event(conn, NetEventKind::kHttpRequest).request = kept;
}

void Server::refuse(Conn& conn, int status, std::string_view sentence) {
  ++stats_.refused_requests;
  TextBuf body(*scratch_, 128);
  body.append("{\"error\":\"");
  body.append(sentence);
  body.append('"');
  if (status == 413) {
    ++stats_.long_bodies;
    body.append(",\"code\":\"payload_too_large\",\"detail\":\"a body has at most ");
    body.append_unsigned(http_limits_.body_bytes);
    body.append(" bytes\",\"limit_bytes\":");
    body.append_unsigned(http_limits_.body_bytes);
    body.append(",\"remedy\":\"send a smaller body\"");
  }
  body.append('}');
  TextBuf text(*scratch_);
  write_response_head(text, status, kJson, body.size(), {}, false);
  text.append(body.view());
  if (put(conn, text.view())) linger(conn);
}

bool Server::reply(Conn& conn, int status, std::string_view content_type, std::string_view body,
                   HttpHeaders extra) {
  if (draining_) conn.keep_alive = false;
  TextBuf head(*scratch_);
  write_response_head(head, status, content_type, body.size(), extra, conn.keep_alive);
  if (conn.head_request || !status_has_body(status)) body = {};
  if (!room_for(conn, head.size() + body.size())) return false;
  conn.out.append(as_bytes(head.view()));
  conn.out.append(as_bytes(body));
  wrote(conn);
  reply_done(conn);
  return true;
}

void Server::reply_done(Conn& conn) {
  conn.served = true;
  const bool may_follow = !conn.peer_eof || !conn.in.empty();
  if (!conn.keep_alive || draining_ || !may_follow) {
    linger(conn);
    return;
  }
  conn.state = ConnState::kHttpRead;
  conn.sent = true;  // the idle time counts from here
  touch(conn);
  // Within process() the caller goes on by itself; resuming then finds nothing left to do.
  if (!conn.in.empty()) resume_later(conn);
}

bool Server::http_reply(ConnRef ref, int status, std::string_view content_type,
                        std::string_view body, HttpHeaders extra) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kHttpReply) return false;
  return reply(*conn, status, content_type, body, extra);
}

bool Server::stream_begin(ConnRef ref, std::string_view content_type, HttpHeaders extra) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kHttpReply) return false;
  TextBuf head(*scratch_);
  write_response_head(head, 200, content_type, kStreaming, extra, conn->keep_alive);
  if (!put(*conn, head.view())) return false;
  conn->state = ConnState::kHttpStream;
  return true;
}

bool Server::stream_write(ConnRef ref, std::string_view bytes) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kHttpStream) return false;
  if (bytes.empty() || conn->head_request) return true;
  char room[16];
  const std::string_view head = chunk_head(room, bytes.size());
  if (!room_for(*conn, head.size() + bytes.size() + kChunkEnd.size())) return false;
  conn->out.append(as_bytes(head));
  conn->out.append(as_bytes(bytes));
  conn->out.append(as_bytes(kChunkEnd));
  wrote(*conn);
  return true;
}

bool Server::stream_end(ConnRef ref) {
  Conn* conn = find(ref);
  if (conn == nullptr || conn->state != ConnState::kHttpStream) return false;
  if (!conn->head_request && !put(*conn, kLastChunk)) return false;
  reply_done(*conn);
  return true;
}

}  // namespace cm::net
