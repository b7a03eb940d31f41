// calls.cc — requests of the IPC that are passed on to brokers and wait for their answers.
// Holds:  a job is one IPC request with a call to each mesh it is for, all at once; it is answered
//         when none of them is open. A call ends by its answer, an error of the broker, 5 s, or
//         the loss of its connection. A legacy broker says nothing to a command that succeeded:
//         2 s of silence are "accepted, unconfirmed". While a link is being made for the first time
//         (or anew, after it was lost) calls are held, at most 3 s: the first request to a daemon
//         that was just started is answered like any other.
// Why:    `_reqId` begins with random characters, so that no id that a client chose looks like it.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §9; spec/wire.md §1.2; spec/observed.md.
// Limits: Limits::ipc_requests_max jobs and parked sends together, broker_calls_max calls,
//         broker_replies_bytes_max bytes of answers kept.
// Not:    the form of the answers (answers.cc), which route asks what (routes_*.cc).
#include "core/daemon/calls.h"

#include <algorithm>
#include <charconv>

#include "core/base/utf8.h"
#include "core/wire/mesh_replies.h"

namespace cm::daemon {
namespace {

constexpr std::uint64_t kAnswerMs = 5'000;
constexpr std::uint64_t kSilenceMs = 2'000;
constexpr std::uint32_t kControlFrame = 0;
constexpr std::size_t kAnswerBytesMax = kReplyBytesMax - (64 << 10);  // beside what is around it
constexpr std::size_t kTextKept = 512;                                // of a broker's own words

struct CodeStatus {
  std::string_view code;
  int status;
};
// Codes of brokers that are not ours (spec/wire.md §10).
constexpr CodeStatus kCodes[] = {
    {"topic_not_found", 404},  {"peer_not_found", 404}, {"task_not_found", 404},
    {"ambiguous_prefix", 409}, {"invalid_args", 400},   {"invalid", 400},
    {"invalid_name", 400},     {"limit", 429},          {"unknown_message_type", 501},
};

int status_of(std::string_view code) noexcept {
  for (const CodeStatus& row : kCodes) {
    if (row.code == code) return row.status;
  }
  const Err known = err_of_wire_code(code);
  return known == Err::kInternal ? 502 : info_of(known).http_status;
}

std::uint64_t answer_ms(CallKind kind) noexcept {
  return info_of(kind).silent ? kSilenceMs : kAnswerMs;
}

std::string not_open(std::string_view mesh) {
  return "the connection to the broker of '" + std::string(mesh) + "' is not open";
}

}  // namespace

std::string_view Daemon::request_id(std::uint64_t serial) {
  TextBuf id(scratch(), 40);
  id.append(request_prefix_);
  id.append_unsigned(serial);
  return id.view();
}

std::uint64_t Daemon::serial_of(std::string_view id) const noexcept {
  if (!id.starts_with(request_prefix_)) return 0;
  std::uint64_t serial = 0;
  const char* const end = id.data() + id.size();
  const auto parsed = std::from_chars(id.data() + request_prefix_.size(), end, serial);
  return parsed.ec == std::errc() && parsed.ptr == end ? serial : 0;
}

Result<std::vector<MeshRef>> Daemon::meshes_for(std::string_view wanted) {
  std::vector<MeshRef> meshes;
  if (!wanted.empty()) {
    const auto chosen = choose_mesh(wanted);
    if (!chosen) return chosen.error();
    meshes.push_back(*chosen);
    return meshes;
  }
  tables_.meshes.each([&](MeshRef mesh) { meshes.push_back(mesh); });
  if (meshes.empty()) return fail(Err::kNoMesh);
  return meshes;
}

// Requests that wait for a broker; what is answered at once is never too much.
bool Daemon::is_busy() const noexcept {
  return tables_.jobs.count() + tables_.parked.count() >= limits_.ipc_requests_max;
}

bool Daemon::too_busy(ConnRef conn) {
  if (!is_busy()) return false;
  reply_error(conn,
              fail(Err::kBusy, "at most " + std::to_string(limits_.ipc_requests_max) +
                                   " requests may wait for their answers"),
              1);
  return true;
}

JobRef Daemon::open_job(ConnRef conn, CallKind kind, std::string_view subject) {
  if (too_busy(conn)) return {};
  const JobRef job = tables_.jobs.insert();
  CHECK(job);  // the table is as large as the limit
  tables_.jobs.get<kJobConn>(job) = conn;
  Job& row = tables_.jobs.get<kJobRow>(job);
  row.kind = kind;
  row.subject = subject;
  return job;
}

std::uint64_t Daemon::open_call(JobRef job, MeshRef mesh, CallKind kind) {
  Job& row = tables_.jobs.get<kJobRow>(job);
  CallResult& result = row.results.emplace_back();
  result.mesh = config_of(mesh).slug;
  const auto refuse = [&](Err code, std::string_view detail) -> std::uint64_t {
    result.http_status = info_of(code).http_status;
    result.error = info_of(code).wire_code;
    result.detail = detail;
    return 0;
  };
  const bool open = state_of(mesh) == LinkState::kOpen;
  const std::uint64_t hold_until = tables_.links.get<kLinkHoldUntil>(link_of(mesh));
  if (!open && hold_until <= env_.mono_ms) {
    return refuse(Err::kBrokerAway, not_open(result.mesh));
  }
  const bool has_room =
      open || reply_bytes_ + limits_.http_body_bytes_max <= limits_.broker_replies_bytes_max;
  const CallRef call = has_room ? tables_.calls.insert() : CallRef{};
  if (!call) return refuse(Err::kBusy, "too many requests wait for brokers");
  const std::uint64_t serial = ++request_serial_;
  tables_.calls.get<kCallJob>(call) = job;
  tables_.calls.get<kCallMesh>(call) = mesh;
  tables_.calls.get<kCallKind>(call) = kind;
  tables_.calls.get<kCallIndex>(call) = static_cast<std::uint32_t>(row.results.size() - 1);
  tables_.calls.get<kCallSerial>(call) = serial;
  tables_.calls.get<kCallSent>(call) = env_.mono_ms;
  tables_.calls.get<kCallHeld>(call) = open ? 0 : 1;
  look_at_call(call, open ? env_.mono_ms + answer_ms(kind) : hold_until);
  tables_.call_of[serial] = call;
  ++row.open;
  return serial;
}

void Daemon::look_at_call(CallRef call, std::uint64_t due_ms) {
  tables_.calls.get<kCallDue>(call) = due_ms;
  calls_check_ms_ = std::min(calls_check_ms_, due_ms);
}

// Sends the frame, or keeps it until the link of its mesh is open.
void Daemon::send_call(std::uint64_t serial, std::string_view frame) {
  const CallRef call = tables_.call_of.at(serial);
  if (tables_.calls.get<kCallHeld>(call) == 0) {
    effects_.link_send(link_of(tables_.calls.get<kCallMesh>(call)), kControlFrame, frame);
    return;
  }
  tables_.calls.get<kCallFrame>(call) = frame;
  reply_bytes_ += frame.size();
}

void Daemon::drop_held_frame(CallRef call) {
  std::string& frame = tables_.calls.get<kCallFrame>(call);
  reply_bytes_ -= frame.size();
  frame.clear();
  frame.shrink_to_fit();
}

// The link is open now. The list of peers was asked for beside them.
void Daemon::send_held_calls(MeshRef mesh) {
  std::map<std::uint64_t, CallRef> held;  // in the order in which they were asked
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallMesh>(call) == mesh && tables_.calls.get<kCallHeld>(call) != 0) {
      held.emplace(tables_.calls.get<kCallSerial>(call), call);
    }
  });
  for (const auto& [serial, call] : held) {
    const std::string& frame = tables_.calls.get<kCallFrame>(call);
    TextBuf text(scratch(), frame.size() + 1);  // effects are views
    text.append(frame);
    if (!frame.empty()) effects_.link_send(link_of(mesh), kControlFrame, text.view());
    drop_held_frame(call);
    tables_.calls.get<kCallHeld>(call) = 0;
    tables_.calls.get<kCallSent>(call) = env_.mono_ms;
    look_at_call(call, env_.mono_ms + answer_ms(tables_.calls.get<kCallKind>(call)));
  }
}

