// retention.cc — once a day: dedupe rows expire, history is pruned, references are checked.
// Holds:  a share of rows in an iteration, and a pause behind it, so that messages go first. A
//         message with a recipient that has not got it is never pruned. What hangs on nothing is
//         counted and left where it is: odd metadata is no reason to delete anything; only a dedupe
//         row that promises a history which is gone is told the truth.
// Why:    a dedupe record outlives its message: a late retry is a duplicate, not a second message.
// Source: design/delivery.md, "Broker: accept"; spec/wire.md §11.3, "Retention".
// Not:    undelivered rows (queue.cc), checks of the whole store (store/fsck.cc).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/crypto/encoding.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::uint64_t kDayMs = 24ull * 3600 * 1000;
constexpr std::uint64_t kFirstMs = 60'000;  // after a start that finds the job due
constexpr std::uint64_t kPauseMs = 5;
constexpr std::size_t kLooksAShare = 2'000;
constexpr std::size_t kChangesAShare = 256;
constexpr std::string_view kDoneKey = "retention_done_ms";

using KeyCopy = std::vector<std::uint8_t>;

KeyCopy copy_of(Bytes key) { return {key.begin(), key.end()}; }

// Visits the rows behind the job's position; the visitor answers false to stop before a row. True
// when the table has no more.
template <class Visit>
bool walk(store::Batch& batch, TableId table, Retention& job, Visit visit) {
  store::Cursor cursor(batch, table);
  bool more = cursor.seek(job.after);
  if (more && !job.after.empty() && std::ranges::equal(cursor.key(), job.after)) {
    more = cursor.next();
  }
  for (std::size_t looks = 0; more; more = cursor.next()) {
    if (++looks > kLooksAShare || !visit(cursor)) return false;
    job.after = copy_of(cursor.key());
    ++job.looked;
  }
  return true;
}

}  // namespace

void Broker::plan_retention() {
  store::MetaRow row;
  const bool ran = batch().get(TableId::kMeta, store::text_key(kDoneKey).bytes(), row);
  const std::uint64_t due = ran ? row.fixed.number + kDayMs : 0;
  // A clock that was set back does not put it off for longer than a day.
  const std::uint64_t wait = due > env_.wall_ms ? std::min(due - env_.wall_ms, kDayMs) : kFirstMs;
  retention_check_ms_ = env_.mono_ms + wait;
}

void Broker::step_retention() {
  if (env_.mono_ms < retention_check_ms_) return;
  retention_check_ms_ = env_.mono_ms + kPauseMs;
  bool finished = false;
  switch (retention_.phase) {
    case RetentionPhase::kIdle:
      retention_ = {};
      finished = true;
      break;
    case RetentionPhase::kDedupe: finished = expire_dedupe(); break;
    case RetentionPhase::kHistory: finished = prune_history(); break;
    case RetentionPhase::kDeliveries: finished = count_orphan_deliveries(); break;
    case RetentionPhase::kReceipts: finished = count_orphan_receipts(); break;
    case RetentionPhase::kMessages: finished = count_orphan_messages(); break;
    case RetentionPhase::kDedupeRefs: finished = mend_dedupe_refs(); break;
    case RetentionPhase::kCount: CHECK(false);
  }
  if (!finished) return;
  retention_.after.clear();
  retention_.phase = static_cast<RetentionPhase>(static_cast<int>(retention_.phase) + 1);
  if (retention_.phase == RetentionPhase::kCount) end_retention();
}

void Broker::end_retention() {
  const Retention done = std::exchange(retention_, {});
  store::MetaRow row;
  row.fixed.number = env_.wall_ms;
  batch().put(TableId::kMeta, store::text_key(kDoneKey).bytes(), row);
  retention_check_ms_ = env_.mono_ms + kDayMs;
  metrics_.set(Metric::kBrokerOrphanDeliveries, done.orphan_deliveries);
  metrics_.set(Metric::kBrokerOrphanReceipts, done.orphan_receipts);
  metrics_.set(Metric::kBrokerOrphanMessages, done.orphan_messages);
  metrics_.set(Metric::kBrokerOrphanDedupe, done.orphan_dedupe);
  metrics_.add(Metric::kBrokerRetentionRuns);
  env_.log->info("retention_done", {{"looked", done.looked},
                                    {"dedupe_expired", done.dedupe_expired},
                                    {"messages_pruned", done.messages_pruned}});
  const std::uint64_t orphans =
      done.orphan_deliveries + done.orphan_receipts + done.orphan_messages + done.orphan_dedupe;
  if (orphans == 0) return;
  env_.log->error("orphan_rows", {{"deliveries", done.orphan_deliveries},
                                  {"receipts", done.orphan_receipts},
                                  {"messages", done.orphan_messages},
                                  {"dedupe", done.orphan_dedupe},
                                  {"remedy", "stop the broker and run: claudemesh broker fsck"}});
}

