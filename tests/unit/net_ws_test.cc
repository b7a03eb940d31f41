// net_ws_test.cc — WebSocket frames, messages and handshake, by sections of RFC 6455.
// Holds:  every sequence gives the same events whole and byte by byte.
// Not:    sockets (net_server_test.cc).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/alloc_count.h"
#include "core/net/ws_frame.h"
#include "core/net/ws_handshake.h"

namespace cm::net {
namespace {

using Kind = WsEvent::Kind;

constexpr WsMask kMask = {0x37, 0xfa, 0x21, 0x3d};

// A frame with every field as given, valid or not. `length_form`: 0 shortest, 2 or 8 bytes.
std::string frame(unsigned first, const std::string& payload, bool masked = true,
                  int length_form = 0) {
  std::string out(1, static_cast<char>(first));
  const unsigned bit = masked ? 0x80u : 0u;
  const std::size_t size = payload.size();
  if (length_form == 0) length_form = size < 126 ? 1 : size < 65536 ? 2 : 8;
  const unsigned seven = length_form == 1   ? static_cast<unsigned>(size)
                         : length_form == 2 ? 126
                                            : 127;
  out += static_cast<char>(seven | bit);
  for (int byte = length_form == 1 ? 0 : length_form; byte > 0; --byte) {
    out += static_cast<char>(size >> (8 * (byte - 1)));
  }
  if (!masked) return out + payload;
  for (const std::uint8_t byte : kMask) out += static_cast<char>(byte);
  for (std::size_t at = 0; at < size; ++at) {
    out += static_cast<char>(static_cast<unsigned char>(payload[at]) ^ kMask[at % 4]);
  }
  return out;
}

std::string close_payload(unsigned code, const std::string& reason = {}) {
  return std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)} + reason;
}

struct Seen {
  Kind kind;
  bool binary;
  std::uint16_t code;
  std::string payload;
  friend bool operator==(const Seen&, const Seen&) = default;
};

class Peer {
 public:
  explicit Peer(WsRole role = WsRole::kServer, std::uint32_t limit = 1 << 20)
      : receiver_(role, limit, pool_), in_(pool_) {}

  std::vector<Seen> feed(std::string_view bytes, std::size_t step) {
    std::vector<Seen> seen;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      in_.append(as_bytes(bytes.substr(at, step)));
      WsEvent event;
      while (receiver_.next(codec_, in_, arena_, event)) {
        const bool error = event.kind == Kind::kError;
        seen.push_back({event.kind, event.binary, event.code,
                        error ? std::string() : std::string(event.payload)});
      }
    }
    return seen;
  }
  BufferPool& pool() { return pool_; }

 private:
  BufferPool pool_;
  ScratchArena arena_;
  WsCodec codec_;
  WsReceiver receiver_;
  PooledBuffer in_;
};

std::vector<Seen> receive(const std::string& bytes, WsRole role = WsRole::kServer,
                          std::uint32_t limit = 1 << 20) {
  Peer whole(role, limit);
  const auto events = whole.feed(bytes, bytes.size() + 1);
  Peer bytewise(role, limit);
  EXPECT_EQ(events, bytewise.feed(bytes, 1));
  Peer odd(role, limit);
  EXPECT_EQ(events, odd.feed(bytes, 7));
  return events;
}

void expect_error(const std::string& bytes, std::uint16_t code, const char* why,
                  WsRole role = WsRole::kServer) {
  const auto events = receive(bytes, role);
  ASSERT_FALSE(events.empty()) << why;
  EXPECT_EQ(events.back().kind, Kind::kError) << why;
  EXPECT_EQ(events.back().code, code) << why;
}

TEST(WsFrame, messages_of_every_length_form_and_role) {
  for (const std::size_t size :
       {0u, 1u, 125u, 126u, 127u, 4095u, 4096u, 4097u, 65535u, 65536u, 70000u}) {
    const std::string text(size, 'x');
    const std::vector<Seen> expected = {{Kind::kMessage, false, 0, text}};
    Peer server;
    EXPECT_EQ(server.feed(frame(0x81, text), 9999999), expected) << size;
    Peer client(WsRole::kClient);
    EXPECT_EQ(client.feed(frame(0x81, text, false), 9999999), expected) << size;
  }
  EXPECT_EQ(receive(frame(0x82, "\xff\x00")).front().binary, true);
}

