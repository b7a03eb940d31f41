// broker_receipts_test.cc — the chain stored, claimed, handed, seen: what is kept and who is told.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    signatures: the broker keeps them, the daemon checks them (daemon_receipts_test.cc).
#include "core/base/time_text.h"
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

const std::string kSig(128, 'b');
constexpr std::string_view kKnow =
    R"({"type":"feature_negotiation_request","optional":["receipts"]})";

class BrokerReceipts : public BrokerTest {
 protected:
  // Connected, and it knows receipts.
  ConnRef knowing(const Member& who) {
    const ConnRef conn = connect(who);
    text(conn, kKnow);
    return conn;
  }
  std::string sent_to(ConnRef from, const std::string& target, const std::string& id = "c1") {
    return field(send(from, target, id), "messageId");
  }
  void ack_with(ConnRef conn, const std::string& id, const std::string& receipt) {
    text(conn,
         R"({"type":"client_ack","brokerMessageId":")" + id + R"(","receipt":)" + receipt + "}");
  }
  void ack_signed(ConnRef conn, const std::string& id, const std::string& level = "handed",
                  const std::string& sig = kSig) {
    ack_with(conn, id, R"({"level":")" + level + R"(","at":1700000000123,"sig":")" + sig + "\"}");
  }
  std::string seen(ConnRef conn, const std::string& id, std::uint64_t at = 1) {
    return ask(conn,
               R"({"type":"receipt","messageId":")" + id + R"(","kind":"seen","at":)" +
                   std::to_string(at) + R"(,"_reqId":"r"})",
               "receipt_ack");
  }
  std::string status_of(ConnRef from, const std::string& id, const std::string& more = {}) {
    return ask(from, R"({"type":"message_status","messageId":")" + id + "\"" + more + "}",
               "message_status_result");
  }
  // The objects of `recipients`.
  static std::string recipients(const std::string& status) {
    const std::size_t at = status.find("\"recipients\":[");
    return status.substr(at, status.find("],\"clientMessageId\"", at) - at);
  }
  static Texts states(const std::string& status) {
    Texts found;
    std::size_t at = status.find("\"chain\":[");
    const std::size_t end = status.find(']', at);
    for (at = status.find("\"state\":\"", at); at < end; at = status.find("\"state\":\"", at + 1)) {
      found.push_back(status.substr(at + 9, status.find('"', at + 9) - at - 9));
    }
    return found;
  }
  std::vector<std::string> told(ConnRef conn) const { return frames(conn, "receipt"); }
  void hide(ConnRef conn, bool hidden) {
    text(conn, std::string(R"({"type":"set_visible","visible":)") + (hidden ? "false}" : "true}"));
  }
  void block(const Member& who, const Member& whom) {
    signed_http(who, "POST", "/cli/mesh/crew/grants", R"({"grants":{")" + whom.hex + R"(":[]}})");
    ASSERT_EQ(status_, 200u);
  }
};

TEST_F(BrokerReceipts, the_chain_grows_with_each_row_that_changes_and_has_its_time) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  EXPECT_EQ(states(status_of(from, id)), (Texts{"stored"}));
  parts_.advance(1'000);
  const ConnRef to = connect(members_[1]);
  EXPECT_EQ(states(status_of(from, id)), (Texts{"stored", "claimed"}));
  EXPECT_EQ(field(status_of(from, id), "delivered"), "false");
  parts_.advance(1'000);
  ack_signed(to, id);
  std::string status = status_of(from, id);
  EXPECT_EQ(states(status), (Texts{"stored", "claimed", "handed"}));
  EXPECT_EQ(field(status, "delivered"), "true");
  EXPECT_EQ(field(status, "handedSignature"), kSig);
  EXPECT_EQ(field(status, "handedAt"), "2023-11-14T22:13:20.123Z") << "by the recipient's clock";
  EXPECT_EQ(field(status, "recipientKey"), members_[1].hex);
  EXPECT_EQ(field(status, "level"), "handed");
  EXPECT_EQ(field(status, "seenAt"), "null");
  EXPECT_EQ(field(status, "clientMessageId"), "c1");
  parts_.advance(1'000);
  EXPECT_EQ(seen(to, id, parts_.env.wall_ms), R"({"type":"receipt_ack","_reqId":"r"})");
  status = status_of(from, id);
  EXPECT_EQ(states(status), (Texts{"stored", "claimed", "handed", "seen"}));
  EXPECT_EQ(field(status, "level"), "seen");
  EXPECT_NE(field(status, "seenAt"), "null");
}

TEST_F(BrokerReceipts, an_existing_client_sees_and_is_sent_what_it_always_was) {
  found(2);
  const ConnRef from = connect(members_[0]);
  EXPECT_FALSE(has(first(from), "receipts"));
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  ack_signed(to, id);
  EXPECT_TRUE(told(from).empty());
  const std::string status = status_of(from, id);
  const std::string ended = field(status, "endedAt");
  EXPECT_EQ(status, R"({"type":"message_status_result","messageId":")" + id +
                        R"(","fullMessageId":")" + id + R"(","targetSpec":")" + members_[1].hex +
                        R"(","delivered":true,"deliveredAt":")" + ended +
                        R"(","recipients":[{"name":"m1","pubkey":")" + members_[1].hex +
                        R"(","kind":"member","status":"delivered","state":"delivered",)" +
                        R"("storedAt":")" + field(status, "storedAt") + R"(","endedAt":")" + ended +
                        R"("}]})");
}

