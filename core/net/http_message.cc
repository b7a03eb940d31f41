// http_message.cc — the checks and the two parsers of http_message.h.
// Owns:   the line-wise reading of a head; http-parser reads the whole message a second time.
// Holds:  a message is accepted only if both readings end at the same byte.
// Not:    the chunked coding (chunked.h).
#include "core/net/http_message.h"

#include <http_parser.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/check.h"

namespace cm::net {
namespace {

using Kind = HttpStep::Kind;

constexpr std::string_view kBareLineEnd = "a line does not end with CR LF";

HttpStep refused(int status, std::string_view sentence) {
  return {Kind::kRefused, 0, {status, sentence}};
}

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool token_char(char c) noexcept {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr;
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The fields of one head, collected line by line; copied into the arena when all is well.
struct Head {
  std::string_view start_line;
  std::array<HttpHeader, kHttpHeadersMax> fields;
  std::size_t count = 0;
  bool has_host = false;
  bool has_length = false;
  bool chunked = false;
  std::uint64_t length = 0;
  bool expects_continue = false;
};

// Only digits, at most 18 of them: "+5", "5, 5" and " " are no lengths (RFC 9112 §6.3).
bool read_length(std::string_view value, std::uint64_t& length) noexcept {
  if (value.empty() || value.size() > 18) return false;
  length = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') return false;
    length = length * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return true;
}

// Fields that may stand only once; a proxy in front of us might have looked at the other one.
constexpr std::array<std::string_view, 5> kSingle = {"host", "origin", "authorization",
                                                     "content-length", "transfer-encoding"};

HttpRefusal note_field(Head& head, const HttpHeader& field, unsigned& seen) {
  for (unsigned index = 0; index < kSingle.size(); ++index) {
    if (!equal_no_case(field.name, kSingle[index])) continue;
    if (seen & (1u << index)) return {400, "a header that must be single is given twice"};
    seen |= 1u << index;
  }
  if (equal_no_case(field.name, "host")) head.has_host = true;
  if (equal_no_case(field.name, "content-length")) {
    head.has_length = true;
    if (!read_length(field.value, head.length)) return {400, "Content-Length is not a number"};
  }
  if (equal_no_case(field.name, "transfer-encoding")) {
    if (!equal_no_case(field.value, "chunked")) {
      return {501, "the only transfer coding understood is 'chunked'"};
    }
    head.chunked = true;
  }
  if (equal_no_case(field.name, "expect")) {
    if (!equal_no_case(field.value, "100-continue")) {
      return {417, "the only expectation understood is '100-continue'"};
    }
    head.expects_continue = true;
  }
  return {};
}

HttpRefusal read_field(Head& head, std::string_view line, unsigned& seen) {
  if (line.front() == ' ' || line.front() == '\t') {
    return {400, "a header is folded over two lines"};
  }
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !http_token(line.substr(0, colon))) {
    return {400, "a header name is not a token"};
  }
  if (head.count == kHttpHeadersMax) return {431, "there are more than 64 headers"};
  const HttpHeader field{line.substr(0, colon), trim(line.substr(colon + 1))};
  if (!http_field_value(field.value)) return {400, "a header value holds a control byte"};
  head.fields[head.count++] = field;
  return note_field(head, field, seen);
}

// `text` ends with the empty line.
HttpRefusal read_head(std::string_view text, Head& head) {
  unsigned seen = 0;
  bool first = true;
  while (text != "\r\n") {
    const std::size_t end = text.find_first_of("\r\n");
    CHECK(end != std::string_view::npos);
    if (text.substr(end, 2) != "\r\n") return {400, kBareLineEnd};
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 2);
    if (first) {
      if (line.empty()) return {400, "the message begins with an empty line"};
      head.start_line = line;
      first = false;
      continue;
    }
    if (line.empty()) return {400, "the head ends before its end"};
    if (const HttpRefusal refusal = read_field(head, line, seen); refusal.status != 0) {
      return refusal;
    }
  }
  if (first) return {400, "the message begins with an empty line"};
  if (head.has_length && head.chunked) {
    return {400, "Content-Length and Transfer-Encoding are both given"};
  }
  return {};
}

std::span<const HttpHeader> keep_fields(const Head& head, ScratchArena& arena) {
  if (head.count == 0) return {};
  auto* to = reinterpret_cast<HttpHeader*>(
      arena.allocate(head.count * sizeof(HttpHeader), alignof(HttpHeader)));
  std::copy_n(head.fields.begin(), head.count, to);
  return {to, head.count};
}

HttpRefusal read_request_line(std::string_view line, const HttpLimits& limits, HttpRequest& out) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    return {400, "the request line is not 'method target version'"};
  }
  out.method = line.substr(0, first);
  out.target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!http_token(out.method)) return {400, "the method is not a token"};
  if (out.target.size() > limits.target_bytes) return {414, "the target is too long"};
  if (version != "HTTP/1.1") {
    return version.starts_with("HTTP/") ? HttpRefusal{505, "the only version spoken is HTTP/1.1"}
                                        : HttpRefusal{400, "the request line has no version"};
  }
  // Origin form only: we are no proxy, and a second host name would have to be compared.
  if (out.target.empty() || out.target[0] != '/') {
    return {400, "the target is not a path that begins with '/'"};
  }
  for (const char c : out.target) {
    if (c <= 0x20 || c >= 0x7f || c == '#') {
      return {400, "the target holds a byte that must be escaped"};
    }
  }
  const std::size_t mark = out.target.find('?');
  out.path = out.target.substr(0, mark);
  out.has_query = mark != std::string_view::npos;
  if (out.has_query) out.query = out.target.substr(mark + 1);
  return {};
}

