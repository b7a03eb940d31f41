// routes_outbox_row.cc — one row of the outbox for its operator: look at it, drop it, prune many.
// Holds:  an id is looked up as people have it (outbox_find.cc). Looking changes nothing; dropping
//         is for what has ended, what is on its way is requeued. An id outlives both.
// Source: docs/PROTOCOL.md §10.3; design/delivery.md, "Outbox: states".
// Not:    lists (routes_outbox.cc), the second attempt (requeue.cc), shrinking (tombstones.cc).
#include <algorithm>

#include "core/daemon/daemon.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;
using wire::Need;

constexpr std::size_t kChainMost = 100;  // links shown in each direction
constexpr std::int64_t kSecondsMost = 10ll * 365 * 86'400;

wire::JsonWriter& nullable_number(wire::JsonWriter& json, std::string_view key, bool has,
                                  std::int64_t number) {
  json.key(key);
  return has ? json.number(number) : json.null();
}

std::uint32_t bit_of(OutboxStatus status) noexcept { return 1u << static_cast<unsigned>(status); }

void write_times(const store::OutboxRow& row, wire::JsonWriter& json) {
  const bool pending = row.fixed.status == OutboxStatus::kPending;
  json.key("enqueued_at").iso_time(row.fixed.enqueued_ms);
  json.key("next_attempt_at").iso_time_or_null(pending ? row.fixed.next_attempt_ms : 0);
  json.key("delivered_at").iso_time_or_null(row.fixed.delivered_ms);
  json.key("ended_at").iso_time_or_null(row.fixed.ended_ms);
  json.key("shrunk_at").null();
}

}  // namespace

void Daemon::get_outbox_row(ConnRef conn, const wire::HttpRequest& request) {
  const auto found = find_outbox(last_segment(request));
  if (!found) return reply_error(conn, found.error());
  const UlidText id = ulid_text(found->id);
  TextBuf text(scratch(), 2048);
  wire::JsonWriter json(text);
  json.begin_object().field("id", view(id));
  if (found->is_tombstone) {
    store::TombstoneRow row;
    if (!tombstone_row(found->id, row)) {
      return reply_error(conn, fail(Err::kCorrupt, "the tombstone of this id"));
    }
    json.field("client_message_id", row.text[store::kTombstoneClientId]);
    json.field("status", text_of(outbox_state(row.fixed.status))).field("tombstone", true);
    json.field("mesh", slug_of(row.text[store::kTombstoneMesh])).key("target").null();
    json.key("priority").null().key("sender_session_pubkey").null().key("reply_to_id").null();
    json.key("attempts").null();
    json.key("enqueued_at").iso_time(row.fixed.enqueued_ms).key("next_attempt_at").null();
    json.key("delivered_at").null().key("ended_at").iso_time_or_null(row.fixed.ended_ms);
    json.key("shrunk_at").iso_time_or_null(row.fixed.shrunk_ms);
    json.field("dropped", row.fixed.dropped != 0);
    json.nullable_field("broker_message_id", row.text[store::kTombstoneBrokerId]);
    json.nullable_field("last_error", row.text[store::kTombstoneReason]);
    json.key("aborted_at").null().key("aborted_by").null();
    json.nullable_field("superseded_by", row.text[store::kTombstoneSupersededBy]);
    json.nullable_field("supersedes", row.text[store::kTombstoneSupersedes]);
    json.key("payload_bytes").null().key("ciphertext_bytes").null();
    json.key("request_fingerprint_prefix").hex(Bytes(row.fixed.request_fingerprint).first(8));
  } else {
    store::OutboxRow row;
    store::OutboxBodyRow body;
    if (!outbox_row(found->id, row)) {
      return reply_error(conn, fail(Err::kCorrupt, "the outbox row of this id"));
    }
    const store::Key key = store::ulid_key(found->id);
    const bool whole = batch().get(TableId::kOutboxBody, key.bytes(), body);
    json.field("client_message_id", row.text[store::kOutboxClientId]);
    json.field("status", text_of(outbox_state(row.fixed.status))).field("tombstone", false);
    json.field("mesh", slug_of(row.text[store::kOutboxMesh]));
    json.field("target", row.text[store::kOutboxTarget]);
    json.field("priority", text_of(static_cast<wire::Priority>(row.fixed.priority)));
    json.key("sender_session_pubkey");
    row.fixed.has_session != 0 ? json.hex(row.fixed.sender_session) : json.null();
    json.nullable_field("reply_to_id", body.text[store::kBodyReplyTo]);
    json.field("attempts", row.fixed.attempts);
    write_times(row, json);
    json.field("dropped", false);
    json.nullable_field("broker_message_id", row.text[store::kOutboxBrokerId]);
    json.nullable_field("last_error", row.text[store::kOutboxLastError]);
    json.key("aborted_at").iso_time_or_null(row.fixed.aborted_ms);
    json.nullable_field("aborted_by", row.text[store::kOutboxAbortedBy]);
    json.nullable_field("superseded_by", row.text[store::kOutboxSupersededBy]);
    json.nullable_field("supersedes", row.text[store::kOutboxSupersedes]);
    json.field("payload_bytes", row.fixed.payload_bytes);
    nullable_number(json, "ciphertext_bytes", whole,
                    static_cast<std::int64_t>(body.text[store::kBodyCiphertext].size()));
    json.key("request_fingerprint_prefix").hex(Bytes(row.fixed.request_fingerprint).first(8));
  }
  write_lane(found->id, json);
  write_chain(*found, json);
  json.end_object();
  reply(conn, 200, text.view());
}

