// dispatch.cc — finds the verb, lets CLI11 read its flags, runs it.
// Holds:  exit statuses are those of spec/cli.md §2.
// Not:    any verb's work.
#include "cli/dispatch.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <set>
#include <utility>

#include "cli/ensure_daemon.h"
#include "cli/json_shapes.h"
#include "cli/output.h"

namespace cm::cli {
namespace {

bool is_group(std::string_view word) {
  return std::any_of(verbs().begin(), verbs().end(), [&](const Verb& verb) {
    return verb.path.starts_with(std::string(word) + " ");
  });
}

bool asks_for_help(std::string_view word) { return word == "--help" || word == "-h"; }

// Flags that every verb has, so that they may also stand before it.
bool is_common_flag(std::string_view word) {
  return word == "--json" || word == "-q" || word == "--quiet" || word == "--strict" ||
         word == "--no-daemon";
}

// Letters to insert, drop, replace or swap with their neighbour to get from one to the other.
std::size_t distance(std::string_view left, std::string_view right) {
  std::vector<std::vector<std::size_t>> cost(left.size() + 1,
                                             std::vector<std::size_t>(right.size() + 1));
  for (std::size_t row = 0; row <= left.size(); ++row) {
    for (std::size_t column = 0; column <= right.size(); ++column) {
      if (row == 0 || column == 0) {
        cost[row][column] = row + column;
        continue;
      }
      const bool same = left[row - 1] == right[column - 1];
      cost[row][column] = std::min({cost[row - 1][column] + 1, cost[row][column - 1] + 1,
                                    cost[row - 1][column - 1] + (same ? 0 : 1)});
      const bool swapped = row > 1 && column > 1 && left[row - 1] == right[column - 2] &&
                           left[row - 2] == right[column - 1];
      if (swapped) cost[row][column] = std::min(cost[row][column], cost[row - 2][column - 2] + 1);
    }
  }
  return cost[left.size()][right.size()];
}

// The word of the table that a slip of the fingers turned into `typed`; empty if none is near.
// With a group, one of its second words.
std::string nearest(std::string_view typed, std::string_view group) {
  constexpr std::size_t kTypedMax = 32;  // nobody's slip
  if (typed.size() > kTypedMax) return {};
  std::string best;
  std::size_t least = std::min<std::size_t>(2, typed.size() / 2) + 1;
  for (const Verb& verb : verbs()) {
    std::string_view word = verb.path;
    if (!group.empty()) {
      if (!word.starts_with(std::string(group) + " ")) continue;
      word.remove_prefix(group.size() + 1);
    }
    word = word.substr(0, word.find(' '));
    if (const std::size_t cost = distance(typed, word); cost < least) {
      least = cost;
      best = word;
    }
  }
  return best;
}

bool is_given_empty(const CLI::Option& option) {
  const auto& words = option.results();
  return !words.empty() && std::all_of(words.begin(), words.end(),
                                       [](const std::string& word) { return word.empty(); });
}

// Texts that an empty one clears. Anywhere else it is a variable that a script did not set, and
// `leave ""` must not leave the only mesh.
bool may_be_empty(const Verb& verb, const CLI::Option& option) {
  constexpr std::string_view kNeverEmpty[] = {"--name", "--member", "--mesh", "--ca-file"};
  const bool clears =
      verb.path == "profile" && std::find(std::begin(kNeverEmpty), std::end(kNeverEmpty),
                                          option.get_name()) == std::end(kNeverEmpty);
  return verb.path == "summary" || clears ||
         (verb.path == "state set" && option.get_name() == "value");
}

// Members of a row, from the shape that is documented, are followed by ':' or '?:'.
Status check_members(const Verb& verb) {
  if (output().members.empty()) return {};
  if (verb.json != JsonForm::kRows) {
    return fail(Err::kUsage,
                "--json takes no names here: " + std::string(verb.path) + " prints no rows");
  }
  std::string_view shape = json_shape(verb.path);
  shape = shape.substr(0, shape.find("}] | "));
  std::set<std::string, std::less<>> known = {"name"};
  std::string all = "name";
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < shape.size(); ++at) {
    const char c = shape[at];
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (c == '{' || c == ',') begin = at + 1;
    if (c != ':' || depth != 1) continue;
    std::string_view word = shape.substr(begin, at - begin);
    if (word.starts_with(' ')) word.remove_prefix(1);
    if (word.ends_with('?')) word.remove_suffix(1);
    known.emplace(word);
    all += ", " + std::string(word);
  }
  for (const std::string& name : output().members) {
    if (known.contains(name)) continue;
    return fail(Err::kUsage, "--json: no row has '" + harmless(name) + "'; there are: " + all);
  }
  return {};
}

// `daemon` alone: what there is, and that something was missing.
int show_group(const std::string& group) {
  if (!output().json) {
    for (const Verb& verb : verbs()) {
      if (!verb.path.starts_with(group + " ")) continue;
      std::string line(verb.path);
      line.resize(std::max<std::size_t>(line.size() + 2, 28), ' ');
      say(line + std::string(verb.summary));
    }
  }
  return report(fail(Err::kUsage, unknown_text({group})));
}

// --json also counts for errors before the flags are read; --json=NAME,NAME becomes --json.
void take_json(std::vector<std::string>& words) {
  constexpr std::string_view kNamed = "--json=";
  for (std::string& word : words) {
    if (word == "--") return;
    if (word.starts_with(kNamed)) {
      for (std::size_t at = kNamed.size(); at <= word.size();) {
        const std::size_t end = std::min(word.find(',', at), word.size());
        if (end > at) output().members.push_back(word.substr(at, end - at));
        at = end + 1;
      }
      word = "--json";
    }
    if (word == "--json") output().json = true;
  }
}

}  // namespace

