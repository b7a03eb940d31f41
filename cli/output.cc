// output.cc — printing.
#include "cli/output.h"

#include <unistd.h>

#include <algorithm>
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

std::string styled(std::string_view code, std::string_view text) {
  if (!coloured(STDOUT_FILENO)) return std::string(text);
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

// Code points are a good enough measure for names; continuation bytes take no column.
std::size_t width(std::string_view text) {
  std::size_t columns = 0;
  bool escape = false;
  for (const char c : text) {
    if (c == '\x1b') escape = true;
    if (!escape && (static_cast<unsigned char>(c) & 0xc0) != 0x80) ++columns;
    if (escape && c == 'm') escape = false;
  }
  return columns;
}

}  // namespace

Output& output() {
  static Output instance;
  return instance;
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
}

void say(std::string_view text) {
  if (output().quiet) return;
  std::fprintf(stderr, "  %.*s\n", static_cast<int>(text.size()), text.data());
}

void say_done(std::string_view text) {
  if (output().quiet) return;
  const char* mark = coloured(STDERR_FILENO) ? "\x1b[32m✔\x1b[0m" : "✔";
  std::fprintf(stderr, "  %s %.*s\n", mark, static_cast<int>(text.size()), text.data());
}

int report(const Error& error) {
  const ErrInfo& info = info_of(error.code);
  if (output().json) {
    ScratchArena scratch;
    TextBuf text(scratch);
    wire::JsonWriter json(text);
    json.begin_object().field("ok", false).field("error", info.wire_code);
    json.field("detail", error.detail.empty() ? info.meaning : std::string_view(error.detail));
    json.field("remedy", info.remedy).end_object();
    print(text.view());
    return info.exit_code;
  }
  const char* mark = coloured(STDERR_FILENO) ? "\x1b[31m✘\x1b[0m" : "✘";
  const std::string detail = harmless(error.detail);
  std::fprintf(stderr, "  %s %.*s%s%s\n    %.*s\n", mark, static_cast<int>(info.meaning.size()),
               info.meaning.data(), detail.empty() ? "" : ": ", detail.c_str(),
               static_cast<int>(info.remedy.size()), info.remedy.data());
  return info.exit_code;
}

std::string dim(std::string_view text) { return styled("2", text); }
std::string bold(std::string_view text) { return styled("1", text); }

void print_table(const std::vector<std::vector<std::string>>& rows) {
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
    const auto c = static_cast<unsigned char>(utf8[index]);
    const auto next = index + 1 < utf8.size() ? static_cast<unsigned char>(utf8[index + 1]) : 0;
    const bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;
    const bool bidi = c == 0xe2 && index + 2 < utf8.size() &&
                      ((next == 0x80 && static_cast<unsigned char>(utf8[index + 2]) >= 0xa8) ||
                       (next == 0x81 && static_cast<unsigned char>(utf8[index + 2]) >= 0xa6));
    if (c == '\n' || c == '\t') {
      shown += ' ';
    } else if (c < 0x20 || c == 0x7f) {
      shown += "\xef\xbf\xbd";
    } else if (c1 || (bidi && static_cast<unsigned char>(utf8[index + 2]) <= 0xae) ||
               (bidi && next == 0x81)) {
      shown += "\xef\xbf\xbd";
      index += c1 ? 1 : 2;
    } else {
      shown += utf8[index];
    }
  }
  return shown;
}

}  // namespace cm::cli
