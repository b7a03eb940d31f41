// cli_store_version_test.cc — stores of other versions: what each verb of the broker does with
// them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "cli/dispatch.h"
#include "store/store.h"

namespace cm::cli {
namespace {

constexpr int kStoreExit = 10;  // spec/cli.md §2

class StoreVersion : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/cm-newer-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    root_ = path;
    make("new", store::kSchemaVersion + 1);
    make("ours", store::kSchemaVersion);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string data(const std::string& name) const { return root_ + "/" + name; }
  std::string file(const std::string& name) const { return data(name) + "/store/data.mdb"; }

  void make(const std::string& name, std::uint64_t schema) {
    std::filesystem::create_directories(data(name) + "/store");
    for (const std::string& folder : {data(name), data(name) + "/store"}) {
      std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
    }
    store::Options options;
    options.directory = data(name) + "/store";
    options.role = store::Role::kBroker;
    ScratchArena scratch;
    auto opened = store::Store::open(options, scratch);
    ASSERT_TRUE(opened) << opened.error().detail;
    store::MetaRow row;
    row.fixed.number = schema;
    (*opened)->batch().put(store::TableId::kMeta, store::text_key("schema_version").bytes(), row);
    ASSERT_NE((*opened)->commit(), store::CommitResult::kFailed);
  }
  static std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // Status of the verb, and what it says on stderr.
  std::string said(const std::vector<std::string>& words, int status) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run_words(words), status);
    return ::testing::internal::GetCapturedStderr();
  }

  std::string root_;
};

TEST_F(StoreVersion, no_verb_of_this_version_reads_or_changes_it) {
  const std::string before = content(file("new"));
  ASSERT_FALSE(before.empty());
  const std::string copy = root_ + "/copy.cmdb";
  for (const std::vector<std::string>& verb : {std::vector<std::string>{"broker", "fsck"},
                                               {"broker", "compact"},
                                               {"broker", "backup", copy}}) {
    SCOPED_TRACE(verb[1]);
    std::vector<std::string> words = verb;
    words.insert(words.end(), {"--data", data("new")});
    const std::string text = said(words, kStoreExit);
    EXPECT_NE(text.find("written by a newer version"), std::string::npos) << text;
    EXPECT_NE(text.find("run that newer version"), std::string::npos) << text;
    EXPECT_EQ(content(file("new")), before);
  }
  EXPECT_FALSE(std::filesystem::exists(copy));
}

// A backup of the newer version is not put in place of what this version can read.
TEST_F(StoreVersion, its_backup_is_not_restored_over_a_store_of_ours) {
  const std::string before = content(file("ours"));
  const std::string text =
      said({"broker", "restore", file("new"), "--data", data("ours")}, kStoreExit);
  EXPECT_NE(text.find("newer version"), std::string::npos) << text;
  EXPECT_EQ(content(file("ours")), before);
  said({"broker", "fsck", "--data", data("ours")}, 0);
  for (const auto& entry : std::filesystem::directory_iterator(data("ours"))) {
    EXPECT_EQ(entry.path().filename(), "store") << "nothing else is left behind";
  }
}

// After an upgrade the backups of the version before are all there is.
TEST_F(StoreVersion, a_backup_of_an_older_version_is_restored_and_migrated) {
  for (const std::string schema : {"1", "2"}) {
    const std::string backup = std::string(CM_SNAPSHOTS_DIR) + "/" + schema + "/broker/data.mdb";
    const std::string before = content(backup);
    make(schema, store::kSchemaVersion);
    said({"broker", "restore", backup, "--data", data(schema)}, 0);
    EXPECT_EQ(content(backup), before) << "the backup stays what it is";
    store::Options options;
    options.directory = data(schema) + "/store";
    options.role = store::Role::kBroker;
    options.read_only = true;
    ScratchArena scratch;
    auto opened = store::Store::open(options, scratch);
    ASSERT_TRUE(opened) << opened.error().detail;
    store::MeshRow mesh;
    EXPECT_TRUE((*opened)->batch().get(store::TableId::kMesh, store::u32_key(1).bytes(), mesh));
  }
}

TEST_F(StoreVersion, an_older_one_names_who_migrates_it_and_is_not_called_damaged) {
  std::filesystem::copy_file(std::string(CM_SNAPSHOTS_DIR) + "/1/broker/data.mdb", file("ours"),
                             std::filesystem::copy_options::overwrite_existing);
  const std::string before = content(file("ours"));
  const std::string text = said({"broker", "fsck", "--data", data("ours")}, 4);
  EXPECT_NE(text.find("older schema"), std::string::npos) << text;
  EXPECT_NE(text.find("claudemesh broker up"), std::string::npos) << text;
  EXPECT_EQ(content(file("ours")), before);
}

TEST_F(StoreVersion, an_empty_file_is_no_backup) {
  const std::string before = content(file("ours"));
  const std::string empty = root_ + "/empty.cmdb";
  std::ofstream{empty};
  said({"broker", "restore", empty, "--data", data("ours")}, kStoreExit);
  EXPECT_EQ(content(file("ours")), before);
}

// A backup is the last thing to lose: a name that is taken is refused, whatever is there.
TEST_F(StoreVersion, a_backup_overwrites_nothing) {
  const std::string copy = root_ + "/copy.cmdb";
  std::ofstream(copy) << "an older backup";
  const std::string text = said({"broker", "backup", copy, "--data", data("ours")}, 6);
  EXPECT_NE(text.find("is there already"), std::string::npos) << text;
  EXPECT_EQ(content(copy), "an older backup");
}

}  // namespace
}  // namespace cm::cli
