// store_recover_test.cc — every kind of damage to a daemon's store: found, repaired, and told.
// Holds:  a store is damaged through raw values and entries that do not belong; after the repair
//         fsck finds nothing, and each id that was ever written is still taken.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "store/fsck.h"
#include "store/recover.h"
#include "store/store.h"

namespace cm::store {
namespace {

constexpr std::uint64_t kNow = 1'700'000'000'000;
constexpr std::string_view kReason = "corrupt: by a test";

Ulid ulid_of(std::uint8_t number) {
  Ulid id;
  id.bytes[5] = 1;
  id.bytes[15] = number;
  return id;
}

class RecoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/cm-recover-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    options.directory = path;
    options.role = Role::kDaemon;
    options.bound_bytes = 64 << 20;
    options.durability = Durability::kRelaxed;
    open();
  }
  void TearDown() override {
    store.reset();
    std::filesystem::remove_all(options.directory);
  }
  void open() {
    store.reset();
    auto opened = Store::open(options, scratch);
    ASSERT_TRUE(opened) << opened.error().detail;
    store = std::move(*opened);
  }
  Batch& batch() { return store->batch(); }
  void commit() {
    ASSERT_EQ(store->commit(), CommitResult::kCommitted);
    scratch.reset();
  }
  void put_row(std::uint8_t number, const std::string& client_id, OutboxStatus status) {
    const Key key = ulid_key(ulid_of(number));
    OutboxRow row;
    row.fixed.status = status;
    row.text[kOutboxClientId] = client_id;
    row.text[kOutboxMesh] = "mesh0";
    batch().put(TableId::kOutbox, key.bytes(), row);
    OutboxBodyRow body;
    body.text[kBodyPayload] = "text";
    batch().put(TableId::kOutboxBody, key.bytes(), body);
    batch().put_index(TableId::kOutboxId, text_key(client_id).bytes(), ulid_of(number).bytes);
  }
  void put_tombstone(std::uint8_t number, const std::string& client_id) {
    TombstoneRow row;
    row.fixed.status = OutboxStatus::kDone;
    row.text[kTombstoneClientId] = client_id;
    batch().put(TableId::kTombstone, ulid_key(ulid_of(number)).bytes(), row);
    batch().put_index(TableId::kOutboxId, text_key(client_id).bytes(), ulid_of(number).bytes);
  }
  void put_inbox(std::uint8_t number, const std::string& client_id) {
    InboxRow row;
    row.text[kInboxClientId] = client_id;
    row.text[kInboxMesh] = "mesh0";
    row.text[kInboxSender] = "bob";
    batch().put(TableId::kInbox, ulid_key(ulid_of(number)).bytes(), row);
    const Key key = inbox_dedupe_key("mesh0", "bob", client_id, row.fixed.recipient);
    batch().put_index(TableId::kInboxKey, key.bytes(), ulid_of(number).bytes);
  }
  // A value of another kind: its checksum is good for nobody who reads this table.
  void damage(TableId table, const Key& key) { batch().put(table, key.bytes(), MetaRow{}); }
  // An entry whose check does not fit its key.
  void damage_index(TableId table, const Key& key) {
    if (table == TableId::kInboxKey || table == TableId::kOutboxId || table == TableId::kSeenDue) {
      batch().put(table, key.bytes(), MetaRow{});
    }
  }
  std::uint64_t problems() {
    return fsck(batch(), options.role, [](std::string_view, std::string_view, Bytes) {}).problems;
  }
  // What is wrong before, how it is repaired, and that nothing is wrong then. The number of values
  // that were handed out before they were removed.
  std::size_t recover(std::string* what = nullptr) {
    const std::vector<Repair> repairs = find_damage(batch());
    EXPECT_FALSE(repairs.empty());
    std::size_t set_aside = 0;
    for (const Repair& one : repairs) {
      if (what != nullptr) *what += std::string(info_of(one.table).name) + ": " + one.what + "\n";
    }
    store->abort();
    repair(batch(), repairs, kReason, kNow, [&](const Repair&, Bytes value) {
      EXPECT_FALSE(value.empty());
      ++set_aside;
    });
    commit();
    const auto sink = [](std::string_view table, std::string_view problem, Bytes) {
      ADD_FAILURE() << "fsck: " << table << ": " << problem;
    };
    fsck(batch(), options.role, sink);
    EXPECT_TRUE(find_damage(batch()).empty()) << "a second run finds nothing";
    store->abort();
    return set_aside;
  }
  // "dead: corrupt: ..", "done", "pending", "" when the id leads nowhere.
  std::string status_of(const std::string& client_id) {
    constexpr const char* kTexts[] = {"pending", "inflight", "done", "dead", "aborted"};
    std::string text;
    Ulid id;
    OutboxRow row;
    TombstoneRow stone;
    if (parse_ulid_key(batch().get_index(TableId::kOutboxId, text_key(client_id).bytes()), id)) {
      const Key key = ulid_key(id);
      if (batch().get(TableId::kOutbox, key.bytes(), row)) {
        text = kTexts[static_cast<int>(row.fixed.status)];
        if (!row.text[kOutboxLastError].empty()) {
          text += ": " + std::string(row.text[kOutboxLastError]);
        }
      } else if (batch().get(TableId::kTombstone, key.bytes(), stone)) {
        text = std::string("tombstone ") + kTexts[static_cast<int>(stone.fixed.status)];
        if (!stone.text[kTombstoneReason].empty()) {
          text += ": " + std::string(stone.text[kTombstoneReason]);
        }
      }
    }
    store->abort();
    return text;
  }

