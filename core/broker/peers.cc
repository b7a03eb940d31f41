// peers.cc — who is here: the list, and the events when that changes.
// Holds:  events are pushed live and never stored; a client that was away lists again.
// Source: docs/PROTOCOL.md §3; spec/wire.md §6 (peers_list), §8 (system pushes).
// Not:    leases (presence.cc).
#include "core/base/utf8.h"
#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/crypto/encoding.h"
#include "core/wire/json_writer.h"

namespace cm::broker {
namespace {

constexpr std::size_t kListedPathMax = 256;  // of a peer's working directory

// System pushes carry a UUIDv4 (spec/observed.md).
std::string uuid(FillRandom rng) {
  std::uint8_t bytes[16];
  rng(bytes, sizeof bytes);
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3f) | 0x80);
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (std::size_t index = 0; index < sizeof bytes; ++index) {
    if (index == 4 || index == 6 || index == 8 || index == 10) text += '-';
    text += kHex[bytes[index] >> 4];
    text += kHex[bytes[index] & 15];
  }
  return text;
}

}  // namespace

void Broker::handle_list_peers(ClientRef client, const Frame& frame) {
  const std::uint32_t asker = tables_.clients.get<kClientMemberNo>(client);
  const MeshMirror* where = mesh(tables_.clients.get<kClientMeshNo>(client));
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  bool complete = true;
  json.begin_object().field("type", "peers_list").key("peers").begin_array();
  for (const PresenceRef presence : where->presences) {
    const std::uint32_t member_no = tables_.presences.get<kPresOwner>(presence).member_no;
    const bool hidden = tables_.presences.get<kPresStatus>(presence).hidden != 0;
    if (member(member_no) == nullptr || (hidden && member_no != asker)) continue;
    if (text.size() >= limits_.peers_list_bytes_max) {
      complete = false;
      break;
    }
    TextBuf entry(scratch(), 1024);
    write_peer_entry(presence, entry);
    json.raw(entry.view());
  }
  json.end_array();
  if (!complete) json.field("truncated", true);
  finish_reply(client, frame, json, text);
}

void Broker::write_peer_entry(PresenceRef presence, TextBuf& out) {
  const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  wire::PeerEntry peer;
  peer.pubkey = key.key;
  peer.member_pubkey = member(tables_.presences.get<kPresOwner>(presence).member_no)->key;
  peer.display_name = info.name;
  peer.status = text_of(status.effective(env_.mono_ms));
  peer.summary = info.summary;
  peer.session_id = info.session_id;
  peer.connected_ms = info.connected_ms;
  peer.cwd = utf8_prefix(info.cwd, kListedPathMax);
  // Plain hellos are control plane even with a session key (spec/wire.md §3.1).
  peer.peer_role = status.proved != 0 ? "session" : "control-plane";
  peer.hostname = info.hostname;
  peer.peer_type = info.peer_type;
  peer.channel = info.channel;
  peer.model = info.model;
  peer.groups = info.groups_json;
  peer.profile = info.profile;
  peer.visible = status.hidden == 0;
  peer.attestation = info.attestation;
  if (status.proved != 0) {
    peer.allowed_caps = info.caps_json.empty() ? std::string_view("null") : info.caps_json;
  }
  TextBuf stats(scratch(), 128);
  if (info.stats.set) {
    wire::JsonWriter json(stats);
    json.begin_object().field("messagesIn", info.stats.messages_in);
    json.field("messagesOut", info.stats.messages_out).field("toolCalls", info.stats.tool_calls);
    json.field("uptime", info.stats.uptime_s).field("errors", info.stats.errors).end_object();
    peer.stats = stats.view();
  }
  wire::write_peer(peer, out);
}

// A hidden peer comes and goes unseen. Who hears it: wire.md §8.
std::size_t Broker::announce(PresenceRef presence, std::string_view event, std::string_view more) {
  const PresenceKey key = tables_.presences.get<kPresKey>(presence);
  const PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  const std::uint32_t member_no = tables_.presences.get<kPresOwner>(presence).member_no;
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const bool sight = event == "peer_visible" || event == "peer_hidden";
  if (status.hidden != 0 && !sight) return 0;
  TextBuf data(scratch());
  wire::JsonWriter json(data);
  json.begin_object().field("name", info.name);
  json.key("pubkey").hex(key.key);
  if (event == "peer_joined" || event == "peer_returned") {
    json.key("groups").raw(info.groups_json.empty() ? "[]" : info.groups_json);
  }
  if (!more.empty()) json.members(more);
  json.end_object();
  const bool siblings = sight || (status.proved != 0 && event == "peer_joined");
  return push_event(key.mesh_no, event, data.view(),
                    siblings ? Audience::kOthers : Audience::kOtherMembers, member_no, presence);
}

std::size_t Broker::push_event(std::uint32_t mesh_no, std::string_view event, std::string_view data,
                               Audience audience, std::uint32_t member_no, PresenceRef about) {
  std::size_t told = 0;
  const MeshMirror* where = mesh(mesh_no);
  const std::string id = uuid(env_.rng);
  wire::Push push;
  push.subtype = "system";
  push.event = event;
  push.event_data = data;
  push.message_id = id;
  push.mesh_id = where->id;
  push.sender_pubkey = "system";
  push.priority = wire::Priority::kLow;
  push.created_ms = env_.wall_ms;
  TextBuf text(scratch(), 512);
  wire::write_push(push, text);
  for (const PresenceRef other : where->presences) {
    const bool same_member = tables_.presences.get<kPresOwner>(other).member_no == member_no;
    if (audience == Audience::kOtherMembers && same_member) continue;
    if (audience == Audience::kOthers && other == about) continue;
    if (audience == Audience::kMember && !same_member) continue;
    for (const ClientRef client : tables_.presences.get<kPresClients>(other)) {
      send_text(client, text);
      ++told;
    }
  }
  return told;
}

}  // namespace cm::broker
