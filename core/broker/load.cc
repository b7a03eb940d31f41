// load.cc — the mirrors: built at start, rebuilt after an abandoned iteration, verified.
// Holds:  after load() memory says what the store says and nothing else; claims and sockets are
//         not durable and start empty.
// Not:    opening the store (store/store.cc).
#include <algorithm>
#include <cstdio>

#include "core/base/check.h"
#include "core/broker/broker.h"

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

}  // namespace

Status Broker::load() {
  load_numbers();
  load_presences();
  load_mailboxes();
  if (batch().failed()) return fail(Err::kStoreFailed, "the broker's tables could not be read");
  return {};
}

void Broker::load_numbers() {
  next_mesh_no_ = next_number(batch(), TableId::kMesh);
  next_member_no_ = next_number(batch(), TableId::kMember);
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
    info.connected_ms = row.fixed.connected_ms;
    info.pid = row.fixed.pid;
  }
}

void Broker::load_mailboxes() {
  queued_rows_ = 0;
  store::Cursor cursor(batch(), TableId::kDelivery);
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::DeliveryKeyParts parts;
    store::DeliveryRow row;
    if (!store::parse_delivery_key(cursor.key(), parts) || !cursor.row(row)) continue;
    const MailboxRef box = mailbox(parts.mailbox, row.fixed.recipient_member_no);
    if (!box) break;
    tables_.mailboxes.get<kBoxRows>(box) += 1;
    tables_.mailboxes.get<kBoxBytes>(box) += row.fixed.bytes;
    ++queued_rows_;
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
  return &mirror;
}

void Broker::abandon() {
  // The store has the truth. Sockets that gave no frame in this iteration stay; those that did
  // are closed, so that hellos are repeated and what they sent is sent again.
  struct Survivor {
    ConnRef conn;
    std::uint32_t member_no;
    PresenceKey key;
    ClientClass kind;
  };
  effects_.clear();
  // What this iteration had closed is in no table any more, yet its socket is still open.
  for (const ConnRef conn : tables_.closing) {
    effects_.ws_close(conn, 1011, "the broker could not store this; connect again");
  }
  tables_.closing.clear();
  std::vector<Survivor> survivors;
  std::vector<ConnRef> waiting;  // said nothing yet, or their hello is lost
  tables_.clients.each([&](ClientRef client) {
    const ConnRef conn = tables_.clients.get<kClientConn>(client);
    const PresenceRef presence = tables_.clients.get<kClientPresence>(client);
    if (tables_.clients.get<kClientTouched>(client) != 0) {
      effects_.ws_close(conn, 1011, "the broker could not store this; send it again");
    } else if (presence) {
      survivors.push_back({conn, tables_.clients.get<kClientMemberNo>(client),
                           tables_.presences.get<kPresKey>(presence),
                           tables_.clients.get<kClientClass>(client)});
    } else {
      waiting.push_back(conn);
    }
  });
  tables_.clients.clear();
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
  listed_bytes_ = 0;
  load_numbers();
  load_presences();
  load_mailboxes();
  for (const ConnRef conn : waiting) on_open(conn);
  for (const Survivor& survivor : survivors) {
    const auto presence = tables_.presence_of.find(survivor.key);
    MemberMirror* owner = member(survivor.member_no);
    if (presence == tables_.presence_of.end() || owner == nullptr) {
      effects_.ws_close(survivor.conn, 1011, "the broker lost track; connect again");
      continue;
    }
    on_open(survivor.conn);
    const ClientRef client = client_of(survivor.conn);
    tables_.clients.get<kClientHelloDeadline>(client) = 0;
    tables_.clients.get<kClientMeshNo>(client) = owner->mesh_no;
    tables_.clients.get<kClientMemberNo>(client) = survivor.member_no;
    tables_.clients.get<kClientClass>(client) = survivor.kind;
    tables_.clients.get<kClientSerial>(client) = ++hello_serial_;
    tables_.clients.get<kClientPresence>(client) = presence->second;
    tables_.presences.get<kPresClients>(presence->second).push_back(client);
    tables_.presences.get<kPresDeadline>(presence->second) = 0;
    owner->clients.push_back(client);
    ++mesh(owner->mesh_no)->clients;
    mark_mailboxes_of(client);
  }
}

