// enroll.cc — meshes, v1 invites and joins.
// Holds:  a mesh's owner key signs its invites and never leaves the store; an invite admits as
//         often as it says, and each carries fresh random bytes where others put the root key.
// Source: docs/PROTOCOL.md §7, §7.1; spec/enrollment.md §4, §5; design/presence.md, last section.
// Not:    who asks (authority.cc), short codes and version 2 claims (codes.cc).
#include <sodium.h>

#include <algorithm>

#include "core/base/utf8.h"
#include "core/broker/broker.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/crypto/sign.h"
#include "core/wire/invite.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::uint64_t kInviteSeconds = 7 * 24 * 3600;
constexpr std::uint32_t kInviteUsesMax = 1000;
constexpr int kSlugAttempts = 100;

// Lower case, runs of other characters become one dash, none at the ends.
std::string slug_of(std::string_view name) {
  std::string slug;
  for (const char c : name) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
      slug += lower;
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
    if (slug.size() == wire::kSlugMax - 4) break;  // room for "-100"
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  return slug;
}

Result<store::MemberRole> role_of(std::string_view text) {
  if (text.empty() || text == "member") return store::MemberRole::kMember;
  if (text == "admin") return store::MemberRole::kAdmin;
  return fail(Err::kMalformed, "field 'role': expected admin or member");
}

// ws://host/ws -> http://host, wss://host/ws -> https://host.
std::string http_origin(std::string_view ws_url) {
  std::string origin(ws_url);
  if (origin.starts_with("wss://")) origin.replace(0, 6, "https://");
  if (origin.starts_with("ws://")) origin.replace(0, 5, "http://");
  if (origin.ends_with("/ws")) origin.resize(origin.size() - 3);
  return origin;
}

}  // namespace

// The wanted slug, or it with -2 to -100; empty when all are taken. Lives in the scratch arena.
std::string_view Broker::free_slug(std::string_view wanted) {
  for (int attempt = 1; attempt <= kSlugAttempts; ++attempt) {
    TextBuf slug(scratch(), 64);
    slug.append(wanted);
    if (attempt > 1) {
      slug.append('-');
      slug.append_number(attempt);
    }
    if (!wire::is_slug(slug.view())) break;
    if (!batch().get_number(TableId::kMeshSlug, store::text_key(slug.view()).bytes())) {
      return slug.view();
    }
  }
  return {};
}

std::uint32_t Broker::add_member(std::uint32_t mesh_no, store::MemberRole role,
                                 const PublicKey& key, std::string_view name,
                                 std::string_view& id) {
  id = scratch().copy(crypto::view(crypto::base62_id(env_.rng)));
  const std::uint32_t member_no = next_member_no_++;
  store::MemberRow row;
  row.fixed.mesh_no = mesh_no;
  row.fixed.role = role;
  row.fixed.joined_ms = env_.wall_ms;
  row.fixed.key = key;
  row.text[store::kMemberId] = id;
  row.text[store::kMemberName] = name;
  batch().put(TableId::kMember, store::u32_key(member_no).bytes(), row);
  batch().put_number(TableId::kMemberKey, store::u32_bytes_key(mesh_no, key).bytes(), member_no);
  tables_.meshes_of_key.emplace(key, mesh_no);
  return member_no;
}

// Those that have a slug: deleted ones have none.
std::uint32_t Broker::count_meshes() {
  std::uint32_t count = 0;
  store::Cursor cursor(batch(), TableId::kMeshSlug);
  for (bool more = cursor.seek({}); more; more = cursor.next()) ++count;
  return count;
}

