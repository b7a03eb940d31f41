// relay.h — what travels between a daemon and its broker when the way between them lies.
// Owns:   Relay: duplicates, frames of an earlier connection, changed frames, forged acks, and a
//         broker that knows nothing of what is new (legacy).
// Holds:  it lies only about what the protocol protects. Nothing protects the order of one lane
//         against who reorders its frames, nor a first hello against who keeps it back; so a push
//         is repeated only after its recipient has acknowledged it, a hello is replayed only
//         after it was admitted, and frames of one lane stay in order. Only a true answer is
//         repeated late; a forged refusal names its message in slain().
// Source: design/delivery.md, promises 3, 5, 7; spec/observed.md, "send, ack, push".
// Not:    losing and delaying (network.h); peers that lie for themselves (liar.h).
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/arena.h"
#include "core/wire/json_tape.h"
#include "tests/sim/journal.h"
#include "tests/sim/plan.h"

namespace cm::sim {

// The text member `key` of a frame as it stands there, without escapes; empty if there is none.
std::string_view member_of_frame(std::string_view frame, std::string_view key);
bool is_type(std::string_view frame, std::string_view type);
// May these two, sent in this order on one connection, arrive in the other one?
bool may_change_places(std::string_view first, std::string_view second);

class Relay {
 public:
  Relay(const Plan& plan, Rng& rng, Journal& journal, Counters& counters)
      : plan_(plan), rng_(rng), journal_(journal), counters_(counters) {}

  void set_key(std::uint32_t daemon, std::string hex) { lines_[daemon].key = std::move(hex); }
  // What arrives in place of `text`. A daemon without a key is a raw client: it lies itself.
  void up(std::uint32_t daemon, std::string_view text, std::vector<std::string>& out);
  void down(std::uint32_t daemon, std::string_view text, std::vector<std::string>& out);
  // Of earlier connections of this daemon; asked behind each hello_ack.
  void late(std::uint32_t daemon, std::vector<std::string>& to_broker,
            std::vector<std::string>& to_daemon);
  void heal() noexcept { calm_ = true; }

  // Mail that it changed, by sender key and client_message_id: it may not open, or end as dead.
  bool changed(const std::string& sender, const std::string& id) const {
    return changed_.contains({sender, id});
  }
  // Sends that it refused in the broker's name: they may end as dead although they were stored.
  bool slain(const std::string& sender, const std::string& id) const {
    return slain_.contains({sender, id});
  }
  // What who listens knows: hellos that were admitted, ids that the broker gave.
  const std::deque<std::string>& admitted_hellos() const noexcept { return hellos_; }
  const std::deque<std::string>& broker_ids() const noexcept { return broker_ids_; }
  const std::deque<std::string>& client_ids() const noexcept { return client_ids_; }

 private:
  static constexpr std::size_t kKept = 8, kKeptLong = 64;
  struct Line {  // between one daemon and the broker
    std::string key;
    std::string hello;                        // of the newest connection
    std::map<std::string, std::string> open;  // pushes by message id, not acknowledged
    std::deque<std::string> acknowledged;     // pushes
    std::vector<std::string> kept;            // answers to changed sends, for the next connection
    std::deque<std::string> sent, acks;       // sends and client_acks; answers to sends
    std::deque<std::string> own_ids;          // of its sends, over all connections
    std::deque<std::string> true_acks;        // that said "stored", likewise
  };
  bool is_honest(std::string_view key) const;  // a daemon's
  void remember(std::deque<std::string>& where, std::string_view text,
                std::size_t most = kKept) const;
  std::string tamper(std::string_view sender, std::string_view text);
  std::string as_legacy(std::string_view text);
  std::string forged_ack(std::uint32_t daemon);
  std::string forged_answer(Line& line);
  bool strikes(std::uint32_t per_mille) {
    return !calm_ && per_mille != 0 && rng_.chance(per_mille);
  }

  const Plan& plan_;
  Rng& rng_;
  Journal& journal_;
  Counters& counters_;
  std::map<std::uint32_t, Line> lines_;
  std::set<std::pair<std::string, std::string>> changed_, slain_;
  std::deque<std::string> hellos_, broker_ids_, client_ids_;
  std::deque<std::pair<std::uint32_t, std::string>> sent_ids_;
  ScratchArena arena_{16 * 1024};
  wire::JsonParser parser_;
  bool calm_ = false;
};

}  // namespace cm::sim
