// daemon_reload_test.cc — joining and leaving meshes while the daemon runs.
// Holds:  see daemon_fixture.h.
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;

class DaemonReload : public DaemonTest {
 protected:
  MeshConfig mesh(std::size_t index, const Member& who) {
    MeshConfig config;
    config.mesh_id = "mesh" + std::to_string(index);
    config.member_id = "me";
    config.slug = index == 0 ? "crew" : index == 1 ? "other" : "third";
    config.name = "self";
    config.broker_url = "ws://broker" + std::to_string(index);
    config.key = who.key;
    config.secret = *parts_.slab.store_seed(who.seed);
    return config;
  }
  MeshConfig mesh(std::size_t index) { return mesh(index, self_); }
  std::optional<Reloaded> reload(const std::vector<MeshConfig>& meshes) {
    const auto outcome = core_->reload(meshes);
    run();
    return outcome ? std::optional(*outcome) : std::nullopt;
  }
  std::size_t opened(std::string_view url) const { return count(EffectKind::kLinkOpen, url); }
};

TEST_F(DaemonReload, an_equal_list_changes_nothing) {
  start();
  connect({});
  const std::uint32_t secrets = parts_.slab.count();
  const auto outcome = reload({mesh(0)});
  EXPECT_EQ(outcome->kept, 1u);
  EXPECT_EQ(count(EffectKind::kLinkClose) + count(EffectKind::kLinkOpen), 0u);
  EXPECT_EQ(parts_.slab.count(), secrets);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonReload, a_mesh_that_is_joined_is_connected) {
  start();
  const auto outcome = reload({mesh(0), mesh(1)});
  EXPECT_EQ(outcome->joined, 1u);
  EXPECT_EQ(opened("ws://broker1"), 1u);
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"other")"), 202u);
}

// Found by fuzz/daemon: the effect was a view into the mesh's row, which moves and changes.
TEST_F(DaemonReload, an_address_stays_what_it_was_when_the_link_was_opened) {
  start();
  ASSERT_TRUE(core_->reload({mesh(0), mesh(1)}));
  MeshConfig moved = mesh(1);
  moved.broker_url = "ws://elsewhr";
  ASSERT_TRUE(core_->reload({mesh(0), moved, mesh(2)}));
  run();
  EXPECT_EQ(opened("ws://broker1"), 1u);
  EXPECT_EQ(opened("ws://broker2"), 1u);
}

TEST_F(DaemonReload, rows_of_a_mesh_that_is_left_are_dead_with_the_reason) {
  start(2);
  connect({}, 0);
  connect({}, 1);
  EXPECT_EQ(send(bob_.hex, "flying", "hi", R"(,"mesh":"other")"), 202u);
  EXPECT_EQ(send(bob_.hex, "waiting", "hi", R"(,"mesh":"other")"), 202u);
  EXPECT_EQ(send(bob_.hex, "stays", "hi", R"(,"mesh":"crew")"), 202u);
  const ConnRef asks = http("GET", "/v1/skills", "mesh=other");
  const std::uint32_t secrets = parts_.slab.count();
  const auto outcome = reload({mesh(0)});
  EXPECT_EQ(outcome->left, 1u);
  ASSERT_EQ(count(EffectKind::kLinkClose), 1u);
  EXPECT_EQ(status(asks), 503u);
  for (const char* id : {"flying", "waiting"}) {
    EXPECT_EQ(row(id)->status, OutboxStatus::kDead) << id;
    EXPECT_TRUE(row(id)->error.starts_with("mesh_left")) << id;
  }
  EXPECT_EQ(row("stays")->status, OutboxStatus::kInflight);
  EXPECT_EQ(parts_.slab.count(), secrets - 1);
  EXPECT_EQ(send(bob_.hex, "waiting"), 409u);
  EXPECT_EQ(field(reply_, "conflict"), "outbox_dead_fingerprint_mismatch") << "another mesh now";
  EXPECT_TRUE(core_->on_link_frame(links_[1], "{}")) << "a late frame of the old link";
  core_->on_link_event(links_[1], LinkEvent::kConnecting, 1006, "late");
  run();
}

TEST_F(DaemonReload, sends_that_wait_for_a_mesh_that_is_left_are_answered) {
  start(2);
  link_up(1);
  const ConnRef conn = ask(body_of("bob", "id", "hi", R"(,"mesh":"other")"));
  EXPECT_EQ(status(conn), 0u);
  reload({mesh(0)});
  EXPECT_EQ(status(conn), 404u);
  EXPECT_EQ(field(reply_, "error"), "mesh_not_attached");
}

