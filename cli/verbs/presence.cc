// presence.cc — group join, leave; summary, visible, status, status set, profile.
// Holds:  they act on the member's presence, through the daemon, never on a connection of their
// own. Source: spec/cli.md §12; spec/decisions.md, "CLI". Not:    what others see of it
// (core/broker/profile.cc).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string group, role, mesh, answer, status, title, bio, avatar;
  std::vector<std::string> words, capabilities;
} g_options;

int print_outcome(const Result<Reply>& reply, const std::string& done) {
  if (!reply) return report(reply.error());
  if (output().json) {
    print(reply->body);
  } else {
    say_done(done);
  }
  return 0;
}

int post_group(const char* path, const std::string& done) {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("name", g_options.group).optional_field("role", g_options.role);
  json.optional_field("mesh", g_options.mesh).end_object();
  return print_outcome(daemon_call("POST", path, body.view()), done + harmless(g_options.group));
}

}  // namespace

void declare_group_join(CLI::App& app) {
  app.add_option("group", g_options.group, "@name; '/' makes groups within groups")->required();
  app.add_option("--role", g_options.role, "Your role in it");
  declare_mesh_option(app, g_options.mesh);
}
int run_group_join() { return post_group("/v1/group/join", "joined "); }

void declare_group_leave(CLI::App& app) {
  app.add_option("group", g_options.group, "@name")->required();
  declare_mesh_option(app, g_options.mesh);
}
int run_group_leave() { return post_group("/v1/group/leave", "left "); }

void declare_summary(CLI::App& app) {
  app.add_option("text", g_options.words, "What you are doing; nothing clears it");
  declare_mesh_option(app, g_options.mesh);
}

int run_summary() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("summary", joined(g_options.words));
  json.optional_field("mesh", g_options.mesh).end_object();
  return print_outcome(daemon_call("POST", "/v1/profile", body.view()),
                       g_options.words.empty() ? "summary cleared" : "summary set");
}

void declare_visible(CLI::App& app) {
  app.add_option("answer", g_options.answer, "y or n")
      ->required()
      ->check(CLI::IsMember({"y", "n", "yes", "no", "true", "false", "1", "0"}));
  declare_mesh_option(app, g_options.mesh);
}

int run_visible() {
  const char first = g_options.answer.front();
  const bool visible = first == 'y' || first == 't' || first == '1';
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("visible", visible).optional_field("mesh", g_options.mesh).end_object();
  return print_outcome(daemon_call("POST", "/v1/profile", body.view()),
                       visible ? "others see you"
                               : "hidden: no list shows you, no broadcast "
                                 "reaches you");
}

void declare_status_set(CLI::App& app) {
  app.add_option("status", g_options.status, "idle, working or dnd")
      ->required()
      ->check(CLI::IsMember({"idle", "working", "dnd"}));
  declare_mesh_option(app, g_options.mesh);
}

int run_status_set() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("status", g_options.status).optional_field("mesh", g_options.mesh);
  json.end_object();
  return print_outcome(daemon_call("POST", "/v1/profile", body.view()),
                       "status " + g_options.status +
                           (g_options.status == "idle" ? ""
                                                       : ": only messages of priority 'now' "
                                                         "are pushed"));
}

void declare_profile(CLI::App& app) {
  app.add_option("--title", g_options.title, "What you are");
  app.add_option("--bio", g_options.bio, "A few words about you");
  app.add_option("--avatar", g_options.avatar, "An emoji or a URL");
  app.add_option("--capabilities", g_options.capabilities, "What you can do")->delimiter(',');
  declare_mesh_option(app, g_options.mesh);
}

// Without a flag: what others see of this member.
int run_profile() {
  const bool changes = !g_options.title.empty() || !g_options.bio.empty() ||
                       !g_options.avatar.empty() || !g_options.capabilities.empty();
  if (!changes) return run_own_presence(g_options.mesh);
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().optional_field("title", g_options.title);
  json.optional_field("bio", g_options.bio).optional_field("avatar", g_options.avatar);
  if (!g_options.capabilities.empty()) {
    json.key("capabilities").begin_array();
    for (const std::string& one : g_options.capabilities) json.text(one);
    json.end_array();
  }
  json.optional_field("mesh", g_options.mesh).end_object();
  return print_outcome(daemon_call("POST", "/v1/profile", body.view()), "profile changed");
}

}  // namespace cm::cli
