// broker.h — the coordination plane as one state machine over tables: events in, effects out.
// Owns:   Broker. Its rules are in: broker.cc (dispatch, deadlines), hello.cc and
//         session_hello.cc (checks), attach.cc (admission), presence.cc (leases), profile.cc
//         (status, summary, groups), peer_state.cc (what a member gets back), peers.cc (lists,
//         events), accept.cc (sends), route.cc (who gets them), queue.cc and claim.cc (pushes,
//         redelivery, acks), retention.cc (what expires), pressure.cc (a disk that fills),
//         receipts.cc (what senders are told), message_status.cc, explain.cc, negotiate.cc,
//         meter.cc (what frames cost), load.cc (mirrors), verify.cc; shared/ (topics, state,
//         memory, skills: what a mesh keeps for its members); http/ (routes, authority,
//         enrollment, administration).
// Holds:  within a handler: parse, validate, authorise, then mutate. Nothing is written before
//         every check has passed. All calls come between store begin and commit, by the loop.
// Why:    the same object code runs in the product and in the simulator.
// Not:    sockets, clocks, randomness, commits (design/architecture.md, "The cores do no I/O").
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/base/pressure.h"
#include "core/broker/effects.h"
#include "core/broker/http/authority.h"
#include "core/broker/http/minute_count.h"
#include "core/broker/retention.h"
#include "core/broker/shared/text_index.h"
#include "core/broker/tables.h"
#include "core/crypto/slab.h"
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "core/wire/http_request.h"
#include "core/wire/json_writer.h"
#include "store/store.h"

namespace cm::broker {

struct Config {
  std::string public_url = "ws://127.0.0.1:7900/ws";  // goes into invites
  bool accepts_admin_token = true;                    // false for a plaintext listener off loopback
  // What a Host header may call this broker: a member signs for one of these, so that another
  // broker cannot use what it was sent. The second list counts for callers on this machine only.
  std::vector<std::string> hosts;
  std::vector<std::string> local_hosts = {"127.0.0.1:7900", "localhost:7900", "[::1]:7900"};
  std::string version = "0";
  bool durability_sync = true;
};

class Broker {
 public:
  // All references outlive the broker. `env.batch` is set before the first call.
  Broker(const Config& config, const Limits& limits, Env& env, Effects& effects, Metrics& metrics,
         crypto::SecretSlab& slab);

  // Builds the mirrors from the store; sockets of an earlier process are gone, so every presence
  // starts offline with a fresh lease. The caller commits.
  Status load();

  // The admin token's SHA-256, kept in the store; the token itself is a file of the operator's.
  void set_admin_token_hash(const crypto::Hash32& hash);

  // --- events of one iteration ---
  // `address` is the other end's, for what is judged by where it comes from.
  void on_open(ConnRef conn, const wire::PeerAddress& address = {});
  void on_text(ConnRef conn, std::string_view frame);
  // `code`: what the peer said when it closed; 0 if it was not the peer.
  void on_closed(ConnRef conn, std::uint16_t code = 0);
  void on_http(ConnRef conn, const wire::HttpRequest& request);
  // Due deadlines, then everything that can be pushed. Call once an iteration, last.
  void step();

  // Monotonic ms of the next deadline, or UINT64_MAX. step() at that time has work.
  std::uint64_t next_deadline() const noexcept;
  // From now on /health/ready says that no new work should come.
  void set_draining() noexcept { draining_ = true; }
  // True when step() stopped at its budget: the next iteration must not block.
  bool work_left() const noexcept {
    return leases_left_ || !tables_.dirty.empty() || !recalls_.empty();
  }
  // True when this iteration has written or has to send its share: step() comes next, and events
  // that are left are given to the iteration after it. One event may go far beyond the share.
  bool iteration_full() const noexcept {
    return env_.batch->rows_written() >= limits_.iteration_rows_max ||
           effects_.bytes() >= limits_.iteration_effect_bytes_max;
  }

  // The commit failed: rebuilds the mirrors from the store, drops all claims (they are pushed
  // again in order) and appends a close 1011 for every socket that delivered a frame.
  void abandon();
  // Called after each successful commit.
  void committed() noexcept;

  // Every invariant that can be checked from inside; the first one that fails, or null.
  const char* verify_all();
  // Table summaries for the crash report; no bodies, no keys.
  void summarise(int fd) const noexcept;

