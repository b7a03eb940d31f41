// config_watch.h — tells when config.json was replaced or written, without polling.
// Owns:   an inotify descriptor on the configuration directory, watched by the loop.
// Holds:  the directory is watched and not the file: writers rename a new file over the old one.
// Not:    reading the file (config.h).
#pragma once

#include <memory>
#include <string>

#include "core/net/loop.h"
#include "core/net/socket.h"

namespace cm::cli {

class ConfigWatch {
 public:
  // The loop outlives it. Without inotify (its instances are limited per user) nothing is ever
  // told; SIGHUP and POST /v1/reload remain.
  ConfigWatch(net::Loop& loop, const std::string& directory);
  ~ConfigWatch();
  ConfigWatch(const ConfigWatch&) = delete;
  ConfigWatch& operator=(const ConfigWatch&) = delete;

  bool works() const noexcept { return watch_ != nullptr; }
  bool take_change() noexcept {
    const bool changed = changed_;
    changed_ = false;
    return changed;
  }

 private:
  void read_events() noexcept;

  net::Loop& loop_;
  net::Fd fd_;
  net::Loop::Watch* watch_ = nullptr;
  bool changed_ = false;
};

}  // namespace cm::cli
