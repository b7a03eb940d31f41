// host_identity_test.cc — the fingerprint of a machine, and what a stored one means.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "cli/files.h"
#include "cli/host_identity.h"

namespace cm::cli {
namespace {

const HostIdentity kHere = {"linux:0123456789abcdef0123456789abcdef", "00:16:3e:aa:bb:cc"};

std::string stored(int schema, const std::string& fingerprint, const std::string& host_id) {
  return R"({"schema_version":)" + std::to_string(schema) + R"(,"fingerprint":")" + fingerprint +
         R"(","host_id":")" + host_id + R"(","stable_mac":"","written_at":""})";
}

TEST(HostIdentity, the_fingerprint_separates_its_parts_by_zero_bytes) {
  // sha256("v2\0linux:a\0b") and sha256("linux:a\0b")
  const HostIdentity host = {"linux:a", "b"};
  EXPECT_EQ(host.fingerprint(), "b2754702d35b12a39aa473970545443ed16d90a25bc9810cfdd20c59f918119b");
  EXPECT_EQ(host.fingerprint_of_v1(),
            "bb298e2c543faafdd057bba7b929ce035de9e844012631a0c533011e739aff93");
  EXPECT_NE((HostIdentity{"linux:ab", ""}).fingerprint(), host.fingerprint());
}

TEST(HostIdentity, the_fingerprint_is_that_of_the_conformance_vectors) {
  // tests/conformance/vectors.json, "host_fingerprint"
  const HostIdentity host = {"linux:0123456789abcdef0123456789abcdef", "00:11:22:33:44:55"};
  EXPECT_EQ(host.fingerprint(), "757132ffeaff84259d1f3d0eb7571f17d9acbe624f73d5d881df15ae7354fe6d");
  EXPECT_EQ(host.fingerprint_of_v1(),
            "74853e96f421ef2134844a8e3fb39da1b1d03dc36ae0d0575c6c064bcad1b8b3");
}

TEST(HostIdentity, the_address_is_of_a_real_card_and_does_not_depend_on_the_order) {
  using List = std::vector<NetInterface>;
  EXPECT_EQ(stable_mac_of({}), "");
  for (const char* name :
       {"lo", "docker0", "br-1a2b", "bridge0", "veth12", "tap0", "TUN0", "tailscale0", "wg0",
        "utun3", "ppp0", "vboxnet0", "vmnet1", "awdl0", "llw0", "anpi0", "ap0"}) {
    EXPECT_EQ(stable_mac_of(List{{name, "00:16:3e:00:00:01"}}), "") << name;
  }
  for (const char* name : {"eth0", "wlan0", "enp3s0", "apple", "brx"}) {
    EXPECT_EQ(stable_mac_of(List{{name, "00:16:3e:00:00:01"}}), "00:16:3e:00:00:01") << name;
  }
  EXPECT_EQ(stable_mac_of(List{{"eth0", "00:00:00:00:00:00"}}), "");
  const List cards = {{"eth0", "02:00:00:00:00:01"},  // locally administered
                      {"wlan0", "00:16:3e:00:00:03"},
                      {"eth1", "00:16:3e:00:00:02"}};
  EXPECT_EQ(stable_mac_of(cards), "00:16:3e:00:00:02");
  EXPECT_EQ(stable_mac_of({cards.rbegin(), cards.rend()}), "00:16:3e:00:00:02");
  EXPECT_EQ(stable_mac_of(List{cards[0]}), "02:00:00:00:00:01");
}

TEST(HostIdentity, a_stored_fingerprint_means_what_the_table_says) {
  const std::string other(64, 'a');
  EXPECT_EQ(judge_host({}, kHere), HostVerdict::kFirstRun);
  EXPECT_EQ(judge_host({}, HostIdentity{}), HostVerdict::kUnavailable);
  EXPECT_EQ(judge_host(stored(2, other, "linux:x"), HostIdentity{}), HostVerdict::kUnavailable)
      << "early at boot nothing is known that could differ";
  EXPECT_EQ(judge_host(stored(2, kHere.fingerprint(), "x"), kHere), HostVerdict::kMatch);
  EXPECT_EQ(judge_host(stored(2, other, kHere.host_id), kHere), HostVerdict::kOutdated);
  EXPECT_EQ(judge_host(stored(2, other, "linux:x"), kHere), HostVerdict::kMismatch);
  EXPECT_EQ(judge_host(stored(2, other, ""), HostIdentity{"", "00:16:3e:00:00:01"}),
            HostVerdict::kMismatch)
      << "two empty host ids are not one host";
  EXPECT_EQ(judge_host(stored(1, kHere.fingerprint_of_v1(), ""), kHere), HostVerdict::kOutdated);
  EXPECT_EQ(judge_host(stored(1, kHere.fingerprint(), ""), kHere), HostVerdict::kMismatch);
  EXPECT_EQ(judge_host(stored(1, other, kHere.host_id), kHere), HostVerdict::kMismatch);
}

TEST(HostIdentity, a_file_that_is_not_understood_says_nothing) {
  const std::string good = stored(2, std::string(64, 'a'), "linux:x");
  ASSERT_EQ(judge_host(good, kHere), HostVerdict::kMismatch);
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(judge_host(good.substr(0, size), kHere), HostVerdict::kUnavailable) << size;
  }
  for (const char* text :
       {"null", "[]", "2", "{}", R"({"schema_version":2})",
        R"({"schema_version":"2","fingerprint":"a"})", R"({"schema_version":3,"fingerprint":"a"})",
        R"({"schema_version":0,"fingerprint":"a"})", R"({"schema_version":2,"fingerprint":7})",
        "{\"schema_version\":2,\"fingerprint\":\"\xff\"}"}) {
    EXPECT_EQ(judge_host(std::string(text), kHere), HostVerdict::kUnavailable) << text;
  }
}

TEST(HostIdentity, what_is_written_is_private_pretty_and_matches) {
  char path[] = "/tmp/cm-host-XXXXXX";
  ASSERT_NE(mkdtemp(path), nullptr);
  ::setenv("CLAUDEMESH_DAEMON_DIR", path, 1);
  EXPECT_EQ(check_host(kHere), HostVerdict::kFirstRun);
  ASSERT_TRUE(write_host(kHere, 1'700'000'000'000));
  EXPECT_EQ(check_host(kHere), HostVerdict::kMatch);
  struct stat info {};
  ASSERT_EQ(::stat(host_fingerprint_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  EXPECT_EQ(*read_file(host_fingerprint_path()),
            "{\n  \"schema_version\": 2,\n  \"fingerprint\": \"" + kHere.fingerprint() +
                "\",\n  \"host_id\": \"linux:0123456789abcdef0123456789abcdef\",\n"
                "  \"stable_mac\": \"00:16:3e:aa:bb:cc\",\n"
                "  \"written_at\": \"2023-11-14T22:13:20.000Z\"\n}\n");
  ASSERT_EQ(::unlink(host_fingerprint_path().c_str()), 0);
  ASSERT_EQ(::mkdir(host_fingerprint_path().c_str(), 0700), 0);
  EXPECT_EQ(check_host(kHere), HostVerdict::kUnavailable);
  ::unsetenv("CLAUDEMESH_DAEMON_DIR");
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace cm::cli
