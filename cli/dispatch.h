// dispatch.h — from the words of a command line to a verb with its flags read.
// Owns:   find_verb, read_flags, help_of, unknown_text, run_words.
// Holds:  reading flags changes the option structs of the verbs and nothing else: no file, socket
//         or process. No exception leaves, whatever the words are.
// Why:    apart from main(), so that a fuzzer can read command lines without running them.
// Source: spec/cli.md §1, §2.
// Not:    any verb's work (verbs_*.cc).
#pragma once

#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/base/result.h"

namespace cm::cli {

// The verb whose path begins the words, the longest one; `used` counts the words of that path.
// Null if there is none. The verb is a row of the table and lives as long as the program.
const Verb* find_verb(const std::vector<std::string>& words, std::size_t& used);

// Lets the verb's declaration read what follows its path. True if the words asked for help; then
// `help` is that text. kUsage with CLI11's sentence; kInvalidArgument names what was given empty.
Result<bool> read_flags(const Verb& verb, std::vector<std::string> arguments, std::string& help);

// What `claudemesh <verb> --help` prints.
std::string help_of(const Verb& verb);

// "'sned' is no verb; did you mean 'send'?", with all verbs of the group if the first word is one.
std::string unknown_text(const std::vector<std::string>& words);

// A whole command line without the program's name: its exit status.
int run_words(std::vector<std::string> words);

}  // namespace cm::cli
