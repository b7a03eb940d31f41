// skills.cc — skills that members share: named texts of instructions.
// Holds:  one skill a name; sharing it again replaces it. Any member may remove one.
// Limits: kSkillTextMax bytes of instructions, kSkillManifestMax of manifest, skills_max a mesh.
// Source: docs/PROTOCOL.md §6; spec/wire.md §7.14.
// Not:    running them.
#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

bool contains_folded(std::string_view text, std::string_view part) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const auto found =
      std::search(text.begin(), text.end(), part.begin(), part.end(),
                  [&](char left, char right) { return lower(left) == lower(right); });
  return part.empty() || found != text.end();
}

}  // namespace

void Broker::handle_share_skill(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = fields.shown("name", wire::kLabelMax);
  const std::string_view about = fields.display(
      "description", wire::kSummaryMax, wire::Lines::kMany, scratch(), wire::Need::kRequired);
  const std::string_view instructions = fields.text("instructions", wire::kSkillTextMax);
  const wire::JsonNode* tags = fields.array("tags", wire::Need::kOptional);
  const wire::JsonNode* manifest = fields.node("manifest");
  if (fields.ok() && name.empty()) fields.refuse("name", "1 to 128 bytes");
  if (fields.ok() && manifest != nullptr && frame.tape.depth(*manifest) > wire::kStoredDepthMax) {
    fields.refuse("manifest", "at most 12 levels");
  }
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  if (tags != nullptr) {
    if (Status good = check_texts(frame.tape, *tags, wire::kTagsMax, wire::kTagMax); !good) {
      return refuse(client, frame, fail(Err::kMalformed, "field 'tags': " + good.error().detail));
    }
  }
  TextBuf manifest_json(scratch());
  if (manifest != nullptr) wire::JsonWriter(manifest_json).value(*manifest);
  if (manifest_json.size() > wire::kSkillManifestMax) {
    return refuse(client, frame,
                  fail(Err::kTooBig, "field 'manifest': at most 65536 bytes of JSON"));
  }
  if (!batch().admits()) return refuse(client, frame, fail(Err::kDiskFull));
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const store::Key key = store::u32_bytes_key(mesh_no, as_bytes(name));
  TextBuf tags_json(scratch(), 64);
  wire::JsonWriter tags_writer(tags_json);
  if (tags != nullptr) write_texts(frame.tape, *tags, tags_writer);
  store::SkillRow row;
  row.fixed.created_ms = env_.wall_ms;
  row.fixed.member_no = tables_.clients.get<kClientMemberNo>(client);
  row.text[store::kSkillName] = name;
  row.text[store::kSkillDescription] = about;
  row.text[store::kSkillInstructions] = instructions;
  row.text[store::kSkillTags] = tags == nullptr ? std::string_view("[]") : tags_json.view();
  row.text[store::kSkillManifest] = manifest_json.view();
  row.text[store::kSkillAuthor] = name_of(client);
  if (Status room = check_shared(mesh_no, TableId::kSkill, key.bytes(), row); !room) {
    return refuse(client, frame, room.error());
  }
  put_shared(mesh_no, TableId::kSkill, key.bytes(), row);
  acknowledge_skill(client, frame, name, "shared");
}

void Broker::handle_get_skill(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = fields.shown("name", wire::kLabelMax);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  store::SkillRow row;
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "skill_data").key("skill");
  if (batch().get(TableId::kSkill, store::u32_bytes_key(mesh_no, as_bytes(name)).bytes(), row)) {
    json.begin_object().field("name", row.text[store::kSkillName]);
    json.field("description", row.text[store::kSkillDescription]);
    json.field("instructions", row.text[store::kSkillInstructions]);
    json.key("tags").raw(row.text[store::kSkillTags]);
    json.field("author", row.text[store::kSkillAuthor]).key("manifest");
    const std::string_view manifest = row.text[store::kSkillManifest];
    json.raw(manifest.empty() ? "null" : manifest);
    json.key("createdAt").iso_time(row.fixed.created_ms).end_object();
  } else {
    json.null();
  }
  finish_reply(client, frame, json, text);
}

void Broker::handle_list_skills(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view query = fields.text("query", wire::kQueryMax, wire::Need::kOptional);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  TextBuf text(scratch(), 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "skill_list").key("skills").begin_array();
  store::Cursor cursor(batch(), TableId::kSkill);
  for (bool more = cursor.seek(store::u32_key(mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != mesh_no) break;
    store::SkillRow row;
    if (!cursor.row(row)) continue;
    if (!contains_folded(row.text[store::kSkillName], query) &&
        !contains_folded(row.text[store::kSkillDescription], query) &&
        !contains_folded(row.text[store::kSkillTags], query)) {
      continue;
    }
    json.begin_object().field("name", row.text[store::kSkillName]);
    json.field("description", row.text[store::kSkillDescription]);
    json.key("tags").raw(row.text[store::kSkillTags]);
    json.field("author", row.text[store::kSkillAuthor]);
    json.key("createdAt").iso_time(row.fixed.created_ms).end_object();
  }
  json.end_array();
  finish_reply(client, frame, json, text);
}

void Broker::handle_remove_skill(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = fields.shown("name", wire::kLabelMax);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const bool was_there =
      erase_shared(mesh_no, TableId::kSkill, store::u32_bytes_key(mesh_no, as_bytes(name)).bytes());
  acknowledge_skill(client, frame, name, was_there ? "removed" : "not_found");
}

void Broker::acknowledge_skill(ClientRef client, const Frame& frame, std::string_view name,
                               std::string_view action) {
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "skill_ack").field("name", name).field("action", action);
  finish_reply(client, frame, json, text);
}

}  // namespace cm::broker
