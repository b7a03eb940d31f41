// outbox.cc — outbox inspect, requeue, drop, prune: an operator's hands on what was sent.
// Holds:  each is one call to the daemon and ends with one sentence that says what happened. An id
//         is taken as people have it: whole, its beginning, or its last 8 characters.
// Source: spec/cli.md §16; design/delivery.md, "Outbox: states"; docs/PROTOCOL.md §10.3.
// Not:    outbox list (message.cc), which rows may change how (docs/OUTBOX.md).
#include <fcntl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iterator>
#include <optional>

#include "cli/files.h"
#include "cli/hints.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/base/utf8.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string id, new_id, patch_file, older_than;
  bool automatic = false, dry_run = false;
  std::vector<std::string> states;
} g_options;

constexpr std::size_t kPatchMax = 1 << 20;  // what the daemon takes in one request
constexpr std::uint32_t kPruneMs = 600'000;

void declare_id(CLI::App& app) {
  app.add_option("id", g_options.id,
                 "The message's id, the broker's, the beginning of one, or its last 8 characters")
      ->required();
}

// A file, or with "-" what is on standard input.
Result<std::string> read_patch(const std::string& path) {
  if (path != "-") return read_file(path, kPatchMax);
  std::string text;
  char chunk[16'384];
  for (;;) {
    const ssize_t size = ::read(STDIN_FILENO, chunk, sizeof chunk);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(Err::kIo, std::string("standard input: ") + std::strerror(errno));
    if (size == 0) return text;
    text.append(chunk, static_cast<std::size_t>(size));
    if (text.size() > kPatchMax) return fail(Err::kTooBig, "standard input: at most 1 MiB");
  }
}

// "7d", "12h", "30m", "90s".
std::optional<std::int64_t> seconds_of(std::string_view text) {
  constexpr struct {
    char unit;
    std::int64_t seconds;
  } kUnits[] = {{'s', 1}, {'m', 60}, {'h', 3'600}, {'d', 86'400}};
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr + 1 != end || number < 0 || number > 100'000) {
    return std::nullopt;
  }
  for (const auto& each : kUnits) {
    if (*parsed.ptr == each.unit) return number * each.seconds;
  }
  return std::nullopt;
}

std::int64_t number_of(const Reply& reply, const wire::JsonNode& object, std::string_view key) {
  const wire::JsonNode* node = reply.tape.find(object, key);
  return node != nullptr && node->type == wire::JsonType::kInteger ? node->integer : 0;
}

bool is_true(const Reply& reply, const wire::JsonNode& object, std::string_view key) {
  const wire::JsonNode* node = reply.tape.find(object, key);
  return node != nullptr && node->type == wire::JsonType::kBool && node->boolean;
}

std::string when(const Reply& reply, std::string_view key) {
  const std::string_view time = reply.text(key);
  if (time.empty()) return {};
  return std::string(time) + " " + dim("(" + ago(time_of(time), now_ms()) + ")");
}

// Lines without a value are left out.
void print_facts(const Reply& reply) {
  const auto field = [&](std::string_view key) { return harmless(reply.text(key)); };
  const wire::JsonNode& root = reply.tape.root();
  const bool tombstone = reply.boolean("tombstone");
  std::string bytes;
  if (!tombstone) {
    bytes = std::to_string(number_of(reply, root, "payload_bytes")) + " bytes, " +
            std::to_string(number_of(reply, root, "ciphertext_bytes")) + " as they are sent";
  }
  std::string lane;
  if (const wire::JsonNode* node = reply.tape.find("lane");
      node != nullptr && node->type == wire::JsonType::kObject) {
    lane = "number " + std::to_string(number_of(reply, *node, "position")) + " of " +
           std::to_string(number_of(reply, *node, "length")) + ", waits for " +
           harmless(text_of(reply.tape, *node, "waits_for"));
  }
  const std::vector<std::pair<const char*, std::string>> facts = {
      {"status", bold(field("status")) + (tombstone ? " (a tombstone: only its id is kept)" : "")},
      {"message id", field("client_message_id")},
      {"row", field("id")},
      {"broker id", field("broker_message_id")},
      {"mesh", field("mesh")},
      {"target", field("target")},
      {"priority", field("priority")},
      {"session", field("sender_session_pubkey")},
      {"reply to", field("reply_to_id")},
      {"body", bytes},
      {"attempts", tombstone ? "" : std::to_string(number_of(reply, root, "attempts"))},
      {"lane", lane},
      {"accepted", when(reply, "enqueued_at")},
      {"next attempt", field("next_attempt_at")},
      {"at the broker", when(reply, "delivered_at")},
      {"aborted", when(reply, "aborted_at")},
      {"aborted by", field("aborted_by")},
      {"ended", when(reply, "ended_at")},
      {reply.boolean("dropped") ? "dropped" : "shrunk", when(reply, "shrunk_at")},
      {"last error", field("last_error")},
      {"fingerprint", field("request_fingerprint_prefix") + "…"}};
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : facts) {
    if (!value.empty()) rows.push_back({dim(name), value});
  }
  print_table(rows);
}

