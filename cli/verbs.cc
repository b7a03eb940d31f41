// verbs.cc — the table itself, in the order in which help shows it.
#include "cli/verbs.h"

namespace cm::cli {

void declare_nothing(CLI::App&) {}

namespace {

constexpr Verb kVerbs[] = {
    {"create", "Create a mesh on a broker and join it", declare_create, run_create},
    {"share", "Make an invite to a mesh", declare_share, run_share},
    {"join", "Join a mesh with an invite", declare_join, run_join},
    {"list", "List the meshes that this user has joined", declare_nothing, run_list},
    {"send", "Send an encrypted message to a peer", declare_send, run_send},
    {"inbox", "Show received messages, newest first, and mark them seen", declare_inbox, run_inbox},
    {"outbox list", "Show messages on their way, done and dead", declare_outbox_list,
     run_outbox_list},
    {"peer list", "List the peers that are online or leased", declare_peer_list, run_peer_list},
    {"daemon up", "Start this user's daemon", declare_daemon_up, run_daemon_up},
    {"daemon down", "Stop this user's daemon", declare_nothing, run_daemon_down},
    {"daemon status", "Show whether the daemon runs and what it is connected to", declare_nothing,
     run_daemon_status},
    {"daemon limits", "Show every capacity and the memory they add up to", declare_daemon_limits,
     run_daemon_limits},
    {"daemon fsck", "Check the daemon's store; changes nothing", declare_nothing, run_daemon_fsck},
    {"broker up", "Run a broker in the foreground", declare_broker_up, run_broker_up},
    {"broker status", "Show whether a broker runs, where, and if it is ready",
     declare_broker_status, run_broker_status},
    {"broker backup", "Copy a broker's store to a file, also while it runs", declare_broker_backup,
     run_broker_backup},
    {"broker restore", "Put a backup in place of a stopped broker's store", declare_broker_restore,
     run_broker_restore},
    {"broker compact", "Rewrite a stopped broker's store without its free pages",
     declare_broker_data, run_broker_compact},
    {"broker rotate-admin-token", "Replace the admin token, also while the broker runs",
     declare_broker_data, run_broker_rotate_token},
    {"broker fsck", "Check a broker's store; changes nothing", declare_broker_fsck,
     run_broker_fsck},
    {"transport list", "List transport plugins and why any was refused", declare_nothing,
     run_transport_list},
    {"version", "Show the version", declare_nothing, run_version},
    {"help", "Show this help", declare_nothing, run_help},
};

}  // namespace

std::span<const Verb> verbs() { return kVerbs; }

}  // namespace cm::cli
