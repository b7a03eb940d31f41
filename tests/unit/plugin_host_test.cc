// plugin_host_test.cc — the Host with loopback.so, and with a puppet that breaks every rule.
// Holds:  each rule of the ABI that the host enforces has its sentence here.
// Not:    loading (plugin_load_test.cc).
#include "tests/unit/plugin_host_fixture.h"

namespace cm::plugins {
namespace {

class PluginHost : public PluginRig {
 protected:
  void load_loopback() {
    install("transports/loopback.so", "loopback.so");
    load();
  }
  void load_puppet() {
    install_bad("puppet");
    load();
  }
  std::pair<HostPeer, HostPeer> joined() {
    const HostPeer left = open("loopback", "room");
    const HostPeer right = open("loopback", "room");
    turns(2);
    EXPECT_EQ(states(left, CM_PEER_CONNECTED), 1u);
    EXPECT_EQ(states(right, CM_PEER_CONNECTED), 1u);
    return {left, right};
  }
  // Opens the part and turns until it has played; answers the rule that was broken.
  std::string rule_broken_by(std::string_view part, bool send = false) {
    load_puppet();
    const Result<HostPeer> opened = host_->open("puppet", part);
    turns(2);
    if (send && opened) {
      effects_.push_back([this, peer = *opened] { host_->send(peer, CM_FRAME_CONTROL, "frame"); });
    }
    turns(2);
    const PluginInfo& info = host_->plugins().front();
    EXPECT_TRUE(info.disabled);
    EXPECT_EQ(host_->peers(), 0u);
    if (opened) {
      EXPECT_EQ(states(*opened, CM_PEER_CLOSED), 1u);
    }
    EXPECT_NE(log_text_.find("plugin_disabled"), std::string::npos);
    const Result<HostPeer> again = host_->open("puppet", "plain");
    EXPECT_EQ(again.code(), Err::kPluginDisabled);
    constexpr std::string_view kPrefix = "plugin 'puppet' broke a rule of the ABI: ";
    EXPECT_EQ(info.refusal.substr(0, kPrefix.size()), kPrefix);
    return info.refusal.substr(kPrefix.size());
  }
};

TEST_F(PluginHost, joins_two_peers_and_carries_frames_both_ways_in_order) {
  load_loopback();
  const auto [left, right] = joined();
  std::vector<std::string> expected;
  for (int index = 0; index < 100; ++index) {
    expected.push_back("frame " + std::to_string(index));
    host_->send(left, CM_FRAME_CONTROL, expected.back());
    host_->send(right, CM_FRAME_ENVELOPE, expected.back());
  }
  turns(2);
  EXPECT_EQ(frames(right), expected);
  EXPECT_EQ(frames(left), expected);
}

TEST_F(PluginHost, a_peer_alone_is_connecting_and_a_closed_partner_is_a_loss) {
  load_loopback();
  const HostPeer left = open("loopback", "room");
  turn();
  EXPECT_EQ(states(left, CM_PEER_CONNECTING), 1u);
  const HostPeer right = open("loopback", "room");
  turns(2);
  EXPECT_EQ(states(left, CM_PEER_CONNECTED), 1u);
  host_->send(left, CM_FRAME_CONTROL, "lost on the way");
  host_->close(right, 1000, "done");
  EXPECT_FALSE(host_->alive(right));
  turns(2);
  EXPECT_EQ(states(left, CM_PEER_CONNECTING), 2u);
  EXPECT_EQ(last_detail(left), "the other side was closed");
  host_->send(left, CM_FRAME_CONTROL, "into the void");
  host_->send(right, CM_FRAME_CONTROL, "to a stale handle");
  const HostPeer next = open("loopback", "room");
  turns(2);
  EXPECT_EQ(states(left, CM_PEER_CONNECTED), 2u);
  EXPECT_TRUE(frames(next).empty());
}

TEST_F(PluginHost, frames_wait_in_the_host_while_the_transport_would_block) {
  load_loopback();
  const auto [left, right] = joined();
  const std::string half(600'000, 'h');
  host_->send(left, CM_FRAME_CONTROL, half);
  EXPECT_FALSE(host_->blocked(left));
  for (int index = 0; index < 5; ++index) host_->send(left, CM_FRAME_CONTROL, half);
  host_->send(left, CM_FRAME_CONTROL, "last");
  EXPECT_TRUE(host_->blocked(left));
  EXPECT_TRUE(host_->verify());
  until([&, to = right] { return frames(to).size() == 7; });
  turns(2);
  EXPECT_EQ(frames(right).back(), "last");
  EXPECT_FALSE(host_->blocked(left));
  EXPECT_EQ(count(HostEventKind::kBlocked, left), 1u);
  EXPECT_EQ(count(HostEventKind::kWritable, left), 1u);
}

TEST_F(PluginHost, a_peer_for_which_too_much_waits_is_closed) {
  options_.held_bytes_max = 1000;
  load_puppet();
  const HostPeer peer = open("puppet", "block");
  turns(2);
  host_->send(peer, CM_FRAME_CONTROL, std::string(600, 'x'));
  EXPECT_TRUE(host_->alive(peer));
  host_->send(peer, CM_FRAME_CONTROL, std::string(600, 'x'));
  EXPECT_FALSE(host_->alive(peer));
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CLOSED), 1u);
  EXPECT_EQ(last_detail(peer), "the peer takes too little: too many bytes wait for it");
  EXPECT_FALSE(host_->plugins().front().disabled);
}

TEST_F(PluginHost, writable_flushes_what_waits_within_the_next_tick) {
  load_puppet();
  const HostPeer peer = open("puppet", "block");
  turns(2);
  host_->send(peer, CM_FRAME_CONTROL, "one");
  host_->send(peer, CM_FRAME_CONTROL, "two");
  EXPECT_TRUE(host_->blocked(peer));
  host_->note(peer, CM_NOTE_READY);  // the puppet takes it as room
  EXPECT_TRUE(host_->work_left());
  turn();
  EXPECT_FALSE(host_->blocked(peer));
  EXPECT_EQ(count(HostEventKind::kBlocked, peer), 1u);
  EXPECT_EQ(count(HostEventKind::kWritable, peer), 1u);
}

TEST_F(PluginHost, deliveries_beyond_the_iteration_wait_and_come_in_order) {
  options_.limits.iteration_bytes_max = 1000;
  load_loopback();
  const auto [left, right] = joined();
  std::vector<std::string> expected;
  for (char c = 'a'; c < 'a' + 10; ++c) expected.push_back(std::string(400, c));
  expected.push_back(std::string(5000, 'z'));  // larger than any iteration
  expected.push_back("end");
  for (const std::string& frame : expected) host_->send(left, CM_FRAME_CONTROL, frame);
  std::size_t most = 0;
  std::size_t before = 0;
  for (int index = 0; index < 12; ++index) {
    turn();
    const std::size_t all = frames(right).size();
    most = std::max(most, all - before);
    before = all;
  }
  EXPECT_EQ(most, 2u);
  EXPECT_EQ(frames(right), expected);
  EXPECT_FALSE(host_->work_left());
}

TEST_F(PluginHost, every_token_is_settled_after_the_commit_with_its_verdict) {
  load_puppet();
  const HostPeer peer = open("puppet", "three-frames");
  on_event_ = [&](const HostEvent& event) {
    if (event.bytes == "two") host_->refuse(event.token);
  };
  turns(2);
  // The puppet delivers each verdict back, and those are settled and told again.
  const std::vector<std::string> got = frames(peer);
  ASSERT_GE(got.size(), 6u);
  EXPECT_EQ(got[3], "settled 1 0");
  EXPECT_EQ(got[4], "settled 2 2");
  EXPECT_EQ(got[5], "settled 3 0");
  host_->close(peer, 1000, "");
  turn();
}

TEST_F(PluginHost, a_failed_commit_settles_with_retry) {
  load_puppet();
  verdict_ = Verdict::kRetry;
  const HostPeer peer = open("puppet", "three-frames");
  turns(2);
  EXPECT_EQ(frames(peer).at(3), "settled 1 1");
}

TEST_F(PluginHost, a_frame_larger_than_the_daemon_takes_is_refused_at_once) {
  options_.limits.daemon_frame_bytes_max = 1024;
  load_puppet();
  const HostPeer peer = open("puppet", "huge");
  turns(2);
  EXPECT_EQ(frames(peer), std::vector<std::string>{"was too big"});
}

TEST_F(PluginHost, a_connection_that_came_back_is_told_in_the_next_iteration) {
  load_puppet();
  const HostPeer peer = open("puppet", "flap");
  turn();
  ASSERT_EQ(frames(peer), std::vector<std::string>{"before"});
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 1u);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  turn();
  EXPECT_EQ(frames(peer).back(), "after");
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 2u);
}

