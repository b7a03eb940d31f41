// border.h — the functions that plugins call, private to plugins/host.
// Owns:   Border: the host's side of the ABI (border.cc) and its services (services.cc).
// Holds:  every function begins with enter(): the right thread, and a plugin that is not disabled.
// Not:    state: it is all in Host's tables.
#pragma once

#include <string_view>

#include "plugins/host/rows.h"

namespace cm::plugins {

struct Border {
  // Null: refuse the call.
  static Plugin* enter(const cm_host* abi) noexcept;
  static void violation(Plugin& plugin, std::string_view rule);
  static bool span_valid(Plugin& plugin, cm_span span);
  // Null for a peer that the host has closed, and for an unknown one, which is a violation.
  static Peer* peer_of(Plugin& plugin, cm_peer id, std::string_view call);

  static void state(const cm_host* abi, cm_peer id, std::uint32_t state, std::uint32_t code,
                    cm_span detail);
  static cm_status deliver(const cm_host* abi, cm_peer id, const cm_frame* frame,
                           std::uint64_t token);
  static cm_status incoming(const cm_host* abi, cm_endpoint id, cm_peer peer, cm_span address);
  static void sent(const cm_host* abi, cm_peer id, std::uint64_t frame, std::uint32_t outcome);
  static void writable(const cm_host* abi, cm_peer id);
  static const void* get_service(const cm_host* abi, const char* id);

  // services.cc
  static cm_status watch(const cm_host* abi, int fd, std::uint32_t events, cm_fd_callback callback,
                         void* context, cm_watch* watch);
  static cm_status change(const cm_host* abi, cm_watch watch, std::uint32_t events);
  static void unwatch(const cm_host* abi, cm_watch watch);
  static void on_ready(void* row, unsigned ready) noexcept;
  static std::uint64_t now_ms(const cm_host* abi);
  static cm_status start(const cm_host* abi, std::uint64_t delay_ms, cm_timer_callback callback,
                         void* context, cm_timer* timer);
  static void cancel(const cm_host* abi, cm_timer timer);
  static void log(const cm_host* abi, std::uint32_t level, cm_span text);
  static cm_status config(const cm_host* abi, cm_span key, cm_span* value);
  static void random(const cm_host* abi, std::uint8_t* to, std::size_t size);
  static cm_status count(const cm_host* abi, const char* name, std::uint64_t amount);
};

}  // namespace cm::plugins
