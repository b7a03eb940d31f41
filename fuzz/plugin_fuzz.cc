// plugin_fuzz.cc — a hostile transport: what its table says, then all that it does to the host.
// Input:  bytes, read from the front. First the table: flags, version, sizes, the bytes of kind and
//         version. Then what its owner does (open, send, close, turns ...) and, within each call,
//         what the plugin does in return: answers and calls of the host with any argument.
// Holds:  a table that breaks a rule is refused with a sentence; whatever the plugin does, the
//         tables of the host agree; the owner is told of a peer only while it lives, of frames only
//         while it is connected, and never larger than the limit; nothing is settled that was not
//         taken; after a broken rule the plugin is called no more.
// Not:    files and folders (tests/unit/plugin_load_test.cc); pointers that lie, since a plugin
//         shares our memory.
#include <sodium.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fuzz/registry.h"
#include "plugins/host/host.h"

namespace cm::plugins {
namespace {

std::uint64_t g_now = 0;

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
  bool done() const noexcept { return rest_.empty(); }
  std::uint8_t byte() noexcept {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_[0];
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint32_t below(std::uint32_t bound) noexcept { return byte() % bound; }
  // A small number, or one at an edge.
  std::uint64_t number() noexcept {
    const std::uint8_t value = byte();
    if (value < 0xf0) return value;
    constexpr std::uint64_t kEdges[] = {UINT64_MAX, UINT32_MAX, std::uint64_t{1} << 32, INT64_MAX,
                                        0x10000,    1u << 20,   (1u << 20) + 1};
    return kEdges[value % std::size(kEdges)];
  }
  // In a block of its own, so that a read behind it is seen.
  std::vector<std::uint8_t> bytes(std::size_t size) {
    size = std::min(size, rest_.size());
    std::vector<std::uint8_t> copy(rest_.begin(),
                                   rest_.begin() + static_cast<std::ptrdiff_t>(size));
    rest_ = rest_.subspan(size);
    return copy;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

class World;
World* g_world = nullptr;  // the ABI has no context: a plugin has its own globals

class World {
 public:
  World() : loop_(std::move(net::Loop::create(1'000'000).value())) {
    CHECK(sodium_init() >= 0);
    CHECK(::pipe(pipe_) == 0);
    options_.rng = [](void* to, std::size_t size) { std::memset(to, 7, size); };
    options_.mono_ms = []() { return g_now; };
    options_.call_budget_us = 60'000'000;
    options_.held_bytes_max = 512;
    options_.limits.daemon_frame_bytes_max = 256;
    options_.limits.iteration_bytes_max = 512;
    options_.limits.iteration_rows_max = 8;
    options_.settings = {{"hostile", "url", "x"}, {"hostile", "", ""}};
  }

  void run(const std::uint8_t* data, std::size_t size) {
    Script script(data, size);
    script_ = &script;
    g_world = this;
    g_now = 1'000'000;
    peers_.clear();
    endpoints_.clear();
    told_.clear();
    known_.clear();
    taken_ = settled_ = depth_ = 0;
    last_frame_ = last_timer_ = last_watch_ = last_peer_ = 0;
    abi_ = nullptr;
    host_.emplace(*loop_, options_, log_, metrics_, scratch_);
    adopt();
    for (int turn = 0; turn < 64 && !script.done(); ++turn) iterate();
    host_.reset();
    scratch_.reset();
    CHECK(settled_ <= taken_);
  }

 private:
  // --- the table ---
  void adopt() {
    Script& script = *script_;
    const std::uint8_t flags = script.byte();
    transport_ = {};
    transport_.struct_size = sizeof(cm_transport);
    transport_.abi_version = CM_ABI_VERSION;
    transport_.capabilities = script.byte();
    transport_.max_message_bytes = 64;
    transport_.kind = "hostile";
    transport_.version = "1.0.0";
    transport_.open = &World::open;
    transport_.listen = &World::listen;
    transport_.unlisten = &World::unlisten;
    transport_.send = &World::send;
    transport_.note = [](cm_peer, std::uint32_t) { g_world->called(); };
    transport_.heartbeat = [](cm_peer) { g_world->called(); };
    transport_.close = [](cm_peer, std::uint32_t, cm_span reason) {
      CHECK(reason.size <= 123);
      g_world->called();
    };
    transport_.settled = [](cm_peer, std::uint64_t, std::uint32_t verdict) {
      CHECK(verdict <= CM_SETTLED_REFUSED);
      ++g_world->settled_;
      g_world->called();
    };
    transport_.resume = [](cm_peer) { g_world->called(); };
    if ((flags & 1u) != 0) damage(script);
    const PluginFile file = read_table(&transport_, {});
    CHECK((file.transport == nullptr) == !file.info.refusal.empty());
    CHECK(file.info.version.size() <= 64 && file.info.kind.size() <= 32);
    host_->adopt(file);
    if ((flags & 2u) != 0) host_->adopt(file);  // the second of its kind
    CHECK(host_->plugins().size() == ((flags & 2u) != 0 ? 2u : 1u));
    kind_ = file.transport != nullptr ? file.info.kind : "hostile";
  }
  void damage(Script& script) {
    switch (script.below(6)) {
      case 0: transport_.struct_size = static_cast<std::uint32_t>(script.number()); break;
      case 1: transport_.abi_version = static_cast<std::uint32_t>(script.number()); break;
      case 2: transport_.max_message_bytes = script.number(); break;
      case 3: {
        kind_bytes_ = script.bytes(script.byte());
        kind_bytes_.push_back(0);
        transport_.kind = reinterpret_cast<const char*>(kind_bytes_.data());
        break;
      }
      case 4: {
        // Without an end, when it is as long as what is read of it.
        version_bytes_ = script.bytes(script.byte());
        if (version_bytes_.size() < 64) version_bytes_.push_back(0);
        transport_.version = reinterpret_cast<const char*>(version_bytes_.data());
        break;
      }
      default:
        switch (script.below(10)) {
          case 0: transport_.kind = nullptr; break;
          case 1: transport_.version = nullptr; break;
          case 2: transport_.open = nullptr; break;
          case 3: transport_.listen = nullptr; break;
          case 4: transport_.unlisten = nullptr; break;
          case 5: transport_.send = nullptr; break;
          case 6: transport_.note = nullptr; break;
          case 7: transport_.close = nullptr; break;
          case 8: transport_.settled = nullptr; break;
          default: transport_.resume = nullptr; break;
        }
    }
  }

  // --- the plugin's side ---
  static cm_status answer(Script& script) {
    const std::uint8_t value = script.byte();
    return value < 0xc0   ? CM_OK
           : value < 0xe0 ? CM_WOULD_BLOCK
                          : -static_cast<cm_status>(value % 9);
  }
  static cm_status open(const cm_host* host, const cm_target* target, cm_peer* peer) {
    CHECK(target->struct_size == sizeof(cm_target));
    g_world->abi_ = host;
    *peer = g_world->id_of(g_world->script_->byte());
    g_world->called();
    return answer(*g_world->script_);
  }
  static cm_status listen(const cm_host* host, const cm_listen*, cm_endpoint* endpoint) {
    g_world->abi_ = host;
    *endpoint = g_world->script_->below(4);
    g_world->called();
    return answer(*g_world->script_);
  }
  static void unlisten(cm_endpoint) { g_world->called(); }
  static cm_status send(cm_peer peer, const cm_frame* frame, std::uint64_t id) {
    CHECK(frame->data.size <= g_world->transport_.max_message_bytes);
    g_world->last_frame_ = id;
    g_world->last_peer_ = peer;
    g_world->called();
    return answer(*g_world->script_);
  }
  std::uint64_t id_of(std::uint8_t byte) const noexcept { return byte % 6; }

  // Within any call: up to three calls of the host.
  void called() {
    CHECK(!is_disabled());  // who broke a rule is never called again
    if (depth_ != 0) return;
    ++depth_;
    for (std::uint32_t count = script_->below(4); count > 0; --count) call_host();
    --depth_;
  }
  bool is_disabled() const {
    return !host_->plugins().empty() && host_->plugins().front().disabled;
  }
  void call_host() {
    Script& script = *script_;
    if (abi_ == nullptr) return;
    const cm_peer peer = id_of(script.byte());
    switch (script.below(16)) {
      case 0:
      case 1: state(peer, CM_PEER_CONNECTED); break;
      case 2: state(peer, script.byte() % 8); break;
      case 3:
      case 4: deliver(peer); break;
      case 5: abi_->sent(abi_, last_peer_, last_frame_, CM_SENT_HANDED); break;
      case 6: abi_->sent(abi_, peer, script.number(), script.below(3)); break;
      case 7: abi_->writable(abi_, peer); break;
      case 8: {
        const std::vector<std::uint8_t> address = script.bytes(script.byte());
        abi_->incoming(abi_, script.below(4), peer, span(address, script.below(8) == 0));
        break;
      }
      case 9: state(peer, CM_PEER_CLOSED); break;
      case 10: timer(); break;
      case 11: log(); break;
      case 12: config(); break;
      case 13: count(); break;
      case 14: watch(); break;
      default: CHECK(abi_->get_service(abi_, "nothing.v1") == nullptr); break;
    }
  }
  // Sometimes a span without data, which breaks a rule.
  static cm_span span(const std::vector<std::uint8_t>& bytes, bool lies) {
    if (lies) return {nullptr, bytes.size()};
    return {bytes.data(), bytes.size()};
  }
  void state(cm_peer peer, std::uint32_t state) {
    const std::vector<std::uint8_t> detail = script_->bytes(script_->byte() * 4u);
    abi_->state(abi_, peer, state, static_cast<std::uint32_t>(script_->number()),
                span(detail, script_->below(16) == 1));
  }
  void deliver(cm_peer peer) {
    const std::vector<std::uint8_t> body = script_->bytes(script_->byte() * 2u);
    cm_frame frame{sizeof(cm_frame), CM_FRAME_CONTROL, span(body, script_->below(16) == 1)};
    if (script_->below(8) == 1) frame.kind = script_->byte();
    if (script_->below(16) == 1) frame.struct_size = script_->byte();
    // A size that is far too large is refused before anything is read.
    if (script_->below(16) == 1) frame.data.size += std::size_t{1} << 40;
    const cm_status status =
        abi_->deliver(abi_, peer, script_->below(32) == 1 ? nullptr : &frame, script_->number());
    if (status == CM_OK) ++taken_;
  }
  template <class Service>
  const Service* service(const char* id) const {
    const void* found = abi_->get_service(abi_, id);
    if (found == nullptr) CHECK(is_disabled());
    return static_cast<const Service*>(found);
  }
  void timer() {
    const auto* timers = service<cm_timer_v1>("timer.v1");
    if (timers == nullptr) return;
    cm_timer made = script_->number();
    if (script_->below(3) == 0) return timers->cancel(abi_, last_timer_ + script_->below(2));
    const auto callback = [](void*) { g_world->called(); };
    if (timers->start(abi_, script_->number(), callback, nullptr, &made) == CM_OK) {
      last_timer_ = made;
    }
    CHECK(timers->now_ms(abi_) == g_now);
  }
  void log() {
    const auto* logs = service<cm_log_v1>("log.v1");
    const std::vector<std::uint8_t> text = script_->bytes(script_->byte() * 8u);
    if (logs != nullptr) {
      logs->write(abi_, script_->byte(), span(text, script_->below(16) == 1));
    }
  }
  void config() {
    const auto* settings = service<cm_config_v1>("config.v1");
    const std::vector<std::uint8_t> key = script_->bytes(script_->byte() % 8u);
    cm_span value{};
    if (settings != nullptr) {
      settings->get(abi_, span(key, script_->below(16) == 1),
                    script_->below(16) == 1 ? nullptr : &value);
    }
  }
  void count() {
    const auto* metrics = service<cm_metrics_v1>("metrics.v1");
    std::vector<std::uint8_t> name = script_->bytes(script_->byte() % 64u);
    name.push_back(0);
    if (metrics != nullptr) {
      metrics->add(abi_, reinterpret_cast<const char*>(name.data()), script_->number());
    }
  }
  void watch() {
    const auto* descriptors = service<cm_fd_v1>("fd.v1");
    if (descriptors == nullptr) return;
    if (script_->below(4) == 0) return descriptors->unwatch(abi_, last_watch_);
    cm_watch made = script_->number();
    const auto callback = [](void*, int, std::uint32_t) {};  // nothing is ever ready here
    const int fd = script_->below(8) == 1 ? -1 : pipe_[0];
    if (descriptors->watch(abi_, fd, script_->byte() % 5u, callback, nullptr, &made) == CM_OK) {
      last_watch_ = made;
    }
    descriptors->change(abi_, script_->below(2) == 1 ? last_watch_ : made, script_->byte() % 5u);
  }

  // --- the owner's side ---
  void iterate() {
    host_->begin_iteration();
    g_now += script_->below(3) == 0 ? script_->byte() : 0;
    host_->tick(g_now);
    for (const HostEvent& event : host_->events()) see(event);
    CHECK(host_->verify());
    const std::uint32_t verdict = script_->below(3);
    host_->settle(static_cast<Verdict>(verdict));
    for (std::uint32_t count = 1 + script_->below(4); count > 0; --count) act();
    CHECK(host_->verify());
    host_->end_iteration();
    TextBuf text(scratch_);
    host_->append_metrics(text);
    scratch_.reset();
  }
  void see(const HostEvent& event) {
    const std::uint64_t peer = event.peer.bits();
    switch (event.kind) {
      case HostEventKind::kIncoming:
        CHECK(known_.insert(peer).second);
        told_[peer] = true;
        peers_.push_back(event.peer);
        break;
      case HostEventKind::kState:
        CHECK(known_.contains(peer));
        CHECK(event.bytes.size() <= 600);
        told_[peer] = event.state == CM_PEER_CONNECTED;
        if (event.state == CM_PEER_CLOSED) known_.erase(peer);
        break;
      case HostEventKind::kFrame:
        CHECK(known_.contains(peer) && told_[peer]);
        CHECK(event.bytes.size() <= options_.limits.daemon_frame_bytes_max);
        if (script_->below(8) == 1) host_->refuse(event.token);
        break;
      case HostEventKind::kBlocked:
      case HostEventKind::kWritable: CHECK(known_.contains(peer)); break;
    }
  }
  void act() {
    Script& script = *script_;
    const HostPeer peer = peers_.empty() ? HostPeer{} : peers_[script.byte() % peers_.size()];
    switch (script.below(10)) {
      case 0:
      case 1: {
        const Setting setting{"a", "b"};
        const Result<HostPeer> made = host_->open(kind_, "somewhere", {&setting, 1});
        if (made && known_.insert(made->bits()).second) peers_.push_back(*made);
        if (!made) CHECK(!made.error().detail.empty() || made.code() != Err::kOk);
        break;
      }
      case 2: {
        const Result<HostEndpoint> made = host_->listen(kind_, "here");
        if (made) endpoints_.push_back(*made);
        break;
      }
      case 3:
        if (!endpoints_.empty()) {
          host_->unlisten(endpoints_.back());
          endpoints_.pop_back();
        }
        break;
      case 4:
      case 5:
      case 6: {
        const std::vector<std::uint8_t> body = script.bytes(script.byte());
        host_->send(peer, script.below(2), as_text(Bytes(body)));
        break;
      }
      case 7: host_->note(peer, 1 + script.below(2)); break;
      case 8: host_->heartbeat(peer); break;
      default: {
        const std::string reason(script.byte(), 'r');
        host_->close(peer, 1'000, reason);
        CHECK(!host_->alive(peer));
        known_.erase(peer.bits());
        break;
      }
    }
  }

  std::unique_ptr<net::Loop> loop_;
  HostOptions options_;
  Log log_{[](void*, std::string_view) {}, [](void*) { return std::uint64_t{0}; }, nullptr};
  Metrics metrics_;
  ScratchArena scratch_;
  std::optional<Host> host_;
  Script* script_ = nullptr;
  cm_transport transport_{};
  std::vector<std::uint8_t> kind_bytes_, version_bytes_;
  std::string kind_;
  const cm_host* abi_ = nullptr;
  std::vector<HostPeer> peers_;  // all that ever were: handles of dead ones are used, too
  std::vector<HostEndpoint> endpoints_;
  std::set<std::uint64_t> known_;       // alive, as the owner knows
  std::map<std::uint64_t, bool> told_;  // connected, as the owner was told
  int pipe_[2] = {-1, -1};
  std::uint64_t last_frame_ = 0, last_timer_ = 0, last_watch_ = 0;
  cm_peer last_peer_ = 0;
  std::uint64_t taken_ = 0, settled_ = 0;
  std::uint32_t depth_ = 0;
};

}  // namespace
}  // namespace cm::plugins

CM_FUZZ_TARGET(plugin) {
  static cm::plugins::World world;
  world.run(data, size);
  return 0;
}
