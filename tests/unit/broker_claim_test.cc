// broker_claim_test.cc — claims when one connection serves two mailboxes, lapses, and rows that a
// recipient cannot take.
// Holds:  as broker_test.cc; verify_all() after every iteration.
// Not:    the plain life of a claim (broker_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

std::string id_of(const std::string& push) { return field(push, "messageId"); }

// --- one connection, two mailboxes ------------------------------------------------------------

TEST_F(BrokerTest, the_ack_of_a_row_finds_its_own_claim_among_two_of_one_message) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const SessionText session = session_of(members_[1]);
  const ConnRef worker = connect_session(session);
  const ConnRef daemon = connect(members_[1]);
  core_->on_closed(daemon);
  run();
  text(from, send_text("*", "x"));
  ASSERT_EQ(pushed(worker), (Texts{"x", "x"})) << "for the session, and for its member";
  const std::string id = id_of(frames(worker, "push").front());
  const ConnRef again = connect(members_[1]);
  ack(again, id);
  run();
  EXPECT_EQ(core_->tables().claims.count(), 1u);
  ack(worker, id);
  run();
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
}

TEST_F(BrokerTest, old_mail_ends_also_while_one_connection_holds_it_twice) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const ConnRef worker = connect_session(session_of(members_[1]));
  core_->on_closed(connect(members_[1]));
  run();
  text(from, send_text("*", "x"));
  ASSERT_EQ(pushed(worker).size(), 2u);
  const std::string id = id_of(frames(worker, "push").front());
  for (int day = 0; day < 8; ++day) {
    later(20'000);
    parts_.env.wall_ms += 24ull * 3600 * 1000;
    later(3'600'000);
  }
  EXPECT_EQ(parts_.count(TableId::kDelivery), 0u);
  EXPECT_EQ(core_->tables().claims.count(), 0u);
}

TEST_F(BrokerTest, both_rows_of_one_message_come_again_on_a_new_connection) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const SessionText session = session_of(members_[1]);
  const ConnRef daemon = connect(members_[1]);
  const ConnRef worker = connect_session(session);
  core_->on_closed(daemon);
  run();
  text(from, send_text("*", "x"));
  ASSERT_EQ(pushed(worker), (Texts{"x", "x"}));
  core_->on_closed(worker);
  run();
  const ConnRef back = connect_session(session);
  Texts got = pushed(back);
  run();
  for (const std::string& more : pushed(back)) got.push_back(more);
  EXPECT_EQ(got, (Texts{"x", "x"}));
}

// --- lapses -----------------------------------------------------------------------------------