void Daemon::close_job_if_done(JobRef job) {
  if (tables_.jobs.get<kJobRow>(job).open != 0) return;
  answer_job(job);
  drop_job(job);
}

void Daemon::drop_job(JobRef job) {
  std::vector<CallRef> calls;
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallJob>(call) == job) calls.push_back(call);
  });
  for (const CallRef call : calls) {
    tables_.call_of.erase(tables_.calls.get<kCallSerial>(call));
    drop_held_frame(call);
    tables_.calls.erase(call);
  }
  for (const CallResult& result : tables_.jobs.get<kJobRow>(job).results) {
    reply_bytes_ -= result.body.size();
  }
  tables_.jobs.erase(job);
}

// By `_reqId`, or by the `id` of those that misplace it. The reference answers `forget` with the
// id of the memory alone.
CallRef Daemon::call_of(LinkRef link, const wire::BrokerFrame& frame) const {
  const auto find = [&](std::string_view id) -> CallRef {
    const auto found = tables_.call_of.find(serial_of(id));
    if (found == tables_.call_of.end()) return {};
    return link_of(tables_.calls.get<kCallMesh>(found->second)) == link ? found->second : CallRef{};
  };
  if (const CallRef call = find(frame.request_id)) return call;
  if (frame.type != "ack" && frame.type != "error") return {};
  const wire::JsonNode* id = frame.tape.find("id");
  if (id == nullptr || id->type != wire::JsonType::kText) return {};
  if (const CallRef call = find(id->text); call || frame.type == "error") return call;
  CallRef forgotten;
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallKind>(call) == CallKind::kForget &&
        link_of(tables_.calls.get<kCallMesh>(call)) == link &&
        tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call)).subject == id->text) {
      forgotten = call;
    }
  });
  return forgotten;
}

