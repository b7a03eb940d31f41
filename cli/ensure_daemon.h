// ensure_daemon.h — a verb that needs the daemon finds it running, or starts it.
// Owns:   ensure_daemon: probe, start under a lock, wait, and say once what happened.
// Holds:  a daemon that is slow to answer is never taken for dead: what decides is who holds the
//         socket and the store's lock. Two verbs at once start one daemon. A start that failed is
//         not tried again for 30 s, unless the configuration changed. Where a service manager owns
//         the daemon nothing is started.
// Source: spec/cli.md §4; spec/decisions.md, "CLI".
// Not:    starting it on request (verbs/daemon.cc).
#pragma once

#include <cstdint>
#include <string>

#include "core/base/result.h"

namespace cm::cli {

// How this command reaches the daemon: --strict, --no-daemon, or neither.
enum class DaemonMode : std::uint8_t { kAuto, kStrict, kNone };
struct DaemonPolicy {
  bool strict = false;     // --strict or CLAUDEMESH_STRICT_DAEMON=1
  bool no_daemon = false;  // --no-daemon or CLAUDEMESH_NO_DAEMON=1; it wins
};
DaemonPolicy& daemon_policy();
DaemonMode daemon_mode();

// Ok when a daemon answers. kUnavailable says why none does and what to do.
Status ensure_daemon();

// Why the last start by a verb failed: empty if none did, and once config.json or config.toml were
// written later, because then it may be mended.
std::string spawn_failure();
// A start succeeded: the next verb need not know of one that did not.
void clear_spawn_failure();
// Why a daemon of this user ended by itself: what 'daemon status' and the next verb say.
void note_spawn_failure(const std::string& why);

// True if a process holds the daemon's store: it lives, whether it answers or not.
bool daemon_is_alive();

}  // namespace cm::cli
