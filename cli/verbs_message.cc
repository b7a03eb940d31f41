// verbs_message.cc — send, inbox, outbox list: each is one call to the daemon.
// Source: spec/cli.md §9; spec/ipc.md §5, §7, §8.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/http.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "core/base/time_text.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string to, mesh, priority = "next", id, reply_to, status, from;
  std::vector<std::string> words;
  int limit = 20;
  bool unread = false;
  bool keep_unread = false;
} g_options;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '-' || c == '_' || c == '.';
    if (plain) {
      out += c;
    } else {
      char escape[4];
      std::snprintf(escape, sizeof escape, "%%%02X", static_cast<unsigned char>(c));
      out += escape;
    }
  }
  return out;
}

void add_parameter(std::string& target, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  target += target.find('?') == std::string::npos ? '?' : '&';
  target += std::string(name) + "=" + percent_encoded(value);
}

std::uint64_t time_of(std::string_view iso) { return iso_parse(iso).value_or(0); }

// The array of that name, or null.
const wire::JsonNode* items_of(const Reply& reply) {
  const wire::JsonNode* items = reply.tape.find("items");
  return items != nullptr && items->type == wire::JsonType::kArray ? items : nullptr;
}

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
  if (!reply) return report(reply.error());
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
  say_done((duplicate ? "already sent to " : "accepted for ") + harmless(g_options.to) + "  " +
           dim(id));
  return 0;
}

void declare_inbox(CLI::App& app) {
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh");
  app.add_option("--from", g_options.from, "Key of a sender");
  app.add_option("--limit", g_options.limit, "At most so many, newest first")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--unread", g_options.unread, "Only what was not seen before");
  app.add_flag("--keep-unread", g_options.keep_unread, "Do not mark anything as seen");
}

int run_inbox() {
  std::string target = "/v1/inbox?limit=" + std::to_string(g_options.limit);
  add_parameter(target, "mesh", g_options.mesh);
  add_parameter(target, "from", g_options.from);
  if (g_options.unread) target += "&unread_only=true";
  if (g_options.keep_unread) target += "&mark_seen=false";
  const auto reply = daemon_call("GET", target);
  if (!reply) return report(reply.error());
  const wire::JsonNode* items = items_of(*reply);
  if (items == nullptr) return report(fail(Err::kTransport, "the reply has no items"));
  if (output().json) {
    print(items->text);
    return 0;
  }
  if (items->count == 0) say("no messages");
  const std::uint64_t now = now_ms();
  std::vector<std::vector<std::string>> rows;
  for (std::uint32_t at = reply->tape.first(*items); at < items->next;
       at = reply->tape.at(at).next) {
    const wire::JsonNode& item = reply->tape.at(at);
    const auto field = [&](std::string_view key) { return text_of(reply->tape, item, key); };
    const bool unread = field("seen_at").empty();
    const wire::JsonNode* body = reply->tape.find(item, "body");
    const bool readable = body != nullptr && body->type == wire::JsonType::kText;
    rows.push_back({unread ? "●" : "○", bold(harmless(field("sender_name"))),
                    dim(ago(time_of(field("received_at")), now)),
                    readable ? harmless(body->text)
                             : dim("(unreadable: " + harmless(field("body_missing")) + ")")});
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
  std::string target = "/v1/outbox?limit=" + std::to_string(g_options.limit);
  add_parameter(target, "status", g_options.status);
  const auto reply = daemon_call("GET", target);
  if (!reply) return report(reply.error());
  if (output().json) {
    print(reply->body);
    return 0;
  }
  const wire::JsonNode* items = items_of(*reply);
  if (items == nullptr || items->count == 0) {
    say("no messages");
    return 0;
  }
  const std::uint64_t now = now_ms();
  std::vector<std::vector<std::string>> rows;
  for (std::uint32_t at = reply->tape.first(*items); at < items->next;
       at = reply->tape.at(at).next) {
    const wire::JsonNode& item = reply->tape.at(at);
    const auto field = [&](std::string_view key) { return text_of(reply->tape, item, key); };
    rows.push_back({bold(field("status")), std::string(field("client_message_id")),
                    dim(ago(time_of(field("enqueued_at")), now)),
                    std::string(field("target").substr(0, 16)) + "…",
                    harmless(field("last_error"))});
  }
  print_table(rows);
  return 0;
}

}  // namespace cm::cli
