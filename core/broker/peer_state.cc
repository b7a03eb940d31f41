// peer_state.cc — what a member gets back when it returns: groups, profile, summary, sums.
// Holds:  saved when the last socket of a presence closes, restored by a plain hello that makes a
//         new presence. A throw-away connection (a hello with a session key of its own) saves
//         what it was used to set and nothing else: the rest it got back may be old by then.
// Source: docs/PROTOCOL.md §2.3, §3; spec/wire.md §2.3, §2.4, §3.7.
// Not:    leases (presence.cc), the verbs that set these values (profile.cc).
#include "core/broker/broker.h"

namespace cm::broker {

using store::TableId;

void Broker::save_peer_state(PresenceRef presence) {
  PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const bool is_plain = tables_.presences.get<kPresKey>(presence).kind == MailboxKind::kMember;
  const std::uint8_t saved = is_plain ? kChangedAll : status.changed;
  status.changed = 0;
  if (status.proved != 0 || saved == 0) return;
  const store::Key key = store::u32_key(tables_.presences.get<kPresOwner>(presence).member_no);
  store::PeerStateRow row;
  const bool known = batch().get(TableId::kPeerState, key.bytes(), row);
  if (!known) row = {};
  for (std::string_view& text : row.text) text = scratch().copy(text);
  row.fixed.last_seen_ms = env_.wall_ms;
  row.fixed.messages_in += info.stats.messages_in;
  row.fixed.messages_out += info.stats.messages_out;
  row.fixed.tool_calls += info.stats.tool_calls;
  row.fixed.errors += info.stats.errors;
  if ((saved & kChangedVisible) != 0) row.fixed.hidden = status.hidden;
  if ((saved & kChangedGroups) != 0) row.text[store::kStateGroups] = info.groups_json;
  if ((saved & kChangedProfile) != 0) row.text[store::kStateProfile] = info.profile;
  if ((saved & kChangedSummary) != 0) row.text[store::kStateSummary] = info.summary;
  if (is_plain) row.text[store::kStateName] = info.name;
  info.stats = {};  // they are in the sum now
  batch().put(TableId::kPeerState, key.bytes(), row);
}

bool Broker::restore_peer_state(PresenceRef presence, bool hello_has_groups, TextBuf& ack,
                                TextBuf& event) {
  PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  store::PeerStateRow row;
  const store::Key key = store::u32_key(tables_.presences.get<kPresOwner>(presence).member_no);
  if (!batch().get(TableId::kPeerState, key.bytes(), row)) return false;
  status.hidden = row.fixed.hidden;
  info.profile = row.text[store::kStateProfile];
  info.summary = row.text[store::kStateSummary];
  const std::string groups(row.text[store::kStateGroups]);
  if (!hello_has_groups) set_groups(info, groups_from_json(groups));
  {
    wire::JsonWriter json(ack);
    json.nullable_field("lastSummary", info.summary);
    json.key("lastSeenAt").iso_time(row.fixed.last_seen_ms);
    if (!hello_has_groups) json.key("restoredGroups").raw(groups.empty() ? "[]" : groups);
    json.key("restoredStats").begin_object();
    json.field("messagesIn", row.fixed.messages_in).field("messagesOut", row.fixed.messages_out);
    json.field("toolCalls", row.fixed.tool_calls).field("errors", row.fixed.errors).end_object();
  }
  wire::JsonWriter json(event);
  json.key("lastSeenAt").iso_time(row.fixed.last_seen_ms);
  json.nullable_field("summary", info.summary);
  return true;
}

// spec/wire.md §2.4: the hello's groups, else those restored, else the member's defaults.
void Broker::apply_member_defaults(PresenceRef presence, bool hello_named_groups) {
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const bool is_session = tables_.presences.get<kPresStatus>(presence).proved != 0;
  if (!info.groups.empty() || (is_session && hello_named_groups)) return;
  store::MemberProfileRow row;
  const store::Key key = store::u32_key(tables_.presences.get<kPresOwner>(presence).member_no);
  if (!batch().get(TableId::kMemberProfile, key.bytes(), row)) return;
  const std::string groups(row.text[store::kProfileGroups]);
  set_groups(info, groups_from_json(groups));
}

}  // namespace cm::broker
