// net_server_hostile_test.cc — hostile WebSocket input against the Server, by section of RFC 6455.
// Holds:  each row is sent whole and byte by byte; the client sees one close frame with the right
//         code and then the end, the owner one kWsClosed, and no memory is left behind.
// Not:    the codec alone (net_ws_test.cc).
#include <vector>

#include "tests/unit/net_server_fixture.h"

namespace cm::net {
namespace {

// A frame with every field as given, masked by kMask unless said otherwise.
std::string raw(unsigned first, const std::string& payload, bool mask = true, int form = 0,
                std::uint64_t declared = UINT64_MAX) {
  const std::uint64_t size = declared == UINT64_MAX ? payload.size() : declared;
  if (form == 0) form = size < 126 ? 1 : size < 65536 ? 2 : 8;
  const unsigned seven = form == 1 ? static_cast<unsigned>(size) : form == 2 ? 126u : 127u;
  std::string out{static_cast<char>(first), static_cast<char>(seven | (mask ? 0x80u : 0u))};
  for (int byte = form == 1 ? 0 : form; byte > 0; --byte) {
    out += static_cast<char>(size >> (8 * (byte - 1)));
  }
  if (!mask) return out + payload;
  for (const std::uint8_t byte : kMask) out += static_cast<char>(byte);
  for (std::size_t at = 0; at < payload.size(); ++at) {
    out += static_cast<char>(static_cast<unsigned char>(payload[at]) ^ kMask[at % 4]);
  }
  return out;
}

std::string close_with(unsigned code, const std::string& reason = {}) {
  return raw(0x88, std::string{static_cast<char>(code >> 8), static_cast<char>(code)} + reason);
}

struct Row {
  const char* section;
  std::string what;
  std::string bytes;
  std::uint16_t code;
};

std::vector<Row> rows() {
  std::vector<Row> all;
  for (const unsigned bit : {0x40u, 0x20u, 0x10u, 0x70u}) {
    all.push_back({"5.2", "reserved bit on text", raw(0x81 | bit, "a"), 1002});
    all.push_back({"5.2", "reserved bit on ping", raw(0x89 | bit, ""), 1002});
    all.push_back({"5.2", "reserved bit on close", raw(0x88 | bit, ""), 1002});
  }
  for (const unsigned opcode : {3u, 4u, 5u, 6u, 7u, 11u, 12u, 13u, 14u, 15u}) {
    all.push_back(
        {"5.2", "reserved opcode " + std::to_string(opcode), raw(0x80 | opcode, ""), 1002});
  }
  all.push_back({"5.1", "unmasked text", raw(0x81, "a", false), 1002});
  all.push_back({"5.1", "unmasked ping", raw(0x89, "", false), 1002});
  all.push_back({"5.1", "unmasked close", raw(0x88, "", false), 1002});
  for (const unsigned opcode : {8u, 9u, 10u}) {
    all.push_back({"5.5", "fragmented control", raw(opcode, ""), 1002});
    all.push_back({"5.5", "control of 126 bytes", raw(0x80 | opcode, std::string(126, 'c')), 1002});
    all.push_back({"5.5", "control of 64 KiB", raw(0x80 | opcode, std::string(65536, 'c')), 1002});
  }
  all.push_back({"5.5.1", "close of one byte", raw(0x88, "\x03"), 1002});
  for (const unsigned code : {0u, 1u, 500u, 999u, 1004u, 1005u, 1006u, 1015u, 1016u, 1100u, 2000u,
                              2999u, 5000u, 65535u}) {
    all.push_back({"7.4", "close code " + std::to_string(code), close_with(code), 1002});
  }
  all.push_back({"5.5.1", "reason that is no UTF-8", close_with(1000, "\xff"), 1007});
  all.push_back({"5.5.1", "reason cut in a character", close_with(1000, "a\xe2\x82"), 1007});
  for (const char* text : {"\xff", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                           "\xf8\x88\x80\x80\x80", "ok\x80"}) {
    all.push_back({"8.1", "text that is no UTF-8", raw(0x81, text), 1007});
    const std::string whole(text);
    all.push_back({"8.1", "the same in two fragments",
                   raw(0x01, whole.substr(0, 1)) + raw(0x80, whole.substr(1)), 1007});
  }
  all.push_back({"8.1", "a ping inside the character",
                 raw(0x01, "\xe2\x82") + raw(0x89, "") + raw(0x80, "x"), 1007});
  all.push_back({"5.4", "text within a message", raw(0x01, "a") + raw(0x81, "b"), 1002});
  all.push_back({"5.4", "binary within a message", raw(0x01, "a") + raw(0x02, "b"), 1002});
  all.push_back({"5.4", "continuation of nothing", raw(0x80, "a"), 1002});
  all.push_back({"5.4", "unfinished continuation of nothing", raw(0x00, "a"), 1002});
  all.push_back({"5.4", "continuation after the end",
                 raw(0x01, "a") + raw(0x80, "b") + raw(0x80, "c"), 1002});
  all.push_back({"5.2", "5 bytes in 16 bits", raw(0x82, "aaaaa", true, 2), 1002});
  all.push_back({"5.2", "125 bytes in 16 bits", raw(0x82, std::string(125, 'a'), true, 2), 1002});
  all.push_back({"5.2", "5 bytes in 64 bits", raw(0x82, "aaaaa", true, 8), 1002});
  all.push_back({"5.2", "65,535 in 64 bits", raw(0x82, "", true, 8, 65535), 1002});
  all.push_back({"5.2", "2^63", raw(0x82, "", true, 8, std::uint64_t{1} << 63), 1002});
  all.push_back({"5.2", "2^64 - 1", raw(0x82, "", true, 8, UINT64_MAX - 1), 1002});
  all.push_back({"10.4", "2^63 - 1", raw(0x82, "", true, 8, (std::uint64_t{1} << 63) - 1), 1009});
  all.push_back({"10.4", "one over the limit", raw(0x82, "", true, 8, (1 << 20) + 1), 1009});
  all.push_back({"10.4", "fragments over the limit",
                 raw(0x02, "abc") + raw(0x80, "", true, 8, (1 << 20) - 2), 1009});
  return all;
}

class NetServerHostile : public NetServer {
 protected:
  void expect_refused(const Row& row, std::size_t step) {
    const std::string name =
        std::string("RFC 6455 ") + row.section + ", " + row.what + ", step " + std::to_string(step);
    Client client(path_);
    const ConnRef conn = open_ws(client);
    ASSERT_TRUE(server_->ws_set_frame_limit(conn, 1 << 20));
    // The server may hang up at any byte: what it does not want any more is not an error here.
    for (std::size_t at = 0; at < row.bytes.size(); at += step) {
      const std::string_view part = std::string_view(row.bytes).substr(at, step);
      (void)::send(client.fd(), part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (at < 300) turn();
    }
    until([&] { return client.ended(); });
    std::string received = client.text();
    if (received.starts_with(std::string("\x8a\x00", 2))) received.erase(0, 2);  // its pong
    ASSERT_GE(received.size(), 4u) << name;
    EXPECT_EQ(static_cast<unsigned char>(received[0]), 0x88u) << name;
    const auto high = static_cast<unsigned char>(received[2]);
    const auto low = static_cast<unsigned char>(received[3]);
    EXPECT_EQ(high << 8 | low, row.code) << name;
    EXPECT_EQ(received.size(), 2u + static_cast<unsigned char>(received[1])) << name;
    ASSERT_FALSE(seen_.empty()) << name;
    EXPECT_EQ(seen_.back().kind, NetEventKind::kWsClosed) << name;
    EXPECT_EQ(seen_.back().code, row.code) << name;
    EXPECT_EQ(server_->partial_bytes(), 0u) << name;
    client.close();
    until([&] { return server_->drained(); });
    std::size_t closed = 0;
    for (const SeenEvent& event : seen_) closed += event.kind == NetEventKind::kWsClosed;
    EXPECT_EQ(closed, 1u) << name;
    EXPECT_EQ(pool_.lent_bytes(), 0u) << name;
    seen_.clear();
  }
};

TEST_F(NetServerHostile, every_violation_is_answered_with_its_code_and_the_end) {
  start();
  for (const Row& row : rows()) {
    expect_refused(row, SIZE_MAX / 2);
    if (row.bytes.size() < 1000) expect_refused(row, 1);
  }
}

TEST_F(NetServerHostile, a_declared_length_allocates_nothing) {
  start();
  Client client(path_);
  const ConnRef conn = open_ws(client);
  ASSERT_TRUE(server_->ws_set_frame_limit(conn, 1 << 20));
  client.send(raw(0x82, "", true, 8, 1 << 20));  // as much as may be
  settle();
  EXPECT_LE(pool_.lent_bytes(), BufferPool::kSmallest);
  EXPECT_TRUE(server_->alive(conn));
}

TEST_F(NetServerHostile,
       a_flood_of_pings_that_nobody_reads_the_answers_of_is_read_to_the_soft_limit_only) {
  options_.limits.slow_consumer_soft_bytes = 64 << 10;
  options_.limits.slow_consumer_hard_bytes = 256 << 10;
  start();
  Client flood(path_);
  const ConnRef conn = open_ws(flood);
  Client honest(path_);
  const ConnRef other = open_ws(honest);
  std::string pings;
  for (int index = 0; index < 100; ++index) pings += raw(0x89, std::string(125, 'p'));
  std::uint64_t highest = 0;
  int answered = 0;
  for (int turns = 0; turns < 2'000; ++turns) {
    (void)::send(flood.fd(), pings.data(), pings.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (turns % 10 == 0) honest.send(masked(WsOpcode::kText, "still served"));
    turn();
    highest = std::max<std::uint64_t>(highest, server_->pending_output(conn));
    while (!seen_.empty()) {
      answered += seen_.front().text == "still served";
      seen_.pop_front();
    }
  }
  EXPECT_GT(highest, 64u << 10);
  EXPECT_LE(highest, 256u << 10);
  EXPECT_GT(answered, 100);
  EXPECT_TRUE(server_->alive(conn));
  honest.send(masked(WsOpcode::kText, "still served"));
  now_ += options_.limits.stale_ms;
  until([&] { return !server_->alive(conn); });
  EXPECT_EQ(server_->stats().dropped_stale, 1u) << "it takes nothing at all";
  EXPECT_TRUE(server_->alive(other));
}

TEST_F(NetServerHostile, a_flood_of_pings_that_is_read_costs_one_iteration_its_share_alone) {
  start();
  Client flood(path_);
  open_ws(flood);
  std::string pings;
  for (int index = 0; index < 1'000; ++index) pings += raw(0x89, "");
  flood.send(pings);
  until([&] { return flood.text().size() == 2'000; });
  EXPECT_TRUE(seen_.empty());
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

}  // namespace
}  // namespace cm::net
