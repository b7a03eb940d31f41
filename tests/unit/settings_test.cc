// settings_test.cc — the daemon's settings: their order, what is refused, where a daemon runs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "cli/daemon_setup.h"
#include "cli/place.h"
#include "cli/settings.h"

namespace cm::cli {
namespace {

Lookup environment_of(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> const char* {
    const auto found = values.find(name);
    return found == values.end() ? nullptr : found->second.c_str();
  };
}

Status read_text(std::string_view toml, Settings& settings) {
  return read_settings_text(toml, "/c/config.toml", settings);
}

void set_flag(FlagValues& flags, Setting setting, std::string text) {
  flags.values[static_cast<std::size_t>(setting)] = std::move(text);
}

TEST(Settings, flag_stands_above_environment_above_file_above_place_above_default) {
  Settings settings = default_settings({});
  EXPECT_EQ(settings.text(Setting::kTcp), "true");
  EXPECT_EQ(settings.at(Setting::kTcp).origin, Origin::kDefault);
  settings = default_settings({Place::kCi, "CI=true"});
  EXPECT_EQ(settings.text(Setting::kTcp), "false");
  EXPECT_EQ(settings.at(Setting::kTcp).origin, Origin::kPlace);
  EXPECT_EQ(settings.at(Setting::kTcp).where, "CI=true");
  ASSERT_TRUE(read_text("\n[ipc]\ntcp = true\n", settings));
  EXPECT_EQ(settings.text(Setting::kTcp), "true");
  EXPECT_EQ(settings.at(Setting::kTcp).where, "/c/config.toml:3");
  ASSERT_TRUE(read_settings_environment(environment_of({{"CLAUDEMESH_TCP", "0"}}), settings));
  EXPECT_EQ(settings.text(Setting::kTcp), "false");
  EXPECT_EQ(settings.at(Setting::kTcp).where, "CLAUDEMESH_TCP");
  FlagValues flags;
  set_flag(flags, Setting::kTcp, "true");
  ASSERT_TRUE(read_settings_flags(flags, settings));
  EXPECT_EQ(settings.text(Setting::kTcp), "true");
  EXPECT_EQ(settings.at(Setting::kTcp).origin, Origin::kFlag);
}

TEST(Settings, every_setting_can_be_written_in_the_file_and_has_a_checked_default) {
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const auto setting = static_cast<Setting>(index);
    const SettingInfo& info = info_of(setting);
    std::string value(info.fallback);
    if (!value.empty()) {
      EXPECT_EQ(check_setting(setting, value), value) << name_of(setting);
    }
    if (value.empty()) {
      value = info.type == SettingType::kPath      ? "/x"
              : info.type == SettingType::kOrigins ? "http://x"
              : info.type == SettingType::kSwitch  ? "true"
                                                   : std::to_string(info.least);
    }
    const bool bare = info.type == SettingType::kSwitch || info.type == SettingType::kNumber;
    std::string toml = "[" + std::string(info.section) + "]\n" + std::string(info.key) + " = ";
    toml += bare ? value : "\"" + value + "\"";
    Settings settings = default_settings({});
    const Status read = read_text(toml, settings);
    ASSERT_TRUE(read) << read.error().detail;
    EXPECT_EQ(settings.text(setting), value) << name_of(setting);
    EXPECT_EQ(settings.at(setting).origin, Origin::kFile);
  }
}

struct BadText {
  const char* what;
  std::string toml;
  const char* line;                // "2"
  std::vector<const char*> names;  // the key, the expectation
};

std::string nested(std::size_t levels) {
  return "[ipc]\ntcp_port = " + std::string(levels, '[') + std::string(levels, ']') + "\n";
}

TEST(Settings, a_bad_file_names_file_line_key_and_expectation_and_changes_nothing) {
  const BadText table[] = {
      {"text for a number", "[ipc]\ntcp_port = \"80\"", "2", {"tcp_port", "whole number", "'80'"}},
      {"number for a switch", "[ipc]\ntcp = 1", "2", {"tcp", "true or false", "number 1"}},
      {"text for a switch", "[ipc]\ntcp = \"true\"", "2", {"tcp", "true or false"}},
      {"switch for a word", "[daemon]\ndurability = true", "2", {"durability", "sync or relaxed"}},
      {"fraction", "[ipc]\ntcp_port = 80.5", "2", {"tcp_port", "fraction"}},
      {"infinity", "[ipc]\ntcp_port = inf", "2", {"tcp_port", "whole number"}},
      {"date", "[ipc]\ntcp_port = 2026-01-01", "2", {"tcp_port", "date"}},
      {"list", "[ipc]\n\ntcp_port = [1]", "3", {"tcp_port", "a list"}},
      {"table for a value", "[ipc.tcp_port]\na = 1", "1", {"tcp_port", "a table"}},
      {"value for a section", "ipc = 1", "1", {"section [ipc]", "number 1"}},
      {"list of sections", "[[ipc]]\ntcp = true", "1", {"section [ipc]", "a list"}},
      {"unknown word", "[daemon]\ndurability = \"maybe\"", "2", {"sync or relaxed", "'maybe'"}},
      {"too large", "[ipc]\ntcp_port = 65536", "2", {"tcp_port", "65535", "65536"}},
      {"negative", "[ipc]\ntcp_port = -1", "2", {"tcp_port", "0 to 65535"}},
      {"huge number", "[ipc]\ntcp_port = 99999999999999999999", "2", {"expected TOML"}},
      {"unknown section", "[ipx]\ntcp = true", "1", {"'ipx'", "[ipc]"}},
      {"unknown key", "[ipc]\ntcp_prot = 1", "2", {"'tcp_prot'", "tcp_port"}},
      {"empty key", "[ipc]\n\"\" = 1", "2", {"''", "tcp_port"}},
      {"duplicate key", "[ipc]\ntcp = true\ntcp = false", "3", {"expected TOML", "tcp"}},
      {"duplicate section", "[ipc]\n[daemon]\n[ipc]", "3", {"expected TOML", "ipc"}},
      {"not UTF-8", "[daemon]\nlog_file = \"/\xff\"", "2", {"expected TOML"}},
      {"surrogate", "[daemon]\nlog_file = \"\\ud800\"", "2", {"expected TOML"}},
      {"NUL escape", "[daemon]\nlog_file = \"/a\\u0000\"", "2", {"log_file", "path"}},
      {"relative path", "[daemon]\nlog_file = \"a.log\"", "2", {"log_file", "begins with /"}},
      {"long path",
       "[daemon]\nlog_file = \"/" + std::string(4'096, 'a') + "\"",
       "2",
       {"log_file", "4095", "4097 bytes"}},
      {"no address", "[ipc]\nhttp_bind = \"localhost\"", "2", {"http_bind", "IPv4 or IPv6"}},
      {"terminal control",
       "[ipc]\nhttp_bind = \"\\u001b[31m\"",
       "2",
       {"http_bind", "IPv4 or IPv6"}},
      {"truncated text", "[daemon]\nlog_file = \"/var", "2", {"expected TOML"}},
      {"truncated section", "[ipc]\ntcp = true\n[daem", "3", {"expected TOML"}},
      {"truncated assignment", "[ipc]\ntcp =", "2", {"expected TOML"}},
      {"deep lists", nested(200), "2", {"tcp_port", "a list"}},
      {"deeper lists than are parsed", nested(30'000), "2", {"expected TOML"}},
      {"unknown limit", "[limits]\nrate = 1", "2", {"[limits]", "'rate'"}},
      {"zero limit", "[limits]\nmeshes_max = 0", "2", {"meshes_max", "from 1"}},
      {"wide limit", "[limits]\nmeshes_max = 4294967296", "2", {"meshes_max", "4294967295"}},
      {"negative limit", "[limits]\nmeshes_max = -1", "2", {"meshes_max", "not negative"}},
      {"text for a limit", "[limits]\nmeshes_max = \"9\"", "2", {"meshes_max", "whole number"}},
  };
  for (const BadText& bad : table) {
    Settings settings = default_settings({});
    const Status read = read_text("features.legacy_broker = \"refuse\"\n\n" + bad.toml, settings);
    ASSERT_FALSE(read) << bad.what;
    EXPECT_EQ(read.code(), Err::kMalformed) << bad.what;
    const std::string& detail = read.error().detail;
    const std::string place = "/c/config.toml:" + std::to_string(std::stoi(bad.line) + 2) + ": ";
    EXPECT_EQ(detail.substr(0, place.size()), place) << bad.what << ": " << detail;
    for (const char* name : bad.names) {
      EXPECT_NE(detail.find(name), std::string::npos) << bad.what << ": " << detail;
    }
    EXPECT_EQ(detail.find('\x1b'), std::string::npos) << bad.what;
    EXPECT_LT(detail.size(), 600u) << bad.what;
    EXPECT_EQ(settings.text(Setting::kLegacyBroker), "allow") << bad.what;
  }
  Settings settings = default_settings({});
  EXPECT_FALSE(read_text(std::string_view("[ipc]\0", 6), settings));
}

TEST(Settings, every_prefix_of_a_file_is_read_or_refused_as_a_whole) {
  const std::string toml =
      "[daemon]\ndurability = \"relaxed\"\n[ipc]\ntcp_port = 4000\n[limits]\nmeshes_max = 9\n";
  for (std::size_t size = 0; size <= toml.size(); ++size) {
    Settings settings = default_settings({});
    const Status read = read_text(toml.substr(0, size), settings);
    if (read) continue;
    EXPECT_EQ(read.code(), Err::kMalformed);
    EXPECT_EQ(settings.text(Setting::kDurability), "sync");
    EXPECT_TRUE(settings.limits.empty());
  }
}

TEST(Settings, variables_are_checked_and_an_empty_one_is_none) {
  Settings settings = default_settings({});
  ASSERT_TRUE(read_settings_environment(environment_of({{"CLAUDEMESH_TCP_PORT", ""}}), settings));
  EXPECT_EQ(settings.at(Setting::kTcpPort).origin, Origin::kDefault);
  for (const char* bad : {"x", "1x", " 1", "-1", "65536", "99999999999999999999"}) {
    const Status read =
        read_settings_environment(environment_of({{"CLAUDEMESH_TCP_PORT", bad}}), settings);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.code(), Err::kInvalidArgument);
    EXPECT_TRUE(read.error().detail.starts_with("CLAUDEMESH_TCP_PORT: expected")) << bad;
  }
  EXPECT_EQ(settings.text(Setting::kTcpPort), "47823");
}

TEST(Settings, a_limit_of_a_flag_replaces_that_of_the_file) {
  Settings settings = default_settings({});
  ASSERT_TRUE(read_text("[limits]\nmeshes_max = 3\nrate_per_minute = 0\n", settings));
  FlagValues flags;
  flags.limits = {"meshes_max=4", "meshes_max=5"};
  ASSERT_TRUE(read_settings_flags(flags, settings));
  Limits limits;
  settings.apply_limits(limits);
  EXPECT_EQ(limits.meshes_max, 5u);
  EXPECT_EQ(limits.rate_per_minute, 0u);
  EXPECT_EQ(settings.limits.size(), 2u);
  flags.limits = {"meshes_max=0"};
  EXPECT_EQ(read_settings_flags(flags, settings).code(), Err::kUsage);
}

TEST(Settings, a_named_port_means_tcp_unless_something_stronger_says_no) {
  Settings settings = default_settings({Place::kCi, "CI=true"});
  ASSERT_TRUE(read_text("[ipc]\ntcp_port = 4000\n", settings));
  ASSERT_TRUE(settle_settings(settings));
  EXPECT_EQ(settings.text(Setting::kTcp), "true");
  settings = default_settings({});
  ASSERT_TRUE(read_text("[ipc]\ntcp_port = 4000\ntcp = false\n", settings));
  ASSERT_TRUE(settle_settings(settings));
  EXPECT_EQ(settings.text(Setting::kTcp), "false");
}

TEST(Settings, an_address_that_is_open_to_others_needs_a_second_word) {
  for (const char* closed : {"127.0.0.1", "::1"}) {
    Settings settings = default_settings({});
    ASSERT_TRUE(read_text("[ipc]\nhttp_bind = \"" + std::string(closed) + "\"\n", settings));
    EXPECT_TRUE(settle_settings(settings)) << closed;
  }
  Settings settings = default_settings({});
  ASSERT_TRUE(read_text("[ipc]\nhttp_bind = \"0.0.0.0\"\n", settings));
  const Status open = settle_settings(settings);
  EXPECT_EQ(open.code(), Err::kForbidden);
  EXPECT_TRUE(open.error().detail.starts_with("/c/config.toml:2: ")) << open.error().detail;
  ASSERT_TRUE(read_text("[ipc]\nhttp_external_auth = true\n", settings));
  EXPECT_TRUE(settle_settings(settings));
}

TEST(Settings, limits_that_exceed_the_memory_budget_are_refused) {
  Settings settings = default_settings({});
  ASSERT_TRUE(read_text("[limits]\nmemory_budget_bytes = 1000\n", settings));
  const Status settled = settle_settings(settings);
  EXPECT_EQ(settled.code(), Err::kInvalidArgument);
  EXPECT_NE(settled.error().detail.find("memory_budget_bytes"), std::string::npos);
}

TEST(Settings, an_age_of_the_outbox_that_no_window_allows_is_refused_before_the_start) {
  for (const auto& [hours, good] : {std::pair("8759", true), std::pair("8760", false)}) {
    Settings settings = default_settings({});
    ASSERT_TRUE(read_text("[outbox]\nmax_age_hours = " + std::string(hours), settings));
    const Status settled = settle_settings(settings);
    EXPECT_EQ(static_cast<bool>(settled), good) << hours;
    if (good) continue;
    EXPECT_NE(settled.error().detail.find("outbox_max_age_above_dedupe_window"), std::string::npos);
    EXPECT_NE(settled.error().detail.find(":2"), std::string::npos) << settled.error().detail;
  }
}

TEST(Settings, what_waits_for_a_restart_is_named_and_what_reloads_is_not) {
  const Settings running = default_settings({});
  Settings wanted = running;
  EXPECT_TRUE(waiting_for_restart(running, wanted).empty());
  ASSERT_TRUE(read_text("[ipc]\npublic_health = true\ntcp_port = 4000\n[limits]\nmeshes_max = 3\n",
                        wanted));
  const std::vector<std::string> both = {"ipc.tcp_port", "limits.meshes_max"};
  EXPECT_EQ(waiting_for_restart(running, wanted), both);
  EXPECT_EQ(waiting_for_restart(wanted, running), both);
}

TEST(Settings, flags_survive_as_words_of_another_command_line) {
  FlagValues flags;
  set_flag(flags, Setting::kTcp, "false");
  set_flag(flags, Setting::kLogFile, "/a b.log");
  flags.limits = {"meshes_max=3"};
  EXPECT_EQ(flags.words(),
            (std::vector<std::string>{"--log-file=/a b.log", "--no-tcp", "--limit=meshes_max=3"}));
}

// --- the file itself ---

class SettingsFile : public ::testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/cm-settings-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    directory = path;
    ::setenv("CLAUDEMESH_CONFIG_DIR", path, 1);
  }
  void TearDown() override {
    ::unsetenv("CLAUDEMESH_CONFIG_DIR");
    std::filesystem::remove_all(directory);
  }
  std::string file() { return directory + "/config.toml"; }
  void write(const std::string& path, std::string_view text, mode_t mode = 0644) {
    std::ofstream(path, std::ios::binary) << text;
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }
  void expect_refused(Err code) {
    const auto settings = load_settings({});
    ASSERT_FALSE(settings);
    EXPECT_EQ(settings.code(), code) << settings.error().detail;
    EXPECT_TRUE(settings.error().detail.starts_with(file() + ":")) << settings.error().detail;
    EXPECT_NE(settings.error().detail.find("expected"), std::string::npos);
  }

  std::string directory;
};

constexpr const char* kRelaxed = "[daemon]\ndurability = \"relaxed\"\n";

TEST_F(SettingsFile, no_file_means_defaults_and_others_may_read_one) {
  ASSERT_TRUE(load_settings({}));
  EXPECT_EQ(load_settings({})->text(Setting::kDurability), "sync");
  for (const mode_t mode : {0400, 0600, 0640, 0644}) {
    write(file(), kRelaxed, mode);
    const auto settings = load_settings({});
    ASSERT_TRUE(settings) << settings.error().detail;
    EXPECT_EQ(settings->text(Setting::kDurability), "relaxed");
    std::filesystem::remove(file());
  }
}

TEST_F(SettingsFile, what_others_may_write_is_refused) {
  for (const mode_t mode : {0620, 0602, 0666, 0777}) {
    write(file(), kRelaxed, mode);
    expect_refused(Err::kUnsafeMode);
  }
}

TEST_F(SettingsFile, a_file_of_another_user_is_refused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  write(file(), kRelaxed, 0600);
  ASSERT_EQ(::chown(file().c_str(), 12'345, 12'345), 0);
  expect_refused(Err::kUnsafeMode);
}

TEST_F(SettingsFile, a_folder_or_a_pipe_is_refused_without_waiting) {
  ASSERT_EQ(::mkdir(file().c_str(), 0700), 0);
  expect_refused(Err::kUnsafeMode);
  std::filesystem::remove(file());
  ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
  expect_refused(Err::kUnsafeMode);
}

TEST_F(SettingsFile, a_link_is_judged_by_where_it_leads) {
  const std::string target = directory + "/other.toml";
  ASSERT_EQ(::symlink(target.c_str(), file().c_str()), 0);
  expect_refused(Err::kIo);
  write(target, kRelaxed, 0644);
  ASSERT_TRUE(load_settings({}));
  EXPECT_EQ(load_settings({})->text(Setting::kDurability), "relaxed");
  ASSERT_EQ(::chmod(target.c_str(), 0646), 0);
  expect_refused(Err::kUnsafeMode);
  std::filesystem::remove(file());
  ASSERT_EQ(::symlink(file().c_str(), file().c_str()), 0);
  expect_refused(Err::kIo);
}

TEST_F(SettingsFile, a_file_that_is_too_long_is_refused) {
  write(file(), std::string(64 << 10, '\n'));
  EXPECT_TRUE(load_settings({}));
  write(file(), std::string((64 << 10) + 1, '\n'));
  expect_refused(Err::kTooBig);
}

// --- where a daemon runs ---

TEST(Place, is_known_by_its_marks) {
  const auto place = [](std::map<std::string, std::string> values, bool dockerenv = false,
                        std::string_view cgroup = {}) {
    return place_of(environment_of(std::move(values)), dockerenv, cgroup).place;
  };
  EXPECT_EQ(place({}), Place::kMachine);
  EXPECT_EQ(place({{"CI", ""}}), Place::kMachine);
  EXPECT_EQ(place({{"CI", "false"}}), Place::kMachine);
  EXPECT_EQ(place({{"CI", "true"}}), Place::kCi);
  EXPECT_EQ(place({{"CI", "1"}}), Place::kCi);
  for (const char* name : {"GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL",
                           "KUBERNETES_SERVICE_HOST"}) {
    EXPECT_EQ(place({{name, "x"}}), Place::kCi) << name;
  }
  EXPECT_EQ(place({{"RUNPOD_POD_ID", "x"}}), Place::kMachine);
  EXPECT_EQ(place({{"CONTAINER", "1"}}), Place::kContainer);
  EXPECT_EQ(place({{"CONTAINER", "podman"}}), Place::kMachine);
  EXPECT_EQ(place({}, true), Place::kContainer);
  EXPECT_EQ(place({}, false, "0::/kubepods/x"), Place::kContainer);
  EXPECT_EQ(place({}, false, "1:name=systemd:/docker/x"), Place::kContainer);
  EXPECT_EQ(place({}, false, "0::/system.slice/containerd.service"), Place::kContainer);
  EXPECT_EQ(place({}, false, "0::/init.scope"), Place::kMachine);
  EXPECT_EQ(place({{"CI", "true"}}, true), Place::kCi);
}

TEST(Place, only_a_machine_listens_on_tcp_and_only_a_ci_job_forgets_its_host) {
  EXPECT_TRUE(defaults_of(Place::kMachine).tcp);
  EXPECT_FALSE(defaults_of(Place::kContainer).tcp);
  EXPECT_FALSE(defaults_of(Place::kCi).tcp);
  EXPECT_TRUE(defaults_of(Place::kMachine).keeps_host_identity);
  EXPECT_FALSE(defaults_of(Place::kCi).keeps_host_identity);
}

TEST(Settings, origins_are_a_list_in_the_form_in_which_browsers_write_them) {
  const auto good = [](const std::string& text) {
    return check_setting(Setting::kAllowedOrigins, text).has_value();
  };
  for (const char* text : {"", "http://localhost:3000", "https://a.example http://[::1]:80"}) {
    EXPECT_TRUE(good(text)) << text;
  }
  for (const char* text : {"*", "null", "localhost:3000", "http://", "http://A", "http://a/",
                           "http://a,http://b", "http://a\nb", "ftp://a", "http://a?b"}) {
    EXPECT_FALSE(good(text)) << text;
  }
  std::string many;
  for (int count = 0; count < 17; ++count) many += "http://a ";
  EXPECT_FALSE(good(many));
  EXPECT_FALSE(good("http://" + std::string(300, 'a')));
  EXPECT_EQ(words_of("  a  bc "), (std::vector<std::string>{"a", "bc"}));
  EXPECT_TRUE(words_of(" ").empty());
}

TEST(ListenTcp, a_taken_port_that_nobody_asked_for_leaves_the_socket_alone) {
  const auto loop = std::move(net::Loop::create(1'000'000).value());
  ScratchArena scratch;
  BufferPool pool;
  net::ServerOptions options;
  options.connections_max = 4;
  net::Server other(*loop, options, scratch, pool);
  const Result<std::uint16_t> taken = other.listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(taken);
  net::Server server(*loop, options, scratch, pool);
  Settings settings = default_settings({});
  SettingValue& port = settings.values[static_cast<std::size_t>(Setting::kTcpPort)];
  port.text = std::to_string(*taken);
  std::string shown, skipped;
  EXPECT_TRUE(listen_tcp(server, settings, shown, skipped));
  EXPECT_TRUE(shown.empty());
  EXPECT_NE(skipped.find(port.text), std::string::npos) << skipped;
  port.origin = Origin::kFile;
  skipped.clear();
  EXPECT_EQ(listen_tcp(server, settings, shown, skipped).code(), Err::kPortInUse) << "asked for";
  port.origin = Origin::kDefault;
  settings.values[static_cast<std::size_t>(Setting::kTcp)].origin = Origin::kFlag;
  EXPECT_EQ(listen_tcp(server, settings, shown, skipped).code(), Err::kPortInUse) << "asked for";
  EXPECT_TRUE(skipped.empty());
}

}  // namespace
}  // namespace cm::cli
