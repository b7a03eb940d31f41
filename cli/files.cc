// files.cc — the few system calls behind files.h.
#include "cli/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/output.h"

namespace cm::cli {
namespace {

std::string env_or(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : otherwise;
}

Error io_error(std::string_view what, const std::string& path) {
  return fail(Err::kIo, std::string(what) + " " + path + ": " + std::strerror(errno));
}

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

void sync_directory_of(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/'));
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

std::string home_dir() {
  const std::string home = env_or("HOME", "");
  if (!home.empty()) return home;
  const passwd* entry = ::getpwuid(::getuid());
  return entry != nullptr ? entry->pw_dir : "/";
}

std::string config_dir() {
  const std::string given = env_or("CLAUDEMESH_CONFIG_DIR", "");
  struct stat info {};
  if (!given.empty() && ::stat(given.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return given;
  return home_dir() + "/.claudemesh";
}

std::string daemon_dir() {
  return env_or("CLAUDEMESH_DAEMON_DIR", home_dir() + "/.claudemesh/daemon");
}

std::string broker_data_dir() {
  return env_or("CLAUDEMESH_BROKER_DATA", home_dir() + "/.claudemesh/broker");
}

std::string socket_path() { return daemon_dir() + "/daemon.sock"; }

void warn_person(std::string_view text) { say("warning: " + std::string(text)); }

namespace {

std::string octal(mode_t mode) {
  char text[8];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777u));
  return text;
}

// What is open stays what it is, whatever its name means by then.
Status make_private_fd(int fd, const std::string& path, const Warn& warn) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return io_error("cannot look at", path);
  const bool folder = S_ISDIR(info.st_mode);
  if (!folder && !S_ISREG(info.st_mode)) {
    return fail(Err::kUnsafeMode, path + ": expected a file or a folder; move it away");
  }
  const char* const mode = folder ? "700 " : "600 ";
  if (info.st_uid != ::geteuid() && info.st_uid != 0) {
    return fail(Err::kUnsafeMode, path + " belongs to another user; 'chown " +
                                      std::to_string(::geteuid()) + " " + path + "'");
  }
  if ((info.st_mode & 022u) != 0) {
    return fail(Err::kUnsafeMode, path + " can be written by others, mode " + octal(info.st_mode) +
                                      "; 'chmod " + mode + path + "'");
  }
  if ((info.st_mode & 077u) == 0) return {};
  if (::fchmod(fd, folder ? 0700 : 0600) != 0) {
    return fail(Err::kUnsafeMode, path + " can be read by others, mode " + octal(info.st_mode) +
                                      "; 'chmod " + mode + path + "'");
  }
  warn(path + " could be read by others (mode " + octal(info.st_mode) + "); it is private now");
  return {};
}

}  // namespace

Status make_private(const std::string& path, const Warn& warn) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return {};
    return io_error("cannot read", path);
  }
  Status made = make_private_fd(fd, path, warn);
  ::close(fd);
  return made;
}

Status make_private_dir(const std::string& path, const Warn& warn) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (::mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST) {
      return io_error("cannot create", parent);
    }
  }
  if (::mkdir(path.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return io_error("cannot create", path);
  return make_private(path, warn);
}

namespace {

// Closes the descriptor.
Result<std::string> read_all(int fd, const std::string& path, std::size_t max) {
  std::string content;
  char chunk[16384];
  for (;;) {
    const ssize_t size = ::read(fd, chunk, sizeof chunk);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) {
      const int error = size < 0 ? errno : 0;
      ::close(fd);
      sodium_memzero(chunk, sizeof chunk);
      errno = error;
      if (error != 0) return io_error("cannot read", path);
      return content;
    }
    content.append(chunk, static_cast<std::size_t>(size));
    if (content.size() > max) {
      ::close(fd);
      wipe(content);
      return fail(Err::kTooBig, path + " is larger than " + std::to_string(max) + " bytes");
    }
  }
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t max) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) return read_all(fd, path, max);
  if (errno == ENOENT) return fail(Err::kNotFound, path);
  return io_error("cannot read", path);
}

Result<std::string> read_private_file(const std::string& path, std::size_t max, const Warn& warn) {
  // Without waiting for the other end, should it be a pipe.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return fail(Err::kNotFound, path);
    return io_error("cannot read", path);
  }
  Status made = make_private_fd(fd, path, warn);
  if (made) return read_all(fd, path, max);
  ::close(fd);
  return made.error();
}

Status write_private_file(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  ::unlink(temporary.c_str());  // a file that somebody left there keeps its own mode
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return io_error("cannot create", temporary);
  const bool written = write_all(fd, content) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  errno = error;
  if (!written || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const Error failed = io_error("cannot write", path);
    ::unlink(temporary.c_str());
    return failed;
  }
  sync_directory_of(path);
  return {};
}

void remove_file(const std::string& path) { ::unlink(path.c_str()); }

void wipe(std::string& text) {
  if (!text.empty()) sodium_memzero(text.data(), text.size());
  text.clear();
}

std::string exe_path() {
  char path[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path - 1);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : std::string();
}

}  // namespace cm::cli
