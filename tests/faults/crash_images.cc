// crash_images.cc — every file that a crash may leave, opened by our store and judged.
//   crash_images                     some commits, both durabilities: what `make test` has time for
//   crash_images --whole             every commit
//   crash_images [--seed N] [--steps N] [--stride N] [--durability sync|relaxed]
// Each image is opened read-only (fsck, the rows' hash, the promises), then by the real core, which
// recovers, commits, and verifies its mirrors; then fsck again.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "core/base/check.h"
#include "core/crypto/random.h"
#include "store/marks.h"
#include "tests/faults/images.h"

namespace cm::faults {
namespace {

struct Options {
  std::uint64_t seed = 1;
  std::uint32_t steps = 150;
  std::uint32_t stride = 0;  // 0: as many as there is time for
  bool sync = true, relaxed = true;
};

struct Totals {
  std::uint64_t commits = 0, writes = 0, epochs = 0, all_subsets = 0, images = 0, failures = 0;
  std::uint64_t refused = 0;  // tears within the number of a commit: refused with a clear error
  std::map<std::string, std::uint64_t> by_kind;
};

// For the report of a crash.
char now_checking[160];

void report_crash(int fd, const void*) { crash_write(fd, now_checking); }

std::string work_directory() {
  const char* chosen = std::getenv("TMPDIR");
  std::string base = chosen != nullptr ? chosen : "/dev/shm";
  if (!std::filesystem::is_directory(base)) base = "/tmp";
  base += "/cm-crash-XXXXXX";
  CHECK(::mkdtemp(base.data()) != nullptr);
  return base;
}

void write_file(const std::string& path, const FileBytes& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  CHECK(file.flush());
}

struct Judged {
  std::string problem;   // empty: as it has to be
  bool refused = false;  // the store said that it is damaged
  StateHash state = 0;
};

// One node's images, in one directory.
class Judge {
 public:
  Judge(const Recording& recording, Node node, store::Durability durability, std::string directory)
      : recording_(recording),
        stream_(recording.streams[node]),
        node_(node),
        durability_(durability),
        directory_(std::move(directory)) {
    std::filesystem::create_directories(directory_);
    std::filesystem::permissions(directory_, std::filesystem::perms::owner_all);
  }

  // What the rows were behind each commit, by the images without a fault; and that the running
  // store saw the same.
  std::string learn() {
    FileBytes file;
    states_.push_back(0);
    std::size_t seen = 0;
    for (const Event& event : stream_.events) {
      if (event.kind != EventKind::kWrite) continue;
      const std::size_t end = event.offset + event.bytes.size();
      if (file.size() < end) file.resize(end);
      std::memcpy(file.data() + event.offset, event.bytes.data(), event.bytes.size());
      if (!event.is_meta) continue;
      write_file(directory_ + "/data.mdb", file);
      const Judged read = read_only(nullptr);
      // The first commit makes the tables, the second the version without which nobody reads.
      if (!read.problem.empty() && states_.size() > 1) {
        return "commit " + std::to_string(states_.size()) + ": " + read.problem;
      }
      states_.push_back(read.state);
      for (; seen < stream_.seen.size() && stream_.seen[seen].commit < states_.size(); ++seen) {
        if (stream_.seen[seen].state != states_[stream_.seen[seen].commit]) {
          return "the file does not hold what the running store saw";
        }
      }
    }
    return {};
  }

  Judged judge(const Image& image) {
    write_file(directory_ + "/data.mdb", *image.bytes);
    Judged judged;
    constexpr std::uint64_t kFirstReadable = 2;
    const bool is_made = image.commit >= kFirstReadable;  // store/marks.h: written behind it
    if (!is_made) store::clear_made_mark(directory_);
    if (is_made && !store::was_made(directory_)) CHECK(store::set_made_mark(directory_));
    if (is_made) {
      judged = read_only(&image);
      if (!judged.problem.empty()) return judged;
      const bool is_it = judged.state == states_[image.commit];
      const bool is_next = image.may_be_next && judged.state == states_[image.commit + 1];
      if (!is_it && !is_next) judged.problem = "the rows are those of no commit that may be there";
    }
    if (judged.problem.empty()) judged.problem = start();
    return judged;
  }

