// journal.cc — formats, chains and keeps lines.
#include "tests/sim/journal.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>

#include "core/base/hash.h"

namespace cm::sim {

void Journal::line(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  const int size = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const auto all = static_cast<std::size_t>(size < 0 ? 0 : size);
  add({text, all < sizeof text ? all : sizeof text - 1});
}

void Journal::add(std::string_view text) {
  char head[48];
  const int size = std::snprintf(
      head, sizeof head, "%8llu.%03llu #%-5llu ", static_cast<unsigned long long>(now_ms_ / 1000),
      static_cast<unsigned long long>(now_ms_ % 1000), static_cast<unsigned long long>(turn_));
  std::string& kept = kept_[count_++ % kKept];
  kept.assign(head, static_cast<std::size_t>(size));
  kept.append(text);
  while (!kept.empty() && kept.back() == '\n') kept.pop_back();
  kept.push_back('\n');
  hash_ = hash64(as_bytes(kept), hash_);
  if (verbose_) std::fwrite(kept.data(), 1, kept.size(), stdout);
}

void Journal::print_last(int fd) const noexcept {
  const std::uint64_t first = count_ > kKept ? count_ - kKept : 0;
  for (std::uint64_t index = first; index < count_; ++index) {
    const std::string& kept = kept_[index % kKept];
    if (::write(fd, kept.data(), kept.size()) < 0) return;
  }
}

}  // namespace cm::sim
