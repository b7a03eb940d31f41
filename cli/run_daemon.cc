// run_daemon.cc — the daemon role: its start as numbered steps, then its loop.
// Holds:  the order inside an iteration: collect, apply, step, commit, execute, flush. Only after
//         the commit do replies, acks and frames leave.
// Why:    cli joins the core to its shells: the server of the IPC and the host of the plugins.
// Not:    rules of delivery (core/daemon), sockets (core/net), plugins (plugins/host).
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>

#include "cli/beside.h"
#include "cli/config.h"
#include "cli/config_watch.h"
#include "cli/daemon_setup.h"
#include "cli/ensure_daemon.h"
#include "cli/files.h"
#include "cli/host_identity.h"
#include "cli/local_token.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/plugin_dirs.h"
#include "cli/query.h"
#include "cli/runtime.h"
#include "cli/salvage.h"
#include "core/base/check.h"
#include "core/daemon/daemon.h"
#include "core/net/loop.h"
#include "plugins/host/host.h"

namespace cm::cli {
namespace {

class DaemonRole {
 public:
  DaemonRole(Runtime& runtime, store::Store& store, net::Loop& loop, net::Server& server,
             plugins::Host& host, daemon::Daemon& core, daemon::Effects& effects,
             crypto::SecretSlab& slab, ConfigWatch& watch, const DaemonOptions& options)
      : runtime_(runtime),
        store_(store),
        loop_(loop),
        server_(server),
        host_(host),
        core_(core),
        effects_(effects),
        slab_(slab),
        watch_(watch),
        options_(options) {}

  // What the core asked for while it started: the links to open.
  void execute_start() {
    execute_all();
    runtime_.scratch.reset();
  }

  // Runs until SIGTERM or SIGINT, or until there is nothing left to do; what is in the store waits
  // there for the next start. The exit code.
  int run() {
    std::uint64_t give_up_ms = net::kNever;
    for (;;) {
      iterate();
      if (loop_.take_signal(SIGUSR1)) log_verification(runtime_, store_, core_.verify_all());
      const bool gave_up = !core_.gave_up().empty();
      const bool stop = loop_.take_signal(SIGTERM) || loop_.take_signal(SIGINT) || gave_up;
      if (stop && give_up_ms == net::kNever) {
        runtime_.log.info("daemon_shutdown", {{"reason", core_.gave_up()}});
        server_.drain(1001, "shutting down");
        give_up_ms = net::Loop::mono_ms() + kDrainMs;
        deadline_ = give_up_ms;
      }
      if (give_up_ms == net::kNever) continue;
      if (server_.drained() || net::Loop::mono_ms() >= give_up_ms) break;
    }
    for (const auto& [bits, peer] : peer_of_) host_.close(peer, 1000, "daemon stops");
    if (!core_.gave_up().empty()) note_spawn_failure(core_.gave_up());
    return core_.gave_up().empty() ? 0 : 1;
  }

 private:
  static constexpr std::uint64_t kDrainMs = 2'000;
  static constexpr std::uint64_t kReloadAgainMs = 1'000;

  void iterate() {
    loop_.arm(std::min({core_.next_deadline(), server_.next_deadline(), host_.next_deadline(),
                        deadline_, reload_again_ms_, store_.sync_deadline()}));
    const bool may_block = !core_.work_left() && !server_.work_left() && !host_.work_left() &&
                           unopened_.empty() && reload_for_.empty();
    host_.begin_iteration();
    server_.collect(may_block);
    runtime_.env.wall_ms = net::Loop::wall_ms();
    runtime_.env.mono_ms = net::Loop::mono_ms();
    server_.tick(runtime_.env.mono_ms);
    host_.tick(runtime_.env.mono_ms);
    runtime_.metrics.add(Metric::kIterations);
    export_store_metrics(runtime_, store_);
    for (const auto& [link, reason] : std::exchange(unopened_, {})) {
      core_.on_link_event(link, daemon::LinkEvent::kClosed, 0, reason);
    }
    const bool reloaded = reload_if_wanted();
    for (const plugins::HostEvent& event : host_.events()) apply(event);
    for (const net::NetEvent& event : server_.events()) apply(event);
    core_.note_long_bodies(server_.stats().long_bodies);
    core_.step();
    plugins::Verdict verdict = plugins::Verdict::kOk;
    switch (store_.commit()) {
      case store::CommitResult::kNothing:
      case store::CommitResult::kCommitted: core_.committed(); break;
      case store::CommitResult::kFailed:
        runtime_.metrics.add(Metric::kCommitFailures);
        runtime_.log.error("commit_failed", {{"detail", store_.last_error_text()}});
        core_.abandon(Err::kDiskFull);
        // Rows of a mesh that was left stand as they were: once more, when there may be room.
        if (reloaded) reload_again_ms_ = runtime_.env.mono_ms + kReloadAgainMs;
        verdict = plugins::Verdict::kRetry;
        break;
      case store::CommitResult::kBroken: die_broken(runtime_, store_);
    }
    if (!store_.sync_if_due(runtime_.env.mono_ms)) die_broken(runtime_, store_);
    host_.settle(verdict);
    execute_all();
    server_.flush();
    end_slow_streams();
    server_.end_iteration();
    host_.end_iteration();
    runtime_.scratch.reset();
  }

