// listener.cc — accepting, pausing and binding again.
// Holds:  connections that wait on a socket whose file vanished are accepted before it goes.
// Not:    what happens with an accepted descriptor.
#include "core/net/listener.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace cm::net {
namespace {

constexpr int kAcceptsAtOnce = 64;

}  // namespace

Status Listeners::add(Fd fd, const std::string& path, FileId file, bool tls) {
  auto listener = std::make_unique<Listener>();
  listener->owner = this;
  listener->fd = std::move(fd);
  listener->path = path;
  listener->file = file;
  listener->tls = tls;
  listener->watch = loop_->watch(
      listener->fd.get(), Loop::kRead,
      [](void* self, unsigned) noexcept {
        const auto* found = static_cast<const Listener*>(self);
        found->owner->accept_some(*found);
      },
      listener.get());
  if (listener->watch == nullptr) return fail(Err::kIo, "a listener could not be watched");
  listeners_.push_back(std::move(listener));
  return {};
}

Result<std::uint16_t> Listeners::add_tcp(const std::string& host, std::uint16_t port, bool tls) {
  Result<Fd> fd = listen_tcp(host, port);
  if (!fd) return fd.error();
  const std::uint16_t bound = bound_port(fd->get());
  if (Status added = add(std::move(*fd), {}, {}, tls); !added) return added.error();
  return bound;
}

Status Listeners::add_unix(const std::string& path) {
  FileId file;
  Result<Fd> fd = listen_unix(path, file);
  if (!fd) return fd.error();
  if (Status added = add(std::move(*fd), path, file, false); !added) return added;
  watch_folder(path);
  return {};
}

// Without inotify (its limits are per user) the file is still checked at each retry().
void Listeners::watch_folder(const std::string& path) {
  if (!notify_) {
    notify_ = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!notify_) return;
    notify_watch_ = loop_->watch(
        notify_.get(), Loop::kRead,
        [](void* self, unsigned) noexcept {
          auto* found = static_cast<Listeners*>(self);
          alignas(inotify_event) std::array<char, 4096> ignored;
          while (::read(found->notify_.get(), ignored.data(), ignored.size()) > 0) {
          }
          found->check_files();
        },
        this);
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  ::inotify_add_watch(notify_.get(), folder.c_str(), IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
}

void Listeners::accept_some(const Listener& listener) noexcept {
  for (int accepts = 0; accepts < kAcceptsAtOnce; ++accepts) {
    Fd fd(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      on_accept_(context_, std::move(fd), listener.tls);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pause();
    if (errno == EINTR || errno == ECONNABORTED) continue;
    return;
  }
}

void Listeners::pause() noexcept {
  if (paused_) return;
  paused_ = true;
  for (const auto& listener : listeners_) loop_->set_interest(listener->watch, 0);
}

void Listeners::retry() {
  if (paused_) {
    paused_ = false;
    for (const auto& listener : listeners_) loop_->set_interest(listener->watch, Loop::kRead);
  }
  if (lost_) check_files();
}

void Listeners::check_files() noexcept {
  lost_ = false;
  for (const auto& listener : listeners_) {
    if (listener->path.empty() || file_id(listener->path) != FileId{}) continue;
    if (!rebind(*listener)) lost_ = true;
  }
}

bool Listeners::rebind(Listener& listener) {
  accept_some(listener);
  FileId file;
  Result<Fd> fd = listen_unix(listener.path, file);
  if (!fd) return false;
  loop_->unwatch(listener.watch);
  listener.fd = std::move(*fd);
  listener.file = file;
  listener.watch = loop_->watch(
      listener.fd.get(), paused_ ? 0 : Loop::kRead,
      [](void* self, unsigned) noexcept {
        const auto* found = static_cast<const Listener*>(self);
        found->owner->accept_some(*found);
      },
      &listener);
  watch_folder(listener.path);
  return true;
}

void Listeners::close() noexcept {
  for (const auto& listener : listeners_) {
    loop_->unwatch(listener->watch);
    if (!listener->path.empty() && file_id(listener->path) == listener->file) {
      ::unlink(listener->path.c_str());
    }
  }
  listeners_.clear();
  if (notify_watch_ != nullptr) loop_->unwatch(notify_watch_);
  notify_watch_ = nullptr;
  notify_.reset();
  paused_ = lost_ = false;
}

}  // namespace cm::net
