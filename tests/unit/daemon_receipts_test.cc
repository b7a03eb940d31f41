// daemon_receipts_test.cc — receipts at both ends: signing what came, checking what was sent.
// Holds:  see daemon_fixture.h. Here the broker takes receipts, unless a test says otherwise.
// Not:    what a broker keeps of them (broker_receipts_test.cc).
#include "core/base/time_text.h"
#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

using store::TableId;

const std::string kBroker = "01HF0000000000000000000000";

class DaemonReceipts : public DaemonTest {
 protected:
  void hello_ack_with_receipts(std::size_t mesh = 0) {
    frame(R"({"type":"hello_ack","presenceId":"p","memberDisplayName":"self","receipts":1})", mesh);
  }
  void link_up_with_receipts(std::size_t mesh = 0) {
    core_->on_link_event(links_[mesh], LinkEvent::kConnected, 0, {});
    run();
    hello_ack_with_receipts(mesh);
  }
  void up(store::ReportLevel level = store::ReportLevel::kHanded, std::size_t meshes = 1) {
    config_.report_level = level;
    start(meshes);
    for (std::size_t mesh = 0; mesh < meshes; ++mesh) link_up_with_receipts(mesh);
  }
  // A broadcast of "hi" from bob.
  std::string cast(const std::string& id, const std::string& client_id = {},
                   const std::string& mesh = "mesh0") {
    return R"({"type":"push","messageId":")" + id + R"(","meshId":")" + mesh +
           R"(","senderPubkey":")" + bob_.hex +
           R"(","targetSpec":"*","priority":"next","nonce":"","ciphertext":"aGk=",)" +
           R"("createdAt":"2026-01-02T03:04:05.000Z")" +
           (client_id.empty() ? "" : R"(,"client_message_id":")" + client_id + "\"") + "}";
  }
  std::string inbox_id() {
    EXPECT_EQ(status(get("/v1/inbox", "limit=1&mark_seen=false")), 200u);
    return field(reply_, "id");
  }
  void see(const std::string& id) {
    EXPECT_EQ(status(http("POST", "/v1/inbox/seen", "", R"({"ids":[")" + id + "\"]}")), 200u);
  }
  std::vector<std::string> reports() const {
    std::vector<std::string> found;
    for (const Done& done : done_) {
      if (done.kind == EffectKind::kLinkSend && field(done.text, "type") == "receipt") {
        found.push_back(done.text);
      }
    }
    return found;
  }
  void answer_report(const std::string& report, std::size_t mesh = 0) {
    frame(R"({"type":"receipt_ack","_reqId":")" + field(report, "_reqId") + "\"}", mesh);
  }

  // --- the sender's side ---
  // Sends "hi" to bob and lets the broker accept it.
  void sent_to_bob(const std::string& id) {
    ASSERT_EQ(send(bob_.hex, id), 202u);
    frame(R"({"type":"ack","id":")" + id + R"(","messageId":")" + kBroker + R"(","queued":true})");
  }
  std::string ciphertext_hash(const std::string& id) {
    store::Batch& batch = parts_.store->batch();
    Ulid ulid;
    store::OutboxBodyRow body;
    CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                                ulid));
    CHECK(batch.get(TableId::kOutboxBody, store::ulid_key(ulid).bytes(), body));
    const auto bytes = crypto::base64_decode(body.text[store::kBodyCiphertext], parts_.scratch);
    const crypto::Hash32 hash = crypto::sha256(*bytes);
    const std::string hex(crypto::view(crypto::hex_text(hash)));
    parts_.end_reading();
    return hex;
  }
  static constexpr std::uint64_t kHanded = 1'700'000'000'123;
  std::string signature_of(const Member& signer, const Member& named, const std::string& id,
                           const std::string& hash) {
    return signer.sign("claudemesh-handed|mesh0|" + kBroker + "|" + id + "|" + named.hex + "|" +
                       hash + "|" + std::to_string(kHanded));
  }
  static std::string handed(const Member& recipient, const std::string& sig) {
    const std::string at(view(iso_text(kHanded)));
    return R"({"name":"bob","pubkey":")" + recipient.hex +
           R"(","kind":"member","status":"delivered","state":"delivered","storedAt":")" + at +
           R"(","endedAt":")" + at + R"(","chain":[{"state":"stored","at":")" + at +
           R"("},{"state":"handed","at":")" + at + R"("}],"recipientKey":")" + recipient.hex +
           R"(","level":"handed","handedAt":")" + at + "\"" +
           (sig.empty() ? "" : R"(,"handedSignature":")" + sig + "\"") + R"(,"seenAt":null})";
  }
  // The daemon's answer when the broker names this recipient.
  std::string status_with(const std::string& id, const std::string& recipient,
                          const std::string& target = {}) {
    const ConnRef conn = get("/v1/message/status", "id=" + id);
    answer(sent("message_status"), "message_status_result",
           R"("messageId":")" + kBroker + R"(","fullMessageId":")" + kBroker +
               R"(","targetSpec":")" + (target.empty() ? bob_.hex : target) +
               R"(","delivered":true,"deliveredAt":"2023-11-14T22:13:20.123Z","recipients":[)" +
               recipient + "]");
    EXPECT_EQ(status(conn), 200u);
    return reply_;
  }
  std::string live(const std::string& id, const std::string& sig) {
    const std::string at(view(iso_text(kHanded)));
    return R"({"type":"receipt","receipts":[{"messageId":")" + kBroker +
           R"(","clientMessageId":")" + id + R"(","recipient":")" + bob_.hex +
           R"(","state":"handed","at":")" + at + "\"" +
           (sig.empty() ? "" : R"(,"handedAt":")" + at + R"(","sig":")" + sig + "\"") + "}]}";
  }
};

