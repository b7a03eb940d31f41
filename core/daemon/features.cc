// features.cc — which features the broker of a mesh offers, and what follows from them.
// Holds:  asked once a connection, beside the traffic; a broker that says nothing for 2 s, or that
//         does not know the question, is legacy. A required feature that is missing or below its
//         floor ends the mesh with 4010 and a flat reason of at most 123 bytes.
//         Its numbers are kept in the store: until a connection has told them, those of the last
//         one count, and what another broker might take wrongly waits (may_go()).
// Source: docs/PROTOCOL.md §9; spec/wire.md §11.2; spec/decisions.md, "Negotiation";
//         design/delivery.md, "Age".
// Not:    reading the parameters (core/wire/mesh_replies.cc).
#include <algorithm>

#include "core/daemon/daemon.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/mesh_replies.h"
#include "core/wire/mesh_requests.h"

namespace cm::daemon {
namespace {

constexpr std::uint32_t kControlFrame = 0;
constexpr std::uint64_t kSilenceMs = 2'000;
constexpr std::size_t kReasonMax = 123;  // RFC 6455 §5.5: a close frame has 125 bytes
constexpr std::uint32_t kRefusedCode = 4010;
constexpr std::string_view kFeatureRequest = "features";
constexpr std::uint32_t kAgeHoursMost = 720;
constexpr std::uint32_t kAgeHoursLeast = 72;
constexpr std::uint64_t kHourMs = 3'600'000;
// Every broker remembers ids for three days, or is refused: what is younger is no second message.
constexpr std::uint64_t kEveryWindowHours = 71;
constexpr std::string_view kTermsKey = "terms/";  // of a mesh; bytes, hours << 32, this bit
constexpr std::uint64_t kTermsMet = std::uint64_t{1} << 63;
constexpr std::size_t kParamsMost = 8;  // shown of one feature
constexpr std::size_t kParamTextMost = 64;

// design/delivery.md: max(72, days*24 - max(24, ceil(days*0.1*24))).
std::uint32_t age_hours_of(std::uint32_t days) noexcept {
  const std::uint32_t tenth = (days * 24 + 9) / 10;
  const std::uint32_t margin = std::max<std::uint32_t>(24, tenth);
  const std::uint32_t hours = days * 24;
  return std::max(kAgeHoursLeast, hours > margin ? hours - margin : 0);
}

// The longest age that an operator may ask for: behind the broker's window a retry would be a
// second message. A permanent window is not a reason to retry for ever.
std::uint32_t age_hours_most(const wire::FeatureAnswer& answer) noexcept {
  return answer.permanent_dedupe ? kAgeHoursMost : answer.dedupe_days * 24 - 1;
}

// The parameters that a person can read: numbers, switches and short texts, written anew.
std::string shown_params(const wire::JsonTape& tape, const wire::JsonNode& feature,
                         ScratchArena& scratch) {
  TextBuf text(scratch);
  wire::JsonWriter json(text);
  json.begin_object();
  const wire::JsonNode* params =
      feature.type == wire::JsonType::kObject ? tape.find(feature, "params") : nullptr;
  if (params != nullptr && params->type == wire::JsonType::kObject) {
    std::size_t count = 0;
    for (std::uint32_t at = tape.first(*params); at < params->next && count < kParamsMost;
         at = tape.at(at).next) {
      const wire::JsonNode& param = tape.at(at);
      if (param.key.size() > kParamTextMost || !wire::is_shown_text(param.key)) continue;
      const bool text_fits =
          param.type == wire::JsonType::kText && param.text.size() <= kParamTextMost;
      if (text_fits && wire::is_shown_text(param.text)) json.field(param.key, param.text);
      if (param.type == wire::JsonType::kInteger) json.field(param.key, param.integer);
      if (param.type == wire::JsonType::kBool) json.field(param.key, param.boolean);
      ++count;
    }
  }
  json.end_object();
  return std::string(text.view());
}

}  // namespace

std::uint32_t Daemon::payload_limit(MeshRef mesh) const {
  const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
  return features.inline_bytes != 0 ? features.inline_bytes : limits_.payload_bytes_max;
}

std::uint64_t Daemon::age_hours(MeshRef mesh) const {
  const std::uint32_t otherwise =
      config_.outbox_age_hours != 0 ? config_.outbox_age_hours : limits_.outbox_age_hours_max;
  if (!mesh) return otherwise;
  const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
  if (config_.outbox_age_hours != 0 || features.age_hours == 0) return otherwise;
  return features.age_hours;
}

// What the brokers said before this process began.
void Daemon::load_terms() {
  tables_.links.each([&](LinkRef link) { load_terms(link); });
}

void Daemon::load_terms(LinkRef link) {
  Features& features = tables_.links.get<kLinkFeatures>(link);
  const std::string key =
      std::string(kTermsKey) + config_of(tables_.links.get<kLinkMesh>(link)).mesh_id;
  store::MetaRow row;
  if (!batch().get(store::TableId::kMeta, store::text_key(key).bytes(), row)) return;
  features.met = (row.fixed.number & kTermsMet) != 0;
  features.inline_bytes = static_cast<std::uint32_t>(row.fixed.number);
  features.age_hours = static_cast<std::uint32_t>((row.fixed.number & ~kTermsMet) >> 32);
}

// The answer of this connection: what waited for it goes on.
void Daemon::terms_are_known(LinkRef link) {
  Features& features = tables_.links.get<kLinkFeatures>(link);
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  features.met = true;
  const std::string key = std::string(kTermsKey) + config_of(mesh).mesh_id;
  const store::Key at = store::text_key(key);
  store::MetaRow row;
  const bool had = batch().get(store::TableId::kMeta, at.bytes(), row);
  const std::uint64_t number =
      kTermsMet | std::uint64_t{features.age_hours} << 32 | features.inline_bytes;
  if (!had || row.fixed.number != number) {
    row = {};
    row.fixed.number = number;
    batch().put(store::TableId::kMeta, at.bytes(), row);
  }
  age_check_ms_ = 0;  // rows may be due earlier, or later, than was thought
  parked_check_ms_ = 0;
  tables_.lanes.each([&](LaneRef lane) {
    if (tables_.lanes.get<kLaneMesh>(lane) == mesh) mark_ready(lane);
  });
}

bool Daemon::knows_terms(MeshRef mesh) const {
  const FeatureState state = tables_.links.get<kLinkFeatures>(link_of(mesh)).state;
  return state == FeatureState::kAgreed || state == FeatureState::kLegacy;
}

bool Daemon::has_met(MeshRef mesh) const {
  return tables_.links.get<kLinkFeatures>(link_of(mesh)).met;
}

// May this row, encoded, be sent over this connection now? `too_large`: never to this broker.
bool Daemon::may_go(MeshRef mesh, const store::OutboxRow& row, std::size_t frame_bytes,
                    bool& too_large) {
  const std::uint64_t age_ms =
      env_.wall_ms - std::min(env_.wall_ms, std::uint64_t{row.fixed.enqueued_ms});
  const Features& features = tables_.links.get<kLinkFeatures>(link_of(mesh));
  too_large = features.state == FeatureState::kAgreed && frame_bytes > payload_limit(mesh);
  if (too_large) return false;
  if (!knows_terms(mesh)) {
    return age_ms < kEveryWindowHours * kHourMs && frame_bytes <= limits_.payload_bytes_max;
  }
  if (age_ms < age_hours(mesh) * kHourMs) return true;
  age_check_ms_ = 0;  // it ends as too old before it is looked at again
  return false;
}

void Daemon::ask_features(LinkRef link) {
  Features& features = tables_.links.get<kLinkFeatures>(link);
  features.state = FeatureState::kAsked;
  features.deadline_ms = env_.mono_ms + kSilenceMs;
  features_check_ms_ = std::min(features_check_ms_, features.deadline_ms);
  TextBuf id(scratch(), 32);
  id.append(request_prefix_);
  id.append(kFeatureRequest);
  TextBuf frame(scratch(), 256);
  wire::write_feature_request(id.view(), frame);
  effects_.link_send(link, kControlFrame, frame.view());
}

// An answer, or the error of a broker that does not know the question.
bool Daemon::on_feature_frame(LinkRef link, const wire::BrokerFrame& frame) {
  if (frame.type == "feature_negotiation_response") {
    on_features(link, frame);
    return true;
  }
  if (frame.type != "error") return false;
  wire::ErrorFrame error;
  if (!wire::parse_error(frame, error) || !error.id.starts_with(request_prefix_) ||
      error.id.substr(request_prefix_.size()) != kFeatureRequest) {
    return false;
  }
  become_legacy(link, "the broker does not know feature negotiation");
  return true;
}

void Daemon::on_features(LinkRef link, const wire::BrokerFrame& frame) {
  Features& features = tables_.links.get<kLinkFeatures>(link);
  if (features.state == FeatureState::kAgreed || features.state == FeatureState::kUnknown) return;
  wire::FeatureAnswer answer;
  if (Status parsed = wire::parse_features(frame, answer); !parsed) {
    metrics_.add(Metric::kDaemonInvalidInbound);
    return refuse_features(link, "feature_param_invalid", "supported", parsed.error().detail);
  }
  if (!answer.kind.empty()) {
    return refuse_features(link, answer.kind, answer.feature, answer.detail);
  }
  const MeshRef mesh = tables_.links.get<kLinkMesh>(link);
  if (config_.outbox_age_hours > age_hours_most(answer)) {
    return refuse_features(link, "outbox_max_age_above_dedupe_window", "client_message_id_dedupe",
                           std::to_string(config_.outbox_age_hours) + " h, at most " +
                               std::to_string(age_hours_most(answer)) +
                               ": lower outbox.max_age_hours");
  }
  if (answer.bad_optional) {
    env_.log->warn("feature_optional_param_invalid",
                   {{"mesh", config_of(mesh).slug}, {"feature", "max_payload"}});
  }
  features.state = FeatureState::kAgreed;
  features.deadline_ms = 0;
  features.inline_bytes = answer.inline_bytes;
  features.age_hours = answer.permanent_dedupe
                           ? std::min(limits_.outbox_age_hours_max, kAgeHoursMost)
                           : age_hours_of(answer.dedupe_days);
  features.names.assign(answer.names.begin(), answer.names.end());
  features.params.clear();
  const wire::JsonNode* supported = frame.tape.find("supported");
  for (const std::string& name : features.names) {
    features.params.push_back(
        shown_params(frame.tape, *frame.tape.find(*supported, name), scratch()));
  }
  features.receipts = features.receipts || answer.receipts;
  tables_.seen.ready = true;
  terms_are_known(link);
  env_.log->info("broker_features", {{"mesh", config_of(mesh).slug},
                                     {"inline_bytes", payload_limit(mesh)},
                                     {"outbox_max_age_hours", features.age_hours}});
}

void Daemon::become_legacy(LinkRef link, std::string_view why) {
  Features& features = tables_.links.get<kLinkFeatures>(link);
  if (features.state != FeatureState::kAsked) return;
  if (!config_.legacy_brokers) {
    return refuse_features(link, "feature_unavailable", "client_message_id_dedupe",
                           "no negotiation");
  }
  const bool receipts = features.receipts;  // its hello_ack has said so, however slow it is
  features = {};
  features.state = FeatureState::kLegacy;
  features.receipts = receipts;
  tables_.seen.ready = true;
  terms_are_known(link);
  env_.log->info("broker_legacy",
                 {{"mesh", config_of(tables_.links.get<kLinkMesh>(link)).slug}, {"detail", why}});
}

void Daemon::expire_features() {
  if (env_.mono_ms < features_check_ms_) return;
  features_check_ms_ = UINT64_MAX;
  tables_.links.each([&](LinkRef link) {
    const Features& features = tables_.links.get<kLinkFeatures>(link);
    if (features.state != FeatureState::kAsked) return;
    if (features.deadline_ms > env_.mono_ms) {
      features_check_ms_ = std::min(features_check_ms_, features.deadline_ms);
    } else {
      become_legacy(link, "the broker did not answer within 2 s");
    }
  });
}

void Daemon::refuse_features(LinkRef link, std::string_view kind, std::string_view feature,
                             std::string_view detail) {
  const auto write = [&](std::string_view shown, TextBuf& out) {
    wire::JsonWriter json(out);
    json.begin_object().field("kind", kind).field("feature", feature);
    json.field("detail", shown).end_object();
  };
  TextBuf reason(scratch(), 128);
  write(detail, reason);
  if (reason.size() > kReasonMax) {
    reason.truncate(0);
    write({}, reason);
  }
  CHECK(reason.size() <= kReasonMax);
  TextBuf data(scratch(), 256);
  wire::JsonWriter json(data);
  json.begin_object().key("ts").iso_time(env_.wall_ms);
  json.field("mesh", config_of(tables_.links.get<kLinkMesh>(link)).slug).field("kind", kind);
  json.field("feature", feature).field("detail", detail).end_object();
  emit("feature_negotiation_failed", data.view());
  std::string why = std::string(kind) + ": " + std::string(feature);
  if (!detail.empty()) why += " (" + std::string(detail) + ")";
  refuse_mesh(link, kRefusedCode, reason.view(), why);
}

}  // namespace cm::daemon
