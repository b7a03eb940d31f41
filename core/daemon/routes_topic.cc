// routes_topic.cc — topics and groups of a mesh.
// Holds:  a topic is named by its name or id, with or without '#'; brokers get it without.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §10 (post, subscribe, unsubscribe, list);
//         spec/wire.md §6, §7.3. The routes for members, history, create, read and groups are ours,
//         in the same style.
// Not:    posting: a post is a send to '#topic' (send.cc).
#include "core/daemon/calls.h"
#include "core/daemon/query_reader.h"
#include "core/wire/limits.h"
#include "core/wire/mesh_requests.h"

namespace cm::daemon {
namespace {

using wire::Need;

constexpr std::size_t kTopicMax = 128;
constexpr std::size_t kDescriptionMax = 1'024;
constexpr std::int64_t kHistoryDefault = 50;
constexpr std::int64_t kHistoryMost = 200;

std::string_view bare_topic(std::string_view topic) noexcept {
  return topic.starts_with('#') ? topic.substr(1) : topic;
}

std::string_view topic_of(wire::FieldReader& fields, std::string_view key) {
  const std::string_view topic = bare_topic(fields.shown(key, kTopicMax));
  if (fields.ok() && topic.empty()) fields.refuse(key, "a non-empty string");
  return topic;
}

std::string_view mesh_of(wire::FieldReader& fields) {
  const std::string_view mesh = fields.text("mesh", wire::kLabelMax, Need::kOptional);
  return mesh.find_first_not_of(' ') == std::string_view::npos ? std::string_view{} : mesh;
}

}  // namespace

void Daemon::get_topics(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view wanted = query.mesh();
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto meshes = meshes_for(wanted);
  if (!meshes) return reply_error(conn, meshes.error());
  const JobRef job = open_job(conn, CallKind::kTopicList, {});
  if (!job) return;
  for (const MeshRef mesh : *meshes) {
    call(job, mesh, CallKind::kTopicList, [](std::string_view id, TextBuf& out) {
      wire::write_plain_request("topic_list", id, out);
    });
  }
  close_job_if_done(job);
}

void Daemon::get_topic_members(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view topic = bare_topic(query.required("topic", kTopicMax));
  if (topic.empty()) query.refuse("topic", "a topic's name or id");
  const std::string_view wanted = query.mesh();
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, CallKind::kTopicMembers, topic);
  if (!job) return;
  call(job, *mesh, CallKind::kTopicMembers, [&](std::string_view id, TextBuf& out) {
    wire::write_text_request("topic_members", "topic", topic, id, out);
  });
  close_job_if_done(job);
}

void Daemon::get_topic_history(ConnRef conn, const wire::HttpRequest& request) {
  QueryReader query(request.query, scratch());
  const std::string_view topic = bare_topic(query.required("topic", kTopicMax));
  if (topic.empty()) query.refuse("topic", "a topic's name or id");
  const std::int64_t limit = query.number("limit", kHistoryDefault, kHistoryMost);
  const std::string_view before =
      query.text("before", wire::kBrokerIdMax).value_or(std::string_view{});
  if (!before.empty() && !wire::is_broker_id(before)) query.refuse("before", "a message id");
  const std::string_view wanted = query.mesh();
  if (!query.status()) return reply_error(conn, query.status().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, CallKind::kTopicHistory, topic);
  if (!job) return;
  call(job, *mesh, CallKind::kTopicHistory, [&](std::string_view id, TextBuf& out) {
    wire::write_topic_history(topic, limit, before, id, out);
  });
  close_job_if_done(job);
}

void Daemon::post_topic_create(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const std::string_view name = topic_of(fields, "name");
  const std::string_view description =
      fields.display("description", kDescriptionMax, wire::Lines::kMany, scratch());
  const std::string_view visibility = fields.text("visibility", 16, Need::kOptional);
  if (!visibility.empty() && visibility != "public" && visibility != "private" &&
      visibility != "dm") {
    fields.refuse("visibility", "public, private or dm");
  }
  const std::string_view wanted = mesh_of(fields);
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, CallKind::kTopicCreate, name);
  if (!job) return;
  call(job, *mesh, CallKind::kTopicCreate, [&](std::string_view id, TextBuf& out) {
    wire::write_topic_create(name, description, visibility, id, out);
  });
  close_job_if_done(job);
}

void Daemon::topic_command(ConnRef conn, const wire::HttpRequest& request, CallKind kind) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  const std::string_view topic = topic_of(fields, "topic");
  const std::string_view wanted = mesh_of(fields);
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, kind, topic);
  if (!job) return;
  const std::string_view type = kind == CallKind::kTopicJoin    ? "topic_join"
                                : kind == CallKind::kTopicLeave ? "topic_leave"
                                                                : "topic_mark_read";
  call(job, *mesh, kind, [&](std::string_view id, TextBuf& out) {
    wire::write_text_request(type, "topic", topic, id, out);
  });
  close_job_if_done(job);
}

void Daemon::post_topic_subscribe(ConnRef conn, const wire::HttpRequest& request) {
  topic_command(conn, request, CallKind::kTopicJoin);
}

void Daemon::post_topic_unsubscribe(ConnRef conn, const wire::HttpRequest& request) {
  topic_command(conn, request, CallKind::kTopicLeave);
}

void Daemon::post_topic_read(ConnRef conn, const wire::HttpRequest& request) {
  topic_command(conn, request, CallKind::kTopicRead);
}

void Daemon::post_topic_post(ConnRef conn, const wire::HttpRequest& request) {
  handle_send(conn, {std::string(request.body), std::string(request.idempotency_key), true}, {});
}

void Daemon::group_command(ConnRef conn, const wire::HttpRequest& request, CallKind kind) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  std::string_view name = fields.shown("name", kTopicMax);
  if (name.starts_with('@')) name.remove_prefix(1);
  if (fields.ok() && (name.empty() || name == "all")) {
    fields.refuse("name", "a group's name other than 'all'");
  }
  const bool joins = kind == CallKind::kGroupJoin;
  const std::string_view role =
      joins ? fields.shown("role", wire::kLabelMax, Need::kOptional) : std::string_view{};
  const std::string_view wanted = mesh_of(fields);
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const auto mesh = choose_mesh(wanted);
  if (!mesh) return reply_error(conn, mesh.error());
  const JobRef job = open_job(conn, kind, name);
  if (!job) return;
  call(job, *mesh, kind, [&](std::string_view id, TextBuf& out) {
    if (joins) {
      wire::write_join_group(name, role, id, out);
    } else {
      wire::write_text_request("leave_group", "name", name, id, out);
    }
  });
  close_job_if_done(job);
}

void Daemon::post_group_join(ConnRef conn, const wire::HttpRequest& request) {
  group_command(conn, request, CallKind::kGroupJoin);
}

void Daemon::post_group_leave(ConnRef conn, const wire::HttpRequest& request) {
  group_command(conn, request, CallKind::kGroupLeave);
}

}  // namespace cm::daemon