HttpRefusal read_status_line(std::string_view line, HttpResponse& out) {
  const bool known = line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ");
  if (!known || line.size() < 12 || (line.size() > 12 && line[12] != ' ')) {
    return {502, "the status line is not one of HTTP/1.1"};
  }
  out.status = 0;
  for (const char c : line.substr(9, 3)) {
    if (c < '0' || c > '9') return {502, "the status is not a number"};
    out.status = out.status * 10 + (c - '0');
  }
  if (out.status < 100 || out.status > 599 || !http_field_value(line)) {
    return {502, "the status line is not one of HTTP/1.1"};
  }
  return {};
}

// Looks for the empty line from where the last call stopped. A head that is not there yet is
// refused as soon as it cannot fit any more, and one that is there for what it would have been
// refused for on its way: the answer does not depend on how the bytes were cut.
HttpStep find_head(Bytes in, const HttpLimits& limits, bool request, HttpProgress& progress) {
  const std::string_view text = as_text(in);
  const std::size_t from = progress.scanned < 3 ? 0 : progress.scanned - 3;
  const std::size_t end = text.find("\r\n\r\n", from);
  const bool fits = end != std::string_view::npos && end + 4 <= limits.head_bytes;
  const std::size_t line_room = std::size_t{limits.target_bytes} + 64;
  if (request && text.size() > line_room && text.find('\n') > line_room) {
    return refused(414, "the target is too long");
  }
  // A head of bare line feeds has no end: without this its sender would wait for the deadline.
  if (request) {
    const std::string_view head = text.substr(0, fits ? end : limits.head_bytes);
    for (std::size_t at = head.find('\n', progress.scanned); at != std::string_view::npos;
         at = head.find('\n', at + 1)) {
      if (at == 0 || head[at - 1] != '\r') return refused(400, kBareLineEnd);
    }
  }
  if (fits) {
    progress.head_bytes = static_cast<std::uint32_t>(end + 4);
    return {Kind::kComplete, end + 4, {}};
  }
  if (text.size() >= limits.head_bytes) return refused(431, "the head is too long");
  progress.scanned = static_cast<std::uint32_t>(text.size());
  return {};
}

// Finds the end of the body. kComplete gives the size of the whole message.
HttpStep find_body(Bytes in, bool eof, const HttpLimits& limits, HttpProgress& progress) {
  const std::size_t head = progress.head_bytes;
  switch (progress.body) {
    case HttpBody::kNone: return {Kind::kComplete, head, {}};
    case HttpBody::kLength:
      if (in.size() - head < progress.body_bytes) return {};
      return {Kind::kComplete, head + progress.body_bytes, {}};
    case HttpBody::kUntilEof:
      if (in.size() - head > limits.body_bytes) return refused(413, "the body is too long");
      progress.body_bytes = static_cast<std::uint32_t>(in.size() - head);
      return eof ? HttpStep{Kind::kComplete, in.size(), {}} : HttpStep{};
    case HttpBody::kChunked: break;
  }
  for (;;) {
    std::size_t used = 0;
    Bytes data;
    const auto step = progress.chunks.step(in.subspan(progress.cursor), used, data);
    progress.cursor += static_cast<std::uint32_t>(used);
    progress.body_bytes += static_cast<std::uint32_t>(data.size());
    // The second bound is on the framing: chunks of one byte cost six bytes each.
    if (progress.body_bytes > limits.body_bytes ||
        progress.cursor - head > std::size_t{limits.body_bytes} * 2 + 4096) {
      return refused(413, "the body is too long");
    }
    if (step == ChunkDecoder::Step::kBad) return refused(400, "the chunked body is malformed");
    if (step == ChunkDecoder::Step::kNeedMore) return {};
    if (step == ChunkDecoder::Step::kEnd) return {Kind::kComplete, progress.cursor, {}};
  }
}

