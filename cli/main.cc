// main.cc — the program: its words, its output, and the end of every exception.
// Holds:  what was not written to standard output is no success, whatever the verb thinks.
// Not:    finding and running verbs (dispatch.cc).
#include <fcntl.h>
#include <signal.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/dispatch.h"
#include "cli/output.h"
#include "core/base/errors.h"

namespace {

// A closed standard stream is the first number that open() gives: a store would be printed into.
// What stands in its place refuses what the stream is for, so that its loss is noticed.
void hold_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (::fcntl(stream, F_GETFD) != -1) continue;
    const int held = ::open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY);
    (void)held;  // without /dev/null things are as they were
  }
}

int ended(int status) {
  const cm::Status written = cm::cli::flush_output();
  if (written || status != 0) return status;
  if (written.code() == cm::Err::kTransport) return 128 + SIGPIPE;  // as if the signal had done it
  cm::cli::output().json = false;  // there is no place for a document
  return cm::cli::report(written.error());
}

}  // namespace

int main(int argc, char** argv) {
  hold_standard_streams();
  try {
    return ended(cm::cli::run_words(std::vector<std::string>(argv + 1, argv + argc)));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Fatal: %s\n", error.what());
    return cm::info_of(cm::Err::kInternal).exit_code;
  }
}
