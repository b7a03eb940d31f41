// local_token.cc — reads, makes and rotates the local token.
#include "cli/local_token.h"

#include <sodium.h>
#include <sys/stat.h>

#include "cli/files.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"

namespace cm::cli {
namespace {

constexpr std::size_t kTokenLeast = 32;
constexpr std::size_t kTokenMost = 256;

}  // namespace

std::string local_token_path() { return daemon_dir() + "/local-token"; }

Result<crypto::Hash32> rotate_local_token(FillRandom rng) {
  crypto::UrlToken token = crypto::url_token(rng);
  std::string content(token.data(), token.size());
  const crypto::Hash32 hash = crypto::sha256(as_bytes(content));
  content += '\n';
  const Status written = write_private_file(local_token_path(), content);
  wipe(content);
  sodium_memzero(token.data(), token.size());
  if (!written) return written.error();
  return hash;
}

Result<crypto::Hash32> load_local_token(FillRandom rng, const Warn& warn) {
  const std::string path = local_token_path();
  auto content = read_private_file(path, kTokenMost, warn);
  if (!content && content.code() == Err::kNotFound) return rotate_local_token(rng);
  if (!content) return content.error();
  while (!content->empty() && (content->back() == '\n' || content->back() == '\r')) {
    content->pop_back();
  }
  const bool good =
      content->size() >= kTokenLeast && content->find_first_not_of(
                                            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                            "0123456789-_") == std::string::npos;
  const crypto::Hash32 hash = crypto::sha256(as_bytes(*content));
  wipe(*content);
  if (!good) {
    return fail(Err::kMalformed, path + " holds no token; delete it, and a new one is made");
  }
  return hash;
}

}  // namespace cm::cli
