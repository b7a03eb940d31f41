// fsck.cc — one checking function a table; each knows what its rows promise about other tables.
// Holds:  a damaged row is one problem and hides no other: the walk goes on behind it.
#include "store/fsck.h"

#include <algorithm>

namespace cm::store {
namespace {

class Walk {
 public:
  Walk(Batch& batch, const FsckSink& sink) : batch_(batch), sink_(sink) {}

  // Visits each row that decodes; the visitor answers null or the problem it sees.
  template <class R, class Check>
  std::uint64_t rows(TableId table, Check&& check) {
    std::uint64_t count = 0;
    Cursor cursor(batch_, table);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      ++report_.rows;
      ++count;
      R row;
      if (!decode(row, cursor.key(), cursor.value())) {
        problem(table, "row does not match its checksum", cursor.key());
      } else if (const char* what = check(cursor.key(), row); what != nullptr) {
        problem(table, what, cursor.key());
      }
    }
    return count;
  }

  template <class Check>
  std::uint64_t indexes(TableId table, Check&& check) {
    std::uint64_t count = 0;
    Cursor cursor(batch_, table);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      ++report_.rows;
      ++count;
      const Bytes value = decode_index(cursor.key(), cursor.value());
      if (value.empty()) {
        problem(table, "index entry does not match its checksum", cursor.key());
      } else if (const char* what = check(cursor.key(), value); what != nullptr) {
        problem(table, what, cursor.key());
      }
    }
    return count;
  }

  void same_count(TableId left, std::uint64_t left_count, std::uint64_t right_count) {
    if (left_count != right_count) problem(left, "row count differs from its index", {});
  }

  bool exists(TableId table, Bytes key) { return batch_.get_raw(table, key).has_value(); }
  bool index_names(TableId table, Bytes key, Bytes value) {
    const Bytes stored = batch_.get_index(table, key);
    return stored.size() == value.size() && std::equal(stored.begin(), stored.end(), value.begin());
  }
  void problem(TableId table, std::string_view what, Bytes key) {
    ++report_.problems;
    sink_(info_of(table).name, what, key);
  }
  Batch& batch() noexcept { return batch_; }
  const FsckReport& report() const noexcept { return report_; }

 private:
  Batch& batch_;
  const FsckSink& sink_;
  FsckReport report_;
};

void check_outbox(Walk& walk) {
  const std::uint64_t rows =
      walk.rows<OutboxRow>(TableId::kOutbox, [&](Bytes key, const OutboxRow& row) -> const char* {
        if (row.fixed.status >= OutboxStatus::kCount) return "status out of range";
        const Key id = text_key(row.text[kOutboxClientId]);
        if (!walk.index_names(TableId::kOutboxId, id.bytes(), key)) {
          return "client_message_id does not lead back to the row";
        }
        const bool open = row.fixed.status <= OutboxStatus::kInflight;
        if (open && !walk.exists(TableId::kOutboxBody, key)) return "open row without its body";
        return nullptr;
      });
  const std::uint64_t ids =
      walk.indexes(TableId::kOutboxId, [&](Bytes, Bytes value) -> const char* {
        return walk.exists(TableId::kOutbox, value) ? nullptr : "names a row that is gone";
      });
  walk.same_count(TableId::kOutbox, rows, ids);
  walk.rows<OutboxBodyRow>(
      TableId::kOutboxBody, [&](Bytes key, const OutboxBodyRow&) -> const char* {
        return walk.exists(TableId::kOutbox, key) ? nullptr : "body without its row";
      });
}

void check_inbox(Walk& walk) {
  const std::uint64_t rows =
      walk.rows<InboxRow>(TableId::kInbox, [](Bytes key, const InboxRow&) -> const char* {
        Ulid id;
        return parse_ulid_key(key, id) ? nullptr : "key is not a ulid";
      });
  const std::uint64_t keys =
      walk.indexes(TableId::kInboxKey, [&](Bytes, Bytes) -> const char* { return nullptr; });
  // A deleted inbox row leaves its key behind, so that a late redelivery stays a duplicate.
  if (keys < rows) walk.problem(TableId::kInboxKey, "fewer dedupe keys than inbox rows", {});
}

