// url.h — where to connect: ws, wss, http, https and unix targets.
// Holds:  strict and lossless: nothing is decoded, normalised or guessed. User names, fragments,
//         spaces, control bytes and anything non-ASCII are refused (RFC 3986 §3).
// Limits: a URL of at most 2,048 bytes.
// Not:    resolving names (socket.h), query parameters (core/wire/query.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/base/arena.h"

namespace cm::net {

enum class Scheme : std::uint8_t { kWs, kWss, kHttp, kHttps, kUnix };

// Views into the parsed text.
struct Url {
  Scheme scheme = Scheme::kHttp;
  bool ipv6 = false;        // `host` is an IPv6 literal, without its brackets
  std::uint16_t port = 0;   // given, or the scheme's default; 0 for unix
  std::string_view host;    // for unix: the absolute path of the socket
  std::string_view target;  // path and query as written; "/" if absent
  bool secure() const noexcept { return scheme == Scheme::kWss || scheme == Scheme::kHttps; }
};

// Accepts "scheme://host[:port][/path][?query]" and "unix:/path" (or "unix:///path").
std::optional<Url> url_parse(std::string_view text) noexcept;

// "host", "host:port" or "[v6]:port" as a Host header says it; default ports are left out.
void url_append_host(TextBuf& out, const Url& url);

}  // namespace cm::net
