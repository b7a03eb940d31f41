// receipts.cc — what this machine tells as a recipient: with each ack, and when something was seen.
// Holds:  an ack says how far senders may see, and unless that is `stored` it is signed by the key
//         of its mesh. What was seen is a row of kSeenDue in the transaction that marks it; the row
//         goes when the broker has answered, so a lost link or a restart repeats it. Nothing is
//         sent to a broker that has not said that it takes receipts.
// Why:    a sender need not believe the broker: the signature is over the ciphertext that came.
// Limits: kDueMax reports wait, kSentMax of a mesh are unanswered; one is repeated after kAgainMs.
// Source: docs/PROTOCOL.md §5.5; design/delivery.md, promise 8, "Queue: claim, lease, ack".
// Not:    what a sender makes of it (chain.cc).
#include <algorithm>

#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/daemon/daemon.h"

namespace cm::daemon {
namespace {

using store::ReportLevel;
using store::TableId;

constexpr std::size_t kDueMax = 10'000;
constexpr std::size_t kSentMax = 32;
constexpr std::size_t kDroppedAtOnce = 500;
constexpr std::uint64_t kAgainMs = 15'000;
constexpr std::uint32_t kControlFrame = 0;
constexpr std::uint8_t kDue[] = {1};

}  // namespace

bool Daemon::takes_receipts(LinkRef link) const {
  return tables_.links.get<kLinkFeatures>(link).receipts;
}

const wire::AckReceipt* Daemon::receipt_for(LinkRef link, const wire::Push& push,
                                            const std::optional<Bytes>& sealed,
                                            wire::AckReceipt& room) {
  if (!takes_receipts(link)) return nullptr;
  room.level = static_cast<wire::ReportLevel>(config_.report_level);
  room.at_ms = env_.wall_ms;
  if (config_.report_level == ReportLevel::kStored || !sealed) return &room;
  const MeshConfig& config = config_of(tables_.links.get<kLinkMesh>(link));
  crypto::HandedReceipt receipt;
  receipt.mesh_id = config.mesh_id;
  receipt.broker_message_id = push.message_id;
  receipt.client_message_id = push.client_message_id;
  receipt.recipient = config.key;
  receipt.ciphertext_hash = crypto::sha256(*sealed);
  receipt.handed_at_ms = room.at_ms;
  TextBuf text(scratch(), 384);
  // An id with a separator in it could be read as another text: it stays unsigned.
  if (!crypto::canonical_handed(receipt, text)) return &room;
  room.signature = crypto::sign(slab_, config.secret, text.view());
  room.is_signed = true;
  return &room;
}

// Memory says what the store says, and nothing is on its way. Rows of messages that are gone, or of
// meshes that are not joined any more, have nobody to be reported to: the next start drops them.
void Daemon::load_seen_reports(bool at_start) {
  SeenReports& seen = tables_.seen;
  seen = {};
  seen.ready = true;
  std::vector<Ulid> orphans;
  {
    store::Cursor cursor(batch(), TableId::kSeenDue);
    for (bool more = cursor.seek({}); more; more = cursor.next()) {
      Ulid id;
      if (!store::parse_ulid_key(cursor.key(), id)) continue;
      store::InboxRow row;
      const bool found = batch().get(TableId::kInbox, store::ulid_key(id).bytes(), row);
      if (at_start && (!found || !mesh_by_id(row.text[store::kInboxMesh]))) {
        orphans.push_back(id);
        continue;
      }
      seen.waiting[found ? std::string(row.text[store::kInboxMesh]) : std::string()].push_back(id);
      ++seen.rows;
    }
  }
  for (const Ulid& id : orphans) batch().erase(TableId::kSeenDue, store::ulid_key(id).bytes());
}

// Of a row that has just become seen, in its transaction.
void Daemon::note_seen(const Ulid& id, MeshRef mesh) {
  if (config_.report_level != ReportLevel::kSeen || !mesh) return;
  const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
  const bool is_known =
      features.state == FeatureState::kAgreed || features.state == FeatureState::kLegacy;
  if (is_known && !features.receipts) return;
  SeenReports& seen = tables_.seen;
  if (seen.rows >= kDueMax) {
    metrics_.add(Metric::kDaemonSeenDropped);
    return;
  }
  batch().put_index(TableId::kSeenDue, store::ulid_key(id).bytes(), kDue);
  seen.waiting[config_of(mesh).mesh_id].push_back(id);
  ++seen.rows;
  seen.ready = true;
}

// The broker wants the ack of this message once more. What it was told of it so far, it has
// answered and forgotten: nobody has seen what nobody has. So it is told again, behind the ack.
void Daemon::repeat_seen(const Ulid& id, MeshRef mesh) {
  const store::Key key = store::ulid_key(id);
  store::InboxRow row;
  if (!batch().get(TableId::kInbox, key.bytes(), row) || row.fixed.seen_ms == 0) return;
  SeenReports& seen = tables_.seen;
  const auto sent = std::find_if(seen.sent.begin(), seen.sent.end(),
                                 [&](const auto& each) { return each.second.id == id; });
  if (sent != seen.sent.end()) {
    seen.waiting[sent->second.mesh_id].push_back(id);
    seen.sent.erase(sent);
    seen.ready = true;
  } else if (batch().get_index(TableId::kSeenDue, key.bytes()).empty()) {
    note_seen(id, mesh);
  }
}

void Daemon::send_seen_reports() {
  expire_seen_reports();
  SeenReports& seen = tables_.seen;
  if (!seen.ready) return;
  seen.ready = false;
  for (auto& [mesh_id, waiting] : seen.waiting) {
    const MeshRef mesh = mesh_by_id(mesh_id);
    if (!mesh || waiting.empty() || state_of(mesh) != LinkState::kOpen) continue;
    const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
    if (features.receipts) {
      send_seen_of(mesh, waiting);
    } else if (features.state == FeatureState::kAgreed || features.state == FeatureState::kLegacy) {
      drop_seen_of(waiting);
    }
  }
}

void Daemon::send_seen_of(MeshRef mesh, std::deque<Ulid>& waiting) {
  const LinkRef link = link_of(mesh);
  SeenReports& seen = tables_.seen;
  auto unanswered = std::count_if(seen.sent.begin(), seen.sent.end(),
                                  [&](const auto& each) { return each.second.link == link; });
  while (!waiting.empty() && unanswered < static_cast<std::ptrdiff_t>(kSentMax)) {
    const Ulid id = waiting.front();
    waiting.pop_front();
    store::InboxRow row;
    const store::Key key = store::ulid_key(id);
    if (!batch().get(TableId::kInbox, key.bytes(), row) ||
        config_.report_level != ReportLevel::kSeen) {
      batch().erase(TableId::kSeenDue, key.bytes());  // deleted, or not to be told any more
      --seen.rows;
      continue;
    }
    const std::uint64_t serial = ++request_serial_;
    wire::SeenReport report;
    report.message_id = row.text[store::kInboxBrokerId];
    report.client_message_id = row.text[store::kInboxClientId];
    report.at_ms = row.fixed.seen_ms;
    TextBuf frame(scratch(), 384);
    wire::write_seen_report(report, request_id(serial), frame);
    effects_.link_send(link, kControlFrame, frame.view());
    const std::uint64_t due = env_.mono_ms + kAgainMs;
    seen.sent[serial] = {id, link, config_of(mesh).mesh_id, due};
    seen_check_ms_ = std::min(seen_check_ms_, due);
    ++unanswered;
  }
}

// Its broker takes no receipts.
void Daemon::drop_seen_of(std::deque<Ulid>& waiting) {
  SeenReports& seen = tables_.seen;
  for (std::size_t dropped = 0; dropped < kDroppedAtOnce && !waiting.empty(); ++dropped) {
    batch().erase(TableId::kSeenDue, store::ulid_key(waiting.front()).bytes());
    waiting.pop_front();
    --seen.rows;
    metrics_.add(Metric::kDaemonSeenDropped);
  }
  if (!waiting.empty()) seen.ready = true;
}

void Daemon::expire_seen_reports() {
  if (env_.mono_ms < seen_check_ms_) return;
  seen_check_ms_ = UINT64_MAX;
  SeenReports& seen = tables_.seen;
  for (auto each = seen.sent.begin(); each != seen.sent.end();) {
    if (each->second.due_ms > env_.mono_ms) {
      seen_check_ms_ = std::min(seen_check_ms_, each->second.due_ms);
      ++each;
      continue;
    }
    seen.waiting[each->second.mesh_id].push_back(each->second.id);
    each = seen.sent.erase(each);
    seen.ready = true;
  }
}

// What it was sent is sent again over the next one, in the same order.
void Daemon::seen_link_lost(LinkRef link) {
  SeenReports& seen = tables_.seen;
  for (auto each = seen.sent.end(); each != seen.sent.begin();) {
    --each;
    if (!(each->second.link == link)) continue;
    seen.waiting[each->second.mesh_id].push_front(each->second.id);
    each = seen.sent.erase(each);
  }
}

bool Daemon::on_receipt_frame(LinkRef link, const wire::BrokerFrame& frame) {
  if (frame.type == "receipt") {
    on_live_receipts(link, frame);
    return true;
  }
  if (frame.type == "receipt_ack") {
    take_seen_answer(link, frame.request_id);
    return true;
  }
  if (frame.type != "error") return false;
  wire::ErrorFrame error;
  // It would be refused again: what a broker does not take is not repeated.
  if (!wire::parse_error(frame, error) || !take_seen_answer(link, error.id)) return false;
  metrics_.add(Metric::kDaemonInvalidInbound);
  env_.log->warn("seen_report_refused", {{"code", error.code}, {"detail", error.message}});
  return true;
}

// False: no answer to one of ours.
bool Daemon::take_seen_answer(LinkRef link, std::string_view id) {
  SeenReports& seen = tables_.seen;
  const auto found = seen.sent.find(serial_of(id));
  if (found == seen.sent.end() || !(found->second.link == link)) return false;
  batch().erase(TableId::kSeenDue, store::ulid_key(found->second.id).bytes());
  seen.sent.erase(found);
  --seen.rows;
  seen.ready = true;
  metrics_.add(Metric::kDaemonSeenReports);
  return true;
}

const char* Daemon::verify_seen() {
  const SeenReports& seen = tables_.seen;
  std::size_t rows = seen.sent.size();
  for (const auto& [mesh_id, waiting] : seen.waiting) rows += waiting.size();
  if (rows != seen.rows) return "the count of reports of seen is wrong";
  store::Cursor cursor(batch(), TableId::kSeenDue);
  std::size_t stored = 0;
  for (bool more = cursor.seek({}); more; more = cursor.next()) ++stored;
  return stored == rows ? nullptr : "the reports of seen differ from their table";
}

}  // namespace cm::daemon
