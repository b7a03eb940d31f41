// effects.h — what the broker wants done once the iteration's changes are durable.
// Owns:   Effect and Effects, appended by the core, executed by the loop (or the simulator).
// Holds:  nothing leaves before commit; after an abandoned iteration the list is dropped unseen.
//         Texts live in the iteration's scratch arena.
// Why:    no acknowledgement can overtake the write it acknowledges (design/delivery.md, 1).
// Not:    execution: cli/run_broker.cc, tests/sim.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/ids.h"

namespace cm::broker {

enum class EffectKind : std::uint8_t {
  kWsText,      // send `text` as one text message
  kWsClose,     // close with `code` and the reason `text`
  kFrameLimit,  // accept messages of up to `code` bytes from now on
  kHttpReply,   // answer with status `code` and the body `text`
  kGroup,       // the connection is of member `code`: its unfinished input counts with theirs
};

struct Effect {
  EffectKind kind = EffectKind::kWsText;
  ConnRef conn;
  std::uint32_t code = 0;
  std::string_view text;
  std::string_view content_type;  // kHttpReply
};

class Effects {
 public:
  void ws_text(ConnRef conn, std::string_view text) {
    add({EffectKind::kWsText, conn, 0, text, {}});
  }
  void ws_close(ConnRef conn, std::uint32_t code, std::string_view reason) {
    add({EffectKind::kWsClose, conn, code, reason, {}});
  }
  void frame_limit(ConnRef conn, std::uint32_t bytes) {
    add({EffectKind::kFrameLimit, conn, bytes, {}, {}});
  }
  void group(ConnRef conn, std::uint32_t member_no) {
    add({EffectKind::kGroup, conn, member_no, {}, {}});
  }
  void http_reply(ConnRef conn, std::uint32_t status, std::string_view body,
                  std::string_view content_type = "application/json") {
    add({EffectKind::kHttpReply, conn, status, body, content_type});
  }

  const std::vector<Effect>& list() const noexcept { return list_; }
  // What they cost until they are executed: the list itself and each text once a receiver.
  std::uint64_t bytes() const noexcept { return bytes_; }
  void clear() noexcept {
    list_.clear();
    bytes_ = 0;
  }

 private:
  void add(const Effect& effect) {
    list_.push_back(effect);
    bytes_ += sizeof(Effect) + effect.text.size();
  }

  std::vector<Effect> list_;
  std::uint64_t bytes_ = 0;
};

}  // namespace cm::broker
