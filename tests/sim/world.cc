// world.cc — enrolment, turns, faults, healing, and the last checks.
#include "tests/sim/world.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "tests/sim/enrol.h"
#include "tests/sim/session_hello.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kQuietWithinMs = 3'600'000;
constexpr std::uint64_t kQuietWithinTurns = 60'000;
constexpr std::uint64_t kHourMs = 3'600'000;

// Of the daemons of one world each has another one.
store::ReportLevel level_of(std::uint32_t number) {
  return static_cast<store::ReportLevel>(number %
                                         static_cast<std::uint32_t>(store::ReportLevel::kCount));
}

std::string fresh_directory(const std::string& directory) {
  std::filesystem::remove_all(directory);
  std::filesystem::create_directory(directory);
  return directory;
}

}  // namespace

World::World(std::uint64_t seed, const Bounds& bounds, std::string_view plant,
             std::string directory, bool verbose, Counters& counters, Cells& cells)
    : rng_(seed),
      plan_(draw_plan(rng_, bounds)),
      counters_(counters),
      journal_(verbose),
      network_(plan_, rng_, journal_, counters_),
      oracle_(plan_, network_.relay(), journal_, counters_, plant),
      wires_{plan_, rng_, journal_, counters_, network_, oracle_, cells},
      directory_(fresh_directory(directory)),
      broker_(wires_, directory_ + "/broker"),
      workload_(wires_, daemons_) {
  seed_sodium_rng(seed);
  oracle_.set_reader({held_by, hash_of_sent, this});
}

Held World::held_by(void* world, std::uint32_t daemon, std::string_view sender,
                    std::string_view id) {
  World& self = *static_cast<World*>(world);
  DaemonNode& node = self.daemons_[daemon];
  if (!node.up()) return Held::kUnknown;
  const Identity& who = node.who();
  const store::Key key = store::inbox_dedupe_key(who.mesh_id, sender, id, who.key);
  Ulid ulid;
  const Bytes index = node.batch().get_index(store::TableId::kInboxKey, key.bytes());
  if (!store::parse_ulid_key(index, ulid)) return Held::kNo;
  store::InboxRow row;
  // A row that has become too old is deleted; its key stays.
  const bool unread =
      node.batch().get(store::TableId::kInbox, store::ulid_key(ulid).bytes(), row) &&
      row.fixed.seen_ms == 0;
  return unread ? Held::kYes : Held::kSeen;
}

bool World::hash_of_sent(void* world, std::uint32_t daemon, std::string_view id,
                         crypto::Hash32& hash) {
  DaemonNode& node = static_cast<World*>(world)->daemons_[daemon];
  if (!node.up()) return false;
  Ulid ulid;
  store::OutboxBodyRow body;
  const Bytes index =
      node.batch().get_index(store::TableId::kOutboxId, store::text_key(id).bytes());
  if (!store::parse_ulid_key(index, ulid) ||
      !node.batch().get(store::TableId::kOutboxBody, store::ulid_key(ulid).bytes(), body)) {
    return false;
  }
  ScratchArena arena(64 * 1024);
  const auto sealed = crypto::base64_decode(body.text[store::kBodyCiphertext], arena);
  if (sealed) hash = crypto::sha256(*sealed);
  return sealed.has_value();
}

Verdict World::run(std::uint64_t turns) {
  set_up();
  while (turn_ < turns && !oracle_.broken()) {
    if (!advance()) break;
  }
  if (!oracle_.broken()) heal();
  if (!oracle_.broken()) settle();
  if (!oracle_.broken()) restart_all();
  if (!oracle_.broken()) settle();
  if (!oracle_.broken()) check_end();
  counters_.turns += turn_;
  return {journal_.hash(), turn_, oracle_.problem()};
}