TEST_F(PluginHost, frames_for_a_lost_connection_never_reach_the_next_one) {
  load_puppet();
  const HostPeer peer = open("puppet", "lose-in-send");
  turns(2);
  host_->send(peer, CM_FRAME_CONTROL, "lost");
  host_->send(peer, CM_FRAME_CONTROL, "dropped: the owner knows of no new connection");
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 1u);
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 2u);
  EXPECT_FALSE(host_->plugins().front().disabled) << host_->plugins().front().refusal;
}

TEST_F(PluginHost, what_is_reported_inside_a_call_comes_in_the_next_iteration) {
  load_puppet();
  const HostPeer peer = open("puppet", "close-in-send");
  turns(2);
  effects_.push_back([&] { host_->send(peer, CM_FRAME_CONTROL, "x"); });
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CLOSED), 0u);
  EXPECT_FALSE(host_->alive(peer));
  turn();
  EXPECT_EQ(frames(peer), std::vector<std::string>{"farewell"});
  EXPECT_EQ(states(peer, CM_PEER_CLOSED), 1u);
}

TEST_F(PluginHost, nothing_is_told_of_a_peer_that_the_owner_has_closed) {
  load_puppet();
  const HostPeer peer = open("puppet", "close-in-send");
  turns(2);
  host_->send(peer, CM_FRAME_CONTROL, "x");
  host_->close(peer, 1000, "");
  turns(2);
  EXPECT_TRUE(frames(peer).empty());
  EXPECT_EQ(states(peer, CM_PEER_CLOSED), 0u);
}

