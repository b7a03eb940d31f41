// routes_mesh.cc — what the brokers keep for a mesh: peers, state, memory, skills, profiles.
// Holds:  a listing asks every mesh at once unless one is named; a change needs exactly one mesh.
//         Fields are checked here, by name and limit, before a broker sees anything.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §3; spec/wire.md §6, §7.1, §7.2, §7.14.
// Not:    waiting for the answers (calls.cc), their form (answers.cc).
#include <algorithm>

#include "core/daemon/calls.h"
#include "core/daemon/query_reader.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"
#include "core/wire/mesh_replies.h"
#include "core/wire/mesh_requests.h"

namespace cm::daemon {
namespace {

using wire::Need;

constexpr std::size_t kStateKeyMax = 256;
constexpr std::size_t kMemoryIdMax = 64;
constexpr std::size_t kQueryMax = 1'024;
constexpr std::size_t kTagsMax = 32;
constexpr std::size_t kTagMax = 64;
constexpr std::size_t kSkillNameMax = 128;
constexpr std::size_t kBioMax = 4'096;
constexpr std::size_t kAvatarMax = 512;
constexpr std::size_t kFreshMs = 1'000;  // the list of peers is asked for once a second at most

// An optional array of texts, as it was sent; empty when absent.
std::string_view text_array(const wire::JsonTape& tape, wire::FieldReader& fields,
                            std::string_view key) {
  const wire::JsonNode* array = fields.array(key, Need::kOptional);
  if (array == nullptr) return {};
  bool good = array->count <= kTagsMax;
  for (std::uint32_t at = tape.first(*array); at < array->next; at = tape.at(at).next) {
    const wire::JsonNode& item = tape.at(at);
    good = good && item.type == wire::JsonType::kText && !item.text.empty() &&
           item.text.size() <= kTagMax && wire::is_shown_text(item.text);
  }
  if (!good) fields.refuse(key, "at most 32 strings of 1 to 64 bytes");
  return array->text;
}

// An optional text as JSON; empty when absent.
std::string_view shown_json(wire::FieldReader& fields, std::string_view key, std::size_t most,
                            ScratchArena& scratch) {
  const wire::JsonNode* node = fields.node(key);
  const wire::Lines lines = key == "bio" ? wire::Lines::kMany : wire::Lines::kOne;
  const std::string_view value = fields.display(key, most, lines, scratch);
  if (node == nullptr || node->type != wire::JsonType::kText) return {};
  TextBuf json(scratch, value.size() + 8);
  wire::append_json_text(json, value);
  return json.view();
}

bool blank(std::string_view text) noexcept {
  return text.find_first_not_of(' ') == std::string_view::npos;
}

std::string_view mesh_of(wire::FieldReader& fields) {
  const std::string_view mesh = fields.text("mesh", wire::kLabelMax, Need::kOptional);
  return blank(mesh) ? std::string_view{} : mesh;
}

}  // namespace

void Daemon::get_peers(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes && meshes.code() != Err::kNoMesh) return reply_error(conn, meshes.error());
  Job now;  // what the mirror can answer at once
  now.kind = CallKind::kPeers;
  std::vector<MeshRef> ask;
  const bool busy = is_busy();
  for (const MeshRef mesh : meshes ? *meshes : std::vector<MeshRef>{}) {
    const Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
    const bool fresh = roster.state == RosterState::kLoaded && roster.asked_serial == 0 &&
                       !roster.stale && env_.mono_ms - roster.asked_ms < kFreshMs;
    if (!fresh && !busy) ask.push_back(mesh);
    CallResult result;
    result.mesh = config_of(mesh).slug;
    result.ok = fresh;
    result.error = info_of(Err::kBusy).wire_code;
    result.detail = "shown as last listed";
    if (fresh || busy) now.results.push_back(std::move(result));
  }
  if (ask.empty()) return answer_rows(conn, now, "peers");
  const JobRef job = open_job(conn, CallKind::kPeers, {});
  if (!job) return;
  tables_.jobs.get<kJobRow>(job).results = std::move(now.results);
  for (const MeshRef mesh : ask) {
    const bool opened = open_call(job, mesh, CallKind::kPeers) != 0;
    if (opened && tables_.meshes.get<kMeshRoster>(mesh).asked_serial == 0) ask_roster(mesh);
  }
  close_job_if_done(job);
}

