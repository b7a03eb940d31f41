// text_index.h — full-text search in memory: SQLite's FTS5 with English stemming.
// Owns:   TextIndex, an in-memory database with one table.
// Holds:  it is a cache of rows that are elsewhere: no file, no sync, rebuilt when asked for after
//         a start or an abandoned iteration. Every term of a query must match.
// Why:    a well-kept library instead of own code; in memory it can not slow the loop by a flush.
// Limits: best kResultsMax results.
// Not:    the rows themselves (memory.cc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace cm::broker {

class TextIndex {
 public:
  static constexpr int kResultsMax = 20;

  TextIndex() = default;
  ~TextIndex();
  TextIndex(const TextIndex&) = delete;
  TextIndex& operator=(const TextIndex&) = delete;

  // False when the library refused; the index is empty then and the next call tries again.
  bool add(std::uint32_t scope, std::string_view id, std::string_view text, std::string_view tags);
  bool remove(std::uint32_t scope, std::string_view id);
  // Ids, best first. Words of `query` are separated by anything that is no letter or digit.
  bool search(std::uint32_t scope, std::string_view query, std::vector<std::string>& ids);
  void clear() noexcept;

 private:
  bool open();
  sqlite3_stmt* prepared(sqlite3_stmt*& statement, const char* sql);

  sqlite3* database_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
  sqlite3_stmt* delete_ = nullptr;
  sqlite3_stmt* search_ = nullptr;
};

}  // namespace cm::broker
