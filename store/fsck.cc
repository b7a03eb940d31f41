// fsck.cc — one checking function a table; each knows what its rows promise about other tables.
// Holds:  a damaged row is one problem and hides no other: the walk goes on behind it.
#include "store/fsck.h"

#include <algorithm>
#include <string>

#include "store/pages.h"

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
  void problem(std::string_view where, std::string_view what) {
    ++report_.problems;
    sink_(where, what, {});
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
  const std::uint64_t tombstones = walk.rows<TombstoneRow>(
      TableId::kTombstone, [&](Bytes key, const TombstoneRow& row) -> const char* {
        const bool ended = row.fixed.status > OutboxStatus::kInflight;
        if (!ended || row.fixed.status >= OutboxStatus::kCount) return "status out of range";
        if (walk.exists(TableId::kOutbox, key)) return "its outbox row is still here";
        const Key id = text_key(row.text[kTombstoneClientId]);
        return walk.index_names(TableId::kOutboxId, id.bytes(), key)
                   ? nullptr
                   : "client_message_id does not lead back to the tombstone";
      });
  const std::uint64_t ids =
      walk.indexes(TableId::kOutboxId, [&](Bytes, Bytes value) -> const char* {
        const bool known =
            walk.exists(TableId::kOutbox, value) || walk.exists(TableId::kTombstone, value);
        return known ? nullptr : "names a row that is gone";
      });
  walk.same_count(TableId::kOutboxId, ids, rows + tombstones);
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
  walk.indexes(TableId::kSeenDue, [](Bytes key, Bytes) -> const char* {
    Ulid id;
    return parse_ulid_key(key, id) ? nullptr : "key is not a ulid";
  });
}

// A mesh that was deleted keeps its rows and gives its slug back.
bool is_deleted(Walk& walk, Bytes mesh_key) {
  MeshSettingsRow settings;
  return walk.batch().get(TableId::kMeshSettings, mesh_key, settings) &&
         settings.fixed.deleted_ms != 0;
}

void check_meshes(Walk& walk) {
  std::uint64_t in_use = 0;
  const std::uint64_t rows =
      walk.rows<MeshRow>(TableId::kMesh, [&](Bytes key, const MeshRow& row) -> const char* {
        const bool deleted = is_deleted(walk, key);
        in_use += deleted ? 0u : 1u;
        if (!walk.index_names(TableId::kMeshId, text_key(row.text[kMeshIdText]).bytes(), key)) {
          return "mesh id does not lead back to the row";
        }
        const Key slug = text_key(row.text[kMeshSlugText]);
        const bool named = walk.index_names(TableId::kMeshSlug, slug.bytes(), key);
        if (deleted) return named ? "deleted, but its slug still leads to it" : nullptr;
        return named ? nullptr : "slug does not lead back to the row";
      });
  const auto target = [&](Bytes, Bytes value) -> const char* {
    return walk.exists(TableId::kMesh, value) ? nullptr : "names a mesh that is gone";
  };
  walk.same_count(TableId::kMesh, rows, walk.indexes(TableId::kMeshId, target));
  walk.same_count(TableId::kMesh, in_use, walk.indexes(TableId::kMeshSlug, target));
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
    if (!known || row.fixed.level >= ReportLevel::kCount) return "state out of range";
    const std::size_t signature = row.text[kReceiptSignature].size();
    return signature == 0 || signature == 64 ? nullptr : "a signature of another size";
  });
}

// What hangs on a member: each key begins with the member's number.
void check_member_data(Walk& walk) {
  const auto of_member = [&](Bytes key) -> const char* {
    if (key.size() < sizeof(std::uint32_t)) return "malformed key";
    return walk.exists(TableId::kMember, key.first(sizeof(std::uint32_t)))
               ? nullptr
               : "of a member that is gone";
  };
  walk.rows<MemberProfileRow>(
      TableId::kMemberProfile, [&](Bytes key, const MemberProfileRow& row) -> const char* {
        return row.fixed.message_mode >= MessageMode::kCount ? "message mode out of range"
                                                             : of_member(key);
      });
  walk.rows<PeerStateRow>(TableId::kPeerState,
                          [&](Bytes key, const PeerStateRow&) { return of_member(key); });
  walk.indexes(TableId::kGrant, [&](Bytes key, Bytes value) -> const char* {
    if (key.size() != sizeof(std::uint32_t) + sizeof(KeyBytes)) return "malformed key";
    return value.size() != sizeof(std::uint32_t) ? "malformed value" : of_member(key);
  });
  walk.rows<AttestationRow>(
      TableId::kAttestation, [&](Bytes, const AttestationRow& row) -> const char* {
        return walk.exists(TableId::kMember, u32_key(row.fixed.member_no).bytes())
                   ? nullptr
                   : "proof of a member that is gone";
      });
}

