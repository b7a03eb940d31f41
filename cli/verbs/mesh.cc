// mesh.cc — create, share, join, list.
// Holds:  a key pair is on disk before the broker is told of it, so that a crash between the two
//         loses no membership: the same command finds it again and the join is idempotent.
// Source: spec/enrollment.md §4, §5.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "cli/broker_url.h"
#include "cli/config.h"
#include "cli/files.h"
#include "cli/http.h"
#include "cli/member_call.h"
#include "cli/output.h"
#include "cli/short_link.h"
#include "cli/verbs.h"
#include "core/base/time_text.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/slab.h"
#include "core/wire/fields.h"
#include "core/wire/invite.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string name, display_name, broker = "ws://127.0.0.1:7900/ws", token_file, slug;
  std::string ca_file;
  std::string role = "member", invite;
  int uses = 1;
  int expires_hours = 7 * 24;
} g_options;

std::string default_display_name() {
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  return std::string(host) + "-" + std::to_string(::getpid());
}

// The token found without being asked for is that of the broker on this machine: it is never sent
// to another one, which would own ours from then on.
Result<std::string> admin_token(std::string_view broker_url) {
  if (g_options.token_file.empty() && !is_loopback_url(broker_url)) {
    return fail(Err::kUnauthenticated, "the broker " + std::string(broker_url) +
                                           " is not on this machine: name its admin token with "
                                           "--admin-token-file");
  }
  const std::string path =
      g_options.token_file.empty() ? broker_data_dir() + "/admin-token" : g_options.token_file;
  auto token = read_private_file(path, 4096);
  if (!token && token.code() == Err::kUnsafeMode) return token.error();
  if (!token) {
    return fail(Err::kUnauthenticated,
                "the admin token " + path + " cannot be read; name it with --admin-token-file");
  }
  while (!token->empty() && (token->back() == '\n' || token->back() == '\r')) token->pop_back();
  return token;
}

// What a broker answered goes into config.json only if it can be read from there again.
Status check_mesh(const Mesh& mesh) {
  if (wire::is_broker_id(mesh.mesh_id) && wire::is_broker_id(mesh.member_id) &&
      wire::is_slug(mesh.slug) && is_broker_url(mesh.broker_url)) {
    return {};
  }
  return fail(Err::kTransport, "the broker's reply has no usable id, member id or slug");
}

struct KeyPair {
  std::string public_hex;
  std::string secret_hex;
  ~KeyPair() { wipe(secret_hex); }
};

// A pair kept in `path` until the membership is in config.json.
Result<KeyPair> pending_key(const std::string& path) {
  if (!crypto::initialise()) return fail(Err::kInternal, "the system has no random source");
  crypto::SecretSlab slab(1);
  KeyPair pair;
  auto kept = read_private_file(path, 256);
  if (!kept && kept.code() == Err::kUnsafeMode) return kept.error();
  Result<crypto::SecretRef> ref = Err::kNotFound;
  if (kept && kept->size() >= crypto::kSecretHexText) {
    ref = slab.store_hex(std::string_view(*kept).substr(0, crypto::kSecretHexText));
  }
  if (!ref) {
    crypto::PublicKey unused;
    ref = slab.generate(unused);
  }
  if (kept) wipe(*kept);
  if (!ref) return ref.error();
  pair.secret_hex.resize(crypto::kSecretHexText);
  slab.export_hex(*ref, std::span<char, crypto::kSecretHexText>(pair.secret_hex.data(),
                                                                crypto::kSecretHexText));
  pair.public_hex = crypto::view(crypto::hex_text(slab.public_key(*ref)));
  if (Status made = make_private_dir(config_dir()); !made) return made.error();
  if (Status written = write_private_file(path, pair.secret_hex + "\n"); !written) {
    return written.error();
  }
  return pair;
}

int print_joined(std::string_view slug, std::string_view mesh_id, std::string_view member_id,
                 std::string_view public_hex, std::string_view broker, bool already) {
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", true).field("schema_version", "1.0").field("slug", slug);
    json.field("id", mesh_id).field("member_id", member_id).field("pubkey", public_hex);
    json.field("broker_url", broker).field("already_joined", already).end_object();
    print_json(text.view());
    return 0;
  }
  say_done((already ? "already joined " : "joined ") + std::string(slug));
  say("member " + std::string(member_id) + ", key " + std::string(public_hex.substr(0, 16)) + "…");
  say("broker " + std::string(broker) + ", configuration " + config_dir() + "/config.json");
  return 0;
}

// Nothing of ours mails an invite, or touches a clipboard.
void print_share(const Reply& reply) {
  ScratchArena scratch;
  TextBuf text(scratch, 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("schema_version", "1.0");
  for (const char* key : {"url", "code", "expires_at", "short_url", "token", "role", "max_uses"}) {
    if (const wire::JsonNode* node = reply.tape.find(key)) json.key(key).value(*node);
  }
  json.field("emailed", false).field("copied", false).end_object();
  print_json(text.view());
}

}  // namespace

