// codes.cc — short invite codes: made, resolved, claimed; what an invite is good for.
// Holds:  a code is kept as its hash and leads to one invite; what is unknown, used up, withdrawn
//         or expired looks the same from outside. The mesh's root key is derived from its owner's
//         secret and leaves only sealed for one recipient, in a version 2 claim.
// Limits: kLookUpsAMinute per address.
// Source: docs/PROTOCOL.md §7.1; spec/enrollment.md §5.2, §5.4; design/presence.md, "Authority and
//         exposure of a broker".
// Not:    version 1 joins (enroll.cc).
#include <sodium.h>

#include <array>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/wire/invite.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

// Crockford's 32 letters, which nobody confuses; 12 of them are 60 bits.
constexpr std::string_view kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr std::size_t kCodeLetters = 12;
constexpr std::size_t kCodeMax = 32;

bool is_code(std::string_view text) noexcept {
  if (text.size() < 6 || text.size() > kCodeMax) return false;
  for (const char c : text) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!good) return false;
  }
  return true;
}

}  // namespace

Status Broker::put_code(std::string_view token, std::uint64_t expires_ms, TextBuf& code) {
  static_assert(kAlphabet.size() == 32);
  std::array<std::uint8_t, kCodeLetters> random;
  env_.rng(random.data(), random.size());
  for (const std::uint8_t byte : random) code.append(kAlphabet[byte & 31]);
  store::CodeRow row;
  row.fixed.expires_ms = expires_ms;
  row.text[store::kCodeToken] = token;
  batch().put(TableId::kCode, crypto::sha256(as_bytes(code.view())), row);
  return {};
}

Status Broker::token_of_code(const HttpCall& call, std::string_view code, std::string& token) {
  if (!look_ups_.may(network_of(call.request.peer_address), env_.mono_ms)) {
    return fail(Err::kRateLimit, "10 codes a minute from one address; wait a minute");
  }
  const Error none = fail(Err::kInviteNotFound, "no invite in force has this code");
  store::CodeRow row;
  if (!is_code(code)) return none;
  if (!batch().get(TableId::kCode, crypto::sha256(as_bytes(code)), row)) return none;
  token = row.text[store::kCodeToken];
  store::InviteRow invite;
  if (!batch().get(TableId::kInvite, crypto::sha256(as_bytes(std::string_view(token))), invite)) {
    return none;
  }
  const bool in_force = invite.fixed.revoked_ms == 0 && invite.fixed.expires_ms > env_.wall_ms &&
                        invite.fixed.uses < invite.fixed.uses_max;
  const MeshMirror* where = mesh(invite.fixed.mesh_no);
  if (!in_force || where == nullptr || where->deleted) return none;
  return {};
}

// What the reference's `launch --join` asks for a link https://<host>/i/<code>.
Status Broker::resolve_code(HttpCall& call) {
  std::string token;
  wire::JsonWriter json(call.reply);
  if (Status found = token_of_code(call, call.arguments[0], token); !found) {
    if (found.code() != Err::kInviteNotFound) return found;
    json.begin_object().field("found", false).end_object();
    call.status = 404;
    return {};
  }
  json.begin_object().field("found", true).field("token", token).end_object();
  return {};
}

// Who holds a token may ask what it is good for, without using it. Spent or withdrawn ones say why,
// and nothing more: their mesh is no longer the asker's business.
Status Broker::preview_invite(HttpCall& call) {
  if (!previews_.may(network_of(call.request.peer_address), env_.mono_ms)) {
    return fail(Err::kRateLimit, "10 invites a minute from one address; wait a minute");
  }
  const std::string_view token = call.arguments[0];
  wire::JsonWriter json(call.reply);
  store::InviteRow row;
  const std::string_view reason = why_not(token, row);
  if (!reason.empty()) {
    json.begin_object().field("valid", false).field("reason", reason).end_object();
    return {};
  }
  const std::uint32_t mesh_no = row.fixed.mesh_no;
  store::MeshRow where;
  if (!batch().get(TableId::kMesh, store::u32_key(mesh_no).bytes(), where)) return Err::kCorrupt;
  sodium_memzero(where.fixed.owner_secret.data(), where.fixed.owner_secret.size());
  json.begin_object().field("valid", true).field("meshName", where.text[store::kMeshName]);
  json.field("meshSlug", where.text[store::kMeshSlugText]);
  json.key("inviterName").null();  // an invite does not say who made it
  json.field("memberCount", count_members(mesh_no));
  json.field("role", row.fixed.role == store::MemberRole::kAdmin ? "admin" : "member");
  json.key("expiresAt").iso_time(row.fixed.expires_ms).field("maxUses", row.fixed.uses_max);
  json.field("usedCount", row.fixed.uses).field("token", token).end_object();
  return {};
}

// Empty, with the invite's row, when it could be used now.
std::string_view Broker::why_not(std::string_view token, store::InviteRow& row) {
  wire::Invite invite;
  if (token.size() > wire::kTokenMax) return "malformed";
  if (Status read = wire::decode_invite_token(parser_, token, scratch(), invite); !read) {
    return read.code() == Err::kInviteBadSignature ? "bad_signature" : "malformed";
  }
  if (!batch().get(TableId::kInvite, crypto::sha256(as_bytes(token)), row)) return "not_found";
  const MeshMirror* where = mesh(row.fixed.mesh_no);
  if (row.fixed.revoked_ms != 0) return "revoked";
  if (where == nullptr || where->deleted) return "mesh_archived";
  if (row.fixed.expires_ms <= env_.wall_ms) return "expired";
  return row.fixed.uses >= row.fixed.uses_max ? "exhausted" : std::string_view{};
}

