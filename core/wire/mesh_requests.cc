// mesh_requests.cc — one write function a request.
#include "core/wire/mesh_requests.h"

#include "core/wire/json_writer.h"

namespace cm::wire {
namespace {

void optional_raw(JsonWriter& json, std::string_view key, std::string_view value) {
  if (!value.empty()) json.key(key).raw(value);
}

}  // namespace

void write_plain_request(std::string_view type, std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", type).field("_reqId", request_id).end_object();
}

void write_text_request(std::string_view type, std::string_view key, std::string_view value,
                        std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", type).field(key, value);
  json.field("_reqId", request_id).end_object();
}

void write_status_request(std::string_view message_id, bool explain, std::string_view request_id,
                          TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "message_status").field("messageId", message_id);
  if (explain) json.field("explain", true);
  json.field("_reqId", request_id).end_object();
}

void write_set_state(std::string_view key, std::string_view value, std::string_view request_id,
                     TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "set_state").field("key", key).key("value").raw(value);
  json.field("_reqId", request_id).end_object();
}

void write_remember(std::string_view content, std::string_view tags, std::string_view request_id,
                    TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "remember").field("content", content);
  optional_raw(json, "tags", tags);
  json.field("_reqId", request_id).end_object();
}

void write_set_visible(bool visible, std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "set_visible").field("visible", visible);
  json.field("_reqId", request_id).end_object();
}

void write_set_profile(const ProfileValues& profile, std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "set_profile");
  optional_raw(json, "avatar", profile.avatar);
  optional_raw(json, "title", profile.title);
  optional_raw(json, "bio", profile.bio);
  optional_raw(json, "capabilities", profile.capabilities);
  json.field("_reqId", request_id).end_object();
}

void write_join_group(std::string_view name, std::string_view role, std::string_view request_id,
                      TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "join_group").field("name", name);
  json.optional_field("role", role).field("_reqId", request_id).end_object();
}

void write_topic_create(std::string_view name, std::string_view description,
                        std::string_view visibility, std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "topic_create").field("name", name);
  json.optional_field("description", description).optional_field("visibility", visibility);
  json.field("_reqId", request_id).end_object();
}

void write_topic_history(std::string_view topic, std::int64_t limit, std::string_view before,
                         std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "topic_history").field("topic", topic).field("limit", limit);
  json.optional_field("beforeId", before).field("_reqId", request_id).end_object();
}

void write_feature_request(std::string_view request_id, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("type", "feature_negotiation_request").key("require").begin_array();
  json.text("client_message_id_dedupe").text("concurrent_connection_policy").end_array();
  json.key("optional").begin_array().text("max_payload").text("key_epoch");
  json.text("member_keypair_rotated_event").text("lane_order").text("receipts").end_array();
  json.field("_reqId", request_id).end_object();
}

}  // namespace cm::wire
