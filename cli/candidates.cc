// candidates.cc — walks the list.
#include "cli/candidates.h"

#include <string>

#include "cli/http.h"
#include "cli/output.h"
#include "core/base/arena.h"
#include "core/wire/json_tape.h"

namespace cm::cli {

void add_candidates(std::string_view body, Error& error) {
  constexpr std::size_t kKeyShown = 16;
  ScratchArena scratch;
  wire::JsonParser parser;
  wire::JsonTape tape;
  if (!parser.parse(body, scratch, tape)) return;
  const wire::JsonNode* list = tape.find("candidates");
  if (list == nullptr || list->type != wire::JsonType::kArray || list->count == 0) return;
  std::string all;
  for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
    const auto field = [&](std::string_view key) { return text_of(tape, tape.at(at), key); };
    const std::string_view key = field("memberPubkey").substr(0, kKeyShown);
    all += (all.empty() ? "" : "; ") + std::string(field("name"));
    if (!key.empty()) all += " " + std::string(key) + "…";
    all += " in " + std::string(field("mesh"));
  }
  error.detail = all;
  output().candidates = list->text;
}

}  // namespace cm::cli
