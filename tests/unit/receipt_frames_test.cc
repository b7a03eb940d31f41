// receipt_frames_test.cc — the receipt of an ack, the report of seen, and what senders are told.
// Holds:  each bad input gives kMalformed with the field's name in the detail; what was written is
//         read as the same again.
// Not:    what a broker or a daemon makes of them.
#include <gtest/gtest.h>

#include <deque>
#include <string>

#include "core/wire/client_frames.h"

namespace cm::wire {
namespace {

const std::string kSig(128, 'a');

class ReceiptFrames : public testing::Test {
 protected:
  const ClientFrame& frame(const std::string& text) {
    ClientFrame& made = frames_.emplace_back();
    EXPECT_TRUE(parse_client_frame(parser_, scratch_.copy(std::string_view(text)), scratch_, made))
        << text;
    return made;
  }
  template <class T>
  void expect_refused(const std::string& text, Status (*parse)(const ClientFrame&, T&),
                      const std::string& named) {
    T value;
    const Status status = parse(frame(text), value);
    ASSERT_EQ(status.code(), Err::kMalformed) << text;
    EXPECT_TRUE(status.error().detail.starts_with("field '" + named + "'"))
        << status.error().detail << " for " << text;
  }
  static std::string ack_with(const std::string& receipt) {
    return R"({"type":"client_ack","brokerMessageId":"b","receipt":)" + receipt + "}";
  }

  JsonParser parser_;
  ScratchArena scratch_;
  std::deque<ClientFrame> frames_;
};

TEST_F(ReceiptFrames, an_ack_without_a_receipt_is_what_it_was) {
  ClientAck ack;
  ASSERT_TRUE(parse_client_ack(frame(R"({"type":"client_ack","brokerMessageId":"b"})"), ack));
  EXPECT_FALSE(ack.has_receipt);
  TextBuf text(scratch_);
  write_client_ack(ack, text);
  EXPECT_EQ(text.view(), R"({"type":"client_ack","brokerMessageId":"b"})");
}

TEST_F(ReceiptFrames, an_ack_carries_each_level_with_and_without_a_signature) {
  for (const std::string level : {"stored", "handed", "seen"}) {
    for (const bool is_signed : {false, true}) {
      const std::string text = ack_with(R"({"level":")" + level + R"(","at":1700000000000)" +
                                        (is_signed ? R"(,"sig":")" + kSig + "\"" : "") + "}");
      ClientAck ack;
      ASSERT_TRUE(parse_client_ack(frame(text), ack)) << text;
      EXPECT_TRUE(ack.has_receipt);
      EXPECT_EQ(text_of(ack.receipt.level), level);
      EXPECT_EQ(ack.receipt.at_ms, 1'700'000'000'000u);
      EXPECT_EQ(ack.receipt.is_signed, is_signed);
      TextBuf again(scratch_);
      write_client_ack(ack, again);
      EXPECT_EQ(again.view(), text);
    }
  }
}

TEST_F(ReceiptFrames, a_bad_receipt_of_an_ack_is_refused_by_its_field) {
  const struct {
    std::string receipt, named;
  } rows[] = {
      {"[]", "receipt"},
      {"\"handed\"", "receipt"},
      {"{}", "level"},
      {R"({"level":"delivered","at":1})", "level"},
      {R"({"level":1,"at":1})", "level"},
      {R"({"level":")" + std::string(1000, 'x') + R"(","at":1})", "level"},
      {R"({"level":"handed"})", "at"},
      {R"({"level":"handed","at":0})", "at"},
      {R"({"level":"handed","at":-1})", "at"},
      {R"({"level":"handed","at":1.5})", "at"},
      {R"({"level":"handed","at":"1"})", "at"},
      {R"({"level":"handed","at":253402300800000})", "at"},
      {R"({"level":"handed","at":99999999999999999999999})", "at"},
      {R"({"level":"handed","at":1,"sig":""})", "sig"},
      {R"({"level":"handed","at":1,"sig":")" + kSig + R"(aa"})", "sig"},
      {R"({"level":"handed","at":1,"sig":")" + kSig.substr(2) + R"("})", "sig"},
      {R"({"level":"handed","at":1,"sig":")" + kSig.substr(1) + R"(g"})", "sig"},
      {R"({"level":"handed","at":1,"sig":7})", "sig"},
  };
  for (const auto& row : rows) expect_refused(ack_with(row.receipt), parse_client_ack, row.named);
}

TEST_F(ReceiptFrames, a_report_of_seen_is_read_as_it_was_written) {
  SeenReport report{"Msg1", "client|1", 1'700'000'000'000};
  TextBuf text(scratch_);
  write_seen_report(report, "r-1", text);
  EXPECT_EQ(text.view(),
            R"({"type":"receipt","messageId":"Msg1","clientMessageId":"client|1","kind":"seen",)"
            R"("at":1700000000000,"_reqId":"r-1"})");
  SeenReport again;
  ASSERT_TRUE(parse_seen_report(frame(std::string(text.view())), again));
  EXPECT_EQ(again.message_id, report.message_id);
  EXPECT_EQ(again.client_message_id, report.client_message_id);
  EXPECT_EQ(again.at_ms, report.at_ms);
}

TEST_F(ReceiptFrames, a_bad_report_of_seen_is_refused_by_its_field) {
  const struct {
    std::string members, named;
  } rows[] = {
      {R"("kind":"seen","at":1)", "messageId"},
      {R"("messageId":"","kind":"seen","at":1)", "messageId"},
      {R"("messageId":")" + std::string(129, 'a') + R"(","kind":"seen","at":1)", "messageId"},
      {R"("messageId":"a","at":1)", "kind"},
      {R"("messageId":"a","kind":"handed","at":1)", "kind"},
      {R"("messageId":"a","kind":"seen")", "at"},
      {R"("messageId":"a","kind":"seen","at":9007199254740993)", "at"},
      {R"("messageId":"a","kind":"seen","at":1,"clientMessageId":7)", "clientMessageId"},
  };
  for (const auto& row : rows) {
    expect_refused(R"({"type":"receipt",)" + row.members + "}", parse_seen_report, row.named);
  }
}

TEST_F(ReceiptFrames, what_a_sender_is_told_is_read_as_it_was_written) {
  const std::string key(64, '7');
  LiveReceipt receipt;
  receipt.message_id = "Msg1";
  receipt.client_message_id = "c";
  receipt.recipient = key;
  receipt.state = "handed";
  receipt.at_ms = 1'700'000'000'001;
  receipt.is_signed = true;
  receipt.signature.fill(0xaa);
  receipt.handed_ms = 1'700'000'000'000;
  TextBuf text(scratch_);
  JsonWriter json(text);
  write_live_receipt(receipt, json);
  EXPECT_EQ(text.view(), R"({"messageId":"Msg1","clientMessageId":"c","recipient":")" + key +
                             R"(","state":"handed","at":"2023-11-14T22:13:20.001Z",)" +
                             R"("handedAt":"2023-11-14T22:13:20.000Z","sig":")" + kSig + "\"}");
  JsonTape tape;
  ASSERT_TRUE(parser_.parse(text.view(), scratch_, tape));
  LiveReceipt again;
  ASSERT_TRUE(parse_live_receipt(tape, tape.root(), again));
  EXPECT_EQ(again.recipient, key);
  EXPECT_EQ(again.at_ms, receipt.at_ms);
  EXPECT_EQ(again.handed_ms, receipt.handed_ms);
  EXPECT_EQ(again.signature, receipt.signature);
}

