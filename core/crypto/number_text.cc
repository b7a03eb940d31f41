// number_text.cc — lays out digits and exponent as ECMA-262 6.1.6.1.20 orders.
#include "core/crypto/number_text.h"

#include <charconv>
#include <cmath>

#include "core/base/check.h"

namespace cm::crypto {
namespace {

// value = 0.d1d2d3... * 10^point, with d1 != 0 and at most 17 digits.
struct Digits {
  char text[20];
  int count = 0;
  int point = 0;
};

Digits shortest_digits(double value) noexcept {
  char text[32];  // d.ddddddddddddddddde-ddd
  const auto made = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  CHECK(made.ec == std::errc{});
  Digits digits;
  const char* at = text;
  for (; *at != 'e'; ++at) {
    if (*at != '.') digits.text[digits.count++] = *at;
  }
  ++at;
  if (*at == '+') ++at;  // from_chars takes no plus sign
  int exponent = 0;
  CHECK(std::from_chars(at, made.ptr, exponent).ec == std::errc{});
  digits.point = exponent + 1;
  return digits;
}

void append_zeros(int count, TextBuf& out) {
  for (int index = 0; index < count; ++index) out.append('0');
}

}  // namespace

void jcs_number(double value, TextBuf& out) {
  CHECK(std::isfinite(value));
  if (value == 0) {
    out.append('0');
    return;
  }
  if (value < 0) out.append('-');
  const Digits digits = shortest_digits(std::fabs(value));
  const int count = digits.count;
  const int point = digits.point;
  const std::string_view all(digits.text, static_cast<std::size_t>(count));

  if (point > 21 || point <= -6) {
    out.append(all.substr(0, 1));
    if (count > 1) {
      out.append('.');
      out.append(all.substr(1));
    }
    out.append(point > 0 ? "e+" : "e-");
    out.append_number(point > 0 ? point - 1 : 1 - point);
  } else if (point <= 0) {
    out.append("0.");
    append_zeros(-point, out);
    out.append(all);
  } else if (count <= point) {
    out.append(all);
    append_zeros(point - count, out);
  } else {
    out.append(all.substr(0, static_cast<std::size_t>(point)));
    out.append('.');
    out.append(all.substr(static_cast<std::size_t>(point)));
  }
}

}  // namespace cm::crypto
