// verify.cc — every invariant of the broker that can be checked from inside.
// Holds:  reads only; null or the first rule that is broken. Runs at each simulated turn, on
//         SIGUSR1 and in the unit tests after every iteration.
// Not:    what the store promises by itself (store/fsck.cc).
#include <cstdio>

#include "core/base/check.h"
#include "core/broker/broker.h"

namespace cm::broker {

using store::TableId;

const char* Broker::verify_queues() {
  std::unordered_map<std::uint64_t, std::uint32_t> rows;
  store::Cursor cursor(batch(), TableId::kDelivery);
  std::uint64_t total = 0;
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    store::DeliveryKeyParts parts;
    if (!store::parse_delivery_key(cursor.key(), parts)) return "a delivery key is malformed";
    ++rows[parts.mailbox.bits()];
    ++total;
  }
  if (total != queued_rows_) return "queued_rows differs from the delivery table";
  if (total != tables_.budget.rows()) return "the senders' shares differ from the delivery table";
  const char* problem = nullptr;
  tables_.mailboxes.each([&](MailboxRef box) {
    const MailboxId id = tables_.mailboxes.get<kBoxId>(box);
    if (tables_.mailboxes.get<kBoxRows>(box) != rows[id.bits()]) {
      problem = "a mailbox counts other rows than the delivery table has";
    }
    if (tables_.mailboxes.get<kBoxClaimed>(box) > tables_.mailboxes.get<kBoxRows>(box)) {
      problem = "a mailbox has more claims than rows";
    }
    const bool has_claimer = static_cast<bool>(tables_.mailboxes.get<kBoxClaimer>(box));
    if (has_claimer != (tables_.mailboxes.get<kBoxClaimed>(box) > 0)) {
      problem = "a mailbox has a claimer without claims, or claims without a claimer";
    }
  });
  return problem;
}

const char* Broker::verify_claims() const {
  const char* problem = nullptr;
  std::uint32_t linked = 0;
  tables_.clients.each([&](ClientRef client) {
    std::uint32_t count = 0;
    std::uint64_t bytes = 0;
    for (ClaimRef claim = tables_.clients.get<kClientClaims>(client).first; claim;
         claim = tables_.claims.get<kClaimLinks>(claim).next) {
      ++count;
      bytes += tables_.claims.get<kClaimBytes>(claim);
      const LaneRef lane = tables_.claims.get<kClaimLane>(claim);
      if (!tables_.lanes.alive(lane) || !(tables_.lanes.get<kLaneClient>(lane) == client)) {
        problem = "a claim's lane belongs to another connection";
      }
    }
    linked += count;
    if (count != tables_.clients.get<kClientClaimCount>(client) ||
        bytes != tables_.clients.get<kClientClaimBytes>(client)) {
      problem = "a connection counts other claims than its list has";
    }
    if (count > limits_.claim_rows_max) problem = "a connection holds more rows than its window";
  });
  if (linked != tables_.claims.count()) problem = "a claim is on no connection's list";
  if (tables_.lane_of.size() != tables_.lanes.count()) problem = "a lane is not indexed";
  return problem;
}

const char* Broker::verify_presences() const {
  const char* problem = nullptr;
  for (const auto& [member_no, mirror] : tables_.members) {
    std::uint32_t receipts = 0;
    for (const ClientRef client : mirror.clients) {
      receipts += tables_.clients.get<kClientReceipts>(client);
    }
    if (receipts != mirror.receipts) problem = "a member counts other connections with receipts";
  }
  tables_.presences.each([&](PresenceRef presence) {
    const auto& sockets = tables_.presences.get<kPresClients>(presence);
    const bool online = tables_.presences.get<kPresDeadline>(presence) == 0;
    if (online != !sockets.empty()) problem = "a presence is online without a socket, or reverse";
    for (const ClientRef client : sockets) {
      if (!tables_.clients.alive(client) ||
          !(tables_.clients.get<kClientPresence>(client) == presence)) {
        problem = "a presence names a connection that does not name it";
      }
    }
    const auto found = tables_.presence_of.find(tables_.presences.get<kPresKey>(presence));
    if (found == tables_.presence_of.end() || !(found->second == presence)) {
      problem = "a presence is not indexed by its key";
    }
  });
  return problem;
}

const char* Broker::verify_all() {
  if (!tables_.clients.verify() || !tables_.presences.verify() || !tables_.mailboxes.verify() ||
      !tables_.claims.verify() || !tables_.lanes.verify()) {
    return "a table's free list or count is broken";
  }
  if (const char* problem = verify_queues(); problem != nullptr) return problem;
  if (const char* problem = verify_claims(); problem != nullptr) return problem;
  if (const char* problem = verify_shared(); problem != nullptr) return problem;
  return verify_presences();
}

void Broker::summarise(int fd) const noexcept {
  const auto line = [fd](const char* name, std::uint64_t count) {
    crash_write(fd, name);
    crash_write_number(fd, count);
    crash_write(fd, "\n");
  };
  line("  broker clients: ", tables_.clients.count());
  line("  broker presences: ", tables_.presences.count());
  line("  broker mailboxes: ", tables_.mailboxes.count());
  line("  broker claims: ", tables_.claims.count());
  line("  broker lanes: ", tables_.lanes.count());
  line("  broker queued rows: ", queued_rows_);
}

}  // namespace cm::broker
