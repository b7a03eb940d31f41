// route.cc — who gets a message: B2 of design/delivery.md, "Broker: accept".
// Holds:  reads only. An unknown destination is refused for good; a known one may be away. Display
//         names and prefixes are resolved by clients, never here.
// Limits: a multicast reaches those who are online or leased now, at most
//         multicast_recipients_max; a topic its members, wherever they are.
// Source: docs/PROTOCOL.md §4; spec/wire.md §5.1, §5.3; spec/decisions.md, "Delivery".
// Not:    quotas and rows (accept.cc), pushes (queue.cc).
#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/encoding.h"
#include "core/crypto/keys.h"

namespace cm::broker {
namespace {

using store::TableId;

// @a/b reaches who is in a/b or below it.
bool is_in_group(const PresenceInfo& info, std::string_view wanted) noexcept {
  for (const PeerGroup& group : info.groups) {
    const std::string_view name = group.name;
    if (!name.starts_with(wanted)) continue;
    if (name.size() == wanted.size() || name[wanted.size()] == '/') return true;
  }
  return false;
}

}  // namespace

Status Broker::find_route(ClientRef client, const wire::Send& send, Route& route) {
  recipients_.clear();
  route.target = send.target;
  if (const auto key = crypto::public_key_parse(send.target)) {
    return route_direct(client, send, *key);
  }
  route.multicast = true;
  const std::string_view target = send.target;
  if (target == "*" || target == "@all") return route_group(client, {});
  if (target.size() > 1 && target.front() == '@') return route_group(client, target.substr(1));
  if (target.size() > 1 && target.front() == '#') {
    return route_topic(client, target.substr(1), route);
  }
  return fail(Err::kInvalidArgument,
              "invalid targetSpec: expected 64 lower-case hex digits of a member or session, '*', "
              "'@group' or '#topic'");
}

Status Broker::route_direct(ClientRef client, const wire::Send&, const PublicKey& key) {
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const std::uint32_t sender_no = tables_.clients.get<kClientMemberNo>(client);
  const store::Key stored = store::u32_bytes_key(mesh_no, key);
  Recipient recipient;
  if (const auto member_no = batch().get_number(TableId::kMemberKey, stored.bytes())) {
    const MemberMirror* target = member(*member_no);
    if (target == nullptr || target->revoked) {
      return fail(Err::kNotFound, "not_found: this member was removed from the mesh");
    }
    if (*member_no == sender_no && target->clients.size() < 2) {
      return fail(Err::kNotFound, "not_found: targetSpec is your own key without another session");
    }
    recipient.mailbox = {MailboxKind::kMember, *member_no};
    recipient.member_no = *member_no;
    recipient.online = !target->clients.empty();
  } else {
    store::BindingRow binding;
    if (!batch().get(TableId::kBinding, stored.bytes(), binding)) {
      return fail(Err::kNotFound, "not_found: no member or session of this mesh has this key");
    }
    constexpr std::uint64_t kKnownMs = 30ull * 24 * 3600 * 1000;
    const auto presence = tables_.presence_of.find({mesh_no, MailboxKind::kSession, key});
    const bool is_here = presence != tables_.presence_of.end();
    if (!is_here && binding.fixed.last_ms + kKnownMs < env_.wall_ms) {
      return fail(Err::kNotFound, "not_found: this session was last seen over 30 days ago");
    }
    const MemberMirror* owner = member(binding.fixed.member_no);
    if (owner == nullptr || owner->revoked) {
      return fail(Err::kNotFound, "not_found: the session's member was removed from the mesh");
    }
    recipient.mailbox = {MailboxKind::kSession, binding.fixed.session_no};
    recipient.member_no = binding.fixed.member_no;
    recipient.online = is_here && !tables_.presences.get<kPresClients>(presence->second).empty();
  }
  const PresenceKey& from = tables_.presences.get<kPresKey>(presence_of(client));
  if (!may_reach(recipient.member_no, member(sender_no)->key,
                 from.kind == MailboxKind::kSession ? &from.key : nullptr, kCapDm)) {
    return fail(Err::kForbidden,
                "forbidden: blocked by recipient grants (sender lacks dm capability)");
  }
  recipients_.push_back(recipient);
  return {};
}

// A session key without proof that has no connection: most are made anew for each connection, so
// that nobody would ever claim the row, which would count against its sender for days.
bool Broker::is_gone_for_good(PresenceRef presence) const {
  return tables_.presences.get<kPresKey>(presence).kind == MailboxKind::kSession &&
         tables_.presences.get<kPresStatus>(presence).proved == 0 &&
         tables_.presences.get<kPresClients>(presence).empty();
}

// `group` empty: everybody. Own connections and hidden ones are left out.
Status Broker::route_group(ClientRef client, std::string_view group) {
  const std::uint32_t sender_no = tables_.clients.get<kClientMemberNo>(client);
  const PresenceKey from = tables_.presences.get<kPresKey>(presence_of(client));
  const PublicKey sender = member(sender_no)->key;
  for (const PresenceRef presence : mesh(from.mesh_no)->presences) {
    const PresenceOwner& owner = tables_.presences.get<kPresOwner>(presence);
    if (owner.member_no == sender_no) continue;
    if (tables_.presences.get<kPresStatus>(presence).hidden != 0) continue;
    if (is_gone_for_good(presence)) continue;
    if (!group.empty() && !is_in_group(tables_.presences.get<kPresInfo>(presence), group)) continue;
    if (!may_reach(owner.member_no, sender,
                   from.kind == MailboxKind::kSession ? &from.key : nullptr, kCapBroadcast)) {
      metrics_.add(Metric::kBrokerDroppedByGrant);
      continue;
    }
    if (recipients_.size() == limits_.multicast_recipients_max) {
      return fail(Err::kInvalidArgument, "invalid: the group has more than " +
                                             std::to_string(limits_.multicast_recipients_max) +
                                             " connections; use a topic");
    }
    Recipient recipient;
    recipient.member_no = owner.member_no;
    recipient.online = true;
    const PresenceKey& key = tables_.presences.get<kPresKey>(presence);
    recipient.mailbox = {MailboxKind::kMember, owner.member_no};
    if (key.kind == MailboxKind::kSession) {
      store::BindingRow binding;
      const store::Key bound = store::u32_bytes_key(key.mesh_no, key.key);
      if (!batch().get(TableId::kBinding, bound.bytes(), binding)) continue;
      recipient.mailbox = {MailboxKind::kSession, binding.fixed.session_no};
    }
    recipients_.push_back(recipient);
  }
  return {};
}

// One row a subscribed member: its control-plane connection takes it for all of its sessions.
Status Broker::route_topic(ClientRef client, std::string_view name, Route& route) {
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const std::uint32_t sender_no = tables_.clients.get<kClientMemberNo>(client);
  TopicFacts topic;
  if (!find_topic(mesh_no, name, topic)) {
    return fail(Err::kNotFound, "not_found: no topic of this mesh has this name or id");
  }
  route.topic_no = topic.no;
  TextBuf target(scratch(), 64);
  target.append('#');
  target.append(topic.row.text[store::kTopicIdText]);
  route.target = target.view();
  const PresenceKey from = tables_.presences.get<kPresKey>(presence_of(client));
  const PublicKey sender = member(sender_no)->key;
  store::Cursor cursor(batch(), TableId::kTopicMember);
  const store::Key prefix = store::u32_key(topic.no);
  for (bool more = cursor.seek(prefix.bytes()); more; more = cursor.next()) {
    if (cursor.key().size() != 8 || load_be32(cursor.key().data()) != topic.no) break;
    const std::uint32_t member_no = load_be32(cursor.key().data() + 4);
    const MemberMirror* subscriber = member(member_no);
    if (member_no == sender_no || subscriber == nullptr || subscriber->revoked) continue;
    if (!may_reach(member_no, sender, from.kind == MailboxKind::kSession ? &from.key : nullptr,
                   kCapBroadcast)) {
      metrics_.add(Metric::kBrokerDroppedByGrant);
      continue;
    }
    Recipient recipient;
    recipient.mailbox = {MailboxKind::kMember, member_no};
    recipient.member_no = member_no;
    recipient.online = !subscriber->clients.empty();
    recipients_.push_back(recipient);
  }
  return {};
}

// The entry of the sender's member key, else of its session key, else the default.
bool Broker::may_reach(std::uint32_t recipient_no, const PublicKey& sender_member,
                       const PublicKey* sender_session, std::uint16_t capability) {
  const MemberMirror* recipient = member(recipient_no);
  if (recipient == nullptr || recipient->has_grants == 0) return (kDefaultGrants & capability) != 0;
  auto granted = batch().get_number(TableId::kGrant,
                                    store::u32_bytes_key(recipient_no, sender_member).bytes());
  if (!granted && sender_session != nullptr) {
    granted = batch().get_number(TableId::kGrant,
                                 store::u32_bytes_key(recipient_no, *sender_session).bytes());
  }
  return (granted.value_or(kDefaultGrants) & capability) != 0;
}

}  // namespace cm::broker
