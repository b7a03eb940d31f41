// daemon_setup.cc — options and config.json become configuration; the TCP listener.
#include "cli/daemon_setup.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/files.h"
#include "cli/http.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/wire/receipts.h"

namespace cm::cli {
namespace {

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

Result<daemon::MeshConfig> mesh_config(crypto::SecretSlab& slab, const Mesh& mesh) {
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
    slab.release(*secret);
    return fail(Err::kMalformed, "'pubkey' is not the public half of 'secretKey'");
  }
  return config;
}

}  // namespace

void append_shell_metrics(const void* context, TextBuf& out) {
  const auto* shell = static_cast<const ShellMetrics*>(context);
  shell->host->append_metrics(out);
  if (shell->server == nullptr) return;
  const net::ServerStats& stats = shell->server->stats();
  const auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    for (const std::string_view part :
         {std::string_view("# HELP "), name, std::string_view(" "), help,
          std::string_view("\n# TYPE "), name, std::string_view(" counter\n"), name,
          std::string_view(" ")}) {
      out.append(part);
    }
    out.append_unsigned(value);
    out.append('\n');
  };
  counter("cm_daemon_http_malformed_total",
          "HTTP requests refused for their form or their size (400, 413, 414, 431)",
          stats.refused_requests);
  counter("cm_daemon_http_refused_full_total", "Connections refused because there are too many",
          stats.refused_full);
  counter("cm_daemon_http_dropped_slow_total", "Connections dropped with too much unread output",
          stats.dropped_slow);
}

store::ReportLevel report_level(const Settings& settings) {
  const auto level = wire::report_level_parse(settings.text(Setting::kReceiptLevel));
  CHECK(level);  // checked when it was read
  return static_cast<store::ReportLevel>(*level);
}

daemon::Config make_config(const Runtime& runtime, const Settings& settings) {
  daemon::Config config;
  config.version = kVersion;
  config.pid = ::getpid();
  config.session_id = "daemon-" + std::to_string(config.pid) + "-" +
                      std::string(crypto::view(crypto::base62_id(runtime.env.rng)).substr(0, 10));
  config.hostname = host_name();
  config.cwd = home_dir();
  config.durability_sync = settings.text(Setting::kDurability) == "sync";
  config.public_health = settings.is_on(Setting::kPublicHealth);
  config.allowed_origins = words_of(settings.text(Setting::kAllowedOrigins));
  config.legacy_brokers = settings.text(Setting::kLegacyBroker) == "allow";
  config.report_level = report_level(settings);
  config.outbox_age_hours =
      static_cast<std::uint32_t>(settings.number(Setting::kOutboxMaxAgeHours));
  config.tombstone_bytes = static_cast<std::uint64_t>(settings.number(Setting::kTombstoneBytes));
  return config;
}

Result<std::vector<daemon::MeshConfig>> mesh_list(crypto::SecretSlab& slab,
                                                  const ConfigFile& file) {
  std::vector<daemon::MeshConfig> meshes;
  for (const Mesh& mesh : file.meshes) {
    auto config = mesh_config(slab, mesh);
    if (config) {
      meshes.push_back(std::move(*config));
      continue;
    }
    for (const daemon::MeshConfig& kept : meshes) slab.release(kept.secret);
    return fail(config.code(), file.path + ": mesh '" + mesh.slug + "': " + config.error().detail);
  }
  return meshes;
}

Status listen_tcp(net::Server& server, const Settings& settings, std::string& shown,
                  std::string& skipped) {
  if (!settings.is_on(Setting::kTcp)) return {};
  const std::string& address = settings.text(Setting::kHttpBind);
  const auto port = static_cast<std::uint16_t>(settings.number(Setting::kTcpPort));
  const auto bound = server.listen_tcp(address, port);
  if (bound) {
    const bool brackets = address.find(':') != std::string::npos;
    shown = (brackets ? "[" + address + "]" : address) + ":" + std::to_string(*bound);
    return {};
  }
  if (bound.error().detail.ends_with(std::strerror(EADDRINUSE))) {
    const std::string taken = "port " + std::to_string(port) + " on " + address + " is in use";
    if (settings.at(Setting::kTcp).origin <= Origin::kPlace &&
        settings.at(Setting::kTcpPort).origin <= Origin::kPlace &&
        settings.at(Setting::kHttpBind).origin <= Origin::kPlace) {
      skipped = taken + ": only the unix socket is served; --tcp-port chooses another one";
      return {};
    }
    return fail(Err::kPortInUse, taken + "; --no-tcp serves the unix socket alone");
  }
  return bound.error();
}

Status add_meshes(daemon::Daemon& core, crypto::SecretSlab& slab, const ConfigFile& file,
                  const Log& log) {
  Status last;
  std::size_t added = 0;
  for (const Mesh& mesh : file.meshes) {
    const auto config = mesh_config(slab, mesh);
    const Status outcome = config ? core.add_mesh(*config) : Status{config.error()};
    if (config && !outcome) slab.release(config->secret);
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

}  // namespace cm::cli
