// farewell.h — a connection whose last frame is written: read to its end, so that it arrives.
// Owns:   Farewell: the descriptor until its end; a new one takes the place of the one before.
// Holds:  our half is shut, what comes is dropped unseen. Nothing is reported.
// Why:    closing a socket with unread input resets the connection, and a reset may destroy the
//         close frame that was written just before it.
// Limits: kBytesMax and kTimeMs, whichever comes first.
// Not:    the close frame itself (frames.cc).
#pragma once

#include "transports/ws_broker/services.h"

namespace cm::ws_broker {

class Farewell {
 public:
  explicit Farewell(const Services& services) noexcept
      : watch_(services, &Farewell::on_ready, this), end_(services, &Farewell::on_late, this) {}

  // An empty descriptor only ends the one before.
  void begin(Descriptor fd);

 private:
  static constexpr std::size_t kBytesMax = 4 << 20;
  static constexpr std::uint64_t kTimeMs = 2'000;

  static void on_ready(void* self, int fd, std::uint32_t events);
  static void on_late(void* self) { static_cast<Farewell*>(self)->end(); }
  void end();

  Descriptor fd_;
  FdWatch watch_;  // goes before the descriptor
  OneShot end_;
  std::size_t left_ = 0;
};

}  // namespace cm::ws_broker
