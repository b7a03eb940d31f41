// member_call.h — a broker's HTTP route with a member's authority: the request is signed.
// Owns:   member_call.
// Holds:  the key goes from the configuration into the slab for one signature; the signature names
//         method, path, body, time, nonce and host, so that it serves for this request alone.
// Source: docs/PROTOCOL.md §7; design/presence.md, "Authority and exposure of a broker".
// Not:    the admin token (verbs/mesh.cc).
#pragma once

#include <string>
#include <string_view>

#include "cli/config.h"
#include "cli/http.h"

namespace cm::cli {

// kMalformed when config.json holds no usable key for this mesh.
Result<Reply> member_call(const Mesh& mesh, std::string_view method, const std::string& path,
                          std::string_view body, const std::string& ca_file);

// The joined mesh of that slug or id; without one, the only one. kMeshNotAttached, kNoMesh,
// kMeshRequired (which lists the slugs).
Result<const Mesh*> choose_mesh(const ConfigFile& config, std::string_view wanted);

}  // namespace cm::cli
