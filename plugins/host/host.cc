// host.cc — the owner's calls: plugins, peers, sending with its queue, disabling.
// Holds:  a plugin is called only through CallScope, and every row is looked up again after it.
// Not:    what plugins call (border.cc, services.cc), the order of an iteration (events.cc).
#include "plugins/host/host.h"

#include <time.h>

#include <algorithm>

#include "plugins/host/rows.h"

namespace cm::plugins {
namespace {

constexpr std::uint32_t kCloseShutdown = 1001;
constexpr std::uint32_t kCloseSlow = 1008;

// The settings of one peer, in the ABI's form for the duration of a call.
std::vector<cm_setting> abi_settings(std::span<const Setting> settings) {
  std::vector<cm_setting> list;
  list.reserve(settings.size());
  for (const Setting& setting : settings) {
    list.push_back({span_of(setting.key), span_of(setting.value)});
  }
  return list;
}

Err err_of(cm_status status) noexcept {
  switch (status) {
    case CM_E_INVALID: return Err::kInvalidArgument;
    case CM_E_TOO_BIG: return Err::kTooBig;
    case CM_E_NO_MEMORY: return Err::kFull;
    case CM_E_SYSTEM: return Err::kIo;
    default: return Err::kTransport;
  }
}

std::string_view status_text(cm_status status) noexcept {
  switch (status) {
    case CM_E_INVALID: return "the address or a setting is malformed";
    case CM_E_TOO_BIG: return "it is too big";
    case CM_E_CLOSED: return "it is closed";
    case CM_E_UNSUPPORTED: return "it does not support this";
    case CM_E_NO_MEMORY: return "it has no room";
    case CM_E_SYSTEM: return "the operating system refused";
    default: return "it gave no reason";
  }
}

}  // namespace

std::uint64_t clock_us() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000u +
         static_cast<std::uint64_t>(now.tv_nsec) / 1000u;
}

Host::Host(net::Loop& loop, const HostOptions& options, const Log& log, Metrics& metrics,
           ScratchArena& scratch)
    : loop_(&loop),
      options_(options),
      log_(&log),
      metrics_(&metrics),
      scratch_(&scratch),
      thread_(::pthread_self()),
      peers_(kPeersMax),
      endpoints_(kEndpointsMax),
      watches_(kWatchesMax),
      timers_(kTimersMax) {
  CHECK(options.rng != nullptr);
  CHECK(options.mono_ms != nullptr);
}

Host::~Host() {
  endpoints_.each([&](HostEndpoint ref) { unlisten(ref); });
  peers_.each([&](HostPeer ref) { close(ref, kCloseShutdown, "shutting down"); });
  watches_.each([&](auto ref) { loop_->unwatch(watches_.get<0>(ref)->watch); });
}

void Host::load(std::span<const std::string> folders) {
  for (const std::string& folder : folders) {
    for (PluginFile& file : load_folder(folder, options_.trust_sticky)) adopt(std::move(file));
  }
}

void Host::adopt(PluginFile file) {
  if (file.transport != nullptr) {
    const auto same = std::find_if(plugins_.begin(), plugins_.end(), [&](const auto& other) {
      return other->kind == file.info.kind;
    });
    if (same != plugins_.end()) {
      file.info.refusal =
          "its kind '" + file.info.kind + "' is taken by " + infos_[(*same)->info].path;
      file.transport = nullptr;
    }
  }
  add_plugin(file);
}

void Host::add_plugin(const PluginFile& file) {
  infos_.push_back(file.info);
  PluginInfo& info = infos_.back();
  if (file.transport == nullptr) {
    log_->error("plugin_refused", {{"code", info_of(Err::kPluginRefused).wire_code},
                                   {"path", info.path},
                                   {"detail", info.refusal}});
    return;
  }
  info.loaded = true;
  auto plugin = std::make_unique<Plugin>();
  plugin->facade.abi = border_functions();
  plugin->facade.plugin = plugin.get();
  plugin->host = this;
  plugin->transport = file.transport;
  plugin->kind = info.kind;
  plugin->info = infos_.size() - 1;
  for (const PluginSetting& setting : options_.settings) {
    if (setting.kind == info.kind) plugin->settings.emplace_back(setting.key, setting.value);
  }
  plugins_.push_back(std::move(plugin));
  log_->info("plugin_loaded", {{"kind", info.kind},
                               {"version", info.version},
                               {"path", info.path},
                               {"sha256", info.sha256}});
}

