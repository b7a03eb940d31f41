// log.h — JSON lines for operators: one event name and typed fields, redacted on the way out.
// Owns:   Log (level, sink), LogField.
// Holds:  a field whose key names a secret is printed as "***" whatever its value; so is any text
//         that looks like a secret key or a bearer token. Bodies are never passed in.
// Why:    the log is what an operator has at 3 a.m.; one line, one event, grep-able.
// Not:    the output of CLI verbs (cli/output.h), metrics (metrics.h).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <type_traits>

namespace cm {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError };

struct LogField {
  enum class Kind : std::uint8_t { kText, kNumber, kBool };
  std::string_view key;
  std::string_view text;
  std::int64_t number = 0;
  Kind kind;

  LogField(std::string_view k, std::string_view value) : key(k), text(value), kind(Kind::kText) {}
  LogField(std::string_view k, const char* value) : key(k), text(value), kind(Kind::kText) {}
  LogField(std::string_view k, bool value) : key(k), number(value), kind(Kind::kBool) {}
  template <class Int>
  requires(std::is_integral_v<Int> && !std::is_same_v<Int, bool>)
      LogField(std::string_view k, Int value)
      : key(k), number(static_cast<std::int64_t>(value)), kind(Kind::kNumber) {}
};

// Receives one complete line with its newline. Called on the loop's thread.
using LogSink = void (*)(void* context, std::string_view line);
// Milliseconds since the epoch, for the "ts" field; the cores' clock comes through Env instead.
using LogClock = std::uint64_t (*)(void* context);

class Log {
 public:
  Log(LogSink sink, LogClock clock, void* context, LogLevel level = LogLevel::kInfo) noexcept
      : sink_(sink), clock_(clock), context_(context), level_(level) {}

  bool enabled(LogLevel level) const noexcept { return level >= level_; }
  void write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) const;

  void debug(std::string_view event, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kDebug, event, fields);
  }
  void info(std::string_view event, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kInfo, event, fields);
  }
  void warn(std::string_view event, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kWarn, event, fields);
  }
  void error(std::string_view event, std::initializer_list<LogField> fields = {}) const {
    write(LogLevel::kError, event, fields);
  }

 private:
  LogSink sink_;
  LogClock clock_;
  void* context_;
  LogLevel level_;
};

// True if the key, or the look of the value, says that it must not be printed.
bool log_redacts(std::string_view key, std::string_view value) noexcept;

}  // namespace cm