TEST_F(PluginHost, a_late_call_for_a_peer_that_the_host_closed_is_only_refused) {
  load_puppet();
  const HostPeer peer = open("puppet", "late-call");
  turns(2);
  host_->close(peer, 1000, "bye");
  turns(2);
  EXPECT_EQ(states(peer, CM_PEER_CONNECTING), 0u);
  EXPECT_FALSE(host_->plugins().front().disabled);
}

TEST_F(PluginHost, timers_fire_at_the_injected_time) {
  load_puppet();
  EXPECT_EQ(host_->next_deadline(), net::kNever);
  const HostPeer peer = open("puppet", "in-5-s");
  EXPECT_EQ(host_->next_deadline(), g_host_now + 5000);
  g_host_now += 4999;
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 0u);
  g_host_now += 1;
  turn();
  EXPECT_EQ(states(peer, CM_PEER_CONNECTED), 1u);
  EXPECT_EQ(host_->next_deadline(), net::kNever);
}

TEST_F(PluginHost, a_refused_open_says_the_plugins_own_reason) {
  load_puppet();
  const Result<HostPeer> refused = host_->open("puppet", "refuse");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.code(), Err::kInvalidArgument);
  EXPECT_EQ(refused.error().detail, "puppet open: the strings are cut");
}

TEST_F(PluginHost, a_transport_without_listen_says_so) {
  load_loopback();
  const Result<HostEndpoint> deaf = host_->listen("loopback", "anywhere");
  EXPECT_EQ(deaf.code(), Err::kTransport);
  EXPECT_EQ(deaf.error().detail, "loopback cannot listen");
}

TEST_F(PluginHost, a_peer_that_arrives_at_an_endpoint_is_told_and_connected) {
  load_puppet();
  const Result<HostEndpoint> door = host_->listen("puppet", "door");
  ASSERT_TRUE(door);
  HostPeer guest;
  on_event_ = [&](const HostEvent& event) {
    if (event.kind != HostEventKind::kIncoming) return;
    EXPECT_EQ(event.endpoint, *door);
    EXPECT_EQ(event.bytes, "192.0.2.7:4711");
    guest = event.peer;
    effects_.push_back([&] { host_->send(guest, CM_FRAME_CONTROL, "welcome"); });
  };
  turn();
  EXPECT_EQ(frames(guest), std::vector<std::string>{"from outside"});
  turn();
  EXPECT_EQ(frames(guest).at(1), "settled 1 0");
  host_->unlisten(*door);
  EXPECT_TRUE(host_->alive(guest));  // who has arrived stays
}

TEST_F(PluginHost, a_frame_of_a_peer_that_left_at_once_is_told_and_needs_no_answer) {
  load_puppet();
  ASSERT_TRUE(host_->listen("puppet", "short-visit"));
  turns(2);
  ASSERT_EQ(seen_.size(), 3u);
  EXPECT_EQ(seen_[1].text, "from outside");
  EXPECT_EQ(seen_[2].state, static_cast<std::uint32_t>(CM_PEER_CLOSED));
  EXPECT_EQ(host_->peers(), 0u);
}

TEST_F(PluginHost, a_call_on_a_thread_of_the_plugins_own_is_refused) {
  load_puppet();
  open("puppet", "own-thread");
  turns(2);
  EXPECT_FALSE(host_->plugins().front().disabled);
}

TEST_F(PluginHost, services_give_settings_counters_and_harmless_log_lines) {
  options_.settings = {{"puppet", "colour", "blue"}, {"other", "colour", "red"}};
  load_puppet();
  open("puppet", "services");
  turns(2);
  EXPECT_NE(log_text_.find("\"kind\":\"puppet\",\"text\":\"blue\""), std::string::npos);
  EXPECT_NE(log_text_.find("\"text\":\"bell ? and ?\""), std::string::npos);
  TextBuf text(scratch_);
  host_->append_metrics(text);
  EXPECT_EQ(text.view(),
            "# HELP cm_transport_events_total What transport plugins count themselves\n"
            "# TYPE cm_transport_events_total counter\n"
            "cm_transport_events_total{kind=\"puppet\",name=\"strings_pulled\"} 5\n");
}