Result<const PluginInfo*> Host::find_plugin(std::string_view kind) const {
  for (const auto& plugin : plugins_) {
    if (plugin->kind == kind) return &infos_[plugin->info];
  }
  return fail(Err::kNotFound, "no transport of kind '" + std::string(kind) + "' is loaded");
}

Result<Plugin*> Host::usable(std::string_view kind) {
  for (const auto& plugin : plugins_) {
    if (plugin->kind != kind) continue;
    if (plugin->disabled) return fail(Err::kPluginDisabled, infos_[plugin->info].refusal);
    return plugin.get();
  }
  return find_plugin(kind).error();
}

Error Host::refusal_of(const Plugin& plugin, cm_status status, const char* call) const {
  if (plugin.disabled) return fail(Err::kPluginDisabled, infos_[plugin.info].refusal);
  const std::string reason = last_error_.empty() ? std::string(status_text(status)) : last_error_;
  return fail(err_of(status), plugin.kind + " " + call + ": " + reason);
}

Result<HostPeer> Host::open(std::string_view kind, std::string_view address,
                            std::span<const Setting> settings) {
  Result<Plugin*> found = usable(kind);
  if (!found) return found.error();
  Plugin& plugin = **found;
  if (peers_.full()) return fail(Err::kFull, "peers of transports: at most 1024");
  const std::vector<cm_setting> list = abi_settings(settings);
  const cm_target target{sizeof(cm_target), static_cast<std::uint32_t>(list.size()), list.data(),
                         span_of(address)};
  cm_peer id = 0;
  cm_status status = CM_OK;
  {
    const CallScope scope(*this, plugin, "open");
    status = plugin.transport->open(&plugin.facade.abi, &target, &id);
  }
  if (status != CM_OK || plugin.disabled) return refusal_of(plugin, status, "open");
  if (id == 0 || plugin.peers.contains(id)) {
    disable(plugin, "open() answered a peer that is 0 or already in use");
    return refusal_of(plugin, status, "open");
  }
  return add_peer(plugin, id);
}

Result<HostEndpoint> Host::listen(std::string_view kind, std::string_view address,
                                  std::span<const Setting> settings) {
  Result<Plugin*> found = usable(kind);
  if (!found) return found.error();
  Plugin& plugin = **found;
  if (plugin.transport->listen == nullptr) {
    return fail(Err::kTransport, plugin.kind + " cannot listen");
  }
  if (endpoints_.full()) return fail(Err::kFull, "endpoints of transports: at most 64");
  const std::vector<cm_setting> list = abi_settings(settings);
  const cm_listen config{sizeof(cm_listen), static_cast<std::uint32_t>(list.size()), list.data(),
                         span_of(address)};
  cm_endpoint id = 0;
  cm_status status = CM_OK;
  {
    const CallScope scope(*this, plugin, "listen");
    status = plugin.transport->listen(&plugin.facade.abi, &config, &id);
  }
  if (status != CM_OK || plugin.disabled) return refusal_of(plugin, status, "listen");
  if (id == 0 || plugin.endpoints.contains(id)) {
    disable(plugin, "listen() answered an endpoint that is 0 or already in use");
    return refusal_of(plugin, status, "listen");
  }
  const HostEndpoint ref = endpoints_.insert();
  endpoints_.get<0>(ref) = {&plugin, id};
  plugin.endpoints.emplace(id, ref);
  return ref;
}

void Host::unlisten(HostEndpoint ref) {
  if (!endpoints_.alive(ref)) return;
  const Endpoint endpoint = endpoints_.get<0>(ref);
  endpoint.plugin->endpoints.erase(endpoint.id);
  endpoints_.erase(ref);
  const CallScope scope(*this, *endpoint.plugin, "unlisten");
  endpoint.plugin->transport->unlisten(endpoint.id);
}

Peer* Host::find(HostPeer ref) const noexcept {
  return peers_.alive(ref) ? peers_.get<0>(ref).get() : nullptr;
}