TEST_F(DaemonReload, rows_that_waited_for_their_mesh_go_out_when_it_is_joined_again) {
  start(2);
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"other")"), 202u);
  start(1);  // the file was damaged in this part: the row waits
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  ASSERT_TRUE(reload({mesh(0), mesh(1)}));
  for (const Done& done : done_) {
    if (done.kind == EffectKind::kLinkOpen) links_.push_back(done.link);
  }
  link_up(1);
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonReload, a_changed_address_is_opened_and_a_changed_name_is_not) {
  start();
  connect({});
  MeshConfig renamed = mesh(0);
  renamed.slug = "crew-2";
  EXPECT_EQ(reload({renamed})->changed, 1u);
  EXPECT_EQ(count(EffectKind::kLinkClose), 0u);
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"crew-2")"), 202u);
  MeshConfig moved = mesh(0);
  moved.slug = "crew-2";
  moved.broker_url = "ws://elsewhere";
  EXPECT_EQ(reload({moved})->changed, 1u);
  EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
  later(1'000);
  EXPECT_EQ(opened("ws://elsewhere"), 1u);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
}

TEST_F(DaemonReload, what_was_encrypted_under_an_old_key_is_not_sent_under_a_new_one) {
  start();
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
  const Member fresh = Member::make();
  const auto outcome = reload({mesh(0, fresh)});
  EXPECT_EQ(outcome->left, 1u);
  EXPECT_EQ(outcome->joined, 1u);
  links_.clear();
  for (const Done& done : done_) {
    if (done.kind == EffectKind::kLinkOpen) links_.push_back(done.link);
  }
  link_up();
  EXPECT_TRUE(sends().empty());
  EXPECT_EQ(row("id")->status, OutboxStatus::kDead);
  EXPECT_TRUE(row("id")->error.starts_with("member_key_changed"));
}

TEST_F(DaemonReload, a_list_that_is_wrong_changes_nothing) {
  start();
  connect({});
  const std::uint32_t secrets = parts_.slab.count();
  MeshConfig twin = mesh(1);
  twin.slug = "crew";
  EXPECT_FALSE(reload({mesh(0), twin}));
  EXPECT_EQ(parts_.slab.count(), secrets) << "what was read is released";
  EXPECT_EQ(core_->tables().meshes.count(), 1u);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonReload, after_the_last_mesh_was_left_one_can_be_joined) {
  start();
  EXPECT_EQ(reload({})->left, 1u);
  EXPECT_EQ(status(http("GET", "/v1/peers")), 200u);
  EXPECT_EQ(send(bob_.hex, "id"), 400u);
  EXPECT_EQ(field(reply_, "error"), "no_mesh");
  EXPECT_EQ(reload({mesh(0)})->joined, 1u);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonReload, a_reload_whose_commit_failed_is_done_again) {
  start(2);
  connect({}, 1);
  EXPECT_EQ(send(bob_.hex, "id", "hi", R"(,"mesh":"other")"), 202u);
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->reload({mesh(0), mesh(2)}));
  EXPECT_FALSE(run());
  EXPECT_GE(count(EffectKind::kLinkClose), 1u) << "of the mesh that was left, all the same";
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight) << "rolled back";
  parts_.commit_fails = false;
  const auto again = reload({mesh(0), mesh(2)});
  EXPECT_EQ(again->kept, 2u);
  EXPECT_EQ(row("id")->status, OutboxStatus::kDead);
  later(1'000);
  EXPECT_EQ(opened("ws://broker2"), 1u) << "it was not opened with what failed";
}

TEST_F(DaemonReload, a_request_to_reload_is_answered_when_it_is_done) {
  start();
  const ConnRef good = http("POST", "/v1/reload");
  const ConnRef bad = http("POST", "/v1/reload");
  EXPECT_EQ(count(EffectKind::kReload), 1u);
  auto outcome = core_->reload({mesh(0), mesh(1)});
  ASSERT_TRUE(outcome);
  outcome->waiting = {"ipc.tcp"};
  core_->on_reloaded(good, outcome);
  core_->on_reloaded(bad, fail(Err::kMalformed, "config.json: at byte 7"));
  run();
  EXPECT_EQ(status(good), 200u);
  EXPECT_EQ(reply_, R"({"ok":true,"joined":1,"left":0,"changed":0,"kept":1,)"
                    R"("settings_need_restart":["ipc.tcp"]})");
  EXPECT_EQ(status(bad), 400u);
  EXPECT_TRUE(has(reply_, "byte 7"));
}

}  // namespace
}  // namespace cm::daemon
