// verbs_peer.cc — peer list.
// Source: spec/cli.md §8; spec/wire.md §6.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/config.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "core/wire/fields.h"

namespace cm::cli {
namespace {

struct {
  std::string mesh;
} g_options;

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

}  // namespace cm::cli
