// resolve.cc — from what a person typed to a target: a key, a key's prefix, a name, or a group.
// Holds:  display names are free, so a name is bound to a member key at first use; a name that two
//         members bear, or that arrives under another key, is refused with both keys named. A name
//         is refused as unknown only after the list was asked for once more. Of a member only the
//         newest name counts; sending to its key binds that name, if it is not bound.
// Source: docs/PROTOCOL.md §10.2; design/delivery.md, "Who a name is".
// Not:    encryption; sessions' attestations (they come with sessions).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/daemon/names.h"
#include "core/daemon/sending.h"
#include "core/wire/fields.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::size_t kPrefixLeast = 16;
constexpr std::uint64_t kKnownForMs = 30ull * 24 * 3600 * 1000;

bool is_hex(std::string_view text) noexcept {
  for (const char c : text) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!good) return false;
  }
  return true;
}

void add_once(std::vector<PublicKey>& keys, const PublicKey& key) {
  if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
}

Error unknown_peer(std::string_view what, bool fresh, bool truncated) {
  if (truncated) {
    return fail(Err::kUnavailable, std::string(what) + " among those that the broker listed; " +
                                       "there are more: give the member's whole key");
  }
  if (fresh) return fail(Err::kNotFound, what);
  return fail(Err::kBrokerAway, std::string(what) + "; the broker could not be asked");
}

}  // namespace

Status Daemon::resolve(std::string_view to, ParkedRef parked, Outgoing& out) {
  if (to.front() == '@' || to.front() == '#' || to == "*") {
    // Readable by the broker: the answer says so.
    out.encrypted = false;
    out.target_text = to;
    if (to == "*") return {};
    if (to.size() == 1) {
      return fail(Err::kInvalidArgument, "field 'to': expected a name behind the first character");
    }
    return to.front() == '@' ? Status{} : resolve_topic(to.substr(1), parked, out);
  }
  const std::string lower = fold_name(to);
  if (const auto key = crypto::public_key_parse(lower)) {
    out.target = *key;
    bind_name_of_key(out);
    return {};
  }
  if (to.size() >= kPrefixLeast && to.size() < 64 && is_hex(to)) {
    return resolve_prefix(lower, parked, out);
  }
  if (to.size() > wire::kDisplayNameMax) {
    return fail(Err::kInvalidArgument, "field 'to': a name has at most 128 bytes");
  }
  return resolve_name(to, parked, out);
}

// Fresh: listed after this request came.
bool Daemon::roster_is_fresh(MeshRef mesh, ParkedRef parked) const {
  if (!parked) return false;
  const Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  return roster.state == RosterState::kLoaded &&
         roster.loaded_serial >= tables_.parked.get<kParkedSerial>(parked);
}

bool Daemon::is_truncated(MeshRef mesh) const {
  return tables_.meshes.get<kMeshRoster>(mesh).truncated;
}

bool Daemon::may_wait(ParkedRef parked) const {
  return !parked || tables_.parked.get<kParkedDeadline>(parked) > env_.mono_ms;
}

bool Daemon::list_is_coming(MeshRef mesh) const {
  return tables_.meshes.get<kMeshRoster>(mesh).state == RosterState::kUnknown && can_answer(mesh);
}

// Its broker is there, or about to be.
bool Daemon::can_answer(MeshRef mesh) const {
  const LinkState state = state_of(mesh);
  return state == LinkState::kHelloSent || state == LinkState::kOpen;
}

Status Daemon::resolve_prefix(std::string_view prefix, ParkedRef parked, Outgoing& out) {
  std::vector<PublicKey> matches;
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(out.mesh).peers) {
    const PublicKey& member = tables_.peers.get<kPeerMember>(peer);
    if (crypto::view(crypto::hex_text(member)).starts_with(prefix)) add_once(matches, member);
  }
  if (matches.size() == 1) {
    out.target = matches.front();
    bind_name_of_key(out);
    return {};
  }
  const std::string shown = "field 'to': prefix \"" + std::string(prefix) + "\"";
  if (matches.size() > 1) {
    return fail(Err::kInvalidArgument,
                shown + " is ambiguous (" + std::to_string(matches.size()) + " matches)");
  }
  const bool fresh = roster_is_fresh(out.mesh, parked);
  if (!fresh && may_wait(parked)) {
    out.wait = Wait::kRoster;
    return {};
  }
  return unknown_peer(shown + " matches no peer", fresh, is_truncated(out.mesh));
}

// Listed now, and not under this name: the list says better than memory what its name is.
bool Daemon::is_listed_otherwise(MeshRef mesh, const PublicKey& member,
                                 std::string_view folded) const {
  bool listed = false;
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(mesh).peers) {
    if (tables_.peers.get<kPeerMember>(peer) != member) continue;
    if (tables_.peers.get<kPeerNameFolded>(peer) == folded) return false;
    listed = true;
  }
  return listed;
}

