// peer_load.cc — the same workload against Redis streams and Mosquitto: pairs, a window, acks.
// Owns:   two small clients: RESP (XADD, XREADGROUP, XACK, XDEL) and MQTT 3.1.1 with QoS 1.
// Holds:  a message counts when its consumer has acknowledged it, as in broker_load. One process,
//         one epoll loop, nothing allocated per message that the servers would not cause as well.
// Why:    figures of ours mean something only beside those of the best neighbours in the same run.
// Source: redis.io protocol description (RESP2); OASIS MQTT 3.1.1.
// Not:    a client library: only what these two workloads need.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string kind;
  int port = 0;
  int pairs = 10;
  int window = 64;
  int body_bytes = 512;
  double seconds = 5;
  int rate = 0;  // messages a second, one at a time; 0: as fast as the window lets
  int idle = 0;  // connections that do nothing
};

[[noreturn]] void die(const std::string& sentence) {
  std::fprintf(stderr, "peer_load: %s\n", sentence.c_str());
  std::exit(1);
}

struct Conn {
  int fd = -1;
  int pair = 0;
  bool producer = false;
  bool ready = false;
  int in_flight = 0;
  std::uint16_t packet = 0;
  std::string in, out;
};

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options), body_(static_cast<std::size_t>(options.body_bytes), 'x') {}

  void run() {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    const int all = options_.pairs * 2 + options_.idle;
    conns_.resize(static_cast<std::size_t>(all));
    for (int index = 0; index < all; ++index) open(index);
    while (ready_ < all) pump(-1);
    if (options_.idle > 0) return hold();
    start_ = Clock::now();
    const auto end = start_ + std::chrono::duration<double>(options_.seconds);
    measuring_ = true;
    if (options_.rate > 0) {
      while (Clock::now() < end) send_paced();
    } else {
      for (Conn& conn : conns_) fill(conn, options_.window);
      while (Clock::now() < end) pump(100);
    }
    const double spent = std::chrono::duration<double>(Clock::now() - start_).count();
    std::sort(latencies_us_.begin(), latencies_us_.end());
    const auto at = [&](double part) {
      return latencies_us_.empty() ? 0.0
                                   : latencies_us_[static_cast<std::size_t>(
                                         part * static_cast<double>(latencies_us_.size() - 1))];
    };
    std::printf(
        "{\"pairs\":%d,\"delivered\":%llu,\"per_second\":%.0f,\"p50_us\":%.0f,"
        "\"p99_us\":%.0f}\n",
        options_.pairs, static_cast<unsigned long long>(delivered_),
        static_cast<double>(delivered_) / spent, at(0.5), at(0.99));
  }

 private:
  bool is_redis() const { return options_.kind == "redis"; }

  void hold() {
    std::printf("{\"connected\":%d}\n", ready_);
    std::fflush(stdout);
    char byte;
    if (::read(STDIN_FILENO, &byte, 1) < 0) return;
  }

  void open(int index) {
    Conn& conn = conns_[static_cast<std::size_t>(index)];
    conn.pair = index / 2;
    conn.producer = index < options_.pairs * 2 && index % 2 == 0;
    conn.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(options_.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(conn.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      die("connect: " + std::string(std::strerror(errno)));
    }
    const int one = 1;
    ::setsockopt(conn.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = static_cast<std::uint64_t>(index);
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, conn.fd, &event);
    if (is_redis()) {
      redis_open(conn, index);
    } else {
      mqtt_open(conn, index);
    }
    flush(conn);
  }

  void flush(Conn& conn) {
    std::size_t done = 0;
    while (done < conn.out.size()) {
      const ssize_t sent =
          ::send(conn.fd, conn.out.data() + done, conn.out.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) die("the server closed a connection");
      done += static_cast<std::size_t>(sent);
    }
    conn.out.clear();
  }

  void pump(int timeout_ms) {
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_, events, 64, timeout_ms);
    for (int at = 0; at < count; ++at) {
      Conn& conn = conns_[events[at].data.u64];
      const std::size_t before = conn.in.size();
      conn.in.resize(before + (256 << 10));
      const ssize_t size = ::recv(conn.fd, conn.in.data() + before, 256 << 10, 0);
      if (size <= 0) die("the server closed a connection");
      conn.in.resize(before + static_cast<std::size_t>(size));
      if (is_redis()) {
        redis_read(conn);
      } else {
        mqtt_read(conn);
      }
      if (measuring_ && options_.rate == 0) fill(conn, options_.window);
      flush(conn);
    }
  }

  void fill(Conn& conn, int window) {
    if (!conn.producer) return;
    while (conn.in_flight < window) {
      if (is_redis()) {
        redis_publish(conn);
      } else {
        mqtt_publish(conn);
      }
      ++conn.in_flight;
    }
    flush(conn);
  }

  void send_paced() {
    const auto step = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(1.0 / options_.rate));
    for (Conn& conn : conns_) {
      if (!conn.producer) continue;
      const std::uint64_t before = delivered_;
      sent_ = Clock::now();
      fill(conn, 1);
      while (delivered_ == before || conn.in_flight > 0) pump(100);
      const auto next = sent_ + step;
      while (Clock::now() < next) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now());
        pump(static_cast<int>(left.count()) + 1);
      }
    }
  }

  void delivered() {
    ++delivered_;
    if (options_.rate > 0) {
      latencies_us_.push_back(
          std::chrono::duration<double, std::micro>(Clock::now() - sent_).count());
    }
  }

  void now_ready(Conn& conn) {
    if (conn.ready) return;
    conn.ready = true;
    ++ready_;
  }

  // --- Redis: a stream and a group for each pair -------------------------------------------------

  static void command(std::string& out, std::initializer_list<std::string_view> words) {
    out += "*" + std::to_string(words.size()) + "\r\n";
    for (const std::string_view word : words) {
      out += "$" + std::to_string(word.size()) + "\r\n";
      out += word;
      out += "\r\n";
    }
  }
  std::string stream_of(const Conn& conn) const { return "s" + std::to_string(conn.pair); }

  void redis_open(Conn& conn, int index) {
    if (index >= options_.pairs * 2 || conn.producer) {
      command(conn.out, {"PING"});
      return;
    }
    command(conn.out, {"XGROUP", "CREATE", stream_of(conn), "g", "$", "MKSTREAM"});
  }
  void redis_publish(Conn& conn) { command(conn.out, {"XADD", stream_of(conn), "*", "d", body_}); }
  void redis_wait(Conn& conn) {
    command(conn.out, {"XREADGROUP", "GROUP", "g", "c", "COUNT", "64", "BLOCK", "0", "STREAMS",
                       stream_of(conn), ">"});
  }

  // The end of one reply that begins at `at`, or npos. Ids of stream entries go to `ids_`.
  std::size_t redis_reply(const std::string& text, std::size_t at, int depth) {
    const std::size_t line = text.find("\r\n", at);
    if (line == std::string::npos) return std::string::npos;
    const char type = text[at];
    const long number = std::strtol(text.c_str() + at + 1, nullptr, 10);
    std::size_t next = line + 2;
    if (type == '-') die(text.substr(at, line - at));
    if (type == '$') {
      if (number < 0) return next;
      if (text.size() < next + static_cast<std::size_t>(number) + 2) return std::string::npos;
      // stream > [name, entries > [id, fields]]: the id is the first text four levels down.
      if (depth == 4 && wants_id_) {
        ids_.emplace_back(text.substr(next, static_cast<std::size_t>(number)));
        wants_id_ = false;
      }
      return next + static_cast<std::size_t>(number) + 2;
    }
    if (type != '*') return next;
    if (depth == 3) wants_id_ = true;
    for (long index = 0; index < number; ++index) {
      next = redis_reply(text, next, depth + 1);
      if (next == std::string::npos) return next;
    }
    return next;
  }

  void redis_read(Conn& conn) {
    std::size_t at = 0;
    while (at < conn.in.size()) {
      ids_.clear();
      wants_id_ = false;
      const std::size_t end = redis_reply(conn.in, at, 0);
      if (end == std::string::npos) break;
      if (!conn.ready) {
        now_ready(conn);
        if (!conn.producer && conn.pair < options_.pairs) redis_wait(conn);
      } else if (conn.producer) {
        --conn.in_flight;
      } else if (conn.in[at] == '*') {
        for (const std::string& id : ids_) {
          command(conn.out, {"XACK", stream_of(conn), "g", id});
          command(conn.out, {"XDEL", stream_of(conn), id});
          delivered();
        }
        redis_wait(conn);
      }
      at = end;
    }
    conn.in.erase(0, at);
  }

  // --- MQTT: a topic for each pair, QoS 1 both ways ---------------------------------------------

  static void mqtt_packet(std::string& out, char type, const std::string& body) {
    out += type;
    std::size_t size = body.size();
    do {
      auto byte = static_cast<unsigned char>(size % 128);
      size /= 128;
      if (size > 0) byte |= 0x80;
      out += static_cast<char>(byte);
    } while (size > 0);
    out += body;
  }
  static void mqtt_text(std::string& out, const std::string& text) {
    out += static_cast<char>(text.size() >> 8);
    out += static_cast<char>(text.size() & 0xff);
    out += text;
  }
  std::string topic_of(const Conn& conn) const { return "t" + std::to_string(conn.pair); }

  void mqtt_open(Conn& conn, int index) {
    std::string body;
    mqtt_text(body, "MQTT");
    body += std::string("\x04\x02\x00\x00", 4);  // version 4, clean session, no keep-alive
    mqtt_text(body, "c" + std::to_string(index));
    mqtt_packet(conn.out, 0x10, body);
  }
  void mqtt_publish(Conn& conn) {
    if (++conn.packet == 0) ++conn.packet;
    std::string body;
    mqtt_text(body, topic_of(conn));
    body += static_cast<char>(conn.packet >> 8);
    body += static_cast<char>(conn.packet & 0xff);
    body += body_;
    mqtt_packet(conn.out, 0x32, body);
  }

  void mqtt_read(Conn& conn) {
    std::size_t at = 0;
    for (;;) {
      std::size_t size = 0;
      std::size_t head = at + 1;
      int shift = 0;
      bool complete = false;
      while (head < conn.in.size() && shift < 28) {
        const auto byte = static_cast<unsigned char>(conn.in[head++]);
        size |= static_cast<std::size_t>(byte & 0x7f) << shift;
        shift += 7;
        if ((byte & 0x80) == 0) {
          complete = true;
          break;
        }
      }
      if (!complete || conn.in.size() < head + size) break;
      mqtt_event(conn, static_cast<unsigned char>(conn.in[at]),
                 std::string_view(conn.in).substr(head, size));
      at = head + size;
    }
    conn.in.erase(0, at);
  }

  void mqtt_event(Conn& conn, unsigned char type, std::string_view body) {
    switch (type >> 4) {
      case 2:  // CONNACK
        if (conn.producer || conn.pair >= options_.pairs) return now_ready(conn);
        {
          std::string subscribe("\x00\x01", 2);
          mqtt_text(subscribe, topic_of(conn));
          subscribe += '\x01';
          mqtt_packet(conn.out, static_cast<char>(0x82), subscribe);
        }
        return;
      case 9: return now_ready(conn);    // SUBACK
      case 4: --conn.in_flight; return;  // PUBACK
      case 3: {                          // PUBLISH
        const auto length = static_cast<std::size_t>(static_cast<unsigned char>(body[0]) << 8 |
                                                     static_cast<unsigned char>(body[1]));
        mqtt_packet(conn.out, 0x40, std::string(body.substr(2 + length, 2)));
        delivered();
        return;
      }
      default: return;
    }
  }

  const Options options_;
  const std::string body_;
  int epoll_ = -1;
  int ready_ = 0;
  bool measuring_ = false;
  bool wants_id_ = false;
  std::vector<std::string> ids_;
  std::vector<Conn> conns_;
  std::vector<double> latencies_us_;
  Clock::time_point start_{}, sent_{};
  std::uint64_t delivered_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (argc < 3) die("usage: peer_load redis|mqtt PORT [pairs= window= body= seconds= rate= idle=]");
  options.kind = argv[1];
  options.port = std::atoi(argv[2]);
  for (int index = 3; index < argc; ++index) {
    const std::string text = argv[index];
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) die("unknown: " + text);
    const std::string name = text.substr(0, equals);
    const char* value = argv[index] + equals + 1;
    if (name == "pairs") options.pairs = std::atoi(value);
    if (name == "window") options.window = std::atoi(value);
    if (name == "body") options.body_bytes = std::atoi(value);
    if (name == "seconds") options.seconds = std::atof(value);
    if (name == "rate") options.rate = std::atoi(value);
    if (name == "idle") options.idle = std::atoi(value);
  }
  Load(options).run();
  return 0;
}
