// entry.cc — the plugin's table of functions: "ws-broker", a WebSocket client of a broker.
// Owns:   the one exported symbol.
// Holds:  a cm_peer is the address of its Peer; the host never names one that it has closed.
// Not:    any state of its own.
#include <memory>
#include <string>
#include <utility>

#include "transports/ws_broker/peer.h"

namespace cm::ws_broker {
namespace {

cm_status open_peer(const cm_host* host, const cm_target* target, cm_peer* peer) noexcept {
  const Services services = Services::of(host);
  if (!services.complete()) return CM_E_UNSUPPORTED;
  Settings settings;
  std::string reason;
  const cm_status status = parse_settings(services, *target, settings, reason);
  if (status != CM_OK) {
    services.error(reason);
    return status;
  }
  // A CA file that is wrong is told at once, not by failing connections.
  if (settings.secure) {
    const Result<net::TlsContext> context = net::TlsContext::client(settings.ca_file);
    if (!context) {
      services.error(context.error().detail);
      return CM_E_INVALID;
    }
  }
  *peer = (new Peer(services, std::move(settings)))->id();
  return CM_OK;
}

cm_status send_frame(cm_peer peer, const cm_frame* frame, std::uint64_t id) noexcept {
  return Peer::of(peer)->send(*frame, id);
}

void note(cm_peer peer, std::uint32_t verdict) noexcept { Peer::of(peer)->note(verdict); }

void heartbeat(cm_peer peer) noexcept { Peer::of(peer)->heartbeat(); }

void close_peer(cm_peer peer, std::uint32_t code, cm_span reason) noexcept {
  const std::unique_ptr<Peer> owned(Peer::of(peer));
  owned->say_goodbye(code, text_of(reason));
}

// The broker learns the fate of a message by a frame of the core, not by its connection.
void settled(cm_peer, std::uint64_t, std::uint32_t) noexcept {}

void resume(cm_peer peer) noexcept { Peer::of(peer)->resume(); }

const cm_transport kTransport = {
    .struct_size = sizeof(cm_transport),
    .abi_version = CM_ABI_VERSION,
    .kind = "ws-broker",
    .version = "0.1.0",
    .capabilities = CM_CAP_BIDIRECTIONAL | CM_CAP_MID_TURN_PUSH | CM_CAP_STREAMING_CHUNKS,
    .reserved = 0,
    .max_message_bytes = kFrameBytesMax,
    .open = &open_peer,
    .listen = nullptr,
    .unlisten = nullptr,
    .send = &send_frame,
    .note = &note,
    .heartbeat = &heartbeat,
    .close = &close_peer,
    .settled = &settled,
    .resume = &resume,
    .config_schema = kSettingsSchema,
};

}  // namespace
}  // namespace cm::ws_broker

const cm_transport* cm_transport_entry(uint32_t host_abi) {
  return host_abi >> 16 == CM_ABI_MAJOR ? &cm::ws_broker::kTransport : nullptr;
}