bool Daemon::on_call_frame(LinkRef link, const wire::BrokerFrame& frame) {
  const CallRef call = call_of(link, frame);
  if (!call) return false;
  take_answer(call, frame);
  return true;
}

void Daemon::take_answer(CallRef call, const wire::BrokerFrame& frame) {
  const CallKind kind = tables_.calls.get<kCallKind>(call);
  const CallInfo& info = info_of(kind);
  if (frame.type == "error") {
    wire::ErrorFrame error;
    if (!wire::parse_error(frame, error)) error = {"malformed", "the broker's error", {}};
    return refuse_call(call, error.code, error.message);
  }
  if (frame.type == "ack") {
    wire::Ack ack;
    if (!wire::parse_ack(frame, ack)) return fail_call(call, Err::kTransport, "a malformed ack");
    if (!ack.error.empty()) return refuse_call(call, ack.code, ack.error);
    if (info.acked) finish_call(call, {}, true);
    return;
  }
  if (frame.type.empty() ||
      std::find(info.replies.begin(), info.replies.end(), frame.type) == info.replies.end()) {
    return;  // not the answer to this
  }
  const std::string_view slug = config_of(tables_.calls.get<kCallMesh>(call)).slug;
  TextBuf body(scratch(), 1024);
  Status read;
  std::size_t left_out = 0;
  const auto rows = [&](std::initializer_list<std::string_view> names) {
    const wire::JsonNode* array = wire::array_of(frame, names);
    if (array == nullptr) {
      read = fail(Err::kMalformed, "the broker's answer has no list");
    } else {
      left_out = wire::append_rows(frame.tape, *array, slug, body);
    }
  };
  switch (kind) {
    case CallKind::kGetState: read = wire::append_state(frame, slug, body); break;
    case CallKind::kListState: rows({"entries"}); break;
    case CallKind::kRecall: rows({"memories", "matches"}); break;
    case CallKind::kListSkills: rows({"skills"}); break;
    case CallKind::kGetSkill: read = wire::append_object(frame, "skill", slug, body); break;
    case CallKind::kTopicList:
      rows({"topics"});
      on_topic_list(tables_.calls.get<kCallMesh>(call), frame);
      break;
    case CallKind::kTopicMembers: rows({"members"}); break;
    case CallKind::kTopicHistory: read = wire::append_history(frame, slug, scratch(), body); break;
    case CallKind::kTopicCreate:
      read = wire::append_object(frame, "topic", slug, body);
      tables_.meshes.get<kMeshTopics>(tables_.calls.get<kCallMesh>(call)).loaded = false;
      if (const wire::JsonNode* created = frame.tape.find("created");
          created != nullptr && created->type == wire::JsonType::kBool) {
        tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call)).extra =
            created->boolean ? ",\"created\":true" : ",\"created\":false";
      }
      break;
    case CallKind::kRemember: {
      const auto id = wire::memory_id(frame);
      if (id) {
        body.append(*id);
      } else {
        read = id.error();
      }
      break;
    }
    case CallKind::kMessageStatus: read = append_message_status(call, frame, body); break;
    case CallKind::kMessageExplain: read = append_explanation(call, frame, body); break;
    default: return;
  }
  if (left_out != 0) metrics_.add(Metric::kDaemonInvalidInbound, left_out);
  if (!read) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    return fail_call(call, Err::kTransport, read.error().detail);
  }
  finish_call(call, body.view(), true);
}

