// broker_url.cc — makes a typed URL usable, or says what was expected.
#include "cli/broker_url.h"

#include "cli/output.h"
#include "cli/progress.h"
#include "core/net/http_client.h"
#include "core/net/url.h"
#include "core/wire/limits.h"

namespace cm::cli {
namespace {

constexpr std::string_view kPath = "/ws";
constexpr std::uint32_t kProbeMs = 15'000;

}  // namespace

Result<std::string> usable_broker_url(std::string_view given, std::string_view what) {
  const auto url = net::url_parse(given);
  if (!url || url->scheme == net::Scheme::kUnix || given.size() + kPath.size() > wire::kUrlMax) {
    return fail(Err::kInvalidArgument, std::string(what) +
                                           ": expected ws://HOST:PORT/ws or wss://HOST/ws, not '" +
                                           harmless(given.substr(0, 256)) + "'");
  }
  const std::size_t host = given.find("://") + 3;
  std::string_view rest = given.substr(host);
  if (url->target == "/" && rest.ends_with('/')) rest.remove_suffix(1);
  std::string usable = url->secure() ? "wss://" : "ws://";
  usable += rest;
  if (url->target == "/") usable += kPath;
  if (usable != given) say("broker URL: " + usable);
  return usable;
}

Status check_broker_path(std::string_view url, const std::string& ca_file) {
  const auto parsed = net::url_parse(url);
  if (!parsed || parsed->target == kPath) return {};
  net::Endpoint endpoint;
  endpoint.host = std::string(parsed->host);
  endpoint.port = parsed->port;
  endpoint.tls = parsed->secure();
  endpoint.ca_file = ca_file;
  const net::HttpHeader headers[] = {{"Connection", "Upgrade"},
                                     {"Upgrade", "websocket"},
                                     {"Sec-WebSocket-Version", "13"},
                                     {"Sec-WebSocket-Key", "Y2xhdWRlbWVzaC1wcm9iZQ=="}};
  const Progress waiting("waiting for the broker at " + endpoint.host);
  const auto answer = net::http_call(endpoint, "GET", parsed->target, headers, {}, kProbeMs);
  if (!answer || answer->status != 404) return {};
  return fail(Err::kInvalidArgument, "the broker has no WebSocket at " + harmless(url) +
                                         "; expected its path, which is /ws as a rule");
}

std::string_view link_remedy(std::string_view last_error) {
  if (last_error.find("answered 404") == std::string_view::npos) return {};
  return "the path of the broker's URL is wrong, as a rule it is /ws: correct brokerUrl in "
         "config.json, or leave the mesh and join it again";
}

}  // namespace cm::cli
