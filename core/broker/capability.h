// capability.h — what a session may do (attestation v2) and what a recipient lets a sender do.
// Owns:   bits of session capabilities and of grants, and their names on the wire.
// Holds:  unknown names in an attestation give nothing; unknown names in a grant are refused.
// Source: docs/PROTOCOL.md §2.2, §4; spec/wire.md §11.4; spec/cli.md §13; spec/enrollment.md §8.
// Not:    where they are enforced (broker.cc for sessions, route.cc and queue.cc for grants).
#pragma once

#include <cstdint>
#include <string_view>

namespace cm::broker {

enum Cap : std::uint16_t {
  kCapNone = 0,
  kCapDm = 1,
  kCapBroadcast = 2,
  kCapStateRead = 4,
  kCapStateWrite = 8,
  kCapGrant = 16,
  kCapKick = 32,
  kCapBan = 64,
  kCapProfileWrite = 128,
  kCapServiceDeploy = 256,
  kCapRead = 512,       // grants only
  kCapFileRead = 1024,  // grants only
  kCapAll = 0xffff,
};

constexpr std::uint16_t kDefaultGrants = kCapRead | kCapDm | kCapBroadcast | kCapStateRead;

struct CapName {
  std::string_view name;
  std::uint16_t bit;
};
constexpr CapName kSessionCaps[] = {
    {"dm", kCapDm},
    {"broadcast", kCapBroadcast},
    {"state-read", kCapStateRead},
    {"state-write", kCapStateWrite},
    {"grant", kCapGrant},
    {"kick", kCapKick},
    {"ban", kCapBan},
    {"profile-write", kCapProfileWrite},
    {"service-deploy", kCapServiceDeploy},
};
constexpr CapName kGrantCaps[] = {
    {"read", kCapRead},
    {"dm", kCapDm},
    {"broadcast", kCapBroadcast},
    {"state-read", kCapStateRead},
    {"state-write", kCapStateWrite},
    {"file-read", kCapFileRead},
};

// The bit behind a name, or 0.
constexpr std::uint16_t session_cap(std::string_view name) noexcept {
  for (const CapName& cap : kSessionCaps) {
    if (cap.name == name) return cap.bit;
  }
  return 0;
}
constexpr std::uint16_t grant_cap(std::string_view name) noexcept {
  if (name == "all") return kCapAll;
  for (const CapName& cap : kGrantCaps) {
    if (cap.name == name) return cap.bit;
  }
  return 0;
}
constexpr std::string_view name_of_cap(std::uint16_t bit) noexcept {
  for (const CapName& cap : kSessionCaps) {
    if (cap.bit == bit) return cap.name;
  }
  return "unknown";
}

}  // namespace cm::broker
