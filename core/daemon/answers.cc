// answers.cc — what the IPC answers when the brokers have answered.
// Holds:  an answer that some meshes could not give to is 200 with what the others said and
//         `errors:[{mesh,error,detail}]`; when all failed it is the first one's failure. "Not set"
//         is said only when every mesh was asked successfully. What does not fit into
//         kReplyBytesMax is left out and the answer says so.
// Source: docs/PROTOCOL.md §10.3; spec/ipc.md §3.
// Not:    asking (calls.cc).
#include <algorithm>
#include <vector>

#include "core/daemon/calls.h"
#include "core/wire/json_writer.h"
#include "core/wire/mesh_replies.h"

namespace cm::daemon {
namespace {

constexpr std::size_t kRoundARow = 256;  // the mesh, commas, the end of the answer

const CallResult* first_failure(const Job& job) {
  for (const CallResult& result : job.results) {
    if (!result.ok) return &result;
  }
  return nullptr;
}

bool any_ok(const Job& job) {
  return std::any_of(job.results.begin(), job.results.end(),
                     [](const CallResult& result) { return result.ok; });
}

// Of the meshes that failed, and of those from `cut` on whose rows are left out of this answer.
// `listed_short`: the meshes whose broker left out some of its peers.
void append_errors(const Job& job, wire::JsonWriter& json, std::size_t cut = SIZE_MAX,
                   const std::vector<std::string_view>& listed_short = {}) {
  if (first_failure(job) == nullptr && cut >= job.results.size() && listed_short.empty()) return;
  json.key("errors").begin_array();
  for (std::size_t index = 0; index < job.results.size(); ++index) {
    const CallResult& result = job.results[index];
    if (result.ok && index >= cut) {
      json.begin_object().field("mesh", result.mesh).field("error", "truncated");
      json.field("detail", "its rows do not fit into this answer; name the mesh").end_object();
    }
    if (result.ok) continue;
    json.begin_object().field("mesh", result.mesh).field("error", result.error);
    json.field("detail", result.detail).end_object();
  }
  for (const std::string_view mesh : listed_short) {
    json.begin_object().field("mesh", mesh).field("error", "truncated");
    json.field("detail", "its broker's list of peers is cut; reach others by their whole key");
    json.end_object();
  }
  json.end_array();
}

}  // namespace

void Daemon::answer_job(JobRef ref) {
  const ConnRef conn = tables_.jobs.get<kJobConn>(ref);
  const Job& job = tables_.jobs.get<kJobRow>(ref);
  note_answered(conn);
  const CallInfo& info = info_of(job.kind);
  switch (info.form) {
    case AnswerForm::kRows: return answer_rows(conn, job, info.name);
    case AnswerForm::kFound: return answer_found(conn, job);
    case AnswerForm::kCommand: return answer_command(conn, job);
    case AnswerForm::kProfile: return answer_profile(conn, job);
    case AnswerForm::kStatus: return answer_status(conn, job);
    case AnswerForm::kExplain: return answer_explain(conn, job);
  }
}

void Daemon::reply_failure(ConnRef conn, const Job& job, const CallResult& failed) {
  const Err known = err_of_wire_code(failed.error);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("error", failed.error).field("mesh", failed.mesh);
  json.field("detail", failed.detail.empty() ? std::string_view(failed.error) : failed.detail);
  json.field("remedy", known == Err::kInternal
                           ? std::string_view("correct the request; the broker refused it")
                           : info_of(known).remedy);
  if (job.results.size() > 1) append_errors(job, json);
  json.end_object();
  reply(conn, static_cast<std::uint32_t>(failed.http_status), text.view());
}

void Daemon::answer_rows(ConnRef conn, const Job& job, std::string_view name) {
  // The list of peers is shown from its mirror, which also says what was known before a failure.
  const bool peers = job.kind == CallKind::kPeers;
  if (!peers && !any_ok(job)) return reply_failure(conn, job, *first_failure(job));
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  json.begin_object().optional_field("topic", job.subject).key(name).begin_array();
  std::size_t cut = 0;  // results before it are shown whole
  std::vector<std::string_view> listed_short;
  for (bool fits = true; cut < job.results.size(); ++cut) {
    const CallResult& result = job.results[cut];
    if (peers) {
      const auto mesh = choose_mesh(result.mesh);
      if (!mesh) continue;
      if (is_truncated(*mesh)) listed_short.push_back(result.mesh);
      for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(*mesh).peers) {
        // The broker's own object, with the mesh added in front of its closing brace.
        const std::string_view raw = tables_.peers.get<kPeerRaw>(peer);
        fits = text.size() + raw.size() + kRoundARow <= kReplyBytesMax;
        if (!fits) break;
        TextBuf entry(scratch(), raw.size() + 64);
        entry.append(raw.substr(0, raw.size() - 1));
        entry.append(",\"mesh\":");
        wire::append_json_text(entry, result.mesh);
        entry.append('}');
        json.raw(entry.view());
      }
    } else if (!result.body.empty()) {
      fits = text.size() + result.body.size() + kRoundARow <= kReplyBytesMax;
      if (fits) json.raw(result.body);
    }
    if (!fits) break;
  }
  json.end_array();
  if (cut < job.results.size() || !listed_short.empty()) json.field("truncated", true);
  append_errors(job, json, cut, listed_short);
  json.end_object();
  reply(conn, 200, text.view());
}