  // Opened without any expectation: what it says, or whose commit's rows it shows.
  Judged classify(const FileBytes& file) {
    write_file(directory_ + "/data.mdb", file);
    Judged judged = read_only(nullptr);
    if (!judged.problem.empty()) return judged;
    for (const StateHash state : states_) {
      if (state == judged.state) return judged;
    }
    judged.problem = "rows of no commit";
    return judged;
  }

 private:
  Judged read_only(const Image* image) {
    store::Options options;
    options.directory = directory_;
    options.role = role_of(node_);
    options.bound_bytes = std::uint64_t{64} << 20;
    options.read_only = true;
    Judged judged;
    auto opened = store::Store::open(options, scratch_);
    if (!opened) {
      judged.refused = opened.code() == Err::kCorrupt;
      judged.problem = "read-only open: " + opened.error().detail;
      return judged;
    }
    store::Batch& batch = (*opened)->batch();
    judged.problem = fsck_problem(batch, role_of(node_));
    judged.refused = judged.problem.starts_with("(pages)");
    judged.state = state_of(batch, role_of(node_));
    if (judged.problem.empty() && batch.failed()) judged.problem = "a table ended early";
    if (judged.problem.empty() && image != nullptr) {
      const Promise* const first = stream_.promises.data();
      judged.problem = broken_promise(batch, node_, first, first + image->promises);
    }
    opened->reset();
    scratch_.reset();
    return judged;
  }

  // As the process does that comes back; and what it commits at once is sound.
  std::string start() {
    const std::uint64_t now = recording_.end_ms + 60'000;
    if (node_ == kBroker) {
      auto node = BrokerNode::start(directory_, durability_, now);
      if (!node) return "the broker does not start: " + node.error().detail;
      return fsck_problem((*node)->parts.store->batch(), store::Role::kBroker);
    }
    auto node = DaemonNode::start(directory_, durability_, now, recording_.identities[node_]);
    if (!node) return "the daemon does not start: " + node.error().detail;
    return fsck_problem((*node)->parts.store->batch(), store::Role::kDaemon);
  }

