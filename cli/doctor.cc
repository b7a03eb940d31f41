// doctor.cc — the checks, one function each.
#include "cli/doctor.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "cli/broker_url.h"
#include "cli/config.h"
#include "cli/daemon_setup.h"
#include "cli/ensure_daemon.h"
#include "cli/files.h"
#include "cli/host_identity.h"
#include "cli/http.h"
#include "cli/local_token.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/plugin_dirs.h"
#include "cli/runtime.h"
#include "cli/settings.h"
#include "core/base/limits.h"
#include "plugins/host/load.h"

namespace cm::cli {
namespace {

using Findings = std::vector<Finding>;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kDiskFailure = 64 * kMiB;  // free
constexpr std::uint64_t kDiskWarning = 512 * kMiB;

void well(Findings& list, std::string check, std::string detail) {
  list.push_back({std::move(check), Health::kWell, std::move(detail), {}});
}
void warning(Findings& list, std::string check, std::string detail, std::string remedy) {
  list.push_back({std::move(check), Health::kWarning, std::move(detail), std::move(remedy)});
}
void failure(Findings& list, std::string check, std::string detail, std::string remedy) {
  list.push_back({std::move(check), Health::kFailure, std::move(detail), std::move(remedy)});
}
void failure(Findings& list, std::string check, const Error& error) {
  failure(list, std::move(check), harmless(error.detail), std::string(info_of(error.code).remedy));
}

std::string octal(mode_t mode) {
  char text[8];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777u));
  return text;
}

// Is what exists there ours, and closed to others? Nothing at all is well: it is made private.
void check_private(Findings& list, const std::string& check, const std::string& path, bool folder) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return;
    return failure(list, check, path + ": " + std::strerror(errno),
                   "make the folders above it accessible to you");
  }
  const char* wanted = folder ? "700" : "600";
  if (folder != S_ISDIR(info.st_mode)) {
    return failure(list, check, path + " is " + (folder ? "no folder" : "no file"),
                   "move it away; it is made again when it is needed");
  }
  if (info.st_uid != ::geteuid()) {
    return failure(list, check, path + " belongs to another user",
                   "'chown " + std::to_string(::geteuid()) + " " + path + "'");
  }
  if ((info.st_mode & 077u) != 0) {
    return failure(list, check, path + " is open to others, mode " + octal(info.st_mode),
                   std::string("'chmod ") + wanted + " " + path + "'");
  }
  well(list, check, path + ", mode " + octal(info.st_mode));
}

void check_program(Findings& list) {
  const std::string path = exe_path();
  struct stat info {};
  if (path.empty() || ::stat(path.c_str(), &info) != 0) {
    return failure(list, "program", "the program's file is gone, as after an upgrade",
                   "'claudemesh daemon restart' runs the new one");
  }
  if ((info.st_mode & 022u) != 0) {
    return failure(list, "program",
                   path + " can be replaced by others, mode " + octal(info.st_mode),
                   "'chmod go-w " + path + "'");
  }
  well(list, "program", path + ", version " + std::string(kVersion));
}

void check_plugins(Findings& list) {
  bool carries = false;
  for (const std::string& folder : plugin_dirs()) {
    for (const plugins::PluginFile& file : plugins::load_folder(folder, trust_sticky_dirs())) {
      const std::string path = harmless(file.info.path);
      if (file.transport == nullptr) {
        failure(list, "plugin", path + ": " + harmless(file.info.refusal),
                std::string(info_of(Err::kPluginRefused).remedy));
        continue;
      }
      carries = carries || file.info.kind == "ws-broker";
      well(list, "plugin", path + ", " + harmless(file.info.kind));
    }
  }
  if (carries) return;
  failure(list, "plugin", "no usable ws-broker transport: no broker can be reached",
          "install it beside the program ('make install'), or name its folder with "
          "CLAUDEMESH_PLUGIN_DIR");
}

