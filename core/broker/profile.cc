// profile.cc — what a connection says of itself: status, summary, visibility, profile, groups.
// Holds:  a verb acts on the presence of the connection that sent it. What reference clients send
//         without waiting is acknowledged only when it came with `_reqId`.
// Limits: core/wire/limits.h: groups, summaries and profile texts are bounded.
// Source: docs/PROTOCOL.md §3; spec/wire.md §4, §6; spec/decisions.md, "Delivery" (status).
// Not:    what a member gets back later (peer_state.cc), lists and events (peers.cc).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::PeerStatus;

bool is_group_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > wire::kGroupNameMax) return false;
  if (name.starts_with(' ') || name.ends_with(' ') || !wire::is_shown_text(name)) return false;
  // No empty part, and none that a file system would understand.
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('/', at), name.size());
    if (name.substr(at, end - at).find_first_not_of('.') == std::string_view::npos) return false;
    at = end + 1;
  }
  return true;
}

std::string_view without_at(std::string_view name) noexcept {
  return name.starts_with('@') ? name.substr(1) : name;
}

}  // namespace

void Broker::handle_set_status(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view text = fields.text("status", wire::kLabelMax);
  const auto status = peer_status_parse(text);
  if (fields.ok() && !status) fields.refuse("status", "idle, working or dnd");
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const PresenceRef presence = presence_of(client);
  PresenceStatus& now = tables_.presences.get<kPresStatus>(presence);
  now.manual = *status;
  now.hook_until_ms = 0;  // the newer word is the person's
  store_presence(presence);
  for (const ClientRef socket : tables_.presences.get<kPresClients>(presence)) {
    mark_mailboxes_of(socket);
  }
  confirm(client, frame);
}

void Broker::handle_set_summary(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view summary =
      fields.display("summary", wire::kSummaryMax, wire::Lines::kOne, scratch());
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  tables_.presences.get<kPresInfo>(presence_of(client)).summary = summary;
  tables_.presences.get<kPresStatus>(presence_of(client)).changed |= kChangedSummary;
  store_presence(presence_of(client));
  confirm(client, frame);
}

void Broker::handle_set_visible(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const wire::JsonNode* visible = fields.node("visible");
  if (visible == nullptr || visible->type != wire::JsonType::kBool) {
    return refuse(client, frame, fail(Err::kMalformed, "field 'visible': expected true or false"));
  }
  const PresenceRef presence = presence_of(client);
  PresenceStatus& status = tables_.presences.get<kPresStatus>(presence);
  const std::uint8_t hidden = visible->boolean ? 0 : 1;
  const bool changed = status.hidden != hidden;
  confirm(client, frame);
  if (!changed) return;
  status.hidden = hidden;
  status.changed |= kChangedVisible;
  store_presence(presence);
  charge_fan_out(client, announce(presence, visible->boolean ? "peer_visible" : "peer_hidden"));
}

void Broker::handle_set_profile(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence_of(client));
  // Fields that the frame does not name keep their value.
  wire::JsonTape old;
  const bool has_old =
      !info.profile.empty() && static_cast<bool>(parser_.parse(info.profile, scratch(), old));
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object();
  for (const std::string_view key : {"avatar", "title", "bio"}) {
    const wire::Lines lines = key == "bio" ? wire::Lines::kMany : wire::Lines::kOne;
    const wire::JsonNode* given = fields.node(key);
    const wire::JsonNode* kept = has_old ? old.find(key) : nullptr;
    if (given != nullptr) {
      json.nullable_field(key, fields.display(key, wire::kProfileTextMax, lines, scratch()));
    } else if (kept != nullptr) {
      json.key(key).value(*kept);
    }
  }
  const wire::JsonNode* caps = fields.array("capabilities", wire::Need::kOptional);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  if (caps != nullptr) {
    if (Status good = check_texts(frame.tape, *caps, wire::kTagsMax, wire::kLabelMax); !good) {
      return refuse(client, frame,
                    fail(Err::kMalformed, "field 'capabilities': " + good.error().detail));
    }
    write_texts(frame.tape, *caps, json.key("capabilities"));
  } else if (const wire::JsonNode* kept = has_old ? old.find("capabilities") : nullptr;
             kept != nullptr) {
    write_texts(old, *kept, json.key("capabilities"));
  }
  json.end_object();
  info.profile = text.view();
  tables_.presences.get<kPresStatus>(presence_of(client)).changed |= kChangedProfile;
  store_presence(presence_of(client));
  confirm(client, frame);
}

