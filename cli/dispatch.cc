// dispatch.cc — finds the verb, lets CLI11 read its flags, runs it.
// Holds:  exit statuses are those of spec/cli.md §2.
// Not:    any verb's work.
#include "cli/dispatch.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "cli/ensure_daemon.h"
#include "cli/output.h"

namespace cm::cli {
namespace {

// `daemon` alone, or `daemon frobnicate`: say what there is.
int unknown_verb(const std::vector<std::string>& words) {
  std::string group;
  for (const Verb& verb : verbs()) {
    if (verb.path.starts_with(words[0] + " "))
      group += (group.empty() ? "" : ", ") + std::string(verb.path);
  }
  const std::string asked = words[0] + (words.size() > 1 && !group.empty() ? " " + words[1] : "");
  return report(fail(
      Err::kUsage, "'" + asked + "' is no verb" + (group.empty() ? "" : "; there are: " + group)));
}

}  // namespace

const Verb* find_verb(const std::vector<std::string>& words, std::size_t& used) {
  const Verb* best = nullptr;
  used = 0;
  for (const Verb& verb : verbs()) {
    std::string joined;
    for (std::size_t count = 1; count <= words.size() && count <= 2; ++count) {
      joined += (count == 1 ? "" : " ") + words[count - 1];
      if (joined == verb.path && count > used) {
        best = &verb;
        used = count;
      }
    }
  }
  return best;
}

Result<bool> read_flags(const Verb& verb, std::vector<std::string> arguments, std::string& help) {
  CLI::App app(std::string(verb.summary), "claudemesh " + std::string(verb.path));
  app.add_flag("--json", output().json, "Print JSON for scripts");
  app.add_flag("-q,--quiet", output().quiet, "Print data only, no talk");
  app.add_flag("--strict", daemon_policy().strict, "Do not start a daemon");
  app.add_flag("--no-daemon", daemon_policy().no_daemon, "Do not use the daemon at all");
  verb.declare(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    help = app.help();
    return true;
  } catch (const CLI::ParseError& error) {
    return fail(Err::kUsage, "claudemesh " + std::string(verb.path) + ": " + error.what());
  }
  return false;
}

int run_words(std::vector<std::string> words) {
  for (const std::string& word : words) {
    if (word == "--json") output().json = true;  // also for errors before the flags are read
  }
  if (words.empty() || words[0] == "--help" || words[0] == "-h") return run_help();
  if (words[0] == "--version" || words[0] == "-V") words[0] = "version";
  std::size_t used = 0;
  const Verb* verb = find_verb(words, used);
  if (verb == nullptr) return unknown_verb(words);
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(used));
  std::string help;
  const Result<bool> asked = read_flags(*verb, std::move(words), help);
  if (!asked) return report(asked.error());
  if (*asked) {
    print(help);
    return 0;
  }
  return verb->run();
}

}  // namespace cm::cli