// --- the recipient signs ----------------------------------------------------------------------

TEST_F(DaemonReceipts, the_signature_is_that_of_another_implementation) {
  // Seed 00 01 .. 1f; the text and its signature were computed with OpenSSL 3.0 (pkeyutl -rawin):
  // claudemesh-handed|mesh0|broker1|client|1|03a1..31b8|sha256("hi")|1700000000000
  for (std::size_t index = 0; index < self_.seed.size(); ++index) {
    self_.seed[index] = static_cast<std::uint8_t>(index);
  }
  crypto_sign_seed_keypair(self_.key.data(), self_.secret.data(), self_.seed.data());
  self_.hex = crypto::view(crypto::hex_text(self_.key));
  ASSERT_EQ(self_.hex, "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
  up();
  parts_.env.wall_ms = 1'700'000'000'000;
  frame(cast("broker1", "client|1"));
  EXPECT_EQ(sent("client_ack"),
            R"({"type":"client_ack","clientMessageId":"client|1","brokerMessageId":"broker1",)"
            R"("receipt":{"level":"handed","at":1700000000000,"sig":")"
            "de1283440b8ec62531d682b5a58142540ae1bbafff48306fa8ba99d9309681de"
            "d93d1f44c2d2ab7cb6c90f8d19710bfbf97bc43c5ff24d2122d343ea33670c0d"
            R"("}})");
}

TEST_F(DaemonReceipts, the_hello_says_that_it_knows_receipts_and_a_broker_that_does_not_gets_none) {
  start();
  core_->on_link_event(links_[0], LinkEvent::kConnected, 0, {});
  run();
  EXPECT_TRUE(has(sent("hello"), R"(,"receipts":1})"));
  hello_ack();
  EXPECT_TRUE(has(sent("feature_negotiation_request"), "\"receipts\""));
  frame(cast("b1", "c1"));
  EXPECT_EQ(sent("client_ack"),
            R"({"type":"client_ack","clientMessageId":"c1","brokerMessageId":"b1"})");
  EXPECT_EQ(field(status(get("/v1/inbox")) == 200 ? reply_ : "", "receipt"), "null");
  link_down();
  link_up_with_receipts();
  frame(cast("b2", "c2"));
  EXPECT_TRUE(has(sent("client_ack"), "\"sig\""));
  link_down();
  link_up();
  frame(cast("b3", "c3"));
  EXPECT_FALSE(has(sent("client_ack"), "receipt")) << "the broker behind the link is another one";
}

