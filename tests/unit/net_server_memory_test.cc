// net_server_memory_test.cc — budgets of unfinished input and unsent output: a group's, all's.
// Holds:  unix sockets deliver within send(), so what was sent is what can be read.
// Not:    the deadline of one frame (net_server_ws_test.cc), records of TLS.
#include <vector>

#include "tests/unit/net_server_fixture.h"

namespace cm::net {
namespace {

constexpr std::size_t kFrame = 100'000;

class NetServerMemory : public NetServer {
 protected:
  NetServerMemory() {
    options_.limits.partial_bytes_max = 4 << 20;
    options_.limits.partial_group_bytes_max = 512 << 10;
  }
  struct Member {
    std::unique_ptr<Client> client;
    ConnRef conn;
  };
  Member member(std::uint64_t group) {
    Member made{std::make_unique<Client>(path_), {}};
    made.conn = open_ws(*made.client);
    EXPECT_TRUE(server_->ws_set_frame_limit(made.conn, 1 << 20));
    EXPECT_TRUE(server_->ws_set_group(made.conn, group));
    return made;
  }
  // All but the last byte of a frame.
  std::string most() {
    const std::string whole = masked(WsOpcode::kText, std::string(kFrame, 'x'));
    return whole.substr(0, whole.size() - 1);
  }
  std::string last_byte() {
    return masked(WsOpcode::kText, std::string(kFrame, 'x')).substr(kFrame + 7);
  }
  // A slice at a time, so that all frames grow together. Non-blocking: what the server does not
  // read stays here.
  static void push(Member& member, std::string& rest) {
    const std::size_t slice = std::min<std::size_t>(rest.size(), 8'000);
    if (slice == 0) return;
    const ssize_t sent =
        ::send(member.client->fd(), rest.data(), slice, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) rest.erase(0, static_cast<std::size_t>(sent));
  }
  std::size_t messages() const {
    std::size_t count = 0;
    for (const SeenEvent& event : seen_) count += event.kind == NetEventKind::kWsMessage;
    return count;
  }
};

TEST_F(NetServerMemory, a_group_over_its_budget_is_not_read_and_others_are) {
  start();
  std::vector<Member> greedy;
  std::vector<std::string> rest;
  for (int index = 0; index < 12; ++index) {
    greedy.push_back(member(7));
    rest.push_back(most());
  }
  for (int turns = 0; turns < 30; ++turns) {
    for (std::size_t index = 0; index < greedy.size(); ++index) push(greedy[index], rest[index]);
    turn();
  }
  // One favourite may go on beyond the budget, by the block of one frame.
  EXPECT_LE(server_->partial_bytes(), (512u << 10) + (256u << 10));
  EXPECT_GE(server_->partial_bytes(), 256u << 10);
  EXPECT_GT(server_->stats().starved, 0u);
  EXPECT_TRUE(seen_.empty());
  Member other = member(8);
  other.client->send(masked(WsOpcode::kText, "free"));
  EXPECT_EQ(next().text, "free");
}

TEST_F(NetServerMemory, frames_that_fill_a_budget_together_still_arrive_one_after_the_other) {
  start();
  std::vector<Member> all;
  std::vector<std::string> rest;
  for (int index = 0; index < 30; ++index) {
    all.push_back(member(7));
    rest.push_back(most() + last_byte());
  }
  until([&] {
    for (std::size_t index = 0; index < all.size(); ++index) push(all[index], rest[index]);
    return messages() == 30;
  });
  EXPECT_EQ(server_->partial_bytes(), 0u);
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

TEST_F(NetServerMemory, fragments_are_counted_while_they_are_assembled) {
  start();
  std::vector<Member> all;
  for (int index = 0; index < 12; ++index) all.push_back(member(7));
  std::string piece = masked(WsOpcode::kContinuation, std::string(3'000, 'f'));
  piece[0] = '\0';  // not the last one
  std::string first = masked(WsOpcode::kText, "f");
  first[0] = '\x01';
  for (Member& each : all) each.client->send(first);
  std::vector<std::string> rest(all.size());
  for (int turns = 0; turns < 100; ++turns) {
    for (std::size_t index = 0; index < all.size(); ++index) {
      if (rest[index].empty()) rest[index] = piece;
      push(all[index], rest[index]);
    }
    turn();
  }
  EXPECT_LE(server_->partial_bytes(), (512u << 10) + (512u << 10));
  EXPECT_GT(server_->stats().starved, 0u);
}

TEST_F(NetServerMemory, a_starved_frame_is_closed_after_its_deadline_and_its_memory_is_free) {
  start();
  std::vector<Member> all;
  std::vector<std::string> rest;
  for (int index = 0; index < 12; ++index) {
    all.push_back(member(7));
    rest.push_back(most());
  }
  for (int turns = 0; turns < 30; ++turns) {
    for (std::size_t index = 0; index < all.size(); ++index) push(all[index], rest[index]);
    turn();
  }
  EXPECT_GT(server_->stats().starved, 0u);
  now_ += options_.limits.partial_frame_ms_max;
  for (int turns = 0; turns < 30; ++turns) turn();
  std::size_t closed = 0;
  for (const SeenEvent& event : seen_) closed += event.code == 1008;
  EXPECT_GT(closed, 0u);
  EXPECT_LT(server_->partial_bytes(), 512u << 10);
}

TEST_F(NetServerMemory, strangers_cannot_starve_members_nor_each_others_hello) {
  options_.connections_max = 200;
  start();
  std::vector<std::unique_ptr<Client>> strangers;
  const std::string whole = masked(WsOpcode::kText, std::string(60'000, 's'));
  for (int index = 0; index < 60; ++index) {
    strangers.push_back(std::make_unique<Client>(path_));
    open_ws(*strangers.back());
    std::string rest = whole.substr(0, whole.size() - 1);
    for (int turns = 0; turns < 8 && !rest.empty(); ++turns) {
      const ssize_t sent =
          ::send(strangers.back()->fd(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) rest.erase(0, static_cast<std::size_t>(sent));
      turn();
    }
  }
  EXPECT_GT(server_->stats().starved, 0u);
  EXPECT_LE(server_->partial_bytes(), (1u << 20) + 60u * 4096 + (128u << 10));
  EXPECT_TRUE(seen_.empty());
  Client late(path_);
  open_ws(late);
  late.send(masked(WsOpcode::kText, std::string(2'000, 'h')));
  EXPECT_EQ(next().text, std::string(2'000, 'h'));
  Member known = member(9);
  std::string rest = most() + last_byte();
  until([&] {
    push(known, rest);
    return messages() == 1;
  });
}

TEST_F(NetServerMemory, the_budget_of_all_holds_over_many_groups) {
  options_.limits.partial_bytes_max = 2 << 20;
  start();
  std::vector<Member> all;
  std::vector<std::string> rest;
  for (std::uint64_t index = 0; index < 24; ++index) {
    all.push_back(member(100 + index));
    rest.push_back(most() + last_byte());
  }
  std::uint64_t highest = 0;
  until([&] {
    for (std::size_t index = 0; index < all.size(); ++index) push(all[index], rest[index]);
    highest = std::max(highest, server_->partial_bytes());
    return messages() == 24;
  });
  EXPECT_LE(highest, 2u << 20);
}

TEST_F(NetServerMemory, room_for_everybodys_smallest_block_is_set_aside) {
  options_.connections_max = 128;
  options_.limits.partial_bytes_max = 1 << 20;
  start();
  std::vector<Member> large;
  std::vector<std::string> rest;
  for (std::uint64_t index = 0; index < 10; ++index) {
    large.push_back(member(100 + index));
    rest.push_back(most());
  }
  for (int turns = 0; turns < 40; ++turns) {
    for (std::size_t index = 0; index < large.size(); ++index) push(large[index], rest[index]);
    turn();
  }
  EXPECT_GT(server_->stats().starved, 0u);
  std::vector<Member> small;
  for (std::uint64_t index = 0; index < 100; ++index) {
    small.push_back(member(200 + index));
    small.back().client->send(most().substr(0, 3'000));
    settle();
  }
  EXPECT_GE(server_->partial_bytes(), 100u * BufferPool::kSmallest);
  EXPECT_LE(server_->partial_bytes(), 1u << 20);
}

TEST_F(NetServerMemory, a_small_rest_of_a_large_read_takes_a_small_block) {
  start();
  Member one = member(3);
  one.client->send(masked(WsOpcode::kText, std::string(50'000, 'a')) +
                   masked(WsOpcode::kText, "tail").substr(0, 5));
  EXPECT_EQ(next().text.size(), 50'000u);
  EXPECT_EQ(server_->partial_bytes(), BufferPool::kSmallest);
  EXPECT_EQ(pool_.lent_bytes(), BufferPool::kSmallest);
}

TEST_F(NetServerMemory, a_connection_takes_its_charge_along_into_a_group_and_out_of_the_table) {
  start();
  Member one = member(0);
  one.client->send(most().substr(0, 9'000));
  settle();
  const std::uint64_t held = server_->partial_bytes();
  EXPECT_GT(held, 0u);
  for (const std::uint64_t group : {5, 6, 0, 5}) {
    EXPECT_TRUE(server_->ws_set_group(one.conn, group));
    EXPECT_EQ(server_->partial_bytes(), held);
    EXPECT_TRUE(server_->verify());
  }
  one.client->close();
  until([&] { return server_->drained(); });
  EXPECT_EQ(server_->partial_bytes(), 0u);
  EXPECT_FALSE(server_->ws_set_group(one.conn, 5));
}

TEST_F(NetServer, a_websocket_whose_output_waits_is_not_read_until_it_took_half_of_it) {
  options_.limits.slow_consumer_soft_bytes = 64 << 10;
  start();
  Client client(path_);
  const ConnRef conn = open_ws(client);
  ASSERT_TRUE(server_->ws_send(conn, std::string(8 << 20, 'x')));
  server_->flush();
  client.send(masked(WsOpcode::kText, "one") + masked(WsOpcode::kText, "two") +
              masked(WsOpcode::kText, "half").substr(0, 4));
  settle();
  EXPECT_TRUE(seen_.empty()) << "it does not take what it asked for";
  EXPECT_GT(server_->pending_output(conn), 1u << 20);
  // Its unfinished message and its silence are ours while it is not read, as long as bytes move.
  for (int step = 0; step < 4; ++step) {
    std::size_t taken = 0;
    until([&] {
      char room[100'000];
      const ssize_t got = ::recv(client.fd(), room, sizeof room, MSG_DONTWAIT);
      taken += got > 0 ? static_cast<std::size_t>(got) : 0;
      return taken > 1'000'000;
    });
    now_ += 50'000;
    settle();
    ASSERT_TRUE(server_->alive(conn)) << step;
  }
  until([&] { return !client.ended() && server_->pending_output(conn) == 0; });
  EXPECT_EQ(next().kind, NetEventKind::kWritable);
  EXPECT_EQ(next().text, "one");
  EXPECT_EQ(next().text, "two");
  client.send(masked(WsOpcode::kText, "half").substr(4));
  EXPECT_EQ(next().text, "half");
}

TEST_F(NetServer, unsent_output_of_one_group_is_bounded_and_its_largest_consumer_goes) {
  options_.limits.output_group_bytes_max = 6 << 20;  // blocks are powers of two
  start();
  Client slow[3] = {Client(path_), Client(path_), Client(path_)};
  Client other(path_);
  ConnRef refs[3];
  for (int index = 0; index < 3; ++index) {
    refs[index] = open_ws(slow[index]);
    server_->ws_set_group(refs[index], 7);
  }
  const ConnRef stranger = open_ws(other);
  server_->ws_set_group(stranger, 8);
  server_->ws_send(stranger, std::string(3 << 20, 'x'));
  server_->ws_send(refs[0], std::string(900 << 10, 'x'));
  server_->ws_send(refs[1], std::string(2500 << 10, 'x'));
  settle();
  EXPECT_TRUE(seen_.empty());
  server_->ws_send(refs[2], std::string(1700 << 10, 'x'));
  settle();
  const SeenEvent gone = next();
  EXPECT_EQ(gone.kind, NetEventKind::kWsClosed);
  EXPECT_EQ(gone.conn, refs[1]);
  EXPECT_TRUE(seen_.empty());
  EXPECT_TRUE(server_->alive(refs[0]));
  EXPECT_TRUE(server_->alive(refs[2]));
  EXPECT_TRUE(server_->alive(stranger)) << "of another member, and larger";
  EXPECT_EQ(server_->stats().dropped_slow, 1u);
}

TEST_F(NetServer, unsent_output_of_all_is_bounded_whoever_they_are) {
  options_.limits.output_bytes_max = 4 << 20;
  start();
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<ConnRef> refs;
  for (int index = 0; index < 8; ++index) {
    clients.push_back(std::make_unique<Client>(path_));
    refs.push_back(open_ws(*clients.back()));
    server_->ws_set_group(refs.back(), static_cast<std::uint64_t>(index) + 1);
    server_->ws_send(refs.back(), std::string(900 << 10, 'x'));
    settle();
    EXPECT_LE(server_->output_bytes(), 4u << 20);
    seen_.clear();  // of those that were dropped
  }
  EXPECT_EQ(server_->stats().dropped_slow, 4u);
  EXPECT_EQ(server_->connections(), 4u);
  for (auto& client : clients) client->close();
  until([&] { return server_->connections() == 0; });
  EXPECT_EQ(server_->output_bytes(), 0u);
}

}  // namespace
}  // namespace cm::net
