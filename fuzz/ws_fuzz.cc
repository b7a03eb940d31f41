// ws_fuzz.cc — WebSocket frames from a hostile peer, whole and in pieces, and our own back.
// Input:  [role u8][piece u8][bytes].
// Holds:  the events do not depend on how the bytes were cut; messages are within the limit and
//         texts are UTF-8; nothing follows a close or an error; what we write, we read.
// Not:    the handshake.
#include <algorithm>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/utf8.h"
#include "core/net/ws_frame.h"
#include "fuzz/registry.h"

namespace cm::net {
namespace {

constexpr std::uint32_t kLimit = 2048;

struct Seen {
  WsEvent::Kind kind;
  bool binary;
  std::uint16_t code;
  std::string payload;
  friend bool operator==(const Seen&, const Seen&) = default;
};

struct Context {
  WsCodec codec;
  BufferPool pool;
  ScratchArena arena;
};

void check_event(const WsEvent& event, const WsReceiver& receiver) {
  switch (event.kind) {
    case WsEvent::Kind::kMessage:
      CHECK(event.payload.size() <= kLimit);
      CHECK(event.binary || utf8_valid(event.payload));
      break;
    case WsEvent::Kind::kPing:
    case WsEvent::Kind::kPong: CHECK(event.payload.size() <= 125); break;
    case WsEvent::Kind::kClose:
      CHECK(event.code == ws_code::kNone || ws_close_code_valid(event.code));
      CHECK(utf8_valid(event.payload) && receiver.finished());
      break;
    case WsEvent::Kind::kError:
      CHECK(ws_close_code_valid(event.code) && !event.payload.empty() && receiver.finished());
      break;
  }
}

std::vector<Seen> receive(Context& context, WsRole role, Bytes in, std::size_t piece) {
  WsReceiver receiver(role, kLimit, context.pool);
  PooledBuffer input(context.pool);
  std::vector<Seen> seen;
  while (!in.empty()) {
    const Bytes part = in.first(std::min(piece, in.size()));
    in = in.subspan(part.size());
    input.append(part);
    WsEvent event;
    while (!receiver.finished() && receiver.next(context.codec, input, context.arena, event)) {
      check_event(event, receiver);
      // A sentence about an error may tell more when more bytes are there; its code may not.
      const bool error = event.kind == WsEvent::Kind::kError;
      seen.push_back({event.kind, event.binary, event.code,
                      error ? std::string() : std::string(event.payload)});
    }
  }
  return seen;
}

void write_and_read(Context& context, WsRole reader, Bytes payload) {
  const WsMask mask = {1, 2, 3, 4};
  const WsMask* const use = reader == WsRole::kServer ? &mask : nullptr;
  const Bytes part = payload.first(std::min<std::size_t>(payload.size(), kLimit));
  PooledBuffer out(context.pool);
  context.codec.write_frame(out, WsOpcode::kBinary, as_text(part), use);
  CHECK_EQ(out.size(), WsCodec::frame_bytes(part.size(), use != nullptr));
  WsReceiver receiver(reader, kLimit, context.pool);
  WsEvent event;
  CHECK(receiver.next(context.codec, out, context.arena, event));
  CHECK(event.kind == WsEvent::Kind::kMessage && event.binary);
  CHECK(event.payload == as_text(part) && out.empty());
}

}  // namespace
}  // namespace cm::net

CM_FUZZ_TARGET(ws) {
  using namespace cm;
  using namespace cm::net;
  if (size < 2) return 0;
  static Context context;
  context.arena.reset();
  const WsRole role = (data[0] & 1u) == 0 ? WsRole::kServer : WsRole::kClient;
  const Bytes in = Bytes(data, size).subspan(2);
  const std::vector<Seen> whole = receive(context, role, in, in.size());
  const std::vector<Seen> pieces = receive(context, role, in, std::size_t{1} + data[1]);
  CHECK(whole == pieces);
  write_and_read(context, role, in);
  CHECK_EQ(context.pool.lent_bytes(), 0u);
  return 0;
}
