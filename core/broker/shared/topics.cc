// topics.cc — topics: who made them, who is in them.
// Holds:  a name is unique in its mesh; a topic is found by id or name. Creating one that exists
//         answers it. Whoever creates leads; any member may join. A new mesh has #general.
// Limits: mesh_topics_max of a mesh, topic_members_max of a topic.
// Source: docs/PROTOCOL.md §6; spec/wire.md §7.3. Topic keys (spec/crypto.md §6) are another
//         issue's: bodies sent over the WebSocket are version 1, readable by the broker.
// Not:    posts and their history (accept.cc, topic_history.cc).
#include "core/broker/broker.h"
#include "core/crypto/encoding.h"
#include "core/crypto/random.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;
using store::TopicRole;
using store::TopicVisibility;

constexpr std::string_view kVisibilities[] = {"public", "private", "dm"};
constexpr std::string_view kGeneral = "general";
constexpr std::string_view kRoles[] = {"lead", "member", "observer"};

template <class Enum, std::size_t kCount>
std::optional<Enum> parse(const std::string_view (&names)[kCount], std::string_view text) {
  for (std::size_t index = 0; index < kCount; ++index) {
    if (names[index] == text) return static_cast<Enum>(index);
  }
  return std::nullopt;
}

bool is_topic_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > wire::kTopicNameMax) return false;
  for (const char c : name) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '-' || c == '_' || c == '.';
    if (!good) return false;
  }
  return true;
}

std::string_view without_hash(std::string_view name) noexcept {
  return name.starts_with('#') ? name.substr(1) : name;
}

}  // namespace

// Both of the ways in which clients read a topic's request id (spec/wire.md §1.2).
void Broker::refuse_topic(ClientRef client, const Frame& frame) {
  metrics_.add(Metric::kBrokerFrameErrors);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "error").field("code", "topic_not_found");
  json.field("message", "no topic of this mesh has this name or id");
  json.optional_field("id", frame.request_id).optional_field("_reqId", frame.request_id);
  json.end_object();
  send_text(client, text);
}

bool Broker::find_topic(std::uint32_t mesh_no, std::string_view name_or_id, TopicFacts& topic) {
  if (name_or_id.empty() || name_or_id.size() > wire::kTopicNameMax) return false;
  const store::Key key = store::u32_bytes_key(mesh_no, as_bytes(name_or_id));
  auto no = batch().get_number(TableId::kTopicId, key.bytes());
  if (!no) no = batch().get_number(TableId::kTopicName, key.bytes());
  if (!no) return false;
  topic.no = *no;
  return batch().get(TableId::kTopic, store::u32_key(*no).bytes(), topic.row);
}

// The frame's topic; answers the error itself.
bool Broker::topic_of_frame(ClientRef client, const Frame& frame, TopicFacts& topic) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = without_hash(fields.text("topic", wire::kTargetMax));
  if (!fields.ok()) {
    refuse(client, frame, fields.take().error());
    return false;
  }
  if (find_topic(tables_.clients.get<kClientMeshNo>(client), name, topic)) return true;
  refuse_topic(client, frame);
  return false;
}

std::uint32_t Broker::count_topic_members(std::uint32_t topic_no) const {
  const auto found = tables_.subscribers.find(topic_no);
  return found == tables_.subscribers.end() ? 0 : found->second;
}

void Broker::subscribe(std::uint32_t topic_no, std::uint32_t member_no, TopicRole role) {
  const store::Key key = store::pair_key(topic_no, member_no);
  if (batch().get_raw(TableId::kTopicMember, key.bytes())) return;
  store::TopicMemberRow row;
  row.fixed.joined_ms = env_.wall_ms;
  row.fixed.role = role;
  batch().put(TableId::kTopicMember, key.bytes(), row);
  ++tables_.subscribers[topic_no];
}

