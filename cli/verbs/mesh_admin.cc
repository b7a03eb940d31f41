// mesh_admin.cc — leave, rename, delete, info, whoami, member list.
// Holds:  leaving is local and says so; leaving, which ends a key, and deleting everywhere ask for
//         the slug. What a broker is
//         told carries this member's signature. Secret keys are never printed.
// Source: spec/cli.md §6, §8, §15.
// Not:    create, share, join (mesh.cc).
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <iostream>

#include "cli/files.h"
#include "cli/member_call.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string mesh, slug, named, ca_file, confirm;
  bool everywhere = false, yes = false, online = false;
} g_options;

// A person types it, a script passes --confirm.
Status confirm(const std::string& question, const std::string& expected) {
  if (g_options.confirm == expected) return {};
  if (!g_options.confirm.empty() || ::isatty(STDIN_FILENO) != 1 || output().json) {
    return fail(Err::kUnconfirmed, "--confirm " + expected);
  }
  std::fprintf(stderr, "  %s: ", question.c_str());
  std::string typed;
  std::getline(std::cin, typed);
  if (typed == expected) return {};
  return fail(Err::kUsage, "not confirmed; nothing was changed");
}

std::int64_t number_at(const Reply& reply, const wire::JsonNode& object, std::string_view key) {
  const wire::JsonNode* node = reply.tape.find(object, key);
  return node == nullptr ? 0 : node->integer;
}

void print_members(const Reply& reply) {
  ScratchArena scratch;
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).key("members").begin_array();
  if (const wire::JsonNode* members = array_of(reply, "members"); members != nullptr) {
    each_of(reply, *members, [&](const wire::JsonNode& member) {
      const wire::JsonNode* online = reply.tape.find(member, "online");
      if (!g_options.online || (online != nullptr && online->boolean)) json.value(member);
    });
  }
  json.end_array().end_object();
  print_json(text.view());
}

}  // namespace

void declare_leave(CLI::App& app) {
  declare_slug(app, g_options.mesh, "Slug of the mesh")->required();
  app.add_option("--confirm", g_options.confirm, "The slug again, for scripts");
}

int run_leave() {
  const auto lock = lock_config();
  if (!lock) return report(lock.error());
  auto config = load_config();
  if (!config) return report(config.error());
  const auto mesh = choose_mesh(*config, g_options.mesh);
  if (!mesh) return report(mesh.error());
  const std::string slug = (*mesh)->slug;
  const std::string question = "this destroys your only key of " + slug + "; type its slug";
  if (Status sure = confirm(question, slug); !sure) return report(sure.error());
  if (Status removed = remove_mesh(*config, (*mesh)->mesh_id); !removed) {
    return report(removed.error());
  }
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter(text).begin_object().field("ok", true).field("left", slug).end_object();
    print_json(text.view());
    return 0;
  }
  say_done("left " + slug + " on this machine; its key is gone from here");
  say("the broker was not told: the mesh still lists the member, whom nobody can be any more");
  return 0;
}

void declare_rename(CLI::App& app) {
  app.add_option("mesh", g_options.mesh, "Slug of the mesh; not with --mesh")->required();
  app.add_option("slug", g_options.slug, "The new slug, 2 to 32 of [a-z0-9-]");
  declare_mesh_option(app, g_options.named);
  declare_ca_file(app, g_options.ca_file);
}

int run_rename() {
  const bool named = !g_options.named.empty();
  if (named == !g_options.slug.empty()) {
    return report(fail(Err::kUsage, "claudemesh rename: name the mesh once, and its new slug"));
  }
  if (named) {
    g_options.slug = g_options.mesh;
    g_options.mesh = g_options.named;
  }
  if (!wire::is_slug(g_options.slug)) {
    return report(fail(Err::kMalformed,
                       "the new slug: 2 to 32 characters of [a-z0-9-], not "
                       "starting with '-'"));
  }
  const auto lock = lock_config();
  if (!lock) return report(lock.error());
  auto config = load_config();
  if (!config) return report(config.error());
  const auto mesh = choose_mesh(*config, g_options.mesh);
  if (!mesh) return report(mesh.error());
  if (config->find(g_options.slug) != nullptr) {
    return report(fail(Err::kAlreadyExists, "a mesh joined here has the slug " + g_options.slug));
  }
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter(body).begin_object().field("slug", g_options.slug).end_object();
  const auto reply =
      member_call(**mesh, "PATCH", "/cli/mesh/" + (*mesh)->slug, body.view(), g_options.ca_file);
  if (!reply) return report(reply.error());
  if (Status saved = rename_mesh(*config, (*mesh)->mesh_id, g_options.slug); !saved) {
    return report(saved.error());
  }
  if (output().json) {
    print_json(reply->body);
  } else {
    say_done(g_options.mesh + " is now " + g_options.slug);
  }
  return 0;
}

void declare_delete(CLI::App& app) {
  declare_slug(app, g_options.mesh, "Slug of the mesh")->required();
  app.add_option("--confirm", g_options.confirm, "The slug again, for scripts");
  declare_ca_file(app, g_options.ca_file);
}

