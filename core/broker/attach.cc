// attach.cc — what an accepted hello becomes: a bound key, a presence, its hello_ack.
// Holds:  runs after every check; the binding, the presence, the remembered signature and the
//         attestation are written in one iteration. hello_ack leaves before any push.
// Source: docs/PROTOCOL.md §2.3, §3; spec/wire.md §2.3, §2.4, §3.3; design/presence.md, "Binding".
// Not:    the checks (hello.cc, session_hello.cc), leases (presence.cc).
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/crypto/random.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::string_view kMessageModes[] = {"push", "inbox", "off"};

}  // namespace

void Broker::admit(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
                   std::vector<PeerGroup> groups) {
  std::uint8_t member_no[4];
  store_be32(member_no, facts.member_no);
  batch().put_index(
      TableId::kHelloSeen,
      store::hello_key(static_cast<std::uint64_t>(hello.timestamp_ms), facts.signature).bytes(),
      member_no);
  forget_old_hellos();
  auto& clients = tables_.clients;
  clients.get<kClientSessionNo>(client) = facts.session ? bind_session(facts) : 0;
  clients.get<kClientHelloDeadline>(client) = 0;
  clients.get<kClientMeshNo>(client) = facts.mesh_no;
  clients.get<kClientMemberNo>(client) = facts.member_no;
  clients.get<kClientClass>(client) = facts.proved    ? ClientClass::kSession
                                      : facts.session ? ClientClass::kOther
                                                      : ClientClass::kControlPlane;
  clients.get<kClientSerial>(client) = ++hello_serial_;
  bool fresh = false;
  const bool has_groups = !groups.empty();
  const PresenceRef presence = attach(client, hello, facts, std::move(groups), fresh);
  TextBuf restored(scratch());
  TextBuf returned(scratch());
  if (fresh && !facts.proved) restore_peer_state(presence, has_groups, restored, returned);
  if (fresh) apply_member_defaults(presence, hello.groups != nullptr);
  apply_waiting_hook(presence);
  store_presence(presence);
  MemberMirror* owner = member(facts.member_no);
  owner->clients.push_back(client);
  if (hello.receipts >= wire::kReceiptVersion) take_receipts(client);
  note_concurrent(client);
  ++mesh(facts.mesh_no)->clients;
  const ConnRef conn = clients.get<kClientConn>(client);
  effects_.frame_limit(conn, limits_.frame_bytes_max);
  effects_.group(conn, facts.member_no);

  acknowledge_hello(client, presence, facts, fresh, restored.view());
  if (fresh) {
    const bool is_back = returned.size() != 0;
    const std::size_t told = announce(presence, is_back ? "peer_returned" : "peer_joined",
                                      is_back ? returned.view() : std::string_view{});
    const bool minted = facts.session && !facts.proved;  // anybody can bring any number of these
    charge_fan_out(client, told + (minted ? kFanOut : 0));
  }
  mark_mailboxes_of(client);
  env_.log->info("hello_accepted",
                 {{"mesh", mesh(facts.mesh_no)->slug},
                  {"member", owner->id},
                  {"presence", tables_.presences.get<kPresInfo>(presence).presence_id},
                  {"session", facts.proved},
                  {"reattached", !fresh}});
}

void Broker::acknowledge_hello(ClientRef client, PresenceRef presence, const HelloFacts& facts,
                               bool fresh, std::string_view restored) {
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  wire::HelloAck ack;
  ack.presence_id = info.presence_id;
  ack.member_display_name = info.name;
  ack.broker_version = config_.version;
  ack.has_profile = fresh || !facts.proved;
  ack.has_services = !facts.proved;
  ack.groups = info.groups_json;
  ack.restored = restored;
  ack.receipts = tables_.clients.get<kClientReceipts>(client) != 0 ? wire::kReceiptVersion : 0;
  store::MemberProfileRow profile;
  if (batch().get(TableId::kMemberProfile, store::u32_key(facts.member_no).bytes(), profile)) {
    ack.role_tag = scratch().copy(profile.text[store::kProfileRoleTag]);
    ack.message_mode = kMessageModes[static_cast<std::size_t>(profile.fixed.message_mode)];
  }
  store::MeshSettingsRow settings;
  TextBuf policy(scratch());
  if (batch().get(TableId::kMeshSettings, store::u32_key(facts.mesh_no).bytes(), settings) &&
      settings.fixed.has_policy != 0) {
    const std::uint8_t bits = settings.fixed.self_editable;
    wire::JsonWriter json(policy);
    json.begin_object().key("selfEditable").begin_object();
    json.field("displayName", (bits & store::kEditName) != 0);
    json.field("roleTag", (bits & store::kEditRoleTag) != 0);
    json.field("groups", (bits & store::kEditGroups) != 0);
    json.field("messageMode", (bits & store::kEditMessageMode) != 0);
    json.end_object().end_object();
  }
  ack.policy = policy.view();
  TextBuf text(scratch());
  wire::write_hello_ack(ack, limits_.presence_lease_ms, text);
  send_text(client, text);
}

