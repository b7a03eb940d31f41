// calls.h — the kinds of requests that are passed on to brokers, as one table.
// Owns:   CallInfo, and Daemon::call().
// Holds:  the order of the rows is that of CallKind.
// Source: docs/PROTOCOL.md §3, §6, §10.3; spec/wire.md §5.6, §6, §7; spec/observed.md, "Where the
//         two ends miss each other".
// Not:    the machinery (calls.cc), the answers on the IPC (answers.cc).
#pragma once

#include <array>
#include <string_view>

#include "core/daemon/daemon.h"

namespace cm::daemon {

// How the IPC answers a job of this kind.
enum class AnswerForm : std::uint8_t { kRows, kFound, kCommand, kProfile, kStatus, kExplain };

struct CallInfo {
  AnswerForm form;
  bool acked;                               // `ack` is an answer
  bool silent;                              // the reference never answers a success
  std::string_view name;                    // of the member of the IPC's answer
  std::array<std::string_view, 3> replies;  // types of the broker's answer
};

constexpr CallInfo kCallInfos[static_cast<std::size_t>(CallKind::kCount)] = {
    /* kPeers        */ {AnswerForm::kRows, false, false, "peers", {}},
    /* kGetState     */
    {AnswerForm::kFound, false, false, "state", {"state_result", "state_value", "state_data"}},
    /* kListState    */ {AnswerForm::kRows, false, false, "entries", {"state_list"}},
    /* kSetState     */ {AnswerForm::kCommand, true, true, "key", {}},
    /* kRemember     */ {AnswerForm::kCommand, false, false, "id", {"memory_stored"}},
    /* kRecall       */
    {AnswerForm::kRows, false, false, "matches", {"memory_results", "memory_recall_result"}},
    /* kForget       */ {AnswerForm::kCommand, true, true, "id", {}},
    /* kListSkills   */ {AnswerForm::kRows, false, false, "skills", {"skill_list"}},
    /* kGetSkill     */ {AnswerForm::kFound, false, false, "skill", {"skill_data"}},
    /* kSetSummary   */ {AnswerForm::kProfile, true, true, "", {}},
    /* kSetStatus    */ {AnswerForm::kProfile, true, true, "", {}},
    /* kSetVisible   */ {AnswerForm::kProfile, true, false, "", {}},
    /* kSetProfile   */ {AnswerForm::kProfile, true, false, "", {}},
    /* kTopicList    */ {AnswerForm::kRows, false, false, "topics", {"topic_list_response"}},
    /* kTopicCreate  */ {AnswerForm::kFound, false, false, "topic", {"topic_created"}},
    /* kTopicJoin    */ {AnswerForm::kCommand, true, true, "topic", {}},
    /* kTopicLeave   */ {AnswerForm::kCommand, true, true, "topic", {}},
    /* kTopicMembers */ {AnswerForm::kRows, false, false, "members", {"topic_members_response"}},
    /* kTopicHistory */ {AnswerForm::kRows, false, false, "messages", {"topic_history_response"}},
    /* kTopicRead    */ {AnswerForm::kCommand, true, true, "topic", {}},
    /* kGroupJoin    */ {AnswerForm::kCommand, true, true, "name", {}},
    /* kGroupLeave   */ {AnswerForm::kCommand, true, true, "name", {}},
    /* kMessageStatus*/ {AnswerForm::kStatus, false, false, "message", {"message_status_result"}},
    /* kMessageExplain */ {AnswerForm::kExplain, false, false, "rows", {"message_status_result"}},
};

constexpr const CallInfo& info_of(CallKind kind) noexcept {
  return kCallInfos[static_cast<std::size_t>(kind)];
}

template <class Write>
void Daemon::call(JobRef job, MeshRef mesh, CallKind kind, Write write) {
  const std::uint64_t serial = open_call(job, mesh, kind);
  if (serial == 0) return;
  TextBuf frame(scratch(), 512);
  write(request_id(serial), frame);
  send_call(serial, frame.view());
}

}  // namespace cm::daemon
