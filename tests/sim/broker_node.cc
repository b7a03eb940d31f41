// broker_node.cc — the broker's iteration and its calls at set-up.
#include "core/base/check.h"
#include "core/crypto/sign.h"
#include "store/fsck.h"
#include "tests/sim/node.h"

namespace cm::sim {
namespace {

constexpr std::string_view kAdminToken = "the-admin-token-of-the-simulated-broker";

broker::Config config_of_sim() {
  broker::Config config;
  config.version = "sim";
  config.public_url = "ws://sim.invalid/ws";
  config.durability_sync = false;
  return config;
}

}  // namespace

BrokerNode::Process::Process(Wires& wires, const std::string& directory, const Clock& clock,
                             std::uint64_t now_ms, std::uint64_t store_bytes)
    : parts("broker", wires.journal, wires.plan, store::Role::kBroker, directory, store_bytes),
      watch(wires.cells),
      core(config_of_sim(), parts.limits, (parts.set_now(clock, now_ms), parts.env), effects,
           parts.metrics, parts.slab) {}

void BrokerNode::start(std::uint64_t now_ms) {
  now_ms_ = now_ms;
  restart_at_ms = UINT64_MAX;
  wires_.journal.line("broker starts");
  process_ = std::make_unique<Process>(wires_, directory_, clock, now_ms, store_bytes);
  process_->watch.start(process_->parts.store->batch());
  CHECK(process_->core.load());
  process_->core.set_admin_token_hash(crypto::sha256(as_bytes(kAdminToken)));
  if (process_->parts.store->commit() > store::CommitResult::kCommitted) {
    wires_.counters.faults.add(Fault::kFullMap);
    die(now_ms);  // as its shell does: somebody has to make room first
    restart_at_ms = now_ms + 5'000;
    return;
  }
  process_->parts.scratch.reset();
  if (const char* problem = process_->core.verify_all(); problem != nullptr) {
    wires_.oracle.breaks("verify_all of the broker after load", problem);
  }
  process_->parts.store->abort();
}

void BrokerNode::die(std::uint64_t now_ms) {
  wires_.journal.line("broker dies");
  process_->watch.dies(process_->core);
  process_.reset();
  wires_.network.broker_died(now_ms);
}

std::uint64_t BrokerNode::due_ms() const {
  if (!up()) return UINT64_MAX;
  if (process_->core.work_left() || process_->applied < process_->inputs.size()) return now_ms_;
  const std::uint64_t deadline = process_->core.next_deadline();
  return deadline == UINT64_MAX ? deadline : deadline - std::min(deadline, clock.mono_base_ms);
}

std::uint64_t BrokerNode::wake_ms() const {
  if (!up()) return UINT64_MAX;
  const bool has_work = process_->core.work_left() || process_->applied < process_->inputs.size();
  const std::uint64_t next =
      has_work ? now_ms_ : std::min(due_ms(), wires_.network.next_for_broker());
  return next == UINT64_MAX ? next : std::max(next, stalled_until_ms);
}

bool BrokerNode::queues_empty() const {
  bool empty = true;
  const broker::Tables& tables = process_->core.tables();
  tables.mailboxes.each([&](broker::MailboxRef box) {
    empty = empty && tables.mailboxes.get<broker::kBoxRows>(box) == 0;
  });
  return empty;
}

void BrokerNode::apply(ConnInput& input) {
  process_->watch.conn_input(process_->core, process_->parts.store->batch(), input);
  switch (input.item.kind) {
    case ItemKind::kUp: process_->core.on_open(input.conn); break;
    case ItemKind::kText: {
      wires_.oracle.to_broker(input.item.text);
      const Channel* channel = wires_.network.channel_of(input.conn);
      const bool is_honest = channel != nullptr && channel->daemon < wires_.plan.daemons;
      if (is_honest && input.item.text.size() > channel->frame_limit) {
        wires_.oracle.breaks("a daemon keeps to the frame limit", input.item.text.substr(0, 80));
      }
      wires_.journal.line("broker < c%u.%u %.*s", input.conn.slot, input.conn.gen,
                          static_cast<int>(std::min<std::size_t>(input.item.text.size(), 200)),
                          input.item.text.c_str());
      process_->core.on_text(input.conn, input.item.text);
      break;
    }
    case ItemKind::kDown: process_->core.on_closed(input.conn); break;
    case ItemKind::kBytes:
    case ItemKind::kGaveUp:
    case ItemKind::kBlocked:
    case ItemKind::kWritable: break;
  }
}

void BrokerNode::iterate(std::uint64_t now_ms, const Fate& fate) {
  Process& process = *process_;
  now_ms_ = now_ms;
  process.parts.set_now(clock, now_ms);
  process.parts.fail_next_commit(fate.commit_fails);
  std::vector<ConnInput>& inputs = process.inputs;
  if (process.applied == inputs.size()) {
    inputs.clear();
    process.applied = 0;
    wires_.network.collect_for_broker(now_ms, fate.frames, inputs);
  }
  const bool had_input = process.applied < inputs.size();
  while (process.applied < inputs.size()) {
    apply(inputs[process.applied++]);
    if (process.core.iteration_full()) break;
  }
  const std::uint64_t expired = process.parts.metrics.get(Metric::kBrokerExpired);
  process.watch.before_step(process.core);
  process.core.step();
  const std::uint64_t ended = process.parts.metrics.get(Metric::kBrokerExpired) - expired;
  for (std::uint64_t row = 0; row < ended; ++row) wires_.counters.faults.add(Fault::kExpiredMail);
  process.watch.after_step(process.core, process.parts.store->batch(), process.effects.list(),
                           ended);
  if (fate.crash == Crash::kBeforeCommit) {
    process.parts.store->abort();
    return die(now_ms);
  }
  switch (process.parts.store->commit()) {
    case store::CommitResult::kNothing: process.core.committed(); break;
    case store::CommitResult::kCommitted:
      ++wires_.counters.commits;
      process.core.committed();
      break;
    case store::CommitResult::kFailed:
      wires_.counters.faults.add(fate.commit_fails ? Fault::kCommitFails : Fault::kFullMap);
      wires_.journal.line("broker commit fails");
      process.watch.before_abandon(process.core);
      process.core.abandon();
      process.watch.after_abandon(process.parts.store->batch());
      break;
    case store::CommitResult::kBroken: CHECK(false); break;
  }
  if (fate.crash == Crash::kBeforeEffects) return die(now_ms);
  const std::uint64_t done_ms = now_ms + fate.commit_ms;
  stalled_until_ms = std::max(stalled_until_ms, done_ms);
  std::size_t left = process.effects.list().size();
  if (fate.crash == Crash::kAmidEffects) left = left * fate.effects_kept / 1000;
  for (const broker::Effect& effect : process.effects.list()) {
    if (left-- == 0) break;
    execute(effect, done_ms);
  }
  process.effects.clear();
  if (const char* problem = process.core.verify_all(); problem != nullptr) {
    wires_.oracle.breaks("verify_all of the broker", problem);
  }
  process.parts.store->abort();  // it only read
  process.parts.scratch.reset();
  std::size_t sockets = 0;
  for (const auto& channel : wires_.network.channels()) {
    sockets += channel->broker_side && channel->broker_knows ? 1 : 0;
  }
  const bool has_backlog = process.applied < inputs.size();
  if (!has_backlog && fate.crash != Crash::kAmidEffects &&
      process.core.tables().clients.count() != sockets) {
    wires_.oracle.breaks(
        "the broker and its shell agree on what is open",
        std::to_string(process.core.tables().clients.count()) + " and " + std::to_string(sockets));
  }
  const std::uint64_t deadline = process.core.next_deadline();
  if (spin_.spins(had_input, deadline <= process.parts.env.mono_ms, process.core.work_left())) {
    wires_.oracle.breaks("a core does not spin", "the broker");
  }
  if (fate.crash != Crash::kNone) die(now_ms);
}

void BrokerNode::execute(const broker::Effect& effect, std::uint64_t now_ms) {
  Channel* channel = wires_.network.channel_of(effect.conn);
  switch (effect.kind) {
    case broker::EffectKind::kWsText:
      if (channel == nullptr) return;
      wires_.journal.line("broker > c%u.%u %.*s", effect.conn.slot, effect.conn.gen,
                          static_cast<int>(std::min<std::size_t>(effect.text.size(), 200)),
                          effect.text.data());
      if (store_bytes != 0 && effect.text.find("store is full") != std::string_view::npos) {
        wires_.counters.faults.add(Fault::kFullStore);
      }
      wires_.oracle.to_daemon(*channel, effect.text, wires_.network);
      wires_.network.conn_send(effect.conn, effect.text, now_ms);
      break;
    case broker::EffectKind::kWsClose:
      wires_.journal.line("broker closes c%u.%u %u", effect.conn.slot, effect.conn.gen,
                          effect.code);
      wires_.network.conn_close(effect.conn, effect.code, effect.text, now_ms);
      break;
    case broker::EffectKind::kFrameLimit:
      if (channel != nullptr) channel->frame_limit = effect.code;
      break;
    case broker::EffectKind::kHttpReply:
      if (effect.code == 200) reply_ = std::string(effect.text);
      break;
    case broker::EffectKind::kGroup: break;  // this network has no unfinished frames
  }
}

std::optional<std::string> BrokerNode::call(std::uint64_t now_ms, std::string_view method,
                                            std::string_view path, std::string_view body,
                                            std::string_view token) {
  Process& process = *process_;
  process.parts.set_now(clock, now_ms);
  const std::string authority = "Bearer " + std::string(kAdminToken);
  wire::HttpRequest request;
  request.method = method;
  request.path = path;
  request.body = body;
  request.authorization = token.empty() ? std::string_view{} : std::string_view(authority);
  reply_.reset();
  process.core.on_http({0, 0xffffffffu}, request);
  process.core.step();
  CHECK(process.parts.store->commit() <= store::CommitResult::kCommitted);
  process.core.committed();
  for (const broker::Effect& effect : process.effects.list()) execute(effect, now_ms);
  process.effects.clear();
  process.parts.scratch.reset();
  return reply_;
}

void BrokerNode::check_store() {
  store::fsck(batch(), store::Role::kBroker,
              [this](std::string_view table, std::string_view problem, Bytes) {
                wires_.oracle.breaks("fsck of the broker",
                                     std::string(table) + ": " + std::string(problem));
              });
  end_reading();
}

}  // namespace cm::sim
