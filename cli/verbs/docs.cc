// docs.cc — version, help, completions and the man page.
// Holds:  nothing about a verb is written twice: texts come from verbs.cc and the declarations.
// Source: spec/cli.md §17.
// Not:    the verbs.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <set>

#include "cli/dispatch.h"
#include "cli/json_shapes.h"
#include "cli/output.h"
#include "cli/runtime.h"
#include "cli/settings.h"
#include "cli/variables.h"
#include "cli/verbs.h"
#include "core/base/errors.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  std::string shell;
  std::vector<std::string> words;
} g_options;

struct Flag {
  std::string names;  // "-n,--lines"
  std::string about;
  bool takes_value = false;
  bool positional = false;
  bool required = false;
};

std::vector<Flag> flags_of(const Verb& verb) {
  CLI::App app;
  verb.declare(app);
  std::vector<Flag> flags;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_name().find("help") != std::string::npos) continue;
    // Some are both: a word, and the flag that says the same.
    const bool named = !option->get_lnames().empty() || !option->get_snames().empty();
    for (const bool positional : {true, false}) {
      if (positional ? !option->get_positional() : !named) continue;
      Flag flag;
      flag.positional = positional;
      flag.names = positional ? option->get_name(true) : option->get_name(false, true);
      flag.about = option->get_description();
      flag.takes_value = option->get_expected_max() > 0 && !positional;
      flag.required = option->get_required();
      flags.push_back(flag);
    }
  }
  return flags;
}

// "claudemesh send <to> <message> [--mesh ...]"
std::string usage_of(const Verb& verb) {
  std::string text = "claudemesh " + std::string(verb.path);
  bool has_flags = false;
  for (const Flag& flag : flags_of(verb)) {
    if (!flag.positional) {
      has_flags = true;
    } else {
      text += flag.required ? " <" + flag.names + ">" : " [" + flag.names + "]";
    }
  }
  return text + (has_flags ? " [flags]" : "");
}

std::vector<std::string> long_flags(const Verb& verb) {
  std::vector<std::string> names = {"--help", "--json", "--quiet", "--strict", "--no-daemon"};
  for (const Flag& flag : flags_of(verb)) {
    if (flag.positional) continue;
    for (std::size_t at = flag.names.find("--"); at != std::string::npos;
         at = flag.names.find("--", at + 2)) {
      names.push_back(flag.names.substr(at, flag.names.find(',', at) - at));
    }
  }
  return names;
}

std::string first_word(std::string_view path) {
  return std::string(path.substr(0, path.find(' ')));
}

std::string words_of(const std::set<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::set<std::string> first_words() {
  std::set<std::string> words;
  for (const Verb& verb : verbs()) words.insert(first_word(verb.path));
  return words;
}

std::set<std::string> second_words(const std::string& first) {
  std::set<std::string> words;
  for (const Verb& verb : verbs()) {
    const std::size_t space = verb.path.find(' ');
    if (space != std::string_view::npos && first_word(verb.path) == first) {
      words.insert(std::string(verb.path.substr(space + 1)));
    }
  }
  return words;
}

std::string joined_flags(const Verb& verb) {
  std::string text;
  for (const std::string& name : long_flags(verb)) text += (text.empty() ? "" : " ") + name;
  return text;
}

void print_bash() {
  print("# bash completion for claudemesh; generated from its table of verbs");
  print("_claudemesh() {");
  print("  local cur=${COMP_WORDS[COMP_CWORD]} path=\"${COMP_WORDS[1]}\" words=\"\"");
  print("  if [ \"$COMP_CWORD\" -eq 1 ]; then words=\"" + words_of(first_words()) + "\"; else");
  print("    case \"$path\" in");
  for (const std::string& first : first_words()) {
    const auto seconds = second_words(first);
    if (seconds.empty()) continue;
    print("      " + first + ") [ \"$COMP_CWORD\" -eq 2 ] && words=\"" + words_of(seconds) +
          "\" || path=\"$path ${COMP_WORDS[2]}\" ;;");
  }
  print("    esac");
  print("    case \"$path\" in");
  for (const Verb& verb : verbs()) {
    print("      \"" + std::string(verb.path) + "\") words=\"$words " + joined_flags(verb) +
          "\" ;;");
  }
  print("    esac");
  print("  fi");
  print("  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))");
  print("}");
  print("complete -F _claudemesh claudemesh");
}

std::string zsh_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else if (c == ':' || c == '[' || c == ']') {
      out += std::string("\\") + c;
    } else {
      out += c;
    }
  }
  return out;
}