TEST(WsFrame, unmasking_is_right_at_every_offset) {
  std::string text;
  for (int index = 0; index < 9000; ++index) text += static_cast<char>('a' + index % 23);
  Peer peer;
  for (std::size_t size = 0; size < 40; ++size) {
    const auto events = peer.feed(frame(0x81, text.substr(0, size)), 9999);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].payload, text.substr(0, size));
  }
  EXPECT_EQ(peer.feed(frame(0x81, text), 99999).at(0).payload, text);
}

// §5.1, §5.3
TEST(WsFrame, masks_are_required_of_clients_and_refused_from_servers) {
  expect_error(frame(0x81, "a", false), 1002, "unmasked client");
  expect_error(frame(0x81, "a", true), 1002, "masked server", WsRole::kClient);
  expect_error(frame(0x89, "", false), 1002, "unmasked ping");
}

// §5.2
TEST(WsFrame, reserved_bits_and_opcodes_end_the_connection) {
  for (const unsigned bit : {0x40u, 0x20u, 0x10u, 0x70u}) {
    expect_error(frame(0x81 | bit, "a"), 1002, "reserved bit");
    expect_error(frame(0x89 | bit, "a"), 1002, "reserved bit of a ping");
  }
  for (const unsigned opcode : {3u, 4u, 5u, 6u, 7u, 11u, 12u, 13u, 14u, 15u}) {
    expect_error(frame(0x80 | opcode, ""), 1002, "reserved opcode");
  }
}

// §5.2: "the minimal number of bytes MUST be used", the most significant bit of 64 MUST be 0.
TEST(WsFrame, lengths_are_in_their_shortest_form) {
  expect_error(frame(0x81, std::string(125, 'a'), true, 2), 1002, "125 in 16 bits");
  expect_error(frame(0x81, "", true, 2), 1002, "0 in 16 bits");
  expect_error(frame(0x81, "a", true, 8), 1002, "1 in 64 bits");
  expect_error(frame(0x81, std::string(65535, 'a'), true, 8), 1002, "65535 in 64 bits");
  const std::string high = {'\x82', '\xff', '\x80', 0, 0, 0, 0, 1, 0, 0};
  expect_error(high, 1002, "high bit");
}

TEST(WsFrame, a_declared_length_is_refused_before_anything_is_allocated_for_it) {
  const std::string huge = {'\x82', '\xff', 0x7f,   '\xff', '\xff',
                            '\xff', '\xff', '\xff', '\xff', '\xff'};
  expect_error(huge, 1009, "63 bits");
  const std::string over = {'\x82', '\xff', 0, 0, 0, 0, 0, 0x10, 0, 1};
  expect_error(over, 1009, "one byte over 1 MiB");
  const std::string fits = {'\x82', '\xff', 0, 0, 0, 0, 0, 0x10, 0, 0};
  Peer peer;
  EXPECT_TRUE(peer.feed(fits, 99).empty());
  EXPECT_EQ(peer.pool().lent_bytes(), BufferPool::kSmallest);
}

TEST(WsFrame, fragments_count_together_against_the_limit) {
  const std::string bytes = frame(0x01, "abcd") + frame(0x00, "efgh") + frame(0x80, "i");
  EXPECT_EQ(receive(bytes, WsRole::kServer, 9).at(0).payload, "abcdefghi");
  const auto events = receive(bytes, WsRole::kServer, 8);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].code, 1009);
}

