// world.cc — founding, iterations, and a wire that loses nothing.
#include "tests/faults/world.h"

#include <algorithm>
#include <filesystem>

#include "core/crypto/encoding.h"

namespace cm::faults {
namespace {

constexpr ConnRef kCaller{0xfffff, 1};   // of call(); no wire has this slot
constexpr std::uint64_t kRedialMs = 50;  // as a transport waits before it tries again
constexpr int kRoundsMax = 20'000;

}  // namespace

World::World(std::string directory, store::Durability durability, Observer observer)
    : directory_(std::move(directory)), durability_(durability), observer_(std::move(observer)) {
  std::filesystem::create_directories(directory_);
}

bool World::is_up(Node node) const noexcept {
  return node == kBroker ? broker_ != nullptr : daemons_[node] != nullptr;
}

Parts& World::parts(Node node) { return node == kBroker ? broker_->parts : daemons_[node]->parts; }

Status World::start() {
  if (!founded_) return found();
  for (const Node node : {kBroker, kAlice, kBob}) {
    if (is_up(node)) continue;
    if (Status started = start(node); !started) return started;
  }
  return {};
}

Status World::start(Node node) {
  if (node == kBroker) {
    auto started = BrokerNode::start(directory(node), durability_, now_ms_);
    if (!started) return started.error();
    broker_ = std::move(*started);
    return {};
  }
  auto started = DaemonNode::start(directory(node), durability_, now_ms_, identities_[node]);
  if (!started) return started.error();
  daemons_[node] = std::move(*started);
  for (const daemon::Effect& effect : daemons_[node]->effects.list()) execute(node, effect);
  daemons_[node]->effects.clear();
  daemons_[node]->parts.scratch.reset();
  return {};
}

void World::adopt(const World& earlier) {
  identities_ = earlier.identities_;
  now_ms_ = earlier.now_ms_ + 120'000;  // leases of before have lapsed
  founded_ = true;
}

Status World::found() {
  if (Status started = start(kBroker); !started) return started;
  Identity& first = identities_[kAlice] = Identity::make("alice");
  const Reply made =
      call(kBroker, "POST", "/cli/mesh/create",
           R"({"name":"faults","pubkey":")" + first.key_hex + R"(","display_name":"alice"})");
  if (made.status != 200) return fail(Err::kInternal, "create: " + made.text);
  first.mesh_id = field(made.text, "id");
  first.member_id = field(made.text, "member_id");
  first.slug = field(made.text, "slug");
  first.broker_url = field(made.text, "broker_url");
  const Reply invite = call(kBroker, "POST", "/cli/mesh/" + first.slug + "/invite", "{}");
  if (invite.status != 200) return fail(Err::kInternal, "invite: " + invite.text);
  identities_[kBob] = Identity::make("bob");
  if (Status joined = enrol(kBob, field(invite.text, "token")); !joined) return joined;
  founded_ = true;
  if (Status started = start(); !started) return started;
  if (!pump()) return fail(Err::kInternal, "the world does not come to rest");
  return {};
}

Status World::enrol(Node daemon, const std::string& token) {
  Identity& who = identities_[daemon];
  ScratchArena arena(16 * 1024);
  const auto payload = crypto::base64url_decode(token, arena);
  if (!payload) return fail(Err::kInternal, "invite: " + token);
  const Reply joined = call(kBroker, "POST", "/join",
                            R"({"invite_token":")" + token + R"(","invite_payload":)" +
                                std::string(as_text(*payload)) + R"(,"peer_pubkey":")" +
                                who.key_hex + R"(","display_name":")" + who.name + "\"}");
  if (joined.status != 200) return fail(Err::kInternal, "join: " + joined.text);
  who.member_id = field(joined.text, "memberId");
  who.mesh_id = identities_[kAlice].mesh_id;
  who.slug = identities_[kAlice].slug;
  who.broker_url = identities_[kAlice].broker_url;
  return {};
}

void World::kill(Node node) {
  inputs_[node].clear();
  if (node == kBroker) {
    broker_.reset();
    for (Wire& wire : wires_) close(wire, 1006, "lost", true);
    return;
  }
  daemons_[node].reset();
  for (Wire& wire : wires_) {
    if (wire.daemon == node) close(wire, 1006, "lost", false);
  }
  std::erase_if(wires_, [&](const Wire& wire) { return wire.daemon == node; });
}

