// replay.cc — runs every seed of every target through its harness; of parsers every prefix too.
// Holds:  a target without seeds is a failure: it would look tested and not be. Seeds that were
//         found for their coverage (cov-, by distil.py) run whole only, and so do those of whole
//         programs, which take lines: their prefixes cost much and tell little.
// Why:    what the fuzzer once found stays found, with any compiler and without libFuzzer.
// Not:    searching for new inputs (run.sh).
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "fuzz/registry.h"

#define CM_FUZZ_DECLARE(target, library, longest) CM_FUZZ_TARGET(target);
CM_FUZZ_TARGETS(CM_FUZZ_DECLARE)
#undef CM_FUZZ_DECLARE

namespace {

using Harness = int (*)(const std::uint8_t*, std::size_t);

struct Target {
  const char* name;
  std::string_view library;
  Harness run;
  bool is_parser() const noexcept {
    return library == "cm_wire" || library == "cm_store" || library == "cm_net_sansio" ||
           library == "cm_cli";
  }
};

constexpr Target kTargets[] = {
#define CM_FUZZ_ROW(target, library, longest) {#target, #library, &cm_fuzz_##target},
    CM_FUZZ_TARGETS(CM_FUZZ_ROW)
#undef CM_FUZZ_ROW
};

// Longer seeds are run whole only: prefixes make the time quadratic.
constexpr std::size_t kPrefixesMax = 2048;

void run_one(const Target& target, const std::vector<char>& seed, bool with_prefixes) {
  const bool is_whole_only = !with_prefixes || seed.size() > kPrefixesMax;
  // Each input in a heap block of its exact size: a read behind it is seen by ASan.
  for (std::size_t size = is_whole_only ? seed.size() : 0; size <= seed.size(); ++size) {
    const std::vector<std::uint8_t> input(seed.begin(),
                                          seed.begin() + static_cast<std::ptrdiff_t>(size));
    target.run(input.data(), input.size());
  }
}

int replay(const Target& target, const std::filesystem::path& seeds) {
  std::error_code error;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(seeds / target.name, error)) {
    // Printed before it runs: a failing CHECK then stands under its seed's name.
    std::printf("%s/%s\n", target.name, entry.path().filename().c_str());
    std::fflush(stdout);
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> seed{std::istreambuf_iterator<char>(file), {}};
    const bool is_found = entry.path().filename().string().starts_with("cov-");
    run_one(target, seed, target.is_parser() && !is_found);
    ++count;
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_replay <seeds folder>\n");
    return 2;
  }
  int missing = 0;
  for (const Target& target : kTargets) {
    const int count = replay(target, argv[1]);
    std::printf("%s: %d seeds\n", target.name, count);
    if (count == 0) ++missing;
  }
  return missing == 0 ? 0 : 1;
}
