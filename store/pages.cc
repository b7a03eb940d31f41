// pages.cc — the walk over meta pages, trees and the free list, by offsets into a mapped file.
// Holds:  every offset and count is checked before it is used. The map is of the snapshot that a
//         read transaction holds, so that a running owner may go on writing other pages.
#include "store/pages.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"
#include "store/schema.h"

namespace cm::store {
namespace {

using Pgno = std::uint64_t;

constexpr std::size_t kHeadBytes = 16;  // of a page: number, pad, flags, lower and upper bound
constexpr std::size_t kNodeBytes = 8;   // of a node: size low, size high, flags, key size
constexpr std::size_t kDbBytes = 48;
constexpr std::size_t kTxnOffset = kHeadBytes + 32 + 2 * kDbBytes;  // of a meta page
constexpr std::uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4, kMeta = 8;
constexpr std::uint16_t kBigData = 1, kSubTree = 2;
constexpr Pgno kNoPage = ~Pgno{0};
constexpr unsigned kDepthMax = 32;  // LMDB's own limit
constexpr std::uint32_t kMagic = 0xBEEFC0DE;
constexpr std::uint32_t kFormat = 1;
constexpr std::uint16_t kIntegerKeys = 8;  // the free list's only flag

std::uint16_t u16(const std::uint8_t* at) noexcept { return load_le<std::uint16_t>(at); }
std::uint64_t u64(const std::uint8_t* at) noexcept { return load_le<std::uint64_t>(at); }

// One tree, as its meta page or the main tree describes it.
struct Db {
  std::uint32_t pad;
  std::uint16_t flags, depth;
  std::uint64_t branches, leaves, overflows, entries;
  Pgno root;
};

Db db_at(const std::uint8_t* at) noexcept {
  return {load_le<std::uint32_t>(at),
          u16(at + 4),
          u16(at + 6),
          u64(at + 8),
          u64(at + 16),
          u64(at + 24),
          u64(at + 32),
          u64(at + 40)};
}

struct Meta {
  const char* problem = nullptr;
  Db free_list{}, main{};
  Pgno last = 0;
  std::uint64_t txn = 0;
};

Meta meta_at(const std::uint8_t* page, Pgno number) noexcept {
  const std::uint8_t* const at = page + kHeadBytes;
  Meta meta;
  meta.free_list = db_at(at + 24);
  meta.main = db_at(at + 24 + kDbBytes);
  meta.last = u64(at + 24 + 2 * kDbBytes);
  meta.txn = u64(page + kTxnOffset);
  if (u64(page) != number || u16(page + 10) != kMeta) meta.problem = "no meta page";
  if (load_le<std::uint32_t>(at) != kMagic || load_le<std::uint32_t>(at + 4) != kFormat) {
    meta.problem = "no store of this format";
  } else if (meta.free_list.pad != kPageBytes || meta.free_list.flags != kIntegerKeys ||
             meta.main.flags != 0 || meta.last < number) {
    meta.problem = "the meta page contradicts itself";
  }
  return meta;
}

using TwoPages = std::array<std::uint8_t, 2 * kPageBytes>;

PageProblem judge_metas(const TwoPages& bytes) noexcept {
  std::array<Meta, 2> metas;
  for (Pgno number = 0; number < 2; ++number) {
    metas[number] = meta_at(bytes.data() + number * kPageBytes, number);
    if (metas[number].problem != nullptr) return {metas[number].problem, number};
  }
  const std::uint64_t even = metas[0].txn, odd = metas[1].txn;
  if (even == 0 && odd == 0) {
    // The first of equals is taken; the second may be torn by the crash that cut off its commit.
    if (metas[0].main.root != kNoPage || metas[0].free_list.root != kNoPage) {
      return {"a tree before the first commit", 0};
    }
    return {};
  }
  if (even % 2 != 0 || odd % 2 != 1 || std::max(even, odd) - std::min(even, odd) != 1) {
    return {"the numbers of the last two commits do not follow one another", even > odd ? 1u : 0u};
  }
  return {};
}

class Walk {
 public:
  Walk(Bytes file, const Meta& meta)
      : file_(file), last_(meta.last), used_(std::min(meta.last + 1, file.size() / kPageBytes)) {
    if (used_.size() > 1) used_[0] = used_[1] = true;
  }

  PageProblem run(const Meta& meta) {
    tree(meta.main, Kind::kMain);
    tree(meta.free_list, Kind::kFree);
    for (const Bytes list : free_lists_) free_pages(list);
    if (!problem_ && taken_ + 1 != last_) refuse("pages are neither in use nor free", last_);
    return problem_;
  }

