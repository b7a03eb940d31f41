// daemon_features_test.cc — negotiation with brokers that answer, keep silent, or fall short.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;

constexpr std::uint64_t kHourMs = 3'600'000;

class DaemonFeatures : public DaemonTest {
 protected:
  static std::string feature(const std::string& name, const std::string& params) {
    return "\"" + name + R"(":{"params":{"version":1)" + (params.empty() ? "" : "," + params) +
           "}}";
  }
  static std::string dedupe(const std::string& rest) {
    return feature("client_message_id_dedupe",
                   R"("request_fingerprint":true)" + std::string(rest.empty() ? "" : ",") + rest);
  }
  const std::string policy_ = feature("concurrent_connection_policy", "");
  const std::string permanent_ = dedupe(R"("mode":"permanent")");

  void respond(const std::string& supported) {
    frame(R"({"type":"feature_negotiation_response","supported":{)" + supported +
          R"(},"missing_required":[]})");
  }
  std::string health(const std::string& key) {
    status(get("/v1/health"));
    return field(reply_, key);
  }
};

TEST_F(DaemonFeatures, they_are_asked_for_once_a_connection_beside_the_traffic) {
  start();
  send(bob_.hex, "id");
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  hello_ack();
  EXPECT_EQ(count(EffectKind::kLinkSend, "feature_negotiation_request"), 1u);
  EXPECT_EQ(sends(), (Texts{"id"}));
  EXPECT_EQ(health("negotiation"), "asked");
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":131072)"));
  EXPECT_EQ(health("negotiation"), "agreed");
  EXPECT_EQ(health("inline_bytes"), "131072");
  EXPECT_EQ(health("outbox_max_age_hours"), "168");
  status(get("/v1/version"));
  EXPECT_TRUE(has(reply_, R"("broker_features_negotiated":{"crew":["client_message_id_dedupe")"));
  link_down();
  link_up();
  EXPECT_EQ(count(EffectKind::kLinkSend, "feature_negotiation_request"), 1u);
}

TEST_F(DaemonFeatures, a_broker_that_says_nothing_for_two_seconds_is_legacy) {
  start();
  link_up();
  later(1'999);
  EXPECT_EQ(health("negotiation"), "asked");
  later(1);
  EXPECT_EQ(health("negotiation"), "legacy");
  EXPECT_EQ(health("inline_bytes"), "65536");
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
  respond(permanent_ + "," + policy_);
  EXPECT_EQ(health("negotiation"), "agreed") << "late, and still an answer";
}

TEST_F(DaemonFeatures, a_broker_that_does_not_know_the_question_is_legacy_at_once) {
  start();
  link_up();
  const std::string id = field(sent("feature_negotiation_request"), "_reqId");
  frame(R"({"type":"error","code":"unknown_message_type","message":"what","_reqId":")" + id +
        "\"}");
  EXPECT_EQ(health("negotiation"), "legacy");
}

