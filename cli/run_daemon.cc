// run_daemon.cc — the daemon role: its start as numbered steps, then its loop.
// Holds:  the order inside an iteration: collect, apply, step, commit, execute, flush. Only after
//         the commit do replies, acks and frames leave.
// Why:    cli joins the core to its shells: the server of the IPC and the host of the plugins.
// Not:    rules of delivery (core/daemon), sockets (core/net), plugins (plugins/host).
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "cli/config.h"
#include "cli/files.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/plugin_dirs.h"
#include "cli/runtime.h"
#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/daemon/daemon.h"
#include "core/net/loop.h"
#include "plugins/host/host.h"

namespace cm::cli {
namespace {

class DaemonRole {
 public:
  DaemonRole(Runtime& runtime, store::Store& store, net::Loop& loop, net::Server& server,
             plugins::Host& host, daemon::Daemon& core, daemon::Effects& effects)
      : runtime_(runtime),
        store_(store),
        loop_(loop),
        server_(server),
        host_(host),
        core_(core),
        effects_(effects) {}

  // What the core asked for while it started: the links to open.
  void execute_start() {
    execute_all();
    runtime_.scratch.reset();
  }

  // Runs until SIGTERM or SIGINT; what is in the store waits there for the next start.
  void run() {
    std::uint64_t give_up_ms = net::kNever;
    for (;;) {
      iterate();
      if (loop_.take_signal(SIGHUP)) reopen_log(runtime_);
      if (loop_.take_signal(SIGUSR1)) log_verification(runtime_, store_, core_.verify_all());
      const bool stop = loop_.take_signal(SIGTERM) || loop_.take_signal(SIGINT);
      if (stop && give_up_ms == net::kNever) {
        runtime_.log.info("daemon_shutdown");
        server_.drain(1001, "shutting down");
        give_up_ms = net::Loop::mono_ms() + kDrainMs;
        deadline_ = give_up_ms;
      }
      if (give_up_ms == net::kNever) continue;
      if (server_.drained() || net::Loop::mono_ms() >= give_up_ms) break;
    }
    for (const auto& [bits, peer] : peer_of_) host_.close(peer, 1000, "daemon stops");
  }

 private:
  static constexpr std::uint64_t kDrainMs = 2'000;

