// lookup.cc — the helper thread around getaddrinfo().
// Holds:  the thread blocks all signals: the process's handlers run on the loop's thread.
#include "transports/ws_broker/lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>

#include <cstring>
#include <memory>

namespace cm::ws_broker {
namespace {

// One packet.
struct Answer {
  int error;
  AddressList list;
};

struct Job {
  std::string host;
  std::uint16_t port;
  Descriptor to_peer;
};

void add(AddressList& list, const sockaddr* address, socklen_t size) noexcept {
  if (list.count == list.items.size() || size > sizeof(sockaddr_storage)) return;
  Address& item = list.items[list.count++];
  std::memcpy(&item.storage, address, size);
  item.size = size;
}

bool add_v4(AddressList& list, const char* text, std::uint16_t port) noexcept {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, text, &address.sin_addr) != 1) return false;
  add(list, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  return true;
}

bool add_v6(AddressList& list, const char* text, std::uint16_t port) noexcept {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  if (::inet_pton(AF_INET6, text, &address.sin6_addr) != 1) return false;
  add(list, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  return true;
}

void* run(void* argument) {
  const std::unique_ptr<Job> job(static_cast<Job*>(argument));
  Answer answer{};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  answer.error =
      ::getaddrinfo(job->host.c_str(), std::to_string(job->port).c_str(), &hints, &found);
  if (answer.error == 0) {
    for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
      add(answer.list, at->ai_addr, at->ai_addrlen);
    }
    ::freeaddrinfo(found);
  }
  // Fails if the peer is gone, and then nobody wants to know.
  static_cast<void>(::send(job->to_peer.get(), &answer, sizeof answer, MSG_NOSIGNAL));
  return nullptr;
}

bool start_thread(std::unique_ptr<Job> job) {
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return false;
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = ::pthread_create(&thread, &attributes, &run, job.get()) == 0;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_attr_destroy(&attributes);
  if (started) static_cast<void>(job.release());  // the thread's now
  return started;
}

}  // namespace

bool numeric_addresses(const std::string& host, std::uint16_t port, AddressList& out) {
  out = {};
  if (host == "localhost") {
    add_v4(out, "127.0.0.1", port);
    add_v6(out, "::1", port);
    return true;
  }
  return add_v4(out, host.c_str(), port) || add_v6(out, host.c_str(), port);
}

bool Lookup::start(const std::string& host, std::uint16_t port) {
  cancel();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return false;
  answer_ = Descriptor(ends[0]);
  auto job = std::make_unique<Job>(Job{host, port, Descriptor(ends[1])});
  if (!watch_.watch(ends[0], CM_FD_READ) || !start_thread(std::move(job))) {
    cancel();
    return false;
  }
  return true;
}

void Lookup::cancel() {
  watch_.close();
  answer_.reset();
}

void Lookup::on_ready(void* self, int fd, std::uint32_t) {
  auto* lookup = static_cast<Lookup*>(self);
  Answer answer{};
  const ssize_t got = ::recv(fd, &answer, sizeof answer, MSG_DONTWAIT);
  lookup->cancel();
  const bool whole = got == static_cast<ssize_t>(sizeof answer);
  if (!whole) answer = {EAI_FAIL, {}};
  const std::string sentence = answer.error == 0 ? "" : ::gai_strerror(answer.error);
  lookup->on_done_(lookup->context_, answer.list, sentence);
}

}  // namespace cm::ws_broker
