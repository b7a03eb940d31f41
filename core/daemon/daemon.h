// daemon.h — the local runtime as one state machine over tables: events in, effects out.
// Owns:   Daemon. Its rules are in: link.cc (hello, broker frames), features.cc (negotiation),
//         send.cc (the accept table), resolve.cc (who a name is), known_peers.cc, bound_names.cc,
//         targets.cc (topics, groups, which mesh), outbox_state.h (states and events), drain.cc
//         (lanes), requeue.cc, tombstones.cc, outbox_find.cc (which row an id means), pressure.cc
//         (disk), receive.cc (inbox), retention.cc (deleting), gates.cc (gates, limits, replies;
//         tokens in bearers.h), routes_*.cc (routes; counted in route_counts.h), calls.cc and
//         answers.cc (requests passed on to brokers), receipts.cc (what a recipient tells),
//         chain.cc (how far a message has come), events.cc (streams), reload.cc (joins and
//         leaves), load.cc (mirrors, verification).
// Holds:  within a handler: parse, validate, authorise, then mutate. A request that was refused
//         before its outbox row was written has consumed nothing.
// Why:    the same object code runs in the product and in the simulator.
// Not:    sockets, plugins, clocks, files, commits (design/architecture.md).
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/crypto/box.h"
#include "core/crypto/fingerprint.h"
#include "core/crypto/slab.h"
#include "core/daemon/bearers.h"
#include "core/daemon/config.h"
#include "core/daemon/effects.h"
#include "core/daemon/outbox_state.h"
#include "core/daemon/route_counts.h"
#include "core/daemon/tables.h"
#include "core/wire/broker_frames.h"
#include "core/wire/http_request.h"
#include "core/wire/ipc_send.h"
#include "store/store.h"

namespace cm::wire {
class JsonWriter;
}

namespace cm::daemon {

class Daemon {
 public:
  // All references outlive the daemon. `env.batch` is set before the first call.
  Daemon(const Config& config, const Limits& limits, Env& env, Effects& effects, Metrics& metrics,
         crypto::SecretSlab& slab);

  // kFull beyond daemon_meshes_max; kAlreadyExists for a slug or id that is there.
  Status add_mesh(const MeshConfig& config);
  // Crash recovery: inflight rows return to pending with one more attempt, mirrors are built,
  // and every link is opened. The caller commits and executes the effects.
  Status start();
  // The meshes of config.json as it stands now: joins, leaves, and keeps what is equal. Takes over
  // the secrets in the list; what it does not need is released. Outbox rows of meshes that are not
  // in the list become dead with the reason mesh_left. Idempotent: after an abandoned iteration
  // it is called again. kInvalidArgument or kFull, and nothing changed but the secrets released.
  Result<Reloaded> reload(const std::vector<MeshConfig>& meshes);
  // The options that may change while it runs. Legacy brokers are judged when they negotiate: a
  // connection that is open stays.
  void set_options(bool public_health, bool legacy_brokers) noexcept {
    config_.public_health = public_health;
    config_.legacy_brokers = legacy_brokers;
  }

  // Of messages that come, and of those that are seen, from now on.
  void set_report_level(store::ReportLevel level) noexcept { config_.report_level = level; }

  void set_allowed_origins(std::vector<std::string> origins) {
    config_.allowed_origins = std::move(origins);
  }

  // A sentence for whoever looks at GET /v1/health: what is not as its user would expect.
  void add_warning(std::string sentence) { config_.warnings.push_back(std::move(sentence)); }

  // The bearer of TCP requests, by its SHA-256: the token itself stays with the shell. The one
  // before stays valid for 60 s.
  void set_local_token(const crypto::Hash32& sha256);
  // Answers a request that was handed out as kRotateToken or kReload.
  void on_token_rotated(ConnRef conn, const Status& written, std::string_view path);
  void on_reloaded(ConnRef conn, const Result<Reloaded>& outcome);

