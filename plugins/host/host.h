// host.h — the owner's side of the plugin border: peers of loaded transports as a table.
// Owns:   the loaded plugins, their peers, endpoints, watches, timers; frames that wait for a
//         blocked transport.
// Holds:  it never calls its owner. What plugins report becomes HostEvents; the owner applies them,
//         commits, and makes its calls. What a plugin reports from inside such a call is told in
//         the next iteration. A frame is handed only to the connection that the owner was told of:
//         nothing that was meant for a lost connection precedes the hello on the next one.
// Why:    plugins are other people's code: every call is timed, every rule of the ABI is checked,
//         and who breaks one is disabled by name (plugins/include/claudemesh/peer_transport.h).
// Limits: HostOptions; 1,024 peers, 64 endpoints, 4,096 watches and timers.
// Not:    which transport is used for whom (core/daemon), isolation: a plugin shares our memory.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/arena.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/base/result.h"
#include "core/base/table.h"
#include "core/base/ulid.h"
#include "core/net/loop.h"
#include "plugins/host/load.h"

namespace cm::plugins {

using HostPeer = Ref<struct HostPeerTag>;
using HostEndpoint = Ref<struct HostEndpointTag>;

struct Plugin;
struct Peer;
struct Watch;
struct Timer;
struct Border;

struct Setting {
  std::string_view key;
  std::string_view value;
};

// One line of a plugin's own section of the configuration, read by "config.v1".
struct PluginSetting {
  std::string kind;
  std::string key;
  std::string value;
};

struct HostOptions {
  Limits limits;  // iteration_bytes_max, iteration_rows_max, daemon_frame_bytes_max
  std::uint32_t call_budget_us = 5'000;
  std::uint32_t held_bytes_max = 16 << 20;  // of one peer that would block; then it is closed
  bool trust_sticky = false;                // see load_folder()
  FillRandom rng = nullptr;
  std::uint64_t (*mono_ms)() = &net::Loop::mono_ms;  // what tick() is given, also within collect()
  std::vector<PluginSetting> settings;
};

enum class HostEventKind : std::uint8_t {
  kState,     // `state` is CM_PEER_*; after CM_PEER_CLOSED the handle is stale
  kFrame,     // `bytes` of `frame_kind`; `token` is for refuse()
  kBlocked,   // the transport takes no more for now; what is sent waits in the host
  kWritable,  // ends kBlocked; a loss ends it without
  kIncoming   // `peer` arrived at `endpoint` and is connected; `bytes` is its address
};

struct HostEvent {
  HostEventKind kind = HostEventKind::kState;
  std::uint32_t state = 0;
  std::uint32_t code = 0;  // kState: a WebSocket close code, or 0
  std::uint32_t frame_kind = 0;
  std::uint32_t token = 0;
  std::uint32_t connection = 0;  // serial of this peer's connection, from 1
  HostPeer peer;
  HostEndpoint endpoint;
  std::string_view bytes;  // frame, detail or address; until the owner resets the scratch arena
};

enum class Verdict : std::uint8_t { kOk = 0, kRetry = 1, kRefused = 2 };  // CM_SETTLED_*

class Host {
 public:
  // All references outlive the host; so do the peers' plugins, which are never unloaded. When the
  // host goes, its peers are closed.
  Host(net::Loop& loop, const HostOptions& options, const Log& log, Metrics& metrics,
       ScratchArena& scratch);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // Loads every file of these folders, at start. Refused ones stay in plugins() with the reason.
  void load(std::span<const std::string> folders);
  // Takes over one that was read; refused if its kind is taken. Of load(), and of fuzzing.
  void adopt(PluginFile file);
  const std::vector<PluginInfo>& plugins() const noexcept { return infos_; }
  // CM_CAP_* and the largest frame; kNotFound for a kind that is not loaded.
  Result<const PluginInfo*> find_plugin(std::string_view kind) const;

  // --- one iteration, in this order ---
  // Takes over what was reported since the last one; asks refused deliveries again.
  void begin_iteration();
  // (the owner runs the loop: Loop::collect)
  // Fires the timers that are due at this time and sends what waited for a writable transport.
  void tick(std::uint64_t mono_ms);
  const std::vector<HostEvent>& events() const noexcept { return events_; }
  // Marks one kFrame of this iteration: it is answered kRefused whatever the others get.
  void refuse(std::uint32_t token);
  // (the owner commits) Answers all frames of this iteration: kOk after the commit, kRetry if it
  // failed.
  void settle(Verdict verdict);
  // (the owner executes its effects: the calls below)
  // Forgets the events; the owner resets the scratch arena after this.
  void end_iteration();

