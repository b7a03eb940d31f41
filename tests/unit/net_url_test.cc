// net_url_test.cc — URLs, query parameters and UTF-8.
// Holds:  tables of what is accepted and what is refused.
// Not:    name resolution.
#include <gtest/gtest.h>

#include <string>

#include "core/base/utf8.h"
#include "core/net/url.h"

namespace cm::net {
namespace {

TEST(Url, parts_of_accepted_forms) {
  struct Row {
    const char* text;
    Scheme scheme;
    const char* host;
    int port;
    const char* target;
    bool ipv6;
  };
  for (const Row& row : {
           Row{"ws://a", Scheme::kWs, "a", 80, "/", false},
           Row{"wss://ic.example.com/ws", Scheme::kWss, "ic.example.com", 443, "/ws", false},
           Row{"http://127.0.0.1:7900/v1/x?y=%41", Scheme::kHttp, "127.0.0.1", 7900, "/v1/x?y=%41",
               false},
           Row{"https://[::1]:65535/", Scheme::kHttps, "::1", 65535, "/", true},
           Row{"ws://[fe80::1]/ws", Scheme::kWs, "fe80::1", 80, "/ws", true},
           Row{"unix:/run/cm.sock", Scheme::kUnix, "/run/cm.sock", 0, "/", false},
           Row{"unix:///run/cm.sock", Scheme::kUnix, "/run/cm.sock", 0, "/", false},
       }) {
    const auto url = url_parse(row.text);
    ASSERT_TRUE(url) << row.text;
    EXPECT_EQ(url->scheme, row.scheme) << row.text;
    EXPECT_EQ(url->host, row.host) << row.text;
    EXPECT_EQ(url->port, row.port) << row.text;
    EXPECT_EQ(url->target, row.target) << row.text;
    EXPECT_EQ(url->ipv6, row.ipv6) << row.text;
  }
}

TEST(Url, refused_forms) {
  const std::string endless = "http://a/" + std::string(2100, 'a');
  for (const char* text : {"",
                           "a",
                           "a.b:80",
                           "ftp://a",
                           "WS://a",
                           "ws:/a",
                           "ws://",
                           "ws:///ws",
                           "ws://a:",
                           "ws://a:0",
                           "ws://a:65536",
                           "ws://a:080",
                           "ws://a:8x",
                           "ws://a:-1",
                           "ws://u@a",
                           "ws://u:p@a/",
                           "ws://a#f",
                           "ws://a b",
                           "ws://a\r\n",
                           "ws://a\x01",
                           "ws://\xc3\xa9",
                           "ws://a?x",
                           "ws://.a",
                           "ws://-a",
                           "ws://a..b",
                           "ws://a%41",
                           "ws://[::1",
                           "ws://[]",
                           "ws://[::g]",
                           "ws://[::1]x",
                           "ws://[127.0.0.1]",
                           "ws://::1",
                           "unix:",
                           "unix:relative",
                           "unix://host/path",
                           "unix:/",
                           endless.c_str()}) {
    EXPECT_FALSE(url_parse(text)) << text;
  }
}

TEST(Url, host_header_leaves_default_ports_out) {
  ScratchArena arena;
  const auto host = [&](const char* text) {
    TextBuf out(arena);
    url_append_host(out, *url_parse(text));
    return std::string(out.view());
  };
  EXPECT_EQ(host("ws://a:80/"), "a");
  EXPECT_EQ(host("wss://a:80/"), "a:80");
  EXPECT_EQ(host("http://[::1]:81/"), "[::1]:81");
  EXPECT_EQ(host("unix:/x"), "localhost");
}

TEST(Utf8, well_formed_and_ill_formed_sequences) {
  for (const char* text : {"", "plain ascii of some length", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80",
                           "\xf4\x8f\xbf\xbf", "12345678\xe2\x82\xac"}) {
    EXPECT_TRUE(utf8_valid(text)) << text;
  }
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x20", "\xe0\x9f\xbf", "\xe2\x82",
        "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "\xfe", "1234567\xe2\x82", "12345678\x80"}) {
    EXPECT_FALSE(utf8_valid(text)) << text;
  }
}

TEST(Utf8, a_bad_byte_is_found_at_every_offset) {
  for (std::size_t at = 0; at < 80; ++at) {
    std::string text(80, 'a');
    text[at] = '\x80';
    EXPECT_FALSE(utf8_valid(text)) << at;
  }
  EXPECT_TRUE(utf8_valid(std::string(80, 'a')));
}

TEST(Utf8, prefix_ends_between_characters) {
  EXPECT_EQ(utf8_prefix("ab\xe2\x82\xac", 5), "ab\xe2\x82\xac");
  EXPECT_EQ(utf8_prefix("ab\xe2\x82\xac", 4), "ab");
  EXPECT_EQ(utf8_prefix("ab\xe2\x82\xac", 2), "ab");
  EXPECT_EQ(utf8_prefix("abc", 2), "ab");
  EXPECT_EQ(utf8_prefix("abc", 0), "");
}

}  // namespace
}  // namespace cm::net
