// mesh_admin.cc — meshes over HTTP: list, rename, delete, settings.
// Holds:  a slug is unique in the broker; the old one is free after a rename or a delete. A deleted
//         mesh keeps its rows, takes no hello and no join, and its sockets are closed.
// Source: docs/PROTOCOL.md §7; spec/enrollment.md §4, §7, §8.
// Not:    creating one (enroll.cc), members (members.cc).
#include <sodium.h>

#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {

using store::TableId;

// The admin token sees all, a member the meshes in which its key is, without a walk over all.
Status Broker::list_meshes(HttpCall& call) {
  wire::JsonWriter json(call.reply);
  json.begin_object().key("meshes").begin_array();
  if (call.authority.admin) {
    store::Cursor cursor(batch(), TableId::kMeshSlug);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      const auto mesh_no = batch().get_number(TableId::kMeshSlug, cursor.key());
      if (mesh_no) write_mesh(*mesh_no, call.authority, json);
    }
  } else {
    std::vector<std::uint32_t> own;
    const auto [first, last] = tables_.meshes_of_key.equal_range(*call.authority.key);
    for (auto entry = first; entry != last; ++entry) {
      const bool in_force = member_of(entry->second, *call.authority.key) != 0;
      if (in_force && mesh(entry->second) != nullptr) own.push_back(entry->second);
    }
    std::sort(own.begin(), own.end(), [&](std::uint32_t left, std::uint32_t right) {
      return mesh(left)->slug < mesh(right)->slug;
    });
    for (const std::uint32_t mesh_no : own) write_mesh(mesh_no, call.authority, json);
  }
  json.end_array().end_object();
  return {};
}

void Broker::write_mesh(std::uint32_t mesh_no, const Authority& authority, wire::JsonWriter& json) {
  const MeshMirror* where = mesh(mesh_no);
  store::MeshRow row;
  if (where == nullptr || where->deleted ||
      !batch().get(TableId::kMesh, store::u32_key(mesh_no).bytes(), row)) {
    return;
  }
  sodium_memzero(row.fixed.owner_secret.data(), row.fixed.owner_secret.size());
  json.begin_object().field("id", where->id).field("slug", where->slug);
  json.field("name", row.text[store::kMeshName]);
  json.field("broker_url", config_.public_url);
  json.field("active_peers", where->presences.size());
  json.key("created_at").iso_time(row.fixed.created_ms);
  if (const std::uint32_t member_no = authority.key ? member_of(mesh_no, *authority.key) : 0;
      member_no != 0) {
    json.field("role", member(member_no)->is_admin != 0 ? "admin" : "member");
    json.field("is_owner", (permissions_of(member_no) & kCanDeleteMesh) != 0);
  }
  json.end_object();
}

Status Broker::rename_mesh(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kCanManagePermissions); !may) {
    return may;
  }
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const std::string_view slug = fields.text("slug", wire::kLabelMax, wire::Need::kOptional);
  const std::string_view name = fields.shown("name", wire::kDisplayNameMax, wire::Need::kOptional);
  if (!fields.ok()) return fields.take();
  if (slug.empty() && name.empty()) {
    return fail(Err::kMalformed, "one of the fields 'slug' and 'name' is needed");
  }
  if (!slug.empty() && !wire::is_slug(slug)) {
    return fail(Err::kMalformed,
                "field 'slug': expected 2 to 32 characters of [a-z0-9-], not starting with '-'");
  }
  const std::string old_slug(call.arguments[0]);
  const bool moves = !slug.empty() && slug != old_slug;
  if (moves && batch().get_number(TableId::kMeshSlug, store::text_key(slug).bytes())) {
    return fail(Err::kAlreadyExists, "the slug '" + std::string(slug) + "'");
  }
  store::MeshRow row;
  const store::Key key = store::u32_key(*mesh_no);
  if (!batch().get(TableId::kMesh, key.bytes(), row)) return Err::kCorrupt;
  for (std::string_view& text : row.text) text = scratch().copy(text);
  if (!slug.empty()) row.text[store::kMeshSlugText] = slug;
  if (!name.empty()) row.text[store::kMeshName] = name;
  batch().put(TableId::kMesh, key.bytes(), row);
  sodium_memzero(row.fixed.owner_secret.data(), row.fixed.owner_secret.size());
  if (moves) {
    batch().erase(TableId::kMeshSlug, store::text_key(old_slug).bytes());
    batch().put_number(TableId::kMeshSlug, store::text_key(slug).bytes(), *mesh_no);
    mesh(*mesh_no)->slug = slug;
  }
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).field("id", row.text[store::kMeshIdText]);
  json.field("slug", row.text[store::kMeshSlugText]).field("name", row.text[store::kMeshName]);
  json.end_object();
  env_.log->info("mesh_renamed", {{"from", old_slug}, {"to", row.text[store::kMeshSlugText]}});
  return {};
}

