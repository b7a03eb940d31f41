// output.h — what a person or a script sees: data on stdout, talk on stderr.
// Owns:   the --json and --quiet switches, colours, tables, relative times, the error form.
// Holds:  colour only on a terminal without NO_COLOR; an error names what failed, what it means
//         and what to do next, and sets the exit status of its row in core/base/errors.h.
// Source: spec/cli.md §2, §3.
// Not:    the verbs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/json_form.h"
#include "core/base/result.h"

namespace cm::cli {

struct Output {
  bool json = false;
  bool quiet = false;
  std::vector<std::string> members;  // of --json=NAME,NAME; all when empty
  std::string candidates;            // of an ambiguous target, a JSON list for report()
  JsonForm form = JsonForm::kLine;   // of the verb that runs (cli/verbs.h)
};
Output& output();

// stdout, with a newline. On a terminal nothing in it acts but the styles below: control
// characters and what turns the direction of text are replaced, in JSON escaped.
void print(std::string_view text);
// Hands on what print() has kept so far. Not ok if any of it was lost, ever since: kIo says why;
// kTransport says that the reader has gone, as `head` does, which is no mistake of anybody.
Status flush_output();
// A document on stdout, in the form of the verb that runs.
void print_json(std::string_view json);
void say(std::string_view text);       // stderr, unless --quiet
void say_done(std::string_view text);  // stderr with a mark, unless --quiet
// Prints the error in the mode of the call and answers its exit status.
int report(const Error& error);
// The same where the verb knows better than the error's row what to do about a kNotFound.
int report(const Error& error, std::string_view when_not_found);
// The same with another word in `error`, and more members behind it ("\"via\":\"daemon\"").
int report_as(std::string_view word, const Error& error, std::string_view more,
              std::string_view when_not_found = {});

std::string dim(std::string_view text);
std::string bold(std::string_view text);

// Columns are aligned by what a terminal shows (wide characters take two, combining ones none);
// the last one is not padded.
void print_table(std::vector<std::vector<std::string>> rows);
// "3 s ago", "2 min ago", "5 h ago", "4 d ago".
std::string ago(std::uint64_t then_ms, std::uint64_t now_ms);
std::uint64_t now_ms();
// "1 member", "2 members".
std::string counted(std::int64_t number, std::string_view thing);

// One line of what a peer sent, also for a pipe: control characters and line feeds are gone.
std::string harmless(std::string_view utf8);

}  // namespace cm::cli
