// broker_url.h — the URL of a broker as a person types it, and as config.json holds it.
// Owns:   usable_broker_url, check_broker_path, link_remedy.
// Holds:  what goes into config.json can be connected to as it stands there: ws:// or wss://, with
//         a path. A broker is asked for nothing that changes it before its URL is known to be good.
// Why:    a mesh that was made over HTTP but can never be connected to is lost to its creator.
// Source: spec/enrollment.md §2.2; docs/PROTOCOL.md §2 (the path is /ws).
// Not:    calls over HTTP (http.h), connecting (transports/).
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

// http and https become ws and wss, an empty path becomes /ws; what was changed is said on stderr.
// kInvalidArgument names the form that was expected; `what` names the flag or field.
Result<std::string> usable_broker_url(std::string_view given, std::string_view what);

// For a path other than /ws: is there a WebSocket? kInvalidArgument if the broker answers 404.
// Whatever else goes wrong is found by the call that follows.
Status check_broker_path(std::string_view url, const std::string& ca_file);

// What a person can do about why a link is down; empty where waiting is all there is.
std::string_view link_remedy(std::string_view last_error);

}  // namespace cm::cli
