// load.cc — the mirrors: built at start, rebuilt after an abandoned iteration.
// Holds:  after load() memory says what the store says and nothing else; claims and sockets are
//         not durable and start empty.
// Not:    opening the store (store/store.cc), checking the mirrors (verify.cc).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"

namespace cm::broker {
namespace {

using store::TableId;

// The number behind the last key of a table that is keyed by mesh_no or member_no.
std::uint32_t next_number(store::Batch& batch, TableId table) {
  store::Cursor cursor(batch, table);
  return cursor.seek_before({}) ? load_be32(cursor.key().data()) + 1 : 1;
}

PublicKey key_at(Bytes key, std::size_t offset) noexcept {
  PublicKey out;
  std::copy_n(key.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
  return out;
}

constexpr std::size_t kPresenceKeyBytes = 4 + 1 + 32;
constexpr std::size_t kMemberKeyBytes = 4 + 32;

}  // namespace

Status Broker::load() {
  load_numbers();
  load_member_keys();
  load_presences();
  load_mailboxes();
  load_shared();
  plan_retention();
  if (batch().failed()) return fail(Err::kStoreFailed, "the broker's tables could not be read");
  return {};
}

void Broker::load_numbers() {
  next_mesh_no_ = next_number(batch(), TableId::kMesh);
  next_member_no_ = next_number(batch(), TableId::kMember);
  next_topic_no_ = next_number(batch(), TableId::kTopic);
  store::MetaRow counter;
  if (batch().get(TableId::kMeta, store::text_key("next_session_no").bytes(), counter)) {
    next_session_no_ = static_cast<std::uint32_t>(counter.fixed.number);
  }
  store::Cursor cursor(batch(), TableId::kMessage);
  Ulid last;
  if (cursor.seek_before({}) && store::parse_ulid_key(cursor.key(), last)) {
    ulids_.start_after(last);
  }
}

void Broker::load_member_keys() {
  tables_.meshes_of_key.clear();
  store::Cursor cursor(batch(), TableId::kMemberKey);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    if (cursor.key().size() != kMemberKeyBytes) continue;
    tables_.meshes_of_key.emplace(key_at(cursor.key(), 4), load_be32(cursor.key().data()));
  }
}

void Broker::load_presences() {
  store::Cursor cursor(batch(), TableId::kPresence);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::PresenceRow row;
    if (cursor.key().size() != kPresenceKeyBytes || !cursor.row(row)) continue;
    const PresenceKey key{load_be32(cursor.key().data()), static_cast<MailboxKind>(cursor.key()[4]),
                          key_at(cursor.key(), 5)};
    if (mesh(key.mesh_no) == nullptr || member(row.fixed.member_no) == nullptr) continue;
    const PresenceRef presence = make_presence(key, row.fixed.member_no);
    if (!presence) break;
    // What was online lost its socket with the broker: it gets a whole lease to come back.
    const std::uint64_t left =
        row.fixed.online != 0 ? limits_.presence_lease_ms
        : row.fixed.lease_until_ms > env_.wall_ms
            ? std::min<std::uint64_t>(row.fixed.lease_until_ms - env_.wall_ms,
                                      limits_.presence_lease_ms)
            : 0;
    const std::uint64_t deadline = env_.mono_ms + left;
    tables_.presences.get<kPresDeadline>(presence) = deadline;
    lease_check_ms_ = std::min(lease_check_ms_, deadline);
    PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
    info.presence_id = row.text[store::kPresenceId];
    info.session_id = row.text[store::kPresenceSessionId];
    info.name = row.text[store::kPresenceName];
    info.cwd = row.text[store::kPresenceCwd];
    info.hostname = row.text[store::kPresenceHostname];
    info.peer_type = row.text[store::kPresencePeerType];
    info.channel = row.text[store::kPresenceChannel];
    info.model = row.text[store::kPresenceModel];
    info.summary = row.text[store::kPresenceSummary];
    info.profile = row.text[store::kPresenceProfile];
    const std::string groups(row.text[store::kPresenceGroups]);
    info.connected_ms = row.fixed.connected_ms;
    info.pid = row.fixed.pid;
    PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
    status.manual =
        row.fixed.status < store::PeerStatus::kCount ? row.fixed.status : store::PeerStatus::kIdle;
    status.proved = row.fixed.proved;
    status.hidden = row.fixed.hidden;
    set_groups(info, groups_from_json(groups));
    load_attestation(presence);
  }
}