  // --- events of one iteration ---
  void on_link_event(LinkRef link, LinkEvent event, std::uint32_t code, std::string_view detail);
  // False: the frame was not understood (a transport turns it into REFUSED).
  bool on_link_frame(LinkRef link, std::string_view frame);
  void on_link_blocked(LinkRef link, bool blocked);
  void on_http(ConnRef conn, const wire::HttpRequest& request);
  void on_http_closed(ConnRef conn);
  // The shell ended this stream, because its reader is too slow.
  void on_stream_slow(ConnRef conn);
  // Due deadlines, then everything that can be sent. Call once an iteration, last.
  void step();

  // Monotonic ms of the next deadline, or UINT64_MAX.
  std::uint64_t next_deadline() const noexcept;
  bool work_left() const noexcept {
    return !tables_.ready.empty() || !tables_.purges.empty() || !tables_.shrinks.empty();
  }
  // Why the daemon has nothing left to do: the broker of its only mesh refused it for good.
  const std::string& gave_up() const noexcept { return gave_up_; }
  // How many requests the shell has refused since its start because their body was too long; they
  // never came here, and are told as those that did.
  void note_long_bodies(std::uint64_t total);

  // The commit failed: mirrors are rebuilt, requests of the iteration are answered with the
  // error, links that delivered frames are closed with 1011 and opened again.
  void abandon(Err why);
  void committed() noexcept;

  const char* verify_all();
  void summarise(int fd) const noexcept;
  const Tables& tables() const noexcept { return tables_; }
  // How often each cell of the outbox's table was reached by this daemon.
  const CellCounts& outbox_cells() const noexcept { return outbox_cells_; }
  Pressure pressure() const noexcept { return pressure_.level; }
  const crypto::SecretSlab& slab() const noexcept { return slab_; }

 private:
  // link.cc
  void open_link(LinkRef link);
  void reopen_link(LinkRef link, std::uint32_t code, std::string_view reason);
  void reopen_later(LinkRef link);
  void hold_calls(LinkRef link);
  void log_failed_attempt(LinkRef link, std::uint32_t code, std::string_view reason);
  void reopen_due();
  void send_hello(LinkRef link);
  void on_hello_ack(LinkRef link, const wire::BrokerFrame& frame);
  void on_error_frame(LinkRef link, const wire::BrokerFrame& frame);
  void on_peers_list(LinkRef link, const wire::BrokerFrame& frame);
  // `code` with which the other side closed it, or 0.
  void link_lost(LinkRef link, std::uint32_t code = 0);
  void expire_hellos();
  void set_link_state(LinkRef link, LinkState state);
  void ask_roster(MeshRef mesh);
  void refresh_rosters();
  void touch(LinkRef link);
  void refuse_mesh(LinkRef link, std::uint32_t code, std::string_view reason, std::string_view why);
  LinkRef link_of(MeshRef mesh) const { return tables_.meshes.get<kMeshLink>(mesh); }
  LinkState state_of(MeshRef mesh) const { return tables_.links.get<kLinkState>(link_of(mesh)); }
  std::string_view request_id(std::uint64_t serial);
  std::uint64_t serial_of(std::string_view request_id) const noexcept;  // 0: not one of ours

  // features.cc
  void ask_features(LinkRef link);
  bool on_feature_frame(LinkRef link, const wire::BrokerFrame& frame);
  void on_features(LinkRef link, const wire::BrokerFrame& frame);
  void become_legacy(LinkRef link, std::string_view why);
  void expire_features();
  void refuse_features(LinkRef link, std::string_view kind, std::string_view feature,
                       std::string_view detail);
  std::uint32_t payload_limit(MeshRef mesh) const;
  void load_terms();
  void load_terms(LinkRef link);
  void terms_are_known(LinkRef link);
  bool knows_terms(MeshRef mesh) const;  // of this connection
  bool may_learn_terms(MeshRef mesh) const;
  bool has_met(MeshRef mesh) const;  // of any connection, ever
  bool may_go(MeshRef mesh, const store::OutboxRow& row, std::size_t frame_bytes, bool& too_large);
  std::uint64_t age_hours(MeshRef mesh) const;

