// config.h — what the shell gives to a Daemon, and what comes back from a reload.
// Owns:   Config, Reloaded, LinkEvent, kReplyBytesMax.
// Not:    a mesh (tables.h), reading config.json (cli), limits (core/base/limits.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/arena.h"
#include "store/schema.h"

namespace cm::daemon {

struct Config {
  std::string version = "0";
  std::string session_id;  // daemon-<pid>-<random>, kept for the process's life
  std::string hostname;
  std::string cwd;
  std::int64_t pid = 0;
  bool durability_sync = true;
  bool public_health = false;  // GET /v1/health without bearer on TCP
  bool legacy_brokers = true;  // false: one that cannot negotiate is refused with 4010
  // How far senders may see what became of their messages here.
  store::ReportLevel report_level = store::ReportLevel::kHanded;
  std::uint32_t outbox_age_hours = 0;  // override; 0: by the broker's dedupe retention
  std::uint64_t tombstone_bytes = std::uint64_t{1} << 30;  // of pages; then sends are refused
  // Pages that may call the IPC, as browsers write them: "http://localhost:3000". Empty: none.
  std::vector<std::string> allowed_origins;
  std::vector<std::string> warnings;  // shown by GET /v1/health
  // Appends what the shell counts (transports) to GET /v1/metrics; may be null.
  void (*append_metrics)(const void* context, TextBuf& out) = nullptr;
  const void* metrics_context = nullptr;
};

// Bytes of one answer of the IPC: its clients read at most 10 MiB.
constexpr std::size_t kReplyBytesMax = (10 << 20) - (256 << 10);

// What reload() changed.
struct Reloaded {
  std::uint32_t joined = 0, left = 0, changed = 0, kept = 0;
  std::vector<std::string> waiting;  // settings that changed and need a restart; by the shell
};

enum class LinkEvent : std::uint8_t { kConnecting = 1, kConnected = 2, kClosed = 3 };

}  // namespace cm::daemon
