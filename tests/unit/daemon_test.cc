// daemon_test.cc — the daemon's core by its events and effects, over a real store.
// Holds:  each iteration is: events, step, commit, effects; verify_all() after every one. The
//         broker is the test: it writes the frames itself.
// Not:    transports (ws_broker_test.cc), crashes at any instant (tests/sim).
#include "core/daemon/daemon.h"

#include <optional>

#include "core/crypto/sign.h"
#include "tests/unit/core_fixture.h"

namespace cm::daemon {
namespace {

using store::OutboxStatus;
using store::TableId;

struct Done {
  EffectKind kind;
  std::uint32_t code;
  LinkRef link;
  ConnRef conn;
  std::string text;
};

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    self_ = Member::make();
    bob_ = Member::make();
    eve_ = Member::make();
  }
  void start(std::size_t meshes = 1) {
    core_.reset();
    parts_.open();
    Config config;
    config.session_id = "daemon-1-x";
    core_.emplace(config, parts_.limits, parts_.env, effects_, parts_.metrics, parts_.slab);
    links_.clear();
    for (std::size_t index = 0; index < meshes; ++index) {
      MeshConfig mesh;
      mesh.mesh_id = "mesh" + std::to_string(index);
      mesh.member_id = "me";
      mesh.slug = index == 0 ? "crew" : "other";
      mesh.name = "self";
      mesh.broker_url = "ws://broker" + std::to_string(index);
      mesh.key = self_.key;
      mesh.secret = *parts_.slab.store_seed(self_.seed);
      ASSERT_TRUE(core_->add_mesh(mesh));
    }
    ASSERT_TRUE(core_->start());
    run();
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkOpen) links_.push_back(done.link);
    }
    ASSERT_EQ(links_.size(), meshes);
  }
  bool run() {
    core_->step();
    const bool committed = parts_.store->commit() <= store::CommitResult::kCommitted;
    if (committed) {
      core_->committed();
    } else {
      core_->abandon(Err::kDiskFull);
    }
    done_.clear();
    for (const Effect& effect : effects_.list()) {
      done_.push_back(
          {effect.kind, effect.code, effect.link, effect.conn, std::string(effect.text)});
    }
    effects_.clear();
    EXPECT_STREQ(core_->verify_all(), nullptr);
    parts_.end_reading();
    return committed;
  }
  bool later(std::uint64_t ms) {
    parts_.advance(ms);
    return run();
  }

  // --- the broker's side ---
  std::string peer(const Member& who, const std::string& name, const std::string& session = {}) {
    return R"({"pubkey":")" + (session.empty() ? who.hex : session) + R"(","memberPubkey":")" +
           who.hex + R"(","displayName":")" + name + R"(","peerRole":")" +
           (session.empty() ? "control-plane" : "session") + "\"}";
  }
  void frame(const std::string& text, std::size_t mesh = 0) {
    EXPECT_TRUE(core_->on_link_frame(links_[mesh], text)) << text;
    run();
  }
  // The id of a list request among the effects, or empty.
  std::string asked() const {
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == "list_peers") {
        return field(done.text, "_reqId");
      }
    }
    return {};
  }
  void list(const std::string& request, const std::vector<std::string>& peers,
            std::size_t mesh = 0) {
    std::string text = R"({"type":"peers_list","_reqId":")" + request + R"(","peers":[)";
    for (const std::string& entry : peers) text += (text.back() == '[' ? "" : ",") + entry;
    frame(text + "]}", mesh);
  }
  void hello_ack(std::size_t mesh = 0) {
    frame(R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"self"})", mesh);
  }
  void link_up(std::size_t mesh = 0) {
    core_->on_link_event(links_[mesh], LinkEvent::kConnected, 0, {});
    run();
    hello_ack(mesh);
  }
  void link_down(std::size_t mesh = 0) {
    core_->on_link_event(links_[mesh], LinkEvent::kConnecting, 1006, "lost");
    run();
  }
  void connect(const std::vector<std::string>& peers, std::size_t mesh = 0) {
    link_up(mesh);
    list(asked(), peers, mesh);
  }
  void good_ack(const std::string& id, std::size_t mesh = 0) {
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":"b1","queued":true})", mesh);
  }
  void refuse(const std::string& id, const std::string& code, const std::string& text) {
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":"","queued":false,"error":")" + text +
          "\"" + (code.empty() ? "" : R"(,"code":")" + code + "\"") + "}");
  }
  // A push that bob encrypted to us.
  std::string push(const std::string& id, const std::string& text, bool damaged = false) {
    std::uint8_t own[32], theirs[32];
    CHECK(crypto_sign_ed25519_pk_to_curve25519(own, self_.key.data()) == 0);
    CHECK(crypto_sign_ed25519_sk_to_curve25519(theirs, bob_.secret.data()) == 0);
    std::uint8_t nonce[24] = {7};
    std::vector<std::uint8_t> sealed(text.size() + 16);
    CHECK(crypto_box_easy(sealed.data(), reinterpret_cast<const unsigned char*>(text.data()),
                          text.size(), nonce, own, theirs) == 0);
    if (damaged) sealed[0] ^= 1;
    TextBuf body(parts_.scratch), nonce_text(parts_.scratch);
    crypto::base64_append(sealed, body);
    crypto::base64_append(nonce, nonce_text);
    return R"({"type":"push","messageId":"broker)" + id + R"(","meshId":"mesh0","senderPubkey":")" +
           bob_.hex + R"(","senderName":"bob","priority":"next","nonce":")" +
           std::string(nonce_text.view()) + R"(","ciphertext":")" + std::string(body.view()) +
           R"(","createdAt":"2026-01-02T03:04:05.000Z","client_message_id":")" + id + "\"}";
  }

  // --- the client's side ---
  ConnRef ask(const std::string& body, const std::string& key = {}) {
    wire::HttpRequest request;
    request.method = "POST";
    request.path = "/v1/send";
    request.body = body;
    request.host = "localhost";
    request.idempotency_key = key;
    const ConnRef conn{next_conn_++, 1};
    core_->on_http(conn, request);
    run();
    return conn;
  }
  static std::string body_of(const std::string& to, const std::string& id,
                             const std::string& message = "hi", const std::string& extra = {}) {
    return R"({"to":")" + to + R"(","message":")" + message + "\"" +
           (id.empty() ? "" : R"(,"client_message_id":")" + id + "\"") + extra + "}";
  }
  std::uint32_t send(const std::string& to, const std::string& id,
                     const std::string& message = "hi", const std::string& extra = {}) {
    return status(ask(body_of(to, id, message, extra)));
  }
  ConnRef get(std::string_view path, std::string_view query = {}) {
    wire::HttpRequest request;
    request.method = "GET";
    request.path = path;
    request.query = query;
    request.host = "localhost";
    const ConnRef conn{next_conn_++, 1};
    core_->on_http(conn, request);
    run();
    return conn;
  }
  std::uint32_t status(ConnRef conn) {
    reply_.clear();
    for (const Done& done : done_) {
      if (done.kind != EffectKind::kHttpReply || !(done.conn == conn)) continue;
      reply_ = done.text;
      return done.code;
    }
    return 0;
  }

  // --- what can be seen ---
  std::vector<std::string> sends() const {  // ids of the sends among the effects
    std::vector<std::string> ids;
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == "send") {
        ids.push_back(field(done.text, "client_message_id"));
      }
    }
    return ids;
  }
  std::size_t count(EffectKind kind, std::string_view part = {}) const {
    std::size_t found = 0;
    for (const Done& done : done_) found += done.kind == kind && has(done.text, part);
    return found;
  }
  struct Row {
    OutboxStatus status;
    std::uint32_t attempts;
    std::string error, target;
    std::uint64_t next_ms;
  };
  std::optional<Row> row(const std::string& id) {
    store::Batch& batch = parts_.store->batch();
    std::optional<Row> found;
    Ulid ulid;
    store::OutboxRow row;
    if (store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                              ulid) &&
        batch.get(TableId::kOutbox, store::ulid_key(ulid).bytes(), row)) {
      found =
          Row{row.fixed.status, row.fixed.attempts, std::string(row.text[store::kOutboxLastError]),
              std::string(row.text[store::kOutboxTarget]), row.fixed.next_attempt_ms};
    }
    parts_.end_reading();
    return found;
  }
  // Changes a stored row behind the core's back; start() afterwards.
  template <class Change>
  void change_row(const std::string& id, Change change) {
    store::Batch& batch = parts_.store->batch();
    Ulid ulid;
    store::OutboxRow row;
    CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                                ulid));
    CHECK(batch.get(TableId::kOutbox, store::ulid_key(ulid).bytes(), row));
    std::array<std::string, store::kOutboxTexts> kept;
    for (std::size_t index = 0; index < kept.size(); ++index) {
      kept[index] = row.text[index];
      row.text[index] = kept[index];
    }
    change(row);
    batch.put(TableId::kOutbox, store::ulid_key(ulid).bytes(), row);
    CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
    parts_.end_reading();
  }
  using Texts = std::vector<std::string>;

  CoreParts parts_{store::Role::kDaemon};
  Effects effects_;
  std::optional<Daemon> core_;
  std::vector<LinkRef> links_;
  std::vector<Done> done_;
  Member self_, bob_, eve_;
  std::string reply_;
  std::uint32_t next_conn_ = 0;
};

