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

bool try_later(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

// What carries no bytes of ours (key updates, alerts) must end a callback too.
ssize_t Pump::wire_read(void* self, MutableBytes to) {
  auto* pump = static_cast<Pump*>(self);
  if (pump->wire_left_ == 0) {
    errno = EAGAIN;
    return -1;
  }
  const std::size_t size = std::min(to.size(), pump->wire_left_);
  const ssize_t got = ::recv(pump->fd_.get(), to.data(), size, 0);
  if (got > 0) pump->wire_left_ -= static_cast<std::size_t>(got);
  return got;
}

ssize_t Pump::wire_write(void* self, Bytes bytes) {
  return ::send(static_cast<Pump*>(self)->fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

Pump::Step Pump::stream_read(MutableBytes to, std::size_t& got) {
  if (tls_ == nullptr) {
    const ssize_t size = ::recv(fd_.get(), to.data(), to.size(), 0);
    error_ = size < 0 ? errno : 0;
    got = size > 0 ? static_cast<std::size_t>(size) : 0;
    if (size == 0) return Step::kEnd;
    return size > 0 ? Step::kOk : try_later(error_) ? Step::kLater : Step::kError;
  }
  switch (tls_->read(to, got)) {
    case net::TlsStep::kOk: return Step::kOk;
    case net::TlsStep::kWantRead: return Step::kLater;
    case net::TlsStep::kWantWrite: read_wants_write_ = true; return Step::kLater;
    case net::TlsStep::kEnd:
    case net::TlsStep::kCut: saw_end_ = true; return Step::kEnd;
    case net::TlsStep::kFailed: break;
  }
  return Step::kError;
}

Pump::Step Pump::stream_write(Bytes bytes, std::size_t& taken) {
  if (tls_ == nullptr) {
    const ssize_t size = wire_write(this, bytes);
    error_ = size < 0 ? errno : 0;
    taken = size > 0 ? static_cast<std::size_t>(size) : 0;
    return size >= 0 ? Step::kOk : try_later(error_) ? Step::kLater : Step::kError;
  }
  switch (tls_->write(bytes, taken)) {
    case net::TlsStep::kOk: return Step::kOk;
    case net::TlsStep::kWantRead: write_wants_read_ = true; return Step::kLater;
    case net::TlsStep::kWantWrite: return Step::kLater;
    case net::TlsStep::kEnd:
    case net::TlsStep::kCut:
    case net::TlsStep::kFailed: break;
  }
  return Step::kError;
}

void Pump::start_tls(const net::TlsContext& context, const std::string& host) {
  tls_ = std::make_unique<net::TlsStream>(
      context, net::TlsIo{&Pump::wire_read, &Pump::wire_write, this}, host);
}

Pump::Io Pump::shake_hands() {
  wire_left_ = kReadMax;
  const net::TlsStep step = tls_->handshake();
  read_wants_write_ = step == net::TlsStep::kWantWrite;
  update_interest();
  return step == net::TlsStep::kFailed ? Io::kError : Io::kOk;
}

bool Pump::open(Descriptor fd) {
  close();
  reading_ = true;
  if (!watch_.watch(fd.get(), CM_FD_READ)) return false;
  fd_ = std::move(fd);
  return true;
}

Descriptor Pump::take() {
  if (tls_ != nullptr && is_open()) tls_->close();  // as far as the kernel takes it at once
  tls_.reset();
  read_wants_write_ = write_wants_read_ = saw_end_ = false;
  watch_.close();
  Descriptor taken = std::move(fd_);
  in_.release();
  out_.release();
  written_ = 0;
  error_ = 0;
  const std::deque<Mark> marks = std::exchange(marks_, {});
  for (const Mark& mark : marks) events_.sent(context_, mark.id, CM_SENT_DROPPED);
  return taken;
}

Pump::Io Pump::read_some() {
  std::size_t total = 0;
  wire_left_ = kReadMax;
  Step step = Step::kOk;
  // What TLS has decrypted is taken to its end: no readiness announces it.
  while (step == Step::kOk && (total < kReadMax || (tls_ != nullptr && tls_->pending()))) {
    const MutableBytes room = in_.prepare(kReadAtOnce).first(kReadAtOnce);
    std::size_t got = 0;
    step = stream_read(room, got);
    in_.commit(got);
    total += got;
    if (tls_ == nullptr && step == Step::kOk && got < room.size()) break;
  }
  if (in_.empty()) in_.release();  // a block lent for nothing goes back
  if (read_wants_write_) update_interest();
  if (step == Step::kEnd) return Io::kEnd;
  return step == Step::kError ? Io::kError : Io::kOk;
}

Pump::Io Pump::flush() {
  Io result = Io::kOk;
  while (!out_.empty()) {
    std::size_t taken = 0;
    const Step step = stream_write(out_.bytes(), taken);
    if (step != Step::kOk) {
      if (step == Step::kError) result = Io::kError;
      break;
    }
    written_ += taken;
    out_.consume(taken);
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
  const bool read = (reading_ && !read_wants_write_) || write_wants_read_;
  const bool write = read_wants_write_ || (shook() && !out_.empty() && !write_wants_read_);
  watch_.set((read ? std::uint32_t{CM_FD_READ} : 0u) | (write ? std::uint32_t{CM_FD_WRITE} : 0u));
}

void Pump::on_ready(void* self, int, std::uint32_t events) {
  auto* pump = static_cast<Pump*>(self);
  const bool read = (events & CM_FD_READ) != 0 || pump->read_wants_write_;
  const bool write = (events & CM_FD_WRITE) != 0 || pump->write_wants_read_;
  pump->read_wants_write_ = pump->write_wants_read_ = false;
  if (write && pump->shook()) pump->events_.writable(pump->context_);
  // The first callback may have closed the connection.
  if (read && pump->is_open() && pump->reading_) pump->events_.readable(pump->context_);
  if (pump->is_open()) pump->update_interest();
}

}  // namespace cm::ws_broker
