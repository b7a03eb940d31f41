// verbs.h — the one table of verbs: help, dispatch and completions come from it.
// Owns:   Verb and the table.
// Holds:  a verb declares its flags on a CLI::App of its own; --json and --quiet exist on each.
// Not:    what the verbs do (verbs_*.cc).
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace cm::cli {

struct Verb {
  std::string_view path;     // "daemon up"
  std::string_view summary;  // one line for help
  void (*declare)(CLI::App& app);
  int (*run)();
};

std::span<const Verb> verbs();

// Declarations and bodies, by file.
void declare_nothing(CLI::App& app);
// verbs_broker.cc
void declare_broker_up(CLI::App& app);
int run_broker_up();
void declare_broker_fsck(CLI::App& app);
int run_broker_fsck();
// verbs_broker_ops.cc
void declare_broker_data(CLI::App& app);
void declare_broker_status(CLI::App& app);
int run_broker_status();
void declare_broker_backup(CLI::App& app);
int run_broker_backup();
void declare_broker_restore(CLI::App& app);
int run_broker_restore();
int run_broker_compact();
int run_broker_rotate_token();
// verbs_daemon.cc
void declare_daemon_up(CLI::App& app);
int run_daemon_up();
int run_daemon_down();
int run_daemon_status();
void declare_daemon_limits(CLI::App& app);
int run_daemon_limits();
int run_daemon_fsck();
// verbs_mesh.cc
void declare_ca_file(CLI::App& app, std::string& path);  // or $CLAUDEMESH_CA_FILE
void declare_create(CLI::App& app);
int run_create();
void declare_share(CLI::App& app);
int run_share();
void declare_join(CLI::App& app);
int run_join();
int run_list();
// verbs_message.cc
void declare_send(CLI::App& app);
int run_send();
void declare_inbox(CLI::App& app);
int run_inbox();
void declare_outbox_list(CLI::App& app);
int run_outbox_list();
// verbs_peer.cc
void declare_peer_list(CLI::App& app);
int run_peer_list();
// verbs_transport.cc
int run_transport_list();
// main.cc
int run_version();
int run_help();

}  // namespace cm::cli