ConfigFile check_config(Findings& list) {
  check_private(list, "config folder", config_dir(), true);
  check_private(list, "config.json", config_dir() + "/config.json", false);
  // As it is: what is too open was found above, and is not mended here.
  const std::string path = config_dir() + "/config.json";
  auto text = read_file(path);
  Result<ConfigFile> config = ConfigFile{};
  if (text || text.code() != Err::kNotFound) {
    config = text ? parse_config(*text, path) : Result<ConfigFile>(text.error());
  }
  if (text) wipe(*text);
  if (!config) {
    failure(list, "config.json", harmless(config.error().detail),
            "correct it, or restore it from a backup; it holds the keys of your meshes");
    return {};
  }
  if (config->meshes.empty()) {
    warning(list, "meshes", "no mesh is joined", std::string(info_of(Err::kNoMesh).remedy));
    return std::move(*config);
  }
  crypto::SecretSlab slab(static_cast<std::uint32_t>(config->meshes.size()));
  if (const auto keys = mesh_list(slab, *config); !keys) {
    failure(list, "keys", harmless(keys.error().detail),
            "restore config.json from a backup, or leave the mesh and join it again");
  } else {
    well(list, "keys", std::to_string(config->meshes.size()) + " joined, each key fits its mesh");
  }
  return std::move(*config);
}

Settings check_settings(Findings& list) {
  auto settings = load_settings({});
  if (!settings) {
    failure(list, "config.toml", settings.error());
    return default_settings(find_place());
  }
  const bool exists = ::access(settings_path().c_str(), F_OK) == 0;
  well(list, "config.toml",
       harmless(settings_path()) + (exists ? " is understood" : " does not exist: all defaults"));
  return std::move(*settings);
}

void check_host_identity(Findings& list, const Settings& settings) {
  const PlaceFound place = find_place();
  if (!defaults_of(place.place).keeps_host_identity) {
    return well(list, "host", "ephemeral here (" + place.mark + ")");
  }
  const HostIdentity host = find_host_identity();
  switch (check_host(host)) {
    case HostVerdict::kMatch:
    case HostVerdict::kOutdated: return well(list, "host", "this machine, " + host.prefix());
    case HostVerdict::kFirstRun: return well(list, "host", "remembered at the first start");
    case HostVerdict::kUnavailable:
      return warning(list, "host", host_fingerprint_path() + " says nothing about this machine",
                     "'claudemesh daemon accept-host' writes it anew");
    case HostVerdict::kMismatch: break;
  }
  const bool refuses = settings.text(Setting::kClonePolicy) == "refuse";
  list.push_back({"host", refuses ? Health::kFailure : Health::kWarning,
                  host_fingerprint_path() + " names another machine",
                  std::string(info_of(Err::kHostMismatch).remedy)});
}

void check_links(Findings& list, const Reply& health) {
  const wire::JsonNode* meshes = health.tape.find("meshes");
  if (meshes == nullptr || meshes->type != wire::JsonType::kArray) return;
  for (std::uint32_t at = health.tape.first(*meshes); at < meshes->next;
       at = health.tape.at(at).next) {
    const wire::JsonNode& mesh = health.tape.at(at);
    const auto field = [&](std::string_view key) {
      return harmless(text_of(health.tape, mesh, key));
    };
    const std::string check = "link " + field("slug");
    if (field("state") == "open") {
      well(list, check, "the daemon is connected");
    } else {
      const std::string reason = field("last_error");
      const std::string_view remedy = link_remedy(reason);
      warning(list, check,
              "the daemon is " + field("state") + (reason.empty() ? "" : ": " + reason),
              !remedy.empty()               ? std::string(remedy)
              : field("state") == "refused" ? "mend what the reason names; what a broker or this "
                                              "daemon refused is tried again by 'claudemesh daemon "
                                              "restart'"
                                            : "it tries again by itself; 'claudemesh daemon logs' "
                                              "shows why it fails");
    }
  }
}

