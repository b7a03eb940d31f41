// runtime.cc — the shared parts of the roles.
#include "cli/runtime.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "core/net/loop.h"
#include "core/net/ws_handshake.h"

namespace cm::cli {
namespace {

// One line, one write: lines of several writers do not mix. A line is at most what a pipe takes
// whole, so a write that poll() allows does not block; a reader that is stuck loses lines, counted.
void write_line(void* context, std::string_view line) {
  auto* runtime = static_cast<Runtime*>(context);
  pollfd ready{runtime->log_fd, POLLOUT, 0};
  if (::poll(&ready, 1, 0) != 1) {
    runtime->metrics.add(Metric::kLogDropped);
    return;
  }
  while (!line.empty()) {
    const ssize_t written = ::write(runtime->log_fd, line.data(), line.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      runtime->metrics.add(Metric::kLogDropped);
      return;
    }
    line.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A regular file of ours and nothing else: a log must not end in somebody's device or pipe.
Result<int> open_log_file(const std::string& path) {
  const int fd = ::open(path.c_str(),
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (fd < 0) return fail(Err::kIo, "log file " + path + ": " + std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || ::fchmod(fd, 0600) != 0) {
    ::close(fd);
    return fail(Err::kIo, "log file " + path + ": expected a regular file of yours");
  }
  return fd;
}

bool same_file(int left, int right) {
  struct stat a {};
  struct stat b {};
  return ::fstat(left, &a) == 0 && ::fstat(right, &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

std::uint64_t log_clock(void*) { return net::Loop::wall_ms(); }

}  // namespace

#ifndef CM_VERSION
#define CM_VERSION "0.0.0"
#endif
const char* const kVersion = CM_VERSION;

Runtime::Runtime()
    : log(write_line, log_clock, this),
      scratch(256 * 1024, limits.scratch_keep_bytes),
      pool(limits.pool_keep_bytes) {
  env.rng = crypto::fill_random;
  env.log = &log;
  env.wall_ms = net::Loop::wall_ms();
  env.mono_ms = net::Loop::mono_ms();
}

Runtime::~Runtime() {
  if (log_fd > STDERR_FILENO) ::close(log_fd);
}

Status open_log(Runtime& runtime, const std::string& path) {
  if (path.empty()) return {};
  const Result<int> fd = open_log_file(path);
  if (!fd) return fd.error();
  runtime.log_path = path;
  runtime.log_fd = *fd;
  return {};
}

Status check_log(const std::string& path) {
  const Result<int> fd = open_log_file(path);
  if (!fd) return fd.error();
  ::close(*fd);
  return {};
}

void reopen_log(Runtime& runtime) {
  if (runtime.log_path.empty()) return;
  const Result<int> fresh = open_log_file(runtime.log_path);
  if (!fresh) {
    runtime.log.error("log_not_reopened", {{"detail", fresh.error().detail}});
    return;
  }
  const int old = std::exchange(runtime.log_fd, *fresh);
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    if (same_file(stream, old)) ::dup2(*fresh, stream);
  }
  ::close(old);
  runtime.log.info("log_reopened", {{"path", runtime.log_path}});
}

Warn log_warnings(const Log& log) {
  return [&log](std::string_view text) { log.warn("file_made_private", {{"detail", text}}); };
}

Status prepare(Runtime& runtime, const MemoryBill& bill) {
  // Exhausted memory ends the process here, with its report: an exception would pass through the
  // cores, which know none.
  std::set_new_handler([] {
    constexpr bool kMemoryIsExhausted = true;
    CHECK(!kMemoryIsExhausted);
  });
  if (!crypto::initialise()) return fail(Err::kInternal, "the system has no random source");
  // OpenSSL sets itself up at its first digest, and does not look whether memory was left for it:
  // that happens here, before anybody is served.
  (void)net::ws_accept_text("AAAAAAAAAAAAAAAAAAAAAA==");
  const std::uint64_t descriptors = net::raise_fd_limit();
  constexpr std::uint64_t kOwnDescriptors = 64;  // store, listeners, log, plugins
  if (descriptors > kOwnDescriptors &&
      runtime.limits.broker_connections_max > descriptors - kOwnDescriptors) {
    runtime.limits.broker_connections_max =
        static_cast<std::uint32_t>(descriptors - kOwnDescriptors);
  }
  if (bill.total() > runtime.limits.memory_budget_bytes) {
    return fail(Err::kInvalidArgument, "the limits add up to " + std::to_string(bill.total()) +
                                           " bytes, more than the memory budget");
  }
  return {};
}

Result<std::unique_ptr<store::Store>> open_store(Runtime& runtime, const std::string& directory,
                                                 store::Role role, store::Durability durability) {
  store::Options options;
  options.directory = directory;
  options.role = role;
  options.bound_bytes = runtime.limits.store_bound_bytes;
  options.durability = durability;
  auto opened = store::Store::open(options, runtime.scratch);
  if (!opened) return opened;
  runtime.env.batch = &(*opened)->batch();
  if ((*opened)->lost_power()) {
    runtime.log.warn("store_lost_power",
                     {{"directory", directory},
                      {"meaning",
                       "the machine stopped in relaxed mode; the rows fit one another, "
                       "the last of them may be missing"}});
  }
  return opened;
}

void export_store_metrics(Runtime& runtime, store::Store& store) {
  runtime.metrics.set(Metric::kCommits, store.commits());
  // A damaged row is read again and again: it is told when their number has doubled.
  const std::uint64_t damaged = store.batch().corrupt_count();
  if (damaged != 0 &&
      std::bit_width(damaged) != std::bit_width(runtime.metrics.get(Metric::kStoreDamagedReads))) {
    runtime.log.error("store_row_damaged",
                      {{"table", store::info_of(store.batch().corrupt_table()).name},
                       {"reads", damaged},
                       {"remedy", "stop, run fsck, and restore a backup"}});
  }
  runtime.metrics.set(Metric::kStoreDamagedReads, damaged);
  runtime.metrics.set(Metric::kStoreUsedBytes, store.used_estimate());
  runtime.metrics.set(Metric::kStoreFillPercent, store.batch().fill_percent());
  runtime.metrics.set(Metric::kStoreBoundBytes, store.bound_bytes());
  runtime.metrics.set(Metric::kDurabilitySync, store.durability() == store::Durability::kSync);
}

void log_verification(const Runtime& runtime, store::Store& store, const char* problem) {
  store.abort();  // it only read
  if (problem == nullptr) {
    runtime.log.info("verify_all", {{"ok", true}});
  } else {
    runtime.log.error("verify_all", {{"ok", false}, {"problem", problem}});
  }
}

wire::HttpRequest to_core(const net::NetEvent& event) {
  wire::HttpRequest request;
  request.method = event.request->method;
  request.path = event.request->path;
  request.query = event.request->query;
  request.host = event.request->header("Host");
  request.origin = event.request->header("Origin");
  request.has_origin = event.request->has_header("Origin");
  request.authorization = event.request->header("Authorization");
  request.idempotency_key = event.request->header("Idempotency-Key");
  request.last_event_id = event.request->header("Last-Event-ID");
  request.body = event.request->body;
  request.peer_is_unix = event.peer.is_unix;
  request.peer_is_loopback = event.peer.is_loopback;
  request.peer_address = event.peer.address;
  return request;
}

void die_broken(const Runtime& runtime, const store::Store& store) {
  runtime.log.error("store_broken", {{"detail", store.last_error_text()},
                                     {"remedy", info_of(Err::kStoreBroken).remedy}});
  // No destructors: nothing may touch the disk again (design/architecture.md, "A failed commit").
  std::_Exit(info_of(Err::kStoreBroken).exit_code);
}

}  // namespace cm::cli
