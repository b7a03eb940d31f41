// files.h — private files and the places where they live.
// Owns:   paths of configuration, daemon and broker; whole-file reads; atomic private writes.
// Holds:  files are 0600 in 0700 directories, written by temporary file and rename, flushed before
//         the rename; a reader never sees half of one. What held a secret is wiped.
// Source: spec/enrollment.md §2.1, spec/ipc.md §1.
// Not:    what is in them (config.h).
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

std::string home_dir();
std::string config_dir();       // $CLAUDEMESH_CONFIG_DIR if it exists, else ~/.claudemesh
std::string daemon_dir();       // $CLAUDEMESH_DAEMON_DIR, else ~/.claudemesh/daemon
std::string broker_data_dir();  // $CLAUDEMESH_BROKER_DATA, else ~/.claudemesh/broker
std::string socket_path();      // <daemon_dir>/daemon.sock

// mkdir -p with 0700 for what is made; an existing last directory is made 0700.
Status make_private_dir(const std::string& path);
// kNotFound if there is none; kIo otherwise. At most `max` bytes (kTooBig).
Result<std::string> read_file(const std::string& path, std::size_t max = 4 << 20);
Status write_private_file(const std::string& path, std::string_view content);
void remove_file(const std::string& path);
void wipe(std::string& text);

std::string exe_path();

}  // namespace cm::cli
