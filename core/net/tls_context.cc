// tls_context.cc — certificates, keys, authorities and the policy that all streams share.
// Holds:  the key's file is checked on the descriptor that is then read, and its text is wiped.
// Why:    a key that others could read is refused at start: nobody would notice it later.
// Not:    what goes over the wire (tls.cc).
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "core/base/check.h"
#include "core/net/tls.h"

namespace cm::net {
namespace {

constexpr std::size_t kKeyBytesMax = 64 * 1024;
constexpr std::uint8_t kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
// TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else.
constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Memory = std::unique_ptr<BIO, decltype(&BIO_free)>;

std::string reason_of_error() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason != nullptr ? reason : "unknown reason";
  ERR_clear_error();
  return text;
}

Error io_error(const std::string& path, int error) {
  return fail(Err::kIo, path + ": " + std::strerror(error));
}

// Wiped when it goes.
struct KeyText {
  std::array<char, kKeyBytesMax> bytes{};
  std::size_t size = 0;
  ~KeyText() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
};

Status check_private(const std::string& path, const struct stat& info) {
  if (!S_ISREG(info.st_mode)) return fail(Err::kIo, path + ": the TLS key is no regular file");
  if (info.st_uid != 0 && info.st_uid != ::geteuid()) {
    return fail(Err::kIo, path +
                              ": the TLS key belongs to another user; it must be yours or "
                              "root's");
  }
  const unsigned mode = info.st_mode & 07777u;
  if (mode == 0600 || mode == 0400) return {};
  char octal[8];
  std::snprintf(octal, sizeof octal, "%04o", mode);
  return fail(Err::kIo, path + ": the TLS key has mode " + octal +
                            ", and others must not read it: chmod 600 " + path);
}

Status read_key(const std::string& path, KeyText& out) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return io_error(path, errno);
  struct stat info {};
  Status outcome;
  if (::fstat(fd, &info) != 0) outcome = io_error(path, errno);
  if (outcome) outcome = check_private(path, info);
  while (outcome && out.size < out.bytes.size()) {
    const ssize_t got = ::read(fd, out.bytes.data() + out.size, out.bytes.size() - out.size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) outcome = io_error(path, errno);
    if (got <= 0) break;
    out.size += static_cast<std::size_t>(got);
  }
  ::close(fd);
  if (outcome && out.size == out.bytes.size()) {
    return fail(Err::kMalformed, path + ": larger than 64 KiB, so no TLS key");
  }
  return outcome;
}

// Nobody is there who could type a passphrase.
int no_passphrase(char*, int, int, void* asked) noexcept {
  if (asked != nullptr) *static_cast<bool*>(asked) = true;
  return -1;
}

Result<Key> load_key(const std::string& path) {
  KeyText text;
  if (Status read = read_key(path, text); !read) return read.error();
  const Memory memory(BIO_new_mem_buf(text.bytes.data(), static_cast<int>(text.size)), &BIO_free);
  CHECK(memory != nullptr);
  bool encrypted = false;
  Key key(PEM_read_bio_PrivateKey(memory.get(), nullptr, &no_passphrase, &encrypted),
          &EVP_PKEY_free);
  ERR_clear_error();
  if (key != nullptr) return key;
  return fail(Err::kMalformed,
              path + (encrypted ? ": the TLS key has a passphrase, which nobody can type here"
                                : ": no private key in PEM form"));
}

// RFC 7301 §3.2: who offers only other protocols is refused, so that no other protocol's client can
// be made to talk to us. Who offers nothing speaks HTTP/1.1.
int select_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* in, unsigned in_size, void*) noexcept {
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, out_size, kAlpn, sizeof kAlpn, in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = found;
  return SSL_TLSEXT_ERR_OK;
}

void set_policy(SSL_CTX* context) {
  CHECK_EQ(SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION), 1);
  CHECK_EQ(SSL_CTX_set_max_proto_version(context, 0), 1);
  CHECK_EQ(SSL_CTX_set_cipher_list(context, kCiphers), 1);
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_default_passwd_cb(context, &no_passphrase);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  CHECK_EQ(SSL_CTX_set_num_tickets(context, 0), 1);
  // Output is a queue whose front is retried, from wherever it then lies.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

// The folder of authorities is looked into when one is needed; the bundle of all of them would cost
// 20 ms of parsing, which the daemon's loop cannot spare. It is read where an operator names it, or
// where there is no folder. Without both, only `ca_file` is trusted.
void trust_system(SSL_CTX* context) {
  const char* folder = std::getenv(X509_get_default_cert_dir_env());
  const char* file = std::getenv(X509_get_default_cert_file_env());
  if (folder == nullptr) folder = X509_get_default_cert_dir();
  if (::access(folder, R_OK | X_OK) == 0) SSL_CTX_set_default_verify_dir(context);
  if (file != nullptr || ::access(folder, R_OK | X_OK) != 0) {
    SSL_CTX_set_default_verify_file(context);
  }
  ERR_clear_error();
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<TlsContext> TlsContext::server(const std::string& certificate_file,
                                      const std::string& key_file) {
  ERR_clear_error();
  Result<Key> key = load_key(key_file);
  if (!key) return key.error();
  TlsContext made(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* context = made.context_;
  CHECK(context != nullptr);
  set_policy(context);
  if (::access(certificate_file.c_str(), R_OK) != 0) return io_error(certificate_file, errno);
  if (SSL_CTX_use_certificate_chain_file(context, certificate_file.c_str()) != 1) {
    return fail(Err::kMalformed,
                certificate_file + ": no certificate chain in PEM form: " + reason_of_error());
  }
  // Of another kind of key OpenSSL would only notice it in the first handshake.
  if (X509_check_private_key(SSL_CTX_get0_certificate(context), key->get()) != 1 ||
      SSL_CTX_use_PrivateKey(context, key->get()) != 1) {
    ERR_clear_error();
    return fail(Err::kMalformed, "the key in " + key_file + " is not that of the certificate in " +
                                     certificate_file);
  }
  SSL_CTX_set_alpn_select_cb(context, &select_protocol, nullptr);
  return made;
}

Result<TlsContext> TlsContext::client(const std::string& ca_file) {
  ERR_clear_error();
  TlsContext made(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = made.context_;
  CHECK(context != nullptr);
  set_policy(context);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  CHECK_EQ(SSL_CTX_set_alpn_protos(context, kAlpn, sizeof kAlpn), 0);
  trust_system(context);
  if (ca_file.empty()) return made;
  if (::access(ca_file.c_str(), R_OK) != 0) return io_error("CA file " + ca_file, errno);
  if (SSL_CTX_load_verify_file(context, ca_file.c_str()) != 1) {
    return fail(Err::kMalformed,
                "CA file " + ca_file + ": no certificate in PEM form: " + reason_of_error());
  }
  return made;
}

}  // namespace cm::net
