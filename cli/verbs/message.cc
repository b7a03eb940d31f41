// message.cc — inbox, inbox flush, inbox delete, outbox list.
// Holds:  each is one call to the daemon. `flush` deletes nothing without a filter or --all.
// Source: spec/cli.md §9, §16; spec/ipc.md §7, §8.
// Not:    sending (send.cc), what became of a message (message_status.cc).
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
  std::string mesh, id, status, before;
  std::optional<std::string> from, topic;
  bool failed = false, pending = false, inflight = false, done = false, aborted = false;
  int limit = 100;
  int outbox_limit = 50;
  bool unread = false;
  bool keep_unread = false;
  bool all = false;
} g_options;

constexpr int kFlushWithoutFilter = 1;  // spec/cli.md §9

// The word that scripts know for a daemon that is not there.
int report_unreachable(const Error& error, std::string_view when_not_found = {}) {
  const bool away = error.code == Err::kUnavailable;
  return report_as(away ? "daemon_unreachable" : std::string_view{}, error, {}, when_not_found);
}

}  // namespace

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

// What was shown, and is out of our hands, has been seen.
int mark_seen(const Reply& reply, const wire::JsonNode& items) {
  if (g_options.keep_unread) return 0;
  if (!flush_output()) return 0;  // main() says it
  ScratchArena scratch;
  TextBuf body(scratch, 4096);
  wire::JsonWriter json(body);
  bool any = false;
  json.begin_object().key("ids").begin_array();
  each_of(reply, items, [&](const wire::JsonNode& item) {
    if (!text_of(reply.tape, item, "seen_at").empty()) return;
    json.text(text_of(reply.tape, item, "id"));
    any = true;
  });
  json.end_array().end_object();
  if (!any) return 0;
  const auto marked = daemon_call("POST", "/v1/inbox/seen", body.view());
  if (marked) return 0;
  say("warning: the messages above are still unread: " + harmless(marked.error().detail));
  return info_of(marked.code()).exit_code;
}

void show_items(const Reply& reply, const wire::JsonNode& items) {
  if (items.count == 0) say("no messages");
  const std::uint64_t now = now_ms();
  std::vector<std::vector<std::string>> rows;
  each_of(reply, items, [&](const wire::JsonNode& item) {
    const auto field = [&](std::string_view key) { return text_of(reply.tape, item, key); };
    const bool unread = field("seen_at").empty();
    const wire::JsonNode* body = reply.tape.find(item, "body");
    const bool readable = body != nullptr && body->type == wire::JsonType::kText;
    rows.push_back({unread ? "●" : "○",
                    bold(harmless(field("sender_name"))) + marks_of(reply, item),
                    dim(ago(time_of(field("received_at")), now)),
                    readable ? harmless(body->text)
                             : dim("(unreadable: " + harmless(field("body_missing")) + ")")});
  });
  print_table(rows);
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
                            .add("mark_seen", "false");
  const auto reply = daemon_call("GET", target.text());
  if (!reply) return report(reply.error());
  const wire::JsonNode* items = array_of(*reply, "items");
  if (items == nullptr) return report(fail(Err::kTransport, "the reply has no items"));
  if (items->count == 0 && g_options.topic) {
    if (Status found = check_topic(); !found) return report(found.error(), kSeeTopics);
  }
  if (output().json) {
    print_json(items->text);
  } else {
    show_items(*reply, *items);
  }
  return mark_seen(*reply, *items);
}

void declare_inbox_flush(CLI::App& app) {
  declare_mesh_option(app, g_options.mesh);
  app.add_option("--before", g_options.before,
                 "Only what came before this date or time (ISO 8601)");
  app.add_flag("--all", g_options.all, "Everything");
}

int run_inbox_flush() {
  if (g_options.mesh.empty() && g_options.before.empty() && !g_options.all) {
    report_as("missing_filter", fail(Err::kUsage, "name --mesh or --before, or say --all"), {});
    return kFlushWithoutFilter;
  }
  const auto reply = daemon_call("DELETE", Target("/v1/inbox")
                                               .add("mesh", g_options.mesh)
                                               .add("before", time_or_date(g_options.before))
                                               .add("all", g_options.all ? "true" : "")
                                               .text());
  if (!reply) return report_unreachable(reply.error());
  const wire::JsonNode* removed = reply->tape.find("removed");
  const std::int64_t count = removed == nullptr ? 0 : removed->integer;
  if (output().json) {
    print_json("{\"ok\":true,\"removed\":" + std::to_string(count) + "}");
  } else {
    say_done("removed " + std::to_string(count) + " messages");
  }
  return 0;
}

void declare_inbox_delete(CLI::App& app) {
  app.add_option("id", g_options.id, "Id of the message, as 'inbox --json' shows it");
}

int run_inbox_delete() {
  if (g_options.id.empty()) {
    return report_as("missing_id", fail(Err::kUsage, "name the message by its id"), {});
  }
  const auto reply = daemon_call("DELETE", Target("/v1/inbox").part(g_options.id).text());
  if (!reply) {
    Error error = reply.error();
    if (error.code == Err::kNotFound) error.detail = "no message has the id " + g_options.id;
    return report_unreachable(error, kSeeInbox);
  }
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter(text).begin_object().field("ok", true).field("id", g_options.id).end_object();
    print_json(text.view());
  } else {
    say_done("removed " + harmless(g_options.id));
  }
  return 0;
}

void declare_outbox_list(CLI::App& app) {
  app.add_option("--status", g_options.status, "pending, inflight, done, dead or aborted")
      ->check(CLI::IsMember({"pending", "inflight", "done", "dead", "aborted"}));
  app.add_flag("--pending", g_options.pending, "Only what waits");
  app.add_flag("--inflight", g_options.inflight, "Only what is being sent");
  app.add_flag("--done", g_options.done, "Only what the broker has");
  app.add_flag("--failed", g_options.failed, "Only what was given up (dead)");
  app.add_flag("--aborted", g_options.aborted, "Only what was aborted");
  app.add_option("--limit", g_options.outbox_limit, "At most so many, newest first")
      ->check(CLI::Range(1, 500))
      ->capture_default_str();
}

int run_outbox_list() {
  const std::pair<bool, const char*> flags[] = {{g_options.pending, "pending"},
                                                {g_options.inflight, "inflight"},
                                                {g_options.done, "done"},
                                                {g_options.failed, "dead"},
                                                {g_options.aborted, "aborted"}};
  for (const auto& [given, status] : flags) {
    if (!given) continue;
    if (!g_options.status.empty() && g_options.status != status) {
      return report(fail(Err::kUsage, "one status at a time"));
    }
    g_options.status = status;
  }
  const auto reply = daemon_call("GET", Target("/v1/outbox")
                                            .add("limit", std::to_string(g_options.outbox_limit))
                                            .add("status", g_options.status)
                                            .text());
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
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
  if (rows.size() == static_cast<std::size_t>(g_options.outbox_limit)) {
    say("the newest " + std::to_string(rows.size()) + "; --limit shows more");
  }
  return 0;
}

}  // namespace cm::cli
