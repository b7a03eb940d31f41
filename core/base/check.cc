// check.cc — prints the crash report and takes the process down.
// Holds:  async-signal-safe calls only: the heap may be what broke.
// Not:    stack unwinding; the core dump has it.
#include "core/base/check.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace cm {
namespace {

struct Slot {
  CrashReporter reporter = nullptr;
  const void* context = nullptr;
};
constexpr int kReportersMax = 8;
Slot g_reporters[kReportersMax];
bool g_reporting = false;

[[noreturn]] void report_and_abort() noexcept {
  if (!g_reporting) {
    g_reporting = true;
    for (const Slot& slot : g_reporters) {
      if (slot.reporter != nullptr) slot.reporter(STDERR_FILENO, slot.context);
    }
  }
  std::abort();
}

void write_location(const char* file, int line, const char* expression) noexcept {
  crash_write(STDERR_FILENO, "claudemesh: broken invariant: ");
  crash_write(STDERR_FILENO, expression);
  crash_write(STDERR_FILENO, " at ");
  crash_write(STDERR_FILENO, file);
  crash_write(STDERR_FILENO, ":");
  crash_write_number(STDERR_FILENO, static_cast<std::uint64_t>(line));
}

}  // namespace

void crash_write(int fd, const char* text) noexcept {
  const ssize_t written = ::write(fd, text, std::strlen(text));
  (void)written;  // dying anyway; there is nobody to tell
}

void crash_write_number(int fd, std::uint64_t number) noexcept {
  char digits[21];
  char* at = digits + sizeof digits - 1;
  *at = '\0';
  do {
    *--at = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  crash_write(fd, at);
}

void add_crash_reporter(CrashReporter reporter, const void* context) noexcept {
  for (Slot& slot : g_reporters) {
    if (slot.reporter == nullptr) {
      slot = {reporter, context};
      return;
    }
  }
  check_failed(__FILE__, __LINE__, "room for another crash reporter");
}

void remove_crash_reporters(const void* context) noexcept {
  for (Slot& slot : g_reporters) {
    if (slot.context == context) slot = {};
  }
}

void check_failed(const char* file, int line, const char* expression) noexcept {
  write_location(file, line, expression);
  crash_write(STDERR_FILENO, "\n");
  report_and_abort();
}

void check_failed_values(const char* file, int line, const char* expression, std::uint64_t left,
                         std::uint64_t right) noexcept {
  write_location(file, line, expression);
  crash_write(STDERR_FILENO, " (");
  crash_write_number(STDERR_FILENO, left);
  crash_write(STDERR_FILENO, " vs ");
  crash_write_number(STDERR_FILENO, right);
  crash_write(STDERR_FILENO, ")\n");
  report_and_abort();
}

}  // namespace cm
