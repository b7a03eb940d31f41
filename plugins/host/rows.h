// rows.h — the rows behind a Host, private to plugins/host.
// Owns:   Plugin, Peer, Watch, Timer.
// Holds:  a plugin's row lives as long as the host; the others die in callbacks, so who calls a
//         plugin looks its row up again afterwards.
// Not:    a public type: owners name peers by HostPeer.
#pragma once

#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "plugins/host/host.h"

namespace cm::plugins {

// What a plugin gets as its cm_host. The address of `abi` is the address of this.
struct HostFacade {
  cm_host abi{};
  Plugin* plugin = nullptr;
};

struct Counter {
  std::string name;
  std::uint64_t value = 0;
};

// A peer that is gone: calls for it that were on their way are refused, others break a rule.
struct GonePeer {
  cm_peer id = 0;
  bool by_owner = false;
};

struct Plugin {
  HostFacade facade;
  Host* host = nullptr;
  const cm_transport* transport = nullptr;
  std::string kind;
  std::size_t info = 0;  // in Host::infos_
  bool disabled = false;
  std::unordered_map<cm_peer, HostPeer> peers;
  std::unordered_map<cm_endpoint, HostEndpoint> endpoints;
  std::deque<GonePeer> gone;  // the newest kGoneMax
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<Counter> counters;
  std::uint32_t log_lines = 0;  // of this iteration
};

constexpr std::size_t kGoneMax = 256;
constexpr std::uint32_t kPeersMax = 1024;
constexpr std::uint32_t kEndpointsMax = 64;
constexpr std::uint32_t kWatchesMax = 4096;
constexpr std::uint32_t kTimersMax = 4096;
constexpr std::size_t kDetailMax = 512;
constexpr std::string_view kLossRule = "CM_PEER_CONNECTING before sent() of each frame taken";
constexpr std::size_t kReasonMax = 123;  // of a close, as in RFC 6455 §5.5

struct Held {
  std::uint32_t frame_kind = 0;
  std::string bytes;
};

struct Peer {
  Plugin* plugin = nullptr;
  cm_peer id = 0;
  HostPeer ref;
  std::uint32_t state = 0;       // CM_PEER_*; 0 before the first report
  std::uint32_t connection = 0;  // serial, counted by CM_PEER_CONNECTED
  std::uint32_t told = 0;        // the serial of the last one that the owner was told
  std::uint64_t lost_in = 0;     // iteration in which the owner was told of a loss
  std::uint64_t late_in = 0;     // iteration from which on events are told in the next
  bool waits = false;            // send() would have blocked; writable() is due
  bool refused = false;          // deliver() was answered would-block; resume() is due
  std::uint64_t next_id = 1;
  std::size_t sending = 0;                // 1 within the call of send()
  std::deque<std::uint64_t> outstanding;  // ids that send() took and sent() has not named
  std::deque<Held> held;
  std::size_t held_bytes = 0;
};

struct Watch {
  Plugin* plugin = nullptr;
  int fd = -1;
  cm_fd_callback callback = nullptr;
  void* context = nullptr;
  net::Loop::Watch* watch = nullptr;
};

struct Timer {
  Plugin* plugin = nullptr;
  std::uint64_t serial = 0;
  cm_timer_callback callback = nullptr;
  void* context = nullptr;
};

std::uint64_t clock_us() noexcept;

// Around each call into a plugin. Host functions never call back, so calls do not nest.
class Host::CallScope {
 public:
  CallScope(Host& host, Plugin& plugin, const char* call) noexcept
      : host_(host), plugin_(plugin), call_(call), began_us_(clock_us()) {
    CHECK(host.current_ == nullptr);
    host.current_ = &plugin;
    host.last_error_.clear();
  }
  ~CallScope() {
    host_.current_ = nullptr;
    const std::uint64_t spent = clock_us() - began_us_;
    if (spent > host_.options_.call_budget_us) host_.report_slow(plugin_, call_, spent);
  }
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  Host& host_;
  Plugin& plugin_;
  const char* call_;
  std::uint64_t began_us_;
};

inline cm_span span_of(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view text_of(cm_span span) noexcept {
  if (span.data == nullptr) return {};
  return {reinterpret_cast<const char*>(span.data), span.size};
}

// The table of functions for a new plugin (border.cc).
cm_host border_functions() noexcept;
// services.cc
const void* find_service(std::string_view id) noexcept;

}  // namespace cm::plugins
