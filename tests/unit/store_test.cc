// store_test.cc — the store: batches, failure, reopening, locking, checksums, admission.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "store/fsck.h"
#include "store/store.h"

namespace cm::store {
namespace {

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/cm-store-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    options.directory = path;
    options.role = Role::kBroker;
    options.bound_bytes = 64 << 20;
    options.durability = Durability::kRelaxed;
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
  std::string data_file() const {
    std::ifstream file(options.directory + "/data.mdb", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Batch& batch() { return store->batch(); }
  void put_mesh(std::uint32_t no, std::string_view id, std::string_view slug) {
    MeshRow row;
    row.text[kMeshIdText] = id;
    row.text[kMeshSlugText] = slug;
    batch().put(TableId::kMesh, u32_key(no).bytes(), row);
    batch().put_number(TableId::kMeshId, text_key(id).bytes(), no);
    batch().put_number(TableId::kMeshSlug, text_key(slug).bytes(), no);
  }
  std::uint64_t problems() {
    return fsck(batch(), options.role, [](std::string_view, std::string_view, Bytes) {}).problems;
  }

  Options options;
  ScratchArena scratch;
  std::unique_ptr<Store> store;
};

TEST_F(StoreTest, a_committed_row_is_there_after_reopening) {
  open();
  put_mesh(1, "mesh-one", "one");
  EXPECT_EQ(store->commit(), CommitResult::kCommitted);
  open();
  MeshRow row;
  ASSERT_TRUE(batch().get(TableId::kMesh, u32_key(1).bytes(), row));
  EXPECT_EQ(row.text[kMeshSlugText], "one");
  EXPECT_EQ(batch().get_number(TableId::kMeshId, text_key("mesh-one").bytes()), 1u);
  EXPECT_EQ(problems(), 0u);
}

TEST_F(StoreTest, an_aborted_batch_leaves_nothing) {
  open();
  put_mesh(1, "mesh-one", "one");
  store->abort();
  MeshRow row;
  EXPECT_FALSE(batch().get(TableId::kMesh, u32_key(1).bytes(), row));
  EXPECT_EQ(store->commit(), CommitResult::kNothing);
}

TEST_F(StoreTest, a_second_owner_is_refused_and_a_reader_is_not) {
  open();
  auto second = Store::open(options, scratch);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.code(), Err::kAlreadyRunning);
  Options reader = options;
  reader.read_only = true;
  ScratchArena reader_scratch;
  auto snapshot = Store::open(reader, reader_scratch);
  EXPECT_TRUE(snapshot) << snapshot.error().detail;
}

TEST_F(StoreTest, a_failed_commit_changes_nothing_and_the_next_one_works) {
  open();
  static int code;
  code = ENOSPC;
  store->set_commit_fault([](void*) { return std::exchange(code, 0); }, nullptr);
  put_mesh(1, "mesh-one", "one");
  EXPECT_EQ(store->commit(), CommitResult::kFailed);
  MeshRow row;
  EXPECT_FALSE(batch().get(TableId::kMesh, u32_key(1).bytes(), row));
  put_mesh(1, "mesh-one", "one");
  EXPECT_EQ(store->commit(), CommitResult::kCommitted);
}

TEST_F(StoreTest, a_map_that_fills_in_the_middle_of_a_batch_fails_the_batch_and_nothing_else) {
  options.bound_bytes = 4 << 20;
  open();
  put_mesh(1, "mesh-one", "one");
  ASSERT_EQ(store->commit(), CommitResult::kCommitted);
  const std::string body(32 << 10, 'x');
  for (std::uint64_t number = 1; !batch().failed(); ++number) {
    ASSERT_LT(number, 10'000u);
    MessageRow row;
    row.text[kMessageCiphertext] = body;
    batch().put(TableId::kMessage, Key().add_u64(number).bytes(), row);
    scratch.reset();
  }
  put_mesh(2, "mesh-two", "two");  // ignored: the batch has failed
  EXPECT_EQ(store->commit(), CommitResult::kFailed);
  MeshRow row;
  EXPECT_TRUE(batch().get(TableId::kMesh, u32_key(1).bytes(), row));
  EXPECT_FALSE(batch().get(TableId::kMesh, u32_key(2).bytes(), row));
  EXPECT_EQ(problems(), 0u);
  put_mesh(2, "mesh-two", "two");
  EXPECT_EQ(store->commit(), CommitResult::kCommitted);
}

// LMDB refuses the rest of a transaction behind a failed put, reads included.
TEST_F(StoreTest, reads_behind_a_full_map_do_not_make_it_an_io_error) {
  options.bound_bytes = 1 << 20;
  options.reserve_bytes = 64 << 10;
  open();
  put_mesh(1, "mesh-one", "one");
  ASSERT_EQ(store->commit(), CommitResult::kCommitted);
  const std::string body(32 << 10, 'x');
  for (std::uint64_t number = 1; !batch().failed(); ++number) {
    ASSERT_LT(number, 1'000u);
    MessageRow row;
    row.text[kMessageCiphertext] = body;
    batch().put(TableId::kMessage, Key().add_u64(number).bytes(), row);
    scratch.reset();
  }
  MeshRow row;
  batch().get(TableId::kMesh, u32_key(1).bytes(), row);
  Cursor(batch(), TableId::kMesh).seek({});
  EXPECT_EQ(store->commit(), CommitResult::kFailed);
  EXPECT_TRUE(batch().get(TableId::kMesh, u32_key(1).bytes(), row));
}

TEST_F(StoreTest, an_io_error_is_final) {
  open();
  store->set_commit_fault([](void*) { return EIO; }, nullptr);
  put_mesh(1, "mesh-one", "one");
  EXPECT_EQ(store->commit(), CommitResult::kBroken);
}

TEST_F(StoreTest, a_newer_schema_refuses_to_start) {
  open();
  MetaRow row;
  row.fixed.number = kSchemaVersion + 1;
  batch().put(TableId::kMeta, text_key("schema_version").bytes(), row);
  ASSERT_EQ(store->commit(), CommitResult::kCommitted);
  store.reset();
  auto opened = Store::open(options, scratch);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kSchemaNewer);
}

TEST_F(StoreTest, the_store_of_the_other_role_is_refused_and_left_as_it_was) {
  open();
  store.reset();
  const std::string before = data_file();
  options.role = Role::kDaemon;
  auto opened = Store::open(options, scratch);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kInvalidArgument);
  EXPECT_TRUE(data_file() == before) << "a table was made in it";
}

TEST_F(StoreTest, a_row_under_another_key_does_not_verify) {
  MeshRow row;
  row.text[kMeshIdText] = "mesh-one";
  const Key key = u32_key(1);
  const Bytes stored = encode(row, key.bytes(), scratch);
  MeshRow back;
  EXPECT_TRUE(decode(back, key.bytes(), stored));
  EXPECT_FALSE(decode(back, u32_key(2).bytes(), stored));
}

TEST_F(StoreTest, every_flipped_byte_and_every_truncation_of_a_row_is_detected) {
  MessageRow row;
  row.fixed.mesh_no = 7;
  row.text[kMessageCiphertext] = "ciphertext";
  row.text[kMessageClientId] = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  const Key key = u32_key(1);
  const Bytes stored = encode(row, key.bytes(), scratch);
  MessageRow back;
  for (std::size_t index = 0; index < stored.size(); ++index) {
    std::string damaged(as_text(stored));
    damaged[index] = static_cast<char>(damaged[index] ^ 0x40);
    EXPECT_FALSE(decode(back, key.bytes(), as_bytes(damaged))) << index;
    EXPECT_FALSE(decode(back, key.bytes(), stored.first(index))) << index;
  }
}

TEST_F(StoreTest, fsck_finds_an_index_without_its_row_and_a_row_without_its_index) {
  open();
  put_mesh(1, "mesh-one", "one");
  batch().put_number(TableId::kMeshSlug, text_key("orphan").bytes(), 9);
  EXPECT_EQ(problems(), 2u);  // the orphan itself, and the counts that differ
  store->abort();
  put_mesh(1, "mesh-one", "one");
  batch().erase(TableId::kMeshId, text_key("mesh-one").bytes());
  EXPECT_EQ(problems(), 2u);
}

// One row or index entry that hangs on something that is not there, or says what nothing says.
struct Orphan {
  const char* what;
  void (*plant)(Batch& batch);
};
constexpr std::string_view kToken32 = "0123456789abcdef0123456789abcdef";
template <class R>
void plant(Batch& batch, TableId table, const Key& key, R row = {}) {
  batch.put(table, key.bytes(), row);
}
template <class R, class Change>
R changed(Change change) {
  R row;
  change(row);
  return row;
}
const Orphan kOrphans[] = {
    {"mesh_settings: of a mesh that is gone",
     [](Batch& b) { plant<MeshSettingsRow>(b, TableId::kMeshSettings, u32_key(9)); }},
    {"member_profile: of a member that is gone",
     [](Batch& b) { plant<MemberProfileRow>(b, TableId::kMemberProfile, u32_key(9)); }},
    {"member_profile: message mode out of range",
     [](Batch& b) {
       plant(b, TableId::kMemberProfile, u32_key(1), changed<MemberProfileRow>([](auto& row) {
               row.fixed.message_mode = MessageMode::kCount;
             }));
     }},
    {"peer_state: of a member that is gone",
     [](Batch& b) { plant<PeerStateRow>(b, TableId::kPeerState, u32_key(9)); }},
    {"grant: of a member that is gone",
     [](Batch& b) {
       b.put_number(TableId::kGrant, u32_bytes_key(9, as_bytes(kToken32)).bytes(), 1);
     }},
    {"grant: malformed key",
     [](Batch& b) { b.put_number(TableId::kGrant, u32_key(1).bytes(), 1); }},
    {"attestation: proof of a member that is gone",
     [](Batch& b) {
       plant<AttestationRow>(b, TableId::kAttestation, u32_bytes_key(1, as_bytes(kToken32)));
     }},
    {"state: of a mesh that is gone",
     [](Batch& b) { plant<StateRow>(b, TableId::kState, u32_bytes_key(9, as_bytes(kToken32))); }},
    {"memory: of a mesh that is gone",
     [](Batch& b) { plant<MemoryRow>(b, TableId::kMemory, u32_bytes_key(9, as_bytes(kToken32))); }},
    {"skill: of a mesh that is gone",
     [](Batch& b) { plant<SkillRow>(b, TableId::kSkill, u32_bytes_key(9, as_bytes(kToken32))); }},
    {"code: names no invite",
     [](Batch& b) { plant<CodeRow>(b, TableId::kCode, text_key(kToken32)); }},
    {"topic_id: names a topic that is gone",
     [](Batch& b) { b.put_number(TableId::kTopicId, text_key("x").bytes(), 9); }},
    {"topic: topic id does not lead back to the row",
     [](Batch& b) {
       plant(b, TableId::kTopic, u32_key(1),
             changed<TopicRow>([](auto& row) { row.fixed.mesh_no = 1; }));
     }},
    {"topic: topic of a mesh that is gone",
     [](Batch& b) { plant<TopicRow>(b, TableId::kTopic, u32_key(1)); }},
    {"topic_member: of a topic that is gone",
     [](Batch& b) { plant<TopicMemberRow>(b, TableId::kTopicMember, pair_key(9, 1)); }},
    {"topic_member: malformed key",
     [](Batch& b) { plant<TopicMemberRow>(b, TableId::kTopicMember, u32_key(9)); }},
    {"topic_post: post in a topic that is gone",
     [](Batch& b) { plant<TopicPostRow>(b, TableId::kTopicPost, topic_post_key(9, {})); }},
};

TEST_F(StoreTest, fsck_names_every_row_that_hangs_on_nothing) {
  open();
  for (const Orphan& orphan : kOrphans) {
    put_mesh(1, "mesh-one", "one");
    MemberRow member;
    member.fixed.mesh_no = 1;
    batch().put(TableId::kMember, u32_key(1).bytes(), member);
    batch().put_number(TableId::kMemberKey, u32_bytes_key(1, member.fixed.key).bytes(), 1);
    ASSERT_EQ(problems(), 0u);
    orphan.plant(batch());
    std::string found;
    fsck(batch(), options.role, [&](std::string_view table, std::string_view what, Bytes) {
      found += std::string(table) + ": " + std::string(what) + "\n";
    });
    EXPECT_NE(found.find(orphan.what), std::string::npos) << orphan.what << "\nfound: " << found;
    store->abort();
  }
}

TEST_F(StoreTest, a_full_store_refuses_new_work_but_deletes_still_fit_in_the_reserve) {
  options.bound_bytes = 4 << 20;
  open();
  const std::string body(32 << 10, 'x');
  std::uint64_t number = 0;
  while (batch().admits()) {
    MessageRow row;
    row.text[kMessageCiphertext] = body;
    batch().put(TableId::kMessage, Key().add_u64(++number).bytes(), row);
    ASSERT_EQ(store->commit(), CommitResult::kCommitted);
    ASSERT_LT(number, 1000u);
    scratch.reset();
  }
  for (std::uint64_t gone = 1; gone <= number; ++gone) {
    EXPECT_TRUE(batch().erase(TableId::kMessage, Key().add_u64(gone).bytes()));
    ASSERT_EQ(store->commit(), CommitResult::kCommitted);
  }
  EXPECT_TRUE(batch().admits());
}

TEST_F(StoreTest, a_cursor_walks_a_prefix_in_order_both_ways) {
  open();
  for (const std::uint32_t no : {3u, 1u, 2u}) {
    MeshRow row;
    batch().put(TableId::kMesh, u32_key(no).bytes(), row);
  }
  ASSERT_EQ(store->commit(), CommitResult::kCommitted);
  Cursor cursor(batch(), TableId::kMesh);
  std::uint32_t expected = 0;
  for (bool more = cursor.seek({}); more; more = cursor.next()) {
    EXPECT_EQ(load_be32(cursor.key().data()), ++expected);
  }
  EXPECT_EQ(expected, 3u);
  ASSERT_TRUE(cursor.seek_before(u32_key(3).bytes()));
  EXPECT_EQ(load_be32(cursor.key().data()), 2u);
  ASSERT_TRUE(cursor.seek_before({}));
  EXPECT_EQ(load_be32(cursor.key().data()), 3u);
}

TEST_F(StoreTest, files_are_private_to_their_owner) {
  open();
  for (const char* name : {"data.mdb", "lock.mdb", "LOCK"}) {
    const auto mode = std::filesystem::status(options.directory + "/" + name).permissions();
    EXPECT_EQ(static_cast<unsigned>(mode) & 0777u, 0600u) << name;
  }
  const auto mode = std::filesystem::status(options.directory).permissions();
  EXPECT_EQ(static_cast<unsigned>(mode) & 0777u, 0700u);
}

TEST_F(StoreTest, row_kinds_are_unique) {
  const std::set<int> kinds{
      MetaRow::kKind,      OutboxRow::kKind,      OutboxBodyRow::kKind,   InboxRow::kKind,
      KnownPeerRow::kKind, MeshRow::kKind,        MemberRow::kKind,       InviteRow::kKind,
      BindingRow::kKind,   PresenceRow::kKind,    MessageRow::kKind,      DedupeRow::kKind,
      DeliveryRow::kKind,  ReceiptRow::kKind,     MeshSettingsRow::kKind, MemberProfileRow::kKind,
      PeerStateRow::kKind, AttestationRow::kKind, TopicRow::kKind,        TopicMemberRow::kKind,
      TopicPostRow::kKind, StateRow::kKind,       MemoryRow::kKind,       SkillRow::kKind,
      CodeRow::kKind};
  EXPECT_EQ(kinds.size(), 25u);
}

}  // namespace
}  // namespace cm::store
