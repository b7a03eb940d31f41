// ws_frame.cc — the frame codec over wslay's frame API, and message assembly.
// Owns:   all calls of wslay.
// Holds:  between two calls the wslay context is at a frame border; after an error it is new.
// Not:    who answers pings and closes (server_ws.cc, and a transport's own client).
#include "core/net/ws_frame.h"

#include <wslay/wslay.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/base/utf8.h"

namespace cm::net {
namespace {

constexpr std::size_t kControlMax = 125;
constexpr std::size_t kReasonMax = 123;
constexpr std::size_t kMaskBytes = 4;

// XORs eight bytes a step, which masks and unmasks alike; `phase` is the offset of `from` in the
// payload.
void copy_masked(std::uint8_t* to, const std::uint8_t* from, std::size_t size,
                 const std::uint8_t* key, std::size_t phase) noexcept {
  std::array<std::uint8_t, 8> turned;
  for (std::size_t index = 0; index < turned.size(); ++index) {
    turned[index] = key[(phase + index) % kMaskBytes];
  }
  const auto word = load_le<std::uint64_t>(turned.data());
  std::size_t at = 0;
  for (; size - at >= 8; at += 8) store_le(to + at, load_le<std::uint64_t>(from + at) ^ word);
  for (; at < size; ++at) to[at] = from[at] ^ turned[at % 8];
}

}  // namespace

// One frame in or one frame out. wslay sees every frame as if it were unmasked: apart from the
// cost, a context that has sent one masked frame masks all later ones (1.1.1).
struct WsCodec::Feed {
  std::array<std::uint8_t, 10> header{};
  std::size_t header_size = 0;
  std::size_t header_at = 0;
  Bytes payload;
  std::size_t payload_at = 0;
  const std::uint8_t* key = nullptr;

