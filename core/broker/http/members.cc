// members.cc — members over HTTP: the list, and what may be changed of one.
// Holds:  a member changes of itself what the mesh's policy lets it; who manages permissions
// changes
//         everything of everybody. A change is told to that member's connections.
// Source: docs/PROTOCOL.md §7; spec/enrollment.md §7, §8; spec/wire.md §8 (profile_updated).
// Not:    permissions and grants (grants.cc).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::string_view kMessageModes[] = {"push", "inbox", "off"};
constexpr std::uint8_t kEditRole = 16;  // beside store::kEdit*; never self-editable

}  // namespace

Result<std::uint32_t> Broker::mesh_of_call(const HttpCall& call) {
  const std::string_view id = call.arguments[0];
  const auto mesh_no = wire::is_broker_id(id)
                           ? batch().get_number(TableId::kMeshId, store::text_key(id).bytes())
                           : std::nullopt;
  if (!mesh_no || mesh(*mesh_no) == nullptr || mesh(*mesh_no)->deleted) {
    return fail(Err::kNotFound, "no mesh has this id");
  }
  return *mesh_no;
}

Result<std::uint32_t> Broker::member_by_id(std::uint32_t mesh_no, std::string_view id) {
  store::Cursor cursor(batch(), TableId::kMemberKey);
  for (bool more = cursor.seek(store::u32_key(mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != mesh_no) break;
    const auto member_no = batch().get_number(TableId::kMemberKey, cursor.key());
    const MemberMirror* found = member_no ? member(*member_no) : nullptr;
    if (found != nullptr && found->id == id) return *member_no;
  }
  return fail(Err::kNotFound, "no member of this mesh has this id");
}

Status Broker::list_members(HttpCall& call) {
  const auto mesh_no = mesh_of_call(call);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kNoPermission); !may) return may;
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("members").begin_array();
  store::Cursor cursor(batch(), TableId::kMemberKey);
  for (bool more = cursor.seek(store::u32_key(*mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != *mesh_no) break;
    const auto member_no = batch().get_number(TableId::kMemberKey, cursor.key());
    store::MemberRow row;
    if (!member_no || !batch().get(TableId::kMember, store::u32_key(*member_no).bytes(), row)) {
      continue;
    }
    const MemberMirror* mirror = member(*member_no);
    store::MemberProfileRow profile;
    if (!batch().get(TableId::kMemberProfile, store::u32_key(*member_no).bytes(), profile)) {
      profile = {};
    }
    store::PeerStateRow state;
    const bool was_here =
        batch().get(TableId::kPeerState, store::u32_key(*member_no).bytes(), state);
    const std::string_view groups = profile.text[store::kProfileGroups];
    json.begin_object().field("id", mirror->id).key("pubkey").hex(mirror->key);
    json.field("displayName", mirror->name);
    json.nullable_field("roleTag", profile.text[store::kProfileRoleTag]);
    json.key("groups").raw(groups.empty() ? std::string_view("[]") : groups);
    json.field("messageMode", kMessageModes[static_cast<std::size_t>(profile.fixed.message_mode)]);
    json.field("permission", mirror->is_admin != 0 ? "admin" : "member");
    json.key("dashboardUserId").null();
    json.key("joinedAt").iso_time(row.fixed.joined_ms);
    json.key("lastSeenAt").iso_time_or_null(was_here ? state.fixed.last_seen_ms : 0);
    json.field("online", !mirror->clients.empty()).field("sessionCount", mirror->clients.size());
    json.field("revoked", mirror->revoked).end_object();
  }
  json.end_array().end_object();
  return {};
}

Status Broker::edit_member(HttpCall& call) {
  const auto mesh_no = mesh_of_call(call);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kNoPermission); !may) return may;
  const auto member_no = member_by_id(*mesh_no, call.arguments[1]);
  if (!member_no) return member_no.error();
  wire::JsonTape tape;
  MemberEdit edit;
  if (Status parsed = parse_edit(call, tape, edit); !parsed) return parsed;
  if (Status may = check_edit(call, *mesh_no, *member_no, edit); !may) return may;
  TextBuf changes(scratch());
  apply_edit(*member_no, edit, changes);
  push_event(*mesh_no, "profile_updated", changes.view(), Audience::kMember, *member_no, {});
  const MemberMirror* changed = member(*member_no);
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("member").begin_object();
  json.field("id", changed->id).field("displayName", changed->name);
  json.field("permission", changed->is_admin != 0 ? "admin" : "member").end_object();
  json.key("changes").raw(changes.view()).end_object();
  return {};
}

