// known_peers.cc — who was seen under which name: it lets names resolve while bearers are away.
// Holds:  a mesh has at most known_peers_max rows that nobody used; the one seen longest ago makes
//         room. A bound name is never dropped. A member has at most kNamesMax unused names.
// Why:    names and member keys are free: a hostile mesh lists new ones every second, and must fill
//         neither the store nor an iteration. The table is walked at most twice for a list of
//         peers, and only when the list has somebody new; nothing of it stays in memory.
// Source: docs/PROTOCOL.md §10.2; design/delivery.md, "Who a name is".
// Limits: Limits::known_peers_max.
// Not:    what a name leads to (resolve.cc), bound names (bound_names.cc).
#include <algorithm>
#include <functional>

#include "core/daemon/known_peers.h"
#include "core/daemon/names.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint32_t kNamesMax = 8;  // of one member, unused
constexpr std::uint64_t kKnownPeerRefreshMs = 3'600'000;
constexpr std::size_t kRenamedMax = 256;  // members of one list whose rows are written for it
constexpr int kDroppedForOne = 2;         // so that a table that is over its limit shrinks

}  // namespace

// Calls `visit(key, row)` for each row of the mesh that nobody used.
template <class Visit>
void Daemon::each_unused_peer(std::string_view mesh_id, Visit visit) {
  const store::Key from = store::text_key(mesh_id).add_u8(0);
  store::Cursor cursor(batch(), TableId::kKnownPeer);
  for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
    if (!as_text(cursor.key()).starts_with(as_text(from.bytes()))) break;
    store::KnownPeerRow row;
    if (cursor.row(row) && row.fixed.bound_ms == 0) visit(cursor.key(), row);
  }
}

// Refreshed at most once an hour, and when the member is listed under another name: then all its
// names are, so that the newest ones have the newest time. `known` is of this list of peers.
void Daemon::remember_peer(MeshRef mesh, const wire::PeerEntry& peer, KnownPeers& known) {
  const MeshConfig& config = config_of(mesh);
  if (peer.display_name.empty() || peer.member_pubkey == config.key) return;
  const std::string folded = fold_name(peer.display_name);
  const store::Key key = store::known_peer_key(config.mesh_id, folded, peer.member_pubkey);
  store::KnownPeerRow row;
  if (batch().get(TableId::kKnownPeer, key.bytes(), row)) {
    const bool renamed = known.renamed.contains(peer.member_pubkey);
    if (!renamed && env_.wall_ms < row.fixed.last_seen_ms + kKnownPeerRefreshMs) return;
  } else {
    if (!batch().admits()) return;
    if (!known.counted) count_known_peers(config.mesh_id, known);
    std::uint32_t& names = known.names[peer.member_pubkey];
    if (names >= kNamesMax || !make_room_for_peer(config.mesh_id, known)) return;
    ++names;
    ++known.unused;
    row.fixed.first_seen_ms = env_.wall_ms;
    row.fixed.member = peer.member_pubkey;
  }
  row.fixed.last_seen_ms = env_.wall_ms;
  row.text[store::kKnownPeerName] = peer.display_name;
  batch().put(TableId::kKnownPeer, key.bytes(), row);
}

// Compared with the list before, which the mirror still has.
void Daemon::note_renamed(MeshRef mesh, const wire::BrokerFrame& frame, const wire::JsonNode& peers,
                          KnownPeers& known) const {
  std::set<std::pair<PublicKey, std::string_view>> listed;
  for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(mesh).peers) {
    listed.emplace(tables_.peers.get<kPeerMember>(peer), tables_.peers.get<kPeerNameFolded>(peer));
  }
  const wire::JsonTape& tape = frame.tape;
  for (std::uint32_t at = tape.first(peers); at < peers.next && known.renamed.size() < kRenamedMax;
       at = tape.at(at).next) {
    wire::PeerEntry entry;
    if (!wire::parse_peer(tape, tape.at(at), entry)) continue;
    const std::string folded = fold_name(entry.display_name);
    if (!listed.contains({entry.member_pubkey, folded})) known.renamed.insert(entry.member_pubkey);
  }
}

void Daemon::count_known_peers(std::string_view mesh_id, KnownPeers& known) {
  known.counted = true;
  each_unused_peer(mesh_id, [&](Bytes, const store::KnownPeerRow& row) {
    ++known.names[row.fixed.member];
    ++known.unused;
  });
}

bool Daemon::make_room_for_peer(std::string_view mesh_id, KnownPeers& known) {
  if (known.unused < limits_.known_peers_max) return true;
  if (!known.sorted) {
    known.sorted = true;
    each_unused_peer(mesh_id, [&](Bytes key, const store::KnownPeerRow& row) {
      // Whoever is listed now was refreshed within the hour; nobody new takes their place.
      if (row.fixed.last_seen_ms + kKnownPeerRefreshMs > env_.wall_ms) return;
      known.oldest_last.emplace_back(row.fixed.last_seen_ms, as_text(key));
    });
    std::sort(known.oldest_last.begin(), known.oldest_last.end(), std::greater<>());
  }
  for (int dropped = 0; dropped < kDroppedForOne && known.unused >= limits_.known_peers_max;
       ++dropped) {
    if (known.oldest_last.empty()) return false;
    batch().erase(TableId::kKnownPeer, as_bytes(known.oldest_last.back().second));
    known.oldest_last.pop_back();
    --known.unused;
  }
  return known.unused < limits_.known_peers_max;
}

}  // namespace cm::daemon
