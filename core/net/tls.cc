// tls.cc — streams: OpenSSL's calls, their many outcomes as six steps, and failures as sentences.
// Owns:   the BIO through which OpenSSL reaches a caller's byte path.
// Holds:  the thread's error queue is empty before each call, so that what is found in it
//         afterwards belongs to that call; it is empty again afterwards.
// Not:    certificates, ciphers, options (tls_context.cc).
#include "core/net/tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "core/base/check.h"

namespace cm::net {

// OpenSSL's view of a TlsIo. The stream outlives its SSL, which owns the BIO.
struct TlsBio {
  static TlsStream& of(BIO* bio) noexcept { return *static_cast<TlsStream*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* to, int size) noexcept {
    TlsStream& stream = of(bio);
    BIO_clear_retry_flags(bio);
    if (size <= 0) return 0;
    const ssize_t got = stream.io_.read(
        stream.io_.context, {reinterpret_cast<std::uint8_t*>(to), static_cast<std::size_t>(size)});
    if (got < 0 && later(errno)) BIO_set_retry_read(bio);
    if (got == 0) stream.path_end_ = true;
    return static_cast<int>(got);
  }
  static int write(BIO* bio, const char* from, int size) noexcept {
    TlsStream& stream = of(bio);
    BIO_clear_retry_flags(bio);
    if (size <= 0) return 0;
    const ssize_t sent = stream.io_.write(
        stream.io_.context,
        {reinterpret_cast<const std::uint8_t*>(from), static_cast<std::size_t>(size)});
    if (sent < 0 && later(errno)) BIO_set_retry_write(bio);
    return static_cast<int>(sent);
  }
  static long control(BIO* bio, int what, long, void*) noexcept {
    if (what == BIO_CTRL_EOF) return of(bio).path_end_ ? 1 : 0;
    return what == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static bool later(int error) noexcept {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
  }

  // Made once and never changed; it lives as long as the process, as OpenSSL's own methods do.
  static const BIO_METHOD* method() noexcept {
    static const BIO_METHOD* const made = [] {
      BIO_METHOD* fresh = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "claudemesh byte path");
      CHECK(fresh != nullptr);
      BIO_meth_set_read(fresh, &TlsBio::read);
      BIO_meth_set_write(fresh, &TlsBio::write);
      BIO_meth_set_ctrl(fresh, &TlsBio::control);
      BIO_meth_set_create(fresh, [](BIO* bio) {
        BIO_set_init(bio, 1);
        return 1;
      });
      return fresh;
    }();
    return made;
  }
};

namespace {

bool is_address(const std::string& host) noexcept {
  std::array<std::uint8_t, sizeof(in6_addr)> unused{};
  return ::inet_pton(AF_INET, host.c_str(), unused.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), unused.data()) == 1;
}

int clamped(std::size_t size) noexcept {
  return static_cast<int>(std::min<std::size_t>(size, INT_MAX));
}

// What is wrong with the certificate of the other end, and what to do about it.
std::string verdict_sentence(long verdict, const std::string& host) {
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "the certificate of " + host + " has expired: its operator must renew it";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "the certificate of " + host +
             " is not valid yet: compare the clocks of both machines";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_UNTRUSTED:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:  // by another CA of the same name
      return "the certificate of " + host +
             " is signed by an unknown CA: name that CA's file with --ca-file or "
             "CLAUDEMESH_CA_FILE, if you trust it";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return "the certificate is for another host, not for " + host +
             ": use the name that it carries";
    default:
      return "the certificate of " + host +
             " was refused: " + X509_verify_cert_error_string(verdict);
  }
}

std::string error_sentence(unsigned long error, bool client) {
  if (ERR_GET_LIB(error) != ERR_LIB_SSL) {
    const char* reason = ERR_reason_error_string(error);
    return std::string("TLS failed: ") + (reason != nullptr ? reason : "unknown reason");
  }
  switch (ERR_GET_REASON(error)) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_LENGTH_MISMATCH:
      return client ? "the other end does not speak TLS on this port: use ws:// or another port"
                    : "the client does not speak TLS";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
      return "the other end offers no TLS version from 1.2 on";
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE: return "the two ends have no cipher in common";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN: return "the client refuses our certificate";
    default: break;
  }
  const char* reason = ERR_reason_error_string(error);
  return std::string("TLS failed: ") + (reason != nullptr ? reason : "unknown reason");
}

}  // namespace

void TlsStream::attach(const TlsContext& context) {
  CHECK(context.context_ != nullptr && io_.read != nullptr && io_.write != nullptr);
  ERR_clear_error();
  ssl_ = SSL_new(context.context_);
  BIO* bio = BIO_new(TlsBio::method());
  CHECK(ssl_ != nullptr && bio != nullptr);  // memory
  BIO_set_data(bio, this);
  SSL_set_bio(ssl_, bio, bio);
}

TlsStream::TlsStream(const TlsContext& context, const TlsIo& io) : io_(io) {
  attach(context);
  SSL_set_accept_state(ssl_);
}