TEST_F(DaemonReceipts, negotiation_alone_will_do) {
  start();
  link_up();
  frame(R"({"type":"feature_negotiation_response","supported":{"client_message_id_dedupe":{)"
        R"("params":{"version":1,"request_fingerprint":true,"mode":"permanent"}},)"
        R"("concurrent_connection_policy":{"params":{"version":1}},)"
        R"("receipts":{"params":{"version":1}}},"missing_required":[]})");
  frame(cast("b1"));
  EXPECT_TRUE(has(sent("client_ack"), "\"sig\""));
}

TEST_F(DaemonReceipts, each_level_says_what_it_says_and_stored_signs_nothing) {
  using store::ReportLevel;
  for (const auto& [level, name] :
       {std::pair{ReportLevel::kStored, "stored"}, std::pair{ReportLevel::kHanded, "handed"},
        std::pair{ReportLevel::kSeen, "seen"}}) {
    up();
    core_->set_report_level(level);
    frame(cast(std::string("b") + name));
    EXPECT_EQ(field(sent("client_ack"), "level"), name);
    EXPECT_EQ(has(sent("client_ack"), "\"sig\""), level != ReportLevel::kStored) << name;
    EXPECT_EQ(status(get("/v1/inbox", "limit=1&mark_seen=false")), 200u);
    EXPECT_EQ(field(reply_, "receipt"), name);
  }
}

TEST_F(DaemonReceipts, a_redelivery_is_signed_again_and_an_id_with_a_separator_is_not) {
  up();
  frame(cast("b1", "c1"));
  parts_.advance(5);
  frame(cast("b1", "c1"));
  EXPECT_TRUE(has(sent("client_ack"), "\"sig\""));
  frame(cast("b|2", "c2"));
  EXPECT_EQ(field(sent("client_ack"), "level"), "handed");
  EXPECT_FALSE(has(sent("client_ack"), "\"sig\""));
}

// --- seen -------------------------------------------------------------------------------------

TEST_F(DaemonReceipts, seen_is_reported_until_the_broker_has_answered) {
  up(store::ReportLevel::kSeen);
  frame(cast("b1", "c1"));
  const std::string id = inbox_id();
  parts_.advance(1'000);
  see(id);
  ASSERT_EQ(reports().size(), 1u);
  EXPECT_TRUE(has(reports()[0], R"({"type":"receipt","messageId":"b1","clientMessageId":"c1",)"
                                R"("kind":"seen","at":)" +
                                    std::to_string(parts_.env.wall_ms) + ",\"_reqId\":\""))
      << reports()[0];
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u);
  std::string report = reports()[0];
  EXPECT_EQ(status(get("/v1/inbox", "mark_seen=false")), 200u);
  EXPECT_TRUE(has(reply_, R"("receipt":"seen","receipt_due":true)")) << reply_;
  link_down();
  EXPECT_TRUE(reports().empty());
  link_up_with_receipts();
  ASSERT_EQ(reports().size(), 1u) << "again over the next connection";
  answer_report(report);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u) << "that answer was of the old one";
  start();
  link_up_with_receipts();
  ASSERT_EQ(reports().size(), 1u) << "and after a restart";
  report = reports()[0];
  answer_report(report);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
  answer_report(report);
  EXPECT_EQ(status(get("/v1/inbox", "mark_seen=false")), 200u);
  EXPECT_FALSE(has(reply_, "receipt_due"));
}