TEST_F(BrokerReceipts, a_hello_that_knows_receipts_is_answered_before_its_mail) {
  found(2);
  std::string hello = write(members_[1], hello_of(members_[1]));
  hello.insert(hello.size() - 1, R"(,"receipts":1)");
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = open();
  core_->on_text(to, hello);
  run();
  const auto got = frames(to);
  ASSERT_GE(got.size(), 2u);
  EXPECT_EQ(field(got[0], "type"), "hello_ack");
  EXPECT_TRUE(has(got[0], R"("receipts":1})")) << got[0];
  EXPECT_EQ(pushed(to), Texts{"c1"});
  ack_signed(to, id);
  EXPECT_EQ(told(from).size(), 1u);
}

TEST_F(BrokerReceipts, the_first_signature_stays_and_late_acks_may_sign) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  core_->on_closed(to);
  run();
  const ConnRef again = connect(members_[1]);
  later(30'000);  // the lease ends: the ack below names no claim
  ack_signed(again, id);
  EXPECT_EQ(field(status_of(from, id), "handedSignature"), kSig);
  const std::string ended = field(status_of(from, id), "endedAt");
  parts_.advance(5'000);
  ack_signed(again, id, "handed", std::string(128, 'c'));
  ack_with(again, id, R"({"level":"stored","at":5})");
  EXPECT_EQ(field(status_of(from, id), "handedSignature"), kSig);
  EXPECT_EQ(field(status_of(from, id), "endedAt"), ended);
}

TEST_F(BrokerReceipts, a_restart_keeps_the_chain) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  ack_signed(to, id, "seen");
  seen(to, id, parts_.env.wall_ms);
  const std::string before = recipients(status_of(from, id));
  EXPECT_EQ(states(before), (Texts{"stored", "claimed", "handed", "seen"}));
  start();
  const ConnRef back = knowing(members_[0]);
  EXPECT_EQ(recipients(status_of(back, id)), before);
}

TEST_F(BrokerReceipts, a_bad_receipt_refuses_the_ack_and_ends_nothing) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  for (const char* bad : {R"("x")", R"({"level":"gone","at":1})", R"({"level":"handed"})",
                          R"({"level":"handed","at":99999999999999999})",
                          R"({"level":"handed","at":1,"sig":"ab"})"}) {
    ack_with(to, id, bad);
    ASSERT_EQ(frames(to, "error").size(), 1u) << bad;
    EXPECT_EQ(field(frames(to, "error")[0], "code"), "malformed");
    EXPECT_EQ(states(status_of(from, id)), (Texts{"stored", "claimed"})) << bad;
  }
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
}

// --- where the chain ends at `stored` ---------------------------------------------------------

TEST_F(BrokerReceipts, a_recipient_that_reports_nothing_looks_as_if_it_had_not_taken_it) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const std::string before = status_of(from, id);
  const ConnRef to = connect(members_[1]);
  ack_with(to, id, R"({"level":"stored","at":1700000000123})");
  EXPECT_TRUE(told(from).empty());
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u) << "the row leaves the queue all the same";
  core_->on_closed(to);
  run();
  EXPECT_EQ(status_of(from, id), before);
  EXPECT_EQ(field(before, "delivered"), "false");
  const std::string own = status_of(knowing(members_[1]), id);
  EXPECT_EQ(field(own, "state"), "delivered") << "the recipient sees its own row";
}

TEST_F(BrokerReceipts, a_hidden_recipient_looks_away_and_what_it_took_is_never_told) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const std::string before = status_of(from, id);
  EXPECT_EQ(field(before, "status"), "disconnected");
  ConnRef to = connect(members_[1]);
  hide(to, true);
  EXPECT_EQ(status_of(from, id), before) << "pushed to it, and not told";
  ack_signed(to, id);
  EXPECT_TRUE(told(from).empty());
  EXPECT_EQ(status_of(from, id), before);
  seen(to, id, parts_.env.wall_ms);
  hide(to, false);
  seen(to, id, parts_.env.wall_ms);
  EXPECT_EQ(states(status_of(from, id)), Texts{"stored"}) << "it was hidden when it took it";
}

