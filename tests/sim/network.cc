// network.cc — connecting, carrying, losing.
#include "tests/sim/network.h"

#include <algorithm>

#include "core/base/check.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kStaleMs = 75'000;  // after so much silence a side gives up by itself
constexpr std::uint64_t kBackoffFirstMs = 500;
constexpr std::uint64_t kBackoffMostMs = 30'000;

std::uint64_t front_due(const std::deque<Item>& items) noexcept {
  return items.empty() ? UINT64_MAX : items.front().due_ms;
}

}  // namespace

void Network::dial(std::uint32_t daemon, std::uint64_t now_ms) {
  for (Dialer& dialer : dialers_) {
    if (dialer.daemon != daemon) continue;
    dialer.try_at_ms = UINT64_MAX;
    connect(dialer, now_ms);
  }
}

void Network::lose_rest(Pick what) {
  Channel* channel = by_id(what.channel);
  if (channel == nullptr) return;
  std::deque<Item>& items = what.up ? channel->to_broker : channel->to_daemon;
  while (items.size() > 1) items.pop_front();
}

std::uint64_t Network::delay() {
  if (still_) return 0;
  if (calm_ || rng_.chance(700)) return rng_.below(3);
  const std::uint64_t late = rng_.below(plan_.delay_most_ms + 1);
  if (late > 30) counters_.faults.add(Fault::kDelay);
  return late;
}

