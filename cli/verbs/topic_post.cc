// topic_post.cc — topic post, with the posts that it answers and the names that it mentions.
// Holds:  a beginning of an id is looked up among the topic's last posts and must name one of them.
//         Posts can be read by the broker, and the verb says so.
// Source: spec/cli.md §11.
// Not:    delivery: a post is a send to '#topic' (core/daemon/send.cc).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "cli/hints.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string topic, mesh, priority = "next", reply_to, id;
  std::vector<std::string> words;
} g_options;

constexpr std::size_t kPrefixLeast = 6;
constexpr std::size_t kWholeId = 16;
constexpr std::size_t kMentionsMost = 16;
constexpr const char* kLookedAt = "200";

bool is_name_char(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         c == '-';
}

// "@name" at the beginning of a word; each name once.
std::vector<std::string> mentions_in(std::string_view message) {
  std::vector<std::string> names;
  for (std::size_t at = message.find('@'); at != std::string_view::npos;
       at = message.find('@', at + 1)) {
    if (at > 0 && (is_name_char(message[at - 1]) || message[at - 1] == '.')) continue;
    std::size_t end = at + 1;
    while (end < message.size() && is_name_char(message[end])) ++end;
    const std::string name(message.substr(at + 1, end - at - 1));
    const bool known = std::find(names.begin(), names.end(), name) != names.end();
    if (name.empty() || name.size() > 64 || known || names.size() == kMentionsMost) continue;
    names.push_back(name);
  }
  return names;
}

// The id of the post that is answered.
Result<std::string> find_reply_to() {
  const std::string& given = g_options.reply_to;
  if (given.empty() || given.size() >= kWholeId) return given;
  if (given.size() < kPrefixLeast) {
    return fail(Err::kInvalidArgument,
                "--reply-to: expected a post's id, or 6 or more characters "
                "of its beginning");
  }
  const auto reply = daemon_call("GET", Target("/v1/topic/history")
                                            .add("topic", g_options.topic)
                                            .add("limit", kLookedAt)
                                            .add("mesh", g_options.mesh)
                                            .text());
  if (!reply) return reply.error();
  std::vector<std::string> found;
  if (const wire::JsonNode* posts = array_of(*reply, "messages"); posts != nullptr) {
    each_of(*reply, *posts, [&](const wire::JsonNode& post) {
      const std::string_view id = text_of(reply->tape, post, "id");
      if (id.starts_with(given)) found.emplace_back(id);
    });
  }
  if (found.size() == 1) return found.front();
  return fail(Err::kInvalidArgument, "--reply-to: " + std::to_string(found.size()) +
                                         " of the last " + kLookedAt + " posts begin with " +
                                         given);
}

void print_posted(const Reply& reply, const std::vector<std::string>& mentions,
                  const std::string& reply_to) {
  std::string_view topic = g_options.topic;
  if (topic.starts_with('#')) topic.remove_prefix(1);
  std::string_view topic_id = reply.text("target");
  if (topic_id.starts_with('#')) topic_id.remove_prefix(1);
  const std::string_view stored = reply.text("broker_message_id");
  ScratchArena scratch;
  TextBuf text(scratch, 512);
  wire::JsonWriter json(text);
  json.begin_object().field("messageId", reply.text("client_message_id"));
  json.optional_field("historyId", stored).optional_field("queueId", stored);
  json.field("topic", topic).field("topicId", topic_id).field("bodyVersion", 1);
  json.key("mentions").begin_array();
  for (const std::string& name : mentions) json.text(name);
  json.end_array().optional_field("replyToId", reply_to).field("status", reply.text("status"));
  json.field("duplicate", reply.boolean("duplicate")).field("encrypted", false).end_object();
  print_json(text.view());
}

}  // namespace

void declare_topic_post(CLI::App& app) {
  app.add_option("topic", g_options.topic, "Name or id of the topic")->required();
  app.add_option("message", g_options.words, "The message; '@name' mentions somebody")->required();
  app.add_option("--priority", g_options.priority, "now, next or low")
      ->check(CLI::IsMember({"now", "next", "low"}))
      ->capture_default_str();
  app.add_option("--reply-to", g_options.reply_to,
                 "Id of the post that this answers, or 6 or more characters of its beginning");
  app.add_option("--id", g_options.id, "client_message_id, to make a retry safe");
  declare_mesh_option(app, g_options.mesh);
}

int run_topic_post() {
  const auto reply_to = find_reply_to();
  if (!reply_to) return report(reply_to.error());
  const std::string message = joined(g_options.words);
  const std::vector<std::string> mentions = mentions_in(message);
  ScratchArena scratch;
  TextBuf body(scratch, 4096);
  wire::JsonWriter json(body);
  json.begin_object().field("topic", g_options.topic).field("message", message);
  json.field("priority", g_options.priority).optional_field("client_message_id", g_options.id);
  json.optional_field("reply_to_id", *reply_to).key("mentions").begin_array();
  for (const std::string& name : mentions) json.text(name);
  json.end_array().optional_field("mesh", g_options.mesh).end_object();
  const auto reply = daemon_call("POST", "/v1/topic/post", body.view());
  if (!reply) return report(reply.error(), kSeeTopics);
  if (output().json) {
    print_posted(*reply, mentions, *reply_to);
    return 0;
  }
  if (output().quiet) {
    print(reply->text("client_message_id"));
    return 0;
  }
  say_done("accepted for #" + harmless(g_options.topic) + "  " +
           dim(reply->text("client_message_id")));
  say_plain("#");
  return 0;
}

}  // namespace cm::cli
