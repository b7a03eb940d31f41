// ipc_send_fuzz.cc — the body of POST /v1/send; the first line is the Idempotency-Key header.
// Holds:  what is let through is trimmed, bounded and unambiguous; `meta` is canonical.
// Not:    HTTP (http_fuzz.cc).
#include "core/crypto/jcs.h"
#include "core/wire/fields.h"
#include "core/wire/ipc_send.h"
#include "core/wire/limits.h"
#include "fuzz/json_mutator.h"
#include "fuzz/registry.h"
#include "fuzz/wire_checks.h"
#include "fuzz/wire_names.h"

namespace cm::wire {
namespace {

void check_request(JsonParser& parser, const SendRequest& request, ScratchArena& scratch) {
  CHECK(!request.to.empty() && request.to.size() <= kTargetMax && !has_control(request.to));
  CHECK(request.to.front() != ' ' && request.to.back() != ' ');
  CHECK(!request.message.empty());
  CHECK(request.reply_to.size() <= kReplyToMax && request.mesh.size() <= kTargetMax);
  CHECK(request.client_message_id.empty() || is_client_id(request.client_message_id));
  fuzz::check_text(parser, request.message, scratch);
  if (request.meta_jcs.empty()) return;
  TextBuf again(scratch);
  CHECK(crypto::jcs_append(request.meta_jcs, again));
  CHECK(again.view() == request.meta_jcs && request.meta_jcs.front() == '{');
}

}  // namespace
}  // namespace cm::wire

CM_FUZZ_JSON_MUTATOR(cm::fuzz::kSendNames, cm::fuzz::kSendNames)

CM_FUZZ_TARGET(ipc_send) {
  using namespace cm;
  static wire::JsonParser parser;
  static ScratchArena scratch;
  scratch.reset();
  const std::string_view text = as_text({data, size});
  const std::size_t line = text.find('\n');
  const std::string_view key = line == std::string_view::npos ? "" : text.substr(0, line);
  const std::string_view body = line == std::string_view::npos ? text : text.substr(line + 1);
  wire::SendRequest request;
  const Status status = wire::parse_send_request(parser, body, key, scratch, request);
  if (!status) {
    CHECK(status.code() == Err::kMalformed || status.code() == Err::kInvalidArgument);
    CHECK(!status.error().detail.empty());
    return 0;
  }
  wire::check_request(parser, request, scratch);
  return 0;
}
