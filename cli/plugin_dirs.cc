// plugin_dirs.cc — the search order.
#include "cli/plugin_dirs.h"

#include <sys/stat.h>

#include <cstdlib>

#include "cli/files.h"

namespace cm::cli {
namespace {

bool is_directory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

std::vector<std::string> plugin_dirs() {
  std::vector<std::string> found;
  if (const char* given = std::getenv("CLAUDEMESH_PLUGIN_DIR"); given != nullptr && *given != 0) {
    const std::string list = given;
    for (std::size_t start = 0; start <= list.size();) {
      std::size_t end = list.find(':', start);
      if (end == std::string::npos) end = list.size();
      if (end > start) found.push_back(list.substr(start, end - start));
      start = end + 1;
    }
    return found;
  }
  const std::string prefix = parent_of(parent_of(exe_path()));
  for (const char* place : {"/lib/claudemesh/transports", "/transports"}) {
    if (is_directory(prefix + place)) found.push_back(prefix + place);
  }
  return found;
}

bool trust_sticky_dirs() {
  const char* value = std::getenv("CLAUDEMESH_PLUGIN_TRUST_STICKY");
  return value != nullptr && std::string_view(value) == "1";
}

plugins::HostOptions plugin_host_options(const Limits& limits, FillRandom rng,
                                         const std::string& ca_file) {
  plugins::HostOptions options;
  options.limits = limits;
  options.trust_sticky = trust_sticky_dirs();
  options.rng = rng;
  if (!ca_file.empty()) options.settings.push_back({"ws-broker", "ca_file", ca_file});
  return options;
}

Status load_plugins(plugins::Host& host) {
  const std::vector<std::string> folders = plugin_dirs();
  host.load(folders);
  if (host.find_plugin("ws-broker")) return {};
  std::string reasons = "no usable ws-broker transport";
  if (folders.empty()) reasons += ": no plugin directory was found";
  for (const plugins::PluginInfo& info : host.plugins()) {
    if (!info.loaded) reasons += "; " + info.path + ": " + info.refusal;
  }
  return fail(Err::kPluginRefused, reasons);
}

}  // namespace cm::cli
