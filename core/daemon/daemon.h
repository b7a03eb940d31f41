// daemon.h — the local runtime as one state machine over tables: events in, effects out.
// Owns:   Daemon. Its rules are in: link.cc (hello, broker frames), send.cc (the accept table),
//         resolve.cc (who a name is), drain.cc (lanes), receive.cc (inbox), ipc.cc (routes),
//         events.cc (streams), load.cc (mirrors, verification).
// Holds:  within a handler: parse, validate, authorise, then mutate. A request that was refused
//         before its outbox row was written has consumed nothing.
// Why:    the same object code runs in the product and in the simulator.
// Not:    sockets, plugins, clocks, files, commits (design/architecture.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/env.h"
#include "core/base/limits.h"
#include "core/base/metrics.h"
#include "core/crypto/box.h"
#include "core/crypto/fingerprint.h"
#include "core/crypto/slab.h"
#include "core/daemon/effects.h"
#include "core/daemon/tables.h"
#include "core/wire/broker_frames.h"
#include "core/wire/http_request.h"
#include "core/wire/ipc_send.h"
#include "store/store.h"

namespace cm::daemon {

struct Config {
  std::string version = "0";
  std::string session_id;  // daemon-<pid>-<random>, kept for the process's life
  std::string hostname;
  std::string cwd;
  std::int64_t pid = 0;
  bool durability_sync = true;
  // Appends what the shell counts (transports) to GET /v1/metrics; may be null.
  void (*append_metrics)(const void* context, TextBuf& out) = nullptr;
  const void* metrics_context = nullptr;
};

enum class LinkEvent : std::uint8_t { kConnecting = 1, kConnected = 2, kClosed = 3 };

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

  // --- events of one iteration ---
  void on_link_event(LinkRef link, LinkEvent event, std::uint32_t code, std::string_view detail);
  // False: the frame was not understood (a transport turns it into REFUSED).
  bool on_link_frame(LinkRef link, std::string_view frame);
  void on_link_blocked(LinkRef link, bool blocked);
  void on_http(ConnRef conn, const wire::HttpRequest& request);
  void on_http_closed(ConnRef conn);
  // Due deadlines, then everything that can be sent. Call once an iteration, last.
  void step();

  // Monotonic ms of the next deadline, or UINT64_MAX.
  std::uint64_t next_deadline() const noexcept;
  bool work_left() const noexcept { return !tables_.ready.empty(); }

  // The commit failed: mirrors are rebuilt, requests of the iteration are answered with the
  // error, links that delivered frames are closed with 1011 and opened again.
  void abandon(Err why);
  void committed() noexcept;

  const char* verify_all();
  void summarise(int fd) const noexcept;
  const Tables& tables() const noexcept { return tables_; }
  const crypto::SecretSlab& slab() const noexcept { return slab_; }

 private:
  // link.cc
  void open_link(LinkRef link);
  void reopen_link(LinkRef link, std::uint32_t code, std::string_view reason);
  void reopen_later(LinkRef link);
  void reopen_due();
  void send_hello(LinkRef link);
  void on_hello_ack(LinkRef link, const wire::BrokerFrame& frame);
  void on_error_frame(LinkRef link, const wire::BrokerFrame& frame);
  void on_peers_list(LinkRef link, const wire::BrokerFrame& frame);
  void link_lost(LinkRef link);
  void expire_hellos();
  void set_link_state(LinkRef link, LinkState state);
  void ask_roster(MeshRef mesh);
  void refresh_rosters();
  void remember_peer(MeshRef mesh, const wire::PeerEntry& peer);
  std::size_t names_of(std::string_view mesh_id, const PublicKey& member);

  // send.cc
  struct Outgoing {
    MeshRef mesh;
    crypto::Hash32 fingerprint{};
    PublicKey target{};
    std::optional<PublicKey> bind_member;  // a name was used: it names this member from now on
    crypto::Nonce nonce{};
    std::string_view nonce_text;
    std::string_view ciphertext;
  };
  void handle_send(ConnRef conn, std::string_view body, std::string_view idempotency_key,
                   ParkedRef parked);
  Status try_send(ConnRef conn, const wire::SendRequest& request, ParkedRef parked, bool& wait,
                  Outgoing& out);
  Result<MeshRef> choose_mesh(std::string_view wanted);
  // True: the id had a row, and the request was answered by it. kCorrupt: the row is damaged.
  Result<bool> answer_known_id(ConnRef conn, const wire::SendRequest& request,
                               const crypto::Hash32& fingerprint, MeshRef mesh);
  Status encrypt(const wire::SendRequest& request, Outgoing& out);
  Status check_size(const wire::SendRequest& request, const Outgoing& out,
                    std::string_view client_id);
  void insert_row(const wire::SendRequest& request, const Outgoing& out,
                  std::string_view client_id);
  void reply_conflict(ConnRef conn, std::string_view conflict, const crypto::Hash32& fingerprint,
                      std::string_view broker_id, std::string_view reason);
  void park(ConnRef conn, MeshRef mesh, std::string_view body, std::string_view key);
  void wake_parked();

