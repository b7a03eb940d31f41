// host_identity.h — on which machine this store was made: host_fingerprint.json.
// Owns:   finding out what this machine is, the fingerprint, the file and what it means.
// Holds:  judging is a pure function of the file's text and of the machine. A file that is not
//         understood stops nobody: it says nothing about another machine. A machine that cannot be
//         told from others writes no file.
// Why:    a home folder that was copied must not send under the identity of the one it came from.
// Source: spec/ipc.md §11; spec/crypto.md, "Host fingerprint"; design/presence.md, "Host identity".
// Not:    what follows from a mismatch ([clone] policy; run_daemon.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace cm::cli {

struct HostIdentity {
  std::string host_id;     // "linux:<machine-id>", or empty
  std::string stable_mac;  // "aa:bb:cc:dd:ee:ff", or empty

  bool known() const noexcept { return !host_id.empty() || !stable_mac.empty(); }
  std::string fingerprint() const;        // 64 hex digits, of schema 2
  std::string fingerprint_of_v1() const;  // what older versions wrote
  std::string prefix() const;             // what is shown
};

// A network interface that is up and has an address.
struct NetInterface {
  std::string name;
  std::string mac;  // lower case with colons
};
// The address to know a machine by: of no virtual interface, rather a universally administered one,
// and then the first by name. Empty if there is none.
std::string stable_mac_of(std::vector<NetInterface> interfaces);
HostIdentity find_host_identity();

enum class HostVerdict : std::uint8_t {
  kFirstRun,     // there is no file
  kMatch,        // this machine
  kOutdated,     // this machine, but the file is older than its schema or its network card
  kMismatch,     // another machine
  kUnavailable,  // nothing can be said
};
std::string_view text_of(HostVerdict verdict) noexcept;
// `stored` is the file's text; nothing if there is no file.
HostVerdict judge_host(const std::optional<std::string>& stored, const HostIdentity& host);

std::string host_fingerprint_path();  // <daemon_dir>/host_fingerprint.json
// The verdict about the file of this user's daemon, unreadable ones included; changes nothing.
HostVerdict check_host(const HostIdentity& host);
// Atomic, 0600; makes the folder. kIo.
Status write_host(const HostIdentity& host, std::uint64_t now_ms);

}  // namespace cm::cli