  // When tick() must run next, or net::kNever. Do not block while work_left().
  std::uint64_t next_deadline() const noexcept;
  bool work_left() const noexcept;

  // --- calls of the owner, after the commit; a stale handle is ignored ---
  // kNotFound: no plugin of this kind. kPluginDisabled. kInvalidArgument, kTransport and the like
  // with the plugin's own reason. Any state comes as an event later.
  Result<HostPeer> open(std::string_view kind, std::string_view address,
                        std::span<const Setting> settings = {});
  Result<HostEndpoint> listen(std::string_view kind, std::string_view address,
                              std::span<const Setting> settings = {});
  void unlisten(HostEndpoint endpoint);
  // Hands a copy over, or keeps it while the transport would block. Dropped without a word if the
  // peer is not connected: the owner learns of the loss by an event.
  void send(HostPeer peer, std::uint32_t frame_kind, std::string_view frame);
  void note(HostPeer peer, std::uint32_t verdict);  // CM_NOTE_*
  void heartbeat(HostPeer peer);
  // No event follows for this peer, neither of this nor of a later iteration.
  void close(HostPeer peer, std::uint32_t code, std::string_view reason);

  bool alive(HostPeer peer) const noexcept;
  bool blocked(HostPeer peer) const noexcept;
  std::uint32_t peers() const noexcept { return peers_.count(); }

  // Prometheus text of what the plugins count by "metrics.v1".
  void append_metrics(TextBuf& out) const;
  // Invariants of all tables; part of verify_all().
  bool verify() const;

 private:
  friend struct Border;  // border.cc and services.cc: the functions that plugins call
  struct Token {
    HostPeer peer;
    std::uint64_t token = 0;
    bool refused = false;
  };
  class CallScope;
  using PeerTable = Table<HostPeerTag, std::unique_ptr<Peer>>;
  struct Endpoint {
    Plugin* plugin = nullptr;
    cm_endpoint id = 0;
  };
  using EndpointTable = Table<HostEndpointTag, Endpoint>;
  using WatchTable = Table<struct HostWatchTag, std::unique_ptr<Watch>>;
  using TimerTable = Table<struct HostTimerTag, std::uint64_t, std::unique_ptr<Timer>>;

  // host.cc
  void add_plugin(const PluginFile& file);
  Result<Plugin*> usable(std::string_view kind);
  Peer* find(HostPeer ref) const noexcept;
  HostPeer add_peer(Plugin& plugin, cm_peer id);
  void remove_peer(Peer& peer, bool by_owner);
  cm_status hand_over(HostPeer ref, std::uint32_t frame_kind, std::string_view frame);
  void hold(HostPeer ref, std::uint32_t frame_kind, std::string_view frame);
  void flush_held(HostPeer ref);
  void flush_due();
  void resume_due();
  static void connection_lost(Peer& peer) noexcept;
  void disable(Plugin& plugin, std::string_view rule);
  Error refusal_of(const Plugin& plugin, cm_status status, const char* call) const;
  void report_slow(Plugin& plugin, const char* call, std::uint64_t spent_us);

  // events.cc
  void append(HostEvent event, Peer* peer, std::uint64_t plugin_token = 0);
  bool goes_late(const HostEvent& event, Peer* peer) noexcept;
  void adopt_late_events();

  net::Loop* loop_;
  HostOptions options_;
  const Log* log_;
  Metrics* metrics_;
  ScratchArena* scratch_;
  pthread_t thread_;

  std::vector<PluginInfo> infos_;
  std::vector<std::unique_ptr<Plugin>> plugins_;  // loaded ones; never erased
  PeerTable peers_;
  EndpointTable endpoints_;
  WatchTable watches_;
  enum TimerCol { kDeadline, kTimerRow };
  TimerTable timers_;
  std::uint64_t timer_serial_ = 0;

  std::vector<HostEvent> events_;
  std::vector<Token> tokens_;
  // What is reported while the owner executes its effects, with its bytes. Two arenas: one is
  // read while what stays late goes to the other.
  std::vector<HostEvent> late_events_;
  std::vector<Token> late_tokens_;
  ScratchArena late_arenas_[2];
  int late_arena_ = 0;

  std::vector<HostPeer> flush_due_;
  std::vector<HostPeer> resume_due_;
  Plugin* current_ = nullptr;  // whose code runs now
  std::string last_error_;     // what it logged as CM_LOG_ERROR in this call
  std::uint64_t iteration_ = 0;
  std::uint64_t iteration_bytes_ = 0;
  std::uint32_t iteration_frames_ = 0;
  bool collecting_ = false;  // from begin_iteration() to the end of tick()
};

}  // namespace cm::plugins
