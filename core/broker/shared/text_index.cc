// text_index.cc — an FTS5 table of words, and a table of the ids behind its rows.
// Holds:  `words` and `ids` have the same rows; a later row has a larger number.
// Source: SQLite's documentation of FTS5: contentless tables, detail=none, custom tokenizers.
#include "core/broker/shared/text_index.h"

#include <sqlite3.h>

namespace cm::broker {
namespace {

constexpr int kStepsBetween = 64;  // calls of the progress handler
// Of Found's cost. What FTS5 does between two rows is in no step: it walks the lists of all words.
constexpr std::uint64_t kCostOfStep = 16;
constexpr std::uint64_t kCostOfRowAndWord = 8;

void bind(sqlite3_stmt* statement, int index, std::string_view text) {
  sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
}

// The words of a query, each once.
struct Words {
  std::size_t most = 0;
  std::vector<std::string> list;
  bool too_many = false;

  static int add(void* self, int, const char* word, int size, int, int) {
    Words& words = *static_cast<Words*>(self);
    std::string text(word, static_cast<std::size_t>(size));
    if (std::find(words.list.begin(), words.list.end(), text) != words.list.end()) return SQLITE_OK;
    if (words.list.size() == words.most) {
      words.too_many = true;
      return SQLITE_ABORT;
    }
    words.list.push_back(std::move(text));
    return SQLITE_OK;
  }
  // Each word quoted: nothing in it is syntax of a query.
  std::string match() const {
    std::string out;
    for (const std::string& word : list) {
      out += '"';
      for (const char c : word) out.append(c == '"' ? 2 : 1, c);
      out += "\" ";
    }
    return out;
  }
};

// Counts what SQLite does while it lives, and ends it beyond kStepsMax.
class Meter {
 public:
  explicit Meter(sqlite3* database) noexcept : database_(database) {
    sqlite3_progress_handler(database_, kStepsBetween, &Meter::passed, this);
  }
  ~Meter() { sqlite3_progress_handler(database_, 0, nullptr, nullptr); }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
  std::uint32_t steps() const noexcept { return steps_; }

 private:
  static int passed(void* self) {
    Meter& meter = *static_cast<Meter*>(self);
    meter.steps_ += kStepsBetween;
    return meter.steps_ > TextIndex::kStepsMax ? 1 : 0;
  }
  sqlite3* database_;
  std::uint32_t steps_ = 0;
};

struct Match {
  std::int64_t length = 0;
  std::string id;
};

// `best` is sorted; of two that are as long, the one that came first stays in front.
void keep_best(std::vector<Match>& best, std::int64_t length, sqlite3_stmt* row) {
  const bool full = best.size() == static_cast<std::size_t>(TextIndex::kResultsMax);
  if (full && best.back().length <= length) return;
  if (full) best.pop_back();
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(row, 0));
  const auto place = std::upper_bound(best.begin(), best.end(), length,
                                      [](std::int64_t a, const Match& b) { return a < b.length; });
  best.insert(place, {length, text == nullptr ? "" : text});
}

}  // namespace

struct TextIndex::Tokenizer {
  fts5_tokenizer calls{};
  Fts5Tokenizer* self = nullptr;
  ~Tokenizer() {
    if (self != nullptr) calls.xDelete(self);
  }
};

TextIndex::TextIndex() = default;
TextIndex::~TextIndex() { close(); }

void TextIndex::close() noexcept {
  for (sqlite3_stmt* statement : {insert_id_, insert_, find_id_, delete_id_, delete_, search_}) {
    sqlite3_finalize(statement);
  }
  insert_id_ = insert_ = find_id_ = delete_id_ = delete_ = search_ = nullptr;
  tokenizer_.reset();
  sqlite3_close(database_);
  database_ = nullptr;
}

bool TextIndex::open() {
  if (database_ != nullptr) return true;
  constexpr int kFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY |
                         SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
  constexpr const char* kSetUp =
      "PRAGMA temp_store=memory;"
      "CREATE TABLE ids(row INTEGER PRIMARY KEY, id TEXT UNIQUE, length INTEGER);"
      "CREATE VIRTUAL TABLE words USING fts5(text, tags, content='', columnsize=0, detail=none,"
      " tokenize='porter unicode61');";
  if (sqlite3_open_v2(":memory:", &database_, kFlags, nullptr) == SQLITE_OK &&
      sqlite3_db_config(database_, SQLITE_DBCONFIG_LOOKASIDE, nullptr, 0, 0) == SQLITE_OK &&
      sqlite3_exec(database_, kSetUp, nullptr, nullptr, nullptr) == SQLITE_OK && find_tokenizer()) {
    return true;
  }
  close();
  return false;
}

