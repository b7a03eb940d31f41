// net_tls_test.cc — TLS streams and contexts, bytes in and bytes out, no socket.
// Holds:  both ends are driven in one thread; every certificate is made here.
// Not:    TLS under the Server (net_server_tls_test.cc), in the plugin (ws_broker_tls_test.cc).
#include "tests/unit/tls_fixture.h"

namespace cm::net {
namespace {

// Two ends over two pipes.
class Tls : public ::testing::Test {
 protected:
  void start(const TlsContext& server, const TlsContext& client,
             const std::string& host = "broker.test") {
    server_ = std::make_unique<TlsStream>(server, server_end_.io());
    client_ = std::make_unique<TlsStream>(client, client_end_.io(), host);
  }
  void start() { start(ca_.server(), ca_.client()); }

  // Until both ends have an outcome or nothing moves any more.
  void shake() {
    TlsStep a = TlsStep::kWantRead;
    TlsStep b = TlsStep::kWantRead;
    const auto open = [](TlsStep step) {
      return step == TlsStep::kWantRead || step == TlsStep::kWantWrite;
    };
    for (int turns = 0; turns < 20000 && (open(a) || open(b)); ++turns) {
      if (open(b)) b = client_->handshake();
      if (open(a)) a = server_->handshake();
    }
  }
  bool both() const { return server_->established() && client_->established(); }

  static std::string read_all(TlsStream& stream, TlsStep* last = nullptr) {
    std::string text;
    std::uint8_t room[5000];
    for (;;) {
      std::size_t got = 0;
      const TlsStep step = stream.read(room, got);
      if (step != TlsStep::kOk) {
        if (last != nullptr) *last = step;
        return text;
      }
      text.append(reinterpret_cast<const char*>(room), got);
    }
  }
  // Moves all of `text` from one end to the other.
  static std::string move(TlsStream& from, TlsStream& to, std::string_view text) {
    std::string arrived;
    int stuck = 0;
    while (!text.empty() && stuck < 1000) {
      std::size_t taken = 0;
      const TlsStep step = from.write(as_bytes(text), taken);
      text.remove_prefix(taken);
      stuck = step == TlsStep::kOk ? 0 : stuck + 1;
      arrived += read_all(to);
    }
    return arrived;
  }

