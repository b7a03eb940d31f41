// jcs_fuzz.cc — canonical JSON is a fixed point, and both JSON readers agree on what JSON is.
// Holds:  jcs(jcs(x)) == jcs(x); what jcs takes, the frame parser takes too, save for its own
//         limits of depth, keys and values.
// Why:    two readers of one text are a classic hole: one checks what the other does not see.
// Not:    the published vectors (tests/unit/jcs_test.cc).
#include "core/crypto/jcs.h"
#include "fuzz/registry.h"
#include "fuzz/wire_checks.h"

namespace {

bool is_limit(std::string_view detail) {
  return detail.find("nested deeper") != std::string_view::npos ||
         detail.find("more than") != std::string_view::npos ||
         detail.find("more values") != std::string_view::npos;
}

}  // namespace

CM_FUZZ_TARGET(jcs) {
  using namespace cm;
  static wire::JsonParser parser;
  static ScratchArena scratch;
  scratch.reset();
  const std::string_view json = as_text({data, size});
  TextBuf once(scratch);
  const Status status = crypto::jcs_append(json, once);
  wire::JsonTape tape;
  const Status parsed = parser.parse(json, scratch, tape);
  if (!status) {
    CHECK(once.size() == 0);
    CHECK(status.code() == Err::kMalformed || status.code() == Err::kTooBig);
    return 0;
  }
  TextBuf twice(scratch);
  CHECK(crypto::jcs_append(once.view(), twice));
  CHECK(once.view() == twice.view());
  if (!parsed) {
    CHECK(is_limit(parsed.error().detail));
    return 0;
  }
  wire::JsonTape canonical;
  CHECK(parser.parse(once.view(), scratch, canonical));
  CHECK_EQ(canonical.size(), tape.size());
  CHECK(canonical.root().type == tape.root().type ||
        (tape.root().type == wire::JsonType::kDouble &&
         canonical.root().type == wire::JsonType::kInteger) ||
        (tape.root().type == wire::JsonType::kInteger &&
         canonical.root().type == wire::JsonType::kDouble));
  return 0;
}
