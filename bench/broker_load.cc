// broker_load.cc — drives a real broker with pairs of WebSocket clients and counts what arrives.
// Owns:   the client of the measurement: joins, hellos, a window of sends a pair, acks of pushes;
//         beside the pairs idle connections, messages that nobody fetches, and empty meshes.
// Holds:  a message counts when its recipient has acknowledged it. Frames are built once; only the
//         id and fingerprint change. Prints one JSON object.
// Why:    with the broker on one core and this on the other, this must cost less than the broker.
// Not:    a test: nothing here is asserted but that the protocol works.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "core/base/arena.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/crypto/slab.h"
#include "core/net/http_client.h"
#include "core/net/socket.h"
#include "core/net/url.h"
#include "core/net/ws_frame.h"
#include "core/net/ws_handshake.h"
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "core/wire/invite.h"
#include "core/wire/json_writer.h"

namespace {

using namespace cm;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string url, token;
  int pairs = 10;
  int window = 64;
  int body_bytes = 512;
  double seconds = 5;
  int rate = 0;    // messages a second of all pairs, one at a time; 0: as fast as the window lets
  int idle = 0;    // authenticated connections that do nothing
  int queued = 0;  // messages to a member that is never there
  int meshes = 1;  // on the broker; the pairs are in one
  bool storm = false;  // idle connections come back when the broker was started again
};

[[noreturn]] void die(const std::string& sentence) {
  std::fprintf(stderr, "broker_load: %s\n", sentence.c_str());
  std::exit(1);
}

std::uint64_t wall_ms() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