  Options options;
  ScratchArena scratch;
  std::unique_ptr<Store> store;
};

TEST_F(RecoverTest, a_sound_store_needs_nothing) {
  put_row(1, "a", OutboxStatus::kPending);
  put_row(2, "b", OutboxStatus::kDone);
  put_tombstone(3, "c");
  put_inbox(4, "in");
  commit();
  EXPECT_EQ(problems(), 0u);
  EXPECT_TRUE(find_damage(batch()).empty());
}

TEST_F(RecoverTest, a_damaged_row_is_set_aside_and_its_id_stays_taken) {
  put_row(1, "lost", OutboxStatus::kPending);
  put_row(2, "whole", OutboxStatus::kPending);
  damage(TableId::kOutbox, ulid_key(ulid_of(1)));
  commit();
  EXPECT_GT(problems(), 0u);
  EXPECT_EQ(recover(), 2u) << "the row and its body";
  EXPECT_EQ(status_of("lost"), "tombstone dead: corrupt: by a test");
  EXPECT_EQ(status_of("whole"), "pending");
}

TEST_F(RecoverTest, a_damaged_row_whose_id_is_damaged_too_keeps_the_id_taken) {
  put_row(1, "lost", OutboxStatus::kPending);
  damage(TableId::kOutbox, ulid_key(ulid_of(1)));
  damage_index(TableId::kOutboxId, text_key("lost"));
  commit();
  recover();
  EXPECT_EQ(status_of("lost"), "tombstone dead: corrupt: by a test");
}

TEST_F(RecoverTest, a_damaged_entry_of_an_id_leads_back_to_its_row) {
  put_row(1, "a", OutboxStatus::kPending);
  put_tombstone(2, "b");
  put_row(3, "gone", OutboxStatus::kDone);
  damage_index(TableId::kOutboxId, text_key("a"));
  damage_index(TableId::kOutboxId, text_key("b"));
  batch().erase(TableId::kOutboxId, text_key("gone").bytes());
  commit();
  EXPECT_EQ(recover(), 0u);
  EXPECT_EQ(status_of("a"), "pending");
  EXPECT_EQ(status_of("b"), "tombstone done");
  EXPECT_EQ(status_of("gone"), "done");
}

TEST_F(RecoverTest, an_id_that_names_nothing_or_somebody_else_stays_taken) {
  put_row(1, "a", OutboxStatus::kPending);
  batch().put_index(TableId::kOutboxId, text_key("nowhere").bytes(), ulid_of(9).bytes);
  batch().put_index(TableId::kOutboxId, text_key("thief").bytes(), ulid_of(1).bytes);
  batch().put_index(TableId::kOutboxId, text_key("second").bytes(), ulid_of(9).bytes);
  commit();
  recover();
  for (const char* id : {"nowhere", "thief", "second"}) {
    EXPECT_EQ(status_of(id), "tombstone dead: corrupt: by a test") << id;
  }
  EXPECT_EQ(status_of("a"), "pending");
}

TEST_F(RecoverTest, of_two_rows_with_one_id_the_one_that_the_id_names_stays) {
  put_row(2, "a", OutboxStatus::kPending);
  put_row(1, "a", OutboxStatus::kDone);
  commit();
  EXPECT_EQ(recover(), 2u);
  EXPECT_EQ(status_of("a"), "done");
}

TEST_F(RecoverTest, an_open_row_without_its_body_is_dead_and_says_why) {
  put_row(1, "a", OutboxStatus::kPending);
  put_row(2, "b", OutboxStatus::kInflight);
  put_row(3, "c", OutboxStatus::kDone);
  batch().erase(TableId::kOutboxBody, ulid_key(ulid_of(1)).bytes());
  damage(TableId::kOutboxBody, ulid_key(ulid_of(2)));
  damage(TableId::kOutboxBody, ulid_key(ulid_of(3)));
  commit();
  recover();
  EXPECT_EQ(status_of("a"), "dead: corrupt: by a test");
  EXPECT_EQ(status_of("b"), "dead: corrupt: by a test");
  EXPECT_EQ(status_of("c"), "done") << "the broker has it";
}

TEST_F(RecoverTest, a_tombstone_that_is_damaged_or_too_many_is_put_right) {
  put_tombstone(1, "a");
  damage(TableId::kTombstone, ulid_key(ulid_of(1)));
  put_tombstone(2, "b");
  put_row(2, "b", OutboxStatus::kDone);
  commit();
  recover();
  EXPECT_EQ(status_of("a"), "tombstone dead: corrupt: by a test");
  EXPECT_EQ(status_of("b"), "done");
}

