// events.cc — the order of an iteration: what plugins report, when the owner is told, timers.
// Holds:  events of one peer are told in the order in which they were reported. A connection that
//         came back in the iteration of its loss is told in the next one, with all that follows.
// Why:    effects of that iteration were computed for the connection that is gone.
// Not:    checking what is reported (border.cc).
#include <algorithm>
#include <utility>

#include "plugins/host/rows.h"

namespace cm::plugins {

bool Host::goes_late(const HostEvent& event, Peer* peer) noexcept {
  if (!collecting_) return true;
  if (peer == nullptr) return false;
  const bool is_state = event.kind == HostEventKind::kState;
  if (is_state && event.state == CM_PEER_CONNECTED && peer->lost_in == iteration_) {
    peer->late_in = iteration_;
  }
  if (peer->late_in == iteration_) return true;
  if (is_state && event.state == CM_PEER_CONNECTING && peer->told != 0) {
    peer->lost_in = iteration_;
  }
  if ((is_state && event.state == CM_PEER_CONNECTED) || event.kind == HostEventKind::kIncoming) {
    peer->told = event.connection;
  }
  return false;
}

void Host::append(HostEvent event, Peer* peer, std::uint64_t plugin_token) {
  const bool late = goes_late(event, peer);
  event.bytes = late ? late_arenas_[late_arena_].copy(event.bytes) : scratch_->copy(event.bytes);
  if (event.kind == HostEventKind::kFrame) {
    std::vector<Token>& tokens = late ? late_tokens_ : tokens_;
    event.token = static_cast<std::uint32_t>(tokens.size());
    tokens.push_back({event.peer, plugin_token, false});
  }
  (late ? late_events_ : events_).push_back(event);
}

void Host::adopt_late_events() {
  const std::vector<HostEvent> events = std::exchange(late_events_, {});
  const std::vector<Token> tokens = std::exchange(late_tokens_, {});
  ScratchArena& read = late_arenas_[late_arena_];
  late_arena_ ^= 1;
  for (const HostEvent& event : events) {
    const bool frame = event.kind == HostEventKind::kFrame;
    append(event, find(event.peer), frame ? tokens[event.token].token : 0);
    if (frame) {
      iteration_bytes_ += event.bytes.size();
      ++iteration_frames_;
    }
  }
  read.reset();
}

void Host::begin_iteration() {
  CHECK(!collecting_);
  CHECK(events_.empty());
  CHECK(tokens_.empty());
  collecting_ = true;
  ++iteration_;
  iteration_bytes_ = 0;
  iteration_frames_ = 0;
  for (const auto& plugin : plugins_) plugin->log_lines = 0;
  adopt_late_events();
  resume_due();
}

void Host::tick(std::uint64_t mono_ms) {
  CHECK(collecting_);
  // In the order of their deadlines; those started by a callback wait for the next iteration.
  struct Due {
    std::uint64_t deadline;
    std::uint64_t serial;
    TimerTable::Handle ref;
  };
  std::vector<Due> due;
  timers_.each([&](TimerTable::Handle ref) {
    const std::uint64_t deadline = timers_.get<kDeadline>(ref);
    if (deadline <= mono_ms) due.push_back({deadline, timers_.get<kTimerRow>(ref)->serial, ref});
  });
  std::sort(due.begin(), due.end(), [](const Due& left, const Due& right) {
    return left.deadline != right.deadline ? left.deadline < right.deadline
                                           : left.serial < right.serial;
  });
  for (const Due& each : due) {
    if (!timers_.alive(each.ref)) continue;  // cancelled by one before it
    const Timer timer = *timers_.get<kTimerRow>(each.ref);
    timers_.erase(each.ref);
    const CallScope scope(*this, *timer.plugin, "a timer's callback");
    timer.callback(timer.context);
  }
  flush_due();
  collecting_ = false;
}

void Host::refuse(std::uint32_t token) {
  CHECK(token < tokens_.size());
  tokens_[token].refused = true;
}

void Host::settle(Verdict verdict) {
  CHECK(!collecting_);
  const std::vector<Token> tokens = std::exchange(tokens_, {});
  for (const Token& token : tokens) {
    const Peer* peer = find(token.peer);
    if (peer == nullptr) continue;
    const Verdict each = token.refused ? Verdict::kRefused : verdict;
    const CallScope scope(*this, *peer->plugin, "settled");
    peer->plugin->transport->settled(peer->id, token.token, static_cast<std::uint32_t>(each));
  }
}

void Host::end_iteration() {
  CHECK(!collecting_);
  CHECK(tokens_.empty());  // every frame that was taken gets its answer
  events_.clear();
}

std::uint64_t Host::next_deadline() const noexcept {
  std::uint64_t least = net::kNever;
  timers_.each(
      [&](TimerTable::Handle ref) { least = std::min(least, timers_.get<kDeadline>(ref)); });
  return least;
}

bool Host::work_left() const noexcept {
  return !late_events_.empty() || !flush_due_.empty() || !resume_due_.empty();
}

}  // namespace cm::plugins
