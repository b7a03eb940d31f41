// peer.cc — connecting, the handshake, and what a loss ends.
// Holds:  each phase has one way out that fails, lost(), and it leaves nothing of the connection.
// Not:    an open connection (frames.cc).
#include "transports/ws_broker/peer.h"

#include <cstring>
#include <string>
#include <utility>

namespace cm::ws_broker {
namespace {

constexpr std::uint64_t kHandshakeMs = 10'000;

Peer* self_of(void* context) noexcept { return static_cast<Peer*>(context); }

}  // namespace

Peer::Peer(const Services& services, Settings settings)
    : services_(services),
      settings_(std::move(settings)),
      receiver_(net::WsRole::kClient, settings_.max_frame_bytes, pool_),
      dial_(
          services_, settings_,
          [](void* self, Descriptor fd, std::string_view sentence) {
            self_of(self)->on_connected(std::move(fd), sentence);
          },
          this),
      pump_(services_, pool_,
            {[](void* self) { self_of(self)->on_readable(); },
             [](void* self) { self_of(self)->flush(); },
             [](void* self, std::uint64_t id, std::uint32_t outcome) {
               const Peer* peer = self_of(self);
               peer->services_.host->sent(peer->services_.host, peer->id(), id, outcome);
             }},
            this),
      attempt_(
          services_, [](void* self) { self_of(self)->begin_attempt(); }, this),
      deadline_(
          services_,
          [](void* self) {
            Peer* peer = self_of(self);
            peer->lost(net::ws_code::kAbnormal, peer->late_sentence());
          },
          this),
      flush_(
          services_, [](void* self) { self_of(self)->flush(); }, this),
      ping_(
          services_, [](void* self) { self_of(self)->on_ping_time(); }, this),
      farewell_(services_) {
  attempt_.start(0);
}

void Peer::report(std::uint32_t state, std::uint32_t code, std::string_view detail) {
  services_.host->state(services_.host, id(), state, code, span_of(detail));
}

void Peer::begin_attempt() {
  if (phase_ == Phase::kNew) report(CM_PEER_CONNECTING, 0, "");
  phase_ = Phase::kDialing;
  deadline_.start(kHandshakeMs);
  dial_.start();
}

void Peer::on_connected(Descriptor fd, std::string_view sentence) {
  if (!fd) {
    lost(net::ws_code::kAbnormal, sentence);
    return;
  }
  if (!pump_.open(std::move(fd))) {
    lost(net::ws_code::kAbnormal, "the connection cannot be watched");
    return;
  }
  if (settings_.secure) {
    start_tls();
  } else {
    send_upgrade();
  }
}

const char* Peer::late_sentence() const noexcept {
  switch (phase_) {
    case Phase::kDialing: return "no connection to the broker within 10 s";
    case Phase::kTls: return "the TLS handshake with the broker did not end within 10 s";
    default: return "no answer to the WebSocket handshake within 10 s";
  }
}

// The CA file is read at each attempt, so that a new one needs no restart.
void Peer::start_tls() {
  const Result<net::TlsContext> context = net::TlsContext::client(settings_.ca_file);
  if (!context) {
    lost_tls(context.error().detail);
    return;
  }
  pump_.start_tls(*context, settings_.host);
  phase_ = Phase::kTls;
  shake_hands();
}

void Peer::shake_hands() {
  if (pump_.shake_hands() == Pump::Io::kError) {
    lost_tls(pump_.tls_failure());
  } else if (pump_.shook()) {
    send_upgrade();
  }
}

// An operator finds it in the log as well, but not once for each attempt.
void Peer::lost_tls(std::string_view sentence) {
  const std::string text(sentence);
  if (text != warned_) services_.warn(text);
  warned_ = text;
  lost(net::ws_code::kAbnormal, text);
}

void Peer::send_upgrade() {
  phase_ = Phase::kHandshake;
  http_ = {};
  services_.random->fill(services_.host, nonce_.data(), nonce_.size());
  TextBuf request(arena_);
  net::ws_write_upgrade(request, settings_.target, settings_.host_header, nonce_, {});
  pump_.out().append(as_bytes(request.view()));
  arena_.reset();
  flush();
}

void Peer::read_handshake(bool ended) {
  net::HttpResponse response;
  const net::HttpLimits limits;
  const net::HttpStep step =
      net::parse_response_head(pump_.in().bytes(), limits, http_, arena_, response);
  if (step.kind == net::HttpStep::Kind::kRefused) {
    const std::string text =
        "the answer to the WebSocket handshake is no HTTP: " + std::string(step.refusal.sentence);
    lost(net::ws_code::kAbnormal, text);
    return;
  }
  if (step.kind != net::HttpStep::Kind::kComplete) {
    arena_.reset();
    if (ended) lost_io("the broker hung up during the WebSocket handshake");
    return;
  }
  const std::string_view fault = net::ws_check_accept(response, nonce_);
  if (response.status != 101) {
    lost(net::ws_code::kAbnormal,
         "the broker answered " + std::to_string(response.status) + " to the WebSocket handshake");
    return;
  }
  if (!fault.empty()) {
    lost(net::ws_code::kAbnormal, fault);
    return;
  }
  pump_.in().consume(step.size);
  arena_.reset();
  deadline_.cancel();
  dial_.keep();
  phase_ = Phase::kOpen;
  warned_.clear();
  last_heard_ms_ = services_.now_ms();
  services_.count("connected");
  report(CM_PEER_CONNECTED, 0, "");
  read_frames();
}

void Peer::lost_io(std::string_view what) {
  std::string text(what);
  if (!pump_.tls_failure().empty()) {
    text += ": ";
    text += pump_.tls_failure();
  } else if (pump_.error() != 0) {
    text += ": ";
    text += std::strerror(pump_.error());
  }
  lost(net::ws_code::kAbnormal, text);
}

void Peer::lost(std::uint32_t code, std::string_view sentence) {
  const std::string text(sentence);  // it may point into what goes now
  if (phase_ == Phase::kOpen) services_.count("lost");
  dial_.cancel();
  pump_.close();  // sent(CM_SENT_DROPPED) for what is on the way
  deadline_.cancel();
  flush_.cancel();
  ping_.cancel();
  receiver_ = net::WsReceiver(net::WsRole::kClient, settings_.max_frame_bytes, pool_);
  refused_ = {};
  paused_ = false;
  blocked_ = false;
  arena_.reset();
  phase_ = Phase::kWaiting;
  report(CM_PEER_CONNECTING, code, text);
  std::uint64_t random = 0;
  services_.random->fill(services_.host, reinterpret_cast<std::uint8_t*>(&random), sizeof random);
  attempt_.start(random % (backoff_.next_cap_ms() + 1));
}

void Peer::note(std::uint32_t verdict) {
  if (verdict == CM_NOTE_AUTH_FAILED) {
    backoff_.auth_failed();
    return;
  }
  backoff_.ready();
  if (phase_ != Phase::kOpen) return;
  start_pings();
}

}  // namespace cm::ws_broker