void check_daemon(Findings& list, bool has_mesh) {
  check_private(list, "daemon folder", daemon_dir(), true);
  check_private(list, "local token", local_token_path(), false);
  const auto health = daemon_call_raw("GET", "/v1/health");
  if (!health) {
    if (health.code() != Err::kUnavailable) return failure(list, "daemon", health.error());
    if (const std::string why = spawn_failure(); !why.empty()) {
      return failure(list, "daemon", "its last start failed: " + why,
                     "correct that, then run 'claudemesh daemon up'");
    }
    return has_mesh ? warning(list, "daemon", "it does not run", "run 'claudemesh daemon up'")
                    : well(list, "daemon", "it does not run, and there is no mesh to serve");
  }
  const std::string version = harmless(health->text("daemon_version"));
  if (version != kVersion) {
    warning(list, "daemon",
            "version " + version + " runs, this program is " + std::string(kVersion),
            "run 'claudemesh daemon restart'");
  } else {
    well(list, "daemon", "it runs, version " + version);
  }
  if (!health->boolean("store_accepts")) {
    failure(list, "store", "it takes no more messages",
            std::string(info_of(Err::kDiskFull).remedy));
  }
  if (!health->boolean("secrets_locked")) {
    warning(list, "memory", "keys could not be locked in memory and may reach the swap",
            "raise RLIMIT_MEMLOCK of the daemon");
  }
  check_links(list, *health);
}

void check_brokers(Findings& list, const ConfigFile& config, const Settings& settings) {
  std::set<std::string> asked;
  for (const Mesh& mesh : config.meshes) {
    if (!asked.insert(mesh.broker_url).second) continue;
    const std::string check = "broker " + harmless(mesh.slug);
    const std::string url = harmless(mesh.broker_url);
    const auto reply =
        broker_call(mesh.broker_url, "GET", "/health", {}, {}, settings.text(Setting::kCaFile));
    if (reply) {
      well(list, check, url + " answers");
    } else if (reply.code() == Err::kUnavailable || reply.code() == Err::kTimeout ||
               reply.code() == Err::kIo) {
      failure(list, check, url + ": " + harmless(reply.error().detail),
              "start the broker, or check address, network and firewall");
    } else {
      failure(list, check, reply.error());
    }
  }
}

void check_disk(Findings& list) {
  std::string path = daemon_dir();
  while (path.size() > 1 && ::access(path.c_str(), F_OK) != 0) {
    path.resize(std::max<std::size_t>(path.rfind('/'), 1));
  }
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) {
    return failure(list, "disk", path + ": " + std::strerror(errno),
                   "check that this file system is mounted");
  }
  const std::uint64_t free = info.f_bavail * std::uint64_t{info.f_frsize};
  const std::string detail = std::to_string(free / kMiB) + " MiB free at " + path;
  if ((info.f_flag & ST_RDONLY) != 0) {
    return failure(list, "disk", path + " can only be read", "mount it for writing");
  }
  if (free >= kDiskWarning) return well(list, "disk", detail);
  list.push_back({"disk", free < kDiskFailure ? Health::kFailure : Health::kWarning, detail,
                  "free space there; a full disk refuses messages"});
}

void check_pages(Findings& list) {
  const std::string path = exe_path();
  const std::string prefix = path.substr(0, path.rfind("/bin/"));
  const std::string missing =
      "'make install' puts it there; 'claudemesh man' and "
      "'claudemesh completions bash' print both";
  for (const char* page :
       {"/share/man/man1/claudemesh.1", "/share/bash-completion/completions/claudemesh"}) {
    // Distributions compress manual pages.
    const std::string file = prefix + page;
    if (::access(file.c_str(), R_OK) == 0 || ::access((file + ".gz").c_str(), R_OK) == 0) {
      well(list, "pages", file);
    } else {
      warning(list, "pages", file + " is not installed", missing);
    }
  }
}

}  // namespace

std::vector<Finding> examine() {
  Findings list;
  check_program(list);
  check_plugins(list);
  const ConfigFile config = check_config(list);
  const Settings settings = check_settings(list);
  check_host_identity(list, settings);
  check_daemon(list, !config.meshes.empty());
  check_brokers(list, config, settings);
  check_disk(list);
  check_pages(list);
  return list;
}

}  // namespace cm::cli
