// memory.cc — what a mesh remembers: texts with tags, found again by their words.
// Holds:  rows are the truth, the index of their words is a cache. A forgotten memory is gone;
//         forgetting one that is unknown is answered by an ack with an error, so that who waits for
//         an ack has one and nobody believes that it was done.
// Limits: kMemoryTextMax bytes a memory, memories_max a mesh. What words cost, for the broker to
//         index or to find, counts with the replies of the member (meter.cc).
// Source: docs/PROTOCOL.md §6; spec/wire.md §7.2; spec/observed.md: both names of the reply's
//         members are sent.
// Not:    searching itself (text_index.h), when words are indexed (memory_index.cc).
#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/crypto/random.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

using store::TableId;

// What the words of one byte cost, in bytes of replies: who writes long texts writes fewer of them.
constexpr std::size_t kIndexCost = 8;

}  // namespace

void Broker::handle_remember(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view content = fields.text("content", wire::kMemoryTextMax);
  const wire::JsonNode* tags = fields.array("tags", wire::Need::kOptional);
  if (fields.ok() && content.empty()) fields.refuse("content", "a text that is not empty");
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  if (tags != nullptr) {
    if (Status good = check_texts(frame.tape, *tags, wire::kTagsMax, wire::kTagMax); !good) {
      return refuse(client, frame, fail(Err::kMalformed, "field 'tags': " + good.error().detail));
    }
  }
  if (!batch().admits()) return refuse(client, frame, fail(Err::kDiskFull));
  if (!may_pay(client, frame, Cost::kReply)) return;
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const crypto::Base62Id id = crypto::base62_id(env_.rng);
  TextBuf tags_json(scratch(), 64);
  wire::JsonWriter tags_writer(tags_json);
  if (tags != nullptr) write_texts(frame.tape, *tags, tags_writer);
  store::MemoryRow row;
  row.fixed.remembered_ms = env_.wall_ms;
  row.fixed.member_no = tables_.clients.get<kClientMemberNo>(client);
  row.text[store::kMemoryContent] = content;
  row.text[store::kMemoryTags] = tags == nullptr ? std::string_view("[]") : tags_json.view();
  row.text[store::kMemoryBy] = name_of(client);
  const store::Key key = store::u32_bytes_key(mesh_no, as_bytes(crypto::view(id)));
  if (Status room = check_shared(mesh_no, TableId::kMemory, key.bytes(), row); !room) {
    return refuse(client, frame, room.error());
  }
  put_shared(mesh_no, TableId::kMemory, key.bytes(), row);
  index_memory(mesh_no, key.bytes(), row);
  charge_reply(client, kIndexCost * content.size());
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "memory_stored").field("id", crypto::view(id));
  json.field("memoryId", crypto::view(id));
  finish_reply(client, frame, json, text);
}

void Broker::handle_recall(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view query = fields.text("query", wire::kQueryMax, wire::Need::kOptional);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const auto index = memory_indexes_.find(mesh_no);
  if (index != memory_indexes_.end() && index->second.ready) {
    answer_recall(client, frame, mesh_no, query);
    return;
  }
  wait_for_index(client, frame, mesh_no, query);
}

std::uint64_t Broker::answer_recall(ClientRef client, const Frame& frame, std::uint32_t mesh_no,
                                    std::string_view query) {
  std::vector<std::string> ids;
  std::uint64_t cost = 0;
  std::size_t most = 0;
  auto found = TextIndex::Found::kFailed;
  if (const auto index = memory_indexes_.find(mesh_no); index != memory_indexes_.end()) {
    index->second.used_ms = env_.mono_ms;
    most = index->second.texts->words_max();
    found = index->second.texts->search(query, ids, cost);
  }
  charge_reply(client, cost);
  if (found == TextIndex::Found::kTooManyWords) {
    refuse(client, frame,
           fail(Err::kMalformed,
                "field 'query': expected at most " + std::to_string(most) + " different words"));
    return cost;
  }
  if (found == TextIndex::Found::kFailed) {
    drop_memory_index(mesh_no);
    refuse(client, frame, fail(Err::kInternal, "the search index failed; ask again"));
    return cost;
  }
  TextBuf list(scratch(), 2048);
  write_memories(mesh_no, ids, list);
  for (const auto& [type, member_name] :
       {std::pair{"memory_results", "memories"}, std::pair{"memory_recall_result", "matches"}}) {
    TextBuf text(scratch(), list.size() + 256);
    wire::JsonWriter json(text);
    json.begin_object().field("type", type).key(member_name).raw(list.view());
    finish_reply(client, frame, json, text);
  }
  return cost;
}

void Broker::write_memories(std::uint32_t mesh_no, const std::vector<std::string>& ids,
                            TextBuf& list) {
  wire::JsonWriter entries(list);
  entries.begin_array();
  for (const std::string& id : ids) {
    store::MemoryRow row;
    const store::Key key = store::u32_bytes_key(mesh_no, as_bytes(std::string_view(id)));
    if (!batch().get(TableId::kMemory, key.bytes(), row)) continue;
    entries.begin_object().field("id", id).field("content", row.text[store::kMemoryContent]);
    entries.key("tags").raw(row.text[store::kMemoryTags]);
    entries.field("rememberedBy", row.text[store::kMemoryBy]);
    entries.key("rememberedAt").iso_time(row.fixed.remembered_ms).end_object();
  }
  entries.end_array();
}

void Broker::handle_forget(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view id = fields.broker_id("memoryId");
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const store::Key key = store::u32_bytes_key(mesh_no, as_bytes(id));
  unindex_memory(mesh_no, key.bytes());
  const bool erased = erase_shared(mesh_no, TableId::kMemory, key.bytes());
  // An `ack` that names the memory in both ids (spec/wire.md §5.2).
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "ack").field("id", id).field("messageId", id);
  json.field("queued", false);
  if (!erased) {
    json.field("error", "no memory of this mesh has this id");
    json.field("code", info_of(Err::kNotFound).wire_code);
  }
  finish_reply(client, frame, json, text);
}

}  // namespace cm::broker
