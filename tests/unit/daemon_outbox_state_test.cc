// daemon_outbox_state_test.cc — the table of states and events: printed, and walked cell by cell.
// Holds:  see daemon_fixture.h. CM_WRITE_DOCS=1 in the environment writes docs/OUTBOX.md anew.
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/unit/daemon_fixture.h"

namespace cm::daemon {
namespace {

std::string cell_text(const OutboxCell& cell) {
  const std::string text(cell.text);
  switch (cell.kind) {
    case CellKind::kMove: return "→ **" + std::string(text_of(cell.next)) + "**: " + text;
    case CellKind::kStay: return text;
    case CellKind::kRefused: return "refused: " + text;
    case CellKind::kIgnored: return "ignored: " + text;
    case CellKind::kImpossible: return "*impossible: " + text + "*";
    case CellKind::kEmpty: break;
  }
  return "empty";
}

std::string page() {
  std::string text =
      "# The outbox: states and events\n\n"
      "What each event does to a message in each state; `core/daemon/outbox_state.cc` is the same "
      "table, and a\ntest compares them. An impossible cell is an invariant: a daemon that reaches "
      "it ends and reports.\n\n"
      "`none`: no message has the id. `tombstone`: the message has ended, and 7 days later, or "
      "when "
      "it was\ndropped or pruned, its text was erased; the id stays bound to its request for "
      "good.\n\n| event |";
  for (std::size_t state = 0; state < kOutboxStates; ++state) {
    text += " " + std::string(text_of(static_cast<OutboxState>(state))) + " |";
  }
  text += "\n|---|";
  for (std::size_t state = 0; state < kOutboxStates; ++state) text += "---|";
  text += "\n";
  for (std::size_t event = 0; event < kOutboxEvents; ++event) {
    text += "| `" + std::string(text_of(static_cast<OutboxEvent>(event))) + "` |";
    for (std::size_t state = 0; state < kOutboxStates; ++state) {
      text += " " + cell_text(kOutboxRules[state][event]) + " |";
    }
    text += "\n";
  }
  return text;
}

TEST(OutboxTable, the_page_in_the_docs_is_the_table_of_the_program) {
  const std::string path = std::string(CM_TESTS_DIR) + "/../docs/OUTBOX.md";
  if (std::getenv("CM_WRITE_DOCS") != nullptr) std::ofstream(path) << page();
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  EXPECT_EQ(content.str(), page()) << "CM_WRITE_DOCS=1 writes it anew";
}

class OutboxWalk : public DaemonTest {
 protected:
  std::uint32_t requeue(const std::string& id) {
    return status(http("POST", "/v1/outbox/requeue", {}, R"({"id":")" + id + "\"}"));
  }
  std::uint32_t drop(const std::string& id) { return status(http("DELETE", "/v1/outbox/" + id)); }
  void make(OutboxState state, const std::string& id) {
    link_up();
    if (state == OutboxState::kNone) return;
    to_ = Member::make().hex;
    ASSERT_EQ(send(to_, id), 202u) << reply_;
    switch (state) {
      case OutboxState::kPending: later(15'000); break;  // sent once, and no answer
      case OutboxState::kDone: good_ack(id); break;
      case OutboxState::kDead: refuse(id, "forbidden", "no"); break;
      case OutboxState::kAborted: ASSERT_EQ(requeue(id), 200u); break;
      case OutboxState::kTombstone:
        good_ack(id);
        ASSERT_EQ(drop(id), 200u);
        break;
      default: break;
    }
  }
  OutboxState state_of(const std::string& id) {
    store::Batch& batch = parts_.store->batch();
    Ulid ulid;
    store::OutboxRow row;
    OutboxState state = OutboxState::kNone;
    if (store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                              ulid)) {
      const bool has_row = batch.get(TableId::kOutbox, store::ulid_key(ulid).bytes(), row);
      state = has_row ? outbox_state(row.fixed.status) : OutboxState::kTombstone;
    }
    parts_.end_reading();
    return state;
  }
  void damage_body(const std::string& id) {
    store::Batch& batch = parts_.store->batch();
    Ulid ulid;
    CHECK(store::parse_ulid_key(batch.get_index(TableId::kOutboxId, store::text_key(id).bytes()),
                                ulid));
    batch.put(TableId::kOutboxBody, store::ulid_key(ulid).bytes(), store::MetaRow{});
    CHECK(parts_.store->commit() == store::CommitResult::kCommitted);
    parts_.end_reading();
    parts_.holds_foreign_rows = true;
  }
  void fire(OutboxEvent event, const std::string& id) {
    switch (event) {
      case OutboxEvent::kSendSame: send(to_.empty() ? bob_.hex : to_, id); break;
      case OutboxEvent::kSendOther: send(to_, id, "another text"); break;
      case OutboxEvent::kDrain:
        send(to_, id + "-next");  // its lane is looked at again, now or when its backoff is over
        later(14'000);
        break;
      case OutboxEvent::kAckStored: good_ack(id); break;
      case OutboxEvent::kAckDuplicate:
        frame(R"({"type":"ack","id":")" + id +
              R"(","messageId":"b1","queued":true,"duplicate":true})");
        break;
      case OutboxEvent::kAckMismatch: refuse(id, "idempotency_key_reused", "another"); break;
      case OutboxEvent::kRefusedTransient: refuse(id, "queue_full", "wait"); break;
      case OutboxEvent::kRefusedPermanent: refuse(id, "not_found", "nobody"); break;
      case OutboxEvent::kConnectionLost: link_down(); break;
      case OutboxEvent::kAckTimeout: later(15'000); break;
      case OutboxEvent::kAgeExhausted:
        parts_.env.wall_ms += 168ull * 3'600'000;
        run();
        break;
      case OutboxEvent::kRequeue:
        if (state_of(id) == OutboxState::kNone) send(to_ = bob_.hex, id);
        requeue(id);
        break;
      case OutboxEvent::kDrop: drop(id); break;
      case OutboxEvent::kRestart: start(); break;
      case OutboxEvent::kMeshLeft: ASSERT_TRUE(core_->reload({})); break;
      case OutboxEvent::kKeyChanged:
        self_ = Member::make();
        start();
        link_up();
        break;
      case OutboxEvent::kBodyCorrupt:
        damage_body(id);
        later(30'000);
        break;
      case OutboxEvent::kShrink:
        http("POST", "/v1/outbox/prune", {}, R"({"states":["done","dead","aborted"]})");
        break;
      case OutboxEvent::kCount: break;
    }
    run();
  }
  std::string to_;
};

// Every cell that is not impossible is reached by driving the daemon, and leads where it says.
TEST_F(OutboxWalk, each_cell_is_reached_and_leads_where_the_table_says) {
  int walked = 0;
  for (std::size_t state = 0; state < kOutboxStates; ++state) {
    for (std::size_t event = 0; event < kOutboxEvents; ++event) {
      const OutboxCell& cell = kOutboxRules[state][event];
      if (cell.kind == CellKind::kImpossible) continue;
      const auto from = static_cast<OutboxState>(state);
      const auto what = static_cast<OutboxEvent>(event);
      SCOPED_TRACE(std::string(text_of(from)) + " x " + std::string(text_of(what)));
      start();
      to_.clear();
      const std::string id = "id-" + std::to_string(walked++);
      ASSERT_NO_FATAL_FAILURE(make(from, id));
      ASSERT_EQ(state_of(id), from);
      const bool restarts = what == OutboxEvent::kRestart || what == OutboxEvent::kKeyChanged;
      const std::uint64_t before = restarts ? 0 : core_->outbox_cells()[state][event];
      fire(what, id);
      EXPECT_GT(core_->outbox_cells()[state][event], before);
      // A requeue makes another row, under a fresh id; a new row is sent in the same iteration.
      const bool goes_on = from == OutboxState::kNone &&
                           (what == OutboxEvent::kRequeue || what == OutboxEvent::kSendSame);
      if (!goes_on) {
        EXPECT_EQ(text_of(state_of(id)), text_of(cell.next));
      }
    }
  }
  EXPECT_GT(walked, 60);
}

TEST_F(OutboxWalk, the_answers_of_the_accept_table_are_those_of_the_cells) {
  for (const OutboxState state : {OutboxState::kPending, OutboxState::kInflight, OutboxState::kDone,
                                  OutboxState::kDead, OutboxState::kAborted}) {
    SCOPED_TRACE(text_of(state));
    start();
    const std::string id = "a-" + std::string(text_of(state));
    ASSERT_NO_FATAL_FAILURE(make(state, id));
    for (const OutboxEvent event : {OutboxEvent::kSendSame, OutboxEvent::kSendOther}) {
      const std::string_view text = outbox_cell(state, event).text;
      const std::string message = event == OutboxEvent::kSendSame ? "hi" : "another text";
      EXPECT_EQ(std::to_string(send(to_, id, message)), text.substr(0, 3)) << text;
      const std::string word = text.starts_with("409")   ? field(reply_, "conflict")
                               : text.starts_with("200") ? "duplicate"
                                                         : field(reply_, "status");
      EXPECT_TRUE(has(text, word)) << text << " " << reply_;
    }
  }
}

}  // namespace
}  // namespace cm::daemon
