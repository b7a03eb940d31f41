// receipts.h — receipts on the wire: what a recipient tells a broker, what a sender is told live.
// Owns:   ReportLevel, the `receipt` of client_ack, the report of seen and its answer, the frame
//         with which a broker tells senders of rows that changed.
// Holds:  only who has said that it knows receipts is sent any of this (docs/PROTOCOL.md §5.5).
//         Views live until the scratch arena is reset.
// Limits: kReceiptTimeMax, kReceiptsAFrame.
// Source: docs/PROTOCOL.md §5.2, §5.5; design/delivery.md, promise 8 and "Queue".
// Not:    the signed text (core/crypto/canonical.h), the chain of message_status (core/broker).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/crypto/keys.h"
#include "core/wire/json_tape.h"
#include "core/wire/json_writer.h"

namespace cm::wire {

struct ClientFrame;

constexpr std::int64_t kReceiptVersion = 1;  // of the feature `receipts`
// The last time that has a text of the form of the wire: 9999-12-31T23:59:59.999Z.
constexpr std::int64_t kReceiptTimeMax = 253'402'300'799'999;
constexpr std::size_t kReceiptsAFrame = 64;

// How far a recipient lets senders see the chain. The numbers are those of store::ReportLevel.
enum class ReportLevel : std::uint8_t { kHanded, kStored, kSeen };
std::string_view text_of(ReportLevel level) noexcept;  // handed, stored, seen
std::optional<ReportLevel> report_level_parse(std::string_view text) noexcept;

// {level, at, sig?}: `at` is the recipient's clock, as in the text that `sig` signs.
struct AckReceipt {
  ReportLevel level = ReportLevel::kHanded;
  std::uint64_t at_ms = 0;
  bool is_signed = false;
  crypto::Signature signature{};
};
Status parse_ack_receipt(const JsonTape& tape, const JsonNode& object, AckReceipt& receipt);
void write_ack_receipt(const AckReceipt& receipt, JsonWriter& json);

// {"type":"receipt","kind":"seen",...}: a client read, or a person saw, what was handed before.
struct SeenReport {
  std::string_view message_id;
  std::string_view client_message_id;
  std::uint64_t at_ms = 0;
};
Status parse_seen_report(const ClientFrame& frame, SeenReport& report);
void write_seen_report(const SeenReport& report, std::string_view request_id, TextBuf& out);

// One row of {"type":"receipt","receipts":[...]}, which a broker sends to who sent a message.
struct LiveReceipt {
  std::string_view message_id;
  std::string_view client_message_id;
  std::string_view recipient;  // routing key in hex, empty if the broker does not know it any more
  std::string_view state;      // handed, seen, expired
  std::uint64_t at_ms = 0;     // when it became that, by the broker's clock
  bool is_signed = false;
  crypto::Signature signature{};
  std::uint64_t handed_ms = 0;  // with a signature: the time in the signed text
};
Status parse_live_receipt(const JsonTape& tape, const JsonNode& object, LiveReceipt& receipt);
void write_live_receipt(const LiveReceipt& receipt, JsonWriter& json);

}  // namespace cm::wire