Status Broker::parse_edit(const HttpCall& call, wire::JsonTape& tape, MemberEdit& edit) {
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  edit.has_name = fields.node("displayName") != nullptr;
  edit.has_role_tag = fields.node("roleTag") != nullptr;
  edit.name = fields.shown("displayName", wire::kDisplayNameMax, wire::Need::kOptional);
  edit.role_tag = fields.shown("roleTag", wire::kLabelMax, wire::Need::kOptional);
  const wire::JsonNode* groups = fields.array("groups", wire::Need::kOptional);
  const std::string_view mode = fields.text("messageMode", wire::kLabelMax, wire::Need::kOptional);
  const std::string_view role = fields.text("permission", wire::kLabelMax, wire::Need::kOptional);
  if (fields.ok() && edit.has_name && edit.name.empty()) fields.refuse("displayName", "a name");
  if (fields.ok() && !mode.empty()) {
    const auto* found = std::find(std::begin(kMessageModes), std::end(kMessageModes), mode);
    if (found == std::end(kMessageModes)) fields.refuse("messageMode", "push, inbox or off");
    edit.mode = static_cast<store::MessageMode>(found - std::begin(kMessageModes));
  }
  if (fields.ok() && !role.empty()) {
    if (role != "admin" && role != "member") fields.refuse("permission", "admin or member");
    edit.role = role == "admin" ? store::MemberRole::kAdmin : store::MemberRole::kMember;
  }
  if (!fields.ok()) return fields.take();
  if (groups != nullptr) {
    edit.groups.emplace();
    if (Status good = parse_groups(tape, *groups, *edit.groups); !good) return good;
  }
  edit.fields = static_cast<std::uint8_t>(
      (edit.has_name ? store::kEditName : 0) | (edit.has_role_tag ? store::kEditRoleTag : 0) |
      (edit.groups ? store::kEditGroups : 0) | (edit.mode ? store::kEditMessageMode : 0) |
      (edit.role ? kEditRole : 0));
  if (edit.fields == 0) {
    return fail(Err::kMalformed,
                "one of displayName, roleTag, groups, messageMode, permission is needed");
  }
  return {};
}

Status Broker::check_edit(const HttpCall& call, std::uint32_t mesh_no, std::uint32_t member_no,
                          const MemberEdit& edit) {
  if (check_permission(call.authority, mesh_no, kCanManagePermissions)) {
    if (!edit.role) return {};
    return check_change(call.authority, mesh_no, member_no,
                        permissions_with_role(member_no, *edit.role));
  }
  const std::uint32_t asker = call.authority.key ? member_of(mesh_no, *call.authority.key) : 0;
  if (asker != member_no) {
    return fail(Err::kForbidden, "only who manages permissions may change another member");
  }
  store::MeshSettingsRow settings;
  if (!batch().get(TableId::kMeshSettings, store::u32_key(mesh_no).bytes(), settings)) {
    settings = {};
  }
  const auto refused = static_cast<std::uint8_t>(edit.fields & ~settings.fixed.self_editable);
  if (refused == 0) return {};
  const char* field = (refused & store::kEditName) != 0      ? "displayName"
                      : (refused & store::kEditRoleTag) != 0 ? "roleTag"
                      : (refused & store::kEditGroups) != 0  ? "groups"
                      : (refused & kEditRole) != 0           ? "permission"
                                                             : "messageMode";
  return fail(Err::kForbidden,
              "field '" + std::string(field) + "': the mesh lets only an admin change it");
}

void Broker::apply_edit(std::uint32_t member_no, const MemberEdit& edit, TextBuf& changes) {
  const store::Key key = store::u32_key(member_no);
  MemberMirror* mirror = member(member_no);
  wire::JsonWriter json(changes);
  json.begin_object();
  if (edit.has_name || edit.role) {
    store::MemberRow row;
    CHECK(batch().get(TableId::kMember, key.bytes(), row) || batch().failed());
    for (std::string_view& text : row.text) text = scratch().copy(text);
    if (edit.has_name) {
      for (const ClientRef client : mirror->clients) {
        PresenceInfo& info = tables_.presences.get<kPresInfo>(presence_of(client));
        if (info.name == mirror->name) info.name = edit.name;
      }
      row.text[store::kMemberName] = edit.name;
      mirror->name = edit.name;
      json.field("displayName", edit.name);
    }
    if (edit.role) {
      store::MemberProfileRow own;  // without explicit permissions the role says it all
      if (batch().get(TableId::kMemberProfile, key.bytes(), own) &&
          own.fixed.has_permissions != 0) {
        put_permissions(member_no, permissions_with_role(member_no, *edit.role));
      }
      row.fixed.role = *edit.role;
      mirror->is_admin = *edit.role == store::MemberRole::kAdmin ? 1 : 0;
      json.field("permission", mirror->is_admin != 0 ? "admin" : "member");
    }
    batch().put(TableId::kMember, key.bytes(), row);
  }
  if (edit.has_role_tag || edit.groups || edit.mode) {
    store::MemberProfileRow row;
    if (!batch().get(TableId::kMemberProfile, key.bytes(), row)) row = {};
    for (std::string_view& text : row.text) text = scratch().copy(text);
    PresenceInfo groups;
    if (edit.has_role_tag) {
      row.text[store::kProfileRoleTag] = edit.role_tag;
      json.nullable_field("roleTag", edit.role_tag);
    }
    if (edit.groups) {
      set_groups(groups, *edit.groups);
      row.text[store::kProfileGroups] = groups.groups_json;
      json.key("groups").raw(groups.groups_json);
    }
    if (edit.mode) {
      row.fixed.message_mode = *edit.mode;
      json.field("messageMode", kMessageModes[static_cast<std::size_t>(*edit.mode)]);
    }
    batch().put(TableId::kMemberProfile, key.bytes(), row);
  }
  json.end_object();
}

}  // namespace cm::broker
