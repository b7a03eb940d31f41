// config_watch.cc — reads inotify events of the configuration directory.
#include "cli/config_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

namespace cm::cli {
namespace {

constexpr std::string_view kName = "config.json";

}  // namespace

ConfigWatch::ConfigWatch(net::Loop& loop, const std::string& directory) : loop_(loop) {
  fd_ = net::Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd_) return;
  const int added =
      ::inotify_add_watch(fd_.get(), directory.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR);
  if (added < 0) return;
  watch_ = loop_.watch(
      fd_.get(), net::Loop::kRead,
      [](void* self, unsigned) noexcept { static_cast<ConfigWatch*>(self)->read_events(); }, this);
}

ConfigWatch::~ConfigWatch() {
  if (watch_ != nullptr) loop_.unwatch(watch_);
}

void ConfigWatch::read_events() noexcept {
  alignas(inotify_event) char buffer[4096];
  for (;;) {
    const ssize_t size = ::read(fd_.get(), buffer, sizeof buffer);
    if (size <= 0) return;
    for (const char* at = buffer; at < buffer + size;) {
      inotify_event event;
      std::memcpy(&event, at, sizeof event);
      const char* const name = at + sizeof event;
      const std::string_view text(name, ::strnlen(name, event.len));
      // After an overflow nobody knows what happened: the file is read again.
      if (text == kName || (event.mask & IN_Q_OVERFLOW) != 0) changed_ = true;
      at = name + event.len;
    }
  }
}

}  // namespace cm::cli
