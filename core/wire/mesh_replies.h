// mesh_replies.h — what a broker answers to mesh_requests.h, in either of the known shapes.
// Owns:   parsers of those frames, and the rows that the daemon passes on, with their mesh.
// Holds:  both variants of spec/observed.md are accepted: state_result and state_value/state_data,
//         `id` and `memoryId`, `memories` and `matches`. A row is passed on as it was sent; one
//         that already has a member "mesh" is left out, because ours must be the only one.
// Source: docs/PROTOCOL.md §3, §6; spec/observed.md, "Where the reference's two ends miss each
//         other"; spec/wire.md §7, §11.2.
// Not:    what a daemon answers on its IPC (core/daemon).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "core/wire/broker_frames.h"
#include "core/wire/json_writer.h"

namespace cm::wire {

// Any JSON value as it was sent (a fraction keeps its digits).
void write_value(const JsonNode& node, JsonWriter& json);

// Appends the object with "mesh":<slug> as its last member. False, and nothing appended, when it
// is no object, is full, or has a member "mesh".
bool append_row(const JsonTape& tape, const JsonNode& row, std::string_view slug, TextBuf& out);
// The same for each element of an array, separated by commas; the number left out is the result.
std::size_t append_rows(const JsonTape& tape, const JsonNode& array, std::string_view slug,
                        TextBuf& out);
// The text of a member, or empty when it is absent or no text.
std::string_view text_member(const JsonTape& tape, const JsonNode& object, std::string_view key);
// The first member with one of these names that is an array, or null.
const JsonNode* array_of(const BrokerFrame& frame, std::initializer_list<std::string_view> names);

// Appends {key,value,updatedBy,updatedAt,mesh}; nothing when the key is not set.
// kMalformed: in none of the known shapes.
Status append_state(const BrokerFrame& frame, std::string_view slug, TextBuf& out);
// memory_stored: `id` or `memoryId`, bounded; kMalformed when there is neither.
Result<std::string_view> memory_id(const BrokerFrame& frame);
// skill_data, topic_created: the object under `name` with its mesh; nothing when it is null.
Status append_object(const BrokerFrame& frame, std::string_view name, std::string_view slug,
                     TextBuf& out);
// topic_history_response: rows with "body", the text, where bodyVersion is 1 and it is text.
Status append_history(const BrokerFrame& frame, std::string_view slug, ScratchArena& scratch,
                      TextBuf& out);

struct TopicName {
  std::string_view id;
  std::string_view name;
};
// topic_list_response; entries without a usable id or name are left out.
std::vector<TopicName> topic_names(const BrokerFrame& frame);

// What a broker can do. A parameter that is missing, out of bounds or of an unknown version makes
// its feature count as missing (spec/wire.md §11.2).
struct FeatureAnswer {
  bool permanent_dedupe = false;
  std::uint32_t dedupe_days = 0;   // when not permanent
  std::uint32_t inline_bytes = 0;  // of max_payload; 0: not offered
  bool lane_order = false;
  bool receipts = false;
  bool bad_optional = false;  // an optional parameter was left out of account
  std::vector<std::string_view> names;
  // The first required feature that fails, for the close reason; all empty when none does.
  std::string_view kind;  // feature_unavailable, feature_param_invalid, feature_param_below_floor
  std::string_view feature;
  std::string_view detail;
};
constexpr std::int64_t kDedupeDaysFloor = 3;
constexpr std::int64_t kDedupeDaysMost = 36'500;
constexpr std::int64_t kInlineBytesLeast = 1'024;
constexpr std::int64_t kInlineBytesMost = 16 << 20;
Status parse_features(const BrokerFrame& frame, FeatureAnswer& answer);

}  // namespace cm::wire
