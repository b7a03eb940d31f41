// services.cc — the small owners of services.h.
// Not:    policy.
#include "transports/ws_broker/services.h"

#include <unistd.h>

#include <utility>

namespace cm::ws_broker {

Services Services::of(const cm_host* host) noexcept {
  const auto get = [host](const char* id) { return host->get_service(host, id); };
  Services services;
  services.host = host;
  services.fd = static_cast<const cm_fd_v1*>(get("fd.v1"));
  services.timer = static_cast<const cm_timer_v1*>(get("timer.v1"));
  services.random = static_cast<const cm_random_v1*>(get("random.v1"));
  services.log = static_cast<const cm_log_v1*>(get("log.v1"));
  services.config = static_cast<const cm_config_v1*>(get("config.v1"));
  services.metrics = static_cast<const cm_metrics_v1*>(get("metrics.v1"));
  return services;
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Descriptor::release() noexcept { return std::exchange(fd_, -1); }

void Descriptor::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void OneShot::start(std::uint64_t delay_ms) {
  cancel();
  const cm_status status =
      services_->timer->start(services_->host, delay_ms, &OneShot::fired, this, &timer_);
  // Only a disabled plugin or a full table gets here; nothing would ever run again.
  if (status != CM_OK) timer_ = 0;
}

void OneShot::cancel() {
  if (timer_ != 0) services_->timer->cancel(services_->host, timer_);
  timer_ = 0;
}

void OneShot::fired(void* self) {
  auto* timer = static_cast<OneShot*>(self);
  timer->timer_ = 0;
  timer->callback_(timer->context_);
}

bool FdWatch::watch(int fd, std::uint32_t events) {
  close();
  events_ = events;
  return services_->fd->watch(services_->host, fd, events, callback_, context_, &watch_) == CM_OK;
}

void FdWatch::set(std::uint32_t events) {
  if (watch_ == 0 || events == events_) return;
  events_ = events;
  services_->fd->change(services_->host, watch_, events);
}

void FdWatch::close() {
  if (watch_ != 0) services_->fd->unwatch(services_->host, watch_);
  watch_ = 0;
}

}  // namespace cm::ws_broker
