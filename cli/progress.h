// progress.h — what a person sees while a verb waits: one line on a terminal, gone at the end.
// Owns:   Progress.
// Holds:  nothing is written in the first second, to anything but a terminal, or with --quiet; the
//         line is wiped before anything else is said. A thread of its own keeps the seconds, so it
//         is never held across a fork().
// Source: spec/cli.md §2.
// Not:    the daemon and the broker, which have one thread.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace cm::cli {

class Progress {
 public:
  // `what` reads as in "waiting for the broker at 10.0.0.1:7899".
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void run();

  std::string what_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace cm::cli
