// grants.cc — over HTTP: what a member lets others do to it, and what a mesh lets a member do.
// Holds:  grants are the recipient's own: only its signature changes them. Permissions are changed
//         by who manages them. Both count from the next message on.
// Source: docs/PROTOCOL.md §7; spec/enrollment.md §7, §8; spec/cli.md §13.
// Not:    enforcing them (route.cc, queue.cc, authority.cc).
#include "core/broker/broker.h"
#include "core/broker/capability.h"
#include "core/crypto/encoding.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::size_t kGrantsMax = 256;  // keys of one JSON object

// The bits behind ["dm", ...]; an empty list blocks.
Result<std::uint16_t> grants_of(const wire::JsonTape& tape, const wire::JsonNode& list) {
  std::uint16_t bits = 0;
  for (std::uint32_t index = tape.first(list); index < list.next; index = tape.at(index).next) {
    const wire::JsonNode& node = tape.at(index);
    const std::uint16_t bit = node.type == wire::JsonType::kText ? grant_cap(node.text) : 0;
    if (bit == 0) {
      return fail(Err::kMalformed,
                  "field 'grants': expected read, dm, broadcast, state-read, state-write, "
                  "file-read or all");
    }
    bits = static_cast<std::uint16_t>(bits | bit);
  }
  return bits;
}

}  // namespace

void Broker::write_grants(std::uint32_t member_no, wire::JsonWriter& json) {
  json.begin_object();
  store::Cursor cursor(batch(), TableId::kGrant);
  for (bool more = cursor.seek(store::u32_key(member_no).bytes()); more; more = cursor.next()) {
    if (cursor.key().size() != 36 || load_be32(cursor.key().data()) != member_no) break;
    const auto bits = batch().get_number(TableId::kGrant, cursor.key());
    if (!bits) continue;
    TextBuf key(scratch(), 64);
    crypto::hex_append(cursor.key().subspan(4), key);
    json.key(key.view()).begin_array();
    for (const CapName& cap : kGrantCaps) {
      if ((*bits & cap.bit) != 0) json.text(cap.name);
    }
    json.end_array();
  }
  json.end_object();
}

Status Broker::list_grants(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  const std::uint32_t member_no = call.authority.key ? member_of(*mesh_no, *call.authority.key) : 0;
  if (member_no == 0) {
    return fail(Err::kForbidden, "grants are a member's own: sign with its key");
  }
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("grants");
  write_grants(member_no, json);
  json.end_object();
  return {};
}

Status Broker::set_grants(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  const std::uint32_t member_no = call.authority.key ? member_of(*mesh_no, *call.authority.key) : 0;
  if (member_no == 0) {
    return fail(Err::kForbidden, "grants are a member's own: sign with its key");
  }
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const wire::JsonNode* grants = fields.object("grants");
  if (grants == nullptr) return fields.take();
  struct Change {
    PublicKey key;
    std::optional<std::uint16_t> bits;  // absent: back to the default
  };
  std::vector<Change> changes;
  for (std::uint32_t index = tape.first(*grants); index < grants->next;
       index = tape.at(index).next) {
    const wire::JsonNode& node = tape.at(index);
    const auto key = crypto::public_key_parse(node.key);
    if (!key || changes.size() == kGrantsMax) {
      return fail(Err::kMalformed, "field 'grants': expected 64 lower-case hex digits as keys");
    }
    if (node.type == wire::JsonType::kNull) {
      changes.push_back({*key, std::nullopt});
      continue;
    }
    if (node.type != wire::JsonType::kArray) {
      return fail(Err::kMalformed, "field 'grants': expected a list of capabilities or null");
    }
    const auto bits = grants_of(tape, node);
    if (!bits) return bits.error();
    changes.push_back({*key, *bits});
  }
  for (const Change& change : changes) {
    const store::Key at = store::u32_bytes_key(member_no, change.key);
    if (change.bits) {
      batch().put_number(TableId::kGrant, at.bytes(), *change.bits);
    } else {
      batch().erase(TableId::kGrant, at.bytes());
    }
  }
  member(member_no)->has_grants =
      count_rows(TableId::kGrant, member_no, 1) != 0 ? std::uint8_t{1} : std::uint8_t{0};
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("grants");
  write_grants(member_no, json);
  json.end_object();
  return {};
}

Status Broker::list_permissions(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kNoPermission); !may) return may;
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).key("members").begin_array();
  store::Cursor cursor(batch(), TableId::kMemberKey);
  for (bool more = cursor.seek(store::u32_key(*mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != *mesh_no) break;
    const auto member_no = batch().get_number(TableId::kMemberKey, cursor.key());
    const MemberMirror* found = member_no ? member(*member_no) : nullptr;
    if (found == nullptr || found->revoked) continue;
    json.begin_object().field("memberId", found->id).field("displayName", found->name);
    json.key("permissions").begin_object();
    const std::uint16_t bits = permissions_of(*member_no);
    for (const PermissionName& name : kPermissionNames) {
      json.field(name.name, (bits & name.bit) != 0);
    }
    json.end_object().end_object();
  }
  json.end_array().end_object();
  return {};
}

Status Broker::set_permissions(HttpCall& call) {
  const auto mesh_no = mesh_by_slug(call.arguments[0]);
  if (!mesh_no) return mesh_no.error();
  if (Status may = check_permission(call.authority, *mesh_no, kCanManagePermissions); !may) {
    return may;
  }
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader outer(tape, tape.root());
  const std::string_view id = outer.broker_id("member_id");
  const wire::JsonNode* wanted = outer.object("permissions");
  if (!outer.ok()) return outer.take();
  const auto member_no = member_by_id(*mesh_no, id);
  if (!member_no) return member_no.error();
  wire::FieldReader fields(tape, *wanted);
  std::uint16_t bits = permissions_of(*member_no);
  std::uint32_t named = 0;
  for (const PermissionName& name : kPermissionNames) {
    named += fields.node(name.name) != nullptr;
    const bool allowed = fields.boolean(name.name, (bits & name.bit) != 0);
    bits = static_cast<std::uint16_t>(allowed ? bits | name.bit : bits & ~name.bit);
  }
  if (fields.ok() && named != wanted->count) fields.refuse("permissions", "known names only");
  if (!fields.ok()) return fields.take();
  if (Status may = check_change(call.authority, *mesh_no, *member_no, bits); !may) return may;
  put_permissions(*member_no, bits);
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", true).field("memberId", id).key("permissions").begin_object();
  for (const PermissionName& name : kPermissionNames) {
    json.field(name.name, (bits & name.bit) != 0);
  }
  json.end_object().end_object();
  return {};
}

void Broker::put_permissions(std::uint32_t member_no, std::uint16_t bits) {
  const store::Key key = store::u32_key(member_no);
  store::MemberProfileRow row;
  if (!batch().get(TableId::kMemberProfile, key.bytes(), row)) row = {};
  for (std::string_view& text : row.text) text = scratch().copy(text);
  row.fixed.permissions = bits;
  row.fixed.has_permissions = 1;
  batch().put(TableId::kMemberProfile, key.bytes(), row);
  member(member_no)->caps = caps_of_permissions(bits);
}

}  // namespace cm::broker
