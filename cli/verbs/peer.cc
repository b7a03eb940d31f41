// peer.cc — peer list, peer verify, and what others see of this member.
// Holds:  a daemon is a peer that nobody sits at: it is listed with --all only.
// Source: spec/cli.md §8; spec/wire.md §6.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdlib>

#include "cli/config.h"
#include "cli/hints.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/query.h"
#include "cli/verbs.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string mesh, peer;
  bool all = false;
} g_options;

struct Row {
  const wire::JsonNode* peer = nullptr;
  std::string_view mesh;
  bool is_self = false;          // of this member
  bool is_this_session = false;  // the one that this verb runs in
};

Row row_of(const ConfigFile& config, const Reply& reply, const wire::JsonNode& peer) {
  const auto field = [&](std::string_view key) { return text_of(reply.tape, peer, key); };
  const char* session = std::getenv("CLAUDEMESH_SESSION_ID");
  const Mesh* own = config.find(field("mesh"));
  Row row{&peer, field("mesh"), false, false};
  row.is_self = own != nullptr && own->pubkey == field("memberPubkey");
  row.is_this_session = row.is_self && session != nullptr && field("sessionId") == session;
  return row;
}

// "name" is what a person calls displayName.
bool is_wanted(std::string_view key) {
  const std::vector<std::string>& wanted = output().members;
  if (wanted.empty()) return true;
  return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
    return name == key || (name == "name" && key == "displayName");
  });
}

// The broker's members, and behind them ours; `role` lifts that of the profile.
void write_row(const Reply& reply, const Row& row, wire::JsonWriter& json) {
  const auto has = [&](std::string_view key) { return reply.tape.find(*row.peer, key) != nullptr; };
  json.begin_object();
  for (std::uint32_t at = reply.tape.first(*row.peer); at < row.peer->next;
       at = reply.tape.at(at).next) {
    const wire::JsonNode& member = reply.tape.at(at);
    if (member.key == "isSelf" || member.key == "isThisSession") continue;  // ours to say
    if (is_wanted(member.key)) json.key(member.key).value(member);
  }
  if (is_wanted("isSelf")) json.field("isSelf", row.is_self);
  if (is_wanted("isThisSession")) json.field("isThisSession", row.is_this_session);
  if (!has("peerRole") && is_wanted("peerRole")) json.field("peerRole", "session");
  const wire::JsonNode* profile = reply.tape.find(*row.peer, "profile");
  if (!has("role") && is_wanted("role")) {
    const bool known = profile != nullptr && profile->type == wire::JsonType::kObject;
    json.nullable_field("role", known ? text_of(reply.tape, *profile, "role") : "");
  }
  json.end_object();
}

// Of one mesh its rows; of several a list of meshes, also of those without a row.
void print_peers_json(const ConfigFile& config, const Reply& reply, const std::vector<Row>& rows) {
  ScratchArena scratch;
  TextBuf text(scratch, 8192);
  wire::JsonWriter json(text);
  json.begin_array();
  if (!g_options.mesh.empty() || config.meshes.size() <= 1) {
    for (const Row& row : rows) write_row(reply, row, json);
  } else {
    for (const Mesh& mesh : config.meshes) {
      json.begin_object().field("mesh", mesh.slug).key("peers").begin_array();
      for (const Row& row : rows) {
        if (row.mesh == mesh.slug) write_row(reply, row, json);
      }
      json.end_array().end_object();
    }
  }
  json.end_array();
  print_json(text.view());
}

void print_peers(const Reply& reply, const std::vector<Row>& rows, std::size_t hidden) {
  std::vector<std::vector<std::string>> table;
  for (const Row& row : rows) {
    const auto field = [&](std::string_view key) { return text_of(reply.tape, *row.peer, key); };
    table.push_back({"●", bold(harmless(field("displayName"))) + (row.is_self ? dim(" (you)") : ""),
                     std::string(field("pubkey").substr(0, 16)) + "…", std::string(field("status")),
                     dim(harmless(field("hostname"))), dim(field("mesh"))});
  }
  print_table(table);
  if (hidden != 0) {
    say((rows.empty() ? "no sessions; " : "") +
        counted(static_cast<std::int64_t>(hidden), "daemon") + " not shown, --all shows " +
        (hidden == 1 ? "it" : "them"));
  } else if (rows.empty()) {
    say("no peers; 'claudemesh daemon status' shows whether a broker is connected");
  }
}

// Of a member: one row, however many connections it has.
struct Verified {
  std::string mesh, name, key;
};

