// oracle.h — what was promised to the clients of a run, and whether it was kept.
// Owns:   Request (what a client asked), Ask (a call without its answer yet), Oracle.
// Holds:  it stands outside the system: it knows what clients sent and what they were answered,
//         what travelled, and at the end what the stores hold. It never reads a core's tables.
// Why:    a checker inside the system repeats the system's mistakes.
// Source: design/delivery.md "Promises", design/presence.md. Each promise and where it is checked:
//   1 accepted means durable      check_outbox (a row, done or dead with a reason), check_all
//   2 an id names one request     send_answered, conflicted, refused: the same answer for good
//   3 accepted at most once       check_broker: one message a sender and id
//   4 accept is atomic            check_broker: dedupe, message and delivery or receipt agree
//   5 once in the inbox           check_inbox (ids), check_all (every stored message arrived)
//   6 order                       check_order: by the order of answers, and that of the outbox
//   7 nothing readable            check_bytes, on every frame and on the whole broker file: bodies
//                                 in four encodings, bare fingerprints raw and in hex
//   8 never delivered when not    oracle_receipts.cc: signed, true, no more than the recipient
//                                 tells, never back; check_all: what a client has read stays
//   of multicasts                 the same for each recipient: a post to a topic has a row for each
//                                 subscriber, a message to all for each who was connected
//   9 one wake                    stream_wrote: between two wakes somebody has read the inbox
// Not:    making requests (workload.h).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/arena.h"
#include "core/base/ids.h"
#include "core/crypto/keys.h"
#include "core/wire/json_tape.h"
#include "store/store.h"
#include "tests/sim/journal.h"
#include "tests/sim/network.h"

namespace cm::sim {

// In every body: nothing between two daemons may hold it.
constexpr std::string_view kMarker = "SIMULATED-PLAINTEXT";
// In the body of a multicast, which nobody encrypts.
constexpr std::string_view kOpenMarker = "SIMULATED-OPEN-TEXT";

enum class TargetKind : std::uint8_t { kName, kKey, kPrefix, kUnknownName, kSelf, kAll, kTopic };

// One thing that a client wants sent. Retries are the same Request.
struct Request {
  std::uint32_t number = 0;
  std::uint32_t daemon = 0;
  std::uint32_t target = 0;  // daemon that it is for; of a multicast: its sender
  TargetKind kind = TargetKind::kKey;
  bool to_many() const noexcept { return kind == TargetKind::kAll || kind == TargetKind::kTopic; }
  std::string id;  // empty: the daemon mints one
  bool id_in_header = false;
  std::string to;
  std::string message;
  std::string reply_to;
  std::uint32_t priority = 1;
  bool oversize = false;
  // What is known of its fate.
  bool accepted = false;      // it was answered 2xx
  bool unknown = false;       // asked once without an answer: it may have been accepted
  bool tried_before = false;  // asked before the answer that accepted it
  std::uint64_t accept_order = 0;
  std::string broker_id;  // of a 200
  bool dead = false;      // a 409 said so
  int requeue_of = -1;    // the request whose place it takes
  bool aborted = false;   // requeued: an answer said so
  bool maybe_aborted = false;
  bool from_raw = false;  // of a legacy client: it has no outbox
};

// Whether an inbox has a row, and whether it was seen. kUnknown: the daemon is down.
enum class Held : std::uint8_t { kNo, kYes, kSeen, kUnknown };
// Asked of the stores of daemons.
struct StoreReader {
  Held (*holds)(void* context, std::uint32_t daemon, std::string_view sender,
                std::string_view id) = nullptr;
  // Of the ciphertext that a daemon keeps of what it sent; false when its bytes are gone.
  bool (*sent_hash)(void* context, std::uint32_t daemon, std::string_view id,
                    crypto::Hash32& hash) = nullptr;
  void* context = nullptr;
};

enum class AskKind : std::uint8_t {
  kSend,
  kRequeue,
  kStatus,
  kDrop,
  kDropOfNobody,
  kPrune,
  kSeen,
  kInbox,
  kStream,
  kSubscribe,
  kOther,
  kMalformed
};
struct Ask {
  AskKind kind = AskKind::kOther;
  // Of kSend, kStatus and kDrop; of kRequeue: the one that takes its place.
  std::uint32_t request = 0;
};

class Oracle {
 public:
  // `plant`: what it forbids although nobody promised it; for tests of the shrinking.
  Oracle(const Plan& plan, const Relay& relay, Journal& journal, Counters& counters,
         std::string_view plant)
      : plan_(plan), relay_(relay), journal_(journal), counters_(counters), plant_(plant) {}
  void set_reader(const StoreReader& reader) { reader_ = reader; }