bool TextIndex::find_tokenizer() {
  fts5_api* api = nullptr;
  sqlite3_stmt* ask = nullptr;
  if (sqlite3_prepare_v2(database_, "SELECT fts5(?1)", -1, &ask, nullptr) == SQLITE_OK) {
    sqlite3_bind_pointer(ask, 1, &api, "fts5_api_ptr", nullptr);
    sqlite3_step(ask);
  }
  sqlite3_finalize(ask);
  if (api == nullptr) return false;
  tokenizer_ = std::make_unique<Tokenizer>();
  void* context = nullptr;
  return api->xFindTokenizer(api, "unicode61", &context, &tokenizer_->calls) == SQLITE_OK &&
         tokenizer_->calls.xCreate(context, nullptr, 0, &tokenizer_->self) == SQLITE_OK;
}

sqlite3_stmt* TextIndex::prepared(sqlite3_stmt*& statement, const char* sql) {
  if (!open()) return nullptr;
  if (statement == nullptr) {
    sqlite3_prepare_v3(database_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  } else {
    sqlite3_reset(statement);
  }
  return statement;
}

bool TextIndex::run(sqlite3_stmt* statement) {
  const bool done = sqlite3_step(statement) == SQLITE_DONE;
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return done;
}

bool TextIndex::begin() {
  return open() && sqlite3_exec(database_, "BEGIN", nullptr, nullptr, nullptr) == SQLITE_OK;
}
bool TextIndex::end() {
  return sqlite3_exec(database_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK;
}

bool TextIndex::add(std::string_view id, std::string_view text, std::string_view tags) {
  sqlite3_stmt* row = prepared(insert_id_, "INSERT INTO ids(id, length) VALUES(?1, ?2)");
  sqlite3_stmt* words =
      prepared(insert_, "INSERT INTO words(rowid, text, tags) VALUES(?1, ?2, ?3)");
  if (row == nullptr || words == nullptr) return false;
  bind(row, 1, id);
  sqlite3_bind_int64(row, 2, static_cast<std::int64_t>(text.size()));
  if (!run(row)) return false;
  ++rows_;
  sqlite3_bind_int64(words, 1, sqlite3_last_insert_rowid(database_));
  bind(words, 2, text);
  bind(words, 3, tags);
  return run(words);
}

bool TextIndex::remove(std::string_view id, std::string_view text, std::string_view tags) {
  sqlite3_stmt* find = prepared(find_id_, "SELECT row FROM ids WHERE id = ?1");
  sqlite3_stmt* row = prepared(delete_id_, "DELETE FROM ids WHERE row = ?1");
  sqlite3_stmt* words =
      prepared(delete_, "INSERT INTO words(words, rowid, text, tags) VALUES('delete', ?1, ?2, ?3)");
  if (find == nullptr || row == nullptr || words == nullptr) return false;
  bind(find, 1, id);
  const bool known = sqlite3_step(find) == SQLITE_ROW;
  const std::int64_t number = known ? sqlite3_column_int64(find, 0) : 0;
  sqlite3_reset(find);
  if (!known) return true;
  --rows_;
  sqlite3_bind_int64(row, 1, number);
  sqlite3_bind_int64(words, 1, number);
  bind(words, 2, text);
  bind(words, 3, tags);
  const bool gone = run(words);
  return run(row) && gone;
}

TextIndex::Found TextIndex::search(std::string_view query, std::vector<std::string>& ids,
                                   std::uint64_t& cost) {
  sqlite3_stmt* rows = prepared(search_,
                                "SELECT ids.id, ids.length FROM words CROSS JOIN ids"
                                " ON ids.row = words.rowid WHERE words MATCH ?1"
                                " ORDER BY words.rowid DESC");
  if (rows == nullptr) return Found::kFailed;
  Words words{words_max(), {}, false};
  const int cut =
      tokenizer_->calls.xTokenize(tokenizer_->self, &words, FTS5_TOKENIZE_QUERY, query.data(),
                                  static_cast<int>(query.size()), &Words::add);
  if (words.too_many) return Found::kTooManyWords;
  if (cut != SQLITE_OK) return Found::kFailed;
  if (words.list.empty()) return Found::kDone;
  const Meter meter(database_);
  bind(rows, 1, words.match());
  std::vector<Match> best;
  int code = sqlite3_step(rows);
  for (; code == SQLITE_ROW; code = sqlite3_step(rows)) {
    keep_best(best, sqlite3_column_int64(rows, 1), rows);
  }
  sqlite3_reset(rows);
  cost += kCostOfStep * meter.steps() + kCostOfRowAndWord * words.list.size() * rows_;
  // Interrupted by the meter: the best of the newer rows, then.
  if (code != SQLITE_DONE && code != SQLITE_INTERRUPT) return Found::kFailed;
  for (Match& match : best) ids.push_back(std::move(match.id));
  return Found::kDone;
}

std::uint64_t TextIndex::bytes() const noexcept {
  int used = 0;
  int highest = 0;
  if (database_ == nullptr) return 0;
  sqlite3_db_status(database_, SQLITE_DBSTATUS_CACHE_USED, &used, &highest, 0);
  return static_cast<std::uint64_t>(used);
}

}  // namespace cm::broker
