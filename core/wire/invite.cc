// invite.cc — tokens are base64url of the payload's JSON.
#include "core/wire/invite.h"

#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/fields.h"
#include "core/wire/json_writer.h"
#include "core/wire/limits.h"

namespace cm::wire {
namespace {

constexpr std::size_t kTokenLeast = 21;  // shorter texts are codes, not tokens

bool is_token(std::string_view text) noexcept {
  if (text.size() < kTokenLeast || text.size() > kTokenMax) return false;
  for (const char c : text) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '-' || c == '_';
    if (!good) return false;
  }
  return true;
}

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n' || text.back() == '\t' ||
                           text.back() == '\r' || text.back() == '/')) {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace

Status parse_invite(const JsonTape& tape, const JsonNode& object, Invite& invite) {
  invite = {};
  if (object.type != JsonType::kObject) {
    return fail(Err::kMalformed, "invite_payload: expected an object");
  }
  FieldReader fields(tape, object);
  fields.integer("v", 1, 1);
  invite.mesh_id = fields.broker_id("mesh_id");
  invite.mesh_slug = fields.text("mesh_slug", kSlugMax);
  invite.broker_url = fields.text("broker_url", kUrlMax);
  constexpr std::int64_t kLatest = 253402300799ll;  // the year 9999
  invite.expires_at_s = static_cast<std::uint64_t>(fields.integer("expires_at", 0, kLatest));
  invite.mesh_root_key = fields.text("mesh_root_key", kLabelMax);
  invite.role = fields.text("role", kLabelMax);
  if (fields.ok() && invite.role != "admin" && invite.role != "member") {
    fields.refuse("role", "admin or member");
  }
  invite.owner = fields.public_key("owner_pubkey");
  invite.signature = fields.signature("signature");
  return fields.take();
}

void write_invite(const Invite& invite, TextBuf& out) {
  JsonWriter json(out);
  json.begin_object().field("v", 1).field("mesh_id", invite.mesh_id);
  json.field("mesh_slug", invite.mesh_slug).field("broker_url", invite.broker_url);
  json.field("expires_at", invite.expires_at_s).field("mesh_root_key", invite.mesh_root_key);
  json.field("role", invite.role).key("owner_pubkey").hex(invite.owner);
  json.key("signature").hex(invite.signature).end_object();
}

Result<std::string_view> invite_token_of(std::string_view pasted) {
  std::string_view text = trim(pasted);
  constexpr std::string_view kMark = "join/";
  const std::size_t scheme = text.find("://");
  if (scheme != std::string_view::npos) {
    const std::string_view name = text.substr(0, scheme);
    const std::size_t mark = text.rfind(kMark);
    const bool known = name == "ic" || name == "http" || name == "https" || name == "claudemesh";
    if (!known || mark == std::string_view::npos) {
      return fail(Err::kMalformed, "the invite: expected a token or a link that ends in join/...");
    }
    text = text.substr(mark + kMark.size());
  }
  if (!is_token(text)) {
    return fail(Err::kMalformed,
                "the invite: expected the whole link as it was shared, or its token of "
                "21 to 4096 characters of [A-Za-z0-9_-]");
  }
  return text;
}

Status decode_invite_token(JsonParser& parser, std::string_view token, ScratchArena& scratch,
                           Invite& invite) {
  if (!is_token(token)) return fail(Err::kMalformed, "the invite token has a wrong form");
  const auto payload = crypto::base64url_decode(token, scratch);
  if (!payload) return fail(Err::kMalformed, "the invite token is not base64url");
  JsonTape tape;
  if (Status parsed = parser.parse(as_text(*payload), scratch, tape); !parsed) return parsed;
  if (Status parsed = parse_invite(tape, tape.root(), invite); !parsed) return parsed;
  return verify_invite(invite, scratch);
}

Status verify_invite(const Invite& invite, ScratchArena& scratch) {
  TextBuf text(scratch);
  const Status canonical = crypto::canonical_invite_v1(
      {invite.mesh_id, invite.mesh_slug, invite.broker_url, invite.expires_at_s,
       invite.mesh_root_key, invite.role, invite.owner},
      text);
  if (!canonical) return canonical;
  if (!crypto::verify(invite.owner, text.view(), invite.signature)) {
    return Err::kInviteBadSignature;
  }
  return {};
}

}  // namespace cm::wire