  bool broken() const noexcept { return !problem_.empty(); }
  const std::string& problem() const noexcept { return problem_; }
  void breaks(std::string_view promise, std::string_view detail);

  // --- what clients ask and are answered ---
  std::uint32_t add(Request request);  // its number
  const std::vector<Request>& requests() const noexcept { return requests_; }
  // Whose row an id has for certain; null when nobody knows.
  const Request* bound(std::uint32_t daemon, const std::string& id) const;
  void asked(std::uint32_t daemon, ConnRef conn, Ask ask);
  // `abandoned`: the iteration's commit failed. `may_be_full`: limits are small in this run.
  void answered(std::uint32_t daemon, ConnRef conn, std::uint32_t status, std::string_view body,
                bool abandoned, bool may_be_full);
  void stream_began(std::uint32_t daemon, ConnRef conn);
  void stream_wrote(std::uint32_t daemon, ConnRef conn, std::string_view text);
  void client_left(std::uint32_t daemon, ConnRef conn);
  void process_died(std::uint32_t daemon);
  std::size_t outstanding() const noexcept { return asks_.size(); }
  // Ids of inbox rows that a client of this daemon was shown lately.
  const std::deque<std::string>& rows_shown(std::uint32_t daemon) { return rows_shown_[daemon]; }

  // --- what a legacy client says of itself ---
  void raw_accepted(std::uint32_t request);
  void raw_received(std::uint32_t number, const std::string& sender, const std::string& id,
                    bool opened, std::string_view body);

  // --- what travels ---
  void to_broker(std::string_view frame);
  void to_daemon(Channel& channel, std::string_view frame, const Network& network);

  // --- the end ---
  // `level`: how far it lets senders see; none of a legacy client, which knows no receipts.
  // `parent`: the key of the member that it is a session of.
  void set_member(std::uint32_t daemon, const crypto::PublicKey& key, std::string_view hex,
                  std::optional<store::ReportLevel> level, std::string_view parent = {});
  void set_mesh(std::string_view id) { mesh_id_ = id; }
  void set_liar(std::string_view hex) { liar_ = hex; }
  // What was told is true, as far as recipients are up.
  void check_claims();
  void check_broker(store::Batch& batch);
  void check_outbox(std::uint32_t daemon, store::Batch& batch, store::Batch& broker);
  void check_inbox(std::uint32_t daemon, store::Batch& batch);
  void check_all();
  void check_bytes(std::string_view what, std::string_view bytes);
  void check_file(std::string_view bytes);  // the broker's whole data file

 private:
  std::map<Ulid, std::uint32_t> check_tombstones(std::uint32_t daemon, store::Batch& batch);
  struct Book {  // of one id at one daemon
    int bound = -1;
    std::vector<std::uint32_t> maybe;
  };
  struct Member {
    crypto::PublicKey key{};
    std::string hex;
    std::optional<store::ReportLevel> level;
    std::string parent;  // of a session
    // Whose mail it takes, besides its own.
    bool takes_for(const Member& other) const noexcept {
      return hex == other.hex || (!parent.empty() && parent == other.hex);
    }
  };
  // The key of the member that a node is, or is a session of.
  const std::string& member_key(std::uint32_t node) const noexcept {
    return members_[node].parent.empty() ? members_[node].hex : members_[node].parent;
  }
  // May it hold this request?
  bool is_for(const Request& request, std::uint32_t node) const noexcept {
    if (request.to_many()) return member_key(node) != member_key(request.daemon);
    return members_[node].takes_for(members_[request.target]);
  }
  const Member* member_of_key(std::string_view hex) const noexcept;
  // A request and the key of one recipient.
  using One = std::pair<std::uint32_t, std::string>;
  enum class Reach : std::uint8_t { kNothing, kHanded, kSeen, kExpired };
  struct Told {  // of a recipient, to the sender
    Reach reach = Reach::kNothing;
    bool live = false;  // by an event, which has no signature to check
    std::string_view broker_id, verdict, signature;
    std::uint64_t handed_ms = 0;
  };
  using AskKey = std::pair<std::uint32_t, std::uint64_t>;

