// reached.cc — the file behind reached.h.
// Not:    in any other build than that of `make coverage`.
#include "core/base/reached.h"

#ifdef CM_COVERAGE
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "core/base/check.h"

namespace cm {

bool write_reached(std::string_view kind, std::string_view first,
                   std::string_view second) noexcept {
  const char* const path = std::getenv("CM_REACHED");
  if (path == nullptr) return true;
  const int file = ::open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return false;
  std::array<char, 256> line{};
  std::size_t size = 0;
  for (const std::string_view word : {kind, first, second}) {
    CHECK(word.size() <= 64);
    size = static_cast<std::size_t>(
        std::copy(word.begin(), word.end(), line.begin() + static_cast<std::ptrdiff_t>(size)) -
        line.begin());
    line[size++] = ' ';
  }
  line[size - 1] = '\n';
  const bool written = ::write(file, line.data(), size) > 0;
  ::close(file);
  return written;
}

}  // namespace cm
#endif