// Found by the simulator: the ack was lost, the report came before the redelivery, and the broker
// answered it without keeping anything.
TEST_F(DaemonReceipts, a_redelivery_of_what_was_seen_is_reported_once_more_behind_its_ack) {
  up(store::ReportLevel::kSeen);
  frame(cast(kBroker, "one"));
  see(inbox_id());
  ASSERT_EQ(reports().size(), 1u);
  const std::string first = reports()[0];
  frame(cast(kBroker, "one"));  // before the answer
  ASSERT_EQ(reports().size(), 1u);
  const std::string second = reports()[0];
  EXPECT_EQ(field(second, "messageId"), kBroker);
  EXPECT_NE(field(second, "_reqId"), field(first, "_reqId"));
  answer_report(first);
  answer_report(second);
  later(60'000);
  EXPECT_TRUE(reports().empty());
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
  frame(cast(kBroker, "one"));  // behind the answer
  ASSERT_EQ(reports().size(), 1u);
}

TEST_F(DaemonReceipts, what_nobody_answers_is_sent_again_and_a_refusal_ends_it) {
  up(store::ReportLevel::kSeen);
  frame(cast("b1", "c1"));
  see(inbox_id());
  ASSERT_EQ(reports().size(), 1u);
  later(14'999);
  EXPECT_TRUE(reports().empty());
  later(1);
  ASSERT_EQ(reports().size(), 1u);
  frame(R"({"type":"error","code":"malformed","message":"no","_reqId":")" +
        field(reports()[0], "_reqId") + "\"}");
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
}

TEST_F(DaemonReceipts, only_the_level_seen_reports_and_only_to_a_broker_that_takes_it) {
  up();
  frame(cast("b1"));
  see(inbox_id());
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u) << "handed is all that is told";
  core_->set_report_level(store::ReportLevel::kSeen);
  frame(cast("b2"));
  const std::string second = inbox_id();
  link_down();
  see(second);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u) << "it waits for the connection";
  link_up();
  EXPECT_TRUE(reports().empty()) << "the broker has not said that it takes them";
  later(2'000);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u) << "it is legacy: nobody to tell";
  frame(cast("b3"));
  see(inbox_id());
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
}

TEST_F(DaemonReceipts, a_row_that_was_deleted_or_a_level_that_was_lowered_is_not_reported) {
  up(store::ReportLevel::kSeen);
  frame(cast("b1"));
  frame(cast("b2"));
  link_down();
  EXPECT_EQ(status(get("/v1/inbox")), 200u);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 2u);
  EXPECT_EQ(status(http("DELETE", "/v1/inbox/" + inbox_id())), 200u);
  link_up_with_receipts();
  EXPECT_EQ(reports().size(), 1u);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u);
  link_down();
  core_->set_report_level(store::ReportLevel::kHanded);
  link_up_with_receipts();
  EXPECT_TRUE(reports().empty());
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
}

TEST_F(DaemonReceipts, few_reports_are_unanswered_at_a_time_and_each_mesh_hears_of_its_own) {
  up(store::ReportLevel::kSeen, 2);
  for (int index = 0; index < 40; ++index) frame(cast("b" + std::to_string(index)));
  frame(cast("other", {}, "mesh1"), 1);
  link_down(1);
  EXPECT_EQ(status(get("/v1/inbox", "limit=100")), 200u);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 41u);
  std::vector<std::string> open = reports();
  EXPECT_EQ(open.size(), 32u);
  std::size_t answered = 0;
  while (!open.empty()) {
    answer_report(open.back());
    open.pop_back();
    ++answered;
    for (const std::string& more : reports()) open.push_back(more);
    ASSERT_LE(open.size(), 32u);
  }
  EXPECT_EQ(answered, 40u);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u);
  link_up_with_receipts(1);
  ASSERT_EQ(reports().size(), 1u);
  EXPECT_EQ(field(reports()[0], "messageId"), "other");
  const std::string report = reports()[0];
  answer_report(report, 0);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 1u) << "the other broker has no say in it";
  answer_report(report, 1);
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
}

TEST_F(DaemonReceipts, a_failed_commit_reports_nothing_and_the_next_one_does) {
  up(store::ReportLevel::kSeen);
  frame(cast("b1"));
  const std::string id = inbox_id();
  parts_.commit_fails = true;
  core_->on_http({900, 1}, [] {
    wire::HttpRequest request = request_of("GET", "/v1/inbox", {}, {});
    request.peer_is_unix = true;
    return request;
  }());
  EXPECT_FALSE(run());
  parts_.commit_fails = false;
  EXPECT_TRUE(reports().empty());
  EXPECT_EQ(parts_.count(TableId::kSeenDue), 0u);
  see(id);
  EXPECT_EQ(reports().size(), 1u);
}