  const Tables& tables() const noexcept { return tables_; }

 private:
  using Frame = wire::ClientFrame;
  // What a frame is charged to its member: nothing here, the bytes that it asks for, or what a
  // message costs, and one more for each kFanOut connections that are told of it.
  enum class Cost : std::uint8_t { kFree, kReply, kToken };
  static constexpr std::size_t kFanOut = 12;
  struct FrameRoute {
    std::string_view type;
    void (Broker::*handler)(ClientRef client, const Frame& frame);
    std::uint16_t capability;  // of core/broker/capability.h; a session without it is refused
    Cost cost = Cost::kFree;
    bool grows = false;  // it leaves more in the store: refused at 100 %
  };
  static const FrameRoute kFrameRoutes[];

  // hello.cc
  struct HelloFacts {
    PublicKey key{};  // of the member
    crypto::Signature signature{};
    std::optional<PublicKey> session;
    bool proved = false;               // by session_hello
    std::uint16_t caps = 0xffff;       // of the attestation
    std::string_view attestation;      // JSON, when proved
    std::string_view caps_json;        // array, or empty for all
    std::uint64_t attestation_ms = 0;  // its end
    std::uint32_t attestation_version = 1;
    std::uint32_t mesh_no = 0;
    std::uint32_t member_no = 0;
  };
  void handle_hello(ClientRef client, const Frame& frame);
  Status check_hello(const wire::Hello& hello, HelloFacts& facts);
  Status check_mesh(const wire::Hello& hello, HelloFacts& facts);
  Status check_time(const wire::Hello& hello);
  Status check_signature(const wire::Hello& hello, HelloFacts& facts);
  Status check_member(HelloFacts& facts);
  Status check_fresh(const wire::Hello& hello, const HelloFacts& facts);
  Status check_session_key(const HelloFacts& facts);
  Status check_room(const HelloFacts& facts);
  void refuse_hello(ClientRef client, const Error& error);
  // session_hello.cc
  void handle_session_hello(ClientRef client, const Frame& frame);
  Status check_session_hello(const Frame& frame, const wire::SessionHello& hello,
                             HelloFacts& facts);
  Status check_attestation(const Frame& frame, const wire::SessionHello& hello, HelloFacts& facts);
  Status check_capabilities(const Frame& frame, const wire::SessionHello& hello, TextBuf& canonical,
                            HelloFacts& facts);
  std::uint16_t caps_of_names(const wire::JsonTape& tape, const wire::JsonNode& list);
  std::string_view attestation_json(const wire::SessionHello& hello, const HelloFacts& facts);

  // attach.cc
  void admit(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
             std::vector<PeerGroup> groups);
  std::uint32_t bind_session(const HelloFacts& facts);
  void take_over_binding(const HelloFacts& facts, store::BindingRow& binding);
  void forget_old_hellos();
  PresenceRef attach(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
                     std::vector<PeerGroup> groups, bool& fresh);
  void acknowledge_hello(ClientRef client, PresenceRef presence, const HelloFacts& facts,
                         bool fresh, std::string_view restored);

  // presence.cc
  PresenceRef make_presence(const PresenceKey& key, std::uint32_t member_no);
  void detach(ClientRef client);
  void store_presence(PresenceRef presence);
  void expire_leases();
  void remove_presence(PresenceRef presence);
  PresenceRef presence_of(ClientRef client) const {
    return tables_.clients.get<kClientPresence>(client);
  }
  void expire_hook_statuses();
  void apply_hook(PresenceRef presence, store::PeerStatus status);

  // profile.cc
  void handle_set_status(ClientRef client, const Frame& frame);
  void handle_set_summary(ClientRef client, const Frame& frame);
  void handle_set_visible(ClientRef client, const Frame& frame);
  void handle_set_profile(ClientRef client, const Frame& frame);
  void handle_set_stats(ClientRef client, const Frame& frame);
  void handle_join_group(ClientRef client, const Frame& frame);
  void handle_leave_group(ClientRef client, const Frame& frame);
  Status parse_groups(const wire::JsonTape& tape, const wire::JsonNode& list,
                      std::vector<PeerGroup>& groups);
  void set_groups(PresenceInfo& info, std::vector<PeerGroup> groups);
  std::vector<PeerGroup> groups_from_json(std::string_view json);