  void send_answered(Request& request, std::uint32_t status, std::string_view body, bool abandoned,
                     bool may_be_full);
  void requeue_answered(Request& request, std::uint32_t status, std::string_view body);
  void status_answered(const Request& request, std::uint32_t status, std::string_view body);
  void drop_answered(const Request& request, std::uint32_t status, std::string_view body);
  bool signs(const Member& to) const;
  bool is_raw(const Request& request, const Member& to) const;
  Reach most_of(const Member& to) const;
  void receipt_streamed(std::uint32_t daemon, std::string_view data);
  void receipt_told(std::uint32_t teller, const Request& request, const Member& to,
                    const Told& told);
  void check_verdict(std::uint32_t teller, const Request& request, const Member& to,
                     const Told& told);
  void check_receipt_row(const Request& request, const Member& to, const store::ReceiptRow& row);
  void note_who_is_there(const Channel& sender, std::string_view frame, const Network& network);
  void check_subscribers(const Request& request, const std::set<std::string>& rows);
  void check_who_was_there(const Request& request, const std::set<std::string>& rows);
  void accepted(Request& request, std::uint32_t status);
  void refused(Request& request, std::uint32_t status, bool may_be_full);
  void conflicted(Request& request);
  void inbox_answered(std::uint32_t daemon, std::string_view body);
  bool parse(std::string_view body, wire::JsonTape& tape);
  std::string text_of(const wire::JsonTape& tape, std::string_view key);
  // The request that a body belongs to; breaks when it is none that `daemon` may hold.
  Request* of_body(std::uint32_t daemon, std::string_view body, std::string_view where);
  // By the id that a row has; null when nobody asked for it.
  const Request* of_id(std::string_view sender, std::string_view id,
                       std::string_view body = {}) const;
  Held held(const Request& request, const Member& to);
  void check_order();
  void check_hex(std::string_view what, std::string_view bytes);
  void note_fingerprint(const Request& request);
  void check_receipts(store::Batch& batch, const Ulid& message, const store::MessageRow& row);
  bool is_delivered(std::uint32_t number) const;
  std::string name(const Request& request) const;

  const Plan& plan_;
  const Relay& relay_;
  Journal& journal_;
  Counters& counters_;
  std::string plant_;
  std::set<std::string> planted_;
  StoreReader reader_;
  std::string mesh_id_;
  std::string liar_;  // its key
  std::string problem_;
  std::vector<Request> requests_;
  std::vector<Member> members_;
  std::map<AskKey, Ask> asks_;
  // Of a daemon: is a wake outstanding, and which event was judged last. A read whose client left
  // may have moved the cursor at any time since: one wake is forgiven for each.
  struct Wake {
    bool told = false;
    std::uint64_t event = 0;
    std::uint32_t forgiven = 0;
  };
  void inbox_read(std::uint32_t daemon) { wakes_[daemon].told = false; }
  void judge_wake(std::uint32_t daemon, std::uint64_t event, bool wakes);

  std::map<std::uint32_t, Wake> wakes_;
  std::map<AskKey, std::uint64_t> streams_;  // the newest event id
  std::set<AskKey> left_;                    // calls whose client closed first: stale, ignored
  std::vector<std::unordered_map<std::string, Book>> books_;
  std::set<std::uint32_t> shown_;  // requests that a client has read in an inbox
  std::uint64_t accepts_ = 0;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> delivered_;  // request, daemon
  std::unordered_map<std::uint32_t, std::uint64_t> outbox_at_;  // position of a done row
  std::set<std::uint32_t> dead_, aborted_;                      // by rows
  std::set<std::uint32_t> expired_;                             // at the broker, with a reason
  std::map<One, Reach> claims_;                                 // told, and not checked yet
  std::map<std::pair<std::uint32_t, One>, Reach> told_;         // by who was told
  std::set<One> owed_;  // of multicasts: rows that the broker calls delivered
  // Counted together, in the order in which they happened: when a member was told that it has
  // subscribed, by key, and when the broker first saw an id.
  std::uint64_t moment_ = 0;
  std::map<std::string, std::uint64_t> subscribed_, first_sent_;
  // By the id of a message: the keys of those who were connected when the broker took it.
  std::map<std::string, std::set<std::string>> there_;
  std::map<std::uint32_t, std::deque<std::string>> rows_shown_;
  std::map<std::pair<std::string, std::string>, std::uint32_t> raw_inbox_;  // sender, id: daemon
  std::map<std::uint32_t, std::uint64_t> raw_arrivals_;  // of a legacy client, by daemon
  std::set<std::uint64_t> bare_;                         // the first 8 bytes of bare fingerprints
  ScratchArena arena_{64 * 1024};
  wire::JsonParser parser_;
};

}  // namespace cm::sim