TEST_F(RecoverTest, a_body_without_its_row_and_a_status_of_no_meaning_go) {
  OutboxBodyRow body;
  batch().put(TableId::kOutboxBody, ulid_key(ulid_of(7)).bytes(), body);
  put_row(1, "a", OutboxStatus::kPending);
  OutboxRow odd;
  odd.fixed.status = OutboxStatus::kCount;
  odd.text[kOutboxClientId] = "a";
  batch().put(TableId::kOutbox, ulid_key(ulid_of(1)).bytes(), odd);
  commit();
  recover();
  EXPECT_EQ(status_of("a"), "tombstone dead: corrupt: by a test");
}

TEST_F(RecoverTest, a_damaged_inbox_row_goes_and_its_dedupe_key_stays) {
  put_inbox(1, "lost");
  put_inbox(2, "whole");
  damage(TableId::kInbox, ulid_key(ulid_of(1)));
  commit();
  ASSERT_EQ(find_damaged_inbox(batch()).size(), 1u);
  EXPECT_EQ(recover(), 1u);
  const KeyBytes recipient{};
  for (const char* id : {"lost", "whole"}) {
    const Key key = inbox_dedupe_key("mesh0", "bob", id, recipient);
    EXPECT_FALSE(batch().get_index(TableId::kInboxKey, key.bytes()).empty()) << id;
  }
}

TEST_F(RecoverTest, dedupe_keys_that_are_lost_or_damaged_are_written_anew) {
  const KeyBytes recipient{};
  put_inbox(1, "lost");
  put_inbox(2, "bad");
  put_inbox(3, "pruned");
  batch().erase(TableId::kInboxKey, inbox_dedupe_key("mesh0", "bob", "lost", recipient).bytes());
  damage_index(TableId::kInboxKey, inbox_dedupe_key("mesh0", "bob", "bad", recipient));
  batch().erase(TableId::kInbox, ulid_key(ulid_of(3)).bytes());
  damage_index(TableId::kInboxKey, inbox_dedupe_key("mesh0", "bob", "pruned", recipient));
  commit();
  recover();
  for (const char* id : {"lost", "bad", "pruned"}) {
    const Key key = inbox_dedupe_key("mesh0", "bob", id, recipient);
    EXPECT_FALSE(batch().get_index(TableId::kInboxKey, key.bytes()).empty()) << id;
  }
}

TEST_F(RecoverTest, what_is_damaged_beside_the_messages_goes_too) {
  damage(TableId::kKnownPeer, text_key("peer"));
  damage_index(TableId::kSeenDue, ulid_key(ulid_of(1)));
  OutboxBodyRow other;
  batch().put(TableId::kMeta, text_key("event_ids").bytes(), other);
  commit();
  std::string what;
  EXPECT_EQ(recover(&what), 3u) << what;
}

// Each byte of each value of a store of every table, one at a time.
TEST_F(RecoverTest, whichever_row_is_hit_the_store_is_whole_again_and_no_id_is_free) {
  const TableId tables[] = {TableId::kOutbox,    TableId::kOutboxBody, TableId::kOutboxId,
                            TableId::kTombstone, TableId::kInbox,      TableId::kInboxKey};
  for (const TableId table : tables) {
    for (std::uint8_t hit = 1; hit <= 4; ++hit) {
      SCOPED_TRACE(std::string(info_of(table).name) + " " + std::to_string(hit));
      TearDown();
      SetUp();
      put_row(1, "a", OutboxStatus::kPending);
      put_row(2, "b", OutboxStatus::kDead);
      put_tombstone(3, "c");
      put_inbox(4, "in");
      commit();
      std::vector<std::vector<std::uint8_t>> keys;
      {
        Cursor cursor(batch(), table);
        for (bool more = cursor.seek({}); more; more = cursor.next()) {
          keys.push_back({cursor.key().begin(), cursor.key().end()});
        }
      }
      store->abort();
      if (hit > keys.size()) continue;
      batch().put(table, keys[hit - 1u], MetaRow{});
      commit();
      recover();
      for (const char* id : {"a", "b", "c"}) EXPECT_NE(status_of(id), "") << id;
    }
  }
}

TEST_F(RecoverTest, a_damaged_schema_version_is_written_anew_only_on_request) {
  put_row(1, "a", OutboxStatus::kPending);
  OutboxBodyRow other;
  batch().put(TableId::kMeta, text_key("schema_version").bytes(), other);
  commit();
  store.reset();
  const auto refused = Store::open(options, scratch);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.code(), Err::kCorrupt);
  EXPECT_NE(info_of(refused.code()).remedy.find("daemon recover"), std::string_view::npos);
  options.salvage = true;
  open();
  EXPECT_TRUE(store->salvaged());
  options.salvage = false;
  open();
  EXPECT_EQ(status_of("a"), "pending");
}

}  // namespace
}  // namespace cm::store
