// sender.h — whom a person means by `inbox --from`: a key, a name, or the beginning of a key.
// Owns:   sender_key.
// Holds:  asks the daemon for who is online and for what was received; marks nothing as seen.
// Why:    the daemon filters by key, so that a name that changed hands shows nobody else's mail.
// Source: docs/PROTOCOL.md §10.3; design/delivery.md, "Who a name is".
// Not:    targets of `send`, which the daemon resolves (core/daemon/resolve.cc).
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

// 64 digits. kNotFound if nobody online and no message bears the name; kPeerNameConflict names the
// keys if several do.
Result<std::string> sender_key(std::string_view typed, std::string_view mesh);

}  // namespace cm::cli