bool Broker::expire_dedupe() {
  if (limits_.dedupe_retention_days == 0) return true;  // permanent
  std::vector<KeyCopy> expired;
  const bool end = walk(batch(), TableId::kDedupe, retention_, [&](store::Cursor& cursor) {
    if (expired.size() >= kChangesAShare) return false;
    store::DedupeRow row;
    const bool is_over =
        cursor.row(row) && row.fixed.expires_ms != 0 && row.fixed.expires_ms <= env_.wall_ms;
    if (is_over) expired.push_back(copy_of(cursor.key()));
    return true;
  });
  for (const KeyCopy& key : expired) batch().erase(TableId::kDedupe, key);
  retention_.dedupe_expired += expired.size();
  metrics_.add(Metric::kBrokerDedupeExpired, expired.size());
  return end;
}

// Messages are in the order of their time: the walk ends at the first that is young enough.
bool Broker::prune_history() {
  const std::uint64_t age = std::uint64_t{limits_.history_days_max} * kDayMs;
  if (age == 0 || env_.wall_ms <= age) return true;
  const std::uint64_t oldest = env_.wall_ms - age;
  std::vector<Ulid> old;
  bool is_young = false;
  KeyCopy done = retention_.after;
  const bool end = walk(batch(), TableId::kMessage, retention_, [&](store::Cursor& cursor) {
    Ulid id;
    if (!store::parse_ulid_key(cursor.key(), id)) return true;
    is_young = id.time_ms() >= oldest;
    if (is_young || old.size() >= kChangesAShare) return false;
    old.push_back(id);
    return true;
  });
  std::size_t budget = kLooksAShare;  // receipts, of which a message may have thousands
  for (const Ulid& id : old) {
    if (budget == 0 || !prune_message(id, budget)) {
      retention_.after = done;
      return false;
    }
    done = copy_of(store::ulid_key(id).bytes());
  }
  return end || is_young;
}

// False: its receipts are more than `budget` rows; the rest of them is for the next share.
bool Broker::prune_message(const Ulid& id, std::size_t& budget) {
  store::MessageRow message;
  const store::Key key = store::ulid_key(id);
  if (!batch().get(TableId::kMessage, key.bytes(), message)) return true;
  std::vector<KeyCopy> receipts;
  bool is_open = false;
  {
    store::Cursor cursor(batch(), TableId::kReceipt);
    for (bool more = cursor.seek(key.bytes()); more; more = cursor.next()) {
      Ulid of;
      MailboxId mailbox;
      if (!store::parse_receipt_key(cursor.key(), of, mailbox) || !(of == id)) break;
      store::ReceiptRow receipt;
      is_open =
          is_open || !cursor.row(receipt) || receipt.fixed.state == store::ReceiptState::kQueued;
      receipts.push_back(copy_of(cursor.key()));
    }
  }
  const std::size_t erased = std::min({receipts.size(), budget, kChangesAShare});
  const bool direct = crypto::public_key_parse(message.text[store::kMessageTarget]).has_value();
  const bool is_kept = is_open || (direct && receipts.empty());  // somebody has not got it yet
  budget -= std::min(budget, std::max<std::size_t>(receipts.size(), 1));
  if (is_kept) return true;
  for (std::size_t at = 0; at < erased; ++at) batch().erase(TableId::kReceipt, receipts[at]);
  if (erased < receipts.size()) return false;
  const std::string target(message.text[store::kMessageTarget]);
  const std::string client_id(message.text[store::kMessageClientId]);
  TopicFacts topic;
  if (target.starts_with('#') && find_topic(message.fixed.mesh_no, target.substr(1), topic)) {
    batch().erase(TableId::kTopicPost, store::topic_post_key(topic.no, id).bytes());
  }
  note_history_pruned(message.fixed.sender_member_no, client_id, id);
  batch().erase(TableId::kMessage, key.bytes());
  ++retention_.messages_pruned;
  metrics_.add(Metric::kBrokerMessagesPruned);
  return true;
}