// What it allows counts again at the next proof; until then the entry is shown with it.
void Broker::load_attestation(PresenceRef presence) {
  const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
  if (tables_.presences.get<kPresStatus>(presence).proved == 0) return;
  store::AttestationRow row;
  if (batch().get(TableId::kAttestation, store::u32_bytes_key(key.mesh_no, key.key).bytes(), row)) {
    PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
    info.attestation = row.text[store::kAttestationJson];
    wire::JsonTape tape;
    if (row.fixed.version == 1 || !parser_.parse(info.attestation, scratch(), tape)) return;
    const wire::JsonNode* names = tape.find("allowed_caps");
    if (names == nullptr || names->type != wire::JsonType::kArray) return;
    TextBuf caps(scratch(), 256);
    wire::JsonWriter json(caps);
    write_texts(tape, *names, json);
    info.caps_json = caps.view();
    tables_.presences.get<kPresStatus>(presence).caps = caps_of_names(tape, *names);
  }
}

void Broker::load_mailboxes() {
  queued_rows_ = 0;
  tables_.budget.forget_queues();
  store::Cursor cursor(batch(), TableId::kDelivery);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::DeliveryKeyParts parts;
    store::DeliveryRow row;
    if (!store::parse_delivery_key(cursor.key(), parts) || !cursor.row(row)) continue;
    const MailboxRef box = mailbox(parts.mailbox, row.fixed.recipient_member_no);
    CHECK(box);
    tables_.mailboxes.get<kBoxRows>(box) += 1;
    tables_.mailboxes.get<kBoxBytes>(box) += row.fixed.bytes;
    tables_.budget.queued(row.fixed.sender_member_no, parts.mailbox.bits(), row.fixed.bytes);
    ++queued_rows_;
  }
  if (tables_.mailboxes.count() > limits_.mailboxes_max) {
    env_.log->warn("mailboxes_over_limit",
                   {{"mailboxes", tables_.mailboxes.count()},
                    {"limit", limits_.mailboxes_max},
                    {"meaning", "no recipient without mail gets any until there are fewer"}});
  }
}

MemberMirror* Broker::member(std::uint32_t member_no) {
  if (member_no == 0) return nullptr;
  const auto found = tables_.members.find(member_no);
  if (found != tables_.members.end()) return &found->second;
  store::MemberRow row;
  if (!batch().get(TableId::kMember, store::u32_key(member_no).bytes(), row)) return nullptr;
  MemberMirror& mirror = tables_.members[member_no];
  mirror.mesh_no = row.fixed.mesh_no;
  mirror.revoked = row.fixed.revoked_ms != 0;
  mirror.key = row.fixed.key;
  mirror.id = row.text[store::kMemberId];
  mirror.name = row.text[store::kMemberName];
  mirror.is_admin = row.fixed.role == store::MemberRole::kAdmin ? 1 : 0;
  mirror.caps = caps_of_permissions(permissions_of(member_no));
  store::Cursor grants(batch(), TableId::kGrant);
  mirror.has_grants =
      grants.seek(store::u32_key(member_no).bytes()) && load_be32(grants.key().data()) == member_no
          ? 1
          : 0;
  return &mirror;
}

MeshMirror* Broker::mesh(std::uint32_t mesh_no) {
  if (mesh_no == 0) return nullptr;
  const auto found = tables_.meshes.find(mesh_no);
  if (found != tables_.meshes.end()) return &found->second;
  store::MeshRow row;
  if (!batch().get(TableId::kMesh, store::u32_key(mesh_no).bytes(), row)) return nullptr;
  MeshMirror& mirror = tables_.meshes[mesh_no];
  mirror.id = row.text[store::kMeshIdText];
  mirror.slug = row.text[store::kMeshSlugText];
  store::MeshSettingsRow settings;
  if (batch().get(TableId::kMeshSettings, store::u32_key(mesh_no).bytes(), settings)) {
    mirror.deleted = settings.fixed.deleted_ms != 0;
  }
  return &mirror;
}

