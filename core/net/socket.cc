// socket.cc — the system calls of socket.h.
// Holds:  a failed step closes what the steps before it opened.
// Not:    retries; callers know their deadlines.
#include "core/net/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/net/loop.h"

namespace cm::net {
namespace {

constexpr int kBacklog = 1024;
constexpr int kSocketFlags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

Error io_error(std::string_view what, int error) {
  std::string detail(what);
  detail += ": ";
  detail += std::strerror(error);
  return fail(Err::kIo, detail);
}

bool unix_address(const std::string& path, sockaddr_un& address) noexcept {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

const sockaddr* generic(const sockaddr_un& address) noexcept {
  return reinterpret_cast<const sockaddr*>(&address);
}

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

AddressList resolve(const std::string& host, std::uint16_t port, bool passive) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* list = nullptr;
  const std::string service = std::to_string(port);
  if (getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &list) != 0) {
    list = nullptr;
  }
  return {list, &freeaddrinfo};
}

// Is somebody listening behind this socket file?
bool answers(const sockaddr_un& address) noexcept {
  const Fd probe(::socket(AF_UNIX, kSocketFlags, 0));
  if (!probe) return true;  // unknown: leave the file alone
  if (::connect(probe.get(), generic(address), sizeof address) == 0) return true;
  return errno != ECONNREFUSED;
}

Status clear_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return {};
  if (!S_ISSOCK(found.st_mode)) return fail(Err::kIo, path + " exists and is not a socket");
  if (answers(address)) return fail(Err::kAlreadyRunning, path + " is in use");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return io_error(path, errno);
  return {};
}

bool wait_connected(int fd, std::uint64_t deadline_ms, int& error) noexcept {
  for (;;) {
    const std::uint64_t now = Loop::mono_ms();
    if (now >= deadline_ms) {
      error = ETIMEDOUT;
      return false;
    }
    pollfd wait{fd, POLLOUT, 0};
    const int ready =
        ::poll(&wait, 1, static_cast<int>(std::min<std::uint64_t>(deadline_ms - now, 60'000)));
    if (ready < 0 && errno != EINTR) {
      error = errno;
      return false;
    }
    if (ready <= 0) continue;
    socklen_t size = sizeof error;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0;
  }
}

}  // namespace

void Fd::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

PeerInfo peer_of(int fd) noexcept {
  PeerInfo peer;
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
      address.ss_family == AF_UNIX) {
    peer.is_unix = true;
    ucred who{};
    socklen_t who_size = sizeof who;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_size) == 0) {
      peer.uid = who.uid;
      peer.pid = who.pid;
    }
    return peer;
  }
  size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return peer;
  if (address.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    peer.is_loopback = (ntohl(in.sin_addr.s_addr) >> 24) == 127;
    peer.address[10] = peer.address[11] = 0xff;
    std::memcpy(peer.address.data() + 12, &in.sin_addr.s_addr, 4);
  } else if (address.ss_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    peer.is_loopback =
        IN6_IS_ADDR_LOOPBACK(&in) || (IN6_IS_ADDR_V4MAPPED(&in) && in.s6_addr[12] == 127);
    std::memcpy(peer.address.data(), in.s6_addr, peer.address.size());
  }
  return peer;
}

void append_peer_address(TextBuf& out, int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> service{};
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      address.ss_family == AF_UNIX ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host.data(), host.size(),
                    service.data(), service.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    out.append("unix");
    return;
  }
  const bool v6 = address.ss_family == AF_INET6;
  if (v6) out.append('[');
  out.append(std::string_view(host.data()));
  if (v6) out.append(']');
  out.append(':');
  out.append(std::string_view(service.data()));
}

bool is_loopback_host(std::string_view host) noexcept {
  char text[64];
  if (host.empty() || host.size() >= sizeof text) return false;
  std::memcpy(text, host.data(), host.size());
  text[host.size()] = '\0';
  in_addr v4{};
  if (::inet_pton(AF_INET, text, &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return host == "::1" || host == "localhost";
}

Result<Fd> listen_tcp(const std::string& host, std::uint16_t port) {
  const AddressList list = resolve(host, port, true);
  if (!list) return fail(Err::kInvalidArgument, "listen address '" + host + "' is not known");
  int error = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    Fd fd(::socket(at->ai_family, kSocketFlags, 0));
    if (!fd) {
      error = errno;
      continue;
    }
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->ai_family == AF_INET6) {
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    }
    if (::bind(fd.get(), at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd.get(), kBacklog) == 0) {
      return fd;
    }
    error = errno;
  }
  return io_error("listening on " + host + ":" + std::to_string(port), error);
}

std::uint16_t bound_port(int fd) noexcept {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

Result<Fd> listen_unix(const std::string& path, FileId& bound) {
  sockaddr_un address;
  if (!unix_address(path, address)) {
    return fail(Err::kInvalidArgument, "socket path '" + path + "': 1 to 107 bytes");
  }
  if (Status cleared = clear_stale_socket(path, address); !cleared) return cleared.error();
  Fd fd(::socket(AF_UNIX, kSocketFlags, 0));
  if (!fd) return io_error(path, errno);
  // On Linux the mode of the socket file comes from the descriptor: no moment of 0755, and the
  // process's umask stays as it is.
  if (::fchmod(fd.get(), 0600) != 0) return io_error(path, errno);
  if (::bind(fd.get(), generic(address), sizeof address) != 0) return io_error(path, errno);
  bound = file_id(path);
  if (::listen(fd.get(), kBacklog) != 0) return io_error(path, errno);
  return fd;
}

FileId file_id(const std::string& path) noexcept {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return {};
  return {found.st_dev, found.st_ino};
}

Result<Fd> connect_unix(const std::string& path, bool& retry) {
  retry = false;
  sockaddr_un address;
  if (!unix_address(path, address)) {
    return fail(Err::kInvalidArgument, "socket path '" + path + "': 1 to 107 bytes");
  }
  Fd fd(::socket(AF_UNIX, kSocketFlags, 0));
  if (!fd) return io_error(path, errno);
  if (::connect(fd.get(), generic(address), sizeof address) == 0) return fd;
  const int error = errno;
  retry = error == EAGAIN;  // the listener's backlog is full
  return fail(Err::kUnavailable, path + ": " + std::strerror(error));
}

Result<Fd> connect_tcp(const std::string& host, std::uint16_t port, std::uint64_t deadline_ms) {
  const AddressList list = resolve(host, port, false);
  if (!list) return fail(Err::kUnavailable, "host '" + host + "' is not known");
  int error = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    Fd fd(::socket(at->ai_family, kSocketFlags, 0));
    if (!fd) {
      error = errno;
      continue;
    }
    set_nodelay(fd.get());
    if (::connect(fd.get(), at->ai_addr, at->ai_addrlen) == 0) return fd;
    error = errno;
    if (error == EINPROGRESS && wait_connected(fd.get(), deadline_ms, error)) return fd;
    if (error == ETIMEDOUT) break;
  }
  return fail(error == ETIMEDOUT ? Err::kTimeout : Err::kUnavailable,
              host + ":" + std::to_string(port) + ": " + std::strerror(error));
}

void set_nodelay(int fd) noexcept {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace cm::net
