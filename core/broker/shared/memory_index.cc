// memory_index.cc — which meshes have their memories' words in memory, and how they come there.
// Owns:   memory_indexes_, recalls_: one index a mesh, and who waits for one.
// Holds:  an index that is ready has the words of every memory of its mesh. One that is being built
//         has the rows up to `after`; what changes in front of it is changed in it, what changes
//         behind is read later. Changes of an abandoned iteration cost the index.
// Why:    a mesh may keep 256 MiB of memories: their words are read when somebody asks, a share in
//         an iteration, so that nobody else waits for them.
// Limits: search_index_bytes_max for all; the mesh that asked least recently makes room.
// Not:    searching (text_index.h), what a recall answers (memory.cc).
#include <algorithm>

#include "core/broker/broker.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr std::size_t kMemoryKeyHead = 4;  // mesh_no, then the id

// The share of one iteration: a few milliseconds, and always one row.
constexpr std::size_t kRowsAtOnce = 256;
constexpr std::size_t kBytesAtOnce = 32 * 1024;
constexpr std::uint64_t kCostAtOnce = 1'000'000;  // of answers, as TextIndex counts it
// Of SQLite for an open database, beside its pages.
constexpr std::uint64_t kIndexBytes = 64 * 1024;

constexpr std::uint64_t kIndexingMs = 1'000;  // ask again after

std::string_view id_of(Bytes key) { return as_text(key.subspan(kMemoryKeyHead)); }

Error index_too_large() {
  return fail(Err::kFull,
              "the memories of the mesh hold more words than the broker may keep for searching "
              "(search_index_bytes_max): forget some");
}

}  // namespace

// One share of the mesh that waits longest. It is built to its end before another one begins: two
// that grow in turn would push each other out for ever where only one of them has room.
void Broker::build_memory_indexes() {
  std::erase_if(recalls_, [this](const WaitingRecall& recall) { return !client_of(recall.conn); });
  if (recalls_.empty()) return;
  const std::uint32_t mesh_no = recalls_.front().mesh_no;
  MemoryIndex& index = memory_indexes_[mesh_no];
  index.used_ms = env_.mono_ms;
  index.too_large = false;
  if (index.ready || build_memory_index(mesh_no, index)) answer_waiting_recalls(mesh_no);
}

// What cannot be indexed is not tried for each recall.
bool Broker::was_too_large(std::uint32_t mesh_no) const {
  constexpr std::uint64_t kAgainMs = 600'000;
  const auto found = memory_indexes_.find(mesh_no);
  return found != memory_indexes_.end() && found->second.too_large &&
         env_.mono_ms - found->second.used_ms < kAgainMs;
}

void Broker::wait_for_index(ClientRef client, const Frame& frame, std::uint32_t mesh_no,
                            std::string_view query) {
  if (was_too_large(mesh_no)) return refuse(client, frame, index_too_large());
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const auto of_member = std::count_if(
      recalls_.begin(), recalls_.end(),
      [member_no](const WaitingRecall& recall) { return recall.member_no == member_no; });
  if (recalls_.size() >= kRecallsWaitingMax || of_member >= kRecallsWaitingOfOne) {
    return refuse_rate(client, frame, "rate_limit: memories are being indexed; ask again later",
                       kIndexingMs);
  }
  const ConnRef conn = tables_.clients.get<kClientConn>(client);
  recalls_.push_back({conn, mesh_no, member_no, std::string(query), std::string(frame.request_id)});
}

// One share. True if there is nothing left to do: it is ready, or it cannot be.
bool Broker::build_memory_index(std::uint32_t mesh_no, MemoryIndex& index) {
  const store::Key mesh_key = store::u32_key(mesh_no);
  bool sound = index.texts->begin();
  std::size_t rows = 0;
  std::size_t bytes = 0;
  store::Cursor cursor(batch(), TableId::kMemory);
  bool more =
      cursor.seek(index.after.empty() ? mesh_key.bytes() : as_bytes(std::string_view(index.after)));
  for (; sound && more && rows < kRowsAtOnce && bytes < kBytesAtOnce; more = cursor.next()) {
    const Bytes key = cursor.key();
    if (key.size() <= kMemoryKeyHead || load_be32(key.data()) != mesh_no) {
      more = false;
      break;
    }
    if (as_text(key) == index.after) continue;
    store::MemoryRow row;
    index.after = as_text(key);
    ++rows;
    if (!cursor.row(row)) continue;  // damaged: counted, confined, found by fsck
    bytes += row.text[store::kMemoryContent].size();
    sound =
        index.texts->add(id_of(key), row.text[store::kMemoryContent], row.text[store::kMemoryTags]);
  }
  sound = sound && index.texts->end();
  index.ready = sound && !more;
  if (!sound || !make_index_room(mesh_no)) {
    drop_memory_index(mesh_no);
    if (!sound) return true;
    MemoryIndex& mark = memory_indexes_[mesh_no];
    mark.too_large = true;
    mark.used_ms = env_.mono_ms;
    return true;
  }
  return index.ready;
}

