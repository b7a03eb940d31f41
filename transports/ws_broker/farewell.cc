// farewell.cc — dropping what a finished connection still brings.
// Not:    deciding that it is finished (frames.cc).
#include "transports/ws_broker/farewell.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace cm::ws_broker {

void Farewell::begin(Descriptor fd) {
  end();
  if (!fd) return;
  fd_ = std::move(fd);
  left_ = kBytesMax;
  ::shutdown(fd_.get(), SHUT_WR);
  if (!watch_.watch(fd_.get(), CM_FD_READ)) return end();
  end_.start(kTimeMs);
}

void Farewell::end() {
  end_.cancel();
  watch_.close();
  fd_.reset();
}

void Farewell::on_ready(void* self, int fd, std::uint32_t) {
  auto* farewell = static_cast<Farewell*>(self);
  char room[16 * 1024];
  const ssize_t got = ::recv(fd, room, sizeof room, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const std::size_t size = got > 0 ? static_cast<std::size_t>(got) : farewell->left_;
  farewell->left_ -= size < farewell->left_ ? size : farewell->left_;
  if (farewell->left_ == 0) farewell->end();
}

}  // namespace cm::ws_broker