Daemon::KnownName Daemon::known_name(MeshRef mesh, std::string_view folded) {
  KnownName known;
  std::map<PublicKey, std::uint64_t> seen;  // when under this name
  const std::string& mesh_id = config_of(mesh).mesh_id;
  const store::Key prefix = store::known_peer_prefix(mesh_id, folded);
  store::Cursor cursor(batch(), TableId::kKnownPeer);
  for (bool more = cursor.seek(prefix.bytes()); more; more = cursor.next()) {
    if (!as_text(cursor.key()).starts_with(as_text(prefix.bytes()))) break;
    store::KnownPeerRow row;
    if (!cursor.row(row)) continue;
    if (row.fixed.bound_ms != 0) known.bound = row.fixed.member;
    if (row.fixed.last_seen_ms + kKnownForMs >= env_.wall_ms) {
      seen[row.fixed.member] = row.fixed.last_seen_ms;
    }
  }
  if (known.bound) return known;  // it alone decides
  std::erase_if(seen,
                [&](const auto& entry) { return is_listed_otherwise(mesh, entry.first, folded); });
  if (seen.empty()) return known;
  // Whoever was seen later under another name has left this one.
  const store::Key from = store::text_key(mesh_id).add_u8(0);
  for (bool more = cursor.seek(from.bytes()); more && !seen.empty(); more = cursor.next()) {
    if (!as_text(cursor.key()).starts_with(as_text(from.bytes()))) break;
    store::KnownPeerRow row;
    if (!cursor.row(row)) continue;
    const auto entry = seen.find(row.fixed.member);
    if (entry != seen.end() && row.fixed.last_seen_ms > entry->second) seen.erase(entry);
  }
  for (const auto& entry : seen) known.recent.push_back(entry.first);
  return known;
}

// To a whole key, or enough of it: the name that it bears now is bound to it, so that the remedy
// of a conflict ends it. A name that is bound stays so; a session's key bears none.
void Daemon::bind_name_of_key(Outgoing& out) {
  const MeshConfig& config = config_of(out.mesh);
  std::string name;
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(out.mesh).peers) {
    if (tables_.peers.get<kPeerMember>(peer) != out.target) continue;
    const bool is_control = tables_.peers.get<kPeerIsControl>(peer) != 0;
    if (name.empty() || is_control) name = tables_.peers.get<kPeerNameFolded>(peer);
    if (is_control) break;
  }
  if (name.empty()) {
    std::uint64_t newest = 0;
    const store::Key from = store::text_key(config.mesh_id).add_u8(0);
    store::Cursor cursor(batch(), TableId::kKnownPeer);
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      if (!as_text(cursor.key()).starts_with(as_text(from.bytes()))) break;
      store::KnownPeerRow row;
      if (!cursor.row(row) || row.fixed.member != out.target) continue;
      if (row.fixed.last_seen_ms < newest) continue;
      newest = row.fixed.last_seen_ms;
      name = row.text[store::kKnownPeerName];
    }
  }
  if (name.empty() || out.target == config.key) return;
  const store::Key prefix = store::known_peer_prefix(config.mesh_id, fold_name(name));
  if (tables_.bound.contains(std::string(as_text(prefix.bytes())))) return;
  out.bind_member = out.target;
  out.bind_name = name;
}

void Daemon::bind_name(MeshRef mesh, std::string_view name, const PublicKey& member) {
  const store::Key key = store::known_peer_key(config_of(mesh).mesh_id, fold_name(name), member);
  store::KnownPeerRow row;
  const bool known = batch().get(TableId::kKnownPeer, key.bytes(), row);
  if (known && row.fixed.bound_ms != 0) return;
  if (!known) {
    row.fixed.first_seen_ms = env_.wall_ms;
    row.fixed.last_seen_ms = env_.wall_ms;
    row.fixed.member = member;
    row.text[store::kKnownPeerName] = name;
  }
  row.fixed.bound_ms = env_.wall_ms;
  batch().put(TableId::kKnownPeer, key.bytes(), row);
  note_bound_name(config_of(mesh).mesh_id, fold_name(name), member);
}

Error Daemon::name_conflict(std::string_view name, const std::vector<PublicKey>& keys) const {
  std::string detail = "field 'to': \"" + std::string(name) + "\" is borne by";
  for (const PublicKey& key : keys) {
    detail += " ";
    detail += crypto::view(crypto::hex_text(key));
  }
  return fail(Err::kPeerNameConflict, detail);
}

Status Daemon::resolve_name(std::string_view name, ParkedRef parked, Outgoing& out) {
  const std::string folded = fold_name(name);
  std::vector<PublicKey> members;
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(out.mesh).peers) {
    if (tables_.peers.get<kPeerNameFolded>(peer) != folded) continue;
    const PublicKey& member = tables_.peers.get<kPeerMember>(peer);
    if (member == config_of(out.mesh).key) continue;  // one's own other connections
    add_once(members, member);
  }
  // A list that is on its way may show a second bearer: wait for it before a name is believed.
  const bool fresh = roster_is_fresh(out.mesh, parked);
  if (!fresh && may_wait(parked) && list_is_coming(out.mesh)) {
    out.wait = Wait::kRoster;
    return {};
  }

  const KnownName known = known_name(out.mesh, folded);
  std::vector<PublicKey> bearers = members;
  if (known.bound) {
    add_once(bearers, *known.bound);
  } else {
    // Who was seen under this name lately: alone and away it is meant; beside another it may be,
    // and whoever took the name over must not get what was meant for it.
    for (const PublicKey& member : known.recent) add_once(bearers, member);
  }
  if (bearers.size() > 1) return name_conflict(name, bearers);
  if (bearers.empty()) {
    if (!fresh && may_wait(parked)) {
      out.wait = Wait::kRoster;
      return {};
    }
    return unknown_peer("field 'to': no peer \"" + std::string(name) + "\"", fresh,
                        is_truncated(out.mesh));
  }
  out.bind_member = bearers.front();
  out.bind_name = name;
  // To the member, never to a session key that only the broker vouches for.
  out.target = bearers.front();
  return {};
}

}  // namespace cm::daemon
