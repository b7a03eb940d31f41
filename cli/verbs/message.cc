// message.cc — send, inbox, inbox flush, inbox delete, message status, outbox list.
// Holds:  each is one call to the daemon. `flush` deletes nothing without a filter or --all.
// Source: spec/cli.md §9; spec/ipc.md §5, §7, §8.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <optional>

#include "cli/hints.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/sender.h"
#include "cli/verbs.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string to, mesh, priority = "next", id, reply_to, status, before;
  std::optional<std::string> from, topic;
  std::vector<std::string> words;
  int limit = 20;
  bool unread = false;
  bool keep_unread = false;
  bool all = false;
} g_options;

}  // namespace

void declare_send(CLI::App& app) {
  app.add_option("to", g_options.to, "Name, key, or 16 or more digits of the key")->required();
  app.add_option("message", g_options.words, "The message")->required();
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh");
  app.add_option("--priority", g_options.priority, "now, next or low")
      ->check(CLI::IsMember({"now", "next", "low"}))
      ->capture_default_str();
  app.add_option("--id", g_options.id, "client_message_id, to make a retry safe");
  app.add_option("--reply-to", g_options.reply_to, "Id of the message that this answers");
}

int run_send() {
  ScratchArena scratch;
  TextBuf body(scratch, 4096);
  wire::JsonWriter json(body);
  json.begin_object().field("to", g_options.to).field("message", joined(g_options.words));
  json.field("priority", g_options.priority).optional_field("mesh", g_options.mesh);
  json.optional_field("client_message_id", g_options.id);
  json.optional_field("reply_to_id", g_options.reply_to).end_object();
  const auto reply = daemon_call("POST", "/v1/send", body.view());
  if (!reply) return report(reply.error(), hint_for_target(g_options.to));
  const std::string_view id = reply->text("client_message_id");
  const bool duplicate = reply->boolean("duplicate");
  if (output().json) {
    TextBuf text(scratch);
    wire::JsonWriter answer(text);
    answer.begin_object().field("ok", true).field("messageId", id).field("target", g_options.to);
    answer.field("via", "daemon").field("duplicate", duplicate);
    answer.field("status", reply->text("status"));
    answer.optional_field("brokerMessageId", reply->text("broker_message_id")).end_object();
    print(text.view());
    return 0;
  }
  if (output().quiet) {
    print(id);
    return 0;
  }
  say_done((duplicate ? "already sent to " : "accepted for ") + harmless(g_options.to) + "  " +
           dim(id));
  if (is_plain_target(g_options.to)) say_plain(g_options.to);
  return 0;
}

void declare_inbox(CLI::App& app) {
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh");
  app.add_option("--from", g_options.from, "A sender's name, or 16 or more digits of the key");
  app.add_option("--topic", g_options.topic, "Name of a topic");
  app.add_option("--limit", g_options.limit, "At most so many, newest first")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--unread", g_options.unread, "Only what was not seen before");
  app.add_flag("--keep-unread", g_options.keep_unread, "Do not mark anything as seen");
}

// What a name alone does not say: the key behind it, and what the text's way was.
std::string marks_of(const Reply& reply, const wire::JsonNode& item) {
  const auto field = [&](std::string_view key) { return text_of(reply.tape, item, key); };
  const auto is = [&](std::string_view key, bool wanted) {
    const wire::JsonNode* node = reply.tape.find(item, key);
    return node != nullptr && node->type == wire::JsonType::kBool && node->boolean == wanted;
  };
  std::string marks = " " + std::string(field("sender_pubkey").substr(0, 8)) + "…";
  if (!field("topic").empty()) marks += " #" + std::string(field("topic"));
  if (is("name_conflict", true)) marks += " (another key than the one known by this name)";
  if (is("encrypted", false)) marks += " (not end-to-end encrypted)";
  return dim(harmless(marks));
}

