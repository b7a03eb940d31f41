// ws_broker_fixture.h — ws_broker.so through the Host, against core/net's Server as its broker.
// Owns:   WsBroker (the gtest fixture) of ws_broker_test.cc and ws_broker_tls_test.cc.
// Holds:  one thread, one loop, real sockets on loopback; every time is injected.
// Not:    the tests.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/net/server.h"
#include "tests/unit/plugin_host_fixture.h"

namespace cm::plugins {

// A broker made of the real Server, which runs within the host's iteration.
class WsBroker : public PluginRig {
 protected:
  WsBroker() {
    server_options_.connections_max = 64;
    server_options_.websockets = true;
    install("transports/ws_broker.so", "ws_broker.so");
    before_collect_ = [this] {
      if (server_) server_->collect(false);
    };
    after_collect_ = [this] {
      if (server_) serve();
    };
    before_end_ = [this] {
      if (!server_) return;
      server_->flush();
      server_->end_iteration();
    };
  }
  ~WsBroker() override {
    host_.reset();
    server_.reset();
  }

  void start_server(std::uint16_t port = 0) {
    server_ = std::make_unique<net::Server>(*loop_, server_options_, scratch_, buffers_);
    if (tls_) server_->set_tls(std::move(*std::exchange(tls_, std::nullopt)));
    Result<std::uint16_t> bound =
        secure_ ? server_->listen_tls("127.0.0.1", port) : server_->listen_tcp("127.0.0.1", port);
    ASSERT_TRUE(bound) << bound.error().detail;
    port_ = *bound;
  }
  void serve() {
    server_->tick(server_now_);
    for (const net::NetEvent& event : server_->events()) {
      switch (event.kind) {
        case net::NetEventKind::kWsOpen:
          conn_ = event.conn;
          ++opened_;
          server_->ws_set_frame_limit(conn_, 16 << 20);
          break;
        case net::NetEventKind::kWsMessage:
          received_.emplace_back(event.payload);
          if (echo_) server_->ws_send(event.conn, event.payload);
          break;
        case net::NetEventKind::kWsClosed:
          closed_.push_back({event.code, std::string(event.payload)});
          break;
        default: break;
      }
    }
  }
  std::string url(std::string_view host = "127.0.0.1") const {
    return (secure_ ? "wss://" : "ws://") + std::string(host) + ":" + std::to_string(port_) + "/ws";
  }
  HostPeer connected() {
    start_server();
    load();
    const HostPeer peer = open("ws-broker", url());
    until([&] { return states(peer, CM_PEER_CONNECTED) == 1; });
    until([&] { return opened_ == 1; });
    return peer;
  }
  void send(HostPeer peer, std::string_view frame) {
    effects_.push_back(
        [this, peer, text = std::string(frame)] { host_->send(peer, CM_FRAME_CONTROL, text); });
  }

  struct Closed {
    std::uint16_t code;
    std::string reason;
  };
  net::ServerOptions server_options_;
  bool secure_ = false;  // start_server() with `tls_`
  std::optional<net::TlsContext> tls_;
  BufferPool buffers_;
  std::unique_ptr<net::Server> server_;
  std::uint64_t server_now_ = 1'000'000;
  std::uint16_t port_ = 0;
  ConnRef conn_;
  int opened_ = 0;
  bool echo_ = false;
  std::vector<std::string> received_;
  std::vector<Closed> closed_;
};

}  // namespace cm::plugins
