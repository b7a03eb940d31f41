// peer.cc — peer list, peer verify, and what others see of this member.
// Source: spec/cli.md §8; spec/wire.md §6.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

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

// Of a member: one row, however many connections it has.
struct Verified {
  std::string mesh, name, key;
};

}  // namespace

void declare_peer_list(CLI::App& app) {
  app.add_option("--mesh", g_options.mesh, "Slug of the mesh; all of them by default");
}

int run_peer_list() {
  std::string target = "/v1/peers";
  if (!g_options.mesh.empty()) {
    if (!wire::is_slug(g_options.mesh)) {
      return report(fail(Err::kInvalidArgument, "--mesh: expected a slug"));
    }
    target += "?mesh=" + g_options.mesh;
  }
  const auto config = load_config();
  const auto reply = daemon_call("GET", target);
  if (!reply) return report(reply.error());
  const wire::JsonNode* peers = reply->tape.find("peers");
  if (peers == nullptr || peers->type != wire::JsonType::kArray) {
    return report(fail(Err::kTransport, "the reply has no peers"));
  }
  warn_of_errors(*reply);
  if (output().json) {
    print(peers->text);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (std::uint32_t at = reply->tape.first(*peers); at < peers->next;
       at = reply->tape.at(at).next) {
    const wire::JsonNode& peer = reply->tape.at(at);
    const auto field = [&](std::string_view key) { return text_of(reply->tape, peer, key); };
    const Mesh* own = config ? config->find(field("mesh")) : nullptr;
    const bool self = own != nullptr && own->pubkey == field("memberPubkey");
    rows.push_back({"●", bold(harmless(field("displayName"))) + (self ? dim(" (you)") : ""),
                    std::string(field("pubkey").substr(0, 16)) + "…", std::string(field("status")),
                    dim(harmless(field("hostname"))), dim(field("mesh"))});
  }
  if (rows.empty()) say("no peers; 'claudemesh daemon status' shows whether a broker is connected");
  print_table(rows);
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
  const auto reply = daemon_call("GET", Target("/v1/peers").add("mesh", g_options.mesh).text());
  if (!reply) return report(reply.error());
  const wire::JsonNode* peers = array_of(*reply, "peers");
  if (peers == nullptr) return report(fail(Err::kTransport, "the reply has no peers"));
  warn_of_errors(*reply);
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
    print(text.view());
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
    print(text.view());
  } else {
    if (rows.empty()) say("no mesh is connected; 'claudemesh daemon status'");
    print_table(rows);
  }
  return 0;
}

}  // namespace cm::cli
