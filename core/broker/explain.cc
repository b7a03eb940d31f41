// explain.cc — which rows of this broker say where a message is: for operators who ask why.
// Holds:  only its sending member is told. A row of a recipient says no more than its chain does,
//         and a chain that ends at `stored` reads the same whatever ended it.
// Limits: kRecipientsMax recipients, then one row that counts the others.
// Source: docs/PROTOCOL.md §5.4; design/delivery.md, promise 8.
// Not:    what happens next in words (the daemon says it), the rows of the daemon.
#include "core/base/time_text.h"
#include "core/broker/broker.h"
#include "core/crypto/encoding.h"

namespace cm::broker {
namespace {

using store::ReceiptState;
using store::TableId;

constexpr std::size_t kRecipientsMax = 64;

std::string time_of(std::uint64_t ms) { return std::string(view(iso_text(ms))); }

}  // namespace

void Broker::write_explanation(const Ulid& id, const store::MessageRow& row,
                               const std::vector<RecipientView>& recipients,
                               wire::JsonWriter& json) {
  const UlidText id_text = ulid_text(id);
  const auto say = [&](std::string_view table, std::string_view key, std::string_view says) {
    json.begin_object().field("table", table).field("key", key).field("says", says).end_object();
  };
  json.begin_array();
  const std::string_view client_id = row.text[store::kMessageClientId];
  store::DedupeRow dedupe;
  if (!client_id.empty() &&
      batch().get(TableId::kDedupe,
                  store::u32_bytes_key(row.fixed.sender_member_no, as_bytes(client_id)).bytes(),
                  dedupe)) {
    say("dedupe", client_id,
        "accepted once, at " + time_of(dedupe.fixed.first_seen_ms) +
            "; a retry of this id is a duplicate " +
            (dedupe.fixed.expires_ms == 0 ? "for good"
                                          : "until " + time_of(dedupe.fixed.expires_ms)));
  } else {
    say("dedupe", client_id, "no row: sent again under this id it would be a new message");
  }
  say("message", view(id_text),
      "stored at " + time_of(row.fixed.created_ms) + ", priority " +
          std::string(text_of(static_cast<wire::Priority>(row.fixed.priority))) + ", " +
          std::to_string(row.text[store::kMessageCiphertext].size()) +
          " characters of ciphertext, for " + std::to_string(recipients.size()) +
          (recipients.size() == 1 ? " recipient" : " recipients"));
  std::size_t shown = 0;
  for (const RecipientView& view_of_row : recipients) {
    if (shown++ == kRecipientsMax) {
      say("receipt", view(id_text),
          std::to_string(recipients.size() - kRecipientsMax) + " more recipients");
      break;
    }
    const MemberMirror* owner = member(view_of_row.member_no);
    std::string key(view(id_text));
    key += view_of_row.mailbox.kind == MailboxKind::kSession ? " session of " : " member ";
    key += owner == nullptr ? "unknown" : owner->name;
    if (view_of_row.state == ReceiptState::kExpired) {
      say("receipt", key,
          "expired at " + time_of(view_of_row.ended_ms) + ": " + std::string(view_of_row.reason));
    } else if (view_of_row.state == ReceiptState::kDelivered) {
      say("receipt", key,
          "handed at " + time_of(view_of_row.ended_ms) +
              (view_of_row.signature.empty() ? ", unsigned" : ", with a signature") +
              (view_of_row.seen_ms != 0 ? "; seen at " + time_of(view_of_row.seen_ms) : ""));
    } else if (view_of_row.claimed) {
      say("claim", key,
          "pushed at " + time_of(view_of_row.claimed_ms) +
              " and not acknowledged; pushed again when its lease or its connection ends");
    } else {
      say("delivery", key,
          "stored at " + time_of(view_of_row.stored_ms) +
              "; the recipient has not taken it, or reports no more");
    }
  }
  json.end_array();
}

}  // namespace cm::broker