  void iterate() {
    loop_.arm(std::min(
        {core_.next_deadline(), server_.next_deadline(), host_.next_deadline(), deadline_}));
    const bool may_block =
        !core_.work_left() && !server_.work_left() && !host_.work_left() && unopened_.empty();
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
    for (const plugins::HostEvent& event : host_.events()) apply(event);
    for (const net::NetEvent& event : server_.events()) apply(event);
    core_.step();
    plugins::Verdict verdict = plugins::Verdict::kOk;
    switch (store_.commit()) {
      case store::CommitResult::kNothing:
      case store::CommitResult::kCommitted: core_.committed(); break;
      case store::CommitResult::kFailed:
        runtime_.metrics.add(Metric::kCommitFailures);
        runtime_.log.error("commit_failed", {{"detail", store_.last_error_text()}});
        core_.abandon(Err::kDiskFull);
        verdict = plugins::Verdict::kRetry;
        break;
      case store::CommitResult::kBroken: die_broken(runtime_, store_);
    }
    host_.settle(verdict);
    execute_all();
    server_.flush();
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

  void execute_all() {
    for (const daemon::Effect& effect : effects_.list()) execute(effect);
    effects_.clear();
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
      case daemon::EffectKind::kHttpReply:
        server_.http_reply(effect.conn, static_cast<int>(effect.code), effect.content_type,
                           effect.text);
        break;
      case daemon::EffectKind::kStreamBegin: {
        const net::HttpHeader headers[] = {{"Cache-Control", "no-cache, no-transform"},
                                           {"X-Accel-Buffering", "no"}};
        server_.stream_begin(effect.conn, "text/event-stream", headers);
        break;
      }
      case daemon::EffectKind::kStreamWrite: server_.stream_write(effect.conn, effect.text); break;
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
  std::uint64_t deadline_ = net::kNever;
};

// Tells who started us, and us, why there will be no daemon.
int give_up(const DaemonOptions& options, const Error& error) {
  if (options.ready_fd >= 0) {
    const std::string line = std::string(info_of(error.code).wire_code) + " " + error.detail + "\n";
    const ssize_t written = ::write(options.ready_fd, line.data(), line.size());
    (void)written;  // whoever waited is gone
  }
  return report(error);
}

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

daemon::Config make_config(const Runtime& runtime, bool sync) {
  daemon::Config config;
  config.version = kVersion;
  config.pid = ::getpid();
  config.session_id = "daemon-" + std::to_string(config.pid) + "-" +
                      std::string(crypto::view(crypto::base62_id(runtime.env.rng)).substr(0, 10));
  config.hostname = host_name();
  config.cwd = home_dir();
  config.durability_sync = sync;
  return config;
}

Status add_mesh(daemon::Daemon& core, crypto::SecretSlab& slab, const Mesh& mesh) {
  if (!is_broker_url(mesh.broker_url)) {
    return fail(Err::kMalformed, "field 'brokerUrl': expected ws://HOST:PORT/ws");
  }
  const auto secret = slab.store_hex(mesh.secret_key);
  if (!secret) {
    return fail(Err::kMalformed,
                "field 'secretKey': expected 128 lower-case hex digits of an ed25519 key");
  }
  daemon::MeshConfig config;
  config.mesh_id = mesh.mesh_id;
  config.member_id = mesh.member_id;
  config.slug = mesh.slug;
  config.name = mesh.name;
  config.broker_url = mesh.broker_url;
  config.key = slab.public_key(*secret);
  config.secret = *secret;
  if (crypto::view(crypto::hex_text(config.key)) != mesh.pubkey) {
    return fail(Err::kMalformed, "'pubkey' is not the public half of 'secretKey'");
  }
  return core.add_mesh(config);
}

// A mesh that is wrong in the file is left out, loudly; it must not stop the others.
Status add_meshes(daemon::Daemon& core, crypto::SecretSlab& slab, const ConfigFile& file,
                  const Log& log) {
  Status last;
  std::size_t added = 0;
  for (const Mesh& mesh : file.meshes) {
    Status outcome = add_mesh(core, slab, mesh);
    if (outcome) {
      ++added;
      continue;
    }
    last =
        fail(outcome.code(), file.path + ": mesh '" + mesh.slug + "': " + outcome.error().detail);
    log.error("mesh_left_out", {{"mesh", mesh.slug}, {"detail", outcome.error().detail}});
  }
  return added > 0 ? Status{} : last;
}

void write_crash_summary(int fd, const void* core) {
  static_cast<const daemon::Daemon*>(core)->summarise(fd);
}

}  // namespace

int run_daemon(const DaemonOptions& options) {
  // 1. The configuration names at least one mesh.
  auto file = load_config();
  if (!file) return give_up(options, file.error());
  if (file->meshes.empty()) return give_up(options, fail(Err::kNoMesh));
  // 2. The process has descriptors, randomness and a memory bill that fits.
  Runtime runtime;
  if (Status opened = open_log(runtime, options.log_file); !opened) {
    return give_up(options, opened.error());
  }
  if (Status ready = prepare(runtime, daemon_bill(runtime.limits)); !ready) {
    return give_up(options, ready.error());
  }
  // 3. The store is ours alone: LOCK is the singleton, the pid file only informs.
  if (Status made = make_private_dir(daemon_dir()); !made) return give_up(options, made.error());
  const bool sync = options.durability == "sync";
  auto store = open_store(runtime, daemon_dir() + "/store", store::Role::kDaemon,
                          sync ? store::Durability::kSync : store::Durability::kRelaxed);
  if (!store) return give_up(options, store.error());
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
  plugins::Host host(**loop, plugin_host_options(runtime.limits, runtime.env.rng, options.ca_file),
                     runtime.log, runtime.metrics, runtime.scratch);
  if (Status loaded = load_plugins(host); !loaded) return give_up(options, loaded.error());
  // 6. Secrets are in the slab, meshes in their table; the mirrors say what the store says.
  crypto::SecretSlab slab(runtime.limits.secret_slots_max);
  daemon::Effects effects;
  daemon::Config config = make_config(runtime, sync);
  config.append_metrics = [](const void* plugins, TextBuf& out) {
    static_cast<const plugins::Host*>(plugins)->append_metrics(out);
  };
  config.metrics_context = &host;
  daemon::Daemon core(config, runtime.limits, runtime.env, effects, runtime.metrics, slab);
  add_crash_reporter(write_crash_summary, &core);
  if (Status added = add_meshes(core, slab, *file, runtime.log); !added) {
    return give_up(options, added.error());
  }
  const std::size_t meshes = core.tables().meshes.count();
  file->meshes.clear();  // wipes the keys
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
  const std::string pid = std::to_string(::getpid());
  if (Status written = write_private_file(daemon_dir() + "/daemon.pid", pid); !written) {
    return give_up(options, written.error());
  }
  // 8. Links are opened, and whoever started us knows.
  DaemonRole role(runtime, **store, **loop, server, host, core, effects);
  role.execute_start();
  runtime.log.info("daemon_started", {{"version", kVersion},
                                      {"pid", static_cast<std::int64_t>(::getpid())},
                                      {"sock", socket_path()},
                                      {"meshes", meshes},
                                      {"durability", options.durability},
                                      {"secrets_locked", slab.locked()}});
  if (options.ready_fd >= 0) {
    const ssize_t written = ::write(options.ready_fd, "ok\n", 3);
    (void)written;  // whoever waited is gone
    ::close(options.ready_fd);
  }
  role.run();
  remove_crash_reporters(&core);
  remove_file(daemon_dir() + "/daemon.pid");
  runtime.log.info("daemon_stopped");
  return 0;
}

}  // namespace cm::cli
