// link.cc — the control-plane connection of each mesh: hello, frames of the broker, the roster.
// Holds:  a hello is signed freshly for each CONNECTED of the transport; nothing but a hello is
//         sent before its ack. The transport owns reconnecting, the core owns the hello deadline.
// Source: docs/PROTOCOL.md §2; spec/wire.md §2, §6; design/transports.md.
// Not:    pushes (receive.cc), acks of sends (drain.cc), who is remembered (known_peers.cc).
#include <algorithm>

#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/daemon/known_peers.h"
#include "core/daemon/names.h"
#include "core/wire/limits.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint64_t kHelloDeadlineMs = 5'000;
constexpr std::uint64_t kReopenFirstMs = 1'000;  // doubling; the transport has its own backoff
constexpr std::uint64_t kReopenMostMs = 30'000;
constexpr std::uint64_t kHoldMs = 3'000;         // less than callers of the IPC wait
constexpr std::uint64_t kRepeatLogMs = 60'000;   // of one reason why a link cannot be made
constexpr std::uint64_t kRosterLeastMs = 1'000;  // between two lists after peer events
constexpr std::uint64_t kListLostMs = 5'000;     // a list that does not come is asked for again
constexpr std::uint32_t kControlFrame = 0;
constexpr std::uint32_t kNoteReady = 1;
constexpr std::uint32_t kNoteAuthFailed = 2;
constexpr std::string_view kRosterPrefix = "pl-";
// Close codes with which a broker ends this daemon's connection for good (spec/wire.md §11.5).
constexpr std::uint32_t kReplacedCode = 4003;
constexpr std::uint32_t kTakenCode = 4004;
constexpr std::uint32_t kTooBigCode = 1009;  // RFC 6455 §7.4.1

}  // namespace

// What was to be done for this link is lost if the iteration fails: it is then closed and opened
// again. Sends of the outbox alone are not: their rows stay as they were.
void Daemon::touch(LinkRef link) {
  auto& touched = tables_.links.get<kLinkTouched>(link);
  if (touched != 0) return;
  touched = 1;
  tables_.touched.push_back(link);
}

void Daemon::open_link(LinkRef link) {
  touch(link);
  tables_.links.get<kLinkReopenAt>(link) = 0;
  if (tables_.links.get<kLinkFailures>(link) == 0) hold_calls(link);
  set_link_state(link, LinkState::kConnecting);
  // A copy: the row moves when a mesh is joined, and changes with its configuration.
  effects_.link_open(link,
                     scratch().copy(config_of(tables_.links.get<kLinkMesh>(link)).broker_url));
}

// Nothing has failed yet: whoever asks now is answered when the link is open.
void Daemon::hold_calls(LinkRef link) {
  tables_.links.get<kLinkHoldUntil>(link) = env_.mono_ms + kHoldMs;
}

// For good, until the configuration changes or the daemon starts again.
void Daemon::refuse_mesh(LinkRef link, std::uint32_t code, std::string_view reason,
                         std::string_view why) {
  touch(link);
  effects_.link_close(link, code, reason);
  link_lost(link);
  set_link_state(link, LinkState::kRefused);
  tables_.links.get<kLinkReopenAt>(link) = 0;
  tables_.links.get<kLinkLastError>(link) = why;
  const std::string& slug = config_of(tables_.links.get<kLinkMesh>(link)).slug;
  env_.log->error("mesh_refused", {{"mesh", slug}, {"code", code}, {"detail", why}});
  if (tables_.meshes.count() == 1) {
    gave_up_ = "mesh '" + slug + "' was refused (" + std::to_string(code) + "): ";
    gave_up_ += why;
  }
}

void Daemon::reopen_link(LinkRef link, std::uint32_t code, std::string_view reason) {
  touch(link);
  effects_.link_close(link, code, reason);
  link_lost(link);
  set_link_state(link, LinkState::kConnecting);
  reopen_later(link);
}

