// config_fuzz.cc — any bytes as config.toml and as config.json.
// Input:  [which u8][text]
// Holds:  what is refused names the file and changes nothing; each value that is taken has passed
//         its check; a config.json that is taken reads as the same again when it is written.
// Not:    modes of files (tests/unit/settings_test.cc), what a setting does.
#include <string>

#include "cli/config.h"
#include "cli/settings.h"
#include "core/base/check.h"
#include "fuzz/registry.h"

namespace cm::cli {
namespace {

void run_toml(std::string_view text) {
  const std::string path = "/c/config.toml";
  const Settings before = default_settings({});
  Settings settings = before;
  const Status read = read_settings_text(text, path, settings);
  if (!read) {
    CHECK(read.code() == Err::kMalformed);
    CHECK(read.error().detail.starts_with(path + ":") && read.error().detail.size() < 4'096);
    CHECK(settings.limits.empty());
  }
  for (std::size_t index = 0; index < kSettingCount; ++index) {
    const auto setting = static_cast<Setting>(index);
    const SettingValue& value = settings.at(setting);
    if (value.origin == Origin::kFile) {
      CHECK(read);
      CHECK(check_setting(setting, value.text) == value.text);
      CHECK(value.where.starts_with(path + ":"));
    } else {
      CHECK(value.text == before.text(setting));
    }
  }
  Limits limits;
  settings.apply_limits(limits);
  if (const Status settled = settle_settings(settings); !settled) {
    CHECK(settled.code() == Err::kForbidden || settled.code() == Err::kInvalidArgument);
  }
}

void run_json(std::string_view text) {
  const std::string path = "/c/config.json";
  const auto config = parse_config(text, path);
  if (!config) {
    CHECK(config.code() == Err::kMalformed && config.error().detail.starts_with(path + ": "));
    return;
  }
  const std::string written = config_text(*config);
  const auto again = parse_config(written, path);
  CHECK(again);
  CHECK_EQ(again->meshes.size(), config->meshes.size());
  for (std::size_t index = 0; index < config->meshes.size(); ++index) {
    const Mesh& one = config->meshes[index];
    const Mesh& other = again->meshes[index];
    CHECK(!one.mesh_id.empty() && !one.slug.empty() && one.pubkey.size() == 64);
    CHECK(one.mesh_id == other.mesh_id && one.member_id == other.member_id);
    CHECK(one.slug == other.slug && one.name == other.name && one.pubkey == other.pubkey);
    CHECK(one.secret_key == other.secret_key && one.broker_url == other.broker_url);
    CHECK(one.joined_at == other.joined_at);
  }
  CHECK_EQ(again->others.size(), config->others.size());
  CHECK(config_text(*again) == written);
}

}  // namespace
}  // namespace cm::cli

CM_FUZZ_TARGET(config) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    cm::cli::run_toml(text);
  } else {
    cm::cli::run_json(text);
  }
  return 0;
}
