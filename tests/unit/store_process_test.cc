// store_process_test.cc — one store and several processes: readers that are killed, descriptors.
// Why:    LMDB keeps a slot for each reader in a shared file; a reader that was killed leaves its
//         slot behind, which holds old pages for ever, and 126 of them leave no room.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <string>

#include "tests/unit/core_fixture.h"

namespace cm::store {
namespace {

// A reader in a process of its own, inside a snapshot, killed there.
void read_and_be_killed(const Options& options) {
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Options mine = options;
    mine.read_only = true;
    ScratchArena scratch;
    const auto opened = Store::open(mine, scratch);
    const char good = opened ? 'y' : 'n';
    if (opened) (*opened)->batch().get_raw(TableId::kMesh, u32_key(1).bytes());
    if (::write(ready[1], &good, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char good = 0;
  EXPECT_EQ(::read(ready[0], &good, 1), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  ASSERT_EQ(good, 'y');
}

// Writes and deletes `rounds` times 64 KiB.
void churn(CoreParts& parts, int rounds) {
  const std::string body(64 << 10, 'x');
  for (int round = 0; round < rounds; ++round) {
    MessageRow row;
    row.fixed.mesh_no = 1;
    row.text[kMessageCiphertext] = body;
    const Key key = ulid_key({});
    parts.store->batch().put(TableId::kMessage, key.bytes(), row);
    ASSERT_EQ(parts.store->commit(), CommitResult::kCommitted);
    parts.store->batch().erase(TableId::kMessage, key.bytes());
    ASSERT_EQ(parts.store->commit(), CommitResult::kCommitted);
    parts.scratch.reset();
  }
}

TEST(StoreProcess, a_killed_reader_does_not_hold_old_pages_for_ever) {
  CoreParts parts(Role::kBroker);
  parts.open();
  churn(parts, 4);
  read_and_be_killed(parts.options);
  churn(parts, 1'000);  // 64 MiB; each would be kept
  const auto size = std::filesystem::file_size(parts.options.directory + "/data.mdb");
  EXPECT_LT(size, 8u << 20);
}

TEST(StoreProcess, more_killed_readers_than_there_are_slots_leave_room_for_the_next) {
  CoreParts parts(Role::kBroker);
  parts.open();
  for (int reader = 0; reader < 130; ++reader) {
    ASSERT_NO_FATAL_FAILURE(read_and_be_killed(parts.options)) << reader;
  }
}

TEST(StoreProcess, no_descriptor_of_the_store_reaches_a_program_that_we_start) {
  CoreParts parts(Role::kBroker);
  parts.open();
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(entry, gone);
    if (gone || !target.string().starts_with(parts.options.directory)) continue;
    ++seen;
    const int flags = ::fcntl(std::stoi(entry.path().filename()), F_GETFD);
    EXPECT_NE(flags & FD_CLOEXEC, 0) << target;
  }
  EXPECT_GE(seen, 3);  // data, lock table, LOCK
}

}  // namespace
}  // namespace cm::store