// A link that we closed, or that its transport gave up, is opened anew with a backoff of ours:
// whatever was wrong (a full disk, a broker that does not answer) may last.
void Daemon::reopen_later(LinkRef link) {
  auto& failures = tables_.links.get<kLinkFailures>(link);
  tables_.links.get<kLinkHoldUntil>(link) = 0;
  const std::uint64_t delay =
      std::min(kReopenMostMs, kReopenFirstMs << std::min<std::uint32_t>(failures++, 5));
  tables_.links.get<kLinkReopenAt>(link) = env_.mono_ms + delay;
  reopen_check_ms_ = std::min(reopen_check_ms_, env_.mono_ms + delay);
}

void Daemon::reopen_due() {
  if (env_.mono_ms < reopen_check_ms_) return;
  reopen_check_ms_ = UINT64_MAX;
  tables_.links.each([&](LinkRef link) {
    const std::uint64_t at = tables_.links.get<kLinkReopenAt>(link);
    if (at == 0) return;
    if (at > env_.mono_ms) {
      reopen_check_ms_ = std::min(reopen_check_ms_, at);
    } else {
      open_link(link);
    }
  });
}

void Daemon::set_link_state(LinkRef link, LinkState state) {
  const LinkState before = tables_.links.get<kLinkState>(link);
  tables_.links.get<kLinkState>(link) = state;
  if (before != state) emit_status(tables_.links.get<kLinkMesh>(link), state);
  if (before != state && (before == LinkState::kOpen || state == LinkState::kOpen)) {
    emit_link_change(link, state == LinkState::kOpen);
  }
  tables_.links.get<kLinkHelloDeadline>(link) = 0;
  std::uint64_t open = 0;
  tables_.links.each([&](LinkRef each) {
    open += tables_.links.get<kLinkState>(each) == LinkState::kOpen ? 1 : 0;
  });
  metrics_.set(Metric::kDaemonConnected, open);
}

void Daemon::on_link_event(LinkRef link, LinkEvent event, std::uint32_t code,
                           std::string_view detail) {
  if (!tables_.links.alive(link)) return;
  touch(link);
  const MeshConfig& mesh = config_of(tables_.links.get<kLinkMesh>(link));
  if (code == kReplacedCode || code == kTakenCode) {
    metrics_.add(Metric::kDaemonCloneSuspected);
    return refuse_mesh(
        link, code, "another daemon serves this member",
        code == kReplacedCode ? "replaced_by_newer_connection" : "member_already_connected");
  }
  if (event == LinkEvent::kConnected) {
    send_hello(link);
    return;
  }
  // A transport also says that it begins, once, before anything has failed.
  if (event == LinkEvent::kConnecting && code == 0 && detail.empty() &&
      tables_.links.get<kLinkState>(link) == LinkState::kConnecting) {
    return;
  }
  const bool was_up = tables_.links.get<kLinkState>(link) != LinkState::kConnecting;
  const bool was_open = tables_.links.get<kLinkState>(link) == LinkState::kOpen;
  if (!detail.empty()) tables_.links.get<kLinkLastError>(link) = detail;
  if (was_up) {
    metrics_.add(Metric::kDaemonReconnects);
    env_.log->warn("broker_lost", {{"mesh", mesh.slug}, {"code", code}, {"detail", detail}});
  }
  if (!was_open && event == LinkEvent::kConnecting) log_failed_attempt(link, code, detail);
  link_lost(link, code);
  set_link_state(link, LinkState::kConnecting);
  if (was_open && event != LinkEvent::kClosed) hold_calls(link);  // it connects again at once
  if (event == LinkEvent::kClosed) {
    // The transport gave up: a bad URL, a disabled plugin, or too much that nobody read.
    set_link_state(link, LinkState::kRefused);
    reopen_later(link);
    env_.log->error("broker_gave_up", {{"mesh", mesh.slug}, {"detail", detail}});
  }
}

void Daemon::log_failed_attempt(LinkRef link, std::uint32_t code, std::string_view reason) {
  FailedAttempts& failed = tables_.links.get<kLinkFailed>(link);
  ++failed.count;
  const bool logged = failed.logged_ms != 0 && failed.reason == reason;
  if (logged && env_.mono_ms < failed.logged_ms + kRepeatLogMs) return;
  failed.logged_ms = std::max<std::uint64_t>(env_.mono_ms, 1);
  failed.reason = reason;
  env_.log->warn("broker_unreachable",
                 {{"mesh", config_of(tables_.links.get<kLinkMesh>(link)).slug},
                  {"code", code},
                  {"detail", reason},
                  {"attempts", failed.count}});
}