namespace {

// What the filters name has to be there; that nothing was received from it is no error.
Status find_filters() {
  if (g_options.from) {
    auto key = sender_key(*g_options.from, g_options.mesh);
    if (!key) return key.error();
    g_options.from = *key;
  }
  if (!g_options.topic) return {};
  if (g_options.topic->starts_with('#')) g_options.topic->erase(0, 1);
  if (g_options.topic->empty()) return fail(Err::kInvalidArgument, "--topic: expected a name");
  return {};
}

// A topic that is gone may have left messages: it is looked for only where there are none.
Status check_topic() {
  const auto reply =
      daemon_call("GET", Target("/v1/topic/list").add("mesh", g_options.mesh).text());
  const wire::JsonNode* topics = reply ? array_of(*reply, "topics") : nullptr;
  if (topics == nullptr || array_of(*reply, "errors") != nullptr) return {};  // nobody can say
  bool found = false;
  each_of(*reply, *topics, [&](const wire::JsonNode& topic) {
    found = found || text_of(reply->tape, topic, "name") == *g_options.topic;
  });
  if (found) return {};
  return fail(Err::kNotFound, "--topic: no topic has the name " + harmless(*g_options.topic));
}

}  // namespace

int run_inbox() {
  if (Status found = find_filters(); !found) return report(found.error(), kSeePeers);
  const Target target = Target("/v1/inbox")
                            .add("limit", std::to_string(g_options.limit))
                            .add("mesh", g_options.mesh)
                            .add("from", g_options.from.value_or(""))
                            .add("topic", g_options.topic.value_or(""))
                            .add("unread_only", g_options.unread ? "true" : "")
                            .add("mark_seen", g_options.keep_unread ? "false" : "");
  const auto reply = daemon_call("GET", target.text());
  if (!reply) return report(reply.error());
  const wire::JsonNode* items = array_of(*reply, "items");
  if (items == nullptr) return report(fail(Err::kTransport, "the reply has no items"));
  if (items->count == 0 && g_options.topic) {
    if (Status found = check_topic(); !found) return report(found.error(), kSeeTopics);
  }
  if (output().json) {
    print(items->text);
    return 0;
  }
  if (items->count == 0) say("no messages");
  const std::uint64_t now = now_ms();
  std::vector<std::vector<std::string>> rows;
  each_of(*reply, *items, [&](const wire::JsonNode& item) {
    const auto field = [&](std::string_view key) { return text_of(reply->tape, item, key); };
    const bool unread = field("seen_at").empty();
    const wire::JsonNode* body = reply->tape.find(item, "body");
    const bool readable = body != nullptr && body->type == wire::JsonType::kText;
    rows.push_back({unread ? "●" : "○",
                    bold(harmless(field("sender_name"))) + marks_of(*reply, item),
                    dim(ago(time_of(field("received_at")), now)),
                    readable ? harmless(body->text)
                             : dim("(unreadable: " + harmless(field("body_missing")) + ")")});
  });
  print_table(rows);
  return 0;
}

void declare_inbox_flush(CLI::App& app) {
  declare_mesh_option(app, g_options.mesh);
  app.add_option("--before", g_options.before,
                 "Only what came before this date or time (ISO 8601)");
  app.add_flag("--all", g_options.all, "Everything");
}

int run_inbox_flush() {
  if (g_options.mesh.empty() && g_options.before.empty() && !g_options.all) {
    return report(fail(Err::kUsage, "name --mesh or --before, or say --all"));
  }
  const auto reply = daemon_call("DELETE", Target("/v1/inbox")
                                               .add("mesh", g_options.mesh)
                                               .add("before", time_or_date(g_options.before))
                                               .add("all", g_options.all ? "true" : "")
                                               .text());
  if (!reply) return report(reply.error());
  const wire::JsonNode* removed = reply->tape.find("removed");
  const std::int64_t count = removed == nullptr ? 0 : removed->integer;
  if (output().json) {
    print("{\"ok\":true,\"removed\":" + std::to_string(count) + "}");
  } else {
    say_done("removed " + std::to_string(count) + " messages");
  }
  return 0;
}

