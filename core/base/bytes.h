// bytes.h — the views over memory that every layer passes around, and little-endian access.
// Holds:  a view owns nothing: it lives as long as what it points into (the caller says what).
// Not:    text encodings (core/crypto/encoding.h), owning buffers (arena.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace cm {

using Bytes = std::span<const std::uint8_t>;
using MutableBytes = std::span<std::uint8_t>;

inline Bytes as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Unaligned fixed-width access. LMDB values are only 2-byte aligned, so durable rows are read by
// these and never through a cast pointer. Little-endian is the only byte order we build for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "durable rows are little-endian");

template <class T>
inline T load_le(const void* from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
inline void store_le(void* to, const T& value) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to, &value, sizeof value);
}

// Big-endian integers are for keys: their byte order is then their sort order.
inline void store_be32(void* to, std::uint32_t value) noexcept {
  value = __builtin_bswap32(value);
  std::memcpy(to, &value, sizeof value);
}
inline void store_be64(void* to, std::uint64_t value) noexcept {
  value = __builtin_bswap64(value);
  std::memcpy(to, &value, sizeof value);
}
inline std::uint32_t load_be32(const void* from) noexcept {
  return __builtin_bswap32(load_le<std::uint32_t>(from));
}
inline std::uint64_t load_be64(const void* from) noexcept {
  return __builtin_bswap64(load_le<std::uint64_t>(from));
}

}  // namespace cm