void declare_ca_file(CLI::App& app, std::string& path) {
  app.add_option("--ca-file", path,
                 "PEM file of the CA that signed the broker's certificate, beside the system's")
      ->envname("CLAUDEMESH_CA_FILE");
}

void declare_create(CLI::App& app) {
  app.add_option("name", g_options.name, "Name of the mesh")->required();
  app.add_option("--slug", g_options.slug, "Short name; derived from the name by default");
  app.add_option("--display-name", g_options.display_name, "Your name in the mesh");
  app.add_option("--broker", g_options.broker, "The broker's WebSocket URL")->capture_default_str();
  app.add_option("--admin-token-file", g_options.token_file,
                 "The broker's admin token; its data directory's by default");
  declare_ca_file(app, g_options.ca_file);
}

int run_create() {
  const auto broker = usable_broker_url(g_options.broker, "--broker");
  if (!broker) return report(broker.error());
  auto token = admin_token(*broker);
  if (!token) return report(token.error());
  if (Status found = check_broker_path(*broker, g_options.ca_file); !found) {
    wipe(*token);
    return report(found.error());
  }
  const auto lock = lock_config();
  if (!lock) return report(lock.error());
  auto config = load_config();
  if (!config) return report(config.error());
  const std::string pending = config_dir() + "/pending-create.key";
  const auto pair = pending_key(pending);
  if (!pair) return report(pair.error());
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("name", g_options.name).field("pubkey", pair->public_hex);
  json.optional_field("slug", g_options.slug);
  json.optional_field("display_name", g_options.display_name).end_object();
  const auto reply =
      broker_call(*broker, "POST", "/cli/mesh/create", body.view(), *token, g_options.ca_file);
  wipe(*token);
  if (!reply) return report(reply.error());
  Mesh mesh;
  mesh.mesh_id = reply->text("id");
  mesh.member_id = reply->text("member_id");
  mesh.slug = reply->text("slug");
  mesh.name = g_options.name;
  mesh.pubkey = pair->public_hex;
  mesh.secret_key = pair->secret_hex;
  mesh.broker_url = *broker;
  mesh.joined_at = view(iso_text(now_ms()));
  if (Status sound = check_mesh(mesh); !sound) return report(sound.error());
  const std::string slug = mesh.slug, id = mesh.mesh_id, member = mesh.member_id;
  if (Status saved = save_mesh(*config, std::move(mesh)); !saved) return report(saved.error());
  remove_file(pending);
  return print_joined(slug, id, member, pair->public_hex, *broker, false);
}

void declare_share(CLI::App& app) {
  declare_slug(app, g_options.slug, "Slug of the mesh; the only one by default");
  app.add_option("--role", g_options.role, "admin or member")->capture_default_str();
  app.add_option("--uses", g_options.uses, "How many may join with it")->capture_default_str();
  app.add_option("--expires-hours", g_options.expires_hours, "How long it is valid")
      ->capture_default_str();
  app.add_option("--admin-token-file", g_options.token_file,
                 "The broker's admin token, instead of this member's signature");
  declare_ca_file(app, g_options.ca_file);
}

int run_share() {
  const auto config = load_config();
  if (!config) return report(config.error());
  const auto chosen = choose_mesh(*config, g_options.slug);
  if (!chosen) return report(chosen.error());
  const Mesh* mesh = *chosen;
  ScratchArena scratch;
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("role", g_options.role).field("max_uses", g_options.uses);
  json.field("expires_in", std::int64_t{g_options.expires_hours} * 3600).end_object();
  // A member that may invite signs for itself; the admin token is for whoever is none.
  const std::string path = "/cli/mesh/" + mesh->slug + "/invite";
  Result<Reply> reply = Err::kInternal;
  if (g_options.token_file.empty()) {
    reply = member_call(*mesh, "POST", path, body.view(), g_options.ca_file);
  } else {
    auto token = admin_token(mesh->broker_url);
    if (!token) return report(token.error());
    reply = broker_call(mesh->broker_url, "POST", path, body.view(), *token, g_options.ca_file);
    wipe(*token);
  }
  if (!reply) return report(reply.error());
  if (output().json) {
    print_share(*reply);
    return 0;
  }
  print(reply->text("url"));
  if (!reply->text("short_url").empty())
    say("or, shorter: " + std::string(reply->text("short_url")));
  say("valid until " + std::string(reply->text("expires_at")) + ", for " +
      counted(g_options.uses, "member") + "; it is not shown again");
  say("join with: claudemesh join <invite>");
  return 0;
}

