// negotiate.cc — which features this broker has, with their parameters.
// Holds:  the answer is the same for every asker and changes nothing: an existing client that
//         never asks is served all the same.
// Source: spec/wire.md §11.2; spec/decisions.md, "Negotiation"; design/delivery.md.
// Not:    what a daemon makes of it (core/daemon).
#include <algorithm>

#include "core/broker/broker.h"
#include "core/broker/texts.h"
#include "core/wire/limits.h"

namespace cm::broker {
namespace {

constexpr int kFeatureVersion = 1;
constexpr std::size_t kFeaturesMax = 64;
constexpr std::string_view kSupported[] = {"client_message_id_dedupe", "max_payload"};

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
  json.field("version", kFeatureVersion).field("mode", "retention_scoped");
  json.field("dedupe_retention_days", limits_.dedupe_retention_days);
  json.field("request_fingerprint", true).end_object().end_object();
  json.key("max_payload").begin_object().key("params").begin_object();
  json.field("version", kFeatureVersion).field("inline_bytes", limits_.frame_bytes_max);
  json.end_object().end_object().end_object();
  json.key("missing_required").begin_array();
  if (required != nullptr) {
    for (std::uint32_t index = frame.tape.first(*required); index < required->next;
         index = frame.tape.at(index).next) {
      if (!is_supported(frame.tape.at(index).text)) json.text(frame.tape.at(index).text);
    }
  }
  json.end_array();
  finish_reply(client, frame, json, text);
}

}  // namespace cm::broker
