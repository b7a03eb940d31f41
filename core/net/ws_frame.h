// ws_frame.h — WebSocket frames and messages, both roles (RFC 6455 §5 to §8).
// Owns:   WsCodec (one a loop: the wslay context), WsReceiver (one a connection, some 60 bytes).
// Holds:  a frame is refused by its header alone, before its payload is buffered or anything is
//         allocated for it; text is UTF-8 or the connection ends; no reserved code is ever sent.
// Why:    wslay reads ahead and cannot be reset, so its one context is fed one complete frame at
//         a time. Masks are ours, put on and taken off in the copies that wslay asks for: its own
//         byte-wise loop costs 0.5 us for 600 bytes.
// Limits: a message of at most the receiver's limit, fragments summed (1009).
// Not:    extensions: permessage-deflate is never negotiated, so RSV bits are errors.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/arena.h"

struct wslay_frame_context;

namespace cm::net {

enum class WsRole : std::uint8_t { kServer, kClient };

enum class WsOpcode : std::uint8_t {
  kContinuation = 0,
  kText = 1,
  kBinary = 2,
  kClose = 8,
  kPing = 9,
  kPong = 10
};

// RFC 6455 §7.4.1. 1005 and 1006 are for reports only: they never travel.
namespace ws_code {
constexpr std::uint16_t kNormal = 1000;
constexpr std::uint16_t kGoingAway = 1001;
constexpr std::uint16_t kProtocol = 1002;
constexpr std::uint16_t kNone = 1005;
constexpr std::uint16_t kAbnormal = 1006;
constexpr std::uint16_t kNotUtf8 = 1007;
constexpr std::uint16_t kPolicy = 1008;
constexpr std::uint16_t kTooBig = 1009;
constexpr std::uint16_t kInternal = 1011;
}  // namespace ws_code

// May this code stand in a close frame? 1000-1003, 1007-1014 and 3000-4999.
bool ws_close_code_valid(std::uint16_t code) noexcept;

using WsMask = std::array<std::uint8_t, 4>;

struct WsEvent {
  enum class Kind : std::uint8_t { kMessage, kPing, kPong, kClose, kError };
  Kind kind = Kind::kMessage;
  bool binary = false;
  // kClose: the peer's code, or 1005 if it gave none. kError: the code to close with.
  std::uint16_t code = 0;
  // Message, ping or pong payload, close reason, or a sentence about the error. In the arena,
  // until its reset().
  std::string_view payload;
};

class WsCodec {
 public:
  WsCodec();
  ~WsCodec();
  WsCodec(const WsCodec&) = delete;
  WsCodec& operator=(const WsCodec&) = delete;

  // Appends one unfragmented frame. Clients give a fresh random mask, servers none (§5.3).
  void write_frame(PooledBuffer& out, WsOpcode opcode, std::string_view payload,
                   const WsMask* mask);
  void write_frame(TextBuf& out, WsOpcode opcode, std::string_view payload, const WsMask* mask);
  // A code that must not travel gives a close frame without a code. The reason is cut at 123
  // bytes, between two characters.
  void write_close(PooledBuffer& out, std::uint16_t code, std::string_view reason,
                   const WsMask* mask);
  void write_close(TextBuf& out, std::uint16_t code, std::string_view reason, const WsMask* mask);

  static std::size_t frame_bytes(std::size_t payload, bool masked) noexcept;

 private:
  friend class WsReceiver;
  struct Feed;  // what wslay reads from and writes to during one call

  void encode(MutableBytes to, WsOpcode opcode, std::string_view payload, const WsMask* mask);
  // Decodes one complete frame, whose header is known, into `to`. False if wslay refuses it.
  bool decode(Bytes frame, std::size_t header_bytes, bool masked, MutableBytes to);
  void recreate();

  wslay_frame_context* context_ = nullptr;
  Feed* feed_ = nullptr;
};

class WsReceiver {
 public:
  WsReceiver(WsRole role, std::uint32_t limit, BufferPool& pool) noexcept
      : partial_(pool), limit_(limit), role_(role) {}

  void set_limit(std::uint32_t bytes) noexcept { limit_ = bytes; }
  std::uint32_t limit() const noexcept { return limit_; }

  // Takes one event from the front of `in`; false when more bytes are needed. After kClose or
  // kError nothing more is taken: further input has no meaning.
  bool next(WsCodec& codec, PooledBuffer& in, ScratchArena& arena, WsEvent& out);

  // A fragmented message has begun and not ended.
  bool in_message() const noexcept { return fragment_ != WsOpcode::kContinuation; }
  bool finished() const noexcept { return finished_; }
  // Bytes of the block that an unfinished message holds.
  std::size_t held_bytes() const noexcept { return partial_.capacity(); }
  // Gives it back; nothing more is taken.
  void abandon() noexcept {
    finished_ = true;
    partial_.release();
  }

 private:
  struct Header {
    std::uint64_t payload = 0;
    std::uint8_t header_bytes = 0;
    WsOpcode opcode = WsOpcode::kContinuation;
    bool fin = false;
    bool masked = false;
  };
  enum class Peek : std::uint8_t { kNeedMore, kOk, kError };

  Peek peek(Bytes in, Header& header, WsEvent& error) const noexcept;
  std::string_view first_bytes_fault(Bytes in, const Header& header) const noexcept;
  bool take_data(WsCodec& codec, Bytes frame, const Header& header, ScratchArena& arena,
                 WsEvent& out);
  void take_control(WsOpcode opcode, std::string_view payload, WsEvent& out) const noexcept;
  void fail(std::uint16_t code, std::string_view sentence, WsEvent& out) noexcept;

  PooledBuffer partial_;  // owns a block only within a fragmented message
  std::uint32_t limit_;
  WsRole role_;
  WsOpcode fragment_ = WsOpcode::kContinuation;  // kText or kBinary within a fragmented message
  bool finished_ = false;
};

}  // namespace cm::net