// Those of one mesh, as far as the share of an iteration goes.
void Broker::answer_waiting_recalls(std::uint32_t mesh_no) {
  std::uint64_t cost = 0;
  while (cost < kCostAtOnce) {
    const auto next =
        std::find_if(recalls_.begin(), recalls_.end(),
                     [mesh_no](const WaitingRecall& recall) { return recall.mesh_no == mesh_no; });
    if (next == recalls_.end()) return;
    const WaitingRecall recall = std::move(*next);
    recalls_.erase(next);
    const ClientRef client = client_of(recall.conn);
    if (!client) continue;  // closed by the answer before
    touch(client);          // a commit that fails takes the answer with it
    Frame frame;
    frame.request_id = recall.request_id;
    const auto index = memory_indexes_.find(mesh_no);
    if (index != memory_indexes_.end() && index->second.ready) {
      // It paid when it came, and those before it were answered since.
      if (may_pay(client, frame, Cost::kReply)) {
        cost += answer_recall(client, frame, mesh_no, recall.query);
      }
    } else if (was_too_large(mesh_no)) {
      refuse(client, frame, index_too_large());
    } else {
      refuse(client, frame, fail(Err::kInternal, "the search index failed; ask again"));
    }
  }
}

// Whether the row of this key, if there is one, has its words in the index.
bool Broker::is_indexed(std::uint32_t mesh_no, Bytes key) const {
  const auto found = memory_indexes_.find(mesh_no);
  if (found == memory_indexes_.end()) return false;
  return found->second.ready || as_text(key) <= found->second.after;
}

void Broker::index_memory(std::uint32_t mesh_no, Bytes key, const store::MemoryRow& row) {
  indexes_changed_.push_back(mesh_no);
  if (!is_indexed(mesh_no, key)) return;
  MemoryIndex& index = memory_indexes_.find(mesh_no)->second;
  const bool added =
      index.texts->add(id_of(key), row.text[store::kMemoryContent], row.text[store::kMemoryTags]);
  // Nobody asks for it just now: it makes room for itself, not for itself alone.
  const bool fits = added && count_memory_index(index) <= limits_.search_index_bytes_max;
  if (!fits) drop_memory_index(mesh_no);
}

// Before the row is erased: its words are needed to find its places in the index.
void Broker::unindex_memory(std::uint32_t mesh_no, Bytes key) {
  indexes_changed_.push_back(mesh_no);
  store::MemoryRow row;
  // With less in the mesh it may fit again.
  const auto known = memory_indexes_.find(mesh_no);
  if (known != memory_indexes_.end() && known->second.too_large) drop_memory_index(mesh_no);
  if (!is_indexed(mesh_no, key) || !batch().get(TableId::kMemory, key, row)) return;
  MemoryIndex& index = memory_indexes_.find(mesh_no)->second;
  const bool removed = index.texts->remove(id_of(key), row.text[store::kMemoryContent],
                                           row.text[store::kMemoryTags]);
  if (!removed) drop_memory_index(mesh_no);
}

// Counts the index anew, and gives the bytes of all.
std::uint64_t Broker::count_memory_index(MemoryIndex& index) {
  memory_index_bytes_ -= index.bytes;
  index.bytes = kIndexBytes + index.texts->bytes();
  memory_index_bytes_ += index.bytes;
  return memory_index_bytes_;
}

// False if it does not fit although all others have gone.
bool Broker::make_index_room(std::uint32_t mesh_no) {
  count_memory_index(memory_indexes_.find(mesh_no)->second);
  while (memory_index_bytes_ > limits_.search_index_bytes_max) {
    auto oldest = memory_indexes_.end();
    for (auto each = memory_indexes_.begin(); each != memory_indexes_.end(); ++each) {
      if (each->first == mesh_no) continue;
      if (oldest == memory_indexes_.end() || each->second.used_ms < oldest->second.used_ms) {
        oldest = each;
      }
    }
    if (oldest == memory_indexes_.end()) return false;
    drop_memory_index(oldest->first);
  }
  return true;
}

void Broker::drop_memory_index(std::uint32_t mesh_no) {
  const auto found = memory_indexes_.find(mesh_no);
  if (found == memory_indexes_.end()) return;
  memory_index_bytes_ -= found->second.bytes;
  memory_indexes_.erase(found);
}

// The commit failed: what these indexes were told is not true.
void Broker::drop_changed_indexes() {
  for (const std::uint32_t mesh_no : indexes_changed_) drop_memory_index(mesh_no);
  indexes_changed_.clear();
}

}  // namespace cm::broker
