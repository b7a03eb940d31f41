// send.cc — send: to a peer, a group or everybody, or with --self to one's own other sessions.
// Holds:  one call to the daemon for a message; what it answers is durable. One's own member key
//         is refused without --self: nobody sends to oneself by accident.
// Source: spec/cli.md §9; spec/ipc.md §5.
// Not:    who a name is (core/daemon/resolve.cc).
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cctype>

#include "cli/config.h"
#include "cli/hints.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string to, mesh, priority = "next", id, reply_to;
  std::vector<std::string> words;
  bool self = false;
} g_options;

constexpr std::string_view kVia = "\"via\":\"daemon\"";
constexpr std::size_t kPrefixLeast = 16;

struct Sent {
  std::string pubkey, message_id;
  Status outcome;
};

Result<Reply> post_send(const std::string& to, const std::string& mesh, const std::string& id) {
  ScratchArena scratch;
  TextBuf body(scratch, 4096);
  wire::JsonWriter json(body);
  json.begin_object().field("to", to).field("message", joined(g_options.words));
  json.field("priority", g_options.priority).optional_field("mesh", mesh);
  json.optional_field("client_message_id", id);
  json.optional_field("reply_to_id", g_options.reply_to).end_object();
  return daemon_call("POST", "/v1/send", body.view());
}

// The mesh in which the target is this member's own key, or null.
const Mesh* own_mesh(const ConfigFile& config) {
  std::string to = g_options.to;
  std::transform(to.begin(), to.end(), to.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (to.size() < kPrefixLeast) return nullptr;
  for (const Mesh& mesh : config.meshes) {
    const bool asked =
        g_options.mesh.empty() || g_options.mesh == mesh.slug || g_options.mesh == mesh.mesh_id;
    if (asked && mesh.pubkey.starts_with(to)) return &mesh;
  }
  return nullptr;
}

// Keys of the member's sessions, this one left out.
Result<std::vector<std::string>> sibling_sessions(const Mesh& mesh) {
  const auto reply = daemon_call("GET", Target("/v1/peers").add("mesh", mesh.slug).text());
  if (!reply) return reply.error();
  const char* here = std::getenv("CLAUDEMESH_SESSION_ID");
  std::vector<std::string> keys;
  if (const wire::JsonNode* peers = array_of(*reply, "peers"); peers != nullptr) {
    each_of(*reply, *peers, [&](const wire::JsonNode& peer) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, peer, key); };
      const bool own = field("memberPubkey") == mesh.pubkey && field("pubkey") != mesh.pubkey;
      if (!own || field("peerRole") == "control-plane") return;
      if (here != nullptr && field("sessionId") == here) return;
      keys.emplace_back(field("pubkey"));
    });
  }
  if (keys.empty()) return fail(Err::kNotFound, "no other session of yours is connected");
  return keys;
}

int print_fanout(const std::vector<Sent>& all) {
  const bool good = std::all_of(all.begin(), all.end(),
                                [](const Sent& sent) { return static_cast<bool>(sent.outcome); });
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch, 1024);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", good).key("fanout").begin_array();
    for (const Sent& sent : all) {
      json.begin_object().field("pubkey", sent.pubkey).field("ok", static_cast<bool>(sent.outcome));
      json.optional_field("messageId", sent.message_id);
      if (!sent.outcome) {
        json.field("error", info_of(sent.outcome.code()).wire_code);
        json.field("detail", sent.outcome.error().detail);
      }
      json.end_object();
    }
    json.end_array().members(kVia).end_object();
    print_json(text.view());
    return good ? 0 : 1;
  }
  for (const Sent& sent : all) {
    const std::string who = "session " + sent.pubkey.substr(0, 16) + "…";
    if (sent.outcome) {
      say_done("accepted for " + who + "  " + dim(sent.message_id));
    } else {
      report(fail(sent.outcome.code(), who + ": " + sent.outcome.error().detail));
    }
  }
  return good ? 0 : 1;
}

int send_to_self(const Mesh& mesh) {
  const auto keys = sibling_sessions(mesh);
  if (!keys) return report_as({}, keys.error(), kVia);
  std::vector<Sent> all;
  for (const std::string& key : *keys) {
    // Each is a message of its own: a retry with the same --id repeats none of them.
    const std::string id = g_options.id.empty() ? "" : g_options.id + "-" + key.substr(0, 8);
    const auto reply = post_send(key, mesh.slug, id);
    Sent sent{key, {}, {}};
    if (reply) {
      sent.message_id = reply->text("client_message_id");
    } else {
      sent.outcome = reply.error();
    }
    all.push_back(std::move(sent));
  }
  return print_fanout(all);
}

// Without --mesh every mesh was asked: naming one would not help who is in none. A whole key needs
// no list to be sent to, and then the mesh is what is missing.
Error none_has_it(const Error& error) {
  const std::string& to = g_options.to;
  const bool asked_all = error.code == Err::kMeshRequired && !to.starts_with('@') && to != "*";
  if (!asked_all || wire::is_hex_key(to)) return error;
  return fail(Err::kNotFound, "no joined mesh has " + harmless(to));
}

int print_sent(const Reply& reply) {
  const std::string_view id = reply.text("client_message_id");
  const bool duplicate = reply.boolean("duplicate");
  const wire::JsonNode* online = reply.tape.find("recipient_online");
  const bool known = online != nullptr && online->type == wire::JsonType::kBool;
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", true).field("messageId", id).field("target", g_options.to);
    json.members(kVia).field("duplicate", duplicate).field("status", reply.text("status"));
    json.key("recipientOnline");
    if (known) {
      json.boolean(online->boolean);
    } else {
      json.null();  // more than one peer, or no list of them is here
    }
    json.optional_field("brokerMessageId", reply.text("broker_message_id")).end_object();
    print_json(text.view());
    return 0;
  }
  const std::string where = !known ? "" : online->boolean ? " (online)" : " (away: queued)";
  if (output().quiet) {
    print(id);
    return 0;
  }
  say_done((duplicate ? "already sent to " : "accepted for ") + harmless(g_options.to) + where +
           "  " + dim(id));
  if (is_plain_target(g_options.to)) say_plain(g_options.to);
  return 0;
}

}  // namespace

void declare_send(CLI::App& app) {
  app.add_option(
         "to", g_options.to,
         "A peer's name, key, or 16 or more digits of the key; '@GROUP', '#TOPIC', or '*' for all")
      ->required();
  app.add_option("message", g_options.words, "The message")->required();
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh");
  app.add_option("--priority", g_options.priority, "now, next or low")
      ->check(CLI::IsMember({"now", "next", "low"}))
      ->capture_default_str();
  app.add_option("--id", g_options.id, "client_message_id, to make a retry safe");
  app.add_option("--reply-to", g_options.reply_to, "Id of the message that this answers");
  app.add_flag("--self", g_options.self, "With your own key: to each of your other sessions");
}

int run_send() {
  const auto config = load_config();
  if (!config) return report_as({}, config.error(), kVia);
  if (const Mesh* own = own_mesh(*config); own != nullptr) {
    if (g_options.self) return send_to_self(*own);
    return report_as({},
                     fail(Err::kInvalidArgument,
                          "this is your own key; with --self the message goes to your other "
                          "sessions"),
                     kVia);
  }
  if (g_options.self) say("warning: --self is for your own key; it does nothing here");
  const auto reply = post_send(g_options.to, g_options.mesh, g_options.id);
  if (!reply) {
    return report_as({}, none_has_it(reply.error()), kVia, hint_for_target(g_options.to));
  }
  return print_sent(*reply);
}

}  // namespace cm::cli