  TestCa ca_;
  TestPipe up_;    // client to server
  TestPipe down_;  // server to client
  TestEnd server_end_{&up_, &down_};
  TestEnd client_end_{&down_, &up_};
  std::unique_ptr<TlsStream> server_;
  std::unique_ptr<TlsStream> client_;
};

TEST_F(Tls, both_ends_agree_and_bytes_go_both_ways) {
  start();
  shake();
  ASSERT_TRUE(both()) << client_->failure() << server_->failure();
  EXPECT_EQ(client_->version(), "TLSv1.3");
  const std::string large(3 << 20, 'x');
  EXPECT_TRUE(move(*client_, *server_, large) == large);
  EXPECT_TRUE(move(*server_, *client_, large) == large);
  EXPECT_EQ(client_->peer_fingerprint().size(), 64u);
}

TEST_F(Tls, everything_works_a_byte_at_a_time_and_through_a_narrow_path) {
  up_.step = down_.step = 1;
  up_.room = down_.room = 7;
  start();
  shake();
  ASSERT_TRUE(both()) << client_->failure() << server_->failure();
  const std::string text = "0123456789 and so on, a few more bytes than one path holds";
  EXPECT_EQ(move(*client_, *server_, text), text);
  EXPECT_EQ(move(*server_, *client_, text), text);
}

TEST_F(Tls, rsa_certificates_work_too) {
  start(ca_.server("rsa", {.rsa = true}), ca_.client());
  shake();
  EXPECT_TRUE(both());
}

TEST_F(Tls, a_certificate_is_compared_with_the_name_or_address_that_was_asked_for) {
  struct Row {
    const char* host;
    const char* names;
    bool good;
  };
  int serial = 0;
  for (const Row& row :
       {Row{"broker.test", "DNS:broker.test", true}, Row{"broker.test.", "DNS:broker.test", true},
        Row{"BROKER.test", "DNS:broker.test", true}, Row{"127.0.0.1", "IP:127.0.0.1", true},
        Row{"::1", "IP:::1", true},
        Row{"a.test", "DNS:*.test", false},  // a wildcard for a whole top domain
        Row{"a.b.test", "DNS:*.b.test", true}, Row{"x.a.b.test", "DNS:*.b.test", false},
        Row{"ab.b.test", "DNS:a*.b.test", false}, Row{"evil.test", "DNS:broker.test", false},
        Row{"127.0.0.1", "DNS:127.0.0.1", false}, Row{"127.0.0.2", "IP:127.0.0.1", false},
        Row{"::2", "IP:::1", false}, Row{"localhost", "IP:127.0.0.1", false}}) {
    up_ = down_ = {};
    start(ca_.server("s" + std::to_string(++serial), {.names = row.names}), ca_.client(), row.host);
    shake();
    EXPECT_EQ(client_->established(), row.good) << row.host << " " << row.names;
    if (!row.good) {
      EXPECT_NE(client_->failure().find("for another host"), std::string::npos)
          << row.host << ": " << client_->failure();
    }
  }
}

TEST_F(Tls, a_host_without_a_name_is_never_connected_to) {
  start(ca_.server(), ca_.client(), "");
  shake();
  EXPECT_FALSE(client_->established());
  EXPECT_FALSE(client_->failure().empty());
}

TEST_F(Tls, an_unknown_ca_is_refused_with_the_way_out) {
  for (const char* name : {"CA", "another CA"}) {  // also one that only has the name of ours
    TestCa other(name);
    up_ = down_ = {};
    start(other.server(), ca_.client());
    shake();
    EXPECT_FALSE(client_->established());
    EXPECT_EQ(client_->failure(),
              "the certificate of broker.test is signed by an unknown CA: name that CA's file with "
              "--ca-file or CLAUDEMESH_CA_FILE, if you trust it");
    EXPECT_EQ(server_->failure(), "the client refuses our certificate");
  }
}

TEST_F(Tls, expired_and_future_certificates_are_refused) {
  start(ca_.server("old", {.from_s = -7200, .to_s = -3600}), ca_.client());
  shake();
  EXPECT_EQ(client_->failure(),
            "the certificate of broker.test has expired: its operator must renew it");
  up_ = down_ = {};
  start(ca_.server("young", {.from_s = 3600, .to_s = 7200}), ca_.client());
  shake();
  EXPECT_NE(client_->failure().find("not valid yet"), std::string::npos) << client_->failure();
}

// A foreign client, of OpenSSL's own defaults, that a test turns into something that we refuse.
class ForeignTls : public Tls {
 protected:
  ForeignTls() : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_security_level(context_, 0);
  }
  ~ForeignTls() override {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  void begin() {
    own_ = ca_.server();
    server_ = std::make_unique<TlsStream>(own_, server_end_.io());
    ssl_ = SSL_new(context_);
    SSL_set_connect_state(ssl_);
    in_ = BIO_new(BIO_s_mem());
    out_ = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in_, -1);
    SSL_set_bio(ssl_, in_, out_);
  }
  void exchange() {
    char room[20000];
    int got = 0;
    while ((got = BIO_read(out_, room, sizeof room)) > 0) {
      up_.bytes.append(room, static_cast<std::size_t>(got));
    }
    if (!down_.bytes.empty()) {
      BIO_write(in_, down_.bytes.data(), static_cast<int>(down_.bytes.size()));
      down_.bytes.clear();
    }
  }
  // The server's last step.
  TlsStep shake_foreign() {
    TlsStep step = TlsStep::kWantRead;
    for (int turns = 0; turns < 20; ++turns) {
      SSL_do_handshake(ssl_);
      exchange();
      step = server_->handshake();
      exchange();
    }
    return step;
  }

  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
  TlsContext own_;
};

TEST_F(ForeignTls, versions_before_1_2_are_refused) {
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    up_ = down_ = {};
    SSL_free(std::exchange(ssl_, nullptr));
    SSL_CTX_set_min_proto_version(context_, version);
    SSL_CTX_set_max_proto_version(context_, version);
    begin();
    EXPECT_EQ(shake_foreign(), TlsStep::kFailed);
    EXPECT_EQ(server_->failure(), "the other end offers no TLS version from 1.2 on");
  }
  SSL_free(std::exchange(ssl_, nullptr));
  up_ = down_ = {};
  SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
  SSL_CTX_set_max_proto_version(context_, TLS1_2_VERSION);
  begin();
  EXPECT_EQ(shake_foreign(), TlsStep::kOk);
  EXPECT_EQ(server_->version(), "TLSv1.2");
}

