// mesh_requests.h — what the daemon asks a broker besides sending: state, memory, topics, profile.
// Owns:   one write function a request, and the one of feature negotiation.
// Holds:  each request carries `_reqId`, also where the reference answers nothing: our broker then
//         answers `ack` or `error`. Members stand in the order of spec/wire.md.
// Source: docs/PROTOCOL.md §3, §6; spec/wire.md §5.6, §6, §7.1-7.3, §7.14, §11.2.
// Not:    what callers may pass in (core/daemon checks it), parsing of the answers
// (mesh_replies.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/arena.h"

namespace cm::wire {

// {"type":...,"_reqId":...}: list_state, topic_list, list_skills.
void write_plain_request(std::string_view type, std::string_view request_id, TextBuf& out);
// The same with one text member: get_state key, recall query, forget memoryId, get_skill name,
// list_skills query, topic_* topic, set_status status, set_summary summary, leave_group name.
void write_text_request(std::string_view type, std::string_view key, std::string_view value,
                        std::string_view request_id, TextBuf& out);

// `explain` *(additive)* asks which rows of the broker decided.
void write_status_request(std::string_view message_id, bool explain, std::string_view request_id,
                          TextBuf& out);
// `value` is JSON.
void write_set_state(std::string_view key, std::string_view value, std::string_view request_id,
                     TextBuf& out);
// `tags` is a JSON array, or empty.
void write_remember(std::string_view content, std::string_view tags, std::string_view request_id,
                    TextBuf& out);
void write_set_visible(bool visible, std::string_view request_id, TextBuf& out);
// JSON values; an empty one is left out, which leaves that member of the profile as it is.
struct ProfileValues {
  std::string_view avatar, title, bio, capabilities;
  bool any() const noexcept {
    return !avatar.empty() || !title.empty() || !bio.empty() || !capabilities.empty();
  }
};
void write_set_profile(const ProfileValues& profile, std::string_view request_id, TextBuf& out);
void write_join_group(std::string_view name, std::string_view role, std::string_view request_id,
                      TextBuf& out);
void write_topic_create(std::string_view name, std::string_view description,
                        std::string_view visibility, std::string_view request_id, TextBuf& out);
// `before` may be empty.
void write_topic_history(std::string_view topic, std::int64_t limit, std::string_view before,
                         std::string_view request_id, TextBuf& out);
void write_feature_request(std::string_view request_id, TextBuf& out);

}  // namespace cm::wire
