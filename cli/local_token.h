// local_token.h — the bearer of the IPC over TCP, in a file that only its user can read.
// Owns:   <daemon dir>/local-token: base64url of 32 random bytes and a line feed, 0600.
// Holds:  made once; rotated by writing a new file and renaming it. The token is wiped here; the
//         daemon's core keeps its hash.
// Source: docs/PROTOCOL.md §10; spec/ipc.md §1, §10.
// Not:    comparing (core/daemon/gates.cc).
#pragma once

#include <string>

#include "cli/files.h"
#include "core/base/result.h"
#include "core/base/ulid.h"
#include "core/crypto/keys.h"

namespace cm::cli {

std::string local_token_path();
// The hash of the token in the file, which is made if it is missing. kMalformed names the path;
// kUnsafeMode as for every secret (files.h).
Result<crypto::Hash32> load_local_token(FillRandom rng, const Warn& warn = warn_person);
// Writes a new one and answers its hash.
Result<crypto::Hash32> rotate_local_token(FillRandom rng);

}  // namespace cm::cli
