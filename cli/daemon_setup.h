// daemon_setup.h — from settings and config.json to what the daemon's core and server are given.
// Owns:   the core's Config, its meshes with their secrets in the slab, the TCP listener, and the
//         metrics that the shell counts.
// Holds:  a secret that was not used is not left in the slab.
// Not:    the order of the start, the loop (run_daemon.cc).
#pragma once

#include <string>
#include <vector>

#include "cli/config.h"
#include "cli/runtime.h"
#include "core/crypto/slab.h"
#include "core/daemon/daemon.h"
#include "core/net/server.h"
#include "plugins/host/host.h"

namespace cm::cli {

// What the shell counts beside the core; both outlive the core.
struct ShellMetrics {
  const plugins::Host* host = nullptr;
  const net::Server* server = nullptr;  // may be null until it listens
};
void append_shell_metrics(const void* shell_metrics, TextBuf& out);

// `receipts.level`.
store::ReportLevel report_level(const Settings& settings);

daemon::Config make_config(const Runtime& runtime, const Settings& settings);

// All meshes of the file with their secrets in the slab, or what is wrong with one of them; then
// none of the secrets is kept.
Result<std::vector<daemon::MeshConfig>> mesh_list(crypto::SecretSlab& slab, const ConfigFile& file);

// At start: a mesh that is wrong in the file is left out, loudly; it must not stop the others.
Status add_meshes(daemon::Daemon& core, crypto::SecretSlab& slab, const ConfigFile& file,
                  const Log& log);

// Listens if ipc.tcp is on. `shown` becomes the address. kPortInUse names the port; if nobody asked
// for TCP or its port (only the place's defaults did), the socket alone will do: Ok, and `skipped`
// says why. So a second user of a host has a daemon, too.
Status listen_tcp(net::Server& server, const Settings& settings, std::string& shown,
                  std::string& skipped);

}  // namespace cm::cli