std::uint32_t Broker::count_members(std::uint32_t mesh_no) {
  std::uint32_t count = 0;
  store::Cursor cursor(batch(), TableId::kMemberKey);
  for (bool more = cursor.seek(store::u32_key(mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != mesh_no) break;
    const auto no = batch().get_number(TableId::kMemberKey, cursor.key());
    store::MemberRow row;
    if (!no || !batch().get(TableId::kMember, store::u32_key(*no).bytes(), row)) continue;
    count += row.fixed.revoked_ms == 0 ? 1u : 0u;
  }
  return count;
}

// For a person who opens the link: what to do with it. Nothing of the invite is shown.
Status Broker::show_code(HttpCall& call) {
  call.content_type = "text/plain; charset=utf-8";
  call.reply.append(
      "This is an invite to a claudemesh. Join it from a terminal:\n\n"
      "  claudemesh join <the address of this page>\n");
  return {};
}

Status Broker::claim_invite(HttpCall& call) {
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const std::string_view recipient = fields.text("recipient_x25519_pubkey", wire::kLabelMax);
  const std::string_view name =
      fields.shown("display_name", wire::kDisplayNameMax, wire::Need::kOptional);
  const auto key = fields.optional_key("peer_pubkey");
  if (!fields.ok()) return fields.take();
  if (!key) {
    return fail(Err::kClaimUnsupported,
                "a claim needs 'peer_pubkey' (ed25519, 64 lower-case hex digits) as well: without "
                "it the member could never connect");
  }
  std::string token;
  if (Status found = token_of_code(call, call.arguments[0], token); !found) return found;
  const crypto::Hash32 token_hash = crypto::sha256(as_bytes(std::string_view(token)));
  store::InviteRow row;
  if (!batch().get(TableId::kInvite, token_hash, row)) return Err::kInviteNotFound;
  store::MeshRow where;
  const std::uint32_t mesh_no = row.fixed.mesh_no;
  const store::Key by_key = store::u32_bytes_key(mesh_no, *key);
  if (batch().get_raw(TableId::kBinding, by_key.bytes())) {
    return fail(Err::kMalformed, "field 'peer_pubkey': this key is in use as a session key");
  }
  const auto existing = batch().get_number(TableId::kMemberKey, by_key.bytes());
  if (existing && (member(*existing) == nullptr || member(*existing)->revoked)) {
    return Err::kRevoked;
  }
  if (!batch().get(TableId::kMesh, store::u32_key(mesh_no).bytes(), where)) return Err::kCorrupt;
  TextBuf sealed(scratch());
  const Status sealing = seal_root_key(where, recipient, sealed);
  sodium_memzero(where.fixed.owner_secret.data(), where.fixed.owner_secret.size());
  if (!sealing) return sealing;

  const std::string mesh_id(where.text[store::kMeshIdText]);
  const std::string slug(where.text[store::kMeshSlugText]);
  const PublicKey owner = where.fixed.owner_public;
  const std::string invite_id(row.text[store::kInviteId]);
  TextBuf canonical(scratch());
  const std::string_view role = row.fixed.role == store::MemberRole::kAdmin ? "admin" : "member";
  if (Status built = crypto::canonical_invite_v2(mesh_id, invite_id, row.fixed.expires_ms / 1000,
                                                 role, owner, canonical);
      !built) {
    return built;
  }
  std::string_view member_id;
  if (existing) {
    member_id = scratch().copy(member(*existing)->id);
  } else {
    row.fixed.uses += 1;
    row.text[store::kInviteId] = invite_id;
    batch().put(TableId::kInvite, token_hash, row);
    const std::string_view shown = name.empty() ? std::string_view("member") : name;
    join_general(mesh_no, add_member(mesh_no, row.fixed.role, *key, shown, member_id));
  }
  wire::JsonWriter json(call.reply);
  json.begin_object().field("sealed_root_key", sealed.view()).field("mesh_id", mesh_id);
  json.field("member_id", member_id).key("owner_pubkey").hex(owner);
  json.field("canonical_v2", canonical.view()).field("mesh_slug", slug);
  json.field("broker_url", config_.public_url).end_object();
  env_.log->info("invite_claimed", {{"mesh", slug}, {"member", member_id}});
  return {};
}

Status Broker::seal_root_key(const store::MeshRow& where, std::string_view recipient,
                             TextBuf& sealed) {
  PublicKey to{};
  if (!crypto::base64url_parse(recipient, to)) {
    return fail(Err::kMalformed,
                "field 'recipient_x25519_pubkey': expected 32 bytes in base64url without padding");
  }
  constexpr std::string_view kContext = "claudemesh-root-key-v1";
  std::array<std::uint8_t, 32> root;
  crypto_generichash(root.data(), root.size(),
                     reinterpret_cast<const unsigned char*>(kContext.data()), kContext.size(),
                     where.fixed.owner_secret.data(), where.fixed.owner_secret.size());
  std::array<std::uint8_t, 32 + crypto_box_SEALBYTES> box;
  const int failed = crypto_box_seal(box.data(), root.data(), root.size(), to.data());
  sodium_memzero(root.data(), root.size());
  if (failed != 0) return fail(Err::kMalformed, "field 'recipient_x25519_pubkey': not usable");
  crypto::base64url_append(box, sealed);
  return {};
}

}  // namespace cm::broker