  // peer_state.cc
  void save_peer_state(PresenceRef presence);
  // Fills what the hello left out; false when nothing was kept. Writes members of JSON objects:
  // for hello_ack and for the event peer_returned.
  bool restore_peer_state(PresenceRef presence, bool hello_has_groups, TextBuf& ack,
                          TextBuf& event);
  void apply_member_defaults(PresenceRef presence, bool hello_named_groups);

  // accept.cc
  struct Recipient {
    MailboxId mailbox;
    std::uint32_t member_no = 0;
    bool online = false;
  };
  // Who gets a message. Recipients are in recipients_; the rest is here.
  struct Route {
    bool multicast = false;      // `*`, `@`, `#`: a recipient without room does not refuse it
    std::uint32_t topic_no = 0;  // of a post
    std::string_view target;     // as stored: `#<topic id>` for a post by name
  };
  void handle_send(ClientRef client, const Frame& frame);
  bool answer_known_id(ClientRef client, const wire::Send& send);
  Status check_send(ClientRef client, const wire::Send& send);
  std::uint32_t push_bytes(ClientRef client, const wire::Send& send);
  Status check_rate(ClientRef client, const wire::Send& send, std::uint32_t count);
  void charge(ClientRef client, const wire::Send& send, std::uint32_t count,
              Budget::Outcome outcome);
  Status check_quota(ClientRef client, const Route& route, std::uint32_t bytes);
  bool mailbox_has_room(MailboxId mailbox, std::uint32_t bytes) const;
  void accept(ClientRef client, const wire::Send& send, const Route& route);
  void put_message(ClientRef client, const Ulid& id, const wire::Send& send, const Route& route);
  void queue_for(const Recipient& recipient, const Ulid& id, store::DeliveryRow& delivery,
                 wire::Priority priority, const Route& route);
  void acknowledge_send(ClientRef client, const Ulid& id, const wire::Send& send,
                        const Route& route);
  void refuse_send(ClientRef client, const wire::Send& send, const Error& error);

  // route.cc
  Status find_route(ClientRef client, const wire::Send& send, Route& route);
  Status route_direct(ClientRef client, const wire::Send& send, const PublicKey& key);
  Status route_group(ClientRef client, std::string_view group);
  bool is_gone_for_good(PresenceRef presence) const;
  Status route_topic(ClientRef client, std::string_view name, Route& route);
  bool may_reach(std::uint32_t recipient_no, const PublicKey& sender_member,
                 const PublicKey* sender_session, std::uint16_t capability);

  // queue.cc
  MailboxRef mailbox(MailboxId id, std::uint32_t member_no);
  void mark_dirty(MailboxRef box);
  void mark_mailboxes_of(ClientRef client);
  void feed_starved();
  ClientRef choose_claimer(MailboxRef box);
  // One iteration's share of pushing: rows, of which each looked-at mailbox costs one, and bytes.
  struct DrainBudget {
    std::uint64_t rows = 0;
    std::uint64_t bytes = 0;
    bool left() const noexcept { return rows > 0 && bytes > 0; }
    void spend(std::uint64_t pushed) noexcept {
      rows -= std::min<std::uint64_t>(rows, 1);
      bytes -= std::min(bytes, pushed);
    }
  };
  struct DrainState {
    bool rescan = false;   // rows behind the mark may be claimed, and are not then
    bool skipped = false;  // rows of lapsed lanes were passed over
    bool stopped = false;  // the window is full, or the budget is spent
    bool left = false;     // ... with work left for the next iteration
  };
  bool drain(MailboxRef box, DrainBudget& budget);
  void drain_priority(MailboxRef box, ClientRef client, std::uint8_t priority, DrainBudget& budget,
                      DrainState& state);
  void forget_if_empty(MailboxRef box);
  void touch(ClientRef client);  // a failed commit closes it
  bool push_row(MailboxRef box, ClientRef client, const store::DeliveryKeyParts& key,
                const store::DeliveryRow& row);
  // Null, or why this row must not reach its recipient any more.
  std::string_view refusal_of(const store::MessageRow& message, std::uint32_t recipient_no);
  bool is_gated(ClientRef client, const store::DeliveryKeyParts& key) const;
  void end_refused_rows();
  void expire_old_mail();
  bool end_row(MailboxRef box, std::uint8_t priority, const Ulid& message, const RowEnd& end);
  // The claim of this row; without a mailbox, the first one of this message.
  ClaimRef find_claim(ClientRef client, const Ulid& message, MailboxRef box = {}) const;
  ClaimRef find_claim_by_client_id(ClientRef client, std::string_view id, bool& ambiguous);
  void handle_client_ack(ClientRef client, const Frame& frame);
  void acknowledge_late(ClientRef client, const Ulid& message, const wire::ClientAck& ack);
  RowEnd delivered_by(ClientRef client, const wire::ClientAck& ack) const;
  bool end_delivery(MailboxRef box, std::uint8_t priority, const Ulid& message, const RowEnd& end);
  void unlink_claim(ClientRef client, ClaimRef claim);
  void release_claims_of(ClientRef client);
  void expire_claims();
  void note_too_large(ClientRef client);
  void drop_claim(MailboxRef box, const Ulid& message);
  void write_push_for(const Ulid& id, const store::MessageRow& row, TextBuf& out);

