// http_write.cc — the writers of http_write.h.
// Holds:  every line ends with CR LF.
// Not:    policy: which headers a reply carries is its caller's choice.
#include "core/net/http_write.h"

#include <http_parser.h>

#include <charconv>

#include "core/base/check.h"

namespace cm::net {
namespace {

void append_header(TextBuf& out, std::string_view name, std::string_view value) {
  if (!http_token(name) || !http_field_value(value)) return;
  out.append(name);
  out.append(": ");
  out.append(value);
  out.append("\r\n");
}

void append_length(TextBuf& out, std::uint64_t content_length) {
  if (content_length == kStreaming) {
    append_header(out, "Transfer-Encoding", "chunked");
    return;
  }
  out.append("Content-Length: ");
  out.append_unsigned(content_length);
  out.append("\r\n");
}

void append_common(TextBuf& out, HttpHeaders extra, bool keep_alive) {
  for (const HttpHeader& field : extra) append_header(out, field.name, field.value);
  append_header(out, "Connection", keep_alive ? "keep-alive" : "close");
  out.append("\r\n");
}

}  // namespace

void write_response_head(TextBuf& out, int status, std::string_view content_type,
                         std::uint64_t content_length, HttpHeaders extra, bool keep_alive) {
  CHECK(status >= 100 && status <= 999);
  out.append("HTTP/1.1 ");
  out.append_number(status);
  out.append(' ');
  out.append(http_reason(status));
  out.append("\r\n");
  if (!content_type.empty()) append_header(out, "Content-Type", content_type);
  if (status >= 200 && status != 204 && status != 304) append_length(out, content_length);
  append_common(out, extra, keep_alive);
}

void write_request_head(TextBuf& out, std::string_view method, std::string_view target,
                        std::string_view host, HttpHeaders extra, std::uint64_t content_length,
                        bool keep_alive) {
  out.append(method);
  out.append(' ');
  out.append(target);
  out.append(" HTTP/1.1\r\n");
  append_header(out, "Host", host);
  const bool bodiless = method == "GET" || method == "HEAD" || method == "DELETE";
  if (content_length != 0 || !bodiless) append_length(out, content_length);
  append_common(out, extra, keep_alive);
}

void write_request(TextBuf& out, std::string_view method, std::string_view target,
                   std::string_view host, HttpHeaders extra, std::string_view body,
                   bool keep_alive) {
  write_request_head(out, method, target, host, extra, body.size(), keep_alive);
  out.append(body);
}

std::string_view http_reason(int status) noexcept {
  const std::string_view known = http_status_str(static_cast<enum http_status>(status));
  return known == "<unknown>" ? std::string_view("Unknown") : known;
}

std::string_view chunk_head(char (&room)[16], std::size_t size) noexcept {
  CHECK(size != 0 && size <= UINT32_MAX);
  char* end = std::to_chars(room, room + 8, size, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  return {room, static_cast<std::size_t>(end - room)};
}

}  // namespace cm::net
