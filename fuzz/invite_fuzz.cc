// invite_fuzz.cc — pasted invites, tokens and payloads.
// Holds:  a token is passed on unmodified; a payload reads the same inside a token and outside;
//         nothing unsigned is let through as signed.
// Not:    expiry and use (core/broker).
#include "core/crypto/encoding.h"
#include "core/wire/invite.h"
#include "core/wire/limits.h"
#include "fuzz/registry.h"
#include "fuzz/wire_checks.h"

namespace cm::wire {
namespace {

bool equal(const Invite& left, const Invite& right) {
  return left.mesh_id == right.mesh_id && left.mesh_slug == right.mesh_slug &&
         left.broker_url == right.broker_url && left.expires_at_s == right.expires_at_s &&
         left.mesh_root_key == right.mesh_root_key && left.role == right.role &&
         left.owner == right.owner && left.signature == right.signature;
}

void check_invite_refusal(const Status& status) {
  CHECK(status.code() == Err::kMalformed || status.code() == Err::kInviteBadSignature ||
        status.code() == Err::kInvalidArgument);
}

void run_pasted(JsonParser& parser, std::string_view pasted, ScratchArena& scratch) {
  const Result<std::string_view> token = invite_token_of(pasted);
  if (!token) {
    CHECK(token.code() == Err::kMalformed && !token.error().detail.empty());
    return;
  }
  CHECK(token->data() >= pasted.data() &&
        token->data() + token->size() <= pasted.data() + pasted.size());
  const Result<std::string_view> again = invite_token_of(*token);
  CHECK(again && *again == *token);
  Invite invite;
  const Status status = decode_invite_token(parser, *token, scratch, invite);
  if (!status) return check_invite_refusal(status);
  CHECK(verify_invite(invite, scratch));
}

void run_payload(JsonParser& parser, std::string_view payload, ScratchArena& scratch) {
  JsonTape tape;
  if (!parser.parse(payload, scratch, tape)) return;
  Invite invite;
  if (const Status status = parse_invite(tape, tape.root(), invite); !status) {
    return fuzz::check_refusal(status);
  }
  CHECK(invite.role == "admin" || invite.role == "member");
  CHECK(invite.mesh_slug.size() <= kSlugMax && invite.broker_url.size() <= kUrlMax);

  TextBuf text(scratch);
  write_invite(invite, text);
  JsonTape tape_again;
  CHECK(parser.parse(text.view(), scratch, tape_again));
  Invite again;
  CHECK(parse_invite(tape_again, tape_again.root(), again));
  CHECK(equal(invite, again));

  const Status verified = verify_invite(invite, scratch);
  if (!verified) check_invite_refusal(verified);
  TextBuf token(scratch);
  crypto::base64url_append(as_bytes(payload), token);
  if (token.size() > kTokenMax) return;
  Invite inside;
  const Status decoded = decode_invite_token(parser, token.view(), scratch, inside);
  CHECK(decoded.code() == verified.code());
  CHECK(equal(invite, inside));
}

}  // namespace
}  // namespace cm::wire

CM_FUZZ_TARGET(invite) {
  using namespace cm;
  static wire::JsonParser parser;
  static ScratchArena scratch;
  scratch.reset();
  const std::string_view text = as_text({data, size});
  wire::run_pasted(parser, text, scratch);
  wire::run_payload(parser, text, scratch);
  return 0;
}
