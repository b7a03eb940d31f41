// marks.cc — reading, writing and removing the marks.
// Holds:  0600, never through a link; what is not a boot id counts as another boot: a mark that was
//         torn was being written when the power went.
#include "store/marks.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <string_view>

namespace cm::store {
namespace {

constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
constexpr std::size_t kBootIdMax = 64;

std::string relaxed_path(const std::string& directory) { return directory + "/RELAXED"; }
std::string made_path(const std::string& directory) { return directory + "/MADE"; }

// Its text without the line end; empty when it cannot be read.
std::string read_text(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return {};
  std::array<char, kBootIdMax> text;
  const ssize_t size = ::read(fd, text.data(), text.size());
  ::close(fd);
  std::string_view read(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  if (read.ends_with('\n')) read.remove_suffix(1);
  return std::string(read);
}

bool flush_directory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::fsync(fd) == 0;
  ::close(fd);
  return done;
}

// On the disk, and its name too, before it returns.
Status write_mark(const std::string& directory, const std::string& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(Err::kIo, "cannot write " + path);
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(fd) == 0;
  ::close(fd);
  if (!written || !flush_directory(directory)) return fail(Err::kIo, "cannot write " + path);
  return {};
}

}  // namespace

LastEnd last_end(const std::string& directory) {
  const std::string path = relaxed_path(directory);
  if (::access(path.c_str(), F_OK) != 0) return LastEnd::kClean;
  const std::string boot = read_text(kBootId);
  if (boot.empty() || read_text(path.c_str()) == boot) return LastEnd::kKilled;
  return LastEnd::kPowerLost;
}

Status set_relaxed_mark(const std::string& directory) {
  return write_mark(directory, relaxed_path(directory), read_text(kBootId) + "\n");
}

void clear_relaxed_mark(const std::string& directory) { ::unlink(relaxed_path(directory).c_str()); }

bool was_made(const std::string& directory) {
  return ::access(made_path(directory).c_str(), F_OK) == 0;
}

Status set_made_mark(const std::string& directory) {
  return write_mark(directory, made_path(directory), {});
}

void clear_made_mark(const std::string& directory) { ::unlink(made_path(directory).c_str()); }

}  // namespace cm::store
