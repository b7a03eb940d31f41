// plugin_host_fixture.h — a Host driven turn by turn, with plugins copied into a folder of its own.
// Owns:   PluginRig (the gtest fixture) of plugin_host_test.cc, plugin_load_test.cc and
//         ws_broker_test.cc.
// Holds:  no sleep and no timed assertion: the host's clock is `now`, moved by the test.
// Not:    the tests.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "plugins/host/host.h"

namespace cm::plugins {

inline std::uint64_t g_host_now = 0;

struct SeenHostEvent {
  HostEventKind kind;
  std::uint32_t state;
  std::uint32_t code;
  HostPeer peer;
  std::string text;
};

class PluginRig : public ::testing::Test {
 protected:
  PluginRig()
      : loop_(std::move(net::Loop::create(1'000'000).value())),
        log_(
            &PluginRig::take_line, [](void*) -> std::uint64_t { return 0; }, this,
            LogLevel::kDebug) {
    EXPECT_GE(sodium_init(), 0);
    g_host_now = 1'000'000;
    options_.trust_sticky = true;
    options_.rng = [](void* to, std::size_t size) { randombytes_buf(to, size); };
    options_.mono_ms = []() { return g_host_now; };
    char folder[] = "/tmp/plugin_test.XXXXXX";
    root_ = ::mkdtemp(folder);
    folder_ = root_ + "/transports";
    std::filesystem::create_directory(folder_);
    ::chmod(folder_.c_str(), 0700);
  }
  ~PluginRig() override {
    host_.reset();
    std::filesystem::remove_all(root_);
  }

  static std::string built(const std::string& name) {
    const auto bin = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    return (bin.parent_path() / name).string();
  }
  // Copies a plugin of the build folder, so that each test has files of its own to spoil.
  std::string install(const std::string& name, const std::string& as, mode_t mode = 0600) {
    const std::string to = folder_ + "/" + as;
    std::filesystem::copy_file(built(name), to);
    EXPECT_EQ(::chmod(to.c_str(), mode), 0);
    return to;
  }
  std::string install_bad(const std::string& fault) {
    return install("tests/plugins_bad/" + fault + ".so", fault + ".so");
  }
  void load() {
    host_.reset();
    seen_.clear();
    host_ = std::make_unique<Host>(*loop_, options_, log_, metrics_, scratch_);
    host_->load(std::vector<std::string>{folder_});
  }

  // One iteration. `on_event` plays the core; what it appends to effects_ runs after the commit.
  void turn() {
    host_->begin_iteration();
    if (before_collect_) before_collect_();
    loop_->collect(false);
    if (after_collect_) after_collect_();
    host_->tick(g_host_now);
    for (const HostEvent& event : host_->events()) {
      seen_.push_back({event.kind, event.state, event.code, event.peer, std::string(event.bytes)});
      if (on_event_) on_event_(event);
    }
    host_->settle(verdict_);
    const std::vector<std::function<void()>> effects = std::exchange(effects_, {});
    for (const auto& effect : effects) effect();
    EXPECT_TRUE(host_->verify());
    if (before_end_) before_end_();
    host_->end_iteration();
    scratch_.reset();
  }
  void turns(int count) {
    for (int index = 0; index < count; ++index) turn();
  }
  // The kernel may deliver when it likes: the bound only ends a test that has failed.
  void until(const std::function<bool()>& condition) {
    const std::uint64_t give_up = net::Loop::mono_ms() + 30'000;
    while (net::Loop::mono_ms() < give_up) {
      if (condition()) return;
      turn();
      ::sched_yield();
    }
    FAIL() << "the condition did not come true; the log says:\n" << log_text_;
  }
  HostPeer open(std::string_view kind, std::string_view address,
                std::span<const Setting> settings = {}) {
    Result<HostPeer> peer = host_->open(kind, address, settings);
    EXPECT_TRUE(peer) << peer.error().detail;
    return peer ? *peer : HostPeer{};
  }
  std::size_t count(HostEventKind kind, HostPeer peer, std::uint32_t state = 0) const {
    std::size_t found = 0;
    for (const SeenHostEvent& event : seen_) {
      found += event.kind == kind && event.peer == peer && (state == 0 || event.state == state);
    }
    return found;
  }
  std::size_t states(HostPeer peer, std::uint32_t state) const {
    return count(HostEventKind::kState, peer, state);
  }
  // The detail of the peer's last state event.
  std::string last_detail(HostPeer peer) const {
    std::string text;
    for (const SeenHostEvent& event : seen_) {
      if (event.kind == HostEventKind::kState && event.peer == peer) text = event.text;
    }
    return text;
  }
  std::vector<std::string> frames(HostPeer peer) const {
    std::vector<std::string> list;
    for (const SeenHostEvent& event : seen_) {
      if (event.kind == HostEventKind::kFrame && event.peer == peer) list.push_back(event.text);
    }
    return list;
  }

  static void take_line(void* self, std::string_view line) {
    static_cast<PluginRig*>(self)->log_text_ += line;
  }

  std::unique_ptr<net::Loop> loop_;
  std::string log_text_;
  Log log_;
  Metrics metrics_;
  ScratchArena scratch_;
  HostOptions options_;
  std::unique_ptr<Host> host_;
  std::string root_;
  std::string folder_;
  Verdict verdict_ = Verdict::kOk;
  std::vector<SeenHostEvent> seen_;
  std::function<void(const HostEvent&)> on_event_;
  std::function<void()> before_collect_;
  std::function<void()> after_collect_;
  std::function<void()> before_end_;
  std::vector<std::function<void()>> effects_;
};

}  // namespace cm::plugins
