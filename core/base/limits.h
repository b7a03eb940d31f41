// limits.h — every capacity of the program in one struct, and the memory bill they add up to.
// Owns:   Limits (defaults: spec/decisions.md "Limits", design/delivery.md).
// Holds:  tables and pools are built from these numbers and from no others; the bill is asserted
//         to fit `memory_budget_bytes` at start.
// Not:    limits of the wire format itself (core/wire/limits.h), which no operator may change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace cm {

struct Limits {
  // --- one iteration of the loop (design/architecture.md) ---
  std::uint32_t iteration_rows_max = 4096;             // rows written before the commit is forced
  std::uint32_t iteration_bytes_max = 4 << 20;         // bytes of frames applied
  std::uint32_t iteration_micros_max = 20'000;         // time spent applying
  std::uint32_t socket_read_bytes_max = 256 << 10;     // read from one socket in one iteration
  std::uint32_t scratch_keep_bytes = 4 << 20;          // arena kept between iterations
  std::uint32_t iteration_effect_bytes_max = 8 << 20;  // broker: replies and pushes; then the rest
                                                       // of the events waits

  // --- network, both roles ---
  std::uint32_t pool_keep_bytes = 8 << 20;             // free buffers kept for reuse
  std::uint32_t http_head_bytes_max = 16 << 10;        // request or response head
  std::uint32_t http_body_bytes_max = 1 << 20;         // IPC and broker requests
  std::uint32_t unauthenticated_bytes_max = 64 << 10;  // unparsed input before the hello
  std::uint32_t slow_consumer_soft_bytes = 4 << 20;  // pending output; then the queue waits on disk
  std::uint32_t slow_consumer_hard_bytes = 16 << 20;  // pending output; then the connection drops
  std::uint32_t partial_frame_ms_max = 30'000;        // from a frame's first byte to its last
  std::uint32_t partial_bytes_max = 256u << 20;       // of unfinished input, all connections
  std::uint32_t partial_group_bytes_max = 16 << 20;   // of unfinished input, one member
  std::uint32_t output_bytes_max = 256u << 20;        // unsent, all connections
  std::uint32_t output_group_bytes_max = 64 << 20;    // unsent, one member
  std::uint32_t tls_handshake_ms = 10'000;            // from accepting to the end of the handshake
  std::uint32_t tls_connection_bytes = 0;  // of an idle connection beside its row; set with TLS

  // --- broker ---
  std::uint32_t broker_connections_max = 20'000;  // sockets of the process
  std::uint32_t mesh_connections_max = 10'000;    // authenticated, one mesh
  std::uint32_t member_connections_max = 2'500;   // authenticated, one member
  std::uint32_t hello_deadline_ms = 10'000;
  std::uint32_t frame_bytes_max = 1 << 20;  // one WebSocket message from a client
  std::uint32_t ping_ms = 30'000;
  std::uint32_t stale_ms = 75'000;
  std::uint32_t presence_lease_ms = 90'000;
  std::uint32_t claim_lease_ms = 30'000;
  std::uint32_t claim_rows_max = 256;       // unacked rows on one connection
  std::uint32_t claim_bytes_max = 2 << 20;  // unacked bytes on one connection
  std::uint32_t claims_max = 1 << 20;       // of all connections; then mailboxes wait
  std::uint32_t rate_per_minute = 6'000;    // messages of one member; 0: no limit
  std::uint32_t rate_burst = 600;
  std::uint32_t peers_list_bytes_max = 8 << 20;    // then the list ends and says so
  std::uint32_t member_reply_bytes_max = 8 << 20;  // of lists and values to one member in a second
  std::uint32_t queue_pair_rows_max = 1'000;       // per (sender member, recipient)
  std::uint32_t queue_pair_bytes_max = 16 << 20;
  std::uint64_t queue_sender_bytes_max = 256 << 20;  // undelivered, per (sender, mesh)
  std::uint32_t queue_rows_max = 10'000;             // per recipient
  std::uint32_t queue_bytes_max = 64 << 20;
  // Recipients that have undelivered rows of one sender.
  std::uint32_t queue_sender_mailboxes_max = 20'000;
  std::uint32_t meshes_max = 10'000;
  std::uint32_t multicast_recipients_max = 10'000;
  std::uint32_t mesh_topics_max = 1'000;      // of one mesh
  std::uint32_t topic_members_max = 10'000;   // of one topic
  std::uint32_t state_keys_max = 10'000;      // of one mesh
  std::uint32_t memories_max = 100'000;       // of one mesh
  std::uint32_t skills_max = 1'000;           // of one mesh
  std::uint32_t dedupe_retention_days = 365;  // advertised; at least 3; 0: permanent
  std::uint32_t history_days_max = 365;       // of messages that everybody has; 0: for ever
  std::uint32_t undelivered_days_max = 7;     // then a row ends as expired
  std::uint32_t mailboxes_max = 200'000;      // recipients that ever had mail
  std::uint32_t presences_max = 40'000;       // online and leased
  // Of one mesh: its state, memories and skills together.
  std::uint64_t mesh_shared_bytes_max = 256 << 20;
  std::uint64_t search_index_bytes_max = 64 << 20;  // of the words of memories, all meshes