void World::partition(Node daemon, bool away) {
  away_[daemon] = away;
  if (!away) return;
  for (Wire& wire : wires_) {
    if (wire.daemon != daemon || !wire.open) continue;
    inputs_[kBroker].push_back({InputKind::kDown, 1006, wire.conn, {}, "lost", {}, {}, {}});
    close(wire, 1006, "lost", true);
  }
}

// Its other end learns of it.
void World::close(Wire& wire, std::uint32_t code, std::string_view reason, bool by_broker) {
  if (!wire.open) return;
  wire.open = false;
  wire.dial_ms = now_ms_ + kRedialMs;
  const Node told = by_broker ? wire.daemon : kBroker;
  if (!is_up(told)) return;
  inputs_[told].push_back(
      {InputKind::kDown, code, wire.conn, wire.link, std::string(reason), {}, {}, {}});
}

void World::dial() {
  for (Wire& wire : wires_) {
    if (wire.open || wire.dial_ms > now_ms_ || away_[wire.daemon] || !is_up(kBroker) ||
        !is_up(wire.daemon))
      continue;
    wire.conn = {next_conn_++, 1};
    wire.open = true;
    inputs_[kBroker].push_back({InputKind::kUp, 0, wire.conn, {}, {}, {}, {}, {}});
    inputs_[wire.daemon].push_back({InputKind::kUp, 0, wire.conn, wire.link, {}, {}, {}, {}});
  }
}

World::Wire* World::wire_of(ConnRef conn) {
  for (Wire& wire : wires_) {
    if (wire.open && wire.conn == conn) return &wire;
  }
  return nullptr;
}

World::Wire* World::wire_of(Node daemon, daemon::LinkRef link) {
  for (Wire& wire : wires_) {
    if (wire.daemon == daemon && wire.link == link) return &wire;
  }
  return nullptr;
}

bool World::has_work(Node node) const {
  if (!is_up(node)) return false;
  if (!inputs_[node].empty()) return true;
  const bool due = node == kBroker
                       ? broker_->core->next_deadline() <= broker_->parts.env.mono_ms
                       : daemons_[node]->core->next_deadline() <= daemons_[node]->parts.env.mono_ms;
  return due || (node == kBroker ? broker_->core->work_left() : daemons_[node]->core->work_left());
}

bool World::pump() {
  for (int round = 0; round < kRoundsMax; ++round) {
    if (is_up(kBroker)) broker_->parts.set_now(now_ms_);
    for (const Node node : {kAlice, kBob}) {
      if (is_up(node)) daemons_[node]->parts.set_now(now_ms_);
    }
    dial();
    bool worked = false;
    for (const Node node : {kBroker, kAlice, kBob}) {
      if (!has_work(node)) continue;
      iterate(node);
      worked = true;
    }
    if (!worked) return true;
    ++now_ms_;
  }
  return false;
}

bool World::advance(std::uint64_t ms) {
  now_ms_ += ms;
  return pump();
}

Reply World::call(Node node, std::string_view method, std::string_view path, std::string_view body,
                  std::string_view query) {
  reply_ = {};
  if (!is_up(node)) return reply_;
  inputs_[node].push_back({InputKind::kCall,
                           0,
                           kCaller,
                           {},
                           std::string(body),
                           std::string(method),
                           std::string(path),
                           std::string(query)});
  pump();
  return reply_;
}

void World::apply(Node node, const Input& input) {
  if (input.kind == InputKind::kCall) {
    wire::HttpRequest request;
    request.method = input.method;
    request.path = input.path;
    request.query = input.query;
    request.body = input.text;
    request.host = "localhost";
    request.peer_is_unix = node != kBroker;
    request.peer_is_loopback = true;
    if (node == kBroker) {
      if (input.path != "/join") request.authorization = admin_authority();
      return broker_->core->on_http(input.conn, request);
    }
    return daemons_[node]->core->on_http(input.conn, request);
  }
  if (node == kBroker) {
    switch (input.kind) {
      case InputKind::kUp: return broker_->core->on_open(input.conn);
      case InputKind::kDown: return broker_->core->on_closed(input.conn);
      default: return broker_->core->on_text(input.conn, input.text);
    }
  }
  daemon::Daemon& core = *daemons_[node]->core;
  using daemon::LinkEvent;
  switch (input.kind) {
    case InputKind::kUp: return core.on_link_event(input.link, LinkEvent::kConnected, 0, {});
    case InputKind::kDown:
      return core.on_link_event(input.link, LinkEvent::kConnecting, input.code, input.text);
    default: core.on_link_frame(input.link, input.text);
  }
}

