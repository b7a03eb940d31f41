// main.cc — the program: its words, and the end of every exception.
// Not:    finding and running verbs (dispatch.cc).
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/dispatch.h"
#include "core/base/errors.h"

int main(int argc, char** argv) {
  try {
    return cm::cli::run_words(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Fatal: %s\n", error.what());
    return cm::info_of(cm::Err::kInternal).exit_code;
  }
}