  // send.cc; its types are in sending.h
  struct Outgoing;
  void handle_send(ConnRef conn, const ParkedRequest& input, ParkedRef parked);
  Status try_send(ConnRef conn, const wire::SendRequest& request, ParkedRef parked, Outgoing& out);
  Result<MeshRef> choose_mesh(std::string_view wanted);
  // True: the id had a row, and the request was answered by it. kCorrupt: the row is damaged.
  Result<bool> answer_known_id(ConnRef conn, const wire::SendRequest& request,
                               const crypto::Hash32& fingerprint, MeshRef mesh);
  struct KnownRow;
  // What the row of an id, or its tombstone, says of it.
  bool read_known(std::string_view client_id, KnownRow& known);
  Status encrypt(const wire::SendRequest& request, Outgoing& out);
  Status check_size(const wire::SendRequest& request, const Outgoing& out,
                    std::string_view client_id, std::string_view field);
  void insert_row(const wire::SendRequest& request, const Outgoing& out,
                  std::string_view client_id);
  void append_target(MeshRef mesh, std::string_view target, wire::JsonWriter& json) const;
  void reply_conflict(ConnRef conn, std::string_view conflict, const crypto::Hash32& fingerprint,
                      std::string_view broker_id, std::string_view reason);
  void park(ConnRef conn, const Outgoing& out, const ParkedRequest& input, ParkedRef before);
  void wake_parked();
  bool parked_is_ready(ParkedRef parked) const;

  // targets.cc; its types are in sending.h
  struct Candidate;
  std::vector<Candidate> candidates(std::string_view to);
  // The one mesh in which `to` is known, `out.wait`, or an error that names the candidates.
  Status find_mesh(ConnRef conn, std::string_view to, ParkedRef parked, Outgoing& out,
                   bool& answered);
  void reply_candidates(ConnRef conn, const std::vector<Candidate>& found);
  // A topic may be looked for in the lists of all meshes: they are known, or `out.wait` is set.
  Status know_all_topics(ParkedRef parked, Outgoing& out) const;
  Status resolve_topic(std::string_view topic, ParkedRef parked, Outgoing& out);
  void ask_topics(MeshRef mesh);
  // A list was asked for, and is neither refused nor lost.
  bool topics_are_coming(MeshRef mesh) const;
  void on_topic_list(MeshRef mesh, const wire::BrokerFrame& frame);

  // resolve.cc
  // Sets target and bind_member, or `wait` when the list of peers has to be asked for first.
  Status resolve(std::string_view to, ParkedRef parked, Outgoing& out);
  Status resolve_prefix(std::string_view prefix, ParkedRef parked, Outgoing& out);
  Status resolve_name(std::string_view name, ParkedRef parked, Outgoing& out);
  bool is_truncated(MeshRef mesh) const;
  bool may_wait(ParkedRef parked) const;
  bool roster_is_fresh(MeshRef mesh, ParkedRef parked) const;
  bool list_is_coming(MeshRef mesh) const;
  bool can_answer(MeshRef mesh) const;
  Error name_conflict(std::string_view name, const std::vector<PublicKey>& keys) const;
  struct KnownName;
  KnownName known_name(MeshRef mesh, std::string_view folded);
  bool is_listed_otherwise(MeshRef mesh, const PublicKey& member, std::string_view folded) const;
  void bind_name_of_key(Outgoing& out);
  void bind_name(MeshRef mesh, std::string_view name, const PublicKey& member);

