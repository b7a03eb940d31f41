// wire_checks.h — properties that several harnesses of core/wire assert.
// Owns:   check_refusal, check_text.
// Holds:  refusing is always allowed; refusing without saying what was wrong is not.
// Not:    fuzz targets (one file each).
#pragma once

#include <string_view>

#include "core/base/arena.h"
#include "core/base/check.h"
#include "core/base/result.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"

namespace cm::fuzz {

inline void check_refusal(const Status& status) {
  CHECK(status.code() == Err::kMalformed);
  CHECK(!status.error().detail.empty() && status.error().detail.size() < 256);
}

// A text that was read can be written, and reads as the same again: so it is valid UTF-8.
inline void check_text(wire::JsonParser& parser, std::string_view text, ScratchArena& scratch) {
  TextBuf out(scratch);
  wire::append_json_text(out, text);
  wire::JsonTape tape;
  CHECK(parser.parse(out.view(), scratch, tape));
  CHECK(tape.size() == 1 && tape.root().type == wire::JsonType::kText);
  CHECK(tape.root().text == text);
}

}  // namespace cm::fuzz