const char* Broker::verify_queues() {
  std::unordered_map<std::uint64_t, std::uint32_t> rows;
  store::Cursor cursor(batch(), TableId::kDelivery);
  std::uint64_t total = 0;
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::DeliveryKeyParts parts;
    if (!store::parse_delivery_key(cursor.key(), parts)) return "a delivery key is malformed";
    ++rows[parts.mailbox.bits()];
    ++total;
  }
  if (total != queued_rows_) return "queued_rows differs from the delivery table";
  const char* problem = nullptr;
  tables_.mailboxes.each([&](MailboxRef box) {
    const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
    if (tables_.mailboxes.get<kBoxRows>(box) != rows[id.bits()]) {
      problem = "a mailbox counts other rows than the delivery table has";
    }
    if (tables_.mailboxes.get<kBoxClaimed>(box) > tables_.mailboxes.get<kBoxRows>(box)) {
      problem = "a mailbox has more claims than rows";
    }
    const bool has_claimer = static_cast<bool>(tables_.mailboxes.get<kBoxClaimer>(box));
    if (has_claimer != (tables_.mailboxes.get<kBoxClaimed>(box) > 0)) {
      problem = "a mailbox has a claimer without claims, or claims without a claimer";
    }
  });
  return problem;
}

const char* Broker::verify_claims() const {
  const char* problem = nullptr;
  std::uint32_t linked = 0;
  tables_.clients.each([&](ClientRef client) {
    std::uint32_t count = 0;
    std::uint64_t bytes = 0;
    for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
         claim = tables_.claims.get<kClaimLinks>(claim).next) {
      ++count;
      bytes += tables_.claims.get<kClaimBytes>(claim);
      const LaneRef lane = tables_.claims.get<kClaimLane>(claim);
      if (!tables_.lanes.alive(lane) || !(tables_.lanes.get<kLaneClient>(lane) == client)) {
        problem = "a claim's lane belongs to another connection";
      }
    }
    linked += count;
    if (count != tables_.clients.get<kClientClaimCount>(client) ||
        bytes != tables_.clients.get<kClientClaimBytes>(client)) {
      problem = "a connection counts other claims than its list has";
    }
    if (count > limits_.claim_rows_max) problem = "a connection holds more rows than its window";
  });
  if (linked != tables_.claims.count()) problem = "a claim is on no connection's list";
  if (tables_.lane_of.size() != tables_.lanes.count()) problem = "a lane is not indexed";
  return problem;
}

const char* Broker::verify_presences() const {
  const char* problem = nullptr;
  tables_.presences.each([&](PresenceRef presence) {
    const auto& sockets = tables_.presences.get<kPresClients>(presence);
    const bool online = tables_.presences.get<kPresDeadline>(presence) == 0;
    if (online != !sockets.empty()) problem = "a presence is online without a socket, or reverse";
    for (const ClientRef client : sockets) {
      if (!tables_.clients.alive(client) ||
          !(tables_.clients.get<kClientPresence>(client) == presence)) {
        problem = "a presence names a connection that does not name it";
      }
    }
    const auto found = tables_.presence_of.find(tables_.presences.get<kPresKey>(presence));
    if (found == tables_.presence_of.end() || !(found->second == presence)) {
      problem = "a presence is not indexed by its key";
    }
  });
  return problem;
}

const char* Broker::verify_all() {
  if (!tables_.clients.verify() || !tables_.presences.verify() || !tables_.mailboxes.verify() ||
      !tables_.claims.verify() || !tables_.lanes.verify()) {
    return "a table's free list or count is broken";
  }
  if (const char* problem = verify_queues(); problem != nullptr) return problem;
  if (const char* problem = verify_claims(); problem != nullptr) return problem;
  return verify_presences();
}

void Broker::summarise(int fd) const noexcept {
  const auto line = [fd](const char* name, std::uint64_t count) {
    crash_write(fd, name);
    crash_write_number(fd, count);
    crash_write(fd, "\n");
  };
  line("  broker clients: ", tables_.clients.count());
  line("  broker presences: ", tables_.presences.count());
  line("  broker mailboxes: ", tables_.mailboxes.count());
  line("  broker claims: ", tables_.claims.count());
  line("  broker lanes: ", tables_.lanes.count());
  line("  broker queued rows: ", queued_rows_);
}

}  // namespace cm::broker
