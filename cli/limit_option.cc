// limit_option.cc — the names of the limits, and reading one assignment.
#include "cli/limit_option.h"

#include <charconv>
#include <cstdint>
#include <string_view>

#include "core/wire/mesh_replies.h"

namespace cm::cli {
namespace {

// What every daemon takes of a broker (core/wire/mesh_replies.h); another one refuses its mesh.
constexpr auto kDedupeDaysLeast = static_cast<std::uint64_t>(wire::kDedupeDaysFloor);
constexpr auto kDedupeDaysMost = static_cast<std::uint64_t>(wire::kDedupeDaysMost);

struct Entry {
  std::string_view name;
  std::uint32_t Limits::*narrow;
  std::uint64_t Limits::*wide;
};
constexpr Entry kEntries[] = {
    {"iteration_rows_max", &Limits::iteration_rows_max, nullptr},
    {"iteration_bytes_max", &Limits::iteration_bytes_max, nullptr},
    {"iteration_micros_max", &Limits::iteration_micros_max, nullptr},
    {"socket_read_bytes_max", &Limits::socket_read_bytes_max, nullptr},
    {"scratch_keep_bytes", &Limits::scratch_keep_bytes, nullptr},
    {"iteration_effect_bytes_max", &Limits::iteration_effect_bytes_max, nullptr},
    {"pool_keep_bytes", &Limits::pool_keep_bytes, nullptr},
    {"http_head_bytes_max", &Limits::http_head_bytes_max, nullptr},
    {"http_body_bytes_max", &Limits::http_body_bytes_max, nullptr},
    {"unauthenticated_bytes_max", &Limits::unauthenticated_bytes_max, nullptr},
    {"slow_consumer_soft_bytes", &Limits::slow_consumer_soft_bytes, nullptr},
    {"slow_consumer_hard_bytes", &Limits::slow_consumer_hard_bytes, nullptr},
    {"partial_frame_ms_max", &Limits::partial_frame_ms_max, nullptr},
    {"partial_bytes_max", &Limits::partial_bytes_max, nullptr},
    {"partial_group_bytes_max", &Limits::partial_group_bytes_max, nullptr},
    {"output_bytes_max", &Limits::output_bytes_max, nullptr},
    {"output_group_bytes_max", &Limits::output_group_bytes_max, nullptr},
    {"tls_handshake_ms", &Limits::tls_handshake_ms, nullptr},
    {"tls_connection_bytes", &Limits::tls_connection_bytes, nullptr},
    {"broker_connections_max", &Limits::broker_connections_max, nullptr},
    {"mesh_connections_max", &Limits::mesh_connections_max, nullptr},
    {"member_connections_max", &Limits::member_connections_max, nullptr},
    {"hello_deadline_ms", &Limits::hello_deadline_ms, nullptr},
    {"frame_bytes_max", &Limits::frame_bytes_max, nullptr},
    {"ping_ms", &Limits::ping_ms, nullptr},
    {"stale_ms", &Limits::stale_ms, nullptr},
    {"presence_lease_ms", &Limits::presence_lease_ms, nullptr},
    {"claim_lease_ms", &Limits::claim_lease_ms, nullptr},
    {"claim_rows_max", &Limits::claim_rows_max, nullptr},
    {"claim_bytes_max", &Limits::claim_bytes_max, nullptr},
    {"claims_max", &Limits::claims_max, nullptr},
    {"rate_per_minute", &Limits::rate_per_minute, nullptr},
    {"rate_burst", &Limits::rate_burst, nullptr},
    {"peers_list_bytes_max", &Limits::peers_list_bytes_max, nullptr},
    {"member_reply_bytes_max", &Limits::member_reply_bytes_max, nullptr},
    {"queue_pair_rows_max", &Limits::queue_pair_rows_max, nullptr},
    {"queue_pair_bytes_max", &Limits::queue_pair_bytes_max, nullptr},
    {"queue_sender_bytes_max", nullptr, &Limits::queue_sender_bytes_max},
    {"queue_sender_mailboxes_max", &Limits::queue_sender_mailboxes_max, nullptr},
    {"queue_rows_max", &Limits::queue_rows_max, nullptr},
    {"queue_bytes_max", &Limits::queue_bytes_max, nullptr},
    {"meshes_max", &Limits::meshes_max, nullptr},
    {"multicast_recipients_max", &Limits::multicast_recipients_max, nullptr},
    {"mesh_topics_max", &Limits::mesh_topics_max, nullptr},
    {"topic_members_max", &Limits::topic_members_max, nullptr},
    {"state_keys_max", &Limits::state_keys_max, nullptr},
    {"memories_max", &Limits::memories_max, nullptr},
    {"skills_max", &Limits::skills_max, nullptr},
    {"mesh_shared_bytes_max", nullptr, &Limits::mesh_shared_bytes_max},
    {"search_index_bytes_max", nullptr, &Limits::search_index_bytes_max},
    {"dedupe_retention_days", &Limits::dedupe_retention_days, nullptr},
    {"history_days_max", &Limits::history_days_max, nullptr},
    {"undelivered_days_max", &Limits::undelivered_days_max, nullptr},
    {"mailboxes_max", &Limits::mailboxes_max, nullptr},
    {"presences_max", &Limits::presences_max, nullptr},
    {"daemon_meshes_max", &Limits::daemon_meshes_max, nullptr},
    {"roster_rows_max", &Limits::roster_rows_max, nullptr},
    {"known_peers_max", &Limits::known_peers_max, nullptr},
    {"outbox_rows_max", &Limits::outbox_rows_max, nullptr},
    {"outbox_lanes_max", &Limits::outbox_lanes_max, nullptr},
    {"ipc_requests_max", &Limits::ipc_requests_max, nullptr},
    {"ipc_streams_max", &Limits::ipc_streams_max, nullptr},
    {"ipc_connections_max", &Limits::ipc_connections_max, nullptr},
    {"parked_sends_max", &Limits::parked_sends_max, nullptr},
    {"event_ring_bytes", &Limits::event_ring_bytes, nullptr},
    {"daemon_frame_bytes_max", &Limits::daemon_frame_bytes_max, nullptr},
    {"payload_bytes_max", &Limits::payload_bytes_max, nullptr},
    {"outbox_age_hours_max", &Limits::outbox_age_hours_max, nullptr},
    {"box_keys_max", &Limits::box_keys_max, nullptr},
    {"secret_slots_max", &Limits::secret_slots_max, nullptr},
    {"ipc_rate_per_second", &Limits::ipc_rate_per_second, nullptr},
    {"ipc_rate_burst", &Limits::ipc_rate_burst, nullptr},
    {"broker_calls_max", &Limits::broker_calls_max, nullptr},
    {"broker_replies_bytes_max", &Limits::broker_replies_bytes_max, nullptr},
    {"topics_max", &Limits::topics_max, nullptr},
    {"inbox_days_max", &Limits::inbox_days_max, nullptr},
    {"outbox_terminal_days", &Limits::outbox_terminal_days, nullptr},
    {"store_bound_bytes", nullptr, &Limits::store_bound_bytes},
    {"memory_budget_bytes", nullptr, &Limits::memory_budget_bytes},
};

// Names that share their first word with what was asked for.
std::string similar(std::string_view name) {
  const std::string_view word = name.substr(0, name.find('_'));
  std::string list;
  for (const Entry& entry : kEntries) {
    if (!word.empty() && !entry.name.starts_with(word)) continue;
    list += (list.empty() ? "" : ", ") + std::string(entry.name);
  }
  return list.empty() ? "'claudemesh daemon limits' lists them" : "there are: " + list;
}

// 0 is no limit for the one, and settled at the start for the other.
bool may_be_zero(std::string_view name) {
  return name == "rate_per_minute" || name == "tls_connection_bytes" ||
         name == "dedupe_retention_days" || name == "history_days_max";
}

}  // namespace

std::vector<std::pair<std::string_view, std::uint64_t>> list_limits(const Limits& limits) {
  std::vector<std::pair<std::string_view, std::uint64_t>> list;
  for (const Entry& entry : kEntries) {
    list.emplace_back(entry.name,
                      entry.narrow != nullptr ? limits.*entry.narrow : limits.*entry.wide);
  }
  return list;
}

Status set_limit(std::string_view name, std::uint64_t value, Limits& limits) {
  for (const Entry& entry : kEntries) {
    if (entry.name != name) continue;
    const std::uint64_t least = may_be_zero(name) ? 0 : 1;
    const std::uint64_t most = entry.wide != nullptr ? UINT64_MAX : UINT32_MAX;
    if (value < least || value > most) {
      return fail(Err::kUsage, std::string(name) + ": expected a whole number from " +
                                   std::to_string(least) + " to " + std::to_string(most));
    }
    if (name == "dedupe_retention_days" && value != 0 &&
        (value < kDedupeDaysLeast || value > kDedupeDaysMost)) {
      return fail(Err::kUsage, "dedupe_retention_days: expected 0 (for ever) or " +
                                   std::to_string(kDedupeDaysLeast) + " to " +
                                   std::to_string(kDedupeDaysMost) +
                                   ": daemons refuse a broker with another window");
    }
    if (entry.wide != nullptr) {
      limits.*entry.wide = value;
    } else {
      limits.*entry.narrow = static_cast<std::uint32_t>(value);
    }
    return {};
  }
  return fail(Err::kUsage, "no limit is named '" + std::string(name) + "'; " + similar(name));
}

Result<std::pair<std::string, std::uint64_t>> read_limit(std::string_view assignment,
                                                         Limits& limits) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return fail(Err::kUsage, "--limit: expected NAME=VALUE, like rate_per_minute=600");
  }
  const std::string name(assignment.substr(0, equals));
  const std::string_view text = assignment.substr(equals + 1);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Err::kUsage,
                "--limit " + name + ": expected a whole number, got '" + std::string(text) + "'");
  }
  if (Status set = set_limit(name, value, limits); !set) {
    return fail(Err::kUsage, "--limit: " + set.error().detail);
  }
  return std::pair(name, value);
}

Status set_limits(const std::vector<std::string>& assignments, Limits& limits) {
  for (const std::string& assignment : assignments) {
    if (auto set = read_limit(assignment, limits); !set) return set.error();
  }
  return {};
}

}  // namespace cm::cli
