// tiny_world.cc — choices and what they do.
#include "tests/sim/tiny_world.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "tests/sim/enrol.h"

namespace cm::sim {
namespace {

constexpr std::size_t kStepsMost = 10'000;

std::string fresh(const std::string& directory) {
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  return directory;
}

Plan quiet_plan() {
  Plan plan;
  plan.limits.store_bound_bytes = 16 << 20;
  plan.limits.secret_slots_max = 4;
  plan.limits.box_keys_max = 4;
  plan.daemons = TinyWorld::kDaemons;
  return plan;
}

}  // namespace

std::string text_of(const Choice& choice) {
  constexpr const char* kKinds[] = {"submit", "deliver", "lose", "dial", "restart", "step", "time"};
  constexpr const char* kCrashes[] = {"", ", crash before commit", ", crash before effects",
                                      ", crash amid effects", ", crash after effects"};
  std::string text = kKinds[static_cast<std::size_t>(choice.kind)];
  text += ' ' + std::to_string(choice.what);
  if (choice.kind == Choice::Kind::kDeliver || choice.kind == Choice::Kind::kLose) {
    text += choice.up ? " to broker" : " to daemon";
  }
  return text + kCrashes[static_cast<std::size_t>(choice.crash)];
}

TinyWorld::TinyWorld(const std::string& directory, const Size& size, bool verbose)
    : size_(size),
      plan_(quiet_plan()),
      journal_(verbose),
      network_(plan_, rng_, journal_, counters_),
      oracle_(plan_, network_.relay(), journal_, counters_, {}),
      wires_{plan_, rng_, journal_, counters_, network_, oracle_, cells_},
      directory_(fresh(directory)),
      broker_(wires_, directory_ + "/broker") {
  seed_sodium_rng(1);
  network_.be_still();
  broker_.start(now_ms_);
  Enrolment enrolment(broker_);
  daemons_.reserve(kDaemons);
  for (std::uint32_t number = 0; number < kDaemons; ++number) {
    daemons_.emplace_back(wires_, directory_ + "/d" + std::to_string(number),
                          enrolment.join(now_ms_, number));
    const Identity& who = daemons_.back().who();
    oracle_.set_member(number, who.key, who.key_hex, who.report_level);
    network_.relay().set_key(number, who.key_hex);
  }
  for (std::uint32_t message = 0; message < kMessages; ++message) {
    Request request;
    request.daemon = message == 2 ? 1 : 0;
    request.target = 1 - request.daemon;
    request.id = "m" + std::to_string(message);
    request.to = daemons_[request.target].who().key_hex;
    request.message = std::string(kMarker) + " " + std::to_string(message);
    oracle_.add(std::move(request));
  }
  for (DaemonNode& daemon : daemons_) daemon.start(now_ms_);
  // Both connect and are told of each other: the first choice of each state, until it is quiet.
  for (std::size_t steps = 0;; ++steps) {
    const std::vector<Choice> open = choices();
    if (is_quiet()) break;
    CHECK(!open.empty() && steps < kStepsMost);
    take(open.front());
  }
  beginning_ = false;
}

bool TinyWorld::up(std::uint32_t node) const {
  return node == 0 ? broker_.up() : daemons_[node - 1].up();
}

std::uint64_t TinyWorld::due(std::uint32_t node) const {
  return node == 0 ? broker_.due_ms() : daemons_[node - 1].due_ms();
}

bool TinyWorld::may_submit(std::uint32_t message) const {
  const Request& request = oracle_.requests()[message];
  if (beginning_ || !daemons_[request.daemon].up()) return false;
  // m1 is asked for behind m0: they are of one client. Once more only if the answer was lost.
  if (message == 1 && asked_[0] == 0) return false;
  return asked_[message] == 0 || (asked_[message] == 1 && request.unknown);
}

std::vector<Choice> TinyWorld::choices() {
  std::vector<Choice> open;
  const auto add = [&](Choice choice, bool acts) {
    open.push_back(choice);
    if (!acts || crashed_ || beginning_ || !size_.may_crash) return;
    for (const Crash crash :
         {Crash::kBeforeCommit, Crash::kBeforeEffects, Crash::kAmidEffects, Crash::kAfterEffects}) {
      choice.crash = crash;
      open.push_back(choice);
    }
  };
  using Kind = Choice::Kind;
  for (std::uint8_t node = 0; node <= kDaemons; ++node) {
    if (!up(node)) add({Kind::kRestart, node}, false);
    if (up(node) && due(node) <= now_ms_) add({Kind::kStep, node}, true);
  }
  for (std::uint8_t message = 0; message < size_.messages; ++message) {
    if (may_submit(message)) add({Kind::kSubmit, message}, true);
  }
  for (const Dialer& dialer : network_.dialers()) {
    const auto daemon = static_cast<std::uint8_t>(dialer.daemon);
    if (dialer.try_at_ms != UINT64_MAX && broker_.up()) add({Kind::kDial, daemon}, false);
  }
  for (const auto& channel : network_.channels()) {
    const auto id = static_cast<std::uint8_t>(channel->id);
    if (channel->broker_side && broker_.up() && !channel->to_broker.empty()) {
      add({Kind::kDeliver, id, true}, true);
      if (channel->cut && channel->to_broker.size() > 1) add({Kind::kLose, id, true}, false);
    }
    if (channel->daemon_side && daemons_[channel->daemon].up() && !channel->to_daemon.empty()) {
      add({Kind::kDeliver, id, false}, true);
      if (channel->cut && channel->to_daemon.size() > 1) add({Kind::kLose, id, false}, false);
    }
  }
  if (open.empty()) add({Kind::kTime}, false);
  return open;
}

void TinyWorld::iterate(std::uint32_t node, Crash crash) {
  Fate fate;
  fate.frames = 1;
  fate.crash = crash;
  fate.effects_kept = 500;
  if (crash != Crash::kNone) crashed_ = true;
  if (node == 0) {
    broker_.iterate(now_ms_, fate);
  } else {
    daemons_[node - 1].iterate(now_ms_, fate);
  }
}

void TinyWorld::submit(std::uint32_t message) {
  const Request& request = oracle_.requests()[message];
  ++asked_[message];
  Call call;
  call.ask = {AskKind::kSend, message};
  call.method = "POST";
  call.path = "/v1/send";
  call.body = R"({"to":")" + request.to + R"(","message":")" + request.message +
              R"(","client_message_id":")" + request.id + R"("})";
  daemons_[request.daemon].submit(now_ms_, std::move(call));
}

