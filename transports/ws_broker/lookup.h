// lookup.h — a host's addresses: at once for numbers and "localhost", else by a helper thread.
// Owns:   AddressList, Lookup.
// Holds:  the thread and the peer share no memory: the answer comes as one packet over a socket
//         pair, whose one end is the thread's own. A peer that closed its end is noticed by a
//         failed send, so neither has to outlive the other.
// Why:    getaddrinfo() blocks for seconds; the loop's thread may not.
// Limits: 8 addresses.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>

#include "transports/ws_broker/services.h"

namespace cm::ws_broker {

struct Address {
  sockaddr_storage storage;
  socklen_t size;
};

struct AddressList {
  std::array<Address, 8> items;
  std::uint32_t count;
};

// False if the name has to be looked up.
bool numeric_addresses(const std::string& host, std::uint16_t port, AddressList& out);

class Lookup {
 public:
  // An empty list comes with a sentence.
  using OnDone = void (*)(void* context, const AddressList& list, std::string_view sentence);

  Lookup(const Services& services, OnDone on_done, void* context) noexcept
      : watch_(services, &Lookup::on_ready, this), on_done_(on_done), context_(context) {}

  // False if no thread could be started.
  bool start(const std::string& host, std::uint16_t port);
  // The thread ends by itself.
  void cancel();

 private:
  static void on_ready(void* self, int fd, std::uint32_t events);

  Descriptor answer_;
  FdWatch watch_;  // goes before the descriptor
  OnDone on_done_;
  void* context_;
};

}  // namespace cm::ws_broker
