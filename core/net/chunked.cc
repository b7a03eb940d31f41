// chunked.cc — the decoder of chunked.h: framing bytes one at a time, data in slices.
// Holds:  every byte is looked at once, however the input is cut.
// Not:    buffering: data is handed out as views.
#include "core/net/chunked.h"

#include <algorithm>

namespace cm::net {
namespace {

int hex_value(std::uint8_t byte) noexcept {
  if (byte >= '0' && byte <= '9') return byte - '0';
  if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
  if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
  return -1;
}

}  // namespace

ChunkDecoder::State ChunkDecoder::framing_byte(std::uint8_t byte) noexcept {
  switch (state_) {
    case State::kSize: {
      if (byte == '\r') return digits_ == 0 ? State::kBad : State::kSizeLf;
      const int digit = hex_value(byte);
      if (digit < 0 || ++digits_ > 8) return State::kBad;
      size_ = (size_ << 4) | static_cast<std::uint32_t>(digit);
      return State::kSize;
    }
    case State::kSizeLf:
      if (byte != '\n') return State::kBad;
      digits_ = 0;
      return size_ == 0 ? State::kLastCr : State::kData;
    case State::kDataCr: return byte == '\r' ? State::kDataLf : State::kBad;
    case State::kDataLf: return byte == '\n' ? State::kSize : State::kBad;
    case State::kLastCr: return byte == '\r' ? State::kLastLf : State::kBad;
    case State::kLastLf: return byte == '\n' ? State::kEnd : State::kBad;
    case State::kData:
    case State::kEnd:
    case State::kBad: break;
  }
  return State::kBad;
}

ChunkDecoder::Step ChunkDecoder::step(Bytes in, std::size_t& used, Bytes& data) noexcept {
  used = 0;
  data = {};
  while (used < in.size()) {
    if (state_ == State::kData) {
      const std::size_t size = std::min<std::size_t>(size_, in.size() - used);
      data = in.subspan(used, size);
      used += size;
      size_ -= static_cast<std::uint32_t>(size);
      if (size_ == 0) state_ = State::kDataCr;
      return Step::kData;
    }
    state_ = framing_byte(in[used]);
    if (state_ == State::kBad) return Step::kBad;
    ++used;
    if (state_ == State::kEnd) return Step::kEnd;
  }
  return Step::kNeedMore;
}

}  // namespace cm::net