void print_zsh() {
  print("#compdef claudemesh");
  print("# zsh completion for claudemesh; generated from its table of verbs");
  print("_claudemesh() {");
  print("  local -a verbs flags");
  print("  if (( CURRENT == 2 )); then");
  print("    verbs=(");
  for (const std::string& first : first_words()) print("      '" + zsh_quoted(first) + "'");
  print("    )");
  print("    _describe 'verb' verbs; return");
  print("  fi");
  print("  case \"$words[2]\" in");
  for (const std::string& first : first_words()) {
    const auto seconds = second_words(first);
    if (seconds.empty()) continue;
    print("    " + first + ")");
    print("      if (( CURRENT == 3 )); then");
    print("        verbs=(");
    for (const Verb& verb : verbs()) {
      const std::size_t space = verb.path.find(' ');
      if (space == std::string_view::npos || first_word(verb.path) != first) continue;
      print("          '" + zsh_quoted(verb.path.substr(space + 1)) + ":" +
            zsh_quoted(verb.summary) + "'");
    }
    print("        )");
    print("        _describe 'verb' verbs");
    print("      fi ;;");
  }
  print("  esac");
  print("  case \"$words[2] $words[3]\" in");
  for (const Verb& verb : verbs()) {
    const bool two = verb.path.find(' ') != std::string_view::npos;
    print("    '" + std::string(verb.path) + (two ? "'" : " '*") + ") flags=(" +
          joined_flags(verb) + "); compadd -- $flags ;;");
  }
  print("  esac");
  print("}");
  print("_claudemesh \"$@\"");
}

std::string fish_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\'' ? std::string("\\'") : std::string(1, c);
  return "'" + out + "'";
}

void print_fish() {
  print("# fish completion for claudemesh; generated from its table of verbs");
  print("complete -c claudemesh -f");
  for (const std::string& first : first_words()) {
    print("complete -c claudemesh -n __fish_use_subcommand -a " + first);
  }
  for (const Verb& verb : verbs()) {
    const std::size_t space = verb.path.find(' ');
    const std::string first = first_word(verb.path);
    std::string seen = "__fish_seen_subcommand_from " + first;
    if (space != std::string_view::npos) {
      const std::string second(verb.path.substr(space + 1));
      print("complete -c claudemesh -n " +
            fish_quoted(seen + "; and not __fish_seen_subcommand_from " +
                        words_of(second_words(first))) +
            " -a " + second + " -d " + fish_quoted(verb.summary));
      seen += "; and __fish_seen_subcommand_from " + second;
    }
    for (const std::string& name : long_flags(verb)) {
      print("complete -c claudemesh -n " + fish_quoted(seen) + " -l " + name.substr(2));
    }
  }
}

// roff: a leading dot or quote and every backslash and dash have meanings.
std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && out.empty()) {
      out += std::string("\\&") + c;
    } else {
      out += c;
    }
  }
  return out;
}

void print_verbs_roff() {
  for (const Verb& verb : verbs()) {
    print(".SS \"" + roff(usage_of(verb)) + "\"");
    std::string also;
    for (const Alias& alias : aliases()) {
      if (alias.path == verb.path) also += " Also: " + std::string(alias.name) + ".";
    }
    print(roff(verb.summary) + "." + roff(also));
    for (const Flag& flag : flags_of(verb)) {
      print(".TP");
      print(".B " + roff(flag.names));
      print(roff(flag.about) + ".");
    }
    if (const std::string_view shape = json_shape(verb.path); !shape.empty()) {
      print(".TP\n.B \\-\\-json\n" + roff(shape));
    }
  }
}

void print_exit_codes() {
  std::set<int> codes;
  print(".SH EXIT STATUS");
  print(".TP\n.B 0\nDone.");
  for (std::size_t index = 1; index < static_cast<std::size_t>(Err::kCount); ++index) {
    codes.insert(row_of(static_cast<Err>(index)).exit_code);
  }
  for (const int code : codes) {
    std::string meanings;
    int count = 0;
    for (std::size_t index = 1; index < static_cast<std::size_t>(Err::kCount); ++index) {
      const ErrInfo& info = row_of(static_cast<Err>(index));
      if (info.exit_code != code || ++count > 6) continue;
      meanings += (meanings.empty() ? "" : ", ") + std::string(info.wire_code);
    }
    print(".TP\n.B " + std::to_string(code) + "\n" + roff(meanings) +
          (count > 6 ? ", and others" : "") + ".");
  }
}

std::string or_none(const char* text) { return text == nullptr ? "none" : text; }