void World::iterate(Node node) {
  Parts& process = parts(node);
  std::deque<Input> inputs;
  while (!inputs_[node].empty()) {
    inputs.push_back(std::move(inputs_[node].front()));
    inputs_[node].pop_front();
    apply(node, inputs.back());
    if (node == kBroker && broker_->core->iteration_full()) break;
  }
  if (node == kBroker) {
    broker_->core->step();
  } else {
    daemons_[node]->core->step();
  }
  if (observer_.before_commit) observer_.before_commit(node);
  const store::CommitResult result = process.store->commit();
  if (observer_.after_commit) observer_.after_commit(node, result);
  switch (result) {
    case store::CommitResult::kNothing:
    case store::CommitResult::kCommitted:
      node == kBroker ? broker_->core->committed() : daemons_[node]->core->committed();
      break;
    case store::CommitResult::kFailed:
      node == kBroker ? broker_->core->abandon() : daemons_[node]->core->abandon(Err::kDiskFull);
      break;
    case store::CommitResult::kBroken: return kill(node);
  }
  end_iteration(node);
}

void World::end_iteration(Node node) {
  if (node == kBroker) {
    for (const broker::Effect& effect : broker_->effects.list()) execute(effect);
    broker_->effects.clear();
  } else {
    for (const daemon::Effect& effect : daemons_[node]->effects.list()) execute(node, effect);
    daemons_[node]->effects.clear();
  }
  parts(node).scratch.reset();
}

void World::execute(const broker::Effect& effect) {
  Wire* const wire = wire_of(effect.conn);
  switch (effect.kind) {
    case broker::EffectKind::kWsText:
      if (wire == nullptr) return;
      note_promises(kBroker, effect.text);
      inputs_[wire->daemon].push_back(
          {InputKind::kText, 0, wire->conn, wire->link, std::string(effect.text), {}, {}, {}});
      break;
    case broker::EffectKind::kWsClose:
      if (wire != nullptr) close(*wire, effect.code, effect.text, true);
      break;
    case broker::EffectKind::kHttpReply:
      if (effect.conn == kCaller) reply_ = {effect.code, std::string(effect.text)};
      break;
    case broker::EffectKind::kFrameLimit:
    case broker::EffectKind::kGroup: break;
  }
}

void World::execute(Node node, const daemon::Effect& effect) {
  Wire* wire = nullptr;
  switch (effect.kind) {
    case daemon::EffectKind::kLinkOpen:
      if (wire_of(node, effect.link) == nullptr)
        wires_.push_back({node, effect.link, {}, false, 0});
      break;
    case daemon::EffectKind::kLinkSend:
      wire = wire_of(node, effect.link);
      if (wire == nullptr || !wire->open) return;
      note_promises(node, effect.text);
      inputs_[kBroker].push_back(
          {InputKind::kText, 0, wire->conn, {}, std::string(effect.text), {}, {}, {}});
      break;
    case daemon::EffectKind::kLinkClose:
      wire = wire_of(node, effect.link);
      if (wire == nullptr) return;
      close(*wire, effect.code, effect.text, false);
      std::erase_if(wires_, [&](const Wire& each) {
        return each.daemon == node && each.link == effect.link;
      });
      break;
    case daemon::EffectKind::kHttpReply:
      if (!(effect.conn == kCaller)) return;
      reply_ = {effect.code, std::string(effect.text)};
      if (observer_.promised && (effect.code == 200 || effect.code == 202)) {
        const std::string id = field(effect.text, "client_message_id");
        if (!id.empty() && effect.text.find("\"items\"") == std::string_view::npos) {
          observer_.promised(node, {PromiseKind::kAccepted, id});
        }
      }
      break;
    default: break;
  }
}

void World::note_promises(Node node, std::string_view frame) {
  if (!observer_.promised) return;
  const std::string type = field(frame, "type");
  if (node == kBroker && type == "ack" && field(frame, "queued") == "true") {
    observer_.promised(node, {PromiseKind::kStored, field(frame, "id")});
  }
  if (node != kBroker && type == "client_ack") {
    const std::string id = field(frame, "clientMessageId");
    if (!id.empty()) observer_.promised(node, {PromiseKind::kReceived, id});
  }
}

}  // namespace cm::faults
