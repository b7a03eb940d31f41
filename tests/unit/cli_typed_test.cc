// cli_typed_test.cc — what a person types: URLs of brokers, dates, slips of the fingers, help.
#include <gtest/gtest.h>

#include "cli/broker_url.h"
#include "cli/dispatch.h"
#include "cli/hints.h"
#include "cli/output.h"
#include "cli/short_link.h"

namespace cm::cli {
namespace {

struct TypedUrl {
  const char* typed;
  const char* kept;  // null: refused
};

TEST(Typed, a_broker_url_is_kept_as_one_that_can_be_connected_to) {
  output().quiet = true;
  for (const auto& [typed, kept] : {
           TypedUrl{"ws://host:7900/ws", "ws://host:7900/ws"},
           TypedUrl{"wss://host/ws", "wss://host/ws"},
           TypedUrl{"ws://host:7900", "ws://host:7900/ws"},
           TypedUrl{"ws://host:7900/", "ws://host:7900/ws"},
           TypedUrl{"wss://[::1]:1", "wss://[::1]:1/ws"},
           TypedUrl{"http://host:7900", "ws://host:7900/ws"},
           TypedUrl{"https://host/", "wss://host/ws"},
           TypedUrl{"https://host/mesh/ws", "wss://host/mesh/ws"},
           TypedUrl{"ws://host/other", "ws://host/other"},
           TypedUrl{"host:7900", nullptr},
           TypedUrl{"ws://", nullptr},
           TypedUrl{"ws://user@host/ws", nullptr},
           TypedUrl{"ws://host:0/ws", nullptr},
           TypedUrl{"ws://host/ws#x", nullptr},
           TypedUrl{"ftp://host/ws", nullptr},
           TypedUrl{"unix:/tmp/x", nullptr},
           TypedUrl{"", nullptr},
       }) {
    const auto usable = usable_broker_url(typed, "--broker");
    ASSERT_EQ(static_cast<bool>(usable), kept != nullptr) << typed;
    if (kept != nullptr) {
      EXPECT_EQ(*usable, kept) << typed;
    } else {
      EXPECT_EQ(usable.code(), Err::kInvalidArgument);
      EXPECT_NE(usable.error().detail.find("--broker"), std::string::npos) << typed;
    }
  }
  EXPECT_FALSE(usable_broker_url("ws://host/" + std::string(4096, 'x'), "--broker"));
  output().quiet = false;
}

TEST(Typed, a_date_becomes_its_first_moment_and_all_else_stays) {
  EXPECT_EQ(time_or_date("2020-01-31"), "2020-01-31T00:00:00Z");
  for (const char* other :
       {"", "2020-01-31T10:00:00Z", "2020-1-3", "2020/01/31", "yesterday_", "2020-01-3x"}) {
    EXPECT_EQ(time_or_date(other), other);
  }
}

TEST(Typed, a_slip_of_the_fingers_is_told_from_a_wild_guess) {
  const auto text = [](std::vector<std::string> words) { return unknown_text(words); };
  EXPECT_EQ(text({"sned"}), "'sned' is no verb; did you mean 'send'?");
  EXPECT_EQ(text({"topic", "hstory"}), "'topic hstory' is no verb; did you mean 'topic history'?");
  EXPECT_EQ(text({"frobnicate"}), "'frobnicate' is no verb");
  EXPECT_EQ(text({"x"}), "'x' is no verb");
  EXPECT_EQ(text({""}), "'' is no verb");
  EXPECT_EQ(text({std::string(100'000, 's')}).find("did you mean"), std::string::npos);
  EXPECT_NE(text({"topic", "frobnicate"}).find("topic create, topic list"), std::string::npos);
}

TEST(Typed, every_verb_has_help_with_the_flags_that_all_have) {
  for (const Verb& verb : verbs()) {
    const std::string help = help_of(verb);
    for (const char* flag : {"--help", "--json", "--quiet", "--strict", "--no-daemon"}) {
      EXPECT_NE(help.find(flag), std::string::npos) << verb.path << " " << flag;
    }
  }
}

TEST(Typed, an_empty_word_is_refused_where_it_would_mean_the_only_one) {
  const auto read = [](std::vector<std::string> words) {
    std::size_t used = 0;
    const Verb* verb = find_verb(words, used);
    words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(used));
    std::string help;
    return read_flags(*verb, words, help).code();
  };
  EXPECT_EQ(read({"leave", ""}), Err::kInvalidArgument);
  EXPECT_EQ(read({"inbox", "flush", "--mesh", ""}), Err::kInvalidArgument);
  EXPECT_EQ(read({"state", "get", ""}), Err::kInvalidArgument);
  EXPECT_EQ(read({"send", "bob", ""}), Err::kInvalidArgument);
  EXPECT_EQ(read({"send", "bob", "", "x"}), Err::kOk);
  EXPECT_EQ(read({"state", "set", "k", ""}), Err::kOk);
  EXPECT_EQ(read({"profile", "--title", ""}), Err::kOk);
  EXPECT_EQ(read({"profile", "--role-tag", ""}), Err::kOk);
  EXPECT_EQ(read({"profile", "--name", ""}), Err::kInvalidArgument);
  EXPECT_EQ(read({"summary", ""}), Err::kOk);
}

TEST(Typed, the_end_of_a_short_link_is_told_from_a_link_and_a_token) {
  for (const char* code : {"abcdef", "abcdefghij12", "ABCDEFGHIJKLMNOPQRST"}) {
    EXPECT_TRUE(is_short_code(code)) << code;
  }
  for (const char* other :
       {"", "abc", "abcdef-hij12", "https://h/i/abcdefgh", "ABCDEFGHIJKLMNOPQRSTU"}) {
    EXPECT_FALSE(is_short_code(other)) << other;
  }
}

TEST(Typed, the_remedy_of_a_link_is_for_what_waiting_does_not_mend) {
  EXPECT_NE(link_remedy("the broker answered 404 to the WebSocket handshake").find("/ws"),
            std::string_view::npos);
  EXPECT_TRUE(link_remedy("the broker answered 503 to the WebSocket handshake").empty());
  EXPECT_TRUE(link_remedy("").empty());
}

}  // namespace
}  // namespace cm::cli
