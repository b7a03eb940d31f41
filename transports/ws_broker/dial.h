// dial.h — from a broker's address to a connected socket, without blocking.
// Owns:   Dial: the look-up and the one connection attempt that runs.
// Holds:  on_done comes exactly once for a start(), unless cancel() comes first; it may come from
//         inside start(). Addresses are tried one after the other, each but the last for its share
//         of time. A start() begins behind the address that the one before ended with, unless
//         keep() said that it served, so that no address can hide the next for good: not one that
//         answers nothing, and not one that takes connections and says nothing.
// Limits: kShareMs an address.
// Not:    the deadline of all and what follows a failure: the peer's.
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
        share_(services, &Dial::on_late, this),
        on_done_(on_done),
        context_(context) {}

  void start();
  void cancel();
  // The connection that was made is a good one: the next start() begins with its address.
  void keep() noexcept { first_ = last_; }

 private:
  static constexpr std::uint64_t kShareMs = 3'000;

  static void on_addresses(void* self, const AddressList& list, std::string_view sentence);
  static void on_ready(void* self, int fd, std::uint32_t events);
  static void on_late(void* self);
  void try_next(int error);
  void fail(std::string_view sentence);

  const Settings* settings_;
  Lookup lookup_;
  Descriptor fd_;
  FdWatch watch_;  // goes before the descriptor
  AddressList list_{};
  OneShot share_;            // of the address that is being tried, if there is another one
  std::uint32_t begun_ = 0;  // index of the address that this start() began with
  std::uint32_t first_ = 0;  // that of the next one
  std::uint32_t last_ = 0;   // that of the attempt that runs, or ran last
  std::uint32_t tried_ = 0;
  OnDone on_done_;
  void* context_;
};

}  // namespace cm::ws_broker