TEST_F(BrokerTest, a_lane_that_lapsed_waits_and_others_are_pushed) {
  found(3);
  const ConnRef from = connect(members_[0]);
  const ConnRef other = connect(members_[2]);
  const ConnRef to = connect(members_[1]);  // never acks, as throw-away clients do
  send(from, members_[1].hex, "a");
  later(30'000);
  EXPECT_TRUE(pushed(to).empty());
  text(from, send_text(members_[1].hex, "b"));
  EXPECT_TRUE(pushed(to).empty()) << "b would overtake a";
  text(other, send_text(members_[1].hex, "c"));
  EXPECT_EQ(pushed(to), (Texts{"c"}));
  const std::string id = id_of(frames(to, "push").front());
  ack(to, id);
  EXPECT_EQ(pushed(to), (Texts{"a", "b"})) << "it acks: it hears";
}

TEST_F(BrokerTest, a_connection_on_which_everything_lapses_hears_nothing_more) {
  found(2);
  std::vector<Member> crowd;
  const ConnRef from = connect(members_[0]);
  const ConnRef to = connect(members_[1]);
  for (int lane = 0; lane < 70; ++lane) {
    const ConnRef session = connect_session(session_of(members_[0]));
    text(session, send_text(members_[1].hex, "m" + std::to_string(lane)));
    core_->on_closed(session);
    run();
  }
  later(30'000);
  text(from, send_text(members_[1].hex, "last"));
  EXPECT_TRUE(pushed(to).empty());
}

// --- too large for its recipient --------------------------------------------------------------

TEST_F(BrokerTest, a_row_whose_push_was_closed_with_1009_twice_ends_as_too_large) {
  found(2);
  const ConnRef from = connect(members_[0]);
  text(from, send_text(members_[1].hex, "small"));
  text(from,
       send_text(members_[1].hex, "large", std::string(64, 'a'), "next", std::string(4000, 'A')));
  text(from, send_text(members_[1].hex, "after"));
  for (int round = 0; round < 2; ++round) {
    const ConnRef to = connect(members_[1]);
    EXPECT_EQ(pushed(to), (Texts{"small", "large", "after"})) << round;
    core_->on_closed(to, 1009);
    run();
  }
  EXPECT_EQ(pushed(connect(members_[1])), (Texts{"small", "after"}));
  EXPECT_EQ(parts_.count(TableId::kReceipt), 1u);
  const std::string status =
      ask(from, R"({"type":"send","targetSpec":"#x","priority":"next","nonce":"","ciphertext":""})",
          "ack");
  EXPECT_FALSE(status.empty()) << "the sender goes on";
}

TEST_F(BrokerTest, closes_with_other_codes_end_no_row) {
  found(2);
  const ConnRef from = connect(members_[0]);
  send(from, members_[1].hex, "a");
  for (int round = 0; round < 4; ++round) {
    const ConnRef to = connect(members_[1]);
    EXPECT_EQ(pushed(to), (Texts{"a"}));
    core_->on_closed(to, 1006);
    run();
  }
  EXPECT_EQ(parts_.count(TableId::kDelivery), 1u);
}

// --- message_status ---------------------------------------------------------------------------

TEST_F(BrokerTest, a_recipient_is_told_of_its_own_row_only_and_the_sender_of_all) {
  found(4);
  const ConnRef from = connect(members_[0]);
  const ConnRef one = connect(members_[1]);
  connect(members_[2]);
  text(from, send_text("*", "x"));
  const std::string id = id_of(frames(one, "push").front());
  const std::string question = R"({"type":"message_status","messageId":")" + id + "\"}";
  const std::string all = ask(from, question, "message_status_result");
  EXPECT_TRUE(has(all, members_[1].hex) && has(all, members_[2].hex)) << all;
  const std::string own = ask(one, question, "message_status_result");
  EXPECT_TRUE(has(own, members_[1].hex)) << own;
  EXPECT_FALSE(has(own, members_[2].hex)) << own;
}

TEST_F(BrokerTest, claimed_is_said_of_the_message_that_is_and_held_of_who_is_connected) {
  found(2);
  const ConnRef from = connect(members_[0]);
  const SessionText session = session_of(members_[1]);
  const ConnRef worker = connect_session(session);
  const ConnRef daemon = connect(members_[1]);
  text(daemon, R"({"type":"set_status","status":"dnd"})");
  const auto state_of = [&](const std::string& id) {
    return ask(from, R"({"type":"message_status","messageId":")" + id + "\"}",
               "message_status_result");
  };
  const std::string urgent_ack =
      ask(from, send_text(members_[1].hex, "u", std::string(64, 'a'), "now"), "ack");
  const std::string low_ack =
      ask(from, send_text(members_[1].hex, "l", std::string(64, 'a'), "low"), "ack");
  EXPECT_EQ(field(state_of(field(urgent_ack, "messageId")), "state"), "claimed");
  EXPECT_EQ(field(state_of(field(low_ack, "messageId")), "state"), "stored");
  core_->on_closed(worker);
  run();
  const std::string late = ask(from, send_text(session.session.hex, "s"), "ack");
  EXPECT_EQ(field(state_of(field(late, "messageId")), "status"), "disconnected")
      << "its member's daemon is connected; the session is not";
}

TEST_F(BrokerTest, mail_of_a_sender_that_was_removed_ends_before_it_is_pushed) {
  found(2);
  const ConnRef alice = connect(members_[0]);
  send(alice, members_[1].hex, "one");
  const store::Key index = store::u32_bytes_key(1, members_[0].key);
  const std::uint32_t alice_no =
      *parts_.store->batch().get_number(TableId::kMemberKey, index.bytes());
  store::MemberRow row;
  const store::Key key = store::u32_key(alice_no);
  ASSERT_TRUE(parts_.store->batch().get(TableId::kMember, key.bytes(), row));
  row.fixed.revoked_ms = parts_.env.wall_ms;
  const std::string id(row.text[store::kMemberId]), name(row.text[store::kMemberName]);
  row.text = {id, name};
  parts_.store->batch().put(TableId::kMember, key.bytes(), row);
  ASSERT_EQ(parts_.store->commit(), store::CommitResult::kCommitted);
  start();
  const ConnRef bob = connect(members_[1]);
  EXPECT_EQ(pushed(bob), Texts{});
  later(1);
  EXPECT_EQ(pushed(bob), Texts{});
  store::Cursor cursor(parts_.store->batch(), TableId::kReceipt);
  ASSERT_TRUE(cursor.seek({}));
  store::ReceiptRow receipt;
  ASSERT_TRUE(cursor.row(receipt));
  EXPECT_EQ(receipt.fixed.state, store::ReceiptState::kExpired);
  EXPECT_EQ(receipt.text[store::kReceiptReason], "sender_revoked");
}

}  // namespace
}  // namespace cm::broker
