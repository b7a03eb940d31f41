// ipc_send.h — the body of POST /v1/send on the daemon's IPC.
// Owns:   SendRequest and its parser.
// Holds:  `to` is trimmed; the id from header and body must agree when both are given; `meta` is
//         kept as canonical JSON, because that is what the fingerprint covers.
// Source: docs/PROTOCOL.md §10.2; spec/ipc.md §5, design/delivery.md "Ids".
// Not:    target resolution, the accept table (core/daemon/send.cc).
#pragma once

#include <cstdint>
#include <string_view>

#include "core/base/result.h"
#include "core/wire/json_tape.h"
#include "core/wire/priority.h"

namespace cm::wire {

struct SendRequest {
  std::string_view to;
  std::string_view message;
  Priority priority = Priority::kNext;
  std::string_view meta_jcs;  // empty when absent or null
  std::string_view reply_to;
  std::string_view client_message_id;  // empty: the daemon mints one
  std::string_view mesh;               // slug or id; empty when not given
};

// kTopicPost: the body of POST /v1/topic/post, with `topic` in place of `to`. `mentions` there must
// all occur in the text, because that is where brokers read them.
enum class SendForm : std::uint8_t { kMessage, kTopicPost };
constexpr std::size_t kMentionsMax = 16;

// `idempotency_key` is the header's value or empty. Views live until the scratch reset, or as
// long as the header's. kMalformed, or kInvalidArgument for an id conflict, names the field.
Status parse_send_request(JsonParser& parser, std::string_view body,
                          std::string_view idempotency_key, ScratchArena& scratch,
                          SendRequest& request, SendForm form = SendForm::kMessage);

}  // namespace cm::wire
