// hook.cc — POST /hook/set-status: a program on the peer's machine says whether it works.
// Holds:  with the admin token or the member's signature it counts for that mesh's presences; with
//         neither only if address, pid and cwd all match one live presence. A presence that is dnd
//         by hand stays so. What matches nothing changes nothing and is no error: hooks go on.
// Source: spec/wire.md §4; design/presence.md, last section; spec/decisions.md ("status").
// Not:    what a status holds back (queue.cc).
#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {

Status Broker::hook_set_status(HttpCall& call) {
  if (call.request.authorization.size() != 0) {
    auto authority = authority_of(call.request);
    if (!authority) return authority.error();
    call.authority = *authority;
  }
  wire::JsonTape tape;
  if (Status parsed = parser_.parse(call.request.body, scratch(), tape); !parsed) return parsed;
  wire::FieldReader fields(tape, tape.root());
  const std::string_view cwd = fields.text("cwd", wire::kPathMax);
  const std::int64_t pid = fields.integer("pid", 0, 1ll << 32, wire::Need::kOptional, 0);
  const std::string_view text = fields.text("status", wire::kLabelMax);
  const auto status = peer_status_parse(text);
  if (fields.ok() && !status) fields.refuse("status", "idle, working or dnd");
  if (!fields.ok()) return fields.take();

  PresenceRef found;
  std::size_t matches = 0;
  tables_.presences.each([&](PresenceRef presence) {
    const PresenceInfo& info = tables_.presences.get<kPresInfo>(presence);
    const auto& sockets = tables_.presences.get<kPresClients>(presence);
    if (sockets.empty() || info.cwd != cwd) return;
    const PresenceOwner& owner = tables_.presences.get<kPresOwner>(presence);
    if (call.authority.key) {
      const MemberMirror* mirror = member(owner.member_no);
      if (mirror == nullptr || mirror->key != *call.authority.key) return;
      if (pid != 0 && info.pid != pid) return;
    } else if (call.authority.admin) {
      if (pid != 0 && info.pid != pid) return;
    } else {
      const bool here =
          tables_.clients.get<kClientAddress>(sockets.back()) == call.request.peer_address;
      if (!here || pid == 0 || info.pid != pid) return;
    }
    found = presence;
    ++matches;
  });
  wire::JsonWriter json(call.reply);
  json.begin_object();
  if (matches == 1) {
    apply_hook(found, *status);
    json.field("ok", true)
        .field("presence_id", tables_.presences.get<kPresInfo>(found).presence_id);
  } else {
    json.field("ok", false)
        .field("error",
               matches == 0 ? "no live presence matches" : "several presences match; send the pid");
  }
  json.end_object();
  return {};
}

}  // namespace cm::broker
