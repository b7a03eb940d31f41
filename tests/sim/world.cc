// world.cc — enrolment, turns, faults, healing, and the last checks.
#include "tests/sim/world.h"

#include <sodium.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kQuietWithinMs = 3'600'000;
constexpr std::uint64_t kQuietWithinTurns = 60'000;
constexpr std::uint64_t kHourMs = 3'600'000;

std::string member_of(std::string_view json, std::string_view key) {
  ScratchArena arena(16 * 1024);
  wire::JsonParser parser;
  wire::JsonTape tape;
  CHECK(parser.parse(json, arena, tape));
  const wire::JsonNode* node = tape.find(key);
  CHECK(node != nullptr && node->type == wire::JsonType::kText);
  return std::string(node->text);
}

std::string fresh_directory(const std::string& directory) {
  std::filesystem::remove_all(directory);
  std::filesystem::create_directory(directory);
  return directory;
}

}  // namespace

World::World(std::uint64_t seed, std::string directory, bool verbose, Counters& counters)
    : rng_(seed),
      plan_(draw_plan(rng_)),
      counters_(counters),
      journal_(verbose),
      network_(plan_, rng_, journal_, counters_),
      oracle_(journal_, counters_),
      wires_{plan_, rng_, journal_, counters_, network_, oracle_},
      directory_(fresh_directory(directory)),
      broker_(wires_, directory_ + "/broker"),
      workload_(wires_, daemons_) {
  seed_sodium_rng(seed);
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
  std::string slug;
  std::string token;
  daemons_.reserve(plan_.daemons);
  for (std::uint32_t number = 0; number < plan_.daemons; ++number) {
    daemons_.emplace_back(wires_, directory_ + "/d" + std::to_string(number),
                          enrol(number, slug, token));
    const Identity& who = daemons_.back().who();
    oracle_.set_member(number, who.key, who.key_hex);
    daemons_.back().clock.mono_base_ms = rng_.below(1'000'000'000);
    daemons_.back().clock.wall_offset_ms = static_cast<std::int64_t>(rng_.below(4'001)) - 2'000;
  }
  for (DaemonNode& daemon : daemons_) daemon.start(now_ms_);
  act_at_ms_ = now_ms_ + workload_.pause_ms();
  strike_at_ms_ = now_ms_ + rng_.between(1, plan_.fault_every_ms * 2);
}

Identity World::enrol(std::uint32_t number, std::string& slug, std::string& token) {
  Identity who;
  who.number = number;
  who.name = "peer-" + std::to_string(number);
  std::uint8_t secret[64];
  randombytes_buf(who.seed.data(), who.seed.size());
  crypto_sign_seed_keypair(who.key.data(), secret, who.seed.data());
  const crypto::HexText64 hex = crypto::hex_text(who.key);
  who.key_hex = crypto::view(hex);
  ScratchArena arena(16 * 1024);
  TextBuf body(arena);
  wire::JsonWriter json(body);
  if (number == 0) {
    json.begin_object().field("name", "sim").field("pubkey", who.key_hex);
    json.field("display_name", who.name).end_object();
    const auto made = broker_.call(now_ms_, "POST", "/cli/mesh/create", body.view(), "admin");
    CHECK(made);
    who.mesh_id = member_of(*made, "id");
    who.member_id = member_of(*made, "member_id");
    who.broker_url = member_of(*made, "broker_url");
    slug = who.slug = member_of(*made, "slug");
    const auto invite = broker_.call(now_ms_, "POST", "/cli/mesh/" + slug + "/invite",
                                     R"({"max_uses":16})", "admin");
    CHECK(invite);
    token = member_of(*invite, "token");
    return who;
  }
  const auto payload = crypto::base64url_decode(token, arena);
  CHECK(payload);
  json.begin_object().field("invite_token", token);
  json.key("invite_payload").raw(as_text(*payload));
  json.field("peer_pubkey", who.key_hex).field("display_name", who.name).end_object();
  const auto joined = broker_.call(now_ms_, "POST", "/join", body.view(), {});
  CHECK(joined);
  who.member_id = member_of(*joined, "memberId");
  who.mesh_id = daemons_.front().who().mesh_id;
  who.broker_url = daemons_.front().who().broker_url;
  who.slug = slug;
  return who;
}

std::uint64_t World::wake_of(std::uint32_t node) const {
  return node == 0 ? broker_.wake_ms() : daemons_[node - 1].wake_ms();
}

bool World::advance() {
  std::uint64_t next = std::min(network_.next_dial_ms(), broker_.restart_at_ms);
  for (const DaemonNode& daemon : daemons_) next = std::min(next, daemon.restart_at_ms);
  if (!calm_) next = std::min({next, act_at_ms_, strike_at_ms_});
  const auto nodes = static_cast<std::uint32_t>(daemons_.size() + 1);
  for (std::uint32_t node = 0; node < nodes; ++node) next = std::min(next, wake_of(node));
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
  std::vector<std::uint32_t> ready;
  for (std::uint32_t node = 0; node < nodes; ++node) {
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
  }
  fate.commit_fails = rng_.chance(plan_.commit_failure);
  if (rng_.chance(plan_.slow_read)) {
    fate.frames = rng_.between(1, 2);
    ++counters_.slow_reads;
  }
  return fate;
}

void World::count_crash(Crash crash) {
  switch (crash) {
    case Crash::kNone: break;
    case Crash::kBeforeCommit: ++counters_.crash_before_commit; break;
    case Crash::kBeforeEffects: ++counters_.crash_before_effects; break;
    case Crash::kAmidEffects: ++counters_.crash_amid_effects; break;
    case Crash::kAfterEffects: ++counters_.crash_after_effects; break;
  }
}

void World::run_node(std::uint32_t node) {
  ++turn_;
  journal_.set_now(now_ms_, turn_);
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
}

void World::plan_restart(std::uint32_t node) {
  const std::uint64_t away =
      rng_.chance(plan_.long_absence) ? rng_.between(10'000, 200'000) : rng_.below(300);
  (node == 0 ? broker_.restart_at_ms : daemons_[node - 1].restart_at_ms) = now_ms_ + away;
}

void World::restart_due() {
  if (!broker_.up() && broker_.restart_at_ms <= now_ms_) broker_.start(now_ms_);
  for (DaemonNode& daemon : daemons_) {
    if (!daemon.up() && daemon.restart_at_ms <= now_ms_) daemon.start(now_ms_);
  }
}

void World::strike() {
  const std::uint32_t weights[] = {plan_.cut,       plan_.half_open, plan_.stall,
                                   plan_.wall_jump, plan_.block,     plan_.partition};
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
      ++counters_.stalls;
      journal_.line("node %u stalls", static_cast<unsigned>(node));
      break;
    }
    case 3: jump_wall_clock(); break;
    case 4: network_.block_one(now_ms_); break;
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
  clock.wall_offset_ms = rng_.chance(500) ? 0
                                          : static_cast<std::int64_t>(rng_.below(2 * most)) -
                                                static_cast<std::int64_t>(most);
  ++counters_.wall_jumps;
  journal_.line("node %u wall clock is off by %lld ms", static_cast<unsigned>(node),
                static_cast<long long>(clock.wall_offset_ms));
}

void World::heal() {
  journal_.line("the world is healed");
  calm_ = true;
  network_.heal(now_ms_);
  broker_.clock.wall_offset_ms = 0;
  broker_.stalled_until_ms = 0;
  if (!broker_.up()) broker_.start(now_ms_);
  for (DaemonNode& daemon : daemons_) {
    daemon.clock.wall_offset_ms = 0;
    daemon.stalled_until_ms = 0;
    if (!daemon.up()) daemon.start(now_ms_);
  }
}

bool World::quiet() const {
  if (oracle_.outstanding() != 0 || !broker_.queues_empty()) return false;
  return std::all_of(daemons_.begin(), daemons_.end(),
                     [](const DaemonNode& daemon) { return daemon.outbox_empty(); });
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
    daemon.die(now_ms_);
    daemon.start(now_ms_);
  }
  workload_.ask_all_again(now_ms_);
}

void World::check_end() {
  oracle_.check_broker(broker_.batch());
  for (std::uint32_t number = 0; number < daemons_.size(); ++number) {
    oracle_.check_outbox(number, daemons_[number].batch(), broker_.batch());
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
  oracle_.check_bytes("the broker's store", bytes);
}

}  // namespace cm::sim