void Broker::make_topic(std::uint32_t mesh_no, std::uint32_t member_no, std::string_view name,
                        std::string_view about, TopicVisibility visibility, TopicFacts& topic) {
  topic.no = next_topic_no_++;
  topic.row.fixed.mesh_no = mesh_no;
  topic.row.fixed.created_by = member_no;
  topic.row.fixed.created_ms = env_.wall_ms;
  topic.row.fixed.visibility = visibility;
  const std::string_view id = scratch().copy(crypto::view(crypto::base62_id(env_.rng)));
  topic.row.text[store::kTopicIdText] = id;
  topic.row.text[store::kTopicNameText] = name;
  topic.row.text[store::kTopicDescription] = about;
  batch().put(TableId::kTopic, store::u32_key(topic.no).bytes(), topic.row);
  batch().put_number(TableId::kTopicId, store::u32_bytes_key(mesh_no, as_bytes(id)).bytes(),
                     topic.no);
  batch().put_number(TableId::kTopicName, store::u32_bytes_key(mesh_no, as_bytes(name)).bytes(),
                     topic.no);
  ++shared_of(mesh_no).topics;
  subscribe(topic.no, member_no, TopicRole::kLead);
}

// Every mesh begins with this topic; its creator leads (spec/enrollment.md §4).
void Broker::make_general(std::uint32_t mesh_no, std::uint32_t member_no) {
  TopicFacts topic;
  make_topic(mesh_no, member_no, kGeneral, {}, TopicVisibility::kPublic, topic);
}

// Those who come by a version 2 claim; a version 1 join subscribes to nothing (§5.3, §5.4).
void Broker::join_general(std::uint32_t mesh_no, std::uint32_t member_no) {
  TopicFacts topic;
  if (!find_topic(mesh_no, kGeneral, topic)) return;  // a mesh of before, or one that was emptied
  if (topic.row.fixed.visibility != TopicVisibility::kPublic) return;
  if (count_topic_members(topic.no) >= limits_.topic_members_max) return;
  subscribe(topic.no, member_no, TopicRole::kMember);
}

void Broker::handle_topic_create(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view name = without_hash(fields.text("name", wire::kTopicNameMax + 1));
  const std::string_view about =
      fields.display("description", wire::kSummaryMax, wire::Lines::kMany, scratch());
  const std::string_view visible =
      fields.text("visibility", wire::kLabelMax, wire::Need::kOptional);
  const auto visibility =
      visible.empty() ? TopicVisibility::kPublic : parse<TopicVisibility>(kVisibilities, visible);
  if (fields.ok() && !is_topic_name(name)) {
    fields.refuse("name", "1 to 64 characters of [A-Za-z0-9._-]");
  }
  if (fields.ok() && !visibility) fields.refuse("visibility", "public, private or dm");
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  TopicFacts topic;
  const bool created = !find_topic(mesh_no, name, topic);
  if (created) {
    if (!batch().admits()) return refuse(client, frame, fail(Err::kDiskFull));
    if (shared_of(mesh_no).topics >= limits_.mesh_topics_max) {
      return refuse(client, frame, fail(Err::kFull, "the mesh has as many topics as it allows"));
    }
    make_topic(mesh_no, tables_.clients.get<kClientMemberNo>(client), name, about, *visibility,
               topic);
  }
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "topic_created").key("topic").begin_object();
  json.field("id", topic.row.text[store::kTopicIdText]);
  json.field("name", topic.row.text[store::kTopicNameText]);
  json.field("visibility", kVisibilities[static_cast<std::size_t>(topic.row.fixed.visibility)]);
  json.end_object().field("created", created);
  finish_reply(client, frame, json, text);
}

