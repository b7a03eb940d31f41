// settings.h — what open() was asked for: the broker's address, the bounds of one peer, its CA.
// Owns:   Settings and their parsing.
// Holds:  strict: an unknown setting or a malformed number is refused, with a sentence.
// Limits: max_frame_bytes from 1 KiB to 16 MiB; a URL of at most 2,048 bytes (core/net/url.h).
#pragma once

#include <cstdint>
#include <string>

#include "transports/ws_broker/services.h"

namespace cm::ws_broker {

constexpr std::uint32_t kFrameBytesMax = 16 << 20;

struct Settings {
  std::string host;         // a name or an address, without brackets
  std::string host_header;  // as the Host header says it
  std::string target;       // path and query
  std::uint16_t port = 0;
  bool secure = false;  // wss://
  std::string ca_file;  // trusted beside the system's authorities; may be empty
  std::uint32_t max_frame_bytes = kFrameBytesMax;  // of one message from the broker
};

// CM_OK, or the status to answer with its sentence in `reason`.
cm_status parse_settings(const Services& services, const cm_target& target, Settings& out,
                         std::string& reason);

extern const char kSettingsSchema[];

}  // namespace cm::ws_broker