TEST_F(ForeignTls, weak_ciphers_are_refused) {
  SSL_CTX_set_max_proto_version(context_, TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context_, "AES128-SHA:ECDHE-ECDSA-AES128-SHA");
  begin();
  EXPECT_EQ(shake_foreign(), TlsStep::kFailed);
  EXPECT_EQ(server_->failure(), "the two ends have no cipher in common");
}

TEST_F(ForeignTls, the_only_protocol_is_http_1_1) {
  const auto offered = [&](const std::string& list) {
    up_ = down_ = {};
    SSL_free(std::exchange(ssl_, nullptr));
    SSL_CTX_set_alpn_protos(context_, reinterpret_cast<const unsigned char*>(list.data()),
                            static_cast<unsigned>(list.size()));
    begin();
    if (shake_foreign() != TlsStep::kOk) return std::string("refused");
    const unsigned char* chosen = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_, &chosen, &size);
    return std::string(reinterpret_cast<const char*>(chosen), size);
  };
  EXPECT_EQ(offered("\x02h2\x08http/1.1"), "http/1.1");
  EXPECT_EQ(offered("\x02h2"), "refused");
  EXPECT_EQ(offered(""), "");
}

TEST_F(ForeignTls, renegotiation_is_refused) {
  SSL_CTX_set_max_proto_version(context_, TLS1_2_VERSION);
  begin();
  ASSERT_EQ(shake_foreign(), TlsStep::kOk);
  ASSERT_EQ(SSL_renegotiate(ssl_), 1);
  int reason = 0;
  for (int turns = 0; turns < 10 && reason == 0; ++turns) {
    ERR_clear_error();
    SSL_do_handshake(ssl_);
    reason = ERR_GET_REASON(ERR_peek_error());
    exchange();
    EXPECT_EQ(read_all(*server_), "");
    exchange();
  }
  EXPECT_EQ(reason, SSL_R_NO_RENEGOTIATION);  // the server's alert
  EXPECT_TRUE(server_->established());
}

TEST_F(ForeignTls, no_session_can_be_resumed) {
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT);
  begin();
  ASSERT_EQ(shake_foreign(), TlsStep::kOk);
  std::size_t taken = 0;
  ASSERT_EQ(server_->write(as_bytes(std::string_view("x")), taken), TlsStep::kOk);
  exchange();
  char byte = 0;
  EXPECT_EQ(SSL_read(ssl_, &byte, 1), 1);
  EXPECT_EQ(SSL_SESSION_is_resumable(SSL_get0_session(ssl_)), 0);
}