HostPeer Host::add_peer(Plugin& plugin, cm_peer id) {
  const HostPeer ref = peers_.insert();
  CHECK(static_cast<bool>(ref));
  auto peer = std::make_unique<Peer>();
  peer->plugin = &plugin;
  peer->id = id;
  peer->ref = ref;
  peers_.get<0>(ref) = std::move(peer);
  plugin.peers.emplace(id, ref);
  return ref;
}

void Host::remove_peer(Peer& peer, bool by_owner) {
  Plugin& plugin = *peer.plugin;
  plugin.gone.push_back({peer.id, by_owner});
  if (plugin.gone.size() > kGoneMax) plugin.gone.pop_front();
  plugin.peers.erase(peer.id);
  peers_.erase(peer.ref);
}

void Host::send(HostPeer ref, std::uint32_t frame_kind, std::string_view frame) {
  Peer* peer = find(ref);
  if (peer == nullptr || peer->state != CM_PEER_CONNECTED || peer->told != peer->connection) return;
  if (frame.size() > peer->plugin->transport->max_message_bytes) {
    log_->error("transport_frame_too_big", {{"kind", peer->plugin->kind}, {"bytes", frame.size()}});
    return;
  }
  if (peer->waits || !peer->held.empty()) {
    hold(ref, frame_kind, frame);
    return;
  }
  if (hand_over(ref, frame_kind, frame) != CM_WOULD_BLOCK) return;
  HostEvent event;
  event.kind = HostEventKind::kBlocked;
  event.peer = ref;
  append(event, find(ref));
  hold(ref, frame_kind, frame);
}

cm_status Host::hand_over(HostPeer ref, std::uint32_t frame_kind, std::string_view frame) {
  Peer* peer = find(ref);
  Plugin& plugin = *peer->plugin;
  const std::uint32_t connection = peer->connection;
  const std::uint64_t id = peer->next_id++;
  // Before the call: sent() may come from inside it.
  peer->outstanding.push_back(id);
  peer->sending = 1;
  const cm_frame abi_frame{sizeof(cm_frame), frame_kind, span_of(frame)};
  cm_status status = CM_OK;
  {
    const CallScope scope(*this, plugin, "send");
    status = plugin.transport->send(peer->id, &abi_frame, id);
  }
  peer = find(ref);
  if (peer == nullptr) return CM_E_CLOSED;
  peer->sending = 0;
  const bool lost = peer->state != CM_PEER_CONNECTED || peer->connection != connection;
  const bool open = !peer->outstanding.empty() && peer->outstanding.back() == id;
  if (status == CM_OK && !(lost && open)) return CM_OK;
  if (status == CM_OK || !open) {
    disable(plugin, status == CM_OK ? kLossRule : "sent() for a frame that send() did not take");
    return CM_E_DISABLED;
  }
  peer->outstanding.pop_back();
  if (lost) return CM_E_CLOSED;
  if (status == CM_WOULD_BLOCK) {
    peer->waits = true;
    return CM_WOULD_BLOCK;
  }
  log_->warn("transport_send_failed",
             {{"kind", plugin.kind}, {"bytes", frame.size()}, {"detail", status_text(status)}});
  return status;
}

void Host::hold(HostPeer ref, std::uint32_t frame_kind, std::string_view frame) {
  Peer* peer = find(ref);
  CHECK(peer != nullptr);
  if (peer->held_bytes + frame.size() <= options_.held_bytes_max) {
    peer->held.push_back({frame_kind, std::string(frame)});
    peer->held_bytes += frame.size();
    return;
  }
  close(ref, kCloseSlow, "too many bytes wait");
  HostEvent event;
  event.state = CM_PEER_CLOSED;
  event.code = kCloseSlow;
  event.peer = ref;
  event.bytes = "the peer takes too little: too many bytes wait for it";
  append(event, nullptr);
}

void Host::flush_held(HostPeer ref) {
  for (;;) {
    Peer* peer = find(ref);
    if (peer == nullptr || peer->waits || peer->state != CM_PEER_CONNECTED) return;
    if (peer->held.empty()) break;
    Held next = std::move(peer->held.front());
    peer->held.pop_front();
    peer->held_bytes -= next.bytes.size();
    if (hand_over(ref, next.frame_kind, next.bytes) == CM_WOULD_BLOCK) {
      peer = find(ref);
      peer->held_bytes += next.bytes.size();
      peer->held.push_front(std::move(next));
      return;
    }
  }
  HostEvent event;
  event.kind = HostEventKind::kWritable;
  event.peer = ref;
  append(event, find(ref));
}