void Daemon::on_link_blocked(LinkRef link, bool blocked) {
  if (!tables_.links.alive(link)) return;
  tables_.links.get<kLinkBlocked>(link) = blocked;
  if (blocked) return;
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  tables_.lanes.each([&](LaneRef lane) {
    if (tables_.lanes.get<kLaneMesh>(lane) == mesh) mark_ready(lane);
  });
}

void Daemon::send_hello(LinkRef link) {
  const MeshConfig& mesh = config_of(tables_.links.get<kLinkMesh>(link));
  TextBuf canonical(scratch());
  // The ids come from config.json, which was checked when it was read.
  const Status built =
      crypto::canonical_hello(mesh.mesh_id, mesh.member_id, mesh.key, env_.wall_ms, canonical);
  CHECK(built);
  const crypto::Signature signature = crypto::sign(slab_, mesh.secret, canonical.view());
  TextBuf signature_text(scratch(), 128);
  crypto::hex_append(signature, signature_text);
  const crypto::HexText64 key = crypto::hex_text(mesh.key);

  wire::Hello hello;
  hello.mesh_id = mesh.mesh_id;
  hello.member_id = mesh.member_id;
  hello.pubkey_text = crypto::view(key);
  hello.signature_text = signature_text.view();
  hello.session_id = config_.session_id;
  hello.pid = config_.pid;
  hello.cwd = config_.cwd;
  hello.hostname = config_.hostname;
  hello.peer_type = "ai";
  hello.channel = "claudemesh-daemon";
  hello.timestamp_ms = static_cast<std::int64_t>(env_.wall_ms);
  hello.receipts = wire::kReceiptVersion;  // here, because mail comes before any negotiation
  TextBuf text(scratch(), 1024);
  wire::write_hello(hello, text);
  effects_.link_send(link, kControlFrame, text.view());
  set_link_state(link, LinkState::kHelloSent);
  const std::uint64_t deadline = env_.mono_ms + kHelloDeadlineMs;
  tables_.links.get<kLinkHelloDeadline>(link) = deadline;
  hello_check_ms_ = std::min(hello_check_ms_, deadline);
}

void Daemon::expire_hellos() {
  if (env_.mono_ms < hello_check_ms_) return;
  hello_check_ms_ = UINT64_MAX;
  tables_.links.each([&](LinkRef link) {
    const std::uint64_t deadline = tables_.links.get<kLinkHelloDeadline>(link);
    if (deadline == 0) return;
    if (deadline > env_.mono_ms) {
      hello_check_ms_ = std::min(hello_check_ms_, deadline);
      return;
    }
    tables_.links.get<kLinkLastError>(link) = "no answer to hello within 5 s";
    reopen_link(link, 1000, "hello timeout");
  });
}

bool Daemon::on_link_frame(LinkRef link, std::string_view text) {
  if (!tables_.links.alive(link)) return true;  // of a link that was closed meanwhile
  touch(link);
  wire::BrokerFrame frame;
  if (Status parsed = wire::parse_client_frame(parser_, text, scratch(), frame); !parsed) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    env_.log->warn("frame_malformed", {{"detail", parsed.error().detail}});
    return false;
  }
  const bool open = tables_.links.get<kLinkState>(link) == LinkState::kOpen;
  if (frame.type == "push") return on_push(link, frame);  // may precede hello_ack
  if (open && (on_feature_frame(link, frame) || on_call_frame(link, frame))) return true;
  if (open && on_receipt_frame(link, frame)) return true;
  if (frame.type == "hello_ack") {
    on_hello_ack(link, frame);
  } else if (frame.type == "error") {
    on_error_frame(link, frame);
  } else if (frame.type == "ack" && open) {
    on_ack(link, frame);
  } else if (frame.type == "peers_list" && open) {
    on_peers_list(link, frame);
  } else if (frame.type == "topic_list_response" && open) {
    const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
    const std::uint64_t asked = tables_.meshes.get<kMeshTopics>(mesh).asked_serial;
    if (asked != 0 && serial_of(frame.request_id) == asked) on_topic_list(mesh, frame);
  }
  return true;  // types that we do not know are for others
}

