// listener.h — the sockets that a server accepts on.
// Owns:   Listeners: TCP and unix sockets, and the watch over the unix sockets' files.
// Holds:  a unix socket whose file vanishes is bound again, at once and without polling (inotify):
//         other programs tidy such files away. A file that was replaced by another is left alone.
// Why:    out of descriptors, a level-triggered listener would spin: it is paused instead, until
//         a connection closes or a second has passed.
// Limits: 64 connections a listener and wake-up.
// Not:    connections (server.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/net/loop.h"
#include "core/net/socket.h"

namespace cm::net {

class Listeners {
 public:
  // Takes over one accepted, non-blocking descriptor.
  using OnAccept = void (*)(void* context, Fd fd, bool tls) noexcept;

  Listeners(Loop& loop, OnAccept on_accept, void* context) noexcept
      : loop_(&loop), on_accept_(on_accept), context_(context) {}
  ~Listeners() { close(); }
  Listeners(const Listeners&) = delete;
  Listeners& operator=(const Listeners&) = delete;

  // Answers the bound port.
  Result<std::uint16_t> add_tcp(const std::string& host, std::uint16_t port, bool tls);
  Status add_unix(const std::string& path);
  // Stops listening and removes the socket files that are still ours.
  void close() noexcept;

  // Something waits for retry(): descriptors ran out, or a file could not be bound again.
  bool needs_retry() const noexcept { return paused_ || lost_; }
  void retry();

 private:
  struct Listener {
    Listeners* owner = nullptr;
    Fd fd;
    Loop::Watch* watch = nullptr;
    std::string path;  // empty for TCP
    FileId file;
    bool tls = false;
  };

  Status add(Fd fd, const std::string& path, FileId file, bool tls);
  void accept_some(const Listener& listener) noexcept;
  void pause() noexcept;
  void watch_folder(const std::string& path);
  void check_files() noexcept;
  bool rebind(Listener& listener);

  Loop* loop_;
  OnAccept on_accept_;
  void* context_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  Fd notify_;
  Loop::Watch* notify_watch_ = nullptr;
  bool paused_ = false;
  bool lost_ = false;
};

}  // namespace cm::net
