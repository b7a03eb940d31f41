// authority.cc — proves who asks over HTTP, and what that one may do in a mesh.
// Holds:  a signature counts once, at the broker whose Host it names: its nonce is remembered, in
//         the same commit as what it allowed, until its time is too old. Only a member's is. The
//         admin token is compared by hash, in constant time.
// Source: docs/PROTOCOL.md §7; design/presence.md, "Authority and exposure of a broker".
// Not:    the routes (http.cc, mesh_admin.cc, members.cc, codes.cc).
#include "core/broker/http/authority.h"

#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::string_view kAdminTokenKey = "admin_token_sha256";
constexpr std::uint64_t kSkewMs = 60'000;
constexpr std::size_t kNonceMin = 16;
constexpr std::size_t kNonceMax = 64;

// The next part of "a:b:c", or nothing when there is none.
std::string_view next_part(std::string_view& rest) noexcept {
  const std::size_t colon = rest.find(':');
  const std::string_view part = rest.substr(0, colon);
  rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
  return part;
}

std::optional<std::uint64_t> parse_ms(std::string_view text) noexcept {
  if (text.empty() || text.size() > 15) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

// Host names do not tell letters by their case.
bool equal_folded(std::string_view left, std::string_view right) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [&](char a, char b) { return lower(a) == lower(b); });
}

}  // namespace

std::uint16_t caps_of_permissions(std::uint16_t permissions) noexcept {
  std::uint16_t caps = kCapAll;
  if ((permissions & kCanSend) == 0) caps &= static_cast<std::uint16_t>(~(kCapDm | kCapBroadcast));
  if ((permissions & kCanWriteState) == 0) caps &= static_cast<std::uint16_t>(~kCapStateWrite);
  return caps;
}

void Broker::set_admin_token_hash(const crypto::Hash32& hash) {
  store::MetaRow row;
  const store::Key key = store::text_key(kAdminTokenKey);
  if (batch().get(TableId::kMeta, key.bytes(), row) &&
      row.text[store::kMetaValue] == as_text(hash)) {
    return;
  }
  row = {};
  row.text[store::kMetaValue] = as_text(hash);
  batch().put(TableId::kMeta, key.bytes(), row);
}

bool Broker::is_admin(const wire::HttpRequest& request) {
  if (!config_.accepts_admin_token || !request.authorization.starts_with(kBearerScheme)) {
    return false;
  }
  store::MetaRow row;
  if (!batch().get(TableId::kMeta, store::text_key(kAdminTokenKey).bytes(), row)) return false;
  const crypto::Hash32 shown =
      crypto::sha256(as_bytes(request.authorization.substr(kBearerScheme.size())));
  return crypto::equal_in_constant_time(shown, as_bytes(row.text[store::kMetaValue]));
}

Result<Authority> Broker::authority_of(const wire::HttpRequest& request) {
  Authority authority;
  if (request.authorization.starts_with(kBearerScheme)) {
    if (!config_.accepts_admin_token) {
      return fail(Err::kUnauthenticated,
                  "the admin token is not accepted over plaintext off loopback; use TLS");
    }
    if (!is_admin(request)) return fail(Err::kUnauthenticated, "the admin token is not this one");
    authority.admin = true;
    return authority;
  }
  if (!request.authorization.starts_with(kMemberScheme)) {
    return fail(Err::kUnauthenticated,
                "this route needs 'Authorization: Bearer <admin token>' or a CM-Member signature");
  }
  if (Status proved = check_member_signature(request, authority); !proved) return proved.error();
  return authority;
}

Status Broker::check_member_signature(const wire::HttpRequest& request, Authority& authority) {
  std::string_view rest = request.authorization.substr(kMemberScheme.size());
  const std::string_view key_text = next_part(rest);
  const std::string_view time_text = next_part(rest);
  const std::string_view nonce = next_part(rest);
  const auto key = crypto::public_key_parse(key_text);
  const auto signature = crypto::signature_parse(rest);
  const auto ms = parse_ms(time_text);
  const bool good_nonce = nonce.size() >= kNonceMin && nonce.size() <= kNonceMax &&
                          wire::is_client_id(nonce) && nonce.find('|') == std::string_view::npos;
  if (!key || !signature || !ms || !good_nonce) {
    return fail(Err::kUnauthenticated,
                "CM-Member: expected <pubkey>:<ms>:<nonce of 16 to 64>:<signature>");
  }
  if (!is_own_host(request)) {
    return fail(Err::kUnauthenticated,
                "CM-Member: the Host that was signed is not this broker's; reach it by the host of "
                "its --public-url");
  }
  const std::uint64_t now = env_.wall_ms;
  if (*ms + kSkewMs < now || *ms > now + kSkewMs) {
    return fail(Err::kTimestampSkew,
                "CM-Member: the time is more than 60 s off the broker's clock");
  }
  TextBuf text(scratch());
  text.append("claudemesh-http-v1|");
  text.append(request.method);
  text.append('|');
  text.append(request.path);
  if (!request.query.empty()) {
    text.append('?');
    text.append(request.query);
  }
  text.append('|');
  crypto::hex_append(crypto::sha256(as_bytes(request.body)), text);
  text.append('|');
  text.append(time_text);
  text.append('|');
  text.append(nonce);
  text.append('|');
  text.append(request.host);
  if (!crypto::verify(*key, text.view(), *signature)) {
    return fail(Err::kBadSignature, "CM-Member: the signature does not verify");
  }
  // Before anything is written: a key costs nothing to make, a row and its commit do.
  if (!is_any_member(*key)) return fail(Err::kForbidden, "this key is no member of any mesh");
  TextBuf once(scratch());
  once.append(key_text);
  once.append('|');
  once.append(nonce);
  const crypto::Hash32 mark = crypto::sha256(as_bytes(once.view()));
  const store::Key seen = store::Key().add_u64(*ms).add(Bytes(mark));
  if (!batch().get_index(TableId::kHttpNonce, seen.bytes()).empty()) {
    return fail(Err::kUnauthenticated, "CM-Member: this nonce was used before");
  }
  const std::uint8_t used = 1;
  batch().put_index(TableId::kHttpNonce, seen.bytes(), Bytes(&used, 1));
  forget_old_nonces();
  authority.key = *key;
  return {};
}