void Broker::abandon() {
  // The store has the truth. Sockets that gave no frame in this iteration stay; those that did
  // are closed, so that hellos are repeated and what they sent is sent again.
  effects_.clear();
  failed_after_ = metrics_.get(Metric::kCommits);
  // What this iteration had closed is in no table any more, yet its socket is still open.
  for (const ConnRef conn : tables_.closing) {
    effects_.ws_close(conn, 1011, "the broker could not store this; connect again");
  }
  tables_.closing.clear();
  std::vector<Survivor> survivors;
  tables_.clients.each([&](ClientRef client) {
    const PresenceRef presence = presence_of(client);
    if (tables_.clients.get<kClientTouched>(client) != 0) {
      effects_.ws_close(tables_.clients.get<kClientConn>(client), 1011,
                        "the broker could not store this; send it again");
      tables_.clients.erase(client);
    } else if (presence) {
      survivors.push_back({client, tables_.presences.get<kPresKey>(presence),
                           tables_.presences.get<kPresStatus>(presence).caps});
    }
  });
  std::unordered_map<PresenceKey, Unstored, PresenceKeyHash> unstored;
  tables_.presences.each([&](PresenceRef presence) {
    unstored[tables_.presences.get<kPresKey>(presence)] = {
        tables_.presences.get<kPresStatus>(presence),
        tables_.presences.get<kPresInfo>(presence).stats};
  });
  forget_mirrors();
  if (retention_.phase != retention_committed_.phase) retention_check_ms_ = env_.mono_ms;
  retention_ = retention_committed_;
  load_numbers();
  load_member_keys();
  load_presences();
  load_mailboxes();
  load_shared();
  for (const auto& [key, kept] : unstored) restore_unstored(key, kept);
  // Lists of clients begin with the oldest.
  std::sort(survivors.begin(), survivors.end(), [this](const Survivor& a, const Survivor& b) {
    return tables_.clients.get<kClientSerial>(a.client) <
           tables_.clients.get<kClientSerial>(b.client);
  });
  for (const Survivor& survivor : survivors) reattach(survivor);
}

// Rows of clients stay, with all that the store does not know of them.
void Broker::forget_mirrors() {
  tables_.presences.clear();
  tables_.mailboxes.clear();
  tables_.claims.clear();
  tables_.lanes.clear();
  tables_.presence_of.clear();
  tables_.mailbox_of.clear();
  tables_.lane_of.clear();
  tables_.members.clear();
  tables_.meshes.clear();
  tables_.dirty.clear();
  tables_.touched.clear();
  tables_.starved.clear();
  tables_.refused.clear();
  tables_.changed_receipts.clear();
  drop_changed_indexes();
  leases_left_ = false;
}

void Broker::restore_unstored(const PresenceKey& key, const Unstored& kept) {
  const auto found = tables_.presence_of.find(key);
  if (found == tables_.presence_of.end()) return;
  PresenceStatus status = kept.status;
  const PresenceStatus& stored = tables_.presences.get<kPresStatus>(found->second);
  status.manual = stored.manual;
  status.proved = stored.proved;
  status.hidden = stored.hidden;
  status.caps = stored.caps;
  tables_.presences.get<kPresStatus>(found->second) = status;
  tables_.presences.get<kPresInfo>(found->second).stats = kept.stats;
  if (status.hook_until_ms != 0) hook_check_ms_ = std::min(hook_check_ms_, status.hook_until_ms);
}

void Broker::reattach(const Survivor& survivor) {
  static_assert(kClientReceipts == 18,
                "a new column stays as it is; if it names rows of a table that was cleared, it is "
                "reset here");
  const ClientRef client = survivor.client;
  auto& clients = tables_.clients;
  clients.get<kClientPresence>(client) = {};
  clients.get<kClientClaims>(client) = {};
  clients.get<kClientClaimCount>(client) = 0;
  clients.get<kClientClaimBytes>(client) = 0;
  const auto presence = tables_.presence_of.find(survivor.key);
  MemberMirror* owner = member(clients.get<kClientMemberNo>(client));
  if (presence == tables_.presence_of.end() || owner == nullptr) {
    effects_.ws_close(clients.get<kClientConn>(client), 1011,
                      "the broker lost track; connect again");
    clients.erase(client);
    return;
  }
  clients.get<kClientPresence>(client) = presence->second;
  tables_.presences.get<kPresClients>(presence->second).push_back(client);
  tables_.presences.get<kPresDeadline>(presence->second) = 0;
  tables_.presences.get<kPresStatus>(presence->second).caps = survivor.caps;
  owner->clients.push_back(client);
  if (clients.get<kClientReceipts>(client) != 0) ++owner->receipts;
  ++mesh(owner->mesh_no)->clients;
  mark_mailboxes_of(client);
}

}  // namespace cm::broker
