// progress.cc — the thread behind the line.
#include "cli/progress.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "cli/output.h"

namespace cm::cli {
namespace {

constexpr std::string_view kWipe = "\r\x1b[K";
bool g_shown = false;  // an outer wait speaks for those within it

bool is_wanted() {
  const char* const term = std::getenv("TERM");
  return !output().quiet && ::isatty(STDERR_FILENO) == 1 && term != nullptr &&
         std::string_view(term) != "dumb";
}

// One write, so that no half of a line is seen.
void write_all(std::string_view text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nobody looks any more
}

}  // namespace

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (g_shown || !is_wanted()) return;
  g_shown = true;
  thread_ = std::thread([this] { run(); });
}

Progress::~Progress() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  ended_.notify_one();
  thread_.join();
  g_shown = false;
}

void Progress::run() {
  std::unique_lock lock(mutex_);
  for (int seconds = 1;; ++seconds) {
    if (ended_.wait_for(lock, std::chrono::seconds(1), [this] { return over_; })) {
      if (seconds > 1) write_all(kWipe);
      return;
    }
    const std::string line = "  " + what_ + " … " + std::to_string(seconds) + " s";
    write_all(std::string(kWipe) + line);
  }
}

}  // namespace cm::cli
