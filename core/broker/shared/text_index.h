// text_index.h — full-text search in memory: SQLite's FTS5 with English stemming.
// Owns:   TextIndex, an in-memory database of words and of the ids that they lead to.
// Holds:  it is a cache of rows that are elsewhere: no file, no sync. The texts themselves are not
//         in it, nor where in them a word stands. Every word of a query must match.
// Why:    a well-kept library instead of own code; in memory it can not slow the loop by a flush.
//         Without positions each row costs a query the same, however often it repeats a word.
// Limits: words_max() different words a query; SQLite takes about kStepsMax steps for it, which are
//         some 4,000 rows that match, the newest first; best kResultsMax results of those.
// Not:    the rows themselves (memory.cc), which meshes have an index (memory_index.cc).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace cm::broker {

class TextIndex {
 public:
  static constexpr int kResultsMax = 20;
  static constexpr std::size_t kWordsMax = 16;
  static constexpr std::uint32_t kStepsMax = 32'000;

  enum class Found : std::uint8_t { kDone, kTooManyWords, kFailed };

  // Fewer among so many rows that walking the lists of all words would take too long.
  static constexpr std::size_t words_max(std::uint64_t rows) noexcept {
    constexpr std::uint64_t kRowsTimesWords = 800'000;
    const std::uint64_t most = rows == 0 ? kWordsMax : kRowsTimesWords / rows;
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(most, 1, kWordsMax));
  }
  std::size_t words_max() const noexcept { return words_max(rows_); }

  TextIndex();
  ~TextIndex();
  TextIndex(const TextIndex&) = delete;
  TextIndex& operator=(const TextIndex&) = delete;

  // False when the library refused; the index can not be used any more then.
  bool add(std::string_view id, std::string_view text, std::string_view tags);
  // With the very text and tags that were added; true too when the id is unknown.
  bool remove(std::string_view id, std::string_view text, std::string_view tags);
  // What is added between them is written at once. Not nested.
  bool begin();
  bool end();

  // Ids, best first: the shortest texts that hold every word, the newer one of two. Words are what
  // the tokenizer makes of `query`; none give no ids. `cost` grows by what it took, whatever the
  // outcome: about 85,000 a millisecond of a common CPU.
  Found search(std::string_view query, std::vector<std::string>& ids, std::uint64_t& cost);

  // Memory that the database holds.
  std::uint64_t bytes() const noexcept;

 private:
  struct Tokenizer;
  bool open();
  bool find_tokenizer();
  void close() noexcept;
  sqlite3_stmt* prepared(sqlite3_stmt*& statement, const char* sql);
  static bool run(sqlite3_stmt* statement);

  sqlite3* database_ = nullptr;
  std::unique_ptr<Tokenizer> tokenizer_;  // of queries: that of the texts, without stems
  std::uint64_t rows_ = 0;
  sqlite3_stmt* insert_id_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
  sqlite3_stmt* find_id_ = nullptr;
  sqlite3_stmt* delete_id_ = nullptr;
  sqlite3_stmt* delete_ = nullptr;
  sqlite3_stmt* search_ = nullptr;
};

}  // namespace cm::broker
