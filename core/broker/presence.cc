// presence.cc — one entry a stable key; a lease that outlives the socket by 90 s.
// Holds:  socket gone: offline, nobody is told. Back within the lease: nobody is told. Lease over:
//         exactly one peer_left; a later return: exactly one peer_joined. Entries are rows: they
//         survive a restart of the broker.
// Source: docs/PROTOCOL.md §3; design/presence.md, "Presence is a lease, not a socket".
// Not:    what a hello changes (attach.cc), queue hand-over on reattach (queue.cc).
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"

namespace cm::broker {

using store::TableId;

std::size_t PresenceKeyHash::operator()(const PresenceKey& key) const noexcept {
  return static_cast<std::size_t>(
      hash64(key.key, (std::uint64_t{key.mesh_no} << 8) | static_cast<std::uint64_t>(key.kind)));
}

PresenceRef Broker::make_presence(const PresenceKey& key, std::uint32_t member_no) {
  const PresenceRef presence = tables_.presences.insert();
  if (!presence) return presence;
  tables_.presences.get<kPresKey>(presence) = key;
  tables_.presences.get<kPresOwner>(presence) = {key.mesh_no, member_no};
  tables_.presence_of[key] = presence;
  mesh(key.mesh_no)->presences.push_back(presence);
  ++member(member_no)->presences;
  return presence;
}

void Broker::detach(ClientRef client) {
  const PresenceRef presence = tables_.clients.get<kClientPresence>(client);
  if (!presence) return;
  tables_.clients.get<kClientPresence>(client) = {};
  auto& sockets = tables_.presences.get<kPresClients>(presence);
  std::erase(sockets, client);
  if (!sockets.empty()) return;
  const std::uint64_t deadline = env_.mono_ms + limits_.presence_lease_ms;
  tables_.presences.get<kPresDeadline>(presence) = deadline;
  lease_check_ms_ = std::min(lease_check_ms_, deadline);
  store_presence(presence);
  save_peer_state(presence);
}

void Broker::store_presence(PresenceRef presence) {
  const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const std::uint64_t deadline = tables_.presences.get<kPresDeadline>(presence);
  store::PresenceRow row;
  row.fixed.member_no = tables_.presences.get<kPresOwner>(presence).member_no;
  row.fixed.online = deadline == 0;
  const PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  row.fixed.proved = status.proved;
  row.fixed.hidden = status.hidden;
  row.fixed.status = status.manual;
  row.fixed.connected_ms = info.connected_ms;
  row.fixed.lease_until_ms = env_.wall_ms + limits_.presence_lease_ms;
  row.fixed.pid = info.pid;
  row.text[store::kPresenceId] = info.presence_id;
  row.text[store::kPresenceSessionId] = info.session_id;
  row.text[store::kPresenceName] = info.name;
  row.text[store::kPresenceCwd] = info.cwd;
  row.text[store::kPresenceHostname] = info.hostname;
  row.text[store::kPresencePeerType] = info.peer_type;
  row.text[store::kPresenceChannel] = info.channel;
  row.text[store::kPresenceModel] = info.model;
  row.text[store::kPresenceSummary] = info.summary;
  row.text[store::kPresenceGroups] = info.groups_json;
  row.text[store::kPresenceProfile] = info.profile;
  batch().put(TableId::kPresence, store::presence_key(key.mesh_no, key.kind, key.key).bytes(), row);
}

// Each lease that ends is told to everybody: after a partition thousands end at once. At least one
// ends in an iteration, more only while it has room.
void Broker::expire_leases() {
  leases_left_ = false;
  if (env_.mono_ms < lease_check_ms_) return;
  lease_check_ms_ = UINT64_MAX;
  bool one_ended = false;
  tables_.presences.each([&](PresenceRef presence) {
    const std::uint64_t deadline = tables_.presences.get<kPresDeadline>(presence);
    if (deadline == 0) return;
    const bool due = deadline <= env_.mono_ms;
    if (!due || (one_ended && iteration_full())) {
      lease_check_ms_ = std::min(lease_check_ms_, deadline);
      leases_left_ = leases_left_ || due;
      return;
    }
    one_ended = true;
    metrics_.add(Metric::kBrokerLeasesExpired);
    announce(presence, "peer_left");
    remove_presence(presence);
  });
  metrics_.add(one_ended ? Metric::kBrokerTtlSweepsSome : Metric::kBrokerTtlSweepsNone);
}

// A hook's word counts for a while; then rows that it held back are looked at again.
void Broker::apply_hook(PresenceRef presence, store::PeerStatus status) {
  constexpr std::uint64_t kHookFreshMs = 30'000;
  PresenceStatus& now = tables_.presences.get<kPresStatus>(presence);
  now.hook = status;
  now.hook_until_ms = env_.mono_ms + kHookFreshMs;
  hook_check_ms_ = std::min(hook_check_ms_, now.hook_until_ms);
  for (const ClientRef client : tables_.presences.get<kPresClients>(presence)) {
    mark_mailboxes_of(client);
  }
}

void Broker::expire_hook_statuses() {
  if (env_.mono_ms < hook_check_ms_) return;
  hook_check_ms_ = UINT64_MAX;
  tables_.presences.each([&](PresenceRef presence) {
    PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
    if (status.hook_until_ms == 0) return;
    if (status.hook_until_ms > env_.mono_ms) {
      hook_check_ms_ = std::min(hook_check_ms_, status.hook_until_ms);
      return;
    }
    status.hook_until_ms = 0;
    for (const ClientRef client : tables_.presences.get<kPresClients>(presence)) {
      mark_mailboxes_of(client);
    }
  });
}

void Broker::remove_presence(PresenceRef presence) {
  const PresenceKey key = tables_.presences.get<kPresKey>(presence);
  CHECK(tables_.presences.get<kPresClients>(presence).empty());
  batch().erase(TableId::kPresence, store::presence_key(key.mesh_no, key.kind, key.key).bytes());
  tables_.presence_of.erase(key);
  std::erase(mesh(key.mesh_no)->presences, presence);
  if (MemberMirror* owner = member(tables_.presences.get<kPresOwner>(presence).member_no)) {
    CHECK(owner->presences > 0);
    --owner->presences;
  }
  tables_.presences.erase(presence);
}

}  // namespace cm::broker