  // known_peers.cc, known_peers.h
  struct KnownPeers;
  template <class Visit>
  void each_unused_peer(std::string_view mesh_id, Visit visit);
  void remember_peer(MeshRef mesh, const wire::PeerEntry& peer, KnownPeers& known);
  void note_renamed(MeshRef mesh, const wire::BrokerFrame& frame, const wire::JsonNode& peers,
                    KnownPeers& known) const;
  void count_known_peers(std::string_view mesh_id, KnownPeers& known);
  bool make_room_for_peer(std::string_view mesh_id, KnownPeers& known);

  // bound_names.cc
  void load_bound_names();
  void note_bound_name(std::string_view mesh_id, std::string_view folded, const PublicKey& member);
  void forget_new_bindings();
  static bool is_attested(const store::InboxRow& row) noexcept;
  bool has_name_conflict(const store::InboxRow& row) const;

  // drain.cc
  LaneRef lane(MeshRef mesh, std::string_view target, store::Priority priority,
               const store::OutboxRow& row);
  bool add_work(const Ulid& id, const store::OutboxRow& row);
  void mark_ready(LaneRef lane);
  void drain_ready();
  bool send_first(LaneRef lane);
  void on_ack(LinkRef link, const wire::BrokerFrame& frame);
  // Every change of a row's state: looks the cell up, counts it, CHECKs that it is possible.
  const OutboxCell& outbox_next(OutboxState state, OutboxEvent event);
  // Of an open row, by what memory knows: a row that was in flight before an abandoned iteration is
  // pending again, whatever the store says.
  OutboxState state_of_work(WorkRef work) const {
    return tables_.work.get<kWorkInflight>(work) != 0 ? OutboxState::kInflight
                                                      : OutboxState::kPending;
  }
  OutboxState state_of_row(const Ulid& id, const store::OutboxRow& row) const;
  // The row ends, or waits, as the cell says.
  void finish(WorkRef work, store::OutboxRow& row, const OutboxCell& cell);
  void retry_later(WorkRef work, store::OutboxRow& row, const OutboxCell& cell,
                   std::string_view error, bool backoff);
  void lanes_lost(MeshRef mesh);
  void refuse_largest(MeshRef mesh);
  void expire_work();
  void remove_work(WorkRef work);
  std::uint64_t backoff_ms(std::uint32_t failures);
  bool outbox_row(const Ulid& id, store::OutboxRow& row);

  // requeue.cc
  struct SecondAttempt;
  void unlink_work(WorkRef work);
  void post_requeue(ConnRef conn, const wire::HttpRequest& request);
  Status read_attempt(const Ulid& id, SecondAttempt& attempt);
  Status patch(std::string_view message, SecondAttempt& attempt);
  void supersede(SecondAttempt& attempt);
  void reply_requeued(ConnRef conn, const SecondAttempt& attempt);

  // outbox_find.cc
  struct FoundRow {
    Ulid id;
    bool is_tombstone = false;
  };
  // By client_message_id, the row's id, the broker's id, the beginning of one of them, or its last
  // 8 characters. kNotFound, kAmbiguousId.
  Result<FoundRow> find_outbox(std::string_view named);
  std::optional<FoundRow> find_outbox_id(std::string_view client_id);
  bool tombstone_row(const Ulid& id, store::TombstoneRow& row);

  // tombstones.cc
  void shrink(const Ulid& id, const store::OutboxRow& row, const OutboxCell& cell, bool dropped);
  bool may_shrink(ConnRef conn);
  void leave_shrinks(ConnRef conn);
  void start_shrink(Shrink shrink);
  void step_shrink();
  void shrink_outbox_due();

  // pressure.cc
  void watch_pressure();
  void measure_pressure();
  void emit_pressure();
  void watch_tombstones();
  std::uint64_t rows_percent() const noexcept;
  // Why no new message is taken, or Ok.
  Status has_room() const;
  void tell_refused(Err code, std::string_view detail);
  std::uint64_t long_bodies_ = 0;
  // A message event said `wake`, and since then nobody has read the inbox (promise 9).
  bool is_woken_ = false;
  bool committed_woken_ = false;  // at the last commit
  void append_disk_metrics(TextBuf& out);