int run_delete() {
  const auto lock = lock_config();
  if (!lock) return report(lock.error());
  auto config = load_config();
  if (!config) return report(config.error());
  const auto mesh = choose_mesh(*config, g_options.mesh);
  if (!mesh) return report(mesh.error());
  const std::string slug = (*mesh)->slug;
  if (Status sure = confirm("this ends " + slug + " for every member; type its slug", slug);
      !sure) {
    return report(sure.error());
  }
  const auto reply = member_call(**mesh, "DELETE", "/cli/mesh/" + slug, {}, g_options.ca_file);
  if (!reply) return report(reply.error());
  if (Status removed = remove_mesh(*config, (*mesh)->mesh_id); !removed) {
    return report(removed.error());
  }
  if (output().json) {
    print_json(reply->body);
  } else {
    say_done("deleted " + slug + " everywhere");
  }
  return 0;
}

void declare_info(CLI::App& app) {
  declare_slug(app, g_options.mesh, "Slug of the mesh; the only one by default");
}

int run_info() {
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto chosen = choose_mesh(*config, g_options.mesh);
  if (!chosen) return report(chosen.error());
  const Mesh& mesh = **chosen;
  const auto peers = daemon_call("GET", Target("/v1/peers").add("mesh", mesh.slug).text());
  const auto topics = daemon_call("GET", Target("/v1/topic/list").add("mesh", mesh.slug).text());
  const auto count = [](const Result<Reply>& reply, std::string_view key) -> std::int64_t {
    const wire::JsonNode* list = reply ? array_of(*reply, key) : nullptr;
    return list == nullptr ? -1 : static_cast<std::int64_t>(list->count);
  };
  const std::int64_t peer_count = count(peers, "peers");
  const std::int64_t topic_count = count(topics, "topics");
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("slug", mesh.slug).field("name", mesh.name);
    json.field("id", mesh.mesh_id).field("member_id", mesh.member_id);
    json.field("pubkey", mesh.pubkey).field("broker_url", mesh.broker_url);
    json.field("joined_at", mesh.joined_at).field("daemon", static_cast<bool>(peers));
    if (peer_count >= 0) json.field("peers", peer_count);
    if (topic_count >= 0) json.field("topics", topic_count);
    json.end_object();
    print_json(text.view());
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"mesh", bold(mesh.slug) + "  " + dim(mesh.name)},
                                                {"id", mesh.mesh_id},
                                                {"member", mesh.member_id},
                                                {"key", mesh.pubkey},
                                                {"broker", mesh.broker_url},
                                                {"joined", ago(time_of(mesh.joined_at), now_ms())}};
  if (peer_count >= 0) rows.push_back({"peers", std::to_string(peer_count)});
  if (topic_count >= 0) rows.push_back({"topics", std::to_string(topic_count)});
  print_table(rows);
  if (!peers) say("the daemon does not answer: " + peers.error().detail);
  return 0;
}

int run_whoami() {
  const auto config = load_config();
  if (!config) return report(config.error());
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("schema_version", "1.0").field("signed_in", false);
    json.field("config", config->path).key("meshes").begin_array();
    for (const Mesh& mesh : config->meshes) {
      json.begin_object().field("slug", mesh.slug).field("mesh_id", mesh.mesh_id);
      json.field("member_id", mesh.member_id).field("pubkey", mesh.pubkey).end_object();
    }
    json.end_array().key("local").begin_object().field("meshes", config->meshes.size());
    json.end_object().key("session").null().end_object();
    print_json(text.view());
  } else {
    std::vector<std::vector<std::string>> rows;
    for (const Mesh& mesh : config->meshes) {
      rows.push_back({bold(mesh.slug), "member " + mesh.member_id, mesh.pubkey});
    }
    print_table(rows);
    say("configuration " + config->path);
  }
  if (!config->meshes.empty()) return 0;
  if (!output().json) say("no mesh is joined; 'claudemesh create' or 'claudemesh join'");
  return info_of(Err::kNoMesh).exit_code;
}

void declare_member_list(CLI::App& app) {
  declare_mesh_option(app, g_options.mesh);
  app.add_flag("--online", g_options.online, "Only those that are connected");
  declare_ca_file(app, g_options.ca_file);
}

int run_member_list() {
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto mesh = choose_mesh(*config, g_options.mesh);
  if (!mesh) return report(mesh.error());
  const auto reply =
      member_call(**mesh, "GET", "/mesh/" + (*mesh)->mesh_id + "/members", {}, g_options.ca_file);
  if (!reply) return report(reply.error());
  if (output().json) {
    print_members(*reply);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* members = array_of(*reply, "members"); members != nullptr) {
    each_of(*reply, *members, [&](const wire::JsonNode& member) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, member, key); };
      const wire::JsonNode* node = reply->tape.find(member, "online");
      const bool online = node != nullptr && node->boolean;
      if (g_options.online && !online) return;
      const bool self = field("pubkey") == (*mesh)->pubkey;
      rows.push_back({online ? "●" : "○",
                      bold(harmless(field("displayName"))) + (self ? dim(" (you)") : ""),
                      std::string(field("permission")),
                      counted(number_at(*reply, member, "sessionCount"), "connection"),
                      std::string(field("pubkey").substr(0, 16)) + "…",
                      field("lastSeenAt").empty()
                          ? std::string()
                          : dim("seen " + ago(time_of(field("lastSeenAt")), now_ms()))});
    });
  }
  print_table(rows);
  return 0;
}

}  // namespace cm::cli
