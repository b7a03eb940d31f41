// row.cc — row bytes and their checksums (xxHash's XXH3).
// Holds:  every length is checked against the value before it is used; a damaged row is refused.
#include "store/row.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace cm::store {
namespace {

std::uint64_t hash_of(Bytes key, Bytes row_without_checksum_head, Bytes rest) noexcept {
  XXH64_hash_t seed = XXH3_64bits(key.data(), key.size());
  seed = XXH3_64bits_withSeed(row_without_checksum_head.data(), row_without_checksum_head.size(),
                              seed);
  return XXH3_64bits_withSeed(rest.data(), rest.size(), seed);
}

}  // namespace

Bytes encode_row(RowShape shape, Bytes key, const void* fixed,
                 std::span<const std::string_view> texts, ScratchArena& arena) {
  std::size_t total = kRowHeadBytes + shape.fixed_bytes + 4 * texts.size();
  for (const std::string_view text : texts) total += text.size();
  CHECK(total <= kRowBytesMax);
  std::uint8_t* const at = arena.allocate(total);
  at[0] = shape.kind;
  at[1] = shape.schema;
  store_le(at + 2, shape.fixed_bytes);
  store_le(at + 4, static_cast<std::uint32_t>(total));
  std::memcpy(at + kRowHeadBytes, fixed, shape.fixed_bytes);
  std::uint8_t* lengths = at + kRowHeadBytes + shape.fixed_bytes;
  std::uint8_t* tail = lengths + 4 * texts.size();
  for (const std::string_view text : texts) {
    store_le(lengths, static_cast<std::uint32_t>(text.size()));
    lengths += 4;
    if (!text.empty()) std::memcpy(tail, text.data(), text.size());
    tail += text.size();
  }
  CHECK(tail == at + total);
  store_le(at + 8, hash_of(key, {at, 8}, {at + kRowHeadBytes, total - kRowHeadBytes}));
  return {at, total};
}

bool decode_row(RowShape shape, Bytes key, Bytes value, void* fixed,
                std::span<std::string_view> texts) noexcept {
  if (value.size() < kRowHeadBytes || value.size() > kRowBytesMax) return false;
  const std::uint8_t* const at = value.data();
  const bool is_before = shape.before_fixed != 0 && at[1] + 1 == shape.schema;
  const std::size_t fixed_bytes = is_before ? shape.before_fixed : shape.fixed_bytes;
  const std::size_t count = is_before ? shape.before_texts : texts.size();
  const std::size_t least = kRowHeadBytes + fixed_bytes + 4 * count;
  if (value.size() < least || at[0] != shape.kind || (!is_before && at[1] != shape.schema) ||
      load_le<std::uint16_t>(at + 2) != fixed_bytes ||
      load_le<std::uint32_t>(at + 4) != value.size()) {
    return false;
  }
  const std::uint64_t expected = hash_of(key, value.subspan(0, 8), value.subspan(kRowHeadBytes));
  if (load_le<std::uint64_t>(at + 8) != expected) return false;
  auto* const to = static_cast<std::uint8_t*>(fixed);
  std::memcpy(to, at + kRowHeadBytes, fixed_bytes);
  std::memset(to + fixed_bytes, 0, shape.fixed_bytes - fixed_bytes);
  const std::uint8_t* lengths = at + kRowHeadBytes + fixed_bytes;
  std::size_t offset = least;
  for (std::string_view& text : texts.first(count)) {
    const auto length = load_le<std::uint32_t>(lengths);
    lengths += 4;
    if (length > value.size() - offset) return false;
    text = {reinterpret_cast<const char*>(at + offset), length};
    offset += length;
  }
  for (std::string_view& text : texts.subspan(count)) text = {};
  return offset == value.size();
}

namespace {

std::uint32_t index_check(Bytes key, Bytes value) noexcept {
  const XXH64_hash_t seed = XXH3_64bits(key.data(), key.size());
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(value.data(), value.size(), seed));
}

}  // namespace

std::size_t encode_index(Bytes key, Bytes value, MutableBytes to) noexcept {
  CHECK(value.size() <= kIndexValueMax && to.size() >= value.size() + kIndexCheckBytes);
  std::memcpy(to.data(), value.data(), value.size());
  store_le(to.data() + value.size(), index_check(key, value));
  return value.size() + kIndexCheckBytes;
}

Bytes decode_index(Bytes key, Bytes stored) noexcept {
  if (stored.size() <= kIndexCheckBytes || stored.size() > kIndexValueMax + kIndexCheckBytes) {
    return {};
  }
  const Bytes value = stored.first(stored.size() - kIndexCheckBytes);
  if (load_le<std::uint32_t>(stored.data() + value.size()) != index_check(key, value)) return {};
  return value;
}

}  // namespace cm::store
