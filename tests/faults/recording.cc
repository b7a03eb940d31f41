// recording.cc — the hook behind the shim, and the run that it listens to.
#include "tests/faults/recording.h"

#include <algorithm>
#include <map>

#include "store/pages.h"
#include "tests/faults/record_shim.h"

namespace cm::faults {
namespace {

constexpr std::uint64_t kMetaBytes = 120;

struct Descriptor {
  Node node = kBroker;
  bool is_synced = false;
};

// The hook is a C function without a context: one recording at a time.
struct Recorder {
  Recording* to = nullptr;
  std::map<int, Descriptor> open;

  Stream* stream_of(int fd) {
    const auto found = open.find(fd);
    return found == open.end() ? nullptr : &to->streams[found->second.node];
  }
};
Recorder recorder;

void note_open(int fd, std::string_view path, bool is_synced) {
  if (!path.ends_with("/data.mdb")) return;
  for (const Node node : {kBroker, kAlice, kBob}) {
    const std::string folder = "/" + std::string(kNodeNames[node]) + "/";
    if (path.find(folder) != std::string_view::npos) recorder.open[fd] = {node, is_synced};
  }
}

void note_write(Stream& stream, const Descriptor& at, Bytes bytes, std::uint64_t offset,
                bool goes_on) {
  if (!goes_on) ++stream.writes;
  const bool is_meta = bytes.size() == kMetaBytes && offset < 2 * store::kPageBytes;
  if (is_meta) ++stream.commits;
  while (!bytes.empty()) {
    const std::size_t room = store::kPageBytes - offset % store::kPageBytes;
    const Bytes part = bytes.first(std::min(bytes.size(), room));
    Event event;
    event.is_meta = is_meta;
    event.is_synced = at.is_synced;
    event.write = static_cast<std::uint32_t>(stream.writes);
    event.offset = offset;
    event.bytes.assign(part.begin(), part.end());
    event.promises = stream.promises.size();
    stream.events.push_back(std::move(event));
    bytes = bytes.subspan(part.size());
    offset += part.size();
  }
}

void on_call(cm_record_kind kind, int fd, const void* bytes, std::size_t size, long long offset) {
  if (kind == CM_RECORD_OPEN) return note_open(fd, static_cast<const char*>(bytes), size != 0);
  if (kind == CM_RECORD_CLOSE) return void(recorder.open.erase(fd));
  Stream* const stream = recorder.stream_of(fd);
  if (stream == nullptr) return;
  Event event;
  event.offset = static_cast<std::uint64_t>(offset);
  event.promises = stream->promises.size();
  switch (kind) {
    case CM_RECORD_WRITE:
    case CM_RECORD_WRITE_ON:
      return note_write(*stream, recorder.open[fd], {static_cast<const std::uint8_t*>(bytes), size},
                        event.offset, kind == CM_RECORD_WRITE_ON);
    case CM_RECORD_SYNC:
      ++stream->syncs;
      event.kind = EventKind::kSync;
      break;
    case CM_RECORD_RESIZE: event.kind = EventKind::kResize; break;
    default: stream->problem = "a call that is not modelled (fallocate, msync)"; return;
  }
  stream->events.push_back(std::move(event));
}

}  // namespace

Recording record(const std::string& directory, store::Durability durability, std::uint64_t seed,
                 std::uint32_t steps) {
  Recording recording;
  sim::seed_sodium_rng(seed);
  Observer observer;
  World* running = nullptr;
  observer.after_commit = [&](Node node, store::CommitResult result) {
    if (result != store::CommitResult::kCommitted) return;
    store::Store& store = *running->parts(node).store;
    Stream& stream = recording.streams[node];
    stream.seen.push_back({stream.commits, state_of(store.batch(), role_of(node))});
    store.abort();
  };
  observer.promised = [&](Node node, const Promise& promise) {
    recording.streams[node].promises.push_back(promise);
  };
  recorder = {&recording, {}};
  cm_record_set(on_call);
  {
    World world(directory, durability, observer);
    running = &world;
    Traffic traffic(world, seed);
    if (const Status started = world.start(); !started) {
      recording.problem = started.error().detail;
    } else {
      traffic.furnish();
      for (std::uint32_t step = 0; step < steps; ++step) traffic.step();
      if (!traffic.finish()) recording.problem = "not everything arrived";
    }
    if (recording.problem.empty()) recording.problem = lost_or_twice(world, traffic.sent());
    for (const Node node : {kAlice, kBob}) recording.identities[node] = world.who(node);
    recording.end_ms = world.now_ms();
  }
  cm_record_set(nullptr);
  recorder = {};
  for (const Stream& stream : recording.streams) {
    if (recording.problem.empty()) recording.problem = stream.problem;
  }
  return recording;
}

}  // namespace cm::faults