  // The newest transaction that freed a page: nearly each one does. 0: none.
  std::uint64_t newest_free() const noexcept { return newest_free_; }

 private:
  enum class Kind { kMain, kFree, kTable };
  struct Counts {
    std::uint64_t branches = 0, leaves = 0, overflows = 0, entries = 0;
  };

  bool refuse(const char* what, Pgno page) {
    if (!problem_) problem_ = {what, page};
    return false;
  }

  // Takes `count` pages for one use.
  bool take(Pgno first, std::uint64_t count) {
    if (first < 2 || first > last_ || count > last_ + 1 - first) {
      return refuse("a page number is out of range", first);
    }
    if (first + count > used_.size()) return refuse("a page is behind the end of the file", first);
    taken_ += count;
    for (Pgno page = first; page < first + count; ++page) {
      if (used_[page]) return refuse("a page has two uses", page);
      used_[page] = true;
    }
    return true;
  }

  const std::uint8_t* page_at(Pgno page) const noexcept { return file_.data() + page * kPageBytes; }

  void tree(const Db& db, Kind kind) {
    if (problem_) return;
    if (db.root == kNoPage) {
      if (db.depth != 0 || db.entries != 0) refuse("an empty tree has entries", 0);
      return;
    }
    if (db.depth == 0 || db.depth > kDepthMax) return void(refuse("a tree's depth", db.root));
    Counts counts;
    if (!node_page(db.root, db.depth, kind, {}, {}, counts)) return;
    if (counts.branches != db.branches || counts.leaves != db.leaves ||
        counts.overflows != db.overflows || counts.entries != db.entries) {
      refuse("a tree does not hold what its root promises", db.root);
    }
  }

  static bool less(Bytes left, Bytes right, Kind kind) noexcept {
    if (kind == Kind::kFree) return u64(left.data()) < u64(right.data());
    return std::lexicographical_compare(left.begin(), left.end(), right.begin(), right.end());
  }

  // A page of a tree, `level` pages above the ground. Its keys are not below `from` (unless that
  // is empty) and below `to` (unless that is empty).
  bool node_page(Pgno number, unsigned level, Kind kind, Bytes from, Bytes to, Counts& counts) {
    if (!take(number, 1)) return false;
    const std::uint8_t* const page = page_at(number);
    const bool is_leaf = level == 1;
    const std::size_t lower = u16(page + 12), upper = u16(page + 14);
    if (u64(page) != number || u16(page + 10) != (is_leaf ? kLeaf : kBranch)) {
      return refuse("a page is not the one that was expected", number);
    }
    if (lower <= kHeadBytes || lower % 2 != 0 || lower > upper || upper > kPageBytes) {
      return refuse("a page's bounds", number);
    }
    const std::size_t keys = (lower - kHeadBytes) / 2;
    ++(is_leaf ? counts.leaves : counts.branches);
    std::size_t room = kPageBytes - upper;
    Bytes previous = from;
    for (std::size_t index = 0; index < keys; ++index) {
      const std::size_t offset = u16(page + kHeadBytes + 2 * index);
      if (offset < upper || offset + kNodeBytes > kPageBytes) {
        return refuse("a node is outside of its page", number);
      }
      const std::uint8_t* const node = page + offset;
      const std::size_t key_size = u16(node + 6);
      const bool is_big = is_leaf && (u16(node + 4) & kBigData) != 0;
      const std::size_t data = u16(node) | std::size_t{u16(node + 2)} << 16;
      const std::size_t stored = !is_leaf ? 0 : is_big ? sizeof(Pgno) : data;
      std::size_t size = kNodeBytes + key_size + stored;
      size += size % 2;
      if (size > room || offset + size > kPageBytes) return refuse("a node's size", number);
      room -= size;
      const Bytes key{node + kNodeBytes, key_size};
      const bool has_key = is_leaf || index != 0;  // the first key of a branch is not looked at
      if (has_key) {
        const bool fits = kind == Kind::kFree ? key_size == sizeof(std::uint64_t)
                                              : key_size > 0 && key_size <= kKeyBytesMax;
        if (!fits) return refuse("a key's size", number);
        const bool first = index == 0 || (!is_leaf && index == 1);
        const bool above =
            previous.empty() || (first ? !less(key, previous, kind) : less(previous, key, kind));
        if (!above || (!to.empty() && !less(key, to, kind))) {
          return refuse("keys are not in order", number);
        }
        previous = key;
      }
      if (is_leaf) {
        ++counts.entries;
        if (!leaf_node(number, node, key, data, is_big, kind, counts)) return false;
        continue;
      }
      const Pgno child = u16(node) | Pgno{u16(node + 2)} << 16 | Pgno{u16(node + 4)} << 32;
      Bytes next = to;
      if (index + 1 < keys && !key_of(page, index + 1, kind, next)) {
        return refuse("a node is outside of its page", number);
      }
      if (!node_page(child, level - 1, kind, has_key ? key : from, next, counts)) return false;
    }
    return room == 0 || refuse("a page's nodes do not fill it", number);
  }

