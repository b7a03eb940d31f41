// daemon.cc — daemon up, down, status, limits, fsck.
// Holds:  `up` answers when the outcome is known, and tells the truth: the child reports over a
//         pipe once its socket serves, or why it does not. `down` signals the process that holds
//         the socket, never a number from a file.
// Source: spec/cli.md §16.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "cli/broker_url.h"
#include "cli/ensure_daemon.h"
#include "cli/files.h"
#include "cli/fsck.h"
#include "cli/http.h"
#include "cli/limit_option.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/query.h"
#include "cli/runtime.h"
#include "cli/verbs.h"
#include "core/net/socket.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  FlagValues flags;
  bool foreground = false;
  bool broker = false;
} g_options;

constexpr int kStartMs = 10'000;
constexpr int kStopMs = 5'000;
constexpr const char* kReadyFd = "CLAUDEMESH_READY_FD";

// The pid that serves the socket, by the kernel's word; 0 if nobody does.
pid_t serving_pid() {
  bool retry = false;
  const auto fd = net::connect_unix(socket_path(), retry);
  return fd ? net::peer_of(fd->get()).pid : 0;
}

std::string log_file_of_child(const Settings& settings) {
  const std::string& path = settings.text(Setting::kLogFile);
  return path.empty() ? daemon_dir() + "/daemon.log" : path;
}

int print_started(pid_t pid, const std::string& log, bool already) {
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("detached", true).field("pid", pid);
  json.nullable_field("log", log);
  if (already) json.field("already_running", true);
  json.end_object();
  print_json(text.view());
  return 0;
}

void print_stopped(pid_t pid) {
  ScratchArena scratch;
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_object().field("ok", true).field("stopped", pid > 0).key("pid");
  if (pid > 0) {
    json.number(pid);
  } else {
    json.null().field("reason", "not_running");
  }
  json.end_object();
  print_json(text.view());
}