// --- the sender checks ------------------------------------------------------------------------

TEST_F(DaemonReceipts, only_the_recipients_signature_over_what_was_sent_is_valid) {
  up();
  sent_to_bob("c|1");
  const std::string hash = ciphertext_hash("c|1");
  const std::string good = signature_of(bob_, bob_, "c|1", hash);
  std::string text = status_with("c%7C1", handed(bob_, good));
  EXPECT_TRUE(has(text, R"("signature":"valid")")) << text;
  EXPECT_EQ(field(text, "delivered"), "true");
  EXPECT_TRUE(has(text, R"("chain":[{"state":"accepted","at":")")) << text;
  EXPECT_TRUE(has(status_with("c%7C1", handed(bob_, "")), R"("signature":"unsigned")"));
  const struct {
    const char* what;
    std::string recipient;
  } bad[] = {
      {"by another key", handed(bob_, signature_of(eve_, bob_, "c|1", hash))},
      {"by the key that the broker names", handed(eve_, signature_of(eve_, eve_, "c|1", hash))},
      {"over another text", handed(bob_, signature_of(bob_, bob_, "c|1", std::string(64, '0')))},
      {"of another message", handed(bob_, signature_of(bob_, bob_, "c2", hash))},
      {"no signature at all", handed(bob_, "zz")},
  };
  for (const auto& each : bad) {
    text = status_with("c%7C1", each.recipient);
    EXPECT_TRUE(has(text, R"("signature":"invalid")")) << each.what << ": " << text;
    EXPECT_EQ(field(text, "delivered"), "false") << each.what;
    EXPECT_TRUE(has(text, R"("deliveredAt":null)")) << each.what;
    EXPECT_TRUE(has(text, R"("status":"held","state":"stored")")) << each.what;
    EXPECT_FALSE(has(text, R"("state":"handed")")) << each.what;
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonReceiptsInvalid), 4u) << "the last one is none";
}

TEST_F(DaemonReceipts, what_cannot_be_checked_says_why) {
  up();
  sent_to_bob("c1");
  const std::string good = signature_of(bob_, bob_, "c1", ciphertext_hash("c1"));
  std::string text = status_with("AAAAAAAA", handed(bob_, good));
  EXPECT_TRUE(has(text, R"("signature":"unchecked","signatureWhy":"it was not sent)")) << text;
  store::Batch& batch = parts_.store->batch();
  Ulid ulid;
  CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key("c1").bytes()),
                              ulid));
  batch.erase(TableId::kOutboxBody, store::ulid_key(ulid).bytes());
  CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
  parts_.end_reading();
  text = status_with("c1", handed(bob_, good));
  EXPECT_TRUE(has(text, R"("signature":"unchecked","signatureWhy":"its body is no longer)"));
  EXPECT_EQ(field(text, "delivered"), "true") << "the broker's word, and shown as such";
}

TEST_F(DaemonReceipts, a_recipient_of_many_is_checked_by_a_key_that_is_known_here) {
  up();
  list(asked(), {});
  ASSERT_EQ(send("*", "c1"), 202u);
  frame(R"({"type":"ack","id":"c1","messageId":")" + kBroker + R"(","queued":true})");
  const std::string hash = ciphertext_hash("c1");
  const std::string good = signature_of(bob_, bob_, "c1", hash);
  EXPECT_TRUE(has(status_with("c1", handed(bob_, good), "*"), R"("signature":"unchecked")"))
      << "the broker could have made the key";
  link_down();
  link_up_with_receipts();
  list(asked(), {peer(bob_, "bob")});
  EXPECT_TRUE(has(status_with("c1", handed(bob_, good), "*"), R"("signature":"valid")"));
  EXPECT_TRUE(has(status_with("c1", handed(bob_, signature_of(eve_, bob_, "c1", hash)), "*"),
                  R"("signature":"invalid")"));
}

