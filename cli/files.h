// files.h — private files and the places where they live.
// Owns:   paths of configuration, daemon and broker; whole-file reads; atomic private writes.
// Holds:  files are 0600 in 0700 directories, written by temporary file and rename, flushed before
//         the rename; a reader never sees half of one. What held a secret is wiped. A secret that
//         others could have written, or that belongs to another user, is not used; one that others
//         could read is closed to them, and that is said.
// Source: spec/enrollment.md §2.1, spec/ipc.md §1.
// Not:    what is in them (config.h).
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

std::string home_dir();
std::string config_dir();       // $CLAUDEMESH_CONFIG_DIR if it exists, else ~/.claudemesh
std::string daemon_dir();       // $CLAUDEMESH_DAEMON_DIR, else ~/.claudemesh/daemon
std::string broker_data_dir();  // $CLAUDEMESH_BROKER_DATA, else ~/.claudemesh/broker
std::string socket_path();      // <daemon_dir>/daemon.sock

// One line for a person or for a log.
using Warn = std::function<void(std::string_view)>;
void warn_person(std::string_view text);  // to stderr, unless --quiet

// A folder or file that must be ours alone. Others may write it, or it is another user's (root's is
// as good as ours): kUnsafeMode with the command that mends it. Others may only read it: that ends
// here, and `warn` is told. Nothing there: fine.
Status make_private(const std::string& path, const Warn& warn);
// mkdir -p with 0700 for what is made; an existing last directory is judged by make_private().
Status make_private_dir(const std::string& path, const Warn& warn = warn_person);
// read_file() of a file with secrets, which make_private() judges first.
Result<std::string> read_private_file(const std::string& path, std::size_t max = 4 << 20,
                                      const Warn& warn = warn_person);
// kNotFound if there is none; kIo otherwise. At most `max` bytes (kTooBig).
Result<std::string> read_file(const std::string& path, std::size_t max = 4 << 20);
Status write_private_file(const std::string& path, std::string_view content);
void remove_file(const std::string& path);
void wipe(std::string& text);

std::string exe_path();

}  // namespace cm::cli
