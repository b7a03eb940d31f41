// run_broker.cc — the broker role: its start as numbered steps, then its loop.
// Holds:  the order inside an iteration: collect, apply, step, commit, execute, flush. Only after
//         the commit do acknowledgements leave. Events that do not fit into an iteration's share
//         of rows, bytes and time are applied in the next ones, before anything new is read; the
//         loop runs in between, for output, connections and signals.
// Why:    cli joins the cores to the shells; neither knows the other.
// Not:    rules of the mesh (core/broker), sockets (core/net).
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/files.h"
#include "cli/limit_option.h"
#include "cli/output.h"
#include "cli/runtime.h"
#include "core/base/check.h"
#include "core/broker/broker.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/net/loop.h"
#include "core/net/socket.h"
#include "core/net/url.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct Address {
  std::string host;
  std::uint16_t port = 0;
};

Result<Address> parse_listen(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  Address address;
  std::uint32_t port = 0;
  bool good = colon != std::string::npos && colon > 0 && colon + 1 < text.size();
  for (std::size_t index = colon + 1; good && index < text.size(); ++index) {
    good = text[index] >= '0' && text[index] <= '9' && port < 100000;
    port = port * 10 + static_cast<std::uint32_t>(text[index] - '0');
  }
  if (!good || port > 65535) {
    return fail(Err::kUsage, "--listen: expected HOST:PORT, like 127.0.0.1:7900");
  }
  address.host = text.substr(0, colon);
  if (address.host.starts_with("[") && address.host.ends_with("]")) {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  address.port = static_cast<std::uint16_t>(port);
  return address;
}

// The file is the truth: it is made when missing, and the store keeps only its hash.
Status ensure_admin_token(const std::string& data, broker::Broker& core, Runtime& runtime) {
  const std::string path = data + "/admin-token";
  auto token = read_private_file(path, 4096, log_warnings(runtime.log));
  if (!token && token.code() == Err::kNotFound) {
    crypto::UrlToken fresh = crypto::url_token(runtime.env.rng);
    token = std::string(fresh.data(), fresh.size());
    if (Status written = write_private_file(path, *token + "\n"); !written) return written;
    runtime.log.info("admin_token_written", {{"path", path}});
  }
  if (!token) return token.error();
  while (!token->empty() && (token->back() == '\n' || token->back() == '\r')) token->pop_back();
  if (token->size() < 32) {
    return fail(Err::kMalformed, path +
                                     ": the admin token is too short; delete the file to get "
                                     "a new one");
  }
  core.set_admin_token_hash(crypto::sha256(as_bytes(*token)));
  wipe(*token);
  return {};
}

class BrokerRole {
 public:
  // `input` is the server's arena: what events point to outlives the iterations of the core.
  BrokerRole(Runtime& runtime, ScratchArena& input, store::Store& store, net::Loop& loop,
             net::Server& server, broker::Broker& core, broker::Effects& effects,
             const BrokerOptions& options, const std::string& data)
      : options_(options),
        data_(data),
        runtime_(runtime),
        input_(input),
        store_(store),
        loop_(loop),
        server_(server),
        core_(core),
        effects_(effects) {}

  // Runs until SIGTERM or SIGINT, then closes connections with 1001; leases and queues stay.
  void run() {
    std::uint64_t give_up_ms = net::kNever;
    for (;;) {
      iterate();
      if (loop_.take_signal(SIGHUP)) reload();
      if (loop_.take_signal(SIGUSR1)) log_verification(runtime_, store_, core_.verify_all());
      const bool stop = loop_.take_signal(SIGTERM) || loop_.take_signal(SIGINT);
      if (stop && give_up_ms == net::kNever) {
        runtime_.log.info("broker_shutdown");
        core_.set_draining();
        server_.drain(1001, "shutting down");
        give_up_ms = net::Loop::mono_ms() + kDrainMs;
      }
      if (give_up_ms == net::kNever) continue;
      if (server_.drained() || net::Loop::mono_ms() >= give_up_ms) return;
      deadline_ = give_up_ms;
    }
  }

 private:
  static constexpr std::uint64_t kDrainMs = 5'000;

  void iterate() {
    if (applied_ == server_.events().size()) {
      collect();
    } else {
      server_.attend();
    }
    runtime_.env.wall_ms = net::Loop::wall_ms();
    runtime_.env.mono_ms = net::Loop::mono_ms();
    server_.tick(runtime_.env.mono_ms);
    runtime_.metrics.add(Metric::kIterations);
    export_store_metrics(runtime_, store_);
    runtime_.metrics.set(Metric::kBrokerTlsFailed, server_.stats().tls_failed);
    runtime_.metrics.set(Metric::kBrokerPartialBytes, server_.partial_bytes());
    runtime_.metrics.set(Metric::kBrokerOutputBytes, server_.output_bytes());
    runtime_.metrics.set(Metric::kBrokerDroppedSlow, server_.stats().dropped_slow);
    apply_events();
    core_.step();
    commit();
    execute_all();
    server_.flush();
    runtime_.scratch.reset();
  }

  void commit() {
    switch (store_.commit()) {
      case store::CommitResult::kNothing:
      case store::CommitResult::kCommitted: core_.committed(); break;
      case store::CommitResult::kFailed: abandon(); break;
      case store::CommitResult::kBroken: die_broken(runtime_, store_);
    }
    if (!store_.sync_if_due(runtime_.env.mono_ms)) die_broken(runtime_, store_);
  }

  void collect() {
    server_.end_iteration();
    input_.reset();
    applied_ = 0;
    loop_.arm(std::min(
        {core_.next_deadline(), server_.next_deadline(), deadline_, store_.sync_deadline()}));
    server_.collect(!core_.work_left() && !server_.work_left());
  }

  void apply_events() {
    first_ = applied_;
    const std::uint64_t until = net::Loop::mono_micros() + runtime_.limits.iteration_micros_max;
    while (applied_ < server_.events().size()) {
      apply(server_.events()[applied_++]);
      if (core_.iteration_full() || net::Loop::mono_micros() >= until) return;
    }
  }

  void apply(const net::NetEvent& event) {
    switch (event.kind) {
      case net::NetEventKind::kWsOpen: core_.on_open(event.conn, event.peer.address); break;
      case net::NetEventKind::kWsMessage: core_.on_text(event.conn, event.payload); break;
      case net::NetEventKind::kWsClosed:
        core_.on_closed(event.conn, event.by_peer ? event.code : 0);
        break;
      case net::NetEventKind::kHttpRequest: core_.on_http(event.conn, to_core(event)); break;
      case net::NetEventKind::kHttpClosed:
      case net::NetEventKind::kWritable: break;  // the claim window bounds what is pending
    }
  }

  // One text may go to thousands: what sockets take at once does not lie in memory for all of them.
  void execute_all() {
    std::uint64_t unflushed = 0;
    for (const broker::Effect& effect : effects_.list()) {
      execute(effect);
      unflushed += effect.text.size();
      if (unflushed < runtime_.limits.iteration_effect_bytes_max) continue;
      server_.flush();
      unflushed = 0;
    }
    effects_.clear();
  }

  void execute(const broker::Effect& effect) {
    switch (effect.kind) {
      case broker::EffectKind::kWsText: server_.ws_send(effect.conn, effect.text); break;
      case broker::EffectKind::kWsClose:
        server_.ws_close(effect.conn, static_cast<std::uint16_t>(effect.code), effect.text);
        break;
      case broker::EffectKind::kFrameLimit:
        server_.ws_set_frame_limit(effect.conn, effect.code);
        break;
      case broker::EffectKind::kGroup: server_.ws_set_group(effect.conn, effect.code); break;
      case broker::EffectKind::kHttpReply:
        server_.http_reply(effect.conn, static_cast<int>(effect.code), effect.content_type,
                           effect.text);
        break;
    }
  }

  // SIGHUP: what was renamed or renewed. Who is connected keeps the certificate that was shown.
  void reload() {
    reopen_log(runtime_);
    if (Status token = ensure_admin_token(data_, core_, runtime_); token) {
      first_ = applied_;  // no event has a part in it
      commit();
      execute_all();
      server_.flush();
      runtime_.scratch.reset();
    } else {
      runtime_.log.error("admin_token_not_reloaded", {{"detail", token.error().detail}});
    }
    if (options_.tls_certificate.empty()) return;
    auto renewed = net::TlsContext::server(options_.tls_certificate, options_.tls_key);
    if (!renewed) {
      runtime_.log.error("tls_not_reloaded", {{"detail", renewed.error().detail},
                                              {"meaning", "the old certificate stays in use"}});
      return;
    }
    server_.set_tls(std::move(*renewed));
    runtime_.log.info("tls_reloaded", {{"certificate", options_.tls_certificate}});
  }

  void abandon() {
    runtime_.metrics.add(Metric::kCommitFailures);
    runtime_.log.error("commit_failed", {{"detail", store_.last_error_text()}});
    core_.abandon();
    for (std::size_t index = first_; index < applied_; ++index) {
      const net::NetEvent& event = server_.events()[index];
      if (event.kind != net::NetEventKind::kHttpRequest) continue;
      effects_.http_reply(event.conn, 507, R"({"ok":false,"error":"insufficient_storage"})");
    }
  }

  const BrokerOptions& options_;
  const std::string& data_;
  Runtime& runtime_;
  ScratchArena& input_;
  store::Store& store_;
  net::Loop& loop_;
  net::Server& server_;
  broker::Broker& core_;
  broker::Effects& effects_;
  std::uint64_t deadline_ = net::kNever;
  std::size_t first_ = 0;    // event of this iteration
  std::size_t applied_ = 0;  // events that have been applied, of those of the last collect()
};

// TLS costs more than the rest of an idle connection: fewer of them fit into the memory budget.
void fit_tls(Limits& limits) {
  limits.tls_connection_bytes = net::Server::kTlsIdleBytes;
  const std::uint64_t needed = broker_bill(limits).total();
  if (needed <= limits.memory_budget_bytes) return;
  const std::uint64_t each = 1024u + limits.tls_connection_bytes;
  const std::uint64_t excess = (needed - limits.memory_budget_bytes + each - 1) / each;
  const std::uint64_t most = limits.broker_connections_max;
  if (excess < most) limits.broker_connections_max = static_cast<std::uint32_t>(most - excess);
}

// For 'broker status' and 'broker rotate-admin-token'; true as long as the store is locked.
std::string describe(const std::string& url, std::uint16_t port) {
  ScratchArena scratch(4096);
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_object().field("pid", static_cast<std::int64_t>(::getpid())).field("url", url);
  json.field("port", port).field("version", kVersion).end_object();
  text.append('\n');
  return std::string(text.view());
}

void write_crash_summary(int fd, const void* core) {
  static_cast<const broker::Broker*>(core)->summarise(fd);
}

// What Host headers may call us: the hosts of the public URL and of the listener, and on this
// machine the names that it gives to itself.
void name_hosts(broker::Config& config, std::string listener, std::uint16_t port, bool tls) {
  ScratchArena arena(4096);
  const auto add = [&](std::vector<std::string>& list, const std::string& url) {
    TextBuf host(arena, 128);
    if (const auto parsed = net::url_parse(url)) net::url_append_host(host, *parsed);
    if (host.size() != 0) list.emplace_back(host.view());
  };
  if (listener.find(':') != std::string::npos) listener = "[" + listener + "]";
  const std::string scheme = tls ? "wss://" : "ws://";
  const std::string behind = ":" + std::to_string(port);
  config.hosts.clear();
  add(config.hosts, config.public_url);
  add(config.hosts, scheme + listener + behind);
  config.local_hosts.clear();
  for (const char* name : {"127.0.0.1", "localhost", "[::1]"}) {
    add(config.local_hosts, scheme + name + behind);
  }
}

}  // namespace