struct Peer {
  crypto::SecretRef secret;
  crypto::PublicKey key{};
  std::string member_id;
  net::Fd fd;
  std::unique_ptr<net::WsReceiver> receiver;
  std::unique_ptr<PooledBuffer> in, out;
  std::string frame_head, frame_tail;  // of a send, around its id
  std::uint64_t next_id = 0;
  int in_flight = 0;
  Clock::time_point sent{};  // with a rate: when the message in flight left
  bool sender = false;
  bool ready = false;
  bool upgraded = false;
  std::string session;  // idle ones say hello with a session key of their own
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options), slab_(4096) {}

  void run() {
    const auto url = net::url_parse(options_.url);
    if (!url) die("bad url");
    endpoint_.host = std::string(url->host);
    endpoint_.port = url->port;
    target_ = std::string(url->target);
    enroll();
    epoll_ = net::Fd(::epoll_create1(EPOLL_CLOEXEC));
    connect_all();
    while (ready_ < peers_.size()) pump(-1);
    if (options_.queued > 0) queue_up();
    if (options_.idle > 0 && options_.pairs == 0) return hold_idle();
    start_ = Clock::now();
    const auto end = start_ + std::chrono::duration<double>(options_.seconds);
    if (options_.rate > 0) {
      while (Clock::now() < end) send_paced();
    } else {
      for (Peer& peer : peers_) {
        if (peer.sender) fill(peer);
      }
      while (Clock::now() < end) pump(100);
    }
    measured_ = delivered_;
    const double spent = std::chrono::duration<double>(Clock::now() - start_).count();
    std::sort(latencies_us_.begin(), latencies_us_.end());
    const auto at = [&](double part) {
      return latencies_us_.empty() ? 0.0
                                   : latencies_us_[static_cast<std::size_t>(
                                         part * static_cast<double>(latencies_us_.size() - 1))];
    };
    std::printf(
        "{\"pairs\":%d,\"window\":%d,\"body_bytes\":%d,\"seconds\":%.2f,"
        "\"delivered\":%llu,\"per_second\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f}\n",
        options_.pairs, options_.window, options_.body_bytes, spent,
        static_cast<unsigned long long>(measured_), static_cast<double>(measured_) / spent, at(0.5),
        at(0.99));
  }

 private:
  std::string post(std::string_view target, std::string_view body) {
    const std::string bearer = "Bearer " + options_.token;
    const net::HttpHeader header{"Authorization", bearer};
    const auto reply = net::http_call(endpoint_, "POST", target, {&header, 1}, body, 15'000);
    if (!reply) die(std::string(target) + ": " + reply.error().detail);
    if (reply->status != 200) die(std::string(target) + ": " + reply->body);
    return reply->body;
  }

  std::string field(const std::string& json, std::string_view key) {
    wire::JsonTape tape;
    if (!parser_.parse(json, scratch_, tape)) die("bad JSON");
    const wire::JsonNode* node = tape.find(key);
    if (node == nullptr) die("no field " + std::string(key));
    return std::string(node->text);
  }

  void enroll() {
    const auto paired = static_cast<std::size_t>(options_.pairs) * 2;
    const std::size_t members = std::max<std::size_t>(paired, 1);
    peers_.resize(members);
    for (std::size_t index = 0; index < members; ++index) {
      Peer& peer = peers_[index];
      peer.secret = *slab_.generate(peer.key);
      peer.sender = index < paired && index % 2 == 0;
    }
    const auto hex = [](const crypto::PublicKey& key) {
      return std::string(crypto::view(crypto::hex_text(key)));
    };
    const std::string created =
        post("/cli/mesh/create", "{\"name\":\"load\",\"pubkey\":\"" + hex(peers_[0].key) + "\"}");
    mesh_id_ = field(created, "id");
    peers_[0].member_id = field(created, "member_id");
    const std::string invited =
        post("/cli/mesh/" + field(created, "slug") + "/invite", "{\"max_uses\":1000}");
    const std::string token = field(invited, "token");
    const std::string payload(as_text(*crypto::base64url_decode(token, scratch_)));
    for (std::size_t index = 1; index < peers_.size(); ++index) {
      const std::string joined =
          post("/join", "{\"invite_token\":\"" + token + "\",\"invite_payload\":" + payload +
                            ",\"peer_pubkey\":\"" + hex(peers_[index].key) +
                            "\",\"display_name\":\"p" + std::to_string(index) + "\"}");
      peers_[index].member_id = field(joined, "memberId");
    }
    for (int count = 1; count < options_.meshes; ++count) {
      crypto::PublicKey owner;
      const auto secret = *slab_.generate(owner);
      post("/cli/mesh/create",
           "{\"name\":\"m" + std::to_string(count) + "\",\"pubkey\":\"" + hex(owner) + "\"}");
      slab_.release(secret);
      scratch_.reset();
    }
    if (options_.queued > 0) {
      crypto::PublicKey absent;
      slab_.release(*slab_.generate(absent));
      absent_ = hex(absent);
      post("/join", "{\"invite_token\":\"" + token + "\",\"invite_payload\":" + payload +
                        ",\"peer_pubkey\":\"" + absent_ + "\",\"display_name\":\"absent\"}");
    }
    // Idle connections are all of the first member, each with a session key.
    for (int count = 0; count < options_.idle; ++count) {
      Peer idle;
      idle.secret = peers_[0].secret;
      idle.key = peers_[0].key;
      idle.member_id = peers_[0].member_id;
      crypto::PublicKey mine;
      crypto::fill_random(mine.data(), mine.size());
      idle.session = crypto::view(crypto::hex_text(mine));
      peers_.push_back(std::move(idle));
    }
    scratch_.reset();
  }

  // So many at once, as clients that lost their broker come back.
  void connect_all() {
    constexpr std::size_t kAtOnce = 1000;
    for (std::size_t index = 0; index < peers_.size(); ++index) {
      connect(index);
      while (index + 1 - ready_ >= kAtOnce) pump(-1);
    }
  }

  // Messages to a member that never comes: they fill the queue before anything is measured.
  void queue_up() {
    Peer& sender = peers_[0];
    const std::string cipher(static_cast<std::size_t>((options_.body_bytes + 16 + 2) / 3 * 4), 'A');
    int left = options_.queued;
    while (left > 0 || sender.in_flight > 0) {
      for (; left > 0 && sender.in_flight < 256; --left) {
        char id[40];
        std::snprintf(id, sizeof id, "queued-%010d", left);
        frame_ = std::string("{\"type\":\"send\",\"id\":\"") + id + "\",\"client_message_id\":\"" +
                 id + "\",\"targetSpec\":\"" + absent_ +
                 "\",\"priority\":\"next\",\"nonce\":\"\",\"ciphertext\":\"" + cipher + "\"}";
        send_frame(sender, frame_);
        ++sender.in_flight;
      }
      flush(sender);
      pump(-1);
    }
  }

  // Says that all are there; with `storm` waits for the broker to go and for all to be back.
  void hold_idle() {
    std::printf("{\"connected\":%zu}\n", ready_);
    std::fflush(stdout);
    std::string line;
    if (!std::getline(std::cin, line) || !options_.storm) return;
    const Clock::time_point started = Clock::now();
    ready_ = 0;
    for (std::size_t index = 0; index < peers_.size(); ++index) {
      peers_[index].fd = {};
      peers_[index].ready = false;
      peers_[index].upgraded = false;
    }
    connect_all();
    while (ready_ < peers_.size()) pump(-1);
    std::printf("{\"back\":%zu,\"seconds\":%.3f}\n", ready_,
                std::chrono::duration<double>(Clock::now() - started).count());
    std::fflush(stdout);
    std::getline(std::cin, line);
  }

  // One message in flight at a time, alternating between the pairs.
  void send_paced() {
    const auto step = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(1.0 / options_.rate));
    for (std::size_t index = 0; index + 1 < peers_.size(); index += 2) {
      Peer& peer = peers_[index];
      if (!peer.sender) return;
      const std::uint64_t before = delivered_;
      peer.sent = Clock::now();
      paced_ = &peer;
      fill(peer, 1);
      while (delivered_ == before || peer.in_flight > 0) pump(100);
      const auto next = peer.sent + step;
      while (Clock::now() < next) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now());
        pump(static_cast<int>(left.count()) + 1);
      }
    }
  }

  void connect(std::size_t index) {
    Peer& peer = peers_[index];
    auto fd = net::connect_tcp(endpoint_.host, endpoint_.port, UINT64_MAX);
    if (!fd) die("connect: " + fd.error().detail);
    peer.fd = std::move(*fd);
    net::set_nodelay(peer.fd.get());
    peer.receiver = std::make_unique<net::WsReceiver>(net::WsRole::kClient, 4u << 20, pool_);
    peer.in = std::make_unique<PooledBuffer>(pool_);
    peer.out = std::make_unique<PooledBuffer>(pool_);
    peer.upgraded = false;
    pollfd entry{peer.fd.get(), POLLOUT, 0};
    ::poll(&entry, 1, 5000);
    net::WsNonce nonce;
    crypto::fill_random(nonce.data(), nonce.size());
    TextBuf upgrade(scratch_);
    net::ws_write_upgrade(upgrade, target_, "127.0.0.1", nonce, {});
    write_now(peer, as_bytes(upgrade.view()));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, peer.fd.get(), &event);
    build_frame(index);
  }

  void write_now(Peer& peer, Bytes bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(peer.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(sent));
        continue;
      }
      if (errno != EAGAIN) die("the broker closed a connection");
      pollfd entry{peer.fd.get(), POLLOUT, 0};
      ::poll(&entry, 1, 5000);
    }
  }

  // False until the whole answer to the upgrade is there.
  bool take_upgrade(Peer& peer) {
    const std::string_view text = as_text(peer.in->bytes());
    const std::size_t end = text.find("\r\n\r\n");
    if (end == std::string_view::npos) return false;
    if (!text.starts_with("HTTP/1.1 101")) die("no upgrade: " + std::string(text));
    peer.in->consume(end + 4);
    peer.upgraded = true;
    say_hello(peer);
    return true;
  }

  void send_frame(Peer& peer, std::string_view text) {
    net::WsMask mask;
    crypto::fill_random(mask.data(), mask.size());
    codec_.write_frame(*peer.out, net::WsOpcode::kText, text, &mask);
  }

  void flush(Peer& peer) {
    if (peer.out->empty()) return;
    write_now(peer, peer.out->bytes());
    peer.out->consume(peer.out->size());
  }

  void say_hello(Peer& peer) {
    TextBuf canonical(scratch_);
    // A signature serves once: no two hellos of one member may have the same time.
    const std::uint64_t now = hello_ms_ = std::max(hello_ms_ + 1, wall_ms() - 50'000);
    if (!crypto::canonical_hello(mesh_id_, peer.member_id, peer.key, now, canonical)) die("hello");
    TextBuf signature(scratch_);
    crypto::hex_append(crypto::sign(slab_, peer.secret, canonical.view()), signature);
    const crypto::HexText64 key = crypto::hex_text(peer.key);
    wire::Hello hello;
    hello.mesh_id = mesh_id_;
    hello.member_id = peer.member_id;
    hello.pubkey_text = crypto::view(key);
    hello.signature_text = signature.view();
    hello.session_id = peer.member_id;
    if (!peer.session.empty()) {
      hello.session_pubkey_text = peer.session;
      hello.session_id = peer.session;
    }
    hello.cwd = "/";
    hello.hostname = "bench";
    hello.peer_type = "ai";
    hello.channel = "bench";
    hello.timestamp_ms = static_cast<std::int64_t>(now);
    TextBuf text(scratch_);
    wire::write_hello(hello, text);
    send_frame(peer, text.view());
    flush(peer);
    scratch_.reset();
  }

  // A send whose id is the only thing that changes: 26 characters, also hashed into 64 digits.
  void build_frame(std::size_t index) {
    Peer& peer = peers_[index];
    if (!peer.sender) return;
    const crypto::HexText64 target = crypto::hex_text(peers_[index + 1].key);
    const std::string cipher(static_cast<std::size_t>((options_.body_bytes + 16 + 2) / 3 * 4), 'A');
    peer.frame_head = "{\"type\":\"send\",\"id\":\"";
    peer.frame_tail = "\",\"targetSpec\":\"" + std::string(crypto::view(target)) +
                      "\",\"priority\":\"next\",\"nonce\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
                      "\"ciphertext\":\"" +
                      cipher + "\"}";
  }

  void fill(Peer& peer, int window = 0) {
    while (peer.in_flight < (window > 0 ? window : options_.window)) {
      char id[27];
      std::snprintf(id, sizeof id, "%016llX0000000000",
                    static_cast<unsigned long long>(++peer.next_id));
      char fingerprint[65];
      std::snprintf(fingerprint, sizeof fingerprint, "%064llx",
                    static_cast<unsigned long long>(peer.next_id));
      frame_.assign(peer.frame_head);
      frame_ += id;
      frame_ += "\",\"client_message_id\":\"";
      frame_ += id;
      frame_ += "\",\"request_fingerprint\":\"";
      frame_ += fingerprint;
      frame_ += peer.frame_tail;
      send_frame(peer, frame_);
      ++peer.in_flight;
    }
    flush(peer);
  }

  void pump(int timeout_ms) {
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, timeout_ms);
    for (int at = 0; at < count; ++at) read_peer(peers_[events[at].data.u64]);
  }

  void read_peer(Peer& peer) {
    MutableBytes room = peer.in->prepare(256 << 10);
    const ssize_t size = ::recv(peer.fd.get(), room.data(), room.size(), 0);
    if (size == 0 || (size < 0 && errno != EAGAIN)) die("the broker closed a connection");
    if (size < 0) return;
    peer.in->commit(static_cast<std::size_t>(size));
    if (!peer.upgraded && !take_upgrade(peer)) return;
    net::WsEvent event;
    while (peer.receiver->next(codec_, *peer.in, scratch_, event)) on_event(peer, event);
    const bool measuring = start_ != Clock::time_point{} && options_.rate == 0;
    if (peer.sender && peer.ready && measuring) fill(peer);
    flush(peer);
    scratch_.reset();
  }

  // The broker writes its members in a fixed order, which this relies on for speed.
  void on_event(Peer& peer, const net::WsEvent& event) {
    if (event.kind == net::WsEvent::Kind::kPing) {
      net::WsMask mask{};
      codec_.write_frame(*peer.out, net::WsOpcode::kPong, event.payload, &mask);
      return;
    }
    if (event.kind != net::WsEvent::Kind::kMessage) die("closed: " + std::string(event.payload));
    const std::string_view text = event.payload;
    if (text.starts_with("{\"type\":\"ack\"")) {
      if (text.find("\"queued\":true") == std::string_view::npos) die(std::string(text));
      --peer.in_flight;
    } else if (text.starts_with("{\"type\":\"push\",\"messageId\":\"")) {
      constexpr std::size_t kAt = 28;
      const std::string_view id = text.substr(kAt, 26);
      ack_.assign("{\"type\":\"client_ack\",\"brokerMessageId\":\"");
      ack_ += id;
      ack_ += "\"}";
      send_frame(peer, ack_);
      ++delivered_;
      if (paced_ != nullptr) {
        latencies_us_.push_back(
            std::chrono::duration<double, std::micro>(Clock::now() - paced_->sent).count());
      }
    } else if (text.starts_with("{\"type\":\"hello_ack\"")) {
      peer.ready = true;
      ++ready_;
    } else if (text.starts_with("{\"type\":\"error\"")) {
      die(std::string(text));
    }
  }

  const Options options_;
  crypto::SecretSlab slab_;
  ScratchArena scratch_;
  BufferPool pool_;
  net::WsCodec codec_;
  wire::JsonParser parser_;
  net::Endpoint endpoint_;
  std::string target_, mesh_id_, frame_, ack_, absent_;
  std::vector<double> latencies_us_;
  const Peer* paced_ = nullptr;
  std::uint64_t hello_ms_ = 0;
  std::vector<Peer> peers_;
  net::Fd epoll_;
  std::size_t ready_ = 0;
  Clock::time_point start_{};
  std::uint64_t delivered_ = 0;
  std::uint64_t measured_ = 0;
};

}  // namespace

// NAME=NUMBER
bool set_option(Options& options, const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return false;
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const struct {
    const char* name;
    int* number;
  } numbers[] = {{"pairs", &options.pairs},     {"window", &options.window},
                 {"body", &options.body_bytes}, {"rate", &options.rate},
                 {"idle", &options.idle},       {"queued", &options.queued},
                 {"meshes", &options.meshes}};
  for (const auto& entry : numbers) {
    if (name != entry.name) continue;
    *entry.number = std::atoi(value.c_str());
    return true;
  }
  if (name == "seconds") options.seconds = std::atof(value.c_str());
  if (name == "storm") options.storm = value == "1";
  return name == "seconds" || name == "storm";
}

int main(int argc, char** argv) {
  if (argc < 3) {
    die("usage: broker_load URL TOKEN_FILE [pairs= window= body= seconds= rate= idle= queued= "
        "meshes= storm=1]");
  }
  if (!crypto::initialise()) die("no random source");
  Options options;
  options.url = argv[1];
  std::ifstream(argv[2]) >> options.token;
  for (int index = 3; index < argc; ++index) {
    if (!set_option(options, argv[index])) die(std::string("unknown: ") + argv[index]);
  }
  Load(options).run();
  return 0;
}