TEST_F(DaemonReceipts, a_broker_without_chains_gets_one_from_what_is_known_here) {
  up();
  sent_to_bob("c1");
  const std::string text = status_with("c1", R"({"name":"bob","pubkey":"x","status":"delivered"})");
  EXPECT_TRUE(has(text, R"("status":"delivered","chain":[{"state":"accepted","at":")")) << text;
  EXPECT_TRUE(has(text, R"({"state":"stored","at":")")) << text;
  EXPECT_TRUE(has(text, R"({"state":"handed","at":null}],"signature":"unsigned")")) << text;
}

TEST_F(DaemonReceipts, a_stream_is_told_of_receipts_with_their_verdict) {
  up();
  sent_to_bob("c1");
  const std::string hash = ciphertext_hash("c1");
  const std::string good = signature_of(bob_, bob_, "c1", hash);
  const std::size_t before = core_->tables().ring.size();
  frame(live("c1", good));
  EXPECT_EQ(core_->tables().ring.size(), before) << "nobody has ever listened";
  get("/v1/events");
  const struct {
    std::string frame, verdict;
  } rows[] = {
      {live("c1", good), "valid"},
      {live("c1", signature_of(eve_, bob_, "c1", hash)), "invalid"},
      {live("c1", ""), "unsigned"},
      {live("unknown", good), "unchecked"},
  };
  for (const auto& row : rows) {
    frame(row.frame);
    EXPECT_EQ(count(EffectKind::kStreamWrite, "event: receipt\ndata: "), 1u) << row.verdict;
    EXPECT_EQ(count(EffectKind::kStreamWrite, R"("signature":")" + row.verdict + "\""), 1u)
        << row.frame;
  }
  frame(rows[0].frame);
  for (const Done& done : done_) {
    if (done.kind != EffectKind::kStreamWrite) continue;
    EXPECT_TRUE(has(done.text, R"("mesh":"crew","client_message_id":"c1","broker_message_id":")" +
                                   kBroker + R"(","recipient":")" + bob_.hex +
                                   R"(","state":"handed","at":"2023-11-14T22:13:20.123Z")"))
        << done.text;
  }
}

TEST_F(DaemonReceipts, hostile_receipts_of_a_broker_change_nothing) {
  up();
  get("/v1/events");
  const std::uint64_t before = parts_.metrics.get(Metric::kDaemonInvalidInbound);
  std::string many = R"({"type":"receipt","receipts":[{})";
  for (int index = 0; index < 64; ++index) many += ",{}";
  for (const std::string& bad :
       {many + "]}", std::string(R"({"type":"receipt"})"),
        std::string(R"({"type":"receipt","receipts":"x"})"),
        std::string(R"({"type":"receipt","receipts":[7,{"messageId":"a"},null]})")}) {
    frame(bad);
    EXPECT_EQ(count(EffectKind::kStreamWrite), 0u) << bad;
  }
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonInvalidInbound), before + 6);
}

// --- explain ----------------------------------------------------------------------------------

