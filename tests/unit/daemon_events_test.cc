// daemon_events_test.cc — event ids, resuming, gaps, the ring and its bound, the kinds of events.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

class DaemonEvents : public DaemonTest {
 protected:
  // One system event with a number; its text in the stream of a reader that was there.
  void event(int number) {
    frame(R"({"type":"push","subtype":"system","event":"tick","eventData":{"n":)" +
          std::to_string(number) + R"(},"messageId":"s)" + std::to_string(number) +
          R"(","meshId":"mesh0","senderPubkey":"system","priority":"low","nonce":"",)"
          R"("ciphertext":"","createdAt":"2026-01-02T03:04:05.000Z"})");
  }
  static std::uint64_t id_of(std::string_view text) {
    const std::size_t at = text.find("id: ");
    return at == std::string_view::npos ? 0 : std::stoull(std::string(text.substr(at + 4, 20)));
  }
  std::vector<std::string> written(ConnRef conn) const {
    std::vector<std::string> texts;
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kStreamWrite && done.conn == conn) texts.push_back(done.text);
    }
    return texts;
  }
  ConnRef resume(const std::string& last, bool header = true) {
    wire::HttpRequest request = request_of("GET", "/v1/events", {}, {});
    const std::string query = "lastEventId=" + last;
    request.peer_is_unix = true;
    if (header) {
      request.last_event_id = last;
    } else {
      request.query = query;
    }
    return submit(request);
  }
  // Ids of events 1 to n, as a reader saw them.
  std::vector<std::uint64_t> events(int count) {
    const ConnRef conn = get("/v1/events");
    std::vector<std::uint64_t> ids;
    for (int number = 1; number <= count; ++number) {
      event(number);
      ids.push_back(id_of(written(conn).at(0)));
    }
    return ids;
  }
};

TEST_F(DaemonEvents, a_stream_that_comes_back_gets_what_it_missed_in_order) {
  start();
  connect({});
  const std::vector<std::uint64_t> ids = events(4);
  for (std::size_t index = 1; index < ids.size(); ++index) EXPECT_GT(ids[index], ids[index - 1]);
  for (const bool header : {true, false}) {
    const std::vector<std::string> texts = written(resume(std::to_string(ids[1]), header));
    ASSERT_EQ(texts.size(), 3u);
    EXPECT_TRUE(has(texts[0], "retry: "));
    EXPECT_EQ(id_of(texts[1]), ids[2]);
    EXPECT_TRUE(has(texts[1], "\"n\":3"));
    EXPECT_EQ(id_of(texts[2]), ids[3]);
  }
  EXPECT_EQ(written(resume(std::to_string(ids[3]))).size(), 1u) << "it missed nothing";
  EXPECT_EQ(written(get("/v1/events")).size(), 1u) << "a new one begins now";
}

TEST_F(DaemonEvents, an_event_that_is_not_kept_any_more_is_a_gap) {
  parts_.limits.event_ring_bytes = 400;
  start();
  connect({});
  const std::vector<std::uint64_t> ids = events(20);
  const std::vector<std::string> texts = written(resume(std::to_string(ids[2])));
  ASSERT_GE(texts.size(), 3u);
  EXPECT_TRUE(has(texts[1], "event: gap\n"));
  EXPECT_EQ(field(texts[1], "reason"), "dropped");
  EXPECT_EQ(field(texts[1], "from"), std::to_string(ids[2]));
  const std::uint64_t first = id_of(texts[2]);
  EXPECT_EQ(field(texts[1], "to"), std::to_string(first));
  EXPECT_EQ(id_of(texts[1]), first - 1) << "who comes back with the gap's id misses nothing more";
  EXPECT_EQ(id_of(texts.back()), ids.back());
  for (const std::string& text : written(resume(std::to_string(first - 1)))) {
    EXPECT_FALSE(has(text, "event: gap"));
  }
}

TEST_F(DaemonEvents, ids_grow_over_a_restart_and_an_older_id_is_a_gap) {
  start();
  connect({});
  const std::vector<std::uint64_t> ids = events(3);
  start();  // the same clock: ids may not begin again
  connect({});
  const ConnRef conn = resume(std::to_string(ids[2]));
  const std::vector<std::string> texts = written(conn);
  ASSERT_GE(texts.size(), 2u);
  EXPECT_EQ(field(texts[1], "reason"), "restart");
  event(1);
  EXPECT_GT(id_of(written(conn).at(0)), ids[2]);
}

