// net_server_ws_test.cc — the Server's WebSockets: upgrade, messages, limits, deadlines, closes.
// Holds:  over real sockets, with the clock in the test's hand.
// Not:    frames (net_ws_test.cc).
#include <malloc.h>

#include <vector>

#include "core/base/alloc_count.h"
#include "tests/unit/net_server_fixture.h"

namespace cm::net {
namespace {

TEST_F(NetServer, upgrades_only_on_the_exact_path) {
  start();
  const std::string rest =
      " HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  for (const char* target : {"/ws?x=1", "/ws?", "/ws/", "/", "/WS"}) {
    Client client(path_);
    client.send("GET " + std::string(target) + rest);
    until([&] { return client.text().ends_with("{\"error\":\"not found\"}"); });
    EXPECT_EQ(client.text().substr(0, 12), "HTTP/1.1 404") << target;
  }
  Client plain(path_);
  plain.send("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
  until([&] { return plain.text().ends_with("}"); });
  EXPECT_EQ(plain.text().substr(0, 12), "HTTP/1.1 426");
  EXPECT_NE(plain.text().find("Sec-WebSocket-Version: 13\r\n"), std::string::npos);
  EXPECT_TRUE(seen_.empty());
}

TEST_F(NetServer, without_websockets_an_upgrade_is_a_plain_request) {
  options_.websockets = false;
  start();
  Client client(path_);
  client.send("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
  EXPECT_EQ(next().kind, NetEventKind::kHttpRequest);
}

TEST_F(NetServer, echoes_websocket_messages_and_answers_pings) {
  start();
  on_event_ = [&](const NetEvent& event) {
    if (event.kind == NetEventKind::kWsMessage) server_->ws_send(event.conn, event.payload);
  };
  Client client(port_);
  const ConnRef conn = open_ws(client);
  client.send(masked(WsOpcode::kText, "one") + masked(WsOpcode::kPing, "p") +
              masked(WsOpcode::kText, "two"));
  // The pong leaves while reading, the echoes after the commit.
  const std::string expected = unmasked(WsOpcode::kPong, "p") + unmasked(WsOpcode::kText, "one") +
                               unmasked(WsOpcode::kText, "two");
  until([&] { return client.text() == expected; });
  EXPECT_EQ(pool_.lent_bytes(), 0u);
  EXPECT_TRUE(server_->alive(conn));
}

TEST_F(NetServer, frame_limits_begin_low_and_are_raised_by_the_owner) {
  start();
  const std::string big(65 * 1024, 'x');
  Client stranger(path_);
  open_ws(stranger);
  stranger.send(masked(WsOpcode::kText, big));
  const SeenEvent closed = next();
  EXPECT_EQ(closed.kind, NetEventKind::kWsClosed);
  EXPECT_EQ(closed.code, 1009);
  until([&] { return stranger.ended(); });
  EXPECT_TRUE(stranger.text().starts_with("\x88")) << stranger.text();
  Client member(path_);
  const ConnRef conn = open_ws(member);
  EXPECT_TRUE(server_->ws_set_frame_limit(conn, 1 << 20));
  member.send(masked(WsOpcode::kText, big));
  EXPECT_EQ(next().text, big);
}

TEST_F(NetServer, every_open_websocket_is_reported_closed_exactly_once) {
  start();
  Client polite(path_);
  open_ws(polite);
  ScratchArena arena;
  TextBuf bye(arena);
  codec_.write_close(bye, 4001, "bye", &kMask);
  polite.send(bye.view());
  SeenEvent closed = next();
  EXPECT_EQ(closed.code, 4001);
  EXPECT_EQ(closed.text, "bye");
  until([&] { return polite.ended(); });
  EXPECT_EQ(polite.text(), close_frame(4001, ""));
  polite.close();

  Client rude(path_);
  open_ws(rude);
  rude.close();
  EXPECT_EQ(next().code, 1006);

  Client hostile(path_);
  open_ws(hostile);
  hostile.send(unmasked(WsOpcode::kText, "x"));
  EXPECT_EQ(next().code, 1002);
  until([&] { return hostile.ended(); });
  EXPECT_EQ(hostile.text(), close_frame(1002, "a client's frame is not masked"));
  hostile.close();
  until([&] { return server_->drained(); });
  settle();
  EXPECT_TRUE(seen_.empty());
}

TEST_F(NetServer, the_owners_close_ends_with_the_peers_answer_or_after_five_seconds) {
  start();
  Client client(path_);
  const ConnRef conn = open_ws(client);
  EXPECT_TRUE(server_->ws_close(conn, 4002, "banned"));
  EXPECT_FALSE(server_->ws_send(conn, "late"));
  until([&] { return client.text() == close_frame(4002, "banned"); });
  client.send(masked(WsOpcode::kText, "dropped"));
  ScratchArena arena;
  TextBuf bye(arena);
  codec_.write_close(bye, 4002, "", &kMask);
  client.send(bye.view());
  const SeenEvent closed = next();
  EXPECT_EQ(closed.kind, NetEventKind::kWsClosed);
  EXPECT_EQ(closed.code, 4002);
  until([&] { return client.ended(); });
  client.close();

  Client deaf(path_);
  const ConnRef other = open_ws(deaf);
  server_->ws_close(other, 1000, "x");
  settle();
  EXPECT_TRUE(seen_.empty());
  now_ += 5'000;
  EXPECT_EQ(next().code, 1006);
  EXPECT_TRUE(server_->drained());
}

TEST_F(NetServer, pings_and_drops_the_silent) {
  start();
  Client client(path_);
  open_ws(client);
  settle();
  EXPECT_EQ(server_->next_deadline(), kStart + 30'000);
  for (int round = 1; round <= 2; ++round) {
    now_ = kStart + 30'000u * static_cast<unsigned>(round);
    settle();
    EXPECT_EQ(client.text(), std::string("\x89\x00", 2));
    client.clear();
  }
  client.send(masked(WsOpcode::kPong, ""));
  settle();
  now_ = kStart + 60'000 + 74'999;
  settle();
  EXPECT_TRUE(seen_.empty());
  now_ = kStart + 60'000 + 76'000;
  EXPECT_EQ(next().code, 1006);
  EXPECT_TRUE(client.ended());
  EXPECT_EQ(server_->stats().dropped_stale, 1u);
}

TEST_F(NetServer, a_frame_must_arrive_within_its_deadline) {
  start();
  Client client(path_);
  open_ws(client);
  const std::string whole = masked(WsOpcode::kText, "0123456789");
  client.send(whole.substr(0, 8));
  settle();
  now_ += 29'000;
  client.send(whole.substr(8));
  EXPECT_EQ(next().text, "0123456789");
  client.send(whole.substr(0, 8));
  settle();
  now_ += 29'000;
  client.send(whole.substr(8, 1));
  settle();
  EXPECT_TRUE(seen_.empty());
  now_ += 1'000;
  const SeenEvent closed = next();
  EXPECT_EQ(closed.code, 1008);
  until([&] { return client.ended(); });
}

TEST_F(NetServer, slow_consumers_are_told_apart_by_two_limits) {
  options_.limits.slow_consumer_soft_bytes = 1 << 20;
  options_.limits.slow_consumer_hard_bytes = 4 << 20;
  start();
  Client client(path_);
  const ConnRef conn = open_ws(client);
  const std::string message(100'000, 'x');
  std::size_t sent = 0;
  while (server_->pending_output(conn) < 2u << 20) {
    ASSERT_TRUE(server_->ws_send(conn, message));
    sent += message.size() + 10;
    server_->flush();
  }
  std::size_t read = 0;
  bool over_half = true;
  while (seen_.empty() && over_half) {
    over_half = read < sent;
    read += client.take().size();
    turn();
  }
  EXPECT_EQ(next().kind, NetEventKind::kWritable);
  EXPECT_LT(server_->pending_output(conn), 1u << 19);
  while (server_->ws_send(conn, message)) server_->flush();
  EXPECT_FALSE(server_->alive(conn));
  EXPECT_TRUE(server_->work_left());
  EXPECT_EQ(next().kind, NetEventKind::kWsClosed);
  EXPECT_EQ(server_->stats().dropped_slow, 1u);
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

TEST_F(NetServer, an_iteration_is_bounded_in_events_and_the_rest_is_work_left) {
  options_.limits.iteration_rows_max = 10;
  start();
  Client client(path_);
  open_ws(client);
  std::string many;
  for (int index = 0; index < 35; ++index) many += masked(WsOpcode::kText, std::to_string(index));
  client.send(many);
  std::size_t largest = 0;
  on_event_ = [&](const NetEvent&) {
    largest = std::max(largest, server_->events().size());
    if (seen_.size() < 30) {
      EXPECT_TRUE(server_->work_left());
    }
  };
  until([&] { return seen_.size() == 35; });
  EXPECT_EQ(largest, 10u);
  for (std::size_t index = 0; index < 35; ++index) {
    EXPECT_EQ(seen_[index].text, std::to_string(index));
  }
}

TEST_F(NetServer, a_message_in_and_out_allocates_nothing_in_steady_state) {
  start();
  Client client(path_);
  const ConnRef conn = open_ws(client);
  keep_ = false;
  int echoed = 0;
  const std::string message = masked(WsOpcode::kText, std::string(700, 'm'));
  std::uint64_t before = 0;
  for (int round = 0; round < 60; ++round) {
    if (round == 20) before = allocation_count();
    ASSERT_EQ(::send(client.fd(), message.data(), message.size(), 0),
              static_cast<ssize_t>(message.size()));
    for (const int aim = echoed + 1; echoed < aim;) {
      server_->collect(false);
      server_->tick(now_);
      for (const NetEvent& event : server_->events()) {
        if (event.kind != NetEventKind::kWsMessage) continue;
        server_->ws_send(event.conn, event.payload);
        ++echoed;
      }
      server_->flush();
      server_->end_iteration();
      scratch_.reset();
    }
    char room[2048];
    (void)::recv(client.fd(), room, sizeof room, MSG_DONTWAIT);
  }
  EXPECT_EQ(allocation_count(), before);
  EXPECT_TRUE(server_->alive(conn));
}

TEST_F(NetServer, an_idle_websocket_costs_less_than_a_kilobyte) {
  options_.connections_max = 400;
  start();
  std::vector<std::unique_ptr<Client>> clients;
  const auto open_many = [&](int count) {
    for (int index = 0; index < count; ++index) {
      clients.push_back(std::make_unique<Client>(path_));
      server_->ws_set_frame_limit(open_ws(*clients.back()), 1 << 20);
    }
    settle();
  };
  open_many(100);
  const std::size_t before = ::mallinfo2().uordblks;
  open_many(200);
  const std::size_t each = (::mallinfo2().uordblks - before) / 200;
  RecordProperty("bytes_each", static_cast<int>(each));
  EXPECT_LT(each, 1024u + sizeof(Client));  // the test's own client is on the same heap
  EXPECT_EQ(pool_.lent_bytes(), 0u);
}

}  // namespace
}  // namespace cm::net