void Daemon::get_state(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const auto key = query.text("key", kStateKeyMax);
  if (key && key->empty()) query.refuse("key", "a non-empty value");
  const std::string_view wanted = query.mesh();
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const CallKind kind = key ? CallKind::kGetState : CallKind::kListState;
  const JobRef job = open_job(conn, kind, key.value_or(std::string_view{}));
  if (!job) return;
  for (const MeshRef mesh : *meshes) {
    call(job, mesh, kind, [&](std::string_view id, TextBuf& out) {
      if (key) {
        wire::write_text_request("get_state", "key", *key, id, out);
      } else {
        wire::write_plain_request("list_state", id, out);
      }
    });
  }
  close_job_if_done(job);
}

void Daemon::post_state(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const std::string_view key = fields.shown("key", kStateKeyMax);
  const wire::JsonNode* value = fields.node("value");
  if (value == nullptr) fields.refuse("value", "any JSON value (null clears the key)");
  const std::string_view wanted = mesh_of(fields);
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  TextBuf text(scratch(), 256);
  wire::JsonWriter json(text);
  wire::write_value(*value, json);
  TextBuf frame(scratch(), text.size() + 512);
  wire::write_set_state(key, text.view(), request_id(request_serial_ + 1), frame);
  if (frame.size() > payload_limit(*mesh)) {
    return reply_error(
        conn, fail(Err::kTooBig, "field 'value': the encoded request has " +
                                     std::to_string(frame.size()) + " bytes, the broker takes " +
                                     std::to_string(payload_limit(*mesh))));
  }
  const JobRef job = open_job(conn, CallKind::kSetState, key);
  if (!job) return;
  call(job, *mesh, CallKind::kSetState, [&](std::string_view id, TextBuf& out) {
    wire::write_set_state(key, text.view(), id, out);
  });
  close_job_if_done(job);
}

void Daemon::get_memory(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  const std::string_view asked = query.text("q", kQueryMax).value_or(std::string_view{});
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const JobRef job = open_job(conn, CallKind::kRecall, {});
  if (!job) return;
  for (const MeshRef mesh : *meshes) {
    call(job, mesh, CallKind::kRecall, [&](std::string_view id, TextBuf& out) {
      wire::write_text_request("recall", "query", asked, id, out);
    });
  }
  close_job_if_done(job);
}

void Daemon::post_memory(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const std::string_view content = fields.text("content", limits_.http_body_bytes_max);
  const std::string_view tags = text_array(*tape, fields, "tags");
  const std::string_view wanted = mesh_of(fields);
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  TextBuf frame(scratch(), content.size() + 512);
  wire::write_remember(content, tags, request_id(request_serial_ + 1), frame);
  if (frame.size() > payload_limit(*mesh)) {
    return reply_error(
        conn, fail(Err::kTooBig, "field 'content': the encoded request has " +
                                     std::to_string(frame.size()) + " bytes, the broker takes " +
                                     std::to_string(payload_limit(*mesh))));
  }
  const JobRef job = open_job(conn, CallKind::kRemember, {});
  if (!job) return;
  call(job, *mesh, CallKind::kRemember,
       [&](std::string_view id, TextBuf& out) { wire::write_remember(content, tags, id, out); });
  close_job_if_done(job);
}

void Daemon::delete_memory(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  const std::string_view id = last_segment(request);
  if (id.empty() || id.size() > kMemoryIdMax || !wire::is_client_id(id)) {
    query.refuse("id", "1 to 64 printable ASCII characters");
  }
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, CallKind::kForget, id);
  if (!job) return;
  call(job, *mesh, CallKind::kForget, [&](std::string_view request_id, TextBuf& out) {
    wire::write_text_request("forget", "memoryId", id, request_id, out);
  });
  close_job_if_done(job);
}

