// presence.cc — one entry a stable key; a lease that outlives the socket by 90 s.
// Holds:  socket gone: offline, nobody is told. Back within the lease: nobody is told. Lease over:
//         exactly one peer_left; a later return: exactly one peer_joined. Entries are rows: they
//         survive a restart of the broker.
// Source: design/presence.md, "Presence is a lease, not a socket".
// Not:    queue hand-over on reattach (queue.cc).
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/crypto/random.h"

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

PresenceRef Broker::attach(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
                           bool& fresh) {
  const PresenceKey key{facts.mesh_no, facts.session ? MailboxKind::kSession : MailboxKind::kMember,
                        facts.session.value_or(facts.key)};
  const auto found = tables_.presence_of.find(key);
  fresh = found == tables_.presence_of.end();
  PresenceRef presence = fresh ? make_presence(key, facts.member_no) : found->second;
  CHECK(presence);  // check_member() saw room for it
  auto& info = tables_.presences.get<kPresInfo>(presence);
  if (fresh) {
    info.presence_id = crypto::view(crypto::base62_id(env_.rng));
    info.connected_ms = env_.wall_ms;
  }
  const MemberMirror* owner = member(facts.member_no);
  info.name = hello.display_name.empty() ? owner->name : std::string(hello.display_name);
  // The same process with a second socket: the first one is dead and does not know it yet.
  const bool same_process = !fresh && info.session_id == hello.session_id;
  info.session_id = hello.session_id;
  info.cwd = hello.cwd;
  info.hostname = hello.hostname;
  info.peer_type = hello.peer_type;
  info.channel = hello.channel;
  info.model = hello.model;
  info.pid = hello.pid;
  if (same_process) {
    const std::vector<ClientRef> older = tables_.presences.get<kPresClients>(presence);
    for (const ClientRef old : older) close(old, 1000, "session_replaced");
  }
  tables_.presences.get<kPresClients>(presence).push_back(client);
  tables_.presences.get<kPresDeadline>(presence) = 0;
  tables_.clients.get<kClientPresence>(client) = presence;
  store_presence(presence);
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
}

void Broker::store_presence(PresenceRef presence) {
  const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const std::uint64_t deadline = tables_.presences.get<kPresDeadline>(presence);
  store::PresenceRow row;
  row.fixed.member_no = tables_.presences.get<kPresOwner>(presence).member_no;
  row.fixed.online = deadline == 0;
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
  batch().put(TableId::kPresence, store::presence_key(key.mesh_no, key.kind, key.key).bytes(), row);
}

void Broker::expire_leases() {
  if (env_.mono_ms < lease_check_ms_) return;
  lease_check_ms_ = UINT64_MAX;
  tables_.presences.each([&](PresenceRef presence) {
    const std::uint64_t deadline = tables_.presences.get<kPresDeadline>(presence);
    if (deadline == 0) return;
    if (deadline > env_.mono_ms) {
      lease_check_ms_ = std::min(lease_check_ms_, deadline);
      return;
    }
    metrics_.add(Metric::kBrokerLeasesExpired);
    announce(presence, "peer_left");
    remove_presence(presence);
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
