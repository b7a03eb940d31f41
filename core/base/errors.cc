// errors.cc — the table behind errors.h.
// Holds:  row order is enum order; a test asserts that every row has a sentence and a remedy.
#include "core/base/errors.h"

#include "core/base/check.h"
#include "core/base/reached.h"

namespace cm {
namespace {

constexpr ErrInfo kErrors[] = {
#define CM_ERR_ROW(name, wire, exit, http, meaning, remedy) {wire, exit, http, meaning, remedy},
    CM_ERRORS(CM_ERR_ROW)
#undef CM_ERR_ROW
};
static_assert(sizeof kErrors / sizeof kErrors[0] == static_cast<std::size_t>(Err::kCount));

}  // namespace

const ErrInfo& row_of(Err code) noexcept {
  const auto index = static_cast<std::size_t>(code);
  CHECK(index < static_cast<std::size_t>(Err::kCount));
  return kErrors[index];
}

const ErrInfo& info_of(Err code) noexcept {
  const ErrInfo& row = row_of(code);
#ifdef CM_COVERAGE
  static Reached<static_cast<std::size_t>(Err::kCount)> told;
  told.note(static_cast<std::size_t>(code), "error", row.wire_code, "told");
#endif
  return row;
}

Err err_of_wire_code(std::string_view code) noexcept {
  for (std::size_t index = 0; index < static_cast<std::size_t>(Err::kCount); ++index) {
    if (kErrors[index].wire_code == code) return static_cast<Err>(index);
  }
  return Err::kInternal;
}

}  // namespace cm
