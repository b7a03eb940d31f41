// network.h — the lossy wire between the daemons' transports and the broker's sockets.
// Owns:   Channel (one TCP connection), Dialer (one transport's reconnecting), Network.
// Holds:  each direction keeps its order: frames are late, batched, or lost from some point to the
//         end together with the connection. Either side may learn of a loss much later than the
//         other (half-open). Some connections carry the bytes of real WebSocket frames, in pieces.
// Why:    what a WebSocket over TCP can do to a peer is exactly this; what is more, lies (relay.h).
// Not:    TLS, sockets (core/net); what frames mean (the cores).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/ids.h"
#include "core/daemon/effects.h"
#include "tests/sim/byte_wire.h"
#include "tests/sim/journal.h"
#include "tests/sim/plan.h"
#include "tests/sim/relay.h"

namespace cm::sim {

using daemon::LinkRef;

enum class ItemKind : std::uint8_t { kUp, kText, kBytes, kDown, kGaveUp, kBlocked, kWritable };
struct Item {
  ItemKind kind = ItemKind::kText;
  std::uint64_t due_ms = 0;
  std::uint32_t code = 0;  // kDown
  std::string text;        // the frame, a piece of its bytes, or why it is down
};

struct Channel {
  std::uint32_t id = 0;
  std::uint32_t daemon = 0;
  ConnRef conn;             // its name at the broker
  bool daemon_side = true;  // this side still has its socket
  bool broker_side = true;
  bool daemon_knows = false;  // this side was told that it is up
  bool broker_knows = false;
  bool cut = false;      // nothing new travels
  bool greeted = false;  // hello_ack was sent
  bool blocked = false;
  std::uint32_t frame_limit = 0;
  std::deque<Item> to_daemon;
  std::deque<Item> to_broker;
  std::map<std::string, bool> presence;  // what this socket was told of each peer: joined or left
  std::uint64_t unread_until_ms = 0;     // the daemon reads nothing until then
  std::unique_ptr<ByteWire> up, down;    // when bytes travel
};

struct Dialer {
  std::uint32_t daemon = 0;
  LinkRef link;
  std::uint64_t try_at_ms = UINT64_MAX;
  std::uint32_t failures = 0;
  bool refused_hello = false;
  std::uint32_t channel = 0;  // id, 0: none
  std::deque<Item> items;     // states without a channel
};

struct LinkInput {
  LinkRef link;
  Item item;
};
struct ConnInput {
  ConnRef conn;
  Item item;
};

class Network {
 public:
  Network(const Plan& plan, Rng& rng, Journal& journal, Counters& counters)
      : plan_(plan),
        rng_(rng),
        journal_(journal),
        counters_(counters),
        relay_(plan, rng, journal, counters) {}

  Relay& relay() noexcept { return relay_; }
  const Relay& relay() const noexcept { return relay_; }

  // For who decides everything: nothing is drawn, nothing is late, and only the connection that was
  // picked gives its next item, in one direction; after a loss everything is still on its way.
  struct Pick {
    std::uint32_t channel = 0;  // 0: none
    bool up = false;            // to the broker
  };
  void be_still() noexcept { still_ = true; }
  void pick(Pick what) noexcept { pick_ = what; }
  void dial(std::uint32_t daemon, std::uint64_t now_ms);
  void tick_quietly() { drop_dead(); }
  const std::vector<Dialer>& dialers() const noexcept { return dialers_; }
  // Forgets what a lost connection had on its way; that it is lost is all that arrives.
  void lose_rest(Pick what);

  // From then on a hello that was forgotten may be fresh again: see liar.cc.
  bool broker_clock_went_back = false;

  // Starts connections that are due. `broker_up`: something listens.
  void tick(std::uint64_t now_ms, bool broker_up);
  std::uint64_t next_dial_ms() const;
  std::uint64_t next_for_daemon(std::uint32_t daemon) const;
  std::uint64_t next_for_broker() const;

  // What has arrived by now, at most `frames` of each connection.
  void collect_for_daemon(std::uint32_t daemon, std::uint64_t now_ms, std::size_t frames,
                          std::vector<LinkInput>& out);
  void collect_for_broker(std::uint64_t now_ms, std::size_t frames, std::vector<ConnInput>& out);

  // Effects of a daemon.
  void link_open(std::uint32_t daemon, LinkRef link, std::uint64_t now_ms);
  void link_send(std::uint32_t daemon, LinkRef link, std::string_view text, std::uint64_t now_ms);
  void link_note(std::uint32_t daemon, LinkRef link, std::uint32_t verdict);
  void link_close(std::uint32_t daemon, LinkRef link, std::uint64_t now_ms);
  // Effects of the broker. The channel of a live socket, or null.
  Channel* channel_of(ConnRef conn);
  void conn_send(ConnRef conn, std::string_view text, std::uint64_t now_ms);
  void conn_close(ConnRef conn, std::uint32_t code, std::string_view reason, std::uint64_t now_ms);

  // Faults.
  void daemon_died(std::uint32_t daemon, std::uint64_t now_ms);
  void broker_died(std::uint64_t now_ms);
  void cut_one(bool half_open, std::uint64_t now_ms);
  void block_one(std::uint64_t now_ms);
  void stop_reading_one(std::uint64_t now_ms);
  // A transport ends for good, as with a bad address: its daemon has to open it anew.
  void give_up_one(std::uint64_t now_ms);
  void refuse_until(std::uint64_t until_ms) noexcept { refuse_until_ms_ = until_ms; }
  // From here on nothing is lost any more.
  void heal(std::uint64_t now_ms);

  const std::vector<std::unique_ptr<Channel>>& channels() const noexcept { return channels_; }

 private:
  Dialer* dialer_of(std::uint32_t daemon, LinkRef link);
  Channel* by_id(std::uint32_t id);
  void connect(Dialer& dialer, std::uint64_t now_ms);
  void retry_later(Dialer& dialer, std::uint64_t now_ms);
  void push(std::deque<Item>& to, ItemKind kind, std::uint64_t now_ms, std::uint32_t code,
            std::string_view text, std::uint64_t extra_ms = 0);
  void ship(Channel& channel, bool to_broker, std::string_view text, std::uint64_t now_ms);
  // The messages that a piece of bytes completes.
  void unpack(Item&& item, ByteWire* wire, std::vector<Item>& out);
  void drop_slow_consumer(Channel& channel, std::uint64_t now_ms);
  void lose_tail(std::deque<Item>& items);
  void lose(Channel& channel, std::uint64_t now_ms, bool daemon_late, bool broker_late);
  std::uint64_t delay();
  std::uint64_t notice_delay(bool late);
  void drop_dead();

  const Plan& plan_;
  Rng& rng_;
  Journal& journal_;
  Counters& counters_;
  Relay relay_;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<Dialer> dialers_;
  std::vector<std::uint32_t> generations_;  // of the broker's socket slots; odd: in use
  std::uint32_t next_id_ = 1;
  std::uint64_t refuse_until_ms_ = 0;
  bool calm_ = false;
  bool still_ = false;
  Pick pick_;
};

}  // namespace cm::sim
