// http.h — the CLI's two kinds of calls: to this user's daemon and to a broker.
// Owns:   Reply (status and parsed JSON), daemon_call, broker_call.
// Holds:  an answer that is an error comes back as an Error with the sentence of its sender.
// Not:    HTTP (core/net/http_client.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/base/arena.h"
#include "core/base/result.h"
#include "core/wire/json_tape.h"

namespace cm::cli {

// The JSON of a reply; nodes and texts live as long as it.
struct Reply {
  int status = 0;
  std::string body;
  std::unique_ptr<ScratchArena> arena;
  wire::JsonTape tape;

  std::string_view text(std::string_view key) const;
  bool boolean(std::string_view key) const;
};

// Starts the daemon if none runs and the policy allows it (cli/ensure_daemon.h).
Result<Reply> daemon_call(std::string_view method, std::string_view target,
                          std::string_view body = {}, std::uint32_t timeout_ms = 10'000);
// kUnavailable when no daemon listens; never starts one.
Result<Reply> daemon_call_raw(std::string_view method, std::string_view target,
                              std::string_view body = {}, std::uint32_t timeout_ms = 10'000);

// `broker_url` is the WebSocket URL (ws:// or wss://host:port/ws). `bearer` may be empty; it does
// not travel without TLS, except on this machine (kForbidden). `ca_file` as in net::Endpoint.
Result<Reply> broker_call(std::string_view broker_url, std::string_view method,
                          std::string_view target, std::string_view body, std::string_view bearer,
                          const std::string& ca_file);

// The same with any `Authorization`; a signature may travel without TLS, a token may not.
Result<Reply> broker_call_as(std::string_view broker_url, std::string_view method,
                             std::string_view target, std::string_view body,
                             const std::string& authorization, const std::string& ca_file);

// ws:// or wss://, as config.json holds it.
bool is_broker_url(std::string_view url);
bool is_loopback_url(std::string_view url);

// What a command of ours printed with --json, as an Error.
Error error_of_text(std::string_view json);

// Text of a member of any object node, or empty.
std::string_view text_of(const wire::JsonTape& tape, const wire::JsonNode& object,
                         std::string_view key);

}  // namespace cm::cli
