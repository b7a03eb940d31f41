// cli_files_test.cc — who may use a file with secrets, by its mode, its owner and its kind.
#include "cli/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <vector>

namespace cm::cli {
namespace {

class PrivateFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cm-files-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/secret";
    std::ofstream(path_) << "kept";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  mode_t mode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_mode & 07777u;
  }
  Result<std::string> read() {
    return read_private_file(path_, 64,
                             [this](std::string_view text) { warnings_.emplace_back(text); });
  }

  std::string directory_, path_;
  std::vector<std::string> warnings_;
};

TEST_F(PrivateFiles, what_is_ours_alone_is_used_in_silence) {
  for (const mode_t mode : {0600, 0400, 0700}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    const auto text = read();
    ASSERT_TRUE(text) << text.error().detail;
    EXPECT_EQ(*text, "kept");
    EXPECT_EQ(mode_of(path_), mode);
  }
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(PrivateFiles, what_others_may_write_is_refused_and_left_as_it_is) {
  for (const mode_t mode : {0620, 0602, 0666, 0622, 0777}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    const auto text = read();
    ASSERT_EQ(text.code(), Err::kUnsafeMode) << mode;
    EXPECT_NE(text.error().detail.find("'chmod 600 " + path_ + "'"), std::string::npos);
    EXPECT_EQ(mode_of(path_), mode);
  }
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(PrivateFiles, what_others_may_read_is_closed_and_said_once) {
  for (const mode_t mode : {0640, 0604, 0644, 0755}) {
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    warnings_.clear();
    ASSERT_TRUE(read());
    ASSERT_EQ(warnings_.size(), 1u);
    EXPECT_NE(warnings_[0].find(path_), std::string::npos);
    EXPECT_EQ(mode_of(path_), 0600u);
    ASSERT_TRUE(read());
    EXPECT_EQ(warnings_.size(), 1u);
  }
}

TEST_F(PrivateFiles, what_another_user_owns_is_refused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ASSERT_EQ(::chown(path_.c_str(), 12'345, 12'345), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  EXPECT_EQ(read().code(), Err::kUnsafeMode);
  ASSERT_EQ(::chown(directory_.c_str(), 12'345, 12'345), 0);
  EXPECT_EQ(make_private_dir(directory_).code(), Err::kUnsafeMode);
}

TEST_F(PrivateFiles, a_pipe_is_refused_without_waiting_and_a_missing_file_is_not_found) {
  std::filesystem::remove(path_);
  EXPECT_EQ(read().code(), Err::kNotFound);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(read().code(), Err::kUnsafeMode);
}

TEST_F(PrivateFiles, folders_follow_the_same_rule) {
  const auto warn = [this](std::string_view text) { warnings_.emplace_back(text); };
  const std::string made = directory_ + "/a/b";
  ASSERT_TRUE(make_private_dir(made, warn));
  EXPECT_EQ(mode_of(made), 0700u);
  EXPECT_TRUE(warnings_.empty());
  ASSERT_EQ(::chmod(made.c_str(), 0755), 0);
  ASSERT_TRUE(make_private_dir(made, warn));
  EXPECT_EQ(mode_of(made), 0700u);
  EXPECT_EQ(warnings_.size(), 1u);
  ASSERT_EQ(::chmod(made.c_str(), 0777), 0);
  const Status refused = make_private_dir(made, warn);
  ASSERT_EQ(refused.code(), Err::kUnsafeMode);
  EXPECT_NE(refused.error().detail.find("'chmod 700 " + made + "'"), std::string::npos);
  EXPECT_EQ(mode_of(made), 0777u);
}

}  // namespace
}  // namespace cm::cli
