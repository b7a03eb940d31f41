// crypto_probe.cc — our cryptography for foreign implementations.
// Owns:   commands, a line each, bytes in hex ("-" is empty):
//           public SEED                        the ed25519 key
//           sign SEED MESSAGE                  the signature
//           verify KEY MESSAGE SIGNATURE       yes or no
//           seal SEED RECIPIENT NONCE TEXT     crypto_box, or no
//           open SEED SENDER NONCE SEALED      the text, or no
//           montgomery SCALAR POINT            X25519 of the library that we link, or no
//           strict KEY MESSAGE SIGNATURE       that library's own verdict on a signature
// Not:    expectations (part_crypto.py).
#include <sodium.h>

#include <algorithm>

#include "core/crypto/box.h"
#include "core/crypto/keys.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/crypto/slab.h"
#include "tests/conformance/probe.h"

namespace {

using namespace cm;

template <class Fixed>
Fixed fixed(const std::string& hex) {
  const std::string bytes = probe::bytes_of(hex);
  Fixed out{};
  if (bytes.size() != out.size()) std::exit(2);
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(out.data()));
  return out;
}

template <class Fixed>
std::string hex_array(const Fixed& bytes) {
  return probe::hex_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

class Answers {
 public:
  std::string operator()(const std::vector<std::string>& words) {
    std::string answer;
    if (words[0] == "verify" || words[0] == "strict" || words[0] == "montgomery") {
      answer = without_secret(words);
    } else {
      answer = with_secret(words);
    }
    scratch_.reset();
    return answer;
  }

 private:
  std::string without_secret(const std::vector<std::string>& words) {
    if (words[0] == "montgomery") {
      const auto scalar = fixed<crypto::Hash32>(words.at(1));
      const auto point = fixed<crypto::Hash32>(words.at(2));
      crypto::Hash32 out;
      if (crypto_scalarmult(out.data(), scalar.data(), point.data()) != 0) return "no";
      return hex_array(out);
    }
    const auto key = fixed<crypto::PublicKey>(words.at(1));
    const std::string message = probe::bytes_of(words.at(2));
    const auto signature = fixed<crypto::Signature>(words.at(3));
    if (words[0] == "verify") return crypto::verify(key, message, signature) ? "yes" : "no";
    const auto* bytes = reinterpret_cast<const unsigned char*>(message.data());
    return crypto_sign_verify_detached(signature.data(), bytes, message.size(), key.data()) == 0
               ? "yes"
               : "no";
  }

  std::string with_secret(const std::vector<std::string>& words) {
    const auto seed = fixed<crypto::Hash32>(words.at(1));
    auto ref = slab_.store_seed(crypto::Seed(seed));
    if (!ref) std::exit(2);
    std::string answer = "no";
    TextBuf out(scratch_);
    if (words[0] == "public") {
      answer = hex_array(slab_.public_key(*ref));
    } else if (words[0] == "sign") {
      answer = hex_array(crypto::sign(slab_, *ref, probe::bytes_of(words.at(2))));
    } else {
      const auto peer = fixed<crypto::PublicKey>(words.at(2));
      const auto nonce = fixed<crypto::Nonce>(words.at(3));
      const std::string input = probe::bytes_of(words.at(4));
      const Status done = words[0] == "seal" ? boxes_.seal(*ref, peer, nonce, as_bytes(input), out)
                                             : boxes_.open(*ref, peer, nonce, as_bytes(input), out);
      if (done) answer = probe::hex_of(out.view());
    }
    boxes_.forget(*ref);
    slab_.release(*ref);
    return answer;
  }

  ScratchArena scratch_;
  crypto::SecretSlab slab_{4};
  crypto::BoxCache boxes_{slab_, 8};
};

}  // namespace

int main() {
  if (!crypto::initialise()) return 2;
  Answers answers;
  return probe::answer_lines([&](const std::vector<std::string>& words) { return answers(words); });
}