bool Broker::is_own_host(const wire::HttpRequest& request) const noexcept {
  const auto is_this = [&](std::string_view own) { return equal_folded(own, request.host); };
  if (std::any_of(config_.hosts.begin(), config_.hosts.end(), is_this)) return true;
  return request.peer_is_loopback &&
         std::any_of(config_.local_hosts.begin(), config_.local_hosts.end(), is_this);
}

bool Broker::is_any_member(const PublicKey& key) {
  const auto [first, last] = tables_.meshes_of_key.equal_range(key);
  return std::any_of(first, last,
                     [&](const auto& entry) { return member_of(entry.second, key) != 0; });
}

void Broker::forget_old_nonces() {
  const std::uint64_t oldest = env_.wall_ms > 2 * kSkewMs ? env_.wall_ms - 2 * kSkewMs : 0;
  constexpr int kAtOnce = 4;
  for (int count = 0; count < kAtOnce; ++count) {
    Bytes key;
    {
      store::Cursor cursor(batch(), TableId::kHttpNonce);
      if (!cursor.seek({}) || load_be64(cursor.key().data()) >= oldest) return;
      key = scratch().copy(cursor.key());
    }
    batch().erase(TableId::kHttpNonce, key);
  }
}

std::uint32_t Broker::member_of(std::uint32_t mesh_no, const PublicKey& key) {
  const auto no =
      batch().get_number(TableId::kMemberKey, store::u32_bytes_key(mesh_no, key).bytes());
  if (!no) return 0;
  const MemberMirror* found = member(*no);
  return found != nullptr && !found->revoked ? *no : 0;
}

std::uint16_t Broker::permissions_of(std::uint32_t member_no) {
  store::MemberProfileRow row;
  if (batch().get(TableId::kMemberProfile, store::u32_key(member_no).bytes(), row) &&
      row.fixed.has_permissions != 0) {
    return row.fixed.permissions;
  }
  const MemberMirror* found = member(member_no);
  return found != nullptr && found->is_admin != 0 ? kAdminPermissions : kMemberPermissions;
}

// The admin token may do everything; a member what its permissions say.
Status Broker::check_permission(const Authority& authority, std::uint32_t mesh_no,
                                std::uint16_t permission) {
  if (authority.admin) return {};
  const std::uint32_t member_no = authority.key ? member_of(mesh_no, *authority.key) : 0;
  if (member_no == 0) return fail(Err::kForbidden, "this key is no member of the mesh");
  if ((permissions_of(member_no) & permission) == permission) return {};
  const auto lacking = static_cast<std::uint16_t>(permission & ~permissions_of(member_no));
  for (const PermissionName& name : kPermissionNames) {
    if ((name.bit & lacking) != 0) {
      return fail(Err::kForbidden, "this member lacks the permission " + std::string(name.name));
    }
  }
  return Err::kForbidden;
}

// May the permissions of this member become `bits`? Nobody gives what it does not have, and who may
// delete the mesh is not made less by who may not.
Status Broker::check_change(const Authority& authority, std::uint32_t mesh_no,
                            std::uint32_t member_no, std::uint16_t bits) {
  const std::uint16_t before = permissions_of(member_no);
  const auto added = static_cast<std::uint16_t>(bits & ~before);
  if (Status may = check_permission(authority, mesh_no, added); !may) return may;
  if ((before & ~bits) == 0 || (before & kCanDeleteMesh) == 0) return {};
  if (check_permission(authority, mesh_no, kCanDeleteMesh)) return {};
  return fail(Err::kForbidden, "only who may delete the mesh takes something from who may");
}

// Explicit permissions follow the role: what an admin had goes with it, what was taken from a
// member stays taken.
std::uint16_t Broker::permissions_with_role(std::uint32_t member_no, store::MemberRole role) {
  const std::uint16_t bits = permissions_of(member_no);
  const bool was_admin = member(member_no)->is_admin != 0;
  if (role == store::MemberRole::kMember) {
    return static_cast<std::uint16_t>(bits & kMemberPermissions);
  }
  if (was_admin) return bits;
  return static_cast<std::uint16_t>(bits | (kAdminPermissions & ~kMemberPermissions));
}

// What a member may not do takes the capability from all of its connections.
std::uint16_t Broker::caps_of(ClientRef client) {
  std::uint16_t caps = tables_.presences.get<kPresStatus>(presence_of(client)).caps;
  const MemberMirror* owner = member(tables_.clients.get<kClientMemberNo>(client));
  return static_cast<std::uint16_t>(caps & owner->caps);
}

}  // namespace cm::broker
