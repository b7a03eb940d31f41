// dial.cc — non-blocking connects over a list of addresses.
#include "transports/ws_broker/dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <cstring>

namespace cm::ws_broker {

void Dial::start() {
  cancel();
  begun_ = first_;
  tried_ = 0;
  if (numeric_addresses(settings_->host, settings_->port, list_)) {
    try_next(0);
    return;
  }
  if (!lookup_.start(settings_->host, settings_->port)) {
    fail("no thread for looking up the broker's name");
  }
}

void Dial::cancel() {
  lookup_.cancel();
  share_.cancel();
  watch_.close();
  fd_.reset();
}

void Dial::fail(std::string_view sentence) {
  cancel();
  on_done_(context_, Descriptor(), sentence);
}

void Dial::on_addresses(void* self, const AddressList& list, std::string_view sentence) {
  auto* dial = static_cast<Dial*>(self);
  dial->list_ = list;
  if (list.count != 0) {
    dial->try_next(0);
    return;
  }
  std::string text = "looking up " + dial->settings_->host + ": ";
  text += sentence.empty() ? "no address" : sentence;
  dial->fail(text);
}

void Dial::try_next(int error) {
  share_.cancel();
  while (tried_ < list_.count) {
    last_ = (begun_ + tried_++) % list_.count;
    first_ = last_ + 1;
    const Address& address = list_.items[last_];
    watch_.close();
    fd_ = Descriptor(
        ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd_) {
      error = errno;
      continue;
    }
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const auto* target = reinterpret_cast<const sockaddr*>(&address.storage);
    if (::connect(fd_.get(), target, address.size) == 0 || errno == EINPROGRESS) {
      // Both become writable; on_ready() tells them from a failure.
      if (watch_.watch(fd_.get(), CM_FD_WRITE)) {
        if (tried_ < list_.count) share_.start(kShareMs);
        return;
      }
      error = ENOMEM;
      continue;
    }
    error = errno;
  }
  fail("connecting to " + settings_->host_header + ": " + std::strerror(error));
}

void Dial::on_late(void* self) { static_cast<Dial*>(self)->try_next(ETIMEDOUT); }

void Dial::on_ready(void* self, int fd, std::uint32_t) {
  auto* dial = static_cast<Dial*>(self);
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) {
    dial->try_next(error);
    return;
  }
  dial->share_.cancel();
  dial->watch_.close();
  dial->on_done_(dial->context_, std::move(dial->fd_), {});
}

}  // namespace cm::ws_broker