  MutableBytes to;
  std::size_t written = 0;
  const WsMask* mask = nullptr;
};

namespace {

// wslay takes 0 for an error; -1 tells it that nothing is there, which we never let happen
// within a frame.
template <class Feed>
ssize_t give(Feed& feed, std::uint8_t* to, std::size_t room) noexcept {
  std::size_t given = std::min(room, feed.header_size - feed.header_at);
  std::memcpy(to, feed.header.data() + feed.header_at, given);
  feed.header_at += given;
  const std::size_t size = std::min(room - given, feed.payload.size() - feed.payload_at);
  const std::uint8_t* from = feed.payload.data() + feed.payload_at;
  if (size != 0 && feed.key != nullptr) {
    copy_masked(to + given, from, size, feed.key, feed.payload_at);
  } else if (size != 0) {
    std::memcpy(to + given, from, size);
  }
  feed.payload_at += size;
  given += size;
  return given == 0 ? -1 : static_cast<ssize_t>(given);
}

template <class Feed>
ssize_t take(Feed& feed, const std::uint8_t* from, std::size_t size) noexcept {
  const bool header = feed.written == 0;  // wslay gives the header in a call of its own
  const std::size_t key = header && feed.mask != nullptr ? kMaskBytes : 0;
  if (size + key > feed.to.size() - feed.written) return -1;
  std::uint8_t* to = feed.to.data() + feed.written;
  if (feed.mask == nullptr) {
    std::memcpy(to, from, size);
  } else if (header) {
    std::memcpy(to, from, size);
    to[1] |= 0x80;
    std::memcpy(to + size, feed.mask->data(), kMaskBytes);
  } else {
    copy_masked(to, from, size, feed.mask->data(), feed.payload_at);
    feed.payload_at += size;
  }
  feed.written += size + key;
  return static_cast<ssize_t>(size);
}

}  // namespace

bool ws_close_code_valid(std::uint16_t code) noexcept {
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
         (code >= 3000 && code <= 4999);
}

WsCodec::WsCodec() { recreate(); }

WsCodec::~WsCodec() { wslay_frame_context_free(context_); }

void WsCodec::recreate() {
  if (context_ != nullptr) wslay_frame_context_free(context_);
  wslay_frame_callbacks callbacks{};
  callbacks.recv_callback = [](std::uint8_t* to, std::size_t size, int, void* user) -> ssize_t {
    return give(*static_cast<WsCodec*>(user)->feed_, to, size);
  };
  callbacks.send_callback = [](const std::uint8_t* from, std::size_t size, int,
                               void* user) -> ssize_t {
    return take(*static_cast<WsCodec*>(user)->feed_, from, size);
  };
  CHECK_EQ(wslay_frame_context_init(&context_, &callbacks, this), 0);
}

bool WsCodec::decode(Bytes frame, std::size_t header_bytes, bool masked, MutableBytes to) {
  Feed feed;
  feed.header_size = header_bytes - (masked ? kMaskBytes : 0);
  CHECK(feed.header_size <= feed.header.size() && frame.size() == header_bytes + to.size());
  std::memcpy(feed.header.data(), frame.data(), feed.header_size);
  feed.header[1] &= 0x7f;
  feed.payload = frame.subspan(header_bytes);
  if (masked) feed.key = frame.data() + feed.header_size;
  feed_ = &feed;
  std::size_t done = 0;
  bool ok = true;
  do {
    wslay_frame_iocb part{};
    const ssize_t size = wslay_frame_recv(context_, &part);
    ok = size >= 0 && part.payload_length == to.size() && part.data_length <= to.size() - done;
    if (!ok) break;
    if (part.data_length != 0) std::memcpy(to.data() + done, part.data, part.data_length);
    done += part.data_length;
  } while (done < to.size());
  feed_ = nullptr;
  if (!ok) recreate();
  return ok;
}

void WsCodec::encode(MutableBytes to, WsOpcode opcode, std::string_view payload,
                     const WsMask* mask) {
  Feed feed;
  feed.to = to;
  feed.mask = mask;
  feed_ = &feed;
  const Bytes bytes = as_bytes(payload);
  std::size_t done = 0;
  do {
    wslay_frame_iocb part{};
    part.fin = 1;
    part.opcode = static_cast<std::uint8_t>(opcode);
    part.payload_length = bytes.size();
    part.data = bytes.data() + done;
    part.data_length = bytes.size() - done;
    const ssize_t size = wslay_frame_send(context_, &part);
    CHECK(size >= 0);  // the room was computed for exactly this frame
    done += static_cast<std::size_t>(size);
  } while (done < bytes.size());
  feed_ = nullptr;
  CHECK_EQ(feed.written, to.size());
}

std::size_t WsCodec::frame_bytes(std::size_t payload, bool masked) noexcept {
  const std::size_t length = payload < 126 ? 0 : payload < 65536 ? 2 : 8;
  return 2 + length + (masked ? kMaskBytes : 0) + payload;
}

void WsCodec::write_frame(PooledBuffer& out, WsOpcode opcode, std::string_view payload,
                          const WsMask* mask) {
  const std::size_t size = frame_bytes(payload.size(), mask != nullptr);
  encode(out.prepare(size).first(size), opcode, payload, mask);
  out.commit(size);
}

void WsCodec::write_frame(TextBuf& out, WsOpcode opcode, std::string_view payload,
                          const WsMask* mask) {
  const std::size_t size = frame_bytes(payload.size(), mask != nullptr);
  encode({reinterpret_cast<std::uint8_t*>(out.grow(size)), size}, opcode, payload, mask);
}

namespace {

struct ClosePayload {
  std::array<char, kControlMax> room;
  std::size_t size = 0;
  std::string_view view() const noexcept { return {room.data(), size}; }
};

ClosePayload close_payload(std::uint16_t code, std::string_view reason) noexcept {
  ClosePayload payload;
  if (!ws_close_code_valid(code)) return payload;
  payload.room[0] = static_cast<char>(code >> 8);
  payload.room[1] = static_cast<char>(code & 0xff);
  const std::string_view cut = utf8_prefix(reason, kReasonMax);
  if (!cut.empty()) std::memcpy(payload.room.data() + 2, cut.data(), cut.size());
  payload.size = 2 + cut.size();
  return payload;
}

}  // namespace

void WsCodec::write_close(PooledBuffer& out, std::uint16_t code, std::string_view reason,
                          const WsMask* mask) {
  write_frame(out, WsOpcode::kClose, close_payload(code, reason).view(), mask);
}
void WsCodec::write_close(TextBuf& out, std::uint16_t code, std::string_view reason,
                          const WsMask* mask) {
  write_frame(out, WsOpcode::kClose, close_payload(code, reason).view(), mask);
}

// What the first two bytes alone decide (RFC 6455 §5.2, §5.4, §5.5); empty if they are fine.
std::string_view WsReceiver::first_bytes_fault(Bytes in, const Header& header) const noexcept {
  if ((in[0] & 0x70) != 0) return "a reserved bit is set and no extension was agreed";
  const auto opcode = static_cast<std::uint8_t>(header.opcode);
  if ((opcode > 2 && opcode < 8) || opcode > 10) return "the opcode is reserved";
  if (header.masked != (role_ == WsRole::kServer)) {
    return role_ == WsRole::kServer ? "a client's frame is not masked"
                                    : "a server's frame is masked";
  }
  if (opcode >= 8) {
    if (!header.fin) return "a control frame is fragmented";
    if ((in[1] & 0x7f) > kControlMax) return "a control frame is longer than 125 bytes";
    return {};
  }
  if (header.opcode == WsOpcode::kContinuation) {
    return in_message() ? std::string_view() : "a continuation continues nothing";
  }
  return in_message() ? "a new message begins within another" : std::string_view();
}

WsReceiver::Peek WsReceiver::peek(Bytes in, Header& header, WsEvent& error) const noexcept {
  if (in.size() < 2) return Peek::kNeedMore;
  header.fin = (in[0] & 0x80) != 0;
  header.opcode = static_cast<WsOpcode>(in[0] & 0x0f);
  header.masked = (in[1] & 0x80) != 0;
  error.code = ws_code::kProtocol;
  error.payload = first_bytes_fault(in, header);
  if (!error.payload.empty()) return Peek::kError;

  const std::size_t length7 = in[1] & 0x7f;
  const std::size_t length_bytes = length7 == 126 ? 2 : length7 == 127 ? 8 : 0;
  header.header_bytes = static_cast<std::uint8_t>(2 + length_bytes + (header.masked ? 4 : 0));
  if (in.size() < 2 + length_bytes) return Peek::kNeedMore;
  header.payload = length7;
  if (length_bytes == 2) header.payload = static_cast<std::uint64_t>(in[2]) << 8 | in[3];
  if (length_bytes == 8) header.payload = load_be64(in.data() + 2);
  const bool minimal =
      length_bytes == 0 || (length_bytes == 2 ? header.payload > 125 : header.payload > 65535);
  if (!minimal || (header.payload >> 63) != 0) {
    error.payload = "the length is not in its shortest form";
    return Peek::kError;
  }
  const bool control = static_cast<std::uint8_t>(header.opcode) >= 8;
  const std::uint64_t room = limit_ > partial_.size() ? limit_ - partial_.size() : 0;
  if (!control && header.payload > room) {
    error.code = ws_code::kTooBig;
    error.payload = "the message is larger than the limit";
    return Peek::kError;
  }
  return in.size() < header.header_bytes + header.payload ? Peek::kNeedMore : Peek::kOk;
}

void WsReceiver::fail(std::uint16_t code, std::string_view sentence, WsEvent& out) noexcept {
  out = {WsEvent::Kind::kError, false, code, sentence};
}

void WsReceiver::take_control(WsOpcode opcode, std::string_view payload,
                              WsEvent& out) const noexcept {
  out = {opcode == WsOpcode::kPing ? WsEvent::Kind::kPing : WsEvent::Kind::kPong, false, 0,
         payload};
  if (opcode != WsOpcode::kClose) return;
  out = {WsEvent::Kind::kClose, false, ws_code::kNone, {}};
  if (payload.empty()) return;
  const Bytes bytes = as_bytes(payload);
  out.kind = WsEvent::Kind::kError;
  out.code = ws_code::kProtocol;
  if (bytes.size() == 1) {
    out.payload = "a close code is cut short";
    return;
  }
  const auto code = static_cast<std::uint16_t>(bytes[0] << 8 | bytes[1]);
  if (!ws_close_code_valid(code)) {
    out.payload = "the close code is not one that may be sent";
    return;
  }
  if (!utf8_valid(payload.substr(2))) {
    out.code = ws_code::kNotUtf8;
    out.payload = "the close reason is not UTF-8";
    return;
  }
  out = {WsEvent::Kind::kClose, false, code, payload.substr(2)};
}

// True if `out` was filled: the message is complete, or wrong.
bool WsReceiver::take_data(WsCodec& codec, Bytes frame, const Header& header, ScratchArena& arena,
                           WsEvent& out) {
  const auto size = static_cast<std::size_t>(header.payload);
  const bool whole = header.fin && !in_message();
  const MutableBytes to = whole ? MutableBytes(arena.allocate(size == 0 ? 1 : size, 1), size)
                                : partial_.prepare(size).first(size);
  if (!codec.decode(frame, header.header_bytes, header.masked, to)) {
    fail(ws_code::kProtocol, "the frame is malformed", out);
    return true;
  }
  WsOpcode opcode = header.opcode;
  std::string_view message = as_text(to);
  if (!whole) {
    partial_.commit(size);
    if (!in_message()) fragment_ = header.opcode;
    if (!header.fin) return false;
    opcode = fragment_;
    message = arena.copy(as_text(partial_.bytes()));
    fragment_ = WsOpcode::kContinuation;
    partial_.release();
  }
  if (opcode == WsOpcode::kText && !utf8_valid(message)) {
    fail(ws_code::kNotUtf8, "a text message is not UTF-8", out);
    return true;
  }
  out = {WsEvent::Kind::kMessage, opcode == WsOpcode::kBinary, 0, message};
  return true;
}

bool WsReceiver::next(WsCodec& codec, PooledBuffer& in, ScratchArena& arena, WsEvent& out) {
  while (!finished_) {
    Header header;
    WsEvent error;
    error.kind = WsEvent::Kind::kError;
    const Peek peeked = peek(in.bytes(), header, error);
    if (peeked == Peek::kNeedMore) return false;
    if (peeked == Peek::kError) {
      finished_ = true;
      partial_.release();
      out = error;
      return true;
    }
    const std::size_t size = header.header_bytes + static_cast<std::size_t>(header.payload);
    const Bytes frame = in.bytes().first(size);
    bool filled = true;
    if (static_cast<std::uint8_t>(header.opcode) >= 8) {
      const auto payload = static_cast<std::size_t>(header.payload);
      const MutableBytes to(arena.allocate(payload == 0 ? 1 : payload, 1), payload);
      if (codec.decode(frame, header.header_bytes, header.masked, to)) {
        take_control(header.opcode, as_text(to), out);
      } else {
        fail(ws_code::kProtocol, "the frame is malformed", out);
      }
    } else {
      filled = take_data(codec, frame, header, arena, out);
    }
    in.consume(size);
    if (!filled) continue;
    if (out.kind == WsEvent::Kind::kClose || out.kind == WsEvent::Kind::kError) {
      finished_ = true;
      partial_.release();
    }
    return true;
  }
  return false;
}

}  // namespace cm::net
