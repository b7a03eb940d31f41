// oracle_end.cc — what the stores hold when all is quiet, judged against what clients were told.
#include <algorithm>

#include "tests/sim/oracle.h"

namespace cm::sim {
namespace {

using store::TableId;

// The marker, and what base64 makes of it at each of the three alignments.
constexpr std::string_view kForms[] = {
    kMarker,
    "U0lNVUxBVEVELVBMQUlOVEVY",
    "NJTVVMQVRFRC1QTEFJTlRFWF",
    "TSU1VTEFURUQtUExBSU5URVh",
};

}  // namespace

void Oracle::check_bytes(std::string_view what, std::string_view bytes) {
  for (const std::string_view form : kForms) {
    if (bytes.find(form) != std::string_view::npos) {
      breaks("7: nothing readable on the way", std::string(what) + " holds plaintext");
    }
  }
}

void Oracle::check_broker(store::Batch& batch) {
  store::Cursor queued(batch, TableId::kDelivery);
  if (queued.seek({})) return breaks("1: delivered", "a row is still queued at the broker");
  std::set<std::pair<std::uint32_t, std::string>> ids;
  store::Cursor messages(batch, TableId::kMessage);
  for (bool more = messages.seek({}); more; more = messages.next()) {
    store::MessageRow row;
    if (!messages.row(row)) return breaks("fsck", "a message row is damaged");
    const std::string id(row.text[store::kMessageClientId]);
    const std::uint32_t sender = row.fixed.sender_member_no;
    if (!ids.insert({sender, id}).second) return breaks("3: accepted at most once", id);
    store::DedupeRow dedupe;
    Ulid message;
    const store::Key key = store::u32_bytes_key(sender, as_bytes(id));
    if (!batch.get(TableId::kDedupe, key.bytes(), dedupe) ||
        !store::parse_ulid_key(messages.key(), message) || !(dedupe.fixed.message == message)) {
      return breaks("4: a message has its dedupe record", id);
    }
  }
  std::size_t records = 0;
  store::Cursor known(batch, TableId::kDedupe);
  for (bool more = known.seek({}); more; more = known.next()) ++records;
  if (records != ids.size()) breaks("4: a dedupe record has its message", "there are more of them");
}

void Oracle::check_outbox(std::uint32_t daemon, store::Batch& batch, store::Batch& broker) {
  std::map<Ulid, std::uint32_t> done = check_tombstones(daemon, batch);
  store::Cursor cursor(batch, TableId::kOutbox);
  for (bool more = cursor.seek({}); more && !broken(); more = cursor.next()) {
    store::OutboxRow row;
    store::OutboxBodyRow body;
    if (!cursor.row(row) || !batch.get(TableId::kOutboxBody, cursor.key(), body)) {
      return breaks("fsck", "an outbox row is damaged");
    }
    // The sender's own store may hold the plaintext: it names the request.
    const std::string payload(body.text[store::kBodyPayload]);
    std::uint32_t number = UINT32_MAX;
    for (const Request& request : requests_) {
      if (request.daemon == daemon && request.message == payload) number = request.number;
    }
    if (number == UINT32_MAX) return breaks("1: accepted means durable", "a row of no request");
    Request& request = requests_[number];
    if (!request.accepted && !request.unknown) {
      return breaks("a refused request consumes nothing", name(request) + " has a row");
    }
    const std::string id(row.text[store::kOutboxClientId]);
    if (!request.id.empty() && request.id != id) {
      return breaks("2: an id names one request", name(request) + " has the row of " + id);
    }
    if (row.text[store::kOutboxTarget] != members_[request.target].hex) {
      return breaks("1: the right recipient", name(request) + " went to another key");
    }
    if (row.fixed.status == store::OutboxStatus::kDead) {
      // Every target here exists and every frame is right: only time can kill a row.
      if (!row.text[store::kOutboxLastError].starts_with("max_age_exceeded")) {
        return breaks("1: dead has its reason",
                      name(request) + ": " + std::string(row.text[store::kOutboxLastError]));
      }
      dead_.insert(number);
      ++counters_.dead;
      continue;
    }
    if (row.fixed.status != store::OutboxStatus::kDone) {
      return breaks("1: done or dead in the end", name(request) + " is neither");
    }
    const auto message = ulid_parse(row.text[store::kOutboxBrokerId]);
    store::MessageRow stored;
    if (!message || !broker.get(TableId::kMessage, store::ulid_key(*message).bytes(), stored) ||
        stored.text[store::kMessageClientId] != id) {
      return breaks("9: done is stored at the broker", name(request));
    }
    Ulid key;
    if (!store::parse_ulid_key(cursor.key(), key)) return breaks("fsck", "an outbox key is none");
    done[key] = number;
  }
  std::uint64_t position = 0;
  for (const auto& [key, number] : done) outbox_at_[number] = ++position;
}

// Rows that ended seven days ago by a clock that jumps: their ids, and how they ended, are left.
std::map<Ulid, std::uint32_t> Oracle::check_tombstones(std::uint32_t daemon, store::Batch& batch) {
  std::map<Ulid, std::uint32_t> done;
  store::Cursor cursor(batch, TableId::kTombstone);
  for (bool more = cursor.seek({}); more && !broken(); more = cursor.next()) {
    store::TombstoneRow row;
    Ulid key;
    if (!cursor.row(row) || !store::parse_ulid_key(cursor.key(), key)) {
      breaks("fsck", "a tombstone is damaged");
      return done;
    }
    const auto found = std::find_if(requests_.begin(), requests_.end(), [&](const Request& one) {
      return one.daemon == daemon && one.accepted && one.id == row.text[store::kTombstoneClientId];
    });
    if (found == requests_.end()) continue;  // its answer was lost: which one it was is gone
    if (row.fixed.status == store::OutboxStatus::kDone) {
      done[key] = found->number;
    } else {
      dead_.insert(found->number);
      ++counters_.dead;
    }
  }
  return done;
}

void Oracle::check_inbox(std::uint32_t daemon, store::Batch& batch) {
  store::Cursor cursor(batch, TableId::kInbox);
  std::uint64_t position = 0;
  std::set<std::pair<std::string, std::string>> ids;
  for (bool more = cursor.seek({}); more && !broken(); more = cursor.next()) {
    ++position;
    store::InboxRow row;
    if (!cursor.row(row)) return breaks("fsck", "an inbox row is damaged");
    if (row.fixed.body_missing != 0) {
      return breaks("1: what arrives can be opened", row.text[store::kInboxReason]);
    }
    const std::string body(row.text[store::kInboxBody]);
    const Request* request = of_body(daemon, body, "an inbox");
    if (request == nullptr) return;
    const Member& sender = members_[request->daemon];
    if (row.text[store::kInboxSender] != sender.hex || row.fixed.has_member == 0 ||
        row.fixed.sender_member != sender.key || row.fixed.recipient != members_[daemon].key ||
        static_cast<std::uint32_t>(row.fixed.priority) != request->priority ||
        row.text[store::kInboxReplyTo] != request->reply_to) {
      return breaks("1: what arrives is what was sent", name(*request) + ": other fields");
    }
    if (!ids.insert({std::string(row.text[store::kInboxSender]),
                     std::string(row.text[store::kInboxClientId])})
             .second ||
        !delivered_.insert({request->number, {daemon, position}}).second) {
      return breaks("5: once in the inbox", name(*request));
    }
    ++counters_.delivered;
  }
}

void Oracle::check_all() {
  for (const Request& request : requests_) {
    const bool here = delivered_.contains(request.number);
    if (request.accepted && !here && !dead_.contains(request.number)) {
      return breaks("1: accepted means durable", name(request) + " is gone");
    }
    if (outbox_at_.contains(request.number) && !here) {
      return breaks("5: at least once to the receiver", name(request));
    }
    if (shown_.contains(request.number) && !here) {
      return breaks("8: shown means durable", name(request) + " was read and is gone");
    }
    if (!request.broker_id.empty() && !outbox_at_.contains(request.number)) {
      return breaks("2: the same answer", name(request) + " was done and is not");
    }
  }
  // 6: by the order of answers where it is certain, and by the order of the outbox.
  std::map<std::array<std::uint32_t, 3>, std::vector<const Request*>> lanes;
  for (const Request& request : requests_) {
    if (delivered_.contains(request.number)) {
      lanes[{request.daemon, request.target, request.priority}].push_back(&request);
    }
  }
  for (auto& [lane, arrived] : lanes) {
    std::sort(arrived.begin(), arrived.end(), [&](const Request* left, const Request* right) {
      return delivered_[left->number].position < delivered_[right->number].position;
    });
    std::uint64_t order = 0;
    std::uint64_t outbox = 0;
    for (const Request* request : arrived) {
      if (request->accepted && !request->unknown) {
        if (request->accept_order < order) return breaks("6: order", name(*request));
        order = request->accept_order;
      }
      const auto at = outbox_at_.find(request->number);
      if (at == outbox_at_.end()) continue;
      if (at->second < outbox) return breaks("6: order of the outbox", name(*request));
      outbox = at->second;
    }
  }
}

}  // namespace cm::sim
