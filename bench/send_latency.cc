// send_latency.cc — durable POST /v1/send next to one fdatasync, in the same run.
// Holds:  the two alternate: one request on a kept connection, then one 4 KiB append with
//         fdatasync on the same file system. Prints one JSON object, times in microseconds.
// Not:    a test; nothing is asserted but that each send is accepted.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const char* sentence) {
  std::fprintf(stderr, "send_latency: %s\n", sentence);
  std::exit(1);
}

double micros_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

int connect_to(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof address.sun_path) die("the socket path is too long");
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("no daemon");
  return fd;
}

double one_send(int fd, const std::string& request) {
  char reply[4096];
  const auto start = Clock::now();
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    die("send failed");
  }
  const ssize_t size = ::recv(fd, reply, sizeof reply, 0);
  const double micros = micros_since(start);
  if (size < 12 || std::memcmp(reply, "HTTP/1.1 202", 12) != 0) die("a send was not accepted");
  return micros;
}

double one_sync(int fd) {
  static const std::string page(4096, 'x');
  const auto start = Clock::now();
  if (::write(fd, page.data(), page.size()) != static_cast<ssize_t>(page.size())) die("write");
  if (::fdatasync(fd) != 0) die("fdatasync");
  return micros_since(start);
}

void print(const char* name, std::vector<double>& times, const char* end) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return times[static_cast<std::size_t>(part * static_cast<double>(times.size() - 1))];
  };
  std::printf("\"%s\":{\"p50\":%.0f,\"p99\":%.0f,\"max\":%.0f}%s", name, at(0.5), at(0.99),
              times.back(), end);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) die("usage: send_latency SOCKET TO FILE [COUNT]");
  const int count = argc > 4 ? std::atoi(argv[4]) : 1000;
  const int fd = connect_to(argv[1]);
  const int file = ::open(argv[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) die("cannot open the file");
  const std::string body =
      "{\"to\":\"" + std::string(argv[2]) + "\",\"message\":\"" + std::string(512, 'm') + "\"}";
  const std::string request = "POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                              std::to_string(body.size()) + "\r\n\r\n" + body;
  std::vector<double> sends;
  std::vector<double> syncs;
  for (int at = 0; at < count; ++at) {
    sends.push_back(one_send(fd, request));
    syncs.push_back(one_sync(file));
  }
  std::printf("{\"count\":%d,", count);
  print("send_us", sends, ",");
  print("fdatasync_us", syncs, "}\n");
  return 0;
}