// In the child: detached from the terminal, its lines in daemon.log.
[[noreturn]] void become_daemon(int ready_fd, const std::string& log) {
  ::setsid();
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (null < 0 || out < 0) ::_exit(info_of(Err::kIo).exit_code);
  ::dup2(null, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::fcntl(ready_fd, F_SETFD, 0);
  ::setenv(kReadyFd, std::to_string(ready_fd).c_str(), 1);
  const std::string exe = exe_path();
  // It reads file and environment itself, as a reload will.
  FlagValues flags = g_options.flags;
  flags.values[static_cast<std::size_t>(Setting::kLogFile)] = log;
  std::vector<std::string> words = {exe, "daemon", "up", "--foreground"};
  for (std::string& word : flags.words()) words.push_back(std::move(word));
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(exe.c_str(), arguments.data());
  ::_exit(info_of(Err::kIo).exit_code);
}

// What the child wrote before it closed the pipe, or nothing within the time.
std::string wait_for_child(int fd) {
  const Progress starting("starting the daemon");
  std::string text;
  pollfd entry{fd, POLLIN, 0};
  while (::poll(&entry, 1, kStartMs) > 0) {
    char chunk[512];
    const ssize_t size = ::read(fd, chunk, sizeof chunk);
    if (size <= 0) break;
    text.append(chunk, static_cast<std::size_t>(size));
    if (text.find('\n') != std::string::npos) break;
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// A daemon whose only mesh is refused ends by itself as soon as it hears that. Why it ended, if it
// does so while its brokers have not answered yet; a broker that is far away is not waited for.
std::string early_end(pid_t child) {
  constexpr int kTries = 15;
  constexpr int kPauseMs = 20;
  for (int tries = 0; tries < kTries; ++tries) {
    if (::waitpid(child, nullptr, WNOHANG) == child) {
      const std::string why = spawn_failure();
      return why.empty() ? "see its log" : why;
    }
    const auto health = daemon_call_raw("GET", "/v1/health");
    const wire::JsonNode* meshes = health ? array_of(*health, "meshes") : nullptr;
    bool settled = meshes != nullptr;
    if (meshes != nullptr) {
      each_of(*health, *meshes, [&](const wire::JsonNode& mesh) {
        const std::string_view negotiation = text_of(health->tape, mesh, "negotiation");
        const bool is_open = text_of(health->tape, mesh, "state") == "open";
        settled = settled && is_open && negotiation != "asked" && negotiation != "unknown";
      });
    }
    if (settled) break;
    ::poll(nullptr, 0, kPauseMs);
  }
  return {};
}

int start_detached(const Settings& settings) {
  const std::string log = log_file_of_child(settings);
  if (Status made = make_private_dir(daemon_dir()); !made) return report(made.error());
  if (Status usable = check_log(log); !usable) return report(usable.error());
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) {
    return report(fail(Err::kIo, std::string("pipe: ") + std::strerror(errno)));
  }
  const pid_t child = ::fork();
  if (child < 0) return report(fail(Err::kIo, std::string("fork: ") + std::strerror(errno)));
  if (child == 0) become_daemon(pipe_fds[1], log);
  ::close(pipe_fds[1]);
  const std::string outcome = wait_for_child(pipe_fds[0]);
  ::close(pipe_fds[0]);
  if (outcome == "ok") {
    clear_spawn_failure();
    if (const std::string why = early_end(child); !why.empty()) {
      return report_as({}, fail(Err::kUnavailable, "the daemon ended at once: " + why),
                       "\"reason\":\"ended_at_once\"");
    }
    if (output().json) return print_started(child, log, false);
    say_done("daemon runs, pid " + std::to_string(child));
    say("log " + log);
    return 0;
  }
  // "<wire code> <detail>", or nothing at all.
  const std::size_t space = outcome.find(' ');
  const Err code = err_of_wire_code(outcome.substr(0, space));
  const std::string detail =
      outcome.empty() ? "it did not report within 10 s; see " + log
                      : outcome.substr(space == std::string::npos ? outcome.size() : space + 1);
  if (outcome.empty()) {
    return report_as({}, fail(Err::kTimeout, detail), "\"reason\":\"socket_not_appeared\"");
  }
  return report_as({}, fail(code, detail),
                   "\"reason\":\"" + std::string(info_of(code).wire_code) + "\"");
}

// What the broker can: "negotiated", "legacy", or nothing while nobody knows.
std::string negotiation_of(const Reply& reply, const wire::JsonNode& mesh) {
  const std::string_view word = text_of(reply.tape, mesh, "negotiation");
  return text_of(reply.tape, mesh, "state") == "open" ? std::string(word) : std::string();
}

std::string value_of(const wire::JsonNode& node) {
  switch (node.type) {
    case wire::JsonType::kText: return harmless(node.text);
    case wire::JsonType::kInteger: return std::to_string(node.integer);
    case wire::JsonType::kBool: return node.boolean ? "true" : "false";
    default: return "?";
  }
}

// "concurrent_connection_policy policy=prefer_newest", a line for each feature.
void print_features(const Reply& reply, const wire::JsonNode& mesh) {
  const wire::JsonNode* features = reply.tape.find(mesh, "features");
  if (features == nullptr || features->type != wire::JsonType::kObject) return;
  each_of(reply, *features, [&](const wire::JsonNode& feature) {
    std::string line = "  " + harmless(feature.key);
    if (feature.type == wire::JsonType::kObject) {
      each_of(reply, feature, [&](const wire::JsonNode& param) {
        line += " " + harmless(param.key) + "=" + value_of(param);
      });
    }
    say(dim(line));
  });
}

void print_negotiated(const Reply& reply, const wire::JsonNode& mesh) {
  const auto number = [&](std::string_view key) {
    const wire::JsonNode* node = reply.tape.find(mesh, key);
    return std::to_string(node != nullptr ? node->integer : 0);
  };
  const std::string negotiation = negotiation_of(reply, mesh);
  if (negotiation.empty()) return;
  const std::string slug(text_of(reply.tape, mesh, "slug"));
  say(slug + ": " + negotiation +
      (negotiation == "legacy" ? " (the broker negotiates nothing and dedupes nothing)" : "") +
      "; frames of at most " + number("inline_bytes") +
      " bytes; undelivered messages are dead "
      "after " +
      number("outbox_max_age_hours") + " h");
  print_features(reply, mesh);
}

// Only what is not as it should be: nobody reads "normal".
void print_pressure(const Reply& reply) {
  const wire::JsonNode* pressure = reply.tape.find("pressure");
  if (pressure == nullptr || pressure->type != wire::JsonType::kObject) return;
  const auto number = [&](std::string_view key) {
    const wire::JsonNode* node = reply.tape.find(*pressure, key);
    return node != nullptr ? node->integer : 0;
  };
  const std::string_view level = text_of(reply.tape, *pressure, "level");
  const wire::JsonNode* takes = reply.tape.find(*pressure, "takes_sends");
  const bool refuses = takes != nullptr && !takes->boolean;
  if (level == "normal" && !refuses && number("tombstones_pct") < 80) return;
  say("warning: disk pressure " + std::string(level) + ": store " +
      std::to_string(number("store_pct")) + " %, outbox rows " +
      std::to_string(number("rows_pct")) + " %, ids of past messages " +
      std::to_string(number("tombstones_pct")) + " %" +
      (refuses ? "; new messages are refused (507), what is there is still sent" : "") +
      (level == "degraded" ? "; no event stream is opened" : ""));
}

void print_health(const Reply& reply) {
  say_done("daemon runs, pid " +
           std::to_string(reply.tape.find("pid") != nullptr ? reply.tape.find("pid")->integer : 0));
  const wire::JsonNode* meshes = reply.tape.find("meshes");
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> remedies;
  if (meshes != nullptr && meshes->type == wire::JsonType::kArray) {
    for (std::uint32_t at = reply.tape.first(*meshes); at < meshes->next;
         at = reply.tape.at(at).next) {
      const wire::JsonNode& mesh = reply.tape.at(at);
      const auto field = [&](std::string_view key) { return text_of(reply.tape, mesh, key); };
      rows.push_back({bold(field("slug")), std::string(field("state")), negotiation_of(reply, mesh),
                      dim(field("broker_url")), harmless(field("last_error"))});
      const std::string_view remedy = link_remedy(field("last_error"));
      if (field("state") != "open" && !remedy.empty()) {
        remedies.push_back(std::string(field("slug")) + ": " + std::string(remedy));
      }
    }
  }
  print_table(rows);
  if (meshes != nullptr && meshes->type == wire::JsonType::kArray) {
    each_of(reply, *meshes, [&](const wire::JsonNode& mesh) { print_negotiated(reply, mesh); });
  }
  for (const std::string& remedy : remedies) say(remedy);
  const auto number = [&](std::string_view key) {
    const wire::JsonNode* node = reply.tape.find(key);
    return std::to_string(node != nullptr ? node->integer : 0);
  };
  say("outbox " + number("queue_depth") + " undelivered, " + number("inflight") +
      " in flight; durability " + std::string(reply.text("durability")) + "; up " +
      number("uptime_s") + " s");
  print_pressure(reply);
  if (const wire::JsonNode* warnings = array_of(reply, "warnings"); warnings != nullptr) {
    each_of(reply, *warnings, [](const wire::JsonNode& warning) {
      if (warning.type == wire::JsonType::kText) say("warning: " + harmless(warning.text));
    });
  }
  if (!reply.boolean("secrets_locked")) {
    say("warning: keys could not be locked in memory; raise RLIMIT_MEMLOCK");
  }
}

}  // namespace

void declare_daemon_up(CLI::App& app) {
  app.add_flag("--foreground", g_options.foreground, "Stay in this terminal; log to stdout");
  declare_settings(app, g_options.flags);
}

void declare_config(CLI::App& app) { declare_settings(app, g_options.flags); }
const FlagValues& daemon_flags() { return g_options.flags; }

int run_daemon_up() {
  if (!g_options.foreground) {
    if (const pid_t pid = serving_pid(); pid > 0) {
      if (output().json) {
        const auto settings = load_settings(g_options.flags);
        return print_started(pid, settings ? log_file_of_child(*settings) : "", true);
      }
      say_done("daemon already runs, pid " + std::to_string(pid));
      return 0;
    }
    const auto settings = load_settings(g_options.flags);
    return settings ? start_detached(*settings) : report(settings.error());
  }
  DaemonOptions options;
  options.flags = g_options.flags;
  if (const char* fd = std::getenv(kReadyFd); fd != nullptr) {
    options.ready_fd = std::atoi(fd);
    ::unsetenv(kReadyFd);
    ::fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
  }
  auto settings = load_settings(g_options.flags);
  if (!settings) return give_up(options, settings.error());
  options.settings = std::move(*settings);
  return run_daemon(options);
}

Result<pid_t> stop_daemon() {
  const pid_t pid = serving_pid();
  if (pid <= 0) return pid_t{0};
  // The descriptor names the process even if its number is given to another one meanwhile.
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (process < 0 || ::syscall(SYS_pidfd_send_signal, process, SIGTERM, nullptr, 0) != 0) {
    return fail(Err::kIo, "cannot signal the daemon: " + std::string(std::strerror(errno)));
  }
  pollfd entry{process, POLLIN, 0};
  std::optional<Progress> stopping("stopping the daemon");
  const bool ended = ::poll(&entry, 1, kStopMs) > 0;
  stopping.reset();
  ::close(process);
  if (!ended) return fail(Err::kTimeout, "the daemon is still stopping");
  return pid;
}

int run_daemon_down() {
  const auto pid = stop_daemon();
  if (!pid) return report(pid.error());
  if (output().json) {
    print_stopped(*pid);
    return 0;
  }
  if (*pid > 0) {
    say_done("daemon stopped, pid " + std::to_string(*pid));
  } else {
    say("no daemon is running");
  }
  return 0;
}

// One document with --json: that of the daemon that runs now.
int run_daemon_restart() {
  // What could not be started again is not stopped.
  if (const auto settings = load_settings(g_options.flags); !settings) {
    return report(settings.error());
  }
  const auto pid = stop_daemon();
  if (!pid) return report(pid.error());
  if (!output().json && *pid > 0) say_done("daemon stopped, pid " + std::to_string(*pid));
  return run_daemon_up();
}

namespace {

bool is_every_broker_open(const Reply& reply) {
  const wire::JsonNode* meshes = reply.tape.find("meshes");
  if (meshes == nullptr || meshes->type != wire::JsonType::kArray) return false;
  for (std::uint32_t at = reply.tape.first(*meshes); at < meshes->next;
       at = reply.tape.at(at).next) {
    if (text_of(reply.tape, reply.tape.at(at), "state") != "open") return false;
  }
  return true;
}

// `needs_brokers`: 1 also while one of them cannot be reached.
int show_status(bool needs_brokers) {
  const auto reply = daemon_call_raw("GET", "/v1/health");
  if (!reply) {
    if (output().json && reply.code() == Err::kUnavailable) {
      print_json(R"({"running":false})");
      return 1;
    }
    report(reply.error());
    return 1;
  }
  if (output().json) {
    const wire::JsonNode* pid = reply->tape.find("pid");
    print_json("{\"running\":true,\"pid\":" + std::to_string(pid != nullptr ? pid->integer : 0) +
               ",\"health\":" + reply->body + "}");
  } else {
    print_health(*reply);
  }
  return needs_brokers && !is_every_broker_open(*reply) ? 1 : 0;
}

}  // namespace

int run_daemon_status() { return show_status(false); }
int run_status() { return show_status(true); }

void declare_daemon_limits(CLI::App& app) {
  app.add_flag("--broker", g_options.broker, "Those of the broker instead");
}

int run_daemon_limits() {
  Limits limits;
  if (!g_options.broker) {
    const auto settings = load_settings({});
    if (!settings) return report(settings.error());
    settings->apply_limits(limits);
  }
  const MemoryBill bill = g_options.broker ? broker_bill(limits) : daemon_bill(limits);
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch, 2048);
    wire::JsonWriter json(text);
    json.begin_object().key("bill").begin_array();
    for (std::size_t index = 0; index < bill.count; ++index) {
      json.begin_object().field("what", bill.lines[index].what);
      json.field("bytes", bill.lines[index].bytes).end_object();
    }
    json.end_array().field("total_bytes", bill.total());
    json.field("budget_bytes", limits.memory_budget_bytes);
    json.field("store_bound_bytes", limits.store_bound_bytes).key("limits").begin_object();
    for (const auto& [name, value] : list_limits(limits)) json.field(name, value);
    json.end_object().end_object();
    print_json(text.view());
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (std::size_t index = 0; index < bill.count; ++index) {
    rows.push_back({std::to_string(bill.lines[index].bytes / 1024) + " KiB",
                    std::string(bill.lines[index].what)});
  }
  rows.push_back({bold(std::to_string(bill.total() / 1024) + " KiB"), "all of it, at most"});
  rows.push_back({std::to_string(limits.memory_budget_bytes / 1024) + " KiB", "memory budget"});
  rows.push_back({std::to_string(limits.store_bound_bytes / 1024) + " KiB",
                  "admission bound of the store, on disk"});
  print_table(rows);
  say("\nlimits, for --limit NAME=VALUE and [limits] of config.toml:");
  rows.clear();
  for (const auto& [name, value] : list_limits(limits)) {
    rows.push_back({std::string(name), std::to_string(value)});
  }
  print_table(rows);
  return 0;
}

int run_daemon_fsck() { return run_fsck(daemon_dir() + "/store", store::Role::kDaemon); }

}  // namespace cm::cli
