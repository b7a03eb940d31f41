// hook.cc — POST /hook/set-status: a program on the peer's machine says whether it works.
// Holds:  with the admin token or the member's signature it counts for that mesh's presences; with
//         neither only if address, pid and cwd all match one live presence. A presence that is dnd
//         by hand stays so. What matches nothing waits 10 s for a hello with the same marks, since
//         a session's first hook runs before it is connected, and is no error: hooks go on.
// Limits: without proof 300 a minute an address and 30 per (address, pid, cwd), with a member's
//         signature 300 a member; kHooksWaitingMax that wait, kHooksWaitingOfOne of an address
//         without proof.
// Source: docs/PROTOCOL.md §5.3, §7.2; spec/wire.md §4; design/presence.md, last section;
//         spec/decisions.md ("status").
// Not:    what a status holds back (queue.cc).
#include <algorithm>

#include "core/base/hash.h"
#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

constexpr std::uint64_t kWaitMs = 10'000;

}  // namespace

// Who proved itself never waits behind those who did not, and the operator never waits.
Status Broker::count_hook(const HookCall& hook) {
  if (hook.authority.admin) return {};
  if (hook.authority.key) {
    if (member_hooks_.may(hash64(*hook.authority.key), env_.mono_ms)) return {};
    return fail(Err::kTooManyRequests, "300 hooks a minute of one member; wait a minute");
  }
  const std::uint64_t network = network_of(hook.address);
  if (!address_hooks_.may(network, env_.mono_ms)) {
    return fail(Err::kTooManyRequests, "300 hooks a minute from one address; wait a minute");
  }
  const std::uint64_t who = hash64(as_bytes(hook.cwd)) ^ network ^
                            (static_cast<std::uint64_t>(hook.pid) * 0x9e3779b97f4a7c15ull);
  if (hooks_.may(who, env_.mono_ms)) return {};
  return fail(Err::kTooManyRequests, "30 hooks a minute from one process; wait a minute");
}

Status Broker::read_hook(const wire::HttpRequest& request, HookCall& hook) {
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  hook.cwd = fields.display("cwd", wire::kPathMax, wire::Lines::kOne, scratch(),
                            wire::Need::kRequired);  // as it was kept of the hello
  hook.pid = fields.integer("pid", 0, 1ll << 32, wire::Need::kOptional, 0);
  const std::string_view text = fields.text("status", wire::kLabelMax);
  const auto status = peer_status_parse(text);
  if (fields.ok() && !status) fields.refuse("status", "idle, working or dnd");
  if (!fields.ok()) return fields.take();
  hook.status = *status;
  hook.address = request.peer_address;
  return {};
}

// Is `presence`, live, the one that the hook may and does speak of?
bool Broker::hook_means(const HookCall& hook, PresenceRef presence) {
  const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
  const auto& sockets = tables_.presences.get<kPresClients>(presence);
  if (sockets.empty() || info.cwd != hook.cwd) return false;
  const bool same_process = hook.pid != 0 && info.pid == hook.pid;
  if (hook.pid != 0 && !same_process) return false;
  if (hook.authority.admin) return true;
  if (hook.authority.key) {
    const PresenceOwner& owner = tables_.presences.get<kPresOwner>(presence);
    const MemberMirror* mirror = member(owner.member_no);
    return mirror != nullptr && mirror->key == *hook.authority.key;
  }
  return same_process && tables_.clients.get<kClientAddress>(sockets.back()) == hook.address;
}

// Kept for a hello to come; without a pid nothing could tell whose it is.
bool Broker::hook_waits(const HookCall& hook) {
  if (hook.pid == 0) return false;
  std::erase_if(hooks_waiting_, [&](const HookCall& old) {
    return old.until_ms <= env_.mono_ms ||
           (old.pid == hook.pid && old.cwd == hook.cwd && old.address == hook.address);
  });
  if (hooks_waiting_.size() >= kHooksWaitingMax) return false;
  if (!hook.authority.any()) {
    const auto of_one =
        std::count_if(hooks_waiting_.begin(), hooks_waiting_.end(), [&](const HookCall& old) {
          return !old.authority.any() && network_of(old.address) == network_of(hook.address);
        });
    if (of_one >= kHooksWaitingOfOne) return false;
  }
  hooks_waiting_.push_back(hook);
  hooks_waiting_.back().until_ms = env_.mono_ms + kWaitMs;
  return true;
}

void Broker::apply_waiting_hook(PresenceRef presence) {
  for (std::size_t index = 0; index < hooks_waiting_.size(); ++index) {
    const HookCall& hook = hooks_waiting_[index];
    if (hook.until_ms <= env_.mono_ms || !hook_means(hook, presence)) continue;
    apply_hook(presence, hook.status);
    hooks_waiting_.erase(hooks_waiting_.begin() + static_cast<std::ptrdiff_t>(index));
    return;
  }
}

Status Broker::hook_set_status(HttpCall& call) {
  HookCall hook;
  metrics_.add(Metric::kBrokerHookRequests);
  if (!call.request.authorization.empty()) {
    auto authority = authority_of(call.request);
    if (!authority) return authority.error();
    hook.authority = *authority;
    if (authority->admin) note_admin("/hook/set-status", "POST");
  }
  if (Status read = read_hook(call.request, hook); !read) return read;
  if (Status may = count_hook(hook); !may) {
    metrics_.add(Metric::kBrokerHookRateLimited);
    return may;
  }
  PresenceRef found;
  std::size_t matches = 0;
  tables_.presences.each([&](PresenceRef presence) {
    if (!hook_means(hook, presence)) return;
    found = presence;
    ++matches;
  });
  wire::JsonWriter json(call.reply);
  json.begin_object().field("ok", matches == 1);
  if (matches == 1) {
    apply_hook(found, hook.status);
    json.field("presence_id", tables_.presences.get<kPresInfo>(found).presence_id);
  } else if (matches == 0 && hook_waits(hook)) {
    json.field("pending", true);
  } else {
    json.field("error", matches == 0 ? "no live presence matches; send the pid"
                                     : "several presences match; send the pid");
  }
  json.end_object();
  return {};
}

}  // namespace cm::broker