void declare_inbox_delete(CLI::App& app) {
  app.add_option("id", g_options.id, "Id of the message, as 'inbox --json' shows it")->required();
}

int run_inbox_delete() {
  const auto reply = daemon_call("DELETE", Target("/v1/inbox").part(g_options.id).text());
  if (!reply) return report(reply.error(), kSeeInbox);
  if (output().json) {
    print(reply->body);
  } else {
    say_done("removed " + harmless(g_options.id));
  }
  return 0;
}

void declare_message_status(CLI::App& app) {
  app.add_option("id", g_options.id,
                 "What 'send' printed, the broker's id, or at least 8 characters of its beginning")
      ->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_message_status() {
  const auto reply = daemon_call(
      "GET",
      Target("/v1/message/status").add("id", g_options.id).add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error(), kSeeOutbox);
  if (output().json) {
    print(reply->body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  const auto chain = [&](const wire::JsonNode& object, std::string_view key,
                         std::string_view word) {
    const std::string_view time = text_of(reply->tape, object, key);
    if (!time.empty()) rows.push_back({std::string(word), dim(ago(time_of(time), now_ms()))});
  };
  const wire::JsonNode* outbox = reply->tape.find("outbox");
  if (outbox != nullptr && outbox->type == wire::JsonType::kObject) {
    chain(*outbox, "accepted_at", "accepted by this daemon");
    chain(*outbox, "stored_at", "stored at the broker");
    const std::string_view error = text_of(reply->tape, *outbox, "last_error");
    if (!error.empty()) rows.push_back({"last error", harmless(error)});
  }
  const wire::JsonNode* message = reply->tape.find("message");
  if (message != nullptr && message->type == wire::JsonType::kObject) {
    const wire::JsonNode* recipients = reply->tape.find(*message, "recipients");
    if (recipients != nullptr && recipients->type == wire::JsonType::kArray) {
      each_of(*reply, *recipients, [&](const wire::JsonNode& recipient) {
        const auto field = [&](std::string_view key) {
          return text_of(reply->tape, recipient, key);
        };
        const std::string_view state = field("state").empty() ? field("status") : field("state");
        rows.push_back(
            {bold(harmless(field("name"))) + ": " + std::string(state),
             harmless(field("reason")) +
                 (field("endedAt").empty() ? "" : dim(ago(time_of(field("endedAt")), now_ms())))});
      });
    }
  }
  print_table(rows);
  return 0;
}

void declare_outbox_list(CLI::App& app) {
  app.add_option("--status", g_options.status, "pending, inflight, done, dead or aborted")
      ->check(CLI::IsMember({"pending", "inflight", "done", "dead", "aborted"}));
  app.add_option("--limit", g_options.limit, "At most so many, newest first")
      ->check(CLI::Range(1, 500))
      ->capture_default_str();
}

int run_outbox_list() {
  const auto reply = daemon_call("GET", Target("/v1/outbox")
                                            .add("limit", std::to_string(g_options.limit))
                                            .add("status", g_options.status)
                                            .text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print(reply->body);
    return 0;
  }
  const wire::JsonNode* items = array_of(*reply, "items");
  if (items == nullptr || items->count == 0) {
    say("no messages");
    return 0;
  }
  const std::uint64_t now = now_ms();
  std::vector<std::vector<std::string>> rows;
  each_of(*reply, *items, [&](const wire::JsonNode& item) {
    const auto field = [&](std::string_view key) { return text_of(reply->tape, item, key); };
    rows.push_back({bold(field("status")), std::string(field("client_message_id")),
                    dim(ago(time_of(field("enqueued_at")), now)),
                    std::string(field("target").substr(0, 16)) + "…",
                    harmless(field("last_error"))});
  });
  print_table(rows);
  return 0;
}

}  // namespace cm::cli