// Where it stands, and what it waits for; null of what has ended.
void Daemon::write_lane(const Ulid& id, wire::JsonWriter& json) {
  json.key("lane");
  const auto found = tables_.work_of.find(id);
  if (found == tables_.work_of.end()) {
    json.null();
    return;
  }
  const WorkRef work = found->second;
  const LaneRef lane = tables_.work.get<kWorkLane>(work);
  const MeshRef mesh = tables_.lanes.get<kLaneMesh>(lane);
  std::int64_t position = 0, length = 0;
  for (WorkRef at = tables_.lanes.get<kLaneFirst>(lane); at; at = tables_.work.get<kWorkNext>(at)) {
    ++length;
    if (at == work) position = length;
  }
  const std::uint64_t due = tables_.lanes.get<kLaneDue>(lane);
  const std::string_view waits_for =
      position > 1                                          ? "messages before it"
      : tables_.work.get<kWorkInflight>(work) != 0          ? "the broker's answer"
      : !mesh                                               ? "its mesh to be joined again"
      : state_of(mesh) != LinkState::kOpen                  ? "the broker connection"
      : tables_.links.get<kLinkBlocked>(link_of(mesh)) != 0 ? "the transport"
      : due > env_.mono_ms                                  ? "the backoff"
                                                            : "its turn";
  json.begin_object().field("position", position).field("length", length);
  json.field("waits_for", waits_for);
  json.field("failures", tables_.lanes.get<kLaneFailures>(lane));
  json.field("due_in_ms", due > env_.mono_ms ? due - env_.mono_ms : 0).end_object();
}

// The attempts at one message, oldest first: both ways from this row to the ends of the chain.
void Daemon::write_chain(const FoundRow& from, wire::JsonWriter& json) {
  struct Link {
    FoundRow row;
    std::string client_id, status, reason, before, after;
    std::uint64_t enqueued_ms = 0, ended_ms = 0;
  };
  const auto read = [&](const FoundRow& at) -> std::optional<Link> {
    Link link;
    link.row = at;
    if (at.is_tombstone) {
      store::TombstoneRow row;
      if (!tombstone_row(at.id, row)) return std::nullopt;
      link.client_id = row.text[store::kTombstoneClientId];
      link.status = text_of(outbox_state(row.fixed.status));
      link.reason = row.text[store::kTombstoneReason];
      link.before = row.text[store::kTombstoneSupersedes];
      link.after = row.text[store::kTombstoneSupersededBy];
      link.enqueued_ms = row.fixed.enqueued_ms;
      link.ended_ms = row.fixed.ended_ms;
      return link;
    }
    store::OutboxRow row;
    if (!outbox_row(at.id, row)) return std::nullopt;
    link.client_id = row.text[store::kOutboxClientId];
    link.status = text_of(outbox_state(row.fixed.status));
    link.reason = row.text[store::kOutboxLastError];
    link.before = row.text[store::kOutboxSupersedes];
    link.after = row.text[store::kOutboxSupersededBy];
    link.enqueued_ms = row.fixed.enqueued_ms;
    link.ended_ms = row.fixed.ended_ms;
    return link;
  };
  std::vector<Link> chain;
  const auto follow = [&](bool back) {
    for (std::size_t links = 0; links < kChainMost; ++links) {
      const Link& end = back ? chain.front() : chain.back();
      const std::string next = back ? end.before : end.after;
      const auto found = next.empty() ? std::nullopt : find_outbox_id(next);
      const auto link = found ? read(*found) : std::nullopt;
      if (!link) return;
      chain.insert(back ? chain.begin() : chain.end(), *link);
    }
  };
  if (auto first = read(from)) {
    chain.push_back(*first);
    follow(true);
    follow(false);
  }
  json.key("chain").begin_array();
  for (const Link& link : chain) {
    const UlidText id = ulid_text(link.row.id);
    json.begin_object().field("id", view(id)).field("client_message_id", link.client_id);
    json.field("status", link.status).field("tombstone", link.row.is_tombstone);
    json.key("enqueued_at").iso_time(link.enqueued_ms);
    json.key("ended_at").iso_time_or_null(link.ended_ms);
    json.nullable_field("last_error", link.reason);
    json.field("this", link.row.id == from.id).end_object();
  }
  json.end_array();
}