// The second reading, by http-parser, over the complete message.
struct SecondReading {
  std::uint8_t* body = nullptr;
  std::size_t room = 0;
  std::size_t size = 0;
  bool skip_body = false;
  bool complete = false;
  bool keep_alive = false;
};

int on_headers(http_parser* parser) {
  return static_cast<SecondReading*>(parser->data)->skip_body ? 1 : 0;
}
int on_body(http_parser* parser, const char* at, std::size_t size) {
  auto* reading = static_cast<SecondReading*>(parser->data);
  if (size > reading->room - reading->size) return 1;
  std::memcpy(reading->body + reading->size, at, size);
  reading->size += size;
  return 0;
}
int on_complete(http_parser* parser) {
  auto* reading = static_cast<SecondReading*>(parser->data);
  reading->complete = true;
  reading->keep_alive = http_should_keep_alive(parser) != 0;
  return 0;
}

// Fills `body` from the message; false if http-parser disagrees with the first reading.
bool read_again(std::string_view message, enum http_parser_type type, const HttpProgress& progress,
                bool skip_body, ScratchArena& arena, std::string_view& body, bool& keep_alive,
                http_errno& error) {
  http_parser_settings settings;
  http_parser_settings_init(&settings);
  settings.on_headers_complete = on_headers;
  settings.on_body = on_body;
  settings.on_message_complete = on_complete;
  SecondReading reading;
  reading.skip_body = skip_body;
  reading.room = progress.body_bytes;
  reading.body = arena.allocate(reading.room == 0 ? 1 : reading.room, 1);
  http_parser parser;
  http_parser_init(&parser, type);
  parser.data = &reading;
  const std::size_t used = http_parser_execute(&parser, &settings, message.data(), message.size());
  if (progress.body == HttpBody::kUntilEof) http_parser_execute(&parser, &settings, nullptr, 0);
  error = HTTP_PARSER_ERRNO(&parser);
  body = {reinterpret_cast<const char*>(reading.body), reading.size};
  keep_alive = reading.keep_alive;
  return error == HPE_OK && reading.complete && used == message.size() &&
         reading.size == reading.room;
}

bool no_response_body(int status, bool to_head) noexcept {
  return to_head || status < 200 || status == 204 || status == 304;
}

// Reads the head of a response and decides how its body ends (RFC 9112 §6.3).
HttpRefusal response_head(std::string_view head_text, bool to_head, HttpProgress& progress,
                          ScratchArena& arena, HttpResponse& out) {
  Head head;
  HttpRefusal refusal = read_head(head_text, head);
  if (refusal.status == 0) refusal = read_status_line(head.start_line, out);
  if (refusal.status != 0) return {502, refusal.sentence};
  out.headers = keep_fields(head, arena);
  out.content_length = head.length;
  if (no_response_body(out.status, to_head)) {
    progress.body = HttpBody::kNone;
  } else if (head.chunked) {
    progress.body = HttpBody::kChunked;
  } else {
    progress.body = head.has_length ? HttpBody::kLength : HttpBody::kUntilEof;
  }
  out.body_kind = progress.body;
  progress.cursor = progress.head_bytes;
  return {};
}

bool header_has(std::span<const HttpHeader> headers, std::string_view name) noexcept {
  return std::any_of(headers.begin(), headers.end(),
                     [&](const HttpHeader& field) { return equal_no_case(field.name, name); });
}

std::string_view header_value(std::span<const HttpHeader> headers, std::string_view name) noexcept {
  for (const HttpHeader& field : headers) {
    if (equal_no_case(field.name, name)) return field.value;
  }
  return {};
}

// First look at a request's complete head: everything that can be refused without the body.
HttpRefusal admit_request(std::string_view head_text, const HttpLimits& limits,
                          HttpProgress& progress, Head& head, HttpRequest& out) {
  HttpRefusal refusal = read_head(head_text, head);
  if (refusal.status == 0) refusal = read_request_line(head.start_line, limits, out);
  if (refusal.status != 0) return refusal;
  if (!head.has_host) return {400, "the Host header is missing"};
  if (head.length > limits.body_bytes) return {413, "the body is too long"};
  if (progress.body == HttpBody::kNone) {  // else this head was read before
    progress.cursor = progress.head_bytes;
    progress.body_bytes = static_cast<std::uint32_t>(head.length);
    progress.continue_wanted = head.expects_continue;
    if (head.chunked) progress.body = HttpBody::kChunked;
    if (head.length != 0) progress.body = HttpBody::kLength;
  }
  return {};
}

