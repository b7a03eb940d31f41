// verbs.h — the one table of verbs: help, dispatch and completions come from it.
// Owns:   Verb and the table.
// Holds:  a verb declares its flags on a CLI::App of its own; --json and --quiet exist on each.
// Not:    what the verbs do (verbs_*.cc).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/json_form.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cm::cli {

struct Verb {
  std::string_view group;    // heading in help
  std::string_view path;     // "daemon up"
  std::string_view summary;  // one line for help
  void (*declare)(CLI::App& app);
  int (*run)();
  JsonForm json = JsonForm::kPretty;
};

std::span<const Verb> verbs();

// Another name of a verb.
struct Alias {
  std::string_view name;
  std::string_view path;
};
std::span<const Alias> aliases();

// Declarations and bodies, by file.
void declare_nothing(CLI::App& app);
// verbs/broker.cc
void declare_broker_up(CLI::App& app);
int run_broker_up();
void declare_broker_fsck(CLI::App& app);
int run_broker_fsck();
// verbs/broker_ops.cc
void declare_broker_data(CLI::App& app);
void declare_broker_status(CLI::App& app);
int run_broker_status();
void declare_broker_backup(CLI::App& app);
int run_broker_backup();
void declare_broker_restore(CLI::App& app);
int run_broker_restore();
int run_broker_compact();
int run_broker_rotate_token();
// verbs/daemon.cc
void declare_daemon_up(CLI::App& app);
int run_daemon_up();
int run_daemon_down();
int run_daemon_status();
int run_status();
void declare_daemon_limits(CLI::App& app);
int run_daemon_limits();
int run_daemon_fsck();
// verbs/config.cc; its flags are those of `daemon up`, in verbs/daemon.cc
void declare_config(CLI::App& app);
int run_config();
int run_config_path();
int run_config_check();
// verbs/mesh.cc
void declare_ca_file(CLI::App& app, std::string& path);  // or $CLAUDEMESH_CA_FILE
void declare_create(CLI::App& app);
int run_create();
void declare_share(CLI::App& app);
int run_share();
void declare_join(CLI::App& app);
int run_join();
int run_list();
void declare_mesh_option(CLI::App& app, std::string& mesh);  // --mesh
// A slug as the first word, or with --mesh as every remedy says it.
CLI::Option* declare_slug(CLI::App& app, std::string& slug, const std::string& about);
// verbs/mesh_admin.cc
void declare_leave(CLI::App& app);
int run_leave();
void declare_rename(CLI::App& app);
int run_rename();
void declare_delete(CLI::App& app);
int run_delete();
void declare_info(CLI::App& app);
int run_info();
int run_whoami();
void declare_member_list(CLI::App& app);
int run_member_list();
// verbs/send.cc
void declare_send(CLI::App& app);
int run_send();
// verbs/message.cc
void declare_inbox(CLI::App& app);
int run_inbox();
void declare_inbox_flush(CLI::App& app);
int run_inbox_flush();
void declare_inbox_delete(CLI::App& app);
int run_inbox_delete();
void declare_outbox_list(CLI::App& app);
int run_outbox_list();
// verbs/outbox.cc
void declare_outbox_inspect(CLI::App& app);
int run_outbox_inspect();
void declare_outbox_requeue(CLI::App& app);
int run_outbox_requeue();
void declare_outbox_drop(CLI::App& app);
int run_outbox_drop();
void declare_outbox_prune(CLI::App& app);
int run_outbox_prune();
// verbs/message_status.cc
void declare_message_status(CLI::App& app);
int run_message_status();
int run_message_explain();
// verbs/peer.cc
void declare_peer_list(CLI::App& app);
int run_peer_list();
void declare_peer_verify(CLI::App& app);
int run_peer_verify();
int run_own_presence(const std::string& mesh);
// verbs/state.cc
void declare_state_get(CLI::App& app);
int run_state_get();
void declare_state_set(CLI::App& app);
int run_state_set();
void declare_state_list(CLI::App& app);
int run_state_list();
void declare_remember(CLI::App& app);
int run_remember();
void declare_recall(CLI::App& app);
int run_recall();
void declare_forget(CLI::App& app);
int run_forget();
void declare_skill_list(CLI::App& app);
int run_skill_list();
void declare_skill_get(CLI::App& app);
int run_skill_get();
// verbs/topic.cc
void declare_topic_create(CLI::App& app);
int run_topic_create();
void declare_topic_list(CLI::App& app);
int run_topic_list();
void declare_topic_join(CLI::App& app);
int run_topic_join();
void declare_topic_leave(CLI::App& app);
int run_topic_leave();
void declare_topic_members(CLI::App& app);
int run_topic_members();
void declare_topic_history(CLI::App& app);
int run_topic_history();
void declare_topic_read(CLI::App& app);
int run_topic_read();
// verbs/topic_post.cc
void declare_topic_post(CLI::App& app);
int run_topic_post();
// verbs/topic_tail.cc
void declare_topic_tail(CLI::App& app);
int run_topic_tail();
// verbs/presence.cc
void declare_group_join(CLI::App& app);
int run_group_join();
void declare_group_leave(CLI::App& app);
int run_group_leave();
void declare_summary(CLI::App& app);
int run_summary();
void declare_visible(CLI::App& app);
int run_visible();
void declare_status_set(CLI::App& app);
int run_status_set();
// verbs/profile.cc
void declare_profile(CLI::App& app);
int run_profile();
// verbs/daemon_ops.cc
int run_daemon_version();
void declare_daemon_logs(CLI::App& app);
int run_daemon_logs();
int run_daemon_restart();
int run_daemon_reload();
int run_daemon_rotate_token();
int run_daemon_accept_host();
// verbs/recover.cc
void declare_daemon_recover(CLI::App& app);
int run_daemon_recover();
// verbs/doctor.cc
int run_doctor();
// verbs/transport.cc
int run_transport_list();
// verbs/docs.cc
void declare_completions(CLI::App& app);
int run_completions();
int run_man();
void declare_help(CLI::App& app);
int run_help();
int run_version();

}  // namespace cm::cli