int run_broker(const BrokerOptions& options) {
  // 1. What was asked for makes sense.
  const auto address = parse_listen(options.listen);
  if (!address) return report(address.error());
  if (options.durability != "sync" && options.durability != "relaxed") {
    return report(fail(Err::kUsage, "--durability: expected sync or relaxed"));
  }
  const bool tls = !options.tls_certificate.empty();
  if (tls == options.tls_key.empty()) {
    return report(fail(Err::kUsage, "--tls-cert and --tls-key: give both or neither"));
  }
  const bool loopback = net::is_loopback_host(address->host);
  if (!loopback && !tls && !options.insecure_plaintext) {
    return report(fail(Err::kPlaintextRefused, "listening on " + address->host));
  }
  net::TlsContext certificate;
  if (tls) {
    auto loaded = net::TlsContext::server(options.tls_certificate, options.tls_key);
    if (!loaded) return report(loaded.error());
    certificate = std::move(*loaded);
  }
  // 2. The process has descriptors, randomness and a memory bill that fits.
  Runtime runtime;
  if (Status set = set_limits(options.limits, runtime.limits); !set) return report(set.error());
  if (Status opened = open_log(runtime, options.log_file); !opened) return report(opened.error());
  if (tls) fit_tls(runtime.limits);
  if (Status ready = prepare(runtime, broker_bill(runtime.limits)); !ready) {
    return report(ready.error());
  }
  // 3. The store is ours alone, and of a schema that we know.
  const std::string data = options.data.empty() ? broker_data_dir() : options.data;
  if (Status made = make_private_dir(data, log_warnings(runtime.log)); !made) {
    return report(made.error());
  }
  const bool sync = options.durability == "sync";
  auto store = open_store(runtime, data + "/store", store::Role::kBroker,
                          sync ? store::Durability::kSync : store::Durability::kRelaxed);
  if (!store) return report(store.error());
  // 4. Signals arrive as marks, descriptors as callbacks.
  auto loop = net::Loop::create(runtime.limits.iteration_micros_max);
  if (!loop) return report(loop.error());
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    if (Status watched = (*loop)->watch_signal(signal); !watched) return report(watched.error());
  }
  ::signal(SIGPIPE, SIG_IGN);
  // 5. The port is bound: a second broker fails here, before anything is changed.
  net::ServerOptions server_options;
  server_options.limits = runtime.limits;
  server_options.connections_max = runtime.limits.broker_connections_max;
  server_options.websockets = true;
  ScratchArena input(256 * 1024, runtime.limits.scratch_keep_bytes);
  net::Server server(**loop, server_options, input, runtime.pool);
  if (tls) server.set_tls(std::move(certificate));
  const auto port = tls ? server.listen_tls(address->host, address->port)
                        : server.listen_tcp(address->host, address->port);
  if (!port && port.error().detail.ends_with(std::strerror(EADDRINUSE))) {
    return report(fail(Err::kPortInUse, port.error().detail));
  }
  if (!port) return report(port.error());
  // 6. The mirrors say what the store says; every presence has a lease to come back.
  broker::Config config;
  config.version = kVersion;
  config.durability_sync = sync;
  // Without TLS, whoever can listen on the network between would have the token.
  config.accepts_admin_token = loopback || tls;
  const bool v6 = address->host.find(':') != std::string::npos;
  config.public_url = options.public_url.empty()
                          ? (tls ? "wss://" : "ws://") +
                                (v6 ? "[" + address->host + "]" : address->host) + ":" +
                                std::to_string(*port) + "/ws"
                          : options.public_url;
  name_hosts(config, address->host, *port, tls);
  crypto::SecretSlab slab(4);
  broker::Effects effects;
  broker::Broker core(config, runtime.limits, runtime.env, effects, runtime.metrics, slab);
  add_crash_reporter(write_crash_summary, &core);
  if (Status loaded = core.load(); !loaded) return report(loaded.error());
  // 7. There is an admin token, and the store knows its hash.
  if (Status token = ensure_admin_token(data, core, runtime); !token) return report(token.error());
  if ((*store)->commit() > store::CommitResult::kCommitted) {
    return report(fail(Err::kStoreFailed, (*store)->last_error_text()));
  }
  runtime.scratch.reset();
  // 8. From here on clients are served, and 'broker status' finds us.
  if (Status told = write_private_file(data + "/broker.json", describe(config.public_url, *port));
      !told) {
    return report(told.error());
  }
  runtime.log.info("broker_started", {{"version", kVersion},
                                      {"pid", static_cast<std::int64_t>(::getpid())},
                                      {"listen", address->host},
                                      {"port", *port},
                                      {"url", config.public_url},
                                      {"tls", tls},
                                      {"data", data},
                                      {"durability", options.durability}});
  BrokerRole role(runtime, input, **store, **loop, server, core, effects, options, data);
  role.run();
  remove_file(data + "/broker.json");
  remove_crash_reporters(&core);
  runtime.log.info("broker_stopped");
  return 0;
}

}  // namespace cm::cli