  void apply(const plugins::HostEvent& event) {
    const auto found = link_of_.find(event.peer.bits());
    if (found == link_of_.end()) return;  // closed by the core earlier in this iteration
    const daemon::LinkRef link = found->second;
    switch (event.kind) {
      case plugins::HostEventKind::kState:
        core_.on_link_event(link, static_cast<daemon::LinkEvent>(event.state), event.code,
                            event.bytes);
        if (event.state == CM_PEER_CLOSED) forget(link);
        break;
      case plugins::HostEventKind::kFrame:
        if (!core_.on_link_frame(link, event.bytes)) host_.refuse(event.token);
        break;
      case plugins::HostEventKind::kBlocked: core_.on_link_blocked(link, true); break;
      case plugins::HostEventKind::kWritable: core_.on_link_blocked(link, false); break;
      case plugins::HostEventKind::kIncoming: break;  // the daemon opens no listener
    }
  }

  void apply(const net::NetEvent& event) {
    switch (event.kind) {
      case net::NetEventKind::kHttpRequest: core_.on_http(event.conn, to_core(event)); break;
      case net::NetEventKind::kHttpClosed: core_.on_http_closed(event.conn); break;
      case net::NetEventKind::kWsOpen:
      case net::NetEventKind::kWsMessage:
      case net::NetEventKind::kWsClosed:
      case net::NetEventKind::kWritable: break;  // the IPC upgrades nothing
    }
  }

  // Executing may add effects: the answer to a request that the shell serves.
  void execute_all() {
    for (std::size_t index = 0; index < effects_.list().size(); ++index) {
      const daemon::Effect effect = effects_.list()[index];
      execute(effect);
    }
    effects_.clear();
  }

  // A reader that leaves so much unread is ended; it can come back with its Last-Event-ID.
  void end_slow_streams() {
    const std::vector<ConnRef> streams = core_.tables().streams;
    for (const ConnRef conn : streams) {
      if (server_.pending_output(conn) <= runtime_.limits.slow_consumer_soft_bytes) continue;
      server_.stream_end(conn);
      core_.on_stream_slow(conn);
    }
  }

  bool reload_if_wanted() {
    const bool changed = watch_.take_change();
    const bool hung_up = loop_.take_signal(SIGHUP);
    if (hung_up) reopen_log(runtime_);
    const bool again = runtime_.env.mono_ms >= reload_again_ms_;
    if (!changed && !hung_up && !again && reload_for_.empty()) return false;
    reload_again_ms_ = net::kNever;
    // A file that was written is config.json; config.toml is read when somebody asks for it, since
    // a slip in the one must not keep a mesh that was joined from being served.
    const Result<daemon::Reloaded> outcome = reload(hung_up || !reload_for_.empty());
    if (outcome) {
      runtime_.log.info("config_reloaded", {{"joined", outcome->joined},
                                            {"left", outcome->left},
                                            {"changed", outcome->changed},
                                            {"kept", outcome->kept}});
    } else {
      runtime_.log.error("config_not_reloaded", {{"detail", outcome.error().detail}});
    }
    std::vector<ConnRef> waiting = std::exchange(reload_for_, {});
    if (waiting.empty()) waiting.push_back({});
    for (const ConnRef conn : waiting) core_.on_reloaded(conn, outcome);
    return true;
  }

