// runtime.h — what the two long-running roles share: the log, start-up checks, store opening.
// Owns:   Runtime (clock, log sink, arenas, limits, metrics), BrokerOptions, DaemonOptions.
// Holds:  standard output of a role is JSON lines and nothing else; so is its log file.
// Not:    the loops themselves (run_broker.cc, run_daemon.cc).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/files.h"
#include "cli/settings.h"
#include "core/base/arena.h"
#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/base/result.h"
#include "core/net/server.h"
#include "core/wire/http_request.h"
#include "store/store.h"

namespace cm::cli {

extern const char* const kVersion;

struct Runtime {
  Runtime();
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  Limits limits;
  Metrics metrics;
  Log log;
  ScratchArena scratch;
  BufferPool pool;
  Env env;
  std::string log_path;  // empty: standard output
  int log_fd = 1;
};

// Lines go to this file from now on (0600, appended); empty: nothing changes.
Status open_log(Runtime& runtime, const std::string& path);
// Whether open_log() would succeed, for who starts a role in another process.
Status check_log(const std::string& path);
// SIGHUP: the file may have been renamed. The old one is kept if no new one can be made. Standard
// output and error follow if they were the same file, so that a crash report is found there too.
void reopen_log(Runtime& runtime);

// What files.h has to say goes into the log, which has to outlive it.
Warn log_warnings(const Log& log);

// Descriptor limit, random source, memory bill. Every role runs it first.
Status prepare(Runtime& runtime, const MemoryBill& bill);
Result<std::unique_ptr<store::Store>> open_store(Runtime& runtime, const std::string& directory,
                                                 store::Role role, store::Durability durability);
void export_store_metrics(Runtime& runtime, store::Store& store);
// SIGUSR1: tells what verify_all() found (null: nothing), and ends its reading of the store.
void log_verification(const Runtime& runtime, store::Store& store, const char* problem);
wire::HttpRequest to_core(const net::NetEvent& event);
// The last lines of a role that can not go on: nobody knows what is on disk.
[[noreturn]] void die_broken(const Runtime& runtime, const store::Store& store);

struct BrokerOptions {
  std::string listen = "127.0.0.1:7900";
  std::string data;
  std::string public_url;
  std::string durability = "sync";
  bool insecure_plaintext = false;
  std::vector<std::string> limits;  // NAME=VALUE, cli/limit_option.h
  std::string tls_certificate;      // both or neither
  std::string tls_key;
  std::string log_file;
};
int run_broker(const BrokerOptions& options);

struct DaemonOptions {
  Settings settings;
  FlagValues flags;   // a reload reads file and environment again below these
  int ready_fd = -1;  // "ok" or an error line goes here once the outcome of the start is known
};
int run_daemon(const DaemonOptions& options);
// Tells who started us, and a person, why there will be no daemon. The exit status.
int give_up(const DaemonOptions& options, const Error& error);

}  // namespace cm::cli
