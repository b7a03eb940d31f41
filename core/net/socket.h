// socket.h — descriptors and socket addresses: the small calls that listeners and clients share.
// Owns:   Fd, which closes what it holds.
// Holds:  every descriptor made here is close-on-exec and non-blocking.
// Not:    protocols, the loop. Names are resolved only at start and in the CLI: it blocks.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/arena.h"
#include "core/base/result.h"

struct sockaddr_un;

namespace cm::net {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  int get() const noexcept { return fd_; }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

// Who is at the other end of a connection. uid and pid are known for unix sockets only.
struct PeerInfo {
  bool is_unix = false;
  bool is_loopback = false;  // TCP from this machine
  bool is_tls = false;       // nobody between the two ends reads along
  std::uint32_t uid = UINT32_MAX;
  std::int32_t pid = 0;
  std::array<std::uint8_t, 16> address{};  // IPv6, or IPv4 mapped into it; zero for unix
};
PeerInfo peer_of(int fd) noexcept;
// "192.0.2.1:4711", "[2001:db8::1]:4711" or "unix"; for logs and rate limits.
void append_peer_address(TextBuf& out, int fd);

// A numeric address of this machine's loopback, or "localhost"; no name is looked up.
bool is_loopback_host(std::string_view host) noexcept;

// Binds and listens. Port 0 lets the system choose: bound_port() tells.
Result<Fd> listen_tcp(const std::string& host, std::uint16_t port);
std::uint16_t bound_port(int fd) noexcept;

// The name of a bound unix socket in the file system; a later file of this path is another one.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};
// Binds with mode 0600 from the first moment on. A socket file that nobody listens on is replaced;
// kAlreadyRunning if someone does, kIo if something else than a socket is in the way.
Result<Fd> listen_unix(const std::string& path, FileId& bound);
// Zero ids if there is no file of this path.
FileId file_id(const std::string& path) noexcept;

// Starts a connection; it is made when the descriptor becomes writable. kUnavailable if refused
// at once, kInvalidArgument for an address that cannot be.
Result<Fd> connect_unix(const std::string& path, bool& retry);
Result<Fd> connect_tcp(const std::string& host, std::uint16_t port, std::uint64_t deadline_ms);
void set_nodelay(int fd) noexcept;

}  // namespace cm::net
