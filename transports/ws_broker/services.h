// services.h — the host's services as a peer uses them: a timer, a watch, a descriptor.
// Owns:   Services, OneShot, FdWatch, Descriptor: each gives back what it holds when it goes.
// Holds:  after cancel(), close() or destruction no callback follows.
// Not:    what the callbacks do.
#pragma once

#include <cstdint>
#include <string_view>

#include "plugins/include/claudemesh/peer_transport.h"

namespace cm::ws_broker {

inline cm_span span_of(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view text_of(cm_span span) noexcept {
  if (span.data == nullptr) return {};
  return {reinterpret_cast<const char*>(span.data), span.size};
}

struct Services {
  const cm_host* host = nullptr;
  const cm_fd_v1* fd = nullptr;
  const cm_timer_v1* timer = nullptr;
  const cm_random_v1* random = nullptr;
  const cm_log_v1* log = nullptr;  // may be null, as the ones below
  const cm_config_v1* config = nullptr;
  const cm_metrics_v1* metrics = nullptr;

  static Services of(const cm_host* host) noexcept;
  bool complete() const noexcept { return fd != nullptr && timer != nullptr && random != nullptr; }
  std::uint64_t now_ms() const { return timer->now_ms(host); }
  void error(std::string_view text) const {
    if (log != nullptr) log->write(host, CM_LOG_ERROR, span_of(text));
  }
  void warn(std::string_view text) const {
    if (log != nullptr) log->write(host, CM_LOG_WARN, span_of(text));
  }
  void count(const char* name) const {
    if (metrics != nullptr) metrics->add(host, name, 1);
  }
};

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int release() noexcept;
  void reset() noexcept;

 private:
  int fd_ = -1;
};

// A timer with one callback, started again and again. It does not move: the host holds its address.
class OneShot {
 public:
  using Callback = void (*)(void* context);
  OneShot(const Services& services, Callback callback, void* context) noexcept
      : services_(&services), callback_(callback), context_(context) {}
  ~OneShot() { cancel(); }
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  // Replaces a start that has not fired.
  void start(std::uint64_t delay_ms);
  void cancel();
  bool running() const noexcept { return timer_ != 0; }

 private:
  static void fired(void* self);

  const Services* services_;
  Callback callback_;
  void* context_;
  cm_timer timer_ = 0;
};

class FdWatch {
 public:
  FdWatch(const Services& services, cm_fd_callback callback, void* context) noexcept
      : services_(&services), callback_(callback), context_(context) {}
  ~FdWatch() { close(); }
  FdWatch(const FdWatch&) = delete;
  FdWatch& operator=(const FdWatch&) = delete;

  // The descriptor stays the caller's, who closes it after close(). False if the host refuses.
  bool watch(int fd, std::uint32_t events);
  void set(std::uint32_t events);
  void close();

 private:
  const Services* services_;
  cm_fd_callback callback_;
  void* context_;
  cm_watch watch_ = 0;
  std::uint32_t events_ = 0;
};

}  // namespace cm::ws_broker