Status Broker::delete_mesh(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kCanDeleteMesh); !may) return may;
  store::MeshSettingsRow settings;
  const store::Key key = store::u32_key(*mesh_no);
  if (!batch().get(TableId::kMeshSettings, key.bytes(), settings)) settings = {};
  settings.fixed.deleted_ms = env_.wall_ms;
  batch().put(TableId::kMeshSettings, key.bytes(), settings);
  batch().erase(TableId::kMeshSlug, store::text_key(call.arguments[0]).bytes());
  mesh(*mesh_no)->deleted = true;
  close_mesh(*mesh_no, "mesh_deleted");
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).field("deleted", call.arguments[0]).end_object();
  env_.log->warn("mesh_deleted", {{"mesh", call.arguments[0]}});
  return {};
}

void Broker::close_mesh(std::uint32_t mesh_no, std::string_view reason) {
  std::vector<ClientRef> sockets;
  for (const PresenceRef presence : mesh(mesh_no)->presences) {
    const auto& of_one = tables_.presences.get<kPresClients>(presence);
    sockets.insert(sockets.end(), of_one.begin(), of_one.end());
  }
  for (const ClientRef socket : sockets) close(socket, 4002, reason);
}

Status Broker::edit_settings(HttpCall& call) {
  const auto mesh_no = mesh_of_call(call);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kCanManagePermissions); !may) {
    return may;
  }
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader outer(tape, tape.root());
  const wire::JsonNode* editable = outer.object("selfEditable", wire::Need::kOptional);
  const std::string_view wanted =
      outer.text("cloneConcurrencyPolicy", wire::kLabelMax, wire::Need::kOptional);
  const auto policy = concurrency_policy_parse(wanted);
  if (outer.ok() && !wanted.empty() && !policy) {
    outer.refuse("cloneConcurrencyPolicy", "prefer_newest, prefer_oldest or allow_concurrent");
  }
  if (outer.ok() && editable == nullptr && !policy) {
    outer.refuse("selfEditable", "this or cloneConcurrencyPolicy");
  }
  if (!outer.ok()) return outer.take();
  store::MeshSettingsRow row;
  const store::Key key = store::u32_key(*mesh_no);
  if (!batch().get(TableId::kMeshSettings, key.bytes(), row)) row = {};
  constexpr std::pair<const char*, std::uint8_t> kNames[] = {
      {"displayName", store::kEditName},
      {"roleTag", store::kEditRoleTag},
      {"groups", store::kEditGroups},
      {"messageMode", store::kEditMessageMode}};
  std::uint8_t bits = row.fixed.self_editable;
  if (editable != nullptr) {
    wire::FieldReader fields(tape, *editable);
    for (const auto& [name, bit] : kNames) {
      const bool allowed = fields.boolean(name, (bits & bit) != 0);
      bits = static_cast<std::uint8_t>(allowed ? bits | bit : bits & ~bit);
    }
    if (!fields.ok()) return fields.take();
    row.fixed.has_policy = 1;
  }
  row.fixed.self_editable = bits;
  // It judges connections that negotiate from now on; those that stand stay.
  if (policy) row.fixed.concurrency = *policy;
  batch().put(TableId::kMeshSettings, key.bytes(), row);
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("settings").begin_object();
  json.key("selfEditable").begin_object();
  for (const auto& [name, bit] : kNames) json.field(name, (bits & bit) != 0);
  json.end_object().field("cloneConcurrencyPolicy", text_of(row.fixed.concurrency));
  json.end_object().end_object();
  env_.log->info("mesh_settings_changed",
                 {{"mesh", mesh(*mesh_no)->slug}, {"policy", text_of(row.fixed.concurrency)}});
  return {};
}

}  // namespace cm::broker
