// verbs.cc — the table itself, in the order in which help shows it.
#include "cli/verbs.h"

#include <string_view>

namespace cm::cli {

void declare_nothing(CLI::App&) {}

namespace {

constexpr std::string_view kMeshes = "Meshes";
constexpr std::string_view kMessages = "Messages";
constexpr std::string_view kPeers = "Peers and presence";
constexpr std::string_view kShared = "What a mesh shares";
constexpr std::string_view kDaemon = "Daemon";
constexpr std::string_view kBroker = "Broker";
constexpr std::string_view kMore = "More";

constexpr Verb kVerbs[] = {
    {kMeshes, "create", "Create a mesh on a broker and join it", declare_create, run_create},
    {kMeshes, "share", "Make an invite to a mesh", declare_share, run_share},
    {kMeshes, "join", "Join a mesh with an invite", declare_join, run_join},
    {kMeshes, "list", "List the meshes that this user has joined", declare_nothing, run_list},
    {kMeshes, "info", "Show one mesh", declare_info, run_info},
    {kMeshes, "leave", "Leave a mesh on this machine", declare_leave, run_leave},
    {kMeshes, "rename", "Give a mesh another slug", declare_rename, run_rename},
    {kMeshes, "delete", "Delete a mesh for everybody", declare_delete, run_delete},
    {kMeshes, "member list", "List the members of a mesh", declare_member_list, run_member_list},
    {kMeshes, "whoami", "Show this user's memberships", declare_nothing, run_whoami},
    {kMessages, "send", "Send an encrypted message to a peer", declare_send, run_send,
     JsonForm::kLine},
    {kMessages, "inbox", "Show received messages, newest first, and mark them seen", declare_inbox,
     run_inbox},
    {kMessages, "inbox flush", "Delete received messages", declare_inbox_flush, run_inbox_flush,
     JsonForm::kLine},
    {kMessages, "inbox delete", "Delete one received message", declare_inbox_delete,
     run_inbox_delete, JsonForm::kLine},
    {kMessages, "outbox list", "Show messages on their way, done and dead", declare_outbox_list,
     run_outbox_list},
    {kMessages, "message status", "Show how far a message has come", declare_message_status,
     run_message_status},
    {kMessages, "message explain", "Show which rows say where a message is, and what comes next",
     declare_message_status, run_message_explain},
    {kPeers, "peer list", "List the peers that are online or leased", declare_peer_list,
     run_peer_list, JsonForm::kRows},
    {kPeers, "peer verify", "Show safety numbers to compare with peers", declare_peer_verify,
     run_peer_verify},
    {kPeers, "group join", "Join a group of peers", declare_group_join, run_group_join,
     JsonForm::kLine},
    {kPeers, "group leave", "Leave a group of peers", declare_group_leave, run_group_leave,
     JsonForm::kLine},
    {kPeers, "summary", "Tell others what you are doing", declare_summary, run_summary,
     JsonForm::kLine},
    {kPeers, "visible", "Be shown to others, or hidden", declare_visible, run_visible,
     JsonForm::kLine},
    {kPeers, "status", "Show the daemon and its meshes; ends with 1 if a broker is away",
     declare_nothing, run_status},
    {kPeers, "status set", "Be idle, working or dnd", declare_status_set, run_status_set,
     JsonForm::kLine},
    {kPeers, "profile", "Show or change what others see of you", declare_profile, run_profile},
    {kShared, "topic create", "Create a topic", declare_topic_create, run_topic_create,
     JsonForm::kLine},
    {kShared, "topic list", "List the topics", declare_topic_list, run_topic_list},
    {kShared, "topic join", "Receive what is posted to a topic", declare_topic_join,
     run_topic_join},
    {kShared, "topic leave", "Receive it no more", declare_topic_leave, run_topic_leave},
    {kShared, "topic members", "List who has joined a topic", declare_topic_members,
     run_topic_members},
    {kShared, "topic history", "Show what was posted", declare_topic_history, run_topic_history},
    {kShared, "topic tail", "Follow what is posted", declare_topic_tail, run_topic_tail,
     JsonForm::kLine},
    {kShared, "topic read", "Mark a topic as read", declare_topic_read, run_topic_read},
    {kShared, "topic post", "Post to a topic", declare_topic_post, run_topic_post, JsonForm::kLine},
    {kShared, "state get", "Show a value that the mesh shares", declare_state_get, run_state_get},
    {kShared, "state set", "Set a value that the mesh shares", declare_state_set, run_state_set},
    {kShared, "state list", "List the values that the mesh shares", declare_state_list,
     run_state_list},
    {kShared, "remember", "Keep a text where the mesh finds it again", declare_remember,
     run_remember, JsonForm::kLine},
    {kShared, "recall", "Find what was remembered, by its words", declare_recall, run_recall},
    {kShared, "forget", "Delete what was remembered", declare_forget, run_forget, JsonForm::kLine},
    {kShared, "skill list", "List the skills that the mesh shares", declare_skill_list,
     run_skill_list},
    {kShared, "skill get", "Show the instructions of a skill", declare_skill_get, run_skill_get},
    {kDaemon, "daemon up", "Start this user's daemon", declare_daemon_up, run_daemon_up,
     JsonForm::kLine},
    {kDaemon, "daemon down", "Stop this user's daemon", declare_nothing, run_daemon_down},
    {kDaemon, "daemon restart", "Stop it and start it again", declare_daemon_up, run_daemon_restart,
     JsonForm::kLine},
    {kDaemon, "daemon status", "Show whether the daemon runs and what it is connected to",
     declare_nothing, run_daemon_status},
    {kDaemon, "daemon version", "Show the version of the daemon that runs", declare_nothing,
     run_daemon_version, JsonForm::kLine},
    {kDaemon, "daemon logs", "Show the log of a detached daemon", declare_daemon_logs,
     run_daemon_logs, JsonForm::kText},
    {kDaemon, "daemon reload", "Let the daemon read its configuration again", declare_nothing,
     run_daemon_reload},
    {kDaemon, "daemon rotate-token", "Replace the token of the daemon's TCP listener",
     declare_nothing, run_daemon_rotate_token},
    {kDaemon, "daemon accept-host", "Let this machine use a store that was made on another one",
     declare_nothing, run_daemon_accept_host},
    {kDaemon, "daemon limits", "Show every capacity and the memory they add up to",
     declare_daemon_limits, run_daemon_limits},
    {kDaemon, "daemon fsck", "Check the daemon's store; changes nothing", declare_nothing,
     run_daemon_fsck},
    {kBroker, "broker up", "Run a broker in the foreground", declare_broker_up, run_broker_up},
    {kBroker, "broker status", "Show whether a broker runs, where, and if it is ready",
     declare_broker_status, run_broker_status},
    {kBroker, "broker backup", "Copy a broker's store to a file, also while it runs",
     declare_broker_backup, run_broker_backup},
    {kBroker, "broker restore", "Put a backup in place of a stopped broker's store",
     declare_broker_restore, run_broker_restore},
    {kBroker, "broker compact", "Rewrite a stopped broker's store without its free pages",
     declare_broker_data, run_broker_compact},
    {kBroker, "broker rotate-admin-token", "Replace the admin token, also while the broker runs",
     declare_broker_data, run_broker_rotate_token},
    {kBroker, "broker fsck", "Check a broker's store; changes nothing", declare_broker_fsck,
     run_broker_fsck},
    {kMore, "config", "Show every setting of the daemon, and where it comes from", declare_config,
     run_config},
    {kMore, "config path", "Show where config.toml is looked for", declare_nothing,
     run_config_path},
    {kMore, "config check", "Check config.toml; changes nothing", declare_nothing,
     run_config_check},
    {kMore, "doctor", "Check this installation, and say what to do about what is wrong",
     declare_nothing, run_doctor},
    {kMore, "transport list", "List transport plugins and why any was refused", declare_nothing,
     run_transport_list},
    {kMore, "completions", "Print the completions of a shell", declare_completions, run_completions,
     JsonForm::kText},
    {kMore, "man", "Print the source of the manual page", declare_nothing, run_man,
     JsonForm::kText},
    {kMore, "version", "Show the version", declare_nothing, run_version},
    {kMore, "help", "Show this help", declare_help, run_help},
};

// The reference's other names (spec/cli.md §6, §8, §9, §16).
constexpr Alias kAliases[] = {
    {"new", "create"},
    {"add", "join"},
    {"ls", "list"},
    {"rm", "delete"},
    {"invite", "share"},
    {"peers", "peer list"},
    {"inbox rm", "inbox delete"},
    {"msg-status", "message status"},
    {"daemon start", "daemon up"},
    {"daemon stop", "daemon down"},
};

}  // namespace

std::span<const Alias> aliases() { return kAliases; }
std::span<const Verb> verbs() { return kVerbs; }

}  // namespace cm::cli
