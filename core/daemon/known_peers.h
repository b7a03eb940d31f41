// known_peers.h — what one list of peers changes in the names that the daemon remembers.
// Owns:   Daemon::KnownPeers: counted once a list, when its first new name comes.
// Not:    the rules (known_peers.cc).
#pragma once

#include "core/daemon/daemon.h"

namespace cm::daemon {

struct Daemon::KnownPeers {
  bool counted = false, sorted = false;
  std::uint32_t unused = 0;                  // rows of the mesh that nobody used
  std::map<PublicKey, std::uint32_t> names;  // of them, by member
  std::set<PublicKey> renamed;               // listed under a name that the last list had not
  std::vector<std::pair<std::uint64_t, std::string>> oldest_last;  // last seen, key; to drop
};

}  // namespace cm::daemon
