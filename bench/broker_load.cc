// broker_load.cc — drives a real broker with pairs of WebSocket clients and counts what arrives.
// Owns:   the client of the measurement: joins, hellos, a window of sends a pair, acks of pushes.
// Holds:  a message counts when its recipient has acknowledged it. Frames are built once; only the
//         id and fingerprint change. Prints one JSON object.
// Why:    with the broker on one core and this on the other, this must cost less than the broker.
// Not:    a test: nothing here is asserted but that the protocol works.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
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
  bool sender = false;
  bool ready = false;
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
    for (std::size_t index = 0; index < peers_.size(); ++index) connect(index);
    while (ready_ < peers_.size()) pump(-1);
    start_ = Clock::now();
    const auto end = start_ + std::chrono::duration<double>(options_.seconds);
    for (Peer& peer : peers_) {
      if (peer.sender) fill(peer);
    }
    while (Clock::now() < end) pump(100);
    measured_ = delivered_;
    const double spent = std::chrono::duration<double>(Clock::now() - start_).count();
    std::printf(
        "{\"pairs\":%d,\"window\":%d,\"body_bytes\":%d,\"seconds\":%.2f,"
        "\"delivered\":%llu,\"per_second\":%.0f}\n",
        options_.pairs, options_.window, options_.body_bytes, spent,
        static_cast<unsigned long long>(measured_), static_cast<double>(measured_) / spent);
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
    peers_.resize(static_cast<std::size_t>(options_.pairs) * 2);
    for (std::size_t index = 0; index < peers_.size(); ++index) {
      Peer& peer = peers_[index];
      peer.secret = *slab_.generate(peer.key);
      peer.sender = index % 2 == 0;
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
    scratch_.reset();
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
    pollfd entry{peer.fd.get(), POLLOUT, 0};
    ::poll(&entry, 1, 5000);
    net::WsNonce nonce;
    crypto::fill_random(nonce.data(), nonce.size());
    TextBuf upgrade(scratch_);
    net::ws_write_upgrade(upgrade, target_, "127.0.0.1", nonce, {});
    write_now(peer, as_bytes(upgrade.view()));
    read_upgrade(peer);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, peer.fd.get(), &event);
    say_hello(peer);
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

  void read_upgrade(Peer& peer) {
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      pollfd entry{peer.fd.get(), POLLIN, 0};
      if (::poll(&entry, 1, 5000) <= 0) die("no answer to the upgrade");
      char c;
      if (::recv(peer.fd.get(), &c, 1, 0) == 1) head += c;
    }
    if (!head.starts_with("HTTP/1.1 101")) die("no upgrade: " + head);
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
    const std::uint64_t now = wall_ms();
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

  void fill(Peer& peer) {
    while (peer.in_flight < options_.window) {
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
    net::WsEvent event;
    while (peer.receiver->next(codec_, *peer.in, scratch_, event)) on_event(peer, event);
    if (peer.sender && peer.ready && start_ != Clock::time_point{}) fill(peer);
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
  std::string target_, mesh_id_, frame_, ack_;
  std::vector<Peer> peers_;
  net::Fd epoll_;
  std::size_t ready_ = 0;
  Clock::time_point start_{};
  std::uint64_t delivered_ = 0;
  std::uint64_t measured_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) die("usage: broker_load URL TOKEN_FILE [PAIRS] [SECONDS] [WINDOW] [BODY_BYTES]");
  if (!crypto::initialise()) die("no random source");
  Options options;
  options.url = argv[1];
  std::ifstream(argv[2]) >> options.token;
  if (argc > 3) options.pairs = std::atoi(argv[3]);
  if (argc > 4) options.seconds = std::atof(argv[4]);
  if (argc > 5) options.window = std::atoi(argv[5]);
  if (argc > 6) options.body_bytes = std::atoi(argv[6]);
  Load(options).run();
  return 0;
}
