// place.cc — the marks of containers and CI jobs.
#include "cli/place.h"

#include <unistd.h>

#include <cstdlib>

#include "cli/files.h"

namespace cm::cli {
namespace {

constexpr PlaceDefaults kTable[] = {
    {Place::kMachine, "machine", true, true, "one user's own host"},
    {Place::kContainer, "container", false, true, "ports are shared or unreachable"},
    {Place::kCi, "ci", false, false, "each job is another host, for a short time"},
};

constexpr const char* kCiVariables[] = {"GITHUB_ACTIONS", "GITLAB_CI",   "BUILDKITE",
                                        "CIRCLECI",       "JENKINS_URL", "KUBERNETES_SERVICE_HOST"};

bool is_set(const Lookup& environment, const char* name) {
  const char* value = environment(name);
  return value != nullptr && *value != '\0';
}

bool is_word(const Lookup& environment, const char* name, std::string_view word) {
  const char* value = environment(name);
  return value != nullptr && word == value;
}

}  // namespace

std::span<const PlaceDefaults> place_table() noexcept { return kTable; }

const PlaceDefaults& defaults_of(Place place) noexcept {
  return kTable[static_cast<std::size_t>(place)];
}

const char* process_environment(const char* name) { return std::getenv(name); }

PlaceFound place_of(const Lookup& environment, bool has_dockerenv, std::string_view cgroup) {
  for (const char* name : kCiVariables) {
    if (is_set(environment, name)) return {Place::kCi, std::string(name) + " is set"};
  }
  for (const char* word : {"true", "1"}) {
    if (is_word(environment, "CI", word)) return {Place::kCi, std::string("CI=") + word};
  }
  if (is_word(environment, "CONTAINER", "1")) return {Place::kContainer, "CONTAINER=1"};
  if (has_dockerenv) return {Place::kContainer, "/.dockerenv exists"};
  for (const char* mark : {"docker", "kubepods", "containerd"}) {
    if (cgroup.find(mark) != std::string_view::npos) {
      return {Place::kContainer, std::string("/proc/1/cgroup names ") + mark};
    }
  }
  return {};
}

PlaceFound find_place() {
  const auto groups = read_file("/proc/1/cgroup", 65'536);
  return place_of(process_environment, ::access("/.dockerenv", F_OK) == 0,
                  groups ? std::string_view(*groups) : std::string_view());
}

}  // namespace cm::cli