void declare_join(CLI::App& app) {
  app.add_option("invite", g_options.invite, "The invite, as it was shared")->required();
  app.add_option("--name", g_options.display_name, "Your name in the mesh");
  declare_ca_file(app, g_options.ca_file);
}

int run_join() {
  ScratchArena scratch;
  wire::JsonParser parser;
  std::string pasted = g_options.invite;
  if (is_short_link(pasted)) {
    auto resolved = resolve_short_link(pasted, g_options.ca_file);
    if (!resolved) return report(resolved.error());
    pasted = *resolved;
  }
  if (is_short_code(pasted)) {
    return report(fail(Err::kMalformed, "the invite: '" + pasted +
                                            "' is the end of a short link; paste the whole link, "
                                            "which names the broker"));
  }
  const auto token = wire::invite_token_of(pasted);
  if (!token) return report(token.error());
  wire::Invite invite;
  if (Status decoded = wire::decode_invite_token(parser, *token, scratch, invite); !decoded) {
    return report(decoded.error());
  }
  const auto lock = lock_config();
  if (!lock) return report(lock.error());
  auto config = load_config();
  if (!config) return report(config.error());
  if (const Mesh* known = config->find(invite.mesh_id)) {
    return print_joined(known->slug, known->mesh_id, known->member_id, known->pubkey,
                        known->broker_url, true);
  }
  // Anyone can sign an invite with a key of its own: its fields are as foreign as its sender.
  if (!wire::is_slug(invite.mesh_slug) || !is_broker_url(invite.broker_url)) {
    return report(fail(Err::kMalformed, "the invite: expected a slug and a ws:// URL in it"));
  }
  if (invite.expires_at_s * 1000 <= now_ms()) return report(fail(Err::kInviteExpired));
  if (config->find(invite.mesh_slug) != nullptr) {
    return report(fail(Err::kAlreadyExists,
                       "another mesh with the slug '" + std::string(invite.mesh_slug) + "'"));
  }
  // The invite goes back as it was signed; what is kept is where to connect.
  const auto broker = usable_broker_url(invite.broker_url, "the invite's broker");
  if (!broker) return report(broker.error());
  if (Status found = check_broker_path(*broker, g_options.ca_file); !found) {
    return report(found.error());
  }
  const std::string pending =
      config_dir() + "/pending-join-" + std::string(invite.mesh_id) + ".key";
  const auto pair = pending_key(pending);
  if (!pair) return report(pair.error());
  const std::string name =
      g_options.display_name.empty() ? default_display_name() : g_options.display_name;
  TextBuf payload(scratch);
  wire::write_invite(invite, payload);
  TextBuf body(scratch);
  wire::JsonWriter json(body);
  json.begin_object().field("invite_token", *token).key("invite_payload").raw(payload.view());
  json.field("peer_pubkey", pair->public_hex).field("display_name", name).end_object();
  const auto reply = broker_call(*broker, "POST", "/join", body.view(), {}, g_options.ca_file);
  if (!reply) return report(reply.error());
  Mesh mesh;
  mesh.mesh_id = invite.mesh_id;
  mesh.member_id = reply->text("memberId");
  mesh.slug = invite.mesh_slug;
  mesh.name = invite.mesh_slug;
  mesh.pubkey = pair->public_hex;
  mesh.secret_key = pair->secret_hex;
  mesh.broker_url = *broker;
  mesh.joined_at = view(iso_text(now_ms()));
  if (Status sound = check_mesh(mesh); !sound) return report(sound.error());
  const std::string member = mesh.member_id;
  if (Status saved = save_mesh(*config, std::move(mesh)); !saved) return report(saved.error());
  remove_file(pending);
  return print_joined(invite.mesh_slug, invite.mesh_id, member, pair->public_hex, *broker,
                      reply->boolean("alreadyMember"));
}

int run_list() {
  const auto config = load_config();
  if (!config) return report(config.error());
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().key("meshes").begin_array();
    for (const Mesh& mesh : config->meshes) {
      json.begin_object().field("slug", mesh.slug).field("name", mesh.name);
      json.field("id", mesh.mesh_id).field("member_id", mesh.member_id);
      json.field("pubkey", mesh.pubkey).field("broker_url", mesh.broker_url).end_object();
    }
    json.end_array().end_object();
    print_json(text.view());
    return 0;
  }
  if (config->meshes.empty()) say("no mesh is joined; 'claudemesh create' or 'claudemesh join'");
  std::vector<std::vector<std::string>> rows;
  for (const Mesh& mesh : config->meshes) {
    rows.push_back({bold(mesh.slug), mesh.pubkey.substr(0, 16) + "…", dim(mesh.broker_url)});
  }
  print_table(rows);
  return 0;
}

}  // namespace cm::cli