void Daemon::delete_outbox_row(ConnRef conn, const wire::HttpRequest& request) {
  const auto found = find_outbox(last_segment(request));
  if (found.code() == Err::kNotFound) outbox_next(OutboxState::kNone, OutboxEvent::kDrop);
  if (!found) return reply_error(conn, found.error());
  const UlidText id = ulid_text(found->id);
  const auto answer = [&](std::string_view client_id, OutboxStatus status, bool dropped) {
    TextBuf text(scratch());
    wire::JsonWriter json(text);
    json.begin_object().field("id", view(id)).field("client_message_id", client_id);
    json.field("status", text_of(outbox_state(status))).field("dropped", dropped).end_object();
    return text.view();
  };
  if (found->is_tombstone) {
    store::TombstoneRow row;
    if (!tombstone_row(found->id, row)) {
      return reply_error(conn, fail(Err::kCorrupt, "the tombstone of this id"));
    }
    outbox_next(OutboxState::kTombstone, OutboxEvent::kDrop);
    return reply(conn, 200, answer(row.text[store::kTombstoneClientId], row.fixed.status, false));
  }
  store::OutboxRow row;
  if (!outbox_row(found->id, row)) {
    return reply_error(conn, fail(Err::kCorrupt, "the outbox row of this id"));
  }
  const OutboxState state = state_of_row(found->id, row);
  const OutboxCell& cell = outbox_next(state, OutboxEvent::kDrop);
  if (cell.kind == CellKind::kRefused) {
    return reply_error(
        conn, fail(Err::kOutboxOpen, "the message is " + std::string(text_of(state)) + "; " +
                                         "only what has ended can be dropped"));
  }
  const std::string_view body = answer(row.text[store::kOutboxClientId], row.fixed.status, true);
  shrink(found->id, row, cell, true);
  reply(conn, 200, body);
}

// {older_than_s?, states?, dry_run?}: what can still be requeued is pruned only by name.
void Daemon::post_prune(ConnRef conn, const wire::HttpRequest& request) {
  const wire::JsonTape* tape = body_of(conn, request);
  if (tape == nullptr) return;
  wire::FieldReader fields(*tape, tape->root());
  fields.only({"older_than_s", "states", "dry_run"});
  const std::int64_t seconds = fields.integer("older_than_s", 0, kSecondsMost, Need::kOptional, 0);
  const wire::JsonNode* states = fields.array("states", Need::kOptional);
  Shrink shrink;
  shrink.conn = conn;
  shrink.dry_run = fields.boolean("dry_run", false);
  const auto refuse = [&] { fields.refuse("states", "a list of done, dead and aborted"); };
  if (states == nullptr) {
    shrink.states = bit_of(OutboxStatus::kDone) | bit_of(OutboxStatus::kAborted);
  } else if (states->count == 0) {
    refuse();
  } else {
    for (std::uint32_t at = tape->first(*states); at < states->next; at = tape->at(at).next) {
      const wire::JsonNode& item = tape->at(at);
      const std::string_view word = item.type == wire::JsonType::kText ? item.text : "";
      std::uint32_t bit = 0;
      for (const OutboxStatus status :
           {OutboxStatus::kDone, OutboxStatus::kDead, OutboxStatus::kAborted}) {
        if (word == text_of(outbox_state(status))) bit = bit_of(status);
      }
      if (bit == 0) refuse();
      shrink.states |= bit;
    }
  }
  if (!fields.ok()) return reply_error(conn, fields.take().error());
  const std::uint64_t age = static_cast<std::uint64_t>(seconds) * 1000;
  // Of this instant, too, unless an age was named.
  shrink.before_ms = seconds == 0 ? UINT64_MAX : env_.wall_ms - std::min(env_.wall_ms, age);
  if (!may_shrink(conn)) return;
  start_shrink(shrink);
}

}  // namespace cm::daemon
