// targets.cc — targets that are no single peer, and the mesh that a target without one belongs to.
// Holds:  a topic's name is looked up in the list that is kept; it is refused only after the broker
//         was asked anew. A name, key or topic without a mesh goes to the one mesh that knows it;
//         if several do, they are named and nothing is sent. A topic needs the lists of all meshes.
// Source: docs/PROTOCOL.md §10.2; spec/ipc.md §5; spec/wire.md §5.1, §7.3.
// Not:    who a name is within one mesh (resolve.cc).
#include <algorithm>

#include "core/crypto/encoding.h"
#include "core/daemon/names.h"
#include "core/daemon/sending.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"
#include "core/wire/mesh_replies.h"
#include "core/wire/mesh_requests.h"

namespace cm::daemon {
namespace {

using store::TableId;

constexpr std::uint32_t kControlFrame = 0;
constexpr std::uint64_t kListLostMs = 5'000;  // then it is asked for again
constexpr std::size_t kTopicIdLeast = 20;
constexpr std::size_t kKeyPrefixLeast = 16;
constexpr std::size_t kCandidatesMax = 32;
constexpr std::uint64_t kKnownForMs = 30ull * 24 * 3600 * 1000;

bool is_hex(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

}  // namespace

// --- topics ---

void Daemon::ask_topics(MeshRef mesh) {
  if (state_of(mesh) != LinkState::kOpen) return;
  Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
  topics.asked_serial = ++request_serial_;
  topics.asked_ms = env_.mono_ms;
  TextBuf frame(scratch(), 96);
  wire::write_plain_request("topic_list", request_id(topics.asked_serial), frame);
  effects_.link_send(link_of(mesh), kControlFrame, frame.view());
}

bool Daemon::topics_are_coming(MeshRef mesh) const {
  const Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
  return topics.asked_serial != 0 && env_.mono_ms < topics.asked_ms + kListLostMs;
}

void Daemon::on_topic_list(MeshRef mesh, const wire::BrokerFrame& frame) {
  if (wire::array_of(frame, {"topics"}) == nullptr) return;  // it says nothing
  Topics& topics = tables_.meshes.get<kMeshTopics>(mesh);
  const std::uint64_t serial = serial_of(frame.request_id);
  topics.names.clear();
  for (const wire::TopicName& topic : wire::topic_names(frame)) {
    if (topics.names.size() == limits_.topics_max) {
      env_.log->warn("topics_full", {{"limit", limits_.topics_max}});
      break;
    }
    topics.names.emplace_back(topic.name, topic.id);
  }
  topics.loaded = true;
  topics.loaded_serial = std::max(topics.loaded_serial, serial);
  if (topics.asked_serial != 0 && serial >= topics.asked_serial) topics.asked_serial = 0;
  wake_parked();
}

// Text to a topic can be read by its mesh: it goes to none that was not named while another may
// have a topic of that name.
Status Daemon::know_all_topics(ParkedRef parked, Outgoing& out) const {
  std::string unknown;
  bool can_ask = false;
  tables_.meshes.each([&](MeshRef mesh) {
    if (tables_.meshes.get<kMeshTopics>(mesh).loaded) return;
    unknown += " '" + config_of(mesh).slug + "'";
    can_ask = can_ask || can_answer(mesh);
  });
  if (unknown.empty()) return {};
  if (can_ask && may_wait(parked)) {
    out.wait = Wait::kAllTopics;
    return {};
  }
  return fail(Err::kMeshRequired, "name the mesh of this topic; not known are those of" + unknown);
}

Status Daemon::resolve_topic(std::string_view topic, ParkedRef parked, Outgoing& out) {
  const Topics& topics = tables_.meshes.get<kMeshTopics>(out.mesh);
  // By id first, as brokers do.
  for (const auto& [name, id] : topics.names) {
    if (id == topic) {
      out.target_text = "#" + id;
      return {};
    }
  }
  for (const auto& [name, id] : topics.names) {
    if (name == topic) {
      out.target_text = "#" + id;
      return {};
    }
  }
  const bool fresh =
      parked && topics.loaded && topics.loaded_serial >= tables_.parked.get<kParkedSerial>(parked);
  const bool can_ask = can_answer(out.mesh);
  const std::string what = "field 'to': no topic \"" + std::string(topic) + "\"";
  if (fresh) return fail(Err::kNotFound, what);
  if (can_ask && may_wait(parked)) {
    out.wait = Wait::kTopics;
    return {};
  }
  // An id can be taken at its word while nobody can be asked; a name cannot.
  if (topic.size() >= kTopicIdLeast && wire::is_broker_id(topic)) {
    out.target_text = "#" + std::string(topic);
    return {};
  }
  if (!topics.loaded && may_wait(parked)) {
    out.wait = Wait::kTopics;  // a broker may come within the time that requests wait
    return {};
  }
  return fail(Err::kBrokerAway, what + " is known; the broker could not be asked");
}

// --- the mesh of a target ---

std::vector<Daemon::Candidate> Daemon::candidates(std::string_view to) {
  std::vector<Candidate> found;
  const auto add = [&](MeshRef mesh, std::string_view name, const PublicKey& member) {
    if (member == config_of(mesh).key || found.size() == kCandidatesMax) return;
    for (const Candidate& one : found) {
      if (one.mesh == mesh && one.member == member) return;
    }
    found.push_back({mesh, std::string(name), member});
  };
  if (to.front() == '#') {
    tables_.meshes.each([&](MeshRef mesh) {
      for (const auto& [name, id] : tables_.meshes.get<kMeshTopics>(mesh).names) {
        if (name == to.substr(1) || id == to.substr(1)) add(mesh, name, PublicKey{});
      }
    });
    return found;
  }
  const std::string folded = fold_name(to);
  const bool by_key = to.size() >= kKeyPrefixLeast && to.size() <= 64 && is_hex(to);
  const auto matches = [&](const PublicKey& member, std::string_view name_folded) {
    if (by_key) return crypto::view(crypto::hex_text(member)).starts_with(folded);
    return name_folded == folded;
  };
  tables_.meshes.each([&](MeshRef mesh) {
    for (const PeerRef peer : tables_.meshes.get<kMeshRoster>(mesh).peers) {
      const PublicKey& member = tables_.peers.get<kPeerMember>(peer);
      const bool session = by_key && to.size() == 64 &&
                           crypto::view(crypto::hex_text(tables_.peers.get<kPeerKey>(peer))) ==
                               std::string_view(folded);
      if (session || matches(member, tables_.peers.get<kPeerNameFolded>(peer))) {
        add(mesh, tables_.peers.get<kPeerNameFolded>(peer), member);
      }
    }
    const std::string& mesh_id = config_of(mesh).mesh_id;
    const store::Key from =
        by_key ? store::text_key(mesh_id) : store::known_peer_prefix(mesh_id, folded);
    const KnownName known = by_key ? KnownName{} : known_name(mesh, folded);
    const auto has_left = [&](const PublicKey& member) {
      return !by_key && known.bound != member &&
             std::find(known.recent.begin(), known.recent.end(), member) == known.recent.end();
    };
    store::Cursor cursor(batch(), TableId::kKnownPeer);
    for (bool more = cursor.seek(from.bytes()); more; more = cursor.next()) {
      if (!as_text(cursor.key()).starts_with(as_text(from.bytes()))) break;
      store::KnownPeerRow row;
      if (!cursor.row(row)) continue;
      const bool recent = row.fixed.last_seen_ms + kKnownForMs >= env_.wall_ms;
      if ((!recent && row.fixed.bound_ms == 0) || has_left(row.fixed.member)) continue;
      const std::string_view name = row.text[store::kKnownPeerName];
      if (matches(row.fixed.member, fold_name(name))) add(mesh, name, row.fixed.member);
    }
  });
  return found;
}

Status Daemon::find_mesh(ConnRef conn, std::string_view to, ParkedRef parked, Outgoing& out,
                         bool& answered) {
  bool coming = false;
  bool can_ask = false;
  tables_.meshes.each([&](MeshRef mesh) {
    coming = coming || list_is_coming(mesh);
    can_ask = can_ask || state_of(mesh) == LinkState::kOpen;
  });
  const bool is_peer = to.front() != '#' && to.front() != '@' && to != "*";
  // A list that is on its way may show a second mesh: wait for it before the first is believed.
  if (is_peer && coming && may_wait(parked)) {
    out.wait = Wait::kAllRosters;
    return {};
  }
  if (to.front() == '#') {
    const Status known = know_all_topics(parked, out);
    if (!known || out.wait != Wait::kNo) return known;
  }
  const std::vector<Candidate> found = candidates(to);
  std::vector<MeshRef> meshes;
  for (const Candidate& one : found) {
    if (std::find(meshes.begin(), meshes.end(), one.mesh) == meshes.end()) {
      meshes.push_back(one.mesh);
    }
  }
  if (meshes.size() == 1) {
    out.mesh = meshes.front();
    return {};
  }
  if (meshes.size() > 1) {
    answered = true;
    reply_candidates(conn, found);
    return {};
  }
  if (is_peer && !parked && can_ask) {
    out.wait = Wait::kAllRosters;  // once more, before it is refused
    return {};
  }
  return fail(Err::kMeshRequired, is_peer ? "no joined mesh knows field 'to'; name the mesh"
                                          : "name the mesh of this topic or group");
}

void Daemon::reply_candidates(ConnRef conn, const std::vector<Candidate>& found) {
  const ErrInfo& info = info_of(Err::kAmbiguousMesh);
  TextBuf text(scratch(), 1024);
  wire::JsonWriter json(text);
  json.begin_object().field("error", info.wire_code).field("detail", info.meaning);
  json.field("remedy", info.remedy).key("candidates").begin_array();
  for (const Candidate& one : found) {
    json.begin_object().field("mesh", config_of(one.mesh).slug).field("name", one.name);
    json.key("memberPubkey");
    if (one.member == PublicKey{}) {
      json.null();
    } else {
      json.hex(one.member);
    }
    json.end_object();
  }
  json.end_array().end_object();
  reply(conn, static_cast<std::uint32_t>(info.http_status), text.view());
}

}  // namespace cm::daemon
