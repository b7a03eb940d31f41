// row.h — the byte form of a durable row, and of an index value.
// Owns:   encode and decode: the only functions that know the offsets.
// Holds:  [kind u8][schema u8][fixed size u16][total size u32][checksum u64] fixed part, a u32
//         length for each text, then the texts. The checksum (XXH3-64) covers all but itself and
//         is seeded with the key's hash: a row under another key does not verify.
//         A row of the schema byte before the current one has a shorter fixed part and fewer texts:
//         what it lacks reads as zeros and empty texts.
// Limits: a row is at most 32 MiB (far above any frame limit).
// Not:    secrets management, meaning of fields.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "core/base/arena.h"
#include "core/base/bytes.h"
#include "core/base/result.h"
#include "store/schema.h"

namespace cm::store {

constexpr std::size_t kRowHeadBytes = 16;
constexpr std::size_t kRowBytesMax = 32u << 20;
constexpr std::size_t kIndexCheckBytes = 4;

struct RowShape {
  std::uint8_t kind;
  std::uint8_t schema;
  std::uint16_t fixed_bytes;
  std::uint16_t before_fixed = 0;  // of schema - 1; 0: there is none
  std::uint16_t before_texts = 0;
};

// Bytes in the arena. CHECKs the size bound: callers have refused larger input long before.
Bytes encode_row(RowShape shape, Bytes key, const void* fixed,
                 std::span<const std::string_view> texts, ScratchArena& arena);
// False on any mismatch of kind, schema, sizes or checksum; never reads outside `value`.
bool decode_row(RowShape shape, Bytes key, Bytes value, void* fixed,
                std::span<std::string_view> texts) noexcept;

template <class R>
constexpr RowShape shape_of() noexcept {
  // No implicit padding: what is written is what the checksum saw, on every compiler.
  static_assert(std::has_unique_object_representations_v<typename R::Fixed>);
  return {R::kKind, R::kRowSchema, static_cast<std::uint16_t>(sizeof(typename R::Fixed)),
          static_cast<std::uint16_t>(R::kBeforeFixed), static_cast<std::uint16_t>(R::kBeforeTexts)};
}

template <class R>
Bytes encode(const R& row, Bytes key, ScratchArena& arena) {
  return encode_row(shape_of<R>(), key, &row.fixed, row.text, arena);
}

template <class R>
bool decode(R& row, Bytes key, Bytes value) noexcept {
  return decode_row(shape_of<R>(), key, value, &row.fixed, row.text);
}

// An index value with its 4-byte check, in `to` (at least value.size() + 4 bytes).
std::size_t encode_index(Bytes key, Bytes value, MutableBytes to) noexcept;
// The value without its check; empty if it does not verify.
Bytes decode_index(Bytes key, Bytes stored) noexcept;

}  // namespace cm::store