void print_settings_roff() {
  print(".SH SETTINGS");
  print("Keys of config.toml, of the daemon. A flag wins over a variable, and that over the file.");
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const auto setting = static_cast<Setting>(index);
    const SettingInfo& info = info_of(setting);
    print(".TP\n.B " + roff(name_of(setting)));
    print(roff("Variable " + or_none(info.environment) + ", flag " + or_none(info.flag) +
               ", default " + (info.fallback.empty() ? "none" : std::string(info.fallback)) +
               "; a reload " + (info.reloads ? "applies it" : "does not apply it") + "."));
    print(roff(info.about) + ".");
  }
  print(".TP\n.B limits.NAME\nFlag \\-\\-limit; claudemesh daemon limits shows the names.");
  print(".SH ENVIRONMENT");
  print("Besides those of the settings:");
  for (const Variable& variable : variables()) {
    print(".TP\n.B " + roff(variable.name) + "\n" + roff(variable.about) + ".");
  }
}

}  // namespace

void declare_completions(CLI::App& app) {
  app.add_option("shell", g_options.shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

int run_completions() {
  if (g_options.shell == "bash") print_bash();
  if (g_options.shell == "zsh") print_zsh();
  if (g_options.shell == "fish") print_fish();
  return 0;
}

int run_man() {
  print(".TH CLAUDEMESH 1 " CM_RELEASE_DATE " \"claudemesh " + std::string(kVersion) + "\"");
  print(".SH NAME");
  print("claudemesh \\- encrypted, durable messages between coding sessions, servers and agents");
  print(".SH SYNOPSIS");
  print(".B claudemesh");
  print(".I verb\n[arguments] [flags]");
  print(".SH DESCRIPTION");
  print(
      "One program in several roles: a broker for a team, a daemon for each user, and the verbs "
      "below. Every verb takes");
  print(".B \\-\\-json");
  print("(stable output for scripts),");
  print(".B \\-\\-quiet");
  print("(data only),");
  print(".B \\-\\-strict");
  print("(start no daemon),");
  print(".B \\-\\-no\\-daemon");
  print("(do without one) and");
  print(".BR \\-\\-help ,");
  print("before the verb or behind it.");
  print(".SH VERBS");
  print_verbs_roff();
  print_exit_codes();
  print_settings_roff();
  print(".SH FILES");
  print(".TP\n.I ~/.claudemesh/config.json\nThe joined meshes and their keys (0600).");
  print(".TP\n.I ~/.claudemesh/config.toml\nSettings of the daemon.");
  print(".TP\n.I ~/.claudemesh/daemon/\nThe daemon's store, socket, token and log.");
  print(".TP\n.I ~/.claudemesh/broker/\nThe broker's store and admin token.");
  return 0;
}

int run_version() {
  if (output().json) {
    ScratchArena scratch(4096);
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("version", kVersion).field("ipc_api", "v1").end_object();
    print_json(text.view());
  } else {
    print("  claudemesh v" + std::string(kVersion));
  }
  return 0;
}

void declare_help(CLI::App& app) {
  app.add_option("verb", g_options.words, "Verbs that begin like this; all by default");
}

int run_help() {
  std::string prefix;
  for (const std::string& word : g_options.words) prefix += (prefix.empty() ? "" : " ") + word;
  const bool known = std::any_of(verbs().begin(), verbs().end(),
                                 [&](const Verb& verb) { return verb.path.starts_with(prefix); });
  if (!known) return report(fail(Err::kUsage, unknown_text(g_options.words)));
  std::size_t used = 0;
  const Verb* const named = find_verb(g_options.words, used);
  if (named != nullptr && used == g_options.words.size() && !output().json) {
    print(help_of(*named));
    return 0;
  }
  if (output().json) {
    ScratchArena scratch(16384);
    TextBuf text(scratch, 4096);
    wire::JsonWriter json(text);
    json.begin_object().key("verbs").begin_array();
    for (const Verb& verb : verbs()) {
      if (!verb.path.starts_with(prefix)) continue;
      json.begin_object().field("verb", verb.path).field("group", verb.group);
      json.field("summary", verb.summary).field("usage", usage_of(verb));
      json.nullable_field("json", json_shape(verb.path)).key("aliases").begin_array();
      for (const Alias& alias : aliases()) {
        if (alias.path == verb.path) json.text(alias.name);
      }
      json.end_array().end_object();
    }
    json.end_array().end_object();
    print_json(text.view());
    return 0;
  }
  print("  " + bold("claudemesh") + " — encrypted, durable messages between coding sessions");
  std::vector<std::vector<std::string>> rows;
  std::string_view group;
  for (const Verb& verb : verbs()) {
    if (!verb.path.starts_with(prefix)) continue;
    if (verb.group != group) {
      print_table(rows);
      rows.clear();
      group = verb.group;
      print("\n  " + bold(group));
    }
    rows.push_back({std::string(verb.path), std::string(verb.summary)});
  }
  print_table(rows);
  print("\n  " + dim("claudemesh <verb> --help shows its flags; --json prints JSON."));
  return 0;
}

}  // namespace cm::cli