TEST_F(DaemonReceipts, explain_lists_the_rows_of_both_sides_and_says_what_comes_next) {
  start();
  ASSERT_EQ(send(bob_.hex, "c1"), 202u);
  ConnRef conn = get("/v1/message/explain", "id=c1");
  EXPECT_EQ(status(conn), 200u) << "no broker is needed for what waits here";
  EXPECT_TRUE(has(reply_, R"({"id":"c1","rows":[{"where":"daemon","table":"outbox_id","key":"c1")"))
      << reply_;
  EXPECT_TRUE(has(reply_, ", pending, 0 attempts")) << reply_;
  EXPECT_TRUE(has(reply_, R"("table":"outbox_body")") && has(reply_, "2 bytes of text"));
  EXPECT_TRUE(has(reply_, R"("next":"it is sent when the broker can be reached)"));
  link_up_with_receipts();
  frame(R"({"type":"ack","id":"c1","messageId":")" + kBroker + R"(","queued":true})");
  conn = get("/v1/message/explain", "id=c1");
  EXPECT_TRUE(has(sent("message_status"), R"("explain":true)"));
  answer(sent("message_status"), "message_status_result",
         R"("messageId":"x","delivered":false,"recipients":[{"state":"stored"}],)"
         R"("rows":[{"table":"delivery","key":"k","says":"stored at noon"},7,{"table":9}])");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, "done: stored by the broker at ")) << reply_;
  EXPECT_TRUE(has(reply_,
                  R"({"where":"broker","table":"delivery","key":"k","says":"stored at noon"},)"
                  R"({"where":"broker","table":"","key":"","says":""}])"))
      << reply_;
  EXPECT_TRUE(has(reply_, R"("next":"the broker pushes it)")) << reply_;
  conn = get("/v1/message/explain", "id=c1");
  answer(sent("message_status"), "message_status_result",
         R"("messageId":")" + kBroker + R"(","delivered":true,"recipients":[)" +
             handed(bob_, std::string(128, 'a')) + R"(],"rows":[])");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("next":"a recipient did not sign what)")) << reply_;
  conn = get("/v1/message/explain", "id=c1");
  frame(R"({"type":"error","code":"not_found","message":"none","_reqId":")" +
        field(sent("message_status"), "_reqId") + "\"}");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("next":"the broker has no row of it any more)")) << reply_;
}

TEST_F(DaemonReceipts, explain_by_the_brokers_id_finds_the_rows_of_this_machine) {
  up();
  sent_to_bob("c1");
  const ConnRef conn = get("/v1/message/explain", "id=" + kBroker);
  answer(sent("message_status"), "message_status_result",
         R"("messageId":")" + kBroker + R"(","fullMessageId":")" + kBroker +
             R"(","clientMessageId":"c1","delivered":false,"recipients":[],"rows":[])");
  EXPECT_EQ(status(conn), 200u);
  EXPECT_TRUE(has(reply_, R"("table":"outbox_id","key":"c1")")) << reply_;
}

TEST_F(DaemonReceipts, explain_of_what_died_names_the_way_on_and_of_nothing_is_404) {
  up();
  ASSERT_EQ(send(bob_.hex, "c1"), 202u);
  refuse("c1", "forbidden", "forbidden: no");
  EXPECT_EQ(status(get("/v1/message/explain", "id=c1")), 200u);
  EXPECT_TRUE(has(reply_, ", dead; last error: forbidden: no")) << reply_;
  EXPECT_TRUE(has(reply_, "a requeue sends it under a new id")) << reply_;
  EXPECT_EQ(status(get("/v1/message/explain", "id=none")), 404u);
  EXPECT_EQ(status(get("/v1/message/explain")), 400u);
  frame(cast("b1"));
  const std::string id = inbox_id();
  const ConnRef conn = get("/v1/message/explain", "id=" + id);
  EXPECT_TRUE(has(sent("message_status"), R"("messageId":"b1")")) << "its broker's name for it";
  frame(R"({"type":"error","code":"not_found","message":"none","_reqId":")" +
        field(sent("message_status"), "_reqId") + "\"}");
  EXPECT_EQ(status(conn), 200u) << "a row of the inbox";
  EXPECT_TRUE(has(reply_, R"("table":"inbox")")) << reply_;
}

TEST_F(DaemonReceipts, explain_says_why_a_message_waits) {
  up();
  ASSERT_EQ(send(bob_.hex, "c1"), 202u);
  ASSERT_EQ(send(bob_.hex, "c2"), 202u);
  refuse("c1", "insufficient_storage", "the broker is full");
  EXPECT_EQ(status(get("/v1/message/explain", "id=c1")), 200u);
  EXPECT_TRUE(has(reply_, "does not take it now (the broker is full); it is sent again at "))
      << reply_;
  EXPECT_EQ(status(get("/v1/message/explain", "id=c2")), 200u);
  EXPECT_TRUE(has(reply_, "when what is before it in its lane has gone; first is 0")) << reply_;
  EXPECT_EQ(status(get("/v1/message/status", "id=c1&mesh=nope")), 404u);
  EXPECT_TRUE(has(reply_, "mesh_not_attached")) << reply_;
}

