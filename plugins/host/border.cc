// border.cc — what plugins tell the host: states, frames, completions. Every rule is checked here.
// Holds:  nothing here calls a plugin: it checks, copies and appends an event. The row of a peer
//         may die in any of these functions, so nothing is used after violation().
// Why:    a plugin's mistake is answered by its name and the rule, not by a crash of ours later.
// Source: plugins/include/claudemesh/peer_transport.h.
// Not:    services (services.cc).
#include "plugins/host/border.h"

#include <unistd.h>

#include <algorithm>

namespace cm::plugins {

Plugin* Border::enter(const cm_host* abi) noexcept {
  auto* facade = reinterpret_cast<const HostFacade*>(abi);
  Plugin* plugin = facade->plugin;
  if (::pthread_equal(plugin->host->thread_, ::pthread_self()) == 0) {
    // The tables are not safe to touch from here; standard error is.
    crash_write(STDERR_FILENO,
                "claudemesh: a transport plugin called its host on a thread of its "
                "own; the call was refused: ");
    crash_write(STDERR_FILENO, plugin->transport->kind);
    crash_write(STDERR_FILENO, "\n");
    return nullptr;
  }
  return plugin->disabled ? nullptr : plugin;
}

void Border::violation(Plugin& plugin, std::string_view rule) {
  plugin.host->disable(plugin, rule);
}

bool Border::span_valid(Plugin& plugin, cm_span span) {
  if (span.data != nullptr || span.size == 0) return true;
  violation(plugin, "a span of bytes without data");
  return false;
}

Peer* Border::peer_of(Plugin& plugin, cm_peer id, std::string_view call) {
  const auto found = plugin.peers.find(id);
  if (found != plugin.peers.end()) return plugin.host->find(found->second);
  const auto gone = std::find_if(plugin.gone.rbegin(), plugin.gone.rend(),
                                 [&](const GonePeer& each) { return each.id == id; });
  if (gone != plugin.gone.rend() && gone->by_owner) return nullptr;
  const bool closed = gone != plugin.gone.rend();
  violation(plugin,
            std::string(call) + (closed ? "() after CM_PEER_CLOSED" : "() for an unknown peer"));
  return nullptr;
}

void Border::state(const cm_host* abi, cm_peer id, std::uint32_t state, std::uint32_t code,
                   cm_span detail) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr || !span_valid(*plugin, detail)) return;
  Peer* peer = peer_of(*plugin, id, "state");
  if (peer == nullptr) return;
  if (state < CM_PEER_CONNECTING || state > CM_PEER_CLOSED) {
    return violation(*plugin, "state() with an unknown state");
  }
  if (state == CM_PEER_CONNECTED) {
    if (peer->state == CM_PEER_CONNECTED) {
      return violation(*plugin, "CM_PEER_CONNECTED while connected");
    }
    ++peer->connection;
  } else {
    // The frame that is being handed over right now may still be refused.
    const std::size_t open_frames = std::min<std::size_t>(peer->outstanding.size(), peer->sending);
    if (state == CM_PEER_CONNECTING && peer->outstanding.size() > open_frames) {
      return violation(*plugin, kLossRule);
    }
    Host::connection_lost(*peer);
  }
  peer->state = state;
  const std::string text = harmless(text_of(detail), kDetailMax);
  HostEvent event;
  event.state = state;
  event.code = code;
  event.connection = peer->connection;
  event.peer = peer->ref;
  event.bytes = text;
  plugin->host->append(event, peer);
  if (state == CM_PEER_CLOSED) plugin->host->remove_peer(*peer, false);
}

