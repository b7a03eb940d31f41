// oracle.cc — answers and frames, judged as they come.
#include "tests/sim/oracle.h"

#include <algorithm>
#include <charconv>

#include "core/crypto/fingerprint.h"
#include "tests/sim/relay.h"

namespace cm::sim {
namespace {

bool reads_inbox(AskKind kind) noexcept {
  return kind == AskKind::kInbox || kind == AskKind::kSeen;
}

}  // namespace

void Oracle::breaks(std::string_view promise, std::string_view detail) {
  if (broken()) return;
  problem_ = std::string(promise) + ": " + std::string(detail);
  journal_.add("BROKEN " + problem_);
}

std::string Oracle::name(const Request& request) const {
  return "request " + std::to_string(request.number) + " of d" + std::to_string(request.daemon) +
         " (id '" + request.id + "')";
}

const Oracle::Member* Oracle::member_of_key(std::string_view hex) const noexcept {
  const auto found = std::find_if(members_.begin(), members_.end(),
                                  [hex](const Member& one) { return one.hex == hex; });
  return found == members_.end() || hex.empty() ? nullptr : &*found;
}

void Oracle::set_member(std::uint32_t daemon, const crypto::PublicKey& key, std::string_view hex,
                        std::optional<store::ReportLevel> level, std::string_view parent) {
  if (members_.size() <= daemon) members_.resize(daemon + 1);
  if (books_.size() <= daemon) books_.resize(daemon + 1);
  members_[daemon] = {key, std::string(hex), level, std::string(parent)};
}

std::uint32_t Oracle::add(Request request) {
  request.number = static_cast<std::uint32_t>(requests_.size());
  note_fingerprint(request);
  requests_.push_back(std::move(request));
  return requests_.back().number;
}

void Oracle::asked(std::uint32_t daemon, ConnRef conn, Ask ask) {
  asks_[{daemon, conn.bits()}] = ask;
  if (reads_inbox(ask.kind)) inbox_read(daemon);
}

// Nobody can tell what became of a call without an answer.
void Oracle::client_left(std::uint32_t daemon, ConnRef conn) {
  streams_.erase({daemon, conn.bits()});
  left_.insert({daemon, conn.bits()});
  const auto found = asks_.find({daemon, conn.bits()});
  if (found == asks_.end()) return;
  if (reads_inbox(found->second.kind)) ++wakes_[daemon].forgiven;
  if (found->second.kind == AskKind::kSend || found->second.kind == AskKind::kRequeue) {
    Request& request = requests_[found->second.request];
    if (request.requeue_of >= 0) {
      requests_[static_cast<std::size_t>(request.requeue_of)].maybe_aborted = true;
    }
    request.unknown = true;
    request.tried_before = true;
    if (!request.id.empty()) books_[daemon][request.id].maybe.push_back(request.number);
  }
  asks_.erase(found);
}

void Oracle::process_died(std::uint32_t daemon) {
  std::vector<std::uint64_t> open;
  for (const auto& [key, ask] : asks_) {
    if (key.first == daemon) open.push_back(key.second);
  }
  for (const std::uint64_t bits : open) client_left(daemon, ConnRef::from_bits(bits));
  std::erase_if(streams_, [daemon](const auto& stream) { return stream.first.first == daemon; });
  wakes_.erase(daemon);
}

bool Oracle::parse(std::string_view body, wire::JsonTape& tape) {
  arena_.reset();
  if (parser_.parse(body, arena_, tape)) return true;
  breaks("an answer is JSON", body.substr(0, 200));
  return false;
}

std::string Oracle::text_of(const wire::JsonTape& tape, std::string_view key) {
  const wire::JsonNode* node = tape.find(key);
  return node != nullptr && node->type == wire::JsonType::kText ? std::string(node->text)
                                                                : std::string();
}

void Oracle::answered(std::uint32_t daemon, ConnRef conn, std::uint32_t status,
                      std::string_view body, bool abandoned, bool may_be_full) {
  if (left_.contains({daemon, conn.bits()})) return;
  const auto found = asks_.find({daemon, conn.bits()});
  if (found == asks_.end()) {
    return breaks("every call has one answer", "a second answer, or one to nobody");
  }
  const Ask ask = found->second;
  asks_.erase(found);
  if (reads_inbox(ask.kind)) inbox_read(daemon);
  journal_.line("d%u answers %u to %u", daemon, status, conn.slot);
  // A listing that waited for the broker is answered from the mirror when its link is closed.
  const bool listing = (ask.kind == AskKind::kOther && status == 200) ||
                       (ask.kind == AskKind::kStatus && status != 503 && status != 507);
  if (abandoned && !listing) {
    if (status != 507 && status != 503) breaks("a failed commit answers 507 or 503", body);
    if (ask.kind == AskKind::kSend) requests_[ask.request].tried_before = true;
    return;
  }
  switch (ask.kind) {
    case AskKind::kSend:
      send_answered(requests_[ask.request], status, body, abandoned, may_be_full);
      break;
    case AskKind::kRequeue: requeue_answered(requests_[ask.request], status, body); break;
    case AskKind::kStatus: status_answered(requests_[ask.request], status, body); break;
    case AskKind::kDrop: drop_answered(requests_[ask.request], status, body); break;
    case AskKind::kDropOfNobody:
      if (status != 404) breaks("what is not there is not dropped", body);
      break;
    case AskKind::kPrune:
      if (status != 200 && status != 429) breaks("a prune is answered 200", body);
      break;
    case AskKind::kSeen:
      if (status != 200 && status != 507 && status != 503) breaks("what is read is marked", body);
      break;
    case AskKind::kMalformed:
      if (status != 400) breaks("a malformed request is refused with 400", body);
      break;
    case AskKind::kInbox:
      if (status != 200) return breaks("the inbox can be read", body);
      inbox_answered(daemon, body);
      break;
    case AskKind::kStream:
      if (status != 503 && status != 429 && !(may_be_full && status == 507))
        breaks("a stream is refused only when there are many", body);
      break;
    case AskKind::kSubscribe:
      if (status == 200 && body.find("\"confirmed\":true") != std::string_view::npos) {
        subscribed_.try_emplace(member_key(daemon), ++moment_);
      }
      break;
    case AskKind::kOther:
      if (status != 200) breaks("a listing answers 200", body);
      break;
  }
}

void Oracle::send_answered(Request& request, std::uint32_t status, std::string_view body, bool,
                           bool may_be_full) {
  wire::JsonTape tape;
  if (!parse(body, tape)) return;
  if (status == 202 || status == 200) {
    const std::string id = text_of(tape, "client_message_id");
    if (request.id.empty()) {
      request.id = id;
    } else if (id != request.id) {
      return breaks("2: the same id", name(request) + " was answered for " + id);
    }
    if (status == 200) {
      const std::string broker_id = text_of(tape, "broker_message_id");
      if (broker_id.empty()) breaks("9: done has a broker id", name(request));
      if (!request.broker_id.empty() && request.broker_id != broker_id) {
        breaks("2: the same answer", name(request) + " has two broker ids");
      }
      request.broker_id = broker_id;
    } else if (!request.broker_id.empty()) {
      breaks("2: the same answer", name(request) + " was done and is queued again");
    }
    if (request.dead) breaks("2: the same answer", name(request) + " was dead and lives");
    if (request.aborted) breaks("2: the same answer", name(request) + " was aborted and lives");
    return accepted(request, status);
  }
  const std::string conflict = text_of(tape, "conflict");
  if (status == 409 && conflict == "outbox_dead_fingerprint_match") {
    Book& book = books_[request.daemon][request.id];
    const bool known =
        book.bound == static_cast<int>(request.number) ||
        std::find(book.maybe.begin(), book.maybe.end(), request.number) != book.maybe.end();
    if (!known) breaks("2: an id names one request", name(request) + " matches a row of another");
    if (text_of(tape, "reason").empty()) breaks("1: dead has a reason", name(request));
    request.dead = true;
    book.bound = static_cast<int>(request.number);
    ++counters_.conflicts;
    return;
  }
  if (status == 409 && conflict == "outbox_aborted_fingerprint_match") {
    if (!request.aborted && !request.maybe_aborted) {
      breaks("2: the same answer", name(request) + " was aborted by nobody");
    }
    request.aborted = true;
    ++counters_.conflicts;
    return;
  }
  if (status == 409 && conflict.find("_mismatch") != std::string::npos) return conflicted(request);
  refused(request, status, may_be_full);
}

void Oracle::accepted(Request& request, std::uint32_t status) {
  Book& book = books_[request.daemon][request.id];
  if (book.bound >= 0 && book.bound != static_cast<int>(request.number)) {
    return breaks("2: an id names one request", name(request) + " was accepted under a used id");
  }
  if (request.kind == TargetKind::kUnknownName || request.kind == TargetKind::kSelf) {
    return breaks("an unreachable target is refused", name(request));
  }
  if (request.oversize) return breaks("an oversize message is refused", name(request));
  if (book.bound >= 0) {
    ++counters_.duplicates;
  } else {
    ++counters_.accepted;
    request.accept_order = ++accepts_;
  }
  if (status == 200 && book.bound < 0 && !request.unknown) {
    breaks("2: the same answer", name(request) + " was a duplicate at its first accept");
  }
  book.bound = static_cast<int>(request.number);
  request.accepted = true;
}

void Oracle::requeue_answered(Request& request, std::uint32_t status, std::string_view body) {
  if (request.requeue_of < 0 && status == 200) breaks("a requeue needs a row", body);
  if (status != 200) {
    if (status != 409 && status != 507 && status != 503) breaks("a requeue is 200 or 409", body);
    return;
  }
  ++counters_.requeues;
  Request& old = requests_[static_cast<std::size_t>(request.requeue_of)];
  if (old.aborted) breaks("2: the same answer", name(old) + " was requeued a second time");
  old.aborted = true;
  accepted(request, 202);
}

// Its bytes may go, what its id names may not: later answers are judged as before.
void Oracle::drop_answered(const Request& request, std::uint32_t status, std::string_view body) {
  if (status == 200 || status == 507 || status == 503) return;
  const bool known = bound(request.daemon, request.id) != nullptr;
  if (status == 409 || (status == 404 && !known)) return;
  breaks(known ? "1: accepted means durable" : "a drop is 200, 404 or 409", body);
}

void Oracle::raw_accepted(std::uint32_t number) {
  Request& request = requests_[number];
  request.accepted = true;
  request.accept_order = ++accepts_;
  ++counters_.accepted;
}

void Oracle::raw_received(std::uint32_t number, const std::string& sender, const std::string& id,
                          bool opened, std::string_view body) {
  if (sender == liar_) return;
  const Request* request = of_id(sender, id, body);
  if (request == nullptr) return breaks("1: what arrives is what was sent", "an unknown id: " + id);
  if (!opened && !relay_.changed(sender, id)) {
    return breaks("1: what arrives can be opened", name(*request));
  }
  if (opened && body != request->message) {
    return breaks("1: what arrives is what was sent", name(*request));
  }
  if (!is_for(*request, number)) {
    return breaks("1: the right recipient", name(*request) + " is with " + std::to_string(number));
  }
  raw_inbox_[{sender, id}] = number;
  delivered_[{request->number, number}] = ++raw_arrivals_[number];
  ++counters_.delivered;
  if (request->to_many()) ++counters_.many_delivered;
}

const Request* Oracle::of_id(std::string_view sender, std::string_view id,
                             std::string_view body) const {
  const Request* found = nullptr;
  for (const Request& request : requests_) {
    if (members_[request.daemon].hex != sender) continue;
    // Without an id the answer was lost that would have told it.
    const bool exact = !body.empty() && request.message == body;
    if (exact && (request.id == id || request.id.empty())) return &request;
    if (request.id != id) continue;
    // Of all that asked under this id, the one that has it.
    if (found == nullptr || request.accepted || (request.unknown && !found->accepted)) {
      found = &request;
    }
  }
  return found;
}

void Oracle::note_fingerprint(const Request& request) {
  constexpr std::string_view kPriorities[] = {"now", "next", "low"};
  crypto::RequestParts parts;
  parts.destination = crypto::map_destination(request.to);
  parts.reply_to = request.reply_to;
  parts.priority = kPriorities[request.priority];
  parts.body = as_bytes(request.message);
  const auto bare = crypto::request_fingerprint(parts);
  if (bare) bare_.insert(load_le<std::uint64_t>(bare->data()));
}

void Oracle::conflicted(Request& request) {
  const Book& book = books_[request.daemon][request.id];
  ++counters_.conflicts;
  const auto other = [&](std::uint32_t number) { return number != request.number; };
  const bool bound_to_another = book.bound >= 0 && other(static_cast<std::uint32_t>(book.bound));
  const bool maybe = book.bound < 0 && std::any_of(book.maybe.begin(), book.maybe.end(), other);
  if (!bound_to_another && !maybe) {
    breaks("2: the same request has the same answer", name(request) + " was answered 409");
  }
  request.tried_before = true;
}

void Oracle::refused(Request& request, std::uint32_t status, bool may_be_full) {
  const auto book = books_[request.daemon].find(request.id);
  if (!request.id.empty() && book != books_[request.daemon].end() && book->second.bound >= 0) {
    const bool same = book->second.bound == static_cast<int>(request.number);
    return breaks(same ? "2: the same answer" : "2: another request is 409",
                  name(request) + " was answered " + std::to_string(status));
  }
  request.tried_before = true;
  bool allowed = false;
  const bool looked_up = request.kind == TargetKind::kName || request.kind == TargetKind::kPrefix ||
                         request.kind == TargetKind::kUnknownName ||
                         request.kind == TargetKind::kTopic;
  if (looked_up) allowed = status == 404 || status == 503 || status == 429;
  if (request.kind == TargetKind::kSelf) allowed = status == 400;
  // 503: nobody knows yet what its broker takes; 429: too many wait for that.
  if (request.oversize) {
    allowed = allowed || status == 413 || status == 503 || status == 429;
  }
  if (may_be_full) allowed = allowed || status == 507;
  if (!allowed) {
    breaks("a request that can be delivered is accepted",
           name(request) + " was answered " + std::to_string(status));
  }
}

const Request* Oracle::bound(std::uint32_t daemon, const std::string& id) const {
  const auto book = books_[daemon].find(id);
  if (book == books_[daemon].end() || book->second.bound < 0) return nullptr;
  return &requests_[static_cast<std::size_t>(book->second.bound)];
}

Request* Oracle::of_body(std::uint32_t daemon, std::string_view body, std::string_view where) {
  if (!liar_.empty() && body.starts_with("RUBBISH")) return nullptr;
  std::uint32_t number = UINT32_MAX;
  static_assert(kMarker.size() == kOpenMarker.size());
  if (body.starts_with(kMarker) || body.starts_with(kOpenMarker)) {
    const char* first = body.data() + kMarker.size() + 1;
    std::from_chars(first, body.data() + body.size(), number);
  }
  if (number >= requests_.size() || requests_[number].message != body) {
    breaks("1: what arrives is what was sent", std::string(where) + " has another body");
    return nullptr;
  }
  Request& request = requests_[number];
  if (!is_for(request, daemon)) {
    breaks("1: the right recipient", name(request) + " is with d" + std::to_string(daemon));
    return nullptr;
  }
  if (!request.accepted && !request.unknown && !request.dead && !request.aborted &&
      !request.from_raw) {
    // Its answer may be on its way in this very iteration; a refusal stands for good.
    bool open = false;
    for (const auto& [key, ask] : asks_) {
      open = open || (ask.kind == AskKind::kSend && ask.request == number);
    }
    if (!open) breaks("a refused request consumes nothing", name(request) + " arrived");
  }
  return &request;
}

void Oracle::inbox_answered(std::uint32_t daemon, std::string_view body) {
  wire::JsonTape tape;
  if (!parse(body, tape)) return;
  ++counters_.inbox_reads;
  const wire::JsonNode* items = tape.find("items");
  if (items == nullptr) return breaks("an inbox has items", body.substr(0, 100));
  std::set<std::pair<std::uint32_t, std::string>> here;
  for (std::uint32_t at = tape.first(*items); at < items->next; at = tape.at(at).next) {
    if (const wire::JsonNode* row = tape.find(tape.at(at), "id"); row != nullptr) {
      std::deque<std::string>& rows = rows_shown_[daemon];
      rows.emplace_back(row->text);
      if (rows.size() > 20) rows.pop_front();
    }
    const wire::JsonNode* text = tape.find(tape.at(at), "body");
    const bool missing = text == nullptr || text->type != wire::JsonType::kText;
    if (missing && (!liar_.empty() || plan_.relay_changes())) continue;  // judged at the end
    if (missing) {
      return breaks("1: what arrives can be opened", body.substr(0, 400));
    }
    const Request* request = of_body(daemon, text->text, "an inbox");
    if (broken()) return;
    if (request == nullptr) continue;
    const wire::JsonNode* id = tape.find(tape.at(at), "client_message_id");
    if (!here.insert({request->number, id == nullptr ? "" : std::string(id->text)}).second) {
      return breaks("5: once in the inbox", name(*request));
    }
    shown_.insert(request->number);
  }
}

void Oracle::stream_began(std::uint32_t daemon, ConnRef conn) {
  if (left_.contains({daemon, conn.bits()})) return;
  const auto found = asks_.find({daemon, conn.bits()});
  if (found == asks_.end() || found->second.kind != AskKind::kStream) {
    return breaks("every call has one answer", "a stream for nobody");
  }
  asks_.erase(found);
  streams_[{daemon, conn.bits()}] = 0;
}

void Oracle::stream_wrote(std::uint32_t daemon, ConnRef conn, std::string_view text) {
  if (left_.contains({daemon, conn.bits()})) return;
  const auto found = streams_.find({daemon, conn.bits()});
  if (found == streams_.end()) return breaks("events go to open streams", text.substr(0, 80));
  if (!text.starts_with("id: ")) return;
  std::uint64_t id = 0;
  std::from_chars(text.data() + 4, text.data() + text.size(), id);
  if (id <= found->second) breaks("event ids grow", text.substr(0, 80));
  found->second = id;
  ++counters_.events;
  constexpr std::string_view kMessage = "\nevent: message\ndata: ";
  constexpr std::string_view kReceipt = "\nevent: receipt\ndata: ";
  if (const std::size_t told = text.find(kReceipt); told != std::string_view::npos) {
    text.remove_prefix(told + kReceipt.size());
    return receipt_streamed(daemon, text.substr(0, text.size() - 2));
  }
  const std::size_t at = text.find(kMessage);
  if (at == std::string_view::npos) return;
  wire::JsonTape tape;
  if (!parse(text.substr(at + kMessage.size(), text.size() - at - kMessage.size() - 2), tape)) {
    return;
  }
  const wire::JsonNode* wakes = tape.find("wake");
  if (wakes == nullptr || wakes->type != wire::JsonType::kBool) {
    return breaks("9: one wake", "a message event does not say whether it wakes");
  }
  judge_wake(daemon, id, wakes->boolean);
  const std::string body = text_of(tape, "body");
  if (body.empty() && (!liar_.empty() || plan_.relay_changes())) return;
  const Request* request = of_body(daemon, body, "an event");
  if (request != nullptr) shown_.insert(request->number);
}

// Every stream is told of the same event once.
void Oracle::judge_wake(std::uint32_t daemon, std::uint64_t event, bool wakes) {
  Wake& wake = wakes_[daemon];
  if (event <= wake.event) return;
  wake.event = event;
  if (!wakes) return;
  if (wake.told && wake.forgiven == 0) {
    return breaks("9: one wake", "event " + std::to_string(event) + " of d" +
                                     std::to_string(daemon) + ": nobody has read since the last");
  }
  if (wake.told) --wake.forgiven;
  wake.told = true;
}

void Oracle::to_broker(std::string_view frame) {
  ++counters_.frames;
  check_bytes("a frame", frame);
  check_hex("a frame", frame);
  if (is_type(frame, "send")) {
    first_sent_.try_emplace(std::string(member_of_frame(frame, "client_message_id")), ++moment_);
  }
}

// An ack leaves the broker in the iteration that took the message, behind what came before it.
void Oracle::note_who_is_there(const Channel& sender, std::string_view frame,
                               const Network& network) {
  const bool is_first = frame.find("\"queued\":true") != std::string_view::npos &&
                        frame.find("\"duplicate\":false") != std::string_view::npos;
  if (!is_first || sender.daemon >= members_.size()) return;
  std::set<std::string>& there = there_[std::string(member_of_frame(frame, "id"))];
  for (const auto& other : network.channels()) {
    const bool is_here = other->broker_side && other->greeted && other->daemon < members_.size();
    if (!is_here || member_key(other->daemon) == member_key(sender.daemon)) continue;
    there.insert(members_[other->daemon].hex);
  }
}

void Oracle::to_daemon(Channel& channel, std::string_view frame, const Network& network) {
  check_bytes("a frame", frame);
  check_hex("a frame", frame);
  if (plant_ == "redelivery" && is_type(frame, "push") &&
      member_of_frame(frame, "subtype") != "system") {
    const std::string id(member_of_frame(frame, "messageId"));
    if (!planted_.insert(id).second) breaks("planted: no push is repeated", id);
  }
  if (is_type(frame, "ack")) note_who_is_there(channel, frame, network);
  if (channel.daemon == plan_.daemons + 1) return;  // the liar's
  if (frame.find("\"type\":\"hello_ack\"") != std::string_view::npos) channel.greeted = true;
  if (frame.find("\"type\":\"error\"") != std::string_view::npos) {
    for (const std::string_view code :
         {"\"malformed\"", "\"unknown_message_type\"", "\"no_hello\""}) {
      if (frame.find(code) != std::string_view::npos) {
        breaks("both ends speak one protocol", frame.substr(0, 300));
      }
    }
  }
  // Who has been here before returns; whoever hears it counts it as a join.
  const bool joined = frame.find("\"event\":\"peer_joined\"") != std::string_view::npos ||
                      frame.find("\"event\":\"peer_returned\"") != std::string_view::npos;
  const bool left = frame.find("\"event\":\"peer_left\"") != std::string_view::npos;
  if (!joined && !left) return;
  const Member& listener = members_[channel.daemon];
  for (std::uint32_t daemon = 0; daemon < members_.size(); ++daemon) {
    if (members_[daemon].hex.empty() ||
        frame.find(members_[daemon].hex) == std::string_view::npos) {
      continue;
    }
    // Of the sessions of its own member it hears that they come, not that they go.
    const std::string& parent = members_[daemon].parent;
    if (!parent.empty() && (parent == listener.hex || parent == listener.parent)) return;
    const auto [told, first] = channel.presence.try_emplace(members_[daemon].hex, joined);
    if (!first && told->second == joined) {
      breaks(
          "presence: joins and leaves alternate",
          "d" + std::to_string(channel.daemon) + " was told twice of d" + std::to_string(daemon));
    }
    told->second = joined;
    if (joined) return;
    for (const auto& other : network.channels()) {
      if (other->daemon < members_.size() && members_[other->daemon].hex == members_[daemon].hex &&
          other->broker_side && other->greeted) {
        breaks("presence: nobody leaves who is connected", "d" + std::to_string(daemon));
      }
    }
    return;  // a twin has the same key
  }
}

}  // namespace cm::sim
