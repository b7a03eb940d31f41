// profile.cc — profile: what others see of this member, and changing it.
// Holds:  name, role tag, groups and message mode are the broker's record of a member and are
//         changed there, signed by this member; the rest belongs to the presence, through the
//         daemon. What the broker refuses leaves the presence as it was.
// Source: spec/cli.md §12; spec/enrollment.md §7 (PATCH /mesh/:id/member/:id).
// Not:    who may change what (core/broker/http/members.cc).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <optional>

#include "cli/member_call.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string mesh, title, bio, avatar, name, role_tag, message_mode, member, ca_file;
  std::vector<std::string> capabilities, groups;
  bool has_role_tag = false, has_groups = false;
} g_options;

void write_texts(wire::JsonWriter& json, std::string_view key,
                 const std::vector<std::string>& texts) {
  json.key(key).begin_array();
  for (const std::string& text : texts) {
    if (!text.empty()) json.text(text);
  }
  json.end_array();
}

bool changes_record() {
  return !g_options.name.empty() || g_options.has_role_tag || g_options.has_groups ||
         !g_options.message_mode.empty();
}

bool changes_presence() {
  return !g_options.title.empty() || !g_options.bio.empty() || !g_options.avatar.empty() ||
         !g_options.capabilities.empty();
}

// NAME or NAME:ROLE; the broker judges the parts. '' alone means none.
Status check_groups() {
  for (const std::string& group : g_options.groups) {
    const std::size_t colon = group.find(':');
    const bool twice = colon != std::string::npos && group.find(':', colon + 1) != group.npos;
    const bool none = group.empty() && g_options.groups.size() == 1;
    if (!none && (group.empty() || colon == 0 || twice)) {
      return fail(Err::kInvalidArgument,
                  "--groups: expected NAME or NAME:ROLE, not '" + harmless(group) + "'");
    }
  }
  return {};
}

Result<Reply> change_record() {
  const auto config = load_config();
  if (!config) return config.error();
  const auto mesh = choose_mesh(*config, g_options.mesh);
  if (!mesh) return mesh.error();
  const std::string& member = g_options.member.empty() ? (*mesh)->member_id : g_options.member;
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().optional_field("displayName", g_options.name);
  if (g_options.has_role_tag) json.field("roleTag", g_options.role_tag);
  if (g_options.has_groups) write_texts(json, "groups", g_options.groups);
  json.optional_field("messageMode", g_options.message_mode).end_object();
  const Target target = Target("/mesh").part((*mesh)->mesh_id).part("member").part(member);
  return member_call(**mesh, "PATCH", target.text(), body.view(), g_options.ca_file);
}

Result<Reply> change_presence() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().optional_field("title", g_options.title);
  json.optional_field("bio", g_options.bio).optional_field("avatar", g_options.avatar);
  if (!g_options.capabilities.empty()) write_texts(json, "capabilities", g_options.capabilities);
  json.optional_field("mesh", g_options.mesh).end_object();
  return daemon_call("POST", "/v1/profile", body.view());
}

// Members of both answers in one document.
int print_changes(const std::optional<Reply>& record, const std::optional<Reply>& presence) {
  if (!output().json) {
    say_done("profile changed");
    if (g_options.has_groups) {
      say("the groups count from the next connection on, if that brings or had none of its own");
    }
    return 0;
  }
  ScratchArena scratch;
  TextBuf text(scratch, 1024);
  wire::JsonWriter json(text);
  const bool ok = !presence || presence->boolean("ok");
  json.begin_object().field("ok", ok);
  const auto copy = [&](const std::optional<Reply>& reply,
                        std::initializer_list<std::string_view> keys) {
    if (!reply) return;
    for (const std::string_view key : keys) {
      if (const wire::JsonNode* node = reply->tape.find(key)) json.key(key).value(*node);
    }
  };
  copy(record, {"member", "changes"});
  copy(presence, {"applied", "meshes", "confirmed", "errors"});
  json.end_object();
  print_json(text.view());
  return 0;
}

}  // namespace

void declare_profile(CLI::App& app) {
  app.add_option("--title", g_options.title, "What you are");
  app.add_option("--bio", g_options.bio, "A few words about you");
  app.add_option("--avatar", g_options.avatar, "An emoji or a URL");
  app.add_option("--capabilities", g_options.capabilities, "What you can do")->delimiter(',');
  app.add_option("--name", g_options.name, "Your name in the mesh");
  app.add_option_function<std::string>(
      "--role-tag",
      [](const std::string& tag) {
        g_options.role_tag = tag;
        g_options.has_role_tag = true;
      },
      "Your role in the mesh, as others read it; '' for none");
  app.add_option_function<std::vector<std::string>>(
         "--groups",
         [](const std::vector<std::string>& groups) {
           g_options.groups = groups;
           g_options.has_groups = true;
         },
         "Groups to be in from the next connection on, each NAME or NAME:ROLE; '' for none")
      ->delimiter(',');
  app.add_option("--message-mode", g_options.message_mode, "push, inbox or off")
      ->check(CLI::IsMember({"push", "inbox", "off"}));
  app.add_option("--member", g_options.member, "Id of another member, for who may change it");
  declare_mesh_option(app, g_options.mesh);
  declare_ca_file(app, g_options.ca_file);
}

// Without a flag: what others see of this member.
int run_profile() {
  if (!g_options.member.empty() && (!changes_record() || changes_presence())) {
    return report(fail(Err::kUsage,
                       "--member goes with --name, --role-tag, --groups or --message-mode alone"));
  }
  if (Status sound = check_groups(); !sound) return report(sound.error());
  if (!changes_record() && !changes_presence()) return run_own_presence(g_options.mesh);
  std::optional<Reply> record;
  std::optional<Reply> presence;
  if (changes_record()) {
    auto reply = change_record();
    if (!reply) return report(reply.error());
    record = std::move(*reply);
  }
  if (changes_presence()) {
    auto reply = change_presence();
    if (!reply) return report(reply.error());
    presence = std::move(*reply);
  }
  return print_changes(record, presence);
}

}  // namespace cm::cli
