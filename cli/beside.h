// beside.h — is another daemon running here: one of the reference, which takes no LOCK of ours?
// Owns:   the pid file, and <store>/PID, which says that the pid in it was written by us.
// Holds:  called while we hold the store's LOCK, so no daemon of ours runs. A pid file that we left
//         behind in a crash is ours by <store>/PID, whoever bears that number by now.
// Source: spec/ipc.md §1; the issue ("refuses to start beside a running reference daemon").
// Not:    our own singleton (store/store.h, LOCK).
#pragma once

#include <string>

#include "core/base/result.h"

namespace cm::cli {

// kAlreadyRunning says which daemon and how to stop it.
Status refuse_beside_reference(const std::string& store_dir);
Status write_pid_file(const std::string& store_dir);
void remove_pid_file(const std::string& store_dir);

}  // namespace cm::cli
