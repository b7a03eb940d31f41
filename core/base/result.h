// result.h — Result<T>: a value, or an Error of {code, detail}.
// Holds:  every operating error is one of the codes in errors.h; a Result may not be ignored.
// Why:    core code throws nothing and crosses no border with an exception.
// Not:    the table of codes (errors.h), broken invariants (check.h).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "core/base/check.h"
#include "core/base/errors.h"

namespace cm {

// `detail` names the object and the limit ("field 'priority': one of now, next, low"); the code's
// own sentence and remedy come from errors.h. It never carries bodies, keys, tokens or secrets.
struct Error {
  Err code = Err::kInternal;
  std::string detail;
};

inline Error fail(Err code, std::string_view detail = {}) {
  return Error{code, std::string(detail)};
}

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  Result(Err code) : state_(std::in_place_index<1>, Error{code, {}}) {}

  explicit operator bool() const noexcept { return state_.index() == 0; }
  T& value() noexcept {
    CHECK(state_.index() == 0);
    return *std::get_if<0>(&state_);
  }
  const T& value() const noexcept {
    CHECK(state_.index() == 0);
    return *std::get_if<0>(&state_);
  }
  T& operator*() noexcept { return value(); }
  const T& operator*() const noexcept { return value(); }
  T* operator->() noexcept { return &value(); }
  const T* operator->() const noexcept { return &value(); }

  const Error& error() const noexcept {
    CHECK(state_.index() == 1);
    return *std::get_if<1>(&state_);
  }
  Err code() const noexcept { return state_.index() == 0 ? Err::kOk : error().code; }

 private:
  std::variant<T, Error> state_;
};

// A Result without a value.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) { CHECK(error_.code != Err::kOk); }
  Status(Err code) : error_{code, {}} {}

  explicit operator bool() const noexcept { return error_.code == Err::kOk; }
  const Error& error() const noexcept {
    CHECK(error_.code != Err::kOk);
    return error_;
  }
  Err code() const noexcept { return error_.code; }

 private:
  Error error_{Err::kOk, {}};
};

}  // namespace cm