Status Broker::create_mesh(HttpCall& call) {
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const std::string_view name = fields.shown("name", wire::kDisplayNameMax);
  const PublicKey key = fields.public_key("pubkey");
  const std::string_view wanted = fields.text("slug", wire::kSlugMax, wire::Need::kOptional);
  std::string_view display =
      fields.shown("display_name", wire::kDisplayNameMax, wire::Need::kOptional);
  if (!fields.ok()) return fields.take();
  const std::string base = wanted.empty() ? slug_of(name) : std::string(wanted);
  if (!wire::is_slug(base)) {
    return fail(Err::kMalformed,
                "field 'slug': expected 2 to 32 characters of [a-z0-9-], not starting with '-'");
  }
  const std::string_view slug = free_slug(base);
  if (slug.empty()) return fail(Err::kAlreadyExists, "the slug '" + base + "' and its variants");

  if (count_meshes() >= limits_.meshes_max) {
    return fail(Err::kFull, "the broker has as many meshes as it allows (meshes_max)");
  }

  // Every check is done; from here on only writes.
  store::MeshRow row;
  crypto_sign_keypair(row.fixed.owner_public.data(), row.fixed.owner_secret.data());
  row.fixed.created_ms = env_.wall_ms;
  const std::string_view id = scratch().copy(crypto::view(crypto::base62_id(env_.rng)));
  const std::uint32_t mesh_no = next_mesh_no_++;
  row.text[store::kMeshIdText] = id;
  row.text[store::kMeshSlugText] = slug;
  row.text[store::kMeshName] = name;
  batch().put(TableId::kMesh, store::u32_key(mesh_no).bytes(), row);
  sodium_memzero(row.fixed.owner_secret.data(), row.fixed.owner_secret.size());
  batch().put_number(TableId::kMeshId, store::text_key(id).bytes(), mesh_no);
  batch().put_number(TableId::kMeshSlug, store::text_key(slug).bytes(), mesh_no);
  constexpr std::string_view kOwner = "-owner";
  std::string owner_name(utf8_prefix(name, wire::kDisplayNameMax - kOwner.size()));
  owner_name += kOwner;
  if (display.empty()) display = owner_name;
  std::string_view member_id;
  const std::uint32_t owner_no =
      add_member(mesh_no, store::MemberRole::kAdmin, key, display, member_id);
  store::MemberProfileRow owner;  // who creates a mesh may also delete it
  owner.fixed.permissions = kAllPermissions;
  owner.fixed.has_permissions = 1;
  batch().put(TableId::kMemberProfile, store::u32_key(owner_no).bytes(), owner);
  make_general(mesh_no, owner_no);
  wire::JsonWriter json(call.reply);
  json.begin_object().field("id", id).field("slug", slug).field("name", name);
  json.field("member_id", member_id).field("broker_url", config_.public_url).end_object();
  env_.log->info("mesh_created", {{"mesh", slug}, {"id", id}});
  return {};
}

Result<std::uint32_t> Broker::mesh_by_slug(std::string_view slug) {
  const auto mesh_no = wire::is_slug(slug)
                           ? batch().get_number(TableId::kMeshSlug, store::text_key(slug).bytes())
                           : std::nullopt;
  if (!mesh_no || mesh(*mesh_no) == nullptr) return fail(Err::kNotFound, "no mesh has this slug");
  return *mesh_no;
}

Status Broker::create_invite(HttpCall& call) {
  const std::string_view slug = call.arguments[0];
  const auto mesh_no = mesh_by_slug(slug);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kCanInvite); !may) return may;
  store::MeshRow where;
  if (!batch().get(TableId::kMesh, store::u32_key(*mesh_no).bytes(), where)) return Err::kCorrupt;
  const auto secret = slab_.store(where.fixed.owner_secret);
  sodium_memzero(where.fixed.owner_secret.data(), where.fixed.owner_secret.size());
  if (!secret) return secret.error();
  const Status made = sign_invite(call, slug, *mesh_no, where, *secret);
  slab_.release(*secret);
  return made;
}

