// member_call.cc — signs a request with the member's key.
#include "cli/member_call.h"

#include "cli/files.h"
#include "cli/output.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/crypto/slab.h"
#include "core/net/url.h"

namespace cm::cli {

Result<Reply> member_call(const Mesh& mesh, std::string_view method, const std::string& path,
                          std::string_view body, const std::string& ca_file) {
  if (!crypto::initialise()) return fail(Err::kInternal, "the system has no random source");
  const auto url = net::url_parse(mesh.broker_url);
  if (!url) return fail(Err::kMalformed, "config.json: broker_url of " + mesh.slug);
  crypto::SecretSlab slab(1);
  const auto secret = slab.store_hex(mesh.secret_key);
  if (!secret) return fail(Err::kMalformed, "config.json: secretKey of " + mesh.slug);
  const std::string time = std::to_string(now_ms());
  const crypto::HexToken nonce = crypto::hex_token(crypto::fill_random);
  const std::string_view nonce_text(nonce.data(), 32);
  const bool v6 = url->host.find(':') != std::string_view::npos;
  const std::string bare = v6 ? "[" + std::string(url->host) + "]" : std::string(url->host);
  // As the Host header will say it (core/net/http_client.cc).
  const std::string host =
      url->port == (url->secure() ? 443 : 80) ? bare : bare + ":" + std::to_string(url->port);
  const crypto::Hash32 hash = crypto::sha256(as_bytes(body));
  const std::string text = "claudemesh-http-v1|" + std::string(method) + "|" + path + "|" +
                           std::string(crypto::view(crypto::hex_text(hash))) + "|" + time + "|" +
                           std::string(nonce_text) + "|" + host;
  ScratchArena scratch(4096);
  TextBuf signature(scratch, 128);
  crypto::hex_append(crypto::sign(slab, *secret, text), signature);
  const std::string authority = "CM-Member " + mesh.pubkey + ":" + time + ":" +
                                std::string(nonce_text) + ":" + std::string(signature.view());
  return broker_call_as(mesh.broker_url, method, path, body, authority, ca_file);
}

Result<const Mesh*> choose_mesh(const ConfigFile& config, std::string_view wanted) {
  if (!wanted.empty()) {
    const Mesh* found = config.find(wanted);
    if (found == nullptr) return fail(Err::kMeshNotAttached, wanted);
    return found;
  }
  if (config.meshes.empty()) return Err::kNoMesh;
  if (config.meshes.size() == 1) return &config.meshes.front();
  std::string slugs;
  for (const Mesh& mesh : config.meshes) slugs += (slugs.empty() ? "" : ", ") + mesh.slug;
  return fail(Err::kMeshRequired, "joined are: " + slugs);
}

}  // namespace cm::cli