  // retention.cc
  bool may_purge(ConnRef conn);
  void leave_purges(ConnRef conn);
  void start_purge(Purge purge);
  void step_purge();
  void prune_inbox_due();

  // receive.cc
  bool on_push(LinkRef link, const wire::BrokerFrame& frame);
  void on_system_push(LinkRef link, const wire::BrokerFrame& frame, const wire::Push& push);
  void on_message(LinkRef link, const wire::Push& push);
  bool open_body(MeshRef mesh, const wire::Push& push, const std::optional<Bytes>& sealed,
                 store::InboxRow& row);
  void acknowledge(LinkRef link, const wire::Push& push, const wire::AckReceipt* receipt);

  // receipts.cc
  bool takes_receipts(LinkRef link) const;
  // What goes with the ack of a push: nothing, if the broker takes no receipts.
  const wire::AckReceipt* receipt_for(LinkRef link, const wire::Push& push,
                                      const std::optional<Bytes>& sealed, wire::AckReceipt& room);
  void load_seen_reports(bool at_start);
  void note_seen(const Ulid& id, MeshRef mesh);
  void repeat_seen(const Ulid& id, MeshRef mesh);
  void send_seen_reports();
  void send_seen_of(MeshRef mesh, std::deque<Ulid>& waiting);
  void drop_seen_of(std::deque<Ulid>& waiting);
  void expire_seen_reports();
  void seen_link_lost(LinkRef link);
  bool on_receipt_frame(LinkRef link, const wire::BrokerFrame& frame);
  bool take_seen_answer(LinkRef link, std::string_view request_id);
  const char* verify_seen();

  // chain.cc, chain.h
  struct Sent;
  // By the client's id, or by ours.
  bool find_sent(std::string_view id, Sent& sent);
  void hash_body(Sent& sent);
  std::string next_of(const Sent& sent) const;
  std::string next_of_pending(const Sent& sent) const;
  void append_sent(const Sent& sent, wire::JsonWriter& json) const;
  struct Signed;
  struct Verdict;
  Verdict check_receipt(MeshRef mesh, const Sent* sent, const Signed& receipt);
  bool is_known_key(MeshRef mesh, const PublicKey& key);
  // The message that an answer is about, if it was sent from here.
  bool find_answered(CallRef call, const wire::BrokerFrame& frame, Sent& sent);
  // Of a row of message_status_result; the empty word if it is not handed.
  Verdict verdict_of(MeshRef mesh, const wire::JsonTape& tape, const wire::JsonNode& row,
                     const Sent* sent);
  Status append_message_status(CallRef call, const wire::BrokerFrame& frame, TextBuf& out);
  std::string_view append_recipient(MeshRef mesh, const wire::JsonTape& tape,
                                    const wire::JsonNode& row, const Sent* sent,
                                    wire::JsonWriter& json);
  void on_live_receipts(LinkRef link, const wire::BrokerFrame& frame);

  // events.cc
  void open_stream(ConnRef conn, const wire::HttpRequest& request);
  void replay(ConnRef conn, std::string_view last_id);
  void emit(std::string_view kind, std::string_view data);
  void emit_message(MeshRef mesh, const Ulid& id, const store::InboxRow& row);
  void emit_system(MeshRef mesh, const wire::BrokerFrame& frame, std::string_view event);
  void emit_receipt(MeshRef mesh, const wire::LiveReceipt& receipt, std::string_view signature);
  void emit_status(MeshRef mesh, LinkState state);
  // daemon_disconnect and daemon_reconnect.
  void emit_link_change(LinkRef link, bool is_open);
  void keep_streams_alive();
  void seed_events();
  void reserve_event_ids();
  void forget_stream(ConnRef conn);