TEST_F(DaemonEvents, ids_grow_even_when_the_clock_was_set_back) {
  start();
  connect({});
  const std::uint64_t before = events(1)[0];
  parts_.env.wall_ms -= 86'400'000;
  start();
  connect({});
  EXPECT_GT(events(1)[0], before);
}

TEST_F(DaemonEvents, an_id_that_we_never_gave_is_a_gap) {
  start();
  connect({});
  const std::uint64_t last = events(1)[0];
  for (const std::string& id : {std::string("x"), std::to_string(last + 1'000'000),
                                std::string("99999999999999999999999"), std::string("-1")}) {
    const std::vector<std::string> texts = written(resume(id));
    ASSERT_GE(texts.size(), 2u) << id;
    EXPECT_EQ(field(texts[1], "reason"), "unknown_id") << id;
    EXPECT_TRUE(has(texts.back(), "\"n\":1")) << "all that is kept";
  }
}

TEST_F(DaemonEvents, an_event_of_a_failed_commit_is_not_replayed) {
  start();
  connect({});
  const std::uint64_t last = events(1)[0];
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0], push("m1", "hello there")));
  EXPECT_FALSE(run());
  parts_.commit_fails = false;
  for (const std::string& text : written(resume(std::to_string(last)))) {
    EXPECT_FALSE(has(text, "hello there")) << text;
  }
}

TEST_F(DaemonEvents, a_slow_reader_is_forgotten_and_counted) {
  start();
  connect({});
  const ConnRef conn = get("/v1/events");
  core_->on_stream_slow(conn);
  event(1);
  EXPECT_TRUE(written(conn).empty());
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonStreamsSlow), 1u);
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonStreams), 0u);
}

TEST_F(DaemonEvents, data_of_an_event_never_takes_the_place_of_ours) {
  start();
  connect({});
  get("/v1/events");
  frame(R"({"type":"push","subtype":"system","event":"peer_joined","eventData":)"
        "{\"name\":\"eve\",\n\"pubkey\":\"aa\",\"groups\":[\n1],\"mesh\":\"forged\",\"ts\":0,"
        "\"event\":\"x\"},"
        R"("messageId":"s","meshId":"mesh0","senderPubkey":"system","nonce":"","ciphertext":""})");
  std::string text;
  for (const Done& done : done_) {
    if (done.kind == EffectKind::kStreamWrite) text = done.text;
  }
  EXPECT_TRUE(has(text, "event: peer_join\ndata: "));
  EXPECT_TRUE(has(text, R"("mesh":"crew","event":"peer_joined","name":"eve","pubkey":"aa")"))
      << text;
  EXPECT_TRUE(has(text, R"("groups":[ 1])")) << "one line";
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
}

TEST_F(DaemonEvents, what_this_member_did_itself_is_no_event) {
  start();
  connect({});
  const ConnRef conn = get("/v1/events");
  frame(
      R"({"type":"push","subtype":"system","event":"peer_joined","eventData":{"pubkey":")" +
      self_.hex +
      R"("},"messageId":"s","meshId":"mesh0","senderPubkey":"system","nonce":"","ciphertext":""})");
  EXPECT_TRUE(written(conn).empty());
}

TEST_F(DaemonEvents, the_state_of_a_connection_is_an_event) {
  start();
  const ConnRef conn = get("/v1/events");
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  ASSERT_EQ(written(conn).size(), 1u);
  EXPECT_TRUE(has(written(conn)[0], R"("mesh":"crew","status":"connecting")"));
  hello_ack();
  EXPECT_TRUE(has(written(conn).at(0), "event: broker_status"));
  EXPECT_TRUE(has(written(conn).at(0), R"("status":"open")"));
}