  // All that was read is checked before any of it is applied.
  Result<daemon::Reloaded> reload(bool with_settings) {
    auto settings = with_settings ? load_settings(options_.flags) : Result(options_.settings);
    if (!settings) return settings.error();
    auto file = load_config(log_warnings(runtime_.log));
    if (!file) return file.error();
    // A file that is gone is no wish to leave every mesh; an empty list of meshes is.
    if (file->meshes.empty() && ::access(file->path.c_str(), F_OK) != 0) {
      return fail(Err::kNotFound, file->path + " is gone; the meshes stay as they are");
    }
    auto meshes = mesh_list(slab_, *file);
    if (!meshes) return meshes.error();
    auto outcome = core_.reload(*meshes);
    if (!outcome || !with_settings) return outcome;
    core_.set_options(settings->is_on(Setting::kPublicHealth),
                      settings->text(Setting::kLegacyBroker) == "allow");
    core_.set_report_level(report_level(*settings));
    core_.set_allowed_origins(words_of(settings->text(Setting::kAllowedOrigins)));
    outcome->waiting = waiting_for_restart(options_.settings, *settings);
    if (!outcome->waiting.empty()) {
      runtime_.log.warn("settings_need_restart", {{"settings", joined(outcome->waiting)}});
    }
    return outcome;
  }

  void rotate_token(ConnRef conn) {
    const auto hash = rotate_local_token(runtime_.env.rng);
    if (hash) core_.set_local_token(*hash);
    core_.on_token_rotated(conn, hash ? Status{} : Status{hash.error()}, local_token_path());
  }

  void execute(const daemon::Effect& effect) {
    const auto peer = peer_of_.find(effect.link.bits());
    switch (effect.kind) {
      case daemon::EffectKind::kLinkOpen: open(effect.link, effect.text); break;
      case daemon::EffectKind::kLinkSend:
        if (peer != peer_of_.end()) host_.send(peer->second, effect.code, effect.text);
        break;
      case daemon::EffectKind::kLinkNote:
        if (peer != peer_of_.end()) host_.note(peer->second, effect.code);
        break;
      case daemon::EffectKind::kLinkClose:
        if (peer != peer_of_.end()) host_.close(peer->second, effect.code, effect.text);
        forget(effect.link);
        break;
      case daemon::EffectKind::kHttpReply: {
        const std::string seconds = std::to_string(effect.retry_after_s);
        const std::string next = "<" + std::string(effect.next) + ">; rel=\"next\"";
        const net::HttpHeader wait{"Retry-After", seconds}, link{"Link", next};
        const net::HttpHeader& header = effect.next.empty() ? wait : link;
        const bool has_one = !effect.next.empty() || effect.retry_after_s != 0;
        server_.http_reply(effect.conn, static_cast<int>(effect.code), effect.content_type,
                           effect.text, {&header, has_one ? 1u : 0u});
        break;
      }
      case daemon::EffectKind::kStreamBegin: {
        const net::HttpHeader headers[] = {{"Cache-Control", "no-cache, no-transform"},
                                           {"X-Accel-Buffering", "no"}};
        server_.stream_begin(effect.conn, "text/event-stream", headers);
        break;
      }
      case daemon::EffectKind::kStreamWrite: server_.stream_write(effect.conn, effect.text); break;
      case daemon::EffectKind::kRotateToken: rotate_token(effect.conn); break;
      case daemon::EffectKind::kReload: reload_for_.push_back(effect.conn); break;
    }
  }

  void open(daemon::LinkRef link, std::string_view address) {
    forget(link);
    const auto peer = host_.open("ws-broker", address, {});
    if (!peer) {
      // The core learns it as it learns every other loss, in the next iteration.
      unopened_.emplace_back(link, peer.error().detail);
      return;
    }
    peer_of_[link.bits()] = *peer;
    link_of_[peer->bits()] = link;
  }

  void forget(daemon::LinkRef link) {
    const auto found = peer_of_.find(link.bits());
    if (found == peer_of_.end()) return;
    link_of_.erase(found->second.bits());
    peer_of_.erase(found);
  }