void Host::flush_due() {
  const std::vector<HostPeer> due = std::exchange(flush_due_, {});
  for (const HostPeer ref : due) flush_held(ref);
}

void Host::resume_due() {
  const std::vector<HostPeer> due = std::exchange(resume_due_, {});
  for (const HostPeer ref : due) {
    Peer* peer = find(ref);
    if (peer == nullptr || !peer->refused) continue;
    peer->refused = false;
    const CallScope scope(*this, *peer->plugin, "resume");
    peer->plugin->transport->resume(peer->id);
  }
}

void Host::connection_lost(Peer& peer) noexcept {
  // The core sends what is still wanted after the next hello.
  peer.held.clear();
  peer.held_bytes = 0;
  peer.waits = false;
  peer.refused = false;
}

void Host::note(HostPeer ref, std::uint32_t verdict) {
  Peer* peer = find(ref);
  if (peer == nullptr) return;
  const CallScope scope(*this, *peer->plugin, "note");
  peer->plugin->transport->note(peer->id, verdict);
}

void Host::heartbeat(HostPeer ref) {
  Peer* peer = find(ref);
  if (peer == nullptr || peer->plugin->transport->heartbeat == nullptr) return;
  const CallScope scope(*this, *peer->plugin, "heartbeat");
  peer->plugin->transport->heartbeat(peer->id);
}

void Host::close(HostPeer ref, std::uint32_t code, std::string_view reason) {
  std::erase_if(late_events_, [&](const HostEvent& event) { return event.peer == ref; });
  Peer* peer = find(ref);
  if (peer == nullptr) return;
  Plugin& plugin = *peer->plugin;
  const cm_peer id = peer->id;
  remove_peer(*peer, true);
  const CallScope scope(*this, plugin, "close");
  plugin.transport->close(id, code, span_of(reason.substr(0, kReasonMax)));
}

bool Host::alive(HostPeer ref) const noexcept { return peers_.alive(ref); }

bool Host::blocked(HostPeer ref) const noexcept {
  const Peer* peer = find(ref);
  return peer != nullptr && (peer->waits || !peer->held.empty());
}

void Host::disable(Plugin& plugin, std::string_view rule) {
  if (plugin.disabled) return;
  plugin.disabled = true;
  PluginInfo& info = infos_[plugin.info];
  info.disabled = true;
  info.refusal = "plugin '" + plugin.kind + "' broke a rule of the ABI: " + std::string(rule);
  log_->error("plugin_disabled",
              {{"code", info_of(Err::kPluginDisabled).wire_code}, {"detail", info.refusal}});
  peers_.each([&](HostPeer ref) {
    Peer* peer = find(ref);
    if (peer->plugin != &plugin) return;
    HostEvent event;
    event.state = CM_PEER_CLOSED;
    event.peer = ref;
    event.bytes = info.refusal;
    append(event, peer);
    peers_.erase(ref);
  });
  endpoints_.each([&](HostEndpoint ref) {
    if (endpoints_.get<0>(ref).plugin == &plugin) endpoints_.erase(ref);
  });
  watches_.each([&](auto ref) {
    if (watches_.get<0>(ref)->plugin != &plugin) return;
    loop_->unwatch(watches_.get<0>(ref)->watch);
    watches_.erase(ref);
  });
  timers_.each([&](auto ref) {
    if (timers_.get<kTimerRow>(ref)->plugin == &plugin) timers_.erase(ref);
  });
  plugin.peers.clear();
  plugin.endpoints.clear();
}

void Host::report_slow(Plugin& plugin, const char* call, std::uint64_t spent_us) {
  metrics_->add(Metric::kDaemonPluginSlow);
  log_->warn("plugin_slow", {{"kind", plugin.kind},
                             {"call", call},
                             {"spent_us", spent_us},
                             {"budget_us", options_.call_budget_us}});
}

}  // namespace cm::plugins
