// short_link.cc — one GET to the link's own host.
#include "cli/short_link.h"

#include "cli/http.h"
#include "core/net/url.h"

namespace cm::cli {
namespace {

bool is_code(std::string_view text, std::size_t most) {
  for (const char c : text) {
    const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!good) return false;
  }
  return text.size() >= 6 && text.size() <= most;
}

// The code of /i/<code> or /<xx>/i/<code>, or empty.
std::string_view code_of(std::string_view target) {
  if (target.size() > 4 && target[0] == '/' && target[3] == '/') target.remove_prefix(3);
  if (!target.starts_with("/i/")) return {};
  const std::string_view code = target.substr(3);
  return is_code(code, 32) ? code : std::string_view();
}

}  // namespace

bool is_short_code(std::string_view pasted) {
  constexpr std::size_t kTokenLeast = 21;  // as in core/wire/invite.cc
  return is_code(pasted, kTokenLeast - 1);
}

bool is_short_link(std::string_view pasted) {
  const auto url = net::url_parse(pasted);
  return url && (url->scheme == net::Scheme::kHttp || url->scheme == net::Scheme::kHttps) &&
         !code_of(url->target).empty();
}

Result<std::string> resolve_short_link(std::string_view link, const std::string& ca_file) {
  const auto url = net::url_parse(link);
  CHECK(url.has_value());
  const auto reply = broker_call(
      link, "GET", "/api/public/invite-code/" + std::string(code_of(url->target)), {}, {}, ca_file);
  if (!reply) {
    if (reply.code() == Err::kNotFound) {
      return fail(Err::kInviteNotFound, "this link was used, withdrawn, or has expired");
    }
    return reply.error();
  }
  const std::string_view token = reply->text("token");
  if (token.empty()) return fail(Err::kInviteNotFound, "this link was used, or has expired");
  return std::string(token);
}

}  // namespace cm::cli