const Verb* find_verb(const std::vector<std::string>& words, std::size_t& used) {
  const Verb* best = nullptr;
  used = 0;
  std::string joined;
  for (std::size_t count = 1; count <= words.size() && count <= 2; ++count) {
    joined += (count == 1 ? "" : " ") + words[count - 1];
    std::string_view path = joined;
    for (const Alias& alias : aliases()) {
      if (alias.name == joined) path = alias.path;
    }
    for (const Verb& verb : verbs()) {
      if (verb.path != path) continue;
      best = &verb;
      used = count;
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
  for (const CLI::Option* option : app.get_options()) {
    if (!is_given_empty(*option) || may_be_empty(verb, *option)) continue;
    return fail(Err::kInvalidArgument, "claudemesh " + std::string(verb.path) + ": " +
                                           option->get_name() +
                                           ": expected a text that is not empty");
  }
  return false;
}

std::string help_of(const Verb& verb) {
  std::string help;
  const Result<bool> asked = read_flags(verb, {"--help"}, help);
  return asked ? help : asked.error().detail;
}

std::string unknown_text(const std::vector<std::string>& words) {
  const std::string& first = words[0];
  if (!is_group(first)) {
    const std::string near = nearest(first, {});
    return "'" + first + "' is no verb" +
           (near.empty() ? std::string() : "; did you mean '" + near + "'?");
  }
  if (words.size() == 1) return "'" + first + "' needs a second word";
  const std::string near = nearest(words[1], first);
  std::string text = "'" + first + " " + words[1] + "' is no verb";
  if (!near.empty()) return text + "; did you mean '" + first + " " + near + "'?";
  std::string all;
  for (const Verb& verb : verbs()) {
    if (verb.path.starts_with(first + " "))
      all += (all.empty() ? "" : ", ") + std::string(verb.path);
  }
  return text + "; there are: " + all;
}

int run_words(std::vector<std::string> words) {
  take_json(words);
  const auto end = std::find_if_not(words.begin(), words.end(), is_common_flag);
  const std::vector<std::string> before(words.begin(), end);
  words.erase(words.begin(), end);
  if (words.empty()) words = {"help"};
  if (asks_for_help(words[0])) words[0] = "help";
  if (words[0] == "--version" || words[0] == "-V") words[0] = "version";
  std::size_t used = 0;
  const Verb* verb = find_verb(words, used);
  if (verb == nullptr && is_group(words[0])) {
    const bool bare = words.size() == 1 || is_common_flag(words[1]);
    if (bare) return show_group(words[0]);
    // `daemon --help` is `help daemon`.
    if (asks_for_help(words[1])) {
      words[1] = std::exchange(words[0], "help");
      verb = find_verb(words, used);
    }
  }
  if (verb == nullptr) return report(fail(Err::kUsage, unknown_text(words)));
  output().form = verb->json;
  if (Status known = check_members(*verb); !known) return report(known.error());
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(used));
  words.insert(words.begin(), before.begin(), before.end());
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
