// services.cc — fd.v1, timer.v1, log.v1, config.v1, random.v1, metrics.v1.
// Holds:  a watch or timer answers only to the plugin that made it; one that is gone is ignored.
// Limits: the capacities in rows.h; 64 counters and, in an iteration, 64 log lines a plugin.
// Source: plugins/include/claudemesh/peer_transport.h, "services".
// Not:    an OS timer: the owner's loop arms one for Host::next_deadline().
#include <cstring>

#include "plugins/host/border.h"

namespace cm::plugins {
namespace {

constexpr std::size_t kLogMax = 1024;
constexpr std::uint32_t kLogLinesMax = 64;
constexpr std::size_t kCountersMax = 64;
constexpr std::size_t kCounterNameMax = 48;
constexpr std::uint32_t kFdEvents = CM_FD_READ | CM_FD_WRITE;

unsigned interest_of(std::uint32_t events) noexcept {
  return ((events & CM_FD_READ) ? net::Loop::kRead : 0u) |
         ((events & CM_FD_WRITE) ? net::Loop::kWrite : 0u);
}

bool counter_name_valid(const char* name) noexcept {
  const std::size_t size = name == nullptr ? 0 : ::strnlen(name, kCounterNameMax + 1);
  if (size == 0 || size > kCounterNameMax) return false;
  for (std::size_t index = 0; index < size; ++index) {
    const char c = name[index];
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) return false;
  }
  return true;
}

constexpr cm_fd_v1 kFd = {sizeof(cm_fd_v1), 0, &Border::watch, &Border::change, &Border::unwatch};
constexpr cm_timer_v1 kTimer = {sizeof(cm_timer_v1), 0, &Border::now_ms, &Border::start,
                                &Border::cancel};
constexpr cm_log_v1 kLog = {sizeof(cm_log_v1), 0, &Border::log};
constexpr cm_config_v1 kConfig = {sizeof(cm_config_v1), 0, &Border::config};
constexpr cm_random_v1 kRandom = {sizeof(cm_random_v1), 0, &Border::random};
constexpr cm_metrics_v1 kMetrics = {sizeof(cm_metrics_v1), 0, &Border::count};

constexpr struct {
  std::string_view id;
  const void* service;
} kServices[] = {{"fd.v1", &kFd},         {"timer.v1", &kTimer},   {"log.v1", &kLog},
                 {"config.v1", &kConfig}, {"random.v1", &kRandom}, {"metrics.v1", &kMetrics}};

}  // namespace

const void* find_service(std::string_view id) noexcept {
  for (const auto& each : kServices) {
    if (each.id == id) return each.service;
  }
  return nullptr;
}

cm_status Border::watch(const cm_host* abi, int fd, std::uint32_t events, cm_fd_callback callback,
                        void* context, cm_watch* watch) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  if (fd < 0 || (events & ~kFdEvents) != 0 || callback == nullptr || watch == nullptr) {
    return CM_E_INVALID;
  }
  Host& host = *plugin->host;
  const auto ref = host.watches_.insert();
  if (!ref) return CM_E_NO_MEMORY;
  auto row = std::make_unique<Watch>(Watch{plugin, fd, callback, context, nullptr});
  row->watch = host.loop_->watch(fd, interest_of(events), &Border::on_ready, row.get());
  if (row->watch == nullptr) {
    host.watches_.erase(ref);
    return CM_E_SYSTEM;
  }
  host.watches_.get<0>(ref) = std::move(row);
  *watch = ref.bits();
  return CM_OK;
}

cm_status Border::change(const cm_host* abi, cm_watch watch, std::uint32_t events) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  Host& host = *plugin->host;
  const auto ref = Host::WatchTable::Handle::from_bits(watch);
  if ((events & ~kFdEvents) != 0) return CM_E_INVALID;
  if (!host.watches_.alive(ref)) return CM_E_CLOSED;
  const Watch& row = *host.watches_.get<0>(ref);
  if (row.plugin != plugin) return CM_E_INVALID;
  host.loop_->set_interest(row.watch, interest_of(events));
  return CM_OK;
}

void Border::unwatch(const cm_host* abi, cm_watch watch) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return;
  Host& host = *plugin->host;
  const auto ref = Host::WatchTable::Handle::from_bits(watch);
  if (!host.watches_.alive(ref) || host.watches_.get<0>(ref)->plugin != plugin) return;
  host.loop_->unwatch(host.watches_.get<0>(ref)->watch);
  host.watches_.erase(ref);
}

void Border::on_ready(void* row, unsigned ready) noexcept {
  const Watch found = *static_cast<const Watch*>(row);  // the callback may end the watch
  std::uint32_t events = 0;
  if ((ready & net::Loop::kRead) != 0) events |= CM_FD_READ;
  if ((ready & net::Loop::kWrite) != 0) events |= CM_FD_WRITE;
  const Host::CallScope scope(*found.plugin->host, *found.plugin, "a descriptor's callback");
  found.callback(found.context, found.fd, events);
}