TEST_F(PluginHost, a_slow_call_is_reported_by_plugin_and_call) {
  load_puppet();
  const HostPeer peer = open("puppet", "slow");
  turns(2);
  const std::uint64_t before = metrics_.get(Metric::kDaemonPluginSlow);
  host_->send(peer, CM_FRAME_CONTROL, "x");
  EXPECT_EQ(metrics_.get(Metric::kDaemonPluginSlow), before + 1);
  EXPECT_NE(log_text_.find("\"event\":\"plugin_slow\",\"kind\":\"puppet\",\"call\":\"send\""),
            std::string::npos);
}

TEST_F(PluginHost, a_slow_callback_is_reported_too) {
  load_puppet();
  open("puppet", "slow-timer");
  turn();
  EXPECT_NE(log_text_.find("\"call\":\"a timer's callback\""), std::string::npos);
}

TEST_F(PluginHost, sent_for_the_second_time_disables) {
  EXPECT_EQ(rule_broken_by("sent-twice", true),
            "sent() for a frame that is not outstanding, or for the second time");
}
TEST_F(PluginHost, sent_for_an_unknown_frame_disables) {
  EXPECT_EQ(rule_broken_by("sent-unasked"),
            "sent() for a frame that is not outstanding, or for the second time");
}
TEST_F(PluginHost, sent_for_a_frame_that_was_not_taken_disables) {
  EXPECT_EQ(rule_broken_by("sent-and-refused", true),
            "sent() for a frame that send() did not take");
}
TEST_F(PluginHost, a_loss_with_frames_unaccounted_for_disables) {
  EXPECT_EQ(rule_broken_by("lose-with-frames", true),
            "CM_PEER_CONNECTING before sent() of each frame taken");
}
TEST_F(PluginHost, deliver_after_closed_disables) {
  EXPECT_EQ(rule_broken_by("deliver-after-closed"), "deliver() after CM_PEER_CLOSED");
}
TEST_F(PluginHost, state_after_closed_disables) {
  EXPECT_EQ(rule_broken_by("state-after-closed"), "state() after CM_PEER_CLOSED");
}
TEST_F(PluginHost, deliver_before_resume_disables) {
  options_.limits.iteration_bytes_max = 100;
  EXPECT_EQ(rule_broken_by("deliver-while-refused"),
            "deliver() after CM_WOULD_BLOCK and before resume()");
}
TEST_F(PluginHost, writable_without_a_block_disables) {
  EXPECT_EQ(rule_broken_by("writable-unasked"), "writable() without a CM_WOULD_BLOCK before it");
}
TEST_F(PluginHost, a_call_for_an_unknown_peer_disables) {
  EXPECT_EQ(rule_broken_by("unknown-peer"), "writable() for an unknown peer");
}
TEST_F(PluginHost, a_call_for_a_peer_inside_its_open_disables) {
  EXPECT_EQ(rule_broken_by("state-in-open"), "state() for an unknown peer");
}
TEST_F(PluginHost, a_peer_of_zero_disables) {
  EXPECT_EQ(rule_broken_by("zero-peer"), "open() answered a peer that is 0 or already in use");
}
TEST_F(PluginHost, connected_while_connected_disables) {
  EXPECT_EQ(rule_broken_by("connected-twice"), "CM_PEER_CONNECTED while connected");
}
TEST_F(PluginHost, an_unknown_state_disables) {
  EXPECT_EQ(rule_broken_by("unknown-state"), "state() with an unknown state");
}
TEST_F(PluginHost, a_span_without_data_disables) {
  EXPECT_EQ(rule_broken_by("bad-span"), "a span of bytes without data");
}
TEST_F(PluginHost, incoming_at_an_unknown_endpoint_disables) {
  EXPECT_EQ(rule_broken_by("incoming-nowhere"), "incoming() for an unknown endpoint");
}

TEST_F(PluginHost, disabling_one_plugin_leaves_the_others_alone) {
  install("transports/loopback.so", "loopback.so");
  load_puppet();
  const auto [left, right] = joined();
  const HostPeer bystander = open("puppet", "plain");
  open("puppet", "unknown-peer");
  turns(2);
  EXPECT_EQ(states(bystander, CM_PEER_CLOSED), 1u);
  host_->send(bystander, CM_FRAME_CONTROL, "to nobody");
  host_->send(left, CM_FRAME_CONTROL, "still here");
  turns(2);
  EXPECT_EQ(frames(right), std::vector<std::string>{"still here"});
}

}  // namespace
}  // namespace cm::plugins