TlsStream::TlsStream(const TlsContext& context, const TlsIo& io, const std::string& host)
    : io_(io), host_(host) {
  attach(context);
  SSL_set_connect_state(ssl_);
  // RFC 6066 §3: no trailing dot, and no address, in the server's name.
  if (host_.ends_with('.')) host_.pop_back();
  X509_VERIFY_PARAM* wanted = SSL_get0_param(ssl_);
  X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  const bool set = is_address(host_) ? X509_VERIFY_PARAM_set1_ip_asc(wanted, host_.c_str()) == 1
                                     : !host_.empty() && SSL_set1_host(ssl_, host_.c_str()) == 1 &&
                                           SSL_set_tlsext_host_name(ssl_, host_.c_str()) == 1;
  if (set) return;
  failed_ = true;  // never a connection whose name nobody compares
  failure_ = "'" + host_ + "' is no name that a certificate can carry";
  ERR_clear_error();
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

TlsStep TlsStream::step_of(int result) {
  const int kind = SSL_get_error(ssl_, result);
  switch (kind) {
    case SSL_ERROR_WANT_READ: return TlsStep::kWantRead;
    case SSL_ERROR_WANT_WRITE: return TlsStep::kWantWrite;
    case SSL_ERROR_ZERO_RETURN: return TlsStep::kEnd;
    default: break;
  }
  const unsigned long error = ERR_peek_error();
  const bool cut = path_end_ || (ERR_GET_LIB(error) == ERR_LIB_SSL &&
                                 ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
  failed_ = true;
  if (cut && established_) {
    ERR_clear_error();
    return TlsStep::kCut;
  }
  if (cut && error != 0 && ERR_GET_REASON(error) != SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    describe();
  } else if (cut) {
    failure_ = "the other end hung up during the TLS handshake";
  } else {
    describe();
  }
  ERR_clear_error();
  return TlsStep::kFailed;
}

void TlsStream::describe() {
  const unsigned long error = ERR_peek_error();
  const long verdict = SSL_get_verify_result(ssl_);
  const bool client = SSL_is_server(ssl_) == 0;
  was_http_ = ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_HTTP_REQUEST;
  if (client && !established_ && verdict != X509_V_OK) {
    failure_ = verdict_sentence(verdict, host_);
  } else if (error != 0) {
    failure_ = error_sentence(error, client);
  } else {
    failure_ = std::string("the connection broke: ") + std::strerror(errno);
  }
}

TlsStep TlsStream::handshake() {
  if (failed_) return TlsStep::kFailed;
  if (established_) return TlsStep::kOk;
  ERR_clear_error();
  errno = 0;
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) {
    const TlsStep step = step_of(result);
    if (step != TlsStep::kEnd) return step;
    failed_ = true;
    failure_ = "the other end hung up during the TLS handshake";
    return TlsStep::kFailed;
  }
  established_ = true;
  return TlsStep::kOk;
}

TlsStep TlsStream::read(MutableBytes to, std::size_t& got) {
  got = 0;
  CHECK(established_ && !to.empty());
  if (failed_) return TlsStep::kFailed;
  ERR_clear_error();
  errno = 0;
  const int result = SSL_read(ssl_, to.data(), clamped(to.size()));
  if (result <= 0) return step_of(result);
  got = static_cast<std::size_t>(result);
  return TlsStep::kOk;
}

TlsStep TlsStream::write(Bytes bytes, std::size_t& taken) {
  taken = 0;
  CHECK(established_ && !bytes.empty());
  if (failed_) return TlsStep::kFailed;
  ERR_clear_error();
  errno = 0;
  const int result = SSL_write(ssl_, bytes.data(), clamped(bytes.size()));
  if (result <= 0) return step_of(result);
  taken = static_cast<std::size_t>(result);
  return TlsStep::kOk;
}

TlsStep TlsStream::close() {
  if (!established_ || failed_ || closed_) return TlsStep::kOk;
  ERR_clear_error();
  const int result = SSL_shutdown(ssl_);
  if (result < 0) {
    const int kind = SSL_get_error(ssl_, result);
    ERR_clear_error();
    if (kind == SSL_ERROR_WANT_WRITE) return TlsStep::kWantWrite;
    // Our notice went out with the first call; what is wanted then is only the peer's.
    if (kind != SSL_ERROR_WANT_READ) failed_ = true;
  }
  closed_ = true;
  return TlsStep::kOk;
}

bool TlsStream::pending() const noexcept { return established_ && SSL_pending(ssl_) > 0; }
bool TlsStream::in_record() const noexcept { return SSL_has_pending(ssl_) == 1; }

std::string_view TlsStream::version() const noexcept { return SSL_get_version(ssl_); }

std::string TlsStream::peer_fingerprint() const {
  const X509* certificate = SSL_get0_peer_certificate(ssl_);
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (certificate == nullptr || X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) {
    return {};
  }
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned at = 0; at < size; ++at) {
    text += kHex[digest[at] >> 4];
    text += kHex[digest[at] & 15];
  }
  return text;
}

}  // namespace cm::net
