// ws_broker_tls_test.cc — ws_broker.so over TLS: who is trusted, what a failure says, the byte
// path. Not:    TLS itself (net_tls_test.cc), the plugin without it (ws_broker_test.cc).
#include "tests/unit/tls_fixture.h"
#include "tests/unit/ws_broker_fixture.h"

namespace cm::plugins {
namespace {

class WsBrokerTls : public WsBroker {
 protected:
  WsBrokerTls() { secure_ = true; }
  void serve_as(const std::string& name, const net::TestCa::Wish& wish) {
    tls_ = ca_.server(name, wish);
    start_server();
  }
  // As the daemon hands it over: in the plugin's own section of the configuration.
  void trust(const std::string& ca_file) {
    options_.settings = {{"ws-broker", "ca_file", ca_file}};
    load();
  }
  std::string failure_at(const std::string& address) {
    const HostPeer peer = open("ws-broker", address);
    until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
    return last_detail(peer);
  }

  net::TestCa ca_;
};

TEST_F(WsBrokerTls, frames_go_both_ways_whatever_their_size) {
  serve_as("broker", {});
  trust(ca_.file());
  echo_ = true;
  for (const char* host : {"127.0.0.1", "localhost"}) {
    received_.clear();
    seen_.clear();
    const HostPeer peer = open("ws-broker", url(host));
    until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
    std::vector<std::string> expected;
    for (const std::size_t size : {0u, 5u, 16'384u, 100'000u, 3'000'000u}) {
      expected.emplace_back(size, 'x');
      send(peer, expected.back());
    }
    until([&] { return frames(peer).size() == expected.size(); });
    EXPECT_TRUE(frames(peer) == expected);
    effects_.push_back([this, peer] { host_->close(peer, 1000, "done"); });
    until([&] { return !closed_.empty(); });
    EXPECT_EQ(closed_.back().code, 1000);
    closed_.clear();
  }
}

TEST_F(WsBrokerTls, a_setting_of_the_one_peer_names_its_ca_too) {
  serve_as("broker", {});
  load();
  const HostPeer peer = open("ws-broker", url(), std::vector<Setting>{{"ca_file", ca_.file()}});
  until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
}

TEST_F(WsBrokerTls, an_unknown_ca_is_a_failure_that_says_so_and_is_logged_once) {
  serve_as("broker", {});
  const net::TestCa other;
  trust(other.file());
  const HostPeer peer = open("ws-broker", url());
  until([&] {
    g_host_now += 1'000;
    return states(peer, CM_PEER_CONNECTING) >= 4;
  });
  const std::string sentence =
      "the certificate of 127.0.0.1 is signed by an unknown CA: name that CA's file with --ca-file "
      "or CLAUDEMESH_CA_FILE, if you trust it";
  EXPECT_EQ(last_detail(peer), sentence);
  std::size_t logged = 0;
  for (std::size_t at = log_text_.find(sentence); at != std::string::npos;
       at = log_text_.find(sentence, at + 1)) {
    ++logged;
  }
  EXPECT_EQ(logged, 1u);
  EXPECT_EQ(opened_, 0);
  EXPECT_TRUE(received_.empty());
}

TEST_F(WsBrokerTls, wrong_hosts_and_expired_certificates_are_named) {
  serve_as("wrong", {.names = "DNS:elsewhere.test"});
  trust(ca_.file());
  EXPECT_EQ(failure_at(url()),
            "the certificate is for another host, not for 127.0.0.1: use the name that it carries");
  server_->set_tls(ca_.server("expired", {.from_s = -7200, .to_s = -60}));
  EXPECT_EQ(failure_at(url()),
            "the certificate of 127.0.0.1 has expired: its operator must renew it");
}

TEST_F(WsBrokerTls, a_broker_without_tls_is_named) {
  secure_ = false;
  start_server();
  secure_ = true;
  trust(ca_.file());
  EXPECT_EQ(failure_at(url()),
            "the other end does not speak TLS on this port: use ws:// or another port");
}

TEST_F(WsBrokerTls, a_handshake_that_never_ends_is_given_up_after_ten_seconds) {
  const net::Fd listener = std::move(net::listen_tcp("127.0.0.1", 0).value());
  port_ = net::bound_port(listener.get());
  trust(ca_.file());
  const HostPeer peer = open("ws-broker", url());
  net::Fd socket;
  std::string hello;
  until([&] {
    if (!socket) socket = net::Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK));
    char room[4096];
    const ssize_t got = socket ? ::recv(socket.get(), room, sizeof room, MSG_DONTWAIT) : 0;
    if (got > 0) hello.append(room, static_cast<std::size_t>(got));
    return !hello.empty();
  });
  EXPECT_EQ(hello[0], '\x16');
  g_host_now += 10'000;
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  EXPECT_EQ(last_detail(peer), "the TLS handshake with the broker did not end within 10 s");
}

TEST_F(WsBrokerTls, a_ca_file_that_was_replaced_is_read_at_the_next_attempt) {
  serve_as("broker", {});
  const net::TestCa other;
  const std::string path = ca_.folder() + "/trusted.pem";
  std::filesystem::copy_file(other.file(), path);
  trust(path);
  const HostPeer peer = open("ws-broker", url());
  until([&] { return states(peer, CM_PEER_CONNECTING) == 2; });
  std::filesystem::copy_file(ca_.file(), path, std::filesystem::copy_options::overwrite_existing);
  until([&] {
    g_host_now += 1'000;
    return states(peer, CM_PEER_CONNECTED) == 1;
  });
}

TEST_F(WsBrokerTls, a_paused_peer_reads_on_where_tls_stood) {
  serve_as("broker", {});
  options_.limits.iteration_rows_max = 3;  // the host takes three frames an iteration
  trust(ca_.file());
  const HostPeer peer = open("ws-broker", url());
  until([&] { return states(peer, CM_PEER_CONNECTED) == 1 && opened_ == 1; });
  std::vector<std::string> expected;
  for (int index = 0; index < 200; ++index) {
    expected.push_back(std::to_string(index) + std::string(500, '.'));
    server_->ws_send(conn_, expected.back());
  }
  until([&] { return frames(peer).size() == expected.size(); });
  EXPECT_TRUE(frames(peer) == expected);
}

TEST_F(WsBrokerTls, a_broker_that_goes_is_a_loss) {
  serve_as("broker", {});
  trust(ca_.file());
  const HostPeer peer = open("ws-broker", url());
  until([&] { return states(peer, CM_PEER_CONNECTED) == 1 && opened_ == 1; });
  server_.reset();
  until([&] { return states(peer, CM_PEER_CONNECTING) >= 2; });
  EXPECT_NE(last_detail(peer), "");
}

}  // namespace
}  // namespace cm::plugins
