// effects.h — what the daemon wants done once the iteration's changes are durable.
// Owns:   Effect and Effects, appended by the core, executed by the loop (or the simulator).
// Holds:  nothing leaves before commit; after an abandoned iteration the list is dropped unseen.
//         Texts live in the iteration's scratch arena.
// Not:    execution: cli/run_daemon.cc, tests/sim.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/ids.h"

namespace cm::daemon {

// A connection of the daemon to a broker, made by a transport: one a mesh, later one a session.
using LinkRef = Ref<struct LinkTag>;

enum class EffectKind : std::uint8_t {
  kLinkOpen,     // connect `link` to the address `text`
  kLinkSend,     // hand `text` to the transport; `code` is the frame kind of the ABI
  kLinkNote,     // `code`: 1 the hello was accepted, 2 it was refused
  kLinkClose,    // close with `code` and the reason `text`; the link is gone for the transport
  kHttpReply,    // answer with status `code` and the body `text`
  kStreamBegin,  // begin an event stream
  kStreamWrite,  // append `text` to the stream
  kRotateToken,  // write a new local token, then Daemon::on_token_rotated()
  kReload,       // read config.json in the next iteration, then Daemon::on_reloaded()
};

struct Effect {
  EffectKind kind = EffectKind::kLinkSend;
  std::uint32_t code = 0;
  LinkRef link;
  ConnRef conn;
  std::string_view text;
  std::string_view content_type;    // kHttpReply
  std::uint32_t retry_after_s = 0;  // kHttpReply: a Retry-After header, unless 0
  std::string_view next = {};       // kHttpReply: target of the page after it, for a Link header
};

class Effects {
 public:
  void link_open(LinkRef link, std::string_view address) {
    list_.push_back({EffectKind::kLinkOpen, 0, link, {}, address, {}});
  }
  void link_send(LinkRef link, std::uint32_t frame_kind, std::string_view frame) {
    list_.push_back({EffectKind::kLinkSend, frame_kind, link, {}, frame, {}});
  }
  void link_note(LinkRef link, std::uint32_t verdict) {
    list_.push_back({EffectKind::kLinkNote, verdict, link, {}, {}, {}});
  }
  void link_close(LinkRef link, std::uint32_t code, std::string_view reason) {
    list_.push_back({EffectKind::kLinkClose, code, link, {}, reason, {}});
  }
  void http_reply(ConnRef conn, std::uint32_t status, std::string_view body,
                  std::string_view content_type = "application/json",
                  std::uint32_t retry_after_s = 0, std::string_view next = {}) {
    list_.push_back(
        {EffectKind::kHttpReply, status, {}, conn, body, content_type, retry_after_s, next});
  }
  void rotate_token(ConnRef conn) {
    list_.push_back({EffectKind::kRotateToken, 0, {}, conn, {}, {}});
  }
  void reload(ConnRef conn) { list_.push_back({EffectKind::kReload, 0, {}, conn, {}, {}}); }
  void stream_begin(ConnRef conn) {
    list_.push_back({EffectKind::kStreamBegin, 0, {}, conn, {}, {}});
  }
  void stream_write(ConnRef conn, std::string_view text) {
    list_.push_back({EffectKind::kStreamWrite, 0, {}, conn, text, {}});
  }

  const std::vector<Effect>& list() const noexcept { return list_; }
  void clear() noexcept { list_.clear(); }

 private:
  std::vector<Effect> list_;
};

}  // namespace cm::daemon