TEST_F(ForeignTls, a_key_update_in_the_middle_is_answered) {
  begin();
  ASSERT_EQ(shake_foreign(), TlsStep::kOk);
  for (int round = 0; round < 5; ++round) {
    ASSERT_EQ(SSL_key_update(ssl_, SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(SSL_write(ssl_, "ping", 4), 4);
    exchange();
    EXPECT_EQ(read_all(*server_), "ping");
    std::size_t taken = 0;
    EXPECT_EQ(server_->write(as_bytes(std::string_view("pong")), taken), TlsStep::kOk);
    exchange();
    char room[8];
    EXPECT_EQ(SSL_read(ssl_, room, sizeof room), 4);
  }
}

TEST_F(Tls, plain_http_on_a_tls_port_is_recognised) {
  const TlsContext own = ca_.server();
  for (const char* text : {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /join HTTP/1.1\r\n\r\n"}) {
    up_ = down_ = {};
    server_ = std::make_unique<TlsStream>(own, server_end_.io());
    up_.bytes = text;
    EXPECT_EQ(server_->handshake(), TlsStep::kFailed);
    EXPECT_TRUE(server_->was_http());
    EXPECT_EQ(server_->failure(), "the client does not speak TLS");
  }
}

TEST_F(Tls, rubbish_and_silence_end_the_handshake) {
  const TlsContext own = ca_.server();
  for (const std::string& text :
       {std::string("\x00\x01\x02\x03\x04\x05\x06\x07", 8), std::string(200, '\xff'),
        std::string("\x16\x03\x01\x40\x00", 5) + std::string(0x4000, '\xff')}) {
    up_ = down_ = {};
    server_ = std::make_unique<TlsStream>(own, server_end_.io());
    up_.bytes = text;
    EXPECT_EQ(server_->handshake(), TlsStep::kFailed) << text.substr(0, 8);
    EXPECT_FALSE(server_->failure().empty());
    EXPECT_EQ(server_->handshake(), TlsStep::kFailed);
  }
  up_ = down_ = {};
  server_ = std::make_unique<TlsStream>(own, server_end_.io());
  EXPECT_EQ(server_->handshake(), TlsStep::kWantRead);
  up_.ended = true;
  EXPECT_EQ(server_->handshake(), TlsStep::kFailed);
  EXPECT_EQ(server_->failure(), "the other end hung up during the TLS handshake");
}

TEST_F(Tls, a_client_that_meets_plain_text_says_so) {
  const TlsContext own = ca_.client();
  client_ = std::make_unique<TlsStream>(own, client_end_.io(), "broker.test");
  EXPECT_EQ(client_->handshake(), TlsStep::kWantRead);
  down_.bytes = "HTTP/1.1 400 Bad Request\r\n\r\n";
  EXPECT_EQ(client_->handshake(), TlsStep::kFailed);
  EXPECT_EQ(client_->failure(),
            "the other end does not speak TLS on this port: use ws:// or another port");
}

TEST_F(Tls, an_orderly_end_is_told_from_a_cut) {
  start();
  shake();
  ASSERT_TRUE(both());
  EXPECT_EQ(server_->close(), TlsStep::kOk);
  EXPECT_EQ(server_->close(), TlsStep::kOk);
  TlsStep last = TlsStep::kOk;
  read_all(*client_, &last);
  EXPECT_EQ(last, TlsStep::kEnd);
  // The other half is still open.
  EXPECT_EQ(move(*client_, *server_, "late"), "late");
  up_.ended = true;
  read_all(*server_, &last);
  EXPECT_EQ(last, TlsStep::kCut);
}

TEST_F(Tls, a_close_that_finds_no_room_is_tried_again) {
  start();
  shake();
  ASSERT_TRUE(both());
  down_.room = 0;
  EXPECT_EQ(server_->close(), TlsStep::kWantWrite);
  down_.room = SIZE_MAX;
  EXPECT_EQ(server_->close(), TlsStep::kOk);
  TlsStep last = TlsStep::kOk;
  read_all(*client_, &last);
  EXPECT_EQ(last, TlsStep::kEnd);
}

TEST_F(Tls, altered_bytes_end_the_connection) {
  start();
  shake();
  ASSERT_TRUE(both());
  std::size_t taken = 0;
  EXPECT_EQ(client_->write(as_bytes(std::string_view("secret")), taken), TlsStep::kOk);
  EXPECT_EQ(up_.bytes.find("secret"), std::string::npos);
  up_.bytes.back() = static_cast<char>(up_.bytes.back() ^ 1);
  TlsStep last = TlsStep::kOk;
  EXPECT_EQ(read_all(*server_, &last), "");
  EXPECT_EQ(last, TlsStep::kFailed);
}

TEST_F(Tls, pending_bytes_and_held_records_are_told) {
  start();
  shake();
  ASSERT_TRUE(both());
  EXPECT_FALSE(server_->in_record());
  std::size_t taken = 0;
  client_->write(as_bytes(std::string_view("0123456789")), taken);
  const std::string record = std::exchange(up_.bytes, {});
  up_.bytes = record.substr(0, 12);
  std::uint8_t room[4];
  std::size_t got = 0;
  EXPECT_EQ(server_->read(room, got), TlsStep::kWantRead);
  EXPECT_TRUE(server_->in_record());
  EXPECT_FALSE(server_->pending());
  up_.bytes = record.substr(12);
  EXPECT_EQ(server_->read(room, got), TlsStep::kOk);
  EXPECT_TRUE(server_->pending());
  EXPECT_TRUE(server_->in_record());
  EXPECT_EQ(read_all(*server_), "456789");
  EXPECT_FALSE(server_->pending());
  EXPECT_FALSE(server_->in_record());
}

TEST_F(Tls, a_write_may_be_retried_from_another_place_with_more_behind_it) {
  start();
  shake();
  ASSERT_TRUE(both());
  down_.room = 10;
  std::string queue(100, 'a');
  std::size_t taken = 0;
  EXPECT_EQ(server_->write(as_bytes(queue), taken), TlsStep::kWantWrite);
  const std::string moved = queue + std::string(50, 'b');
  down_.room = SIZE_MAX;
  std::string arrived;
  std::string_view left = moved;
  while (!left.empty()) {
    ASSERT_EQ(server_->write(as_bytes(left), taken), TlsStep::kOk);
    left.remove_prefix(taken);
  }
  EXPECT_EQ(read_all(*client_), moved);
}

TEST_F(Tls, streams_outlive_their_context_and_new_ones_use_the_new_certificate) {
  TlsContext current = ca_.server("first", {});
  start(current, ca_.client());
  shake();
  const std::string first = client_->peer_fingerprint();
  current = ca_.server("second", {});
  EXPECT_EQ(move(*client_, *server_, "still here"), "still here");
  up_ = down_ = {};
  start(current, ca_.client());
  shake();
  ASSERT_TRUE(both());
  EXPECT_NE(client_->peer_fingerprint(), first);
}

TEST_F(Tls, keys_that_others_could_read_are_refused) {
  const TestCa::Files files = ca_.issue("mode");
  for (const mode_t mode : {0644, 0640, 0604, 0660, 0700, 0620}) {
    ::chmod(files.key.c_str(), mode);
    const auto made = TlsContext::server(files.certificate, files.key);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.code(), Err::kIo);
    EXPECT_NE(made.error().detail.find("chmod 600 " + files.key), std::string::npos);
  }
  for (const mode_t mode : {0600, 0400}) {
    ::chmod(files.key.c_str(), mode);
    EXPECT_TRUE(TlsContext::server(files.certificate, files.key)) << mode;
  }
}

TEST_F(Tls, bad_files_are_named) {
  const TestCa::Files good = ca_.issue("good");
  const TestCa::Files other = ca_.issue("other");
  const TestCa::Files rsa = ca_.issue("rsa", {.rsa = true});
  const auto detail = [](const Result<TlsContext>& made) {
    return made ? "taken" : made.error().detail;
  };
  const std::string mismatch =
      "the key in " + other.key + " is not that of the certificate in " + good.certificate;
  EXPECT_EQ(detail(TlsContext::server(good.certificate, other.key)), mismatch);
  EXPECT_NE(detail(TlsContext::server(good.certificate, rsa.key)).find("is not that of"),
            std::string::npos);
  EXPECT_EQ(detail(TlsContext::server("/nonexistent.pem", good.key)),
            "/nonexistent.pem: No such file or directory");
  EXPECT_EQ(detail(TlsContext::server(good.certificate, "/nonexistent.key")),
            "/nonexistent.key: No such file or directory");
  EXPECT_NE(detail(TlsContext::server(good.key, good.key)).find("no certificate chain"),
            std::string::npos);
  ::chmod(other.certificate.c_str(), 0600);
  EXPECT_EQ(detail(TlsContext::server(good.certificate, other.certificate)),
            other.certificate + ": no private key in PEM form");
  EXPECT_NE(detail(TlsContext::server(good.certificate, ca_.folder())).find("no regular file"),
            std::string::npos);
  EXPECT_EQ(detail(TlsContext::client("/nonexistent.pem")),
            "CA file /nonexistent.pem: No such file or directory");
  EXPECT_NE(detail(TlsContext::client(good.key)).find("no certificate in PEM form"),
            std::string::npos);
}

TEST_F(Tls, a_key_with_a_passphrase_is_refused_without_asking_for_it) {
  const TestCa::Files files = ca_.issue("locked");
  FILE* in = std::fopen(files.key.c_str(), "r");
  EVP_PKEY* key = PEM_read_PrivateKey(in, nullptr, nullptr, nullptr);
  std::fclose(in);
  FILE* out = std::fopen(files.key.c_str(), "w");
  char word[] = "word";
  PEM_write_PrivateKey(out, key, EVP_aes_128_cbc(), reinterpret_cast<unsigned char*>(word), 4,
                       nullptr, nullptr);
  std::fclose(out);
  EVP_PKEY_free(key);
  const auto made = TlsContext::server(files.certificate, files.key);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().detail.find("passphrase"), std::string::npos) << made.error().detail;
}

}  // namespace
}  // namespace cm::net
