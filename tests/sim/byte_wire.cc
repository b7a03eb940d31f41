// byte_wire.cc — cutting and reading.
#include "tests/sim/byte_wire.h"

namespace cm::sim {
namespace {

constexpr std::uint32_t kLimit = 32u << 20;  // the cores judge sizes, not this wire
constexpr std::size_t kOneByteMost = 2'000;  // of a frame that arrives byte by byte

}  // namespace

ByteWire::ByteWire(bool to_server)
    : receiver_(to_server ? net::WsRole::kServer : net::WsRole::kClient, kLimit, pool_),
      in_(pool_),
      masked_(to_server) {}

std::vector<std::string> ByteWire::encode(std::string_view text, Rng& rng) {
  arena_.reset();
  TextBuf out(arena_, text.size() + 16);
  const std::uint64_t random = rng.next();
  const net::WsMask mask = {
      static_cast<std::uint8_t>(random), static_cast<std::uint8_t>(random >> 8),
      static_cast<std::uint8_t>(random >> 16), static_cast<std::uint8_t>(random >> 24)};
  codec_.write_frame(out, net::WsOpcode::kText, text, masked_ ? &mask : nullptr);
  std::string_view rest = out.view();
  const bool one_by_one = rest.size() <= kOneByteMost && rng.chance(300);
  std::vector<std::string> pieces;
  while (!rest.empty()) {
    const std::size_t size = one_by_one ? 1 : static_cast<std::size_t>(rng.between(1, rest.size()));
    pieces.emplace_back(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  return pieces;
}

bool ByteWire::feed(std::string_view bytes, std::vector<std::string>& messages) {
  in_.append(as_bytes(bytes));
  arena_.reset();
  net::WsEvent event;
  while (receiver_.next(codec_, in_, arena_, event)) {
    if (event.kind != net::WsEvent::Kind::kMessage || event.binary) return false;
    messages.emplace_back(event.payload);
  }
  return true;
}

}  // namespace cm::sim
