// broker.cc — dispatch: connections come and go, frames find their handlers, deadlines fall due.
// Holds:  one table of frame types; an unknown type is answered, never dropped.
// Source: docs/PROTOCOL.md §1.2.
// Not:    the handlers (see broker.h for which file has which).
#include "core/broker/broker.h"

#include <algorithm>

#include "core/broker/capability.h"
#include "core/crypto/random.h"

namespace cm::broker {
namespace {

constexpr std::uint32_t kErrorsPerMinute = 100;
constexpr std::uint64_t kMinuteMs = 60'000;
constexpr bool kGrows = true;  // it is refused in a store that is full

}  // namespace

// The busiest first. `send` checks its capability by its target (accept.cc).
const Broker::FrameRoute Broker::kFrameRoutes[] = {
    {"send", &Broker::handle_send, kCapNone},
    {"client_ack", &Broker::handle_client_ack, kCapNone},
    {"receipt", &Broker::handle_receipt, kCapNone},
    {"list_peers", &Broker::handle_list_peers, kCapNone, Cost::kReply},
    {"message_status", &Broker::handle_message_status, kCapNone, Cost::kReply},
    {"feature_negotiation_request", &Broker::handle_negotiation, kCapNone},
    {"set_status", &Broker::handle_set_status, kCapProfileWrite},
    {"set_summary", &Broker::handle_set_summary, kCapProfileWrite, Cost::kFree, kGrows},
    {"set_visible", &Broker::handle_set_visible, kCapProfileWrite, Cost::kToken},
    {"set_profile", &Broker::handle_set_profile, kCapProfileWrite, Cost::kFree, kGrows},
    {"set_stats", &Broker::handle_set_stats, kCapNone},
    {"join_group", &Broker::handle_join_group, kCapProfileWrite, Cost::kFree, kGrows},
    {"leave_group", &Broker::handle_leave_group, kCapProfileWrite},
    {"topic_create", &Broker::handle_topic_create, kCapBroadcast, Cost::kToken},
    {"topic_list", &Broker::handle_topic_list, kCapNone, Cost::kReply},
    {"topic_join", &Broker::handle_topic_join, kCapNone, Cost::kFree, kGrows},
    {"topic_leave", &Broker::handle_topic_leave, kCapNone},
    {"topic_members", &Broker::handle_topic_members, kCapNone, Cost::kReply},
    {"topic_history", &Broker::handle_topic_history, kCapNone, Cost::kReply},
    {"topic_mark_read", &Broker::handle_topic_mark_read, kCapNone},
    {"set_state", &Broker::handle_set_state, kCapStateWrite, Cost::kToken},
    {"get_state", &Broker::handle_get_state, kCapStateRead, Cost::kReply},
    {"list_state", &Broker::handle_list_state, kCapStateRead, Cost::kReply},
    {"remember", &Broker::handle_remember, kCapStateWrite, Cost::kToken},
    {"recall", &Broker::handle_recall, kCapStateRead, Cost::kReply},
    {"forget", &Broker::handle_forget, kCapStateWrite},
    {"share_skill", &Broker::handle_share_skill, kCapStateWrite, Cost::kToken},
    {"get_skill", &Broker::handle_get_skill, kCapStateRead, Cost::kReply},
    {"list_skills", &Broker::handle_list_skills, kCapStateRead, Cost::kReply},
    {"remove_skill", &Broker::handle_remove_skill, kCapStateWrite},
};

Broker::Broker(const Config& config, const Limits& limits, Env& env, Effects& effects,
               Metrics& metrics, crypto::SecretSlab& slab)
    : config_(config),
      limits_(limits),
      env_(env),
      effects_(effects),
      metrics_(metrics),
      slab_(slab),
      tables_(limits),
      ulids_(env.rng),
      started_mono_ms_(env.mono_ms) {}

ClientRef Broker::client_of(ConnRef conn) const noexcept {
  if (conn.slot >= tables_.client_of_slot.size()) return {};
  const ClientRef client = tables_.client_of_slot[conn.slot];
  if (!tables_.clients.alive(client)) return {};
  return tables_.clients.get<kClientConn>(client) == conn ? client : ClientRef{};
}

void Broker::on_open(ConnRef conn, const wire::PeerAddress& address) {
  metrics_.add(Metric::kBrokerConnectionsTotal);
  const ClientRef client = tables_.clients.insert();
  if (!client) {
    effects_.ws_close(conn, 1013, "too many connections");
    tables_.closing.push_back(conn);
    metrics_.add(Metric::kBrokerRejectedCapacity);
    return;
  }
  const std::uint64_t deadline = env_.mono_ms + limits_.hello_deadline_ms;
  tables_.clients.get<kClientConn>(client) = conn;
  tables_.clients.get<kClientHelloDeadline>(client) = deadline;
  tables_.clients.get<kClientAddress>(client) = address;
  tables_.clients.get<kClientErrorsSince>(client) = env_.mono_ms;
  hello_check_ms_ = std::min(hello_check_ms_, deadline);
  if (tables_.client_of_slot.size() <= conn.slot) tables_.client_of_slot.resize(conn.slot + 1);
  tables_.client_of_slot[conn.slot] = client;
}

void Broker::touch(ClientRef client) {
  auto& touched = tables_.clients.get<kClientTouched>(client);
  if (touched == 0) tables_.touched.push_back(client);
  touched = 1;
}

void Broker::on_text(ConnRef conn, std::string_view text) {
  const ClientRef client = client_of(conn);
  if (!client) return;  // closed earlier in this iteration
  touch(client);
  wire::ClientFrame frame;
  if (Status parsed = wire::parse_client_frame(parser_, text, scratch(), frame); !parsed) {
    send_error(client, "malformed", parsed.error().detail, frame.request_id);
    return;
  }
  if (frame.type == "hello") return handle_hello(client, frame);
  if (frame.type == "session_hello") return handle_session_hello(client, frame);
  if (tables_.clients.get<kClientHelloDeadline>(client) != 0) {
    return send_error(client, info_of(Err::kNoHello).wire_code, "must send hello first",
                      frame.request_id);
  }
  for (const FrameRoute& route : kFrameRoutes) {
    if (route.type != frame.type) continue;
    const std::uint16_t caps = caps_of(client);
    if (route.capability != kCapNone && (caps & route.capability) == 0) {
      return send_error(
          client, "forbidden",
          "missing session capability \"" + std::string(name_of_cap(route.capability)) + "\"",
          frame.request_id);
    }
    if (route.grows && pressure_ == Pressure::kDegraded) {
      return refuse(client, frame, check_disk(route.type).error());
    }
    if (!may_pay(client, frame, route.cost)) return;
    return (this->*route.handler)(client, frame);
  }
  send_error(client, info_of(Err::kNotImplementedByPeer).wire_code,
             "this broker does not know this message type", frame.request_id);
}

void Broker::on_closed(ConnRef conn, std::uint16_t code) {
  constexpr std::uint16_t kTooLarge = 1009;
  const ClientRef client = client_of(conn);
  if (!client) return;
  if (code == kTooLarge) note_too_large(client);
  release_claims_of(client);
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  if (member_no != 0) {
    mark_mailboxes_of(client);  // what waited for this connection's window goes to another one
    detach(client);
    std::erase(member(member_no)->clients, client);
    if (tables_.clients.get<kClientReceipts>(client) != 0) --member(member_no)->receipts;
    MeshMirror* where = mesh(tables_.clients.get<kClientMeshNo>(client));
    CHECK(where->clients > 0);
    --where->clients;
  }
  tables_.clients.erase(client);
}

// Closing is final for the core: what still comes from this socket is ignored.
void Broker::close(ClientRef client, std::uint32_t code, std::string_view reason) {
  if (!tables_.clients.alive(client)) return;  // an answer before this one closed it already
  const ConnRef conn = tables_.clients.get<kClientConn>(client);
  effects_.ws_close(conn, code, reason);
  tables_.closing.push_back(conn);
  on_closed(conn);
}

void Broker::send_text(ClientRef client, const TextBuf& text) {
  effects_.ws_text(tables_.clients.get<kClientConn>(client), text.view());
}

// Errors are answered, but a peer that only makes errors is closed.
void Broker::send_error(ClientRef client, std::string_view code, std::string_view message,
                        std::string_view request_id) {
  metrics_.add(Metric::kBrokerFrameErrors);
  auto& since = tables_.clients.get<kClientErrorsSince>(client);
  auto& errors = tables_.clients.get<kClientErrors>(client);
  if (env_.mono_ms - since >= kMinuteMs) {
    since = env_.mono_ms;
    errors = 0;
  }
  if (++errors > kErrorsPerMinute) {
    close(client, 1008, "too many malformed frames");
    return;
  }
  TextBuf text(scratch());
  wire::write_error({code, message, request_id}, text);
  send_text(client, text);
}

void Broker::refuse(ClientRef client, const Frame& frame, const Error& error) {
  const ErrInfo& info = info_of(error.code);
  send_error(client, info.wire_code, error.detail.empty() ? info.meaning : error.detail,
             frame.request_id);
}

void Broker::confirm(ClientRef client, const Frame& frame, std::string_view id) {
  if (frame.request_id.empty()) return;
  TextBuf text(scratch());
  wire::JsonWriter json(text);
  json.begin_object().field("type", "ack").field("id", id.empty() ? frame.request_id : id);
  json.field("messageId", "").field("queued", false);
  finish_reply(client, frame, json, text);
}

void Broker::finish_reply(ClientRef client, const Frame& frame, wire::JsonWriter& json,
                          const TextBuf& text) {
  json.optional_field("_reqId", frame.request_id).end_object();
  charge_reply(client, text.size());
  send_text(client, text);
}

std::string_view Broker::name_of(ClientRef client) const {
  return tables_.presences.get<kPresInfo>(presence_of(client)).name;
}

void Broker::step() {
  if (env_.mono_ms >= hello_check_ms_) {
    hello_check_ms_ = UINT64_MAX;
    tables_.clients.each([&](ClientRef client) {
      const std::uint64_t deadline = tables_.clients.get<kClientHelloDeadline>(client);
      if (deadline == 0) return;
      if (deadline <= env_.mono_ms) {
        close(client, 1008, "no hello within 10 seconds");
      } else {
        hello_check_ms_ = std::min(hello_check_ms_, deadline);
      }
    });
  }
  expire_leases();
  expire_claims();
  expire_hook_statuses();
  expire_old_mail();
  feed_starved();
  build_memory_indexes();
  step_retention();
  watch_disk();

  DrainBudget budget{limits_.iteration_rows_max, limits_.iteration_bytes_max};
  std::vector<MailboxRef>& dirty = tables_.dirty;
  std::size_t done = 0;
  while (done < dirty.size() && budget.left()) {
    const MailboxRef box = dirty[done];
    const bool drained = drain(box, budget);
    end_refused_rows();
    if (!drained) break;  // keeps its place for the next iteration
    tables_.mailboxes.get<kBoxDirty>(box) = 0;
    forget_if_empty(box);
    budget.spend(0);  // looking costs, too; charged afterwards, so that each step moves on
    ++done;
  }
  dirty.erase(dirty.begin(), dirty.begin() + static_cast<std::ptrdiff_t>(done));
  send_receipts();
  metrics_.set(Metric::kBrokerConnections, tables_.clients.count());
  metrics_.set(Metric::kBrokerQueueDepth, queued_rows_);
}

std::uint64_t Broker::next_deadline() const noexcept {
  return std::min({hello_check_ms_, lease_check_ms_, claim_check_ms_, hook_check_ms_,
                   mail_check_ms_, retention_check_ms_});
}

void Broker::committed() noexcept {
  for (const ClientRef client : tables_.touched) {
    if (tables_.clients.alive(client)) tables_.clients.get<kClientTouched>(client) = 0;
  }
  tables_.touched.clear();
  tables_.closing.clear();
  indexes_changed_.clear();
  retention_committed_ = retention_;
}

}  // namespace cm::broker