void Daemon::finish_call(CallRef call, std::string_view body, bool confirmed) {
  if (body.size() > kAnswerBytesMax ||
      reply_bytes_ + body.size() > limits_.broker_replies_bytes_max) {
    return fail_call(call, Err::kBusy, "the broker's answer is too large to be kept");
  }
  const JobRef job = tables_.calls.get<kCallJob>(call);
  CallResult& result = tables_.jobs.get<kJobRow>(job).results[tables_.calls.get<kCallIndex>(call)];
  result.ok = true;
  result.confirmed = confirmed;
  result.body = body;
  reply_bytes_ += body.size();
  end_call(call);
}

void Daemon::fail_call(CallRef call, Err code, std::string_view detail) {
  CallResult& result = tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call))
                           .results[tables_.calls.get<kCallIndex>(call)];
  result.http_status = info_of(code).http_status;
  result.error = info_of(code).wire_code;
  result.detail = detail;
  metrics_.add(code == Err::kTimeout ? Metric::kDaemonCallsTimedOut : Metric::kDaemonCallsLost);
  end_call(call);
}

// In the broker's words.
void Daemon::refuse_call(CallRef call, std::string_view code, std::string_view detail) {
  CallResult& result = tables_.jobs.get<kJobRow>(tables_.calls.get<kCallJob>(call))
                           .results[tables_.calls.get<kCallIndex>(call)];
  // Its room, not ours: our own remedies would not help.
  if (code == info_of(Err::kDiskFull).wire_code) code = info_of(Err::kBrokerFull).wire_code;
  result.error = code.empty() ? std::string_view("refused") : code;
  result.http_status = status_of(result.error);
  result.detail = utf8_prefix(detail, kTextKept);
  metrics_.add(Metric::kDaemonCallsRefused);
  end_call(call);
}

void Daemon::end_call(CallRef call) {
  const JobRef job = tables_.calls.get<kCallJob>(call);
  tables_.call_of.erase(tables_.calls.get<kCallSerial>(call));
  drop_held_frame(call);
  tables_.calls.erase(call);
  --tables_.jobs.get<kJobRow>(job).open;
  close_job_if_done(job);
}

void Daemon::fail_calls_of(MeshRef mesh, std::string_view why) {
  std::vector<CallRef> calls;
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallMesh>(call) == mesh) calls.push_back(call);
  });
  for (const CallRef call : calls) {
    const bool held = tables_.calls.get<kCallHeld>(call) != 0;
    fail_call(call, Err::kBrokerAway, held ? not_open(config_of(mesh).slug) : std::string(why));
  }
}

// The mirror was just filled by the broker's list.
void Daemon::finish_peers_calls(MeshRef mesh) {
  std::vector<CallRef> calls;
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallKind>(call) == CallKind::kPeers &&
        tables_.calls.get<kCallMesh>(call) == mesh) {
      calls.push_back(call);
    }
  });
  for (const CallRef call : calls) finish_call(call, {}, true);
}

void Daemon::expire_calls() {
  if (env_.mono_ms < calls_check_ms_) return;
  calls_check_ms_ = UINT64_MAX;
  std::vector<CallRef> due;
  tables_.calls.each([&](CallRef call) {
    if (tables_.calls.get<kCallDue>(call) <= env_.mono_ms) due.push_back(call);
  });
  for (const CallRef call : due) {
    const MeshRef mesh = tables_.calls.get<kCallMesh>(call);
    if (tables_.calls.get<kCallHeld>(call) != 0) {
      fail_call(call, Err::kBrokerAway, not_open(config_of(mesh).slug));
      continue;
    }
    const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
    if (info_of(tables_.calls.get<kCallKind>(call)).silent) {
      if (features.state == FeatureState::kLegacy) {
        finish_call(call, {}, false);
        continue;
      }
      // It is being found out, or known, that this broker answers.
      const std::uint64_t last = tables_.calls.get<kCallSent>(call) + kAnswerMs;
      if (last > env_.mono_ms) {
        const bool asked = features.state == FeatureState::kAsked;
        tables_.calls.get<kCallDue>(call) =
            asked ? std::min(last, std::max(features.deadline_ms, env_.mono_ms) + 1) : last;
        continue;
      }
    }
    fail_call(call, Err::kTimeout,
              "the broker of '" + config_of(mesh).slug + "' did not answer within 5 s");
  }
  tables_.calls.each([&](CallRef call) {
    calls_check_ms_ = std::min(calls_check_ms_, tables_.calls.get<kCallDue>(call));
  });
}

}  // namespace cm::daemon
