// frames.cc — an open connection: messages both ways, ping, the stale rule, close.
// Holds:  lost() and fail() may be called from anywhere here, so phase_ is checked after them.
// Source: docs/PROTOCOL.md §1; RFC 6455 §5 to §7; spec/wire.md §1.
// Not:    framing itself (core/net/ws_frame.h).
#include <algorithm>
#include <string>

#include "core/base/utf8.h"
#include "transports/ws_broker/peer.h"

namespace cm::ws_broker {
namespace {

constexpr std::size_t kOutBytesMax = 4 << 20;
constexpr std::uint64_t kPingMs = 30'000;
constexpr std::uint64_t kStaleMs = 75'000;

}  // namespace

cm_status Peer::send(const cm_frame& frame, std::uint64_t frame_id) {
  if (phase_ != Phase::kOpen) return CM_E_CLOSED;
  const std::string_view payload = text_of(frame.data);
  if (payload.size() > kFrameBytesMax) return CM_E_TOO_BIG;
  const std::size_t waiting = pump_.out().size();
  const std::size_t bytes = net::WsCodec::frame_bytes(payload.size(), true);
  if (waiting != 0 && waiting + bytes > kOutBytesMax) {
    blocked_ = true;
    return CM_WOULD_BLOCK;
  }
  // Brokers expect text; what is none would end the connection (§8.1), so it goes as binary.
  write_frame(utf8_valid(payload) ? net::WsOpcode::kText : net::WsOpcode::kBinary, payload);
  pump_.mark(frame_id);
  flush_soon();
  return CM_OK;
}

void Peer::write_frame(net::WsOpcode opcode, std::string_view payload) {
  const net::WsMask mask = fresh_mask();
  codec_.write_frame(pump_.out(), opcode, payload, &mask);
}

// A broker that sends pings and reads nothing makes our output grow no further.
void Peer::write_probe(net::WsOpcode opcode, std::string_view payload) {
  if (pump_.out().size() > kOutBytesMax) return;
  write_frame(opcode, payload);
  flush_soon();
}

void Peer::write_close(std::uint16_t code, std::string_view reason) {
  const net::WsMask mask = fresh_mask();
  codec_.write_close(pump_.out(), code, reason, &mask);
}

net::WsMask Peer::fresh_mask() {
  // Asked for in bulk: one system call for 64 frames.
  if (masks_used_ == mask_bytes_.size()) {
    services_.random->fill(services_.host, mask_bytes_.data(), mask_bytes_.size());
    masks_used_ = 0;
  }
  net::WsMask mask;
  std::copy_n(mask_bytes_.begin() + static_cast<std::ptrdiff_t>(masks_used_), mask.size(),
              mask.begin());
  masks_used_ += mask.size();
  return mask;
}

void Peer::flush_soon() {
  if (!flush_.running()) flush_.start(0);
}

void Peer::flush() {
  flush_.cancel();
  if (pump_.flush() == Pump::Io::kError) {
    lost_io("the connection to the broker broke");
    return;
  }
  if (blocked_ && pump_.out().size() < kOutBytesMax / 2) {
    blocked_ = false;
    services_.host->writable(services_.host, id());
  }
}

void Peer::on_readable() {
  if (phase_ == Phase::kTls) return shake_hands();
  const Pump::Io io = pump_.read_some();
  if (io == Pump::Io::kOk) last_heard_ms_ = services_.now_ms();
  if (phase_ == Phase::kHandshake) {
    read_handshake(io != Pump::Io::kOk);
  } else {
    read_frames();
  }
  // An end behind a message that the host has not taken yet is found again after resume().
  if (io != Pump::Io::kOk && phase_ == Phase::kOpen && !paused_) {
    lost_io("the broker hung up without a close frame");
  }
}

void Peer::read_frames() {
  net::WsEvent event;
  while (phase_ == Phase::kOpen && !paused_ && receiver_.next(codec_, pump_.in(), arena_, event)) {
    switch (event.kind) {
      case net::WsEvent::Kind::kMessage:
        if (!deliver(event.payload)) return;
        break;
      case net::WsEvent::Kind::kPing: write_probe(net::WsOpcode::kPong, event.payload); break;
      case net::WsEvent::Kind::kPong: break;
      case net::WsEvent::Kind::kClose: return answer_close(event.code, event.payload);
      case net::WsEvent::Kind::kError: return fail(event.code, event.payload);
    }
    arena_.reset();
  }
}

// False: stop reading.
bool Peer::deliver(std::string_view message) {
  const cm_frame frame{sizeof(cm_frame), CM_FRAME_CONTROL, span_of(message)};
  const cm_status status = services_.host->deliver(services_.host, id(), &frame, token_);
  if (status == CM_OK) {
    ++token_;
    return true;
  }
  if (status == CM_E_TOO_BIG) {
    fail(net::ws_code::kTooBig, "the message is larger than this daemon takes");
    return false;
  }
  refused_ = message;
  paused_ = true;
  pump_.set_reading(false);
  return false;
}

void Peer::resume() {
  if (!paused_) return;
  paused_ = false;
  last_heard_ms_ = services_.now_ms();  // silence that was ours
  if (!deliver(refused_)) return;
  refused_ = {};
  arena_.reset();
  read_frames();
  if (phase_ != Phase::kOpen || paused_) return;
  pump_.set_reading(true);
  if (pump_.saw_end()) on_readable();
}

void Peer::answer_close(std::uint16_t code, std::string_view reason) {
  std::string text = "the broker closed the connection";
  if (!reason.empty()) text += ": " + std::string(reason);
  part_with(code, {});
  lost(code, text);
}

void Peer::fail(std::uint16_t code, std::string_view sentence) {
  const std::string text(sentence);  // it may point into what goes now
  part_with(code, text);
  lost(code, text);
}

// What the broker still sends is unread: closing outright would reset the connection, and the
// broker might never read our close frame. So its end is left to the farewell.
void Peer::part_with(std::uint16_t code, std::string_view reason) {
  write_close(code, reason);
  static_cast<void>(pump_.flush());
  farewell_.begin(pump_.take());
}

void Peer::heartbeat() {
  if (phase_ != Phase::kOpen) return;
  write_probe(net::WsOpcode::kPing, {});
}

// Upon an accepted hello; until then the core's own deadline holds.
void Peer::start_pings() {
  ping_at_ms_ = services_.now_ms() + kPingMs;
  on_ping_time();
}

void Peer::on_ping_time() {
  const std::uint64_t now = services_.now_ms();
  if (now >= last_heard_ms_ + kStaleMs) {
    services_.count("stale");
    lost(net::ws_code::kAbnormal, "nothing was heard from the broker for 75 s");
    return;
  }
  if (now >= ping_at_ms_) {
    heartbeat();
    ping_at_ms_ = now + kPingMs;
  }
  ping_.start(std::min(ping_at_ms_, last_heard_ms_ + kStaleMs) - now);
}

void Peer::say_goodbye(std::uint32_t code, std::string_view reason) {
  pump_.forget();
  if (phase_ != Phase::kOpen) return;
  write_close(code <= UINT16_MAX ? static_cast<std::uint16_t>(code) : net::ws_code::kNormal,
              reason);
  static_cast<void>(pump_.flush());
}

}  // namespace cm::ws_broker
