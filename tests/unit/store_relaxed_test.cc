// store_relaxed_test.cc — the mark of relaxed mode, and what a store does that lost its power.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "store/marks.h"
#include "tests/unit/core_fixture.h"

namespace cm::store {
namespace {

class StoreRelaxedTest : public ::testing::Test {
 protected:
  std::string mark() const { return parts_.options.directory + "/RELAXED"; }
  bool has_mark() const { return std::filesystem::exists(mark()); }
  // A child that opens the store, puts a row and is gone without closing anything.
  void die_with_a_row(TableId table, std::string_view key) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto opened = Store::open(parts_.options, parts_.scratch);
      if (!opened) ::_exit(1);
      const std::uint8_t row_of_nobody[16] = {1};
      (*opened)->batch().put_index(table, text_key(key).bytes(), row_of_nobody);
      ::_exit((*opened)->commit() == CommitResult::kCommitted ? 0 : 2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  void pretend_another_boot() { std::ofstream(mark()) << "another-boot\n"; }
  Result<std::unique_ptr<Store>> open() { return Store::open(parts_.options, parts_.scratch); }

  CoreParts parts_{Role::kDaemon};
};

TEST_F(StoreRelaxedTest, a_clean_end_leaves_no_mark_and_kill_9_does) {
  {
    const auto opened = open();
    ASSERT_TRUE(opened);
    EXPECT_TRUE(has_mark());
    EXPECT_FALSE((*opened)->lost_power());
  }
  EXPECT_FALSE(has_mark());
  die_with_a_row(TableId::kInboxKey, "key");
  EXPECT_TRUE(has_mark());
  EXPECT_EQ(last_end(parts_.options.directory), LastEnd::kKilled);
  const auto again = open();
  ASSERT_TRUE(again);
  EXPECT_FALSE((*again)->lost_power());
  EXPECT_FALSE((*again)->batch().get_index(TableId::kInboxKey, text_key("key").bytes()).empty());
}

TEST_F(StoreRelaxedTest, after_a_power_loss_a_store_that_fits_opens_and_says_so) {
  die_with_a_row(TableId::kInboxKey, "key");
  pretend_another_boot();
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().detail;
  EXPECT_TRUE((*opened)->lost_power());
}

TEST_F(StoreRelaxedTest, after_a_power_loss_a_store_that_contradicts_itself_is_refused) {
  die_with_a_row(TableId::kOutboxId, "an id of no row");
  ASSERT_TRUE(open());  // that alone stops nobody: fsck would name it
  die_with_a_row(TableId::kOutboxId, "another");
  pretend_another_boot();
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kCorrupt);
  EXPECT_TRUE(has(opened.error().detail, "backup")) << opened.error().detail;
  EXPECT_TRUE(has_mark());  // and again, until somebody has looked
}

TEST_F(StoreRelaxedTest, sync_mode_ends_what_relaxed_mode_left_open) {
  die_with_a_row(TableId::kInboxKey, "key");
  parts_.options.durability = Durability::kSync;
  ASSERT_TRUE(open());
  EXPECT_FALSE(has_mark());
}

TEST_F(StoreRelaxedTest, a_commit_waits_a_second_for_its_flush) {
  auto opened = open();
  ASSERT_TRUE(opened);
  Store& store = **opened;
  ASSERT_TRUE(store.sync_if_due(1));
  ASSERT_TRUE(store.sync_if_due(1 + kRelaxedFlushMs));
  EXPECT_EQ(store.sync_deadline(), UINT64_MAX);
  MetaRow row;
  store.batch().put(TableId::kMeta, text_key("a").bytes(), row);
  ASSERT_EQ(store.commit(), CommitResult::kCommitted);
  ASSERT_TRUE(store.sync_if_due(5'000));
  EXPECT_EQ(store.sync_deadline(), 5'000 + kRelaxedFlushMs);
  ASSERT_TRUE(store.sync_if_due(5'999));
  EXPECT_NE(store.sync_deadline(), UINT64_MAX);
  ASSERT_TRUE(store.sync_if_due(6'000));
  EXPECT_EQ(store.sync_deadline(), UINT64_MAX);
}

}  // namespace
}  // namespace cm::store