TEST_F(DaemonReceipts, a_tombstone_still_answers_where_a_message_came_to) {
  up();
  sent_to_bob("c1");
  store::Batch& batch = parts_.store->batch();
  Ulid ulid;
  CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key("c1").bytes()),
                              ulid));
  store::TombstoneRow grave;
  grave.fixed.status = OutboxStatus::kDone;
  grave.fixed.enqueued_ms = 1'700'000'000'000;
  grave.fixed.ended_ms = 1'700'000'000'500;
  grave.text[store::kTombstoneClientId] = "c1";
  grave.text[store::kTombstoneMesh] = "mesh0";
  grave.text[store::kTombstoneBrokerId] = kBroker;
  const store::Key key = store::ulid_key(ulid);
  batch.put(TableId::kTombstone, key.bytes(), grave);
  batch.erase(TableId::kOutbox, key.bytes());
  batch.erase(TableId::kOutboxBody, key.bytes());
  CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
  parts_.end_reading();
  const std::string text = status_with("c1", handed(bob_, std::string(128, 'a')));
  EXPECT_TRUE(has(text, R"("tombstone":true)")) << text;
  EXPECT_TRUE(has(text, R"("stored_at":"2023-11-14T22:13:20.500Z")")) << text;
  EXPECT_TRUE(has(text, R"("signatureWhy":"its body is no longer here")")) << text;
}

TEST_F(DaemonReceipts, what_another_store_had_sent_is_not_held_against_its_recipient) {
  up();
  ASSERT_EQ(send(bob_.hex, "id"), 202u);
  // The first attempt of this store, and yet a duplicate: the store before it had sent the id.
  frame(R"({"type":"ack","id":"id","messageId":")" + kBroker +
        R"(","queued":true,"duplicate":true,"history_available":true})");
  const std::string theirs(64, 'a');  // of the ciphertext that the recipient really has
  const std::string shown = status_with("id", handed(bob_, signature_of(bob_, bob_, "id", theirs)));
  EXPECT_TRUE(has(shown, R"("signature":"unchecked")"));
  EXPECT_TRUE(has(shown, R"("delivered":true)"));
  EXPECT_EQ(parts_.metrics.get(Metric::kDaemonReceiptsInvalid), 0u);
}

// Who repeats the send on its way makes two answers, and may turn them round.
TEST_F(DaemonReceipts, what_fits_the_text_that_was_sent_is_valid_whatever_the_ack_said) {
  up();
  ASSERT_EQ(send(bob_.hex, "id"), 202u);
  frame(R"({"type":"ack","id":"id","messageId":")" + kBroker +
        R"(","queued":true,"duplicate":true,"history_available":true})");
  const std::string good = signature_of(bob_, bob_, "id", ciphertext_hash("id"));
  EXPECT_TRUE(has(status_with("id", handed(bob_, good)), R"("signature":"valid")"));
}

TEST_F(DaemonReceipts, a_duplicate_of_an_attempt_of_its_own_is_checked) {
  up();
  ASSERT_EQ(send(bob_.hex, "id"), 202u);
  link_down();
  link_up_with_receipts();  // sent again
  frame(R"({"type":"ack","id":"id","messageId":")" + kBroker +
        R"(","queued":true,"duplicate":true,"history_available":true})");
  const std::string good = signature_of(bob_, bob_, "id", ciphertext_hash("id"));
  EXPECT_TRUE(has(status_with("id", handed(bob_, good)), R"("signature":"valid")"));
  const std::string forged = signature_of(bob_, bob_, "id", std::string(64, 'a'));
  EXPECT_TRUE(has(status_with("id", handed(bob_, forged)), R"("signature":"invalid")"));
}

}  // namespace
}  // namespace cm::daemon
