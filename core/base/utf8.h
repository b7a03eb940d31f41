// utf8.h — is this text well-formed UTF-8?
// Holds:  overlong forms, surrogates and values above U+10FFFF are refused (RFC 3629 §3, §4).
// Why:    a WebSocket text message that is not UTF-8 ends its connection (RFC 6455 §8.1).
// Not:    conversion or normalisation of text.
#pragma once

#include <cstddef>
#include <string_view>

namespace cm {

// Size of the well-formed beginning: text.size() if all of it is.
std::size_t utf8_valid_bytes(std::string_view text) noexcept;
inline bool utf8_valid(std::string_view text) noexcept {
  return utf8_valid_bytes(text) == text.size();
}

// The longest prefix of at most `bytes` bytes that ends between two characters of a well-formed
// text. Used where a field of the wire has a fixed room.
std::string_view utf8_prefix(std::string_view text, std::size_t bytes) noexcept;

}  // namespace cm
