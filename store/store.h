// store.h — the LMDB environment of one role, and the batch in which an iteration changes it.
// Owns:   Store (environment, LOCK, durability), Batch (the cores' access), Cursor.
// Holds:  one process, one writer; the loop alone opens, commits and aborts. A put that fails
//         makes the batch fail as a whole: nothing of it is committed, no caller needs to check.
//         A view lives until the next write to its table, and never beyond the iteration.
// Why:    one transaction an iteration is group commit: under load one flush covers hundreds of
//         messages, alone a message waits for nobody (design/architecture.md).
// Limits: the map is the admission bound plus a reserve for acks, deletes and requeues, because
//         in a full map deletes fail too.
// Not:    meaning of rows; the library's header leaks to nobody.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/arena.h"
#include "core/base/bytes.h"
#include "core/base/result.h"
#include "store/row.h"
#include "store/schema.h"

struct MDB_env;
struct MDB_txn;
struct MDB_cursor;

namespace cm::store {

// sync: a commit survives power loss. relaxed: it survives kill -9 of the process, not power loss,
// after which the store is walked whole at the next open and may be refused (marks.h).
enum class Durability : std::uint8_t { kSync, kRelaxed };

struct Options {
  std::string directory;  // created 0700 if missing
  Role role = Role::kDaemon;
  std::uint64_t bound_bytes = std::uint64_t{8} << 30;
  std::uint64_t reserve_bytes = 0;  // of the map, behind the bound; 0: store_reserve_bytes()
  Durability durability = Durability::kSync;
  bool read_only = false;  // takes no LOCK; a consistent snapshot beside a running owner
  // `daemon recover`: a damaged schema version or role is taken for the current one and, unless
  // read_only, written anew.
  bool salvage = false;
};

enum class CommitResult : std::uint8_t {
  kNothing,    // nothing was written
  kCommitted,  // durable, in the sense of the durability mode
  kFailed,     // map full or no space: nothing was changed, the iteration is to be abandoned
  kBroken,     // sync or I/O error: nobody knows what is on disk; end the process with a report
};

// Of relaxed mode: a commit waits at most so long for its flush.
constexpr std::uint64_t kRelaxedFlushMs = 1'000;

class Batch;
struct PageProblem;

// Walks one table in key order inside an iteration. Closed before the next commit.
class Cursor {
 public:
  Cursor(Batch& batch, TableId table);
  ~Cursor();
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;

  // Positions at the first key >= `from` (an empty key: the first of all). False at the end.
  bool seek(Bytes from);
  bool next();
  // Positions at the last key below `before`, or at the last of all when it is empty.
  bool seek_before(Bytes before);
  bool previous();

  Bytes key() const noexcept { return key_; }
  // The raw value: a row (decode with row.h) or, for an index, the bytes with their check.
  Bytes value() const noexcept { return value_; }
  // Decodes the current row; a damaged one is counted and reported false.
  template <class R>
  bool row(R& row) noexcept {
    if (decode(row, key_, value_)) return true;
    note_corrupt();
    return false;
  }

 private:
  bool move(int operation);
  void note_corrupt() noexcept;

  Batch* batch_;
  TableId table_;
  MDB_cursor* cursor_ = nullptr;
  Bytes key_;
  Bytes value_;
};

class Batch {
 public:
  // --- reads: what this iteration has written so far, else the last commit ---
  std::optional<Bytes> get_raw(TableId table, Bytes key);
  // False when absent. A damaged row counts as absent and is reported by corrupt_count().
  template <class R>
  bool get(TableId table, Bytes key, R& row) {
    const std::optional<Bytes> value = get_raw(table, key);
    if (!value) return false;
    if (decode(row, key, *value)) return true;
    note_corrupt(table);
    return false;
  }
  // The index value, or empty when absent or damaged.
  Bytes get_index(TableId table, Bytes key);
  std::optional<std::uint32_t> get_number(TableId table, Bytes key);

  // --- writes: sticky failure, see failed() ---
  template <class R>
  void put(TableId table, Bytes key, const R& row) {
    put_raw(table, key, encode(row, key, *scratch_));
  }
  void put_index(TableId table, Bytes key, Bytes value);
  void put_number(TableId table, Bytes key, std::uint32_t number);
  // True if the key was there.
  bool erase(TableId table, Bytes key);

  bool failed() const noexcept { return failed_; }
  bool dirty() const noexcept { return write_ != nullptr; }
  std::uint32_t rows_written() const noexcept { return rows_written_; }

  // False from 95 % of the admission bound on (core/base/pressure.h): new work is refused with
  // 507, while acks, deletes and requeues go on in the reserve.
  bool admits() const noexcept { return admits_; }
  // Share of the admission bound that is in use, as of the last commit; may pass 100.
  std::uint32_t fill_percent() const noexcept { return fill_percent_; }
  // Bytes of the pages that a table has.
  std::uint64_t table_bytes(TableId table);
  std::uint64_t corrupt_count() const noexcept { return corrupt_; }
  // Of the last one of them.
  TableId corrupt_table() const noexcept { return corrupt_table_; }
  // The pages of the last commit (pages.h); for fsck.
  PageProblem check_file();

