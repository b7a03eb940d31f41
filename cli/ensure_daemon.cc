// ensure_daemon.cc — the steps between "no answer" and an answer.
#include "cli/ensure_daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "cli/files.h"
#include "cli/http.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/settings.h"

namespace cm::cli {
namespace {

constexpr std::uint32_t kProbeMs = 2'500;
constexpr std::uint64_t kServiceMs = 8'000;
constexpr std::uint64_t kBusyMs = 10'000;
constexpr std::uint64_t kMarkerMs = 30'000;
constexpr int kPollMs = 150;

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && std::strcmp(value, "1") == 0;
}

void pause_ms(int ms) { ::poll(nullptr, 0, ms); }

bool answers(std::uint32_t timeout_ms) {
  return static_cast<bool>(daemon_call_raw("GET", "/v1/version", {}, timeout_ms));
}

// Waits as long as `goes_on` says so, and no longer than `ms`.
template <class GoesOn>
bool answers_within(std::uint64_t ms, const char* what, GoesOn goes_on) {
  const Progress waiting(what);
  const std::uint64_t end = now_ms() + ms;
  do {
    if (answers(kProbeMs)) return true;
    pause_ms(kPollMs);
  } while (now_ms() < end && goes_on());
  return false;
}

// A unit of systemd's user manager, as `install-service` writes it.
bool is_service_managed() {
  struct stat info {};
  const std::string unit = home_dir() + "/.config/systemd/user/claudemesh-daemon.service";
  return ::stat(unit.c_str(), &info) == 0;
}

std::string marker_path() { return daemon_dir() + "/.spawn-failure"; }

// Nanoseconds; 0 where there is no file.
std::int64_t written_at(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return 0;
  return static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
}

// Whoever followed the remedy (joined a mesh, mended a setting) wrote one of these since.
bool is_outdated(std::int64_t marker) {
  return marker <= written_at(config_dir() + "/config.json") ||
         marker <= written_at(settings_path());
}

bool failed_lately() {
  const std::int64_t marker = written_at(marker_path());
  if (marker == 0 || is_outdated(marker)) return false;
  const std::int64_t age = static_cast<std::int64_t>(now_ms()) - marker / 1'000'000;
  return age >= 0 && age < static_cast<std::int64_t>(kMarkerMs);
}

// `claudemesh daemon up` answers when the outcome is known; its own error is the reason.
Status spawn() {
  const std::string exe = exe_path();
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return fail(Err::kIo, std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) return fail(Err::kIo, std::strerror(errno));
  if (child == 0) {
    ::dup2(pipe_fds[1], STDOUT_FILENO);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDERR_FILENO);
    ::setenv("CLAUDEMESH_INTERNAL_NO_AUTOSPAWN", "1", 1);
    ::execl(exe.c_str(), exe.c_str(), "daemon", "up", "--json", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::close(pipe_fds[1]);
  std::string text;
  char chunk[1024];
  for (ssize_t size = 0; (size = ::read(pipe_fds[0], chunk, sizeof chunk)) > 0;) {
    text.append(chunk, static_cast<std::size_t>(size));
    if (text.find('\n') != std::string::npos) break;
  }
  ::close(pipe_fds[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const Error why = error_of_text(text);
  note_spawn_failure(why.detail);  // without it the next verb tries again at once
  return why;
}

Status start_under_lock() {
  if (Status made = make_private_dir(daemon_dir()); !made) return made;
  const std::string path = daemon_dir() + "/.spawn.lock";
  const int lock = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) return fail(Err::kIo, "cannot open " + path);
  Status done;
  if (::flock(lock, LOCK_EX) != 0) {
    done = fail(Err::kIo, "cannot lock " + path);
  } else if (!answers(kProbeMs)) {  // whoever held the lock before us may have started it
    done = spawn();
    if (done) say("info: the daemon was started");
  }
  ::close(lock);
  return done;
}

}  // namespace

DaemonPolicy& daemon_policy() {
  static DaemonPolicy policy;
  return policy;
}

DaemonMode daemon_mode() {
  const DaemonPolicy& policy = daemon_policy();
  if (policy.no_daemon) return DaemonMode::kNone;
  if (policy.strict) return DaemonMode::kStrict;
  if (is_set("CLAUDEMESH_NO_DAEMON")) return DaemonMode::kNone;
  return is_set("CLAUDEMESH_STRICT_DAEMON") ? DaemonMode::kStrict : DaemonMode::kAuto;
}

std::string spawn_failure() {
  const std::int64_t marker = written_at(marker_path());
  if (marker == 0 || is_outdated(marker)) return {};
  auto why = read_file(marker_path(), 4'096);
  std::string reason = why ? *why : std::string();
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  return harmless(reason);
}

void clear_spawn_failure() { remove_file(marker_path()); }

void note_spawn_failure(const std::string& why) {
  const Status written = write_private_file(marker_path(), why + "\n");
  (void)written;  // it is in the log as well
}

bool daemon_is_alive() {
  const int fd = ::open((daemon_dir() + "/store/LOCK").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  const bool taken = ::flock(fd, LOCK_EX | LOCK_NB) != 0;
  ::close(fd);
  return taken;
}

Status ensure_daemon() {
  if (daemon_mode() == DaemonMode::kNone) {
    return fail(Err::kUnavailable, "--no-daemon was given, and this verb works through the daemon");
  }
  if (answers(kProbeMs)) return {};
  // It lives and is busy, or is just starting: waiting is right, starting another is not. One that
  // ends meanwhile, as after a failed start, is as good as none.
  if (daemon_is_alive()) {
    if (answers_within(kBusyMs, "the daemon is there, and busy; waiting for it", daemon_is_alive)) {
      return {};
    }
    if (daemon_is_alive()) {
      return fail(Err::kTimeout, "the daemon runs but did not answer within 10 s");
    }
  }
  if (is_service_managed()) {
    const auto always = [] { return true; };
    if (answers_within(kServiceMs, "waiting for the service claudemesh-daemon", always)) return {};
    return fail(Err::kUnavailable,
                "service-not-ready: the service claudemesh-daemon does not answer; "
                "'systemctl --user start claudemesh-daemon'");
  }
  if (daemon_mode() == DaemonMode::kStrict) {
    return fail(Err::kUnavailable, "no daemon runs, and --strict starts none");
  }
  if (is_set("CLAUDEMESH_INTERNAL_NO_AUTOSPAWN")) {
    return fail(Err::kUnavailable, "no daemon listens on " + socket_path());
  }
  if (failed_lately()) {
    return fail(
        Err::kUnavailable,
        "spawn-suppressed: starting the daemon failed less than 30 s ago: " + spawn_failure());
  }
  if (Status started = start_under_lock(); !started) return started;
  if (answers(kProbeMs)) return {};
  return fail(Err::kUnavailable, "the daemon was started but does not answer");
}

}  // namespace cm::cli
