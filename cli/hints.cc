// hints.cc — the few rules of hints.h.
#include "cli/hints.h"

#include "cli/output.h"

namespace cm::cli {

std::string_view hint_for_target(std::string_view to) {
  return to.starts_with('#') ? kSeeTopics : kSeePeers;
}

bool is_plain_target(std::string_view to) {
  return to == "*" || to.starts_with('@') || to.starts_with('#');
}

void say_plain(std::string_view to) {
  if (to.starts_with('#')) {
    say("posts to topics are not end-to-end encrypted: the broker can read them");
  } else {
    say("messages to groups and to all are not end-to-end encrypted: the broker can read them");
  }
}

std::string time_or_date(std::string_view typed) {
  constexpr std::string_view kForm = "0000-00-00";
  bool date = typed.size() == kForm.size();
  for (std::size_t index = 0; date && index < kForm.size(); ++index) {
    const bool digit = typed[index] >= '0' && typed[index] <= '9';
    date = kForm[index] == '0' ? digit : typed[index] == kForm[index];
  }
  return std::string(typed) + (date ? "T00:00:00Z" : "");
}

}  // namespace cm::cli
