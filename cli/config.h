// config.h — config.json: the meshes that this user has joined, with their keys.
// Owns:   Mesh, ConfigFile, reading and atomic rewriting.
// Holds:  members that we do not know survive a rewrite, at the top and in each mesh. Secret keys
//         go from the file into the slab and back, and are wiped between.
// Source: spec/enrollment.md §2.2.
// Not:    config.toml (the daemon's settings).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/files.h"
#include "core/base/result.h"
#include "core/crypto/slab.h"

namespace cm::cli {

struct Mesh {
  std::string mesh_id, member_id, slug, name, pubkey, secret_key, broker_url, joined_at;
  std::string raw;  // the object as it stands in the file; empty for a new one

  Mesh() = default;
  Mesh(Mesh&&) = default;
  Mesh& operator=(Mesh&&) = default;
  ~Mesh();
};

struct ConfigFile {
  std::string path;
  std::vector<Mesh> meshes;
  std::vector<std::pair<std::string, std::string>> others;  // key, raw JSON

  const Mesh* find(std::string_view slug_or_id) const noexcept;
};

// Held from load_config() to save_mesh(): two commands at once must not lose each other's mesh.
class ConfigLock {
 public:
  explicit ConfigLock(int fd) noexcept : fd_(fd) {}
  ~ConfigLock();
  ConfigLock(ConfigLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ConfigLock& operator=(ConfigLock&&) = delete;

 private:
  int fd_;
};
// Waits for its turn. kIo if the directory cannot be written.
Result<ConfigLock> lock_config();

// No file: an empty configuration. kMalformed names the path and the field.
// kUnsafeMode: it or its folder is in other users' hands (files.h).
Result<ConfigFile> load_config(const Warn& warn = warn_person);
// The two parts of it and of save_mesh() that touch no file. The text holds secrets: wipe it.
Result<ConfigFile> parse_config(std::string_view json, const std::string& path);
std::string config_text(const ConfigFile& config);
// Adds or replaces (by mesh id) and writes the file.
Status save_mesh(ConfigFile& config, Mesh mesh);

Status remove_mesh(ConfigFile& config, const std::string& mesh_id);
Status rename_mesh(ConfigFile& config, const std::string& mesh_id, const std::string& slug);

// An error of the broker's HTTP API as one of ours: `body` is its JSON.
Error error_of_reply(int status, std::string_view body);

}  // namespace cm::cli