// §5.4
TEST(WsFrame, fragments_are_assembled_around_control_frames) {
  const auto events = receive(frame(0x01, "He") + frame(0x89, "p") + frame(0x00, "") +
                              frame(0x8a, "q") + frame(0x80, "llo") + frame(0x82, "b"));
  const std::vector<Seen> expected = {{Kind::kPing, false, 0, "p"},
                                      {Kind::kPong, false, 0, "q"},
                                      {Kind::kMessage, false, 0, "Hello"},
                                      {Kind::kMessage, true, 0, "b"}};
  EXPECT_EQ(events, expected);
  expect_error(frame(0x80, "a"), 1002, "continuation of nothing");
  expect_error(frame(0x00, "a"), 1002, "unfinished continuation of nothing");
  expect_error(frame(0x01, "a") + frame(0x81, "b"), 1002, "text within a message");
  expect_error(frame(0x02, "a") + frame(0x02, "b"), 1002, "binary within a message");
  expect_error(frame(0x81, "a") + frame(0x80, "b"), 1002, "continuation after the end");
}

TEST(WsFrame, an_assembled_message_gives_its_memory_back) {
  Peer peer;
  peer.feed(frame(0x01, "He"), 99);
  EXPECT_GT(peer.pool().lent_bytes(), 0u);
  peer.feed(frame(0x80, "llo"), 99);
  EXPECT_EQ(peer.pool().lent_bytes(), 0u);
  peer.feed(frame(0x01, "He") + frame(0x83, ""), 99);
  EXPECT_EQ(peer.pool().lent_bytes(), 4096u);  // the refused input, which its owner drops
}

// §5.5
TEST(WsFrame, control_frames_are_short_and_whole) {
  EXPECT_EQ(receive(frame(0x89, std::string(125, 'a'))).at(0).payload.size(), 125u);
  for (const unsigned opcode : {8u, 9u, 10u}) {
    expect_error(frame(0x80 | opcode, std::string(126, 'a')), 1002, "126 bytes");
    expect_error(frame(opcode, ""), 1002, "fragmented");
  }
}

// §5.5.1, §7.4
TEST(WsFrame, close_codes_that_may_and_may_not_travel) {
  for (const unsigned code : {1000u, 1001u, 1002u, 1003u, 1007u, 1008u, 1009u, 1010u, 1011u, 1012u,
                              1013u, 1014u, 3000u, 3999u, 4000u, 4002u, 4999u}) {
    const auto events = receive(frame(0x88, close_payload(code, "bye")));
    const std::vector<Seen> expected = {
        {Kind::kClose, false, static_cast<std::uint16_t>(code), "bye"}};
    EXPECT_EQ(events, expected) << code;
  }
  for (const unsigned code :
       {0u, 1u, 999u, 1004u, 1005u, 1006u, 1015u, 1016u, 1100u, 2000u, 2999u, 5000u, 65535u}) {
    expect_error(frame(0x88, close_payload(code)), 1002, std::to_string(code).c_str());
  }
  const std::vector<Seen> without = {{Kind::kClose, false, 1005, ""}};
  EXPECT_EQ(receive(frame(0x88, "")), without);
  expect_error(frame(0x88, "\x03"), 1002, "one byte");
  expect_error(frame(0x88, close_payload(1000, "\xff")), 1007, "reason that is no UTF-8");
}

TEST(WsFrame, nothing_is_taken_after_a_close_or_an_error) {
  EXPECT_EQ(receive(frame(0x88, "") + frame(0x81, "a")).size(), 1u);
  EXPECT_EQ(receive(frame(0x83, "") + frame(0x81, "a")).size(), 1u);
}

// §8.1
TEST(WsFrame, text_is_utf8_over_all_its_fragments) {
  const std::string euro = "\xe2\x82\xac";
  EXPECT_EQ(receive(frame(0x81, euro)).at(0).payload, euro);
  EXPECT_EQ(receive(frame(0x01, euro.substr(0, 1)) + frame(0x00, euro.substr(1, 1)) +
                    frame(0x80, euro.substr(2)))
                .at(0)
                .payload,
            euro);
  expect_error(frame(0x81, euro.substr(0, 2)), 1007, "cut character");
  expect_error(frame(0x01, euro.substr(0, 1)) + frame(0x80, "a"), 1007, "cut by a fragment");
  expect_error(frame(0x81, "\xed\xa0\x80"), 1007, "surrogate");
  expect_error(frame(0x81, std::string("\xc0\x80")), 1007, "overlong NUL");
  EXPECT_EQ(receive(frame(0x82, "\xff")).at(0).kind, Kind::kMessage);
}

