// hints.h — small rules that several verbs share about what a person typed or is told.
// Owns:   where to look for what was not found; whether a target is readable by the broker; dates.
// Holds:  a hint names verbs of the table (cli/verbs.cc); a test reads them from here.
// Why:    the same error of a daemon means another list for another verb.
// Not:    the remedies of the errors themselves (core/base/errors.h).
#pragma once

#include <string>
#include <string_view>

namespace cm::cli {

// For report(): what shows the things of this kind.
inline constexpr std::string_view kSeeTopics = "'claudemesh topic list' shows the topics";
inline constexpr std::string_view kSeeStates = "'claudemesh state list' shows the keys";
inline constexpr std::string_view kSeeSkills = "'claudemesh skill list' shows the skills";
inline constexpr std::string_view kSeePeers = "'claudemesh peer list' shows names and keys";
inline constexpr std::string_view kSeeInbox = "'claudemesh inbox --json' shows the ids";
inline constexpr std::string_view kSeeOutbox = "'claudemesh outbox list' shows the ids";
inline constexpr std::string_view kSeeMemories =
    "'claudemesh recall <words>' shows the ids; give a whole one";

// The list that a target of `send` was looked for in.
std::string_view hint_for_target(std::string_view to);

// Is what goes to this target no secret to the broker? "*", "@group" and "#topic".
bool is_plain_target(std::string_view to);
// Says so once, in words that fit the target.
void say_plain(std::string_view to);

// A date alone, as of its beginning in UTC, becomes a time; everything else stays as it is.
std::string time_or_date(std::string_view typed);

}  // namespace cm::cli