  static bool key_of(const std::uint8_t* page, std::size_t index, Kind kind, Bytes& key) noexcept {
    const std::size_t offset = u16(page + kHeadBytes + 2 * index);
    if (offset + kNodeBytes > kPageBytes) return false;
    const std::size_t size = u16(page + offset + 6);
    if (offset + kNodeBytes + size > kPageBytes) return false;
    key = {page + offset + kNodeBytes, size};
    return kind != Kind::kFree || size == sizeof(std::uint64_t);
  }

  bool leaf_node(Pgno number, const std::uint8_t* node, Bytes key, std::size_t size, bool is_big,
                 Kind kind, Counts& counts) {
    const std::uint16_t flags = u16(node + 4);
    const std::uint8_t* data = key.data() + key.size();
    if (kind == Kind::kMain) {
      if (flags != kSubTree || size != kDbBytes) return refuse("a table's description", number);
      const Db db = db_at(data);
      if (db.flags != 0 || db.pad != 0 || !is_table(as_text(key))) {
        return refuse("a table that nobody made", number);
      }
      tree(db, Kind::kTable);
      return !problem_;
    }
    if ((flags & ~kBigData) != 0) return refuse("a node's flags", number);
    if (is_big) {
      const Pgno first = u64(data);
      const std::uint64_t needed = (kHeadBytes - 1 + size) / kPageBytes + 1;
      if (!take(first, needed)) return false;
      const std::uint8_t* const head = page_at(first);
      const auto count = load_le<std::uint32_t>(head + 12);
      if (u64(head) != first || u16(head + 10) != kOverflow || count < needed) {
        return refuse("a page is not the one that was expected", first);
      }
      if (count > needed && !take(first + needed, count - needed)) return false;
      counts.overflows += count;
      data = head + kHeadBytes;
    }
    if (kind == Kind::kFree) {
      free_lists_.push_back({data, size});
      newest_free_ = std::max(newest_free_, u64(key.data()));
    }
    return true;
  }

  static bool is_table(std::string_view name) noexcept {
    for (std::size_t index = 0; index < kTableCount; ++index) {
      if (info_of(static_cast<TableId>(index)).name == name) return true;
    }
    return false;
  }

  // A count, and so many page numbers, the highest first.
  void free_pages(Bytes list) {
    const std::size_t room = list.size() / sizeof(Pgno);
    const std::uint64_t count = room == 0 ? 0 : u64(list.data());
    if (room == 0 || count >= room) return void(refuse("a list of free pages", 0));
    for (std::size_t index = 1; index <= count && !problem_; ++index) {
      const Pgno page = u64(list.data() + index * sizeof(Pgno));
      // What was freed without ever being written may be behind the end of the file.
      if (page >= used_.size() && page <= last_) {
        ++taken_;
        continue;
      }
      take(page, 1);
    }
  }

  Bytes file_;
  Pgno last_;
  std::vector<bool> used_;
  std::uint64_t taken_ = 0;
  std::uint64_t newest_free_ = 0;
  std::vector<Bytes> free_lists_;
  PageProblem problem_;
};

// A running owner writes a meta page at each commit: what was read is then not what is.
constexpr int kTries = 20;

bool read_metas(int fd, TwoPages& bytes) noexcept {
  return ::pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
}

PageProblem walk(int fd, std::size_t size, const Meta& meta) {
  void* const map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return {"cannot be mapped", 0};
  const PageProblem problem = Walk({static_cast<const std::uint8_t*>(map), size}, meta).run(meta);
  ::munmap(map, size);
  return problem;
}

}  // namespace

PageProblem check_metas(const std::string& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return errno == ENOENT ? PageProblem{} : PageProblem{"cannot be read", 0};
  struct stat info {};
  PageProblem problem;
  const bool empty = ::fstat(fd, &info) == 0 && info.st_size == 0;
  for (int attempt = 0; !empty && attempt < kTries; ++attempt) {
    TwoPages bytes;
    problem = read_metas(fd, bytes) ? judge_metas(bytes) : PageProblem{"the file is too short", 0};
    if (!problem) break;
  }
  ::close(fd);
  return problem;
}

PageProblem check_pages(MDB_env* env) {
  mdb_filehandle_t fd = -1;
  if (mdb_env_get_fd(env, &fd) != 0) return {"cannot be read", 0};
  PageProblem problem;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    MDB_txn* snapshot = nullptr;
    if (mdb_txn_begin(env, nullptr, MDB_RDONLY, &snapshot) != 0) return {"cannot be read", 0};
    const std::uint64_t txn = mdb_txn_id(snapshot);
    const Pgno which = txn % 2;
    TwoPages bytes;
    struct stat info {};
    const bool readable = read_metas(fd, bytes) && ::fstat(fd, &info) == 0;
    const Meta meta = meta_at(bytes.data() + which * kPageBytes, which);
    const bool is_it = readable && meta.problem == nullptr && meta.txn == txn;
    problem = is_it ? walk(fd, static_cast<std::size_t>(info.st_size), meta)
                    : PageProblem{"the snapshot has no meta page", which};
    mdb_txn_abort(snapshot);
    if (is_it) break;
  }
  return problem;
}

