// workload.cc — the drawing of requests.
#include "tests/sim/workload.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/wire/json_writer.h"

namespace cm::sim {
namespace {

constexpr std::string_view kPriorities[] = {"now", "next", "low"};

std::string_view marker_of(const Request& request) noexcept {
  return request.to_many() ? kOpenMarker : kMarker;
}

}  // namespace

std::uint64_t Workload::pause_ms() {
  Rng& rng = wires_.rng;
  if (rng.chance(wires_.plan.long_pause)) return rng.between(5'000, 150'000);
  return rng.below(wires_.plan.send_every_ms * 2 + 1);
}

std::uint32_t Workload::some_live_daemon(bool& found) {
  const auto daemon = static_cast<std::uint32_t>(wires_.rng.below(daemons_.size()));
  found = daemons_[daemon].up();
  return daemon;
}

bool Workload::may_ask_more() const {
  return wires_.oracle.requests().size() < wires_.plan.requests_max;
}

const Request* Workload::earlier(std::uint32_t daemon, std::size_t newest) {
  const auto& requests = wires_.oracle.requests();
  for (int attempt = 0; attempt < 4 && !requests.empty(); ++attempt) {
    const std::size_t among = std::min(newest, requests.size());
    const Request& some = requests[requests.size() - 1 - wires_.rng.below(among)];
    if (some.daemon == daemon && !some.id.empty()) return &some;
  }
  return nullptr;
}

void Workload::act(std::uint64_t now_ms) {
  Rng& rng = wires_.rng;
  bool live = false;
  const std::uint32_t daemon = some_live_daemon(live);
  for (LegacyClient* client : clients_) {
    if (may_ask_more() && rng.chance(100)) send_as(*client);
  }
  if (!live) return;
  if (wires_.plan.multicast != 0 && rng.chance(80)) return subscribe(now_ms, daemon);
  const auto& requests = wires_.oracle.requests();
  if (rng.chance(wires_.plan.drops)) {
    return rng.chance(850) ? drop(now_ms, daemon) : prune(now_ms, daemon);
  }
  if (rng.chance(wires_.plan.requeues)) return requeue(now_ms, daemon);
  const std::uint64_t dice = rng.below(100);
  if (dice < 47 || requests.empty()) {
    if (may_ask_more()) send(now_ms, fresh(daemon));
    return;
  }
  if (dice < 75) {
    const Request* old = earlier(daemon);
    if (old == nullptr) return;
    const bool again = dice < 63 || !may_ask_more();
    return send(now_ms, again ? old->number : conflicting(*old));
  }
  if (dice < 80) {
    if (!may_ask_more()) return;
    const std::uint32_t number = fresh(daemon);
    const bool has_id = !requests[number].id.empty();
    send(now_ms, number);
    if (has_id) send(now_ms, number);
    return;
  }
  if (dice < 84) return burst(now_ms, daemon);
  if (dice < 89) return rng.chance(200) ? mark_seen(now_ms, daemon) : read(now_ms, daemon);
  if (dice < 91) return requeue(now_ms, daemon);
  if (dice < 93) return status(now_ms, daemon);
  if (dice < 96) return stream(now_ms, daemon);
  if (dice < 97) return malformed(now_ms, daemon);
  if (!open_.empty()) {
    const auto [who, conn] = open_[rng.below(open_.size())];
    if (daemons_[who].up()) daemons_[who].leave(now_ms, conn);
    open_.clear();
  }
}

std::string Workload::body_text(std::uint32_t daemon, bool oversize, std::string_view marker) {
  Rng& rng = wires_.rng;
  std::string text(marker);
  text += ' ';
  text += std::to_string(wires_.oracle.requests().size());
  text += " of d" + std::to_string(daemon);
  if (rng.chance(200)) text += " \"quoted\" \\ \n\t\xc3\xa9 \xf0\x9f\x90\x9d";
  const std::uint64_t most = wires_.plan.limits.payload_bytes_max;
  if (oversize) {
    text.append(most + rng.below(2'000), 'x');
  } else if (rng.chance(wires_.plan.big_bodies)) {
    // The frame around it and base64 have to fit, too.
    const std::uint64_t room = most > 800 ? (most - 800) * 3 / 4 : 0;
    if (room > text.size()) text.append(rng.below(room - text.size()), 'y');
  } else if (most >= 2'000) {
    text.append(rng.below(200), 'z');
  }
  return text;
}

const Identity& Workload::identity(std::size_t index) const {
  return index < daemons_.size() ? daemons_[index].who() : clients_[index - daemons_.size()]->who();
}

bool Workload::is_known(std::size_t index) const {
  return index < daemons_.size() || clients_[index - daemons_.size()]->was_admitted() ||
         !clients_[index - daemons_.size()]->is_session();
}

std::uint32_t Workload::fresh(std::uint32_t daemon) {
  Rng& rng = wires_.rng;
  Request request;
  request.daemon = daemon;
  std::size_t index = 0;
  do {
    index = rng.below(daemons_.size() + clients_.size());
  } while (identity(index).key == daemons_[daemon].who().key || !is_known(index));
  const Identity& target = identity(index);
  request.target = target.number;
  const bool session = index >= daemons_.size() && clients_[index - daemons_.size()]->is_session();
  const std::uint64_t dice = rng.below(100);
  if (dice < 45 || (session && dice < 92)) {
    request.kind = TargetKind::kKey;
    request.to = target.key_hex;
  } else if (dice < 80) {
    request.kind = TargetKind::kName;
    request.to = target.name;
    if (rng.chance(200)) request.to[0] = 'P';
  } else if (dice < 92) {
    request.kind = TargetKind::kPrefix;
    request.to = target.key_hex.substr(0, rng.between(16, 40));
  } else if (dice < 97) {
    request.kind = TargetKind::kUnknownName;
    request.to = "nobody-" + std::to_string(rng.below(3));
  } else {
    request.kind = TargetKind::kSelf;
    request.to = daemons_[daemon].who().key_hex;
  }
  if (wires_.plan.multicast != 0 && rng.chance(wires_.plan.multicast)) {
    const bool topic = rng.chance(400);
    request.kind = topic ? TargetKind::kTopic : TargetKind::kAll;
    request.to = topic ? "#general" : rng.chance(250) ? "@all" : "*";
    request.target = daemon;
  }
  if (rng.chance(700)) {
    request.id = "id-" + std::to_string(ids_++);
    request.id_in_header = rng.chance(300);
  }
  request.priority = static_cast<std::uint32_t>(rng.chance(600) ? 1 : rng.below(3));
  if (rng.chance(150)) request.reply_to = "r-" + std::to_string(rng.below(100));
  request.oversize = rng.chance(15);
  request.message = body_text(daemon, request.oversize, marker_of(request));
  return wires_.oracle.add(std::move(request));
}

// Another request under the same id: one field differs, and the body always.
std::uint32_t Workload::conflicting(const Request& with) {
  Request request;
  request.daemon = with.daemon;
  request.target = with.target;
  request.kind = with.kind;
  request.to = with.to;
  request.id = with.id;
  request.id_in_header = wires_.rng.chance(300);
  request.priority = static_cast<std::uint32_t>(wires_.rng.below(3));
  request.message = body_text(with.daemon, false, marker_of(request));
  return wires_.oracle.add(std::move(request));
}

void Workload::send(std::uint64_t now_ms, std::uint32_t number) {
  const Request& request = wires_.oracle.requests()[number];
  DaemonNode& daemon = daemons_[request.daemon];
  if (!daemon.up()) return;
  CHECK(!request.from_raw);
  ScratchArena arena(16 * 1024);
  TextBuf text(arena, request.message.size() + 256);
  wire::JsonWriter json(text);
  json.begin_object().field("to", request.to).field("message", request.message);
  if (request.priority != 1 || wires_.rng.chance(500)) {
    json.field("priority", kPriorities[request.priority]);
  }
  json.optional_field("reply_to_id", request.reply_to);
  Call call;
  if (request.id_in_header) {
    call.idempotency_key = request.id;
  } else {
    json.optional_field("client_message_id", request.id);
  }
  json.end_object();
  call.ask = {AskKind::kSend, number};
  call.method = "POST";
  call.path = "/v1/send";
  call.body = text.view();
  open_.emplace_back(request.daemon, daemon.submit(now_ms, std::move(call)));
  if (open_.size() > 16) open_.erase(open_.begin());
}

void Workload::burst(std::uint64_t now_ms, std::uint32_t daemon) {
  const std::uint64_t count = wires_.rng.between(3, 14);
  if (!may_ask_more()) return;
  const std::uint32_t first = fresh(daemon);
  for (std::uint64_t index = 0; index < count && may_ask_more(); ++index) {
    Request request = wires_.oracle.requests()[first];
    request.id = "id-" + std::to_string(ids_++);
    request.oversize = false;
    request.message = body_text(daemon, false, marker_of(request));
    send(now_ms, wires_.oracle.add(std::move(request)));
  }
}

void Workload::requeue(std::uint64_t now_ms, std::uint32_t daemon) {
  // Most are asked for while the row is under way.
  const Request* old = earlier(daemon, wires_.rng.chance(700) ? 10 : SIZE_MAX);
  if (old == nullptr || !may_ask_more()) return;
  old = wires_.oracle.bound(daemon, old->id);
  if (old == nullptr) return;
  const bool nobodys = wires_.rng.chance(50);
  Request request = *old;
  request.requeue_of = nobodys ? -1 : static_cast<int>(old->number);
  request.id = "id-" + std::to_string(ids_++);
  request.accepted = request.unknown = request.tried_before = request.dead = false;
  request.aborted = request.maybe_aborted = false;
  request.accept_order = 0;
  request.broker_id.clear();
  const std::string old_id = nobodys ? "id-of-nobody" : old->id;
  const std::uint32_t number = wires_.oracle.add(std::move(request));
  Call call;
  call.ask = {AskKind::kRequeue, number};
  call.method = "POST";
  call.path = "/v1/outbox/requeue";
  call.body = R"({"id":")" + old_id + R"(","new_client_message_id":")" +
              wires_.oracle.requests()[number].id + R"("})";
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::status(std::uint64_t now_ms, std::uint32_t daemon) {
  const Request* old = earlier(daemon);
  if (old == nullptr || !old->accepted) return;
  Call call;
  call.ask = {AskKind::kStatus, old->number};
  call.method = "GET";
  call.path = "/v1/message/status";
  call.query = "id=" + old->id;
  daemons_[daemon].submit(now_ms, std::move(call));
}

// Of any row: what is under way, what has ended, what was dropped before, what never was.
void Workload::drop(std::uint64_t now_ms, std::uint32_t daemon) {
  const Request* old = earlier(daemon, wires_.rng.chance(300) ? 10 : SIZE_MAX);
  if (old == nullptr) return;
  Call call;
  call.ask = {AskKind::kDrop, old->number};
  call.method = "DELETE";
  call.path = "/v1/outbox/" + old->id;
  if (wires_.rng.chance(50)) {
    call.ask.kind = AskKind::kDropOfNobody;
    call.path = "/v1/outbox/id-of-nobody";
  }
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::prune(std::uint64_t now_ms, std::uint32_t daemon) {
  Call call;
  call.ask.kind = AskKind::kPrune;
  call.method = "POST";
  call.path = "/v1/outbox/prune";
  const bool dry_run = wires_.rng.chance(300);
  const std::uint64_t age_s = wires_.rng.chance(400) ? 0 : wires_.rng.below(600);
  call.body = R"({"older_than_s":)" + std::to_string(age_s) + R"(,"states":["done","aborted")" +
              (wires_.rng.chance(500) ? R"(,"dead"])" : "]") + R"(,"dry_run":)" +
              (dry_run ? "true}" : "false}");
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::subscribe(std::uint64_t now_ms, std::uint32_t daemon) {
  Call call;
  call.ask.kind = AskKind::kSubscribe;
  call.method = "POST";
  call.path = "/v1/topic/subscribe";
  call.body = R"({"topic":"general"})";
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::send_as(LegacyClient& client) {
  Rng& rng = wires_.rng;
  Request request;
  request.daemon = client.who().number;
  std::size_t index = rng.below(daemons_.size() + clients_.size());
  // A member's own key is another session's mail: refused while there is none.
  while (identity(index).number == request.daemon || !is_known(index)) {
    index = rng.below(daemons_.size());
  }
  request.target = identity(index).number;
  request.to = identity(index).key_hex;
  request.id = "old-" + std::to_string(ids_++);
  request.priority = static_cast<std::uint32_t>(rng.below(3));
  request.from_raw = true;
  request.message = body_text(request.daemon, false);
  client.send(wires_.oracle.add(std::move(request)));
}

void Workload::malformed(std::uint64_t now_ms, std::uint32_t daemon) {
  Call call;
  call.ask.kind = AskKind::kMalformed;
  call.method = "POST";
  call.path = "/v1/send";
  switch (wires_.rng.below(4)) {
    case 0:
      call.body = R"({"to":"peer-0","message":"x","client_message_id":"one"})";
      call.idempotency_key = "another";
      break;
    case 1: call.body = R"({"to":"peer-0","message":)"; break;
    case 2: call.body = R"({"to":"peer-0","message":""})"; break;
    default: call.body = R"({"to":"peer-0","message":"x","priority":"soon"})"; break;
  }
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::read(std::uint64_t now_ms, std::uint32_t daemon) {
  Call call;
  call.method = "GET";
  switch (wires_.rng.below(6)) {
    case 0: call.path = "/v1/peers"; break;
    case 1: call.path = "/v1/outbox"; break;
    case 2: call.path = "/v1/health"; break;
    default:
      call.path = "/v1/inbox";
      call.ask.kind = AskKind::kInbox;
      call.query = wires_.rng.chance(500) ? "limit=20" : "unread_only=true&limit=5";
      if (wires_.rng.chance(500)) call.query += "&mark_seen=false";
      break;
  }
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::mark_seen(std::uint64_t now_ms, std::uint32_t daemon) {
  std::string ids;
  for (const std::string& id : wires_.oracle.rows_shown(daemon)) {
    if (!wires_.rng.chance(300)) continue;
    ids += (ids.empty() ? "\"" : ",\"") + id + '"';
  }
  Call call;
  call.ask.kind = AskKind::kSeen;
  call.method = "POST";
  call.path = "/v1/inbox/seen";
  call.body = R"({"ids":[)" + ids + "]}";
  daemons_[daemon].submit(now_ms, std::move(call));
}

void Workload::stream(std::uint64_t now_ms, std::uint32_t daemon) {
  Call call;
  call.ask.kind = AskKind::kStream;
  call.method = "GET";
  call.path = "/v1/events";
  open_.emplace_back(daemon, daemons_[daemon].submit(now_ms, std::move(call)));
}

void Workload::ask_all_again(std::uint64_t now_ms) {
  const std::size_t count = wires_.oracle.requests().size();
  for (std::uint32_t number = 0; number < count; ++number) {
    const Request& request = wires_.oracle.requests()[number];
    if (request.id.empty() || request.from_raw || !wires_.rng.chance(200)) continue;
    if (wires_.rng.chance(500)) {
      send(now_ms, number);
    } else {
      send(now_ms, conflicting(request));
    }
  }
}

}  // namespace cm::sim