HttpStep finish_request(std::string_view message, const HttpLimits& limits, HttpProgress& progress,
                        ScratchArena& arena, HttpRequest& out) {
  Head head;
  const std::string_view kept = arena.copy(message.substr(0, progress.head_bytes));
  const HttpRefusal refusal = admit_request(kept, limits, progress, head, out);
  if (refusal.status != 0) return {Kind::kRefused, 0, refusal};
  out.headers = keep_fields(head, arena);
  http_errno error = HPE_OK;
  if (!read_again(message, HTTP_REQUEST, progress, false, arena, out.body, out.keep_alive, error)) {
    if (error == HPE_INVALID_METHOD) return refused(501, "the method is not known");
    return refused(400, "the request is malformed");
  }
  return {Kind::kComplete, message.size(), {}};
}

}  // namespace

HttpStep parse_request(Bytes in, const HttpLimits& limits, HttpProgress& progress,
                       ScratchArena& arena, HttpRequest& out) {
  out = {};
  if (progress.head_bytes == 0) {
    const HttpStep found = find_head(in, limits, true, progress);
    if (found.kind != Kind::kComplete) return found;
    Head head;
    HttpRequest ignored;
    const HttpRefusal refusal =
        admit_request(as_text(in.first(found.size)), limits, progress, head, ignored);
    if (refusal.status != 0) return {Kind::kRefused, 0, refusal};
  }
  const HttpStep whole = find_body(in, false, limits, progress);
  if (whole.kind == Kind::kComplete) {
    return finish_request(as_text(in.first(whole.size)), limits, progress, arena, out);
  }
  if (whole.kind == Kind::kNeedMore && progress.continue_wanted) {
    progress.continue_wanted = false;
    return {Kind::kContinue, 0, {}};
  }
  return whole;
}

HttpStep parse_response_head(Bytes in, const HttpLimits& limits, HttpProgress& progress,
                             ScratchArena& arena, HttpResponse& out) {
  out = {};
  const HttpStep found = find_head(in, limits, false, progress);
  if (found.kind == Kind::kRefused) return refused(502, found.refusal.sentence);
  if (found.kind != Kind::kComplete) return found;
  const std::string_view head = arena.copy(as_text(in.first(found.size)));
  const HttpRefusal refusal = response_head(head, false, progress, arena, out);
  if (refusal.status != 0) return {Kind::kRefused, 0, refusal};
  return found;
}

HttpStep parse_response(Bytes in, bool eof, bool to_head, const HttpLimits& limits,
                        HttpProgress& progress, ScratchArena& arena, HttpResponse& out) {
  out = {};
  const bool first = progress.head_bytes == 0;
  if (first) {
    const HttpStep found = find_head(in, limits, false, progress);
    if (found.kind == Kind::kRefused) return refused(502, found.refusal.sentence);
    if (found.kind == Kind::kNeedMore) {
      return eof ? refused(502, "the connection closed within the head") : found;
    }
    const HttpRefusal refusal =
        response_head(as_text(in.first(found.size)), to_head, progress, arena, out);
    if (refusal.status != 0) return {Kind::kRefused, 0, refusal};
    if (progress.body == HttpBody::kLength) {
      if (out.content_length > limits.body_bytes) return refused(502, "the body is too long");
      progress.body_bytes = static_cast<std::uint32_t>(out.content_length);
    }
  }
  const HttpStep whole = find_body(in, eof, limits, progress);
  if (whole.kind == Kind::kRefused) return refused(502, whole.refusal.sentence);
  if (whole.kind == Kind::kNeedMore) {
    return eof ? refused(502, "the connection closed within the body") : whole;
  }
  const std::string_view message = as_text(in.first(whole.size));
  HttpProgress again = progress;
  const std::string_view head = arena.copy(message.substr(0, progress.head_bytes));
  if (response_head(head, to_head, again, arena, out).status != 0) {
    return refused(502, "the response is malformed");
  }
  http_errno error = HPE_OK;
  if (!read_again(message, HTTP_RESPONSE, progress, no_response_body(out.status, to_head), arena,
                  out.body, out.keep_alive, error)) {
    return refused(502, "the response is malformed");
  }
  return {Kind::kComplete, whole.size, {}};
}

bool HttpRequest::has_header(std::string_view name) const noexcept {
  return header_has(headers, name);
}
std::string_view HttpRequest::header(std::string_view name) const noexcept {
  return header_value(headers, name);
}
bool HttpResponse::has_header(std::string_view name) const noexcept {
  return header_has(headers, name);
}
std::string_view HttpResponse::header(std::string_view name) const noexcept {
  return header_value(headers, name);
}

bool http_token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), token_char);
}

bool http_field_value(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

bool equal_no_case(std::string_view left, std::string_view right) noexcept {
  return left.size() == right.size() &&
         std::equal(left.begin(), left.end(), right.begin(),
                    [](char a, char b) { return lower(a) == lower(b); });
}

bool http_list_has(std::string_view list, std::string_view token) noexcept {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (equal_no_case(trim(list.substr(0, comma)), token)) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

}  // namespace cm::net
