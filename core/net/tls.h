// tls.h — TLS 1.2 and 1.3 over any byte path: contexts (who we are, whom we trust) and streams.
// Owns:   TlsContext, TlsStream; with tls.cc and tls_context.cc all of OpenSSL's libssl.
// Holds:  a client always verifies the chain and the name or address; nothing switches that off.
//         No compression, no renegotiation, no tickets, no session cache; ALPN is "http/1.1".
// Why:    sans-I/O like the other machines: the caller gives two functions of recv's and send's
//         form, so servers, the command line and transport plugins share it, and a test can deliver
//         byte by byte. No SIGPIPE either: the caller's send says MSG_NOSIGNAL.
// Limits: an idle stream has no record buffer; within a record it has one of some 17 KiB.
// Source: RFC 8446, RFC 5246, RFC 7301; design/presence.md, "Authority and exposure of a broker".
// Not:    sockets, deadlines, byte budgets: the caller's.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/result.h"

struct bio_st;
struct ssl_ctx_st;
struct ssl_st;

namespace cm::net {

// Streams hold a reference of their own: a context may be replaced or destroyed while they live.
class TlsContext {
 public:
  TlsContext() = default;
  ~TlsContext();
  TlsContext(TlsContext&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
  TlsContext& operator=(TlsContext&& other) noexcept {
    std::swap(context_, other.context_);
    return *this;
  }
  explicit operator bool() const noexcept { return context_ != nullptr; }

  // PEM files: the chain with our certificate first, and its key, which must be a regular file of
  // mode 0600 or 0400 that belongs to us or to root. kIo: a file cannot be read or is not private;
  // kMalformed: not PEM, or the two do not belong together. The detail names the file.
  static Result<TlsContext> server(const std::string& certificate_file,
                                   const std::string& key_file);
  // Trusts the system's authorities, and those of `ca_file` (PEM) if it is not empty.
  static Result<TlsContext> client(const std::string& ca_file);

 private:
  friend class TlsStream;
  explicit TlsContext(ssl_ctx_st* context) noexcept : context_(context) {}
  ssl_ctx_st* context_ = nullptr;
};

// The byte path below a stream, as recv() and send() answer: a count, 0 at the end, or -1 with
// errno (EAGAIN and EINTR: later). `context` lives as long as the stream.
struct TlsIo {
  ssize_t (*read)(void* context, MutableBytes to) = nullptr;
  ssize_t (*write)(void* context, Bytes bytes) = nullptr;
  void* context = nullptr;
};

enum class TlsStep : std::uint8_t {
  kOk,
  kWantRead,   // again when the path has input; a write may want this too
  kWantWrite,  // again when the path takes output; a read may want this too
  kEnd,        // the peer said that it ends (close_notify)
  kCut,        // the path ended without that: what came may be incomplete
  kFailed      // failure() says why; nothing more can be done with it
};

class TlsStream {
 public:
  // A server's end, with the context's certificate.
  TlsStream(const TlsContext& context, const TlsIo& io);
  // A client's end; `host` is a name or a numeric address, without brackets.
  TlsStream(const TlsContext& context, const TlsIo& io, const std::string& host);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Until kOk; only then read() and write().
  TlsStep handshake();
  bool established() const noexcept { return established_; }

  // kOk with got >= 1.
  TlsStep read(MutableBytes to, std::size_t& got);
  // kOk with taken >= 1, of a non-empty text. After kWantRead or kWantWrite the next call begins
  // with the same bytes (at any address; more may have been added behind them).
  TlsStep write(Bytes bytes, std::size_t& taken);
  // Sends close_notify, once; kOk when it has left or cannot leave any more.
  TlsStep close();

  // Bytes that read() will give without input: no readiness of a descriptor announces them.
  bool pending() const noexcept;
  // A record buffer is held: a record is incomplete, or not all of it was read().
  bool in_record() const noexcept;

  // After kFailed, a sentence without its full stop, with what a person can do about it.
  const std::string& failure() const noexcept { return failure_; }
  // The first bytes were those of a plain HTTP request.
  bool was_http() const noexcept { return was_http_; }
  // "TLSv1.3"; for logs and tests.
  std::string_view version() const noexcept;
  // SHA-256 of the peer's certificate in lower-case hex; empty without one.
  std::string peer_fingerprint() const;

 private:
  friend struct TlsBio;
  void attach(const TlsContext& context);
  TlsStep step_of(int result);
  void describe();

  TlsIo io_;
  ssl_st* ssl_ = nullptr;
  std::string host_;  // of a client's end
  std::string failure_;
  bool established_ = false;
  bool failed_ = false;
  bool closed_ = false;  // close_notify is out
  bool path_end_ = false;
  bool was_http_ = false;
};

}  // namespace cm::net