int forget_unfinished(const std::string& file) noexcept {
  const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return errno == ENOENT ? 0 : errno;
  struct stat info {};
  int code = ::fstat(fd, &info) == 0 ? 0 : errno;
  TwoPages bytes{};  // what the file does not have is zero
  if (code == 0 && info.st_size > 0 && info.st_size <= 2 * kPageBytes &&
      ::pread(fd, bytes.data(), bytes.size(), 0) >= 0) {
    const bool no_commit =
        meta_at(bytes.data(), 0).txn == 0 && meta_at(bytes.data() + kPageBytes, 1).txn == 0;
    const bool is_cut = info.st_size < 2 * kPageBytes || judge_metas(bytes);
    if (no_commit && is_cut && ::ftruncate(fd, 0) != 0) code = errno;
  }
  ::close(fd);
  return code;
}

namespace {

struct Candidate {
  Meta meta;
  std::uint64_t age = 0;  // the newest transaction that it shows signs of
  bool whole = false;
};

Candidate candidate_at(Bytes file, Pgno number) {
  Candidate found;
  found.meta = meta_at(file.data() + number * kPageBytes, number);
  if (found.meta.problem != nullptr) return found;
  Walk walk(file, found.meta);
  found.whole = !walk.run(found.meta) && found.meta.main.root != kNoPage;
  found.age = walk.newest_free();
  return found;
}

// Both pages lead to the commit of page `from`, as if it had been made twice.
TwoPages metas_from(Bytes file, Pgno from, std::uint64_t txn) {
  TwoPages both;
  for (const std::uint64_t number : {txn - 1, txn}) {
    std::uint8_t* const page = both.data() + number % 2 * kPageBytes;
    std::copy_n(file.data() + from * kPageBytes, kPageBytes, page);
    store_le(page, number % 2);
    store_le(page + kTxnOffset, number);
  }
  return both;
}

bool write_metas(int fd, const TwoPages& bytes) noexcept {
  return ::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
         ::fsync(fd) == 0;
}

Mend mend(int fd, Bytes file, bool change) {
  const std::array<Candidate, 2> found = {candidate_at(file, 0), candidate_at(file, 1)};
  TwoPages now;
  std::copy_n(file.data(), now.size(), now.data());
  const Pgno claimed = found[0].meta.txn > found[1].meta.txn ? 0 : 1;
  if (!judge_metas(now) && found[claimed].whole) return Mend::kSound;
  if (!found[0].whole && !found[1].whole) return Mend::kHopeless;
  // Of two whole ones a number was damaged: what they freed tells which is newer.
  const bool is_second = found[1].whole && (!found[0].whole || found[1].age > found[0].age);
  const Candidate& best = found[is_second ? 1 : 0];
  const std::uint64_t txn = std::max<std::uint64_t>({best.meta.txn, best.age, 1});
  if (!change) return Mend::kMended;
  const bool written = write_metas(fd, metas_from(file, is_second ? 1 : 0, txn));
  return written ? Mend::kMended : Mend::kHopeless;
}

}  // namespace

Mend mend_metas(const std::string& file, bool change) {
  const int fd = ::open(file.c_str(), (change ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
  struct stat info {};
  Mend result = Mend::kHopeless;
  if (fd >= 0 && ::fstat(fd, &info) == 0 && info.st_size >= 2 * std::int64_t{kPageBytes}) {
    const auto size = static_cast<std::size_t>(info.st_size);
    void* const map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
      result = mend(fd, {static_cast<const std::uint8_t*>(map), size}, change);
      ::munmap(map, size);
    }
  }
  if (fd >= 0) ::close(fd);
  return result;
}

}  // namespace cm::store