Status Broker::sign_invite(HttpCall& call, std::string_view slug, std::uint32_t mesh_no,
                           const store::MeshRow& where, crypto::SecretRef secret) {
  wire::JsonTape tape;
  const std::string_view body =
      call.request.body.empty() ? std::string_view("{}") : call.request.body;
  if (Status parsed = parser_.parse(body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const auto role = role_of(fields.text("role", wire::kLabelMax, wire::Need::kOptional));
  const std::int64_t uses = fields.integer("max_uses", 1, kInviteUsesMax, wire::Need::kOptional, 1);
  const std::int64_t seconds =
      fields.integer("expires_in", 60, 30 * 24 * 3600, wire::Need::kOptional, kInviteSeconds);
  if (!fields.ok()) return fields.take();
  if (!role) return role.error();
  // Whoever may invite may not make admins, unless it has all that an admin has.
  if (*role == store::MemberRole::kAdmin) {
    if (Status may = check_permission(call.authority, mesh_no, kAdminPermissions); !may) {
      return may;
    }
  }

  std::uint8_t root[32];
  env_.rng(root, sizeof root);
  TextBuf root_text(scratch(), 64);
  crypto::base64url_append(root, root_text);
  wire::Invite invite;
  invite.mesh_id = where.text[store::kMeshIdText];
  invite.mesh_slug = slug;
  invite.broker_url = config_.public_url;
  invite.expires_at_s = env_.wall_ms / 1000 + static_cast<std::uint64_t>(seconds);
  invite.mesh_root_key = root_text.view();
  invite.role = *role == store::MemberRole::kAdmin ? "admin" : "member";
  invite.owner = where.fixed.owner_public;
  TextBuf canonical(scratch());
  if (Status built = crypto::canonical_invite_v1(
          {invite.mesh_id, invite.mesh_slug, invite.broker_url, invite.expires_at_s,
           invite.mesh_root_key, invite.role, invite.owner},
          canonical);
      !built) {
    return built;
  }
  invite.signature = crypto::sign(slab_, secret, canonical.view());

  TextBuf payload(scratch());
  wire::write_invite(invite, payload);
  TextBuf token(scratch(), 1024);
  crypto::base64url_append(as_bytes(payload.view()), token);
  store::InviteRow row;
  row.fixed.mesh_no = mesh_no;
  row.fixed.uses_max = static_cast<std::uint32_t>(uses);
  row.fixed.role = *role;
  row.fixed.created_ms = env_.wall_ms;
  row.fixed.expires_ms = invite.expires_at_s * 1000;
  const crypto::Base62Id invite_id = crypto::base62_id(env_.rng);
  row.text[store::kInviteId] = crypto::view(invite_id);
  batch().put(TableId::kInvite, crypto::sha256(as_bytes(token.view())), row);

  TextBuf code(scratch(), 16);
  if (Status kept = put_code(token.view(), row.fixed.expires_ms, code); !kept) return kept;
  TextBuf short_link(scratch());
  short_link.append(http_origin(config_.public_url));
  short_link.append("/i/");
  short_link.append(code.view());
  TextBuf link(scratch(), 1100);
  link.append("ic://join/");
  link.append(token.view());
  wire::JsonWriter answer(call.reply);
  answer.begin_object().field("url", link.view()).field("token", token.view());
  answer.field("code", code.view()).field("short_url", short_link.view());
  answer.key("expires_at").iso_time(row.fixed.expires_ms).field("role", invite.role);
  answer.field("max_uses", uses).field("emailed", false).end_object();
  env_.log->info("invite_created", {{"mesh", slug}, {"role", invite.role}, {"max_uses", uses}});
  return {};
}

// The check order of spec/enrollment.md §5.3.
Status Broker::join(HttpCall& call) {
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const std::string_view token = fields.text("invite_token", wire::kTokenMax);
  const wire::JsonNode* payload = fields.object("invite_payload");
  const PublicKey key = fields.public_key("peer_pubkey");
  const std::string_view name = fields.shown("display_name", wire::kDisplayNameMax);
  if (!fields.ok()) return fields.take();
  wire::Invite invite;
  if (Status parsed = wire::parse_invite(tape, *payload, invite); !parsed) return parsed;
  if (Status verified = wire::verify_invite(invite, scratch()); !verified) return verified;
  const auto mesh_no =
      batch().get_number(TableId::kMeshId, store::text_key(invite.mesh_id).bytes());
  store::MeshRow where;
  if (!mesh_no || !batch().get(TableId::kMesh, store::u32_key(*mesh_no).bytes(), where)) {
    return Err::kMeshNotFound;
  }
  if (mesh(*mesh_no)->deleted) return Err::kMeshNotFound;
  sodium_memzero(where.fixed.owner_secret.data(), where.fixed.owner_secret.size());
  if (where.fixed.owner_public != invite.owner) return Err::kInviteOwnerMismatch;
  const crypto::Hash32 token_hash = crypto::sha256(as_bytes(token));
  store::InviteRow row;
  if (!batch().get(TableId::kInvite, token_hash, row)) return Err::kInviteNotFound;
  if (row.fixed.mesh_no != *mesh_no) return Err::kInviteMeshMismatch;
  if (row.fixed.revoked_ms != 0) return Err::kInviteRevoked;
  if (row.fixed.expires_ms <= env_.wall_ms) return Err::kInviteExpired;

  const store::Key by_key = store::u32_bytes_key(*mesh_no, key);
  wire::JsonWriter json(call.reply);
  if (const auto existing = batch().get_number(TableId::kMemberKey, by_key.bytes())) {
    const MemberMirror* known = member(*existing);
    // A ban binds the key: a fresh invite does not lift it (design/presence.md, "Revocation").
    if (known == nullptr || known->revoked) return Err::kRevoked;
    json.begin_object().field("ok", true).field("memberId", known->id);
    json.field("alreadyMember", true).end_object();
    return {};
  }
  if (batch().get_raw(TableId::kBinding, by_key.bytes())) {
    return fail(Err::kMalformed, "field 'peer_pubkey': this key is in use as a session key");
  }
  if (row.fixed.uses >= row.fixed.uses_max) return Err::kInviteExhausted;

  row.fixed.uses += 1;
  const std::string invite_id(row.text[store::kInviteId]);
  row.text[store::kInviteId] = invite_id;
  batch().put(TableId::kInvite, token_hash, row);
  std::string_view member_id;
  add_member(*mesh_no, row.fixed.role, key, name, member_id);
  json.begin_object().field("ok", true).field("memberId", member_id).end_object();
  env_.log->info("member_joined", {{"mesh", invite.mesh_slug}, {"member", member_id}});
  return {};
}

}  // namespace cm::broker
