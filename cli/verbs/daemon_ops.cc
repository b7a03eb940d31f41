// daemon_ops.cc — daemon version, logs, restart, reload, rotate-token, accept-host.
// Holds:  what these print is the daemon's own answer; `logs -f` follows a rotated file.
// Source: spec/cli.md §16.
// Not:    up, down and status (daemon.cc).
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstring>

#include "cli/files.h"
#include "cli/host_identity.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/settings.h"
#include "cli/verbs.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

struct {
  bool follow = false;
  int lines = 50;
} g_options;

constexpr int kFollowMs = 250;

// Where the last `lines` lines of the file begin.
off_t tail_start(int fd, off_t size, int lines) {
  char chunk[4096];
  off_t at = size;
  int seen = 0;
  while (at > 0) {
    const auto want = static_cast<std::size_t>(std::min<off_t>(at, sizeof chunk));
    at -= static_cast<off_t>(want);
    if (::pread(fd, chunk, want, at) != static_cast<ssize_t>(want)) return 0;
    for (std::size_t index = want; index > 0; --index) {
      const bool ends_file = at + static_cast<off_t>(index) == size;
      if (chunk[index - 1] == '\n' && !ends_file && ++seen == lines) {
        return at + static_cast<off_t>(index);
      }
    }
  }
  return 0;
}

// Whole lines; `rest` keeps the beginning of the one that is being written.
void copy_from(int fd, off_t& at, std::string& rest) {
  char chunk[16384];
  for (ssize_t size = 0; (size = ::pread(fd, chunk, sizeof chunk, at)) > 0; at += size) {
    rest.append(chunk, static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = rest.find('\n', begin)) != std::string::npos;) {
      print(std::string_view(rest).substr(begin, end - begin));
      begin = end + 1;
    }
    rest.erase(0, begin);
  }
}

// Where a detached daemon of these settings writes.
Result<std::string> log_path() {
  const auto settings = load_settings({});
  if (!settings) return settings.error();
  const std::string& named = settings->text(Setting::kLogFile);
  return named.empty() ? daemon_dir() + "/daemon.log" : named;
}

int print_reply(const Result<Reply>& reply, const std::string& done) {
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
  } else {
    say_done(done);
  }
  return 0;
}

}  // namespace

int run_daemon_version() {
  const auto reply = daemon_call_raw("GET", "/v1/version");
  if (!reply) return report(reply.error());
  if (output().json) {
    print_json(reply->body);
  } else {
    print("  daemon v" + std::string(reply->text("daemon_version")) + ", IPC " +
          std::string(reply->text("ipc_api")));
  }
  return 0;
}

void declare_daemon_logs(CLI::App& app) {
  app.add_flag("-f,--follow", g_options.follow, "Go on with what comes");
  app.add_option("-n,--lines", g_options.lines, "So many lines from the end")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
}

int run_daemon_logs() {
  const auto found = log_path();
  if (!found) return report(found.error());
  const std::string& path = *found;
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0) {
    if (fd >= 0) ::close(fd);
    return report(
        fail(Err::kNotFound, path + " (a daemon in the foreground logs to its terminal)"));
  }
  off_t at = g_options.lines == 0 ? info.st_size : tail_start(fd, info.st_size, g_options.lines);
  std::string rest;
  copy_from(fd, at, rest);
  while (g_options.follow && flush_output()) {
    ::poll(nullptr, 0, kFollowMs);
    copy_from(fd, at, rest);
    struct stat now {};
    if (::stat(path.c_str(), &now) != 0 || (now.st_ino == info.st_ino && now.st_size >= at)) {
      continue;
    }
    const int next = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (next < 0) continue;
    ::close(fd);
    fd = next;
    info = now;
    at = 0;
  }
  ::close(fd);
  return 0;
}

int run_daemon_reload() {
  const auto reply = daemon_call_raw("POST", "/v1/reload", "{}");
  const int status = print_reply(reply, "the daemon has read its configuration again");
  if (status != 0 || output().json) return status;
  const wire::JsonNode* waiting = reply->tape.find("settings_need_restart");
  if (waiting == nullptr || waiting->type != wire::JsonType::kArray) return 0;
  for (std::uint32_t at = reply->tape.first(*waiting); at < waiting->next;
       at = reply->tape.at(at).next) {
    say("warning: " + harmless(reply->tape.at(at).text) + " waits for 'claudemesh daemon restart'");
  }
  return 0;
}

int run_daemon_rotate_token() {
  return print_reply(daemon_call_raw("POST", "/v1/token/rotate", "{}"),
                     "the local token is new; the old one is valid for another 60 s");
}

int run_daemon_accept_host() {
  const HostIdentity host = find_host_identity();
  if (!host.known()) {
    return report(fail(Err::kIo,
                       "/etc/machine-id is missing and no network card has an address: this "
                       "machine cannot be told from others"));
  }
  if (Status written = write_host(host, now_ms()); !written) return report(written.error());
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", true).field("fingerprint_prefix", host.prefix()).end_object();
    print_json(text.view());
  } else {
    say_done("this machine is accepted (" + host.prefix() + ")");
  }
  return 0;
}

}  // namespace cm::cli