  // --- daemon ---
  std::uint32_t daemon_meshes_max = 256;
  std::uint32_t roster_rows_max = 20'000;  // peers of all meshes
  std::uint32_t known_peers_max = 20'000;  // of one mesh: names seen, and not used
  std::uint32_t outbox_rows_max = 10'000;  // rows that are not terminal
  std::uint32_t outbox_lanes_max = 10'000;
  std::uint32_t ipc_requests_max = 64;
  std::uint32_t ipc_streams_max = 32;
  std::uint32_t ipc_connections_max = 256;
  std::uint32_t parked_sends_max = 64;              // waiting for the roster
  std::uint32_t event_ring_bytes = 1 << 20;         // events kept for streams that reconnect
  std::uint32_t daemon_frame_bytes_max = 16 << 20;  // control-plane frames from a broker
  std::uint32_t payload_bytes_max = 65'536;         // encoded frame, until negotiation exists
  std::uint32_t outbox_age_hours_max = 168;         // until negotiation exists
  std::uint32_t box_keys_max = 1'024;               // precomputed keys kept, both directions
  std::uint32_t secret_slots_max = 1'024;           // slots of the guarded slab

  // --- daemon: IPC and what it asks of brokers ---
  std::uint32_t ipc_rate_per_second = 100;  // requests of one token, sustained
  std::uint32_t ipc_rate_burst = 1'000;
  std::uint32_t broker_calls_max = 1'024;             // passed to brokers and not answered yet
  std::uint32_t broker_replies_bytes_max = 32 << 20;  // such answers while others are awaited
  std::uint32_t topics_max = 10'000;                  // names kept of one mesh
  std::uint32_t inbox_days_max = 30;                  // then a row is deleted; its key stays
  std::uint32_t outbox_terminal_days = 7;             // then an ended row is a tombstone

  // --- store (admission bound; the map adds the reserve) ---
  std::uint64_t store_bound_bytes = std::uint64_t{8} << 30;

  std::uint64_t memory_budget_bytes = std::uint64_t{1} << 30;
};

// One addend of the bill: who holds that memory when everything is full at once.
struct BillLine {
  std::string_view what;
  std::uint64_t bytes;
};

constexpr std::size_t kBillLines = 12;
struct MemoryBill {
  BillLine lines[kBillLines];
  std::size_t count = 0;
  std::uint64_t total() const noexcept;
};

MemoryBill broker_bill(const Limits& limits) noexcept;
MemoryBill daemon_bill(const Limits& limits) noexcept;

// The reserve behind the admission bound: acks, deletes and requeues still fit in a full store.
std::uint64_t store_reserve_bytes(std::uint64_t bound) noexcept;

}  // namespace cm