TEST(WsFrame, written_frames_are_read_back_in_both_directions) {
  BufferPool pool;
  WsCodec codec;
  for (const std::size_t size : {0u, 5u, 125u, 126u, 5000u, 65535u, 65536u, 200000u}) {
    const std::string text(size, 'y');
    PooledBuffer to_server(pool);
    codec.write_frame(to_server, WsOpcode::kText, text, &kMask);
    EXPECT_TRUE(as_text(to_server.bytes()) == frame(0x81, text)) << size;
    PooledBuffer to_client(pool);
    codec.write_frame(to_client, WsOpcode::kText, text, nullptr);
    EXPECT_TRUE(as_text(to_client.bytes()) == frame(0x81, text, false)) << size;
    ScratchArena arena;
    TextBuf out(arena);
    codec.write_frame(out, WsOpcode::kBinary, text, &kMask);
    EXPECT_TRUE(out.view() == frame(0x82, text)) << size;
  }
}

TEST(WsFrame, written_closes_carry_no_reserved_code_and_a_reason_that_fits) {
  ScratchArena arena;
  WsCodec codec;
  const auto written = [&](std::uint16_t code, const std::string& reason) {
    TextBuf out(arena);
    codec.write_close(out, code, reason, nullptr);
    return std::string(out.view());
  };
  EXPECT_EQ(written(1000, "x"), frame(0x88, close_payload(1000, "x"), false));
  for (const int code : {0, 999, 1004, 1005, 1006, 1015, 2000, 5000}) {
    EXPECT_EQ(written(static_cast<std::uint16_t>(code), "x"), frame(0x88, "", false)) << code;
  }
  const std::string longest = std::string(122, 'a') + "\xe2\x82\xac";
  EXPECT_EQ(written(1008, longest), frame(0x88, close_payload(1008, std::string(122, 'a')), false));
  EXPECT_EQ(written(1008, std::string(200, 'a')),
            frame(0x88, close_payload(1008, std::string(123, 'a')), false));
}

TEST(WsFrame, one_codec_serves_many_receivers_also_after_errors) {
  BufferPool pool;
  ScratchArena arena;
  WsCodec codec;
  for (int round = 0; round < 3; ++round) {
    for (const std::string& bytes : {frame(0x83, "x"), frame(0x81, "\xff"), frame(0x81, "good")}) {
      WsReceiver receiver(WsRole::kServer, 1000, pool);
      PooledBuffer in(pool);
      in.append(as_bytes(bytes));
      WsEvent event;
      ASSERT_TRUE(receiver.next(codec, in, arena, event));
      if (bytes == frame(0x81, "good")) {
        EXPECT_EQ(event.payload, "good");
      }
    }
  }
}

TEST(WsFrame, steady_state_allocates_nothing_from_the_heap) {
  BufferPool pool;
  ScratchArena arena;
  WsCodec codec;
  WsReceiver receiver(WsRole::kServer, 1 << 20, pool);
  PooledBuffer in(pool);
  PooledBuffer out(pool);
  const std::string message = frame(0x81, std::string(700, 'm'));
  const std::string pieces = frame(0x01, std::string(700, 'm')) + frame(0x80, "end");
  std::uint64_t before = 0;
  for (int round = 0; round < 100; ++round) {
    if (round == 10) before = allocation_count();
    WsEvent event;
    for (const std::string* bytes : {&message, &pieces}) {
      in.append(as_bytes(*bytes));
      ASSERT_TRUE(receiver.next(codec, in, arena, event));
      codec.write_frame(out, WsOpcode::kText, event.payload, nullptr);
    }
    out.consume(out.size());
    arena.reset();
  }
  EXPECT_EQ(allocation_count(), before);
}

