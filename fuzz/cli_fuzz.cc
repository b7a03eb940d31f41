// cli_fuzz.cc — any words as a command line, read but not run.
// Input:  words, each ended by a line feed.
// Holds:  a verb's flags are read, or refused with a sentence and exit status 3, or the words asked
//         for help, which then is there. No exception leaves.
// Not:    what verbs do.
#include <string>
#include <vector>

#include "cli/dispatch.h"
#include "core/base/check.h"
#include "fuzz/registry.h"

CM_FUZZ_TARGET(cli) {
  using namespace cm;
  std::vector<std::string> words;
  std::string_view input(reinterpret_cast<const char*>(data), size);
  while (!input.empty() && words.size() < 64) {
    const std::size_t end = std::min(input.find('\n'), input.size());
    // The system ends a word at its first zero byte.
    words.emplace_back(input.substr(0, std::min(end, input.find('\0'))));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  std::size_t used = 0;
  const cli::Verb* verb = cli::find_verb(words, used);
  CHECK_EQ(verb != nullptr, used > 0);
  if (verb == nullptr) return 0;
  CHECK(used <= words.size());
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(used));
  std::string help;
  const Result<bool> asked = cli::read_flags(*verb, std::move(words), help);
  if (!asked) {
    CHECK(asked.code() == Err::kUsage || asked.code() == Err::kInvalidArgument);
    CHECK(!asked.error().detail.empty());
  } else {
    CHECK_EQ(*asked, !help.empty());
  }
  return 0;
}
