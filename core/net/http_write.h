// http_write.h — HTTP/1.1 heads as text: responses of a server, requests of a client.
// Holds:  a header whose name is no token or whose value holds a control byte is left out, so that
//         no text of a peer can split a message in two.
// Limits: none of its own; the text grows in the caller's arena.
// Not:    bodies: they are appended behind the head by who has them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/base/arena.h"
#include "core/net/http_message.h"

namespace cm::net {

using HttpHeaders = std::span<const HttpHeader>;

// A content length that is not known: the body follows in chunks.
constexpr std::uint64_t kStreaming = UINT64_MAX;

// `content_type` may be empty. 1xx, 204 and 304 get no length. Connection is always said.
void write_response_head(TextBuf& out, int status, std::string_view content_type,
                         std::uint64_t content_length, HttpHeaders extra, bool keep_alive);

// `host` is a Host header's value. Content-Length is said for every method but GET, HEAD and
// DELETE without a body.
void write_request_head(TextBuf& out, std::string_view method, std::string_view target,
                        std::string_view host, HttpHeaders extra, std::uint64_t content_length,
                        bool keep_alive);

void write_request(TextBuf& out, std::string_view method, std::string_view target,
                   std::string_view host, HttpHeaders extra, std::string_view body,
                   bool keep_alive);

// "Not Found" for 404; "Unknown" for a status without a name.
std::string_view http_reason(int status) noexcept;

// The framing of one chunk of `size` > 0 data bytes: "<hex>\r\n" before them, "\r\n" behind.
std::string_view chunk_head(char (&room)[16], std::size_t size) noexcept;
constexpr std::string_view kChunkEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace cm::net
