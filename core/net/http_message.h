// http_message.h — HTTP/1.1 messages out of bytes: requests at a server, responses at a client.
// Owns:   HttpProgress, the only state between two readings of one message (32 bytes, no parser).
// Holds:  a message is handed out whole, or refused, or not at all. What two parsers could read
//         in two ways is refused (RFC 9112 §2.2, §5.1, §6.3, §11.2): bare LF or CR, obs-fold,
//         control bytes, header names that are no tokens, a second Host, Origin, Authorization,
//         Content-Length or Transfer-Encoding, a length beside a transfer coding.
// Why:    http-parser as Debian builds it is lenient; it is run behind our own checks, and the two
//         must agree on where the message ends.
// Limits: HttpLimits, given by the caller. At most 64 header fields.
// Not:    sockets, deadlines (server.h), writing (http_write.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/arena.h"
#include "core/net/chunked.h"

namespace cm::net {

constexpr std::size_t kHttpHeadersMax = 64;

struct HttpLimits {
  std::uint32_t head_bytes = 16 << 10;   // start line and fields, with the empty line: 431
  std::uint32_t target_bytes = 8 << 10;  // 414
  std::uint32_t body_bytes = 1 << 20;    // after the transfer coding: 413
};

struct HttpHeader {
  std::string_view name;
  std::string_view value;  // without the white space around it
};

// Why a message is refused: the status to answer, and a sentence without its full stop. At a
// client the status is 502.
struct HttpRefusal {
  int status = 0;
  std::string_view sentence;
};

// All views live in the arena that the parser was given, until its reset().
struct HttpRequest {
  std::string_view method;
  std::string_view target;  // path and query, undecoded
  std::string_view path;
  std::string_view query;  // without '?'; see has_query for "/x?"
  bool has_query = false;
  bool keep_alive = true;
  std::span<const HttpHeader> headers;
  std::string_view body;

  // Names compare without case. An absent header gives an empty value.
  bool has_header(std::string_view name) const noexcept;
  std::string_view header(std::string_view name) const noexcept;
};

enum class HttpBody : std::uint8_t { kNone, kLength, kChunked, kUntilEof };

struct HttpResponse {
  int status = 0;
  bool keep_alive = true;
  HttpBody body_kind = HttpBody::kNone;
  std::uint64_t content_length = 0;  // for kLength
  std::span<const HttpHeader> headers;
  std::string_view body;

  bool has_header(std::string_view name) const noexcept;
  std::string_view header(std::string_view name) const noexcept;
};

// What is known of a message that has not fully arrived. Value-initialise it for each message.
struct HttpProgress {
  std::uint32_t scanned = 0;     // bytes searched for the end of the head
  std::uint32_t head_bytes = 0;  // once found
  std::uint32_t body_bytes = 0;  // declared, or decoded so far
  std::uint32_t cursor = 0;      // where the chunk decoder stands
  HttpBody body = HttpBody::kNone;
  bool continue_wanted = false;  // "Expect: 100-continue", not yet told to the caller
  ChunkDecoder chunks;
};

struct HttpStep {
  enum class Kind : std::uint8_t {
    kNeedMore,
    kContinue,  // as kNeedMore; the client waits for "100 Continue" first (told once)
    kComplete,  // `size` bytes of the input were the message
    kRefused    // nothing after this can be understood: answer and close
  };
  Kind kind = Kind::kNeedMore;
  std::size_t size = 0;
  HttpRefusal refusal;
};

// `in` is all unread input from the first byte of the message, longer at each call. Nothing of it
// is kept: a complete message is copied into `arena` (32 KiB blocks are enough for most).
HttpStep parse_request(Bytes in, const HttpLimits& limits, HttpProgress& progress,
                       ScratchArena& arena, HttpRequest& out);

// `to_head` says that the request was HEAD, so no body follows; `eof` that the peer has finished
// sending. A 1xx response is complete without a body; the caller goes on to the next one.
HttpStep parse_response(Bytes in, bool eof, bool to_head, const HttpLimits& limits,
                        HttpProgress& progress, ScratchArena& arena, HttpResponse& out);

// The head alone, for bodies that are read as a stream: kComplete gives the head's size.
HttpStep parse_response_head(Bytes in, const HttpLimits& limits, HttpProgress& progress,
                             ScratchArena& arena, HttpResponse& out);

// RFC 9110 §5.6.2.
bool http_token(std::string_view text) noexcept;
// Visible bytes, spaces, tabs and bytes from 0x80 on.
bool http_field_value(std::string_view text) noexcept;
bool equal_no_case(std::string_view left, std::string_view right) noexcept;
// True if the comma-separated list holds the token, compared without case.
bool http_list_has(std::string_view list, std::string_view token) noexcept;

}  // namespace cm::net
