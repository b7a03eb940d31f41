// oracle_end.cc — what the stores hold when all is quiet, judged against what clients were told.
#include <algorithm>
#include <bitset>

#include "core/base/check.h"
#include "core/crypto/encoding.h"

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

// The routing key of whoever a mailbox is for; empty: nobody's.
std::string key_of_mailbox(store::Batch& batch, std::uint32_t mesh_no, store::MailboxId box) {
  if (box.kind == store::MailboxKind::kMember) {
    store::MemberRow row;
    if (!batch.get(TableId::kMember, store::u32_key(box.no).bytes(), row)) return {};
    return std::string(crypto::view(crypto::hex_text(row.fixed.key)));
  }
  store::Cursor bindings(batch, TableId::kBinding);
  for (bool more = bindings.seek(store::u32_key(mesh_no).bytes()); more; more = bindings.next()) {
    store::BindingRow row;
    if (!bindings.row(row) || row.fixed.session_no != box.no) continue;
    crypto::PublicKey key{};
    CHECK(bindings.key().size() == 4 + key.size());
    std::copy_n(bindings.key().data() + 4, key.size(), key.begin());
    return std::string(crypto::view(crypto::hex_text(key)));
  }
  return {};
}

}  // namespace

void Oracle::check_bytes(std::string_view what, std::string_view bytes) {
  for (const std::string_view form : kForms) {
    if (bytes.find(form) != std::string_view::npos) {
      breaks("7: nothing readable on the way", std::string(what) + " holds plaintext");
    }
  }
}

void Oracle::check_file(std::string_view bytes) {
  check_bytes("the broker's store", bytes);
  check_hex("the broker's store", bytes);
  // Raw: by the first two bytes, most of which begin no fingerprint.
  std::bitset<65'536> first;
  for (const std::uint64_t prefix : bare_) first.set(prefix & 0xffff);
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  for (std::size_t at = 0; at + 8 <= bytes.size(); ++at) {
    if (!first.test(load_le<std::uint16_t>(data + at))) continue;
    if (bare_.contains(load_le<std::uint64_t>(data + at))) {
      breaks("7: nothing that confirms a guess", "the broker's store has a bare fingerprint");
    }
  }
}

// A bare fingerprint as hex, or its beginning: any run of hex digits begins with one, or has one
// behind 64 digits.
void Oracle::check_hex(std::string_view what, std::string_view bytes) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  for (std::size_t at = 0; at + 16 <= bytes.size();) {
    std::size_t run = 0;
    std::uint64_t value = 0;
    while (at + run < bytes.size() && digit(bytes[at + run]) >= 0) {
      const auto bits = static_cast<std::uint64_t>(digit(bytes[at + run]));
      if (run % 64 < 16) {
        const std::size_t byte = run % 64 / 2;
        if (run % 64 == 0) value = 0;
        value |= bits << (byte * 8 + (run % 2 == 0 ? 4 : 0));
        if (run % 64 == 15 && bare_.contains(value)) {
          breaks("7: nothing that confirms a guess", std::string(what) + " has a fingerprint");
        }
      }
      ++run;
    }
    at += run + 1;
  }
}

void Oracle::check_receipts(store::Batch& batch, const Ulid& message,
                            const store::MessageRow& row) {
  const auto from = crypto::hex_text(row.fixed.sender_key);
  const Request* request = of_id(crypto::view(from), row.text[store::kMessageClientId]);
  const bool to_many = request != nullptr && request->to_many();
  std::set<std::string> recipients;
  store::Cursor receipts(batch, TableId::kReceipt);
  for (bool more = receipts.seek(message.bytes); more; more = receipts.next()) {
    Ulid id;
    store::MailboxId box;
    store::ReceiptRow receipt;
    if (!store::parse_receipt_key(receipts.key(), id, box) || !(id == message)) break;
    if (!receipts.row(receipt) || request == nullptr) continue;
    const Member* to = to_many ? member_of_key(key_of_mailbox(batch, row.fixed.mesh_no, box))
                               : &members_[request->target];
    if (to == nullptr) return breaks("1: the right recipient", name(*request) + ": nobody");
    if (!recipients.insert(to->hex).second) return breaks("4: one row a recipient", name(*request));
    if (receipt.fixed.state != store::ReceiptState::kExpired) {
      check_receipt_row(*request, *to, receipt);
      if (to_many) owed_.insert({request->number, to->hex});
      continue;
    }
    const std::string_view reason = receipt.text[store::kReceiptReason];
    if (reason.empty()) breaks("1: expired has a reason", "a receipt");
    const bool had_no_room = to_many && reason == "queue_full";
    if (!plan_.mail_expires && !had_no_room) {
      breaks("1: mail does not expire so soon", std::string(reason));
    }
    expired_.insert(request->number);
  }
  if (!to_many) return;
  if (request->kind == TargetKind::kTopic) return check_subscribers(*request, recipients);
  check_who_was_there(*request, recipients);
}

