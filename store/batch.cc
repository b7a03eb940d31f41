// batch.cc — reads and writes of one iteration, and cursors.
// Holds:  the write transaction begins at the first write; until then reads see the last commit.
//         Any error of a write makes the batch fail, and later writes are ignored.
// Not:    commit and abort (store.cc).
#include <lmdb.h>

#include <cerrno>

#include "store/pages.h"
#include "store/store.h"

namespace cm::store {
namespace {

MDB_val to_val(Bytes bytes) noexcept {
  return {bytes.size(), const_cast<std::uint8_t*>(bytes.data())};
}
Bytes from_val(const MDB_val& value) noexcept {
  return {static_cast<const std::uint8_t*>(value.mv_data), value.mv_size};
}

}  // namespace

unsigned Batch::dbi(TableId table) const noexcept {
  const unsigned id = dbis_[static_cast<std::size_t>(table)];
  CHECK(id != 0);  // a table of the other role
  return id;
}

void Batch::note(int code) noexcept {
  // Behind a failed put LMDB refuses the rest of the transaction, reads included: that says
  // nothing new, and nothing about the disk.
  if (failed_ && code == MDB_BAD_TXN) return;
  if (!failed_) error_ = code;
  failed_ = true;
  if (code != MDB_MAP_FULL && code != MDB_TXN_FULL && code != ENOSPC && code != EDQUOT) {
    broken_ = true;
  }
}

void Batch::note_corrupt(TableId table) noexcept {
  ++corrupt_;
  corrupt_table_ = table;
}

MDB_txn* Batch::reading() {
  if (write_ != nullptr) return write_;
  if (!reading_) {
    const int code =
        read_ == nullptr ? mdb_txn_begin(env_, nullptr, MDB_RDONLY, &read_) : mdb_txn_renew(read_);
    if (code != 0) {
      note(code);
      return nullptr;
    }
    reading_ = true;
  }
  return read_;
}

MDB_txn* Batch::writing() {
  if (failed_) return nullptr;
  if (write_ == nullptr) {
    if (const int code = mdb_txn_begin(env_, nullptr, 0, &write_); code != 0) {
      write_ = nullptr;
      note(code);
      return nullptr;
    }
  }
  return write_;
}

std::optional<Bytes> Batch::get_raw(TableId table, Bytes key) {
  MDB_txn* const txn = reading();
  if (txn == nullptr || key.empty() || key.size() > kKeyBytesMax) return std::nullopt;
  MDB_val k = to_val(key);
  MDB_val v;
  const int code = mdb_get(txn, dbi(table), &k, &v);
  if (code == 0) return from_val(v);
  if (code != MDB_NOTFOUND) note(code);
  return std::nullopt;
}

Bytes Batch::get_index(TableId table, Bytes key) {
  const std::optional<Bytes> stored = get_raw(table, key);
  if (!stored) return {};
  const Bytes value = decode_index(key, *stored);
  if (value.empty()) note_corrupt(table);
  return value;
}

std::optional<std::uint32_t> Batch::get_number(TableId table, Bytes key) {
  const Bytes value = get_index(table, key);
  if (value.size() != 4) return std::nullopt;
  return load_be32(value.data());
}

void Batch::put_raw(TableId table, Bytes key, Bytes value) {
  CHECK(!key.empty() && key.size() <= kKeyBytesMax);
  MDB_txn* const txn = writing();
  if (txn == nullptr) return;
  MDB_val k = to_val(key);
  MDB_val v = to_val(value);
  if (const int code = mdb_put(txn, dbi(table), &k, &v, 0); code != 0) {
    note(code);
    return;
  }
  ++rows_written_;
}

void Batch::put_index(TableId table, Bytes key, Bytes value) {
  CHECK(info_of(table).is_index);
  std::uint8_t stored[kIndexValueMax + kIndexCheckBytes];
  const std::size_t size = encode_index(key, value, stored);
  put_raw(table, key, {stored, size});
}

void Batch::put_number(TableId table, Bytes key, std::uint32_t number) {
  std::uint8_t value[4];
  store_be32(value, number);
  put_index(table, key, value);
}

bool Batch::erase(TableId table, Bytes key) {
  MDB_txn* const txn = writing();
  if (txn == nullptr) return false;
  MDB_val k = to_val(key);
  const int code = mdb_del(txn, dbi(table), &k, nullptr);
  if (code == 0) {
    ++rows_written_;
    return true;
  }
  if (code != MDB_NOTFOUND) note(code);
  return false;
}

std::uint64_t Batch::table_bytes(TableId table) {
  MDB_stat stat{};
  MDB_txn* const txn = reading();
  if (txn == nullptr) return 0;
  if (const int code = mdb_stat(txn, dbi(table), &stat); code != 0) {
    note(code);
    return 0;
  }
  return (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) *
         std::uint64_t{stat.ms_psize};
}

PageProblem Batch::check_file() { return check_pages(env_); }

Cursor::Cursor(Batch& batch, TableId table) : batch_(&batch), table_(table) {
  MDB_txn* const txn = batch.reading();
  if (txn == nullptr) return;
  if (const int code = mdb_cursor_open(txn, batch.dbi(table), &cursor_); code != 0) {
    cursor_ = nullptr;
    batch.note(code);
  }
}

Cursor::~Cursor() {
  if (cursor_ != nullptr) mdb_cursor_close(cursor_);
}

bool Cursor::move(int operation) {
  if (cursor_ == nullptr) return false;
  MDB_val k = to_val(key_);
  MDB_val v;
  const int code = mdb_cursor_get(cursor_, &k, &v, static_cast<MDB_cursor_op>(operation));
  if (code == 0) {
    key_ = from_val(k);
    value_ = from_val(v);
    return true;
  }
  if (code != MDB_NOTFOUND) batch_->note(code);
  key_ = value_ = {};
  return false;
}

bool Cursor::seek(Bytes from) {
  key_ = from;
  return move(from.empty() ? MDB_FIRST : MDB_SET_RANGE);
}

bool Cursor::next() { return move(MDB_NEXT); }

bool Cursor::seek_before(Bytes before) {
  if (before.empty()) return move(MDB_LAST);
  key_ = before;
  return move(MDB_SET_RANGE) ? move(MDB_PREV) : move(MDB_LAST);
}

bool Cursor::previous() { return move(MDB_PREV); }

void Cursor::note_corrupt() noexcept { batch_->note_corrupt(table_); }

}  // namespace cm::store
