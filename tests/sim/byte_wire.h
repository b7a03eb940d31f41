// byte_wire.h — one direction of a connection as bytes: the frames of core/net, in pieces.
// Owns:   ByteWire: encodes messages as a peer would, and reads what has arrived so far.
// Holds:  the same code frames and reads here as in the product (WsCodec, WsReceiver).
// Why:    a frame that is cut between any two of its bytes, or lost behind any of them, is what
//         TCP does; whole messages alone would never show it.
// Not:    TLS, HTTP upgrades (tests/unit, tests/conformance), sockets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/net/ws_frame.h"
#include "tests/sim/random.h"

namespace cm::sim {

class ByteWire {
 public:
  // `to_server`: frames are masked, and the reader is a server.
  explicit ByteWire(bool to_server);

  // The bytes of one text message, cut at random; now and then between every two of them.
  std::vector<std::string> encode(std::string_view text, Rng& rng);
  // Takes the bytes; appends the messages that are whole now. False: they are not WebSocket.
  bool feed(std::string_view bytes, std::vector<std::string>& messages);

 private:
  BufferPool pool_;
  ScratchArena arena_{16 * 1024};
  net::WsCodec codec_;
  net::WsReceiver receiver_;
  PooledBuffer in_;
  bool masked_;
};

}  // namespace cm::sim
