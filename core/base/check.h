// check.h — assertions that stay on in release builds, and the crash report they write.
// Owns:   the process-wide crash reporters (set once at start, read only when dying).
// Holds:  a failed CHECK never returns; it prints where and why, runs the reporters, aborts.
// Why:    a supervised restart loses nothing, a corrupted table loses everything.
// Not:    handling of operating errors (result.h) or of bad input (refused where it enters).
#pragma once

#include <cstdint>

namespace cm {

// Called once from a failing CHECK with the descriptor to write to. It must not allocate, must
// not CHECK, and must print no bodies and no keys. At most 8 reporters; `context` outlives them.
using CrashReporter = void (*)(int fd, const void* context);
void add_crash_reporter(CrashReporter reporter, const void* context) noexcept;
void remove_crash_reporters(const void* context) noexcept;

[[noreturn]] void check_failed(const char* file, int line, const char* expression) noexcept;
[[noreturn]] void check_failed_values(const char* file, int line, const char* expression,
                                      std::uint64_t left, std::uint64_t right) noexcept;

// Writes a NUL-terminated text to fd without allocating; for crash reporters.
void crash_write(int fd, const char* text) noexcept;
void crash_write_number(int fd, std::uint64_t number) noexcept;

}  // namespace cm

#define CHECK(expression)                                  \
  do {                                                     \
    if (!(expression)) [[unlikely]]                        \
      ::cm::check_failed(__FILE__, __LINE__, #expression); \
  } while (false)

#define CHECK_EQ(left, right)                                            \
  do {                                                                   \
    if (!((left) == (right))) [[unlikely]]                               \
      ::cm::check_failed_values(__FILE__, __LINE__, #left " == " #right, \
                                static_cast<std::uint64_t>(left),        \
                                static_cast<std::uint64_t>(right));      \
  } while (false)

#define CHECK_IMPLIES(cause, effect) CHECK(!(cause) || (effect))

#ifdef NDEBUG
#define DCHECK(expression) \
  do {                     \
    if (false) {           \
      (void)(expression);  \
    }                      \
  } while (false)
#else
#define DCHECK(expression) CHECK(expression)
#endif