  ScratchArena& scratch() noexcept { return *scratch_; }

 private:
  friend class Store;
  friend class Cursor;
  void put_raw(TableId table, Bytes key, Bytes value);
  MDB_txn* reading();
  MDB_txn* writing();
  void note(int code) noexcept;
  void note_corrupt(TableId table) noexcept;
  unsigned dbi(TableId table) const noexcept;

  MDB_env* env_ = nullptr;
  ScratchArena* scratch_ = nullptr;
  std::array<unsigned, kTableCount> dbis_{};
  MDB_txn* read_ = nullptr;  // renewed at the first read of an iteration, reset at its end
  MDB_txn* write_ = nullptr;
  bool reading_ = false;
  bool failed_ = false;
  bool broken_ = false;
  int error_ = 0;  // first failure of this iteration
  bool admits_ = true;
  std::uint32_t fill_percent_ = 0;
  std::uint32_t rows_written_ = 0;
  std::uint64_t corrupt_ = 0;
  TableId corrupt_table_ = TableId::kMeta;
};

class Store {
 public:
  // Creates or opens. kAlreadyRunning if another process holds LOCK; kSchemaNewer if a newer
  // version wrote it; kCorrupt or kIo with a detail that names path and remedy. Pages that LMDB
  // would trust are checked first (pages.h): all of a file up to 256 MiB, else the meta pages.
  static Result<std::unique_ptr<Store>> open(const Options& options, ScratchArena& scratch);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  Batch& batch() noexcept { return batch_; }

  // Ends the iteration: commits what was written.
  CommitResult commit();
  // Discards what this iteration wrote.
  void abort() noexcept;

  std::uint64_t used_bytes();  // pages in use, free list subtracted: walks the free list
  std::uint64_t used_estimate() const noexcept { return used_; }  // as of the last commit
  std::uint64_t bound_bytes() const noexcept { return options_.bound_bytes; }
  Durability durability() const noexcept { return options_.durability; }
  const Options& options() const noexcept { return options_; }
  bool salvaged() const noexcept { return salvaged_; }  // the schema version or role was damaged
  std::uint64_t commits() const noexcept { return commits_; }
  // errno-like code of the last failed commit, for the log.
  int last_error() const noexcept { return last_error_; }
  const char* last_error_text() const noexcept;

  // Writes a compacted copy of the last commit to `fd`; a running owner goes on meanwhile. The
  // copy is a whole data file of LMDB. kIo, and `fd` holds an unusable part of it.
  Status copy_to(int fd);

  // Relaxed mode: what the kernel holds is flushed at most kRelaxedFlushMs after its commit. The
  // loop wakes by the deadline (UINT64_MAX: nothing to flush) and calls this at the end of each
  // iteration. False: the disk reported an error, as from a commit that is kBroken.
  std::uint64_t sync_deadline() const noexcept;
  bool sync_if_due(std::uint64_t mono_ms);
  // This store was open in relaxed mode when its machine stopped; fsck found nothing wrong.
  bool lost_power() const noexcept { return lost_power_; }

  // For tests and the simulator: called before each commit; a non-zero errno fails it.
  void set_commit_fault(int (*fault)(void* context), void* context) noexcept {
    fault_ = fault;
    fault_context_ = context;
  }

 private:
  explicit Store(const Options& options) : options_(options) {}
  Status take_lock();
  Status open_environment();
  Status judged(const PageProblem& problem) const;
  Status settle_new_file();
  Status remember_creation();
  void forget_dead_readers();
  void keep_descriptors_from_children();
  Result<bool> find_meta();
  Status check_owner();
  Status open_tables();
  Status settle_schema();
  Status check_after_power_loss();
  Status write_schema(std::uint64_t version);
  void end_reading() noexcept;
  void measure();
  CommitResult fail_commit(int code);

  Options options_;
  MDB_env* env_ = nullptr;
  Batch batch_;
  int lock_fd_ = -1;
  std::uint64_t commits_ = 0;
  std::uint64_t used_ = 0;
  std::uint64_t readers_checked_ = 0;  // used_ when dead readers were looked for
  std::uint64_t schema_ = 0;           // the version in the file; 0: a new one
  int last_error_ = 0;
  bool lost_power_ = false;
  bool is_marked_ = false;  // marks.h, by this owner
  bool unsynced_ = false;
  std::uint64_t unsynced_since_ = UINT64_MAX;  // monotonic; not known until the iteration's end
  bool salvaged_ = false;
  const char* missing_table_ = nullptr;  // read_only: there is none, as before its schema
  int (*fault_)(void*) = nullptr;
  void* fault_context_ = nullptr;
};

}  // namespace cm::store