  // gates.cc
  using Handler = void (Daemon::*)(ConnRef, const wire::HttpRequest&);
  struct Route {
    std::string_view method;
    std::string_view path;
    bool is_prefix = false;  // one more segment follows
    Handler handler = nullptr;
  };
  static const Route kRoutes[];
  static const std::size_t kRouteCount;
  bool pass_gates(ConnRef conn, const wire::HttpRequest& request);
  bool pass_bearer(ConnRef conn, const wire::HttpRequest& request);
  bool pass_session(ConnRef conn, const wire::HttpRequest& request);
  bool take_credit(ConnRef conn, Bearers::Who who);
  void log_bearer_mismatch();
  void reply(ConnRef conn, std::uint32_t status, std::string_view body,
             std::string_view content_type = "application/json", std::uint32_t retry_after_s = 0,
             std::string_view next = {});
  // A list of which there is more: `next` is the request for what follows, or empty.
  void reply_page(ConnRef conn, std::string_view body, std::string_view next) {
    reply(conn, 200, body, "application/json", 0, next);
  }
  // The target of the page that begins behind this row.
  std::string_view page_behind(const wire::HttpRequest& request, const Ulid& id);
  bool is_allowed_origin(const wire::HttpRequest& request) const noexcept;
  void reply_error(ConnRef conn, const Error& error, std::uint32_t retry_after_s = 0);
  // The object of a JSON body, or null when the request was answered with 400.
  const wire::JsonTape* body_of(ConnRef conn, const wire::HttpRequest& request);
  void count_reply(ConnRef conn, std::uint32_t status);
  // This iteration answers it: if the iteration fails, with the error instead.
  void note_answered(ConnRef conn);
  std::string_view last_segment(const wire::HttpRequest& request);

  // routes_info.cc
  void get_version(ConnRef conn, const wire::HttpRequest& request);
  void get_health(ConnRef conn, const wire::HttpRequest& request);
  void get_compat(ConnRef conn, const wire::HttpRequest& request);
  void post_heartbeat(ConnRef conn, const wire::HttpRequest& request);
  void get_metrics(ConnRef conn, const wire::HttpRequest& request);
  void get_events(ConnRef conn, const wire::HttpRequest& request);
  void post_rotate(ConnRef conn, const wire::HttpRequest& request);
  void post_reload(ConnRef conn, const wire::HttpRequest& request);
  void append_mesh_metrics(TextBuf& out) const;
  static void append_endpoint(std::size_t route, TextBuf& out);
  struct MeshQueue;
  // Rows that are not terminal, by MeshRef::bits(): meshes without any are left out.
  std::unordered_map<std::uint64_t, MeshQueue> mesh_queues() const;

  // routes_inbox.cc
  void get_inbox(ConnRef conn, const wire::HttpRequest& request);
  void post_seen(ConnRef conn, const wire::HttpRequest& request);
  void delete_inbox(ConnRef conn, const wire::HttpRequest& request);
  void delete_inbox_row(ConnRef conn, const wire::HttpRequest& request);
  void append_inbox_row(const Ulid& id, const store::InboxRow& row, bool with_body,
                        wire::JsonWriter& json);
  std::int64_t mark_seen(const std::vector<Ulid>& ids);

  // routes_outbox.cc
  void post_send(ConnRef conn, const wire::HttpRequest& request);
  void get_outbox(ConnRef conn, const wire::HttpRequest& request);

  // routes_message.cc
  void get_message_status(ConnRef conn, const wire::HttpRequest& request);
  void get_message_explain(ConnRef conn, const wire::HttpRequest& request);
  void ask_status(ConnRef conn, const wire::HttpRequest& request, CallKind kind);
  void explain_locally(std::string_view id, const Sent* sent, Job& job);
  Status append_explanation(CallRef call, const wire::BrokerFrame& frame, TextBuf& out);

  // routes_outbox_row.cc
  void get_outbox_row(ConnRef conn, const wire::HttpRequest& request);
  void delete_outbox_row(ConnRef conn, const wire::HttpRequest& request);
  void post_prune(ConnRef conn, const wire::HttpRequest& request);
  void write_lane(const Ulid& id, wire::JsonWriter& json);
  void write_chain(const FoundRow& from, wire::JsonWriter& json);

