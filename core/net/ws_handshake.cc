// ws_handshake.cc — the checks and texts of ws_handshake.h.
// Owns:   the use of SHA-1, which RFC 6455 asks for and nothing else here may.
// Not:    a security boundary: the accept value proves only that the peer speaks WebSocket.
#include "core/net/ws_handshake.h"

#include <openssl/evp.h>

#include <cstring>

#include "core/base/check.h"

namespace cm::net {
namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
constexpr std::size_t kKeyText = 24;  // 16 bytes in base64

bool base64_char(char c) noexcept {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/';
}

// Exactly the base64 of 16 bytes.
bool key_valid(std::string_view key) noexcept {
  if (key.size() != kKeyText || key.substr(22) != "==") return false;
  for (const char c : key.substr(0, 22)) {
    if (!base64_char(c)) return false;
  }
  return true;
}

std::array<char, kKeyText + 1> nonce_text(const WsNonce& nonce) noexcept {
  std::array<char, kKeyText + 1> text{};
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), nonce.data(),
                                   static_cast<int>(nonce.size()));
  CHECK_EQ(size, kKeyText);
  return text;
}

std::size_t count_of(const HttpRequest& request, std::string_view name) noexcept {
  std::size_t count = 0;
  for (const HttpHeader& field : request.headers) count += equal_no_case(field.name, name) ? 1 : 0;
  return count;
}

}  // namespace

WsAcceptText ws_accept_text(std::string_view key) noexcept {
  std::array<char, kKeyText + kGuid.size()> input{};
  CHECK_EQ(key.size(), kKeyText);
  std::memcpy(input.data(), key.data(), key.size());
  std::memcpy(input.data() + key.size(), kGuid.data(), kGuid.size());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  CHECK_EQ(EVP_Digest(input.data(), input.size(), digest.data(), &size, EVP_sha1(), nullptr), 1);
  CHECK_EQ(size, 20u);
  std::array<unsigned char, 29> text{};
  CHECK_EQ(EVP_EncodeBlock(text.data(), digest.data(), 20), 28);
  WsAcceptText accept;
  std::memcpy(accept.data(), text.data(), accept.size());
  return accept;
}

bool ws_wants_upgrade(const HttpRequest& request) noexcept {
  return http_list_has(request.header("upgrade"), "websocket");
}

HttpRefusal ws_check_upgrade(const HttpRequest& request) noexcept {
  if (request.method != "GET" || !request.body.empty()) {
    return {400, "a WebSocket opens with a GET without a body"};
  }
  if (!ws_wants_upgrade(request) || !http_list_has(request.header("connection"), "upgrade")) {
    return {426, "this path speaks WebSocket only"};
  }
  // Of two versions each end could read another one (RFC 6455 §11.3.5).
  if (count_of(request, "sec-websocket-version") != 1 ||
      request.header("sec-websocket-version") != "13") {
    return {426, "the only WebSocket version spoken is 13"};
  }
  if (count_of(request, "sec-websocket-key") != 1 ||
      !key_valid(request.header("sec-websocket-key"))) {
    return {400, "Sec-WebSocket-Key is not the base64 of 16 bytes"};
  }
  return {};
}

void ws_write_accept(TextBuf& out, const HttpRequest& request) {
  const WsAcceptText accept = ws_accept_text(request.header("sec-websocket-key"));
  out.append("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
  out.append("Sec-WebSocket-Accept: ");
  out.append({accept.data(), accept.size()});
  out.append("\r\n\r\n");
}

void ws_write_upgrade(TextBuf& out, std::string_view target, std::string_view host,
                      const WsNonce& nonce, HttpHeaders extra) {
  const auto key = nonce_text(nonce);
  out.append("GET ");
  out.append(target);
  out.append(" HTTP/1.1\r\nHost: ");
  out.append(host);
  out.append("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
  out.append("Sec-WebSocket-Key: ");
  out.append({key.data(), kKeyText});
  out.append("\r\n");
  for (const HttpHeader& field : extra) {
    if (!http_token(field.name) || !http_field_value(field.value)) continue;
    out.append(field.name);
    out.append(": ");
    out.append(field.value);
    out.append("\r\n");
  }
  out.append("\r\n");
}

std::string_view ws_check_accept(const HttpResponse& response, const WsNonce& nonce) noexcept {
  if (response.status != 101) return "the server did not switch protocols";
  if (!equal_no_case(response.header("upgrade"), "websocket") ||
      !http_list_has(response.header("connection"), "upgrade")) {
    return "the server switched to something else than WebSocket";
  }
  const auto key = nonce_text(nonce);
  const WsAcceptText expected = ws_accept_text({key.data(), kKeyText});
  if (response.header("sec-websocket-accept") !=
      std::string_view(expected.data(), expected.size())) {
    return "Sec-WebSocket-Accept does not answer our key";
  }
  if (response.has_header("sec-websocket-extensions") ||
      response.has_header("sec-websocket-protocol")) {
    return "the server claims an extension that was not offered";
  }
  return {};
}

}  // namespace cm::net
