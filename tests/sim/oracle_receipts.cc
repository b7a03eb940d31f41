// oracle_receipts.cc — what senders are told of their messages, held against what recipients did.
// Holds:  a receipt says no more than its recipient lets it, never goes back, is signed by who has
//         the message, over what was sent, and is true by the time it is told: the inbox has the
//         row, and of what was seen the instant. Signatures are verified here once more.
// Source: design/delivery.md, promise 8; docs/PROTOCOL.md §5.4, §5.5.
// Not:    who asks, and who reads (workload.cc).
#include <algorithm>

#include "core/base/time_text.h"
#include "core/crypto/canonical.h"
#include "core/crypto/encoding.h"
#include "core/crypto/sign.h"
#include "core/wire/mesh_replies.h"
#include "tests/sim/oracle.h"

namespace cm::sim {
namespace {

using store::ReportLevel;
using wire::JsonNode;
using wire::JsonType;

}  // namespace

// A legacy client acknowledges without a receipt, and so does every daemon behind a legacy broker.
bool Oracle::signs(const Member& to) const {
  return to.level && *to.level != ReportLevel::kStored && !plan_.legacy_broker;
}

// A session or a legacy client took it, before its daemon or beside it.
bool Oracle::is_raw(const Request& request, const Member& to) const {
  if (!request.to_many()) return raw_inbox_.contains({members_[request.daemon].hex, request.id});
  for (std::uint32_t node = 0; node < members_.size(); ++node) {
    const bool is_daemon = members_[node].level.has_value();
    if (is_daemon || !members_[node].takes_for(to)) continue;
    if (delivered_.contains({request.number, node})) return true;
  }
  return false;
}

Oracle::Reach Oracle::most_of(const Member& to) const {
  if (!to.level || plan_.legacy_broker) return Reach::kHanded;
  return *to.level == ReportLevel::kSeen     ? Reach::kSeen
         : *to.level == ReportLevel::kHanded ? Reach::kHanded
                                             : Reach::kNothing;
}

void Oracle::status_answered(const Request& request, std::uint32_t status, std::string_view body) {
  ++counters_.statuses;
  if (status >= 500 && status != 502 && status != 503 && status != 504 && status != 507) {
    breaks("a status is answered", body);
  }
  wire::JsonTape tape;
  if (status != 200 || !parse(body, tape)) return;
  const JsonNode* message = tape.find("message");
  if (message == nullptr || message->type != JsonType::kObject) return;  // no broker was asked
  const JsonNode* list = tape.find(*message, "recipients");
  if (list == nullptr || list->type != JsonType::kArray ||
      (list->count > 1 && !request.to_many())) {
    return breaks("8: a message to one key has one recipient", body);
  }
  for (std::uint32_t at = tape.first(*list); at < list->next; at = tape.at(at).next) {
    const JsonNode& row = tape.at(at);
    const std::string_view state = wire::text_member(tape, row, "state");
    Told told;
    told.broker_id = wire::text_member(tape, *message, "messageId");
    told.verdict = wire::text_member(tape, row, "signature");
    told.signature = wire::text_member(tape, row, "handedSignature");
    told.handed_ms = iso_parse(wire::text_member(tape, row, "handedAt")).value_or(0);
    const bool seen = !wire::text_member(tape, row, "seenAt").empty();
    told.reach = seen                   ? Reach::kSeen
                 : state == "delivered" ? Reach::kHanded
                 : state == "expired"   ? Reach::kExpired
                                        : Reach::kNothing;
    const std::string_view key = wire::text_member(tape, row, "recipientKey");
    const Member* to = request.to_many() ? member_of_key(key) : &members_[request.target];
    // The broker knows the key of a session while that is here.
    const bool may_be_away = wire::text_member(tape, row, "kind") == "session";
    if (to == nullptr && told.reach != Reach::kNothing && !may_be_away) {
      return breaks("8: a recipient has a key", body);
    }
    if (to != nullptr) receipt_told(request.daemon, request, *to, told);
  }
}

// Every daemon of the sender is told, also one that did not send it: its session did.
void Oracle::receipt_streamed(std::uint32_t daemon, std::string_view data) {
  wire::JsonTape tape;
  if (!parse(data, tape)) return;
  const JsonNode& root = tape.root();
  const std::string id(wire::text_member(tape, root, "client_message_id"));
  const Request* request = of_id(members_[daemon].hex, id);
  for (const Member& session : members_) {
    if (request == nullptr && session.parent == members_[daemon].hex) {
      request = of_id(session.hex, id);
    }
  }
  if (request == nullptr) {
    // The daemon made the id, and its answer was lost, or is on its way.
    const bool nameless = std::any_of(requests_.begin(), requests_.end(), [&](const Request& one) {
      return one.id.empty() && members_[one.daemon].hex == members_[daemon].hex;
    });
    if (!nameless) breaks("8: a receipt is of a message that was sent", id);
    return;
  }
  const std::string_view state = wire::text_member(tape, root, "state");
  Told told;
  told.live = true;
  told.verdict = wire::text_member(tape, root, "signature");
  told.reach = state == "seen"     ? Reach::kSeen
               : state == "handed" ? Reach::kHanded
                                   : Reach::kExpired;
  ++counters_.live_receipts;
  const std::string_view key = wire::text_member(tape, root, "recipient");
  const Member* to = request->to_many() ? member_of_key(key) : &members_[request->target];
  if (to == nullptr) return breaks("8: a recipient has a key", data);
  receipt_told(daemon, *request, *to, told);
}

void Oracle::receipt_told(std::uint32_t teller, const Request& request, const Member& to,
                          const Told& told) {
  if (relay_.changed(members_[request.daemon].hex, request.id)) return;
  Reach& before = told_[{teller, {request.number, to.hex}}];
  const bool ends_otherwise = before == Reach::kExpired || told.reach == Reach::kExpired;
  const bool back =
      ends_otherwise ? before != told.reach && before != Reach::kNothing : told.reach < before;
  if (back) return breaks("8: what was told stays told", name(request));
  before = told.reach;
  ++counters_.told[static_cast<std::size_t>(told.reach)];
  if (told.reach == Reach::kNothing || told.reach == Reach::kExpired) return;
  // Within one member nothing is held back; and what a session took, it acknowledges as it can.
  const bool own =
      !members_[request.daemon].parent.empty() && members_[request.daemon].parent == to.hex;
  const bool may_be_handed = own || is_raw(request, to);
  if (told.reach > most_of(to) && !(may_be_handed && told.reach == Reach::kHanded)) {
    return breaks("8: nobody is told more than a recipient tells", name(request));
  }
  check_verdict(teller, request, to, told);
  Reach& claim = claims_[{request.number, to.hex}];
  claim = std::max(claim, told.reach);
  check_claims();
}

// `valid` where the sender can check it, never of what has no signature.
void Oracle::check_verdict(std::uint32_t teller, const Request& request, const Member& to,
                           const Told& told) {
  if (told.verdict == "unsigned" && is_raw(request, to)) return;
  if (!signs(to)) {
    if (told.verdict != "unsigned") breaks("8: what is not signed is not valid", name(request));
    return;
  }
  crypto::HandedReceipt receipt;
  const bool own = teller == request.daemon &&
                   reader_.sent_hash(reader_.context, teller, request.id, receipt.ciphertext_hash);
  // An event may come before the answer to the send, and its bytes may go behind the verdict.
  // The key of one of many has to be known from a list of peers.
  const bool may_be_unchecked = !own || told.live || request.to_many();
  const bool may_be_valid = teller == request.daemon;
  if (!(may_be_unchecked && told.verdict == "unchecked") &&
      !(may_be_valid && told.verdict == "valid")) {
    return breaks("8: a receipt is signed and verified",
                  name(request) + " has the verdict '" + std::string(told.verdict) + "'");
  }
  if (!own || told.live) return;
  receipt.mesh_id = mesh_id_;
  receipt.broker_message_id = told.broker_id;
  receipt.client_message_id = request.id;
  receipt.recipient = to.key;
  receipt.handed_at_ms = told.handed_ms;
  ScratchArena arena(4 * 1024);
  TextBuf text(arena, 512);
  const auto signature = crypto::signature_parse(told.signature);
  if (!signature || !crypto::canonical_handed(receipt, text) ||
      !crypto::verify(to.key, text.view(), *signature)) {
    return breaks("8: a receipt is signed by who has it", name(request));
  }
  ++counters_.verified;
}

// Of a recipient that is down it is asked when it is up again.
void Oracle::check_claims() {
  std::erase_if(claims_, [this](const auto& claim) {
    const Request& request = requests_[claim.first.first];
    const Held here = held(request, *member_of_key(claim.first.second));
    if (here == Held::kNo) breaks("8: delivered means in the inbox", name(request));
    if (here == Held::kYes && claim.second == Reach::kSeen) {
      breaks("8: seen means seen", name(request));
    }
    return here != Held::kUnknown;
  });
}

Held Oracle::held(const Request& request, const Member& to) {
  const std::string& sender = members_[request.daemon].hex;
  Held best = is_raw(request, to) ? Held::kYes : Held::kNo;
  bool unknown = false;
  for (std::uint32_t daemon = 0; daemon < plan_.daemons; ++daemon) {
    if (members_[daemon].hex != to.hex) continue;
    const Held one = reader_.holds(reader_.context, daemon, sender, request.id);
    unknown = unknown || one == Held::kUnknown;
    if (one != Held::kUnknown) best = std::max(best, one);
  }
  return unknown && best != Held::kSeen ? Held::kUnknown : best;
}

// The broker's row of a message that was delivered, when all is quiet.
void Oracle::check_receipt_row(const Request& request, const Member& to,
                               const store::ReceiptRow& row) {
  if (!to.level || plan_.legacy_broker || is_raw(request, to) ||
      relay_.changed(members_[request.daemon].hex, request.id)) {
    return;
  }
  const bool seen = row.fixed.seen_ms != 0;
  const bool is_signed = !row.text[store::kReceiptSignature].empty();
  if (is_signed != signs(to) || (seen && *to.level != ReportLevel::kSeen) ||
      (*to.level == ReportLevel::kStored) != (row.fixed.level == ReportLevel::kStored)) {
    return breaks("8: a recipient tells what its level says", name(request));
  }
  if (*to.level == ReportLevel::kSeen && !seen && held(request, to) == Held::kSeen) {
    breaks("8: what was seen is reported", name(request));
  }
}

}  // namespace cm::sim