void print_chain(const Reply& reply) {
  const wire::JsonNode* chain = array_of(reply, "chain");
  if (chain == nullptr || chain->count < 2) return;
  print("");
  print("attempts, oldest first:");
  std::vector<std::vector<std::string>> rows;
  each_of(reply, *chain, [&](const wire::JsonNode& link) {
    const auto field = [&](std::string_view key) {
      return harmless(text_of(reply.tape, link, key));
    };
    rows.push_back({is_true(reply, link, "this") ? "→" : " ", bold(field("status")),
                    field("client_message_id"), dim(ago(time_of(field("enqueued_at")), now_ms())),
                    field("last_error")});
  });
  print_table(rows);
}

}  // namespace

void declare_outbox_inspect(CLI::App& app) { declare_id(app); }

int run_outbox_inspect() {
  const auto reply = daemon_call("GET", Target("/v1/outbox").part(g_options.id).text());
  if (!reply) return report(reply.error(), kSeeOutbox);
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  print_facts(*reply);
  print_chain(*reply);
  return 0;
}

void declare_outbox_requeue(CLI::App& app) {
  declare_id(app);
  auto* const id = app.add_option("--new-client-id", g_options.new_id,
                                  "Id of the second attempt, 1 to 128 printable characters");
  app.add_flag("--auto", g_options.automatic, "Let the daemon make the id, as without either")
      ->excludes(id);
  app.add_option("--patch-payload", g_options.patch_file,
                 "Send this file's text instead, to the same target; '-' is standard input");
}

int run_outbox_requeue() {
  ScratchArena scratch;
  TextBuf body(scratch, 1024);
  wire::JsonWriter json(body);
  json.begin_object().field("id", g_options.id).field("aborted_by", "operator");
  json.optional_field("new_client_message_id", g_options.new_id);
  if (!g_options.patch_file.empty()) {
    const auto text = read_patch(g_options.patch_file);
    if (!text) return report(text.error());
    if (!utf8_valid(*text)) {
      return report(
          fail(Err::kInvalidArgument,
               "--patch-payload " + harmless(g_options.patch_file) + ": the text is not UTF-8"));
    }
    if (text->empty()) {
      return report(fail(Err::kInvalidArgument, "--patch-payload: the file is empty"));
    }
    json.field("patch_payload", *text);
  }
  json.end_object();
  const auto reply = daemon_call("POST", "/v1/outbox/requeue", body.view());
  if (!reply) {
    Error error = reply.error();
    if (error.code == Err::kNotFound || error.code == Err::kOutboxEnded) {
      error = fail(error.code, harmless(g_options.id) + ": " + error.detail);
    }
    return report(error, kSeeOutbox);
  }
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  say_done(harmless(reply->text("aborted_client_message_id")) + " is aborted; " +
           (reply->boolean("patched") ? "the new text" : "the same text") + " is on its way as " +
           harmless(reply->text("new_client_message_id")));
  if (reply->boolean("may_arrive_twice")) {
    say("the first attempt had been sent: if the broker took it, the recipient gets both");
  }
  return 0;
}

void declare_outbox_drop(CLI::App& app) { declare_id(app); }

int run_outbox_drop() {
  const auto reply = daemon_call("DELETE", Target("/v1/outbox").part(g_options.id).text());
  if (!reply) return report(reply.error(), kSeeOutbox);
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  const std::string id = harmless(reply->text("client_message_id"));
  const std::string status = harmless(reply->text("status"));
  say_done(reply->boolean("dropped")
               ? id + " (" + status + ") is dropped: its text is gone, its id stays taken"
               : id + " (" + status + ") was dropped before; nothing is left but its id");
  return 0;
}

void declare_outbox_prune(CLI::App& app) {
  app.add_option("--older-than", g_options.older_than,
                 "Only what ended so long ago: 7d, 12h, 30m or 90s");
  app.add_option("--state", g_options.states,
                 "done, dead or aborted, again for more; by default done and aborted, because "
                 "what is dead can be requeued")
      ->check(CLI::IsMember({"done", "dead", "aborted"}));
  app.add_flag("--dry-run", g_options.dry_run, "Count them; change nothing");
}

int run_outbox_prune() {
  std::int64_t seconds = 0;
  if (!g_options.older_than.empty()) {
    const auto age = seconds_of(g_options.older_than);
    if (!age) {
      return report(fail(Err::kInvalidArgument, "--older-than: expected 7d, 12h, 30m or 90s, got " +
                                                    harmless(g_options.older_than)));
    }
    seconds = *age;
  }
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("older_than_s", seconds).field("dry_run", g_options.dry_run);
  if (!g_options.states.empty()) {
    json.key("states").begin_array();
    for (const std::string& state : g_options.states) json.text(state);
    json.end_array();
  }
  json.end_object();
  std::optional<Progress> pruning("pruning the outbox");
  const auto reply = daemon_call("POST", "/v1/outbox/prune", body.view(), kPruneMs);
  pruning.reset();
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
    return 0;
  }
  const wire::JsonNode& root = reply->tape.root();
  const std::string what = counted(number_of(*reply, root, "shrunk"), "message") + " (" +
                           std::to_string(number_of(*reply, root, "payload_bytes")) +
                           " bytes of text)";
  if (g_options.dry_run) {
    say(what + " would be pruned; their ids stay taken");
  } else {
    say_done("pruned " + what + "; their ids stay taken");
  }
  return 0;
}

}  // namespace cm::cli