TEST_F(BrokerReceipts, who_hides_later_hides_what_was_told_before_while_it_is_hidden) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  ack_signed(to, id);
  EXPECT_EQ(field(status_of(from, id), "delivered"), "true");
  hide(to, true);
  EXPECT_EQ(field(status_of(from, id), "delivered"), "false");
  EXPECT_EQ(field(status_of(from, id), "status"), "disconnected");
  core_->on_closed(to);
  run();
  EXPECT_EQ(states(status_of(from, id)), Texts{"stored"}) << "leased, and hidden still";
}

TEST_F(BrokerReceipts, a_recipient_that_blocks_the_sender_is_stored_without_a_reason) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const std::string before = status_of(from, id);
  const std::string later_id = sent_to(from, members_[1].hex, "c2");
  block(members_[1], members_[0]);
  const ConnRef to = connect(members_[1]);
  EXPECT_TRUE(pushed(to).empty());
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u) << "both ended as blocked";
  EXPECT_TRUE(told(from).empty());
  core_->on_closed(to);
  run();
  EXPECT_EQ(status_of(from, id), before);
  EXPECT_FALSE(has(status_of(from, later_id), "blocked"));
}

TEST_F(BrokerReceipts, a_block_after_the_hand_over_ends_the_chain_at_stored) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  ack_signed(to, id);
  block(members_[1], members_[0]);
  EXPECT_EQ(states(status_of(from, id)), Texts{"stored"});
  EXPECT_EQ(field(status_of(from, id), "delivered"), "false");
  EXPECT_TRUE(has(status_of(from, id, R"(,"explain":true)"), "reports no more"));
}

TEST_F(BrokerReceipts, of_many_recipients_each_one_ends_where_it_wants) {
  found(4);
  const ConnRef from = knowing(members_[0]);
  const ConnRef open_one = connect(members_[1]);
  const ConnRef shy = connect(members_[2]);
  connect(members_[3]);
  text(from, send_text("*", "c1"));
  const std::string id = field(frames(open_one, "push").front(), "messageId");
  ack_signed(open_one, id);
  ack_with(shy, id, R"({"level":"stored","at":7})");
  const std::string status = status_of(from, id);
  EXPECT_EQ(field(status, "delivered"), "false");
  std::size_t handed = 0;
  for (std::size_t at = 0; (at = status.find("\"handed\"", at)) != std::string::npos; ++at)
    ++handed;
  EXPECT_EQ(handed, 2u) << "in one chain and as its level: " << status;
}

// --- seen -------------------------------------------------------------------------------------