  // resolve.cc
  // Sets target and bind_member, or `wait` when the list of peers has to be asked for first.
  Status resolve(std::string_view to, ParkedRef parked, bool& wait, Outgoing& out);
  Status resolve_prefix(std::string_view prefix, ParkedRef parked, bool& wait, Outgoing& out);
  Status resolve_name(std::string_view name, ParkedRef parked, bool& wait, Outgoing& out);
  bool may_wait(ParkedRef parked) const;
  bool roster_is_fresh(MeshRef mesh, ParkedRef parked) const;
  bool list_is_coming(MeshRef mesh) const;
  Error name_conflict(std::string_view name, const std::vector<PublicKey>& keys) const;
  struct KnownName {
    std::vector<PublicKey> recent;  // members seen under it within 30 days
    std::optional<PublicKey> bound;
  };
  KnownName known_name(MeshRef mesh, std::string_view folded);
  void bind_name(MeshRef mesh, std::string_view name, const PublicKey& member);

  // drain.cc
  LaneRef lane(MeshRef mesh, std::string_view target, store::Priority priority,
               const store::OutboxRow& row);
  bool add_work(const Ulid& id, const store::OutboxRow& row);
  void mark_ready(LaneRef lane);
  void drain_ready();
  bool send_first(LaneRef lane);
  void on_ack(LinkRef link, const wire::BrokerFrame& frame);
  void finish(WorkRef work, store::OutboxRow& row, store::OutboxStatus status);
  void retry_later(WorkRef work, store::OutboxRow& row, std::string_view error, bool backoff);
  void lanes_lost(MeshRef mesh);
  void expire_work();
  void remove_work(WorkRef work);
  std::uint64_t backoff_ms(std::uint32_t failures);
  bool outbox_row(const Ulid& id, store::OutboxRow& row);

  // receive.cc
  bool on_push(LinkRef link, const wire::BrokerFrame& frame);
  void on_system_push(LinkRef link, const wire::Push& push);
  void on_message(LinkRef link, const wire::Push& push);
  void open_body(MeshRef mesh, const wire::Push& push, store::InboxRow& row);
  void acknowledge(LinkRef link, const wire::Push& push);

  // events.cc
  void open_stream(ConnRef conn);
  void emit(std::string_view kind, std::string_view data);
  void emit_message(MeshRef mesh, const Ulid& id, const store::InboxRow& row);
  void keep_streams_alive();

  // ipc.cc
  bool pass_gates(ConnRef conn, const wire::HttpRequest& request);
  void reply_error(ConnRef conn, const Error& error);
  void reply_version(ConnRef conn);
  void reply_health(ConnRef conn);
  void reply_peers(ConnRef conn, const wire::HttpRequest& request);
  void reply_inbox(ConnRef conn, const wire::HttpRequest& request);
  void reply_outbox(ConnRef conn, const wire::HttpRequest& request);
  void reply_metrics(ConnRef conn);
  std::string_view slug_of(std::string_view mesh_id) const;

  // load.cc
  Status load_outbox(bool recover);
  const char* verify_work();

  MeshRef mesh_by_id(std::string_view mesh_id) const;
  const MeshConfig& config_of(MeshRef mesh) const { return tables_.meshes.get<kMeshConfig>(mesh); }
  ScratchArena& scratch() noexcept { return env_.batch->scratch(); }
  store::Batch& batch() noexcept { return *env_.batch; }

  const Config config_;
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
  std::uint64_t event_serial_ = 0;
  std::uint32_t inflight_ = 0;
  // Earliest possible deadline of each kind: a lower bound, made exact by the next sweep.
  std::uint64_t hello_check_ms_ = UINT64_MAX;
  std::uint64_t lane_check_ms_ = UINT64_MAX;
  std::uint64_t work_check_ms_ = UINT64_MAX;
  std::uint64_t age_check_ms_ = UINT64_MAX;  // wall clock
  std::uint64_t roster_check_ms_ = UINT64_MAX;
  std::uint64_t parked_check_ms_ = UINT64_MAX;
  std::uint64_t keepalive_ms_ = UINT64_MAX;
  std::uint64_t reopen_check_ms_ = UINT64_MAX;
};

}  // namespace cm::daemon
