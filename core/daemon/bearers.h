// bearers.h — who a request over TCP is from, by its bearer token, and how many it may send.
// Owns:   Bearers: the token, the one before it, the credit of each and that of all strangers.
// Holds:  tokens are known by their SHA-256 only and compared in constant time. The token before
//         the current one is good for 60 s after the change. Credit is kept in thousandths of a
//         request: `ipc_rate_burst` at most, `ipc_rate_per_second` more each second.
// Source: spec/ipc.md §2, §10; spec/decisions.md, "Limits".
// Not:    the order of the gates and their replies (gates.cc), the file of the token (cli).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/limits.h"
#include "core/crypto/sign.h"

namespace cm::daemon {

class Bearers {
 public:
  enum class Who : std::uint8_t { kStranger, kOwner, kOwnerBefore };

  // `limits` outlives it. All times are monotonic ms.
  explicit Bearers(const Limits& limits) noexcept : limits_(limits) {}

  // The token from now on.
  void set(const crypto::Hash32& sha256, std::uint64_t now) noexcept;
  bool is_set() const noexcept { return owner_.until_ms != 0; }
  Who who(std::string_view shown, std::uint64_t now) const noexcept;
  // False: no credit is left, and none was taken.
  bool take_credit(Who who, std::uint64_t now) noexcept;
  // One line a second at most is logged: whoever guesses must not fill the log. The number of wrong
  // tokens that the line is about, or 0: not now.
  std::uint64_t note_mismatch(std::uint64_t now) noexcept;

 private:
  struct Token {
    crypto::Hash32 sha256{};
    std::uint64_t until_ms = 0;  // 0: none
    std::uint64_t credit = 0;    // thousandths of a request
    std::uint64_t credited_ms = 0;
  };

  const Limits& limits_;
  Token owner_, before_;
  Token strangers_{{}, 0, UINT64_MAX / 2, 0};  // at first as many as allowed
  std::uint64_t mismatches_ = 0;               // not logged yet
  std::uint64_t logged_until_ms_ = 0;          // no second line before it
};

}  // namespace cm::daemon
