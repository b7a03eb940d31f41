// metrics.h — one table of every metric: name, fixed labels, kind, help text; values beside it.
// Owns:   enum Metric and Metrics, a flat array of 64-bit values.
// Holds:  no label ever takes a value that a client supplied (design/presence.md, last section).
// Not:    per-mesh gauges with dynamic labels; they are written by their owner at scrape time.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace cm {

class TextBuf;

enum class MetricRole : std::uint8_t { kBoth, kBroker, kDaemon };
enum class MetricKind : std::uint8_t { kCounter, kGauge };

// X(enum name, role, kind, metric name, labels, help). Rows of one name stand together.
#define CM_METRICS(X)                                                                              \
  X(Iterations, Both, Counter, "cm_loop_iterations_total", "", "Iterations of the event loop")     \
  X(Commits, Both, Counter, "cm_store_commits_total", "", "Write transactions committed")          \
  X(CommitFailures, Both, Counter, "cm_store_commit_failures_total", "",                           \
    "Write transactions that could not commit and were abandoned")                                 \
  X(StoreDamagedReads, Both, Counter, "cm_store_damaged_reads_total", "",                          \
    "Reads of a row that does not match its checksum")                                             \
  X(StoreUsedBytes, Both, Gauge, "cm_store_used_bytes", "", "Bytes of pages in use in the store")  \
  X(StoreBoundBytes, Both, Gauge, "cm_store_bound_bytes", "",                                      \
    "Admission bound of the store in bytes")                                                       \
  X(StoreFillPercent, Both, Gauge, "cm_store_fill_percent", "",                                    \
    "Share of the admission bound that is in use")                                                 \
  X(DurabilitySync, Both, Gauge, "cm_store_durability_sync", "",                                   \
    "1 if every commit is flushed to the disk, 0 in relaxed mode")                                 \
  X(LogDropped, Both, Counter, "cm_log_dropped_total", "", "Log lines that could not be written")  \
  X(BrokerConnections, Broker, Gauge, "broker_connections_active", "",                             \
    "WebSocket connections that are open")                                                         \
  X(BrokerConnectionsTotal, Broker, Counter, "broker_connections_total", "",                       \
    "WebSocket connections accepted")                                                              \
  X(BrokerRejectedHello, Broker, Counter, "broker_connections_rejected_total", "reason=\"hello\"", \
    "Connections refused, by reason")                                                              \
  X(BrokerRejectedCapacity, Broker, Counter, "broker_connections_rejected_total",                  \
    "reason=\"capacity\"", "Connections refused, by reason")                                       \
  X(BrokerTlsFailed, Broker, Counter, "cm_broker_tls_handshakes_failed_total", "",                 \
    "TLS handshakes that failed or did not end in time")                                           \
  X(BrokerPartialBytes, Broker, Gauge, "cm_broker_partial_input_bytes", "",                        \
    "Memory of frames and requests that have not fully arrived")                                   \
  X(BrokerOutputBytes, Broker, Gauge, "cm_broker_unsent_output_bytes", "",                         \
    "Memory of output that connections have not taken")                                            \
  X(BrokerDroppedSlow, Broker, Counter, "cm_broker_slow_consumers_total", "",                      \
    "Connections dropped with too much unread output")                                             \
  X(BrokerRoutedNow, Broker, Counter, "broker_messages_routed_total", "priority=\"now\"",          \
    "Messages accepted, by priority")                                                              \
  X(BrokerRoutedNext, Broker, Counter, "broker_messages_routed_total", "priority=\"next\"",        \
    "Messages accepted, by priority")                                                              \
  X(BrokerRoutedLow, Broker, Counter, "broker_messages_routed_total", "priority=\"low\"",          \
    "Messages accepted, by priority")                                                              \
  X(BrokerRejectedRate, Broker, Counter, "broker_messages_rejected_total",                         \
    "reason=\"rate_limit\"", "Messages refused, by reason")                                        \
  X(BrokerRejectedQueue, Broker, Counter, "broker_messages_rejected_total",                        \
    "reason=\"queue_full\"", "Messages refused, by reason")                                        \
  X(BrokerRejectedDisk, Broker, Counter, "broker_messages_rejected_total", "reason=\"disk\"",      \
    "Messages refused, by reason")                                                                 \
  X(BrokerRejectedTarget, Broker, Counter, "broker_messages_rejected_total",                       \
    "reason=\"not_found\"", "Messages refused, by reason")                                         \
  X(BrokerRejectedOther, Broker, Counter, "broker_messages_rejected_total", "reason=\"other\"",    \
    "Messages refused, by reason")                                                                 \
  X(BrokerRejectedGrant, Broker, Counter, "broker_messages_rejected_total",                        \
    "reason=\"forbidden\"", "Messages refused, by reason")                                         \
  X(BrokerRateThenRefused, Broker, Counter,                                                        \
    "cm_broker_rate_limit_consumed_then_b2_rejected_total", "",                                    \
    "Sends that took a token of the rate limit and then had no destination")                       \
  X(BrokerExpired, Broker, Counter, "broker_deliveries_expired_total", "",                         \
    "Deliveries that ended without reaching their recipient")                                      \
  X(BrokerDroppedByGrant, Broker, Counter, "broker_messages_dropped_by_grant_total", "",           \
    "Deliveries that the recipient's grants did not let through")                                  \
  X(BrokerHttpRefused, Broker, Counter, "broker_http_refused_total", "",                           \
    "HTTP requests without the authority that their route demands")                                \
  X(BrokerDuplicates, Broker, Counter, "broker_dedupe_duplicates_total", "",                       \
    "Sends answered as duplicates of an accepted message")                                         \
  X(BrokerMismatches, Broker, Counter, "cm_broker_dedupe_fingerprint_mismatch_total", "",          \
    "Sends refused because their id names another request")                                        \
  X(BrokerPushes, Broker, Counter, "broker_pushes_total", "", "Message pushes written")            \
  X(BrokerRedeliveries, Broker, Counter, "broker_redeliveries_total", "",                          \
    "Claims released unacknowledged and queued again")                                             \
  X(BrokerAcks, Broker, Counter, "broker_client_acks_total", "", "Deliveries acknowledged")        \
  X(BrokerReceiptsSigned, Broker, Counter, "cm_broker_receipts_signed_total", "",                  \
    "Deliveries acknowledged with the recipient's signature")                                      \
  X(BrokerQueueDepth, Broker, Gauge, "broker_queue_depth", "", "Undelivered rows")                 \
  X(BrokerFrameErrors, Broker, Counter, "broker_frame_errors_total", "",                           \
    "Frames answered with an error")                                                               \
  X(BrokerRateRefusals, Broker, Counter, "cm_broker_requests_rate_limited_total", "",              \
    "Requests other than messages refused because their member asks for too much")                 \
  X(BrokerLeasesExpired, Broker, Counter, "broker_presence_leases_expired_total", "",              \
    "Presence leases that ran out")                                                                \
  X(BrokerPressureLevel, Broker, Gauge, "cm_broker_pressure_level", "",                            \
    "0 normal, 1 high, 2 refusing messages, 3 degraded")                                           \
  X(BrokerDedupeExpired, Broker, Counter, "cm_broker_dedupe_expired_total", "",                    \
    "Dedupe rows erased because their retention was over")                                         \
  X(BrokerMessagesPruned, Broker, Counter, "cm_broker_messages_pruned_total", "",                  \
    "Messages erased from history because of their age")                                           \
  X(BrokerRetentionRuns, Broker, Counter, "cm_broker_retention_runs_total", "",                    \
    "Runs of the daily job that expires, prunes and checks references")                            \
  X(BrokerOrphanDeliveries, Broker, Gauge, "cm_broker_orphan_rows", "table=\"delivery\"",          \
    "Rows that hang on nothing, as of the last daily check, by table")                             \
  X(BrokerOrphanReceipts, Broker, Gauge, "cm_broker_orphan_rows", "table=\"receipt\"",             \
    "Rows that hang on nothing, as of the last daily check, by table")                             \
  X(BrokerOrphanMessages, Broker, Gauge, "cm_broker_orphan_rows", "table=\"message\"",             \
    "Rows that hang on nothing, as of the last daily check, by table")                             \
  X(BrokerOrphanDedupe, Broker, Gauge, "cm_broker_orphan_rows", "table=\"dedupe\"",                \
    "Rows that hang on nothing, as of the last daily check, by table")                             \
  X(BrokerDbHealthy, Broker, Gauge, "broker_db_healthy", "",                                       \
    "1 if the last commit succeeded and the store has room, else 0")                               \
  X(BrokerTtlSweepsNone, Broker, Counter, "broker_ttl_sweeps_total", "flipped=\"0\"",              \
    "Sweeps over presence leases that were due, by whether one ended")                             \
  X(BrokerTtlSweepsSome, Broker, Counter, "broker_ttl_sweeps_total", "flipped=\"1\"",              \
    "Sweeps over presence leases that were due, by whether one ended")                             \
  X(BrokerHookRequests, Broker, Counter, "broker_hook_requests_total", "",                         \
    "Requests to /hook/set-status")                                                                \
  X(BrokerHookRateLimited, Broker, Counter, "broker_hook_requests_rate_limited_total", "",         \
    "Requests to /hook/set-status refused because there were too many")                            \
  X(DaemonSendAccepted, Daemon, Counter, "cm_daemon_send_total", "status=\"accepted\"",            \
    "Requests to send, by outcome")                                                                \
  X(DaemonSendDuplicate, Daemon, Counter, "cm_daemon_send_total", "status=\"duplicate\"",          \
    "Requests to send, by outcome")                                                                \
  X(DaemonSendConflict, Daemon, Counter, "cm_daemon_send_total", "status=\"conflict\"",            \
    "Requests to send, by outcome")                                                                \
  X(DaemonSendRefused, Daemon, Counter, "cm_daemon_send_total", "status=\"refused\"",              \
    "Requests to send, by outcome")                                                                \
  X(DaemonOutboxPending, Daemon, Gauge, "cm_daemon_outbox_depth", "status=\"pending\"",            \
    "Outbox rows that are not terminal, by status")                                                \
  X(DaemonOutboxInflight, Daemon, Gauge, "cm_daemon_outbox_depth", "status=\"inflight\"",          \
    "Outbox rows that are not terminal, by status")                                                \
  X(DaemonOutboxDone, Daemon, Counter, "cm_daemon_outbox_done_total", "",                          \
    "Outbox rows that the broker accepted")                                                        \
  X(DaemonOutboxDead, Daemon, Counter, "cm_daemon_outbox_dead_total", "",                          \
    "Outbox rows that ended in dead")                                                              \
  X(DaemonOutboxRetries, Daemon, Counter, "cm_daemon_outbox_retries_total", "",                    \
    "Transient refusals and lost connections that made a row pending again")                       \
  X(DaemonRecvStored, Daemon, Counter, "cm_daemon_recv_total", "status=\"stored\"",                \
    "Messages received, by outcome")                                                               \
  X(DaemonRecvDuplicate, Daemon, Counter, "cm_daemon_recv_total", "status=\"duplicate\"",          \
    "Messages received, by outcome")                                                               \
  X(DaemonRecvUndecryptable, Daemon, Counter, "cm_daemon_recv_total", "status=\"undecryptable\"",  \
    "Messages received, by outcome")                                                               \
  X(DaemonEcho, Daemon, Counter, "cm_daemon_recv_total", "status=\"echo\"",                        \
    "Messages received, by outcome")                                                               \
  X(DaemonInvalidInbound, Daemon, Counter, "cm_daemon_invalid_inbound_total", "",                  \
    "Frames from a broker that were not understood")                                               \
  X(DaemonReconnects, Daemon, Counter, "cm_daemon_reconnects_total", "",                           \
    "Broker connections that were lost and tried again")                                           \
  X(DaemonConnected, Daemon, Gauge, "cm_daemon_meshes_connected", "",                              \
    "Meshes whose broker connection is open")                                                      \
  X(DaemonIpcRequests, Daemon, Counter, "cm_daemon_ipc_request_total", "",                         \
    "IPC requests answered")                                                                       \
  X(DaemonStreams, Daemon, Gauge, "cm_daemon_event_streams", "", "Event streams that are open")    \
  X(DaemonRefusedToken, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"query_token\"",  \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedHost, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"host\"",          \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedOrigin, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"origin\"",      \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedBearer, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"bearer\"",      \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedSession, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"session\"",    \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedRate, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"rate\"",          \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedBody, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"body\"",          \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedBusy, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"busy\"",          \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedStream, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"streams\"",     \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonRefusedDisk, Daemon, Counter, "cm_daemon_ipc_refused_total", "reason=\"disk\"",          \
    "IPC requests refused by a gate or a limit, by reason")                                        \
  X(DaemonCallsTimedOut, Daemon, Counter, "cm_daemon_broker_calls_failed_total",                   \
    "reason=\"timeout\"", "Requests passed to a broker that failed, by reason")                    \
  X(DaemonCallsLost, Daemon, Counter, "cm_daemon_broker_calls_failed_total", "reason=\"lost\"",    \
    "Requests passed to a broker that failed, by reason")                                          \
  X(DaemonCallsRefused, Daemon, Counter, "cm_daemon_broker_calls_failed_total",                    \
    "reason=\"refused\"", "Requests passed to a broker that failed, by reason")                    \
  X(DaemonStreamsSlow, Daemon, Counter, "cm_daemon_event_streams_slow_total", "",                  \
    "Event streams closed because their reader was too slow")                                      \
  X(DaemonStreamGaps, Daemon, Counter, "cm_daemon_event_stream_gaps_total", "",                    \
    "Event streams that resumed at an event no longer kept")                                       \
  X(DaemonInboxPruned, Daemon, Counter, "cm_daemon_inbox_removed_total", "",                       \
    "Inbox rows deleted by request or by age")                                                     \
  X(DaemonTokenRotations, Daemon, Counter, "cm_daemon_local_token_rotations_total", "",            \
    "Rotations of the local token")                                                                \
  X(DaemonReloads, Daemon, Counter, "cm_daemon_reloads_total", "result=\"ok\"",                    \
    "Readings of config.json while running, by result")                                            \
  X(DaemonReloadsRefused, Daemon, Counter, "cm_daemon_reloads_total", "result=\"refused\"",        \
    "Readings of config.json while running, by result")                                            \
  X(DaemonPluginSlow, Daemon, Counter, "cm_daemon_plugin_slow_calls_total", "",                    \
    "Calls into a transport plugin that took longer than their budget")                            \
  X(DaemonCloneSuspected, Daemon, Counter, "cm_daemon_clone_suspected_total", "",                  \
    "Signs that another daemon serves the same member: broker closes 4003 and 4004")               \
  X(DaemonRefusedPayload, Daemon, Counter, "cm_daemon_payload_refused_total", "",                  \
    "Messages refused because they are larger than their broker takes")                            \
  X(DaemonOutboxShrunk, Daemon, Counter, "cm_daemon_outbox_shrunk_total", "",                      \
    "Outbox rows that became tombstones")                                                          \
  X(DaemonTombstoneBytes, Daemon, Gauge, "cm_daemon_tombstone_bytes", "",                          \
    "Bytes of the pages of tombstones")                                                            \
  X(DaemonPressureLevel, Daemon, Gauge, "cm_daemon_pressure_level", "",                            \
    "0 normal, 1 high, 2 refusing sends, 3 degraded")                                              \
  X(DaemonInboxSetAside, Daemon, Counter, "cm_daemon_inbox_set_aside_total", "",                   \
    "Damaged inbox rows that a start wrote to a file and removed")                                 \
  X(DaemonReceiptsInvalid, Daemon, Counter, "cm_daemon_receipts_invalid_total", "",                \
    "Receipts of recipients whose signature does not verify")                                      \
  X(DaemonSeenReports, Daemon, Counter, "cm_daemon_seen_reports_total", "",                        \
    "Reports of seen messages that a broker has taken")                                            \
  X(DaemonSeenDropped, Daemon, Counter, "cm_daemon_seen_reports_dropped_total", "",                \
    "Reports of seen messages that were given up: too many waited, or nobody takes them")

enum class Metric : std::uint16_t {
#define CM_METRIC_NAME(name, ...) k##name,
  CM_METRICS(CM_METRIC_NAME)
#undef CM_METRIC_NAME
      kCount
};

struct MetricInfo {
  MetricRole role;
  MetricKind kind;
  std::string_view name;
  std::string_view labels;  // without braces; may be empty
  std::string_view help;
};

const MetricInfo& info_of(Metric metric) noexcept;

class Metrics {
 public:
  void add(Metric metric, std::uint64_t amount = 1) noexcept { values_[index(metric)] += amount; }
  void set(Metric metric, std::uint64_t value) noexcept { values_[index(metric)] = value; }
  std::uint64_t get(Metric metric) const noexcept { return values_[index(metric)]; }

  // Appends the Prometheus text exposition (format 0.0.4) of one role's metrics.
  void expose(MetricRole role, TextBuf& out) const;

 private:
  static std::size_t index(Metric metric) noexcept { return static_cast<std::size_t>(metric); }
  std::array<std::uint64_t, static_cast<std::size_t>(Metric::kCount)> values_{};
};

}  // namespace cm