  // routes_mesh.cc
  void get_peers(ConnRef conn, const wire::HttpRequest& request);
  void get_state(ConnRef conn, const wire::HttpRequest& request);
  void post_state(ConnRef conn, const wire::HttpRequest& request);
  void get_memory(ConnRef conn, const wire::HttpRequest& request);
  void post_memory(ConnRef conn, const wire::HttpRequest& request);
  void delete_memory(ConnRef conn, const wire::HttpRequest& request);
  void get_skills(ConnRef conn, const wire::HttpRequest& request);
  void get_skill(ConnRef conn, const wire::HttpRequest& request);
  void post_profile(ConnRef conn, const wire::HttpRequest& request);

  // routes_topic.cc
  void get_topics(ConnRef conn, const wire::HttpRequest& request);
  void get_topic_members(ConnRef conn, const wire::HttpRequest& request);
  void get_topic_history(ConnRef conn, const wire::HttpRequest& request);
  void post_topic_create(ConnRef conn, const wire::HttpRequest& request);
  void post_topic_post(ConnRef conn, const wire::HttpRequest& request);
  void post_topic_subscribe(ConnRef conn, const wire::HttpRequest& request);
  void post_topic_unsubscribe(ConnRef conn, const wire::HttpRequest& request);
  void post_topic_read(ConnRef conn, const wire::HttpRequest& request);
  void post_group_join(ConnRef conn, const wire::HttpRequest& request);
  void post_group_leave(ConnRef conn, const wire::HttpRequest& request);
  void topic_command(ConnRef conn, const wire::HttpRequest& request, CallKind kind);
  void group_command(ConnRef conn, const wire::HttpRequest& request, CallKind kind);

  // calls.cc
  // The meshes that a request is for: the one that is named, or all.
  Result<std::vector<MeshRef>> meshes_for(std::string_view wanted);
  // An empty ref when the request was answered with 429.
  JobRef open_job(ConnRef conn, CallKind kind, std::string_view subject);
  bool is_busy() const noexcept;
  bool too_busy(ConnRef conn);
  // `write(_reqId, out)` appends the frame. See calls.h.
  template <class Write>
  void call(JobRef job, MeshRef mesh, CallKind kind, Write write);
  // The serial of its `_reqId`; 0 when it failed at once.
  std::uint64_t open_call(JobRef job, MeshRef mesh, CallKind kind);
  void look_at_call(CallRef call, std::uint64_t due_ms);
  void send_call(std::uint64_t serial, std::string_view frame);
  void drop_held_frame(CallRef call);
  void send_held_calls(MeshRef mesh);
  void close_job_if_done(JobRef job);
  bool on_call_frame(LinkRef link, const wire::BrokerFrame& frame);
  CallRef call_of(LinkRef link, const wire::BrokerFrame& frame) const;
  void take_answer(CallRef call, const wire::BrokerFrame& frame);
  void finish_call(CallRef call, std::string_view body, bool confirmed);
  void fail_call(CallRef call, Err code, std::string_view detail);
  void refuse_call(CallRef call, std::string_view code, std::string_view detail);
  void end_call(CallRef call);
  void fail_calls_of(MeshRef mesh, std::string_view why);
  void finish_peers_calls(MeshRef mesh);
  void expire_calls();
  void drop_job(JobRef job);

  // answers.cc
  void answer_job(JobRef job);
  void answer_rows(ConnRef conn, const Job& job, std::string_view name);
  void answer_found(ConnRef conn, const Job& job);
  void answer_command(ConnRef conn, const Job& job);
  void answer_profile(ConnRef conn, const Job& job);
  void answer_status(ConnRef conn, const Job& job);
  void answer_explain(ConnRef conn, const Job& job);
  void reply_failure(ConnRef conn, const Job& job, const CallResult& failed);

