// place.h — where a daemon runs (a machine, a container, a CI job), and what differs there.
// Owns:   the marks by which a place is known, and the one table of its defaults.
// Holds:  deciding is a pure function of what was looked up, so that tests can say where they are.
// Why:    a CI job that is one place at a time must not be stopped by another host's fingerprint,
//         and two containers on one host must not meet on a port that nobody asked for.
// Source: spec/ipc.md §1, §10; design/presence.md, "Host identity".
// Not:    settings, which stand above these defaults (settings.h).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace cm::cli {

enum class Place : std::uint8_t { kMachine, kContainer, kCi };

struct PlaceDefaults {
  Place place;
  std::string_view name;
  bool tcp;                  // the IPC listens on the loopback too
  bool keeps_host_identity;  // false: ephemeral, no host_fingerprint.json is written or checked
  std::string_view why;
};
// The table, one row a place.
std::span<const PlaceDefaults> place_table() noexcept;
const PlaceDefaults& defaults_of(Place place) noexcept;

struct PlaceFound {
  Place place = Place::kMachine;
  std::string mark;  // what gave it away, as a person reads it; empty on a machine
};

// Null when the variable is not set.
using Lookup = std::function<const char*(const char* name)>;
const char* process_environment(const char* name);

// A CI job in a container is a CI job. `cgroup` is the text of /proc/1/cgroup.
PlaceFound place_of(const Lookup& environment, bool has_dockerenv, std::string_view cgroup);
// The same of this process.
PlaceFound find_place();

}  // namespace cm::cli
