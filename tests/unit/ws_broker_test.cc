// ws_broker_test.cc — ws_broker.so through the Host, against core/net's Server and raw sockets.
// Holds:  one thread, one loop, real sockets on loopback; every time is injected.
// Not:    the host's rules (plugin_host_test.cc), frames as such (net_ws_test.cc).
#include <arpa/inet.h>
#include <netinet/in.h>

#include <deque>

#include "core/net/ws_handshake.h"
#include "tests/unit/ws_broker_fixture.h"

namespace cm::plugins {
namespace {

// A broker made by hand: what it answers is the test's.
class RawBroker : public WsBroker {
 protected:
  RawBroker() {
    listener_ = std::move(net::listen_tcp("127.0.0.1", 0).value());
    port_ = net::bound_port(listener_.get());
  }
  void accept() {
    until([&] {
      socket_ = net::Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK));
      return static_cast<bool>(socket_);
    });
    text_.clear();
  }
  const std::string& text() {
    char room[65536];
    for (;;) {
      const ssize_t got = ::recv(socket_.get(), room, sizeof room, MSG_DONTWAIT);
      if (got == 0) ended_ = true;
      if (got <= 0) return text_;
      text_.append(room, static_cast<std::size_t>(got));
    }
  }
  void say(std::string_view bytes) {
    EXPECT_EQ(::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  std::string request() {
    until([&] { return text().find("\r\n\r\n") != std::string::npos; });
    return text_;
  }
  std::string accept_line() {
    const std::string head = request();
    const std::size_t at = head.find("Sec-WebSocket-Key: ") + 19;
    const net::WsAcceptText accept = net::ws_accept_text(head.substr(at, 24));
    return "Sec-WebSocket-Accept: " + std::string(accept.data(), accept.size()) + "\r\n";
  }
  std::string good_answer() {
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
           accept_line() + "\r\n";
  }
  std::string frame(net::WsOpcode opcode, std::string_view payload) {
    TextBuf out(arena_);
    codec_.write_frame(out, opcode, payload, nullptr);
    return std::string(out.view());
  }
  HostPeer connected_raw() {
    load();
    const HostPeer peer = open("ws-broker", url());
    accept();
    say(good_answer());
    until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
    text_.clear();
    return peer;
  }
  // The frames that the client has sent, decoded.
  std::vector<std::pair<net::WsOpcode, std::string>> client_frames() {
    text();
    std::vector<std::pair<net::WsOpcode, std::string>> list;
    std::size_t at = 0;
    while (text_.size() - at >= 6) {
      const auto opcode = static_cast<net::WsOpcode>(text_[at] & 15);
      std::size_t size = static_cast<unsigned char>(text_[at + 1]) & 127u;
      at += 2;
      if (size == 126) {
        size = static_cast<unsigned char>(text_[at]) * 256u +
               static_cast<unsigned char>(text_[at + 1]);
        at += 2;
      }
      std::string payload = text_.substr(at + 4, size);
      for (std::size_t index = 0; index < payload.size(); ++index) {
        payload[index] = static_cast<char>(payload[index] ^ text_[at + index % 4]);
      }
      at += 4 + size;
      list.emplace_back(opcode, payload);
    }
    return list;
  }
  std::size_t pings() {
    std::size_t found = 0;
    for (const auto& each : client_frames()) found += each.first == net::WsOpcode::kPing;
    return found;
  }
  // Answers the handshake with this and expects the peer to report the sentence.
  void expect_refused(const std::string& answer, std::string_view sentence) {
    load();
    const HostPeer peer = open("ws-broker", url());
    accept();
    request();
    say(answer);
    until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
    EXPECT_EQ(last_detail(peer), sentence);
    EXPECT_EQ(seen_.back().code, 1006u);
    host_->close(peer, 1000, "");
  }

  net::Fd listener_;
  net::Fd socket_;
  std::string text_;
  bool ended_ = false;
  ScratchArena arena_;
  net::WsCodec codec_;
};

TEST_F(WsBroker, connects_and_carries_messages_both_ways) {
  const HostPeer peer = connected();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  EXPECT_EQ(host_->find_plugin("ws-broker").value()->max_message_bytes, 16u << 20);
  echo_ = true;
  const std::vector<std::string> sent = {"one", "", std::string(70'000, 'x'), "z\xc3\xa9"};
  for (const std::string& frame : sent) send(peer, frame);
  until([&] { return frames(peer).size() == sent.size(); });
  EXPECT_EQ(received_, sent);
  EXPECT_EQ(frames(peer)[2], sent[2]);
  echo_ = false;
  send(peer, "no UTF-8 \xff");
  until([&] { return received_.back() == "no UTF-8 \xff"; });
  host_->close(peer, 1000, "done");
  until([&] { return !closed_.empty(); });
  EXPECT_EQ(closed_[0].code, 1000);
  EXPECT_EQ(closed_[0].reason, "done");
}

TEST_F(WsBroker, ten_thousand_frames_keep_their_order_both_ways) {
  options_.limits.iteration_rows_max = 512;  // so that deliveries are refused and resumed
  const HostPeer peer = connected();
  echo_ = true;
  for (int index = 0; index < 10'000; ++index) send(peer, "frame " + std::to_string(index));
  std::size_t most = 0;
  std::size_t before = seen_.size();
  until([&] {
    most = std::max(most, seen_.size() - before);
    before = seen_.size();
    return frames(peer).size() == 10'000;
  });
  const std::vector<std::string> got = frames(peer);
  for (std::size_t index = 0; index < got.size(); ++index) {
    ASSERT_EQ(got[index], "frame " + std::to_string(index));
  }
  EXPECT_EQ(received_, got);
  EXPECT_LE(most, 513u);  // and one kWritable
}

TEST_F(WsBroker, the_largest_message_passes_both_ways) {
  server_options_.limits.slow_consumer_hard_bytes = 31 << 20;
  const HostPeer peer = connected();
  echo_ = true;
  const std::string largest(16 << 20, 'm');
  send(peer, largest);
  until([&] { return frames(peer).size() == 1; });
  EXPECT_TRUE(frames(peer)[0] == largest);
}

TEST_F(WsBroker, a_close_by_the_server_is_a_loss_and_the_peer_comes_back) {
  const HostPeer peer = connected();
  server_->ws_close(conn_, 1008, "capacity");
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(seen_.back().code, 1008u);
  EXPECT_EQ(last_detail(peer), "the broker closed the connection: capacity");
  EXPECT_LE(host_->next_deadline(), g_host_now + 1000);
  g_host_now += 1000;  // the first cap
  until([&] { return states(peer, CM_PEER_CONNECTED) == 2; });
  send(peer, "again");
  until([&] { return received_ == std::vector<std::string>{"again"}; });
}

TEST_F(WsBroker, the_wait_between_attempts_grows_to_30_s_and_an_accepted_hello_resets_it) {
  start_server();
  server_.reset();  // nobody listens there now
  load();
  const HostPeer peer = open("ws-broker", url());
  std::uint64_t longest[8] = {};
  for (int round = 0; round < 8; ++round) {
    const std::size_t before = states(peer, CM_PEER_CONNECTING);
    until([&] { return states(peer, CM_PEER_CONNECTING) > before + (round == 0 ? 1 : 0); });
    EXPECT_EQ(last_detail(peer),
              "connecting to 127.0.0.1:" + std::to_string(port_) + ": Connection refused");
    longest[round] = host_->next_deadline() - g_host_now;
    g_host_now = host_->next_deadline();
  }
  constexpr std::uint64_t kCaps[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
  for (int round = 0; round < 8; ++round) EXPECT_LE(longest[round], kCaps[round]) << round;
  start_server(port_);
  until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
  effects_.push_back([&] { host_->note(peer, CM_NOTE_READY); });
  turn();
  server_->ws_close(conn_, 1001, "");
  const std::size_t before = states(peer, CM_PEER_CONNECTING);
  until([&] { return states(peer, CM_PEER_CONNECTING) > before; });
  EXPECT_LE(host_->next_deadline(), g_host_now + 1000);
}

TEST_F(WsBroker, a_refused_hello_lengthens_the_wait_up_to_five_minutes) {
  // Full jitter draws from 0 to the cap: the generator that answers ones shows the cap's order.
  options_.rng = [](void* to, std::size_t size) { std::memset(to, 0x11, size); };
  const HostPeer peer = connected();
  std::vector<std::uint64_t> waits;
  for (std::size_t round = 1; round <= 6; ++round) {
    host_->note(peer, CM_NOTE_AUTH_FAILED);
    server_->ws_close(conn_, 1008, "unauthorized");
    until([&] { return states(peer, CM_PEER_CONNECTING) == round + 1; });
    turns(10);  // the old connection is read to its end; what is left is the wait
    waits.push_back(host_->next_deadline() - g_host_now);
    g_host_now = host_->next_deadline();
    until([&] { return states(peer, CM_PEER_CONNECTED) == round + 1; });
    until([&] { return opened_ == static_cast<int>(round) + 1; });
  }
  const std::uint64_t draw = 0x1111111111111111u;
  const std::vector<std::uint64_t> expected = {draw % 30'001,  draw % 60'001,  draw % 120'001,
                                               draw % 240'001, draw % 300'001, draw % 300'001};
  EXPECT_EQ(waits, expected);
}

TEST_F(WsBroker, names_are_looked_up_by_a_helper_and_localhost_is_known) {
  start_server();
  load();
  // "127.1" is no dotted quad, so it takes the helper thread; no name server is asked for it.
  const HostPeer slow = open("ws-broker", url("127.1"));
  const HostPeer known = open("ws-broker", url("localhost"));
  until([&] { return states(slow, CM_PEER_CONNECTED) == 1; });
  until([&] { return states(known, CM_PEER_CONNECTED) == 1; });
}

TEST_F(WsBroker, a_peer_may_be_closed_while_its_name_is_looked_up) {
  load();
  for (int round = 0; round < 20; ++round) {
    const HostPeer peer = open("ws-broker", "ws://127.1:1/ws");
    turn();
    host_->close(peer, 1000, "");
  }
  turns(5);
  EXPECT_EQ(host_->peers(), 0u);
}

TEST_F(WsBroker, bad_addresses_and_settings_are_refused_with_a_sentence) {
  load();
  const auto refusal = [&](std::string_view address, std::span<const Setting> settings = {}) {
    const Result<HostPeer> peer = host_->open("ws-broker", address, settings);
    return peer ? "taken" : peer.error().detail;
  };
  EXPECT_EQ(
      refusal("wss://127.0.0.1:1/ws", std::vector<Setting>{{"ca_file", "/nonexistent/ca.pem"}}),
      "ws-broker open: CA file /nonexistent/ca.pem: No such file or directory");
  EXPECT_EQ(refusal("wss://127.0.0.1:1/ws", std::vector<Setting>{{"ca_file", ""}}),
            "ws-broker open: setting 'ca_file': a path of 1 to 4096 bytes");
  const std::string form =
      "ws-broker open: the broker's address is not of the form ws://host[:port]/path or "
      "wss://host[:port]/path";
  EXPECT_EQ(refusal("http://broker.example/ws"), form);
  EXPECT_EQ(refusal("ws://"), form);
  EXPECT_EQ(refusal("ws://127.0.0.1/ws", std::vector<Setting>{{"colour", "blue"}}),
            "ws-broker open: the settings of ws-broker are 'max_frame_bytes' and 'ca_file'");
  EXPECT_EQ(refusal("ws://127.0.0.1/ws", std::vector<Setting>{{"max_frame_bytes", "5 MB"}}),
            "ws-broker open: setting 'max_frame_bytes': 1024 to 16777216");
}

TEST_F(WsBroker, a_message_over_the_limit_ends_the_connection_with_1009) {
  start_server();
  load();
  const HostPeer peer = open("ws-broker", url(), std::vector<Setting>{{"max_frame_bytes", "1024"}});
  until([&] { return opened_ == 1 && states(peer, CM_PEER_CONNECTED) == 1; });
  server_->ws_send(conn_, std::string(1024, 'a'));
  server_->ws_send(conn_, std::string(1025, 'b'));
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(frames(peer).size(), 1u);
  EXPECT_EQ(seen_.back().code, 1009u);
  until([&] { return !closed_.empty(); });
  EXPECT_EQ(closed_[0].code, 1009);
}

TEST_F(RawBroker, the_upgrade_request_is_complete_and_its_key_is_fresh) {
  load();
  const HostPeer peer = open("ws-broker", url());
  accept();
  const std::string first = request();
  EXPECT_EQ(first.substr(0, 18), "GET /ws HTTP/1.1\r\n");
  EXPECT_NE(first.find("\r\nHost: 127.0.0.1:" + std::to_string(port_) + "\r\n"), std::string::npos);
  socket_.reset();
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(last_detail(peer), "the broker hung up during the WebSocket handshake");
  g_host_now += 1000;
  accept();
  EXPECT_NE(request(), first);
}

TEST_F(RawBroker, wrong_answers_to_the_handshake_are_told_in_a_sentence) {
  expect_refused("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                 "the broker answered 404 to the WebSocket handshake");
  expect_refused(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
      "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
      "Sec-WebSocket-Accept does not answer our key");
  expect_refused("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                 "the server switched to something else than WebSocket");
}

TEST_F(RawBroker, an_answer_that_is_no_http_or_too_long_is_refused) {
  load();
  for (const std::string& answer :
       {std::string("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        "HTTP/1.1 101 Switching Protocols\r\nX: " + std::string(20'000, 'x')}) {
    const HostPeer peer = open("ws-broker", url());
    accept();
    request();
    say(answer);
    until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
    EXPECT_TRUE(last_detail(peer).starts_with("the answer to the WebSocket handshake is no HTTP: "))
        << last_detail(peer);
    host_->close(peer, 1000, "");
  }
}

TEST_F(RawBroker, an_extension_that_was_not_offered_is_refused) {
  load();
  const HostPeer peer = open("ws-broker", url());
  accept();
  std::string answer = good_answer();
  answer.insert(answer.size() - 2, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
  say(answer);
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(last_detail(peer), "the server claims an extension that was not offered");
}

TEST_F(RawBroker, a_silent_handshake_ends_after_ten_seconds) {
  load();
  const HostPeer peer = open("ws-broker", url());
  accept();
  request();
  g_host_now += 9'999;
  turns(3);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  g_host_now += 1;
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 2u);
  EXPECT_EQ(last_detail(peer), "no answer to the WebSocket handshake within 10 s");
}

TEST_F(RawBroker, frames_that_come_with_the_101_are_delivered_after_connected) {
  load();
  const HostPeer peer = open("ws-broker", url());
  accept();
  say(good_answer() + frame(net::WsOpcode::kText, "early") + frame(net::WsOpcode::kBinary, "bin"));
  until([&] { return frames(peer).size() == 2; });
  EXPECT_EQ(frames(peer), (std::vector<std::string>{"early", "bin"}));
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 1u);
}

TEST_F(RawBroker, pings_are_answered_and_fragments_assembled) {
  const HostPeer peer = connected_raw();
  std::string first = frame(net::WsOpcode::kText, "frag");
  first[0] = static_cast<char>(first[0] & 0x7f);
  say(first + frame(net::WsOpcode::kPing, "beat") + frame(net::WsOpcode::kContinuation, "ment"));
  until([&] { return frames(peer) == std::vector<std::string>{"fragment"}; });
  until([&] { return !client_frames().empty(); });
  EXPECT_EQ(client_frames()[0], std::make_pair(net::WsOpcode::kPong, std::string("beat")));
}

TEST_F(RawBroker, pings_every_30_s_after_ready_and_gives_up_after_75_s_of_silence) {
  const HostPeer peer = connected_raw();
  g_host_now += 60'000;  // before the hello is accepted there is no ping
  turns(3);
  EXPECT_EQ(host_->next_deadline(), net::kNever);
  say(frame(net::WsOpcode::kPong, ""));
  say(frame(net::WsOpcode::kText, "hello_ack"));
  until([&] { return frames(peer).size() == 1; });
  const std::uint64_t heard = g_host_now;
  host_->note(peer, CM_NOTE_READY);
  g_host_now = heard + 29'999;
  turns(3);
  EXPECT_EQ(pings(), 0u);
  g_host_now = heard + 30'000;
  until([&] { return pings() == 1; });
  g_host_now = heard + 60'000;
  until([&] { return pings() == 2; });
  g_host_now = heard + 74'999;
  turns(3);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  g_host_now = heard + 75'000;
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 2u);
  EXPECT_EQ(last_detail(peer), "nothing was heard from the broker for 75 s");
  EXPECT_EQ(seen_.back().code, 1006u);
}

TEST_F(RawBroker, any_frame_puts_the_stale_rule_off) {
  const HostPeer peer = connected_raw();
  host_->note(peer, CM_NOTE_READY);
  const std::uint64_t ready = g_host_now;
  g_host_now = ready + 70'000;
  say(frame(net::WsOpcode::kPong, ""));
  say(frame(net::WsOpcode::kText, "x"));
  until([&] { return frames(peer).size() == 1; });
  g_host_now = ready + 144'999;
  turns(3);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  g_host_now = ready + 145'000;
  turns(2);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 2u);
}

TEST_F(RawBroker, heartbeat_probes_at_once) {
  const HostPeer peer = connected_raw();
  host_->heartbeat(peer);
  until([&] { return pings() == 1; });
}

TEST_F(RawBroker, a_reader_that_stops_blocks_the_peer_and_frees_it_once) {
  const HostPeer peer = connected_raw();
  const std::string frame_text(1 << 20, 'b');
  std::size_t sent = 0;
  // More than the kernel's buffers and the 4 MiB of the plugin hold.
  while (!host_->blocked(peer) && sent < 64) {
    send(peer, frame_text);
    ++sent;
    turn();
  }
  ASSERT_TRUE(host_->blocked(peer));
  ASSERT_EQ(count(HostEventKind::kWritable, peer), 0u);
  send(peer, "last");
  turn();
  until([&] {
    text();
    return text_.size() >= sent * (frame_text.size() + 14) + 10;
  });
  turns(3);
  EXPECT_EQ(count(HostEventKind::kBlocked, peer), 1u);
  EXPECT_EQ(count(HostEventKind::kWritable, peer), 1u);
  EXPECT_FALSE(host_->blocked(peer));
  EXPECT_EQ(text_.size(), sent * (frame_text.size() + 14) + 10);
}

TEST_F(RawBroker, a_loss_while_frames_wait_drops_them) {
  const HostPeer peer = connected_raw();
  for (int index = 0; index < 64 && !host_->blocked(peer); ++index) {
    send(peer, std::string(1 << 20, 'b'));
    turn();
  }
  ASSERT_TRUE(host_->blocked(peer));
  socket_.reset();
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_FALSE(host_->blocked(peer));
  EXPECT_EQ(count(HostEventKind::kWritable, peer), 0u);
  g_host_now += 1000;
  accept();
  say(good_answer());
  until([&] { return states(peer, CM_PEER_CONNECTED) == 2; });
  text_.clear();
  send(peer, "hello");
  until([&] { return !client_frames().empty(); });
  EXPECT_EQ(client_frames()[0].second, "hello");
}

TEST_F(RawBroker, closing_with_output_on_the_way_says_goodbye_behind_it) {
  const HostPeer peer = connected_raw();
  effects_.push_back([&] {
    host_->send(peer, CM_FRAME_CONTROL, "parting words");
    host_->close(peer, 1000, "shutdown");
  });
  turn();
  until([&] {
    text();
    return ended_;
  });
  const auto got = client_frames();
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].second, "parting words");
  EXPECT_EQ(got[1].first, net::WsOpcode::kClose);
  EXPECT_EQ(got[1].second, std::string("\x03\xe8") + "shutdown");
  turns(3);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
}

TEST_F(RawBroker, closing_a_blocked_peer_leaves_nothing_behind) {
  const HostPeer peer = connected_raw();
  for (int index = 0; index < 64 && !host_->blocked(peer); ++index) {
    send(peer, std::string(1 << 20, 'b'));
    turn();
  }
  ASSERT_TRUE(host_->blocked(peer));
  host_->close(peer, 1000, "");
  EXPECT_EQ(host_->next_deadline(), net::kNever);
  turns(3);
  EXPECT_EQ(host_->peers(), 0u);
}

TEST_F(RawBroker, a_refused_delivery_stops_reading_until_resume) {
  options_.limits.iteration_bytes_max = 1000;
  const HostPeer peer = connected_raw();
  std::string bytes;
  for (char c = 'a'; c < 'a' + 10; ++c) bytes += frame(net::WsOpcode::kText, std::string(600, c));
  bytes += frame(net::WsOpcode::kClose,
                 "\x03\xe9"
                 "bye");
  say(bytes);
  socket_.reset();
  until([&] { return !frames(peer).empty(); });
  EXPECT_EQ(frames(peer).size(), 1u);
  EXPECT_TRUE(host_->work_left());
  for (std::size_t expected = 2; expected <= 10; ++expected) {
    turn();
    ASSERT_EQ(frames(peer).size(), expected);
  }
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(last_detail(peer), "the broker closed the connection: bye");
  for (char c = 'a'; c < 'a' + 10; ++c) {
    EXPECT_EQ(frames(peer)[static_cast<std::size_t>(c - 'a')], std::string(600, c));
  }
}

TEST_F(RawBroker, a_protocol_error_is_answered_with_its_code) {
  const HostPeer peer = connected_raw();
  say(std::string("\xc1\x01x", 3));  // a reserved bit
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(seen_.back().code, 1002u);
  until([&] { return !client_frames().empty(); });
  EXPECT_EQ(client_frames()[0].first, net::WsOpcode::kClose);
  EXPECT_EQ(client_frames()[0].second.substr(0, 2), "\x03\xea");
}

TEST_F(RawBroker, hanging_up_without_a_close_frame_is_1006) {
  const HostPeer peer = connected_raw();
  say(frame(net::WsOpcode::kText, "last words"));
  socket_.reset();
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(frames(peer), std::vector<std::string>{"last words"});
  EXPECT_EQ(seen_.back().code, 1006u);
}

TEST_F(RawBroker, a_protocol_error_is_told_also_to_a_broker_that_goes_on_sending) {
  const HostPeer peer = connected_raw();
  const std::string flood = std::string("\xc1\x01x", 3) + std::string(1 << 20, 'y');
  EXPECT_GT(::send(socket_.get(), flood.data(), flood.size(), MSG_NOSIGNAL), 300'000);
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  until([&] {
    text();
    return ended_;  // and no reset, which could destroy what was not read yet
  });
  EXPECT_EQ(client_frames()[0].first, net::WsOpcode::kClose);
  socket_.reset();
  turns(3);
}

// RFC 6455 §7.1.1: the server ends the connection, not the client. Replies behind its close frame
// must not be met with a reset, which would destroy our answer.
TEST_F(RawBroker, a_close_is_answered_also_to_a_broker_that_goes_on_sending) {
  const HostPeer peer = connected_raw();
  say(frame(net::WsOpcode::kClose,
            "\x0f\xa1"
            "cut"));
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(seen_.back().code, 4001u);
  for (int reply = 0; reply < 3; ++reply) {
    say(frame(net::WsOpcode::kText, "a reply"));
    turns(2);
  }
  EXPECT_EQ(client_frames()[0].first, net::WsOpcode::kClose);
  EXPECT_EQ(client_frames()[0].second.substr(0, 2), "\x0f\xa1");
  EXPECT_TRUE(ended_);
  socket_.reset();
  turns(3);
}

// --- several addresses ------------------------------------------------------------------------

// "localhost" is 127.0.0.1 and then ::1; the second one works.
class TwoAddresses : public RawBroker {
 protected:
  TwoAddresses() { second_ = std::move(net::listen_tcp("::1", port_).value()); }
  bool second_is_asked() {
    net::Fd asked(::accept4(second_.get(), nullptr, nullptr, SOCK_NONBLOCK));
    return static_cast<bool>(asked);
  }
  net::Fd second_;
};

TEST_F(TwoAddresses, one_that_answers_nothing_has_three_seconds_and_then_the_next_is_tried) {
  // A queue that is full: what connects to it is left without an answer.
  listener_ = net::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port_);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto* target = reinterpret_cast<const sockaddr*>(&address);
  ASSERT_EQ(::bind(listener_.get(), target, sizeof address), 0);
  ASSERT_EQ(::listen(listener_.get(), 0), 0);
  std::vector<net::Fd> waiting;
  for (int count = 0; count < 4; ++count) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    static_cast<void>(::connect(waiting.back().get(), target, sizeof address));
  }
  load();
  open("ws-broker", url("localhost"));
  turns(5);
  g_host_now += 2'999;
  turns(5);
  EXPECT_FALSE(second_is_asked());
  g_host_now += 1;
  until([&] { return second_is_asked(); });
}

TEST_F(TwoAddresses, one_that_takes_connections_and_is_silent_does_not_hide_the_next) {
  load();
  const HostPeer peer = open("ws-broker", url("localhost"));
  accept();
  request();
  g_host_now += 10'000;
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_FALSE(second_is_asked());
  g_host_now += 1'000;
  until([&] { return second_is_asked(); });
}

TEST_F(TwoAddresses, one_that_served_is_asked_first_again) {
  load();
  const HostPeer peer = open("ws-broker", url("localhost"));
  accept();
  say(good_answer());
  until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
  socket_.reset();
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  g_host_now += 1'000;
  accept();
  EXPECT_FALSE(second_is_asked());
}

}  // namespace
}  // namespace cm::plugins