// The number of the key's mailbox.
std::uint32_t Broker::bind_session(const HelloFacts& facts) {
  const store::Key key = store::u32_bytes_key(facts.mesh_no, *facts.session);
  store::BindingRow binding;
  const bool found = batch().get(TableId::kBinding, key.bytes(), binding);
  const bool mine = found && binding.fixed.member_no == facts.member_no;
  if (found && !mine && facts.proved) {
    take_over_binding(facts, binding);
  } else if (!mine) {
    binding = {};
    binding.fixed.member_no = facts.member_no;
    binding.fixed.session_no = next_session_no_++;
    binding.fixed.first_ms = env_.wall_ms;
    store::MetaRow counter;
    counter.fixed.number = next_session_no_;
    batch().put(TableId::kMeta, store::text_key("next_session_no").bytes(), counter);
  }
  if (facts.proved) binding.fixed.proved = 1;
  binding.fixed.last_ms = env_.wall_ms;
  batch().put(TableId::kBinding, key.bytes(), binding);
  if (!facts.proved) return binding.fixed.session_no;
  store::AttestationRow attestation;
  attestation.fixed.expires_ms = facts.attestation_ms;
  attestation.fixed.member_no = facts.member_no;
  attestation.fixed.version = facts.attestation_version;
  attestation.text[store::kAttestationJson] = facts.attestation;
  batch().put(TableId::kAttestation, key.bytes(), attestation);
  return binding.fixed.session_no;
}

// Another member had claimed this key without proof. Its presence goes, and the mail that came
// for the key meanwhile is the prover's: only the holder of the key can read it.
void Broker::take_over_binding(const HelloFacts& facts, store::BindingRow& binding) {
  const PresenceKey entry{facts.mesh_no, MailboxKind::kSession, *facts.session};
  if (const auto found = tables_.presence_of.find(entry); found != tables_.presence_of.end()) {
    const PresenceRef impostor = found->second;
    const std::vector<ClientRef> sockets = tables_.presences.get<kPresClients>(impostor);
    for (const ClientRef socket : sockets) close(socket, 1008, "bad_session_pubkey");
    announce(impostor, "peer_left");
    remove_presence(impostor);
  }
  binding.fixed.member_no = facts.member_no;
  const MailboxId id{MailboxKind::kSession, binding.fixed.session_no};
  const auto box = tables_.mailbox_of.find(id.bits());
  if (box == tables_.mailbox_of.end()) return;
  tables_.mailboxes.get<kBoxMemberNo>(box->second) = facts.member_no;
  std::vector<std::pair<Bytes, store::DeliveryRow>> rows;  // at most queue_rows_max
  {
    store::Cursor cursor(batch(), TableId::kDelivery);
    const store::Key from = store::delivery_prefix(id, 0);
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      store::DeliveryKeyParts parts;
      if (!store::parse_delivery_key(cursor.key(), parts) || !(parts.mailbox == id)) break;
      store::DeliveryRow row;
      if (cursor.row(row)) rows.emplace_back(scratch().copy(cursor.key()), row);
    }
  }
  for (auto& [key, row] : rows) {
    row.fixed.recipient_member_no = facts.member_no;
    batch().put(TableId::kDelivery, key, row);
  }
}

PresenceRef Broker::attach(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
                           std::vector<PeerGroup> groups, bool& fresh) {
  const PresenceKey key{facts.mesh_no, facts.session ? MailboxKind::kSession : MailboxKind::kMember,
                        facts.session.value_or(facts.key)};
  const auto found = tables_.presence_of.find(key);
  fresh = found == tables_.presence_of.end();
  PresenceRef presence = fresh ? make_presence(key, facts.member_no) : found->second;
  CHECK(presence);  // check_room() saw room for it
  auto& info = tables_.presences.get<kPresInfo>(presence);
  auto& status = tables_.presences.get<kPresStatus>(presence);
  if (fresh) {
    info.presence_id = crypto::view(crypto::base62_id(env_.rng));
    info.connected_ms = env_.wall_ms;
  } else if (tables_.presences.get<kPresDeadline>(presence) != 0) {
    // Back within the lease: what was queued until now is delivered at any status.
    status.open_until = ulids_.last();
  }
  const MemberMirror* owner = member(facts.member_no);
  info.name = hello.display_name.empty() ? owner->name : std::string(hello.display_name);
  info.session_id = hello.session_id;
  info.cwd = hello.cwd;
  info.hostname = hello.hostname;
  info.peer_type = hello.peer_type;
  info.channel = hello.channel;
  info.model = hello.model;
  info.pid = hello.pid;
  if (facts.proved) {
    status.proved = 1;
    status.caps = facts.caps;
    info.attestation = facts.attestation;
    info.caps_json = facts.caps_json;
  }
  if (!groups.empty() || (facts.proved && hello.groups != nullptr)) {
    set_groups(info, std::move(groups));
  }
  // The same process with a second socket: the first one is dead and does not know it yet. A
  // session's proof replaces every socket.
  const std::uint64_t session = hash64(as_bytes(hello.session_id));
  const std::vector<ClientRef> older = tables_.presences.get<kPresClients>(presence);
  for (const ClientRef old : older) {
    if (facts.proved || tables_.clients.get<kClientSessionHash>(old) == session) {
      close(old, 1000, "session_replaced");
    }
  }
  tables_.clients.get<kClientSessionHash>(client) = session;
  tables_.presences.get<kPresClients>(presence).push_back(client);
  tables_.presences.get<kPresDeadline>(presence) = 0;
  tables_.clients.get<kClientPresence>(client) = presence;
  return presence;
}

void Broker::forget_old_hellos() {
  // Keys begin with the timestamp: what can no longer pass the skew check stands in front.
  const std::uint64_t oldest =
      env_.wall_ms > static_cast<std::uint64_t>(2 * wire::kHelloSkewMs)
          ? env_.wall_ms - static_cast<std::uint64_t>(2 * wire::kHelloSkewMs)
          : 0;
  constexpr int kAtOnce = 16;  // two leave for each one that comes, and then some
  for (int count = 0; count < kAtOnce; ++count) {
    Bytes key;
    {
      store::Cursor cursor(batch(), TableId::kHelloSeen);
      if (!cursor.seek({}) || load_be64(cursor.key().data()) >= oldest) return;
      key = scratch().copy(cursor.key());
    }
    batch().erase(TableId::kHelloSeen, key);
  }
}

}  // namespace cm::broker