void Broker::handle_topic_list(ClientRef client, const Frame& frame) {
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  TextBuf text(scratch(), 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "topic_list_response").key("topics").begin_array();
  store::Cursor cursor(batch(), TableId::kTopicName);
  for (bool more = cursor.seek(store::u32_key(mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != mesh_no) break;
    const auto no = batch().get_number(TableId::kTopicName, cursor.key());
    store::TopicRow row;
    if (!no || !batch().get(TableId::kTopic, store::u32_key(*no).bytes(), row)) continue;
    json.begin_object().field("id", row.text[store::kTopicIdText]);
    json.field("name", row.text[store::kTopicNameText]);
    json.nullable_field("description", row.text[store::kTopicDescription]);
    json.field("visibility", kVisibilities[static_cast<std::size_t>(row.fixed.visibility)]);
    json.field("memberCount", count_topic_members(*no));
    json.key("createdAt").iso_time(row.fixed.created_ms).end_object();
  }
  json.end_array();
  finish_reply(client, frame, json, text);
}

void Broker::handle_topic_join(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view wanted = fields.text("role", wire::kLabelMax, wire::Need::kOptional);
  const auto role = wanted.empty() ? TopicRole::kMember : parse<TopicRole>(kRoles, wanted);
  if (fields.ok() && !role) fields.refuse("role", "lead, member or observer");
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  TopicFacts topic;
  if (!topic_of_frame(client, frame, topic)) return;
  if (!batch().admits()) return refuse(client, frame, fail(Err::kDiskFull));
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const store::Key key = store::pair_key(topic.no, member_no);
  const bool known = batch().get_raw(TableId::kTopicMember, key.bytes()).has_value();
  if (!known && count_topic_members(topic.no) >= limits_.topic_members_max) {
    return refuse(client, frame, fail(Err::kFull, "the topic has as many members as it allows"));
  }
  subscribe(topic.no, member_no, *role);
  confirm(client, frame);
}

void Broker::handle_topic_leave(ClientRef client, const Frame& frame) {
  TopicFacts topic;
  if (!topic_of_frame(client, frame, topic)) return;
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  if (batch().erase(TableId::kTopicMember, store::pair_key(topic.no, member_no).bytes()) &&
      --tables_.subscribers[topic.no] == 0) {
    tables_.subscribers.erase(topic.no);
  }
  confirm(client, frame);
}

void Broker::handle_topic_members(ClientRef client, const Frame& frame) {
  TopicFacts topic;
  if (!topic_of_frame(client, frame, topic)) return;
  TextBuf text(scratch(), 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "topic_members_response");
  json.key("topic").value(*frame.tape.find("topic")).key("members").begin_array();
  store::Cursor cursor(batch(), TableId::kTopicMember);
  for (bool more = cursor.seek(store::u32_key(topic.no).bytes()); more; more = cursor.next()) {
    if (cursor.key().size() != 8 || load_be32(cursor.key().data()) != topic.no) break;
    store::TopicMemberRow row;
    const MemberMirror* subscriber = member(load_be32(cursor.key().data() + 4));
    if (subscriber == nullptr || subscriber->revoked || !cursor.row(row)) continue;
    json.begin_object().field("memberId", subscriber->id).key("pubkey").hex(subscriber->key);
    json.field("displayName", subscriber->name);
    json.field("role", kRoles[static_cast<std::size_t>(row.fixed.role)]);
    json.key("joinedAt").iso_time(row.fixed.joined_ms);
    json.key("lastReadAt").iso_time_or_null(row.fixed.last_read_ms).end_object();
  }
  json.end_array();
  finish_reply(client, frame, json, text);
}

void Broker::handle_topic_mark_read(ClientRef client, const Frame& frame) {
  TopicFacts topic;
  if (!topic_of_frame(client, frame, topic)) return;
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const store::Key key = store::pair_key(topic.no, member_no);
  store::TopicMemberRow row;
  if (!batch().get(TableId::kTopicMember, key.bytes(), row)) {
    return refuse(client, frame, fail(Err::kNotFound, "you have not joined this topic"));
  }
  row.fixed.last_read_ms = env_.wall_ms;
  batch().put(TableId::kTopicMember, key.bytes(), row);
  confirm(client, frame);
}

}  // namespace cm::broker
