// dial.h — from a broker's address to a connected socket, without blocking.
// Owns:   Dial: the look-up and the one connection attempt that runs.
// Holds:  on_done comes exactly once for a start(), unless cancel() comes first; it may come from
//         inside start(). Addresses are tried one after the other, beginning with another one at
//         each start, so that one dead address cannot hide the next for good.
// Not:    deadlines and what follows a failure: the peer's.
#pragma once

#include "transports/ws_broker/lookup.h"
#include "transports/ws_broker/settings.h"

namespace cm::ws_broker {

class Dial {
 public:
  // A connected, non-blocking descriptor, or an empty one with a sentence.
  using OnDone = void (*)(void* context, Descriptor fd, std::string_view sentence);

  Dial(const Services& services, const Settings& settings, OnDone on_done, void* context) noexcept
      : settings_(&settings),
        lookup_(services, &Dial::on_addresses, this),
        watch_(services, &Dial::on_ready, this),
        on_done_(on_done),
        context_(context) {}

  void start();
  void cancel();

 private:
  static void on_addresses(void* self, const AddressList& list, std::string_view sentence);
  static void on_ready(void* self, int fd, std::uint32_t events);
  void try_next(int error);
  void fail(std::string_view sentence);

  const Settings* settings_;
  Lookup lookup_;
  Descriptor fd_;
  FdWatch watch_;  // goes before the descriptor
  AddressList list_{};
  std::uint32_t first_ = 0;  // index of the address that this start() begins with
  std::uint32_t tried_ = 0;
  OnDone on_done_;
  void* context_;
};

}  // namespace cm::ws_broker
