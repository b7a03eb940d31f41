// state.cc — state get, set, list; remember, recall, forget; skill list, get.
// Source: spec/cli.md §10, §14; spec/decisions.md, "CLI" (state get reads its key).
// Not:    what a mesh does with them (core/broker).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/hints.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string key, value, mesh, id, name, query;
  std::vector<std::string> words, tags;
} g_options;

// A value as it is typed: JSON if it is JSON, else a text.
void write_value(wire::JsonWriter& json, const std::string& typed) {
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  if (parser.parse(typed, scratch, tape)) {
    json.raw(typed);
  } else {
    json.text(typed);
  }
}

// A value of a reply on one line: texts without their quotes, all else as JSON.
std::string value_text(const wire::JsonNode* node) {
  if (node == nullptr) return "null";
  if (node->type == wire::JsonType::kText) return harmless(node->text);
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter(text).value(*node);
  return std::string(text.view());
}

}  // namespace

void declare_mesh_option(CLI::App& app, std::string& mesh) {
  app.add_option("--mesh", mesh, "Slug of the mesh; the only one, or all, by default");
}

CLI::Option* declare_slug(CLI::App& app, std::string& slug, const std::string& about) {
  return app.add_option("mesh,--mesh", slug, about);
}

void declare_state_get(CLI::App& app) {
  app.add_option("key", g_options.key, "The key")->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_state_get() {
  const auto reply = daemon_call(
      "GET", Target("/v1/state").add("key", g_options.key).add("mesh", g_options.mesh).text());
  if (!reply && reply.code() == Err::kNotFound) {
    const std::string sentence = "no state has the key " + harmless(g_options.key);
    return report(fail(Err::kNotFound, sentence), kSeeStates);
  }
  if (!reply) return report(reply.error());
  const wire::JsonNode* state = reply->tape.find("state");
  if (output().json) {
    print_json(state == nullptr ? reply->body : std::string(state->text));
  } else if (state != nullptr) {
    print(value_text(reply->tape.find(*state, "value")));
  }
  return 0;
}

void declare_state_set(CLI::App& app) {
  app.add_option("key", g_options.key, "The key")->required();
  app.add_option("value", g_options.value, "JSON, or a text")->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_state_set() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("key", g_options.key).key("value");
  write_value(json, g_options.value);
  json.optional_field("mesh", g_options.mesh).end_object();
  const auto reply = daemon_call("POST", "/v1/state", body.view());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
  } else {
    say_done("set " + harmless(g_options.key));
  }
  return 0;
}

void declare_state_list(CLI::App& app) { declare_mesh_option(app, g_options.mesh); }

int run_state_list() {
  const auto reply = daemon_call("GET", Target("/v1/state").add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* entries = array_of(*reply, "entries"); entries != nullptr) {
    each_of(*reply, *entries, [&](const wire::JsonNode& entry) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, entry, key); };
      rows.push_back({bold(harmless(field("key"))), value_text(reply->tape.find(entry, "value")),
                      dim(harmless(field("updatedBy"))),
                      dim(ago(time_of(field("updatedAt")), now_ms())), dim(field("mesh"))});
    });
  }
  if (rows.empty()) say("no state is set");
  print_table(rows);
  warn_of_errors(*reply);
  return 0;
}

void declare_remember(CLI::App& app) {
  app.add_option("text", g_options.words, "What to remember")->required();
  app.add_option("--tags", g_options.tags, "Words to find it by")->delimiter(',');
  declare_mesh_option(app, g_options.mesh);
}

int run_remember() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("content", joined(g_options.words)).key("tags").begin_array();
  for (const std::string& tag : g_options.tags) json.text(tag);
  json.end_array().optional_field("mesh", g_options.mesh).end_object();
  const auto reply = daemon_call("POST", "/v1/memory", body.view());
  if (!reply) return report(reply.error());
  if (output().json) {
    TextBuf text(scratch);
    wire::JsonWriter answer(text);
    answer.begin_object().field("id", reply->text("id"));
    answer.field("content", joined(g_options.words)).key("tags").begin_array();
    for (const std::string& tag : g_options.tags) answer.text(tag);
    answer.end_array().field("mesh", reply->text("mesh")).end_object();
    print_json(text.view());
  } else {
    say_done("remembered  " + dim(reply->text("id")));
  }
  return 0;
}

void declare_recall(CLI::App& app) {
  app.add_option("query", g_options.words, "Words that it must contain")->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_recall() {
  const auto reply = daemon_call(
      "GET",
      Target("/v1/memory").add("q", joined(g_options.words)).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* matches = array_of(*reply, "matches"); matches != nullptr) {
    each_of(*reply, *matches, [&](const wire::JsonNode& match) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, match, key); };
      rows.push_back({dim(harmless(field("id"))), harmless(field("content")),
                      dim(harmless(field("rememberedBy"))),
                      dim(ago(time_of(field("rememberedAt")), now_ms()))});
    });
  }
  if (rows.empty()) say("nothing found; every word of the query must occur");
  print_table(rows);
  warn_of_errors(*reply);
  return 0;
}

void declare_forget(CLI::App& app) {
  app.add_option("id", g_options.id, "Whole id of the memory, as 'recall' shows it")->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_forget() {
  const auto reply = daemon_call(
      "DELETE", Target("/v1/memory").part(g_options.id).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error(), kSeeMemories);
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("id", g_options.id).field("forgotten", true).end_object();
    print_json(text.view());
  } else {
    say_done("forgotten " + harmless(g_options.id));
  }
  return 0;
}

void declare_skill_list(CLI::App& app) {
  app.add_option("query", g_options.query, "Part of name, description or tag");
  declare_mesh_option(app, g_options.mesh);
}

int run_skill_list() {
  const auto reply = daemon_call(
      "GET", Target("/v1/skills").add("query", g_options.query).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* skills = array_of(*reply, "skills"); skills != nullptr) {
    each_of(*reply, *skills, [&](const wire::JsonNode& skill) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, skill, key); };
      rows.push_back({bold(harmless(field("name"))), harmless(field("description")),
                      dim(harmless(field("author")))});
    });
  }
  if (rows.empty()) say("no skills are shared");
  print_table(rows);
  warn_of_errors(*reply);
  return 0;
}

void declare_skill_get(CLI::App& app) {
  app.add_option("name", g_options.name, "Name of the skill")->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_skill_get() {
  const auto reply = daemon_call(
      "GET", Target("/v1/skills").part(g_options.name).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error(), kSeeSkills);
  const wire::JsonNode* skill = reply->tape.find("skill");
  if (output().json || skill == nullptr) {
    print_json(skill == nullptr ? reply->body : std::string(skill->text));
  } else {
    print(text_of(reply->tape, *skill, "instructions"));
  }
  return 0;
}

}  // namespace cm::cli
