// tiny_state.cc — what makes two states of the tiny world the same.
// Holds:  stores, mirrors and wires in a canonical form: messages by their number, members by
//         theirs, connections in their order. Left out: times (whether something is due counts),
//         random ids and serial numbers (what they refer to counts), texts that are only shown.
#include <algorithm>

#include "core/base/check.h"
#include "core/crypto/encoding.h"
#include "tests/sim/tiny_world.h"

namespace cm::sim {
namespace {

using store::TableId;

void add(std::string& out, std::string_view what, std::uint64_t value) {
  out += what;
  out += std::to_string(value);
  out += ' ';
}

}  // namespace

std::string TinyWorld::short_key(std::string_view hex) const {
  for (const DaemonNode& daemon : daemons_) {
    if (daemon.who().key_hex == hex) return "k" + std::to_string(daemon.who().number);
  }
  return "k?";
}

std::string TinyWorld::short_form(std::string_view frame, std::uint32_t daemon) {
  std::string out(frame.substr(0, frame.find(',')));
  for (const std::string_view key : {"client_message_id", "clientMessageId", "event", "code"}) {
    out += '|';
    out += member_of_frame(frame, key);
  }
  if (is_type(frame, "ack")) out += member_of_frame(frame, "id");
  for (const std::string_view flag : {"\"queued\":true", "\"duplicate\":true"}) {
    out += frame.find(flag) != std::string_view::npos ? '+' : '-';
  }
  // Who is named: in a list, or as the subject of an event.
  if (!is_type(frame, "hello") && !is_type(frame, "send")) {
    for (const DaemonNode& each : daemons_) {
      if (frame.find(each.who().key_hex) == std::string_view::npos) continue;
      out += 'k';
      out += std::to_string(each.who().number);
    }
  }
  // A list that answers an older question than the last one is ignored.
  const std::string_view id = member_of_frame(frame, "_reqId");
  if (id.starts_with("pl-") && daemons_[daemon].up()) {
    const auto& meshes = daemons_[daemon].core().tables().meshes;
    meshes.each([&](daemon::MeshRef mesh) {
      const std::uint64_t asked = meshes.get<daemon::kMeshRoster>(mesh).asked_serial;
      out += std::to_string(asked) == id.substr(3) ? "current" : "old";
    });
  }
  return out;
}

void TinyWorld::describe_daemon(std::uint32_t number, std::string& out) {
  DaemonNode& node = daemons_[number];
  add(out, "\nd", number);
  if (!node.up()) {
    out += "down";
    return;
  }
  store::Cursor outbox(node.batch(), TableId::kOutbox);
  for (bool more = outbox.seek({}); more; more = outbox.next()) {
    store::OutboxRow row;
    CHECK(outbox.row(row));
    out += row.text[store::kOutboxClientId];
    add(out, ":", static_cast<std::uint64_t>(row.fixed.status));
    add(out, "tries", std::min<std::uint32_t>(row.fixed.attempts, 2));
  }
  out += "| inbox ";
  store::Cursor inbox(node.batch(), TableId::kInbox);
  for (bool more = inbox.seek({}); more; more = inbox.next()) {
    store::InboxRow row;
    CHECK(inbox.row(row));
    out += row.text[store::kInboxClientId];
    out += ' ';
  }
  node.end_reading();
  const daemon::Tables& tables = node.core().tables();
  tables.links.each([&](daemon::LinkRef link) {
    add(out, "link", static_cast<std::uint64_t>(tables.links.get<daemon::kLinkState>(link)));
    const daemon::Features& features = tables.links.get<daemon::kLinkFeatures>(link);
    add(out, "features", static_cast<std::uint64_t>(features.state));
    add(out, "reopen", tables.links.get<daemon::kLinkReopenAt>(link) != 0);
  });
  tables.meshes.each([&](daemon::MeshRef mesh) {
    const daemon::Roster& roster = tables.meshes.get<daemon::kMeshRoster>(mesh);
    add(out, "roster", static_cast<std::uint64_t>(roster.state));
    add(out, "stale", roster.stale);
    add(out, "asked", roster.asked_serial != 0);
    add(out, "peers", roster.peers.size());
  });
  tables.lanes.each([&](daemon::LaneRef lane) {
    out += "lane";
    for (daemon::WorkRef work = tables.lanes.get<daemon::kLaneFirst>(lane); work;
         work = tables.work.get<daemon::kWorkNext>(work)) {
      out += tables.work.get<daemon::kWorkInflight>(work) != 0 ? '*' : '.';
    }
    const std::uint64_t lane_due = tables.lanes.get<daemon::kLaneDue>(lane);
    add(out, "waits", lane_due > node.clock.mono(now_ms_));
  });
  add(out, "due", node.due_ms() <= now_ms_);
}

void TinyWorld::describe_broker(std::string& out) {
  out += "\nbroker ";
  if (!broker_.up()) {
    out += "down";
    return;
  }
  store::Batch& batch = broker_.batch();
  const broker::Tables& tables = broker_.core().tables();
  const auto client_id = [&](const Ulid& message) {
    store::MessageRow row;
    if (!batch.get(TableId::kMessage, store::ulid_key(message).bytes(), row))
      return std::string("?");
    return std::string(row.text[store::kMessageClientId]);
  };
  store::Cursor messages(batch, TableId::kMessage);
  for (bool more = messages.seek({}); more; more = messages.next()) {
    store::MessageRow row;
    CHECK(messages.row(row));
    out += row.text[store::kMessageClientId];
    out += ' ';
  }
  out += "| queued ";
  store::Cursor queued(batch, TableId::kDelivery);
  for (bool more = queued.seek({}); more; more = queued.next()) {
    store::DeliveryKeyParts parts;
    CHECK(store::parse_delivery_key(queued.key(), parts));
    out += client_id(parts.message) + ' ';
  }
  std::size_t known = 0;
  store::Cursor dedupe(batch, TableId::kDedupe);
  for (bool more = dedupe.seek({}); more; more = dedupe.next()) ++known;
  add(out, "| known", known);
  for (const auto& channel : network_.channels()) {
    if (channel->conn.slot >= tables.client_of_slot.size()) continue;
    const broker::ClientRef client = tables.client_of_slot[channel->conn.slot];
    if (!tables.clients.alive(client) ||
        !(tables.clients.get<broker::kClientConn>(client) == channel->conn)) {
      continue;
    }
    add(out, "client of d", channel->daemon);
    add(out, "hello", tables.clients.get<broker::kClientHelloDeadline>(client) == 0);
    add(out, "policy", tables.clients.get<broker::kClientKnowsPolicy>(client));
    add(out, "lapsed", tables.clients.get<broker::kClientLapsed>(client).any());
    for (broker::ClaimRef claim = tables.clients.get<broker::kClientClaims>(client).first; claim;
         claim = tables.claims.get<broker::kClaimLinks>(claim).next) {
      out += client_id(tables.claims.get<broker::kClaimMessage>(claim)) + ' ';
    }
  }
  for (const DaemonNode& daemon : daemons_) {
    tables.presences.each([&](broker::PresenceRef presence) {
      if (!(tables.presences.get<broker::kPresKey>(presence).key == daemon.who().key)) return;
      add(out, "presence of d", daemon.who().number);
      add(out, "away", tables.presences.get<broker::kPresDeadline>(presence) != 0);
      add(out, "sockets", tables.presences.get<broker::kPresClients>(presence).size());
    });
  }
  broker_.end_reading();
  add(out, "due", broker_.due_ms() <= now_ms_);
}

void TinyWorld::describe_wires(std::string& out) {
  for (const auto& channel : network_.channels()) {
    if (!channel->daemon_side && !channel->broker_side) continue;
    add(out, "\nwire of d", channel->daemon);
    for (const bool flag : {channel->daemon_side, channel->broker_side, channel->daemon_knows,
                            channel->broker_knows, channel->cut, channel->greeted}) {
      out += flag ? '1' : '0';
    }
    for (const auto& [key, joined] : channel->presence)
      out += short_key(key) + (joined ? "+" : "-");
    for (const auto* items : {&channel->to_broker, &channel->to_daemon}) {
      out += " [";
      for (const Item& item : *items) {
        add(out, "", static_cast<std::uint64_t>(item.kind));
        if (item.kind == ItemKind::kText) out += short_form(item.text, channel->daemon);
        if (item.kind == ItemKind::kDown) add(out, "code", item.code);
        out += ", ";
      }
      out += ']';
    }
  }
  for (const Dialer& dialer : network_.dialers()) {
    add(out, "\ndialer of d", dialer.daemon);
    add(out, "tries", dialer.try_at_ms != UINT64_MAX);
    add(out, "has", dialer.channel != 0);
    add(out, "told", dialer.items.size());
  }
}

void TinyWorld::describe(std::string& out) {
  add(out, "crashed", crashed_);
  for (std::uint32_t message = 0; message < kMessages; ++message) {
    const Request& request = oracle_.requests()[message];
    add(out, "m", message);
    add(out, "asked", asked_[message]);
    for (const bool flag : {request.accepted, request.unknown, request.tried_before, request.dead,
                            !request.broker_id.empty()}) {
      out += flag ? '1' : '0';
    }
    add(out, "order", request.accept_order);
  }
  for (std::uint32_t number = 0; number < kDaemons; ++number) describe_daemon(number, out);
  describe_broker(out);
  describe_wires(out);
}

}  // namespace cm::sim
