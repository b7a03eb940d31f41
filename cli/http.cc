// http.cc — builds the endpoint, makes the call, parses the reply.
#include "cli/http.h"

#include "cli/candidates.h"
#include "cli/config.h"
#include "cli/ensure_daemon.h"
#include "cli/files.h"
#include "cli/progress.h"
#include "core/net/http_client.h"
#include "core/net/socket.h"
#include "core/net/url.h"

namespace cm::cli {
namespace {

Result<Reply> parse_reply(Result<net::HttpReply> answer) {
  if (!answer) return answer.error();
  Reply reply;
  reply.status = answer->status;
  reply.body = std::move(answer->body);
  if (reply.status < 200 || reply.status > 299) {
    Error error = error_of_reply(reply.status, reply.body);
    if (error.code == Err::kAmbiguousMesh) add_candidates(reply.body, error);
    return error;
  }
  reply.arena = std::make_unique<ScratchArena>();
  wire::JsonParser parser;
  if (Status parsed = parser.parse(reply.body, *reply.arena, reply.tape); !parsed) {
    return fail(Err::kTransport, "the reply is no JSON: " + parsed.error().detail);
  }
  return reply;
}

// kUnavailable: nobody listens, and nothing was asked.
Result<net::HttpReply> exchange(std::string_view method, std::string_view target,
                                std::string_view body, std::uint32_t timeout_ms) {
  net::Endpoint endpoint;
  endpoint.unix_path = socket_path();
  const Progress waiting("waiting for the daemon");
  return net::http_call(endpoint, method, target, {}, body, timeout_ms);
}

}  // namespace

std::string_view text_of(const wire::JsonTape& tape, const wire::JsonNode& object,
                         std::string_view key) {
  const wire::JsonNode* node = tape.find(object, key);
  return node != nullptr && node->type == wire::JsonType::kText ? node->text : std::string_view{};
}

bool is_broker_url(std::string_view url) {
  const auto parsed = net::url_parse(url);
  return parsed && (parsed->scheme == net::Scheme::kWs || parsed->scheme == net::Scheme::kWss);
}

bool is_loopback_url(std::string_view url) {
  const auto parsed = net::url_parse(url);
  return parsed && net::is_loopback_host(parsed->host);
}

std::string_view Reply::text(std::string_view key) const { return text_of(tape, tape.root(), key); }

bool Reply::boolean(std::string_view key) const {
  const wire::JsonNode* node = tape.find(key);
  return node != nullptr && node->type == wire::JsonType::kBool && node->boolean;
}

Result<Reply> daemon_call(std::string_view method, std::string_view target, std::string_view body,
                          std::uint32_t timeout_ms) {
  // The common case costs one call: only where nobody listens is a daemon looked after. What a
  // daemon answered is its answer, also that a broker is unavailable: nothing is asked twice.
  if (daemon_mode() != DaemonMode::kNone) {
    auto answer = exchange(method, target, body, timeout_ms);
    if (answer || answer.code() != Err::kUnavailable) return parse_reply(std::move(answer));
  }
  if (Status ready = ensure_daemon(); !ready) return ready.error();
  return daemon_call_raw(method, target, body, timeout_ms);
}

Result<Reply> daemon_call_raw(std::string_view method, std::string_view target,
                              std::string_view body, std::uint32_t timeout_ms) {
  auto answer = exchange(method, target, body, timeout_ms);
  if (!answer && answer.code() == Err::kUnavailable) {
    return fail(Err::kUnavailable, "no daemon listens on " + socket_path());
  }
  return parse_reply(std::move(answer));
}

Result<Reply> broker_call(std::string_view broker_url, std::string_view method,
                          std::string_view target, std::string_view body, std::string_view bearer,
                          const std::string& ca_file) {
  std::string authorization = bearer.empty() ? "" : "Bearer " + std::string(bearer);
  auto reply = broker_call_as(broker_url, method, target, body, authorization, ca_file);
  wipe(authorization);
  return reply;
}

Error error_of_text(std::string_view json) { return error_of_reply(0, json); }

Result<Reply> broker_call_as(std::string_view broker_url, std::string_view method,
                             std::string_view target, std::string_view body,
                             const std::string& authorization, const std::string& ca_file) {
  const auto url = net::url_parse(broker_url);
  if (!url || url->scheme == net::Scheme::kUnix) {
    return fail(Err::kInvalidArgument,
                "the broker's URL: expected ws://HOST:PORT/ws, not " + std::string(broker_url));
  }
  const bool is_token = authorization.starts_with("Bearer ");
  if (is_token && !url->secure() && !net::is_loopback_host(url->host)) {
    return fail(Err::kForbidden, "the admin token is not sent to " + std::string(url->host) +
                                     " without TLS: use wss://");
  }
  net::Endpoint endpoint;
  endpoint.host = std::string(url->host);
  endpoint.port = url->port;
  endpoint.tls = url->secure();
  endpoint.ca_file = ca_file;
  const net::HttpHeader header{"Authorization", authorization};
  net::HttpHeaders headers;
  if (!authorization.empty()) headers = {&header, 1};
  const Progress waiting("waiting for the broker at " + endpoint.host);
  auto answer = net::http_call(endpoint, method, target, headers, body, 15'000);
  if (!answer && answer.code() == Err::kUnavailable) {
    return fail(Err::kUnavailable,
                "no broker listens on " + endpoint.host + ":" + std::to_string(endpoint.port));
  }
  return parse_reply(std::move(answer));
}

}  // namespace cm::cli
