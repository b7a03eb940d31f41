// presence.cc — group join, leave; summary, visible, status set.
// Holds:  they act on the member's presence, through the daemon, never on a connection of their
//         own.
// Source: spec/cli.md §12; spec/decisions.md, "CLI".
// Not:    the profile (profile.cc), what others see of it (core/broker/profile.cc).
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
  std::string group, role, mesh, answer, status;
  std::vector<std::string> words;
} g_options;

// With --json: `member`, what was asked for, and the daemon's answer behind it.
int print_outcome(const Result<Reply>& reply, const std::string& done, std::string_view member) {
  if (!reply) return report(reply.error());
  if (output().json) {
    const std::string_view rest = std::string_view(reply->body).substr(reply->body.find('{') + 1);
    print_json("{" + std::string(member) + (member.empty() ? "" : ",") + std::string(rest));
  } else {
    say_done(done);
  }
  return 0;
}

std::string member_of(std::string_view key, std::string_view value) {
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter(text).field(key, value);
  return std::string(text.view());
}

int post_group(bool joins) {
  const char* path = joins ? "/v1/group/join" : "/v1/group/leave";
  const char* done = joins ? "joined " : "left ";
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("name", g_options.group).optional_field("role", g_options.role);
  json.optional_field("mesh", g_options.mesh).end_object();
  const auto reply = daemon_call("POST", path, body.view());
  if (!reply) return report(reply.error());
  if (!output().json) {
    say_done(done + harmless(g_options.group));
    return 0;
  }
  TextBuf text(scratch);
  wire::JsonWriter answer(text);
  answer.begin_object().field("group", reply->text("name"));
  if (joins) {
    answer.nullable_field("role", g_options.role);
  } else {
    answer.field("left", true);
  }
  answer.field("mesh", reply->text("mesh")).field("confirmed", reply->boolean("confirmed"));
  answer.end_object();
  print_json(text.view());
  return 0;
}

}  // namespace

void declare_group_join(CLI::App& app) {
  app.add_option("group", g_options.group, "@name; '/' makes groups within groups")->required();
  app.add_option("--role", g_options.role, "Your role in it");
  declare_mesh_option(app, g_options.mesh);
}
int run_group_join() { return post_group(true); }

void declare_group_leave(CLI::App& app) {
  app.add_option("group", g_options.group, "@name")->required();
  declare_mesh_option(app, g_options.mesh);
}
int run_group_leave() { return post_group(false); }

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
                       g_options.words.empty() ? "summary cleared" : "summary set",
                       member_of("summary", joined(g_options.words)));
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
                                 "reaches you",
                       visible ? "\"visible\":true" : "\"visible\":false");
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
                                                         "are pushed"),
                       member_of("status", g_options.status));
}

}  // namespace cm::cli
