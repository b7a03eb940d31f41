// store_pages_test.cc — damage below the rows: meta pages, trees, and a creation that was cut off.
// Why:    LMDB trusts its pages, and no checksum of a row tells that other rows are gone. Every
// byte
//         of whole stores is tried by tests/faults/bit_rot.cc; these are the cases by name.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "store/fsck.h"
#include "store/marks.h"
#include "store/pages.h"
#include "store/store.h"

namespace cm::store {
namespace {

// Within a meta page: the root of the tree of tables, the transaction's number.
constexpr std::size_t kRootOffset = 128, kTxnOffset = 144;

class StorePages : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/cm-pages-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    options_.directory = path;
    options_.role = Role::kDaemon;
    options_.bound_bytes = 64 << 20;
    options_.durability = Durability::kRelaxed;
    file_ = options_.directory + "/data.mdb";
  }
  void TearDown() override { std::filesystem::remove_all(options_.directory); }

  Result<std::unique_ptr<Store>> open() { return Store::open(options_, scratch_); }
  // `count` known peers, one a commit.
  void fill(std::uint32_t count) {
    auto store = open();
    ASSERT_TRUE(store);
    for (std::uint32_t number = 0; number < count; ++number) {
      KnownPeerRow row;
      row.text[kKnownPeerName] = "somebody";
      (*store)->batch().put(TableId::kKnownPeer, key(number).bytes(), row);
      ASSERT_EQ((*store)->commit(), CommitResult::kCommitted);
    }
  }
  static Key key(std::uint32_t number) { return Key().add("peer").add_u32(number); }
  std::vector<std::uint8_t> bytes() const {
    std::vector<std::uint8_t> all(std::filesystem::file_size(file_));
    const int fd = ::open(file_.c_str(), O_RDONLY);
    EXPECT_EQ(::pread(fd, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    ::close(fd);
    return all;
  }
  void write(std::size_t offset, Bytes what) const {
    const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT, 0600);
    EXPECT_EQ(::pwrite(fd, what.data(), what.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(what.size()));
    ::close(fd);
  }
  void flip(std::size_t offset, std::uint8_t bits) const {
    const std::uint8_t changed = static_cast<std::uint8_t>(bytes()[offset] ^ bits);
    write(offset, {&changed, 1});
  }
  std::size_t newest_meta() const {
    const auto all = bytes();
    const auto txn = [&](std::size_t page) {
      return load_le<std::uint64_t>(all.data() + page * kPageBytes + kTxnOffset);
    };
    return txn(1) > txn(0) ? 1 : 0;
  }
  // Where this text is, in a page of this kind; the last place of several.
  std::size_t find(std::string_view text) const {
    const auto all = bytes();
    const auto at = std::find_end(all.begin(), all.end(), text.begin(), text.end());
    EXPECT_NE(at, all.end());
    return static_cast<std::size_t>(at - all.begin());
  }
  std::uint64_t problems(Store& store) {
    return fsck(store.batch(), options_.role, [](std::string_view, std::string_view, Bytes) {})
        .problems;
  }

  Options options_;
  std::string file_;
  ScratchArena scratch_;
};

TEST_F(StorePages, a_flipped_bit_does_not_bring_the_commit_before_back) {
  fill(5);
  flip(newest_meta() * kPageBytes + kTxnOffset, 4);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kCorrupt);
}

TEST_F(StorePages, a_table_whose_name_was_damaged_is_not_made_anew_and_empty) {
  fill(5);
  const auto all = bytes();
  const auto root = load_le<std::uint64_t>(all.data() + newest_meta() * kPageBytes + kRootOffset);
  const auto page = all.begin() + static_cast<std::ptrdiff_t>(root * kPageBytes);
  const std::string_view name = "known_peer";
  const auto at = std::search(page, page + kPageBytes, name.begin(), name.end());
  ASSERT_NE(at, page + kPageBytes);
  flip(static_cast<std::size_t>(at - all.begin()), 1);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kCorrupt);
}

TEST_F(StorePages, a_row_that_its_page_no_longer_names_is_missed) {
  fill(5);
  const std::size_t page = find("somebody") / kPageBytes * kPageBytes;
  const std::uint16_t lower = load_le<std::uint16_t>(bytes().data() + page + 12);
  std::uint8_t fewer[2];
  store_le(fewer, static_cast<std::uint16_t>(lower - 2));
  write(page + 12, fewer);
  EXPECT_FALSE(open());
}

TEST_F(StorePages, fsck_reports_a_page_that_it_cannot_read) {
  fill(200);
  auto store = open();
  ASSERT_TRUE(store);
  EXPECT_EQ(problems(**store), 0u);
  flip(find("somebody") / kPageBytes * kPageBytes + 10, 2);  // no leaf any more
  EXPECT_GT(problems(**store), 0u);
}

