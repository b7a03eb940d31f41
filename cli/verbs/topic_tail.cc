// topic_tail.cc — topic tail: what was posted, oldest first, and then what comes.
// Holds:  the stream is open before the history is asked for, and ids tell what is in both, so that
//         nothing is shown twice and nothing falls between. With --json one object a line.
// Source: docs/PROTOCOL.md §10.3, §10.4; spec/cli.md §11.
// Not:    joining the topic: only what it delivers to this member comes live.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <set>

#include "cli/config.h"
#include "cli/files.h"
#include "cli/hints.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/crypto/encoding.h"
#include "core/net/http_client.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string topic, mesh;
  int limit = 20;
  bool forward_only = false;
} g_options;

struct Post {
  std::string id, sender, sender_key, created, text, reply_to;
  bool readable = true;
};

class Tail {
 public:
  explicit Tail(std::string topic) : topic_(std::move(topic)) {}

  // One line of the stream; a pipe's reader follows, too. False ends it; then failure() says why,
  // if it is one.
  bool take(std::string_view line) {
    if (line.starts_with(": connected") && !g_options.forward_only && !show_history()) return false;
    if (line.starts_with("event: ")) is_message_ = line.substr(7) == "message";
    if (is_message_ && line.starts_with("data: ")) show_event(line.substr(6));
    return static_cast<bool>(flush_output());
  }
  const Status& failure() const noexcept { return failure_; }

 private:
  bool show_history();
  void show_event(std::string_view json);
  void show(const Post& post);
  void show_json(const Post& post);

  std::string topic_;
  std::set<std::string> shown_;  // of the history; at most --limit
  bool is_message_ = false;
  Status failure_;
};

bool Tail::show_history() {
  const auto reply = daemon_call("GET", Target("/v1/topic/history")
                                            .add("topic", g_options.topic)
                                            .add("limit", std::to_string(g_options.limit))
                                            .add("mesh", g_options.mesh)
                                            .text());
  if (!reply) {
    failure_ = reply.error();
    return false;
  }
  std::vector<Post> posts;
  if (const wire::JsonNode* messages = array_of(*reply, "messages"); messages != nullptr) {
    each_of(*reply, *messages, [&](const wire::JsonNode& message) {
      const auto field = [&](std::string_view key) {
        return std::string(text_of(reply->tape, message, key));
      };
      ScratchArena scratch;
      const std::string sealed = field("ciphertext");
      const auto bytes = crypto::base64_decode(sealed, scratch);
      const wire::JsonNode* version = reply->tape.find(message, "bodyVersion");
      const bool readable = bytes && (version == nullptr || version->integer < 2);
      posts.push_back({field("id"), field("senderName"), field("senderPubkey"), field("createdAt"),
                       readable ? std::string(as_text(*bytes)) : std::string(), field("replyToId"),
                       readable});
    });
  }
  for (auto post = posts.rbegin(); post != posts.rend(); ++post) {
    shown_.insert(post->id);
    show(*post);
  }
  return true;
}

void Tail::show_event(std::string_view json) {
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  if (!parser.parse(json, scratch, tape)) return;  // of a newer daemon
  const auto field = [&](std::string_view key) {
    return std::string(text_of(tape, tape.root(), key));
  };
  if (field("topic") != topic_) return;
  if (!g_options.mesh.empty() && field("mesh") != g_options.mesh) return;
  if (shown_.contains(field("broker_message_id"))) return;
  show({field("broker_message_id"), field("sender_name"), field("sender_pubkey"),
        field("created_at"), field("body"), field("reply_to_id"), field("body_missing").empty()});
}

void Tail::show(const Post& post) {
  if (output().json) {
    show_json(post);
  } else {
    const std::string text = post.readable ? harmless(post.text) : dim("(cannot be read)");
    print("  " + bold(harmless(post.sender)) + "  " + dim(post.created) + "  " + text);
  }
}

void Tail::show_json(const Post& post) {
  ScratchArena scratch;
  TextBuf line(scratch, post.text.size() + 512);
  wire::JsonWriter json(line);
  json.begin_object().field("id", post.id).field("topic", topic_);
  json.field("senderName", post.sender).field("senderPubkey", post.sender_key);
  json.nullable_field("createdAt", post.created).nullable_field("replyToId", post.reply_to);
  json.key("message");
  if (post.readable) {
    json.text(post.text);
  } else {
    json.null();
  }
  json.end_object();
  print_json(line.view());
}

// The topic's name as events have it. The first call of the verb: it starts the daemon if need be.
Result<std::string> name_of_topic() {
  std::string_view wanted = g_options.topic;
  if (wanted.starts_with('#')) wanted.remove_prefix(1);
  const auto reply =
      daemon_call("GET", Target("/v1/topic/list").add("mesh", g_options.mesh).text());
  if (!reply) return reply.error();
  std::string name;
  if (const wire::JsonNode* topics = array_of(*reply, "topics"); topics != nullptr) {
    each_of(*reply, *topics, [&](const wire::JsonNode& topic) {
      const std::string_view known = text_of(reply->tape, topic, "name");
      if (known == wanted || text_of(reply->tape, topic, "id") == wanted) name = known;
    });
  }
  if (name.empty()) return fail(Err::kNotFound, "no topic has the name or id " + g_options.topic);
  return name;
}

// Posts of others come live to those who joined.
void say_if_not_joined() {
  const auto config = load_config();
  const auto reply = daemon_call(
      "GET",
      Target("/v1/topic/members").add("topic", g_options.topic).add("mesh", g_options.mesh).text());
  if (!config || !reply) return;
  const wire::JsonNode* members = array_of(*reply, "members");
  if (members == nullptr) return;
  bool joined = false;
  each_of(*reply, *members, [&](const wire::JsonNode& member) {
    for (const Mesh& mesh : config->meshes) {
      joined = joined || text_of(reply->tape, member, "pubkey") == mesh.pubkey;
    }
  });
  if (!joined) say("you have not joined it: 'claudemesh topic join' to see what comes");
}

}  // namespace

void declare_topic_tail(CLI::App& app) {
  app.add_option("topic", g_options.topic, "Name or id of the topic")->required();
  app.add_option("--limit", g_options.limit, "So many of the posts before")
      ->check(CLI::Range(1, 200))
      ->capture_default_str();
  app.add_flag("--forward-only", g_options.forward_only, "None of the posts before");
  declare_mesh_option(app, g_options.mesh);
}

int run_topic_tail() {
  const auto name = name_of_topic();
  if (!name) return report(name.error(), kSeeTopics);
  Tail tail(*name);
  say_if_not_joined();
  net::Endpoint endpoint;
  endpoint.unix_path = socket_path();
  const auto on_line = [](void* context, std::string_view line) {
    return static_cast<Tail*>(context)->take(line);
  };
  const auto ended =
      net::http_stream(endpoint, "GET", "/v1/events", {}, net::kNoTimeout, on_line, &tail);
  if (!tail.failure()) return report(tail.failure().error());
  if (!flush_output()) return 0;  // main() says it
  if (!ended) return report(ended.error());
  if (ended->status != 200) return report(error_of_text(ended->body));
  return report(fail(Err::kUnavailable, "the daemon ended; run the verb again"));
}

}  // namespace cm::cli
