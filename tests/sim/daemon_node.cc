// daemon_node.cc — a daemon's iteration.
#include <sodium.h>

#include "core/base/check.h"
#include "store/fsck.h"
#include "tests/sim/node.h"

namespace cm::sim {
namespace {

daemon::Config config_of_sim(const Identity& who, std::uint32_t pid) {
  daemon::Config config;
  config.version = "sim";
  config.session_id = "daemon-" + std::to_string(pid);
  config.hostname = "host" + std::to_string(who.number);
  config.cwd = "/sim";
  config.pid = pid;
  config.durability_sync = false;
  config.report_level = who.report_level;
  return config;
}

}  // namespace

DaemonNode::Process::Process(Wires& wires, const std::string& directory, const Clock& clock,
                             std::uint64_t now_ms, const Identity& who, std::uint32_t pid,
                             std::uint64_t store_bytes)
    : parts("d" + std::to_string(who.number), wires.journal, wires.plan, store::Role::kDaemon,
            directory, store_bytes),
      cells(wires.cells),
      watch(wires.cells),
      core(config_of_sim(who, pid), parts.limits, (parts.set_now(clock, now_ms), parts.env),
           effects, parts.metrics, parts.slab) {}

DaemonNode::Process::~Process() { cells.add(core.outbox_cells()); }

void DaemonNode::start(std::uint64_t now_ms) {
  now_ms_ = now_ms;
  restart_at_ms = UINT64_MAX;
  wires_.journal.line("d%u starts", who_.number);
  ++pid_;
  std::uint32_t pid = pid_ + 100 * who_.number;
  if (wires_.plan.pid_reuse != 0 && wires_.rng.chance(wires_.plan.pid_reuse)) {
    pid = 101;  // that of its own first process, or of another daemon's
    wires_.counters.faults.add(Fault::kPidReuse);
  }
  process_ = std::make_unique<Process>(wires_, directory_, clock, now_ms, who_, pid, store_bytes);
  daemon::MeshConfig mesh;
  mesh.mesh_id = who_.mesh_id;
  mesh.member_id = who_.member_id;
  mesh.slug = who_.slug;
  mesh.name = who_.name;
  mesh.broker_url = who_.broker_url;
  mesh.key = who_.key;
  const auto secret = process_->parts.slab.store_seed(who_.seed);
  CHECK(secret);
  mesh.secret = *secret;
  CHECK(process_->core.add_mesh(mesh));
  CHECK(process_->core.start());
  if (process_->parts.store->commit() > store::CommitResult::kCommitted) {
    wires_.counters.faults.add(Fault::kFullMap);
    die(now_ms);  // as its shell does: somebody has to make room first
    restart_at_ms = now_ms + 5'000;
    return;
  }
  for (const daemon::Effect& effect : process_->effects.list()) execute(effect, now_ms, false);
  process_->effects.clear();
  process_->parts.scratch.reset();
  if (const char* problem = process_->core.verify_all(); problem != nullptr) {
    wires_.oracle.breaks("verify_all of a daemon after start", problem);
  }
  process_->parts.store->abort();
}

void DaemonNode::die(std::uint64_t now_ms) {
  wires_.journal.line("d%u dies", who_.number);
  process_.reset();
  calls_.clear();
  wires_.network.daemon_died(who_.number, now_ms);
  wires_.oracle.process_died(who_.number);
}

std::uint64_t DaemonNode::due_ms() const {
  if (!up()) return UINT64_MAX;
  std::uint64_t next = process_->core.work_left() ? now_ms_ : UINT64_MAX;
  if (!calls_.empty()) next = std::min(next, calls_.front().due_ms);
  const std::uint64_t deadline = process_->core.next_deadline();
  if (deadline != UINT64_MAX) {
    next = std::min(next, deadline - std::min(deadline, clock.mono_base_ms));
  }
  return next;
}

std::uint64_t DaemonNode::wake_ms() const {
  if (!up()) return UINT64_MAX;
  std::uint64_t next = wires_.network.next_for_daemon(who_.number);
  if (process_->core.work_left()) next = now_ms_;
  next = std::min(next, due_ms());
  return next == UINT64_MAX ? next : std::max(next, stalled_until_ms);
}

bool DaemonNode::outbox_empty() const {
  return !up() || (calls_.empty() && process_->core.tables().work.count() == 0);
}

ConnRef DaemonNode::submit(std::uint64_t now_ms, Call call) {
  call.due_ms = now_ms;
  call.conn = {next_conn_++, 1};
  wires_.oracle.asked(who_.number, call.conn, call.ask);
  calls_.push_back(std::move(call));
  return calls_.back().conn;
}

void DaemonNode::leave(std::uint64_t now_ms, ConnRef conn) {
  Call call;
  call.due_ms = now_ms;
  call.conn = conn;
  call.leaves = true;
  calls_.push_back(std::move(call));
}

void DaemonNode::apply(const LinkInput& input) {
  process_->watch.link_input(process_->core, input);
  const Item& item = input.item;
  daemon::Daemon& core = process_->core;
  switch (item.kind) {
    case ItemKind::kUp: core.on_link_event(input.link, daemon::LinkEvent::kConnected, 0, {}); break;
    case ItemKind::kDown:
      wires_.journal.line("d%u link down %u %s", who_.number, item.code, item.text.c_str());
      core.on_link_event(input.link, daemon::LinkEvent::kConnecting, item.code, item.text);
      break;
    case ItemKind::kText:
      wires_.journal.line("d%u < %.*s", who_.number,
                          static_cast<int>(std::min<std::size_t>(item.text.size(), 120)),
                          item.text.c_str());
      if (!core.on_link_frame(input.link, item.text)) {
        wires_.oracle.breaks("both ends speak one protocol", item.text.substr(0, 300));
      }
      break;
    case ItemKind::kGaveUp:
      core.on_link_event(input.link, daemon::LinkEvent::kClosed, 0, item.text);
      break;
    case ItemKind::kBytes: break;
    case ItemKind::kBlocked: core.on_link_blocked(input.link, true); break;
    case ItemKind::kWritable: core.on_link_blocked(input.link, false); break;
  }
}

void DaemonNode::apply(const Call& call) {
  if (call.leaves) {
    process_->core.on_http_closed(call.conn);
    wires_.oracle.client_left(who_.number, call.conn);
    return;
  }
  wires_.journal.line("d%u %s %s %.*s %s", who_.number, call.method.c_str(), call.path.c_str(),
                      static_cast<int>(std::min<std::size_t>(call.body.size(), 200)),
                      call.body.c_str(), call.idempotency_key.c_str());
  wire::HttpRequest request;
  request.method = call.method;
  request.path = call.path;
  request.query = call.query;
  request.host = "localhost";
  request.idempotency_key = call.idempotency_key;
  request.body = call.body;
  request.peer_is_unix = true;
  process_->core.on_http(call.conn, request);
}

void DaemonNode::iterate(std::uint64_t now_ms, const Fate& fate) {
  Process& process = *process_;
  now_ms_ = now_ms;
  process.parts.set_now(clock, now_ms);
  process.parts.fail_next_commit(fate.commit_fails);
  std::vector<LinkInput> inputs;
  wires_.network.collect_for_daemon(who_.number, now_ms, fate.frames, inputs);
  std::vector<Call> calls;
  while (!calls_.empty() && calls_.front().due_ms <= now_ms) {
    calls.push_back(std::move(calls_.front()));
    calls_.pop_front();
  }
  for (const LinkInput& input : inputs) apply(input);
  for (const Call& call : calls) apply(call);
  process.watch.before_step(process.core);
  process.core.step();
  process.watch.after_step(process.effects.list());
  if (fate.crash == Crash::kBeforeCommit) {
    process.parts.store->abort();
    return die(now_ms);
  }
  bool abandoned = false;
  switch (process.parts.store->commit()) {
    case store::CommitResult::kNothing: process.core.committed(); break;
    case store::CommitResult::kCommitted:
      ++wires_.counters.commits;
      process.core.committed();
      break;
    case store::CommitResult::kFailed:
      wires_.counters.faults.add(fate.commit_fails ? Fault::kCommitFails : Fault::kFullMap);
      wires_.journal.line("d%u commit fails", who_.number);
      process.watch.before_abandon(process.core);
      process.core.abandon(Err::kDiskFull);
      abandoned = true;
      break;
    case store::CommitResult::kBroken: CHECK(false); break;
  }
  if (fate.crash == Crash::kBeforeEffects) return die(now_ms);
  const std::uint64_t done_ms = now_ms + fate.commit_ms;
  stalled_until_ms = std::max(stalled_until_ms, done_ms);
  std::size_t left = process.effects.list().size();
  if (fate.crash == Crash::kAmidEffects) left = left * fate.effects_kept / 1000;
  for (const daemon::Effect& effect : process.effects.list()) {
    if (left-- == 0) break;
    execute(effect, done_ms, abandoned);
  }
  process.effects.clear();
  if (const char* problem = process.core.verify_all(); problem != nullptr) {
    wires_.oracle.breaks("verify_all of a daemon", problem);
  }
  process.parts.store->abort();  // it only read
  process.parts.scratch.reset();
  const std::uint64_t deadline = process.core.next_deadline();
  if (spin_.spins(!inputs.empty() || !calls.empty(), deadline <= process.parts.env.mono_ms,
                  process.core.work_left())) {
    wires_.oracle.breaks("a core does not spin", "a daemon");
  }
  if (fate.crash != Crash::kNone) die(now_ms);
}

void DaemonNode::execute(const daemon::Effect& effect, std::uint64_t now_ms, bool abandoned) {
  switch (effect.kind) {
    case daemon::EffectKind::kLinkOpen:
      wires_.network.link_open(who_.number, effect.link, now_ms);
      break;
    case daemon::EffectKind::kLinkSend:
      wires_.network.link_send(who_.number, effect.link, effect.text, now_ms);
      break;
    case daemon::EffectKind::kLinkNote:
      wires_.network.link_note(who_.number, effect.link, effect.code);
      break;
    case daemon::EffectKind::kLinkClose:
      wires_.journal.line("d%u closes its link %u", who_.number, effect.code);
      wires_.network.link_close(who_.number, effect.link, now_ms);
      break;
    case daemon::EffectKind::kHttpReply:
      if (effect.code == 507 && !abandoned && store_bytes != 0) {
        wires_.counters.faults.add(Fault::kFullStore);
      }
      wires_.oracle.answered(who_.number, effect.conn, effect.code, effect.text, abandoned,
                             wires_.plan.limits.outbox_rows_max < 1'000 || store_bytes != 0);
      break;
    case daemon::EffectKind::kStreamBegin:
      wires_.oracle.stream_began(who_.number, effect.conn);
      break;
    case daemon::EffectKind::kStreamWrite:
      wires_.oracle.stream_wrote(who_.number, effect.conn, effect.text);
      break;
    case daemon::EffectKind::kRotateToken:
    case daemon::EffectKind::kReload: break;  // no client of the simulation asks for them
  }
}

void DaemonNode::check_store() {
  store::fsck(batch(), store::Role::kDaemon,
              [this](std::string_view table, std::string_view problem, Bytes) {
                wires_.oracle.breaks("fsck of a daemon",
                                     std::string(table) + ": " + std::string(problem));
              });
  end_reading();
}

}  // namespace cm::sim
