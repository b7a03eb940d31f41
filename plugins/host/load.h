// load.h — finds, checks and loads the plugin files of one folder.
// Owns:   PluginInfo, which `transport list` prints, and the checks before any code of a file runs.
// Holds:  the descriptor that was checked is the one that is hashed and loaded, through
//         /proc/self/fd/N; it stays open for the life of the process, because the dynamic linker
//         knows libraries by that name and would answer the earlier plugin for a reused N.
//         Nothing is ever unloaded.
// Why:    who may write a plugin, or swap one of the folders above it, is who runs this daemon.
// Limits: 64 files a folder.
// Not:    a sandbox: a plugin shares our address space (docs/TRANSPORTS.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/include/claudemesh/peer_transport.h"

namespace cm::plugins {

struct PluginInfo {
  std::string path;
  std::string sha256;  // 64 hex digits of what the descriptor holds; empty if it was not read
  std::string kind;
  std::string version;
  std::uint32_t abi_major = 0;
  std::uint32_t abi_minor = 0;
  std::uint32_t capabilities = 0;  // CM_CAP_*
  std::uint64_t max_message_bytes = 0;
  bool loaded = false;
  bool disabled = false;  // broke a rule after it was loaded
  std::string refusal;    // why it is not loaded, or which rule it broke
};

struct PluginFile {
  PluginInfo info;
  const cm_transport* transport = nullptr;  // null if refused
};

// All *.so of the folder, sorted by name, each loaded or with its refusal. A folder that is itself
// refused gives one entry with the folder's path. `trust_sticky` accepts world-writable folders
// with the sticky bit (/tmp) above the files; for tests.
std::vector<PluginFile> load_folder(const std::string& folder, bool trust_sticky);

// The table's own form: version, sizes, members. Empty if it may be used, else the refusal.
std::string check_transport(const cm_transport* transport);

// What a file's table says of itself, or its refusal. Nothing of a table that is refused is used
// but its version.
PluginFile read_table(const cm_transport* transport, PluginInfo info);

// At most `bytes` bytes of foreign text, with control bytes and what is no UTF-8 as '?'.
std::string harmless(std::string_view text, std::size_t bytes);

}  // namespace cm::plugins
