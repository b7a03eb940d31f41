// quotas.cc — how much a mesh keeps for its members: rows and bytes, counted as they change.
// Owns:   Tables::shared and Tables::subscribers.
// Holds:  they equal the tables kState, kMemory, kSkill, kTopicName and kTopicMember; all writers
//         of these go through here or through topics.cc.
// Why:    counting rows for each frame costs more the larger the mesh is.
// Limits: state_keys_max, memories_max, skills_max; mesh_shared_bytes_max of them together. What
//         takes the place of something larger is always admitted.
// Source: docs/PROTOCOL.md §6.
// Not:    what the rows mean (state.cc, memory.cc, skills.cc, topics.cc).
#include "core/broker/broker.h"

namespace cm::broker {
namespace {

using store::TableId;

constexpr TableId kShared[] = {TableId::kState, TableId::kMemory, TableId::kSkill};
constexpr std::string_view kNames[] = {"state keys", "memories", "skills"};
constexpr std::string_view kLimits[] = {"state_keys_max", "memories_max", "skills_max"};

std::size_t index_of(TableId table) noexcept {
  return table == TableId::kState ? 0 : table == TableId::kMemory ? 1 : 2;
}

}  // namespace

void Broker::load_shared() {
  tables_.shared.clear();
  tables_.subscribers.clear();
  const auto each = [&](TableId table, auto&& visit) {
    store::Cursor cursor(batch(), table);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      if (cursor.key().size() >= 4) visit(load_be32(cursor.key().data()), cursor.value().size());
    }
  };
  for (const TableId table : kShared) {
    each(table,
         [&](std::uint32_t mesh_no, std::size_t bytes) { count_shared(mesh_no, table, bytes); });
  }
  each(TableId::kTopicName,
       [&](std::uint32_t mesh_no, std::size_t) { ++shared_of(mesh_no).topics; });
  each(TableId::kTopicMember,
       [&](std::uint32_t topic_no, std::size_t) { ++tables_.subscribers[topic_no]; });
}

Status Broker::check_shared_bytes(std::uint32_t mesh_no, TableId table, Bytes key,
                                  std::uint64_t bytes) {
  const std::optional<Bytes> old = batch().get_raw(table, key);
  const SharedUse& use = shared_of(mesh_no);
  const std::size_t index = index_of(table);
  const std::uint32_t most[] = {limits_.state_keys_max, limits_.memories_max, limits_.skills_max};
  if (!old && use.rows[index] >= most[index]) {
    return fail(Err::kFull, "the mesh has as many " + std::string(kNames[index]) +
                                " as it allows (" + std::string(kLimits[index]) + ")");
  }
  const std::uint64_t freed = old ? old->size() : 0;
  if (bytes > freed && use.bytes - freed + bytes > limits_.mesh_shared_bytes_max) {
    return fail(Err::kFull,
                "state, memories and skills of the mesh have as many bytes as it "
                "allows (mesh_shared_bytes_max): remove some");
  }
  return {};
}

bool Broker::erase_shared(std::uint32_t mesh_no, TableId table, Bytes key) {
  const std::optional<Bytes> old = batch().get_raw(table, key);
  if (!old) return false;
  SharedUse& use = shared_of(mesh_no);
  CHECK(use.rows[index_of(table)] > 0 && use.bytes >= old->size());
  --use.rows[index_of(table)];
  use.bytes -= old->size();
  return batch().erase(table, key);
}

void Broker::count_shared(std::uint32_t mesh_no, TableId table, std::uint64_t bytes) {
  SharedUse& use = shared_of(mesh_no);
  ++use.rows[index_of(table)];
  use.bytes += bytes;
}

const char* Broker::verify_shared() {
  const auto shared = tables_.shared;
  const auto subscribers = tables_.subscribers;
  load_shared();
  for (const auto& [mesh_no, use] : shared) {
    const SharedUse& now = shared_of(mesh_no);
    if (use.rows != now.rows || use.bytes != now.bytes || use.topics != now.topics) {
      return "a mesh counts other shared rows or bytes than the store has";
    }
  }
  if (tables_.shared.size() != shared.size()) return "a mesh does not count what it shares";
  for (const auto& [topic_no, count] : subscribers) {
    if (tables_.subscribers[topic_no] != count) return "a topic counts other members than it has";
  }
  if (tables_.subscribers.size() != subscribers.size()) return "a topic counts no members";
  return nullptr;
}

}  // namespace cm::broker
