// oracle.h — what was promised to the clients of a run, and whether it was kept.
// Owns:   Request (what a client asked), Ask (a call without its answer yet), Oracle.
// Holds:  it stands outside the system: it knows what clients sent and what they were answered,
//         what travelled, and at the end what the stores hold. It never reads a core's tables.
// Why:    a checker inside the system repeats the system's mistakes.
// Source: design/delivery.md "Promises" (numbers in the messages are those), design/presence.md.
// Not:    making requests (workload.h).
#pragma once

#include <cstdint>
#include <map>
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

enum class TargetKind : std::uint8_t { kName, kKey, kPrefix, kUnknownName, kSelf };

// One thing that a client wants sent. Retries are the same Request.
struct Request {
  std::uint32_t number = 0;
  std::uint32_t daemon = 0;
  std::uint32_t target = 0;  // daemon that it is for
  TargetKind kind = TargetKind::kKey;
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
};

enum class AskKind : std::uint8_t { kSend, kInbox, kStream, kOther, kMalformed };
struct Ask {
  AskKind kind = AskKind::kOther;
  std::uint32_t request = 0;  // of kSend
};

class Oracle {
 public:
  Oracle(Journal& journal, Counters& counters) : journal_(journal), counters_(counters) {}

  bool broken() const noexcept { return !problem_.empty(); }
  const std::string& problem() const noexcept { return problem_; }
  void breaks(std::string_view promise, std::string_view detail);

  // --- what clients ask and are answered ---
  std::uint32_t add(Request request);  // its number
  const std::vector<Request>& requests() const noexcept { return requests_; }
  void asked(std::uint32_t daemon, ConnRef conn, Ask ask);
  // `abandoned`: the iteration's commit failed. `may_be_full`: limits are small in this run.
  void answered(std::uint32_t daemon, ConnRef conn, std::uint32_t status, std::string_view body,
                bool abandoned, bool may_be_full);
  void stream_began(std::uint32_t daemon, ConnRef conn);
  void stream_wrote(std::uint32_t daemon, ConnRef conn, std::string_view text);
  void client_left(std::uint32_t daemon, ConnRef conn);
  void process_died(std::uint32_t daemon);
  std::size_t outstanding() const noexcept { return asks_.size(); }

  // --- what travels ---
  void to_broker(std::string_view frame);
  void to_daemon(Channel& channel, std::string_view frame, const Network& network);

  // --- the end ---
  void set_member(std::uint32_t daemon, const crypto::PublicKey& key, std::string_view hex);
  void check_broker(store::Batch& batch);
  void check_outbox(std::uint32_t daemon, store::Batch& batch, store::Batch& broker);
  void check_inbox(std::uint32_t daemon, store::Batch& batch);
  void check_all();
  void check_bytes(std::string_view what, std::string_view bytes);

 private:
  std::map<Ulid, std::uint32_t> check_tombstones(std::uint32_t daemon, store::Batch& batch);
  struct Book {  // of one id at one daemon
    int bound = -1;
    std::vector<std::uint32_t> maybe;
  };
  struct Member {
    crypto::PublicKey key{};
    std::string hex;
  };
  struct Seen {  // a row of an inbox
    std::uint32_t daemon = 0;
    std::uint64_t position = 0;
  };
  using AskKey = std::pair<std::uint32_t, std::uint64_t>;

  void send_answered(Request& request, std::uint32_t status, std::string_view body, bool abandoned,
                     bool may_be_full);
  void accepted(Request& request, std::uint32_t status);
  void refused(Request& request, std::uint32_t status, bool may_be_full);
  void conflicted(Request& request);
  void inbox_answered(std::uint32_t daemon, std::string_view body);
  bool parse(std::string_view body, wire::JsonTape& tape);
  std::string text_of(const wire::JsonTape& tape, std::string_view key);
  // The request that a body belongs to; breaks when it is none that `daemon` may hold.
  Request* of_body(std::uint32_t daemon, std::string_view body, std::string_view where);
  std::string name(const Request& request) const;

  Journal& journal_;
  Counters& counters_;
  std::string problem_;
  std::vector<Request> requests_;
  std::vector<Member> members_;
  std::map<AskKey, Ask> asks_;
  std::map<AskKey, std::uint64_t> streams_;  // the newest event id
  std::set<AskKey> left_;                    // calls whose client closed first: stale, ignored
  std::vector<std::unordered_map<std::string, Book>> books_;
  std::set<std::uint32_t> shown_;  // requests that a client has read in an inbox
  std::uint64_t accepts_ = 0;
  std::unordered_map<std::uint32_t, Seen> delivered_;           // by request
  std::unordered_map<std::uint32_t, std::uint64_t> outbox_at_;  // position of a done row
  std::set<std::uint32_t> dead_;
  ScratchArena arena_{64 * 1024};
  wire::JsonParser parser_;
};

}  // namespace cm::sim