  // peers.cc
  void handle_list_peers(ClientRef client, const Frame& frame);
  void write_peer_entry(PresenceRef presence, TextBuf& out);
  enum class Audience : std::uint8_t { kOtherMembers, kOthers, kMember, kAll };
  // peer_joined, peer_returned, peer_left, peer_visible, peer_hidden.
  // How many connections were told.
  std::size_t announce(PresenceRef presence, std::string_view event, std::string_view more = {});
  // `data` is a JSON object. `about` is who is left out, or meant, by the audience.
  std::size_t push_event(std::uint32_t mesh_no, std::string_view event, std::string_view data,
                         Audience audience, std::uint32_t member_no, PresenceRef about);

  // message_status.cc
  void handle_message_status(ClientRef client, const Frame& frame);
  Status find_own_message(ClientRef client, std::string_view text, Ulid& id,
                          store::MessageRow& row);
  bool concerns(ClientRef client, const Ulid& id, const store::MessageRow& row);
  bool concerns_at(ClientRef client, const Ulid& id);
  // A recipient's row as its asker may see it: kQueued also where the chain ends at `stored`.
  // Views live until the next write.
  struct RecipientView {
    MailboxId mailbox;
    std::uint32_t member_no = 0;
    store::ReceiptState state = store::ReceiptState::kQueued;
    bool claimed = false;  // of a queued one: pushed at claimed_ms
    bool online = false;
    bool has_times = false;  // of a direct message only once it has ended
    std::uint64_t stored_ms = 0, claimed_ms = 0, ended_ms = 0, seen_ms = 0, signed_ms = 0;
    store::ReportLevel level = store::ReportLevel::kHanded;
    std::string_view reason, signature;
    std::optional<PublicKey> key;  // routing key, where it is known
  };
  RecipientView view_of(const Ulid& id, const store::MessageRow& row, MailboxId mailbox,
                        std::uint32_t member_no, const store::ReceiptRow* receipt,
                        std::uint32_t asker_no);
  // Of all recipients, for the sending member; else of the asker's own rows.
  std::vector<RecipientView> recipients_of(const Ulid& id, const store::MessageRow& row,
                                           std::uint32_t asker_no);
  void write_recipient(const RecipientView& view, bool with_chain, TextBuf& out);

  // explain.cc
  void write_explanation(const Ulid& id, const store::MessageRow& row,
                         const std::vector<RecipientView>& recipients, wire::JsonWriter& json);

  // receipts.cc
  static constexpr std::size_t kReceiptRecipientsMax =
      64;  // of a message whose sender is told live
  void take_receipts(ClientRef client);
  void handle_receipt(ClientRef client, const Frame& frame);
  bool record_seen(ClientRef client, const Ulid& message, MailboxId mailbox, std::uint64_t at_ms);
  bool is_hidden(const MemberMirror& owner, MailboxId mailbox,
                 const std::optional<PublicKey>& key) const;
  bool is_reported(const store::MessageRow& row, MailboxId mailbox, std::uint32_t member_no);
  std::optional<PublicKey> routing_key(const store::MessageRow& row, MailboxId mailbox,
                                       const MemberMirror* owner) const;
  void note_receipt(std::uint32_t sender_no, const Ulid& message, MailboxId mailbox);
  void send_receipts();
  bool write_receipt(const ChangedReceipt& changed, wire::JsonWriter& json);

