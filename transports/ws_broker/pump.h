// pump.h — the bytes of one connection: buffers, socket calls, readiness.
// Owns:   Pump: the descriptor, its watch, input and output buffers, the ids of frames on the way.
// Holds:  `sent` is called in the order of mark(), exactly once each, when the last byte of the
//         frame was handed to the kernel; what was not is dropped by close().
// Why:    TLS will stand between the buffers and the socket, in stream_read() and stream_write().
// Limits: 256 KiB read in one callback; the peer bounds the output before it appends.
// Not:    WebSocket (peer.cc).
#pragma once

#include <cstdint>
#include <deque>

#include "core/base/arena.h"
#include "transports/ws_broker/services.h"

namespace cm::ws_broker {

class Pump {
 public:
  struct Events {
    void (*readable)(void* context);
    void (*writable)(void* context);
    void (*sent)(void* context, std::uint64_t id, std::uint32_t outcome);
  };
  enum class Io : std::uint8_t { kOk, kEnd, kError };

  Pump(const Services& services, BufferPool& pool, const Events& events, void* context) noexcept
      : watch_(services, &Pump::on_ready, this),
        in_(pool),
        out_(pool),
        events_(events),
        context_(context) {}

  bool open(Descriptor fd);
  // Names all frames on the way as dropped.
  void close();
  // Forgets them: the host wants to hear nothing any more.
  void forget() noexcept { marks_.clear(); }
  bool is_open() const noexcept { return static_cast<bool>(fd_); }

  PooledBuffer& in() noexcept { return in_; }
  PooledBuffer& out() noexcept { return out_; }
  // What is in out() now ends with the frame `id`.
  void mark(std::uint64_t id) { marks_.push_back({id, written_ + out_.size()}); }

  // Appends to in(). kEnd and kError may come after bytes.
  Io read_some();
  // Writes as much of out() as the kernel takes; the rest follows by writable().
  Io flush();
  void set_reading(bool reading);
  int error() const noexcept { return error_; }

 private:
  struct Mark {
    std::uint64_t id;
    std::uint64_t end;  // of the frame, counted as written_
  };
  static void on_ready(void* self, int fd, std::uint32_t events);
  void update_interest();
  void tell_sent();

  Descriptor fd_;
  FdWatch watch_;  // goes before the descriptor
  PooledBuffer in_;
  PooledBuffer out_;
  std::deque<Mark> marks_;
  std::uint64_t written_ = 0;
  Events events_;
  void* context_;
  int error_ = 0;
  bool reading_ = true;
};

}  // namespace cm::ws_broker
