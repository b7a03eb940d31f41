// errors.cc — the table behind errors.h.
// Holds:  row order is enum order; a test asserts that every row has a sentence and a remedy.
#include "core/base/errors.h"

#include "core/base/check.h"

#ifdef CM_COVERAGE
#include <array>
#include <cstdio>
#include <cstdlib>
#endif

namespace cm {
namespace {

constexpr ErrInfo kErrors[] = {
#define CM_ERR_ROW(name, wire, exit, http, meaning, remedy) {wire, exit, http, meaning, remedy},
    CM_ERRORS(CM_ERR_ROW)
#undef CM_ERR_ROW
};
static_assert(sizeof kErrors / sizeof kErrors[0] == static_cast<std::size_t>(Err::kCount));

#ifdef CM_COVERAGE
// Which errors anybody was told of; tests/coverage.py adds the processes up.
struct ToldErrors {
  std::array<bool, static_cast<std::size_t>(Err::kCount)> told{};
  ~ToldErrors() {
    const char* const path = std::getenv("CM_ERRORS_TOLD");
    std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "a");
    if (file == nullptr) return;
    for (std::size_t index = 0; index < told.size(); ++index) {
      if (told[index]) std::fprintf(file, "%s\n", kErrors[index].wire_code.data());
    }
    std::fclose(file);
  }
};
ToldErrors told_errors;
#endif

}  // namespace

const ErrInfo& info_of(Err code) noexcept {
  const auto index = static_cast<std::size_t>(code);
  CHECK(index < static_cast<std::size_t>(Err::kCount));
#ifdef CM_COVERAGE
  told_errors.told[index] = true;
#endif
  return kErrors[index];
}

Err err_of_wire_code(std::string_view code) noexcept {
  for (std::size_t index = 0; index < static_cast<std::size_t>(Err::kCount); ++index) {
    if (kErrors[index].wire_code == code) return static_cast<Err>(index);
  }
  return Err::kInternal;
}

}  // namespace cm
