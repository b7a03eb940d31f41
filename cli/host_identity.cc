// host_identity.cc — machine-id and network cards of Linux, and the file that remembers them.
#include "cli/host_identity.h"

#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "cli/files.h"
#include "core/base/arena.h"
#include "core/base/time_text.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

constexpr std::int64_t kSchema = 2;
constexpr std::size_t kFileMax = 4'096;
constexpr std::size_t kMacBytes = 6;
constexpr std::size_t kPrefixDigits = 16;
constexpr std::string_view kNoMac = "00:00:00:00:00:00";

// Interfaces that come and go with software, by how their names begin.
constexpr std::string_view kVirtual[] = {
    "lo",   "docker", "br-",     "bridge", "veth",      "tap",  "tun", "wg",
    "utun", "ppp",    "vboxnet", "vmnet",  "tailscale", "awdl", "llw", "anpi"};

bool is_virtual(const std::string& name) {
  for (const std::string_view begin : kVirtual) {
    if (::strncasecmp(name.c_str(), begin.data(), begin.size()) == 0) return true;
  }
  // "ap0" is one, "apple" is not.
  return name.size() > 2 && ::strncasecmp(name.c_str(), "ap", 2) == 0 && name[2] >= '0' &&
         name[2] <= '9';
}

bool is_local(const std::string& mac) {
  const auto nibble = mac.size() > 1 ? std::string_view("0123456789abcdef").find(mac[1]) : 0;
  return nibble != std::string_view::npos && (nibble & 2u) != 0;
}

std::string sha256_hex(const std::string& text) {
  const crypto::Hash32 hash = crypto::sha256(as_bytes(text));
  return std::string(crypto::view(crypto::hex_text(hash)));
}

std::string machine_id() {
  for (const char* path : {"/etc/machine-id", "/var/lib/dbus/machine-id"}) {
    const auto text = read_file(path, kFileMax);
    if (!text) continue;
    const std::size_t end = text->find_first_of(" \t\r\n");
    const std::string id = text->substr(0, end);
    // "uninitialized" stands in images that were never started.
    if (!id.empty() && id.find_first_not_of("0123456789abcdef") == std::string::npos) return id;
  }
  return {};
}

std::vector<NetInterface> interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return {};
  std::set<std::string> addressed;
  std::vector<NetInterface> found;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    const unsigned up = IFF_UP | IFF_RUNNING;
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & up) != up) continue;
    if ((entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family == AF_INET || family == AF_INET6) addressed.insert(entry->ifa_name);
    if (family != AF_PACKET) continue;
    const auto* link = reinterpret_cast<const sockaddr_ll*>(entry->ifa_addr);
    if (link->sll_halen != kMacBytes) continue;
    std::string mac;
    for (std::size_t index = 0; index < kMacBytes; ++index) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      mac += index == 0 ? "" : ":";
      mac += kDigits[link->sll_addr[index] >> 4];
      mac += kDigits[link->sll_addr[index] & 15];
    }
    found.push_back({entry->ifa_name, mac});
  }
  ::freeifaddrs(list);
  std::erase_if(found, [&](const NetInterface& each) { return !addressed.contains(each.name); });
  return found;
}

std::string_view member(const wire::JsonTape& tape, std::string_view key) {
  const wire::JsonNode* node = tape.find(key);
  return node != nullptr && node->type == wire::JsonType::kText ? node->text : std::string_view();
}

}  // namespace

std::string HostIdentity::fingerprint() const {
  return sha256_hex(std::string("v2\0", 3) + host_id + '\0' + stable_mac);
}

std::string HostIdentity::fingerprint_of_v1() const {
  return sha256_hex(host_id + '\0' + stable_mac);
}

std::string HostIdentity::prefix() const { return fingerprint().substr(0, kPrefixDigits); }

std::string stable_mac_of(std::vector<NetInterface> list) {
  std::erase_if(list, [](const NetInterface& each) {
    return is_virtual(each.name) || each.mac.empty() || each.mac == kNoMac;
  });
  const auto best = std::min_element(list.begin(), list.end(),
                                     [](const NetInterface& one, const NetInterface& other) {
                                       return std::tuple(is_local(one.mac), one.name) <
                                              std::tuple(is_local(other.mac), other.name);
                                     });
  return best == list.end() ? std::string() : best->mac;
}

HostIdentity find_host_identity() {
  HostIdentity host;
  const std::string id = machine_id();
  if (!id.empty()) host.host_id = "linux:" + id;
  host.stable_mac = stable_mac_of(interfaces());
  return host;
}

std::string_view text_of(HostVerdict verdict) noexcept {
  switch (verdict) {
    case HostVerdict::kFirstRun: return "first_run";
    case HostVerdict::kMatch: return "match";
    case HostVerdict::kOutdated: return "outdated";
    case HostVerdict::kMismatch: return "mismatch";
    case HostVerdict::kUnavailable: return "unavailable";
  }
  return "unavailable";
}

HostVerdict judge_host(const std::optional<std::string>& stored, const HostIdentity& host) {
  if (!stored) return host.known() ? HostVerdict::kFirstRun : HostVerdict::kUnavailable;
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  if (!parser.parse(*stored, scratch, tape) || tape.root().type != wire::JsonType::kObject) {
    return HostVerdict::kUnavailable;
  }
  const wire::JsonNode* schema = tape.find("schema_version");
  const std::string_view fingerprint = member(tape, "fingerprint");
  if (schema == nullptr || schema->type != wire::JsonType::kInteger || fingerprint.empty()) {
    return HostVerdict::kUnavailable;
  }
  // Early at boot, without machine-id and network, nothing is known that could differ.
  if (!host.known()) return HostVerdict::kUnavailable;
  if (schema->integer == 1) {
    return fingerprint == host.fingerprint_of_v1() ? HostVerdict::kOutdated
                                                   : HostVerdict::kMismatch;
  }
  if (schema->integer != kSchema) return HostVerdict::kUnavailable;
  if (fingerprint == host.fingerprint()) return HostVerdict::kMatch;
  const bool same_id = !host.host_id.empty() && member(tape, "host_id") == host.host_id;
  return same_id ? HostVerdict::kOutdated : HostVerdict::kMismatch;
}

std::string host_fingerprint_path() { return daemon_dir() + "/host_fingerprint.json"; }

HostVerdict check_host(const HostIdentity& host) {
  auto text = read_file(host_fingerprint_path(), kFileMax);
  if (text) return judge_host(std::move(*text), host);
  return text.code() == Err::kNotFound ? judge_host({}, host) : HostVerdict::kUnavailable;
}

Status write_host(const HostIdentity& host, std::uint64_t now_ms) {
  if (Status made = make_private_dir(daemon_dir()); !made) return made;
  ScratchArena scratch;
  TextBuf value(scratch);
  wire::JsonWriter(value).iso_time(now_ms);
  const auto line = [&](std::string_view key, std::string_view text) {
    TextBuf quoted(scratch);
    wire::append_json_text(quoted, text);
    return "  \"" + std::string(key) + "\": " + std::string(quoted.view()) + ",\n";
  };
  return write_private_file(host_fingerprint_path(),
                            "{\n  \"schema_version\": " + std::to_string(kSchema) + ",\n" +
                                line("fingerprint", host.fingerprint()) +
                                line("host_id", host.host_id) +
                                line("stable_mac", host.stable_mac) +
                                "  \"written_at\": " + std::string(value.view()) + "\n}\n");
}

}  // namespace cm::cli