  Runtime& runtime_;
  store::Store& store_;
  net::Loop& loop_;
  net::Server& server_;
  plugins::Host& host_;
  daemon::Daemon& core_;
  daemon::Effects& effects_;
  std::unordered_map<std::uint64_t, plugins::HostPeer> peer_of_;   // by LinkRef
  std::unordered_map<std::uint64_t, daemon::LinkRef> link_of_;     // by HostPeer
  std::vector<std::pair<daemon::LinkRef, std::string>> unopened_;  // with the transport's reason
  crypto::SecretSlab& slab_;
  ConfigWatch& watch_;
  const DaemonOptions& options_;
  std::vector<ConnRef> reload_for_;  // requests that wait for a reading of config.json
  std::uint64_t deadline_ = net::kNever;
  std::uint64_t reload_again_ms_ = net::kNever;
};

void write_crash_summary(int fd, const void* core) {
  static_cast<const daemon::Daemon*>(core)->summarise(fd);
}

// Is this the machine that the store was made on? Nobody asks where each start is on another one.
Status settle_host(const Settings& settings, const Log& log) {
  const PlaceFound place = find_place();
  if (!defaults_of(place.place).keeps_host_identity) {
    log.info("host_identity_ephemeral", {{"mark", place.mark}});
    return {};
  }
  const HostIdentity host = find_host_identity();
  const HostVerdict verdict = check_host(host);
  switch (verdict) {
    case HostVerdict::kMatch: return {};
    case HostVerdict::kFirstRun:
    case HostVerdict::kOutdated: break;
    case HostVerdict::kUnavailable:
      log.warn("host_fingerprint_unavailable",
               {{"path", host_fingerprint_path()},
                {"remedy", "'claudemesh daemon accept-host' writes it anew"}});
      return {};
    case HostVerdict::kMismatch: {
      const std::string& policy = settings.text(Setting::kClonePolicy);
      if (policy == "refuse") {
        return fail(Err::kHostMismatch, host_fingerprint_path() +
                                            " names another machine; if this is a copy, remove " +
                                            daemon_dir() + " and join the meshes again");
      }
      log.warn("host_fingerprint_mismatch", {{"policy", policy}});
      return {};
    }
  }
  if (Status written = write_host(host, net::Loop::wall_ms()); !written) return written;
  log.info("host_fingerprint_written",
           {{"reason", text_of(verdict)}, {"fingerprint_prefix", host.prefix()}});
  return {};
}

}  // namespace

int give_up(const DaemonOptions& options, const Error& error) {
  if (options.ready_fd >= 0) {
    const std::string line = std::string(info_of(error.code).wire_code) + " " + error.detail + "\n";
    const ssize_t written = ::write(options.ready_fd, line.data(), line.size());
    (void)written;  // whoever waited is gone
  }
  return report(error);
}

int run_daemon(const DaemonOptions& options) {
  // 1. The configuration names at least one mesh.
  Runtime runtime;
  const Warn warn = log_warnings(runtime.log);
  auto file = load_config(warn);
  if (!file) return give_up(options, file.error());
  if (file->meshes.empty()) return give_up(options, fail(Err::kNoMesh));
  const Settings& settings = options.settings;
  // 2. The process has descriptors, randomness and a memory bill that fits.
  settings.apply_limits(runtime.limits);
  if (Status opened = open_log(runtime, settings.text(Setting::kLogFile)); !opened) {
    return give_up(options, opened.error());
  }
  if (Status ready = prepare(runtime, daemon_bill(runtime.limits)); !ready) {
    return give_up(options, ready.error());
  }
  // 3. The store is ours alone: LOCK is the singleton, the pid file only informs.
  if (Status made = make_private_dir(daemon_dir(), warn); !made) {
    return give_up(options, made.error());
  }
  const bool sync = settings.text(Setting::kDurability) == "sync";
  const std::string store_dir = daemon_dir() + "/store";
  auto store = open_store(runtime, store_dir, store::Role::kDaemon,
                          sync ? store::Durability::kSync : store::Durability::kRelaxed);
  if (!store) return give_up(options, store.error());
  if (Status alone = refuse_beside_reference(store_dir); !alone) {
    return give_up(options, alone.error());
  }
  if (Status host = settle_host(settings, runtime.log); !host) {
    return give_up(options, host.error());
  }
  // 4. Signals arrive as marks, descriptors as callbacks.
  auto loop = net::Loop::create(runtime.limits.iteration_micros_max);
  if (!loop) return give_up(options, loop.error());
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    if (Status watched = (*loop)->watch_signal(signal); !watched) {
      return give_up(options, watched.error());
    }
  }
  ::signal(SIGPIPE, SIG_IGN);
  // 5. Transports are loaded and checked; one that carries brokers is among them.
  plugins::Host host(
      **loop, plugin_host_options(runtime.limits, runtime.env.rng, settings.text(Setting::kCaFile)),
      runtime.log, runtime.metrics, runtime.scratch);
  if (Status loaded = load_plugins(host); !loaded) return give_up(options, loaded.error());
  // 6. Secrets are in the slab, meshes in their table; the mirrors say what the store says.
  crypto::SecretSlab slab(runtime.limits.secret_slots_max);
  daemon::Effects effects;
  daemon::Config config = make_config(runtime, settings);
  ShellMetrics shell;
  shell.host = &host;
  config.append_metrics = append_shell_metrics;
  config.metrics_context = &shell;
  daemon::Daemon core(config, runtime.limits, runtime.env, effects, runtime.metrics, slab);
  add_crash_reporter(write_crash_summary, &core);
  if (Status added = add_meshes(core, slab, *file, runtime.log); !added) {
    return give_up(options, added.error());
  }
  ConfigWatch watch(**loop, config_dir());
  if (!watch.works()) {
    runtime.log.warn("config_not_watched", {{"remedy", "send SIGHUP after joining or leaving"}});
  }
  const std::size_t meshes = core.tables().meshes.count();
  const auto token = load_local_token(runtime.env.rng, warn);
  if (!token) return give_up(options, token.error());
  core.set_local_token(*token);
  file->meshes.clear();  // wipes the keys
  std::string set_aside;
  if (Status inbox = set_aside_inbox(runtime, **store, daemon_dir(), set_aside); !inbox) {
    // No reason to keep what is whole from its owner: readers pass a damaged row by.
    runtime.log.error("inbox_not_set_aside", {{"detail", inbox.error().detail}});
    set_aside = "damaged messages of the inbox could not be set aside: " + inbox.error().detail;
  }
  if (!set_aside.empty()) core.add_warning(set_aside);
  if (Status started = core.start(); !started) return give_up(options, started.error());
  if ((*store)->commit() > store::CommitResult::kCommitted) {
    return give_up(options, fail(Err::kStoreFailed, (*store)->last_error_text()));
  }
  // 7. The socket serves: from here on a CLI finds this daemon.
  net::ServerOptions server_options;
  server_options.limits = runtime.limits;
  server_options.connections_max = runtime.limits.ipc_connections_max;
  net::Server server(**loop, server_options, runtime.scratch, runtime.pool);
  if (Status listens = server.listen_unix(socket_path()); !listens) {
    return give_up(options, listens.error());
  }
  std::string tcp, skipped;
  if (Status listens = listen_tcp(server, settings, tcp, skipped); !listens) {
    return give_up(options, listens.error());
  }
  if (!skipped.empty()) {
    runtime.log.warn("tcp_not_served", {{"detail", skipped}});
    core.add_warning(skipped);
  }
  shell.server = &server;
  if (Status written = write_pid_file(store_dir); !written) {
    return give_up(options, written.error());
  }
  // 8. Links are opened, and whoever started us knows.
  DaemonRole role(runtime, **store, **loop, server, host, core, effects, slab, watch, options);
  role.execute_start();
  runtime.log.info("daemon_started", {{"version", kVersion},
                                      {"pid", static_cast<std::int64_t>(::getpid())},
                                      {"sock", socket_path()},
                                      {"tcp", tcp},
                                      {"meshes", meshes},
                                      {"durability", settings.text(Setting::kDurability)},
                                      {"secrets_locked", slab.locked()}});
  if (options.ready_fd >= 0) {
    const ssize_t written = ::write(options.ready_fd, "ok\n", 3);
    (void)written;  // whoever waited is gone
    ::close(options.ready_fd);
  }
  const int code = role.run();
  remove_crash_reporters(&core);
  remove_pid_file(store_dir);
  runtime.log.info("daemon_stopped");
  return code;
}

}  // namespace cm::cli