  // shared/topics.cc, shared/topic_history.cc
  struct TopicFacts {
    std::uint32_t no = 0;
    store::TopicRow row;
  };
  void handle_topic_create(ClientRef client, const Frame& frame);
  void handle_topic_list(ClientRef client, const Frame& frame);
  void handle_topic_join(ClientRef client, const Frame& frame);
  void handle_topic_leave(ClientRef client, const Frame& frame);
  void handle_topic_members(ClientRef client, const Frame& frame);
  void handle_topic_history(ClientRef client, const Frame& frame);
  void handle_topic_mark_read(ClientRef client, const Frame& frame);
  bool find_topic(std::uint32_t mesh_no, std::string_view name_or_id, TopicFacts& topic);
  bool topic_of_frame(ClientRef client, const Frame& frame, TopicFacts& topic);
  void refuse_topic(ClientRef client, const Frame& frame);
  std::uint32_t count_topic_members(std::uint32_t topic_no) const;
  void subscribe(std::uint32_t topic_no, std::uint32_t member_no, store::TopicRole role);
  // A topic that is not there yet, led by its maker. `topic.row.text` views the arguments.
  void make_topic(std::uint32_t mesh_no, std::uint32_t member_no, std::string_view name,
                  std::string_view about, store::TopicVisibility visibility, TopicFacts& topic);
  void make_general(std::uint32_t mesh_no, std::uint32_t member_no);
  void join_general(std::uint32_t mesh_no, std::uint32_t member_no);
  void write_post(const Ulid& id, const store::TopicPostRow& post, const store::MessageRow& row,
                  TextBuf& out);

  // shared/quotas.cc
  void load_shared();
  SharedUse& shared_of(std::uint32_t mesh_no) { return tables_.shared[mesh_no]; }
  // Whether the mesh has room for this row of kState, kMemory or kSkill; kFull names the limit.
  template <class R>
  Status check_shared(std::uint32_t mesh_no, store::TableId table, Bytes key, const R& row) {
    return check_shared_bytes(mesh_no, table, key, row_bytes(row));
  }
  Status check_shared_bytes(std::uint32_t mesh_no, store::TableId table, Bytes key,
                            std::uint64_t bytes);
  template <class R>
  void put_shared(std::uint32_t mesh_no, store::TableId table, Bytes key, const R& row) {
    erase_shared(mesh_no, table, key);
    batch().put(table, key, row);
    count_shared(mesh_no, table, row_bytes(row));
  }
  bool erase_shared(std::uint32_t mesh_no, store::TableId table, Bytes key);
  void count_shared(std::uint32_t mesh_no, store::TableId table, std::uint64_t bytes);
  template <class R>
  static std::uint64_t row_bytes(const R& row) noexcept {
    std::uint64_t bytes = store::kRowHeadBytes + sizeof row.fixed;
    for (const std::string_view text : row.text) bytes += sizeof(std::uint32_t) + text.size();
    return bytes;
  }
  const char* verify_shared();

  // shared/state.cc, shared/memory.cc, shared/skills.cc
  void handle_set_state(ClientRef client, const Frame& frame);
  void handle_get_state(ClientRef client, const Frame& frame);
  void handle_list_state(ClientRef client, const Frame& frame);
  void handle_remember(ClientRef client, const Frame& frame);
  void handle_recall(ClientRef client, const Frame& frame);
  void handle_forget(ClientRef client, const Frame& frame);
  // What the search took.
  std::uint64_t answer_recall(ClientRef client, const Frame& frame, std::uint32_t mesh_no,
                              std::string_view query);
  void write_memories(std::uint32_t mesh_no, const std::vector<std::string>& ids, TextBuf& list);
  // shared/memory_index.cc
  struct MemoryIndex {
    std::unique_ptr<TextIndex> texts = std::make_unique<TextIndex>();
    std::string after;       // key of the last row that is in it, while it is being built
    bool ready = false;      // every row is in it
    bool too_large = false;  // it found no room; `texts` is empty
    std::uint64_t used_ms = 0;
    std::uint64_t bytes = 0;
  };
  // Of a member that asked for something that is not in the index yet.
  struct WaitingRecall {
    ConnRef conn;
    std::uint32_t mesh_no = 0;
    std::uint32_t member_no = 0;
    std::string query;
    std::string request_id;
  };
  static constexpr std::size_t kRecallsWaitingMax = 256;
  static constexpr std::ptrdiff_t kRecallsWaitingOfOne = 4;  // member
  void build_memory_indexes();
  bool was_too_large(std::uint32_t mesh_no) const;
  void wait_for_index(ClientRef client, const Frame& frame, std::uint32_t mesh_no,
                      std::string_view query);
  bool build_memory_index(std::uint32_t mesh_no, MemoryIndex& index);
  void answer_waiting_recalls(std::uint32_t mesh_no);
  bool is_indexed(std::uint32_t mesh_no, Bytes key) const;
  void index_memory(std::uint32_t mesh_no, Bytes key, const store::MemoryRow& row);
  void unindex_memory(std::uint32_t mesh_no, Bytes key);
  std::uint64_t count_memory_index(MemoryIndex& index);
  bool make_index_room(std::uint32_t mesh_no);
  void drop_memory_index(std::uint32_t mesh_no);
  void drop_changed_indexes();
  void handle_share_skill(ClientRef client, const Frame& frame);
  void handle_get_skill(ClientRef client, const Frame& frame);
  void handle_list_skills(ClientRef client, const Frame& frame);
  void handle_remove_skill(ClientRef client, const Frame& frame);
  void acknowledge_skill(ClientRef client, const Frame& frame, std::string_view name,
                         std::string_view action);
  std::uint32_t count_rows(store::TableId table, std::uint32_t prefix, std::uint32_t most);