void Oracle::check_who_was_there(const Request& request, const std::set<std::string>& rows) {
  for (const std::string& key : there_[request.id]) {
    if (rows.contains(key)) continue;
    return breaks("4: a message to all has a row for each", name(request) + ": not for " + key);
  }
}

void Oracle::check_subscribers(const Request& request, const std::set<std::string>& rows) {
  const auto sent = first_sent_.find(request.id);
  if (sent == first_sent_.end()) return;
  for (std::uint32_t node = 0; node < members_.size(); ++node) {
    const Member& one = members_[node];
    if (one.hex.empty() || !one.parent.empty() || one.hex == member_key(request.daemon)) continue;
    const auto joined = subscribed_.find(one.hex);
    if (joined == subscribed_.end() || joined->second > sent->second) continue;
    if (!rows.contains(one.hex)) {
      return breaks("4: a post has a row for each subscriber",
                    name(request) + ": not for " + std::to_string(node));
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
    Ulid ulid;
    CHECK(store::parse_ulid_key(messages.key(), ulid));
    check_receipts(batch, ulid, row);
    if (bare_.contains(load_le<std::uint64_t>(row.fixed.fingerprint.data()))) {
      breaks("7: nothing that confirms a guess", "a message row has a bare fingerprint");
    }
    store::Cursor receipts(batch, TableId::kReceipt);
    // Nobody may have been there for a message to many.
    const bool has_row =
        receipts.seek(ulid.bytes) && as_text(receipts.key().first(16)) == as_text(ulid.bytes);
    if (!has_row && crypto::public_key_parse(row.text[store::kMessageTarget])) {
      breaks("4: a message has a row for its recipient", id);
    }
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
    // The sender's own store may hold the plaintext: with the id it names the request.
    const std::string payload(body.text[store::kBodyPayload]);
    const std::string id(row.text[store::kOutboxClientId]);
    std::uint32_t number = UINT32_MAX;
    for (const Request& request : requests_) {
      if (request.daemon != daemon || request.message != payload) continue;
      if (request.id == id || request.id.empty()) number = request.number;
    }
    if (number == UINT32_MAX) return breaks("1: accepted means durable", "a row of no request");
    Request& request = requests_[number];
    if (!request.accepted && !request.unknown && !request.aborted && !request.dead) {
      return breaks("a refused request consumes nothing", name(request) + " has a row");
    }
    if (request.id.empty()) request.id = id;  // its answer was lost
    const std::string_view target = row.text[store::kOutboxTarget];
    const bool fits = request.kind == TargetKind::kTopic ? target.starts_with('#')
                      : request.to_many()                ? target == request.to
                                                         : target == members_[request.target].hex;
    if (!fits) {
      return breaks("1: the right recipient", name(request) + " went to another key");
    }
    if (row.fixed.status == store::OutboxStatus::kDead) {
      // Every target here exists and every frame is right: only time can kill a row, or a relay
      // that changed what stands for it.
      const std::string& key = members_[daemon].hex;
      // For all of its recipients a multicast may be more than its sender's whole share.
      const bool too_large =
          request.to_many() && row.text[store::kOutboxLastError].starts_with("invalid: ");
      const bool lied = relay_.changed(key, id) || relay_.slain(key, id) || too_large;
      if (!lied && !row.text[store::kOutboxLastError].starts_with("max_age_exceeded")) {
        return breaks("1: dead has its reason",
                      name(request) + ": " + std::string(row.text[store::kOutboxLastError]));
      }
      dead_.insert(number);
      ++counters_.dead;
      continue;
    }
    if (row.fixed.status == store::OutboxStatus::kAborted) {
      if (!request.aborted && !request.maybe_aborted) {
        return breaks("2: the same answer", name(request) + " was aborted by nobody");
      }
      if (row.text[store::kOutboxSupersededBy].empty() || row.fixed.aborted_ms == 0) {
        return breaks("1: aborted says by what and when", name(request));
      }
      aborted_.insert(number);
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

// Rows that were dropped or pruned, or ended seven days ago by a clock that jumps: their ids, and
// how they ended, are left.
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
    } else if (row.fixed.status == store::OutboxStatus::kAborted) {
      aborted_.insert(found->number);
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
    const std::string sender_hex(row.text[store::kInboxSender]);
    const std::string id(row.text[store::kInboxClientId]);
    if (!ids.insert({sender_hex, id}).second) return breaks("5: once in the inbox", id);
    if (sender_hex == liar_) {
      if (row.fixed.plaintext == 0 && row.fixed.body_missing == 0) {
        return breaks("5: rubbish is no message", id);
      }
      continue;
    }
    const Request* request = of_id(sender_hex, id, row.text[store::kInboxBody]);
    if (request == nullptr && relay_.changed(sender_hex, id)) continue;  // its answer was lost, too
    if (request == nullptr) return breaks("1: what arrives is what was sent", "an unknown id");
    if (row.fixed.body_missing != 0) {
      if (!relay_.changed(sender_hex, id)) {
        return breaks("1: what arrives can be opened", row.text[store::kInboxReason]);
      }
      delivered_[{request->number, daemon}] = position;
      continue;
    }
    if (row.text[store::kInboxBody] != request->message) {
      return breaks("1: what arrives is what was sent", name(*request) + ": another body");
    }
    if (of_body(daemon, request->message, "an inbox") == nullptr) return;
    const Member& sender = members_[request->daemon];
    // A legacy broker does not name the sender's member, and a session's attestation is not read:
    // nothing is attributed to a member then.
    // Nor is what everybody could have written.
    const bool named = plan_.legacy_broker || !sender.parent.empty() || request->to_many()
                           ? row.fixed.has_member == 0
                           : row.fixed.has_member != 0 && row.fixed.sender_member == sender.key;
    if (!named || row.fixed.recipient != members_[daemon].key ||
        static_cast<std::uint32_t>(row.fixed.priority) != request->priority ||
        row.text[store::kInboxReplyTo] != request->reply_to) {
      return breaks("1: what arrives is what was sent", name(*request) + ": other fields");
    }
    delivered_[{request->number, daemon}] = position;
    ++counters_.delivered;
    if (request->to_many()) ++counters_.many_delivered;
  }
}

bool Oracle::is_delivered(std::uint32_t number) const {
  const auto found = delivered_.lower_bound({number, 0});
  return found != delivered_.end() && found->first.first == number;
}

void Oracle::check_all() {
  for (const Request& request : requests_) {
    const bool here = is_delivered(request.number);
    const bool ended = dead_.contains(request.number) || aborted_.contains(request.number) ||
                       expired_.contains(request.number);
    const bool stored = request.to_many() && outbox_at_.contains(request.number);
    if (request.accepted && !here && !ended && !stored) {
      return breaks("1: accepted means durable", name(request) + " is gone");
    }
    if (stored) ++counters_.many_stored;
    if (outbox_at_.contains(request.number) && !stored && !here &&
        !expired_.contains(request.number)) {
      return breaks("5: at least once to the receiver", name(request));
    }
    if (shown_.contains(request.number) && !here && request.requeue_of < 0) {
      bool elsewhere = false;  // the same body under the id of a requeue
      for (const Request& other : requests_) {
        elsewhere = elsewhere || (other.message == request.message && is_delivered(other.number));
      }
      if (!elsewhere) {
        return breaks("8: shown means durable", name(request) + " was read and is gone");
      }
    }
    if (!request.broker_id.empty() && !outbox_at_.contains(request.number)) {
      return breaks("2: the same answer", name(request) + " was done and is not");
    }
  }
  for (const auto& [number, key] : owed_) {
    const Member& to = *member_of_key(key);
    if (held(requests_[number], to) != Held::kNo) continue;
    return breaks("5: at least once to each receiver", name(requests_[number]) + " to " + key);
  }
  check_claims();
  if (!claims_.empty()) breaks("8: delivered means in the inbox", "nobody could tell");
  check_order();
}

// 6: by the order of answers where it is certain, and by the order of the outbox. What ended as
// dead or aborted may still arrive when a relay keeps frames: nobody promised when.
void Oracle::check_order() {
  // A session takes mail for its member's key as well, which is another lane.
  struct Lane {
    std::uint32_t sender, receiver, priority;
    std::string_view target;
    auto operator<=>(const Lane&) const = default;
  };
  std::map<Lane, std::vector<std::pair<std::uint64_t, const Request*>>> lanes;
  for (const auto& [who, position] : delivered_) {
    const Request& request = requests_[who.first];
    if (aborted_.contains(who.first)) continue;
    const bool lied = plan_.late != 0 || relay_.slain(members_[request.daemon].hex, request.id);
    if (lied && dead_.contains(who.first)) continue;
    // A session takes a message to all twice, for itself and for its member: two lanes in one.
    if (request.kind == TargetKind::kAll && !members_[who.second].parent.empty()) continue;
    const std::string_view to = request.to_many() ? request.to : members_[request.target].hex;
    lanes[{request.daemon, who.second, request.priority, to}].push_back({position, &request});
  }
  for (auto& [lane, arrived] : lanes) {
    std::sort(arrived.begin(), arrived.end());
    std::uint64_t order = 0;
    std::uint64_t outbox = 0;
    for (const auto& [position, request] : arrived) {
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
