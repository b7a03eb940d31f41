// tls_fixture.h — a CA and certificates made at test time, and a byte path that a test drips.
// Owns:   TestCa, TestPipe, TestEnd.
// Holds:  every file lives in a folder of its own, which goes with the TestCa.
// Not:    the tests.
#pragma once

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "core/net/tls.h"

namespace cm::net {

class TestCa {
 public:
  // What a certificate says. `from_s` and `to_s` are seconds from now.
  struct Wish {
    std::string names = "DNS:broker.test,DNS:localhost,IP:127.0.0.1,IP:::1";
    long from_s = -3600;
    long to_s = 3600;
    bool rsa = false;
  };
  struct Files {
    std::string certificate;
    std::string key;
  };

  explicit TestCa(const std::string& name = "CA") : key_(make_key(false)) {
    char folder[] = "/tmp/tls_test.XXXXXX";
    folder_ = ::mkdtemp(folder);
    certificate_ = make(name, key_, nullptr, {"", -3600, 36000, false});
    file_ = folder_ + "/ca.pem";
    write_certificate(file_, certificate_);
  }
  ~TestCa() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
    std::filesystem::remove_all(folder_);
  }
  TestCa(const TestCa&) = delete;
  TestCa& operator=(const TestCa&) = delete;

  const std::string& file() const { return file_; }
  const std::string& folder() const { return folder_; }

  // Writes <name>.pem and <name>.key (0600).
  Files issue(const std::string& name, const Wish& wish) {
    EVP_PKEY* key = make_key(wish.rsa);
    X509* certificate = make(name, key, certificate_, wish);
    const Files files{folder_ + "/" + name + ".pem", folder_ + "/" + name + ".key"};
    write_certificate(files.certificate, certificate);
    FILE* out = std::fopen(files.key.c_str(), "w");
    PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(out);
    ::chmod(files.key.c_str(), 0600);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return files;
  }
  Files issue(const std::string& name) { return issue(name, Wish{}); }

  TlsContext server(const std::string& name, const Wish& wish) {
    const Files files = issue(name, wish);
    Result<TlsContext> made = TlsContext::server(files.certificate, files.key);
    EXPECT_TRUE(made) << made.error().detail;
    return std::move(*made);
  }
  TlsContext server() { return server("server", Wish{}); }
  TlsContext client() {
    Result<TlsContext> made = TlsContext::client(file_);
    EXPECT_TRUE(made) << made.error().detail;
    return std::move(*made);
  }

 private:
  static EVP_PKEY* make_key(bool rsa) { return rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"); }
  static void write_certificate(const std::string& path, X509* certificate) {
    FILE* out = std::fopen(path.c_str(), "w");
    PEM_write_X509(out, certificate);
    std::fclose(out);
  }
  X509* make(const std::string& name, EVP_PKEY* key, X509* issuer, const Wish& wish) {
    X509* made = X509_new();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(made), wish.from_s);
    X509_gmtime_adj(X509_getm_notAfter(made), wish.to_s);
    X509_set_pubkey(made, key);
    X509_NAME* subject = X509_get_subject_name(made);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(made, issuer != nullptr ? X509_get_subject_name(issuer) : subject);
    const auto extend = [&](int kind, const std::string& value) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str());
      EXPECT_NE(extension, nullptr) << value;
      X509_add_ext(made, extension, -1);
      X509_EXTENSION_free(extension);
    };
    extend(NID_basic_constraints, issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    if (!wish.names.empty()) extend(NID_subject_alt_name, wish.names);
    X509_sign(made, issuer != nullptr ? key_ : key, EVP_sha256());
    return made;
  }

  EVP_PKEY* key_;
  X509* certificate_ = nullptr;
  std::string folder_;
  std::string file_;
  long serial_ = 0;
};

// One direction of bytes between two ends in one thread. `step` bounds what one read gets, `room`
// what may lie in it.
struct TestPipe {
  std::string bytes;
  std::size_t step = SIZE_MAX;
  std::size_t room = SIZE_MAX;
  bool ended = false;
};

struct TestEnd {
  TestPipe* in = nullptr;
  TestPipe* out = nullptr;

  static ssize_t read(void* self, MutableBytes to) {
    TestPipe& pipe = *static_cast<TestEnd*>(self)->in;
    if (pipe.bytes.empty()) {
      if (pipe.ended) return 0;
      errno = EAGAIN;
      return -1;
    }
    const std::size_t size = std::min({to.size(), pipe.bytes.size(), pipe.step});
    std::memcpy(to.data(), pipe.bytes.data(), size);
    pipe.bytes.erase(0, size);
    return static_cast<ssize_t>(size);
  }
  static ssize_t write(void* self, Bytes from) {
    TestPipe& pipe = *static_cast<TestEnd*>(self)->out;
    const std::size_t size =
        std::min(from.size(), pipe.room - std::min(pipe.room, pipe.bytes.size()));
    if (size == 0) {
      errno = EAGAIN;
      return -1;
    }
    pipe.bytes.append(reinterpret_cast<const char*>(from.data()), size);
    return static_cast<ssize_t>(size);
  }
  TlsIo io() { return {&TestEnd::read, &TestEnd::write, this}; }
};

}  // namespace cm::net
