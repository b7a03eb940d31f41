// recover.cc — one finding function a group of tables; each looks at what its rows promise.
// Holds:  the same promises as fsck.cc, from which it takes nothing: what one of them overlooks is
//         a failure of the test that runs both.
#include "store/recover.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/base/check.h"

namespace cm::store {
namespace {

constexpr std::size_t kClientIdMax = 128;  // design/delivery.md, "Ids"

std::vector<std::uint8_t> copy_of(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

class Finder {
 public:
  explicit Finder(Batch& batch) : batch_(batch) {}

  void outbox() {
    walk(TableId::kOutbox, [&](Bytes key, Bytes value) {
      OutboxRow row;
      Ulid id;
      if (!read_outbox(key, value, row, id)) {
        return erase(TableId::kOutbox, key, "the row does not match its checksum");
      }
      const std::string client_id(row.text[kOutboxClientId]);
      if (!lead_back(TableId::kOutbox, client_id, id)) return;
      OutboxBodyRow body;
      const bool open = row.fixed.status <= OutboxStatus::kInflight;
      if (open && !batch_.get(TableId::kOutboxBody, key, body)) {
        add(RepairKind::kKill, TableId::kOutbox, "an open row without a readable body", key,
            client_id, id);
      }
    });
    walk(TableId::kOutboxBody, [&](Bytes key, Bytes value) {
      OutboxBodyRow body;
      if (!decode(body, key, value)) {
        erase(TableId::kOutboxBody, key, "the body does not match its checksum");
      } else if (!has_row(TableId::kOutbox, key)) {
        erase(TableId::kOutboxBody, key, "a body without its row");
      }
    });
    walk(TableId::kTombstone, [&](Bytes key, Bytes value) {
      TombstoneRow row;
      Ulid id;
      if (!read_tombstone(key, value, row, id)) {
        erase(TableId::kTombstone, key, "the tombstone does not match its checksum");
      } else if (has_row(TableId::kOutbox, key)) {
        erase(TableId::kTombstone, key, "a tombstone of a row that is here");
      } else {
        lead_back(TableId::kTombstone, std::string(row.text[kTombstoneClientId]), id);
      }
    });
    walk(TableId::kOutboxId, [&](Bytes key, Bytes value) { check_id(key, value); });
  }

  void inbox_rows() {
    walk(TableId::kInbox, [&](Bytes key, Bytes value) {
      InboxRow row;
      Ulid id;
      if (!parse_ulid_key(key, id) || !decode(row, key, value)) {
        erase(TableId::kInbox, key, "the row does not match its checksum");
      }
    });
  }

  // A lost key would let a redelivery in twice, so it is written anew rather than removed.
  void inbox_keys() {
    walk(TableId::kInbox, [&](Bytes key, Bytes value) {
      InboxRow row;
      Ulid id;
      if (!parse_ulid_key(key, id) || !decode(row, key, value)) return;
      const Key named = inbox_dedupe_key(row.text[kInboxMesh], row.text[kInboxSender],
                                         row.text[kInboxClientId], row.fixed.recipient);
      if (index_of(TableId::kInboxKey, named.bytes())) return;
      add(RepairKind::kIndex, TableId::kInboxKey, "the dedupe key of an inbox row is missing",
          named.bytes(), {}, id);
      keys_.insert(copy_of(named.bytes()));
    });
    walk(TableId::kInboxKey, [&](Bytes key, Bytes value) {
      if (!decode_index(key, value).empty() || keys_.contains(copy_of(key))) return;
      add(RepairKind::kIndex, TableId::kInboxKey, "a dedupe key does not match its checksum", key,
          {}, Ulid{});
    });
  }

  void others() {
    walk(TableId::kMeta, [&](Bytes key, Bytes value) {
      MetaRow row;
      if (!decode(row, key, value)) erase(TableId::kMeta, key, "does not match its checksum");
    });
    walk(TableId::kKnownPeer, [&](Bytes key, Bytes value) {
      KnownPeerRow row;
      if (!decode(row, key, value)) {
        erase(TableId::kKnownPeer, key, "a known peer does not match its checksum");
      }
    });
    walk(TableId::kSeenDue, [&](Bytes key, Bytes value) {
      Ulid id;
      if (!parse_ulid_key(key, id) || decode_index(key, value).empty()) {
        erase(TableId::kSeenDue, key, "does not match its checksum");
      }
    });
  }

  std::vector<Repair> take() { return std::move(repairs_); }

 private:
  template <class Look>
  void walk(TableId table, Look look) {
    Cursor cursor(batch_, table);
    for (bool more = cursor.seek({}); more; more = cursor.next())
      look(cursor.key(), cursor.value());
  }

  void add(RepairKind kind, TableId table, const char* what, Bytes key, std::string client_id,
           const Ulid& row) {
    repairs_.push_back({kind, table, what, copy_of(key), std::move(client_id), row});
  }
  void erase(TableId table, Bytes key, const char* what) {
    add(RepairKind::kErase, table, what, key, {}, {});
  }

  static bool is_client_id(std::string_view text) noexcept {
    return !text.empty() && text.size() <= kClientIdMax;
  }
  static bool read_outbox(Bytes key, Bytes value, OutboxRow& row, Ulid& id) noexcept {
    return parse_ulid_key(key, id) && decode(row, key, value) &&
           row.fixed.status < OutboxStatus::kCount && is_client_id(row.text[kOutboxClientId]);
  }
  static bool read_tombstone(Bytes key, Bytes value, TombstoneRow& row, Ulid& id) noexcept {
    return parse_ulid_key(key, id) && decode(row, key, value) &&
           row.fixed.status > OutboxStatus::kInflight && row.fixed.status < OutboxStatus::kCount &&
           is_client_id(row.text[kTombstoneClientId]);
  }

  // The client_message_id of the readable row or tombstone under this key; empty if there is none.
  std::string_view client_id_of(TableId table, Bytes key) {
    const auto value = batch_.get_raw(table, key);
    Ulid id;
    OutboxRow row;
    TombstoneRow stone;
    if (!value) return {};
    if (table == TableId::kOutbox) {
      return read_outbox(key, *value, row, id) ? row.text[kOutboxClientId] : std::string_view{};
    }
    return read_tombstone(key, *value, stone, id) ? stone.text[kTombstoneClientId]
                                                  : std::string_view{};
  }
  bool has_row(TableId table, Bytes key) {
    return !client_id_of(table, key).empty() && !doubles_.contains(copy_of(key));
  }

  std::optional<Bytes> index_of(TableId table, Bytes key) {
    const auto stored = batch_.get_raw(table, key);
    const Bytes value = stored ? decode_index(key, *stored) : Bytes{};
    return value.empty() ? std::nullopt : std::optional<Bytes>(value);
  }

  // The entry of the id names this row, or will. False: another row has the id, and this one goes.
  bool lead_back(TableId table, const std::string& client_id, const Ulid& id) {
    const Key named = text_key(client_id);
    const auto value = index_of(TableId::kOutboxId, named.bytes());
    const bool is_ours =
        value && std::equal(value->begin(), value->end(), id.bytes.begin(), id.bytes.end());
    if (is_ours) return true;
    const bool taken = named_.contains(client_id) ||
                       (value && (client_id_of(TableId::kOutbox, *value) == client_id ||
                                  client_id_of(TableId::kTombstone, *value) == client_id));
    if (taken) {
      erase(table, id.bytes, "another row has its client_message_id");
      doubles_.insert(copy_of(id.bytes));
      return false;
    }
    add(RepairKind::kIndex, TableId::kOutboxId, "client_message_id does not lead back to its row",
        named.bytes(), client_id, id);
    named_.insert(client_id);
    return true;
  }

  // Walked last: what no row claimed has lost its row.
  void check_id(Bytes key, Bytes stored) {
    const std::string client_id(as_text(key));
    if (!is_client_id(client_id)) {
      return erase(TableId::kOutboxId, key, "is no client_message_id");
    }
    if (named_.contains(client_id)) return;
    const Bytes value = decode_index(key, stored);
    Ulid id;
    const bool readable = parse_ulid_key(value, id);
    if (readable && (client_id_of(TableId::kOutbox, value) == client_id ||
                     client_id_of(TableId::kTombstone, value) == client_id)) {
      return;
    }
    // The place that it names, unless somebody else is there.
    const bool is_free = readable && client_id_of(TableId::kOutbox, value).empty() &&
                         client_id_of(TableId::kTombstone, value).empty() &&
                         graves_.insert(copy_of(value)).second;
    add(RepairKind::kEntomb, TableId::kTombstone, "the row of a client_message_id is lost", key,
        client_id, is_free ? id : free_place(client_id));
  }

  // Made of the id itself: the same damage is repaired in the same way.
  Ulid free_place(std::string_view client_id) {
    Ulid id;
    for (std::size_t salt = 0;; ++salt) {
      for (std::size_t at = 0; at < id.bytes.size(); ++at) id.bytes[at] = 0;
      std::uint64_t hash = 0xcbf29ce484222325u + salt;
      for (const char c : client_id) {
        hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3u;
      }
      store_be64(id.bytes.data() + 8, hash);
      if (client_id_of(TableId::kOutbox, id.bytes).empty() &&
          client_id_of(TableId::kTombstone, id.bytes).empty() &&
          graves_.insert(copy_of(id.bytes)).second) {
        return id;
      }
    }
  }

  Batch& batch_;
  std::vector<Repair> repairs_;
  std::set<std::string> named_;                  // ids whose entry is written anew
  std::set<std::vector<std::uint8_t>> doubles_;  // rows that go because another one has their id
  std::set<std::vector<std::uint8_t>> graves_;   // places of tombstones to come
  std::set<std::vector<std::uint8_t>> keys_;     // of the inbox, written anew
};

void entomb(Batch& batch, const Repair& repair, std::string_view reason, std::uint64_t now_ms) {
  TombstoneRow row;
  row.fixed.status = OutboxStatus::kDead;
  row.fixed.enqueued_ms = repair.row.time_ms();
  row.fixed.ended_ms = now_ms;
  row.fixed.shrunk_ms = now_ms;
  row.text[kTombstoneClientId] = repair.client_id;
  row.text[kTombstoneReason] = reason;
  batch.put(TableId::kTombstone, ulid_key(repair.row).bytes(), row);
  batch.put_index(TableId::kOutboxId, repair.key, repair.row.bytes);
}

void kill(Batch& batch, const Repair& repair, std::string_view reason, std::uint64_t now_ms) {
  OutboxRow row;
  if (!batch.get(TableId::kOutbox, repair.key, row)) return;
  row.fixed.status = OutboxStatus::kDead;
  row.fixed.ended_ms = now_ms;
  row.text[kOutboxLastError] = reason;
  batch.put(TableId::kOutbox, repair.key, row);
}

}  // namespace

std::vector<Repair> find_damage(Batch& batch) {
  Finder finder(batch);
  finder.outbox();
  finder.inbox_rows();
  finder.inbox_keys();
  finder.others();
  return finder.take();
}

std::vector<Repair> find_damaged_inbox(Batch& batch) {
  Finder finder(batch);
  finder.inbox_rows();
  return finder.take();
}

// Removing comes first, because a tombstone may take the place of what is removed.
void repair(Batch& batch, const std::vector<Repair>& repairs, std::string_view reason,
            std::uint64_t now_ms, const SetAside& set_aside) {
  CHECK(reason.starts_with(kCorruptReason));
  for (const Repair& one : repairs) {
    if (one.kind != RepairKind::kErase) continue;
    if (const auto value = batch.get_raw(one.table, one.key)) set_aside(one, *value);
  }
  for (const Repair& one : repairs) {
    if (one.kind == RepairKind::kErase) batch.erase(one.table, one.key);
  }
  for (const Repair& one : repairs) {
    switch (one.kind) {
      case RepairKind::kErase: break;
      case RepairKind::kIndex: batch.put_index(one.table, one.key, one.row.bytes); break;
      case RepairKind::kEntomb: entomb(batch, one, reason, now_ms); break;
      case RepairKind::kKill: kill(batch, one, reason, now_ms); break;
    }
  }
}

}  // namespace cm::store