  // retention.cc
  void plan_retention();
  void step_retention();
  void end_retention();
  // Each does a share of its phase. True: the phase is through.
  bool expire_dedupe();
  bool prune_history();
  bool count_orphan_deliveries();
  bool count_orphan_receipts();
  bool count_orphan_messages();
  bool mend_dedupe_refs();
  bool prune_message(const Ulid& id, std::size_t& budget);
  void note_history_pruned(std::uint32_t sender_no, std::string_view client_id,
                           const Ulid& message);
  bool is_orphan(const Ulid& id, const store::MessageRow& row);

  // pressure.cc
  void watch_disk();
  Status check_disk(std::string_view what);

  // negotiate.cc
  void handle_negotiation(ClientRef client, const Frame& frame);
  void apply_connection_policy(ClientRef client);
  store::ConcurrencyPolicy policy_of(std::uint32_t mesh_no);
  void note_concurrent(ClientRef client);

  // One HTTP request in hand: what it asks, who asks, what is answered.
  struct HttpCall {
    const wire::HttpRequest& request;
    Authority authority;
    std::string_view arguments[2];  // the ":parts" of the route
    TextBuf reply;
    std::string_view content_type;
    std::uint32_t status;
  };
  // kOpen routes judge their caller themselves (an invite, a code, a matching process).
  enum class Access : std::uint8_t { kOpen, kProved, kAdmin };
  struct HttpRoute {
    std::string_view method;
    std::string_view pattern;
    Status (Broker::*handler)(HttpCall& call);
    Access access;
    bool writes;         // refused when the store is full
    bool lists = false;  // its answer is charged to the member that asked
  };
  static const HttpRoute kHttpRoutes[];