// --- §4 ---

HttpRequest upgrade_request(ScratchArena& arena, const std::string& fields) {
  HttpRequest request;
  HttpProgress progress;
  const std::string text = "GET /ws HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n";
  const HttpStep step = parse_request(as_bytes(text), {}, progress, arena, request);
  EXPECT_EQ(step.kind, HttpStep::Kind::kComplete) << text;
  return request;
}

const std::string kFields =
    "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n";
const std::string kKey = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

TEST(WsHandshake, accept_value_is_that_of_the_rfc) {
  const WsAcceptText accept = ws_accept_text("dGhlIHNhbXBsZSBub25jZQ==");
  EXPECT_EQ(std::string_view(accept.data(), accept.size()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST(WsHandshake, a_good_request_is_accepted_and_its_offers_are_ignored) {
  ScratchArena arena;
  const HttpRequest request =
      upgrade_request(arena, kFields + kKey + "Sec-WebSocket-Extensions: permessage-deflate\r\n" +
                                 "Sec-WebSocket-Protocol: x\r\n");
  EXPECT_TRUE(ws_wants_upgrade(request));
  EXPECT_EQ(ws_check_upgrade(request).status, 0);
  TextBuf out(arena);
  ws_write_accept(out, request);
  EXPECT_EQ(out.view(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
}

TEST(WsHandshake, requests_that_are_refused) {
  struct Row {
    std::string fields;
    int status;
  };
  const std::string up = "Upgrade: websocket\r\n";
  const std::string con = "Connection: Upgrade\r\n";
  const std::string v13 = "Sec-WebSocket-Version: 13\r\n";
  for (const Row& row :
       {Row{con + v13 + kKey, 426}, Row{up + v13 + kKey, 426}, Row{up + con + kKey, 426},
        Row{up + con + "Sec-WebSocket-Version: 8\r\n" + kKey, 426}, Row{kFields, 400},
        Row{kFields + kKey + "Sec-WebSocket-Version: 8\r\n", 426}, Row{kFields + kKey + kKey, 400},
        Row{kFields + "Sec-WebSocket-Key: short==\r\n", 400},
        Row{kFields + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=a\r\n", 400},
        Row{kFields + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBu!25jZQ==\r\n", 400}}) {
    ScratchArena arena;
    EXPECT_EQ(ws_check_upgrade(upgrade_request(arena, row.fields)).status, row.status)
        << row.fields;
  }
}

TEST(WsHandshake, both_ends_understand_each_other) {
  ScratchArena arena;
  const WsNonce nonce = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const HttpHeader extra[] = {{"User-Agent", "x"}, {"Bad", "a\nb"}};
  TextBuf text(arena);
  ws_write_upgrade(text, "/ws", "host:1", nonce, extra);
  HttpRequest request;
  HttpProgress progress;
  ASSERT_EQ(parse_request(as_bytes(text.view()), {}, progress, arena, request).kind,
            HttpStep::Kind::kComplete);
  EXPECT_EQ(request.header("user-agent"), "x");
  ASSERT_EQ(ws_check_upgrade(request).status, 0);
  TextBuf answer(arena);
  ws_write_accept(answer, request);
  const auto verdict = [&](std::string_view response_text, const WsNonce& key) {
    HttpResponse response;
    HttpProgress reading;
    EXPECT_EQ(
        parse_response(as_bytes(response_text), false, false, {}, reading, arena, response).kind,
        HttpStep::Kind::kComplete);
    return std::string(ws_check_accept(response, key));
  };
  EXPECT_EQ(verdict(answer.view(), nonce), "");
  EXPECT_NE(verdict(answer.view(), WsNonce{}), "");
  std::string claims(answer.view());
  claims.insert(claims.size() - 2, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
  EXPECT_NE(verdict(claims, nonce), "");
  EXPECT_NE(verdict("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", nonce), "");
  EXPECT_NE(verdict("HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", nonce), "");
}

}  // namespace
}  // namespace cm::net
