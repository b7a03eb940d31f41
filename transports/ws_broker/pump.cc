// pump.cc — reading and writing a non-blocking socket.
#include "transports/ws_broker/pump.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cm::ws_broker {
namespace {

constexpr std::size_t kReadAtOnce = 64 * 1024;
constexpr std::size_t kReadMax = 256 * 1024;

// The byte path. TLS comes here: these two calls, and a want-read or want-write for the watch.
ssize_t stream_read(int fd, MutableBytes to) noexcept {
  return ::recv(fd, to.data(), to.size(), 0);
}
ssize_t stream_write(int fd, Bytes bytes) noexcept {
  return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

bool try_later(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

bool Pump::open(Descriptor fd) {
  close();
  reading_ = true;
  if (!watch_.watch(fd.get(), CM_FD_READ)) return false;
  fd_ = std::move(fd);
  return true;
}

void Pump::close() {
  watch_.close();
  fd_.reset();
  in_.release();
  out_.release();
  written_ = 0;
  error_ = 0;
  const std::deque<Mark> marks = std::exchange(marks_, {});
  for (const Mark& mark : marks) events_.sent(context_, mark.id, CM_SENT_DROPPED);
}

Pump::Io Pump::read_some() {
  std::size_t total = 0;
  while (total < kReadMax) {
    const MutableBytes room = in_.prepare(kReadAtOnce).first(kReadAtOnce);
    const ssize_t got = stream_read(fd_.get(), room);
    if (got > 0) {
      in_.commit(static_cast<std::size_t>(got));
      total += static_cast<std::size_t>(got);
      if (static_cast<std::size_t>(got) < room.size()) return Io::kOk;
      continue;
    }
    // A block lent for nothing goes back.
    error_ = got < 0 ? errno : 0;
    if (in_.empty()) in_.release();
    if (got == 0) return Io::kEnd;
    return try_later(error_) ? Io::kOk : Io::kError;
  }
  return Io::kOk;
}

Pump::Io Pump::flush() {
  Io result = Io::kOk;
  while (!out_.empty()) {
    const ssize_t taken = stream_write(fd_.get(), out_.bytes());
    if (taken < 0) {
      error_ = errno;
      if (!try_later(error_)) result = Io::kError;
      break;
    }
    written_ += static_cast<std::uint64_t>(taken);
    out_.consume(static_cast<std::size_t>(taken));
  }
  tell_sent();
  update_interest();
  return result;
}

void Pump::tell_sent() {
  while (!marks_.empty() && marks_.front().end <= written_) {
    const std::uint64_t id = marks_.front().id;
    marks_.pop_front();
    events_.sent(context_, id, CM_SENT_HANDED);
  }
}

void Pump::set_reading(bool reading) {
  reading_ = reading;
  update_interest();
}

void Pump::update_interest() {
  watch_.set((reading_ ? std::uint32_t{CM_FD_READ} : 0u) |
             (out_.empty() ? 0u : std::uint32_t{CM_FD_WRITE}));
}

void Pump::on_ready(void* self, int, std::uint32_t events) {
  auto* pump = static_cast<Pump*>(self);
  if ((events & CM_FD_WRITE) != 0) pump->events_.writable(pump->context_);
  // The first callback may have closed the connection.
  if ((events & CM_FD_READ) != 0 && pump->is_open() && pump->reading_) {
    pump->events_.readable(pump->context_);
  }
}

}  // namespace cm::ws_broker