void Daemon::get_skills(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  const std::string_view asked = query.text("query", kQueryMax).value_or(std::string_view{});
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const JobRef job = open_job(conn, CallKind::kListSkills, {});
  if (!job) return;
  for (const MeshRef mesh : *meshes) {
    call(job, mesh, CallKind::kListSkills, [&](std::string_view id, TextBuf& out) {
      if (asked.empty()) {
        wire::write_plain_request("list_skills", id, out);
      } else {
        wire::write_text_request("list_skills", "query", asked, id, out);
      }
    });
  }
  close_job_if_done(job);
}

void Daemon::get_skill(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  const std::string_view name = last_segment(request);
  if (name.empty() || name.size() > kSkillNameMax || wire::has_control(name)) {
    query.refuse("name", "1 to 128 bytes of percent-encoded text");
  }
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const JobRef job = open_job(conn, CallKind::kGetSkill, name);
  if (!job) return;
  for (const MeshRef mesh : *meshes) {
    call(job, mesh, CallKind::kGetSkill, [&](std::string_view id, TextBuf& out) {
      wire::write_text_request("get_skill", "name", name, id, out);
    });
  }
  close_job_if_done(job);
}

void Daemon::post_profile(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  QueryReader query(request.query, scratch());
  const wire::JsonNode* summary = fields.node("summary");
  const std::string_view summary_text =
      fields.display("summary", wire::kSummaryMax, wire::Lines::kOne, scratch());
  const bool has_summary = summary != nullptr && summary->type == wire::JsonType::kText;
  const std::string_view status = fields.text("status", wire::kLabelMax, Need::kOptional);
  if (!status.empty() && status != "idle" && status != "working" && status != "dnd") {
    fields.refuse("status", "idle, working or dnd");
  }
  const wire::JsonNode* visible = fields.node("visible");
  const bool is_visible = fields.boolean("visible", true);
  wire::ProfileValues profile;
  profile.avatar = shown_json(fields, "avatar", kAvatarMax, scratch());
  profile.title = shown_json(fields, "title", wire::kLabelMax, scratch());
  profile.bio = shown_json(fields, "bio", kBioMax, scratch());
  profile.capabilities = text_array(*tape, fields, "capabilities");
  std::string_view wanted = mesh_of(fields);
  const std::string_view wanted_too = query.mesh();
  if (fields.ok() && !wanted.empty() && !wanted_too.empty() && wanted != wanted_too) {
    fields.refuse("mesh", "the same mesh as in the query");
  }
  const bool has_visible = visible != nullptr && visible->type == wire::JsonType::kBool;
  if (fields.ok() && !has_summary && status.empty() && !has_visible && !profile.any()) {
    fields.refuse("summary", "one of summary, status, visible, avatar, title, bio, capabilities");
  }
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  if (!query.status()) return reply_error(conn, query.status().error());
  if (wanted.empty()) wanted = wanted_too;
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const JobRef job = open_job(conn, CallKind::kSetProfile, {});
  if (!job) return;

  TextBuf applied(scratch(), 128);
  wire::JsonWriter json(applied);
  json.begin_array();
  for (const char* key :
       {"summary", "status", "visible", "avatar", "title", "bio", "capabilities"}) {
    const wire::JsonNode* node = fields.node(key);
    if (node != nullptr && node->type != wire::JsonType::kNull) json.text(key);
  }
  json.end_array();
  tables_.jobs.get<kJobRow>(job).extra = applied.view();
  for (const MeshRef mesh : *meshes) {
    if (has_summary) {
      call(job, mesh, CallKind::kSetSummary, [&](std::string_view id, TextBuf& out) {
        wire::write_text_request("set_summary", "summary", summary_text, id, out);
      });
    }
    if (!status.empty()) {
      call(job, mesh, CallKind::kSetStatus, [&](std::string_view id, TextBuf& out) {
        wire::write_text_request("set_status", "status", status, id, out);
      });
    }
    if (has_visible) {
      call(job, mesh, CallKind::kSetVisible, [&](std::string_view id, TextBuf& out) {
        wire::write_set_visible(is_visible, id, out);
      });
    }
    if (profile.any()) {
      call(job, mesh, CallKind::kSetProfile,
           [&](std::string_view id, TextBuf& out) { wire::write_set_profile(profile, id, out); });
    }
  }
  close_job_if_done(job);
}

}  // namespace cm::daemon