  const Recording& recording_;
  const Stream& stream_;
  Node node_;
  store::Durability durability_;
  std::string directory_;
  ScratchArena scratch_;
  std::vector<StateHash> states_;
};

const char* name_of(store::Durability durability) {
  return durability == store::Durability::kSync ? "sync" : "relaxed";
}

void report_failure(const Image& image, Node node, store::Durability durability,
                    const std::string& problem, const Options& options, Totals& totals) {
  constexpr std::uint64_t kShownMost = 10;
  if (++totals.failures > kShownMost) return;
  std::fprintf(stderr,
               "FAILED %s %s, event %zu, behind commit %llu, %.*s: %s\n"
               "  repeat with: crash_images --seed %llu --steps %u --durability %s --whole\n",
               name_of(durability), kNodeNames[node], image.event,
               static_cast<unsigned long long>(image.commit), static_cast<int>(image.kind.size()),
               image.kind.data(), problem.c_str(), static_cast<unsigned long long>(options.seed),
               options.steps, name_of(durability));
}

void check_node(const Recording& recording, Node node, store::Durability durability,
                const std::string& directory, const Options& options, Totals& totals) {
  const Stream& stream = recording.streams[node];
  Judge judge(recording, node, durability, directory);
  if (const std::string problem = judge.learn(); !problem.empty()) {
    return report_failure({}, node, durability, problem, options, totals);
  }
  // About this many commits of each stream are looked at closely in the short run.
  constexpr std::uint64_t kShort = 12;
  const auto stride = options.stride != 0 ? options.stride
                                          : static_cast<std::uint32_t>(stream.commits / kShort + 1);
  const ImageSink sink = [&](const Image& image) {
    std::snprintf(now_checking, sizeof now_checking, "  image: %s %s event %zu %.*s\n",
                  name_of(durability), kNodeNames[node], image.event,
                  static_cast<int>(image.kind.size()), image.kind.data());
    const Judged judged = judge.judge(image);
    ++totals.images;
    ++totals.by_kind[std::string(image.kind)];
    // A tear within the eight bytes of the commit's number, where they carry: no sector tears so,
    // and to refuse is better than to guess.
    if (judged.refused && image.kind == "torn meta") {
      ++totals.refused;
    } else if (!judged.problem.empty()) {
      report_failure(image, node, durability, judged.problem, options, totals);
    }
    return totals.failures < 1000;
  };
  const ImageCounts counts = each_image(stream, durability, stride, options.seed, sink);
  totals.commits += stream.commits;
  totals.writes += stream.writes;
  totals.epochs += counts.epochs;
  totals.all_subsets += counts.all_subsets;
}

// Not promised: what a power failure makes of a relaxed store. Counted, so that it can be said.
void survey_power_loss(const Recording& recording, const std::string& directory,
                       const Options& options) {
  std::uint64_t sound = 0, refused = 0, wrong = 0;
  sim::Rng rng(options.seed);
  const int images = options.stride == 1 ? 2'000 : 200;
  for (const Node node : {kBroker, kAlice, kBob}) {
    Judge judge(recording, node, store::Durability::kRelaxed, directory + kNodeNames[node]);
    if (!judge.learn().empty()) continue;
    const Stream& stream = recording.streams[node];
    for (int image = 0; image < images; ++image) {
      const Judged judged =
          judge.classify(power_loss_image(stream, rng.between(1, stream.events.size()), rng));
      ++(judged.problem.empty() ? sound : judged.refused ? refused : wrong);
    }
  }
  std::printf(
      "  relaxed and a power failure, of which nothing is promised: %d images: %llu show a "
      "commit, %llu are refused as damaged, %llu opened with other rows (fsck or a "
      "comparison tells)\n",
      3 * images, static_cast<unsigned long long>(sound), static_cast<unsigned long long>(refused),
      static_cast<unsigned long long>(wrong));
}

bool run(store::Durability durability, const Options& options) {
  const auto began = std::chrono::steady_clock::now();
  const std::string directory = work_directory();
  const Recording recording =
      record(directory + "/recorded", durability, options.seed, options.steps);
  Totals totals;
  if (!recording.problem.empty()) {
    std::fprintf(stderr, "FAILED to record: %s\n", recording.problem.c_str());
    totals.failures = 1;
  }
  for (const Node node : {kBroker, kAlice, kBob}) {
    if (totals.failures != 0) break;
    check_node(recording, node, durability, directory + "/" + kNodeNames[node], options, totals);
  }
  if (durability == store::Durability::kRelaxed && totals.failures == 0) {
    survey_power_loss(recording, directory + "/lost-", options);
  }
  std::filesystem::remove_all(directory);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "crash images, %s: %llu commits recorded, %llu writes, %llu epochs looked at "
      "(%llu with all subsets)\n",
      name_of(durability), n(totals.commits), n(totals.writes), n(totals.epochs),
      n(totals.all_subsets));
  std::printf("  %llu images checked", n(totals.images));
  for (const auto& [kind, count] : totals.by_kind) std::printf(", %s %llu", kind.c_str(), n(count));
  std::printf("\n  %llu failures, %llu refused (a tear within the number of a commit), %.1f s\n",
              n(totals.failures), n(totals.refused), took.count());
  return totals.failures == 0 && totals.images != 0;
}

bool parse(int count, char** words, Options& options) {
  for (int index = 1; index < count; ++index) {
    const std::string_view word = words[index];
    if (word == "--whole") {
      options.stride = 1;
      continue;
    }
    if (index + 1 == count) return false;
    const char* const value = words[++index];
    const auto number = static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10));
    if (word == "--seed") {
      options.seed = number;
    } else if (word == "--steps") {
      options.steps = number;
    } else if (word == "--stride") {
      options.stride = number;
    } else if (word == "--durability") {
      options.sync = std::string_view(value) == "sync";
      options.relaxed = !options.sync;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace cm::faults

int main(int count, char** words) {
  cm::faults::Options options;
  if (!cm::faults::parse(count, words, options)) {
    std::fprintf(stderr,
                 "usage: crash_images [--whole] [--seed N] [--steps N] [--stride N] "
                 "[--durability sync|relaxed]\n");
    return 3;
  }
  cm::sim::install_sodium_rng();
  if (!cm::crypto::initialise()) return 1;
  cm::add_crash_reporter(cm::faults::report_crash, nullptr);
  bool good = true;
  if (options.sync) good = cm::faults::run(cm::store::Durability::kSync, options);
  if (good && options.relaxed) good = cm::faults::run(cm::store::Durability::kRelaxed, options);
  return good ? 0 : 1;
}
