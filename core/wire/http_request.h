// http_request.h — what the cores see of an HTTP request: views, no sockets.
// Owns:   HttpRequest.
// Holds:  views live until the end of the iteration. The shell fills it from core/net.
// Why:    the cores include nothing of core/net, and the simulator has no HTTP.
// Source: docs/PROTOCOL.md §7, §10.
// Not:    parsing (core/net/http_message.h).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace cm::wire {

// An IPv6 address, or an IPv4 one mapped into it; all zero for a unix socket.
using PeerAddress = std::array<std::uint8_t, 16>;

struct HttpRequest {
  std::string_view method;
  std::string_view path;   // percent-encoded as it came
  std::string_view query;  // without '?'
  std::string_view host;
  std::string_view origin;
  bool has_origin = false;
  std::string_view authorization;
  std::string_view idempotency_key;
  std::string_view last_event_id;
  std::string_view body;
  bool peer_is_unix = false;
  bool peer_is_loopback = false;
  PeerAddress peer_address{};
};

}  // namespace cm::wire
