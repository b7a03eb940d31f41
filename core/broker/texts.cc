// texts.cc — status names and lists of texts.
#include "core/broker/texts.h"

#include <array>

#include "core/wire/fields.h"

namespace cm::broker {
namespace {

constexpr std::array<std::string_view, 3> kStatusNames = {"idle", "working", "dnd"};
constexpr std::array<std::string_view, 3> kPolicyNames = {"prefer_newest", "prefer_oldest",
                                                          "allow_concurrent"};

}  // namespace

std::optional<store::PeerStatus> peer_status_parse(std::string_view text) noexcept {
  for (std::size_t index = 0; index < kStatusNames.size(); ++index) {
    if (kStatusNames[index] == text) return static_cast<store::PeerStatus>(index);
  }
  return std::nullopt;
}

std::string_view text_of(store::PeerStatus status) noexcept {
  return kStatusNames[static_cast<std::size_t>(status) % kStatusNames.size()];
}

std::optional<store::ConcurrencyPolicy> concurrency_policy_parse(std::string_view text) noexcept {
  for (std::size_t index = 0; index < kPolicyNames.size(); ++index) {
    if (kPolicyNames[index] == text) return static_cast<store::ConcurrencyPolicy>(index);
  }
  return std::nullopt;
}

std::string_view text_of(store::ConcurrencyPolicy policy) noexcept {
  return kPolicyNames[static_cast<std::size_t>(policy) % kPolicyNames.size()];
}

Status check_texts(const wire::JsonTape& tape, const wire::JsonNode& list, std::size_t entries,
                   std::size_t bytes) {
  if (list.count > entries) {
    return fail(Err::kMalformed, "at most " + std::to_string(entries) + " entries");
  }
  for (std::uint32_t index = tape.first(list); index < list.next; index = tape.at(index).next) {
    const wire::JsonNode& node = tape.at(index);
    if (node.type != wire::JsonType::kText || node.text.empty() || node.text.size() > bytes ||
        !wire::is_shown_text(node.text)) {
      return fail(Err::kMalformed, "expected texts of 1 to " + std::to_string(bytes) +
                                       " bytes without control characters");
    }
  }
  return {};
}

void write_texts(const wire::JsonTape& tape, const wire::JsonNode& list, wire::JsonWriter& json) {
  json.begin_array();
  if (list.type == wire::JsonType::kArray) {
    for (std::uint32_t index = tape.first(list); index < list.next; index = tape.at(index).next) {
      const wire::JsonNode& node = tape.at(index);
      if (node.type == wire::JsonType::kText) json.text(node.text);
    }
  }
  json.end_array();
}

}  // namespace cm::broker