TEST_F(StorePages, a_damaged_row_is_for_fsck_and_refuses_no_start) {
  fill(5);
  flip(find("somebody"), 1);
  auto store = open();
  ASSERT_TRUE(store);
  EXPECT_EQ(problems(**store), 1u);
}

TEST_F(StorePages, a_store_whose_creation_was_cut_off_begins_anew) {
  { ASSERT_TRUE(open()); }
  const auto whole = bytes();
  for (const std::size_t kept :
       {std::size_t{1}, std::size_t{512}, std::size_t{4096}, std::size_t{4096 + 512}}) {
    for (const std::size_t length : {kept, std::size_t{2 * kPageBytes}}) {
      std::filesystem::remove(file_);
      clear_made_mark(options_.directory);
      std::array<std::uint8_t, 2 * kPageBytes> cut{};
      std::copy_n(whole.begin(), kept, cut.begin());
      for (const std::size_t page : {0u, 1u}) {
        store_le(cut.data() + page * kPageBytes + kTxnOffset, std::uint64_t{0});
      }
      write(0, Bytes(cut).first(length));
      auto store = open();
      ASSERT_TRUE(store) << kept << " of " << length;
      EXPECT_EQ(problems(**store), 0u);
    }
  }
}

TEST_F(StorePages, a_store_that_lost_both_meta_pages_is_not_taken_for_a_new_one) {
  fill(5);
  const std::array<std::uint8_t, 2 * kPageBytes> nothing{};
  write(0, nothing);
  const auto size = std::filesystem::file_size(file_);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kCorrupt);
  EXPECT_EQ(std::filesystem::file_size(file_), size);
}

TEST_F(StorePages, a_file_that_was_cut_short_is_refused) {
  fill(200);
  std::filesystem::resize_file(file_, std::filesystem::file_size(file_) / 2);
  const auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.code(), Err::kCorrupt);
}

TEST_F(StorePages, a_file_that_was_emptied_is_not_taken_for_a_new_one) {
  fill(5);
  for (const std::uintmax_t kept : {0u, 1u, 100u, 4096u, 8192u}) {
    std::filesystem::resize_file(file_, kept);
    for (const bool read_only : {true, false}) {
      options_.read_only = read_only;
      const auto opened = open();
      ASSERT_FALSE(opened) << kept;
      EXPECT_EQ(opened.code(), Err::kCorrupt) << kept;
      EXPECT_EQ(std::filesystem::file_size(file_), kept);
    }
  }
  std::filesystem::remove(file_);
  EXPECT_EQ(open().code(), Err::kCorrupt);
  clear_made_mark(options_.directory);  // as who puts the file away does
  EXPECT_TRUE(open());
}

TEST_F(StorePages, a_store_that_does_not_exist_yet_is_no_damaged_one) {
  options_.read_only = true;
  EXPECT_EQ(open().code(), Err::kNotFound);
}

TEST_F(StorePages, a_damaged_meta_page_costs_the_last_commit_at_most) {
  constexpr std::uint32_t kRows = 40;
  fill(kRows);
  const auto whole = bytes();
  std::uint32_t mended = 0;
  for (std::size_t offset = 0; offset < 2 * kPageBytes; ++offset) {
    if (offset % kPageBytes > kTxnOffset + 8) continue;
    for (const unsigned bits : {1u, 0x80u, 0xffu}) {
      write(0, whole);
      flip(offset, static_cast<std::uint8_t>(bits));
      if (open()) continue;  // a field that nobody reads
      EXPECT_EQ(mend_metas(file_, false), Mend::kMended) << offset;
      ASSERT_FALSE(open()) << "it was only asked";
      ASSERT_EQ(mend_metas(file_, true), Mend::kMended) << offset;
      auto store = open();
      ASSERT_TRUE(store) << offset << ' ' << bits << ": " << store.error().detail;
      EXPECT_EQ(problems(**store), 0u) << offset;
      for (std::uint32_t number = 0; number + 1 < kRows; ++number) {
        ASSERT_TRUE((*store)->batch().get_raw(TableId::kKnownPeer, key(number).bytes())) << number;
      }
      ++mended;
    }
  }
  EXPECT_GT(mended, 100u);
  write(0, whole);
  EXPECT_EQ(mend_metas(file_, true), Mend::kSound);
}

TEST_F(StorePages, what_neither_meta_page_leads_to_is_left_as_it_is) {
  fill(5);
  const std::array<std::uint8_t, 2 * kPageBytes> nothing{};
  write(0, nothing);
  const auto before = bytes();
  EXPECT_EQ(mend_metas(file_, true), Mend::kHopeless);
  EXPECT_EQ(bytes(), before);
}

}  // namespace
}  // namespace cm::store
