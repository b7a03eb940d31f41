// url.cc — the parsers of url.h.
// Holds:  views only point into the given text.
// Not:    percent-decoding of anything but query parameters.
#include "core/net/url.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>
#include <cstring>

#include "core/base/utf8.h"

namespace cm::net {
namespace {

constexpr std::size_t kUrlMax = 2048;

bool printable(std::string_view text) noexcept {
  for (const char c : text) {
    if (c <= 0x20 || c >= 0x7f) return false;
  }
  return true;
}

bool host_name(std::string_view host) noexcept {
  if (host.empty() || host.size() > 253 || host.front() == '.' || host.front() == '-') return false;
  for (const char c : host) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_') return false;
  }
  return host.find("..") == std::string_view::npos;
}

bool ipv6_literal(std::string_view host) noexcept {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (host.size() >= text.size()) return false;
  std::memcpy(text.data(), host.data(), host.size());
  in6_addr address;
  return inet_pton(AF_INET6, text.data(), &address) == 1;
}

// 1 to 65535 in plain digits without a leading zero, or 0.
std::uint16_t port_number(std::string_view text) noexcept {
  std::uint16_t port = 0;
  if (text.empty() || text[0] < '1' || text[0] > '9') return 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() ? port : std::uint16_t{0};
}

struct SchemeRow {
  std::string_view prefix;
  Scheme scheme;
  std::uint16_t port;
};
constexpr std::array<SchemeRow, 4> kSchemes = {{
    {"ws://", Scheme::kWs, 80},
    {"wss://", Scheme::kWss, 443},
    {"http://", Scheme::kHttp, 80},
    {"https://", Scheme::kHttps, 443},
}};

std::uint16_t default_port(Scheme scheme) noexcept {
  for (const SchemeRow& row : kSchemes) {
    if (row.scheme == scheme) return row.port;
  }
  return 0;
}

std::optional<Url> unix_target(std::string_view path) noexcept {
  if (path.starts_with("///")) path.remove_prefix(2);
  if (path.size() < 2 || path[0] != '/' || path[1] == '/') return std::nullopt;
  Url url;
  url.scheme = Scheme::kUnix;
  url.host = path;
  url.target = "/";
  return url;
}

// Takes "host", "host:port", "[v6]" or "[v6]:port".
bool take_authority(std::string_view authority, Url& url) noexcept {
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos) return false;
    url.host = authority.substr(1, close - 1);
    url.ipv6 = true;
    port = authority.substr(close + 1);
    if (!ipv6_literal(url.host)) return false;
  } else {
    const std::size_t colon = authority.find(':');
    url.host = authority.substr(0, colon);
    if (colon != std::string_view::npos) port = authority.substr(colon);
    if (!host_name(url.host)) return false;
  }
  if (port.empty()) return true;
  if (port[0] != ':') return false;
  url.port = port_number(port.substr(1));
  return url.port != 0;
}

}  // namespace

std::optional<Url> url_parse(std::string_view text) noexcept {
  if (text.size() > kUrlMax || !printable(text)) return std::nullopt;
  if (text.starts_with("unix:")) return unix_target(text.substr(5));
  if (text.find('#') != std::string_view::npos) return std::nullopt;
  for (const SchemeRow& row : kSchemes) {
    if (!text.starts_with(row.prefix)) continue;
    Url url;
    url.scheme = row.scheme;
    url.port = row.port;
    const std::string_view rest = text.substr(row.prefix.size());
    const std::size_t end = rest.find_first_of("/?");
    if (!take_authority(rest.substr(0, end), url)) return std::nullopt;
    url.target = end == std::string_view::npos ? std::string_view("/") : rest.substr(end);
    if (url.target[0] != '/') return std::nullopt;  // "http://host?query" has no path
    return url;
  }
  return std::nullopt;
}

void url_append_host(TextBuf& out, const Url& url) {
  if (url.scheme == Scheme::kUnix) {
    out.append("localhost");
    return;
  }
  if (url.ipv6) out.append('[');
  out.append(url.host);
  if (url.ipv6) out.append(']');
  if (url.port == default_port(url.scheme)) return;
  out.append(':');
  out.append_unsigned(url.port);
}

}  // namespace cm::net
