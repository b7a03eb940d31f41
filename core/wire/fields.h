// fields.h — reads typed, bounded members of a JSON object; the first problem sticks.
// Owns:   FieldReader, and the character rules of ids, names and targets.
// Holds:  an error names the field, what was expected and the limit; nothing is truncated.
// Source: docs/PROTOCOL.md §1.1, §1.2.
// Not:    the frames themselves (client_frames.h, broker_frames.h).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/base/result.h"
#include "core/crypto/keys.h"
#include "core/wire/json_tape.h"

namespace cm::wire {

enum class Need : std::uint8_t { kRequired, kOptional };
enum class Lines : std::uint8_t { kOne, kMany };

class FieldReader {
 public:
  FieldReader(const JsonTape& tape, const JsonNode& object) noexcept
      : tape_(&tape), object_(&object) {}

  // An optional field that is absent or null gives the default; so does every field after an
  // error. `max` is in bytes of UTF-8.
  std::string_view text(std::string_view key, std::size_t max, Need need = Need::kRequired);
  // A text that may be shown: no control characters, no bidirectional overrides. For what names
  // something: another text would be another name.
  std::string_view shown(std::string_view key, std::size_t max, Need need = Need::kRequired);
  // The same for texts that are only shown: shown_copy() of what was sent, in `scratch`.
  std::string_view display(std::string_view key, std::size_t max, Lines lines,
                           ScratchArena& scratch, Need need = Need::kOptional);
  // [0-9A-Za-z]{1,32}: ids that a broker gives (design/presence.md, "Binding").
  std::string_view broker_id(std::string_view key, Need need = Need::kRequired);
  // [!-~]{1,128} (design/delivery.md, "Ids").
  std::string_view client_id(std::string_view key, Need need = Need::kOptional);
  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most,
                       Need need = Need::kRequired, std::int64_t otherwise = 0);
  bool boolean(std::string_view key, bool otherwise);
  crypto::PublicKey public_key(std::string_view key, Need need = Need::kRequired);
  std::optional<crypto::PublicKey> optional_key(std::string_view key);
  crypto::Signature signature(std::string_view key);
  // 64 hex digits of either case; `present` tells whether it was there.
  crypto::Hash32 hash(std::string_view key, bool& present);
  // The member if it is an object (or array), else null; of another type: an error.
  const JsonNode* object(std::string_view key, Need need = Need::kRequired);
  const JsonNode* array(std::string_view key, Need need = Need::kRequired);

  const JsonNode* node(std::string_view key) const noexcept { return tape_->find(*object_, key); }
  void refuse(std::string_view key, std::string_view expected);
  // Every other member is refused: where a misspelt field would do something else for good.
  void only(std::initializer_list<std::string_view> known);
  bool ok() const noexcept { return status_.code() == Err::kOk; }
  Status take() const { return status_; }

 private:
  const JsonNode* wanted(std::string_view key, JsonType type, Need need, std::string_view expected);

  const JsonTape* tape_;
  const JsonNode* object_;
  Status status_;
};

bool is_broker_id(std::string_view text) noexcept;  // [0-9A-Za-z]{1,32}
bool is_client_id(std::string_view text) noexcept;  // [!-~]{1,128}
bool is_slug(std::string_view text) noexcept;       // ^[a-z0-9][a-z0-9-]{1,31}$
// No control characters (C0, C1, DEL) and none that reorder or hide text (bidi, zero width).
// Joiners (U+200C, U+200D) stand between characters outside ASCII, as in emoji and Persian.
bool is_shown_text(std::string_view utf8) noexcept;
// `utf8` without what is_shown_text() refuses, itself or in `scratch`; it does not grow. Line feeds
// and tabs become spaces, or stay where a text may have lines.
std::string_view shown_copy(std::string_view utf8, Lines lines, ScratchArena& scratch);
// No C0 control characters or DEL: `to`, `reply_to_id`, target specs.
bool has_control(std::string_view text) noexcept;
bool is_hex_key(std::string_view text) noexcept;  // 64 lower-case hex digits

}  // namespace cm::wire