TEST_F(DaemonFeatures, the_brokers_limit_bounds_what_is_accepted) {
  start();
  link_up();
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":2048)"));
  EXPECT_EQ(send(bob_.hex, "id", std::string(2'000, 'x')), 413u);
  EXPECT_TRUE(has(reply_, "2048"));
  EXPECT_EQ(send(bob_.hex, "id", std::string(500, 'x')), 202u);
  link_down();
  EXPECT_EQ(send(bob_.hex, "id-2", std::string(2'000, 'x')), 413u) << "it holds while away";
  link_up();
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":1048576)"));
  EXPECT_EQ(send(bob_.hex, "id-2", std::string(200'000, 'x')), 202u);
}

TEST_F(DaemonFeatures, a_bad_optional_parameter_leaves_the_default) {
  start();
  for (const char* bad : {R"("inline_bytes":1023)", R"("inline_bytes":"1")", R"("x":1)",
                          R"("inline_bytes":99999999999)"}) {
    link_up();
    respond(permanent_ + "," + policy_ + "," + feature("max_payload", bad));
    EXPECT_EQ(health("negotiation"), "agreed") << bad;
    EXPECT_EQ(health("inline_bytes"), "65536") << bad;
    link_down();
  }
}

TEST_F(DaemonFeatures, a_broker_that_falls_short_is_left_with_4010_and_a_flat_reason) {
  const struct {
    std::string supported;
    const char *kind, *feature;
  } rows[] = {
      {"", "feature_unavailable", "client_message_id_dedupe"},
      {policy_, "feature_unavailable", "client_message_id_dedupe"},
      {permanent_, "feature_unavailable", "concurrent_connection_policy"},
      {permanent_ + R"(,"concurrent_connection_policy":{"params":{"version":2}})",
       "feature_param_invalid", "concurrent_connection_policy"},
      {policy_ + "," + dedupe(R"("mode":"sometimes")"), "feature_param_invalid",
       "client_message_id_dedupe"},
      {policy_ + "," + dedupe(R"("mode":"retention_scoped")"), "feature_param_invalid",
       "client_message_id_dedupe"},
      {policy_ + "," + dedupe(R"("mode":"retention_scoped","dedupe_retention_days":2)"),
       "feature_param_below_floor", "client_message_id_dedupe"},
      {policy_ + "," + feature("client_message_id_dedupe", R"("mode":"permanent")"),
       "feature_param_invalid", "client_message_id_dedupe"},
      {policy_ + R"(,"client_message_id_dedupe":{})", "feature_param_invalid",
       "client_message_id_dedupe"},
  };
  for (const auto& each : rows) {
    SCOPED_TRACE(each.supported);
    start();
    link_up();
    const ConnRef stream = get("/v1/events");
    respond(each.supported);
    std::string reason;
    for (const Done& done : done_) {
      if (done.kind != EffectKind::kLinkClose) continue;
      EXPECT_EQ(done.code, 4010u);
      reason = done.text;
    }
    EXPECT_LE(reason.size(), 123u);
    EXPECT_EQ(field(reason, "kind"), each.kind);
    EXPECT_EQ(field(reason, "feature"), each.feature);
    EXPECT_EQ(count(EffectKind::kStreamWrite, "event: feature_negotiation_failed"), 1u);
    EXPECT_FALSE(core_->gave_up().empty()) << "it was the only mesh";
    EXPECT_EQ(health("state"), "refused");
    later(120'000);
    EXPECT_EQ(count(EffectKind::kLinkOpen), 0u) << "for good";
    (void)stream;
  }
}

TEST_F(DaemonFeatures, legacy_brokers_can_be_refused) {
  config_.legacy_brokers = false;
  start();
  link_up();
  later(2'000);
  ASSERT_EQ(count(EffectKind::kLinkClose), 1u);
  EXPECT_EQ(done_[0].kind == EffectKind::kLinkClose ? done_[0].code : 4010u, 4010u);
  EXPECT_EQ(health("state"), "refused");
}

TEST_F(DaemonFeatures, a_refused_mesh_leaves_the_others_alone) {
  start(2);
  link_up(0);
  link_up(1);
  respond("");
  EXPECT_TRUE(core_->gave_up().empty());
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"other")"), 202u);
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonFeatures, close_codes_for_a_second_daemon_of_one_member_end_the_mesh) {
  for (const std::uint32_t code : {4003u, 4004u}) {
    start();
    link_up();
    core_->on_link_event(links_[0], LinkEvent::kConnecting, code, "gone");
    run();
    EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
    EXPECT_EQ(health("state"), "refused");
    EXPECT_TRUE(has(core_->gave_up(), std::to_string(code)));
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonCloneSuspected), 2u);
}

TEST_F(DaemonFeatures, a_mesh_that_another_daemon_serves_is_refused_and_the_others_go_on) {
  start(2);
  link_up(0);
  link_up(1);
  core_->on_link_event(links_[0], LinkEvent::kConnecting, 4004, "member_already_connected");
  run();
  EXPECT_EQ(health("state"), "refused");
  EXPECT_EQ(field(reply_, "last_error"), "member_already_connected");
  EXPECT_TRUE(core_->gave_up().empty());
  later(600'000);
  EXPECT_EQ(count(EffectKind::kLinkOpen), 0u) << "until told otherwise";
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"other")"), 202u);
}

TEST_F(DaemonFeatures, health_shows_the_version_that_a_broker_names) {
  start();
  EXPECT_EQ(health("broker_version"), "null");
  const struct {
    const char* said;
    const char* shown;
  } rows[] = {{R"("9.1.0")", "9.1.0"}, {"7", "null"}, {R"("a\u001bb")", "null"}, {R"("")", "null"}};
  for (const auto& row : rows) {
    core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
    run();
    frame(R"({"type":"hello_ack","presenceId":"p","brokerVersion":)" + std::string(row.said) + "}");
    EXPECT_EQ(health("broker_version"), row.shown) << row.said;
    EXPECT_EQ(health("state"), "open");
    link_down();
  }
}

TEST_F(DaemonFeatures, the_age_of_the_outbox_follows_the_retention_of_the_broker) {
  const struct {
    const char* days;
    const char* hours;
  } rows[] = {{"3", "72"},   {"4", "72"},   {"5", "96"},    {"10", "216"},
              {"15", "324"}, {"30", "648"}, {"365", "7884"}};
  start();
  for (const auto& each : rows) {
    link_up();
    respond(policy_ + "," +
            dedupe(std::string(R"("mode":"retention_scoped",)") + R"("dedupe_retention_days":)" +
                   each.days));
    EXPECT_EQ(health("outbox_max_age_hours"), each.hours) << each.days;
    link_down();
  }
}

TEST_F(DaemonFeatures, a_row_dies_at_the_age_that_was_agreed) {
  start();
  link_up();
  respond(policy_ + "," + dedupe(R"("mode":"retention_scoped","dedupe_retention_days":3)"));
  link_down();
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
  later(72 * kHourMs - 1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  later(60'000);
  EXPECT_EQ(row("id")->status, OutboxStatus::kDead);
  EXPECT_TRUE(has(row("id")->error, "72 hours"));
}

TEST_F(DaemonFeatures, an_age_above_the_window_of_dedupe_is_refused) {
  config_.outbox_age_hours = 72;
  const std::string three = dedupe(R"("mode":"retention_scoped","dedupe_retention_days":3)");
  start();
  link_up();
  respond(policy_ + "," + three);
  EXPECT_EQ(health("state"), "refused");
  EXPECT_TRUE(has(core_->gave_up(), "outbox_max_age_above_dedupe_window"));
  config_.outbox_age_hours = 71;
  start();
  link_up();
  respond(policy_ + "," + three);
  EXPECT_EQ(health("negotiation"), "agreed");
  EXPECT_EQ(health("outbox_max_age_hours"), "71");
}

TEST_F(DaemonFeatures, a_permanent_window_gives_168_hours_and_never_more_than_720) {
  const struct {
    std::uint32_t limit, asked;
    const char* hours;  // null: refused
  } rows[] = {
      {168, 0, "168"}, {700, 0, "700"}, {2'000, 0, "720"}, {168, 720, "720"}, {168, 721, nullptr}};
  for (const auto& each : rows) {
    SCOPED_TRACE(std::to_string(each.limit) + " " + std::to_string(each.asked));
    parts_.limits.outbox_age_hours_max = each.limit;
    config_.outbox_age_hours = each.asked;
    start();
    link_up();
    respond(policy_ + "," + permanent_);
    if (each.hours != nullptr) {
      EXPECT_EQ(health("outbox_max_age_hours"), each.hours);
      continue;
    }
    EXPECT_EQ(health("state"), "refused");
    EXPECT_TRUE(has(core_->gave_up(), "outbox_max_age_above_dedupe_window"));
  }
}

TEST_F(DaemonFeatures, health_shows_what_was_negotiated_with_its_parameters) {
  start();
  link_up();
  EXPECT_TRUE(has((status(get("/v1/health")), reply_), R"("features":{})"));
  respond(
      policy_ + "," +
      dedupe(R"("mode":"retention_scoped","dedupe_retention_days":30,"odd":[1,2],"x\u202e":1)") +
      "," + feature("max_payload", R"("inline_bytes":131072)") + R"(,"bare":true)");
  status(get("/v1/health"));
  EXPECT_TRUE(has(reply_, R"("client_message_id_dedupe":{"version":1,"request_fingerprint":true,)"
                          R"("mode":"retention_scoped","dedupe_retention_days":30})"))
      << reply_;
  EXPECT_TRUE(has(reply_, R"("max_payload":{"version":1,"inline_bytes":131072})")) << reply_;
  EXPECT_TRUE(has(reply_, R"("bare":{})")) << reply_;
  link_down();
  EXPECT_TRUE(has((status(get("/v1/health")), reply_), R"("features":{})"));
}

// --- what was agreed before this connection ----------------------------------------------------

TEST_F(DaemonFeatures, an_old_row_waits_for_the_window_before_it_is_sent_again) {
  const auto window = [this](const std::string& days) {
    return dedupe(R"("mode":"retention_scoped","dedupe_retention_days":)" + days) + "," + policy_;
  };
  const std::string three = window("3");
  start();
  link_up();
  respond(window("365"));
  send(bob_.hex, "old");
  EXPECT_EQ(sends(), (Texts{"old"}));  // its ack is lost, and both are away for four days
  parts_.advance(96 * kHourMs);
  start();
  send(bob_.hex, "young");
  link_up();
  EXPECT_EQ(sends(), Texts{}) << "the broker may have forgotten the id: it would be a second one";
  respond(three);
  later(1);
  EXPECT_EQ(row("old")->status, OutboxStatus::kDead);
  EXPECT_TRUE(has(row("old")->error, "max_age_exceeded: not accepted within 72 hours; last: "));
  later(1);
  EXPECT_EQ(row("young")->status, OutboxStatus::kInflight);
}

TEST_F(DaemonFeatures, what_a_broker_promised_holds_across_a_restart) {
  const std::string year =
      dedupe(R"("mode":"retention_scoped","dedupe_retention_days":365)") + "," + policy_;
  const std::string big = "," + feature("max_payload", R"("inline_bytes":1048576)");
  start();
  link_up();
  respond(year + big);
  link_down();
  send(bob_.hex, "id");
  parts_.advance(8 * 24 * kHourMs);
  start();
  run();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending) << "it has 7,884 hours";
  EXPECT_EQ(health("outbox_max_age_hours"), "7884");
  EXPECT_EQ(send(eve_.hex, "large", std::string(300'000, 'x')), 202u) << "it takes a megabyte";
  link_up();
  EXPECT_EQ(sends(), Texts{});
  respond(year + big);
  later(1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  EXPECT_EQ(row("large")->status, OutboxStatus::kInflight);
}

TEST_F(DaemonFeatures, a_broker_that_was_never_reached_is_no_silent_one) {
  start();
  const ConnRef conn = ask(body_of(bob_.hex, "id", std::string(100'000, 'x')));
  EXPECT_EQ(status(conn), 0u) << "it is being connected: the answer waits";
  EXPECT_EQ(send(bob_.hex, "small"), 202u);
  later(5'000);
  EXPECT_EQ(status(conn), 503u);
  EXPECT_TRUE(has(reply_, "broker_away") && has(reply_, "the id was not consumed"));
  const ConnRef again = ask(body_of(bob_.hex, "id", std::string(100'000, 'x')));
  EXPECT_EQ(status(again), 503u) << "by now an attempt has failed, or lasts";
  link_up();
  const ConnRef third = ask(body_of(bob_.hex, "id", std::string(100'000, 'x')));
  EXPECT_EQ(status(third), 0u) << "it is being asked";
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":1048576)"));
  run();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending) << "behind the small one in its lane";
}

TEST_F(DaemonFeatures, a_row_that_the_broker_no_longer_takes_is_dead_and_stops_nobody) {
  start();
  link_up();
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":1048576)"));
  link_down();
  send(bob_.hex, "large", std::string(300'000, 'x'));
  send(bob_.hex, "behind");
  send(eve_.hex, "other");
  link_up();
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":100000)"));
  later(1);
  EXPECT_EQ(row("large")->status, OutboxStatus::kDead);
  EXPECT_TRUE(has(row("large")->error, "payload_too_large: it has 4"));
  EXPECT_TRUE(has(row("large")->error, "the broker now takes 100000"));
  EXPECT_EQ(row("other")->status, OutboxStatus::kInflight);
  later(1);
  EXPECT_EQ(row("behind")->status, OutboxStatus::kInflight);
}

TEST_F(DaemonFeatures, a_connection_that_was_closed_for_a_size_costs_its_largest_message) {
  start();
  link_up();
  respond(permanent_ + "," + policy_ + "," + feature("max_payload", R"("inline_bytes":1048576)"));
  send(bob_.hex, "large", std::string(300'000, 'x'));
  send(eve_.hex, "small");
  const auto too_big = [&] {
    core_->on_link_event(links_[0], LinkEvent::kConnecting, 1009, "message too big");
    run();
  };
  too_big();
  EXPECT_EQ(row("large")->status, OutboxStatus::kDead);
  EXPECT_TRUE(has(row("large")->error, "1009"));
  EXPECT_EQ(row("small")->status, OutboxStatus::kPending);
  link_up();
  too_big();
  EXPECT_EQ(row("small")->status, OutboxStatus::kPending) << "every broker takes that";
}

TEST_F(DaemonFeatures, the_reason_of_a_refused_mesh_has_its_numbers_and_its_setting) {
  config_.outbox_age_hours = 700;
  start();
  link_up();
  respond(dedupe(R"("mode":"retention_scoped","dedupe_retention_days":3)") + "," + policy_);
  EXPECT_TRUE(has(health("last_error"), "700 h, at most 71: lower outbox.max_age_hours"));
  EXPECT_TRUE(has(core_->gave_up(), "at most 71"));
}

}  // namespace
}  // namespace cm::daemon