void Daemon::on_hello_ack(LinkRef link, const wire::BrokerFrame& frame) {
  wire::HelloAck ack;
  if (tables_.links.get<kLinkState>(link) != LinkState::kHelloSent) return;
  if (Status parsed = wire::parse_hello_ack(frame, ack); !parsed) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    tables_.links.get<kLinkLastError>(link) = parsed.error().detail;
    reopen_link(link, 1008, "hello_ack is malformed");
    return;
  }
  set_link_state(link, LinkState::kOpen);
  tables_.links.get<kLinkLastError>(link).clear();
  tables_.links.get<kLinkFailures>(link) = 0;
  tables_.links.get<kLinkFailed>(link) = {};
  tables_.links.get<kLinkBlocked>(link) = 0;
  tables_.links.get<kLinkBrokerVersion>(link) = ack.broker_version;
  tables_.links.get<kLinkFeatures>(link).receipts = ack.receipts >= wire::kReceiptVersion;
  tables_.seen.ready = true;
  effects_.link_note(link, kNoteReady);
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  ask_features(link);
  ask_roster(mesh);
  send_held_calls(mesh);
  tables_.parked.each([&](ParkedRef parked) {
    const Wait wait = tables_.parked.get<kParkedFor>(parked);
    const Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
    const bool wanted = wait == Wait::kTopics ? tables_.parked.get<kParkedMesh>(parked) == mesh
                                              : wait == Wait::kAllTopics && !topics.loaded;
    if (wanted && !topics_are_coming(mesh)) ask_topics(mesh);
  });
  tables_.lanes.each([&](LaneRef lane) {
    if (!(tables_.lanes.get<kLaneMesh>(lane) == mesh)) return;
    tables_.lanes.get<kLaneDue>(lane) = 0;  // what failed with the old connection
    mark_ready(lane);
  });
  env_.log->info("broker_status", {{"status", "open"}, {"mesh", config_of(mesh).slug}});
}

void Daemon::on_error_frame(LinkRef link, const wire::BrokerFrame& frame) {
  wire::ErrorFrame error;
  if (!wire::parse_error(frame, error)) return;
  const MeshConfig& mesh = config_of(tables_.links.get<kLinkMesh>(link));
  env_.log->warn("broker_error",
                 {{"mesh", mesh.slug}, {"code", error.code}, {"detail", error.message}});
  if (error.id.starts_with(kRosterPrefix)) {
    Roster& roster = tables_.meshes.get<kMeshRoster>(tables_.links.get<kLinkMesh>(link));
    roster.asked_serial = 0;  // refused for now: asked again in a second
    roster.stale = true;
    roster_check_ms_ = std::min(roster_check_ms_, roster.asked_ms + kRosterLeastMs);
  }
  Topics& topics = tables_.meshes.get<kMeshTopics>(tables_.links.get<kLinkMesh>(link));
  if (topics.asked_serial != 0 && serial_of(error.id) == topics.asked_serial) {
    topics.asked_serial = 0;  // the next send asks again
  }
  if (tables_.links.get<kLinkState>(link) != LinkState::kHelloSent) return;
  // The broker closes next; connecting again soon would be refused the same way.
  tables_.links.get<kLinkLastError>(link) = error.code;
  effects_.link_note(link, kNoteAuthFailed);
}

void Daemon::link_lost(LinkRef link, std::uint32_t code) {
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  tables_.links.get<kLinkHelloDeadline>(link) = 0;
  tables_.links.get<kLinkBlocked>(link) = 0;
  tables_.links.get<kLinkHoldUntil>(link) = 0;
  Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  roster.state = RosterState::kUnknown;
  roster.asked_serial = 0;
  tables_.meshes.get<kMeshTopics>(mesh).asked_serial = 0;
  Features& features = tables_.links.get<kLinkFeatures>(link);
  features.state = FeatureState::kUnknown;  // its numbers hold until the next broker says more
  features.deadline_ms = 0;
  seen_link_lost(link);
  if (code == kTooBigCode) refuse_largest(mesh);
  lanes_lost(mesh);
  fail_calls_of(mesh, "the connection to the broker was lost before it answered");
}

