// oracle.cc — walks over the tables of a store.
#include "tests/faults/oracle.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <map>
#include <unordered_set>

namespace cm::faults {
namespace {

using store::TableId;

template <class Visit>
void each_row(store::Batch& batch, TableId table, Visit visit) {
  store::Cursor cursor(batch, table);
  for (bool more = cursor.seek({}); more; more = cursor.next()) visit(cursor);
}

TableId table_of(PromiseKind kind) noexcept {
  switch (kind) {
    case PromiseKind::kAccepted: return TableId::kOutboxId;
    case PromiseKind::kStored: return TableId::kDedupe;
    case PromiseKind::kReceived: break;
  }
  return TableId::kInboxKey;
}

constexpr const char* kPromiseTexts[] = {"accepted", "stored", "received"};

}  // namespace

store::Role role_of(Node node) noexcept {
  return node == kBroker ? store::Role::kBroker : store::Role::kDaemon;
}

StateHash state_of(store::Batch& batch, store::Role role) {
  StateHash hash = 0;
  for (std::size_t index = 0; index < store::kTableCount; ++index) {
    const auto table = static_cast<TableId>(index);
    if ((store::info_of(table).roles & (1u << static_cast<unsigned>(role))) == 0) continue;
    hash = XXH3_64bits_withSeed(&index, sizeof index, hash);
    each_row(batch, table, [&](const store::Cursor& at) {
      hash = XXH3_64bits_withSeed(at.key().data(), at.key().size(), hash);
      hash = XXH3_64bits_withSeed(at.value().data(), at.value().size(), hash);
    });
  }
  return hash;
}

std::string fsck_problem(store::Batch& batch, store::Role role) {
  std::string found;
  store::fsck(batch, role, [&](std::string_view table, std::string_view problem, Bytes) {
    if (found.empty()) found = std::string(table) + ": " + std::string(problem);
  });
  return found;
}

std::string broken_promise(store::Batch& batch, Node node, const Promise* first,
                           const Promise* last) {
  // Ids have one length for each sender and end the keys of all three tables.
  std::array<std::unordered_set<std::string>, 3> known;
  for (const PromiseKind kind :
       {PromiseKind::kAccepted, PromiseKind::kStored, PromiseKind::kReceived}) {
    if ((kind == PromiseKind::kStored) != (node == kBroker)) continue;
    each_row(batch, table_of(kind), [&](const store::Cursor& at) {
      const std::string_view key = as_text(at.key());
      const std::size_t name = std::max(key.rfind("alice-") + 1, key.rfind("bob-") + 1);
      if (name != 0) known[static_cast<std::size_t>(kind)].emplace(key.substr(name - 1));
    });
  }
  for (const Promise* promise = first; promise != last; ++promise) {
    const auto kind = static_cast<std::size_t>(promise->kind);
    const bool of_traffic = promise->id.starts_with("alice-") || promise->id.starts_with("bob-");
    if (of_traffic && !known[kind].contains(promise->id)) {
      return std::string("lost, although it was ") + kPromiseTexts[kind] + ": " + promise->id;
    }
  }
  return {};
}

std::string lost_or_twice(World& world, const std::vector<Sent>& sent) {
  std::map<std::string, const Sent*> expected;
  for (const Sent& each : sent) {
    if (each.accepted) expected[each.id] = &each;
  }
  // The order of a lane is that of its outbox rows, also of those that were dropped by now.
  std::map<std::string, std::string> position;  // the row's own id
  for (const Node node : {kAlice, kBob}) {
    store::Batch& batch = world.parts(node).store->batch();
    each_row(batch, TableId::kOutbox, [&](store::Cursor& at) {
      store::OutboxRow row;
      if (at.row(row)) position.emplace(row.text[store::kOutboxClientId], as_text(at.key()));
    });
    each_row(batch, TableId::kTombstone, [&](store::Cursor& at) {
      store::TombstoneRow row;
      if (at.row(row)) position.emplace(row.text[store::kTombstoneClientId], as_text(at.key()));
    });
    world.parts(node).store->abort();
  }
  for (const Node node : {kAlice, kBob}) {
    store::Batch& batch = world.parts(node).store->batch();
    std::vector<Promise> promises;
    for (const auto& [id, each] : expected) {
      promises.push_back({each->to == node ? PromiseKind::kReceived : PromiseKind::kAccepted, id});
    }
    std::string problem =
        broken_promise(batch, node, promises.data(), promises.data() + promises.size());
    std::unordered_set<std::string> seen;
    std::map<store::Priority, std::string> last_of_lane;
    each_row(batch, TableId::kInbox, [&](store::Cursor& at) {
      store::InboxRow row;
      if (!at.row(row)) return void(problem = "a damaged inbox row");
      const std::string id(row.text[store::kInboxClientId]);
      const auto found = expected.find(id);
      if (found == expected.end()) return;
      if (!seen.insert(id).second) problem = "twice in the inbox: " + id;
      const std::string& body = found->second->body;
      if (!body.empty() && row.text[store::kInboxBody] != body) problem = "another body: " + id;
      std::string& last = last_of_lane[row.fixed.priority];
      if (!last.empty() && position[last] > position[id]) {
        problem = "out of order: " + id + " behind " + last;
      }
      last = id;
    });
    world.parts(node).store->abort();
    if (!problem.empty()) return std::string(kNodeNames[node]) + ": " + problem;
  }
  return {};
}

}  // namespace cm::faults
