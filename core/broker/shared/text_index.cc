// text_index.cc — one FTS5 table: scope, id, text, tags.
#include "core/broker/shared/text_index.h"

#include <sqlite3.h>

namespace cm::broker {
namespace {

void bind(sqlite3_stmt* statement, int index, std::string_view text) {
  sqlite3_bind_text(statement, index, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
}

// The scope is a word of its own column, so that other meshes' rows are not even visited.
std::string scope_word(std::uint32_t scope) { return "m" + std::to_string(scope); }
std::string row_word(std::uint32_t scope, std::string_view id) {
  return "r" + std::to_string(scope) + "x" + std::string(id);
}

// Each word quoted: nothing in it is syntax of a query.
std::string match_of(std::uint32_t scope, std::string_view query) {
  std::string words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words += " \"" + word + "\"";
    word.clear();
  };
  for (const char c : query) {
    const auto byte = static_cast<unsigned char>(c);
    const bool part =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || byte >= 0x80;
    if (part) {
      word += c;
    } else {
      end_word();
    }
  }
  end_word();
  if (words.empty()) return {};
  return "scope:\"" + scope_word(scope) + "\" AND {text tags}:(" + words + ")";
}

}  // namespace

TextIndex::~TextIndex() { clear(); }

void TextIndex::clear() noexcept {
  sqlite3_finalize(insert_);
  sqlite3_finalize(delete_);
  sqlite3_finalize(search_);
  insert_ = delete_ = search_ = nullptr;
  sqlite3_close(database_);
  database_ = nullptr;
}

bool TextIndex::open() {
  if (database_ != nullptr) return true;
  constexpr int kFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY |
                         SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
  constexpr const char* kSetUp =
      "PRAGMA temp_store=memory;"
      "CREATE VIRTUAL TABLE texts USING fts5(scope, row, id UNINDEXED, text, tags,"
      " tokenize='porter unicode61');";
  if (sqlite3_open_v2(":memory:", &database_, kFlags, nullptr) == SQLITE_OK &&
      sqlite3_exec(database_, kSetUp, nullptr, nullptr, nullptr) == SQLITE_OK) {
    return true;
  }
  clear();
  return false;
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

bool TextIndex::add(std::uint32_t scope, std::string_view id, std::string_view text,
                    std::string_view tags) {
  sqlite3_stmt* statement =
      prepared(insert_, "INSERT INTO texts(scope, row, id, text, tags) VALUES(?1, ?2, ?3, ?4, ?5)");
  if (statement == nullptr) return false;
  bind(statement, 1, scope_word(scope));
  bind(statement, 2, row_word(scope, id));
  bind(statement, 3, id);
  bind(statement, 4, text);
  bind(statement, 5, tags);
  const bool done = sqlite3_step(statement) == SQLITE_DONE;
  sqlite3_reset(statement);
  return done;
}

bool TextIndex::remove(std::uint32_t scope, std::string_view id) {
  sqlite3_stmt* statement = prepared(
      delete_, "DELETE FROM texts WHERE rowid IN (SELECT rowid FROM texts WHERE texts MATCH ?1)");
  if (statement == nullptr) return false;
  bind(statement, 1, "row:\"" + row_word(scope, id) + "\"");
  const bool done = sqlite3_step(statement) == SQLITE_DONE;
  sqlite3_reset(statement);
  return done;
}

bool TextIndex::search(std::uint32_t scope, std::string_view query, std::vector<std::string>& ids) {
  const std::string match = match_of(scope, query);
  if (match.empty()) return true;
  sqlite3_stmt* statement =
      prepared(search_, "SELECT id FROM texts WHERE texts MATCH ?1 ORDER BY rank LIMIT ?2");
  if (statement == nullptr) return false;
  bind(statement, 1, match);
  sqlite3_bind_int(statement, 2, kResultsMax);
  int code = sqlite3_step(statement);
  for (; code == SQLITE_ROW; code = sqlite3_step(statement)) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    ids.emplace_back(text == nullptr ? "" : text);
  }
  sqlite3_reset(statement);
  return code == SQLITE_DONE;
}

}  // namespace cm::broker
