// broker_recall_test.cc — what finding memories may cost, and how their words come into memory.
// Holds:  as broker_test.cc; costs are the counted ones, never a time.
// Not:    what is found and forgotten (broker_data_test.cc).
#include "tests/unit/broker_fixture.h"

namespace cm::broker {
namespace {

using store::TableId;

class RecallTest : public BrokerTest {
 protected:
  void remember(ConnRef conn, const std::string& content) {
    core_->on_text(conn, R"({"type":"remember","content":")" + content + "\"}");
  }
  std::string query(const std::string& words, const std::string& id = "q") {
    return R"({"type":"recall","query":")" + words + R"(","_reqId":")" + id + "\"}";
  }
  std::string recall(ConnRef conn, const std::string& words) {
    text(conn, query(words));
    const auto found = frames(conn);
    return found.empty() ? std::string() : found.front();
  }
  static std::string words(int count) {
    std::string out;
    for (int number = 0; number < count; ++number) out += "w" + std::to_string(number) + " ";
    return out;
  }
  static std::size_t results(const std::string& reply) {
    std::size_t count = 0;
    for (std::size_t at = 0; (at = reply.find("\"content\"", at)) != std::string::npos; ++at) {
      ++count;
    }
    return count;
  }
};

TEST_F(RecallTest, a_word_that_is_repeated_is_one_word_and_more_than_sixteen_are_refused) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  remember(conn, words(20));
  run();
  EXPECT_EQ(results(recall(conn, words(16))), 1u);
  std::string repeated;
  for (int count = 0; count < 30; ++count) repeated += "w1 W1 w2\xc2\xb7w3 ";
  EXPECT_EQ(results(recall(conn, repeated)), 1u) << "whatever separates them";
  const std::string refusal = recall(conn, words(17));
  EXPECT_EQ(field(refusal, "code"), "malformed");
  EXPECT_TRUE(has(refusal, "'query'") && has(refusal, "16")) << refusal;
  EXPECT_EQ(TextIndex::words_max(50'000), 16u);
  EXPECT_EQ(TextIndex::words_max(100'000), 8u) << "the lists of words are long";
}

TEST_F(RecallTest, two_indexes_that_do_not_fit_together_are_built_one_after_the_other) {
  found(1);
  parts_.limits.rate_burst = 1'000'000;
  const ConnRef first = connect(members_[0]);
  Member owner = Member::make();
  const std::string made =
      http("POST", "/cli/mesh/create", R"({"name":"other","pubkey":")" + owner.hex + "\"}", true);
  mesh_ = field(made, "id");
  owner.id = field(made, "member_id");
  const ConnRef second = connect(owner);
  for (int count = 0; count < 3'000; ++count) {
    for (const ConnRef conn : {first, second}) {
      remember(conn, "all " + words(2) + "n" + std::to_string(count) + "x" +
                         std::to_string(conn.slot) + " y" + std::to_string(7 * count));
    }
    if (count % 250 == 249) later(60'000);
  }
  for (std::uint64_t most = 100'000; most < 1'000'000; most += 50'000) {
    parts_.limits.search_index_bytes_max = most;
    text(first, query("all n17x" + std::to_string(first.slot)));
    text(second, query("all n17x" + std::to_string(second.slot)));
    int rounds = 0;
    while (core_->work_left() && rounds < 200) {
      run();
      ++rounds;
    }
    EXPECT_LT(rounds, 200) << most;
    EXPECT_FALSE(frames(first).empty() && frames(second).empty());
    later(600'000);
  }
}

TEST_F(RecallTest, a_mesh_that_was_too_large_is_searched_again_when_it_forgot) {
  found(1);
  parts_.limits.rate_burst = 1'000'000;
  parts_.limits.search_index_bytes_max = 200'000;
  const ConnRef conn = connect(members_[0]);
  Texts ids;
  for (int count = 0; count < 3'000; ++count) {
    remember(conn, "w" + std::to_string(count) + " v" + std::to_string(3 * count) + " u" +
                       std::to_string(5 * count));
    if (count % 250 != 249) continue;
    later(60'000);
    for (const std::string& stored : frames(conn, "memory_stored")) {
      ids.push_back(field(stored, "id"));
    }
  }
  const auto answer = [&] {
    text(conn, query("w1"));
    for (int round = 0; round < 100; ++round) {
      const auto found = frames(conn);
      if (!found.empty()) return found.front();
      run();
    }
    return std::string();
  };
  EXPECT_EQ(field(answer(), "code"), "full");
  ASSERT_GT(ids.size(), 1'000u);
  for (std::size_t index = 0; index < ids.size(); ++index) {
    core_->on_text(conn, R"({"type":"forget","memoryId":")" + ids[index] + "\"}");
    if (index % 250 == 249) run();
  }
  later(60'000);
  frames(conn);
  EXPECT_NE(field(answer(), "code"), "full");
}

TEST_F(RecallTest, what_a_search_takes_is_charged_and_not_only_what_it_answers) {
  found(2);
  parts_.limits.rate_burst = 10'000;
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  for (int count = 0; count < 2'000; ++count) {
    remember(one, "alpha beta " + std::to_string(count));
    if (count % 500 == 499) run();
  }
  while (frames(one, "memory_results").empty()) text(one, query("alpha 17"));
  parts_.advance(60'000);
  // Nothing holds both: the answers are empty, and the walk is long.
  for (int count = 0; count < 2'000; ++count) core_->on_text(one, query("alpha beta nothing"));
  core_->on_text(two, query("alpha 17"));
  run();
  std::size_t refused = 0;
  for (const std::string& frame : frames(one, "error")) {
    refused += field(frame, "code") == "rate_limit";
    EXPECT_FALSE(field(frame, "retry_after_ms").empty());
  }
  EXPECT_GT(refused, 1'000u);
  EXPECT_EQ(results(first(two)), 1u) << "another member's budget is its own";
  parts_.advance(60'000);
  for (int count = 0; count < 2'000; ++count) core_->on_text(one, query("alpha"));
  run();
  EXPECT_GT(frames(one, "error").size(), 1'800u) << "each is a walk over 2,000 rows";
}

TEST_F(RecallTest, long_memories_are_written_more_slowly_than_short_ones) {
  found(1);
  const ConnRef conn = connect(members_[0]);
  const std::string long_text(60'000, 'x');
  for (int count = 0; count < 100; ++count) remember(conn, long_text);
  run();
  EXPECT_LT(frames(conn, "memory_stored").size(), 40u);
  EXPECT_EQ(field(frames(conn, "error").back(), "code"), "rate_limit");
  parts_.advance(60'000);
  for (int count = 0; count < 500; ++count) remember(conn, "short");
  run();
  EXPECT_EQ(frames(conn, "memory_stored").size(), 500u);
}

TEST_F(RecallTest, words_are_indexed_a_share_in_an_iteration_and_who_asked_waits) {
  found(2);
  parts_.limits.rate_burst = 10'000;
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  for (int count = 0; count < 3'000; ++count) {
    remember(one, "alpha n" + std::to_string(count));
    if (count % 500 == 499) run();
  }
  text(one, query("n7"));
  EXPECT_TRUE(frames(one).empty());
  EXPECT_TRUE(core_->work_left());
  text(two, query("n900", "other"));
  // What changes meanwhile, before and behind the place that is reached, counts.
  const std::string gone =
      field(ask(one, R"({"type":"remember","content":"alpha n7"})", "memory_stored"), "id");
  text(one, R"({"type":"forget","memoryId":")" + gone + "\"}");
  for (int count = 0; count < 20; ++count) remember(two, "late n7");
  int iterations = 1;
  for (run(); frames(one, "memory_results").empty() && iterations < 100; run()) ++iterations;
  EXPECT_GT(iterations, 4);
  EXPECT_EQ(results(first(one)), TextIndex::kResultsMax) << "21, and the best 20";
  EXPECT_FALSE(has(first(one), gone));
  EXPECT_EQ(field(first(two), "_reqId"), "other");
  EXPECT_EQ(results(first(two)), 1u);
  EXPECT_FALSE(core_->work_left());
}

TEST_F(RecallTest, only_so_many_wait_for_an_index_and_who_leaves_waits_no_more) {
  found(1);
  parts_.limits.rate_burst = 10'000;
  const ConnRef conn = connect(members_[0]);
  for (int count = 0; count < 1'000; ++count) remember(conn, "alpha");
  run();
  const ConnRef asks = connect(members_[0], {}, "asks");
  for (int count = 0; count < 20; ++count) core_->on_text(asks, query("alpha"));
  run();
  EXPECT_EQ(frames(asks, "error").size(), 16u);
  EXPECT_EQ(field(first(asks), "retry_after_ms"), "1000");
  EXPECT_TRUE(core_->work_left());
  core_->on_closed(asks);
  run();
  EXPECT_FALSE(core_->work_left()) << "nobody asks any more";
}

TEST_F(RecallTest, those_that_waited_are_answered_over_several_iterations_if_it_takes_long) {
  found(9);
  parts_.limits.rate_burst = 10'000;
  std::vector<ConnRef> conns;
  for (const Member& member : members_) conns.push_back(connect(member));
  for (int count = 0; count < 4'000; ++count) {
    remember(conns[0], "alpha beta gamma delta");
    if (count % 500 == 499) run();
  }
  for (const ConnRef conn : conns) {
    for (int count = 0; count < 4; ++count) {
      core_->on_text(conn, query("alpha beta gamma delta"));
    }
  }
  std::size_t answered = 0;
  int answering = 0;
  for (int iterations = 0; iterations < 100 && answered < 36; ++iterations) {
    run();
    std::size_t now = 0;
    for (const ConnRef conn : conns) now += frames(conn, "memory_results").size();
    answered += now;
    answering += now > 0 ? 1 : 0;
  }
  EXPECT_EQ(answered, 36u);
  EXPECT_GT(answering, 10);
  EXPECT_FALSE(core_->work_left());
}

TEST_F(RecallTest, indexes_have_a_bound_and_the_mesh_that_asked_last_keeps_its_own) {
  found(1);
  parts_.limits.search_index_bytes_max = 400'000;
  const ConnRef conn = connect(members_[0]);
  remember(conn, "small");
  run();
  EXPECT_EQ(results(recall(conn, "small")), 1u);
  for (int count = 0; count < 12; ++count) {
    std::string long_text;
    while (long_text.size() < 60'000) {
      long_text += "u" + std::to_string(count) + "x" + std::to_string(long_text.size()) + " ";
    }
    parts_.advance(1'000);
    remember(conn, long_text);
    run();
  }
  std::string answer;
  for (text(conn, query("small")); answer.empty(); run()) answer = first(conn);
  EXPECT_EQ(field(answer, "code"), "full") << answer;
  EXPECT_TRUE(has(answer, "search_index_bytes_max"));
  EXPECT_EQ(field(recall(conn, "small"), "code"), "full") << "at once, and nothing is tried again";
  EXPECT_FALSE(core_->work_left());
  parts_.limits.search_index_bytes_max = 64 << 20;
  parts_.advance(600'000);
  answer.clear();
  for (text(conn, query("small")); answer.empty(); run()) answer = first(conn);
  EXPECT_EQ(results(answer), 1u) << "later it is";
}

TEST_F(RecallTest, a_failed_commit_costs_only_the_index_of_a_mesh_that_it_changed) {
  found(2);
  parts_.limits.rate_burst = 10'000;
  const ConnRef one = connect(members_[0]);
  const ConnRef two = connect(members_[1]);
  for (int count = 0; count < 1'000; ++count) remember(one, "alpha");
  run();
  for (text(two, query("alpha")); frames(two).empty(); run()) {
  }
  parts_.commit_fails = true;
  text(one, R"({"type":"set_state","key":"k","value":1})");
  parts_.commit_fails = false;
  EXPECT_EQ(results(recall(two, "alpha")), 20u) << "at once: its words did not change";
  const ConnRef again = connect(members_[0], {}, "again");
  parts_.commit_fails = true;
  text(again, R"({"type":"remember","content":"phantom"})");
  parts_.commit_fails = false;
  text(two, query("phantom"));
  EXPECT_TRUE(frames(two).empty()) << "indexed anew";
  for (; frames(two).empty(); run()) {
  }
  EXPECT_EQ(results(first(two)), 0u);
}

}  // namespace
}  // namespace cm::broker
