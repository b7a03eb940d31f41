// ws_handshake.h — the opening handshake of a WebSocket, both sides (RFC 6455 §4).
// Holds:  no extension and no subprotocol is ever agreed: offers are ignored by the server, and a
//         client refuses a response that claims one.
// Not:    the target of the request (server_ws.cc decides it), TLS, randomness: the client's key
//         comes in as 16 fresh random bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/arena.h"
#include "core/net/http_message.h"
#include "core/net/http_write.h"

namespace cm::net {

using WsNonce = std::array<std::uint8_t, 16>;

// True if the request asks for an upgrade to a WebSocket at all.
bool ws_wants_upgrade(const HttpRequest& request) noexcept;

// Status 0 if the upgrade may be accepted; 400, or 426 for another version than 13.
HttpRefusal ws_check_upgrade(const HttpRequest& request) noexcept;

// The complete "101 Switching Protocols" for a request that was checked.
void ws_write_accept(TextBuf& out, const HttpRequest& request);

// The complete upgrade request of a client; `host` is the Host header's value.
void ws_write_upgrade(TextBuf& out, std::string_view target, std::string_view host,
                      const WsNonce& nonce, HttpHeaders extra);

// Empty if the server's response accepts the upgrade that carried `nonce`, else a sentence.
std::string_view ws_check_accept(const HttpResponse& response, const WsNonce& nonce) noexcept;

// Sec-WebSocket-Accept of a Sec-WebSocket-Key (RFC 6455 §4.2.2 step 5.4): 28 characters.
using WsAcceptText = std::array<char, 28>;
WsAcceptText ws_accept_text(std::string_view key) noexcept;

}  // namespace cm::net