void Daemon::ask_roster(MeshRef mesh) {
  const LinkRef link = tables_.meshes.get<kMeshLink>(mesh);
  if (tables_.links.get<kLinkState>(link) != LinkState::kOpen) return;
  Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  roster.asked_serial = ++roster_serial_;
  roster.asked_ms = env_.mono_ms;
  roster.stale = false;
  roster_check_ms_ = std::min(roster_check_ms_, roster.asked_ms + kListLostMs);
  TextBuf id(scratch(), 32);
  id.append(kRosterPrefix);
  id.append_unsigned(roster.asked_serial);
  TextBuf text(scratch(), 64);
  wire::write_list_peers(id.view(), text);
  effects_.link_send(link, kControlFrame, text.view());
}

// After peer events: one list a second at most, however many come. And once more when the answer
// to the last one was lost.
void Daemon::refresh_rosters() {
  if (env_.mono_ms < roster_check_ms_) return;
  roster_check_ms_ = UINT64_MAX;
  tables_.meshes.each([&](MeshRef mesh) {
    const Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
    if (!roster.stale && roster.asked_serial == 0) return;
    const std::uint64_t due = roster.asked_ms + (roster.stale ? kRosterLeastMs : kListLostMs);
    if (due <= env_.mono_ms) {
      ask_roster(mesh);
    } else {
      roster_check_ms_ = std::min(roster_check_ms_, due);
    }
  });
}

void Daemon::on_peers_list(LinkRef link, const wire::BrokerFrame& frame) {
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  Roster& roster = tables_.meshes.get<kMeshRoster>(mesh);
  std::uint64_t serial = 0;
  for (const char c :
       frame.request_id.substr(std::min(kRosterPrefix.size(), frame.request_id.size()))) {
    if (c < '0' || c > '9') return;
    serial = serial * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (roster.asked_serial == 0 || serial != roster.asked_serial) return;  // not ours, or late
  roster.asked_serial = 0;
  const auto peers = wire::peers_of(frame);
  if (!peers) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    roster.stale = true;
    roster_check_ms_ = std::min(roster_check_ms_, roster.asked_ms + kListLostMs);
    return;
  }
  KnownPeers known;
  note_renamed(mesh, frame, **peers, known);
  for (const PeerRef peer : roster.peers) tables_.peers.erase(peer);
  roster.peers.clear();
  const wire::JsonTape& tape = frame.tape;
  const wire::JsonNode* cut = tape.find("truncated");
  roster.truncated = cut != nullptr && cut->type == wire::JsonType::kBool && cut->boolean;
  for (std::uint32_t index = tape.first(**peers); index < (*peers)->next;
       index = tape.at(index).next) {
    wire::PeerEntry entry;
    // Our list adds a member "mesh" to each entry: it must be the only one, and have room.
    if (!wire::parse_peer(tape, tape.at(index), entry) ||
        tape.find(tape.at(index), "mesh") != nullptr ||
        tape.at(index).count >= wire::kJsonKeysMax) {
      metrics_.add(Metric::kDaemonInvalidInbound);
      continue;
    }
    const PeerRef peer = tables_.peers.insert();
    if (!peer) {
      env_.log->warn("roster_full", {{"limit", limits_.roster_rows_max}});
      roster.truncated = true;
      break;
    }
    tables_.peers.get<kPeerMesh>(peer) = mesh;
    tables_.peers.get<kPeerKey>(peer) = entry.pubkey;
    tables_.peers.get<kPeerMember>(peer) = entry.member_pubkey;
    tables_.peers.get<kPeerNameFolded>(peer) = fold_name(entry.display_name);
    tables_.peers.get<kPeerIsControl>(peer) = entry.peer_role == "control-plane";
    tables_.peers.get<kPeerRaw>(peer) = entry.raw;
    roster.peers.push_back(peer);
    remember_peer(mesh, entry, known);
  }
  roster.state = RosterState::kLoaded;
  roster.loaded_serial = serial;
  wake_parked();
  finish_peers_calls(mesh);
}

}  // namespace cm::daemon