TEST_F(ReceiptFrames, a_bad_row_for_a_sender_is_refused) {
  for (const std::string& row :
       {std::string("[]"), std::string("7"), std::string("{}"),
        std::string(R"({"messageId":"a b","state":"handed"})"),
        std::string(R"({"messageId":"a","state":"delivered"})"),
        std::string(R"({"messageId":"a","state":"handed","at":"yesterday"})"),
        std::string(R"({"messageId":"a","state":"handed","recipient":"x"})"),
        std::string(R"({"messageId":"a","state":"handed","clientMessageId":"a b"})"),
        std::string(R"({"messageId":"a","state":"handed","sig":"aa"})")}) {
    JsonTape tape;
    ASSERT_TRUE(parser_.parse(row, scratch_, tape));
    LiveReceipt receipt;
    EXPECT_EQ(parse_live_receipt(tape, tape.root(), receipt).code(), Err::kMalformed) << row;
  }
}

TEST_F(ReceiptFrames, a_hello_names_the_version_that_it_knows_only_if_it_knows_one) {
  Hello hello;
  hello.mesh_id = "m";
  hello.receipts = 0;
  TextBuf without(scratch_), with(scratch_);
  write_hello(hello, without);
  hello.receipts = kReceiptVersion;
  write_hello(hello, with);
  std::string expected(without.view());
  expected.insert(expected.size() - 1, ",\"receipts\":1");
  EXPECT_EQ(with.view(), expected);
}

}  // namespace
}  // namespace cm::wire