void Broker::handle_set_stats(ClientRef client, const Frame& frame) {
  wire::FieldReader outer(frame.tape, frame.tape.root());
  const wire::JsonNode* stats = outer.object("stats");
  if (stats == nullptr) return refuse(client, frame, outer.take().error());
  wire::FieldReader fields(frame.tape, *stats);
  constexpr std::int64_t kMost = 1ll << 53;
  const auto number = [&](std::string_view key, std::uint64_t otherwise) {
    return static_cast<std::uint64_t>(
        fields.integer(key, 0, kMost, wire::Need::kOptional, static_cast<std::int64_t>(otherwise)));
  };
  PresenceStats next = tables_.presences.get<kPresInfo>(presence_of(client)).stats;
  next.messages_in = number("messagesIn", next.messages_in);
  next.messages_out = number("messagesOut", next.messages_out);
  next.tool_calls = number("toolCalls", next.tool_calls);
  next.uptime_s = number("uptime", next.uptime_s);
  next.errors = number("errors", next.errors);
  next.set = true;
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  tables_.presences.get<kPresInfo>(presence_of(client)).stats = next;
  tables_.presences.get<kPresStatus>(presence_of(client)).changed |= kChangedStats;
  confirm(client, frame);
}

void Broker::handle_join_group(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = without_at(fields.text("name", wire::kGroupNameMax + 1));
  const std::string_view role =
      fields.display("role", wire::kGroupNameMax, wire::Lines::kOne, scratch());
  if (fields.ok() && !is_group_name(name)) {
    fields.refuse("name", "1 to 64 bytes that can be shown, parts joined by '/'");
  }
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence_of(client));
  std::vector<PeerGroup> groups = info.groups;
  const auto known = std::find_if(groups.begin(), groups.end(),
                                  [&](const PeerGroup& group) { return group.name == name; });
  if (known != groups.end()) {
    known->role = role;
  } else if (groups.size() >= wire::kGroupsMax) {
    return refuse(client, frame, fail(Err::kInvalidArgument, "a peer is in at most 32 groups"));
  } else {
    groups.push_back({std::string(name), std::string(role)});
  }
  set_groups(info, std::move(groups));
  tables_.presences.get<kPresStatus>(presence_of(client)).changed |= kChangedGroups;
  store_presence(presence_of(client));
  confirm(client, frame);
}

void Broker::handle_leave_group(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = without_at(fields.text("name", wire::kGroupNameMax + 1));
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  PresenceInfo& info = tables_.presences.get<kPresInfo>(presence_of(client));
  std::vector<PeerGroup> groups = info.groups;
  std::erase_if(groups, [&](const PeerGroup& group) { return group.name == name; });
  set_groups(info, std::move(groups));
  tables_.presences.get<kPresStatus>(presence_of(client)).changed |= kChangedGroups;
  store_presence(presence_of(client));
  confirm(client, frame);
}

// [{name, role?}] of a hello, or "name" and "@name:role" texts, as launchers register them.
Status Broker::parse_groups(const wire::JsonTape& tape, const wire::JsonNode& list,
                            std::vector<PeerGroup>& groups) {
  for (std::uint32_t index = tape.first(list); index < list.next; index = tape.at(index).next) {
    const wire::JsonNode& node = tape.at(index);
    std::string_view name;
    std::string_view role;
    if (node.type == wire::JsonType::kText) {
      const std::size_t colon = node.text.find(':');
      name = without_at(node.text.substr(0, colon));
      if (colon != std::string_view::npos) role = node.text.substr(colon + 1);
    } else if (node.type == wire::JsonType::kObject) {
      wire::FieldReader fields(tape, node);
      name = without_at(fields.text("name", wire::kGroupNameMax + 1));
      role = fields.text("role", wire::kGroupNameMax, wire::Need::kOptional);
      if (!fields.ok()) return fields.take();
    }
    name = wire::shown_copy(name, wire::Lines::kOne, scratch());
    role = wire::shown_copy(role, wire::Lines::kOne, scratch());
    if (!is_group_name(name) || role.size() > wire::kGroupNameMax) {
      return fail(Err::kMalformed,
                  "field 'groups': expected names of 1 to 64 bytes, parts joined by '/'");
    }
    if (groups.size() == wire::kGroupsMax) {
      return fail(Err::kMalformed, "field 'groups': at most 32 entries");
    }
    const bool known = std::any_of(groups.begin(), groups.end(),
                                   [&](const PeerGroup& group) { return group.name == name; });
    if (!known) groups.push_back({std::string(name), std::string(role)});
  }
  return {};
}

void Broker::set_groups(PresenceInfo& info, std::vector<PeerGroup> groups) {
  info.groups = std::move(groups);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_array();
  for (const PeerGroup& group : info.groups) {
    json.begin_object().field("name", group.name).optional_field("role", group.role).end_object();
  }
  json.end_array();
  info.groups_json = text.view();
}

std::vector<PeerGroup> Broker::groups_from_json(std::string_view json) {
  std::vector<PeerGroup> groups;
  wire::JsonTape tape;
  if (json.empty() || !parser_.parse(json, scratch(), tape)) return groups;
  if (tape.root().type != wire::JsonType::kArray) return groups;
  if (!parse_groups(tape, tape.root(), groups)) groups.clear();
  return groups;
}

}  // namespace cm::broker
