// load.cc — folders and files of plugins: checked on descriptors, hashed, loaded, validated.
// Holds:  every folder from / down is opened from the one above it, without following symbolic
//         links, and checked before anything below it is looked at.
// Not:    what a loaded plugin may do (border.cc).
#include "plugins/host/load.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "core/base/utf8.h"
#include "core/net/socket.h"

namespace cm::plugins {
namespace {

constexpr std::size_t kFilesMax = 64;
constexpr std::size_t kKindMax = 32;
constexpr std::size_t kVersionMax = 64;
constexpr int kFolderFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

std::string system_text(int error) { return std::strerror(error); }

// Empty if nobody but root and the user can write it.
std::string check_owner(const struct stat& found, std::string_view what, bool trust_sticky) {
  if (found.st_uid != 0 && found.st_uid != ::geteuid()) {
    return std::string(what) + " belongs to another user";
  }
  const bool sticky_folder = S_ISDIR(found.st_mode) && (found.st_mode & S_ISVTX) != 0;
  if (trust_sticky && sticky_folder) return {};
  if ((found.st_mode & S_IWOTH) != 0) return std::string(what) + " is writable by everyone";
  if ((found.st_mode & S_IWGRP) != 0) return std::string(what) + " is writable by its group";
  return {};
}

std::string check_folder(int fd, const std::string& path, bool trust_sticky) {
  struct stat found {};
  const std::string what = "folder " + path;
  if (::fstat(fd, &found) != 0) return what + ": " + system_text(errno);
  return check_owner(found, what, trust_sticky);
}

// Opens an absolute path from / down. An empty Fd comes with the refusal.
net::Fd open_folder(const std::string& path, bool trust_sticky, std::string& refusal) {
  if (path.empty() || path.front() != '/') {
    refusal = "folder " + path + " is not an absolute path";
    return {};
  }
  std::string walked = "/";
  net::Fd at(::open("/", kFolderFlags));
  refusal = at ? check_folder(at.get(), walked, trust_sticky) : system_text(errno);
  std::size_t begin = 1;
  while (refusal.empty() && begin < path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty()) continue;
    if (name == "." || name == "..") {
      refusal = "folder " + path + " is not written without . and ..";
      break;
    }
    if (walked.size() > 1) walked += '/';
    walked += name;
    net::Fd next(::openat(at.get(), name.c_str(), kFolderFlags));
    if (!next) {
      const bool link = errno == ENOTDIR || errno == ELOOP;
      refusal = "folder " + walked +
                (link ? " is a symbolic link or no folder: give its real path"
                      : ": " + system_text(errno));
      break;
    }
    refusal = check_folder(next.get(), walked, trust_sticky);
    at = std::move(next);
  }
  if (!refusal.empty()) return {};
  return at;
}

std::vector<std::string> names_in(int folder) {
  std::vector<std::string> names;
  // O_PATH descriptors cannot be read; "." of one opens the very same folder.
  const int readable = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (readable < 0) return names;
  DIR* list = ::fdopendir(readable);
  if (list == nullptr) {
    ::close(readable);
    return names;
  }
  while (const dirent* entry = ::readdir(list)) {
    std::string name = entry->d_name;
    if (name.size() > 3 && name.ends_with(".so")) names.push_back(std::move(name));
  }
  ::closedir(list);
  std::sort(names.begin(), names.end());
  return names;
}

std::string check_file(int fd) {
  struct stat found {};
  if (::fstat(fd, &found) != 0) return system_text(errno);
  if (!S_ISREG(found.st_mode)) return "it is not a regular file";
  return check_owner(found, "the file", false);
}

std::string hash_of(int fd) {
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  std::array<unsigned char, 65536> block;
  off_t offset = 0;
  for (;;) {
    const ssize_t got = ::pread(fd, block.data(), block.size(), offset);
    if (got < 0) return {};
    if (got == 0) break;
    crypto_hash_sha256_update(&state, block.data(), static_cast<unsigned long long>(got));
    offset += got;
  }
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest;
  crypto_hash_sha256_final(&state, digest.data());
  std::array<char, 2 * crypto_hash_sha256_BYTES + 1> text;
  sodium_bin2hex(text.data(), text.size(), digest.data(), digest.size());
  return text.data();
}

// Runs the file's code for the first time. From then on `fd` belongs to the process (load.h).
const cm_transport* load_checked(int fd, std::string& refusal) {
  const std::string name = "/proc/self/fd/" + std::to_string(fd);
  void* library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = ::dlerror();
    refusal = "it cannot be loaded: " + harmless(error != nullptr ? error : "unknown", 400);
    ::close(fd);
    return nullptr;
  }
  using Entry = const cm_transport* (*)(std::uint32_t);
  const auto entry = reinterpret_cast<Entry>(::dlsym(library, "cm_transport_entry"));
  if (entry == nullptr) {
    refusal = "it does not export cm_transport_entry";
    return nullptr;
  }
  return entry(CM_ABI_VERSION);
}