  // http/http.cc
  Status run_route(const HttpRoute& route, HttpCall& call);
  void note_admin(std::string_view route, std::string_view method);
  void reply_error(ConnRef conn, const Error& error);
  void reply_health(ConnRef conn);
  void reply_ready(ConnRef conn);
  void reply_metrics(ConnRef conn, const wire::HttpRequest& request);
  // http/authority.cc
  bool is_admin(const wire::HttpRequest& request);
  Result<Authority> authority_of(const wire::HttpRequest& request);
  Status check_member_signature(const wire::HttpRequest& request, Authority& authority);
  bool is_own_host(const wire::HttpRequest& request) const noexcept;
  bool is_any_member(const PublicKey& key);
  void forget_old_nonces();
  std::uint32_t member_of(std::uint32_t mesh_no, const PublicKey& key);  // 0: none in force
  std::uint16_t permissions_of(std::uint32_t member_no);
  Status check_permission(const Authority& authority, std::uint32_t mesh_no,
                          std::uint16_t permission);
  Status check_change(const Authority& authority, std::uint32_t mesh_no, std::uint32_t member_no,
                      std::uint16_t bits);
  std::uint16_t permissions_with_role(std::uint32_t member_no, store::MemberRole role);
  void put_permissions(std::uint32_t member_no, std::uint16_t bits);
  std::uint16_t caps_of(ClientRef client);
  // http/enroll.cc
  std::uint32_t count_meshes();
  Status create_mesh(HttpCall& call);
  Status create_invite(HttpCall& call);
  Status sign_invite(HttpCall& call, std::string_view slug, std::uint32_t mesh_no,
                     const store::MeshRow& where, crypto::SecretRef secret);
  Status join(HttpCall& call);
  std::uint32_t add_member(std::uint32_t mesh_no, store::MemberRole role, const PublicKey& key,
                           std::string_view name, std::string_view& id);
  std::string_view free_slug(std::string_view wanted);
  Result<std::uint32_t> mesh_by_slug(std::string_view slug);
  // http/codes.cc
  static constexpr std::uint32_t kLookUpsAMinute = 10;
  Status put_code(std::string_view token, std::uint64_t expires_ms, TextBuf& code);
  Status token_of_code(const HttpCall& call, std::string_view code, std::string& token);
  Status resolve_code(HttpCall& call);
  Status show_code(HttpCall& call);
  Status claim_invite(HttpCall& call);
  Status preview_invite(HttpCall& call);
  std::string_view why_not(std::string_view token, store::InviteRow& row);
  std::uint32_t count_members(std::uint32_t mesh_no);  // those in force
  Status seal_root_key(const store::MeshRow& where, std::string_view recipient, TextBuf& sealed);
  // http/mesh_admin.cc
  Status list_meshes(HttpCall& call);
  void write_mesh(std::uint32_t mesh_no, const Authority& authority, wire::JsonWriter& json);
  Status rename_mesh(HttpCall& call);
  Status delete_mesh(HttpCall& call);
  Status edit_settings(HttpCall& call);
  void close_mesh(std::uint32_t mesh_no, std::string_view reason);
  // http/members.cc
  struct MemberEdit {
    std::string_view name, role_tag;
    std::optional<std::vector<PeerGroup>> groups;
    std::optional<store::MessageMode> mode;
    std::optional<store::MemberRole> role;
    bool has_name = false;
    bool has_role_tag = false;
    std::uint8_t fields = 0;  // kEdit* bits of what is to change
  };
  Result<std::uint32_t> mesh_of_call(const HttpCall& call);
  Result<std::uint32_t> member_by_id(std::uint32_t mesh_no, std::string_view id);
  Status list_members(HttpCall& call);
  Status edit_member(HttpCall& call);
  Status parse_edit(const HttpCall& call, wire::JsonTape& tape, MemberEdit& edit);
  Status check_edit(const HttpCall& call, std::uint32_t mesh_no, std::uint32_t member_no,
                    const MemberEdit& edit);
  void apply_edit(std::uint32_t member_no, const MemberEdit& edit, TextBuf& changes);
  // http/grants.cc
  Status list_grants(HttpCall& call);
  Status set_grants(HttpCall& call);
  Status list_permissions(HttpCall& call);
  Status set_permissions(HttpCall& call);
  void write_grants(std::uint32_t member_no, wire::JsonWriter& json);
  // http/hook.cc
  static constexpr std::uint32_t kHooksAMinute = 30;
  static constexpr std::uint32_t kHooksOfOneAMinute = 300;  // of an address, of a member
  static constexpr std::size_t kHooksWaitingMax = 256;
  static constexpr std::ptrdiff_t kHooksWaitingOfOne = 16;
  struct HookCall {
    std::string cwd;
    std::int64_t pid = 0;
    store::PeerStatus status = store::PeerStatus::kIdle;
    wire::PeerAddress address{};
    Authority authority;
    std::uint64_t until_ms = 0;  // of one that waits; monotonic
  };
  Status hook_set_status(HttpCall& call);
  Status read_hook(const wire::HttpRequest& request, HookCall& hook);
  bool hook_means(const HookCall& hook, PresenceRef presence);
  Status count_hook(const HookCall& hook);
  bool hook_waits(const HookCall& hook);
  void apply_waiting_hook(PresenceRef presence);