// A reply that has the array `peers`; which meshes it lacks is said.
Result<Reply> ask_for_peers() {
  auto reply = daemon_call("GET", Target("/v1/peers").add("mesh", g_options.mesh).text());
  if (!reply) return reply;
  if (array_of(*reply, "peers") == nullptr) {
    return fail(Err::kTransport, "the reply has no peers");
  }
  warn_of_errors(*reply);
  return reply;
}

}  // namespace

void declare_peer_list(CLI::App& app) {
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh; all of them by default");
  app.add_flag("--all", g_options.all, "Also the daemons themselves, not only sessions");
}

int run_peer_list() {
  if (!g_options.mesh.empty() && !wire::is_slug(g_options.mesh)) {
    return report(fail(Err::kInvalidArgument, "--mesh: expected a slug"));
  }
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto reply = ask_for_peers();
  if (!reply) return report(reply.error());
  const wire::JsonNode* peers = array_of(*reply, "peers");
  std::vector<Row> rows;
  std::size_t hidden = 0;
  each_of(*reply, *peers, [&](const wire::JsonNode& peer) {
    if (!g_options.all && text_of(reply->tape, peer, "peerRole") == "control-plane") {
      ++hidden;
    } else {
      rows.push_back(row_of(*config, *reply, peer));
    }
  });
  if (output().json) {
    print_peers_json(*config, *reply, rows);
  } else {
    print_peers(*reply, rows, hidden);
  }
  return 0;
}

void declare_peer_verify(CLI::App& app) {
  app.add_option("peer", g_options.peer, "Name, or beginning of the member key; all by default");
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh; all of them by default");
}

// Both sides compute the number over the two member keys, so that both read the same.
int run_peer_verify() {
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto reply = ask_for_peers();
  if (!reply) return report(reply.error());
  const wire::JsonNode* peers = array_of(*reply, "peers");
  std::vector<Verified> found;
  each_of(*reply, *peers, [&](const wire::JsonNode& peer) {
    const auto field = [&](std::string_view key) { return text_of(reply->tape, peer, key); };
    const Verified row{std::string(field("mesh")), std::string(field("displayName")),
                       std::string(field("memberPubkey"))};
    const Mesh* own = config->find(row.mesh);
    if (own == nullptr || own->pubkey == row.key) return;
    if (!g_options.peer.empty() && row.name != g_options.peer &&
        !row.key.starts_with(g_options.peer)) {
      return;
    }
    for (const Verified& known : found) {
      if (known.mesh == row.mesh && known.key == row.key) return;
    }
    found.push_back(row);
  });
  if (found.empty()) return report(fail(Err::kNotFound, "no such peer is online"), kSeePeers);
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_array();
  std::vector<std::vector<std::string>> rows;
  for (const Verified& peer : found) {
    const auto mine = crypto::public_key_parse(config->find(peer.mesh)->pubkey);
    const auto theirs = crypto::public_key_parse(peer.key);
    if (!mine || !theirs) continue;
    const crypto::SafetyNumber number = crypto::safety_number(*mine, *theirs);
    json.begin_object().field("mesh", peer.mesh).field("peer", peer.name);
    json.field("pubkey", peer.key).field("safetyNumber", crypto::view(number)).end_object();
    rows.push_back({bold(harmless(peer.name)), std::string(crypto::view(number)),
                    dim(peer.key.substr(0, 16) + "…"), dim(peer.mesh)});
  }
  json.end_array();
  if (output().json) {
    print_json(text.view());
    return 0;
  }
  print_table(rows);
  say("compare the number with the one that the peer reads, over another channel");
  return 0;
}

int run_own_presence(const std::string& mesh) {
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto reply = daemon_call("GET", Target("/v1/peers").add("mesh", mesh).text());
  if (!reply) return report(reply.error());
  const wire::JsonNode* peers = array_of(*reply, "peers");
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_array();
  std::vector<std::vector<std::string>> rows;
  if (peers != nullptr) {
    each_of(*reply, *peers, [&](const wire::JsonNode& peer) {
      const auto field = [&](std::string_view key) { return text_of(reply->tape, peer, key); };
      const Mesh* own = config->find(field("mesh"));
      if (own == nullptr || own->pubkey != field("memberPubkey")) return;
      json.raw(peer.text);
      const wire::JsonNode* profile = reply->tape.find(peer, "profile");
      rows.push_back({bold(field("mesh")), harmless(field("displayName")),
                      std::string(field("status")), harmless(field("summary")),
                      profile == nullptr ? std::string() : dim(harmless(profile->text))});
    });
  }
  json.end_array();
  if (output().json) {
    print_json(text.view());
  } else {
    if (rows.empty()) say("no mesh is connected; 'claudemesh daemon status'");
    print_table(rows);
  }
  return 0;
}

}  // namespace cm::cli
