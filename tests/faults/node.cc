// node.cc — starting the two roles.
#include "tests/faults/node.h"

#include <sodium.h>

#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"

namespace cm::faults {
namespace {

constexpr std::string_view kAdminToken = "the-admin-token-of-the-fault-tests";
constexpr std::string_view kAuthority = "Bearer the-admin-token-of-the-fault-tests";

// What a shell does after start(): commit, and here the mirrors are checked, too.
Status settle(Parts& parts, const char* problem) {
  if (problem != nullptr) return fail(Err::kCorrupt, std::string("verify_all: ") + problem);
  parts.store->abort();
  parts.scratch.reset();
  return {};
}

Status commit(Parts& parts) {
  if (parts.store->commit() <= store::CommitResult::kCommitted) return {};
  return fail(Err::kStoreFailed, parts.store->last_error_text());
}

}  // namespace

Parts::Parts()
    : log([](void*, std::string_view) {}, [](void*) { return std::uint64_t{0}; }, nullptr) {
  env.rng = crypto::fill_random;
  env.log = &log;
  limits.store_bound_bytes = std::uint64_t{64} << 20;
  limits.secret_slots_max = 4;
  limits.rate_per_minute = 0;
  limits.box_keys_max = 8;
}

Status Parts::open(const std::string& directory, store::Role role, store::Durability durability) {
  store::Options options;
  options.directory = directory;
  options.role = role;
  options.bound_bytes = limits.store_bound_bytes;
  options.durability = durability;
  auto opened = store::Store::open(options, scratch);
  if (!opened) return opened.error();
  store = std::move(*opened);
  env.batch = &store->batch();
  return {};
}

Result<std::unique_ptr<BrokerNode>> BrokerNode::start(const std::string& directory,
                                                      store::Durability durability,
                                                      std::uint64_t now_ms) {
  auto node = std::make_unique<BrokerNode>();
  node->parts.set_now(now_ms);
  if (Status opened = node->parts.open(directory, store::Role::kBroker, durability); !opened) {
    return opened.error();
  }
  broker::Config config;
  config.version = "faults";
  config.public_url = "ws://faults.invalid/ws";
  node->core.emplace(config, node->parts.limits, node->parts.env, node->effects,
                     node->parts.metrics, node->parts.slab);
  if (Status loaded = node->core->load(); !loaded) return loaded.error();
  node->core->set_admin_token_hash(crypto::sha256(as_bytes(kAdminToken)));
  if (Status done = commit(node->parts); !done) return done.error();
  node->core->committed();
  if (Status sound = settle(node->parts, node->core->verify_all()); !sound) return sound.error();
  return node;
}

Identity Identity::make(std::string_view name) {
  Identity who;
  who.name = name;
  std::array<std::uint8_t, 64> secret{};
  randombytes_buf(who.seed.data(), who.seed.size());
  crypto_sign_seed_keypair(who.key.data(), secret.data(), who.seed.data());
  who.key_hex = crypto::view(crypto::hex_text(who.key));
  return who;
}

Result<std::unique_ptr<DaemonNode>> DaemonNode::start(const std::string& directory,
                                                      store::Durability durability,
                                                      std::uint64_t now_ms, const Identity& who) {
  auto node = std::make_unique<DaemonNode>();
  node->parts.set_now(now_ms);
  if (Status opened = node->parts.open(directory, store::Role::kDaemon, durability); !opened) {
    return opened.error();
  }
  daemon::Config config;
  config.version = "faults";
  config.report_level = store::ReportLevel::kSeen;  // what was read is a row until it is reported
  config.session_id = "daemon-" + who.name;
  config.hostname = who.name;
  config.cwd = "/";
  config.pid = 1;
  node->core.emplace(config, node->parts.limits, node->parts.env, node->effects,
                     node->parts.metrics, node->parts.slab);
  daemon::MeshConfig mesh;
  mesh.mesh_id = who.mesh_id;
  mesh.member_id = who.member_id;
  mesh.slug = who.slug;
  mesh.name = who.name;
  mesh.broker_url = who.broker_url;
  mesh.key = who.key;
  const auto secret = node->parts.slab.store_seed(who.seed);
  if (!secret) return fail(Err::kFull, "the slab of secrets");
  mesh.secret = *secret;
  if (Status added = node->core->add_mesh(mesh); !added) return added.error();
  if (Status started = node->core->start(); !started) return started.error();
  if (Status done = commit(node->parts); !done) return done.error();
  node->core->committed();
  const char* const problem = node->core->verify_all();
  if (problem != nullptr) return settle(node->parts, problem).error();
  node->parts.store->abort();  // effects are the caller's, and in the scratch arena
  return node;
}

std::string_view admin_authority() { return kAuthority; }

std::string field(std::string_view json, std::string_view key) {
  const std::string mark = "\"" + std::string(key) + "\":";
  const std::size_t at = json.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = json.substr(at + mark.size());
  if (rest.starts_with('"')) return std::string(rest.substr(1, rest.find('"', 1) - 1));
  return std::string(rest.substr(0, rest.find_first_of(",}]")));
}

}  // namespace cm::faults