  // frames of any kind
  void send_error(ClientRef client, std::string_view code, std::string_view message,
                  std::string_view request_id);
  void refuse(ClientRef client, const Frame& frame, const Error& error);
  // `ack` of a command that existing brokers leave unanswered: only to who asked with `_reqId`.
  void confirm(ClientRef client, const Frame& frame, std::string_view id = {});
  // Ends a reply that is an open object: correlation, brace, effect.
  void finish_reply(ClientRef client, const Frame& frame, wire::JsonWriter& json,
                    const TextBuf& text);
  // meter.cc
  bool may_pay(ClientRef client, const Frame& frame, Cost cost);
  std::uint64_t replies_of(MemberMirror& asker) noexcept;
  // The member that pays for a list over HTTP: 0 for the admin token, which pays for none.
  std::uint32_t payer_of(const Authority& authority);
  void charge_reply(ClientRef client, std::size_t bytes);
  void charge_fan_out(ClientRef client, std::size_t receivers);
  void refuse_rate(ClientRef client, const Frame& frame, std::string_view message,
                   std::uint64_t retry_after_ms);
  std::string_view name_of(ClientRef client) const;
  void send_text(ClientRef client, const TextBuf& text);
  void close(ClientRef client, std::uint32_t code, std::string_view reason);

  // load.cc
  void load_numbers();
  void load_member_keys();
  void load_presences();
  void load_attestation(PresenceRef presence);
  void load_mailboxes();
  struct Survivor {  // of an abandoned iteration
    ClientRef client;
    PresenceKey key;
    std::uint16_t caps;  // that its hello proved
  };
  struct Unstored {  // of a presence, beside what the store knows
    PresenceStatus status;
    PresenceStats stats;
  };
  void forget_mirrors();
  void restore_unstored(const PresenceKey& key, const Unstored& kept);
  void reattach(const Survivor& survivor);
  MemberMirror* member(std::uint32_t member_no);
  MeshMirror* mesh(std::uint32_t mesh_no);
  // verify.cc
  const char* verify_queues();
  const char* verify_claims() const;
  const char* verify_presences() const;

  ClientRef client_of(ConnRef conn) const noexcept;
  ScratchArena& scratch() noexcept { return env_.batch->scratch(); }
  store::Batch& batch() noexcept { return *env_.batch; }

  const Config config_;
  const Limits& limits_;
  Env& env_;
  Effects& effects_;
  Metrics& metrics_;
  crypto::SecretSlab& slab_;
  Tables tables_;
  wire::JsonParser parser_;
  UlidGenerator ulids_;
  std::uint64_t started_mono_ms_ = 0;
  std::uint64_t hello_serial_ = 0;
  std::uint32_t next_mesh_no_ = 1;
  std::uint32_t next_member_no_ = 1;
  std::uint32_t next_session_no_ = 1;
  std::uint32_t next_topic_no_ = 1;
  std::uint64_t queued_rows_ = 0;
  std::vector<Recipient> recipients_;  // of the send in hand; kept for its capacity
  std::unordered_map<std::uint32_t, MemoryIndex> memory_indexes_;  // by mesh
  std::uint64_t memory_index_bytes_ = 0;                           // of all of them
  std::vector<std::uint32_t> indexes_changed_;                     // in this iteration
  std::vector<WaitingRecall> recalls_;                             // at most kRecallsWaitingMax
  bool leases_left_ = false;  // that ran out; the next iteration goes on with them
  bool draining_ = false;
  std::uint64_t failed_after_ = UINT64_MAX;  // number of the commit before the one that failed last
  MinuteCount look_ups_{kLookUpsAMinute};    // of short codes, by network
  MinuteCount previews_{kLookUpsAMinute};    // of invites, by network
  MinuteCount hooks_{kHooksAMinute};         // without proof, by address, pid and cwd
  MinuteCount address_hooks_{kHooksOfOneAMinute};  // without proof, by address
  MinuteCount member_hooks_{kHooksOfOneAMinute};   // by key of a member
  std::vector<HookCall> hooks_waiting_;            // at most kHooksWaitingMax, each for 10 s
  // Earliest possible deadline of each kind: a lower bound, made exact by the next sweep.
  std::uint64_t hello_check_ms_ = UINT64_MAX;
  std::uint64_t lease_check_ms_ = UINT64_MAX;
  std::uint64_t claim_check_ms_ = UINT64_MAX;
  std::uint64_t hook_check_ms_ = UINT64_MAX;
  std::uint64_t mail_check_ms_ = 0;  // hourly: undelivered rows that are too old
  std::uint64_t retention_check_ms_ = UINT64_MAX;
  Retention retention_;
  Retention retention_committed_;  // as of the last commit
  Pressure pressure_ = Pressure::kNormal;
};

}  // namespace cm::broker