void TinyWorld::take(const Choice& choice) {
  ++now_ms_;  // no two hellos are signed at one time
  journal_.line("choice: %s", text_of(choice).c_str());
  network_.pick({});
  switch (choice.kind) {
    case Choice::Kind::kSubmit:
      submit(choice.what);
      iterate(oracle_.requests()[choice.what].daemon + 1, choice.crash);
      break;
    case Choice::Kind::kDeliver: {
      network_.pick({choice.what, choice.up});
      std::uint32_t node = 0;
      for (const auto& channel : network_.channels()) {
        if (channel->id == choice.what && !choice.up) node = channel->daemon + 1;
        for (Item& item : choice.up ? channel->to_broker : channel->to_daemon) {
          item.due_ms = std::min(item.due_ms, now_ms_);
        }
      }
      iterate(node, choice.crash);
      break;
    }
    case Choice::Kind::kLose: network_.lose_rest({choice.what, choice.up}); break;
    case Choice::Kind::kDial: network_.dial(choice.what, now_ms_); break;
    case Choice::Kind::kRestart:
      if (choice.what == 0) {
        broker_.start(now_ms_);
      } else {
        daemons_[choice.what - 1].start(now_ms_);
      }
      break;
    case Choice::Kind::kStep: iterate(choice.what, choice.crash); break;
    case Choice::Kind::kTime: {
      std::uint64_t next = UINT64_MAX;
      for (std::uint32_t node = 0; node <= kDaemons; ++node) next = std::min(next, due(node));
      if (next == UINT64_MAX) {
        oracle_.breaks("1: everything arrives once faults stop", "nobody has anything to do");
      } else {
        now_ms_ = std::max(now_ms_, next);
      }
      break;
    }
  }
  network_.pick({});
  network_.tick_quietly();
}

bool TinyWorld::is_quiet() {
  if (!broker_.up() || !broker_.queues_empty() || oracle_.outstanding() != 0) return false;
  for (const auto& channel : network_.channels()) {
    if (!channel->to_broker.empty() || !channel->to_daemon.empty()) return false;
  }
  for (const DaemonNode& daemon : daemons_) {
    if (!daemon.up() || !daemon.outbox_empty()) return false;
    bool open = false;
    daemon.core().tables().links.each([&](daemon::LinkRef link) {
      open = daemon.core().tables().links.get<daemon::kLinkState>(link) == daemon::LinkState::kOpen;
    });
    if (!open) return false;
  }
  for (std::uint32_t message = 0; message < size_.messages && !beginning_; ++message) {
    if (asked_[message] == 0 || may_submit(message)) return false;
  }
  return true;
}

std::string TinyWorld::problem() { return oracle_.problem(); }

void TinyWorld::judge_end() {
  for (std::uint32_t number = 0; number < kDaemons; ++number) {
    oracle_.check_outbox(number, daemons_[number].batch(), broker_.batch());
    daemons_[number].end_reading();
  }
  oracle_.check_broker(broker_.batch());
  for (std::uint32_t number = 0; number < kDaemons; ++number) {
    oracle_.check_inbox(number, daemons_[number].batch());
    daemons_[number].end_reading();
  }
  broker_.end_reading();
  oracle_.check_all();
  broker_.check_store();
  for (DaemonNode& daemon : daemons_) daemon.check_store();
}

StateHash TinyWorld::state() {
  std::string text;
  describe(text);
  return {hash64(as_bytes(text), 1), hash64(as_bytes(text), 2)};
}

}  // namespace cm::sim