std::uint64_t Border::now_ms(const cm_host* abi) {
  // Also for a plugin that is disabled: a clock that stands still at 0 would be a trap.
  return reinterpret_cast<const HostFacade*>(abi)->plugin->host->options_.mono_ms();
}

cm_status Border::start(const cm_host* abi, std::uint64_t delay_ms, cm_timer_callback callback,
                        void* context, cm_timer* timer) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  if (callback == nullptr || timer == nullptr) return CM_E_INVALID;
  Host& host = *plugin->host;
  const auto ref = host.timers_.insert();
  if (!ref) return CM_E_NO_MEMORY;
  const std::uint64_t now = host.options_.mono_ms();
  host.timers_.get<Host::kDeadline>(ref) =
      delay_ms < net::kNever - now ? now + delay_ms : net::kNever - 1;
  host.timers_.get<Host::kTimerRow>(ref) =
      std::make_unique<Timer>(Timer{plugin, ++host.timer_serial_, callback, context});
  *timer = ref.bits();
  return CM_OK;
}

void Border::cancel(const cm_host* abi, cm_timer timer) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return;
  Host& host = *plugin->host;
  const auto ref = Host::TimerTable::Handle::from_bits(timer);
  if (!host.timers_.alive(ref)) return;
  if (host.timers_.get<Host::kTimerRow>(ref)->plugin == plugin) host.timers_.erase(ref);
}

void Border::log(const cm_host* abi, std::uint32_t level, cm_span text) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr || !span_valid(*plugin, text)) return;
  Host& host = *plugin->host;
  const std::string line = harmless(text_of(text), kLogMax);
  if (level == CM_LOG_ERROR && host.current_ == plugin) host.last_error_ = line;
  if (++plugin->log_lines > kLogLinesMax) {
    host.metrics_->add(Metric::kLogDropped);
    return;
  }
  const LogLevel as = level == CM_LOG_DEBUG  ? LogLevel::kDebug
                      : level == CM_LOG_INFO ? LogLevel::kInfo
                      : level == CM_LOG_WARN ? LogLevel::kWarn
                                             : LogLevel::kError;
  host.log_->write(as, "transport", {{"kind", plugin->kind}, {"text", line}});
}

cm_status Border::config(const cm_host* abi, cm_span key, cm_span* value) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  if (value == nullptr) return CM_E_INVALID;
  for (const auto& [known, text] : plugin->settings) {
    if (known != text_of(key)) continue;
    *value = span_of(text);
    return CM_OK;
  }
  return CM_E_UNSUPPORTED;
}

void Border::random(const cm_host* abi, std::uint8_t* to, std::size_t size) {
  // Whatever became of the plugin, it must not go on with bytes that are not random.
  reinterpret_cast<const HostFacade*>(abi)->plugin->host->options_.rng(to, size);
}

cm_status Border::count(const cm_host* abi, const char* name, std::uint64_t amount) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  if (!counter_name_valid(name)) return CM_E_INVALID;
  for (Counter& counter : plugin->counters) {
    if (counter.name != name) continue;
    counter.value += amount;
    return CM_OK;
  }
  if (plugin->counters.size() == kCountersMax) return CM_E_NO_MEMORY;
  plugin->counters.push_back({name, amount});
  return CM_OK;
}

void Host::append_metrics(TextBuf& out) const {
  bool any = false;
  for (const auto& plugin : plugins_) {
    for (const Counter& counter : plugin->counters) {
      if (!any) {
        out.append("# HELP cm_transport_events_total What transport plugins count themselves\n");
        out.append("# TYPE cm_transport_events_total counter\n");
      }
      any = true;
      out.append("cm_transport_events_total{kind=\"");
      out.append(plugin->kind);
      out.append("\",name=\"");
      out.append(counter.name);
      out.append("\"} ");
      out.append_unsigned(counter.value);
      out.append('\n');
    }
  }
}

bool Host::verify() const {
  bool good = peers_.verify() && endpoints_.verify() && watches_.verify() && timers_.verify();
  std::size_t indexed = 0;
  for (const auto& plugin : plugins_) {
    indexed += plugin->peers.size();
    for (const auto& [id, ref] : plugin->peers) {
      const Peer* peer = find(ref);
      good = good && peer != nullptr && peer->id == id && peer->plugin == plugin.get();
    }
  }
  good = good && indexed == peers_.count();
  peers_.each([&](HostPeer ref) {
    const Peer& peer = *find(ref);
    std::size_t bytes = 0;
    for (const Held& held : peer.held) bytes += held.bytes.size();
    good = good && bytes == peer.held_bytes && bytes <= options_.held_bytes_max;
    good = good && peer.told <= peer.connection && !peer.plugin->disabled;
    good = good && (peer.state == CM_PEER_CONNECTED || (!peer.waits && peer.held.empty()));
  });
  return good;
}

}  // namespace cm::plugins
