// http_fuzz.cc — HTTP/1.1 requests and responses, whole and in pieces.
// Input:  [selector u8][piece u8][bytes].
// Holds:  the outcome does not depend on how the bytes were cut; what is handed out is what the
//         rules of core/net/http_message.h allow; an upgrade that one side agrees to is one for
//         the other, and for nobody else.
// Why:    two readings of one message are how requests are smuggled.
// Not:    sockets.
#include <algorithm>

#include "core/base/check.h"
#include "core/net/http_message.h"
#include "core/net/ws_handshake.h"
#include "fuzz/registry.h"

namespace cm::net {
namespace {

using Kind = HttpStep::Kind;
constexpr HttpLimits kLimits{4096, 1024, 4096};
constexpr WsNonce kNonce{7};

void check_headers(std::span<const HttpHeader> headers) {
  CHECK(headers.size() <= kHttpHeadersMax);
  for (const HttpHeader& header : headers) {
    CHECK(http_token(header.name) && http_field_value(header.value));
  }
}

void check_step(const HttpStep& step, std::size_t available) {
  if (step.kind == Kind::kComplete) CHECK(step.size > 0 && step.size <= available);
  if (step.kind == Kind::kRefused) {
    CHECK(step.refusal.status >= 400 && step.refusal.status < 600);
    CHECK(!step.refusal.sentence.empty());
  }
}

void check_same(const HttpStep& whole, const HttpStep& pieces) {
  const bool waits = whole.kind == Kind::kNeedMore || whole.kind == Kind::kContinue;
  CHECK(waits == (pieces.kind == Kind::kNeedMore || pieces.kind == Kind::kContinue));
  if (waits) return;
  CHECK(whole.kind == pieces.kind && whole.size == pieces.size);
  CHECK_EQ(whole.refusal.status, pieces.refusal.status);
}

// What a server agrees to, a client takes for an answer to its own question and to no other.
void check_upgrade(const HttpRequest& request, ScratchArena& arena) {
  if (!ws_wants_upgrade(request)) return;
  const HttpRefusal refusal = ws_check_upgrade(request);
  CHECK(refusal.status == 0 || refusal.status == 400 || refusal.status == 426);
  if (refusal.status != 0) return;
  TextBuf text(arena);
  ws_write_accept(text, request);
  HttpProgress progress;
  HttpResponse response;
  const HttpStep step =
      parse_response(as_bytes(text.view()), false, false, kLimits, progress, arena, response);
  CHECK(step.kind == Kind::kComplete && step.size == text.size() && response.status == 101);
  const WsAcceptText expected = ws_accept_text(request.header("sec-websocket-key"));
  CHECK(response.header("sec-websocket-accept") ==
        std::string_view(expected.data(), expected.size()));
}

void check_accept(const HttpResponse& response) {
  if (!ws_check_accept(response, kNonce).empty()) return;
  CHECK(response.status == 101 && ws_check_accept(response, WsNonce{8}) != "");
}

void run_request(Bytes in, std::size_t piece, ScratchArena& arena) {
  HttpProgress progress;
  HttpRequest request;
  const HttpStep whole = parse_request(in, kLimits, progress, arena, request);
  check_step(whole, in.size());
  HttpProgress slow;
  HttpRequest second;
  HttpStep step;
  for (std::size_t size = 0; step.kind == Kind::kNeedMore || step.kind == Kind::kContinue;
       size += piece) {
    step = parse_request(in.first(std::min(size, in.size())), kLimits, slow, arena, second);
    if (size >= in.size()) break;
  }
  check_same(whole, step);
  if (whole.kind != Kind::kComplete) return;
  check_headers(request.headers);
  CHECK(http_token(request.method) && request.target.size() <= kLimits.target_bytes);
  CHECK(request.body.size() <= kLimits.body_bytes);
  CHECK(request.body == second.body && request.target == second.target);
  CHECK(request.keep_alive == second.keep_alive);
  check_upgrade(request, arena);
}

void run_response(Bytes in, bool eof, bool to_head, std::size_t piece, ScratchArena& arena) {
  HttpProgress progress;
  HttpResponse response;
  const HttpStep whole = parse_response(in, eof, to_head, kLimits, progress, arena, response);
  check_step(whole, in.size());
  HttpProgress slow;
  HttpResponse second;
  HttpStep step;
  for (std::size_t size = 0; step.kind == Kind::kNeedMore || step.kind == Kind::kContinue;
       size += piece) {
    const bool last = size >= in.size();
    step = parse_response(in.first(std::min(size, in.size())), eof && last, to_head, kLimits, slow,
                          arena, second);
    if (last) break;
  }
  check_same(whole, step);
  if (whole.kind != Kind::kComplete) return;
  check_headers(response.headers);
  CHECK(response.status >= 100 && response.status <= 999);
  CHECK(response.body.size() <= kLimits.body_bytes && response.body == second.body);
  check_accept(response);
}

}  // namespace
}  // namespace cm::net

CM_FUZZ_TARGET(http) {
  using namespace cm;
  if (size < 2) return 0;
  static ScratchArena arena;
  arena.reset();
  const Bytes in = Bytes(data, size).subspan(2);
  const std::size_t piece = std::size_t{1} + data[1];
  const bool eof = (data[0] & 2u) != 0;
  const bool to_head = (data[0] & 4u) != 0;
  if ((data[0] & 1u) == 0) {
    net::run_request(in, piece, arena);
  } else {
    net::run_response(in, eof, to_head, piece, arena);
  }
  return 0;
}
