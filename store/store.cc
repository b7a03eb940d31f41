// store.cc — opening, committing and closing the LMDB environment.
// Holds:  0600 files in a 0700 directory; LOCK is held by flock and never unlinked; after a sync
//         or I/O error nothing is retried (nobody knows what a failed fsync left behind).
// Not:    reads and writes of an iteration (batch.cc), consistency checks (fsck.cc).
#include "store/store.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/base/limits.h"
#include "core/base/pressure.h"
#include "store/fsck.h"
#include "store/marks.h"
#include "store/migrate.h"
#include "store/pages.h"

namespace cm::store {
namespace {

// Pages are walked before they are used in files up to this size; above it that takes too long
// for a start, and fsck does it.
constexpr std::uint64_t kWalkedAtOpenBytes = std::uint64_t{256} << 20;
constexpr std::string_view kMetaSchema = "schema_version";
constexpr std::string_view kMetaRole = "role";

std::string errno_text(std::string_view what, int code) {
  return std::string(what) + ": " + mdb_strerror(code);
}

// What LMDB says of pages that are not what they should be.
bool is_damage(int code) noexcept {
  return code == MDB_NOTFOUND || code == MDB_CORRUPTED || code == MDB_PAGE_NOTFOUND ||
         code == MDB_INVALID || code == MDB_INCOMPATIBLE || code == MDB_PANIC;
}

Error fail_table(const char* name, int code) {
  return fail(is_damage(code) ? Err::kCorrupt : Err::kIo,
              errno_text(std::string("table ") + name, code));
}

bool is_no_space(int code) noexcept {
  return code == MDB_MAP_FULL || code == MDB_TXN_FULL || code == ENOSPC || code == EDQUOT;
}

// LMDB reports a short write, which is how a full disk shows itself, as EIO. Only data pages were
// being written then: the meta page, and with it the last commit, is untouched.
bool is_disk_full(const std::string& directory) noexcept {
  constexpr std::uint64_t kAlmostNothing = 1 << 20;
  struct statvfs info {};
  return ::statvfs(directory.c_str(), &info) == 0 &&
         std::uint64_t{info.f_bavail} * info.f_bsize < kAlmostNothing;
}

// 0 if it is not there. A file that may not be read is no damaged file.
Result<std::uint64_t> size_of_file(const std::string& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT) return std::uint64_t{0};
  struct stat info {};
  const int code = fd >= 0 && ::fstat(fd, &info) == 0 ? 0 : errno;
  if (fd >= 0) ::close(fd);
  if (code != 0) return fail(Err::kIo, errno_text("cannot read " + file, code));
  return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const Options& options, ScratchArena& scratch) {
  std::unique_ptr<Store> store(new Store(options));
  store->batch_.scratch_ = &scratch;
  if (!options.read_only) {
    if (Status locked = store->take_lock(); !locked) return locked.error();
  }
  if (Status opened = store->open_environment(); !opened) return opened.error();
  // A store that is not ours to write is refused before a table of ours is made in it.
  if (Status owner = store->check_owner(); !owner) return owner.error();
  if (Status tables = store->open_tables(); !tables) return tables.error();
  if (Status schema = store->settle_schema(); !schema) return schema.error();
  if (store->missing_table_ != nullptr) {
    return fail(Err::kCorrupt, std::string("table ") + store->missing_table_ + " is missing");
  }
  if (Status marked = store->remember_creation(); !marked) return marked.error();
  if (Status sound = store->check_after_power_loss(); !sound) return sound.error();
  store->measure();
  return store;
}

// A relaxed store whose machine stopped is walked whole before anybody works with it. Then the mark
// is that of this owner.
Status Store::check_after_power_loss() {
  const LastEnd end = last_end(options_.directory);
  lost_power_ = end == LastEnd::kPowerLost;
  if (lost_power_ && !options_.salvage) {
    const FsckReport found = fsck(batch_, options_.role, [](auto, auto, auto) {});
    abort();
    if (found.problems != 0) {
      return fail(Err::kCorrupt, options_.directory + " lost the power in relaxed mode and has " +
                                     std::to_string(found.problems) +
                                     " rows that do not fit: restore a backup");
    }
  }
  if (options_.read_only) return {};
  if (options_.durability == Durability::kRelaxed) {
    if (Status marked = set_relaxed_mark(options_.directory); !marked) return marked;
    is_marked_ = true;
    return {};
  }
  if (end == LastEnd::kClean) return {};
  if (const int code = mdb_env_sync(env_, 1); code != 0) {
    return fail(Err::kIo, errno_text("cannot flush " + options_.directory, code));
  }
  clear_relaxed_mark(options_.directory);
  return {};
}

Store::~Store() {
  abort();
  if (batch_.read_ != nullptr) mdb_txn_abort(batch_.read_);
  if (env_ != nullptr) {
    const bool flushed = !options_.read_only && mdb_env_sync(env_, 1) == 0;
    mdb_env_close(env_);
    if (flushed && is_marked_) clear_relaxed_mark(options_.directory);
  }
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

Status Store::take_lock() {
  if (::mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(Err::kIo, errno_text("cannot create " + options_.directory, errno));
  }
  struct stat info {};
  if (::stat(options_.directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return fail(Err::kIo, options_.directory + " is not a directory");
  }
  if ((info.st_mode & 077) != 0 && ::chmod(options_.directory.c_str(), 0700) != 0) {
    return fail(Err::kIo, options_.directory + " is open to others and cannot be made 0700");
  }
  const std::string path = options_.directory + "/LOCK";
  lock_fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd_ < 0) return fail(Err::kIo, errno_text("cannot open " + path, errno));
  // Who only looks whether it is taken (cli/ensure_daemon.cc) holds it for an instant.
  constexpr int kTries = 10;
  constexpr timespec kPause{0, 20'000'000};
  bool taken = ::flock(lock_fd_, LOCK_EX | LOCK_NB) == 0;
  for (int attempt = 1; !taken && attempt < kTries; ++attempt) {
    ::nanosleep(&kPause, nullptr);
    taken = ::flock(lock_fd_, LOCK_EX | LOCK_NB) == 0;
  }
  if (!taken) {
    return fail(Err::kAlreadyRunning, "the store " + options_.directory + " is in use");
  }
  return {};
}

Status Store::open_environment() {
  const std::string file = options_.directory + "/data.mdb";
  const bool is_made = was_made(options_.directory);
  if (!is_made && !options_.read_only) {
    if (const int code = forget_unfinished(file); code != 0) {
      return fail(Err::kIo, errno_text("cannot begin " + file + " anew", code));
    }
  }
  const auto size = size_of_file(file);
  if (!size) return size.error();
  const bool is_new = *size == 0;
  if (is_new && is_made) {
    return fail(Err::kCorrupt, file + " is empty or gone, and messages were kept in it");
  }
  if (is_new && options_.read_only) return fail(Err::kNotFound, file + " holds no store yet");
  if (Status metas = judged(check_metas(file)); !metas) return metas;
  int code = mdb_env_create(&env_);
  if (code != 0) return fail(Err::kIo, errno_text("LMDB", code));
  const std::uint64_t reserve = options_.reserve_bytes != 0
                                    ? options_.reserve_bytes
                                    : store_reserve_bytes(options_.bound_bytes);
  const std::uint64_t map = options_.bound_bytes + reserve;
  mdb_env_set_maxdbs(env_, kTableCount);
  mdb_env_set_mapsize(env_, (map + kPageBytes - 1) / kPageBytes * kPageBytes);
  unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
  if (options_.read_only) flags |= MDB_RDONLY;
  if (options_.durability == Durability::kRelaxed) flags |= MDB_NOSYNC;
  code = mdb_env_open(env_, options_.directory.c_str(), flags, 0600);
  if (code == MDB_INVALID || code == MDB_CORRUPTED || code == MDB_VERSION_MISMATCH) {
    return fail(Err::kCorrupt, errno_text(options_.directory + " is not a readable store", code));
  }
  if (code != 0) return fail(Err::kIo, errno_text("cannot open " + options_.directory, code));
  forget_dead_readers();
  keep_descriptors_from_children();
  batch_.env_ = env_;
  if (is_new) return settle_new_file();
  return *size <= kWalkedAtOpenBytes ? judged(check_pages(env_)) : Status{};
}

// The first commit is on the disk before anything says so, in relaxed mode as well.
Status Store::remember_creation() {
  if (options_.read_only || was_made(options_.directory)) return {};
  if (options_.durability == Durability::kRelaxed) {
    if (const int code = mdb_env_sync(env_, 1); code != 0) {
      return fail(Err::kIo, errno_text("cannot flush the new store", code));
    }
  }
  return set_made_mark(options_.directory);
}

Status Store::judged(const PageProblem& problem) const {
  if (!problem) return {};
  return fail(Err::kCorrupt, options_.directory + " is damaged: page " +
                                 std::to_string(problem.page) + ": " + problem.what);
}

// What is written later needs the file's beginning, and its name in the directory: neither may be
// lost to a power failure behind an acknowledged commit.
Status Store::settle_new_file() {
  if (options_.read_only || options_.durability == Durability::kRelaxed) return {};
  int code = mdb_env_sync(env_, 1);
  const int directory = ::open(options_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || ::fsync(directory) != 0) code = errno;
  if (directory >= 0) ::close(directory);
  return code == 0 ? Status{} : fail(Err::kIo, errno_text("cannot flush the new store", code));
}

// Readers that died with a killed process hold their slot, of few, and old pages for ever.
void Store::forget_dead_readers() {
  int dead = 0;
  mdb_reader_check(env_, &dead);
}

// LMDB opens its data file once or twice, without O_CLOEXEC, and names one of the descriptors.
void Store::keep_descriptors_from_children() {
  mdb_filehandle_t data = -1;
  struct stat wanted {};
  if (mdb_env_get_fd(env_, &data) != 0 || ::fstat(data, &wanted) != 0) return;
  ::fcntl(data, F_SETFD, FD_CLOEXEC);
  for (const int near : {data + 1, data + 2, data - 1}) {
    struct stat found {};
    if (near < 0 || ::fstat(near, &found) != 0) continue;
    const bool same = found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino;
    if (same) ::fcntl(near, F_SETFD, FD_CLOEXEC);
  }
}

// False: a new store, which has no table yet.
Result<bool> Store::find_meta() {
  MDB_txn* txn = nullptr;
  int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn);
  if (code != 0) return fail(Err::kIo, errno_text("cannot begin", code));
  const auto meta = static_cast<std::size_t>(TableId::kMeta);
  code = mdb_dbi_open(txn, info_of(TableId::kMeta).name, 0, &batch_.dbis_[meta]);
  mdb_txn_commit(txn);  // keeps the handle
  if (code == MDB_NOTFOUND && !options_.read_only) return false;
  if (code != 0) return fail_table(info_of(TableId::kMeta).name, code);
  return true;
}

Status Store::open_tables() {
  MDB_txn* txn = nullptr;
  int code = mdb_txn_begin(env_, nullptr, options_.read_only ? MDB_RDONLY : 0u, &txn);
  if (code != 0) return fail(Err::kIo, errno_text("cannot begin", code));
  for (std::size_t index = 0; index < kTableCount; ++index) {
    const TableInfo& table = info_of(static_cast<TableId>(index));
    if (!(table.roles & (1u << static_cast<unsigned>(options_.role)))) continue;
    code =
        mdb_dbi_open(txn, table.name, options_.read_only ? 0u : MDB_CREATE, &batch_.dbis_[index]);
    // An older schema has fewer tables, which its version tells, if it can be read.
    if (code == MDB_NOTFOUND && options_.read_only &&
        static_cast<TableId>(index) != TableId::kMeta) {
      missing_table_ = table.name;
      continue;
    }
    if (code != 0) {
      mdb_txn_abort(txn);
      return fail_table(table.name, code);
    }
  }
  code = mdb_txn_commit(txn);
  if (code != 0) return fail(Err::kIo, errno_text("cannot create the tables", code));
  return {};
}

// Reads the version and the role. None of them yet: version 0, a new store.
Status Store::check_owner() {
  const Result<bool> has_meta = find_meta();
  if (!has_meta) return has_meta.error();
  if (!*has_meta) return {};
  MetaRow schema;
  MetaRow role;
  const Key schema_key = text_key(kMetaSchema);
  const std::optional<Bytes> stored = batch_.get_raw(TableId::kMeta, schema_key.bytes());
  if (!stored) {
    end_reading();
    if (options_.read_only) return fail(Err::kCorrupt, "the store has no schema version");
    return {};
  }
  const bool has_schema = decode(schema, schema_key.bytes(), *stored);
  const bool has_role = batch_.get(TableId::kMeta, text_key(kMetaRole).bytes(), role);
  end_reading();
  if (!has_schema || !has_role) {
    if (!options_.salvage) {
      return fail(Err::kCorrupt, "the schema version of " + options_.directory + " is damaged");
    }
    salvaged_ = true;
    if (!has_schema) schema.fixed.number = kSchemaVersion;
    if (!has_role) role.fixed.number = static_cast<std::uint64_t>(options_.role);
  }
  schema_ = schema.fixed.number;
  if (schema_ > kSchemaVersion) {
    return fail(Err::kSchemaNewer, options_.directory + " has schema " + std::to_string(schema_) +
                                       ", this version knows " + std::to_string(kSchemaVersion));
  }
  if (role.fixed.number != static_cast<std::uint64_t>(options_.role)) {
    return fail(Err::kInvalidArgument,
                options_.directory + " is the store of the other role (daemon or broker)");
  }
  return {};
}

// Brings what check_owner() found to the current version, one commit a step.
Status Store::settle_schema() {
  if (schema_ == 0) return write_schema(kSchemaVersion);
  if (options_.read_only && schema_ < kSchemaVersion) {
    return fail(Err::kUnavailable,
                options_.directory + " has an older schema; start its owner once");
  }
  if (salvaged_ && !options_.read_only) {
    if (Status written = write_schema(schema_); !written) return written;
  }
  while (schema_ < kSchemaVersion) {
    migrate(batch_, options_.role, static_cast<std::uint32_t>(schema_));
    MetaRow next;
    next.fixed.number = ++schema_;
    batch_.put(TableId::kMeta, text_key(kMetaSchema).bytes(), next);
    if (commit() != CommitResult::kCommitted) {
      return fail(Err::kIo, errno_text("cannot migrate the store", last_error_));
    }
  }
  return {};
}

Status Store::write_schema(std::uint64_t version) {
  MetaRow schema, role;
  schema.fixed.number = version;
  role.fixed.number = static_cast<std::uint64_t>(options_.role);
  batch_.put(TableId::kMeta, text_key(kMetaSchema).bytes(), schema);
  batch_.put(TableId::kMeta, text_key(kMetaRole).bytes(), role);
  if (commit() != CommitResult::kCommitted) {
    return fail(Err::kIo, errno_text("cannot write the schema version", last_error_));
  }
  return {};
}

CommitResult Store::commit() {
  CommitResult result = CommitResult::kNothing;
  if (batch_.write_ != nullptr || batch_.failed_) {
    if (batch_.failed_) return fail_commit(batch_.error_);
    if (fault_ != nullptr) {
      if (const int code = fault_(fault_context_); code != 0) return fail_commit(code);
    }
    MDB_txn* const txn = batch_.write_;
    batch_.write_ = nullptr;
    if (const int code = mdb_txn_commit(txn); code != 0) return fail_commit(code);
    ++commits_;
    unsynced_ = options_.durability == Durability::kRelaxed;
    batch_.rows_written_ = 0;
    measure();
    result = CommitResult::kCommitted;
  }
  end_reading();
  return result;
}

CommitResult Store::fail_commit(int code) {
  if (code == EIO && !batch_.broken_ && is_disk_full(options_.directory)) code = ENOSPC;
  const bool broken = batch_.broken_ || !is_no_space(code);
  last_error_ = code;
  abort();
  return broken ? CommitResult::kBroken : CommitResult::kFailed;
}

void Store::abort() noexcept {
  if (batch_.write_ != nullptr) mdb_txn_abort(batch_.write_);
  batch_.write_ = nullptr;
  batch_.failed_ = false;
  batch_.broken_ = false;
  batch_.error_ = 0;
  batch_.rows_written_ = 0;
  end_reading();
}

void Store::end_reading() noexcept {
  if (batch_.reading_) mdb_txn_reset(batch_.read_);
  batch_.reading_ = false;
}

const char* Store::last_error_text() const noexcept { return mdb_strerror(last_error_); }

Status Store::copy_to(int fd) {
  const int code = mdb_env_copyfd2(env_, fd, MDB_CP_COMPACT);
  if (code != 0) return fail(Err::kIo, errno_text("cannot copy " + options_.directory, code));
  return {};
}

std::uint64_t Store::sync_deadline() const noexcept {
  if (!unsynced_) return UINT64_MAX;
  return unsynced_since_ == UINT64_MAX ? 0 : unsynced_since_ + kRelaxedFlushMs;
}

bool Store::sync_if_due(std::uint64_t mono_ms) {
  if (!unsynced_) return true;
  if (unsynced_since_ == UINT64_MAX) unsynced_since_ = mono_ms;
  if (mono_ms < unsynced_since_ + kRelaxedFlushMs) return true;
  unsynced_ = false;
  unsynced_since_ = UINT64_MAX;
  return mdb_env_sync(env_, 1) == 0;
}

void Store::measure() {
  MDB_envinfo info;
  if (mdb_env_info(env_, &info) != 0) return;
  used_ = (info.me_last_pgno + 1) * std::uint64_t{kPageBytes};
  constexpr std::uint64_t kGrowthBytes = 1 << 20;
  if (used_ >= readers_checked_ + kGrowthBytes) {
    forget_dead_readers();
    readers_checked_ = used_;
  }
  // The free list is walked only when it can change the verdict: its pages are not in use.
  if (used_ * 4 >= options_.bound_bytes * 3) used_ = used_bytes();
  batch_.fill_percent_ = static_cast<std::uint32_t>(used_ * 100 / options_.bound_bytes);
  batch_.admits_ = pressure_of(batch_.fill_percent_) < Pressure::kRefusing;
}

std::uint64_t Store::used_bytes() {
  MDB_envinfo info;
  MDB_txn* txn = nullptr;
  if (mdb_env_info(env_, &info) != 0) return used_;
  const std::uint64_t all = (info.me_last_pgno + 1) * std::uint64_t{kPageBytes};
  if (mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return all;
  constexpr MDB_dbi kFreeList = 0;
  MDB_cursor* cursor = nullptr;
  std::uint64_t free_pages = 0;
  if (mdb_cursor_open(txn, kFreeList, &cursor) == 0) {
    MDB_val key, value;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
      if (value.mv_size >= sizeof(std::size_t)) free_pages += load_le<std::size_t>(value.mv_data);
    }
    mdb_cursor_close(cursor);
  }
  mdb_txn_abort(txn);
  const std::uint64_t free_bytes = free_pages * kPageBytes;
  return free_bytes < all ? all - free_bytes : all;
}

}  // namespace cm::store
