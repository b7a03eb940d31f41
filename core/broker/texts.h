// texts.h — small readings of wire texts that several handlers share.
// Owns:   names of statuses and policies, lists of short texts.
// Holds:  no state; views are those of the input.
// Not:    frames (core/wire).
#pragma once

#include <optional>
#include <string_view>

#include "core/base/result.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"
#include "store/schema.h"

namespace cm::broker {

std::optional<store::PeerStatus> peer_status_parse(std::string_view text) noexcept;
std::string_view text_of(store::PeerStatus status) noexcept;

std::optional<store::ConcurrencyPolicy> concurrency_policy_parse(std::string_view text) noexcept;
std::string_view text_of(store::ConcurrencyPolicy policy) noexcept;

// Every entry is a text that may be shown, of 1 to `bytes` bytes; at most `entries` of them.
Status check_texts(const wire::JsonTape& tape, const wire::JsonNode& list, std::size_t entries,
                   std::size_t bytes);
// The texts of a list that check_texts() took, as a list: its source text may hold megabytes of
// white space between them. What is no text is left out.
void write_texts(const wire::JsonTape& tape, const wire::JsonNode& list, wire::JsonWriter& json);

}  // namespace cm::broker