// By the broker's own routes, before anything can fail.
void World::set_up() {
  broker_.clock.mono_base_ms = rng_.below(1'000'000'000);
  broker_.start(now_ms_);
  Enrolment enrolment(broker_);
  daemons_.reserve(plan_.daemons);
  for (std::uint32_t number = 0; number < plan_.daemons; ++number) {
    Identity identity;
    if (plan_.twin && number + 1 == plan_.daemons) {
      identity = daemons_.front().who();
      identity.number = number;
      counters_.faults.add(Fault::kTwinIdentity);
    } else {
      identity = enrolment.join(now_ms_, number);
      identity.report_level = level_of(plan_.report_level + number);
    }
    daemons_.emplace_back(wires_, directory_ + "/d" + std::to_string(number), identity);
    const Identity& who = daemons_.back().who();
    oracle_.set_mesh(who.mesh_id);
    oracle_.set_member(number, who.key, who.key_hex, who.report_level);
    network_.relay().set_key(number, who.key_hex);
    daemons_.back().store_bytes = plan_.daemon_store_bytes;
    daemons_.back().clock.mono_base_ms = rng_.below(1'000'000'000);
    daemons_.back().clock.wall_offset_ms = static_cast<std::int64_t>(rng_.below(4'001)) - 2'000;
  }
  if (plan_.legacy_client) {
    add_client(std::make_unique<LegacyClient>(wires_, enrolment.join(now_ms_, plan_.daemons)),
               nullptr);
  }
  if (plan_.liar) {
    liar_ = std::make_unique<Liar>(wires_, enrolment.join(now_ms_, plan_.daemons + 1), daemons_);
    oracle_.set_liar(liar_->who().key_hex);
    liar_->start(now_ms_);
  }
  if (plan_.twins_may_stay) {
    CHECK(broker_.call(now_ms_, "PATCH", "/mesh/" + daemons_.front().who().mesh_id + "/settings",
                       R"({"cloneConcurrencyPolicy":"allow_concurrent"})", "admin"));
  }
  if (plan_.broker_store_bytes != 0) {
    broker_.die(now_ms_);
    broker_.store_bytes = plan_.broker_store_bytes;
    broker_.start(now_ms_);
  }
  now_ms_ += plan_.broker_age_ms;
  if (plan_.broker_age_ms != 0) day_passes_at_ms_ = kHourMs - rng_.between(20, 4'000);
  for (DaemonNode& daemon : daemons_) start(daemon);
  add_sessions();
  act_at_ms_ = now_ms_ + workload_.pause_ms();
  strike_at_ms_ = now_ms_ + rng_.between(1, plan_.fault_every_ms * 2);
}

void World::add_client(std::unique_ptr<LegacyClient> client, const Identity* parent) {
  const Identity& who = client->who();
  oracle_.set_member(who.number, who.key, who.key_hex, std::nullopt,
                     parent != nullptr ? parent->key_hex : std::string_view{});
  workload_.add_client(*client);
  client->start(now_ms_);
  clients_.push_back(std::move(client));
}

void World::add_sessions() {
  for (std::uint32_t number = 0; number < plan_.sessions; ++number) {
    const Identity& parent = daemons_[rng_.below(daemons_.size())].who();
    const Identity who = new_session(parent, plan_.daemons + 2 + number);
    add_client(std::make_unique<LegacyClient>(wires_, who, parent), &parent);
  }
}

// Nodes: the broker, the daemons, the legacy client, the liar, the sessions.
LegacyClient* World::client_of(std::uint32_t node) const {
  for (const auto& client : clients_) {
    if (client->who().number + 1 == node) return client.get();
  }
  return nullptr;
}

std::uint64_t World::wake_of(std::uint32_t node) const {
  if (node == 0) return broker_.wake_ms();
  if (node <= daemons_.size()) return daemons_[node - 1].wake_ms();
  if (node == daemons_.size() + 2) return liar_ ? liar_->wake_ms() : UINT64_MAX;
  const LegacyClient* client = client_of(node);
  return client != nullptr ? client->wake_ms() : UINT64_MAX;
}

bool World::advance() {
  std::uint64_t next = std::min(network_.next_dial_ms(), broker_.restart_at_ms);
  for (const DaemonNode& daemon : daemons_) next = std::min(next, daemon.restart_at_ms);
  if (!calm_) next = std::min({next, act_at_ms_, strike_at_ms_, day_passes_at_ms_});
  for (std::uint32_t node = 0; node < nodes(); ++node) next = std::min(next, wake_of(node));
  if (next == UINT64_MAX) return false;
  now_ms_ = std::max(now_ms_, next);
  // A machine that is a little late finds several things done at once.
  if (rng_.chance(200)) now_ms_ += rng_.below(6);
  journal_.set_now(now_ms_, turn_);

  restart_due();
  network_.tick(now_ms_, broker_.up());
  if (!calm_ && act_at_ms_ <= now_ms_) {
    // Several clients at once now and then: their calls share an iteration.
    for (std::uint64_t more = rng_.chance(150) ? rng_.between(1, 5) : 0; more > 0; --more) {
      workload_.act(now_ms_);
    }
    workload_.act(now_ms_);
    act_at_ms_ = now_ms_ + workload_.pause_ms();
  }
  if (!calm_ && strike_at_ms_ <= now_ms_) {
    strike();
    strike_at_ms_ = now_ms_ + rng_.between(1, plan_.fault_every_ms * 2);
  }
  if (!calm_ && day_passes_at_ms_ <= now_ms_) {
    day_passes_at_ms_ = UINT64_MAX;
    pass_a_day();
  }
  std::vector<std::uint32_t> ready;
  for (std::uint32_t node = 0; node < nodes(); ++node) {
    if (wake_of(node) <= now_ms_) ready.push_back(node);
  }
  if (!ready.empty()) run_node(ready[rng_.below(ready.size())]);
  return true;
}

Fate World::draw_fate() {
  Fate fate;
  if (calm_) return fate;
  if (rng_.chance(plan_.crash)) {
    fate.crash = static_cast<Crash>(rng_.between(1, 4));
    fate.effects_kept = static_cast<std::uint32_t>(rng_.below(1000));
    constexpr Fault kKinds[] = {Fault::kCrashBeforeCommit, Fault::kCrashBeforeCommit,
                                Fault::kCrashBeforeEffects, Fault::kCrashAmidEffects,
                                Fault::kCrashAfterEffects};
    if (!plan_.may(kKinds[static_cast<std::size_t>(fate.crash)])) fate.crash = Crash::kNone;
  }
  fate.commit_fails = rng_.chance(plan_.commit_failure);
  if (plan_.slow_commit != 0 && rng_.chance(plan_.slow_commit)) {
    fate.commit_ms = rng_.below(rng_.chance(100) ? 40'000 : 500);
    counters_.faults.add(Fault::kSlowCommit);
  }
  if (rng_.chance(plan_.slow_read)) {
    fate.frames = rng_.between(1, 2);
    counters_.faults.add(Fault::kSlowReads);
  }
  return fate;
}

void World::count_crash(Crash crash) {
  switch (crash) {
    case Crash::kNone: break;
    case Crash::kBeforeCommit: counters_.faults.add(Fault::kCrashBeforeCommit); break;
    case Crash::kBeforeEffects: counters_.faults.add(Fault::kCrashBeforeEffects); break;
    case Crash::kAmidEffects: counters_.faults.add(Fault::kCrashAmidEffects); break;
    case Crash::kAfterEffects: counters_.faults.add(Fault::kCrashAfterEffects); break;
  }
}

void World::run_node(std::uint32_t node) {
  ++turn_;
  journal_.set_now(now_ms_, turn_);
  if (LegacyClient* client = client_of(node); client != nullptr) return client->iterate(now_ms_);
  if (node > daemons_.size()) return liar_->iterate(now_ms_);
  const Fate fate = draw_fate();
  if (fate.crash != Crash::kNone || fate.commit_fails) {
    journal_.line("fate of node %u: crash %d, commit fails %d", node, static_cast<int>(fate.crash),
                  fate.commit_fails ? 1 : 0);
  }
  count_crash(fate.crash);
  if (node == 0) {
    broker_.iterate(now_ms_, fate);
  } else {
    daemons_[node - 1].iterate(now_ms_, fate);
  }
  if (fate.crash != Crash::kNone) plan_restart(node);
  end_who_gave_up();
}

// As its process does; whoever looks after it starts it again.
void World::end_who_gave_up() {
  for (DaemonNode& daemon : daemons_) {
    if (!daemon.gave_up()) continue;
    if (!plan_.twin) oracle_.breaks("a daemon gives up only for a twin", daemon.who().name);
    daemon.die(now_ms_);
    daemon.restart_at_ms = now_ms_ + rng_.between(1'000, 60'000);
  }
}

void World::start(DaemonNode& daemon) {
  daemon.start(now_ms_);
  oracle_.check_claims();
  if (daemon.up()) daemon.end_reading();
}

void World::plan_restart(std::uint32_t node) {
  const bool is_long = rng_.chance(plan_.long_absence);
  const std::uint64_t away = is_long ? rng_.between(10'000, 200'000) : rng_.below(300);
  if (node == 0 && plan_.mail_expires && rng_.chance(500)) pass_a_day();
  if (is_long) counters_.faults.add(Fault::kLongAbsence);
  (node == 0 ? broker_.restart_at_ms : daemons_[node - 1].restart_at_ms) = now_ms_ + away;
}

void World::restart_due() {
  if (!broker_.up() && broker_.restart_at_ms <= now_ms_) broker_.start(now_ms_);
  for (DaemonNode& daemon : daemons_) {
    if (!daemon.up() && daemon.restart_at_ms <= now_ms_) start(daemon);
  }
}

void World::strike() {
  const std::uint32_t weights[] = {plan_.cut,           plan_.half_open, plan_.stall,
                                   plan_.wall_jump,     plan_.block,     plan_.partition,
                                   plan_.slow_consumer, plan_.gave_up};
  std::uint32_t all = 0;
  for (const std::uint32_t weight : weights) all += weight;
  if (all == 0) return;
  std::uint64_t dice = rng_.below(all);
  std::size_t kind = 0;
  while (dice >= weights[kind]) dice -= weights[kind++];
  switch (kind) {
    case 0: network_.cut_one(false, now_ms_); break;
    case 1: network_.cut_one(true, now_ms_); break;
    case 2: {
      const std::uint64_t node = rng_.below(daemons_.size() + 1);
      const std::uint64_t until = now_ms_ + rng_.below(rng_.chance(200) ? 60'000 : 2'000);
      (node == 0 ? broker_.stalled_until_ms : daemons_[node - 1].stalled_until_ms) = until;
      counters_.faults.add(Fault::kStall);
      journal_.line("node %u stalls", static_cast<unsigned>(node));
      break;
    }
    case 3: jump_wall_clock(); break;
    case 4: network_.block_one(now_ms_); break;
    case 6: network_.stop_reading_one(now_ms_); break;
    case 7: network_.give_up_one(now_ms_); break;
    default:
      network_.refuse_until(now_ms_ + rng_.below(40'000));
      journal_.line("the broker cannot be reached");
      break;
  }
}

void World::jump_wall_clock() {
  const std::uint64_t node = rng_.below(daemons_.size() + 1);
  Clock& clock = node == 0 ? broker_.clock : daemons_[node - 1].clock;
  const std::uint64_t dice = rng_.below(10);
  const std::uint64_t most = dice < 5 ? 25'000 : dice < 8 ? 2 * kHourMs : 200 * kHourMs;
  // Half of the jumps set a clock right again.
  const std::int64_t offset = rng_.chance(500) ? 0
                                               : static_cast<std::int64_t>(rng_.below(2 * most)) -
                                                     static_cast<std::int64_t>(most);
  const Fault kind = offset > clock.wall_offset_ms ? Fault::kClockForward : Fault::kClockBack;
  if (offset == clock.wall_offset_ms || !plan_.may(kind)) return;
  if (node == 0 && kind == Fault::kClockBack) network_.broker_clock_went_back = true;
  clock.wall_offset_ms = offset;
  counters_.faults.add(kind);
  journal_.line("node %u wall clock is off by %lld ms", static_cast<unsigned>(node),
                static_cast<long long>(clock.wall_offset_ms));
}

// What the broker has queued, or has pushed, is too old by its clock.
void World::pass_a_day() {
  if (!plan_.may(Fault::kClockForward)) return;
  broker_.clock.wall_offset_ms += static_cast<std::int64_t>(30 * kHourMs);
  counters_.faults.add(Fault::kClockForward);
}

void World::heal() {
  journal_.line("the world is healed");
  calm_ = true;
  network_.heal(now_ms_);
  if (liar_) liar_->leave(now_ms_);
  broker_.clock.wall_offset_ms = 0;
  broker_.stalled_until_ms = 0;
  if (broker_.up() && broker_.store_bytes != 0) broker_.die(now_ms_);
  broker_.store_bytes = 0;
  if (!broker_.up()) broker_.start(now_ms_);
  for (DaemonNode& daemon : daemons_) {
    daemon.clock.wall_offset_ms = 0;
    daemon.stalled_until_ms = 0;
    // Its owner makes room: a larger bound, and a new start.
    if (daemon.up() && daemon.store_bytes != 0) daemon.die(now_ms_);
    daemon.store_bytes = 0;
    if (!daemon.up()) start(daemon);
  }
  if (plan_.twin) settle_twins();
}

void World::settle_twins() {
  DaemonNode& first = daemons_.front();
  DaemonNode& second = daemons_.back();
  for (DaemonNode* alone : {&first, &second}) {
    DaemonNode& other = alone == &first ? second : first;
    if (other.up()) other.die(now_ms_);
    other.restart_at_ms = UINT64_MAX;
    if (!alone->up()) start(*alone);
    if (!oracle_.broken()) settle();
  }
}

bool World::quiet() const {
  if (oracle_.outstanding() != 0 || !broker_.up() || !broker_.queues_empty()) return false;
  const auto has_sent = [](const auto& client) { return client->outbox_empty(); };
  if (!std::all_of(clients_.begin(), clients_.end(), has_sent)) return false;
  return std::all_of(daemons_.begin(), daemons_.end(), [](const DaemonNode& daemon) {
    return daemon.outbox_empty() && !daemon.has_seen_to_report();
  });
}

void World::settle() {
  const std::uint64_t until_ms = now_ms_ + kQuietWithinMs;
  const std::uint64_t until_turn = turn_ + kQuietWithinTurns;
  while (!quiet() && !oracle_.broken()) {
    if (!advance() || now_ms_ > until_ms || turn_ > until_turn) {
      std::string detail = "after an hour: " + std::to_string(oracle_.outstanding()) +
                           " calls without an answer, queues at the broker " +
                           (broker_.queues_empty() ? "empty" : "not empty");
      for (const DaemonNode& daemon : daemons_) {
        detail += ", outbox of " + daemon.who().name + (daemon.outbox_empty() ? " empty" : " not");
        if (daemon.has_seen_to_report()) detail += ", something seen is not reported";
      }
      oracle_.breaks("1: everything arrives once faults stop", detail);
    }
  }
}

// Every id is asked for again behind a restart of everything.
void World::restart_all() {
  journal_.line("everything is restarted");
  broker_.die(now_ms_);
  broker_.start(now_ms_);
  for (DaemonNode& daemon : daemons_) {
    if (daemon.up()) daemon.die(now_ms_);
    start(daemon);
  }
  if (!plan_.twin) return workload_.ask_all_again(now_ms_);
  // What a twin is asked while the other one holds the connection waits for its turn.
  for (DaemonNode* alone : {&daemons_.front(), &daemons_.back()}) {
    DaemonNode& other = alone == &daemons_.front() ? daemons_.back() : daemons_.front();
    if (other.up()) other.die(now_ms_);
    other.restart_at_ms = UINT64_MAX;
    if (!alone->up()) start(*alone);
    workload_.ask_all_again(now_ms_);
    if (!oracle_.broken()) settle();
  }
}

void World::check_end() {
  for (DaemonNode& daemon : daemons_) {
    if (!daemon.up()) start(daemon);
  }
  // The outboxes tell the ids of those whose answer was lost.
  for (std::uint32_t number = 0; number < daemons_.size(); ++number) {
    oracle_.check_outbox(number, daemons_[number].batch(), broker_.batch());
    daemons_[number].end_reading();
  }
  oracle_.check_broker(broker_.batch());
  for (std::uint32_t number = 0; number < daemons_.size(); ++number) {
    oracle_.check_inbox(number, daemons_[number].batch());
    daemons_[number].end_reading();
  }
  broker_.end_reading();
  oracle_.check_all();
  broker_.check_store();
  for (DaemonNode& daemon : daemons_) daemon.check_store();
  std::ifstream file(directory_ + "/broker/data.mdb", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  CHECK(!bytes.empty());
  oracle_.check_file(bytes);
}

}  // namespace cm::sim