  // reload.cc
  Status check_meshes(const std::vector<MeshConfig>& meshes) const;
  void leave_mesh(MeshRef mesh);
  void close_left_lanes(const std::vector<MeshConfig>& meshes);
  void attach_lanes(MeshRef mesh);
  void release_secret(crypto::SecretRef secret);
  void forget_roster(MeshRef mesh);

  std::string_view slug_of(std::string_view mesh_id) const;

  // load.cc
  Status load_outbox(bool recover);
  void start_ids_after(store::TableId table);
  void keep_inflight(const Ulid& id);
  void abandon_calls();
  const char* verify_work();
  const char* verify_calls() const;

  MeshRef mesh_by_id(std::string_view mesh_id) const;
  const MeshConfig& config_of(MeshRef mesh) const { return tables_.meshes.get<kMeshConfig>(mesh); }
  ScratchArena& scratch() noexcept { return env_.batch->scratch(); }
  store::Batch& batch() noexcept { return *env_.batch; }

  Config config_;
  const Limits& limits_;
  Env& env_;
  Effects& effects_;
  Metrics& metrics_;
  crypto::SecretSlab& slab_;
  crypto::BoxCache boxes_;
  Tables tables_;
  wire::JsonParser parser_;
  UlidGenerator ulids_;
  std::uint64_t started_mono_ms_ = 0;
  std::uint64_t roster_serial_ = 0;
  std::uint32_t inflight_ = 0;

  // Events: ids grow over the daemon's life and over restarts (events.cc).
  std::uint64_t event_serial_ = 0;     // of the newest event
  std::uint64_t event_first_ = 0;      // ids up to here are of an earlier process
  std::uint64_t event_reserved_ = 0;   // the store says that ids up to here may be in use
  std::uint64_t event_committed_ = 0;  // event_serial_ at the last commit
  std::size_t ring_bytes_ = 0;
  bool had_stream_ = false;  // somebody may come back for an event of this process
  static constexpr std::uint32_t kChecksAtOnce = 128;  // signatures in an iteration, at 60 us
  std::uint32_t checks_left_ = kChecksAtOnce;

  // Calls to brokers.
  std::string request_prefix_;  // of every `_reqId`: random, so that no client id looks like one
  std::uint64_t request_serial_ = 0;
  std::size_t reply_bytes_ = 0;  // of answers kept in jobs, and of frames held in calls

  Bearers bearers_;
  RouteCounts route_counts_;
  CellCounts outbox_cells_{};
  PressureState pressure_;            // as told by the last event
  PressureState committed_pressure_;  // at the last commit
  bool tombstones_changed_ = true;    // their pages are counted again
  struct RefusalsTold {
    std::uint64_t count = 0;     // not told yet
    std::uint64_t until_ms = 0;  // monotonic; no second event before it
  };
  std::array<RefusalsTold, 5> refusals_told_;  // pressure.cc
  std::string gave_up_;
  // Earliest possible deadline of each kind: a lower bound, made exact by the next sweep.
  std::uint64_t hello_check_ms_ = UINT64_MAX;
  std::uint64_t lane_check_ms_ = UINT64_MAX;
  std::uint64_t work_check_ms_ = UINT64_MAX;
  std::uint64_t age_check_ms_ = UINT64_MAX;  // wall clock
  std::uint64_t roster_check_ms_ = UINT64_MAX;
  std::uint64_t parked_check_ms_ = UINT64_MAX;
  std::uint64_t keepalive_ms_ = UINT64_MAX;
  std::uint64_t reopen_check_ms_ = UINT64_MAX;
  std::uint64_t features_check_ms_ = UINT64_MAX;
  std::uint64_t calls_check_ms_ = UINT64_MAX;
  std::uint64_t prune_ms_ = UINT64_MAX;
  std::uint64_t shrink_ms_ = UINT64_MAX;
  std::uint64_t seen_check_ms_ = UINT64_MAX;
};

}  // namespace cm::daemon
