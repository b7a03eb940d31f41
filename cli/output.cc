// output.cc — printing.
#include "cli/output.h"

#include <locale.h>
#include <unistd.h>
#include <wchar.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/base/arena.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

bool coloured(int fd) {
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && std::getenv("NO_COLOR") == nullptr &&
         (term == nullptr || std::strcmp(term, "dumb") != 0);
}

// Styles travel as kStyle and one of "012" until they are printed: what a peer sent can then be
// told from what we wrote.
constexpr char kStyle = '\x01';

std::string styled(char code, std::string_view text) {
  if (!coloured(STDOUT_FILENO)) return std::string(text);
  return std::string{kStyle, code} + std::string(text) + std::string{kStyle, '0'};
}

// The code point that begins at `index`, and how many bytes it has. Whatever is no UTF-8 is one
// byte and one column, as terminals show it.
std::size_t decode(std::string_view utf8, std::size_t index, wchar_t& point) {
  const auto at = [&](std::size_t behind) -> unsigned {
    return index + behind < utf8.size() ? static_cast<unsigned char>(utf8[index + behind]) : 0u;
  };
  const unsigned lead = at(0);
  const std::size_t size = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  unsigned bits = size == 1 ? lead : lead & (0xffu >> (size + 1));
  for (std::size_t behind = 1; behind < size; ++behind) {
    if ((at(behind) & 0xc0u) != 0x80u || lead < 0xc0) {
      point = L'?';
      return 1;
    }
    bits = (bits << 6) | (at(behind) & 0x3fu);
  }
  point = static_cast<wchar_t>(bits);
  return size;
}

// What the library's tables say of wide and of combining characters, whatever locale the user has.
class WidthTable {
 public:
  WidthTable() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {}
  ~WidthTable() {
    if (locale_ != nullptr) ::freelocale(locale_);
  }
  WidthTable(const WidthTable&) = delete;
  WidthTable& operator=(const WidthTable&) = delete;
  std::size_t columns(wchar_t point) const {
    if (point < 0x80 || locale_ == nullptr) return 1;
    const locale_t before = ::uselocale(locale_);
    const int columns = ::wcwidth(point);
    ::uselocale(before);
    return columns < 0 ? 1 : static_cast<std::size_t>(columns);
  }

 private:
  locale_t locale_;
};

std::size_t width(std::string_view text) {
  static const WidthTable table;
  std::size_t columns = 0;
  for (std::size_t index = 0; index < text.size();) {
    if (text[index] == kStyle) {
      index += 2;
      continue;
    }
    wchar_t point = 0;
    index += decode(text, index, point);
    columns += table.columns(point);
  }
  return columns;
}

// Bytes of the code point at `index` if a terminal would act on it: C1 controls and what turns the
// direction of text; else 0. Single bytes are judged by their caller.
std::size_t acting_bytes(std::string_view utf8, std::size_t index) {
  const auto at = [&](std::size_t behind) {
    return index + behind < utf8.size() ? static_cast<unsigned char>(utf8[index + behind]) : 0u;
  };
  if (at(0) == 0xc2 && at(1) >= 0x80 && at(1) < 0xa0) return 2;
  if (at(0) == 0xd8 && at(1) == 0x9c) return 2;  // Arabic letter mark
  if (at(0) != 0xe2) return 0;
  const bool mark = at(1) == 0x80 && (at(2) == 0x8e || at(2) == 0x8f);
  const bool embeds = at(1) == 0x80 && at(2) >= 0xa8 && at(2) <= 0xae;
  const bool isolates = at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9;
  return mark || embeds || isolates ? 3 : 0;
}

bool is_control(char c) { return (static_cast<unsigned char>(c) < 0x20) || c == 0x7f; }

constexpr std::string_view kReplaced = "\xef\xbf\xbd";

// For a terminal: lines and our styles stay, nothing else acts.
std::string rendered(std::string_view text) {
  std::string out;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const char c = text[index];
    const char code = index + 1 < text.size() ? text[index + 1] : '\0';
    if (c == kStyle && code >= '0' && code <= '2') {
      out += "\x1b[";
      out += code;
      out += 'm';
      ++index;
    } else if (c == '\n' || c == '\t') {
      out += c;
    } else if (is_control(c)) {
      out += kReplaced;
    } else if (const std::size_t acting = acting_bytes(text, index); acting != 0) {
      out += kReplaced;
      index += acting - 1;
    } else {
      out += c;
    }
  }
  return out;
}

// For a terminal, and JSON still: what would act becomes an escape.
std::string rendered_json(std::string_view json) {
  std::string out;
  for (std::size_t index = 0; index < json.size(); ++index) {
    const std::size_t acting = acting_bytes(json, index);
    if (acting == 0) {
      out += json[index] == 0x7f ? std::string("\\u007f") : std::string(1, json[index]);
      continue;
    }
    const auto bits = [&](std::size_t behind, unsigned mask) {
      return static_cast<unsigned>(static_cast<unsigned char>(json[index + behind])) & mask;
    };
    const unsigned point = acting == 2
                               ? (bits(0, 0x1f) << 6) | bits(1, 0x3f)
                               : (bits(0, 0x0f) << 12) | (bits(1, 0x3f) << 6) | bits(2, 0x3f);
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\u%04x", point);
    out += escape;
    index += acting - 1;
  }
  return out;
}

}  // namespace