void Broker::note_history_pruned(std::uint32_t sender_no, std::string_view client_id,
                                 const Ulid& message) {
  if (client_id.empty()) return;
  const store::Key key = store::u32_bytes_key(sender_no, as_bytes(client_id));
  store::DedupeRow row;
  if (!batch().get(TableId::kDedupe, key.bytes(), row) || !(row.fixed.message == message)) return;
  row.fixed.history_available = 0;
  batch().put(TableId::kDedupe, key.bytes(), row);
}

bool Broker::count_orphan_deliveries() {
  return walk(batch(), TableId::kDelivery, retention_, [&](store::Cursor& cursor) {
    store::DeliveryKeyParts parts;
    const bool known =
        store::parse_delivery_key(cursor.key(), parts) &&
        batch().get_raw(TableId::kMessage, store::ulid_key(parts.message).bytes()).has_value();
    retention_.orphan_deliveries += known ? 0u : 1u;
    return true;
  });
}

bool Broker::count_orphan_receipts() {
  return walk(batch(), TableId::kReceipt, retention_, [&](store::Cursor& cursor) {
    Ulid message;
    MailboxId mailbox;
    const bool known =
        store::parse_receipt_key(cursor.key(), message, mailbox) &&
        batch().get_raw(TableId::kMessage, store::ulid_key(message).bytes()).has_value();
    retention_.orphan_receipts += known ? 0u : 1u;
    return true;
  });
}

bool Broker::count_orphan_messages() {
  return walk(batch(), TableId::kMessage, retention_, [&](store::Cursor& cursor) {
    store::MessageRow row;
    Ulid id;
    const bool sound = store::parse_ulid_key(cursor.key(), id) && cursor.row(row);
    retention_.orphan_messages += sound && is_orphan(id, row) ? 1u : 0u;
    return true;
  });
}

// A direct message has its delivery or its receipt. One to many may have had no recipient.
bool Broker::is_orphan(const Ulid& id, const store::MessageRow& row) {
  const auto target = crypto::public_key_parse(row.text[store::kMessageTarget]);
  if (!target) return false;
  {
    store::Cursor receipts(batch(), TableId::kReceipt);
    Ulid of;
    MailboxId mailbox;
    if (receipts.seek(store::ulid_key(id).bytes()) &&
        store::parse_receipt_key(receipts.key(), of, mailbox) && of == id) {
      return false;
    }
  }
  const store::Key stored = store::u32_bytes_key(row.fixed.mesh_no, *target);
  MailboxId mailbox;
  store::BindingRow binding;
  if (const auto member_no = batch().get_number(TableId::kMemberKey, stored.bytes())) {
    mailbox = {MailboxKind::kMember, *member_no};
  } else if (batch().get(TableId::kBinding, stored.bytes(), binding)) {
    mailbox = {MailboxKind::kSession, binding.fixed.session_no};
  } else {
    return false;  // whoever it was for is no member any more
  }
  const auto priority = static_cast<std::uint8_t>(row.fixed.priority);
  const store::Key delivery = store::delivery_key(mailbox, priority, id);
  return !batch().get_raw(TableId::kDelivery, delivery.bytes()).has_value();
}

bool Broker::mend_dedupe_refs() {
  std::vector<KeyCopy> wrong;
  const bool end = walk(batch(), TableId::kDedupe, retention_, [&](store::Cursor& cursor) {
    if (wrong.size() >= kChangesAShare) return false;
    store::DedupeRow row;
    if (!cursor.row(row) || row.fixed.history_available == 0) return true;
    const store::Key message = store::ulid_key(row.fixed.message);
    const bool known = batch().get_raw(TableId::kMessage, message.bytes()).has_value();
    if (!known) wrong.push_back(copy_of(cursor.key()));
    return true;
  });
  for (const KeyCopy& key : wrong) {
    store::DedupeRow row;
    if (!batch().get(TableId::kDedupe, key, row)) continue;
    row.fixed.history_available = 0;
    batch().put(TableId::kDedupe, key, row);
  }
  retention_.orphan_dedupe += wrong.size();
  return end;
}

}  // namespace cm::broker
