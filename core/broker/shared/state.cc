// state.cc — the mesh's shared state: small JSON values under text keys.
// Holds:  a value is kept and given back as it was written, numbers digit by digit. Every change is
//         told to all other connections. null is a value, as with existing brokers.
// Limits: keys of kStateKeyMax bytes, values of kStateValueMax and kStoredDepthMax levels,
//         state_keys_max a mesh.
// Source: docs/PROTOCOL.md §6; spec/wire.md §7.1; spec/observed.md: daemons wait for state_value,
//         others for state_result, so both are sent.
// Not:    who may read or write it (capabilities: broker.cc).
#include "core/broker/broker.h"
#include "core/wire/limits.h"

namespace cm::broker {

using store::TableId;

std::uint32_t Broker::count_rows(TableId table, std::uint32_t prefix, std::uint32_t most) {
  std::uint32_t count = 0;
  store::Cursor cursor(batch(), table);
  for (bool more = cursor.seek(store::u32_key(prefix).bytes()); more && count < most;
       more = cursor.next()) {
    if (load_be32(cursor.key().data()) != prefix) break;
    ++count;
  }
  return count;
}

void Broker::handle_set_state(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view key = fields.shown("key", wire::kStateKeyMax);
  const wire::JsonNode* value = fields.node("value");
  if (fields.ok() && key.empty()) fields.refuse("key", "1 to 256 bytes");
  if (fields.ok() && value == nullptr) fields.refuse("value", "any JSON value");
  if (fields.ok() && frame.tape.depth(*value) > wire::kStoredDepthMax) {
    fields.refuse("value", "at most 12 levels");
  }
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  TextBuf json_value(scratch(), 256);
  wire::JsonWriter writer(json_value);
  writer.value(*value);
  if (json_value.size() > wire::kStateValueMax) {
    return refuse(client, frame, fail(Err::kTooBig, "field 'value': at most 65536 bytes of JSON"));
  }
  if (!batch().admits()) return refuse(client, frame, fail(Err::kDiskFull));
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  const store::Key row_key = store::u32_bytes_key(mesh_no, as_bytes(key));
  store::StateRow row;
  row.fixed.updated_ms = env_.wall_ms;
  row.text[store::kStateKey] = key;
  row.text[store::kStateValue] = json_value.view();
  row.text[store::kStateUpdatedBy] = name_of(client);
  if (Status room = check_shared(mesh_no, TableId::kState, row_key.bytes(), row); !room) {
    return refuse(client, frame, room.error());
  }
  put_shared(mesh_no, TableId::kState, row_key.bytes(), row);
  confirm(client, frame);

  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "state_change").field("key", key);
  json.key("value").raw(json_value.view()).field("updatedBy", name_of(client)).end_object();
  std::size_t told = 0;
  for (const PresenceRef other : mesh(mesh_no)->presences) {
    for (const ClientRef socket : tables_.presences.get<kPresClients>(other)) {
      if (socket == client) continue;
      send_text(socket, text);
      ++told;
    }
  }
  charge_fan_out(client, told);
}

void Broker::handle_get_state(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const std::string_view key = fields.shown("key", wire::kStateKeyMax);
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  store::StateRow row;
  const bool found =
      batch().get(TableId::kState, store::u32_bytes_key(mesh_no, as_bytes(key)).bytes(), row);
  const auto write = [&](wire::JsonWriter& json) {
    json.field("key", key);
    if (found) {
      json.key("value").raw(row.text[store::kStateValue]);
      json.field("updatedBy", row.text[store::kStateUpdatedBy]);
      json.key("updatedAt").iso_time(row.fixed.updated_ms);
    } else {
      json.key("value").null().field("updatedBy", "").field("updatedAt", "");
    }
  };
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "state_result");
  write(json);
  finish_reply(client, frame, json, text);
  // The same for daemons that wait for another type and member.
  TextBuf second(scratch());
  wire::JsonWriter again(second);
  again.begin_object().field("type", "state_value").key("state");
  if (found) {
    again.begin_object();
    write(again);
    again.end_object();
  } else {
    again.null();
  }
  finish_reply(client, frame, again, second);
}

void Broker::handle_list_state(ClientRef client, const Frame& frame) {
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  constexpr std::size_t kListBytesMax = 900 << 10;
  bool complete = true;
  TextBuf text(scratch(), 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "state_list").key("entries").begin_array();
  store::Cursor cursor(batch(), TableId::kState);
  for (bool more = cursor.seek(store::u32_key(mesh_no).bytes()); more; more = cursor.next()) {
    if (load_be32(cursor.key().data()) != mesh_no) break;
    store::StateRow row;
    if (!cursor.row(row)) continue;
    if (text.size() + row.text[store::kStateValue].size() > kListBytesMax) {
      complete = false;
      break;
    }
    json.begin_object().field("key", row.text[store::kStateKey]);
    json.key("value").raw(row.text[store::kStateValue]);
    json.field("updatedBy", row.text[store::kStateUpdatedBy]);
    json.key("updatedAt").iso_time(row.fixed.updated_ms).end_object();
  }
  json.end_array();
  if (!complete) json.field("truncated", true);
  finish_reply(client, frame, json, text);
}

}  // namespace cm::broker
