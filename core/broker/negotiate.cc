// negotiate.cc — which features this broker has, with their parameters.
// Holds:  the answer is the same for every asker of a mesh. An existing client that never asks is
//         served all the same, and no policy between connections touches it. Two live control
//         planes of one member are always logged, whatever the policy and whoever asked.
// Source: docs/PROTOCOL.md §9; spec/wire.md §11.2; spec/decisions.md, "Negotiation";
//         design/delivery.md; design/presence.md, "Binding"; spec/wire.md §12.
// Not:    what a daemon makes of it (core/daemon).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {

using store::ConcurrencyPolicy;
using store::TableId;

namespace {

constexpr int kFeatureVersion = 1;
constexpr std::size_t kFeaturesMax = 64;
constexpr std::string_view kPolicy = "concurrent_connection_policy";
constexpr std::string_view kReceipts = "receipts";
constexpr std::string_view kSupported[] = {"client_message_id_dedupe", kPolicy, "max_payload",
                                           kReceipts};
constexpr std::uint32_t kCloseReplaced = 4003;
constexpr std::uint32_t kCloseTaken = 4004;

bool names(const wire::JsonTape& tape, const wire::JsonNode* list, std::string_view name) {
  if (list == nullptr) return false;
  for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
    if (tape.at(at).text == name) return true;
  }
  return false;
}

bool is_supported(std::string_view name) noexcept {
  return std::find(std::begin(kSupported), std::end(kSupported), name) != std::end(kSupported);
}

}  // namespace

void Broker::handle_negotiation(ClientRef client, const Frame& frame) {
  wire::FieldReader fields(frame.tape, frame.tape.root());
  const wire::JsonNode* required = fields.array("require", wire::Need::kOptional);
  const wire::JsonNode* optional = fields.array("optional", wire::Need::kOptional);
  for (const wire::JsonNode* list : {required, optional}) {
    if (!fields.ok() || list == nullptr) continue;
    if (Status good = check_texts(frame.tape, *list, kFeaturesMax, wire::kLabelMax); !good) {
      fields.refuse("require", "at most 64 names of features");
    }
  }
  if (!fields.ok()) return refuse(client, frame, fields.take().error());
  TextBuf text(scratch(), 512);
  wire::JsonWriter json(text);
  json.begin_object().field("type", "feature_negotiation_response").key("supported").begin_object();
  json.key("client_message_id_dedupe").begin_object().key("params").begin_object();
  const bool permanent = limits_.dedupe_retention_days == 0;
  json.field("version", kFeatureVersion);
  json.field("mode", permanent ? "permanent" : "retention_scoped");
  if (!permanent) json.field("dedupe_retention_days", limits_.dedupe_retention_days);
  json.field("request_fingerprint", true).end_object().end_object();
  json.key(kPolicy).begin_object().key("params").begin_object();
  const std::string_view policy = text_of(policy_of(tables_.clients.get<kClientMeshNo>(client)));
  json.field("version", kFeatureVersion).field("default_policy", policy);
  json.end_object().end_object();
  json.key("max_payload").begin_object().key("params").begin_object();
  json.field("version", kFeatureVersion).field("inline_bytes", limits_.frame_bytes_max);
  json.end_object().end_object();
  json.key(kReceipts).begin_object().key("params").begin_object();
  json.field("version", wire::kReceiptVersion).end_object().end_object().end_object();
  json.key("missing_required").begin_array();
  if (required != nullptr) {
    for (std::uint32_t index = frame.tape.first(*required); index < required->next;
         index = frame.tape.at(index).next) {
      if (!is_supported(frame.tape.at(index).text)) json.text(frame.tape.at(index).text);
    }
  }
  json.end_array();
  finish_reply(client, frame, json, text);
  if (names(frame.tape, required, kReceipts) || names(frame.tape, optional, kReceipts)) {
    take_receipts(client);
  }
  if (names(frame.tape, required, kPolicy) || names(frame.tape, optional, kPolicy)) {
    apply_connection_policy(client);
  }
}

store::ConcurrencyPolicy Broker::policy_of(std::uint32_t mesh_no) {
  store::MeshSettingsRow row;
  if (!batch().get(TableId::kMeshSettings, store::u32_key(mesh_no).bytes(), row)) return {};
  // A number that a later version may have written is no reason to close anybody.
  return row.fixed.concurrency < ConcurrencyPolicy::kCount ? row.fixed.concurrency
                                                           : ConcurrencyPolicy::kAllow;
}

// Two live control planes of one member, both of which know the policy: it says which one stays.
// Who does not know it, or shows a session key, is never closed: it would come back for ever.
void Broker::apply_connection_policy(ClientRef client) {
  if (tables_.clients.get<kClientClass>(client) != ClientClass::kControlPlane) return;
  tables_.clients.get<kClientKnowsPolicy>(client) = 1;
  const ConcurrencyPolicy policy = policy_of(tables_.clients.get<kClientMeshNo>(client));
  if (policy == ConcurrencyPolicy::kAllow) return;
  const std::uint64_t serial = tables_.clients.get<kClientSerial>(client);
  const std::vector<ClientRef> others =
      member(tables_.clients.get<kClientMemberNo>(client))->clients;
  for (const ClientRef other : others) {
    if (other == client || tables_.clients.get<kClientKnowsPolicy>(other) == 0) continue;
    const bool other_is_older = tables_.clients.get<kClientSerial>(other) < serial;
    const bool newest_stays = policy == ConcurrencyPolicy::kPreferNewest;
    const bool other_goes = other_is_older == newest_stays;
    close(other_goes ? other : client, newest_stays ? kCloseReplaced : kCloseTaken,
          newest_stays ? "replaced_by_newer_connection" : "member_already_connected");
    if (!other_goes) return;
  }
}

// Audited at the hello, since who does not negotiate is no less a second one.
void Broker::note_concurrent(ClientRef client) {
  if (tables_.clients.get<kClientClass>(client) != ClientClass::kControlPlane) return;
  const std::uint32_t member_no = tables_.clients.get<kClientMemberNo>(client);
  const MemberMirror* owner = member(member_no);
  std::uint32_t live = 0;
  for (const ClientRef other : owner->clients) {
    live += tables_.clients.get<kClientClass>(other) == ClientClass::kControlPlane ? 1u : 0u;
  }
  if (live < 2) return;
  const std::uint32_t mesh_no = tables_.clients.get<kClientMeshNo>(client);
  env_.log->warn("member_concurrent_connection", {{"mesh", mesh(mesh_no)->slug},
                                                  {"member", owner->id},
                                                  {"connections", live},
                                                  {"policy", text_of(policy_of(mesh_no))}});
}

}  // namespace cm::broker
