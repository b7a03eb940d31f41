// plugin_dirs.h — where transport plugins are looked for.
// Owns:   the search order: $CLAUDEMESH_PLUGIN_DIR, or else beside the program.
// Not:    checking and loading them (plugins/host).
#pragma once

#include <string>
#include <vector>

#include "core/base/limits.h"
#include "plugins/host/host.h"

namespace cm::cli {

// $CLAUDEMESH_PLUGIN_DIR (a list with colons) if it is set; else <prefix>/lib/claudemesh/transports
// of the program's prefix and <program's folder>/../transports of a build tree, if they exist.
std::vector<std::string> plugin_dirs();
// World-writable folders with the sticky bit above a plugin are trusted only on request.
bool trust_sticky_dirs();

// `ca_file` goes to ws-broker by "config.v1", unless it is empty.
plugins::HostOptions plugin_host_options(const Limits& limits, FillRandom rng,
                                         const std::string& ca_file = {});
// Loads every directory. kPluginRefused, with the reasons, if no plugin of kind ws-broker is left.
Status load_plugins(plugins::Host& host);

}  // namespace cm::cli
