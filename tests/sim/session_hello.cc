// session_hello.cc — the frame as reference daemons send it for their sessions, attestation v1.
#include "tests/sim/session_hello.h"

#include <sodium.h>

#include "core/base/check.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/json_writer.h"

namespace cm::sim {
namespace {

constexpr std::uint64_t kVouchedMs = 12ull * 3600 * 1000;
constexpr std::int64_t kPid = 101;  // of every session: a pid names nobody

crypto::Signature signed_by(const Identity& who, std::string_view text) {
  crypto::SecretSlab slab(1);
  const auto secret = slab.store_seed(who.seed);
  CHECK(secret);
  return crypto::sign(slab, *secret, text);
}

}  // namespace

Identity new_session(const Identity& parent, std::uint32_t number) {
  Identity who = parent;
  who.number = number;
  who.name = "session-" + std::to_string(number);
  std::uint8_t secret[64];
  randombytes_buf(who.seed.data(), who.seed.size());
  crypto_sign_seed_keypair(who.key.data(), secret, who.seed.data());
  who.key_hex = crypto::view(crypto::hex_text(who.key));
  return who;
}

std::string session_hello(const Identity& who, const Identity& parent, const Identity& voucher,
                          std::uint64_t wall_ms) {
  ScratchArena scratch(4 * 1024);
  TextBuf attested(scratch);
  crypto::canonical_attestation_v1(parent.key, who.key, wall_ms + kVouchedMs, attested);
  TextBuf canonical(scratch);
  CHECK(crypto::canonical_session_hello(who.mesh_id, parent.key, who.key, wall_ms, canonical));
  TextBuf text(scratch, 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "session_hello").field("meshId", who.mesh_id);
  json.field("parentMemberId", parent.member_id).field("parentMemberPubkey", parent.key_hex);
  json.field("sessionPubkey", who.key_hex).field("sessionId", who.name);
  json.key("parentAttestation").begin_object().field("sessionPubkey", who.key_hex);
  json.field("parentMemberPubkey", parent.key_hex).field("expiresAt", wall_ms + kVouchedMs);
  json.key("signature").hex(signed_by(voucher, attested.view())).end_object();
  json.field("pid", kPid).field("cwd", "/sim").field("hostname", "host");
  json.field("peerType", "ai").field("channel", "claude-code");
  json.field("timestamp", wall_ms);
  json.key("signature").hex(signed_by(who, canonical.view())).end_object();
  return std::string(text.view());
}

}  // namespace cm::sim