// What hangs on a mesh: each key begins with the mesh's number.
void check_mesh_data(Walk& walk) {
  const auto of_mesh = [&](Bytes key) -> const char* {
    if (key.size() < sizeof(std::uint32_t)) return "malformed key";
    return walk.exists(TableId::kMesh, key.first(sizeof(std::uint32_t))) ? nullptr
                                                                         : "of a mesh that is gone";
  };
  walk.rows<MeshSettingsRow>(TableId::kMeshSettings,
                             [&](Bytes key, const MeshSettingsRow&) { return of_mesh(key); });
  walk.rows<StateRow>(TableId::kState, [&](Bytes key, const StateRow&) { return of_mesh(key); });
  walk.rows<MemoryRow>(TableId::kMemory, [&](Bytes key, const MemoryRow&) { return of_mesh(key); });
  walk.rows<SkillRow>(TableId::kSkill, [&](Bytes key, const SkillRow&) { return of_mesh(key); });
  walk.rows<CodeRow>(TableId::kCode, [](Bytes key, const CodeRow& row) -> const char* {
    return key.size() != sizeof(KeyBytes) || row.text[kCodeToken].empty() ? "names no invite"
                                                                          : nullptr;
  });
  walk.indexes(TableId::kHttpNonce, [](Bytes, Bytes) -> const char* { return nullptr; });
}

void check_topics(Walk& walk) {
  const std::uint64_t rows =
      walk.rows<TopicRow>(TableId::kTopic, [&](Bytes key, const TopicRow& row) -> const char* {
        if (row.fixed.visibility >= TopicVisibility::kCount) return "visibility out of range";
        if (!walk.exists(TableId::kMesh, u32_key(row.fixed.mesh_no).bytes())) {
          return "topic of a mesh that is gone";
        }
        const Key id = u32_bytes_key(row.fixed.mesh_no, as_bytes(row.text[kTopicIdText]));
        const Key name = u32_bytes_key(row.fixed.mesh_no, as_bytes(row.text[kTopicNameText]));
        if (!walk.index_names(TableId::kTopicId, id.bytes(), key)) {
          return "topic id does not lead back to the row";
        }
        return walk.index_names(TableId::kTopicName, name.bytes(), key)
                   ? nullptr
                   : "topic name does not lead back to the row";
      });
  const auto target = [&](Bytes, Bytes value) -> const char* {
    return walk.exists(TableId::kTopic, value) ? nullptr : "names a topic that is gone";
  };
  walk.same_count(TableId::kTopic, rows, walk.indexes(TableId::kTopicId, target));
  walk.same_count(TableId::kTopic, rows, walk.indexes(TableId::kTopicName, target));
  walk.rows<TopicMemberRow>(
      TableId::kTopicMember, [&](Bytes key, const TopicMemberRow& row) -> const char* {
        constexpr std::size_t kNo = sizeof(std::uint32_t);
        if (key.size() != 2 * kNo) return "malformed key";
        if (row.fixed.role >= TopicRole::kCount) return "role out of range";
        if (!walk.exists(TableId::kTopic, key.first(kNo))) return "of a topic that is gone";
        return walk.exists(TableId::kMember, key.subspan(kNo)) ? nullptr
                                                               : "of a member that is gone";
      });
  walk.rows<TopicPostRow>(TableId::kTopicPost, [&](Bytes key, const TopicPostRow&) -> const char* {
    constexpr std::size_t kNo = sizeof(std::uint32_t);
    if (key.size() != kNo + sizeof(Ulid)) return "malformed key";
    if (!walk.exists(TableId::kTopic, key.first(kNo))) return "post in a topic that is gone";
    return walk.exists(TableId::kMessage, key.subspan(kNo)) ? nullptr
                                                            : "post of a message that is gone";
  });
}

}  // namespace

FsckReport fsck(Batch& batch, Role role, const FsckSink& sink) {
  Walk walk(batch, sink);
  if (const PageProblem problem = batch.check_file(); problem) {
    walk.problem("(pages)", "page " + std::to_string(problem.page) + ": " + problem.what);
    return walk.report();
  }
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
    check_member_data(walk);
    check_mesh_data(walk);
    check_topics(walk);
  }
  if (batch.failed()) walk.problem("(pages)", "a table could not be read to its end");
  return walk.report();
}

}  // namespace cm::store
