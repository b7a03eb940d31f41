// jcs_probe.cc — our canonical JSON (RFC 8785) for foreign test sets.
// Owns:   lines of one hex document each on standard input: "yes" and its canonical form in hex,
//         or "no" and why. `jcs_probe numbers N` reads the first doubles of the ES6 sequence as
//         hex lines, continues it to N lines and prints their SHA-256 at each power of ten.
// Source: the sequence is cyberphone's "ES6 numbers": given doubles, then 2,000 in a row from
//         2^-1022, then those in a chain of SHA-256 digests that starts from 32 zero bytes.
// Not:    the constants and published hashes (read from a package at test time).
#include <sodium.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/base/arena.h"
#include "core/crypto/jcs.h"
#include "core/crypto/number_text.h"
#include "core/crypto/sign.h"
#include "tests/conformance/probe.h"

namespace {

class NumberSequence {
 public:
  explicit NumberSequence(std::vector<std::uint64_t> first) : first_(std::move(first)) {
    for (std::uint64_t index = 0; index < 2000; ++index) {
      first_.push_back(0x0010000000000000u + index);
    }
  }

  std::uint64_t next() {
    if (index_ < first_.size()) return first_[index_++];
    for (;;) {
      if (used_ == 4) {
        block_ = cm::crypto::sha256(block_);
        used_ = 0;
      }
      std::uint64_t bits = 0;
      std::memcpy(&bits, block_.data() + 8 * used_++, 8);  // little-endian, as the machine
      double value = 0;
      std::memcpy(&value, &bits, 8);
      if (value != 0.0 && std::isfinite(value)) return bits;
    }
  }

 private:
  std::vector<std::uint64_t> first_;
  std::size_t index_ = 0;
  cm::crypto::Hash32 block_{};
  std::size_t used_ = 4;
};

int hash_numbers(std::uint64_t lines) {
  std::vector<std::uint64_t> first;
  for (std::string line; std::getline(std::cin, line);) {
    first.push_back(std::stoull(line, nullptr, 16));
  }
  NumberSequence sequence(std::move(first));
  cm::ScratchArena scratch;
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  std::uint64_t report_at = 1000;
  for (std::uint64_t count = 1; count <= lines; ++count) {
    const std::uint64_t bits = sequence.next();
    double value = 0;
    std::memcpy(&value, &bits, 8);
    char hex[17];
    const auto end = std::to_chars(hex, hex + 16, bits, 16).ptr;
    *end = ',';
    cm::TextBuf text(scratch, 64);
    text.append(std::string_view(hex, static_cast<std::size_t>(end - hex) + 1));
    cm::crypto::jcs_number(value, text);
    text.append('\n');
    crypto_hash_sha256_update(&state, reinterpret_cast<const unsigned char*>(text.view().data()),
                              text.size());
    scratch.reset();
    if (count != report_at) continue;
    report_at *= 10;
    crypto_hash_sha256_state copy = state;
    std::array<char, 32> digest{};
    crypto_hash_sha256_final(&copy, reinterpret_cast<unsigned char*>(digest.data()));
    std::cout << count << ' ' << cm::probe::hex_of({digest.data(), digest.size()}) << std::endl;
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 3 && std::string_view(arguments[1]) == "numbers") {
    return hash_numbers(std::stoull(arguments[2]));
  }
  cm::ScratchArena scratch;
  return cm::probe::answer_lines([&](const std::vector<std::string>& words) {
    cm::TextBuf out(scratch);
    const cm::Status done = cm::crypto::jcs_append(cm::probe::bytes_of(words[0]), out);
    const std::string answer =
        done ? "yes " + cm::probe::hex_of(out.view()) : "no " + done.error().detail;
    scratch.reset();
    return answer;
  });
}