Output& output() {
  static Output instance;
  return instance;
}

namespace {
int g_lost = 0;  // errno of the first write that failed
}

// A pipe gets the bytes as they are; a terminal must not act on what a peer sent.
void print(std::string_view text) {
  static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  std::string safe;
  if (terminal) {
    safe = output().json ? rendered_json(text) : rendered(text);
    text = safe;
  }
  const bool kept = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
                    std::fputc('\n', stdout) != EOF;
  if (!kept && g_lost == 0) g_lost = errno;
}

Status flush_output() {
  if (std::fflush(stdout) != 0 && g_lost == 0) g_lost = errno;
  if (g_lost == 0) return {};
  if (g_lost == EPIPE) return Err::kTransport;
  return fail(Err::kIo, "standard output: " + std::string(std::strerror(g_lost)));
}

void print_json(std::string_view json) {
  print(output().form == JsonForm::kLine ? std::string(json) : pretty_json(json));
}

void say(std::string_view text) {
  if (!output().quiet) std::fprintf(stderr, "  %s\n", rendered(text).c_str());
}

void say_done(std::string_view text) {
  if (output().quiet) return;
  const char* mark = coloured(STDERR_FILENO) ? "\x1b[32m✔\x1b[0m" : "✔";
  std::fprintf(stderr, "  %s %s\n", mark, rendered(text).c_str());
}

int report(const Error& error) { return report_as({}, error, {}); }

int report(const Error& error, std::string_view when_not_found) {
  return report_as({}, error, {}, when_not_found);
}

int report_as(std::string_view word, const Error& error, std::string_view more,
              std::string_view when_not_found) {
  const ErrInfo& info = info_of(error.code);
  const bool knows_better = error.code == Err::kNotFound && !when_not_found.empty();
  const std::string_view remedy = knows_better ? when_not_found : info.remedy;
  // A topic is no peer, and the list follows.
  const bool listed = error.code == Err::kAmbiguousMesh && !output().candidates.empty();
  const std::string_view meaning = listed ? "several meshes have this" : info.meaning;
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", false);
    json.field("error", word.empty() ? info.wire_code : word);
    if (!more.empty()) json.members(more);
    json.field("detail", error.detail.empty() ? info.meaning : std::string_view(error.detail));
    json.field("remedy", remedy);
    if (listed) json.key("candidates").raw(output().candidates);
    json.end_object();
    print_json(text.view());
    return info.exit_code;
  }
  const char* mark = coloured(STDERR_FILENO) ? "\x1b[31m✘\x1b[0m" : "✘";
  // Who refuses often says no more than the row does.
  const std::string detail = error.detail == info.meaning ? "" : harmless(error.detail);
  std::fprintf(stderr, "  %s %.*s%s%s\n    %.*s\n", mark, static_cast<int>(meaning.size()),
               meaning.data(), detail.empty() ? "" : ": ", detail.c_str(),
               static_cast<int>(remedy.size()), remedy.data());
  return info.exit_code;
}

std::string dim(std::string_view text) { return styled('2', text); }
std::string bold(std::string_view text) { return styled('1', text); }

void print_table(std::vector<std::vector<std::string>> rows) {
  for (auto& row : rows) {
    for (std::string& cell : row) {
      std::replace_if(
          cell.begin(), cell.end(), [](char c) { return is_control(c) && c != kStyle; }, ' ');
    }
  }
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], width(row[column]));
    }
  }
  for (const auto& row : rows) {
    std::string line = "  ";
    for (std::size_t column = 0; column < row.size(); ++column) {
      line += row[column];
      if (column + 1 == row.size()) break;
      line.append(widths[column] - width(row[column]) + 2, ' ');
    }
    print(line);
  }
}

std::uint64_t now_ms() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

std::string counted(std::int64_t number, std::string_view thing) {
  return std::to_string(number) + " " + std::string(thing) + (number == 1 ? "" : "s");
}

std::string ago(std::uint64_t then_ms, std::uint64_t now) {
  const std::uint64_t seconds = now > then_ms ? (now - then_ms) / 1000 : 0;
  if (seconds < 60) return std::to_string(seconds) + " s ago";
  if (seconds < 3600) return std::to_string(seconds / 60) + " min ago";
  if (seconds < 48 * 3600) return std::to_string(seconds / 3600) + " h ago";
  return std::to_string(seconds / 86400) + " d ago";
}

std::string harmless(std::string_view utf8) {
  std::string shown;
  for (std::size_t index = 0; index < utf8.size(); ++index) {
    const std::size_t acting = acting_bytes(utf8, index);
    if (utf8[index] == '\n' || utf8[index] == '\t') {
      shown += ' ';
    } else if (acting != 0 || is_control(utf8[index])) {
      shown += kReplaced;
      index += acting != 0 ? acting - 1 : 0;
    } else {
      shown += utf8[index];
    }
  }
  return shown;
}

}  // namespace cm::cli