PluginFile load_file(int folder, const std::string& folder_path, const std::string& name) {
  PluginFile file;
  file.info.path = folder_path + (folder_path.ends_with('/') ? "" : "/") + name;
  std::string& refusal = file.info.refusal;
  // Without O_NONBLOCK a FIFO of this name would hold up the start.
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    refusal = errno == ELOOP ? "it is a symbolic link" : system_text(errno);
    return file;
  }
  refusal = check_file(fd);
  if (!refusal.empty()) {
    ::close(fd);
    return file;
  }
  file.info.sha256 = hash_of(fd);
  const cm_transport* transport = load_checked(fd, refusal);
  if (!refusal.empty()) return file;
  return read_table(transport, std::move(file.info));
}

bool kind_valid(const char* kind) noexcept {
  const std::size_t size = ::strnlen(kind, kKindMax + 1);
  if (size == 0 || size > kKindMax) return false;
  for (std::size_t index = 0; index < size; ++index) {
    const char c = kind[index];
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
  }
  return true;
}

}  // namespace

std::string check_transport(const cm_transport* transport) {
  if (transport == nullptr) return "cm_transport_entry answered NULL: it cannot work with ABI 1";
  const std::uint32_t major = transport->abi_version >> 16;
  if (major != CM_ABI_MAJOR) {
    return "it was built for ABI " + std::to_string(major) + ", this host speaks " +
           std::to_string(CM_ABI_MAJOR);
  }
  // Of version 1.0; later minor versions only add behind it.
  constexpr std::size_t kSize10 = offsetof(cm_transport, config_schema) + sizeof(const char*);
  if (transport->struct_size < kSize10) {
    return "its cm_transport has " + std::to_string(transport->struct_size) + " bytes, at least " +
           std::to_string(kSize10) + " are needed";
  }
  if (transport->kind == nullptr || !kind_valid(transport->kind)) {
    return "its kind is not of the form [a-z0-9-]{1,32}";
  }
  const struct {
    bool set;
    std::string_view name;
  } members[] = {
      {transport->version != nullptr, "version"}, {transport->open != nullptr, "open"},
      {transport->send != nullptr, "send"},       {transport->note != nullptr, "note"},
      {transport->close != nullptr, "close"},     {transport->settled != nullptr, "settled"},
      {transport->resume != nullptr, "resume"}};
  for (const auto& member : members) {
    if (!member.set) return "its member '" + std::string(member.name) + "' is not set";
  }
  if ((transport->listen != nullptr) != (transport->unlisten != nullptr)) {
    return "only one of its members 'listen' and 'unlisten' is set";
  }
  if (transport->max_message_bytes == 0) return "its max_message_bytes is 0";
  return {};
}

PluginFile read_table(const cm_transport* transport, PluginInfo info) {
  PluginFile file;
  file.info = std::move(info);
  file.info.refusal = check_transport(transport);
  if (transport == nullptr) return file;
  file.info.abi_major = transport->abi_version >> 16;
  file.info.abi_minor = transport->abi_version & 0xffffu;
  if (!file.info.refusal.empty()) return file;
  file.info.kind = transport->kind;
  file.info.version =
      harmless({transport->version, ::strnlen(transport->version, kVersionMax)}, kVersionMax);
  file.info.capabilities = transport->capabilities;
  file.info.max_message_bytes = transport->max_message_bytes;
  file.transport = transport;
  return file;
}

std::vector<PluginFile> load_folder(const std::string& folder, bool trust_sticky) {
  std::vector<PluginFile> files;
  std::string refusal;
  const net::Fd fd = open_folder(folder, trust_sticky, refusal);
  if (!fd) {
    files.emplace_back();
    files.back().info.path = folder;
    files.back().info.refusal = refusal;
    return files;
  }
  for (const std::string& name : names_in(fd.get())) {
    if (files.size() == kFilesMax) {
      files.emplace_back();
      files.back().info.path = folder;
      files.back().info.refusal = "only the first 64 files of a folder are loaded";
      break;
    }
    files.push_back(load_file(fd.get(), folder, name));
  }
  return files;
}

std::string harmless(std::string_view text, std::size_t bytes) {
  std::string out(text.substr(0, bytes));
  if (out.size() < text.size()) {
    // Not in the middle of a character.
    while (!out.empty() && (static_cast<unsigned char>(text[out.size()]) & 0xc0) == 0x80) {
      out.pop_back();
    }
  }
  const bool valid = utf8_valid(out);
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !valid)) c = '?';
  }
  return out;
}

}  // namespace cm::plugins