void check_meshes(Walk& walk) {
  const std::uint64_t rows =
      walk.rows<MeshRow>(TableId::kMesh, [&](Bytes key, const MeshRow& row) -> const char* {
        if (!walk.index_names(TableId::kMeshId, text_key(row.text[kMeshIdText]).bytes(), key)) {
          return "mesh id does not lead back to the row";
        }
        return walk.index_names(TableId::kMeshSlug, text_key(row.text[kMeshSlugText]).bytes(), key)
                   ? nullptr
                   : "slug does not lead back to the row";
      });
  const auto target = [&](Bytes, Bytes value) -> const char* {
    return walk.exists(TableId::kMesh, value) ? nullptr : "names a mesh that is gone";
  };
  walk.same_count(TableId::kMesh, rows, walk.indexes(TableId::kMeshId, target));
  walk.same_count(TableId::kMesh, rows, walk.indexes(TableId::kMeshSlug, target));
}

void check_members(Walk& walk) {
  walk.rows<MemberRow>(TableId::kMember, [&](Bytes key, const MemberRow& row) -> const char* {
    if (!walk.exists(TableId::kMesh, u32_key(row.fixed.mesh_no).bytes())) {
      return "member of a mesh that is gone";
    }
    const Key index = u32_bytes_key(row.fixed.mesh_no, row.fixed.key);
    if (row.fixed.revoked_ms == 0 && !walk.index_names(TableId::kMemberKey, index.bytes(), key)) {
      return "key does not lead back to the member";
    }
    return nullptr;
  });
  walk.indexes(TableId::kMemberKey, [&](Bytes, Bytes value) -> const char* {
    return walk.exists(TableId::kMember, value) ? nullptr : "names a member that is gone";
  });
  walk.rows<InviteRow>(TableId::kInvite, [&](Bytes, const InviteRow& row) -> const char* {
    return walk.exists(TableId::kMesh, u32_key(row.fixed.mesh_no).bytes())
               ? nullptr
               : "invite to a mesh that is gone";
  });
  walk.rows<BindingRow>(TableId::kBinding, [&](Bytes, const BindingRow& row) -> const char* {
    return walk.exists(TableId::kMember, u32_key(row.fixed.member_no).bytes())
               ? nullptr
               : "binding to a member that is gone";
  });
  walk.rows<PresenceRow>(TableId::kPresence, [&](Bytes, const PresenceRow& row) -> const char* {
    return walk.exists(TableId::kMember, u32_key(row.fixed.member_no).bytes())
               ? nullptr
               : "lease of a member that is gone";
  });
  walk.indexes(TableId::kHelloSeen, [](Bytes, Bytes) -> const char* { return nullptr; });
}

void check_messages(Walk& walk) {
  walk.rows<MessageRow>(TableId::kMessage, [&](Bytes, const MessageRow& row) -> const char* {
    if (row.fixed.priority >= Priority::kCount) return "priority out of range";
    return walk.exists(TableId::kMesh, u32_key(row.fixed.mesh_no).bytes())
               ? nullptr
               : "message of a mesh that is gone";
  });
  walk.rows<DedupeRow>(TableId::kDedupe, [&](Bytes, const DedupeRow& row) -> const char* {
    if (row.fixed.history_available == 0) return nullptr;
    return walk.exists(TableId::kMessage, ulid_key(row.fixed.message).bytes())
               ? nullptr
               : "names a message that is gone";
  });
  walk.rows<DeliveryRow>(TableId::kDelivery, [&](Bytes key, const DeliveryRow&) -> const char* {
    DeliveryKeyParts parts;
    if (!parse_delivery_key(key, parts)) return "malformed key";
    const Key receipt_at = receipt_key(parts.message, parts.mailbox);
    ReceiptRow receipt;
    if (walk.batch().get(TableId::kReceipt, receipt_at.bytes(), receipt) &&
        receipt.fixed.state != ReceiptState::kQueued) {
      return "queued although a receipt ended it";
    }
    return walk.exists(TableId::kMessage, ulid_key(parts.message).bytes())
               ? nullptr
               : "delivery of a message that is gone";
  });
  walk.rows<ReceiptRow>(TableId::kReceipt, [](Bytes, const ReceiptRow& row) -> const char* {
    const bool known =
        row.fixed.state >= ReceiptState::kDelivered && row.fixed.state <= ReceiptState::kQueued;
    return known ? nullptr : "state out of range";
  });
}

}  // namespace

FsckReport fsck(Batch& batch, Role role, const FsckSink& sink) {
  Walk walk(batch, sink);
  walk.rows<MetaRow>(TableId::kMeta, [](Bytes, const MetaRow&) -> const char* { return nullptr; });
  if (role == Role::kDaemon) {
    check_outbox(walk);
    check_inbox(walk);
    walk.rows<KnownPeerRow>(TableId::kKnownPeer,
                            [](Bytes, const KnownPeerRow&) -> const char* { return nullptr; });
  } else {
    check_meshes(walk);
    check_members(walk);
    check_messages(walk);
  }
  return walk.report();
}

}  // namespace cm::store
