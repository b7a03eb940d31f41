// net_http_test.cc — HTTP messages: what is understood, what is refused, how bytes may be cut.
// Holds:  every accepted message gives the same result whole and byte by byte.
// Not:    sockets (net_server_test.cc).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/net/http_message.h"
#include "core/net/http_write.h"

namespace cm::net {
namespace {

using Kind = HttpStep::Kind;

struct Parsed {
  HttpStep step;
  HttpRequest request;
};

class Parser {
 public:
  Parsed whole(std::string_view text, const HttpLimits& limits = {}) {
    Parsed parsed;
    HttpProgress progress;
    do {
      parsed.step = parse_request(as_bytes(text), limits, progress, arena_, parsed.request);
    } while (parsed.step.kind == Kind::kContinue);
    return parsed;
  }
  // Feeds one byte more at each call, until something else than kNeedMore comes out.
  Parsed bytewise(std::string_view text, const HttpLimits& limits = {}) {
    Parsed parsed;
    HttpProgress progress;
    for (std::size_t size = 1; size <= text.size(); ++size) {
      parsed.step =
          parse_request(as_bytes(text.substr(0, size)), limits, progress, arena_, parsed.request);
      if (parsed.step.kind == Kind::kContinue) continue;
      if (parsed.step.kind != Kind::kNeedMore) return parsed;
    }
    return parsed;
  }
  HttpResponse response(std::string_view text, Kind expected, bool eof = true,
                        bool to_head = false) {
    HttpResponse response;
    HttpProgress progress;
    const HttpStep step =
        parse_response(as_bytes(text), eof, to_head, {}, progress, arena_, response);
    EXPECT_EQ(step.kind, expected) << text << step.refusal.sentence;
    return response;
  }
  ScratchArena& arena() { return arena_; }

