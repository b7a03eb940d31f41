// variables.cc — the table.
#include "cli/variables.h"

namespace cm::cli {
namespace {

constexpr Variable kVariables[] = {
    {"CLAUDEMESH_CONFIG_DIR",
     "Folder of config.json and config.toml, if it exists; ~/.claudemesh by default"},
    {"CLAUDEMESH_DAEMON_DIR",
     "Folder of the daemon's store, socket, token and log; ~/.claudemesh/daemon by default"},
    {"CLAUDEMESH_BROKER_DATA",
     "Folder of the broker's store and admin token; ~/.claudemesh/broker by default"},
    {"CLAUDEMESH_PLUGIN_DIR",
     "Folders of transport plugins, with colons between, instead of those beside the program"},
    {"CLAUDEMESH_PLUGIN_TRUST_STICKY",
     "1: plugins may lie below a folder that all may write, if it is sticky, as /tmp is"},
    {"CLAUDEMESH_NO_DAEMON", "1: verbs do not use the daemon, as with --no-daemon"},
    {"CLAUDEMESH_STRICT_DAEMON", "1: verbs start no daemon, as with --strict"},
    {"CLAUDEMESH_SESSION_ID", "Id of the session that a verb runs in; its own rows are marked"},
    {"CLAUDEMESH_INTERNAL_NO_AUTOSPAWN", "1: set for our own children, which start no daemon"},
    {"CLAUDEMESH_READY_FD", "Set for our own child: where a start tells its outcome"},
    {"NO_COLOR", "Any value: no colours, also on a terminal"},
};

}  // namespace

std::span<const Variable> variables() { return kVariables; }

}  // namespace cm::cli
