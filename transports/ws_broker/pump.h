// pump.h — the bytes of one connection: buffers, socket calls, readiness.
// Owns:   Pump: the descriptor, its watch, input and output buffers, the ids of frames on the way.
// Holds:  `sent` is called in the order of mark(), exactly once each, when the last byte of the
//         frame was handed to the kernel; what was not is dropped by close().
// Why:    TLS stands between the buffers and the socket, so that nobody above has to know of it.
// Limits: 256 KiB read in one callback; the peer bounds the output before it appends.
// Not:    WebSocket (peer.cc).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/arena.h"
#include "core/net/tls.h"
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
  // After open() and before anything is read or written: speak TLS with this host.
  void start_tls(const net::TlsContext& context, const std::string& host);
  // kOk when shook() is true or more has to come; to be called again on `readable`.
  Io shake_hands();
  bool shook() const noexcept { return tls_ == nullptr || tls_->established(); }
  // Names all frames on the way as dropped.
  void close() { take(); }
  // Likewise, and leaves the descriptor to the caller; empty if there was none.
  Descriptor take();
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
  // TLS said that it ends; the descriptor will not say so again.
  bool saw_end() const noexcept { return saw_end_; }
  int error() const noexcept { return error_; }
  // Why TLS failed; empty if it did not.
  std::string_view tls_failure() const noexcept {
    return tls_ == nullptr ? std::string_view() : std::string_view(tls_->failure());
  }

 private:
  struct Mark {
    std::uint64_t id;
    std::uint64_t end;  // of the frame, counted as written_
  };
  static void on_ready(void* self, int fd, std::uint32_t events);
  void update_interest();
  void tell_sent();
  enum class Step : std::uint8_t { kOk, kLater, kEnd, kError };
  Step stream_read(MutableBytes to, std::size_t& got);
  Step stream_write(Bytes bytes, std::size_t& taken);
  static ssize_t wire_read(void* self, MutableBytes to);
  static ssize_t wire_write(void* self, Bytes bytes);

  Descriptor fd_;
  FdWatch watch_;  // goes before the descriptor
  PooledBuffer in_;
  PooledBuffer out_;
  std::unique_ptr<net::TlsStream> tls_;  // null: plain
  std::deque<Mark> marks_;
  std::uint64_t written_ = 0;
  std::size_t wire_left_ = 0;  // bytes that TLS may still take from the socket in this callback
  Events events_;
  void* context_;
  int error_ = 0;
  bool reading_ = true;
  bool saw_end_ = false;
  // TLS may have to write before it can read, and the other way round.
  bool read_wants_write_ = false;
  bool write_wants_read_ = false;
};

}  // namespace cm::ws_broker
