// message_status.cc — message status: how far a message has come.
// Holds:  every id that `send` has printed is taken; the answer's members are the broker's at the
//         top, and what this machine's outbox knows under `outbox`.
// Source: spec/cli.md §9; spec/wire.md §5.6; docs/PROTOCOL.md §10.3.
// Not:    finding the message (core/daemon/routes_outbox.cc).
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

}  // namespace

void declare_message_status(CLI::App& app) {
  app.add_option("id", g_options.id,
                 "What 'send' printed, the broker's id, or at least 8 characters of its beginning")
      ->required();
  declare_mesh_option(app, g_options.mesh);
}

int run_message_status() {
  if (g_options.id.empty()) return refuse_id("missing", "it is empty");
  if (g_options.id.size() > wire::kClientIdMax) {
    return refuse_id("too_long",
                     "it has more than " + std::to_string(wire::kClientIdMax) + " characters");
  }
  if (!wire::is_client_id(g_options.id)) {
    return refuse_id("bad_character", "it has other characters than printable ASCII");
  }
  const auto reply = daemon_call(
      "GET",
      Target("/v1/message/status").add("id", g_options.id).add("mesh", g_options.mesh).text());
  if (!reply) return report_failure(reply.error());
  if (output().json) {
    print_status(*reply);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  const auto chain = [&](const wire::JsonNode& object, std::string_view key,
                         std::string_view word) {
    const std::string_view time = text_of(reply->tape, object, key);
    if (!time.empty()) rows.push_back({std::string(word), dim(ago(time_of(time), now_ms()))});
  };
  if (const wire::JsonNode* outbox = object_of(*reply, "outbox"); outbox != nullptr) {
    chain(*outbox, "accepted_at", "accepted by this daemon");
    chain(*outbox, "stored_at", "stored at the broker");
    const std::string_view error = text_of(reply->tape, *outbox, "last_error");
    if (!error.empty()) rows.push_back({"last error", harmless(error)});
  }
  if (const wire::JsonNode* message = object_of(*reply, "message"); message != nullptr) {
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

}  // namespace cm::cli