cm_status Border::deliver(const cm_host* abi, cm_peer id, const cm_frame* frame,
                          std::uint64_t token) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return CM_E_DISABLED;
  if (frame == nullptr || frame->struct_size < sizeof(cm_frame) ||
      (frame->kind != CM_FRAME_CONTROL && frame->kind != CM_FRAME_ENVELOPE)) {
    violation(*plugin, "deliver() of a frame without a valid struct_size and kind");
    return CM_E_DISABLED;
  }
  if (!span_valid(*plugin, frame->data)) return CM_E_DISABLED;
  Peer* peer = peer_of(*plugin, id, "deliver");
  if (peer == nullptr) return plugin->disabled ? CM_E_DISABLED : CM_E_CLOSED;
  if (peer->state != CM_PEER_CONNECTED) {
    violation(*plugin, "deliver() for a peer that is not connected");
    return CM_E_DISABLED;
  }
  if (peer->refused) {
    violation(*plugin, "deliver() after CM_WOULD_BLOCK and before resume()");
    return CM_E_DISABLED;
  }
  Host& host = *plugin->host;
  const std::size_t size = frame->data.size;
  if (size > host.options_.limits.daemon_frame_bytes_max) return CM_E_TOO_BIG;
  // The first frame of an iteration is always taken, however big it is.
  const bool full = host.iteration_frames_ >= host.options_.limits.iteration_rows_max ||
                    host.iteration_bytes_ + size > host.options_.limits.iteration_bytes_max;
  if (full && host.iteration_frames_ != 0) {
    peer->refused = true;
    host.resume_due_.push_back(peer->ref);
    return CM_WOULD_BLOCK;
  }
  host.iteration_bytes_ += size;
  ++host.iteration_frames_;
  HostEvent event;
  event.kind = HostEventKind::kFrame;
  event.frame_kind = frame->kind;
  event.connection = peer->connection;
  event.peer = peer->ref;
  event.bytes = text_of(frame->data);
  host.append(event, peer, token);
  return CM_OK;
}

cm_status Border::incoming(const cm_host* abi, cm_endpoint id, cm_peer peer_id, cm_span address) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr || !span_valid(*plugin, address)) return CM_E_DISABLED;
  const auto endpoint = plugin->endpoints.find(id);
  if (endpoint == plugin->endpoints.end()) {
    violation(*plugin, "incoming() for an unknown endpoint");
    return CM_E_DISABLED;
  }
  if (peer_id == 0 || plugin->peers.contains(peer_id)) {
    violation(*plugin, "incoming() with a peer that is 0 or already in use");
    return CM_E_DISABLED;
  }
  Host& host = *plugin->host;
  if (host.peers_.full()) return CM_E_NO_MEMORY;
  const std::string text = harmless(text_of(address), kDetailMax);
  Peer* peer = host.find(host.add_peer(*plugin, peer_id));
  peer->state = CM_PEER_CONNECTED;
  peer->connection = 1;
  HostEvent event;
  event.kind = HostEventKind::kIncoming;
  event.state = CM_PEER_CONNECTED;
  event.connection = 1;
  event.peer = peer->ref;
  event.endpoint = endpoint->second;
  event.bytes = text;
  host.append(event, peer);
  return CM_OK;
}

void Border::sent(const cm_host* abi, cm_peer id, std::uint64_t frame, std::uint32_t outcome) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return;
  Peer* peer = peer_of(*plugin, id, "sent");
  if (peer == nullptr) return;
  if (outcome != CM_SENT_HANDED && outcome != CM_SENT_DROPPED) {
    return violation(*plugin, "sent() with an unknown outcome");
  }
  // Nearly always the first: frames of one kind keep their order.
  const auto found = std::find(peer->outstanding.begin(), peer->outstanding.end(), frame);
  if (found == peer->outstanding.end()) {
    return violation(*plugin, "sent() for a frame that is not outstanding, or for the second time");
  }
  peer->outstanding.erase(found);
}

void Border::writable(const cm_host* abi, cm_peer id) {
  Plugin* plugin = enter(abi);
  if (plugin == nullptr) return;
  Peer* peer = peer_of(*plugin, id, "writable");
  if (peer == nullptr) return;
  if (!peer->waits) return violation(*plugin, "writable() without a CM_WOULD_BLOCK before it");
  peer->waits = false;
  plugin->host->flush_due_.push_back(peer->ref);
}

const void* Border::get_service(const cm_host* abi, const char* id) {
  if (enter(abi) == nullptr || id == nullptr) return nullptr;
  return find_service(id);
}

cm_host border_functions() noexcept {
  cm_host host{};
  host.struct_size = sizeof(cm_host);
  host.abi_version = CM_ABI_VERSION;
  host.state = &Border::state;
  host.deliver = &Border::deliver;
  host.incoming = &Border::incoming;
  host.sent = &Border::sent;
  host.writable = &Border::writable;
  host.get_service = &Border::get_service;
  return host;
}

}  // namespace cm::plugins