 private:
  ScratchArena arena_;
};

struct Refusal {
  const char* why;
  std::string text;
  int status;
};

std::string get(const std::string& fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
}
std::string post(const std::string& fields, const std::string& body) {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" + body;
}

std::vector<Refusal> refusals() {
  using namespace std::string_literals;
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  return {
      {"name with a space", get("X Y: 1\r\n"), 400},
      {"space before the colon", get("Content-Length : 0\r\n"), 400},
      {"empty name", get(": 1\r\n"), 400},
      {"name with a control byte", get("X\x01: 1\r\n"), 400},
      {"name with a byte over 0x7f", get("X\xc3\xa9: 1\r\n"), 400},
      {"line without a colon", get("nonsense\r\n"), 400},
      {"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", 400},
      {"bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n", 400},
      {"bare LF after a header", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
      {"bare CR in a value", get("X: a\rb\r\n"), 400},
      {"obs-fold", get("X: a\r\n b\r\n"), 400},
      {"obs-fold by tab", get("X: a\r\n\tb\r\n"), 400},
      {"folded first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"control byte in a value", get("X: a\x02\r\n"), 400},
      {"NUL in a value", get("X: a\0b\r\n"s), 400},
      {"DEL in a value", get("X: a\x7f\r\n"), 400},
      {"control byte in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"tab in the target", "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"non-ASCII target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"fragment in the target", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"absolute form", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"authority form", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"second Host", get("Host: b\r\n"), 400},
      {"second Origin", get("Origin: a\r\norigin: b\r\n"), 400},
      {"second Authorization", get("Authorization: a\r\nAUTHORIZATION: a\r\n"), 400},
      {"second Content-Length", post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400},
      {"second Transfer-Encoding", post(chunked + chunked, "0\r\n\r\n"), 400},
      {"length and coding (CL.TE)", post("Content-Length: 5\r\n" + chunked, "0\r\n\r\n"), 400},
      {"coding and length (TE.CL)", post(chunked + "Content-Length: 5\r\n", "0\r\n\r\n"), 400},
      {"missing Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", 400},
      {"no headers at all", "GET / HTTP/1.1\r\n\r\n", 400},
      {"length list", post("Content-Length: 1, 1\r\n", "a"), 400},
      {"signed length", post("Content-Length: +1\r\n", "a"), 400},
      {"negative length", post("Content-Length: -1\r\n", "a"), 400},
      {"hex length", post("Content-Length: 0x1\r\n", "a"), 400},
      {"empty length", post("Content-Length:\r\n", ""), 400},
      {"overflowing length", post("Content-Length: 18446744073709551617\r\n", "a"), 400},
      {"length over the limit", post("Content-Length: 1048577\r\n", ""), 413},
      {"unknown coding", post("Transfer-Encoding: gzip\r\n", ""), 501},
      {"coding list", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501},
      {"coding with a trick", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 501},
      {"coding with a vertical tab", post("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"), 400},
      {"chunk with a sign", post(chunked, "+1\r\na\r\n0\r\n\r\n"), 400},
      {"chunk with a prefix", post(chunked, "0x1\r\na\r\n0\r\n\r\n"), 400},
      {"chunk with a space", post(chunked, "1 \r\na\r\n0\r\n\r\n"), 400},
      {"chunk extension", post(chunked, "1;a=b\r\na\r\n0\r\n\r\n"), 400},
      {"chunk with a bare LF", post(chunked, "1\na\r\n0\r\n\r\n"), 400},
      {"chunk without a size", post(chunked, "\r\na\r\n0\r\n\r\n"), 400},
      {"chunk size of nine digits", post(chunked, "000000001\r\na\r\n0\r\n\r\n"), 400},
      {"chunk longer than its size", post(chunked, "1\r\nab\r\n0\r\n\r\n"), 400},
      {"trailers", post(chunked, "0\r\nX: a\r\n\r\n"), 400},
      {"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n", 505},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
      {"no version", "GET /\r\nHost: a\r\n\r\n", 400},
      {"trailing space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
      {"leading empty line", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 501},
      {"method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"long target", "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
      {"endless target", "GET /" + std::string(9000, 'a'), 414},
      {"long head", get("X: " + std::string(17000, 'a') + "\r\n"), 431},
      {"endless head", "GET / HTTP/1.1\r\nX: " + std::string(17000, 'a'), 431},
      {"unknown expectation", get("Expect: 200-ok\r\n"), 417},
  };
}

TEST(HttpRequest, what_could_be_read_in_two_ways_is_refused) {
  for (const Refusal& row : refusals()) {
    Parser parser;
    const Parsed parsed = parser.whole(row.text);
    EXPECT_EQ(parsed.step.kind, Kind::kRefused) << row.why;
    EXPECT_EQ(parsed.step.refusal.status, row.status) << row.why;
    EXPECT_FALSE(parsed.step.refusal.sentence.empty()) << row.why;
  }
}

TEST(HttpRequest, refusals_do_not_depend_on_how_the_bytes_are_cut) {
  for (const Refusal& row : refusals()) {
    Parser parser;
    const Parsed parsed = parser.bytewise(row.text);
    EXPECT_EQ(parsed.step.kind, Kind::kRefused) << row.why;
    EXPECT_EQ(parsed.step.refusal.status, row.status) << row.why;
  }
}

// Found by fuzz/http: what is wrong with a head as a whole hid what was wrong on its way there.
TEST(HttpRequest, the_first_thing_that_is_wrong_is_what_is_refused) {
  const HttpLimits limits{4096, 1024, 4096};
  const std::string long_line(1'200, 'x');
  const struct {
    const char* why;
    std::string text;
    int status;
  } cases[] = {
      {"a bare line end behind an unknown expectation",
       get("Expect: 100-c: a\r\nExp\nContent-Length: 2\r\n") + "ok", 400},
      {"a bare line end behind a bad name", get("X y: a\r\nX: a\nY: b\r\n"), 400},
      {"a request line without end, then a bare line end", long_line + "\n\r\n\r\n", 414},
      {"a long method", long_line + " / HTTP/1.1\r\nHost: a\r\n\r\n", 414},
      {"a bare line end behind the limit of the head",
       "GET / HTTP/1.1\r\nX: " + std::string(4'200, 'x') + "\n\r\n\r\n", 431},
  };
  for (const auto& each : cases) {
    Parser parser;
    EXPECT_EQ(parser.whole(each.text, limits).step.refusal.status, each.status) << each.why;
    EXPECT_EQ(parser.bytewise(each.text, limits).step.refusal.status, each.status) << each.why;
  }
}

TEST(HttpRequest, more_than_64_headers_are_refused) {
  Parser parser;
  std::string fields;
  for (int index = 0; index < 63; ++index) fields += "X" + std::to_string(index) + ": 1\r\n";
  EXPECT_EQ(parser.whole(get(fields)).step.kind, Kind::kComplete);
  EXPECT_EQ(parser.whole(get(fields + "Y: 1\r\n")).step.refusal.status, 431);
}

void expect_parts(const Parsed& parsed, std::string_view text) {
  ASSERT_EQ(parsed.step.kind, Kind::kComplete) << parsed.step.refusal.sentence;
  EXPECT_EQ(parsed.step.size, text.size());
  EXPECT_EQ(parsed.request.method, "POST");
  EXPECT_EQ(parsed.request.target, "/v1/%41?a=b&c");
  EXPECT_EQ(parsed.request.path, "/v1/%41");
  EXPECT_TRUE(parsed.request.has_query);
  EXPECT_EQ(parsed.request.query, "a=b&c");
  EXPECT_EQ(parsed.request.header("x-MANY"), "words \t here");
  EXPECT_EQ(parsed.request.header("absent"), "");
  EXPECT_FALSE(parsed.request.has_header("absent"));
  EXPECT_EQ(parsed.request.body, "hello, world");
  EXPECT_TRUE(parsed.request.keep_alive);
}

TEST(HttpRequest, parts_are_the_same_whole_and_byte_by_byte) {
  const std::string start =
      "POST /v1/%41?a=b&c HTTP/1.1\r\nHost: a\r\nX-Many:  words \t here \t\r\n";
  const std::string by_length = start + "Content-Length: 12\r\n\r\nhello, world";
  const std::string by_chunks =
      start + "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n007\r\n, world\r\n0\r\n\r\n";
  const std::string waiting =
      start + "Expect: 100-Continue\r\nContent-Length: 12\r\n\r\nhello, world";
  for (const std::string& text : {by_length, by_chunks, waiting}) {
    Parser parser;
    expect_parts(parser.whole(text), text);
    expect_parts(parser.bytewise(text), text);
  }
}

TEST(HttpRequest, continue_is_asked_for_once_and_only_before_the_body) {
  Parser parser;
  HttpProgress progress;
  HttpRequest request;
  const std::string text = post("Expect: 100-continue\r\nContent-Length: 4\r\n", "body");
  const auto feed = [&](std::size_t missing) {
    return parse_request(as_bytes(std::string_view(text).substr(0, text.size() - missing)), {},
                         progress, parser.arena(), request)
        .kind;
  };
  EXPECT_EQ(feed(5), Kind::kNeedMore);
  EXPECT_EQ(feed(4), Kind::kContinue);
  EXPECT_EQ(feed(2), Kind::kNeedMore);
  EXPECT_EQ(feed(0), Kind::kComplete);
  EXPECT_EQ(request.body, "body");
}

TEST(HttpRequest, pipelined_requests_are_taken_one_by_one) {
  const std::string one = post("Content-Length: 3\r\n", "one");
  const std::string two = post("Transfer-Encoding: chunked\r\n", "3\r\ntwo\r\n0\r\n\r\n");
  const std::string text = one + two + get("");
  Parser parser;
  const Parsed first = parser.whole(text);
  EXPECT_EQ(first.request.body, "one");
  EXPECT_EQ(first.step.size, one.size());
  const Parsed second = parser.whole(text.substr(one.size()));
  EXPECT_EQ(second.request.body, "two");
  EXPECT_EQ(second.step.size, two.size());
  EXPECT_EQ(parser.whole(text.substr(one.size() + two.size())).step.kind, Kind::kComplete);
}

TEST(HttpRequest, connection_header_decides_about_keep_alive) {
  Parser parser;
  EXPECT_TRUE(parser.whole(get("")).request.keep_alive);
  EXPECT_FALSE(parser.whole(get("Connection: close\r\n")).request.keep_alive);
  EXPECT_FALSE(parser.whole(get("Connection: x, Close\r\n")).request.keep_alive);
}

TEST(HttpRequest, an_upgrade_ends_with_its_head) {
  const std::string head = get("Upgrade: websocket\r\nConnection: Upgrade\r\n");
  Parser parser;
  const Parsed parsed = parser.whole(head + "\x81\x80");
  EXPECT_EQ(parsed.step.kind, Kind::kComplete);
  EXPECT_EQ(parsed.step.size, head.size());
}

TEST(HttpRequest, many_tiny_chunks_are_bounded_by_their_framing_too) {
  HttpLimits limits;
  limits.body_bytes = 4096;
  std::string body;
  for (int index = 0; index < 4000; ++index) body += "1\r\na\r\n";
  Parser parser;
  EXPECT_EQ(parser.whole(post("Transfer-Encoding: chunked\r\n", body), limits).step.refusal.status,
            413);
  body = "2000\r\n";
  EXPECT_EQ(parser.whole(post("Transfer-Encoding: chunked\r\n", body), limits).step.kind,
            Kind::kNeedMore);
  EXPECT_EQ(
      parser.whole(post("Transfer-Encoding: chunked\r\n", body + std::string(4097, 'a')), limits)
          .step.refusal.status,
      413);
}

TEST(HttpResponse, bodies_end_by_length_by_chunks_by_rule_or_with_the_connection) {
  Parser parser;
  const auto length =
      parser.response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Kind::kComplete, false);
  EXPECT_EQ(length.status, 200);
  EXPECT_EQ(length.body, "hi");
  EXPECT_TRUE(length.keep_alive);
  EXPECT_EQ(
      parser
          .response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                    Kind::kComplete, false)
          .body,
      "hi");
  const auto closed = parser.response("HTTP/1.0 200 OK\r\n\r\nhi", Kind::kComplete);
  EXPECT_EQ(closed.body, "hi");
  EXPECT_FALSE(closed.keep_alive);
  parser.response("HTTP/1.1 200 OK\r\n\r\nhi", Kind::kNeedMore, false);
  EXPECT_EQ(parser.response("HTTP/1.1 204 No Content\r\n\r\n", Kind::kComplete, false).status, 204);
  EXPECT_EQ(parser.response("HTTP/1.1 100 Continue\r\n\r\n", Kind::kComplete, false).status, 100);
  EXPECT_EQ(
      parser.response("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Kind::kComplete, false, true)
          .body,
      "");
}

TEST(HttpResponse, hostile_servers_are_refused) {
  Parser parser;
  for (const char* text :
       {"HTTP/2 200\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "nonsense\r\n\r\n",
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nConte", ""}) {
    parser.response(text, Kind::kRefused);
  }
}

TEST(HttpWrite, heads_carry_what_they_must_and_no_injected_line) {
  ScratchArena arena;
  TextBuf out(arena);
  const HttpHeader extra[] = {{"X-Good", "1"}, {"X-Bad", "1\r\nSet: 2"}, {"Bad Name", "1"}};
  write_response_head(out, 404, "application/json", 12, extra, false);
  EXPECT_EQ(out.view(),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 12\r\n"
            "X-Good: 1\r\nConnection: close\r\n\r\n");
  TextBuf stream(arena);
  write_response_head(stream, 200, "text/event-stream", kStreaming, {}, true);
  EXPECT_NE(stream.view().find("Transfer-Encoding: chunked\r\n"), std::string_view::npos);
  TextBuf empty(arena);
  write_response_head(empty, 204, {}, 0, {}, true);
  EXPECT_EQ(empty.view(), "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
}

TEST(HttpWrite, a_written_request_is_read_back) {
  ScratchArena arena;
  TextBuf out(arena);
  write_request(out, "POST", "/x?y", "localhost:7900", {}, "{}", true);
  Parser parser;
  const Parsed parsed = parser.whole(out.view());
  ASSERT_EQ(parsed.step.kind, Kind::kComplete);
  EXPECT_EQ(parsed.request.header("host"), "localhost:7900");
  EXPECT_EQ(parsed.request.body, "{}");
}

}  // namespace
}  // namespace cm::net
