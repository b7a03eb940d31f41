// peer.h — one broker connection: dial, TLS, handshake, frames, ping, loss, and again.
// Owns:   Peer and all that it needs; made by open(), gone with close().
// Holds:  sent() comes for every taken frame before the state() of its loss; writable() exactly
//         once after a send() that would have blocked; a frame that the host refused is delivered
//         again before anything behind it. Inside the calls of the host nothing is reported but
//         through timers, descriptors and resume().
// Why:    the core owns hello, order and retry; this owns the wire (design/transports.md).
// Limits: 4 MiB of unsent output (or one larger frame), messages of at most 16 MiB.
// Source: docs/PROTOCOL.md §1; RFC 6455; spec/wire.md §1 (ping 30 s, stale 75 s).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/net/ws_frame.h"
#include "core/net/ws_handshake.h"
#include "transports/ws_broker/backoff.h"
#include "transports/ws_broker/dial.h"
#include "transports/ws_broker/farewell.h"
#include "transports/ws_broker/pump.h"

namespace cm::ws_broker {

class Peer {
 public:
  Peer(const Services& services, Settings settings);
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  cm_peer id() const noexcept { return reinterpret_cast<std::uintptr_t>(this); }
  static Peer* of(cm_peer id) noexcept { return reinterpret_cast<Peer*>(id); }

  cm_status send(const cm_frame& frame, std::uint64_t frame_id);
  void note(std::uint32_t verdict);
  void heartbeat();
  void resume();
  // Best effort: whatever the kernel takes at once. The caller deletes the peer.
  void say_goodbye(std::uint32_t code, std::string_view reason);

 private:
  enum class Phase : std::uint8_t { kNew, kDialing, kTls, kHandshake, kOpen, kWaiting };

  // peer.cc: connecting and losing
  void begin_attempt();
  void on_connected(Descriptor fd, std::string_view sentence);
  void start_tls();
  void shake_hands();
  void send_upgrade();
  void lost_tls(std::string_view sentence);
  const char* late_sentence() const noexcept;
  void read_handshake(bool ended);
  void lost(std::uint32_t code, std::string_view sentence);
  void lost_io(std::string_view what);
  void report(std::uint32_t state, std::uint32_t code, std::string_view detail);

  // frames.cc: an open connection
  void on_readable();
  void read_frames();
  bool deliver(std::string_view message);
  void answer_close(std::uint16_t code, std::string_view reason);
  void fail(std::uint16_t code, std::string_view sentence);
  void part_with(std::uint16_t code, std::string_view reason);
  void write_frame(net::WsOpcode opcode, std::string_view payload);
  void write_probe(net::WsOpcode opcode, std::string_view payload);
  void write_close(std::uint16_t code, std::string_view reason);
  net::WsMask fresh_mask();
  void flush_soon();
  void flush();
  void start_pings();
  void on_ping_time();

  Services services_;
  Settings settings_;
  std::string warned_;  // the last failure of TLS that was logged, until a connection is made
  BufferPool pool_{512 * 1024};
  ScratchArena arena_{16 * 1024, 256 * 1024};
  net::WsCodec codec_;
  net::WsReceiver receiver_;
  net::HttpProgress http_;
  net::WsNonce nonce_{};
  Backoff backoff_;
  Dial dial_;
  Pump pump_;
  OneShot attempt_;   // begins one
  OneShot deadline_;  // of dial and handshake
  OneShot flush_;     // one write for all frames of a loop turn
  OneShot ping_;
  Farewell farewell_;  // of the connection before this one

  std::array<std::uint8_t, 256> mask_bytes_{};
  std::size_t masks_used_ = sizeof mask_bytes_;
  std::string_view refused_;  // in arena_: the message that the host did not take
  std::uint64_t last_heard_ms_ = 0;
  std::uint64_t ping_at_ms_ = 0;
  std::uint64_t token_ = 0;
  Phase phase_ = Phase::kNew;
  bool paused_ = false;   // the host did not take `refused_`
  bool blocked_ = false;  // writable() is due
};

}  // namespace cm::ws_broker