TEST_F(BrokerReceipts, seen_is_taken_once_from_the_recipient_and_between_handed_and_now) {
  found(3);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  const ConnRef eve = connect(members_[2]);
  EXPECT_FALSE(seen(to, id).empty()) << "answered, though it was not handed yet";
  EXPECT_EQ(states(status_of(from, id)), (Texts{"stored", "claimed"}));
  ack_signed(to, id);
  EXPECT_FALSE(seen(eve, id).empty()) << "a stranger is answered";
  EXPECT_FALSE(seen(from, id).empty()) << "so is the sender";
  EXPECT_FALSE(seen(to, "nothing").empty());
  EXPECT_FALSE(seen(to, std::string(26, '0')).empty());
  EXPECT_EQ(field(status_of(from, id), "seenAt"), "null");
  parts_.advance(60'000);
  seen(to, id, 253'402'300'799'999);
  const std::string now(view(iso_text(parts_.env.wall_ms)));
  EXPECT_EQ(field(status_of(from, id), "seenAt"), now) << "nobody sees in the future";
  parts_.advance(60'000);
  seen(to, id, parts_.env.wall_ms);
  EXPECT_EQ(field(status_of(from, id), "seenAt"), now) << "once";
  const std::string second = sent_to(from, members_[1].hex, "c2");
  ack_signed(to, second);
  seen(to, second, 1);
  EXPECT_EQ(field(status_of(from, second), "seenAt"), field(status_of(from, second), "endedAt"))
      << "nor before it was handed";
}

TEST_F(BrokerReceipts, what_is_not_a_report_is_refused_under_its_request) {
  found(2);
  const ConnRef to = connect(members_[1]);
  text(to, R"({"type":"receipt","messageId":"a","kind":"handed","at":1,"_reqId":"r"})");
  ASSERT_EQ(frames(to, "error").size(), 1u);
  EXPECT_EQ(field(frames(to, "error")[0], "_reqId"), "r");
  EXPECT_TRUE(has(frames(to, "error")[0], "kind"));
}

// --- senders are told -------------------------------------------------------------------------

TEST_F(BrokerReceipts, every_connection_of_the_sender_that_knows_receipts_is_told_once) {
  found(3);
  const ConnRef from = knowing(members_[0]);
  const ConnRef other = knowing(members_[0]);
  const ConnRef old = connect(members_[0]);
  const ConnRef stranger = knowing(members_[2]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  // Handed and seen in one iteration are one change.
  core_->on_text(to, R"({"type":"client_ack","brokerMessageId":")" + id +
                         R"(","receipt":{"level":"seen","at":1700000000123,"sig":")" + kSig +
                         "\"}}");
  core_->on_text(to, R"({"type":"receipt","messageId":")" + id + R"(","kind":"seen","at":1})");
  run();
  for (const ConnRef conn : {from, other}) {
    ASSERT_EQ(told(conn).size(), 1u);
    const std::string frame = told(conn)[0];
    EXPECT_TRUE(has(frame, R"({"type":"receipt","receipts":[{"messageId":")" + id +
                               R"(","clientMessageId":"c1","recipient":")" + members_[1].hex +
                               R"(","state":"seen","at":)"))
        << frame;
    EXPECT_EQ(field(frame, "sig"), kSig);
    EXPECT_EQ(field(frame, "handedAt"), "2023-11-14T22:13:20.123Z");
  }
  EXPECT_TRUE(told(old).empty());
  EXPECT_TRUE(told(stranger).empty());
  EXPECT_TRUE(told(to).empty());
}

TEST_F(BrokerReceipts, an_end_without_delivery_is_told_too) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  for (int day = 0; day < 8; ++day) {
    parts_.env.wall_ms += 24ull * 3600 * 1000;
    later(3'600'000);
    if (!told(from).empty()) break;
  }
  ASSERT_EQ(told(from).size(), 1u);
  EXPECT_EQ(field(told(from)[0], "state"), "expired");
  const std::string status = status_of(from, id);
  EXPECT_EQ(states(status), (Texts{"stored", "expired"}));
  EXPECT_TRUE(has(status, R"("reason":"undelivered_7_days")"));
}

TEST_F(BrokerReceipts, of_a_message_to_very_many_nobody_is_told_live) {
  const std::size_t most = 65;
  found(most + 1);
  const ConnRef from = knowing(members_[0]);
  std::vector<ConnRef> all;
  for (std::size_t index = 1; index <= most; ++index) all.push_back(connect(members_[index]));
  text(from, send_text("*", "many"));
  const std::string id = field(frames(all[0], "push").front(), "messageId");
  ack_signed(all[0], id);
  EXPECT_TRUE(told(from).empty());
  core_->on_closed(all.back());
  run();
  later(90'000);  // its lease ends: one recipient less
  text(from, send_text("*", "fewer"));
  ack_signed(all[0], field(frames(all[0], "push").front(), "messageId"));
  EXPECT_EQ(told(from).size(), 1u);
  EXPECT_EQ(field(told(from)[0], "recipient"), members_[1].hex);
}

TEST_F(BrokerReceipts, a_failed_commit_tells_nobody_and_forgets_no_connection) {
  found(2);
  const ConnRef from = knowing(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const ConnRef to = connect(members_[1]);
  parts_.commit_fails = true;
  core_->on_text(to, R"({"type":"client_ack","brokerMessageId":")" + id +
                         R"(","receipt":{"level":"handed","at":5}})");
  EXPECT_FALSE(run());
  parts_.commit_fails = false;
  EXPECT_TRUE(told(from).empty());
  core_->on_closed(to);
  run();
  ack_signed(connect(members_[1]), id);
  EXPECT_EQ(told(from).size(), 1u) << "the sender's connection still knows receipts";
}

// --- explain ----------------------------------------------------------------------------------

TEST_F(BrokerReceipts, the_sender_alone_is_told_which_rows_decided) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const std::string id = sent_to(from, members_[1].hex);
  const std::string why = R"(,"explain":true)";
  std::string rows = status_of(from, id, why);
  EXPECT_TRUE(has(rows, R"("rows":[{"table":"dedupe","key":"c1","says":"accepted once, at )"))
      << rows;
  EXPECT_TRUE(has(rows, R"({"table":"message","key":")" + id)) << rows;
  EXPECT_TRUE(has(rows, R"({"table":"delivery","key":")" + id + " member m1\"")) << rows;
  const ConnRef to = connect(members_[1]);
  EXPECT_TRUE(has(status_of(from, id, why), R"("table":"claim")"));
  ack_signed(to, id);
  rows = status_of(from, id, why);
  EXPECT_TRUE(has(rows, R"("table":"receipt")") && has(rows, "with a signature")) << rows;
  EXPECT_FALSE(has(status_of(to, id, why), "\"rows\"")) << "not to its recipient";
  EXPECT_FALSE(has(status_of(from, id), "\"rows\"")) << "not unasked";
  EXPECT_FALSE(has(status_of(from, id, R"(,"explain":"yes")"), "\"rows\""));
}

}  // namespace
}  // namespace cm::broker