// --- the accept table ------------------------------------------------------------------------

TEST_F(DaemonTest, every_cell_of_the_accept_table_answers_as_designed) {
  struct Cell {
    OutboxStatus state;
    std::uint32_t same_status;
    const char* same;  // status word of a 2xx, conflict of a 409
    const char* conflict;
  };
  const Cell cells[] = {
      {OutboxStatus::kPending, 202, "queued", "outbox_pending_fingerprint_mismatch"},
      {OutboxStatus::kInflight, 202, "inflight", "outbox_inflight_fingerprint_mismatch"},
      {OutboxStatus::kDone, 200, "done", "outbox_done_fingerprint_mismatch"},
      {OutboxStatus::kDead, 409, "outbox_dead_fingerprint_match",
       "outbox_dead_fingerprint_mismatch"},
      {OutboxStatus::kAborted, 409, "outbox_aborted_fingerprint_match",
       "outbox_aborted_fingerprint_mismatch"},
  };
  static_assert(std::size(cells) == static_cast<std::size_t>(OutboxStatus::kCount));
  start();
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    ASSERT_EQ(send(bob_.hex, id), 202u);
    EXPECT_EQ(field(reply_, "status"), "queued");
  }
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    change_row(id, [&](store::OutboxRow& row) {
      row.fixed.status = cell.state;
      if (cell.state >= OutboxStatus::kDone) row.text[store::kOutboxBrokerId] = "b-77";
      if (cell.state == OutboxStatus::kDead) row.text[store::kOutboxLastError] = "because";
    });
  }
  // Without a restart: recovery would turn inflight into pending.
  for (const Cell& cell : cells) {
    const std::string id = "id-" + std::to_string(static_cast<int>(cell.state));
    SCOPED_TRACE(id);
    const auto as_known = [&](const std::string& body) {
      wire::HttpRequest request;
      request.method = "POST";
      request.path = "/v1/send";
      request.body = body;
      effects_.clear();
      core_->on_http({500, 1}, request);
      CHECK(effects_.list().size() == 1);
      reply_ = effects_.list().front().text;
      const std::uint32_t code = effects_.list().front().code;
      effects_.clear();
      core_->committed();
      parts_.end_reading();
      return code;
    };
    EXPECT_EQ(as_known(body_of(bob_.hex, id)), cell.same_status);
    if (cell.same_status == 409) {
      EXPECT_EQ(field(reply_, "error"), "idempotency_key_reused");
      EXPECT_EQ(field(reply_, "conflict"), cell.same);
      EXPECT_EQ(field(reply_, "daemon_fingerprint_prefix").size(), 16u);
      EXPECT_EQ(field(reply_, "reason"), cell.state == OutboxStatus::kDead ? "because" : "");
    } else {
      EXPECT_EQ(field(reply_, "status"), cell.same);
      EXPECT_EQ(field(reply_, "duplicate"), cell.state == OutboxStatus::kDone ? "true" : "");
      EXPECT_EQ(field(reply_, "broker_message_id"),
                cell.state == OutboxStatus::kDone ? "b-77" : "");
    }
    for (const std::string& other : {body_of(bob_.hex, id, "else"), body_of(eve_.hex, id),
                                     body_of(bob_.hex, id, "hi", R"(,"priority":"now")"),
                                     body_of(bob_.hex, id, "hi", R"(,"meta":{})"),
                                     body_of(bob_.hex, id, "hi", R"(,"reply_to_id":"r")")}) {
      EXPECT_EQ(as_known(other), 409u) << other;
      EXPECT_EQ(field(reply_, "conflict"), cell.conflict);
      EXPECT_EQ(field(reply_, "broker_message_id"),
                cell.state >= OutboxStatus::kDone ? "b-77" : "null");
    }
  }
  EXPECT_EQ(parts_.count(TableId::kOutbox), std::size(cells));
}

