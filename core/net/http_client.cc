// http_client.cc — poll(), a deadline, and the sans-I/O response parser.
// Holds:  the descriptor is non-blocking; every wait is a poll() up to the deadline.
// Not:    keep-alive: one connection, one exchange.
#include "core/net/http_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/base/arena.h"
#include "core/net/chunked.h"
#include "core/net/http_message.h"
#include "core/net/loop.h"
#include "core/net/socket.h"
#include "core/net/tls.h"

namespace cm::net {
namespace {

constexpr std::uint32_t kBodyMax = 10 << 20;
constexpr std::size_t kLineMax = 1 << 20;
constexpr std::size_t kReadBytes = 64 * 1024;

class Exchange {
 public:
  Exchange(const Endpoint& endpoint, std::uint32_t timeout_ms)
      : endpoint_(endpoint),
        deadline_(timeout_ms == kNoTimeout ? kNever : Loop::mono_ms() + timeout_ms),
        in_(pool_) {
    limits_.body_bytes = kBodyMax;
  }
  ~Exchange() {
    if (tls_) tls_->close();
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  Status open();
  Status send(std::string_view bytes);
  // Reads what has arrived, at least one byte; sets eof() at the end.
  Status receive();
  Result<HttpReply> whole_reply(bool to_head);
  // kComplete puts the head into `out` and drops it from the input.
  Result<HttpReply> head_of_reply(HttpResponse& out);
  Result<HttpReply> lines(const HttpResponse& head, HttpReply reply, OnLine on_line, void* context);
  std::string host() const;

 private:
  Status open_tls();
  // What TLS asked for; an error that ends the exchange for any other step.
  Status wait_for(TlsStep step);
  Status wait(short events);
  Error broken() const { return fail(Err::kTransport, name() + ": the reply broke off"); }
  Error refused(const HttpRefusal& refusal) const;
  std::string name() const;
  bool give_lines(std::string& line, std::string_view data, OnLine on_line, void* context,
                  bool& too_long) const;

  const Endpoint& endpoint_;
  std::uint64_t deadline_;
  Fd fd_;
  std::unique_ptr<TlsStream> tls_;
  bool eof_ = false;
  bool cut_ = false;  // the end was not said by TLS: it proves nothing about a body's length
  HttpLimits limits_;
  BufferPool pool_;
  ScratchArena arena_{64 * 1024, 64 * 1024};
  PooledBuffer in_;
};

std::string Exchange::name() const {
  if (!endpoint_.unix_path.empty()) return endpoint_.unix_path;
  return endpoint_.host + ":" + std::to_string(endpoint_.port);
}

std::string Exchange::host() const {
  if (!endpoint_.unix_path.empty()) return "localhost";
  const bool v6 = endpoint_.host.find(':') != std::string::npos;
  const std::string bare = v6 ? "[" + endpoint_.host + "]" : endpoint_.host;
  return endpoint_.port == (endpoint_.tls ? 443 : 80) ? bare
                                                      : bare + ":" + std::to_string(endpoint_.port);
}

Error Exchange::refused(const HttpRefusal& refusal) const {
  const bool long_body = refusal.sentence == "the body is too long";
  return fail(long_body ? Err::kTooBig : Err::kTransport,
              name() + ": " + std::string(refusal.sentence));
}

Status Exchange::wait(short events) {
  for (;;) {
    const std::uint64_t now = Loop::mono_ms();
    if (now >= deadline_) return fail(Err::kTimeout, name() + ": no answer in time");
    pollfd look{fd_.get(), events, 0};
    const auto ms = static_cast<int>(std::min<std::uint64_t>(deadline_ - now, 60'000));
    const int ready = ::poll(&look, 1, ms);
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail(Err::kIo, std::strerror(errno));
  }
}

Status Exchange::open() {
  if (endpoint_.unix_path.empty()) {
    Result<Fd> fd = connect_tcp(endpoint_.host, endpoint_.port, deadline_);
    if (!fd) return fd.error();
    fd_ = std::move(*fd);
    return endpoint_.tls ? open_tls() : Status{};
  }
  for (;;) {
    bool retry = false;
    Result<Fd> fd = connect_unix(endpoint_.unix_path, retry);
    if (fd) {
      fd_ = std::move(*fd);
      return {};
    }
    if (!retry) return fd.error();
    if (Loop::mono_ms() >= deadline_) return fail(Err::kTimeout, name() + ": no answer in time");
    ::poll(nullptr, 0, 5);  // a full backlog gives nothing to wait on
  }
}

Status Exchange::open_tls() {
  const Result<TlsContext> context = TlsContext::client(endpoint_.ca_file);
  if (!context) return context.error();
  const TlsIo io = {[](void* self, MutableBytes to) {
                      return ::recv(static_cast<Exchange*>(self)->fd_.get(), to.data(), to.size(),
                                    0);
                    },
                    [](void* self, Bytes bytes) {
                      return ::send(static_cast<Exchange*>(self)->fd_.get(), bytes.data(),
                                    bytes.size(), MSG_NOSIGNAL);
                    },
                    this};
  tls_ = std::make_unique<TlsStream>(*context, io, endpoint_.host);
  for (;;) {
    const TlsStep step = tls_->handshake();
    if (step == TlsStep::kOk) return {};
    if (Status ready = wait_for(step); !ready) return ready;
  }
}

Status Exchange::wait_for(TlsStep step) {
  if (step == TlsStep::kWantRead) return wait(POLLIN);
  if (step == TlsStep::kWantWrite) return wait(POLLOUT);
  if (step == TlsStep::kFailed) return fail(Err::kTlsFailed, name() + ": " + tls_->failure());
  return broken();
}

Status Exchange::send(std::string_view bytes) {
  while (tls_ && !bytes.empty()) {
    std::size_t taken = 0;
    const TlsStep step = tls_->write(as_bytes(bytes), taken);
    bytes.remove_prefix(taken);
    if (step == TlsStep::kOk) continue;
    // As below: a server that refuses early.
    if (step != TlsStep::kWantRead && step != TlsStep::kWantWrite) return {};
    if (Status ready = wait_for(step); !ready) return ready;
  }
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (Status ready = wait(POLLOUT); !ready) return ready;
    } else if (errno != EINTR) {
      // A server that refuses early closes before it has read all; its reply may be there.
      return {};
    }
  }
  return {};
}

Status Exchange::receive() {
  while (tls_) {
    std::size_t got = 0;
    const TlsStep step = tls_->read(in_.prepare(kReadBytes).first(kReadBytes), got);
    in_.commit(got);
    if (step == TlsStep::kOk) return {};
    eof_ = step == TlsStep::kEnd || step == TlsStep::kCut;
    cut_ = step == TlsStep::kCut;
    if (eof_) return {};
    if (Status ready = wait_for(step); !ready) return ready;
  }
  for (;;) {
    const MutableBytes room = in_.prepare(kReadBytes);
    const ssize_t got = ::recv(fd_.get(), room.data(), kReadBytes, 0);
    if (got > 0) {
      in_.commit(static_cast<std::size_t>(got));
      return {};
    }
    if (got == 0) {
      eof_ = true;
      return {};
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return broken();
    if (Status ready = wait(POLLIN); !ready) return ready;
  }
}

HttpReply kept(const HttpResponse& response) {
  HttpReply reply;
  reply.status = response.status;
  reply.body = std::string(response.body);
  for (const HttpHeader& field : response.headers) {
    reply.headers.emplace_back(std::string(field.name), std::string(field.value));
  }
  return reply;
}

Result<HttpReply> Exchange::whole_reply(bool to_head) {
  HttpProgress progress;
  for (;;) {
    HttpResponse response;
    const HttpStep step =
        parse_response(in_.bytes(), eof_ && !cut_, to_head, limits_, progress, arena_, response);
    if (step.kind == HttpStep::Kind::kRefused) return refused(step.refusal);
    if (step.kind == HttpStep::Kind::kComplete) {
      if (response.status >= 200 || response.status == 101) return kept(response);
      in_.consume(step.size);  // an interim response; the real one follows
      progress = {};
      continue;
    }
    if (eof_) return broken();
    if (Status got = receive(); !got) return got.error();
  }
}

Result<HttpReply> Exchange::head_of_reply(HttpResponse& out) {
  for (;;) {
    HttpProgress progress;
    const HttpStep step = parse_response_head(in_.bytes(), limits_, progress, arena_, out);
    if (step.kind == HttpStep::Kind::kRefused) return refused(step.refusal);
    if (step.kind == HttpStep::Kind::kComplete) {
      if (out.status / 100 != 2) return whole_reply(false);
      in_.consume(step.size);
      return kept(out);
    }
    if (eof_) return broken();
    if (Status got = receive(); !got) return got.error();
  }
}

bool Exchange::give_lines(std::string& line, std::string_view data, OnLine on_line, void* context,
                          bool& too_long) const {
  while (!data.empty()) {
    const std::size_t end = data.find('\n');
    line.append(data.substr(0, end));
    too_long = line.size() > kLineMax;
    if (too_long) return false;
    if (end == std::string_view::npos) return true;
    if (line.ends_with('\r')) line.pop_back();
    if (!on_line(context, line)) return false;
    line.clear();
    data.remove_prefix(end + 1);
  }
  return true;
}

Result<HttpReply> Exchange::lines(const HttpResponse& head, HttpReply reply, OnLine on_line,
                                  void* context) {
  ChunkDecoder chunks;
  std::string line;
  std::uint64_t left = head.body_kind == HttpBody::kLength ? head.content_length : UINT64_MAX;
  bool too_long = false;
  for (;;) {
    while (!in_.empty()) {
      std::size_t used = in_.size();
      Bytes data = in_.bytes();
      auto step = ChunkDecoder::Step::kData;
      if (head.body_kind == HttpBody::kChunked) step = chunks.step(in_.bytes(), used, data);
      if (step == ChunkDecoder::Step::kBad) return broken();
      if (!give_lines(line, as_text(data), on_line, context, too_long)) {
        if (too_long) return fail(Err::kTooBig, name() + ": a line is longer than 1 MiB");
        return reply;
      }
      if (step == ChunkDecoder::Step::kEnd) return reply;
      left -= std::min<std::uint64_t>(left, data.size());
      in_.consume(used);
    }
    if (left == 0) return reply;
    if (eof_) {
      if (head.body_kind == HttpBody::kUntilEof && !cut_) return reply;
      return broken();
    }
    if (Status got = receive(); !got) return got.error();
  }
}

}  // namespace

std::string_view HttpReply::header(std::string_view name) const noexcept {
  for (const auto& [key, value] : headers) {
    if (equal_no_case(key, name)) return value;
  }
  return {};
}

Result<HttpReply> http_call(const Endpoint& endpoint, std::string_view method,
                            std::string_view target, HttpHeaders headers, std::string_view body,
                            std::uint32_t timeout_ms) {
  Exchange exchange(endpoint, timeout_ms);
  if (Status opened = exchange.open(); !opened) return opened.error();
  ScratchArena arena(64 * 1024, 64 * 1024);
  TextBuf request(arena);
  write_request_head(request, method, target, exchange.host(), headers, body.size(), false);
  if (Status sent = exchange.send(request.view()); !sent) return sent.error();
  if (Status sent = exchange.send(body); !sent) return sent.error();
  return exchange.whole_reply(method == "HEAD");
}

Result<HttpReply> http_stream(const Endpoint& endpoint, std::string_view method,
                              std::string_view target, HttpHeaders headers,
                              std::uint32_t timeout_ms, OnLine on_line, void* context) {
  Exchange exchange(endpoint, timeout_ms);
  if (Status opened = exchange.open(); !opened) return opened.error();
  ScratchArena arena(64 * 1024, 64 * 1024);
  TextBuf request(arena);
  write_request_head(request, method, target, exchange.host(), headers, 0, false);
  if (Status sent = exchange.send(request.view()); !sent) return sent.error();
  HttpResponse head;
  Result<HttpReply> reply = exchange.head_of_reply(head);
  if (!reply || reply->status / 100 != 2) return reply;
  return exchange.lines(head, std::move(*reply), on_line, context);
}

}  // namespace cm::net
