// message_status.cc — message status: how far a message has come; message explain: who says so.
// Holds:  every id that `send` has printed is taken; the answer's members are the broker's at the
//         top, and what this machine's outbox knows under `outbox`. A receipt whose signature does
//         not verify is never shown as one.
// Source: spec/cli.md §9; spec/wire.md §5.6; docs/PROTOCOL.md §10.3; design/delivery.md, promise 8.
// Not:    finding the message (core/daemon/routes_message.cc), signatures (core/daemon/chain.cc).
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
#include "core/wire/limits.h"

namespace cm::cli {
namespace {

struct {
  std::string id, mesh;
} g_options;

constexpr std::size_t kPrefixLeast = 8;
constexpr std::size_t kWholeId = 32;  // of the reference's broker
constexpr std::size_t kOurId = 26;

const wire::JsonNode* object_of(const Reply& reply, std::string_view key) {
  const wire::JsonNode* node = reply.tape.find(key);
  return node != nullptr && node->type == wire::JsonType::kObject ? node : nullptr;
}

int refuse_id(std::string_view code, const std::string& reason) {
  ScratchArena scratch;
  TextBuf more(scratch);
  wire::JsonWriter json(more);
  json.field("field", "id").field("code", code).field("reason", reason);
  json.field("expected", "an id that 'send' printed, or 8 to 32 characters of [0-9A-Za-z]");
  return report_as({}, fail(Err::kInvalidArgument, "the id: " + reason), more.view());
}

int report_failure(const Error& error) {
  if (error.code != Err::kNotFound) return report(error);
  const std::string& id = g_options.id;
  if (id.size() < kPrefixLeast) {
    return refuse_id("too_short", "nothing was sent under it, and a broker's id is longer");
  }
  const bool whole = id.size() == kOurId || id.size() >= kWholeId;
  ScratchArena scratch;
  TextBuf more(scratch);
  wire::JsonWriter json(more);
  json.field("id", id).field("isPrefix", !whole && wire::is_broker_id(id));
  return report_as({}, error, more.view(), kSeeOutbox);
}

// What no broker was told yet has the members that it would have.
void print_status(const Reply& reply) {
  const wire::JsonNode* outbox = object_of(reply, "outbox");
  const wire::JsonNode* message = object_of(reply, "message");
  ScratchArena scratch;
  TextBuf text(scratch, 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("id", reply.text("id"));
  if (message != nullptr) {
    json.members(message->text.substr(1, message->text.size() - 2));
  } else {
    const auto own = [&](std::string_view key) {
      return outbox == nullptr ? std::string_view{} : text_of(reply.tape, *outbox, key);
    };
    const std::string_view broker_id = own("broker_message_id");
    json.field("messageId", broker_id.empty() ? own("client_message_id") : broker_id);
    json.field("targetSpec", own("target")).field("delivered", false).key("deliveredAt").null();
    json.key("recipients").begin_array().end_array().field("mesh", own("mesh"));
  }
  if (outbox != nullptr) json.key("outbox").raw(outbox->text);
  if (const wire::JsonNode* errors = array_of(reply, "errors"); errors != nullptr) {
    json.key("errors").raw(errors->text);
  }
  json.end_object();
  print_json(text.view());
}

// What is said of `handed`, by the verdict of the daemon.
std::string handed_word(std::string_view verdict, std::string_view why) {
  if (verdict == "valid") return "handed (signed)";
  if (verdict == "unchecked") return "handed (signed, not checked: " + harmless(why) + ")";
  return "handed (unsigned)";
}

using Rows = std::vector<std::vector<std::string>>;

void add_recipient(const Reply& reply, const wire::JsonNode& recipient, Rows& rows) {
  const auto field = [&](std::string_view key) { return text_of(reply.tape, recipient, key); };
  const std::uint64_t now = now_ms();
  const bool invalid = field("signature") == "invalid";
  std::string last(field("state").empty() ? field("status") : field("state"));
  Rows chain;
  const wire::JsonNode* links = reply.tape.find(recipient, "chain");
  if (links != nullptr && links->type == wire::JsonType::kArray) {
    each_of(reply, *links, [&](const wire::JsonNode& link) {
      const std::string_view state = text_of(reply.tape, link, "state");
      const std::string_view at = text_of(reply.tape, link, "at");
      const std::string_view reason = text_of(reply.tape, link, "reason");
      std::string word = state == "handed" ? handed_word(field("signature"), field("signatureWhy"))
                                           : harmless(state);
      if (!reason.empty()) word += ": " + harmless(reason);
      if (state != "accepted") last = word;
      chain.push_back({"  " + word, at.empty() ? "" : dim(ago(time_of(at), now))});
    });
  }
  if (invalid) {
    last = "handed (SIGNATURE INVALID)";
    chain.push_back({"  " + last, "the broker says so, and the recipient did not sign it"});
  }
  rows.push_back({bold(harmless(field("name"))) + ": " + harmless(last), ""});
  rows.insert(rows.end(), chain.begin(), chain.end());
}

// From the daemon, or the exit status of what was reported instead.
Result<Reply> ask_about(std::string_view path, int& status) {
  status = 0;
  const std::string& id = g_options.id;
  if (id.empty()) {
    status = refuse_id("missing", "it is empty");
  } else if (id.size() > wire::kClientIdMax) {
    status = refuse_id("too_long",
                       "it has more than " + std::to_string(wire::kClientIdMax) + " characters");
  } else if (!wire::is_client_id(id)) {
    status = refuse_id("bad_character", "it has other characters than printable ASCII");
  }
  if (status != 0) return fail(Err::kInvalidArgument);
  auto reply = daemon_call("GET", Target(path).add("id", id).add("mesh", g_options.mesh).text());
  if (!reply) status = report_failure(reply.error());
  return reply;
}

}  // namespace

void declare_message_status(CLI::App& app) {
  app.add_option("id", g_options.id,
                 "What 'send' printed, the broker's id, or at least 8 characters of its beginning")
      ->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_message_status() {
  int status = 0;
  const auto reply = ask_about("/v1/message/status", status);
  if (!reply) return status;
  if (output().json) {
    print_status(*reply);
    return 0;
  }
  Rows rows;
  const wire::JsonNode* message = object_of(*reply, "message");
  const wire::JsonNode* recipients =
      message == nullptr ? nullptr : reply->tape.find(*message, "recipients");
  const bool listed =
      recipients != nullptr && recipients->type == wire::JsonType::kArray && recipients->count != 0;
  if (const wire::JsonNode* outbox = object_of(*reply, "outbox"); outbox != nullptr) {
    const auto own = [&](std::string_view key) { return text_of(reply->tape, *outbox, key); };
    const auto link = [&](std::string_view key, std::string_view word) {
      if (own(key).empty()) return;
      rows.push_back({std::string(word), dim(ago(time_of(own(key)), now_ms()))});
    };
    if (!listed) {
      link("accepted_at", "accepted by this daemon");
      link("stored_at", "stored at the broker");
    }
    const std::string_view state = own("status");
    if (state != "done") rows.push_back({"outbox", harmless(state)});
    if (!own("last_error").empty()) rows.push_back({"last error", harmless(own("last_error"))});
  }
  if (listed) {
    each_of(*reply, *recipients,
            [&](const wire::JsonNode& recipient) { add_recipient(*reply, recipient, rows); });
  }
  print_table(rows);
  warn_of_errors(*reply);
  return 0;
}

int run_message_explain() {
  int status = 0;
  const auto reply = ask_about("/v1/message/explain", status);
  if (!reply) return status;
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  Rows rows;
  if (const wire::JsonNode* list = array_of(*reply, "rows"); list != nullptr) {
    each_of(*reply, *list, [&](const wire::JsonNode& row) {
      const auto field = [&](std::string_view key) {
        return harmless(text_of(reply->tape, row, key));
      };
      rows.push_back({field("where"), bold(field("table")), field("key"), field("says")});
    });
  }
  print_table(rows);
  print("next: " + harmless(reply->text("next")));
  warn_of_errors(*reply);
  return 0;
}

}  // namespace cm::cli
