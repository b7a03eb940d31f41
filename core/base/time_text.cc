// time_text.cc — civil-from-days and back by std::chrono's calendar.
#include "core/base/time_text.h"

#include <chrono>

namespace cm {
namespace {

void put(char* at, unsigned value, int digits) noexcept {
  for (int index = digits - 1; index >= 0; --index) {
    at[index] = static_cast<char>('0' + value % 10);
    value /= 10;
  }
}

bool take(std::string_view text, std::size_t at, int digits, unsigned& value) noexcept {
  value = 0;
  for (int index = 0; index < digits; ++index) {
    const char c = text[at + static_cast<std::size_t>(index)];
    if (c < '0' || c > '9') return false;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return true;
}

}  // namespace

IsoText iso_text(std::uint64_t ms) noexcept {
  constexpr std::uint64_t kLast = 253402300799999ull;  // 9999-12-31T23:59:59.999Z
  if (ms > kLast) ms = kLast;
  const std::chrono::sys_days day{std::chrono::days{ms / 86400000u}};
  const std::chrono::year_month_day date{day};
  const auto rest = static_cast<unsigned>(ms % 86400000u);
  IsoText text;
  put(text.data(), static_cast<unsigned>(static_cast<int>(date.year())), 4);
  text[4] = '-';
  put(text.data() + 5, static_cast<unsigned>(date.month()), 2);
  text[7] = '-';
  put(text.data() + 8, static_cast<unsigned>(date.day()), 2);
  text[10] = 'T';
  put(text.data() + 11, rest / 3600000u, 2);
  text[13] = ':';
  put(text.data() + 14, rest / 60000u % 60u, 2);
  text[16] = ':';
  put(text.data() + 17, rest / 1000u % 60u, 2);
  text[19] = '.';
  put(text.data() + 20, rest % 1000u, 3);
  text[23] = 'Z';
  return text;
}

std::optional<std::uint64_t> iso_parse(std::string_view text) noexcept {
  const bool with_ms = text.size() == 24;
  if (!with_ms && text.size() != 20) return std::nullopt;
  if (text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':' ||
      text.back() != 'Z' || (with_ms && text[19] != '.')) {
    return std::nullopt;
  }
  unsigned year, month, day, hour, minute, second, ms = 0;
  if (!take(text, 0, 4, year) || !take(text, 5, 2, month) || !take(text, 8, 2, day) ||
      !take(text, 11, 2, hour) || !take(text, 14, 2, minute) || !take(text, 17, 2, second) ||
      (with_ms && !take(text, 20, 3, ms))) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date{std::chrono::year{static_cast<int>(year)},
                                         std::chrono::month{month}, std::chrono::day{day}};
  if (!date.ok() || year < 1970 || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  const auto days = std::chrono::sys_days{date}.time_since_epoch().count();
  return static_cast<std::uint64_t>(days) * 86400000u + hour * 3600000u + minute * 60000u +
         second * 1000u + ms;
}

}  // namespace cm
