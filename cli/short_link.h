// short_link.h — https://<host>/i/<code>: asks the host for the invite behind the code.
// Owns:   is_short_code, is_short_link, resolve_short_link.
// Holds:  what comes back is an invite like any other, checked as if it had been pasted.
// Source: docs/PROTOCOL.md §7.1; spec/enrollment.md §5.2.
// Not:    joining (verbs/mesh.cc).
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace cm::cli {

// The last part of such a link alone: it names no host that could be asked.
bool is_short_code(std::string_view pasted);
bool is_short_link(std::string_view pasted);
// The token. kInviteNotFound if the host knows no invite in force of this code.
Result<std::string> resolve_short_link(std::string_view link, const std::string& ca_file);

}  // namespace cm::cli