TEST_F(DaemonEvents, a_mesh_that_is_lost_and_back_again_is_told_once_each) {
  start();
  const ConnRef conn = get("/v1/events");
  const auto kinds = [&](std::string_view kind) {
    std::string data;
    for (const std::string& text : written(conn)) {
      if (!has(text, "event: " + std::string(kind) + "\n")) continue;
      EXPECT_EQ(data, "") << "twice";
      data = text;
    }
    return data;
  };
  link_up();
  EXPECT_EQ(kinds("daemon_reconnect"), "") << "the first connection is none that came back";
  link_down();
  EXPECT_TRUE(has(kinds("daemon_disconnect"), R"("mesh":"crew","reason":"lost")"));
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  link_down();
  EXPECT_EQ(kinds("daemon_disconnect"), "") << "an attempt that fails changes nothing";
  parts_.advance(2'500);
  link_up();
  EXPECT_TRUE(has(kinds("daemon_reconnect"), R"("mesh":"crew","down_ms":2500)"));
  EXPECT_EQ(kinds("daemon_disconnect"), "");
}

TEST_F(DaemonEvents, an_outbox_that_fills_is_told_at_eighty_percent_and_again_below_seventy) {
  parts_.limits.outbox_rows_max = 10;
  start();
  const ConnRef conn = get("/v1/events");
  const auto told = [&] {
    std::string data;
    for (const std::string& text : written(conn)) {
      if (has(text, "event: outbox_pressure_high\n")) data += text;
    }
    return data;
  };
  const auto send_to = [&](int number) {
    return send(Member::make().hex, "m" + std::to_string(number));
  };
  for (int number = 0; number < 7; ++number) {
    ASSERT_EQ(send_to(number), 202u) << reply_;
    EXPECT_EQ(told(), "");
  }
  parts_.commit_fails = true;
  send_to(7);
  parts_.commit_fails = false;
  EXPECT_EQ(told(), "") << "the eighth row was not stored";
  ASSERT_EQ(send_to(8), 202u);
  EXPECT_TRUE(has(told(), R"("high":true,"rows":8,"rows_max":10,"rows_pct":80)")) << told();
  ASSERT_EQ(send_to(9), 202u);
  EXPECT_EQ(told(), "");
  connect({});
  const auto done = [&](int from, int to) {
    for (int number = from; number < to; ++number) good_ack("m" + std::to_string(number));
  };
  done(0, 2);
  EXPECT_EQ(told(), "") << "70 % is not below it";
  good_ack("m2");
  EXPECT_TRUE(has(told(), R"("high":false,"rows":6)")) << told();
}

// --- one wake (design/delivery.md, promise 9) ----------------------------------------------------

TEST_F(DaemonEvents, the_first_message_wakes_and_those_behind_it_do_not_until_somebody_reads) {
  start();
  connect({peer(bob_, "bob")});
  const ConnRef stream = get("/v1/events");
  const auto wakes = [&](const std::string& id) {
    frame(push(id, "hi"));
    const std::vector<std::string> texts = written(stream);
    EXPECT_EQ(texts.size(), 1u);
    return texts.empty() ? std::string() : field(texts[0], "wake");
  };
  EXPECT_EQ(wakes("m1"), "true");
  EXPECT_EQ(wakes("m2"), "false");
  frame(push("m1", "hi"));
  EXPECT_TRUE(written(stream).empty()) << "a redelivery tells nothing";
  get("/v1/inbox", "mark_seen=false");
  EXPECT_EQ(wakes("m3"), "false") << "who only looked has not moved";
  get("/v1/inbox");
  EXPECT_EQ(wakes("m4"), "true");
  http("POST", "/v1/inbox/seen", {}, R"({"ids":[]})");
  EXPECT_EQ(wakes("m5"), "true");
  http("DELETE", "/v1/inbox");
  EXPECT_EQ(wakes("m6"), "true");
}

TEST_F(DaemonEvents, a_wake_that_was_not_committed_was_none) {
  start();
  connect({peer(bob_, "bob")});
  const ConnRef stream = get("/v1/events");
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0], push("m1", "hi")));
  run();
  parts_.commit_fails = false;
  connect({peer(bob_, "bob")});
  frame(push("m1", "hi"));
  ASSERT_EQ(written(stream).size(), 1u);
  EXPECT_EQ(field(written(stream)[0], "wake"), "true");
}

}  // namespace
}  // namespace cm::daemon