void Daemon::answer_found(ConnRef conn, const Job& job) {
  const std::string_view name = info_of(job.kind).name;
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  const auto found = std::find_if(job.results.begin(), job.results.end(),
                                  [](const CallResult& one) { return !one.body.empty(); });
  if (found != job.results.end()) {
    json.begin_object().key(name).raw(found->body);
    text.append(job.extra);
    // Other meshes that have one of this name: nothing that was found is kept back.
    const auto more = [](const CallResult& one) { return !one.body.empty(); };
    if (std::count_if(job.results.begin(), job.results.end(), more) > 1) {
      json.key("all").begin_array();
      bool fits = true;
      for (const CallResult& result : job.results) {
        if (!more(result)) continue;
        fits = fits && text.size() + result.body.size() + kRoundARow <= kReplyBytesMax;
        if (fits) json.raw(result.body);
      }
      json.end_array();
      if (!fits) json.field("truncated", true);
    }
    append_errors(job, json);
    json.end_object();
    return reply(conn, 200, text.view());
  }
  if (const CallResult* failed = first_failure(job)) return reply_failure(conn, job, *failed);
  const bool state = job.kind == CallKind::kGetState;
  json.begin_object().field("error", state ? "state_not_found" : "skill_not_found");
  json.field(state ? "key" : "name", job.subject).end_object();
  reply(conn, 404, text.view());
}

void Daemon::answer_command(ConnRef conn, const Job& job) {
  const CallResult& result = job.results.front();
  if (!result.ok) return reply_failure(conn, job, result);
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true);
  json.field(info_of(job.kind).name, job.kind == CallKind::kRemember ? result.body : job.subject);
  json.field("mesh", result.mesh).field("confirmed", result.confirmed).end_object();
  reply(conn, 200, text.view());
}

// A mesh has up to four calls here: it succeeded when all of them did.
void Daemon::answer_profile(ConnRef conn, const Job& job) {
  if (!any_ok(job)) return reply_failure(conn, job, *first_failure(job));
  std::vector<std::string_view> meshes;
  bool confirmed = true;
  for (const CallResult& result : job.results) {
    const auto failed = [&](const CallResult& other) {
      return other.mesh == result.mesh && !other.ok;
    };
    const bool all = std::none_of(job.results.begin(), job.results.end(), failed);
    if (all && (meshes.empty() || meshes.back() != result.mesh)) meshes.push_back(result.mesh);
    confirmed = confirmed && result.confirmed;
  }
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("ok", first_failure(job) == nullptr).key("applied").raw(job.extra);
  json.key("meshes").begin_array();
  for (const std::string_view mesh : meshes) json.text(mesh);
  json.end_array().field("confirmed", confirmed);
  append_errors(job, json);
  json.end_object();
  reply(conn, 200, text.view());
}

// Of a message that is ours or came to us, in one mesh; the other meshes do not know it.
void Daemon::answer_status(ConnRef conn, const Job& job) {
  std::vector<const CallResult*> found;
  const CallResult* failed = nullptr;  // other than "there is none"
  for (const CallResult& result : job.results) {
    if (result.ok) {
      found.push_back(&result);
    } else if (result.http_status != 404) {
      failed = &result;
    }
  }
  // A client's own id: what the outbox knows is an answer, with or without the broker.
  const bool own = !job.extra.empty();
  if (found.empty() && !own) {
    return reply_failure(conn, job, failed != nullptr ? *failed : job.results.front());
  }
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  if (found.size() > 1) {
    json.begin_object().field("error", "ambiguous_prefix").field("id", job.subject);
    json.field("detail", "messages of several meshes begin with this");
    json.field("remedy", "give more characters, or name the mesh").key("meshes").begin_array();
    for (const CallResult* result : found) json.text(result->mesh);
    json.end_array().end_object();
    return reply(conn, 409, text.view());
  }
  json.begin_object().field("id", job.subject);
  text.append(job.extra);
  json.key("message");
  if (found.empty()) {
    json.null();
  } else {
    json.raw(found.front()->body);
  }
  if (own || failed != nullptr) append_errors(job, json);
  json.end_object();
  reply(conn, 200, text.view());
}

// The rows of this machine, and of every broker that has some. What happens next is the broker's
// word where there is one: it is further along the way.
void Daemon::answer_explain(ConnRef conn, const Job& job) {
  const bool any = any_ok(job);
  if (job.extra.empty() && !any) {
    const CallResult* failed = first_failure(job);
    if (failed != nullptr) return reply_failure(conn, job, *failed);
    return reply_error(conn, fail(Err::kNotFound, "no message of yours has this id"));
  }
  TextBuf text(scratch(), 4096);
  wire::JsonWriter json(text);
  std::string_view next = job.next;
  json.begin_object().field("id", job.subject).key("rows").begin_array();
  if (!job.extra.empty()) json.raw(job.extra);
  for (const CallResult& result : job.results) {
    if (result.http_status == 404 && !any) {
      next = "the broker has no row of it any more: it forgets what is old";
    }
    if (!result.ok) continue;
    if (!result.body.empty()) json.raw(result.body);
    next = result.detail;
  }
  json.end_array().field("next", next);
  append_errors(job, json);
  json.end_object();
  reply(conn, 200, text.view());
}

}  // namespace cm::daemon
