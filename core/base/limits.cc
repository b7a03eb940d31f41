// limits.cc — the memory bill: each addend says who holds that memory.
#include "core/base/limits.h"

#include "core/base/check.h"

namespace cm {
namespace {

class Bill {
 public:
  void add(std::string_view what, std::uint64_t bytes) noexcept {
    CHECK(bill_.count < kBillLines);
    bill_.lines[bill_.count++] = {what, bytes};
  }
  MemoryBill take() const noexcept { return bill_; }

 private:
  MemoryBill bill_;
};

}  // namespace

std::uint64_t MemoryBill::total() const noexcept {
  std::uint64_t sum = 0;
  for (std::size_t index = 0; index < count; ++index) sum += lines[index].bytes;
  return sum;
}

MemoryBill broker_bill(const Limits& limits) noexcept {
  Bill bill;
  bill.add("iteration arenas: input and scratch", 2ull * limits.scratch_keep_bytes);
  // Texts of the effects in the arena and, as far as sockets do not take them at once, in output.
  bill.add("replies and pushes of one iteration", 2ull * limits.iteration_effect_bytes_max);
  bill.add("free buffers kept for reuse", limits.pool_keep_bytes);
  // An idle connection: its row in the net and core tables and one libevent event.
  bill.add("idle connections at 1 KiB", 1024ull * limits.broker_connections_max);
  if (limits.tls_connection_bytes != 0) {
    bill.add("TLS of idle connections",
             std::uint64_t{limits.tls_connection_bytes} * limits.broker_connections_max);
  }
  bill.add("presences at 512 B", 512ull * limits.presences_max);
  bill.add("claims and lane leases at 160 B", 160ull * limits.claims_max);
  bill.add("mailboxes at 192 B", 192ull * limits.mailboxes_max);
  bill.add("indexes of the words of memories", limits.search_index_bytes_max);
  bill.add("partial frames of all connections", limits.partial_bytes_max);
  bill.add("unsent output before connections drop", limits.output_bytes_max);
  return bill.take();
}

MemoryBill daemon_bill(const Limits& limits) noexcept {
  Bill bill;
  bill.add("iteration arenas: scratch and effects", 2ull * limits.scratch_keep_bytes);
  bill.add("free buffers kept for reuse", limits.pool_keep_bytes);
  bill.add("IPC requests in flight, one body each",
           std::uint64_t{limits.http_body_bytes_max} * limits.ipc_requests_max);
  bill.add("outbox work rows at 128 B", 128ull * limits.outbox_rows_max);
  bill.add("roster entries at 512 B", 512ull * limits.roster_rows_max);
  bill.add("events kept for streams", limits.event_ring_bytes);
  bill.add("answers of brokers while others are awaited", limits.broker_replies_bytes_max);
  bill.add("box keys and secrets", 160ull * limits.box_keys_max + 64ull * limits.secret_slots_max);
  bill.add("one frame being received a mesh, 8 at once", 8ull * limits.daemon_frame_bytes_max);
  return bill.take();
}

std::uint64_t store_reserve_bytes(std::uint64_t bound) noexcept {
  const std::uint64_t tenth = bound / 10;
  constexpr std::uint64_t kLeast = 64ull << 20;
  return tenth > kLeast ? tenth : kLeast;
}

}  // namespace cm