TEST_F(DaemonTest, a_retry_succeeds_after_its_peer_has_gone) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id-1"), 202u);
  link_down();
  EXPECT_EQ(send("bob", "id-1"), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, an_id_is_bound_to_its_mesh) {
  start(2);
  EXPECT_EQ(send(bob_.hex, "id-1", "hi", R"(,"mesh":"crew")"), 202u);
  EXPECT_EQ(send(bob_.hex, "id-1", "hi", R"(,"mesh":"other")"), 409u);
  EXPECT_EQ(field(reply_, "conflict"), "outbox_pending_fingerprint_mismatch");
  EXPECT_EQ(send(bob_.hex, "id-1"), 202u) << "no mesh named: the row's";
  EXPECT_EQ(send(bob_.hex, "id-2"), 400u);
  EXPECT_EQ(field(reply_, "error"), "mesh_required");
  EXPECT_EQ(send(bob_.hex, "id-2", "hi", R"(,"mesh":"none")"), 404u);
  EXPECT_EQ(field(reply_, "error"), "mesh_not_attached");
}

TEST_F(DaemonTest, a_header_and_a_body_that_disagree_consume_neither_id) {
  start();
  EXPECT_EQ(status(ask(body_of(bob_.hex, "body-id"), "header-id")), 400u);
  EXPECT_FALSE(row("body-id") || row("header-id"));
  EXPECT_EQ(status(ask(body_of(bob_.hex, ""), "header-id")), 202u);
  EXPECT_EQ(field(reply_, "client_message_id"), "header-id");
  EXPECT_EQ(status(ask(body_of(bob_.hex, "header-id"), "header-id")), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, what_is_refused_consumes_no_id) {
  start();
  EXPECT_EQ(send(bob_.hex, "id", std::string(60'000, 'x')), 413u);
  EXPECT_TRUE(has(reply_, "65536"));
  EXPECT_EQ(send(self_.hex, "id"), 400u);
  EXPECT_EQ(send("*", "id"), 400u);
  EXPECT_EQ(send("@all", "id"), 400u);
  EXPECT_EQ(send(std::string(64, '0'), "id"), 400u) << "no key to encrypt to";
  EXPECT_EQ(status(ask("{")), 400u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 0u);
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonTest, an_id_is_minted_when_none_is_given) {
  start();
  EXPECT_EQ(send(bob_.hex, ""), 202u);
  EXPECT_EQ(field(reply_, "client_message_id").size(), 26u);
}

TEST_F(DaemonTest, a_full_outbox_and_a_full_store_answer_507) {
  parts_.limits.outbox_rows_max = 1;
  parts_.options.bound_bytes = 2 << 20;
  start();
  EXPECT_EQ(send(bob_.hex, "a"), 202u);
  EXPECT_EQ(send(bob_.hex, "b"), 507u);
  EXPECT_EQ(send(bob_.hex, "a"), 202u) << "a known id needs no room";
  link_up();
  good_ack("a");
  parts_.fill(TableId::kMeta);
  EXPECT_EQ(send(bob_.hex, "b"), 507u);
  EXPECT_EQ(field(reply_, "error"), "insufficient_storage");
}

// --- names -----------------------------------------------------------------------------------

TEST_F(DaemonTest, an_unknown_name_is_refused_only_after_a_fresh_list) {
  start();
  connect({});
  const ConnRef conn = ask(body_of("bob", "id"));
  EXPECT_EQ(status(conn), 0u) << "it waits";
  const std::string request = asked();
  ASSERT_FALSE(request.empty());
  list(request, {});
  EXPECT_EQ(status(conn), 404u);
  EXPECT_EQ(field(reply_, "error"), "not_found");
  EXPECT_FALSE(row("id"));
  const ConnRef again = ask(body_of("bob", "id"));
  list(asked(), {peer(bob_, "Bob")});
  EXPECT_EQ(status(again), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, a_name_waits_five_seconds_for_a_broker_and_then_answers_503) {
  start();
  const ConnRef conn = ask(body_of("bob", "id"));
  EXPECT_EQ(status(conn), 0u);
  later(4'999);
  EXPECT_EQ(status(conn), 0u);
  later(1);
  EXPECT_EQ(status(conn), 503u);
  EXPECT_FALSE(row("id"));
  EXPECT_EQ(core_->tables().parked.count(), 0u);
}

TEST_F(DaemonTest, a_connection_that_comes_in_time_serves_the_waiting) {
  start();
  const ConnRef conn = ask(body_of("bob", "id"));
  const ConnRef gone = ask(body_of("bob", "gone"));
  core_->on_http_closed(gone);
  later(2'000);
  connect({peer(bob_, "bob")});
  EXPECT_EQ(status(conn), 202u);
  EXPECT_FALSE(row("gone")) << "its client had left";
}

TEST_F(DaemonTest, two_parked_sends_of_one_id_become_one_row) {
  start();
  const ConnRef one = ask(body_of("bob", "id"));
  const ConnRef two = ask(body_of("bob", "id"));
  connect({peer(bob_, "bob")});
  EXPECT_EQ(status(one), 202u);
  EXPECT_EQ(status(two), 202u);
  EXPECT_EQ(parts_.count(TableId::kOutbox), 1u);
}

TEST_F(DaemonTest, too_many_waiting_sends_are_told_to_come_again) {
  parts_.limits.parked_sends_max = 1;
  start();
  ask(body_of("bob", "a"));
  EXPECT_EQ(send("bob", "b"), 429u);
}

TEST_F(DaemonTest, a_name_that_two_members_bear_is_refused_with_both_keys) {
  start();
  connect({peer(bob_, "bob"), peer(eve_, "BOB")});
  EXPECT_EQ(send("bob", "id"), 409u);
  EXPECT_EQ(field(reply_, "error"), "peer_name_conflict");
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex));
  EXPECT_FALSE(row("id"));
}

TEST_F(DaemonTest, a_bound_name_under_another_key_is_refused) {
  start();
  connect({peer(bob_, "bob")});
  EXPECT_EQ(send("bob", "id-1"), 202u);  // binds it
  link_down();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id-2"), 409u);
  EXPECT_EQ(field(reply_, "error"), "peer_name_conflict");
  EXPECT_TRUE(has(reply_, bob_.hex) && has(reply_, eve_.hex));
  EXPECT_EQ(send(eve_.hex, "id-2"), 202u) << "the full key goes";
  start();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id-3"), 409u) << "bound for good";
}

TEST_F(DaemonTest, a_name_that_was_only_seen_is_not_bound) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({peer(eve_, "bob")});
  EXPECT_EQ(send("bob", "id"), 202u);
  EXPECT_EQ(row("id")->target, eve_.hex);
}

TEST_F(DaemonTest, a_name_resolves_for_thirty_days_while_its_bearer_is_away) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({});
  later(29ull * 24 * 3'600'000);
  EXPECT_EQ(send("Bob", "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

TEST_F(DaemonTest, a_name_that_was_never_used_is_forgotten_after_thirty_days) {
  start();
  connect({peer(bob_, "bob")});
  link_down();
  connect({});
  later(31ull * 24 * 3'600'000);
  const ConnRef conn = ask(body_of("bob", "id"));
  list(asked(), {});
  EXPECT_EQ(status(conn), 404u);
}

TEST_F(DaemonTest, sixteen_digits_of_a_key_suffice_when_they_name_one_peer) {
  start();
  connect({peer(self_, "self"), peer(bob_, "bob")});
  EXPECT_EQ(send(bob_.hex.substr(0, 16), "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
  EXPECT_EQ(send(self_.hex.substr(0, 20), "own"), 400u);
  const ConnRef unknown = ask(body_of(eve_.hex.substr(0, 16), "id-2"));
  list(asked(), {peer(bob_, "bob")});
  EXPECT_EQ(status(unknown), 404u);
}

TEST_F(DaemonTest, an_ambiguous_prefix_is_refused) {
  start();
  Member twin = bob_;
  twin.hex.back() = twin.hex.back() == '0' ? '1' : '0';
  connect({peer(bob_, "bob"), peer(twin, "twin")});
  EXPECT_EQ(send(bob_.hex.substr(0, 32), "id"), 400u);
  EXPECT_TRUE(has(reply_, "ambiguous"));
}

TEST_F(DaemonTest, a_name_goes_to_its_member_and_never_to_a_session_key_the_broker_vouches_for) {
  start();
  connect({peer(bob_, "bob"), peer(bob_, "bob", eve_.hex)});
  EXPECT_EQ(send("bob", "id"), 202u);
  EXPECT_EQ(row("id")->target, bob_.hex);
}

// --- gates -----------------------------------------------------------------------------------

TEST_F(DaemonTest, the_gates_refuse_query_tokens_foreign_hosts_and_origins) {
  start();
  struct Case {
    const char* query;
    const char* host;
    bool origin;
    std::uint32_t status;
  };
  for (const Case& row : std::initializer_list<Case>{
           {"", "localhost", false, 200},
           {"", "LOCALHOST:47823", false, 200},
           {"", "127.0.0.1:47823", false, 200},
           {"", "[::1]:47823", false, 200},
           {"", "[::1]", false, 200},
           {"token=x", "localhost", false, 400},
           {"a=1&token", "localhost", false, 400},
           {"%74oken=x", "localhost", false, 400},
           {"to%6ben=", "localhost", false, 400},
           {"%zz=1", "localhost", false, 400},
           {"", "evil.example", false, 403},
           {"", "127.0.0.1.evil.example", false, 403},
           {"", "localhost.evil.example:80", false, 403},
           {"", "[::2]:80", false, 403},
           {"", "localhost", true, 403},
           {"token=x", "evil.example", true, 400},
       }) {
    SCOPED_TRACE(std::string(row.query) + " " + row.host);
    wire::HttpRequest request;
    request.method = "GET";
    request.path = "/v1/health";
    request.query = row.query;
    request.host = row.host;
    request.has_origin = row.origin;
    core_->on_http({1, 1}, request);
    run();
    EXPECT_EQ(status({1, 1}), row.status);
  }
  EXPECT_EQ(status(get("/v1/nothing")), 404u);
}

// --- draining --------------------------------------------------------------------------------

TEST_F(DaemonTest, rows_in_flight_at_a_crash_are_pending_with_one_more_attempt) {
  start();
  link_up();
  send(bob_.hex, "id");
  ASSERT_EQ(row("id")->status, OutboxStatus::kInflight);
  ASSERT_EQ(row("id")->attempts, 1u);
  start();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  EXPECT_EQ(row("id")->attempts, 2u);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonTest, a_retry_carries_the_same_bytes) {
  start();
  link_up();
  send(bob_.hex, "id");
  const auto sent = [&] {
    for (const Done& done : done_) {
      if (field(done.text, "type") == "send") return done.text;
    }
    return std::string();
  };
  const std::string before = sent();
  ASSERT_FALSE(before.empty());
  start();
  link_up();
  EXPECT_EQ(sent(), before);
}

TEST_F(DaemonTest, a_lane_has_one_message_in_flight_and_other_lanes_go_on) {
  start();
  link_up();
  for (const char* id : {"a1", "a2", "a3"}) send(bob_.hex, id);
  EXPECT_EQ(row("a1")->status, OutboxStatus::kInflight);
  EXPECT_EQ(row("a2")->status, OutboxStatus::kPending);
  send(eve_.hex, "b1");
  EXPECT_EQ(sends(), (Texts{"b1"}));
  send(bob_.hex, "a4", "hi", R"(,"priority":"now")");
  EXPECT_EQ(sends(), (Texts{"a4"})) << "another priority is another lane";
  refuse("a1", "queue_full", "queue_full: wait");
  EXPECT_TRUE(sends().empty());
  good_ack("b1");
  EXPECT_EQ(row("b1")->status, OutboxStatus::kDone);
  later(500);
  EXPECT_EQ(sends(), (Texts{"a1"})) << "the oldest first";
  good_ack("a1");
  EXPECT_EQ(sends(), (Texts{"a2"}));
}

TEST_F(DaemonTest, transient_refusals_back_off_with_jitter_within_bounds) {
  for (const auto& [code, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {"rate_limit", "slow down"},
           {"queue_full", "queue_full"},
           {"insufficient_storage", "invalid word in it"},
           {"", "rate_limit: max 60 msg/min (burst 10) - slow down"},
           {"", "no connected peer for target (not online)"},
       }) {
    SCOPED_TRACE(text);
    start();
    link_up();
    const std::string id = "id-" + std::to_string(next_conn_);
    send(Member::make().hex, id);
    std::uint64_t cap = 500;
    for (int attempt = 0; attempt < 9; ++attempt, cap = std::min<std::uint64_t>(cap * 2, 30'000)) {
      refuse(id, code, text);
      const auto kept = row(id);
      ASSERT_EQ(kept->status, OutboxStatus::kPending);
      EXPECT_EQ(kept->error, text);
      const std::uint64_t delay = kept->next_ms - parts_.env.wall_ms;
      EXPECT_GE(delay, cap / 2);
      EXPECT_LE(delay, cap);
      later(delay - 1);
      EXPECT_TRUE(sends().empty());
      later(1);
      ASSERT_EQ(sends(), (Texts{id}));
    }
    good_ack(id);
  }
}

TEST_F(DaemonTest, permanent_refusals_end_the_row_with_their_reason) {
  start();
  link_up();
  for (const auto& [code, text] : std::initializer_list<std::pair<const char*, const char*>>{
           {"not_found", "no such key"},
           {"idempotency_key_reused", "idempotency_key_reused: invalid retry"},
           {"", "payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536"},
           {"", "blocked by recipient grants (sender lacks dm capability)"},
           {"", "Forbidden: missing"},
           {"", "unknown thing"},
       }) {
    SCOPED_TRACE(text);
    const std::string id = "id-" + std::to_string(next_conn_);
    send(bob_.hex, id);
    ASSERT_EQ(sends(), (Texts{id}));
    refuse(id, code, text);
    EXPECT_EQ(row(id)->status, OutboxStatus::kDead);
    EXPECT_EQ(row(id)->error, text);
    EXPECT_EQ(send(bob_.hex, id), 409u);
    EXPECT_EQ(field(reply_, "reason"), text);
  }
}

TEST_F(DaemonTest, an_ack_that_does_not_come_in_fifteen_seconds_is_a_retry) {
  start();
  link_up();
  send(bob_.hex, "id");
  later(14'999);
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  later(1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  good_ack("id");  // late, and still an answer
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
  refuse("id", "not_found", "too late");
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

TEST_F(DaemonTest, only_the_broker_that_got_a_message_can_answer_for_it) {
  start(2);
  link_up(0);
  link_up(1);
  send(bob_.hex, "id", "hi", R"(,"mesh":"crew")");
  good_ack("id", 1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  send(bob_.hex, "second", "hi", R"(,"mesh":"crew")");
  good_ack("second", 0);
  EXPECT_EQ(row("second")->status, OutboxStatus::kPending) << "it was never sent";
  good_ack("id", 0);
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

TEST_F(DaemonTest, an_ack_for_a_row_of_a_mesh_that_was_left_is_ignored) {
  start();
  link_up();
  send(bob_.hex, "id");
  change_row("id", [](store::OutboxRow& row) { row.text[store::kOutboxMesh] = "left"; });
  start();
  link_up();
  EXPECT_TRUE(sends().empty());
  good_ack("id");
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
}

TEST_F(DaemonTest, a_lost_connection_makes_rows_pending_and_the_next_one_sends_them) {
  start();
  link_up();
  send(bob_.hex, "id");
  link_down();
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
  EXPECT_EQ(row("id")->attempts, 2u);
}

TEST_F(DaemonTest, a_blocked_link_is_sent_nothing_until_it_is_writable) {
  start();
  link_up();
  core_->on_link_blocked(links_[0], true);
  send(bob_.hex, "id");
  EXPECT_TRUE(sends().empty());
  core_->on_link_blocked(links_[0], false);
  run();
  EXPECT_EQ(sends(), (Texts{"id"}));
}

TEST_F(DaemonTest, a_row_that_is_168_hours_old_is_dead) {
  start();
  send(bob_.hex, "id");
  send(bob_.hex, "id-2");
  later(168ull * 3'600'000 - 1);
  EXPECT_EQ(row("id")->status, OutboxStatus::kPending);
  later(1);
  for (const char* id : {"id", "id-2"}) {
    EXPECT_EQ(row(id)->status, OutboxStatus::kDead);
    EXPECT_TRUE(has(row(id)->error, "max_age_exceeded"));
  }
}

// --- receiving -------------------------------------------------------------------------------

TEST_F(DaemonTest, a_message_is_stored_then_acked_and_a_redelivery_is_acked_again) {
  start();
  connect({});
  get("/v1/events");
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"brokerMessageId\":\"brokerm1\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 0u);
  start();
  link_up();
  frame(push("m1", "hello there"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(parts_.count(TableId::kInbox), 1u);
  status(get("/v1/inbox"));
  EXPECT_TRUE(has(reply_, "hello there"));
}

TEST_F(DaemonTest, no_ack_leaves_when_the_row_could_not_be_stored) {
  start();
  connect({});
  get("/v1/events");
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0], push("m1", "hello")));
  EXPECT_FALSE(run());
  EXPECT_EQ(count(EffectKind::kLinkSend), 0u);
  EXPECT_EQ(count(EffectKind::kStreamWrite), 0u);
  EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
  parts_.commit_fails = false;
  later(1'000);
  link_up();
  frame(push("m1", "hello"));
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: message"), 1u);
}

TEST_F(DaemonTest, what_cannot_be_opened_has_a_null_body_and_a_reason) {
  start();
  connect({});
  get("/v1/events");
  frame(push("m1", "secret", true));
  EXPECT_EQ(count(EffectKind::kStreamWrite, "\"body\":null"), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, "body_missing"), 1u);
  EXPECT_EQ(count(EffectKind::kLinkSend, "\"client_ack\""), 1u);
  // Plain text in base64, as the reference would decode it.
  frame(R"({"type":"push","messageId":"b2","meshId":"mesh0","senderPubkey":")" + bob_.hex +
        R"(","priority":"next","nonce":"","ciphertext":"cGxhaW4=","createdAt":"x"})");
  status(get("/v1/inbox"));
  EXPECT_FALSE(has(reply_, "plain")) << reply_;
  EXPECT_EQ(parts_.count(TableId::kInbox), 2u);
}

TEST_F(DaemonTest, a_body_that_is_no_text_leaves_the_inbox_readable) {
  start();
  connect({});
  frame(push("m1", "\xff\xfe"));
  status(get("/v1/inbox"));
  EXPECT_TRUE(has(reply_, "it is not UTF-8 text")) << reply_;
  EXPECT_FALSE(has(reply_, "\xff"));
}

TEST_F(DaemonTest, a_peer_entry_with_a_mesh_member_of_its_own_is_left_out) {
  start();
  std::string hostile = peer(eve_, "eve");
  hostile.insert(hostile.size() - 1, R"(,"mesh":"forged")");
  connect({peer(bob_, "bob"), hostile});
  status(get("/v1/peers"));
  EXPECT_TRUE(has(reply_, "bob"));
  EXPECT_FALSE(has(reply_, "forged"));
}

TEST_F(DaemonTest, the_same_id_of_another_sender_is_another_message) {
  start();
  connect({});
  frame(push("m1", "one"));
  std::string other = push("m1", "two");
  other.replace(other.find(bob_.hex), 64, eve_.hex);
  frame(other);
  EXPECT_EQ(parts_.count(TableId::kInbox), 2u);
}

TEST_F(DaemonTest, peer_events_make_the_list_stale_and_it_is_asked_for_once_a_second) {
  start();
  connect({});
  const std::string event =
      R"({"type":"push","subtype":"system","event":"peer_joined","eventData":{},"messageId":"u-1",)"
      R"("meshId":"mesh0","senderPubkey":"system","priority":"low","nonce":"","ciphertext":""})";
  get("/v1/events");
  frame(event);
  EXPECT_EQ(asked(), "") << "asked less than a second ago";
  EXPECT_EQ(count(EffectKind::kStreamWrite, "event: peer_join"), 1u);
  frame(event);
  EXPECT_EQ(asked(), "");
  later(1'000);
  const std::string request = asked();
  EXPECT_NE(request, "");
  list(request, {});
  later(5'000);
  EXPECT_EQ(asked(), "") << "nothing came since";
  frame(event);
  EXPECT_NE(asked(), "");
}

// --- links -----------------------------------------------------------------------------------

TEST_F(DaemonTest, a_hello_is_signed_freshly_and_verifies) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  ASSERT_EQ(count(EffectKind::kLinkSend), 1u);
  const std::string hello = done_.front().text;
  EXPECT_EQ(field(hello, "type"), "hello");
  EXPECT_EQ(field(hello, "sessionPubkey"), "");
  const auto signature = crypto::signature_parse(field(hello, "signature"));
  ASSERT_TRUE(signature);
  EXPECT_TRUE(crypto::verify(
      self_.key, "mesh0|me|" + self_.hex + "|" + std::to_string(parts_.env.wall_ms), *signature));
}

TEST_F(DaemonTest, nothing_is_sent_before_the_hello_is_answered) {
  start();
  send(bob_.hex, "id");
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  EXPECT_TRUE(sends().empty());
  hello_ack();
  EXPECT_EQ(sends(), (Texts{"id"}));
  EXPECT_EQ(count(EffectKind::kLinkNote), 1u);
}

TEST_F(DaemonTest, a_hello_without_an_answer_for_five_seconds_opens_the_link_anew) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  later(4'999);
  EXPECT_EQ(count(EffectKind::kLinkClose), 0u);
  later(1);
  EXPECT_EQ(count(EffectKind::kLinkClose), 1u);
  EXPECT_EQ(count(EffectKind::kLinkOpen), 0u);
  later(1'000);
  EXPECT_EQ(count(EffectKind::kLinkOpen), 1u);
}

TEST_F(DaemonTest, a_refused_hello_is_noted_for_the_transport) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  frame(R"({"type":"error","code":"revoked","message":"no"})");
  ASSERT_EQ(count(EffectKind::kLinkNote), 1u);
  EXPECT_EQ(done_.front().code, 2u);
  status(get("/v1/health"));
  EXPECT_EQ(field(reply_, "last_error"), "revoked");
}

TEST_F(DaemonTest, a_failed_commit_answers_507_and_reopens_links_with_growing_delay) {
  start();
  link_up();
  parts_.commit_fails = true;
  const std::uint64_t delays[] = {1'000, 2'000, 4'000, 8'000, 16'000, 30'000, 30'000};
  for (const std::uint64_t delay : delays) {
    const ConnRef conn = ask(body_of(bob_.hex, "id"));
    EXPECT_EQ(status(conn), 507u);
    ASSERT_EQ(count(EffectKind::kLinkClose), 1u);
    EXPECT_TRUE(sends().empty());
    for (const Done& done : done_) {
      EXPECT_TRUE(done.kind != EffectKind::kLinkClose || done.code == 1011u);
    }
    EXPECT_FALSE(row("id"));
    later(delay - 1);
    EXPECT_EQ(count(EffectKind::kLinkOpen), 0u);
    later(1);
    EXPECT_EQ(count(EffectKind::kLinkOpen), 1u);
  }
  parts_.commit_fails = false;
  link_up();
  EXPECT_EQ(send(bob_.hex, "id"), 202u);
}

TEST_F(DaemonTest, a_failed_commit_can_also_say_503) {
  start();
  wire::HttpRequest request;
  request.method = "POST";
  request.path = "/v1/send";
  const std::string body = body_of(bob_.hex, "id");
  request.body = body;
  core_->on_http({1, 1}, request);
  parts_.commit_fails = true;
  core_->step();
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kFailed);
  core_->abandon(Err::kStoreFailed);
  ASSERT_FALSE(effects_.list().empty());
  EXPECT_EQ(effects_.list().front().code, 503u);
  effects_.clear();
  parts_.commit_fails = false;
  run();
}

TEST_F(DaemonTest, a_row_in_flight_whose_iteration_failed_is_sent_again) {
  start();
  link_up();
  send(bob_.hex, "id");
  ASSERT_EQ(sends(), (Texts{"id"}));
  parts_.commit_fails = true;
  EXPECT_TRUE(core_->on_link_frame(links_[0],
                                   R"({"type":"ack","id":"id","messageId":"b1","queued":true})"));
  EXPECT_FALSE(run());
  EXPECT_EQ(row("id")->status, OutboxStatus::kInflight);
  parts_.commit_fails = false;
  later(1'000);
  link_up();
  EXPECT_EQ(sends(), (Texts{"id"}));
  good_ack("id");
  EXPECT_EQ(row("id")->status, OutboxStatus::kDone);
}

// --- streams ---------------------------------------------------------------------------------

TEST_F(DaemonTest, a_stream_begins_with_a_comment_and_is_kept_alive) {
  start();
  const ConnRef conn = get("/v1/events");
  EXPECT_EQ(count(EffectKind::kStreamBegin), 1u);
  EXPECT_EQ(count(EffectKind::kStreamWrite, ": connected\n\n"), 1u);
  later(14'999);
  EXPECT_EQ(count(EffectKind::kStreamWrite), 0u);
  later(1);
  EXPECT_EQ(count(EffectKind::kStreamWrite, ": keepalive\n\n"), 1u);
  core_->on_http_closed(conn);
  later(15'000);
  EXPECT_EQ(count(EffectKind::kStreamWrite), 0u);
}

TEST_F(DaemonTest, the_33rd_stream_is_refused) {
  start();
  ConnRef last;
  for (int stream = 0; stream < 32; ++stream) {
    last = get("/v1/events");
    EXPECT_EQ(status(last), 0u);
  }
  EXPECT_EQ(status(get("/v1/events")), 429u);
  EXPECT_EQ(field(reply_, "error"), "too_many_streams");
  core_->on_http_closed(last);
  EXPECT_EQ(status(get("/v1/events")), 0u);
}

}  // namespace
}  // namespace cm::daemon
