// topic.cc — topic create, list, join, leave, members, history, read.
// Holds:  every verb waits for the broker's word: what it prints has happened.
// Source: spec/cli.md §11.
// Not:    posting (topic_post.cc), following (topic_tail.cc), what a topic is
// (core/broker/shared/topics.cc).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/hints.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string topic, mesh, description, visibility = "public", role, before;
  int limit = 50;
} g_options;

void declare_topic(CLI::App& app) {
  app.add_option("topic", g_options.topic, "Name or id of the topic")->required();
  declare_mesh_option(app, g_options.mesh);
}

// One POST with topic and mesh; `done` is said to a person.
int post_topic(const std::string& path, const std::string& done) {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("topic", g_options.topic).optional_field("role", g_options.role);
  json.optional_field("mesh", g_options.mesh).end_object();
  const auto reply = daemon_call("POST", path, body.view());
  if (!reply) return report(reply.error(), kSeeTopics);
  if (output().json) {
    print_json(reply->body);
  } else {
    say_done(done + " " + harmless(g_options.topic) +
             (reply->boolean("confirmed") ? "" : " (the broker did not confirm it)"));
  }
  return 0;
}

std::string body_of(const Reply& reply, const wire::JsonNode& message) {
  ScratchArena scratch;
  const auto bytes = crypto::base64_decode(text_of(reply.tape, message, "ciphertext"), scratch);
  const wire::JsonNode* version = reply.tape.find(message, "bodyVersion");
  if (version != nullptr && version->integer > 1) return dim("(encrypted)");
  return bytes ? harmless(as_text(*bytes)) : dim("(unreadable)");
}

}  // namespace

void declare_topic_create(CLI::App& app) {
  app.add_option("name", g_options.topic, "1 to 64 characters of [A-Za-z0-9._-]")->required();
  app.add_option("--description", g_options.description, "What it is about");
  app.add_option("--visibility", g_options.visibility, "public, private or dm")
      ->check(CLI::IsMember({"public", "private", "dm"}))
      ->capture_default_str();
  declare_mesh_option(app, g_options.mesh);
}

int run_topic_create() {
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("name", g_options.topic);
  json.optional_field("description", g_options.description);
  json.field("visibility", g_options.visibility).optional_field("mesh", g_options.mesh);
  json.end_object();
  const auto reply = daemon_call("POST", "/v1/topic/create", body.view());
  if (!reply) return report(reply.error());
  if (output().json) {
    const wire::JsonNode* topic = reply->tape.find("topic");
    const bool known = topic != nullptr && topic->type == wire::JsonType::kObject;
    const auto field = [&](std::string_view key) {
      return known ? text_of(reply->tape, *topic, key) : std::string_view{};
    };
    TextBuf text(scratch);
    wire::JsonWriter answer(text);
    answer.begin_object().field("id", field("id")).field("name", field("name"));
    answer.field("created", reply->boolean("created")).field("mesh", field("mesh")).end_object();
    print_json(text.view());
  } else {
    say_done((reply->boolean("created") ? "created " : "there is already ") +
             harmless(g_options.topic));
  }
  return 0;
}

void declare_topic_list(CLI::App& app) { declare_mesh_option(app, g_options.mesh); }

int run_topic_list() {
  const auto reply =
      daemon_call("GET", Target("/v1/topic/list").add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* topics = array_of(*reply, "topics"); topics != nullptr) {
    each_of(*reply, *topics, [&](const wire::JsonNode& topic) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, topic, key); };
      const wire::JsonNode* count = reply->tape.find(topic, "memberCount");
      rows.push_back({bold("#" + harmless(field("name"))), std::string(field("visibility")),
                      counted(count == nullptr ? 0 : count->integer, "member"),
                      harmless(field("description")), dim(field("mesh"))});
    });
  }
  if (rows.empty()) say("no topics; 'claudemesh topic create <name>'");
  print_table(rows);
  warn_of_errors(*reply);
  return 0;
}

void declare_topic_join(CLI::App& app) {
  declare_topic(app);
  app.add_option("--role", g_options.role, "lead, member or observer")
      ->check(CLI::IsMember({"lead", "member", "observer"}));
}
int run_topic_join() { return post_topic("/v1/topic/subscribe", "joined"); }

void declare_topic_leave(CLI::App& app) { declare_topic(app); }
int run_topic_leave() { return post_topic("/v1/topic/unsubscribe", "left"); }

void declare_topic_read(CLI::App& app) { declare_topic(app); }
int run_topic_read() { return post_topic("/v1/topic/read", "marked as read:"); }

void declare_topic_members(CLI::App& app) { declare_topic(app); }

int run_topic_members() {
  const auto reply = daemon_call(
      "GET",
      Target("/v1/topic/members").add("topic", g_options.topic).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error(), kSeeTopics);
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* members = array_of(*reply, "members"); members != nullptr) {
    each_of(*reply, *members, [&](const wire::JsonNode& member) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, member, key); };
      rows.push_back({bold(harmless(field("displayName"))), std::string(field("role")),
                      std::string(field("pubkey").substr(0, 16)) + "…",
                      dim("joined " + ago(time_of(field("joinedAt")), now_ms()))});
    });
  }
  print_table(rows);
  return 0;
}

void declare_topic_history(CLI::App& app) {
  declare_topic(app);
  app.add_option("--limit", g_options.limit, "At most so many, newest first")
      ->check(CLI::Range(1, 200))
      ->capture_default_str();
  app.add_option("--before", g_options.before, "Id of a post: what came before it");
}

int run_topic_history() {
  const auto reply = daemon_call("GET", Target("/v1/topic/history")
                                            .add("topic", g_options.topic)
                                            .add("limit", std::to_string(g_options.limit))
                                            .add("before", g_options.before)
                                            .add("mesh", g_options.mesh)
                                            .text());
  if (!reply) return report(reply.error(), kSeeTopics);
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  if (const wire::JsonNode* messages = array_of(*reply, "messages"); messages != nullptr) {
    each_of(*reply, *messages, [&](const wire::JsonNode& message) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, message, key); };
      rows.push_back({bold(harmless(field("senderName"))),
                      dim(ago(time_of(field("createdAt")), now_ms())), body_of(*reply, message)});
    });
  }
  if (rows.empty()) say("nothing was posted yet");
  print_table(rows);
  return 0;
}

}  // namespace cm::cli
