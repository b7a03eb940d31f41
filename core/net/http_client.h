// http_client.h — a small blocking HTTP client for the command line.
// Owns:   one connection for one exchange; closed when the call returns.
// Holds:  the deadline covers everything: connecting, sending, waiting, reading.
// Why:    a verb makes one or a few calls and ends; it needs no loop.
// Limits: a body of at most 10 MiB, a line of a stream of at most 1 MiB.
// Not:    used by the daemon's or broker's loop.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/net/http_write.h"

namespace cm::net {

// A unix socket if `unix_path` is not empty, else host and port.
struct Endpoint {
  std::string unix_path;
  std::string host;
  std::uint16_t port = 0;
  bool tls = false;          // then host and certificate must fit
  std::string ca_file = {};  // trusted beside the system's authorities; may be empty
};

struct HttpReply {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string_view header(std::string_view name) const noexcept;
};

constexpr std::uint32_t kNoTimeout = UINT32_MAX;

// kUnavailable: nobody listens there. kTimeout: no complete reply in time. kTransport: the reply
// broke off or is no HTTP. kTlsFailed: the other end is not who it should be, or speaks no TLS; kIo
// and kMalformed: `ca_file`. kTooBig: the reply is longer than the bound. Any status is a value.
Result<HttpReply> http_call(const Endpoint& endpoint, std::string_view method,
                            std::string_view target, HttpHeaders headers, std::string_view body,
                            std::uint32_t timeout_ms);

// Called for each line of the body, without its line end. False ends the call.
using OnLine = bool (*)(void* context, std::string_view line);

// For event streams. A reply other than 2xx is returned whole, as by http_call(); else the body is
// given line by line and the reply has none. Returns when the callback says so or the stream ends.
Result<HttpReply> http_stream(const Endpoint& endpoint, std::string_view method,
                              std::string_view target, HttpHeaders headers,
                              std::uint32_t timeout_ms, OnLine on_line, void* context);

}  // namespace cm::net
