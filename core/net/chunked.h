// chunked.h — the chunked transfer coding, as a byte-wise decoder.
// Owns:   ChunkDecoder (12 bytes of state; a message's body may come in any pieces).
// Holds:  strict RFC 9112 §7.1: CRLF only, at most 8 hex digits, no extensions, no trailers. What
//         two parsers could read in two ways is refused: that is how requests are smuggled.
// Limits: a chunk is smaller than 4 GiB; the caller bounds the sum of the data.
// Not:    deciding that a body is chunked (http_message.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"

namespace cm::net {

class ChunkDecoder {
 public:
  enum class Step : std::uint8_t { kNeedMore, kData, kEnd, kBad };

  // Reads from the front of `in`. `used` tells how much was read (all of it for kNeedMore); for
  // kData, `data` is a non-empty view into `in`. After kEnd or kBad the decoder is finished.
  Step step(Bytes in, std::size_t& used, Bytes& data) noexcept;

 private:
  enum class State : std::uint8_t {
    kSize,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kLastCr,
    kLastLf,
    kEnd,
    kBad
  };
  State framing_byte(std::uint8_t byte) noexcept;

  std::uint32_t size_ = 0;   // of this chunk while its line is read, then what is left of it
  std::uint8_t digits_ = 0;  // of the size line
  State state_ = State::kSize;
};

}  // namespace cm::net
