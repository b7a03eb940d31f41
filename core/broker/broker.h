// broker.h — the coordination plane as one state machine over tables: events in, effects out.
// Owns:   Broker. Its rules are in: hello.cc (checks), presence.cc (leases), accept.cc (sends),
//         queue.cc (claims, redelivery, acks), peers.cc (lists, events), enroll.cc (meshes,
//         invites, joins), http.cc (routes), load.cc (mirrors, verification).
// Holds:  within a handler: parse, validate, authorise, then mutate. Nothing is written before
//         every check has passed. All calls come between store begin and commit, by the loop.
// Why:    the same object code runs in the product and in the simulator.
// Not:    sockets, clocks, randomness, commits (design/architecture.md, "The cores do no I/O").
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/broker/effects.h"
#include "core/broker/tables.h"
#include "core/crypto/slab.h"
#include "core/wire/broker_frames.h"
#include "core/wire/client_frames.h"
#include "core/wire/http_request.h"
#include "store/store.h"

namespace cm::broker {

struct Config {
  std::string public_url = "ws://127.0.0.1:7900/ws";  // goes into invites
  bool accepts_admin_token = true;                    // false for a plaintext listener off loopback
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
  void on_open(ConnRef conn);
  void on_text(ConnRef conn, std::string_view frame);
  void on_closed(ConnRef conn);
  void on_http(ConnRef conn, const wire::HttpRequest& request);
  // Due deadlines, then everything that can be pushed. Call once an iteration, last.
  void step();

  // Monotonic ms of the next deadline, or UINT64_MAX. step() at that time has work.
  std::uint64_t next_deadline() const noexcept;
  // True when step() stopped at its budget: the next iteration must not block.
  bool work_left() const noexcept { return !tables_.dirty.empty(); }

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
  // hello.cc
  struct HelloFacts {
    PublicKey key{};
    crypto::Signature signature{};
    std::optional<PublicKey> session;
    std::uint32_t mesh_no = 0;
    std::uint32_t member_no = 0;
  };
  void handle_hello(ClientRef client, const wire::ClientFrame& frame);
  Status check_hello(const wire::Hello& hello, HelloFacts& facts);
  Status check_member(const wire::Hello& hello, HelloFacts& facts);
  Status check_session_key(const HelloFacts& facts);
  void admit(ClientRef client, const wire::Hello& hello, const HelloFacts& facts);
  std::uint32_t bind_session(const HelloFacts& facts);
  void refuse_hello(ClientRef client, const Error& error);
  void forget_old_hellos();

  // presence.cc
  PresenceRef attach(ClientRef client, const wire::Hello& hello, const HelloFacts& facts,
                     bool& fresh);
  PresenceRef make_presence(const PresenceKey& key, std::uint32_t member_no);
  void detach(ClientRef client);
  void store_presence(PresenceRef presence);
  void expire_leases();
  void remove_presence(PresenceRef presence);

  // accept.cc
  struct Recipient {
    MailboxId mailbox;
    std::uint32_t member_no = 0;
    bool online = false;
  };
  void handle_send(ClientRef client, const wire::ClientFrame& frame);
  bool answer_known_id(ClientRef client, const wire::Send& send);
  Status check_send(ClientRef client, const wire::Send& send) const;
  Status resolve(ClientRef client, const wire::Send& send, Recipient& recipient);
  Status check_quota(const Recipient& recipient, std::uint32_t bytes);
  void accept(ClientRef client, const wire::Send& send, const Recipient& recipient);
  void refuse_send(ClientRef client, const wire::Send& send, const Error& error);

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
  bool drain(MailboxRef box, DrainBudget& budget);
  void forget_if_empty(MailboxRef box);
  bool push_row(MailboxRef box, ClientRef client, const store::DeliveryKeyParts& key,
                const store::DeliveryRow& row);
  ClaimRef find_claim(ClientRef client, const Ulid& message) const;
  ClaimRef find_claim_by_client_id(ClientRef client, std::string_view id, bool& ambiguous);
  void handle_client_ack(ClientRef client, const wire::ClientFrame& frame);
  void acknowledge_late(ClientRef client, const Ulid& message);
  bool end_delivery(MailboxRef box, std::uint8_t priority, const Ulid& message);
  void unlink_claim(ClientRef client, ClaimRef claim);
  void release_claims_of(ClientRef client);
  void expire_claims();
  void write_push_for(const Ulid& id, const store::MessageRow& row, TextBuf& out);

  // peers.cc
  void handle_list_peers(ClientRef client, const wire::ClientFrame& frame);
  void announce(PresenceRef presence, std::string_view event);

  // enroll.cc
  Status create_mesh(const wire::HttpRequest& request, TextBuf& reply);
  Status create_invite(const wire::HttpRequest& request, std::string_view slug, TextBuf& reply);
  Status sign_invite(const wire::HttpRequest& request, std::string_view slug, std::uint32_t mesh_no,
                     const store::MeshRow& where, crypto::SecretRef secret, TextBuf& reply);
  Status join(const wire::HttpRequest& request, TextBuf& reply);
  std::uint32_t add_member(std::uint32_t mesh_no, store::MemberRole role, const PublicKey& key,
                           std::string_view name, std::string_view& id);
  std::string_view free_slug(std::string_view wanted);

  // http.cc
  bool is_admin(const wire::HttpRequest& request);
  void reply_error(ConnRef conn, const Error& error);
  void reply_health(ConnRef conn);
  void reply_metrics(ConnRef conn, const wire::HttpRequest& request);

  // frames of any kind
  void send_error(ClientRef client, std::string_view code, std::string_view message,
                  std::string_view request_id);
  void send_text(ClientRef client, const TextBuf& text);
  void close(ClientRef client, std::uint32_t code, std::string_view reason);

  // load.cc
  void load_numbers();
  void load_presences();
  void load_mailboxes();
  MemberMirror* member(std::uint32_t member_no);
  MeshMirror* mesh(std::uint32_t mesh_no);
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
  std::uint64_t queued_rows_ = 0;
  std::uint64_t listed_bytes_ = 0;  // of peers_list replies in this iteration
  // Earliest possible deadline of each kind: a lower bound, made exact by the next sweep.
  std::uint64_t hello_check_ms_ = UINT64_MAX;
  std::uint64_t lease_check_ms_ = UINT64_MAX;
  std::uint64_t claim_check_ms_ = UINT64_MAX;
};

}  // namespace cm::broker