std::uint64_t Network::notice_delay(bool late) {
  if (still_) return 0;
  return late ? rng_.between(1'000, kStaleMs) : rng_.below(20);
}

Channel* Network::by_id(std::uint32_t id) {
  for (const auto& channel : channels_) {
    if (channel->id == id) return channel.get();
  }
  return nullptr;
}

Channel* Network::channel_of(ConnRef conn) {
  for (const auto& channel : channels_) {
    if (channel->broker_side && channel->conn == conn) return channel.get();
  }
  return nullptr;
}

Dialer* Network::dialer_of(std::uint32_t daemon, LinkRef link) {
  for (Dialer& dialer : dialers_) {
    if (dialer.daemon == daemon && dialer.link == link) return &dialer;
  }
  return nullptr;
}

void Network::push(std::deque<Item>& to, ItemKind kind, std::uint64_t now_ms, std::uint32_t code,
                   std::string_view text, std::uint64_t extra_ms) {
  const std::uint64_t due = now_ms + delay() + extra_ms;
  const std::uint64_t last = to.empty() ? 0 : to.back().due_ms;
  to.push_back({kind, std::max(due, last), code, std::string(text)});
}

void Network::ship(Channel& channel, bool to_broker, std::string_view text, std::uint64_t now_ms) {
  std::deque<Item>& to = to_broker ? channel.to_broker : channel.to_daemon;
  if (ByteWire* wire = to_broker ? channel.up.get() : channel.down.get(); wire != nullptr) {
    for (const std::string& piece : wire->encode(text, rng_)) {
      push(to, ItemKind::kBytes, now_ms, 0, piece);
    }
    return;
  }
  push(to, ItemKind::kText, now_ms, 0, text);
  if (calm_ || plan_.reorder == 0 || to.size() < 2 || !rng_.chance(plan_.reorder)) return;
  Item& last = to[to.size() - 1];
  Item& before = to[to.size() - 2];
  if (before.kind != ItemKind::kText || !may_change_places(before.text, last.text)) return;
  std::swap(before.text, last.text);
  counters_.faults.add(Fault::kReorder);
}

void Network::unpack(Item&& item, ByteWire* wire, std::vector<Item>& out) {
  if (item.kind != ItemKind::kBytes) {
    out.push_back(std::move(item));
    return;
  }
  counters_.faults.add(Fault::kOneByteReads);
  std::vector<std::string> messages;
  CHECK(wire->feed(item.text, messages));
  for (std::string& message : messages) {
    out.push_back({ItemKind::kText, item.due_ms, 0, std::move(message)});
  }
}

void Network::tick(std::uint64_t now_ms, bool broker_up) {
  drop_dead();
  for (Dialer& dialer : dialers_) {
    if (dialer.try_at_ms > now_ms) continue;
    dialer.try_at_ms = UINT64_MAX;
    if (broker_up && now_ms >= refuse_until_ms_) {
      connect(dialer, now_ms);
      continue;
    }
    if (!broker_up || now_ms < refuse_until_ms_) counters_.faults.add(Fault::kUnreachable);
    if (!still_ && rng_.chance(500)) {
      // At once: a transport tells its states in the order in which they come.
      dialer.items.push_back({ItemKind::kDown, now_ms, 0, "connection refused"});
    }
    retry_later(dialer, now_ms);
  }
}

void Network::connect(Dialer& dialer, std::uint64_t now_ms) {
  auto channel = std::make_unique<Channel>();
  channel->id = next_id_++;
  channel->daemon = dialer.daemon;
  channel->frame_limit = plan_.limits.unauthenticated_bytes_max;
  std::uint32_t slot = 0;
  while (slot < generations_.size() && (generations_[slot] & 1u) != 0) ++slot;
  if (slot == generations_.size()) generations_.push_back(0);
  channel->conn = {slot, ++generations_[slot]};
  if (!calm_ && plan_.byte_wires != 0 && rng_.chance(plan_.byte_wires)) {
    channel->up = std::make_unique<ByteWire>(true);
    channel->down = std::make_unique<ByteWire>(false);
  }
  push(channel->to_broker, ItemKind::kUp, now_ms, 0, {});
  push(channel->to_daemon, ItemKind::kUp, now_ms, 0, {});
  dialer.channel = channel->id;
  journal_.line("net c%u: d%u connects", channel->id, dialer.daemon);
  channels_.push_back(std::move(channel));
}

// Full jitter, as the transport does; a refused hello waits long.
void Network::retry_later(Dialer& dialer, std::uint64_t now_ms) {
  const std::uint64_t most =
      std::min(kBackoffMostMs, kBackoffFirstMs << std::min<std::uint32_t>(dialer.failures++, 8));
  dialer.try_at_ms =
      now_ms + (still_ ? 0 : rng_.below(most + 1)) + (dialer.refused_hello ? kBackoffMostMs : 0);
  dialer.refused_hello = false;
}

std::uint64_t Network::next_dial_ms() const {
  std::uint64_t next = UINT64_MAX;
  for (const Dialer& dialer : dialers_) next = std::min(next, dialer.try_at_ms);
  return next;
}

std::uint64_t Network::next_for_daemon(std::uint32_t daemon) const {
  std::uint64_t next = UINT64_MAX;
  for (const Dialer& dialer : dialers_) {
    if (dialer.daemon == daemon) next = std::min(next, front_due(dialer.items));
  }
  for (const auto& channel : channels_) {
    if (channel->daemon == daemon && channel->daemon_side && !channel->to_daemon.empty()) {
      next = std::min(next, std::max(front_due(channel->to_daemon), channel->unread_until_ms));
    }
  }
  return next;
}

std::uint64_t Network::next_for_broker() const {
  std::uint64_t next = UINT64_MAX;
  for (const auto& channel : channels_) {
    if (channel->broker_side) next = std::min(next, front_due(channel->to_broker));
  }
  return next;
}

void Network::collect_for_daemon(std::uint32_t daemon, std::uint64_t now_ms, std::size_t frames,
                                 std::vector<LinkInput>& out) {
  for (Dialer& dialer : dialers_) {
    if (dialer.daemon != daemon) continue;
    while (!dialer.items.empty() && dialer.items.front().due_ms <= now_ms) {
      out.push_back({dialer.link, std::move(dialer.items.front())});
      dialer.items.pop_front();
    }
    Channel* channel = by_id(dialer.channel);
    if (channel == nullptr || channel->unread_until_ms > now_ms) continue;
    if (still_ && (channel->id != pick_.channel || pick_.up)) continue;
    std::vector<Item> whole;
    for (std::size_t taken = 0; taken < frames && !channel->to_daemon.empty() &&
                                channel->to_daemon.front().due_ms <= now_ms;) {
      Item item = std::move(channel->to_daemon.front());
      channel->to_daemon.pop_front();
      if (item.kind == ItemKind::kUp) channel->daemon_knows = true;
      if (item.kind == ItemKind::kBlocked) channel->blocked = true;
      if (item.kind == ItemKind::kWritable) channel->blocked = false;
      const bool down = item.kind == ItemKind::kDown;
      whole.clear();
      unpack(std::move(item), channel->down.get(), whole);
      if (!whole.empty()) ++taken;
      for (Item& each : whole) out.push_back({dialer.link, std::move(each)});
      if (!down) continue;
      channel->daemon_side = false;
      channel->cut = true;
      dialer.channel = 0;
      retry_later(dialer, now_ms);
      break;
    }
  }
}

void Network::collect_for_broker(std::uint64_t now_ms, std::size_t frames,
                                 std::vector<ConnInput>& out) {
  const std::size_t first = channels_.empty() || still_ ? 0 : rng_.below(channels_.size());
  for (std::size_t step = 0; step < channels_.size(); ++step) {
    Channel& channel = *channels_[(first + step) % channels_.size()];
    if (!channel.broker_side) continue;
    if (still_ && (channel.id != pick_.channel || !pick_.up)) continue;
    std::vector<Item> whole;
    for (std::size_t taken = 0; taken < frames && !channel.to_broker.empty() &&
                                channel.to_broker.front().due_ms <= now_ms;) {
      Item item = std::move(channel.to_broker.front());
      channel.to_broker.pop_front();
      if (item.kind == ItemKind::kUp) channel.broker_knows = true;
      const bool down = item.kind == ItemKind::kDown;
      whole.clear();
      unpack(std::move(item), channel.up.get(), whole);
      if (!whole.empty()) ++taken;
      for (Item& each : whole) {
        if (channel.broker_knows) out.push_back({channel.conn, std::move(each)});
      }
      if (!down) continue;
      channel.broker_side = false;
      channel.cut = true;
      ++generations_[channel.conn.slot];
      break;
    }
  }
}

void Network::link_open(std::uint32_t daemon, LinkRef link, std::uint64_t now_ms) {
  Dialer* dialer = dialer_of(daemon, link);
  if (dialer == nullptr) {
    dialers_.push_back({});
    dialer = &dialers_.back();
    dialer->daemon = daemon;
    dialer->link = link;
  }
  dialer->try_at_ms = now_ms + (still_ ? 0 : rng_.below(calm_ ? 10 : 500));
}

void Network::link_send(std::uint32_t daemon, LinkRef link, std::string_view text,
                        std::uint64_t now_ms) {
  const Dialer* dialer = dialer_of(daemon, link);
  Channel* channel = dialer == nullptr ? nullptr : by_id(dialer->channel);
  if (channel == nullptr || !channel->daemon_knows || channel->cut) return;
  std::vector<std::string> frames;
  relay_.up(daemon, text, frames);
  for (const std::string& frame : frames) ship(*channel, true, frame, now_ms);
}

void Network::link_note(std::uint32_t daemon, LinkRef link, std::uint32_t verdict) {
  Dialer* dialer = dialer_of(daemon, link);
  if (dialer == nullptr) return;
  if (verdict == 1) dialer->failures = 0;
  if (verdict == 2) dialer->refused_hello = true;
}

// The transport forgets the connection; the broker hears of it behind what was sent.
void Network::link_close(std::uint32_t daemon, LinkRef link, std::uint64_t now_ms) {
  Dialer* dialer = dialer_of(daemon, link);
  if (dialer == nullptr) return;
  Channel* channel = by_id(dialer->channel);
  dialer->channel = 0;
  dialer->try_at_ms = UINT64_MAX;
  dialer->items.clear();
  if (channel == nullptr) return;
  channel->daemon_side = false;
  channel->to_daemon.clear();
  if (!channel->cut) push(channel->to_broker, ItemKind::kDown, now_ms, 1000, "closed by peer");
  channel->cut = true;
}

void Network::conn_send(ConnRef conn, std::string_view text, std::uint64_t now_ms) {
  Channel* channel = channel_of(conn);
  if (channel == nullptr || channel->cut) return;
  std::vector<std::string> frames;
  relay_.down(channel->daemon, text, frames);
  for (const std::string& frame : frames) ship(*channel, false, frame, now_ms);
  if (is_type(text, "hello_ack")) {
    std::vector<std::string> up;
    std::vector<std::string> down;
    relay_.late(channel->daemon, up, down);
    for (const std::string& frame : up) ship(*channel, true, frame, now_ms);
    for (const std::string& frame : down) ship(*channel, false, frame, now_ms);
  }
  drop_slow_consumer(*channel, now_ms);
}

// As the server does: who reads nothing loses its connection, without a close frame.
void Network::drop_slow_consumer(Channel& channel, std::uint64_t now_ms) {
  if (channel.unread_until_ms <= now_ms) return;
  std::uint64_t unsent = 0;
  for (const Item& item : channel.to_daemon) unsent += item.text.size();
  if (unsent <= plan_.limits.slow_consumer_hard_bytes) return;
  counters_.faults.add(Fault::kConsumerDropped);
  journal_.line("net c%u: too much unsent, dropped", channel.id);
  channel.unread_until_ms = 0;
  lose(channel, now_ms, false, false);
}

void Network::conn_close(ConnRef conn, std::uint32_t code, std::string_view reason,
                         std::uint64_t now_ms) {
  Channel* channel = channel_of(conn);
  if (channel == nullptr) return;
  channel->broker_side = false;
  channel->to_broker.clear();
  ++generations_[conn.slot];
  if (!channel->cut) push(channel->to_daemon, ItemKind::kDown, now_ms, code, reason);
  channel->cut = true;
}

void Network::lose_tail(std::deque<Item>& items) {
  if (still_ || items.empty() || rng_.chance(300)) return;
  items.resize(rng_.below(items.size() + 1));
}

void Network::lose(Channel& channel, std::uint64_t now_ms, bool daemon_late, bool broker_late) {
  if (channel.cut) return;
  channel.cut = true;
  if (daemon_late || broker_late) counters_.faults.add(Fault::kHalfOpen);
  if (channel.daemon_side) {
    lose_tail(channel.to_daemon);
    push(channel.to_daemon, ItemKind::kDown, now_ms, 1006, "lost", notice_delay(daemon_late));
  }
  if (channel.broker_side) {
    lose_tail(channel.to_broker);
    push(channel.to_broker, ItemKind::kDown, now_ms, 1006, "lost", notice_delay(broker_late));
  }
}

void Network::daemon_died(std::uint32_t daemon, std::uint64_t now_ms) {
  std::erase_if(dialers_, [daemon](const Dialer& dialer) { return dialer.daemon == daemon; });
  for (const auto& channel : channels_) {
    if (channel->daemon != daemon || !channel->daemon_side) continue;
    channel->daemon_side = false;
    channel->to_daemon.clear();
    lose(*channel, now_ms, false, !calm_ && !still_ && rng_.chance(300));
  }
}

void Network::broker_died(std::uint64_t now_ms) {
  for (const auto& channel : channels_) {
    if (!channel->broker_side) continue;
    channel->broker_side = false;
    channel->to_broker.clear();
    ++generations_[channel->conn.slot];
    lose(*channel, now_ms, !calm_ && !still_ && rng_.chance(300), false);
  }
}

void Network::cut_one(bool half_open, std::uint64_t now_ms) {
  if (channels_.empty()) return;
  Channel& channel = *channels_[rng_.below(channels_.size())];
  if (channel.cut) return;
  counters_.faults.add(Fault::kCut);
  const bool daemon_late = half_open && rng_.chance(500);
  lose(channel, now_ms, daemon_late, half_open && !daemon_late);
  journal_.line("net c%u: cut%s", channel.id,
                !half_open    ? ""
                : daemon_late ? ", the daemon learns late"
                              : ", the broker learns late");
}

void Network::block_one(std::uint64_t now_ms) {
  if (channels_.empty()) return;
  Channel& channel = *channels_[rng_.below(channels_.size())];
  if (channel.cut || !channel.daemon_knows || channel.blocked) return;
  counters_.faults.add(Fault::kBlocked);
  channel.blocked = true;
  push(channel.to_daemon, ItemKind::kBlocked, now_ms, 0, {});
  push(channel.to_daemon, ItemKind::kWritable, now_ms, 0, {}, rng_.below(20'000));
}

void Network::stop_reading_one(std::uint64_t now_ms) {
  if (channels_.empty()) return;
  Channel& channel = *channels_[rng_.below(channels_.size())];
  if (channel.cut || !channel.daemon_knows) return;
  counters_.faults.add(Fault::kSlowConsumer);
  channel.unread_until_ms = now_ms + rng_.below(60'000);
  journal_.line("net c%u: d%u reads nothing", channel.id, channel.daemon);
}

void Network::give_up_one(std::uint64_t now_ms) {
  if (dialers_.empty()) return;
  Dialer& dialer = dialers_[rng_.below(dialers_.size())];
  const bool idle = dialer.channel == 0 && dialer.try_at_ms == UINT64_MAX;
  if (dialer.daemon >= plan_.daemons || idle || !dialer.items.empty()) return;
  counters_.faults.add(Fault::kGaveUp);
  const std::uint32_t daemon = dialer.daemon;
  const LinkRef link = dialer.link;
  link_close(daemon, link, now_ms);
  dialer.items.push_back({ItemKind::kGaveUp, now_ms, 0, "the transport gave up"});
  journal_.line("d%u: its transport gives up", daemon);
}

void Network::heal(std::uint64_t now_ms) {
  calm_ = true;
  relay_.heal();
  for (const auto& channel : channels_) channel->unread_until_ms = 0;
  refuse_until_ms_ = 0;
  for (Dialer& dialer : dialers_) {
    if (dialer.try_at_ms != UINT64_MAX) dialer.try_at_ms = std::min(dialer.try_at_ms, now_ms);
  }
}

void Network::drop_dead() {
  std::erase_if(channels_, [](const std::unique_ptr<Channel>& channel) {
    return !channel->daemon_side && !channel->broker_side;
  });
}

}  // namespace cm::sim
