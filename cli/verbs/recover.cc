// recover.cc — daemon recover: a damaged store becomes whole, and says what that costs.
// Holds:  the daemon is stopped, and the store's lock is ours. Nothing is removed before it is in a
//         dump file; a data file whose pages are damaged is copied before it is mended, and one
//         that cannot be read is renamed, never deleted. With --dry-run nothing changes, and a
//         daemon may run beside it. It ends with fsck, and believes nobody else.
// Source: design/delivery.md, "Start-up"; spec/decisions.md.
// Not:    what is damaged and how it is repaired (store/recover.h).
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "cli/ensure_daemon.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/salvage.h"
#include "cli/settings.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"
#include "store/fsck.h"
#include "store/marks.h"
#include "store/pages.h"
#include "store/recover.h"

namespace cm::cli {
namespace {

struct {
  bool dry_run = false;
} g_options;

constexpr std::size_t kShownMost = 1'000;
constexpr const char* kActions[] = {"set aside", "written anew", "its id stays taken, as dead",
                                    "dead"};

struct Outcome {
  std::vector<store::Repair> repairs;
  bool schema_was_damaged = false;
  std::string pages;   // what is wrong below the rows; empty: nothing
  bool fresh = false;  // nothing of the old store is in the one that is there now
  std::string dump, renamed;
  std::uint64_t rows = 0;
};

std::string store_dir() { return daemon_dir() + "/store"; }
std::string data_file() { return store_dir() + "/data.mdb"; }

Result<std::unique_ptr<store::Store>> open_store(ScratchArena& scratch, bool read_only) {
  store::Options options;
  options.directory = store_dir();
  options.role = store::Role::kDaemon;
  options.read_only = read_only;
  options.salvage = true;
  const auto settings = load_settings({});
  Limits limits;
  if (settings) settings->apply_limits(limits);
  options.bound_bytes = limits.store_bound_bytes;
  return store::Store::open(options, scratch);
}

// Reads everything once in a child: pages that are missing or wrong may end a process, not ours.
bool is_readable() {
  const Progress reading("reading the store");
  const pid_t child = ::fork();
  if (child < 0) return true;
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) ::signal(signal, SIG_DFL);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ScratchArena scratch;
    auto opened = open_store(scratch, true);
    if (opened) store::fsck((*opened)->batch(), store::Role::kDaemon, [](auto, auto, auto) {});
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The whole file is unreadable: it is kept under another name, and a fresh one takes its place.
Status start_afresh(Outcome& outcome) {
  if (outcome.pages.empty()) outcome.pages = "reading the file ended the process that read it";
  outcome.fresh = true;
  const bool is_there = ::access(data_file().c_str(), F_OK) == 0;
  if (is_there) outcome.renamed = data_file() + ".corrupt-" + file_stamp();
  if (g_options.dry_run) return {};
  if (is_there && ::rename(data_file().c_str(), outcome.renamed.c_str()) != 0) {
    return fail(Err::kIo, "cannot rename " + data_file() + ": " + std::strerror(errno));
  }
  remove_file(store_dir() + "/lock.mdb");
  store::clear_made_mark(store_dir());
  ScratchArena scratch;
  const auto fresh = open_store(scratch, false);
  return fresh ? Status{} : Status{fresh.error()};
}

Status check_again(store::Store& store, Outcome& outcome) {
  std::string first;
  const store::FsckReport found =
      store::fsck(store.batch(), store::Role::kDaemon,
                  [&](std::string_view table, std::string_view problem, Bytes) {
                    if (first.empty()) first = std::string(table) + ": " + std::string(problem);
                  });
  outcome.rows = found.rows;
  if (found.problems == 0) return {};
  return fail(Err::kInternal, "the store still has " + std::to_string(found.problems) +
                                  " problems after the repair; the first is " + first);
}

// The commit that can still be followed takes the place of the one that cannot. The file as it was
// found is kept beside it.
Status mend(Outcome& outcome) {
  if (store::mend_metas(data_file(), false) != store::Mend::kMended) return start_afresh(outcome);
  outcome.dump = data_file() + ".corrupt-" + file_stamp();
  if (g_options.dry_run) return {};
  std::error_code copied;
  std::filesystem::copy_file(data_file(), outcome.dump, copied);
  if (copied) return fail(Err::kIo, "cannot copy to " + outcome.dump + ": " + copied.message());
  if (store::mend_metas(data_file(), true) != store::Mend::kMended) {
    return fail(Err::kIo, "cannot write the first pages of " + data_file());
  }
  return {};
}

Status recover(Outcome& outcome) {
  ScratchArena scratch;
  const bool readable = is_readable();
  auto opened = readable ? open_store(scratch, g_options.dry_run)
                         : Result<std::unique_ptr<store::Store>>(Err::kCorrupt);
  if (!opened && opened.code() == Err::kCorrupt) {
    outcome.pages = opened.error().detail;
    if (!readable) return start_afresh(outcome);
    if (Status mended = mend(outcome); !mended) return mended;
    if (g_options.dry_run || outcome.fresh) return {};
    opened = open_store(scratch, false);
    if (!opened && opened.code() == Err::kCorrupt) return start_afresh(outcome);
  }
  if (!opened) return opened.error();
  store::Store& store = **opened;
  outcome.schema_was_damaged = store.salvaged();
  outcome.repairs = store::find_damage(store.batch());
  store.abort();  // it only read
  if (g_options.dry_run) return {};
  if (!outcome.repairs.empty()) {
    Dump dump(daemon_dir() + "/store-corrupt-" + file_stamp() + ".dump");
    const std::string reason =
        std::string(store::kCorruptReason) +
        "what was stored of it was damaged and set aside by 'daemon recover'";
    store::repair(store.batch(), outcome.repairs, reason, now_ms(),
                  [&](const store::Repair& one, Bytes value) { dump.add(one, value); });
    if (Status kept = dump.finish(); !kept) return kept;
    if (dump.values() != 0 && outcome.dump.empty()) outcome.dump = dump.path();
    if (store.commit() > store::CommitResult::kCommitted) {
      return fail(Err::kStoreFailed, store.last_error_text());
    }
  }
  return check_again(store, outcome);
}

// A daemon that has just refused to start may hold the lock for another moment.
bool has_ended() {
  constexpr int kTries = 20;
  constexpr int kPauseMs = 50;
  for (int tries = 0; tries < kTries && daemon_is_alive(); ++tries) ::poll(nullptr, 0, kPauseMs);
  return !daemon_is_alive();
}

bool loses_id(const store::Repair& repair) {
  return repair.kind == store::RepairKind::kEntomb || repair.kind == store::RepairKind::kKill;
}

void print_document(const Outcome& outcome) {
  ScratchArena scratch;
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("dry_run", g_options.dry_run);
  json.key("problems").begin_array();
  if (!outcome.pages.empty()) {
    json.begin_object().field("table", "pages").field("problem", outcome.pages).field("key", "");
    json.field("action",
               outcome.fresh ? "the whole file is set aside" : "the last whole commit is taken");
    json.end_object();
  }
  for (std::size_t at = 0; at < outcome.repairs.size() && at < kShownMost; ++at) {
    const store::Repair& one = outcome.repairs[at];
    json.begin_object().field("table", store::info_of(one.table).name);
    json.field("problem", one.what).key("key").hex(one.key);
    json.field("action", kActions[static_cast<std::size_t>(one.kind)]).end_object();
  }
  json.end_array();
  json.field("problem_count", outcome.repairs.size() + (outcome.pages.empty() ? 0 : 1));
  json.key("lost_ids").begin_array();
  for (const store::Repair& one : outcome.repairs) {
    if (loses_id(one)) json.text(one.client_id);
  }
  json.end_array().field("schema_was_damaged", outcome.schema_was_damaged);
  json.nullable_field("dump", outcome.dump).nullable_field("renamed", outcome.renamed);
  json.field("rows", outcome.rows).end_object();
  print_json(text.view());
}

void tell(const Outcome& outcome) {
  if (outcome.fresh) {
    print("  " + harmless(outcome.pages));
    if (!outcome.renamed.empty()) {
      say("the data file cannot be read; it " + std::string(g_options.dry_run ? "would be" : "is") +
          " kept as " + outcome.renamed);
    }
    say("a fresh store " + std::string(g_options.dry_run ? "would take" : "has taken") +
        " its place. Lost with the old one: messages that were not sent yet, the inbox, and which "
        "ids were used: a client that sends again under an old id sends a second message");
    return;
  }
  if (!outcome.pages.empty()) {
    print("  " + harmless(outcome.pages));
    say("the last commit that is whole " +
        std::string(g_options.dry_run ? "would be taken" : "is taken") +
        "; if the damage was to a newer one, what that one commit stored is lost");
  }
  for (std::size_t at = 0; at < outcome.repairs.size() && at < kShownMost; ++at) {
    const store::Repair& one = outcome.repairs[at];
    print("  " + std::string(store::info_of(one.table).name) + ": " + one.what + ": " +
          kActions[static_cast<std::size_t>(one.kind)] + "  " + dim(harmless(one.client_id)));
  }
  if (outcome.repairs.size() > kShownMost) {
    say("and " + std::to_string(outcome.repairs.size() - kShownMost) + " more");
  }
  if (outcome.schema_was_damaged)
    say("the schema version was damaged; it is taken for the current");
  if (!outcome.dump.empty()) {
    say("what could not be read " + std::string(g_options.dry_run ? "would be" : "is") + " in " +
        outcome.dump);
  }
  const std::size_t count = outcome.repairs.size() + (outcome.pages.empty() ? 0 : 1);
  const bool nothing = count == 0 && !outcome.schema_was_damaged;
  const std::string problems = counted(static_cast<std::int64_t>(count), "problem");
  if (g_options.dry_run) {
    say(nothing ? "nothing is damaged" : problems + "; without --dry-run they are repaired");
  } else {
    say_done(nothing ? std::to_string(outcome.rows) + " rows, nothing was damaged"
                     : problems + " repaired; " + std::to_string(outcome.rows) +
                           " rows are whole, and the daemon can start");
  }
}

}  // namespace

void declare_daemon_recover(CLI::App& app) {
  app.add_flag("--dry-run", g_options.dry_run, "Say what is damaged; change nothing");
}

int run_daemon_recover() {
  struct stat info {};
  if (::stat(data_file().c_str(), &info) != 0 && !store::was_made(store_dir())) {
    return report(fail(Err::kNotFound, "there is no store in " + store_dir()),
                  "it is made by the first start; is it another folder?");
  }
  if (!g_options.dry_run && !has_ended()) {
    return report(fail(Err::kAlreadyRunning, "'daemon recover' needs the daemon stopped"));
  }
  Outcome outcome;
  if (Status done = recover(outcome); !done) return report(done.error());
  if (output().json) {
    print_document(outcome);
  } else {
    tell(outcome);
  }
  const bool damaged =
      !outcome.repairs.empty() || outcome.schema_was_damaged || !outcome.pages.empty();
  return g_options.dry_run && damaged ? info_of(Err::kCorrupt).exit_code : 0;
}

}  // namespace cm::cli
